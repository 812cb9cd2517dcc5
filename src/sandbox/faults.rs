//! Draws injected faults and counts what really happened.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::dice::{happens, mix};

/// The faults that one kind of sandbox knows.
pub(super) trait Shares: Clone + Serialize + DeserializeOwned {
    /// How strongly each kind is configured; 0 is not at all.
    fn shares(&self) -> BTreeMap<&'static str, f64>;
}

/// The faults in force, and their record. The n-th draw of a kind depends on the seed, the kind and n alone.
#[derive(Debug)]
pub(super) struct Injector<F> {
    seed: u64,
    pub(super) faults: F,
    drawn: BTreeMap<&'static str, u64>,
    counts: BTreeMap<&'static str, u64>,
    /// The highest share each kind ever had.
    configured: BTreeMap<&'static str, f64>,
}

impl<F: Shares> Injector<F> {
    pub(super) fn new(seed: u64, faults: F) -> Self {
        let configured = faults.shares();
        Self { seed, faults, drawn: BTreeMap::new(), counts: BTreeMap::new(), configured }
    }

    /// Changes the faults named in `patch` and leaves the others as they are.
    pub(super) fn patch(&mut self, patch: &Map<String, Value>) -> Result<(), serde_json::Error> {
        let mut now = serde_json::to_value(&self.faults)?;
        for (name, value) in patch {
            now[name] = value.clone();
        }
        self.faults = serde_json::from_value(now)?;
        for (kind, share) in self.faults.shares() {
            let highest = self.configured.entry(kind).or_default();
            *highest = highest.max(share);
        }
        Ok(())
    }

    /// Whether a fault of the kind happens now; a random number for its details when it does.
    pub(super) fn draw(&mut self, kind: &'static str, share: f64) -> Option<u64> {
        if share <= 0.0 {
            return None;
        }
        let number = self.drawn.entry(kind).or_default();
        *number += 1;
        let kind_seed = mix(&[self.seed, kind.bytes().fold(0, |hash, byte| mix(&[hash, u64::from(byte)]))]);
        let mixed = mix(&[kind_seed, *number]);
        drawn(kind_seed, *number - 1, mixed, share).then(|| {
            self.count(kind);
            mix(&[mixed])
        })
    }

    pub(super) fn count(&mut self, kind: &'static str) {
        *self.counts.entry(kind).or_default() += 1;
    }

    /// `{kind: {configured, count}}`.
    pub(super) fn report(&self) -> Value {
        let row = |(kind, share): (&&'static str, &f64)| {
            ((*kind).to_owned(), json!({ "configured": share, "count": self.counts.get(kind).copied().unwrap_or(0) }))
        };
        Value::Object(self.configured.iter().map(row).collect())
    }

    /// Kinds that were configured and never happened: a run that claims to have withstood them would be a lie.
    pub(super) fn never_happened(&self) -> Vec<&'static str> {
        self.configured.iter().filter(|(kind, share)| **share > 0.0 && !self.counts.contains_key(*kind)).map(|(kind, _)| *kind).collect()
    }
}

/// Whether draw `index` is a hit. A small share is met by one hit at a random place of every `1 / share` draws, so that a short
/// run meets it too; a large one by chance.
fn drawn(kind_seed: u64, index: u64, mixed: u64, share: f64) -> bool {
    if share > 0.5 {
        return happens(mixed, share);
    }
    let stratum = (1.0 / share).round() as u64;
    index % stratum == mix(&[kind_seed, u64::MAX, index / stratum]) % stratum
}

#[cfg(test)]
mod tests {
    use super::super::productive::Faults;
    use super::*;

    #[test]
    fn draws_repeat_and_keep_their_share() {
        let run = || {
            let mut injector = Injector::new(5, Faults { hooks_lost: 0.1, truncated: 0.1, ..Faults::default() });
            let drawn: Vec<bool> = (0..2_000).map(|_| injector.draw("hooks_lost", 0.1).is_some()).collect();
            (drawn, injector)
        };
        let ((first, injector), (second, _)) = (run(), run());
        assert_eq!(first, second);
        let count = first.iter().filter(|lost| **lost).count();
        assert_eq!(count, 200, "one of every ten");
        assert_eq!(injector.report()["hooks_lost"]["count"], json!(count));
        assert_eq!(injector.never_happened(), ["truncated"]);
    }

    #[test]
    fn a_patch_changes_only_what_it_names() {
        let mut injector = Injector::new(5, Faults { hooks_lost: 0.1, ..Faults::default() });
        let patch = json!({ "read_lag_ms": 500 });
        injector.patch(patch.as_object().expect("an object")).expect("a known fault");
        assert_eq!(injector.faults, Faults { hooks_lost: 0.1, read_lag_ms: 500, ..Faults::default() });
        assert!(injector.patch(json!({ "hooks_lots": 1 }).as_object().expect("an object")).is_err());
    }
}
