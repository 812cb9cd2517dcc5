//! How long many requests take at the limits of a scope.

use std::time::Duration;

use super::limits::{Class, Limits, Shape, Unit};

impl Limits {
    /// The shortest time from the first to the last of `n` requests of a class, where nothing else is spent and answers take no
    /// time. Only limits of requests count: what a request costs in bytes or in the server's time shows when it is answered.
    #[must_use]
    pub fn span(&self, class: Class, n: u64) -> Duration {
        let spans = self.list().iter().filter(|limit| limit.unit == Unit::Requests).map(|limit| {
            // Limits are valid: no class is without anything to use.
            let usable = (limit.usable() - limit.reserved(class)).max(1);
            let further = n.saturating_sub(1);
            match limit.shape {
                Shape::Window(window) | Shape::Aligned(window) => {
                    window.saturating_mul(u32::try_from(further / usable).unwrap_or(u32::MAX))
                }
                Shape::Bucket { refill_per_second } => {
                    Duration::from_secs_f64(n.saturating_sub(usable) as f64 / (refill_per_second * limit.share))
                }
            }
        });
        spans.max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::quota::{BlockId, Concurrency, Decision, Limit, Limiter, Outcome};
    use proptest::prelude::*;

    fn limits(amount: u64, shape: Shape, share: f64) -> Limits {
        let limit = Limit { id: "x".into(), amount, shape, unit: Unit::Requests, share };
        Limits::new(vec![limit], Concurrency { cap: 100, floor: 0 }, Default::default()).expect("valid")
    }

    /// When the limiter itself grants the last of `n` requests that are answered at once.
    fn granted(limits: &Limits, class: Class, n: u64) -> Duration {
        let (mut limiter, mut now, mut rows) = (Limiter::new(limits.clone(), 1), Duration::ZERO, 0);
        let mut asked = 0;
        while asked < n {
            match limiter.acquire(now, class, "/tasks") {
                Decision::Granted(id) => {
                    asked += 1;
                    assert!(limiter.settle(id, now, Timestamp(0).plus(now), Outcome::default()));
                }
                Decision::NeedsBlock => {
                    let bookings = limiter.bookings(now);
                    let ids: Vec<BlockId> = bookings
                        .wanted
                        .iter()
                        .map(|_| {
                            BlockId({
                                rows += 1;
                                rows
                            })
                        })
                        .collect();
                    limiter.booked(&bookings, &ids, now, Timestamp(0).plus(now));
                }
                Decision::Wait { until, .. } => now = until.expect("time helps"),
            }
        }
        now
    }

    fn agrees(limits: &Limits, class: Class, n: u64, slack: Duration) -> Result<(), TestCaseError> {
        let (planned, granted) = (limits.span(class, n), granted(limits, class, n));
        prop_assert!(planned <= granted && granted <= planned + slack, "planned {planned:?}, granted after {granted:?}");
        Ok(())
    }

    proptest! {
        #[test]
        fn a_window_takes_what_the_limiter_takes(amount in 4_u64..60, seconds in 1_u64..7_200, n in 1_u64..400, sweep: bool) {
            let window = Duration::from_secs(seconds);
            let limits = limits(amount, Shape::Window(window), 1.0);
            let class = if sweep { Class::Sweep } else { Class::Live };
            // What comes back is kept in slots of a thousandth of the window, rounded up, and each window adds its own.
            let windows = u32::try_from(n / 2 + 2).unwrap_or(u32::MAX);
            agrees(&limits, class, n, window * windows / 500)?;
        }

        #[test]
        fn a_bucket_takes_what_the_limiter_takes(amount in 1_u64..60, refill in 0.1_f64..50.0, n in 1_u64..400, share in 0.5_f64..1.0) {
            prop_assume!((amount as f64 * share).floor() >= 1.0);
            let limits = limits(amount, Shape::Bucket { refill_per_second: refill }, share);
            // Each request waits for its charge to join the bucket and for its leak, either a millisecond or a slot of a thousandth
            // longer than it must be.
            let each = 2 * (Duration::from_millis(1) + limits.list()[0].window() / 1_000);
            let slack = each * u32::try_from(n).unwrap_or(u32::MAX) + Duration::from_secs_f64(2.0 / (refill * share));
            agrees(&limits, Class::Live, n, slack)?;
        }
    }

    #[test]
    fn the_tightest_limit_rules_and_a_class_leaves_its_share() {
        let window = |id: &str, amount, seconds| Limit {
            id: id.into(),
            amount,
            shape: Shape::Window(Duration::from_secs(seconds)),
            unit: Unit::Requests,
            share: 1.0,
        };
        let limits =
            Limits::new(vec![window("short", 10, 1), window("long", 100, 1_000)], Concurrency { cap: 9, floor: 0 }, Default::default());
        let limits = limits.expect("valid");
        assert_eq!((limits.span(Class::Live, 1), limits.span(Class::Live, 10)), (Duration::ZERO, Duration::ZERO));
        assert_eq!(limits.span(Class::Live, 100), Duration::from_secs(9), "by the short one");
        assert_eq!(limits.span(Class::Live, 101), Duration::from_secs(1_000), "by the long one");
        assert_eq!(limits.span(Class::Sweep, 71), Duration::from_secs(1_000), "a sweep has seven tenths of it");
    }
}
