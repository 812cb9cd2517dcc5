//! How late each way told of the changes, and which it never told ([`Told`]).
//!
//! A delay is from the upstream's own stamp of the state to the first statement of a way about it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::told::{Terms, Told};

/// A statement further before a change than this is about another one.
pub const WINDOW: Duration = Duration::from_secs(3_600);
/// Stamps may be cut to seconds, and the clocks' distance is known within less than that.
const SLACK: Duration = Duration::from_secs(1);
/// Delays of one way that a distribution is made of; later ones are counted and left out of it.
const DELAYS_MAX: usize = 500_000;
/// Fewer samples than this say little of a tail.
pub const ENOUGH: usize = 100;

/// What counts as told where delays are measured; `ahead_us`: how far the upstream's clock is ahead of ours.
#[must_use]
pub fn terms(within: Duration, ahead_us: i64) -> Terms {
    Terms { within, slack: SLACK, unstamped: WINDOW, horizon: WINDOW, ahead_us }
}

/// How late and how lossy the ways of a source are.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Delays {
    /// Changes since then.
    pub changes: u64,
    /// Of them without a stamp of the upstream (removals): they count for what was told, not for how late.
    pub unstamped: u64,
    /// Every stamp is a whole second: delays may be up to one longer than they were.
    pub whole_seconds: bool,
    /// By way.
    pub ways: BTreeMap<String, Way>,
}

/// One way of learning.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Way {
    /// Changes it told of.
    pub told: u64,
    /// Of all changes, those it told of first.
    pub first_percent: f64,
    /// Of all changes, those it never told of.
    pub never_percent: f64,
    /// Delays that the rest is made of.
    pub n: usize,
    /// Fewer than a hundred: a tail of so few means little.
    pub few: bool,
    /// Seconds from the upstream's stamp to our having it: of half the changes at most.
    pub p50: f64,
    /// Of nine in ten.
    pub p90: f64,
    /// Of 99 in 100.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// Puts delays together.
#[derive(Debug, Default)]
pub struct Tally {
    changes: u64,
    unstamped: u64,
    subsecond: bool,
    ways: BTreeMap<String, (u64, u64, Vec<i64>)>,
}

impl Tally {
    /// Counts a change; `ahead_us`: how far the upstream's clock is ahead of ours.
    pub fn count(&mut self, told: &Told, ahead_us: i64) {
        self.changes += 1;
        self.unstamped += u64::from(told.change.stamp.is_none());
        self.subsecond |= told.change.stamp.is_some_and(|at| at.0 % 1_000_000 != 0);
        let first = told.ways.values().min().copied();
        for (way, at) in &told.ways {
            let (n, n_first, delays) = self.ways.entry(way.clone()).or_default();
            *n += 1;
            *n_first += u64::from(Some(*at) == first);
            if let Some(stamp) = told.change.stamp.filter(|_| delays.len() < DELAYS_MAX) {
                delays.push(at.0 + ahead_us - stamp.0);
            }
        }
    }

    /// The figures.
    #[must_use]
    pub fn end(self) -> Delays {
        let percent = |n: u64| (n * 10_000 / Ord::max(self.changes, 1)) as f64 / 100.0;
        let way = |(told, first, mut delays): (u64, u64, Vec<i64>)| {
            delays.sort_unstable();
            let at = |per_cent: usize| delays.get((delays.len() * per_cent).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0);
            let seconds = |micros: i64| micros as f64 / 1e6;
            Way {
                told,
                first_percent: percent(first),
                never_percent: percent(self.changes - told),
                n: delays.len(),
                few: delays.len() < ENOUGH,
                p50: seconds(at(50)),
                p90: seconds(at(90)),
                p99: seconds(at(99)),
                max: seconds(at(100)),
            }
        };
        Delays {
            changes: self.changes,
            unstamped: self.unstamped,
            whole_seconds: self.changes > self.unstamped && !self.subsecond,
            ways: self.ways.into_iter().map(|(name, figures)| (name, way(figures))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::clock::Timestamp;
    use crate::reconcile::Learned;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn the_figures_are_those_of_the_samples() {
        let mut tally = Tally::default();
        for n in 1..=200_i64 {
            let mut ways = BTreeMap::from([("pass".to_owned(), Timestamp(500 * SECOND))]);
            if n % 4 > 0 {
                ways.insert("hook".to_owned(), Timestamp(n * SECOND / 2));
            }
            let change = Learned { at: Timestamp(0), stamp: Some(Timestamp(0)), by: "mark".to_owned() };
            tally.count(&Told { change, ways }, 0);
        }
        let delays = tally.end();
        let hook = &delays.ways["hook"];
        assert_eq!((hook.n, hook.few, hook.max), (150, false, 99.5));
        assert!((hook.p50 - 50.0).abs() < 1.0 && (hook.p90 - 90.0).abs() < 1.0 && (hook.p99 - 99.0).abs() < 1.0, "{hook:?}");
        assert_eq!((hook.first_percent, hook.never_percent), (75.0, 25.0));
        assert_eq!((delays.ways["pass"].first_percent, delays.ways["pass"].never_percent), (25.0, 0.0));
    }
}
