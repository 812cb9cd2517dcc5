//! How late each way told of the changes, and which it never told: out of the log of events and the changes, in the order of time.
//!
//! A *change* is a row of `instep_changes`; its instant is the upstream's own stamp of the state, where it has one. A way *told* of it by
//! its first statement about the record that was received no earlier than that stamp (and at most [`WINDOW`] before we learned of the
//! change), and at most a given time after we had learned of it. A page of a pass tells of what it shows first, and so does a read that
//! nobody had asked for by an event (`read`). A statement that comes after the record has changed again is taken for one about the
//! later change, so of records that change more often than their events are late it is the loss that is overstated, not the delay.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use sea_orm::sea_query::{Expr, ExprTrait, Order, Query};
use sea_orm::{ConnectionTrait, FromQueryResult};

use crate::clock::Timestamp;
use crate::model::SourceName;
use crate::store::connect::Store;
use crate::store::coverage::{PAGE, Position, Said};
use crate::store::error::Error;
use crate::store::sql::of_source;

/// A statement further before a change than this is about another one.
pub const WINDOW: Duration = Duration::from_secs(3_600);
/// Stamps may be cut to seconds, and the clocks' distance is known within less than that.
const TOLERANCE: i64 = 1_000_000;
/// Statements of one record that are remembered.
const RECENT_EACH: usize = 64;
/// Records of which statements are remembered; beyond it the oldest are forgotten.
const RECENT_MAX: usize = 100_000;
/// Delays of one way that a distribution is made of; later ones are counted and left out of it.
const DELAYS_MAX: usize = 500_000;
/// Fewer samples than this say little of a tail.
pub const ENOUGH: usize = 100;

/// A change, and who told of it when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Of which resource.
    pub resource: String,
    /// The upstream's stamp of the state.
    pub upstream_at: Option<Timestamp>,
    /// When it was applied here.
    pub at: Timestamp,
    /// When each way first told of it, by our clock.
    pub ways: BTreeMap<String, Timestamp>,
}

impl Told {
    /// Whether this way is one by which deliveries come.
    #[must_use]
    pub fn is_hook(way: &str) -> bool {
        !matches!(way, "feed" | "pass" | "read")
    }

    /// When a delivery first told of it.
    #[must_use]
    pub fn hooked_at(&self) -> Option<Timestamp> {
        self.ways.iter().filter(|(way, _)| Self::is_hook(way)).map(|(_, at)| *at).min()
    }
}

/// How late and how lossy the ways of a source are.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Delays {
    /// Changes since then.
    pub changes: u64,
    /// Of them without a stamp of the upstream (removals): they count for what was told, not for how late.
    pub unstamped: u64,
    /// Every stamp is a whole second: delays may be up to one longer than they were.
    pub whole_seconds: bool,
    /// By way.
    pub ways: BTreeMap<String, Way>,
}

/// One way of learning.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Way {
    /// Changes it told of.
    pub told: u64,
    /// Of all changes, those it told of first.
    pub first_percent: f64,
    /// Of all changes, those it never told of.
    pub never_percent: f64,
    /// Delays that the rest is made of.
    pub n: usize,
    /// Fewer than a hundred: a tail of so few means little.
    pub few: bool,
    /// Seconds from the upstream's stamp to our having it: of half the changes at most.
    pub p50: f64,
    /// Of nine in ten.
    pub p90: f64,
    /// Of 99 in 100.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// Puts delays together.
#[derive(Debug, Default)]
pub struct Tally {
    changes: u64,
    unstamped: u64,
    subsecond: bool,
    ways: BTreeMap<String, (u64, u64, Vec<i64>)>,
}

impl Tally {
    /// Counts a change; `ahead_us`: how far the upstream's clock is ahead of ours.
    pub fn count(&mut self, told: &Told, ahead_us: i64) {
        self.changes += 1;
        self.unstamped += u64::from(told.upstream_at.is_none());
        self.subsecond |= told.upstream_at.is_some_and(|at| at.0 % 1_000_000 != 0);
        let first = told.ways.values().min().copied();
        for (way, at) in &told.ways {
            let (n, n_first, delays) = self.ways.entry(way.clone()).or_default();
            *n += 1;
            *n_first += u64::from(Some(*at) == first);
            if let Some(stamp) = told.upstream_at.filter(|_| delays.len() < DELAYS_MAX) {
                delays.push(at.0 + ahead_us - stamp.0);
            }
        }
    }

    /// The figures.
    #[must_use]
    pub fn end(self) -> Delays {
        let percent = |n: u64| (n * 10_000 / Ord::max(self.changes, 1)) as f64 / 100.0;
        let way = |(told, first, mut delays): (u64, u64, Vec<i64>)| {
            delays.sort_unstable();
            let at = |per_cent: usize| delays.get((delays.len() * per_cent).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0);
            let seconds = |micros: i64| micros as f64 / 1e6;
            Way {
                told,
                first_percent: percent(first),
                never_percent: percent(self.changes - told),
                n: delays.len(),
                few: delays.len() < ENOUGH,
                p50: seconds(at(50)),
                p90: seconds(at(90)),
                p99: seconds(at(99)),
                max: seconds(at(100)),
            }
        };
        Delays {
            changes: self.changes,
            unstamped: self.unstamped,
            whole_seconds: self.changes > self.unstamped && !self.subsecond,
            ways: self.ways.into_iter().map(|(name, figures)| (name, way(figures))).collect(),
        }
    }
}

/// What the walk through events and changes has in hand.
#[derive(Debug)]
struct Listening {
    within: i64,
    ahead_us: i64,
    recent: HashMap<(String, String), VecDeque<(i64, String)>>,
    open: HashMap<(String, String), Vec<Told>>,
}

impl Listening {
    fn is_about(&self, told: &Told, said_at: i64) -> bool {
        let stamp = told.upstream_at.map_or(i64::MIN, |at| at.0 - TOLERANCE - self.ahead_us);
        said_at >= Ord::max(stamp, told.at.0 - micros(WINDOW)) && said_at <= told.at.0.saturating_add(self.within)
    }

    fn event(&mut self, said: Said) {
        let Some(via) = said.via else { return };
        let entity = (said.resource, said.key);
        let mut open = self.open.remove(&entity).unwrap_or_default();
        for told in &mut open {
            if self.is_about(told, said.at) {
                told.ways.entry(via.clone()).or_insert(Timestamp(said.at));
            }
        }
        if !open.is_empty() {
            self.open.insert(entity.clone(), open);
        }
        let recent = self.recent.entry(entity).or_default();
        recent.push_back((said.at, via));
        if recent.len() > RECENT_EACH {
            recent.pop_front();
        }
    }

    fn change(&mut self, row: ChangeRow) {
        let ChangeRow { resource, key, at, upstream_at, learned_by, .. } = row;
        let mut told = Told { resource, upstream_at: upstream_at.map(Timestamp), at: Timestamp(at), ways: BTreeMap::new() };
        let entity = (told.resource.clone(), key);
        for (said_at, via) in self.recent.get(&entity).into_iter().flatten() {
            if self.is_about(&told, *said_at) {
                told.ways.entry(via.clone()).or_insert(Timestamp(*said_at));
            }
        }
        match learned_by.as_str() {
            "pass" => drop(told.ways.insert("pass".to_owned(), told.at)),
            "refresh" => drop(told.ways.insert("read".to_owned(), told.at)),
            "mark" if told.ways.is_empty() => drop(told.ways.insert("read".to_owned(), told.at)),
            _ => {}
        }
        self.open.entry(entity).or_default().push(told);
    }

    /// Gives out what nothing can join any more, and forgets what cannot join anything.
    fn tidy(&mut self, now: i64, each: &mut impl FnMut(Told)) {
        let ended = now.saturating_sub(self.within);
        self.open.retain(|_, open| {
            open.extract_if(.., |told| told.at.0 < ended).for_each(&mut *each);
            !open.is_empty()
        });
        let old = now.saturating_sub(micros(WINDOW));
        self.recent.retain(|_, said| said.back().is_some_and(|(at, _)| *at >= old));
        if self.recent.len() > RECENT_MAX {
            let mut newest: Vec<i64> = self.recent.values().filter_map(|said| Some(said.back()?.0)).collect();
            newest.sort_unstable();
            let from = newest[newest.len() - RECENT_MAX / 2];
            self.recent.retain(|_, said| said.back().is_some_and(|(at, _)| *at >= from));
        }
    }
}

impl Store {
    /// Walks the changes applied from `from` until `until`, each with who told of it up to `within` after it was.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn walk_told(
        &self,
        source: &SourceName,
        (from, until): (Timestamp, Timestamp),
        (within, ahead_us): (Duration, i64),
        mut each: impl FnMut(Told),
    ) -> Result<(), Error> {
        let within = micros(within);
        let mut listening = Listening { within, ahead_us, recent: HashMap::new(), open: HashMap::new() };
        let (mut events, mut changes) = (Vec::new(), Vec::new());
        let mut event_at = Some((from.0 - micros(WINDOW), i64::MIN));
        let mut change_at = Some((from.0, i64::MIN));
        let mut heard = 0_u64;
        loop {
            if let (true, Some(at)) = (events.is_empty(), event_at) {
                (events, event_at) = self.events_page(source, at).await?;
                let is_over = |said: &Said| said.at > until.0.saturating_add(within);
                if events.first().is_some_and(is_over) {
                    event_at = None;
                }
                events.retain(|said| !is_over(said));
            }
            if let (true, Some(at)) = (changes.is_empty(), change_at) {
                (changes, change_at) = self.told_page(source, at, until).await?;
            }
            heard += 1;
            // Both pages stand with their oldest row last.
            let (event, change) = (events.last().map(|said: &Said| said.at), changes.last().map(|row: &ChangeRow| row.at));
            let now = match (event, change) {
                (None, None) if event_at.is_none() && change_at.is_none() => break,
                (None, None) => continue,
                (Some(event), Some(change)) if change < event => change,
                (Some(event), _) => event,
                (None, Some(change)) => change,
            };
            if event == Some(now) {
                events.pop().into_iter().for_each(|said| listening.event(said));
            } else {
                changes.pop().into_iter().for_each(|row| listening.change(row));
            }
            if heard.is_multiple_of(PAGE) {
                listening.tidy(now, &mut each);
            }
        }
        listening.tidy(i64::MAX, &mut each);
        Ok(())
    }

    async fn told_page(&self, source: &SourceName, from: Position, until: Timestamp) -> Result<(Vec<ChangeRow>, Option<Position>), Error> {
        let mut select = Query::select();
        select.columns(["resource", "key", "at", "number", "upstream_at", "learned_by"]).from("instep_change").and_where(of_source(source));
        select.and_where(Expr::col("at").gte(from.0)).and_where(Expr::col("at").gt(from.0).or(Expr::col("number").gt(from.1)));
        select.and_where(Expr::col("at").lt(until.0));
        select.order_by("at", Order::Asc).order_by("number", Order::Asc).limit(PAGE);
        let rows = self.reader().query_all(&select).await?;
        let mut rows = rows.iter().map(|row| Ok(ChangeRow::from_query_result(row, "")?)).collect::<Result<Vec<_>, Error>>()?;
        let next = rows.last().filter(|_| rows.len() as u64 == PAGE).map(|row| (row.at, row.number));
        rows.reverse();
        Ok((rows, next))
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

#[derive(Debug, FromQueryResult)]
struct ChangeRow {
    at: i64,
    number: i64,
    resource: String,
    key: String,
    upstream_at: Option<i64>,
    learned_by: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    enum Heard {
        Event(i64, &'static str),
        Change(i64, Option<i64>, &'static str),
    }

    fn listen(heard: &[Heard], ahead_us: i64) -> Vec<Told> {
        let mut listening = Listening { within: 300 * SECOND, ahead_us, recent: HashMap::new(), open: HashMap::new() };
        for one in heard {
            match one {
                Heard::Event(at, via) => listening.event(Said {
                    at: at * SECOND,
                    resource: "tasks".into(),
                    key: "1".into(),
                    operation: "update".into(),
                    via: Some((*via).into()),
                    delivery: None,
                }),
                Heard::Change(at, stamp, by) => listening.change(ChangeRow {
                    at: at * SECOND,
                    number: 1,
                    resource: "tasks".into(),
                    key: "1".into(),
                    upstream_at: stamp.map(|stamp| stamp * SECOND),
                    learned_by: (*by).into(),
                }),
            }
        }
        let mut found = Vec::new();
        listening.tidy(i64::MAX, &mut |told| found.push(told));
        found.sort_by_key(|told| told.at);
        found
    }

    fn ways(told: &Told) -> Vec<(&str, i64)> {
        told.ways.iter().map(|(way, at)| (way.as_str(), at.0 / SECOND)).collect()
    }

    #[test]
    fn each_way_tells_by_its_first_statement_after_the_stamp() {
        use Heard::{Change, Event};
        let found =
            listen(&[Event(90, "hook"), Event(103, "hook"), Event(105, "feed"), Change(106, Some(100), "mark"), Event(108, "hook")], 0);
        assert_eq!(ways(&found[0]), [("feed", 105), ("hook", 103)]);
    }

    #[test]
    fn a_delivery_may_come_after_a_pass_has_shown_it_but_not_for_ever() {
        use Heard::{Change, Event};
        let late = listen(&[Change(106, Some(100), "pass"), Event(300, "hook")], 0);
        assert_eq!(ways(&late[0]), [("hook", 300), ("pass", 106)]);
        assert_eq!(late[0].hooked_at(), Some(Timestamp(300 * SECOND)));
        let never = listen(&[Change(106, Some(100), "pass"), Event(500, "hook")], 0);
        assert_eq!((ways(&never[0]), never[0].hooked_at()), (vec![("pass", 106)], None));
    }

    #[test]
    fn what_nobody_told_was_found_by_a_read() {
        use Heard::Change;
        assert_eq!(ways(&listen(&[Change(106, Some(100), "mark")], 0)[0]), [("read", 106)]);
        assert_eq!(ways(&listen(&[Change(106, None, "refresh")], 0)[0]), [("read", 106)]);
    }

    #[test]
    fn stamps_are_of_the_upstreams_clock() {
        use Heard::{Change, Event};
        let ahead = 3_600 * SECOND;
        let found = listen(&[Event(103, "hook"), Change(106, Some(3_700), "mark")], ahead);
        assert_eq!(ways(&found[0]), [("hook", 103)]);
        let mut tally = Tally::default();
        tally.count(&found[0], ahead);
        let delays = tally.end();
        assert_eq!((delays.ways["hook"].p50, delays.ways["hook"].few, delays.whole_seconds), (3.0, true, true));
    }

    #[test]
    fn the_figures_are_those_of_the_samples() {
        let mut tally = Tally::default();
        for n in 1..=200_i64 {
            let mut ways = BTreeMap::from([("pass".to_owned(), Timestamp(500 * SECOND))]);
            if n % 4 > 0 {
                ways.insert("hook".to_owned(), Timestamp(n * SECOND / 2));
            }
            tally.count(&Told { resource: "tasks".into(), upstream_at: Some(Timestamp(0)), at: Timestamp(0), ways }, 0);
        }
        let delays = tally.end();
        let hook = &delays.ways["hook"];
        assert_eq!((hook.n, hook.few, hook.max), (150, false, 99.5));
        assert!((hook.p50 - 50.0).abs() < 1.0 && (hook.p90 - 90.0).abs() < 1.0 && (hook.p99 - 99.0).abs() < 1.0, "{hook:?}");
        assert_eq!((hook.first_percent, hook.never_percent), (75.0, 25.0));
        assert_eq!((delays.ways["pass"].first_percent, delays.ways["pass"].never_percent), (25.0, 0.0));
    }
}
