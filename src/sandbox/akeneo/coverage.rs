//! Which changes each event system announced.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::resource::Resource;
use super::state::Inner;

/// How many changes, or keys, which system announced. What both did is counted with each of them, so that their sum less `both`
/// plus `none` is `all`.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    all: u64,
    events_api: u64,
    event_platform: u64,
    both: u64,
    none: u64,
}

impl Tally {
    fn add(&mut self, (events_api, event_platform): (bool, bool)) {
        self.all += 1;
        self.events_api += u64::from(events_api);
        self.event_platform += u64::from(event_platform);
        self.both += u64::from(events_api && event_platform);
        self.none += u64::from(!events_api && !event_platform);
    }

    fn shown(self) -> Value {
        json!({
            "all": self.all, "events_api": self.events_api, "event_platform": self.event_platform, "both": self.both, "none": self.none,
        })
    }
}

#[derive(Debug, Default)]
struct Row<'a> {
    changes: Tally,
    /// Which systems ever announced a key.
    keys: BTreeMap<&'a str, (bool, bool)>,
}

impl Inner {
    /// Per resource and operation: changes, and different keys, by whether a delivery was acknowledged.
    pub(super) fn coverage(&self) -> Vec<Value> {
        let mut rows: BTreeMap<(Resource, &str), Row<'_>> = BTreeMap::new();
        for change in &self.changes {
            let row = rows.entry((change.resource, change.operation.counted())).or_default();
            row.changes.add((change.events_api, change.event_platform));
            let seen = row.keys.entry(&change.key).or_default();
            *seen = (seen.0 | change.events_api, seen.1 | change.event_platform);
        }
        let shown = |((resource, operation), row): ((Resource, &str), Row<'_>)| {
            let mut keys = Tally::default();
            row.keys.values().for_each(|seen| keys.add(*seen));
            json!({
                "resource": resource.spec().name, "operation": operation, "changes": row.changes.shown(), "keys": keys.shown(),
            })
        };
        rows.into_iter().map(shown).collect()
    }
}
