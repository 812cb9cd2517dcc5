//! How long receivers took to answer.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

/// Slower answers are counted as this slow; both systems give up long before.
const LONGEST_MS: u64 = 10_000;

/// Times until an answer, in whole milliseconds rounded up.
#[derive(Debug, Default)]
pub(super) struct Acks {
    counts: BTreeMap<u64, u64>,
}

impl Acks {
    pub(super) fn note(&mut self, took: Duration) {
        let ms = u64::try_from(took.as_micros().div_ceil(1000)).unwrap_or(LONGEST_MS).min(LONGEST_MS);
        *self.counts.entry(ms).or_default() += 1;
    }

    /// `{count, p99_ms, max_ms}`.
    pub(super) fn report(&self) -> Value {
        let count: u64 = self.counts.values().sum();
        let mut left = count * 99 / 100;
        let p99 = self.counts.iter().find(|(_, n)| {
            let here = left < **n;
            left = left.saturating_sub(**n);
            here
        });
        let max = self.counts.last_key_value();
        json!({ "count": count, "p99_ms": p99.map(|(ms, _)| ms), "max_ms": max.map(|(ms, _)| ms) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_of_a_hundred_is_the_maximum_and_no_percentile() {
        let mut acks = Acks::default();
        assert_eq!(acks.report(), json!({ "count": 0, "p99_ms": null, "max_ms": null }));
        for _ in 0..199 {
            acks.note(Duration::from_micros(1_500));
        }
        acks.note(Duration::from_millis(70));
        assert_eq!(acks.report(), json!({ "count": 200, "p99_ms": 2, "max_ms": 70 }));
    }
}
