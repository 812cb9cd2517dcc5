//! What marks and the log of events say of their reasons.

use crate::model::ordering::{Observation, Reason};
use crate::model::{Event, Operation, Push};
use crate::store::apply::fold::Slot;

/// Why a mark was set.
pub(super) fn mark_reason(seen: &Observation) -> &'static str {
    match seen {
        Observation::Push { delete: true, .. } => "delete",
        Observation::Push { .. } => "event",
        Observation::Read { .. } => "read",
        Observation::Missing { .. } => "missing",
        Observation::Gone { .. } => "gone",
    }
}

/// Why an event was not applied, for whoever reads the log of events.
pub(super) fn why(event: &Event, reason: Reason, slot: &Slot) -> Option<&'static str> {
    Some(match reason {
        Reason::Stale => "older than what is held",
        Reason::Same => "equal to what is held",
        Reason::Marked if event.operation == Operation::Delete => "a read confirms a delete",
        Reason::Marked if slot.row.as_ref().is_some_and(|row| row.deleted) => "only a read revives",
        Reason::Marked if matches!(event.push, Push::Hint) => "a read tells the state",
        Reason::Marked if slot.row.is_none() => "older than tombstones are kept",
        Reason::Marked => "not surely newer than what is held",
        _ => return None,
    })
}
