//! How near a sender is to the most that it sends: from there on deliveries wait with it, and are dropped when they have waited too long.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::connectors::Cap;

/// The deliveries of one route within its sender's window, in monotonic time. Kept in memory: a new process counts anew.
#[derive(Debug, Default)]
pub(super) struct Ceiling(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    at: VecDeque<Duration>,
    told_at: Option<Duration>,
}

impl Ceiling {
    /// A delivery came; whether its sender has reached its cap. Said once in a window: what it costs is a pass.
    pub(super) fn is_reached(&self, cap: Cap, now: Duration) -> bool {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while counted.at.front().is_some_and(|at| now.saturating_sub(*at) >= cap.window) {
            counted.at.pop_front();
        }
        if counted.at.len() >= cap.deliveries {
            counted.at.pop_front();
        }
        counted.at.push_back(now);
        let is_reached = counted.at.len() >= cap.deliveries && counted.told_at.is_none_or(|told| now.saturating_sub(told) >= cap.window);
        if is_reached {
            counted.told_at = Some(now);
        }
        is_reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_is_said_once_in_its_window() {
        let (ceiling, cap) = (Ceiling::default(), Cap { deliveries: 3, window: Duration::from_secs(60) });
        let at = |seconds: u64| ceiling.is_reached(cap, Duration::from_secs(seconds));
        assert_eq!([at(0), at(1), at(61)], [false; 3], "never three within a minute");
        assert_eq!([at(62), at(63), at(64)], [false, true, false]);
        assert_eq!([at(121), at(122), at(123)], [false, false, true], "a minute later it is said again");
        assert!(ceiling.0.lock().expect("alone").at.len() <= cap.deliveries);
    }
}
