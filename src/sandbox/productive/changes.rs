//! One change of one record, and everything the vendor derives from it: activity, recycle bin, versions, deliveries.

use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use super::catalog::{BUDGET_EVENTS, Collection as C};
use super::hooks::Happening;
use super::state::Inner;
use super::world::Record;

/// What happened to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Operation {
    Create,
    Update,
    Delete,
    Restore,
    Archive,
    Unarchive,
    Move,
}

/// One line of the log of changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) collection: C,
    pub(super) id: u32,
    pub(super) operation: Operation,
    pub(super) at_us: i64,
    /// When the last delay that the sandbox itself injected for it is over.
    pub(super) settled_at_us: i64,
}

impl Inner {
    /// Creates a record with a new id.
    pub(super) fn create(&mut self, collection: C, record: Record, at_us: i64) -> u32 {
        let id = self.world.next_id(collection);
        let record = self.world.put(collection, id, record, at_us);
        self.note(collection, id, &record, Operation::Create, at_us);
        id
    }

    /// Edits a live record; false when there is none. The edit may refuse by returning none.
    pub(super) fn edit(&mut self, collection: C, id: u32, at_us: i64, edit: impl FnOnce(&mut Record, &Inner) -> Option<Operation>) -> bool {
        let Some(old) = self.world.get(collection, id) else { return false };
        let mut record = Record::clone(old);
        let Some(operation) = edit(&mut record, self) else { return false };
        // A record's own stamps never go back.
        let at_us = at_us.max(record.updated_us);
        record.revision += 1;
        record.updated_us = at_us;
        record.activity_us = at_us;
        let record = self.world.put(collection, id, record, at_us);
        self.note(collection, id, &record, operation, at_us);
        true
    }

    /// Deletes a record; false when there is none.
    pub(super) fn delete(&mut self, collection: C, id: u32, at_us: i64) -> bool {
        let Some(record) = self.world.remove(collection, id, at_us) else { return false };
        self.note(collection, id, &record, Operation::Delete, at_us);
        if collection.spec().has_bin {
            let row = self.world.next_id(C::DeletedItems);
            let mut item = log_row(collection, id, &record, 2, at_us);
            item.set("name", self.name(collection, id, &record));
            self.world.put(C::DeletedItems, row, item, at_us);
            self.bin.insert((collection, id), row);
        }
        true
    }

    /// Brings a deleted record back as it was; false when none was deleted.
    pub(super) fn restore(&mut self, collection: C, id: u32, at_us: i64) -> bool {
        let Some(grave) = self.world.grave(collection, id) else { return false };
        let record = Record::clone(grave);
        let record = self.world.put(collection, id, record, at_us);
        if let Some(row) = self.bin.remove(&(collection, id)) {
            self.world.remove(C::DeletedItems, row, at_us);
        }
        self.note(collection, id, &record, Operation::Restore, at_us);
        true
    }

    fn note(&mut self, collection: C, id: u32, record: &Arc<Record>, operation: Operation, at_us: i64) {
        let code = match operation {
            Operation::Create => 0,
            Operation::Delete => 2,
            Operation::Restore => 3,
            _ => 1,
        };
        if has_activities(collection) {
            let mut activity = log_row(collection, id, record, code, at_us);
            activity.set("name", self.name(collection, id, record));
            if code == 1 {
                activity.set("changeset", json!([{ "name": collection.spec().text, "value": [null, null] }]));
            }
            let row = self.world.next_id(C::Activities);
            self.world.put(C::Activities, row, activity, at_us);
        }
        if collection == C::TimeEntries {
            let row = self.world.next_id(C::TimeEntryVersions);
            self.world.put(C::TimeEntryVersions, row, log_row(collection, id, record, code, at_us), at_us);
        }
        let mut settled_at_us = at_us + self.injector.faults.lag_us(true).or(self.injector.faults.lag_us(false)).unwrap_or(0);
        if let Some(last_due_us) = self.announce(collection, id, record, operation, at_us) {
            settled_at_us = settled_at_us.max(last_due_us);
        }
        self.changes.push(Change { collection, id, operation, at_us, settled_at_us });
    }

    /// Queues the deliveries of a change; the latest injected due time.
    fn announce(&mut self, collection: C, id: u32, record: &Arc<Record>, operation: Operation, at_us: i64) -> Option<i64> {
        let spec = collection.spec();
        let budget = collection == C::Deals && record.special;
        let events = if budget { BUDGET_EVENTS } else { spec.events? };
        // People and companies have an event for archiving and none for deleting.
        let archives = matches!(collection, C::People | C::Companies);
        let (event, verb) = match operation {
            Operation::Create | Operation::Restore => (events[0], "create"),
            Operation::Delete if archives => return None,
            Operation::Delete => (events[2], "delete"),
            Operation::Archive if archives => (events[2], "archive"),
            _ => (events[1], "update"),
        };
        let project = spec.relations.iter().zip(&record.to).find(|(relation, _)| relation.target == C::Projects).map(|(_, to)| *to);
        let happening = Arc::new(Happening {
            verb,
            item: if budget { "budget" } else { spec.item },
            collection,
            id,
            record: Arc::clone(record),
            project: project.and_then(|id| Some((id, Arc::clone(self.world.get(C::Projects, id)?)))),
            at_us,
        });
        self.outbox.queue(event, &happening, &mut self.injector)
    }

    fn name(&self, collection: C, id: u32, record: &Record) -> serde_json::Value {
        self.renderer.attributes(collection, id, record).remove(collection.spec().text).unwrap_or_default()
    }
}

/// The vendor logs most objects, not all: settings and links between records are left out.
fn has_activities(collection: C) -> bool {
    !matches!(
        collection,
        C::Workflows | C::WorkflowStatuses | C::CustomFields | C::CustomFieldOptions | C::Memberships | C::TaskDependencies
    )
}

/// A row of a log about a record: (collection, id, event).
fn log_row(collection: C, id: u32, record: &Record, event: u32, at_us: i64) -> Record {
    Record {
        created_us: at_us,
        updated_us: at_us,
        activity_us: at_us,
        special: collection == C::Deals && record.special,
        to: [collection as u32, id, event].into(),
        ..Record::default()
    }
}
