//! One change of one record, and whom the vendor tells of it.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::cloud_event;
use super::options::Faults;
use super::resource::Resource as R;
use super::state::Inner;
use super::world::Record;
use crate::sandbox::faults::Injector;

/// What happened to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Operation {
    Create,
    Update,
    Delete,
    Restore,
}

impl Operation {
    /// What coverage counts it as: what comes back is created once more.
    pub(super) fn counted(self) -> &'static str {
        match self {
            Self::Create | Self::Restore => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// The two ways in which the vendor tells of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    EventsApi,
    EventPlatform,
}

impl System {
    /// Faults of its events: lost, duplicated, delayed, reordered.
    fn faults(self, faults: &Faults) -> [(&'static str, f64); 4] {
        match self {
            Self::EventsApi => [
                ("events_api_lost", faults.events_api_lost),
                ("events_api_duplicated", faults.events_api_duplicated),
                ("events_api_delayed", faults.events_api_delayed),
                ("events_api_reordered", faults.events_api_reordered),
            ],
            Self::EventPlatform => [
                ("event_platform_lost", faults.event_platform_lost),
                ("event_platform_duplicated", faults.event_platform_duplicated),
                ("event_platform_delayed", faults.event_platform_delayed),
                ("event_platform_reordered", faults.event_platform_reordered),
            ],
        }
    }

    /// When an event that happened now is to be sent: never, once or twice, with the faults in force.
    pub(super) fn dues(self, injector: &mut Injector<Faults>, now_us: i64) -> Vec<i64> {
        let longest_ms = injector.faults.hooks_delay_max_ms.max(1);
        let [(lost, lost_share), (twice, twice_share), (delayed, delayed_share), (reordered, reordered_share)] =
            self.faults(&injector.faults);
        if injector.draw(lost, lost_share).is_some() {
            return Vec::new();
        }
        let mut due_us = now_us;
        if let Some(random) = injector.draw(delayed, delayed_share) {
            due_us += i64::try_from(random % longest_ms).unwrap_or(0) * 1000 + 1000;
        }
        if let Some(random) = injector.draw(reordered, reordered_share) {
            // Long enough for the next change of a busy record to overtake this one.
            due_us += 50_000 + i64::try_from(random % 350_000).unwrap_or(0);
        }
        let again = injector.draw(twice, twice_share).map(|random| due_us + i64::try_from(random % 200_000).unwrap_or(0));
        [due_us].into_iter().chain(again).collect()
    }
}

/// Who changed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Author {
    pub(super) name: String,
    /// `ui` or `api`.
    pub(super) kind: String,
}

impl Author {
    /// Somebody at the PIM's own screen.
    pub(super) fn somebody() -> Self {
        Self { name: "julia".to_owned(), kind: "ui".to_owned() }
    }
}

/// What both systems are told of a change.
#[derive(Debug)]
pub(super) struct Happening {
    /// Its place in the log of changes.
    pub(super) change: usize,
    pub(super) resource: R,
    pub(super) key: String,
    pub(super) operation: Operation,
    pub(super) record: Arc<Record>,
    pub(super) author: Author,
    pub(super) at_us: i64,
    /// Only the list of a family's attributes changed, of which the Event Platform does not tell.
    pub(super) silent_on_platform: bool,
    /// What an update changed of a product or model.
    pub(super) delta: Option<Value>,
}

/// One line of the log of changes.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) resource: R,
    pub(super) key: String,
    pub(super) operation: Operation,
    pub(super) at_us: i64,
    lag_us: i64,
    /// Deliveries of it that are neither acknowledged nor given up.
    pending: usize,
    /// Whether a delivery of it was acknowledged, by system.
    pub(super) events_api: bool,
    pub(super) event_platform: bool,
    settled_at_us: Option<i64>,
}

impl Change {
    /// Which systems had a delivery of it acknowledged.
    fn announced(&self) -> Vec<&'static str> {
        let systems = [(self.events_api, "events_api"), (self.event_platform, "event_platform")];
        systems.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect()
    }

    /// The line as control shows it; `n` counts from 1.
    pub(super) fn line(&self, n: usize) -> Value {
        json!({
            "n": n, "resource": self.resource.spec().name, "key": self.key, "operation": self.operation, "at_us": self.at_us,
            "announced": self.announced(), "settled_at_us": self.settled_at_us,
        })
    }

    fn settle(&mut self, now_us: i64) {
        if self.pending == 0 {
            self.settled_at_us = Some(now_us.max(self.at_us + self.lag_us));
        }
    }
}

/// How a change is made.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    pub(super) author: Author,
    /// Whether it leaves traces: a new stamp, events, a line in the log.
    pub(super) announce: bool,
    pub(super) now_us: i64,
}

impl Inner {
    /// Creates a record, or brings one back.
    pub(super) fn create(&mut self, resource: R, key: &str, record: Record, operation: Operation, manner: &Manner) {
        let record = self.world.put(resource, key, record, manner.now_us);
        self.note(resource, key, (None, &record), operation, manner);
    }

    /// Edits a live record; false when there is none.
    pub(super) fn edit(&mut self, resource: R, key: &str, manner: &Manner, edit: impl FnOnce(&mut Record)) -> bool {
        let Some(old) = self.world.get(resource, key).cloned() else { return false };
        let mut record = Record::clone(&old);
        edit(&mut record);
        if manner.announce {
            record.revision += 1;
            // A record's own stamp never goes back.
            record.updated_s = record.updated_s.max(manner.now_us.div_euclid(1_000_000));
        }
        let record = self.world.put(resource, key, record, manner.now_us);
        self.note(resource, key, (Some(&old), &record), Operation::Update, manner);
        true
    }

    /// Deletes a record; false when there is none. With a model go its descendants, with a container what lies in it; of those
    /// nobody is told.
    pub(super) fn delete(&mut self, resource: R, key: &str, manner: &Manner) -> bool {
        for inner in R::records().filter(|inner| inner.spec().container == Some(resource)) {
            for key in self.world.inside(inner, key) {
                self.delete_untold(inner, &key, manner);
            }
        }
        if resource == R::ProductModels {
            for child in self.world.children(R::ProductModels, key) {
                self.delete_untold(R::ProductModels, &child, manner);
                self.delete_variants(&child, manner);
            }
            self.delete_variants(key, manner);
        }
        let Some(record) = self.world.remove(resource, key, manner.now_us) else { return false };
        self.note(resource, key, (None, &record), Operation::Delete, manner);
        true
    }

    fn delete_variants(&mut self, model: &str, manner: &Manner) {
        for variant in self.world.children(R::Products, model) {
            self.delete_untold(R::Products, &variant, manner);
        }
    }

    fn delete_untold(&mut self, resource: R, key: &str, manner: &Manner) {
        if self.world.remove(resource, key, manner.now_us).is_some() && manner.announce {
            self.log(resource, key, Operation::Delete, manner.now_us);
        }
    }

    fn log(&mut self, resource: R, key: &str, operation: Operation, at_us: i64) {
        let lag_us = self.injector.faults.lag_us().unwrap_or(0);
        let mut change = Change {
            resource,
            key: key.to_owned(),
            operation,
            at_us,
            lag_us,
            pending: 0,
            events_api: false,
            event_platform: false,
            settled_at_us: None,
        };
        change.settle(at_us);
        self.changes.push(change);
    }

    /// Logs and announces a change; `states` are that before an update and the present one.
    fn note(&mut self, resource: R, key: &str, states: (Option<&Record>, &Arc<Record>), operation: Operation, manner: &Manner) {
        if !manner.announce {
            return;
        }
        let (before, record) = states;
        let only_attributes = |old: &Record| {
            resource == R::Families && old.document != record.document && except_attributes(old) == except_attributes(record)
        };
        let delta = before.filter(|_| resource.has_values()).map(|old| cloud_event::changes(&self.world, key, old, record));
        self.log(resource, key, operation, manner.now_us);
        let happening = Arc::new(Happening {
            change: self.changes.len() - 1,
            resource,
            key: key.to_owned(),
            operation,
            record: Arc::clone(record),
            author: manner.author.clone(),
            at_us: manner.now_us,
            silent_on_platform: before.is_some_and(only_attributes),
            delta,
        });
        let pending = self.events_api.queue(&happening, &mut self.injector) + self.platform.queue(&happening, &mut self.injector);
        if let Some(change) = self.changes.last_mut().filter(|_| pending > 0) {
            change.pending = pending;
            change.settled_at_us = None;
        }
    }

    /// One delivery of a change has come to its end.
    pub(super) fn delivered(&mut self, change: usize, system: System, acknowledged: bool, now_us: i64) {
        let Some(change) = self.changes.get_mut(change) else { return };
        change.pending = change.pending.saturating_sub(1);
        match system {
            System::EventsApi => change.events_api |= acknowledged,
            System::EventPlatform => change.event_platform |= acknowledged,
        }
        change.settle(now_us);
    }
}

fn except_attributes(record: &Record) -> Vec<(&String, &Value)> {
    record.document.iter().filter(|(name, _)| *name != "attributes").collect()
}
