//! The log of EntityEvents: numbers that only grow, and are not always visible in their order.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::resource::{Resource as R, SEQUENCE};
use super::state::State;
use super::world::Record;

/// One event.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) resource: R,
    pub(super) key: Arc<str>,
    /// A concurrent writer may be given its number before others and finish after them.
    visible_us: i64,
}

/// The log, by number.
#[derive(Debug, Default)]
pub(super) struct Log {
    events: BTreeMap<u64, Event>,
    last: u64,
    pub(super) compactions: u64,
    /// Events that compactions took away.
    pub(super) compacted: u64,
}

impl Log {
    /// Writes an event; its number.
    pub(super) fn append(&mut self, resource: R, key: &str, visible_us: i64) -> u64 {
        self.last += 1;
        self.events.insert(self.last, Event { resource, key: key.into(), visible_us });
        self.last
    }

    /// Leaves a number out.
    pub(super) fn skip(&mut self) {
        self.last += 1;
    }

    pub(super) fn get(&self, number: u64) -> Option<&Event> {
        self.events.get(&number)
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn numbers(&self, from: u64) -> impl Iterator<Item = u64> {
        self.events.range(from..).map(|(number, _)| *number)
    }

    /// Visible events from a number on, as records.
    pub(super) fn visible(&self, from: u64, now_us: i64) -> impl Iterator<Item = (String, Arc<Record>)> {
        let visible = self.events.range(from..).filter(move |(_, event)| event.visible_us <= now_us);
        visible.map(|(number, event)| (number.to_string(), Arc::new(event.record(*number))))
    }

    /// Keeps the last visible event of each record, and whatever is not visible yet.
    pub(super) fn compact(&mut self, now_us: i64) {
        let mut seen: HashSet<(R, Arc<str>)> = HashSet::new();
        let old: Vec<u64> = self
            .events
            .iter()
            .rev()
            .filter(|(_, event)| event.visible_us <= now_us && !seen.insert((event.resource, Arc::clone(&event.key))))
            .map(|(number, _)| *number)
            .collect();
        for number in &old {
            self.events.remove(number);
        }
        self.compactions += 1;
        self.compacted += old.len() as u64;
    }
}

impl Event {
    fn record(&self, number: u64) -> Record {
        let mut record = Record::default();
        record.set(SEQUENCE, number);
        record.set("ResourceName", self.resource.name());
        record.set("ResourceRecordKey", &*self.key);
        record
    }
}

/// Compacts the log once a period until the sandbox stops.
pub(super) async fn compact_now_and_then(state: Arc<State>) {
    if state.options.compaction_ms == 0 {
        return;
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(state.options.compaction_ms)) => {}
            () = state.stop.cancelled() => return,
        }
        let now_us = state.now_us();
        state.inner().events.compact(now_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(log: &Log, now_us: i64) -> Vec<String> {
        log.visible(0, now_us).map(|(number, _)| number).collect()
    }

    #[test]
    fn a_late_number_appears_behind_the_head_and_compaction_keeps_the_last() {
        let mut log = Log::default();
        log.append(R::Property, "a", 0);
        log.append(R::Property, "a", 50);
        log.skip();
        log.append(R::Property, "a", 10);
        log.append(R::Member, "a", 10);
        assert_eq!(numbers(&log, 10), ["1", "4", "5"]);
        log.compact(10);
        assert_eq!(numbers(&log, 10), ["4", "5"]);
        assert_eq!(numbers(&log, 50), ["2", "4", "5"]);
    }
}
