//! Delays between tries: the only user of crate `backoff`, and only as a calculator of the curve.
//!
//! The crate gives up after 15 minutes by default and lets a server's wish bypass cap and jitter; a daemon wants neither, so the age
//! limit is off and [`RetryPolicy::clamp_server_delay`] bounds what a server asks for. The crate also draws its own randomness. Here
//! its factor is zero and the jitter comes from a number that the caller draws, so a delay is a function of its arguments.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;
use serde::{Deserialize, Serialize};

/// After this many steps every sensible curve has reached its cap; it bounds the loop for attempt numbers read from rows.
const STEPS_MAX: u32 = 64;

/// Longest delay that a policy may name: beyond a day a retry is a decision for the operator.
const DELAY_MAX: Duration = Duration::from_secs(24 * 3600);

/// Why a [`RetryPolicy`] is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The first delay is zero or longer than the cap.
    #[error("initial delay must be above zero and not above the cap")]
    Initial,
    /// The cap is longer than a day.
    #[error("cap must not be longer than a day")]
    Max,
    /// The multiplier is not a number from 1 to 10.
    #[error("multiplier must be between 1 and 10")]
    Multiplier,
    /// The jitter is not a number from 0 to 1.
    #[error("jitter must be between 0 and 1")]
    Jitter,
}

/// An exponential curve of delays with a cap and jitter; a value that is always valid.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct RetryPolicy {
    initial: Duration,
    max: Duration,
    multiplier: f64,
    jitter: f64,
}

/// The unchecked form of a policy, as configuration and rows write it.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Parts {
    initial: Duration,
    max: Duration,
    multiplier: f64,
    jitter: f64,
}

impl TryFrom<Parts> for RetryPolicy {
    type Error = Invalid;

    fn try_from(parts: Parts) -> Result<Self, Invalid> {
        Self::new(parts.initial, parts.max, parts.multiplier, parts.jitter)
    }
}

impl From<RetryPolicy> for Parts {
    fn from(policy: RetryPolicy) -> Self {
        let RetryPolicy { initial, max, multiplier, jitter } = policy;
        Self { initial, max, multiplier, jitter }
    }
}

impl Default for RetryPolicy {
    /// 0.5 s, doubling to 5 min, up to half of a delay taken off: a blip is over within a second, an outage costs 12 tries an hour.
    fn default() -> Self {
        Self { initial: Duration::from_millis(500), max: Duration::from_secs(300), multiplier: 2.0, jitter: 0.5 }
    }
}

impl RetryPolicy {
    /// Checks and makes a policy.
    ///
    /// `jitter` is the share of a delay that chance may take off, from 0 (none) to 1.
    ///
    /// # Errors
    /// [`Invalid`] names the first part that is out of its range.
    pub fn new(initial: Duration, max: Duration, multiplier: f64, jitter: f64) -> Result<Self, Invalid> {
        if max > DELAY_MAX {
            return Err(Invalid::Max);
        }
        if initial.is_zero() || initial > max {
            return Err(Invalid::Initial);
        }
        if !(1.0..=10.0).contains(&multiplier) {
            return Err(Invalid::Multiplier);
        }
        if !(0.0..=1.0).contains(&jitter) {
            return Err(Invalid::Jitter);
        }
        Ok(Self { initial, max, multiplier, jitter })
    }

    /// How long to wait before trying again after `attempt` failures (the first failure is attempt 1; 0 counts as 1).
    ///
    /// `random` is a uniformly random number drawn by the caller. The jitter only shortens: at the cap, where a crowd of retries ends
    /// up, delays still differ, and none is longer than the cap. A durable retry keeps its attempt number in its row and asks with it
    /// after a restart, so that the curve goes on where it was.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: u64) -> Duration {
        let full = self.curve(attempt);
        full.mul_f64(1.0 - self.jitter * unit(random)).min(self.max)
    }

    /// What to make of a delay that the server asked for: at least the first delay, at most the cap, and up to the jitter's share of
    /// the first delay on top, because everybody whom the server refused was told the same instant.
    #[must_use]
    pub fn clamp_server_delay(&self, asked: Duration, random: u64) -> Duration {
        let spread = self.initial.mul_f64(self.jitter * unit(random));
        asked.clamp(self.initial, self.max) + spread
    }

    /// The longest delay that [`RetryPolicy::delay`] gives: a stored `not_before` further ahead than this counts as due.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.max
    }

    fn curve(&self, attempt: u32) -> Duration {
        let mut curve = ExponentialBackoff {
            current_interval: self.initial,
            initial_interval: self.initial,
            randomization_factor: 0.0,
            multiplier: self.multiplier,
            max_interval: self.max,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        let mut delay = self.initial;
        for _ in 0..attempt.clamp(1, STEPS_MAX) {
            // Without an age limit the crate never answers "give up"; the cap is the right answer should it ever.
            delay = curve.next_backoff().unwrap_or(self.max);
        }
        // The crate adds up to one nanosecond of its own chance even at factor zero.
        Duration::from_micros(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)).min(self.max)
    }
}

/// A number from 0 up to but not including 1 out of random bits.
fn unit(random: u64) -> f64 {
    // 32 bits are spread enough for a delay, and a double holds them exactly.
    let bits = u32::try_from(random >> 32).unwrap_or(u32::MAX);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(policy: &RetryPolicy, attempt: u32, random: u64) -> f64 {
        policy.delay(attempt, random).as_secs_f64()
    }

    #[test]
    fn the_curve_doubles_up_to_its_cap_and_never_ends() {
        let policy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(10), 2.0, 0.0).expect("valid");
        let delays: Vec<f64> = [0, 1, 2, 3, 4, 5, 64, u32::MAX].iter().map(|n| seconds(&policy, *n, 7)).collect();
        assert_eq!(delays, [1.0, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]);
    }

    #[test]
    fn a_server_is_obeyed_within_our_bounds_and_never_answered_early() {
        let policy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(60), 2.0, 0.5).expect("valid");
        assert_eq!(policy.clamp_server_delay(Duration::ZERO, 0), Duration::from_secs(1));
        assert_eq!(policy.clamp_server_delay(Duration::from_secs(10), 0), Duration::from_secs(10));
        assert!(policy.clamp_server_delay(Duration::from_secs(10), u64::MAX) > Duration::from_secs(10));
        assert!(policy.clamp_server_delay(Duration::MAX, u64::MAX) < Duration::from_millis(60_501));
    }

    #[test]
    fn nonsense_is_refused_with_its_name() {
        let second = Duration::from_secs(1);
        assert_eq!(RetryPolicy::new(Duration::ZERO, second, 2.0, 0.0), Err(Invalid::Initial));
        assert_eq!(RetryPolicy::new(second * 2, second, 2.0, 0.0), Err(Invalid::Initial));
        assert_eq!(RetryPolicy::new(second, DELAY_MAX + second, 2.0, 0.0), Err(Invalid::Max));
        assert_eq!(RetryPolicy::new(second, second, 0.9, 0.0), Err(Invalid::Multiplier));
        assert_eq!(RetryPolicy::new(second, second, f64::NAN, 0.0), Err(Invalid::Multiplier));
        assert_eq!(RetryPolicy::new(second, second, 2.0, 1.1), Err(Invalid::Jitter));
    }

    proptest! {
        #[test]
        fn jitter_stays_inside_its_share_and_below_the_cap(attempt in 0_u32..80, random: u64) {
            let policy = RetryPolicy::default();
            let full = policy.curve(attempt);
            let delay = policy.delay(attempt, random);
            prop_assert!(delay >= full / 2 && delay <= full && delay <= policy.max());
            prop_assert_eq!(delay, policy.delay(attempt, random), "a delay is a function of its arguments");
        }

        #[test]
        fn the_curve_never_falls(attempt in 1_u32..80) {
            let policy = RetryPolicy::default();
            prop_assert!(policy.curve(attempt + 1) >= policy.curve(attempt));
        }
    }

    #[test]
    fn different_draws_give_different_delays_even_at_the_cap() {
        let policy = RetryPolicy::default();
        assert_ne!(policy.delay(60, 0), policy.delay(60, u64::MAX / 2));
    }
}
