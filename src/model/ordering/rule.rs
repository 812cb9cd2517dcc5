//! The table, one visible arm per line of it.

use std::time::Duration;

use super::{Agreeing, By, Mark, MarkAction, Observation, Reason, Row, RowAction, Spans, Started, Verdict};
use crate::clock::Timestamp;
use crate::model::document::Hash;
use crate::model::version::{Order, Version, compare};

/// Weighs what arrives against what we hold.
///
/// `in_flight` says that a read of this entity has been issued and not yet been applied, as far as the caller knows.
/// `now` is our wall clock.
#[must_use]
pub fn decide(
    observation: &Observation,
    row: Option<&Row>,
    mark: Option<&Mark>,
    in_flight: bool,
    spans: &Spans,
    now: Timestamp,
) -> Verdict {
    let held = Held { row, mark, spans };
    match observation {
        Observation::Push { delete, version, hash } => {
            let push = Push { delete: *delete, version: version.as_ref(), hash: *hash };
            held.push(&push, in_flight, now)
        }
        Observation::Read { by, started, version, hash, in_scope } => {
            held.read(&Read { by: *by, started: *started, version: version.as_ref(), hash: *hash, in_scope: *in_scope })
        }
        Observation::Missing { .. } => held.missing(),
        Observation::Gone { started } => held.gone(*started),
    }
}

struct Push<'a> {
    delete: bool,
    version: Option<&'a Version>,
    hash: Option<Hash>,
}

struct Read<'a> {
    by: By,
    started: Started,
    version: Option<&'a Version>,
    hash: Hash,
    in_scope: bool,
}

impl Read<'_> {
    /// What becomes of the row where this state is taken for the truth.
    fn taken(&self) -> (RowAction, Reason) {
        if self.in_scope { (RowAction::Apply, Reason::Applied) } else { (RowAction::Tombstone, Reason::Removed) }
    }
}

/// What is held of the entity.
struct Held<'a> {
    row: Option<&'a Row>,
    mark: Option<&'a Mark>,
    spans: &'a Spans,
}

impl Held<'_> {
    /// A push never clears a mark: it says what was, and only a read says what is.
    fn push(&self, push: &Push<'_>, in_flight: bool, now: Timestamp) -> Verdict {
        let (row, reason) = self.push_on_row(push, now);
        let mark = if self.mark.is_some() || in_flight {
            // The read under way may have been answered before this change, and its version may still look newer than the hint.
            MarkAction::Set { hint: None, announced_delete: push.delete }
        } else if reason == Reason::Marked {
            // A state newer than the delete's version may be the last one before the delete: a delete waits for time.
            MarkAction::Set { hint: push.version.filter(|_| !push.delete).cloned(), announced_delete: push.delete }
        } else {
            MarkAction::Keep
        };
        Verdict { row, mark, reason }
    }

    fn push_on_row(&self, push: &Push<'_>, now: Timestamp) -> (RowAction, Reason) {
        let young = |version: &Version| version.at().is_some_and(|at| at > now.minus(self.spans.tombstones));
        let whole = push.hash.filter(|_| !push.delete);
        let Some(row) = self.row else {
            return match (whole, push.version) {
                // Nothing contradicts it, and its delete, if there was one, would have left a tombstone that is still kept.
                (Some(_), Some(version)) if young(version) => (RowAction::Apply, Reason::Applied),
                // A retry or a replay from before the purge would bring back what was removed.
                _ => (RowAction::Keep, Reason::Marked),
            };
        };
        if row.deleted {
            // The late push of a state from before the delete and the restore from a bin look alike.
            return (RowAction::Keep, Reason::Marked);
        }
        let same = whole.is_some() && whole == row.hash;
        match compare(push.version, row.version.as_ref()) {
            // Reverted to the content we hold: without the newer version a late push of the state in between would win.
            Order::Newer if same => (RowAction::Raise, Reason::Same),
            // No state older than this one can be the upstream's; one newer has its own event.
            Order::Newer if whole.is_some() => (RowAction::Apply, Reason::Applied),
            // Out of order or repeated: what came after it is what we hold.
            Order::Older { by } if !push.delete && self.beyond_skew(by) => (RowAction::Keep, Reason::Stale),
            // A repetition of what we hold.
            Order::Tie if same => (RowAction::Keep, Reason::Same),
            // A tie within a cut second, a server whose clock is behind, a part, another stamp, a delete: a push cannot tell.
            _ => (RowAction::Keep, Reason::Marked),
        }
    }

    /// `by` is `None` between sequences, which have no skew.
    fn beyond_skew(&self, by: Option<Duration>) -> bool {
        by.is_none_or(|by| by >= self.spans.version_skew)
    }

    fn read(&self, read: &Read<'_>) -> Verdict {
        let (row, reason) = read.taken();
        match self.row {
            // A catalogue may be far larger than the scope; and whatever brings the record into it tells, or is met by a later page.
            None if !read.in_scope && self.mark.is_none() => {
                Verdict { row: RowAction::Keep, mark: MarkAction::Keep, reason: Reason::OutOfScope }
            }
            // A page that lags and does not answer the mark may show an older state than a read that is under way for that mark, which a
            // tombstone would refuse.
            Some(Row { deleted: false, .. }) | None if !read.in_scope && self.is_outrun(read) => self.look_again(Reason::Again),
            // Nothing contradicts it. Out of scope: an older read that is still under way must not insert it.
            None => self.by_version(read, row, reason),
            Some(row) if row.deleted && !read.in_scope => self.outside_on_tombstone(read, row),
            Some(row) if row.deleted => self.read_on_tombstone(read, row),
            Some(row) => self.read_on_live(read, row),
        }
    }

    fn read_on_tombstone(&self, read: &Read<'_>, row: &Row) -> Verdict {
        match (read.by, read.started.tick > row.tick) {
            // A lagging page shows the record as it was before the delete: only a read by key revives.
            (By::List | By::Bulk, _) => self.look_again(Reason::Confirm),
            // Restored from a bin, or permitted again: version and content may be those of the tombstone.
            (By::Key, true) => self.by_tick(read.started, RowAction::Apply, Reason::Revived),
            // Issued before the read that found it gone; its version is no proof that the record lives.
            (By::Key, false) => {
                let mark = self.settled(read.started, None, self.spans.read_lag);
                Verdict { row: RowAction::Keep, mark, reason: Reason::Stale }
            }
        }
    }

    /// Whether a read by key may be fresher than this one though it was issued before it.
    fn is_outrun(&self, read: &Read<'_>) -> bool {
        let lag = self.lag(read.by);
        let is_open = self.mark.is_some() && self.settled(read.started, read.version, lag) != MarkAction::Clear;
        is_open && lag > self.spans.read_lag
    }

    /// Not to be held, and not held.
    fn outside_on_tombstone(&self, read: &Read<'_>, row: &Row) -> Verdict {
        let lag = self.lag(read.by);
        let mark = self.settled(read.started, None, lag);
        // Whatever was issued before a read that settles it must not revive it; a page that lags says nothing of the reads before it.
        let fresh = read.by == By::Key || mark == MarkAction::Clear;
        if fresh && read.started.tick > row.tick {
            return Verdict { row: RowAction::Raise, mark, reason: Reason::Same };
        }
        Verdict { row: RowAction::Keep, mark, reason: Reason::OutOfScope }
    }

    fn read_on_live(&self, read: &Read<'_>, row: &Row) -> Verdict {
        let after = read.started.tick > row.tick;
        let (taken, applied) = read.taken();
        // The scope may change under a state that stays as it is.
        let same = read.in_scope && row.hash == Some(read.hash);
        match (compare(read.version, row.version.as_ref()), same, after) {
            // Reverted to the content we hold: without the newer version a late push of the state in between would win.
            (Order::Newer, true, _) => self.by_version(read, RowAction::Raise, Reason::Same),
            // A page issued first and served last may be the only one that saw this state: its tick does not matter.
            (Order::Newer, false, _) => self.by_version(read, taken, applied),
            // Confirmed: what was issued before this read is older than what it saw.
            (Order::Tie | Order::Incomparable, true, true) => self.by_version(read, RowAction::Raise, Reason::Same),
            // Nothing new, and the volatile fields may be older than those we hold.
            (_, true, _) => self.by_version(read, RowAction::Keep, Reason::Same),
            // Out of order.
            (Order::Older { .. }, false, false) => self.by_version(read, RowAction::Keep, Reason::Stale),
            // A cache, or an upstream whose stamps went back.
            (Order::Older { .. }, false, true) => self.read_older(read, row),
            // Which of the two is the later nobody can tell from here: never silence.
            (Order::Tie | Order::Incomparable, false, false) => self.look_again(Reason::Again),
            // A page that lags shows a state from before the row's, and no version betrays it: a fresher read has to tell.
            (Order::Tie | Order::Incomparable, false, true) if read.by == By::List && !self.lag(By::List).is_zero() => {
                self.look_again(Reason::Again)
            }
            // The later look decides where versions cannot.
            (Order::Tie | Order::Incomparable, false, true) => self.by_tick(read.started, taken, applied),
        }
    }

    /// An older version in a read that was issued after the row's state: repeated reads of one cache agree, so only a span of
    /// `read_lag` makes them win, and only reads by key.
    fn read_older(&self, read: &Read<'_>, row: &Row) -> Verdict {
        if read.by != By::Key {
            return self.look_again(Reason::Confirm);
        }
        let earlier = self.mark.and_then(|mark| mark.agreeing.as_ref());
        let agreeing = Agreeing::with(earlier, read.hash, read.started, row.tick);
        if agreeing.wins(read.started, self.spans.read_lag) {
            let (row, reason) = read.taken();
            return self.by_tick(read.started, row, reason);
        }
        Verdict { row: RowAction::Keep, mark: MarkAction::Again { agreeing: Some(agreeing) }, reason: Reason::Confirm }
    }

    fn missing(&self) -> Verdict {
        match (self.row, self.mark) {
            // Absent as it should be.
            (Some(row), None) if row.deleted => Verdict { row: RowAction::Keep, mark: MarkAction::Keep, reason: Reason::Same },
            // A list may lag, be filtered or cut: absence is a suspicion until it is confirmed.
            _ => self.look_again(Reason::Confirm),
        }
    }

    fn gone(&self, started: Started) -> Verdict {
        match self.row {
            // Still gone: a read by key issued before this one must not revive it.
            Some(row) if row.deleted => {
                let mark = self.settled(started, None, self.spans.read_lag);
                Verdict { row: RowAction::Raise, mark, reason: Reason::Same }
            }
            // Issued before the state that we hold: that one may be the record made anew.
            Some(row) if started.tick <= row.tick => self.look_again(Reason::Again),
            // Also where no row was: a page under way may still hold the record.
            _ => self.by_tick(started, RowAction::Tombstone, Reason::Removed),
        }
    }

    /// The mark stays, with its evidence, or one is set.
    fn look_again(&self, reason: Reason) -> Verdict {
        let agreeing = self.mark.and_then(|mark| mark.agreeing.clone());
        Verdict { row: RowAction::Keep, mark: MarkAction::Again { agreeing }, reason }
    }

    /// An effect that the read's version proves: whatever the lag, nothing newer is overwritten.
    fn by_version(&self, read: &Read<'_>, row: RowAction, reason: Reason) -> Verdict {
        let mark = self.settled(read.started, read.version, self.lag(read.by));
        Verdict { row, mark, reason }
    }

    /// An effect of a read by key or in bulk that rests on its tick alone: it is as good as the read is fresh. So no version clears
    /// the mark, and where reads lag and no mark is open one is set, else a late answer of a cache would stand for ever.
    fn by_tick(&self, started: Started, row: RowAction, reason: Reason) -> Verdict {
        let lag = self.spans.read_lag;
        let mark = match self.mark {
            None if !lag.is_zero() => MarkAction::Again { agreeing: None },
            _ => self.settled(started, None, lag),
        };
        Verdict { row, mark, reason }
    }

    /// What a read does to the mark whose effect on the row is decided.
    fn settled(&self, started: Started, version: Option<&Version>, lag: Duration) -> MarkAction {
        match self.mark {
            None => MarkAction::Keep,
            // Set after this read was issued: it will be looked at anyway.
            Some(mark) if mark.tick > started.tick => MarkAction::Keep,
            Some(mark) if mark.answered(started, version, lag) => MarkAction::Clear,
            Some(_) => MarkAction::Again { agreeing: None },
        }
    }

    /// How old the state may be that such a read shows.
    fn lag(&self, by: By) -> Duration {
        match by {
            By::Key | By::Bulk => self.spans.read_lag,
            By::List => self.spans.read_lag.max(self.spans.list_lag),
        }
    }
}
