//! Whether webhooks are lost in silence: changes that a feed or a pass showed, and of which no delivery told.
//!
//! A change is *told* when a delivery spoke of its record between the change's stamp (less [`Terms::late`], for clocks differ) and
//! [`Terms::late`] after we learned of it. It is *missed* when it is that old, nothing told it, and it was learned from a pass, or a feed
//! spoke of its record about then. Changes without a stamp that only a pass showed are not judged: nobody knows when they happened, nor
//! whether the upstream announces them at all. What is doubtful counts as told: a wrong alarm costs passes.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::clock::Timestamp;

/// Records of which statements are remembered; beyond it the older half is forgotten, and what rests on it is not judged.
const ENTITIES_MAX: usize = 100_000;
/// Statements remembered of one record and way: the latest.
const STATEMENTS_MAX: usize = 16;

/// By what changes are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// A delivery that comes later than this counts as lost.
    pub late: Duration,
    /// How far back statements are remembered: older changes are not judged.
    pub horizon: Duration,
}

/// An effective change of a record, as the replica learned it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned<R> {
    /// Of which record.
    pub record: R,
    /// When we learned it.
    pub at: Timestamp,
    /// When it happened upstream, by the record's own stamp.
    pub stamp: Option<Timestamp>,
    /// A page of a pass showed it.
    pub by_pass: bool,
}

/// What was said of records, and by which way.
#[derive(Debug)]
pub struct Ledger<R> {
    terms: Terms,
    /// From when on every statement is known.
    since: Timestamp,
    records: HashMap<R, Said>,
}

#[derive(Debug, Default)]
struct Said {
    hooks: Vec<Timestamp>,
    feeds: Vec<Timestamp>,
}

impl Said {
    fn latest(&self) -> Timestamp {
        self.hooks.last().max(self.feeds.last()).copied().unwrap_or(Timestamp(i64::MIN))
    }
}

impl<R: Hash + Eq> Ledger<R> {
    /// A ledger that hears every statement from an instant on.
    #[must_use]
    pub fn new(terms: Terms, since: Timestamp) -> Self {
        Self { terms, since, records: HashMap::new() }
    }

    /// A statement about a record, in the order of time.
    pub fn hear(&mut self, record: R, at: Timestamp, by_feed: bool) {
        let said = self.records.entry(record).or_default();
        let statements = if by_feed { &mut said.feeds } else { &mut said.hooks };
        if statements.len() == STATEMENTS_MAX {
            statements.remove(0);
        }
        statements.push(at);
    }

    /// Forgets what no change can rest on any more.
    pub fn forget(&mut self, now: Timestamp) {
        self.since = self.since.max(now.minus(self.terms.horizon));
        if self.records.len() > ENTITIES_MAX {
            let mut latest: Vec<Timestamp> = self.records.values().map(Said::latest).collect();
            latest.sort_unstable();
            let dropped = latest[latest.len().saturating_sub(ENTITIES_MAX / 2)];
            self.since = self.since.max(dropped.plus(Duration::from_micros(1)));
        }
        let since = self.since;
        self.records.retain(|_, said| said.latest() >= since);
    }

    /// Since when a change is missed; `None`: it was told, or is not judged. To be asked once every statement up to [`Terms::late`] after it
    /// was heard. `live_since`: from when on deliveries are to tell of such changes.
    #[must_use]
    pub fn missed(&self, learned: &Learned<R>, live_since: Timestamp) -> Option<Timestamp> {
        let late = self.terms.late;
        // A stamp ahead of us is by another clock, and says nothing of ours.
        let stamp = learned.stamp.filter(|stamp| *stamp <= learned.at);
        let happened = stamp.unwrap_or(learned.at);
        let from = stamp.map_or_else(|| learned.at.minus(late * 2), |stamp| stamp.minus(late));
        if happened < live_since || from < self.since {
            return None;
        }
        let until = learned.at.plus(late);
        let said = self.records.get(&learned.record);
        let was_told = said.is_some_and(|said| said.hooks.iter().any(|at| (from..=until).contains(at)));
        let (near, by_pass) = (learned.at.minus(late * 2)..=until, learned.by_pass && learned.stamp.is_some());
        let is_judged = by_pass || said.is_some_and(|said| said.feeds.iter().any(|at| near.contains(at)));
        (is_judged && !was_told).then_some(happened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Duration = Duration::from_secs(300);
    const TERMS: Terms = Terms { late: LATE, horizon: Duration::from_secs(3600) };

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    fn learned(seconds: i64, stamp: Option<i64>, by_pass: bool) -> Learned<i64> {
        Learned { record: 1, at: at(seconds), stamp: stamp.map(at), by_pass }
    }

    /// What a ledger says that begins at 0 and has heard these (seconds, by a feed), of a source that is live since 1000.
    fn judge(said: &[(i64, bool)], change: &Learned<i64>) -> Option<Timestamp> {
        let mut ledger = Ledger::new(TERMS, at(0));
        for (seconds, by_feed) in said {
            ledger.hear(1, at(*seconds), *by_feed);
        }
        ledger.missed(change, at(1000))
    }

    #[test]
    fn what_a_pass_shows_and_no_delivery_told_is_missed() {
        let change = learned(2100, Some(2000), true);
        assert_eq!(judge(&[], &change), Some(at(2000)));
        assert_eq!(judge(&[(2001, false)], &change), None);
        assert_eq!(judge(&[(2400, false)], &change), None, "a delivery that is late, but not too late");
        assert_eq!(judge(&[(2401, false)], &change), Some(at(2000)), "too late");
        assert_eq!(judge(&[(1699, false)], &change), Some(at(2000)), "of the change before");
        assert_eq!(judge(&[(1700, false)], &change), None, "the upstream's clock may be ahead");
    }

    #[test]
    fn what_a_feed_tells_and_no_delivery_told_is_missed() {
        let change = learned(2100, None, false);
        assert_eq!(judge(&[(2099, true)], &change), Some(at(2100)));
        assert_eq!(judge(&[(2099, true), (2150, false)], &change), None);
        assert_eq!(judge(&[(2130, true), (2090, false)], &change), None, "the delivery first, the feed after it");
        assert_eq!(judge(&[], &change), None, "an operator's read, or a cascade");
    }

    #[test]
    fn what_nobody_can_know_is_not_judged() {
        assert_eq!(judge(&[], &learned(2100, None, true)), None, "a removal that a sweep found has no stamp");
        assert_eq!(judge(&[], &learned(2100, Some(900), true)), None, "before the webhooks were made");
        assert_eq!(judge(&[], &learned(2100, Some(9000), true)), Some(at(2100)), "a clock ahead of ours says when it happened by nothing");
        let mut ledger = Ledger::<i64>::new(TERMS, at(0));
        ledger.forget(at(6000));
        assert_eq!(ledger.missed(&learned(6000, Some(2600), true), at(1000)), None, "what was said then is forgotten");
        assert_eq!(ledger.missed(&learned(6000, Some(2700), true), at(1000)), Some(at(2700)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut ledger = Ledger::new(TERMS, at(0));
        let n = i64::try_from(ENTITIES_MAX).expect("fits") + 10;
        for second in 0..n {
            ledger.hear(second, at(1), false);
            ledger.hear(-1, at(second), false);
        }
        ledger.forget(at(0));
        assert!(ledger.records.len() <= ENTITIES_MAX);
        assert_eq!(ledger.records[&-1].hooks.len(), STATEMENTS_MAX);
        assert_eq!(ledger.missed(&learned(2, Some(1), true), at(0)), None, "it rests on what is forgotten");
    }
}
