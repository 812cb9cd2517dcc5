//! What differed in one look, until a later one says whether it counts.

use std::time::Duration;

/// So often a record may change between two looks before it is left unsettled.
const TRIES: u32 = 6;
/// With an open mark a difference has to stand so much longer: a record that changes all the time is read every 30 s at least.
const OPEN_FOR: Duration = Duration::from_secs(60);
/// So often a read of one record may fail before it counts as unread.
const FAILURES: u32 = 20;
/// After a read that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// A difference, as the daemon tells it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub(super) struct Finding {
    pub(super) key: String,
    pub(super) kind: String,
    pub(super) members: Vec<String>,
    pub(super) upstream: Option<String>,
    pub(super) held: Option<String>,
    pub(super) fingerprint: String,
    /// A mark is open: the daemon is about to look by itself.
    pub(super) open: bool,
}

#[derive(Debug)]
struct Doubt {
    key: String,
    finding: Option<Finding>,
    /// Since when it differs in this way, in monotonic time.
    since: Duration,
    /// When it is looked at next.
    next: Duration,
    /// How often it was another way.
    tries: u32,
    failures: u32,
}

/// Records that are looked at again by key.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    waiting: Vec<Doubt>,
    /// Differences that stood.
    pub(super) confirmed: Vec<Finding>,
    /// Records that were another way at every look.
    pub(super) unsettled: Vec<String>,
    /// Records that could not be read.
    pub(super) unread: Vec<String>,
    /// Looks that found no difference any more.
    pub(super) n_agreed: u64,
}

impl Doubts {
    /// A record that was found different, or is only suspected to be; `settle`: for how long that has to stand.
    pub(super) fn doubt(&mut self, key: &str, finding: Option<Finding>, now: Duration, settle: Duration) {
        if self.waiting.iter().any(|doubt| doubt.key == key) {
            // A list that is changed while it is walked may show a record twice.
            return;
        }
        let next = if finding.is_some() { now + settle } else { now };
        self.waiting.push(Doubt { key: key.to_owned(), finding, since: now, next, tries: 0, failures: 0 });
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The next `n` whose time has come.
    pub(super) fn due(&self, now: Duration, n: usize) -> Vec<String> {
        self.waiting.iter().filter(|doubt| doubt.next <= now).take(n).map(|doubt| doubt.key.clone()).collect()
    }

    /// When the next one's time comes; `None`: nothing waits.
    pub(super) fn next(&self) -> Option<Duration> {
        self.waiting.iter().map(|doubt| doubt.next).min()
    }

    /// A look found no difference.
    pub(super) fn agrees(&mut self, key: &str) {
        self.n_agreed += u64::from(self.take(key).is_some());
    }

    /// A look found one.
    pub(super) fn differs(&mut self, finding: Finding, now: Duration, settle: Duration) {
        let Some(doubt) = self.take(&finding.key) else { return };
        let is_same = doubt.finding.as_ref().is_some_and(|before| before.fingerprint == finding.fingerprint);
        let (since, tries) = if is_same { (doubt.since, doubt.tries) } else { (now, doubt.tries + 1) };
        // The daemon knows of what has an open mark; but one that stays open is no excuse for ever.
        let needed = if finding.open { settle + OPEN_FOR } else { settle };
        if is_same && now.saturating_sub(since) >= needed {
            self.confirmed.push(finding);
        } else if tries > TRIES {
            self.unsettled.push(finding.key);
        } else {
            self.waiting.push(Doubt { key: doubt.key, finding: Some(finding), since, next: now + settle, tries, failures: 0 });
        }
    }

    /// There was no answer.
    pub(super) fn failed(&mut self, key: &str, now: Duration) {
        let Some(doubt) = self.take(key) else { return };
        match doubt.failures + 1 {
            FAILURES.. => self.unread.push(doubt.key),
            failures => self.waiting.push(Doubt { next: now + AFTER_FAILURE, failures, ..doubt }),
        }
    }

    fn take(&mut self, key: &str) -> Option<Doubt> {
        let at = self.waiting.iter().position(|doubt| doubt.key == key)?;
        Some(self.waiting.remove(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_secs(10);

    fn finding(fingerprint: &str, open: bool) -> Finding {
        let (kind, fingerprint) = ("changed".to_owned(), fingerprint.to_owned());
        Finding { key: "1".into(), kind, members: Vec::new(), upstream: None, held: None, fingerprint, open }
    }

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn a_difference_counts_when_it_stands() {
        let mut doubts = Doubts::default();
        doubts.doubt("1", Some(finding("a", false)), at(0), SETTLE);
        assert!(doubts.due(at(9), 5).is_empty());
        assert_eq!(doubts.due(at(10), 5), ["1"]);
        doubts.differs(finding("a", false), at(10), SETTLE);
        assert_eq!((doubts.confirmed.len(), doubts.len(), doubts.next()), (1, 0, None));
    }

    #[test]
    fn what_is_only_suspected_is_looked_at_twice() {
        let mut doubts = Doubts::default();
        doubts.doubt("1", None, at(0), SETTLE);
        assert_eq!(doubts.due(at(0), 5), ["1"]);
        doubts.differs(finding("a", false), at(0), SETTLE);
        assert!(doubts.confirmed.is_empty() && doubts.due(at(9), 5).is_empty());
        doubts.differs(finding("a", false), at(10), SETTLE);
        assert_eq!(doubts.confirmed.len(), 1);
    }

    #[test]
    fn what_agrees_later_was_under_way() {
        let mut doubts = Doubts::default();
        doubts.doubt("1", Some(finding("a", false)), at(0), SETTLE);
        doubts.agrees("1");
        assert_eq!((doubts.confirmed.len(), doubts.len()), (0, 0));
    }

    #[test]
    fn what_changes_at_every_look_is_never_a_difference() {
        let mut doubts = Doubts::default();
        doubts.doubt("1", Some(finding("0", false)), at(0), SETTLE);
        for n in 1..=u64::from(TRIES) + 2 {
            doubts.differs(finding(&n.to_string(), false), at(10 * n), SETTLE);
        }
        assert_eq!((doubts.confirmed.len(), doubts.unsettled.len(), doubts.len()), (0, 1, 0));
    }

    #[test]
    fn an_open_mark_excuses_a_difference_for_a_while() {
        let mut doubts = Doubts::default();
        doubts.doubt("1", Some(finding("a", true)), at(0), SETTLE);
        for second in [10, 20, 30, 40, 50, 60, 69] {
            doubts.differs(finding("a", true), at(second), SETTLE);
            assert!(doubts.confirmed.is_empty(), "{second}");
        }
        doubts.differs(finding("a", true), at(70), SETTLE);
        assert_eq!(doubts.confirmed.len(), 1);
    }

    #[test]
    fn a_hot_record_that_is_about_to_be_read_is_no_difference() {
        let mut doubts = Doubts::default();
        doubts.doubt("1", Some(finding("0", true)), at(0), SETTLE);
        for n in 1..u64::from(TRIES) {
            doubts.differs(finding(&n.to_string(), true), at(10 * n), SETTLE);
        }
        doubts.differs(finding(&(TRIES - 1).to_string(), true), at(60), SETTLE);
        assert!(doubts.confirmed.is_empty(), "it stands for ten seconds, and a mark is open");
        doubts.agrees("1");
        assert_eq!((doubts.confirmed.len(), doubts.len()), (0, 0));
    }

    #[test]
    fn a_record_that_cannot_be_read_is_given_up() {
        let mut doubts = Doubts::default();
        doubts.doubt("1", None, at(0), SETTLE);
        (0..FAILURES).for_each(|_| doubts.failed("1", at(0)));
        assert_eq!((doubts.unread.len(), doubts.len()), (1, 0));
        assert_eq!(doubts.n_agreed, 0, "nor does anybody know that it agrees");
    }

    #[test]
    fn what_agrees_is_counted_once() {
        let mut doubts = Doubts::default();
        doubts.doubt("1", None, at(0), SETTLE);
        (0..2).for_each(|_| doubts.agrees("1"));
        assert_eq!((doubts.n_agreed, doubts.len()), (1, 0));
    }
}
