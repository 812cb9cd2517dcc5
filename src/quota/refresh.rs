//! What refreshes may take of a quota: they go before everything else, so they may not have all of it.

use std::collections::VecDeque;
use std::time::Duration;

use super::limits::{Limits, Unit};

/// Counts what was taken, exactly, in the longest of the scope's windows. Of a limit on requests so many may be refreshes in any
/// window of it; limits in other units are kept by the limiter alone. A new process begins anew.
#[derive(Debug)]
pub struct RefreshShare {
    /// Requests in any window of this length.
    caps: Vec<(usize, Duration)>,
    /// When each of the last ones was taken, oldest first.
    taken: VecDeque<Duration>,
}

impl RefreshShare {
    /// `share` of what is ours of each limit on requests, at least one unless it is 0.
    #[must_use]
    pub fn new(limits: &Limits, share: f64) -> Self {
        let amount = |usable: u64| if share > 0.0 { ((usable as f64 * share) as usize).max(1) } else { 0 };
        let requests = limits.list().iter().filter(|limit| limit.unit == Unit::Requests);
        Self { caps: requests.map(|limit| (amount(limit.usable()), limit.window())).collect(), taken: VecDeque::new() }
    }

    /// Takes one.
    ///
    /// # Errors
    /// How long until there is one.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let longest = self.caps.iter().map(|(_, window)| *window).max().unwrap_or_default();
        while self.taken.front().is_some_and(|at| *at + longest <= now) {
            self.taken.pop_front();
        }
        let wait = |(cap, window): &(usize, Duration)| match self.taken.len().checked_sub(*cap) {
            None => None,
            // The one whose end makes room; without a share there never is any.
            Some(over) => Some(self.taken.get(over).map_or(*window, |at| (*at + *window).saturating_sub(now))),
        };
        match self.caps.iter().filter_map(wait).max().filter(|wait| !wait.is_zero()) {
            Some(wait) => Err(wait),
            None => {
                if !self.caps.is_empty() {
                    self.taken.push_back(now);
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quota::{Concurrency, Expected, Limit, Shape};

    fn limits(amounts: &[(u64, u64)]) -> Limits {
        let limit = |(n, (amount, seconds)): (usize, &(u64, u64))| Limit {
            id: format!("scope/{n}"),
            amount: *amount,
            shape: Shape::Window(Duration::from_secs(*seconds)),
            unit: Unit::Requests,
            share: 1.0,
        };
        let list = amounts.iter().enumerate().map(limit).collect();
        Limits::new(list, Concurrency { cap: 4, floor: 0 }, [Expected::default(); 5]).expect("valid limits")
    }

    #[test]
    fn a_fifth_may_go_and_the_rest_is_told_when() {
        let mut share = RefreshShare::new(&limits(&[(100, 10)]), 0.2);
        let at = Duration::from_secs;
        for second in 0..20 {
            assert_eq!(share.take(at(second) / 10), Ok(()), "{second}");
        }
        assert_eq!(share.take(at(2)), Err(at(8)), "the first one comes back 10 s after it was taken");
        assert_eq!(share.take(at(10)), Ok(()));
        assert_eq!(share.take(at(10)), Err(Duration::from_millis(100)));
    }

    #[test]
    fn without_a_share_nothing_goes_and_the_smallest_share_is_one() {
        assert_eq!(RefreshShare::new(&limits(&[(100, 10)]), 0.0).take(Duration::ZERO), Err(Duration::from_secs(10)));
        let mut one = RefreshShare::new(&limits(&[(3, 10)]), 0.2);
        assert_eq!((one.take(Duration::ZERO), one.take(Duration::ZERO)), (Ok(()), Err(Duration::from_secs(10))));
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_its_share(steps in prop::collection::vec(0_u64..900, 1..200)) {
            let mut share = RefreshShare::new(&limits(&[(20, 2), (60, 30)]), 0.2);
            let (mut now, mut taken) = (0, Vec::new());
            for step in steps {
                now += step;
                match share.take(Duration::from_millis(now)) {
                    Ok(()) => taken.push(now),
                    // What it says is kept.
                    Err(wait) => {
                        now += wait.as_millis() as u64;
                        prop_assert_eq!(share.take(Duration::from_millis(now)), Ok(()));
                        taken.push(now);
                    }
                }
            }
            for (window, cap) in [(2_000, 4), (30_000, 12)] {
                for end in &taken {
                    let n = taken.iter().filter(|at| **at <= *end && **at + window > *end).count();
                    prop_assert!(n <= cap, "{} in {} ms", n, window);
                }
            }
        }
    }
}
