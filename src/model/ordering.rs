//! The ordering rule: what a state that arrives does to the row and the mark that we hold.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::model::document::Hash;
use crate::model::ids::Tick;
use crate::model::version::Version;

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
    /// Alone, by its key.
    Key,
    /// In a list, or in bulk by a filter.
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
    /// An event. `hash` is there only for a whole push.
    Push { delete: bool, version: Option<Version>, hash: Option<Hash> },
    /// A state that was read.
    Read { by: By, started: Started, version: Option<Version>, hash: Hash },
    /// A key that a list or bulk read should have held and did not.
    Missing { started: Started },
    /// Absence confirmed as the resource declares (rule 11), or stated by the upstream.
    Gone { started: Started },
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
    /// Same content: raise version, volatile fields and tick; no change row.
    Raise,
    /// Make it a tombstone, also where no row was.
    Tombstone,
}

/// What becomes of the mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarkAction {
    /// Leave it as it is (or absent).
    Keep,
    /// Set or renew it with this hint.
    Set { hint: Option<Version>, announced_delete: bool },
    /// Look again later; keep the evidence.
    Again { agreeing: Option<Agreeing> },
    /// Remove it.
    Clear,
}

/// Why, for counting and for `decode`.
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
}

/// The verdict of the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// For the row.
    pub row: RowAction,
    /// For the mark.
    pub mark: MarkAction,
    /// Why.
    pub reason: Reason,
}
