//! The ordering rule: what a state that arrives does to the row and the mark that we hold.
//!
//! [`decide`] says what is to be done, [`Verdict::applied_to`] says what row and mark that leaves; the store writes the outcome.
//!
//! Wall time never orders states. Versions do where they are comparable, ticks where they are not, and wall time is used
//! for spans alone. What the rule relies on:
//! - every read takes a tick of its own when its request is issued, every transaction that applies pushes takes one of its own;
//! - every event comes at least once, in any order; every read shows a state that is at most its lag old;
//! - whoever reads a mark looks again until the mark is gone, by key where the verdict's reason was [`Reason::Confirm`].

use std::time::Duration;

use crate::clock::Timestamp;
use crate::model::document::Hash;
use crate::model::ids::Tick;
use crate::model::version::Version;

mod mark;
mod rule;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use rule::decide;

/// What the rule needs to know of a stored row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Tombstone or live.
    pub deleted: bool,
    /// Its version, if its states have one.
    pub version: Option<Version>,
    /// Hash of its document; `None` for a tombstone that never had one (or was purged).
    pub hash: Option<Hash>,
    /// Tick of what it holds.
    pub tick: Tick,
}

/// A durable note "look at this entity again".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When it was last set, on the source's logical clock.
    pub tick: Tick,
    /// The newest version among the coalesced hints.
    pub hint: Option<Version>,
    /// At least one coalesced hint had no (comparable) version: only time clears the mark.
    pub versionless: bool,
    /// At least one coalesced hint announced a delete.
    pub announced_delete: bool,
    /// When the last hint came, by our wall clock (used for spans only).
    pub last_hint_at: Timestamp,
    /// Reads by key that agree on a state which looks older than the row.
    pub agreeing: Option<Agreeing>,
}

/// Evidence that the upstream really stands at an older-looking state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreeing {
    /// The state that they agree on.
    pub hash: Hash,
    /// Tick of the first.
    pub tick: Tick,
    /// When the first was started.
    pub since: Timestamp,
}

/// How a state was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    /// Alone, by its key: fresh but for [`Spans::read_lag`].
    Key,
    /// With others, by a filter on their keys: fresh but for [`Spans::read_lag`], and an absence is only a suspicion.
    Bulk,
    /// On a page of a list: fresh but for the longer of [`Spans::read_lag`] and [`Spans::list_lag`].
    List,
}

/// When a read was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// On the source's logical clock.
    pub tick: Tick,
    /// By our wall clock (for spans only).
    pub at: Timestamp,
}

/// What arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// An event.
    Push {
        /// It announces a delete.
        delete: bool,
        /// The version that it states, if it states one of the reads' version field.
        version: Option<Version>,
        /// Hash of the state that came along; only of a whole push, `None` for a hint.
        hash: Option<Hash>,
    },
    /// A state that was read.
    Read {
        /// How.
        by: By,
        /// When its request was issued.
        started: Started,
        /// Its version, if it has one.
        version: Option<Version>,
        /// Hash of its document.
        hash: Hash,
        /// Whether the source is to hold it in this state. If not, it is weighed as any state is, but leaves a tombstone.
        in_scope: bool,
    },
    /// A key that a list or bulk read should have held and did not.
    Missing {
        /// When its request was issued.
        started: Started,
    },
    /// Absence confirmed as the resource declares, or stated by the upstream.
    Gone {
        /// When the request that confirmed it was issued.
        started: Started,
    },
}

/// The spans that a resource declares.
#[derive(Clone, Copy, Debug)]
pub struct Spans {
    /// How long reads by key (and in bulk) may show an older state.
    pub read_lag: Duration,
    /// How long lists may.
    pub list_lag: Duration,
    /// Older by less is "near-older"; 0 for sequences.
    pub version_skew: Duration,
    /// How long tombstones' skeletons are kept.
    pub tombstones: Duration,
}

/// What becomes of the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowAction {
    /// Nothing.
    Keep,
    /// Replace it whole: a change row is written (also where a tombstone is revived).
    Apply,
    /// Same content: raise version, volatile fields and tick; no change row. Of a tombstone only the tick is raised.
    Raise,
    /// Make it a tombstone, also where no row was: a change row is written where a live row was.
    Tombstone,
}

/// What becomes of the mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarkAction {
    /// Leave it as it is (or absent).
    Keep,
    /// Set or renew it with this hint; without a hint only time clears it.
    Set {
        /// The version that the event stated.
        hint: Option<Version>,
        /// The event announced a delete.
        announced_delete: bool,
    },
    /// Look again later, with this evidence. Where no mark is open, one is set that only time clears.
    Again {
        /// The evidence from now on.
        agreeing: Option<Agreeing>,
    },
    /// Remove it.
    Clear,
}

/// Why, for counting, for `decode`, and for whoever decides how to look next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Applied.
    Applied,
    /// Older or equal: dropped.
    Stale,
    /// Same content.
    Same,
    /// Became a mark.
    Marked,
    /// Revived a tombstone.
    Revived,
    /// Removed.
    Removed,
    /// Will be looked at again.
    Again,
    /// Will be looked at again, by key: no list and no bulk read can tell.
    Confirm,
    /// Not to be held, and not held.
    OutOfScope,
}

impl Reason {
    /// A short, constant name for metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Stale => "stale",
            Self::Same => "same",
            Self::Marked => "marked",
            Self::Revived => "revived",
            Self::Removed => "removed",
            Self::Again => "again",
            Self::Confirm => "confirm",
            Self::OutOfScope => "out_of_scope",
        }
    }
}

/// The verdict of the rule. Both parts may act at once: a push is applied and renews a mark, a read is applied and clears one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// For the row.
    pub row: RowAction,
    /// For the mark.
    pub mark: MarkAction,
    /// Why.
    pub reason: Reason,
}

impl Observation {
    /// The tick of what was observed: a read's own; for a push `fresh`, the tick of the transaction that applies it.
    #[must_use]
    pub fn tick(&self, fresh: Tick) -> Tick {
        match self {
            Self::Push { .. } => fresh,
            Self::Read { started, .. } | Self::Missing { started } | Self::Gone { started } => started.tick,
        }
    }

    fn version(&self) -> Option<&Version> {
        match self {
            Self::Push { version, .. } | Self::Read { version, .. } => version.as_ref(),
            Self::Missing { .. } | Self::Gone { .. } => None,
        }
    }

    fn hash(&self) -> Option<Hash> {
        match self {
            Self::Push { hash, .. } => *hash,
            Self::Read { hash, .. } => Some(*hash),
            Self::Missing { .. } | Self::Gone { .. } => None,
        }
    }
}

impl Verdict {
    /// The row and the mark that this verdict on `observation` leaves. `fresh` is the tick of the applying transaction, `now` our wall clock.
    #[must_use]
    pub fn applied_to(
        &self,
        observation: &Observation,
        row: Option<Row>,
        mark: Option<Mark>,
        fresh: Tick,
        now: Timestamp,
    ) -> (Option<Row>, Option<Mark>) {
        (self.row.applied_to(observation, row, fresh), self.mark.applied_to(mark, fresh, now))
    }
}

impl RowAction {
    fn applied_to(self, observation: &Observation, row: Option<Row>, fresh: Tick) -> Option<Row> {
        let tick = observation.tick(fresh);
        match (self, row) {
            (Self::Keep, row) => row,
            (Self::Apply, _) => Some(Row { deleted: false, version: observation.version().cloned(), hash: observation.hash(), tick }),
            (Self::Raise, row) => {
                row.map(|row| Row { version: observation.version().cloned().or(row.version), tick: row.tick.max(tick), ..row })
            }
            (Self::Tombstone, Some(row)) => Some(Row { deleted: true, tick, ..row }),
            (Self::Tombstone, None) => Some(Row { deleted: true, version: None, hash: None, tick }),
        }
    }
}
