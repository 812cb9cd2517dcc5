use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// A log whose number `n` is made at time `n`, but for one pause, and becomes visible some time later. Each request takes time.
#[derive(Clone, Debug)]
struct Model {
    /// How much later each number becomes visible; `None`: never.
    late: Vec<Option<i64>>,
    /// From this number on they are made so much later.
    pause: (i64, i64),
    /// Rows per page whatever is asked.
    cap: usize,
    /// Whether pages say that there are more.
    links: bool,
    /// How long each request takes, in turn.
    pace: Vec<i64>,
    now: i64,
    requests: usize,
    seen: BTreeSet<i64>,
}

/// Moves further than to the ceiling: the mistake of trusting the last page of several.
type Cursor = fn(LogPosition, highest: Option<i64>) -> LogPosition;

impl Model {
    fn visible(&self) -> impl DoubleEndedIterator<Item = i64> {
        let made_at = |n: i64| if n < self.pause.0 { n } else { n + self.pause.1 };
        let is_there = |(n, late): (i64, &Option<i64>)| late.filter(|late| made_at(n) + late <= self.now).map(|_| n);
        (0_i64..).zip(&self.late).filter_map(is_there).collect::<Vec<_>>().into_iter()
    }

    fn pass_time(&mut self) {
        self.now += self.pace[self.requests % self.pace.len()];
        self.requests += 1;
    }

    fn page(&mut self, after: i64, asked: usize) -> LogPage {
        let above: Vec<i64> = self.visible().filter(|n| *n > after).collect();
        let rows = above.len().min(asked).min(self.cap);
        self.seen.extend(&above[..rows]);
        self.pass_time();
        LogPage { asked, rows, highest: above[..rows].last().copied(), more: self.links && rows < above.len() }
    }

    fn newest(&mut self) -> Option<i64> {
        let newest = self.visible().next_back();
        self.pass_time();
        newest
    }

    /// One poll, however many pages.
    fn poll(&mut self, mut at: LogPosition, overlap: u64, asked: usize, widest: &mut usize, cursor: Cursor) -> LogPosition {
        loop {
            let page = self.page(at.after(overlap), asked);
            let before = *widest;
            *widest = before.max(page.rows);
            match at.turn(overlap, &page, before) {
                LogTurn::On(to) => at = to,
                LogTurn::Done { to, .. } => return cursor(to, page.highest),
                LogTurn::Probe => {
                    let newest = self.newest();
                    match at.probed(overlap, &page, newest) {
                        LogProbe::Walk(to) => at = to,
                        LogProbe::Done(to) => return to,
                        LogProbe::Restarted(to) => panic!("{at:?} to {to:?}: it never began anew"),
                    }
                }
            }
        }
    }

    /// Polls while the log grows and until nothing moves any more; the visible numbers that no poll met.
    fn missed(mut self, overlap: u64, asked: usize, cursor: Cursor) -> Vec<i64> {
        let (mut at, mut widest) = (LogPosition::at(None), 0);
        let end = self.late.len() as i64 + self.pause.1 + overlap as i64;
        while self.now <= end {
            self.pass_time();
            at = self.poll(at, overlap, asked, &mut widest, cursor);
        }
        for _ in 0..self.late.len() + 2 {
            at = self.poll(at, overlap, asked, &mut widest, cursor);
        }
        let visible: BTreeSet<i64> = self.visible().collect();
        assert_eq!(at.high, visible.last().copied().unwrap_or(-1), "it stands at the end");
        visible.difference(&self.seen).copied().collect()
    }
}

fn right(to: LogPosition, _: Option<i64>) -> LogPosition {
    to
}

fn naive(to: LogPosition, highest: Option<i64>) -> LogPosition {
    LogPosition::at(Some(to.high.max(highest.unwrap_or(-1))))
}

fn model(late: Vec<Option<i64>>, cap: usize, links: bool, pace: Vec<i64>) -> Model {
    Model { late, pause: (0, 0), cap, links, pace, now: 0, requests: 0, seen: BTreeSet::new() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn no_number_that_becomes_visible_within_the_overlap_is_missed(
        overlap in 0_u64..30,
        late in prop::collection::vec(prop::option::weighted(0.8, 0_i64..30), 0..200),
        (asked, cap) in (1_usize..60, 1_usize..60),
        links: bool,
        pace in prop::collection::vec(1_i64..40, 1..8),
        pause in (0_i64..200, 0_i64..400),
    ) {
        let late = late.into_iter().map(|late| late.map(|late| late.min(overlap as i64))).collect();
        let model = Model { pause, ..model(late, cap, links, pace) };
        prop_assert_eq!(model.missed(overlap, asked, right), Vec::<i64>::new());
    }
}

#[test]
fn the_model_sees_a_poll_of_several_pages_that_trusts_its_last_one_lose_numbers() {
    // Number 8 is late; the walk passes it, and the log grows by more than the overlap before the walk ends.
    let mut late = vec![Some(0); 200];
    late[8] = Some(5);
    let model = model(late, 60, true, vec![12, 12, 12, 0, 40, 40]);
    let lost = |cursor| {
        let mut model = model.clone();
        let mut at = LogPosition { high: 2, walk: Some(LogWalk { after: 0, ceiling: 11 }) };
        model.now = 12;
        for (number, late) in model.late.iter_mut().enumerate() {
            // All but the late one are visible at once.
            *late = if number == 8 { Some(10) } else { late.map(|_| -200) };
        }
        for _ in 0..60 {
            at = model.poll(at, 5, 9, &mut 0, cursor);
        }
        !model.seen.contains(&8)
    };
    assert!(lost(naive) && !lost(right));
}

#[test]
fn a_first_page_that_may_have_been_cut_is_compared_with_the_newest_number() {
    let at = LogPosition::at(Some(50));
    let page = LogPage { asked: 100, rows: 20, highest: Some(50), more: false };
    assert_eq!(at.turn(20, &page, 20), LogTurn::Probe, "so may the widest have been");
    assert_eq!(at.turn(20, &page, 21), LogTurn::Done { to: at, caught_up: true }, "no cap is that low");
    assert_eq!(at.turn(20, &LogPage { more: true, ..page }, 21), LogTurn::Probe, "it says that there is more");
    assert_eq!(at.turn(20, &LogPage { highest: Some(49), ..page }, 21), LogTurn::Probe, "it stood at 50");
    assert_eq!(at.probed(20, &page, Some(50)), LogProbe::Done(at));
    let walk = LogPosition { walk: Some(LogWalk { after: 29, ceiling: 51 }), ..at };
    assert_eq!(at.probed(20, &page, Some(51)), LogProbe::Walk(walk));
}

#[test]
fn an_empty_log_is_waited_for_and_one_that_begins_lower_has_begun_anew() {
    let none = LogPage { asked: 100, rows: 0, highest: None, more: false };
    let unborn = LogPosition::at(None);
    assert_eq!(unborn.turn(20, &none, 0), LogTurn::Done { to: unborn, caught_up: true });
    let at = LogPosition::at(Some(50));
    assert_eq!(at.turn(20, &none, 0), LogTurn::Probe);
    assert_eq!(at.probed(20, &none, None), LogProbe::Done(at), "emptied: it may go on above");
    assert_eq!(at.probed(20, &none, Some(29)), LogProbe::Restarted(LogPosition::at(Some(29))));
    let last = LogPage { rows: 1, highest: Some(50), ..none };
    assert_eq!(at.probed(0, &last, Some(50)), LogProbe::Done(at), "without an overlap the last is asked for all the same");
}

#[test]
fn after_a_pause_numbers_far_above_are_no_restart() {
    let at = LogPosition::at(Some(50));
    let page = LogPage { asked: 100, rows: 1, highest: Some(9_000), more: false };
    assert_eq!(at.turn(20, &page, 2), LogTurn::Done { to: LogPosition::at(Some(9_000)), caught_up: true });
}

#[test]
fn what_a_server_shows_below_the_bound_moves_nothing() {
    let at = LogPosition { high: 50, walk: Some(LogWalk { after: 60, ceiling: 90 }) };
    let page = LogPage { asked: 3, rows: 3, highest: Some(60), more: true };
    assert_eq!(at.turn(20, &page, 0), LogTurn::Done { to: LogPosition::at(Some(60)), caught_up: true });
}

#[test]
fn a_number_is_shown_once_however_often_the_overlap_shows_it() {
    let mut shown = LogShown::at(&LogPosition::at(Some(50)));
    assert_eq!([49, 50, 51].map(|number| shown.is_news(number)), [false, false, true], "an earlier process saw what lies below");
    shown.note([48, 51, 53], 10);
    assert_eq!([51, 52, 53].map(|number| shown.is_news(number)), [false, true, false], "52 becomes visible late");
    shown.note([52, 54], 2);
    assert_eq!([52, 53, 54, 55].map(|number| shown.is_news(number)), [false, false, false, true], "and no more than two are remembered");
    assert_eq!(shown, LogShown { below: 52, numbers: BTreeSet::from([53, 54]) });
}
