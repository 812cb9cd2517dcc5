//! The life of a mark: set, coalesced, waited for, cleared.

use std::time::Duration;

use super::{Agreeing, Mark, MarkAction, Spans, Started};
use crate::clock::Timestamp;
use crate::model::document::Hash;
use crate::model::ids::Tick;
use crate::model::version::{Order, Version, compare};

impl Mark {
    /// `existing` with one more hint, or a new mark. `tick` is the applying transaction's, `now` our wall clock.
    ///
    /// The evidence stays: the row's tick says whether it still counts.
    #[must_use]
    pub fn coalesce(existing: Option<Self>, hint: Option<Version>, announced_delete: bool, tick: Tick, now: Timestamp) -> Self {
        let Some(old) = existing else {
            return Self { tick, versionless: hint.is_none(), hint, announced_delete, last_hint_at: now, agreeing: None };
        };
        let order = compare(hint.as_ref(), old.hint.as_ref());
        Self {
            tick: old.tick.max(tick),
            versionless: old.versionless || order == Order::Incomparable,
            hint: if order == Order::Newer { hint } else { old.hint },
            announced_delete: old.announced_delete || announced_delete,
            last_hint_at: now,
            agreeing: old.agreeing,
        }
    }

    /// The earliest wall time at which a read by key can end the waiting for sure: a sooner read clears the mark only by a newer version.
    #[must_use]
    pub fn settles_at(&self, spans: &Spans) -> Timestamp {
        let evidence = self.agreeing.as_ref().map_or(self.last_hint_at, |agreeing| agreeing.since);
        self.last_hint_at.max(evidence).plus(spans.read_lag)
    }

    /// Whether a read that was issued at `started`, may show states `lag` old and showed `version` answers every hint of this mark.
    ///
    /// A lagging read that shows the old state must not silence the hint that told of the new one: it counts only where it shows
    /// a newer version than every hint, or was issued `lag` or more after the last of them. A hint that lies further ahead of the
    /// read than `lag`, though the read has the later tick, tells of a wall clock that was set back: it counts as long past.
    pub(super) fn answered(&self, started: Started, version: Option<&Version>, lag: Duration) -> bool {
        let newer = !self.versionless && compare(version, self.hint.as_ref()) == Order::Newer;
        newer || started.at >= self.last_hint_at.plus(lag) || self.last_hint_at > started.at.plus(lag)
    }
}

impl Agreeing {
    /// The evidence after one more read by key that shows `hash`, a state older than that of the row of `row_tick`.
    ///
    /// Earlier evidence counts on only if it is of the same state, younger than the row and not from a clock that was set back.
    pub(super) fn with(earlier: Option<&Self>, hash: Hash, started: Started, row_tick: Tick) -> Self {
        let counts = |e: &&Self| e.hash == hash && e.tick > row_tick && e.since <= started.at;
        earlier.filter(counts).cloned().unwrap_or(Self { hash, tick: started.tick, since: started.at })
    }

    /// Whether the agreeing reads span at least `read_lag`. Reads of one cache agree however often they are repeated; only time tells.
    pub(super) fn wins(&self, started: Started, read_lag: Duration) -> bool {
        started.at.since(self.since) >= read_lag
    }
}

impl MarkAction {
    /// The mark that this action leaves. `tick` is the applying transaction's, `now` our wall clock.
    #[must_use]
    pub fn applied_to(&self, mark: Option<Mark>, tick: Tick, now: Timestamp) -> Option<Mark> {
        match self {
            Self::Keep => mark,
            Self::Clear => None,
            Self::Set { hint, announced_delete } => Some(Mark::coalesce(mark, hint.clone(), *announced_delete, tick, now)),
            Self::Again { agreeing } => {
                let mark = mark.unwrap_or_else(|| Mark::coalesce(None, None, false, tick, now));
                Some(Mark { agreeing: agreeing.clone(), ..mark })
            }
        }
    }
}
