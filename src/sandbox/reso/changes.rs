//! One change of one record, its event, and its line in the log of changes.

use serde::Serialize;
use serde_json::{Value, json};

use super::resource::Resource as R;
use super::seed;
use super::state::Inner;
use super::world::{Record, stamp};
use crate::sandbox::dice::Dice;

/// What happened to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Operation {
    Create,
    Update,
    Delete,
    Restore,
}

/// One line of the log of changes.
#[derive(Debug)]
pub(super) struct Change {
    resource: R,
    key: String,
    operation: Operation,
    at_us: i64,
    /// When its event was visible, or its last push acknowledged.
    pub(super) settled_at_us: i64,
    pub(super) pushed: bool,
}

impl Change {
    /// The line as control shows it; `n` counts from 1.
    pub(super) fn line(&self, n: usize) -> Value {
        let announced: Vec<&str> = self.pushed.then_some("push").into_iter().collect();
        json!({
            "n": n, "resource": self.resource.name(), "key": self.key, "operation": self.operation, "at_us": self.at_us,
            "announced": announced, "settled_at_us": self.settled_at_us,
        })
    }
}

impl Inner {
    /// Creates a record; its key.
    pub(super) fn create(&mut self, dice: &mut Dice, resource: R, now_us: i64) -> Option<String> {
        let system = self.system.clone();
        let key = seed::make(&mut self.world, dice, resource, &system, now_us)?;
        self.note(resource, &key, Operation::Create, now_us);
        self.tell_parent(resource, &key, now_us);
        Some(key)
    }

    /// Edits a record that can be viewed; false when there is none.
    pub(super) fn edit(&mut self, resource: R, key: &str, now_us: i64, announce: bool, edit: impl FnOnce(&mut Record)) -> bool {
        let Some(old) = self.world.get(resource, key).filter(|record| record.hidden_us.is_none()) else { return false };
        let mut record = Record::clone(old);
        edit(&mut record);
        if announce {
            record.touch(now_us);
        }
        self.world.put(resource, key, record);
        if announce {
            self.note(resource, key, Operation::Update, now_us);
        }
        true
    }

    /// A photo that came, changed or went changes its listing too.
    pub(super) fn tell_parent(&mut self, resource: R, key: &str, now_us: i64) {
        let Some(parent) = self.world.get(resource, key).or_else(|| self.world.grave(resource, key)).filter(|_| resource == R::Media)
        else {
            return;
        };
        let listing = parent.text("ResourceRecordKey").to_owned();
        let n =
            self.world.all(R::Media).filter(|(_, photo)| photo.hidden_us.is_none() && photo.text("ResourceRecordKey") == listing).count();
        self.edit(R::Property, &listing, now_us, true, |record| {
            record.set("PhotosCount", n);
            record.set("PhotosChangeTimestamp", stamp(now_us));
        });
    }

    /// Takes a record away, with what lies below it: deleted, or no longer to be seen, which the client cannot tell apart.
    pub(super) fn delete(&mut self, resource: R, key: &str, now_us: i64) -> bool {
        if self.world.get(resource, key).is_none_or(|record| record.hidden_us.is_some()) {
            return false;
        }
        if resource == R::Property {
            // What lies below goes at lower sequences.
            for (child, key) in self.world.below(key) {
                self.take_away(child, &key, now_us, !self.silent_children);
            }
        }
        self.take_away(resource, key, now_us, true);
        self.tell_parent(resource, key, now_us);
        true
    }

    fn take_away(&mut self, resource: R, key: &str, now_us: i64, told: bool) {
        let Some(record) = self.world.get(resource, key).filter(|record| record.hidden_us.is_none()) else { return };
        if self.says_farewell {
            let mut record = Record::clone(record);
            record.hidden_us = Some(now_us);
            record.touch(now_us);
            self.world.put(resource, key, record);
        } else {
            self.world.remove(resource, key);
        }
        if told {
            self.note(resource, key, Operation::Delete, now_us);
        } else {
            self.log(resource, key, Operation::Delete, now_us, now_us);
        }
    }

    /// Brings a record back under its key; false where none was taken away, or what it lies below is not there.
    pub(super) fn restore(&mut self, resource: R, key: &str, now_us: i64) -> bool {
        let hidden = self.world.get(resource, key).filter(|record| record.hidden_us.is_some());
        let Some(mut record) = hidden.or_else(|| self.world.grave(resource, key)).map(|record| Record::clone(record)) else { return false };
        let parent = match resource {
            R::Media => record.text("ResourceRecordKey"),
            R::OpenHouse => record.text("ListingKey"),
            _ => "",
        };
        if !parent.is_empty() && self.world.get(R::Property, parent).is_none_or(|listing| listing.hidden_us.is_some()) {
            return false;
        }
        record.hidden_us = None;
        record.touch(now_us);
        self.world.put(resource, key, record);
        self.note(resource, key, Operation::Restore, now_us);
        self.tell_parent(resource, key, now_us);
        true
    }

    fn log(&mut self, resource: R, key: &str, operation: Operation, at_us: i64, settled_at_us: i64) {
        self.changes.push(Change { resource, key: key.to_owned(), operation, at_us, settled_at_us, pushed: false });
    }

    /// Logs a change, writes its event and queues it for the push.
    fn note(&mut self, resource: R, key: &str, operation: Operation, now_us: i64) {
        let faults = self.injector.faults.clone();
        self.log(resource, key, operation, now_us, now_us);
        if self.injector.draw("events_unwritten", faults.events_unwritten).is_some() {
            return;
        }
        if self.injector.draw("events_hidden", faults.events_hidden).is_some() {
            self.events.skip();
        }
        if self.injector.draw("events_foreign", faults.events_foreign).is_some() {
            let number = self.events.append(resource, "foreign", now_us);
            self.push.queue(number, None, now_us);
        }
        let late = self.injector.draw("events_late", faults.events_late);
        let late_us = late.map_or(0, |random| i64::try_from(random % faults.events_late_max_ms.max(1)).unwrap_or(0) * 1_000 + 1_000);
        let visible_us = now_us + late_us;
        let number = self.events.append(resource, key, visible_us);
        let index = self.changes.len() - 1;
        self.changes[index].settled_at_us = visible_us;
        if self.injector.draw("push_lost", faults.push_lost).is_some() {
            self.push.count("lost");
            return;
        }
        let held = self.injector.draw("push_reordered", faults.push_reordered);
        let due_us = visible_us + held.map_or(0, |random| 50_000 + i64::try_from(random % 350_000).unwrap_or(0));
        self.push.queue(number, Some(index), due_us);
        if let Some(random) = self.injector.draw("push_duplicated", faults.push_duplicated) {
            self.push.queue(number, Some(index), due_us + i64::try_from(random % 200_000).unwrap_or(0));
        }
    }
}
