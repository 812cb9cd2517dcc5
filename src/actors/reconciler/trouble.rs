//! What failed lately, and how long it rests: one ailing resource or feed must not hold up the others.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Clock;
use crate::retry::RetryPolicy;

/// Consecutive failures by the name of the resource or feed.
pub(super) struct Trouble {
    clock: Clock,
    backoff: RetryPolicy,
    /// Failures in a row, and the monotonic time of the next try.
    met: HashMap<String, (u32, Duration)>,
}

impl Trouble {
    pub(super) fn new(clock: Clock) -> Self {
        let backoff = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(300), 2.0, 0.5)
            .expect("invariant: the constants are a valid policy");
        Self { clock, backoff, met: HashMap::new() }
    }

    /// How long `name` still rests.
    pub(super) fn rests(&self, name: &str) -> Option<Duration> {
        let (_, until) = self.met.get(name)?;
        until.checked_sub(self.clock.monotonic()).filter(|left| !left.is_zero())
    }

    /// Notes a failure; how many in a row that makes.
    pub(super) fn met(&mut self, name: &str) -> u32 {
        let now = self.clock.monotonic();
        let (failures, until) = self.met.entry(name.to_owned()).or_default();
        *until = now + self.backoff.delay(*failures, rand::random());
        *failures = failures.saturating_add(1);
        *failures
    }

    /// `name` rests for `span`, whatever failed before.
    pub(super) fn rest(&mut self, name: &str, span: Duration) {
        self.met.insert(name.to_owned(), (0, self.clock.monotonic() + span));
    }

    pub(super) fn over(&mut self, name: &str) {
        self.met.remove(name);
    }
}
