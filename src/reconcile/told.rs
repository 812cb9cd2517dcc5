//! Which ways told of a change, and whether deliveries should have and did not.
//!
//! A way *told* of a change by its first statement about the record that came no earlier than the upstream's stamp of the change, less
//! [`Terms::slack`], and no later than [`Terms::within`] after we had learned of it. A page of a pass tells of what it shows, and so does a
//! read that no statement had asked for (`read`). A statement that comes after the record has changed again is taken for one about the
//! later change: of records that change more often than their events are late it is the loss that is overstated, not the delay.
//!
//! A change is *missed* when no delivery told of it although it is that old, and a pass showed it or a feed told of it. Changes without a
//! stamp that only a pass showed are not judged: nobody knows when they happened, nor whether the upstream announces them at all. What
//! is doubtful counts as told: a wrong alarm costs passes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Timestamp;

const FEED: &str = "feed";
const PASS: &str = "pass";
const READ: &str = "read";

/// When which way spoke of a record: by way, the instants of each in their order.
pub type Statements = BTreeMap<String, Vec<Timestamp>>;

/// When and how the replica learned an effective change of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// When it was applied here.
    pub at: Timestamp,
    /// The upstream's own stamp of the state, by its clock.
    pub stamp: Option<Timestamp>,
    /// By what it was learned: `instep_changes.learned_by`.
    pub by: String,
}

/// By what it is judged whether a statement is about a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What comes later than this after we had learned of a change is not about it.
    pub within: Duration,
    /// Nor what came so much earlier than its stamp, for clocks differ and stamps are cut.
    pub slack: Duration,
    /// Nor what came so long before we had learned of a change without a stamp.
    pub unstamped: Duration,
    /// Nor what came so long before we had learned of it, whatever its stamp is.
    pub horizon: Duration,
    /// How far the upstream's clock is ahead of ours, in microseconds.
    pub ahead_us: i64,
}

impl Terms {
    /// When a change happened, by our clock. A stamp that is then ahead of us is by some other clock, and says nothing.
    fn happened(&self, change: &Learned) -> Option<Timestamp> {
        let stamp = change.stamp.map(|stamp| Timestamp(stamp.0.saturating_sub(self.ahead_us)));
        stamp.filter(|stamp| *stamp <= change.at)
    }

    /// From when until when what is said of the record may be about the change.
    #[must_use]
    pub fn span(&self, change: &Learned) -> (Timestamp, Timestamp) {
        let from = self.happened(change).map_or_else(|| change.at.minus(self.unstamped), |stamp| stamp.minus(self.slack));
        (from.max(change.at.minus(self.horizon)), change.at.plus(self.within))
    }
}

/// A change, and who told of it when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The change.
    pub change: Learned,
    /// When each way first told of it, by our clock.
    pub ways: BTreeMap<String, Timestamp>,
}

impl Told {
    /// By what was said of its record.
    #[must_use]
    pub fn by(change: Learned, said: &Statements, terms: &Terms) -> Self {
        let (from, until) = terms.span(&change);
        let first = |instants: &[Timestamp]| {
            let at = instants.get(instants.partition_point(|at| *at < from)).copied();
            at.filter(|at| *at <= until)
        };
        let mut ways: BTreeMap<String, Timestamp> =
            said.iter().filter_map(|(way, instants)| Some((way.clone(), first(instants)?))).collect();
        let shown = match change.by.as_str() {
            "pass" => Some(PASS),
            "refresh" => Some(READ),
            "mark" if ways.is_empty() => Some(READ),
            _ => None,
        };
        ways.extend(shown.map(|way| (way.to_owned(), change.at)));
        Self { change, ways }
    }

    /// Whether this way is one by which deliveries come.
    #[must_use]
    pub fn is_hook(way: &str) -> bool {
        !matches!(way, FEED | PASS | READ)
    }

    /// When a delivery first told of it.
    #[must_use]
    pub fn hooked_at(&self) -> Option<Timestamp> {
        self.ways.iter().filter(|(way, _)| Self::is_hook(way)).map(|(_, at)| *at).min()
    }

    /// Since when the change is missed; `None`: it was told, or is not judged. To be asked once everything is known that was said up to
    /// [`Terms::within`] after it. `live_since`: from when on deliveries are to tell of such changes.
    #[must_use]
    pub fn missed(&self, live_since: Timestamp, terms: &Terms) -> Option<Timestamp> {
        let stamp = terms.happened(&self.change);
        let happened = stamp.unwrap_or(self.change.at);
        let is_known = happened >= live_since && happened.minus(terms.slack) >= self.change.at.minus(terms.horizon);
        let is_shown = self.ways.contains_key(FEED) || (self.ways.contains_key(PASS) && self.change.stamp.is_some());
        (is_known && is_shown && self.hooked_at().is_none()).then_some(happened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Duration = Duration::from_secs(300);
    /// As silence is judged.
    const TERMS: Terms =
        Terms { within: LATE, slack: LATE, unstamped: Duration::from_secs(600), horizon: Duration::from_secs(3600), ahead_us: 0 };

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    /// A change that was learned then, of what is said of its record then, by ways.
    fn told(learned: i64, stamp: Option<i64>, by: &str, said: &[(i64, &str)], terms: &Terms) -> Told {
        let change = Learned { at: at(learned), stamp: stamp.map(at), by: by.to_owned() };
        let mut statements = Statements::new();
        for (seconds, way) in said {
            statements.entry((*way).to_owned()).or_default().push(at(*seconds));
        }
        Told::by(change, &statements, terms)
    }

    /// Of a source that is live since 1000.
    fn missed(learned: i64, stamp: Option<i64>, by: &str, said: &[(i64, &str)]) -> Option<Timestamp> {
        told(learned, stamp, by, said, &TERMS).missed(at(1000), &TERMS)
    }

    #[test]
    fn what_a_pass_shows_and_no_delivery_told_is_missed() {
        let shown = |said| missed(2100, Some(2000), "pass", said);
        assert_eq!(shown(&[]), Some(at(2000)));
        assert_eq!(shown(&[(2001, "hook")]), None);
        assert_eq!(shown(&[(2400, "hook")]), None, "a delivery that is late, but not too late");
        assert_eq!(shown(&[(2401, "hook")]), Some(at(2000)), "too late");
        assert_eq!(shown(&[(1699, "hook")]), Some(at(2000)), "of the change before");
        assert_eq!(shown(&[(1700, "hook")]), None, "the upstream's clock may be ahead");
    }

    #[test]
    fn what_a_feed_tells_and_no_delivery_told_is_missed() {
        let read = |said| missed(2100, None, "mark", said);
        assert_eq!(read(&[(2099, "feed")]), Some(at(2100)));
        assert_eq!(read(&[(2099, "feed"), (2150, "hook")]), None);
        assert_eq!(read(&[(2130, "feed"), (2090, "hook")]), None, "the delivery first, the feed after it");
        assert_eq!(read(&[]), None, "an operator's read, or a cascade");
    }

    #[test]
    fn what_nobody_can_know_is_not_judged() {
        assert_eq!(missed(2100, None, "pass", &[]), None, "a removal that a sweep found has no stamp");
        assert_eq!(missed(2100, Some(900), "pass", &[]), None, "before the webhooks were made");
        assert_eq!(missed(2100, Some(9000), "pass", &[]), Some(at(2100)), "a clock ahead of ours says when it happened by nothing");
        assert_eq!(missed(6000, Some(2699), "pass", &[]), None, "beyond the horizon");
        assert_eq!(missed(6000, Some(2700), "pass", &[]), Some(at(2700)));
    }

    /// As delays are measured.
    fn ways(learned: i64, stamp: Option<i64>, by: &str, said: &[(i64, &str)], ahead_us: i64) -> Vec<(String, i64)> {
        let (hour, slack) = (Duration::from_secs(3600), Duration::from_secs(1));
        let terms = Terms { within: LATE, slack, unstamped: hour, horizon: hour, ahead_us };
        let told = told(learned, stamp, by, said, &terms);
        told.ways.into_iter().map(|(way, at)| (way, at.0 / 1_000_000)).collect()
    }

    fn named<const N: usize>(ways: [(&str, i64); N]) -> Vec<(String, i64)> {
        ways.map(|(way, at)| (way.to_owned(), at)).to_vec()
    }

    #[test]
    fn each_way_tells_by_its_first_statement_after_the_stamp() {
        let said = [(90, "hook"), (103, "hook"), (105, "feed"), (108, "hook")];
        assert_eq!(ways(106, Some(100), "mark", &said, 0), named([("feed", 105), ("hook", 103)]));
        assert_eq!(ways(106, Some(3_700), "mark", &said, 3_600_000_000), named([("feed", 105), ("hook", 103)]), "by their clock");
    }

    #[test]
    fn a_delivery_may_come_after_a_pass_has_shown_it_but_not_for_ever() {
        assert_eq!(ways(106, Some(100), "pass", &[(300, "hook")], 0), named([("hook", 300), ("pass", 106)]));
        assert_eq!(ways(106, Some(100), "pass", &[(500, "hook")], 0), named([("pass", 106)]));
    }

    #[test]
    fn what_nobody_told_was_found_by_a_read() {
        assert_eq!(ways(106, Some(100), "mark", &[], 0), named([("read", 106)]));
        assert_eq!(ways(106, None, "refresh", &[], 0), named([("read", 106)]));
    }
}
