//! Up to which stamp of the upstream everything is known.

use std::time::Duration;

use crate::clock::Timestamp;

/// How far a stamp may lie ahead of the upstream's own `Date`; one beyond that is a mistake (2099 is real) and counts as none.
pub const FUTURE_TOLERANCE: Duration = Duration::from_secs(300);

/// What a pass has seen so far. Kept in the pass's row, so that a resumed pass ends with the same watermark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassStamps {
    /// The highest believable stamp.
    pub highest: Option<Timestamp>,
    /// The `Date` of the pass's first response, if it had one.
    pub first_date: Option<Timestamp>,
    /// Whether a response was seen; the `Date` of a later one says nothing about rows read before it.
    pub begun: bool,
}

impl PassStamps {
    /// Takes in one response: its `Date` and the stamps of its rows.
    pub fn observe(&mut self, date: Option<Timestamp>, stamps: impl IntoIterator<Item = Timestamp>) {
        if !self.begun {
            self.begun = true;
            self.first_date = date;
        }
        // Without any clock of the upstream a stamp cannot be judged, but then there is no watermark either.
        let believable = date.or(self.first_date).map(|date| date.plus(FUTURE_TOLERANCE));
        let stamps = stamps.into_iter().filter(|stamp| believable.is_none_or(|limit| *stamp <= limit));
        self.highest = self.highest.max(stamps.max());
    }
}

/// The watermark of a *completed* pass: the highest stamp seen, but never above the `Date` of the pass's first response, and that
/// `Date` where no stamps were seen.
///
/// A walk by id takes minutes; a row that changes behind it has a stamp that rows read later may exceed. Only what is older than the
/// walk is known. Without a `Date` nothing is known and the old watermark stays (none): our own clock is no substitute.
#[must_use]
pub fn watermark(highest: Option<Timestamp>, first_date: Option<Timestamp>) -> Option<Timestamp> {
    let date = first_date?;
    Some(highest.map_or(date, |highest| highest.min(date)))
}

/// The watermark after a pass. It never goes back: what was known stays known, and a pass that saw only rows of the overlap would
/// otherwise pull it down a little each time.
#[must_use]
pub fn advance(before: Option<Timestamp>, pass: &PassStamps) -> Option<Timestamp> {
    before.max(watermark(pass.highest, pass.first_date))
}

/// From where the next pass asks, inclusive. The overlap is never shorter than `read_lag`, because a lagging list shows a change only
/// that much later; and the instant is cut down to a whole second, which is how finely upstreams filter.
#[must_use]
pub fn lower_bound(watermark: Timestamp, overlap: Duration, read_lag: Duration) -> Timestamp {
    let bound = watermark.minus(overlap.max(read_lag));
    Timestamp(bound.seconds().saturating_mul(1_000_000))
}

/// Whether a walk sorted by falling stamps may stop after this page: every row of it is older than the lower bound. A row without a
/// stamp may sort anywhere and proves nothing; an empty page neither.
#[must_use]
pub fn page_is_older(stamps: &[Option<Timestamp>], lower_bound: Timestamp) -> bool {
    !stamps.is_empty() && stamps.iter().all(|stamp| stamp.is_some_and(|stamp| stamp < lower_bound))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: Duration = Duration::from_secs(1);

    fn at(second: i64) -> Timestamp {
        Timestamp(second * 1_000_000)
    }

    #[test]
    fn it_is_the_lesser_of_highest_stamp_and_first_date() {
        assert_eq!(watermark(Some(at(5)), Some(at(9))), Some(at(5)));
        assert_eq!(watermark(Some(at(9)), Some(at(5))), Some(at(5)));
        assert_eq!(watermark(None, Some(at(5))), Some(at(5)), "no stamps");
        assert_eq!(watermark(Some(at(5)), None), None, "no clock of the upstream");
    }

    #[test]
    fn the_first_response_counts_and_a_stamp_from_the_future_counts_as_none() {
        let mut pass = PassStamps::default();
        pass.observe(Some(at(1_000)), [at(900), at(1_000 + 301)]);
        assert_eq!(pass.highest, Some(at(900)));
        pass.observe(Some(at(2_000)), [at(2_100)]);
        assert_eq!((pass.highest, pass.first_date), (Some(at(2_100)), Some(at(1_000))));
        let mut dateless = PassStamps::default();
        dateless.observe(None, [at(1)]);
        dateless.observe(Some(at(50)), [at(2)]);
        assert_eq!(advance(Some(at(7)), &dateless), Some(at(7)), "a later date says nothing about rows read before it");
    }

    #[test]
    fn it_never_goes_back() {
        let pass = PassStamps { highest: Some(at(5)), first_date: Some(at(20)), begun: true };
        assert_eq!(advance(Some(at(10)), &pass), Some(at(10)));
        assert_eq!(advance(None, &pass), Some(at(5)));
    }

    #[test]
    fn the_overlap_covers_the_lag_and_whole_seconds() {
        assert_eq!(lower_bound(Timestamp(100_900_000), S * 10, S), at(90));
        assert_eq!(lower_bound(at(100), S, S * 30), at(70));
        assert_eq!(lower_bound(Timestamp(-500_000), Duration::ZERO, Duration::ZERO), at(-1));
    }

    #[test]
    fn a_sorted_walk_stops_only_at_a_page_wholly_older() {
        assert!(page_is_older(&[Some(at(9)), Some(at(8))], at(10)));
        assert!(!page_is_older(&[Some(at(10)), Some(at(8))], at(10)), "the bound itself is inclusive");
        assert!(!page_is_older(&[Some(at(9)), None], at(10)));
        assert!(!page_is_older(&[], at(10)));
    }

    /// An upstream of numbered rows that change while a walk by id goes over them; list reads lag.
    struct Model {
        lag: i64,
        /// Each row's changes, as stamps in microseconds, ascending.
        changes: Vec<Vec<i64>>,
        known: Vec<i64>,
    }

    impl Model {
        fn visible(&self, row: usize, now: i64) -> i64 {
            let changes = &self.changes[row];
            changes.iter().rev().find(|stamp| **stamp + self.lag <= now).copied().unwrap_or(0)
        }

        /// One pass from `bound`, a row each `step`; returns what it saw and when it ended.
        fn walk(&mut self, bound: Option<Timestamp>, begin: i64, step: i64) -> (PassStamps, i64) {
            let mut pass = PassStamps::default();
            let mut now = begin;
            // The first response arrives even if it is empty.
            pass.observe(Some(Timestamp(now)), []);
            for row in 0..self.changes.len() {
                let stamp = self.visible(row, now);
                if bound.is_none_or(|bound| stamp >= bound.0) {
                    self.known[row] = stamp;
                    pass.observe(Some(Timestamp(now)), [Timestamp(stamp)]);
                    now += step;
                }
            }
            (pass, now)
        }
    }

    const ROWS: usize = 40;
    const STEP: i64 = 200_000;

    /// Walks four times while rows change during the first three, and returns how many rows are stale at the end.
    fn stale(changes: &[(usize, i64)], lag: i64, rule: fn(&PassStamps) -> Option<Timestamp>) -> usize {
        let mut model = Model { lag, changes: vec![vec![1]; ROWS], known: vec![0; ROWS] };
        for (row, stamp) in changes {
            model.changes[*row].push(*stamp);
        }
        model.changes.iter_mut().for_each(|stamps| stamps.sort_unstable());
        let overlap = Duration::from_micros(lag.unsigned_abs());
        let (mut mark, mut now) = (None, lag + 10_000_000);
        for pass in 0..4 {
            if pass == 3 {
                // Everything has happened and is visible when the last pass begins.
                now = now.max(changes.iter().map(|(_, stamp)| stamp + lag + 1).max().unwrap_or(0));
            }
            let bound = mark.map(|mark| lower_bound(mark, overlap, overlap));
            let (seen, end) = model.walk(bound, now, STEP);
            mark = mark.max(rule(&seen));
            now = end + 1_000_000;
        }
        (0..ROWS).filter(|row| model.known[*row] != model.visible(*row, i64::MAX - lag)).count()
    }

    fn right(pass: &PassStamps) -> Option<Timestamp> {
        watermark(pass.highest, pass.first_date)
    }

    fn naive(pass: &PassStamps) -> Option<Timestamp> {
        pass.highest
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn no_row_that_changes_behind_the_cursor_stays_stale(
            changes in prop::collection::vec((0..ROWS, 8_000_000_i64..40_000_000), 0..120),
            lag in 0_i64..3_000_000,
        ) {
            prop_assert_eq!(stale(&changes, lag, right), 0);
        }
    }

    #[test]
    fn the_model_sees_the_naive_rule_lose_rows() {
        // Row 1 changes behind the cursor, then the last row changes ahead of it and is read with the higher stamp.
        let changes = [(1, 13_000_000), (ROWS - 1, 16_000_000)];
        assert_eq!(stale(&changes, 0, naive), 1);
        assert_eq!(stale(&changes, 0, right), 0);
    }
}
