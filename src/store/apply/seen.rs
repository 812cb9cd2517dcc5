//! What the rule is asked of an observation, and what of it goes into the table.

use crate::model::ordering::{By, Observation, RowAction, Spans};
use crate::model::{Operation, Push};
use crate::store::apply::What;
use crate::store::apply::fold::Content;

/// When the row was last compared with the upstream: a read showed what is held. A page of a list counts as older by as much as
/// lists lag behind reads by key.
pub(super) fn compared_at(before: Option<i64>, seen: &Observation, row: RowAction, spans: &Spans) -> Option<i64> {
    match seen {
        _ if row == RowAction::Keep => before,
        Observation::Push { .. } | Observation::Missing { .. } => before,
        Observation::Read { by: By::List, started, .. } => Some(started.at.minus(spans.list_lag.saturating_sub(spans.read_lag)).0),
        Observation::Read { started, .. } | Observation::Gone { started } => Some(started.at.0),
    }
}

/// What the rule is asked; `None` for what it does not know.
pub(super) fn observation(what: &What) -> Option<Observation> {
    Some(match what {
        What::Event(event) => {
            Observation::Push { delete: event.operation == Operation::Delete, version: event.version.clone(), hash: event.push.hash() }
        }
        What::Record { by, started, record } => {
            let (version, hash) = (record.version.clone(), record.document.hash);
            Observation::Read { by: *by, started: *started, version, hash, in_scope: record.in_scope }
        }
        What::Missing { started } => Observation::Missing { started: *started },
        What::Gone { started, .. } => Observation::Gone { started: *started },
        What::Unreadable { .. } => return None,
    })
}

pub(super) fn content(what: &What) -> Option<Content> {
    match what {
        What::Record { record, .. } => Some(Content { document: record.document.clone(), changed_at: record.changed_at }),
        What::Event(event) => match &event.push {
            Push::Whole(document) => Some(Content { document: document.clone(), changed_at: None }),
            Push::Hint => None,
        },
        _ => None,
    }
}

pub(super) fn by_key(seen: &Observation) -> bool {
    matches!(seen, Observation::Read { by: By::Key, .. } | Observation::Gone { .. })
}
