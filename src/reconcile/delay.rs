//! How late each way told of the changes, and which it never told ([`Told`]).
//!
//! A delay is from the upstream's own stamp of the state to the first statement of a way about it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::told::{Terms, Told};
use crate::clock::Timestamp;

const SECOND: i64 = 1_000_000;

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
    /// What the stamps are cut to, in seconds: the coarsest of the resources that it told of.
    pub stamp_seconds: f64,
    /// Any figure may be so many seconds too long: stamps are cut, and clocks differ. `None`: the distance of the clocks is not known.
    pub too_long_seconds: Option<f64>,
    /// Any figure may be so many seconds too short, for clocks differ.
    pub too_short_seconds: Option<f64>,
}

/// Puts delays together.
#[derive(Debug, Default)]
pub struct Tally {
    changes: u64,
    unstamped: u64,
    /// What the stamps of a resource are cut to, in microseconds, as far as they show.
    cuts: BTreeMap<String, i64>,
    ways: BTreeMap<String, Heard>,
}

/// What one way told of.
#[derive(Debug, Default)]
struct Heard {
    told: u64,
    first: u64,
    delays: Vec<i64>,
    resources: BTreeSet<String>,
}

impl Tally {
    /// Counts a change of a resource; `ahead_us`: how far the upstream's clock is ahead of ours.
    pub fn count(&mut self, resource: &str, told: &Told, ahead_us: i64) {
        self.changes += 1;
        self.unstamped += u64::from(told.change.stamp.is_none());
        if let Some(stamp) = told.change.stamp {
            let cut = self.cuts.entry(resource.to_owned()).or_insert(SECOND);
            *cut = Ord::min(*cut, cut_of(stamp));
        }
        let first = told.ways.values().min().copied();
        for (way, at) in &told.ways {
            let heard = self.ways.entry(way.clone()).or_default();
            heard.told += 1;
            heard.first += u64::from(Some(*at) == first);
            if let Some(stamp) = told.change.stamp.filter(|_| heard.delays.len() < DELAYS_MAX) {
                heard.delays.push(at.0 + ahead_us - stamp.0);
                if !heard.resources.contains(resource) {
                    heard.resources.insert(resource.to_owned());
                }
            }
        }
    }

    /// The figures; `clocks`: by how much the distance of the clocks may make a delay too long and too short, in microseconds.
    #[must_use]
    pub fn end(self, clocks: Option<(i64, i64)>) -> Delays {
        let percent = |n: u64| (n * 10_000 / Ord::max(self.changes, 1)) as f64 / 100.0;
        let seconds = |micros: i64| micros as f64 / 1e6;
        let way = |Heard { told, first, mut delays, resources }: Heard| {
            delays.sort_unstable();
            let at = |per_cent: usize| delays.get((delays.len() * per_cent).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0);
            let cut = resources.iter().filter_map(|resource| self.cuts.get(resource)).max().copied().unwrap_or(0);
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
                stamp_seconds: seconds(cut),
                too_long_seconds: clocks.map(|(too_long, _)| seconds(cut + too_long)),
                too_short_seconds: clocks.map(|(_, too_short)| seconds(too_short)),
            }
        };
        Delays {
            changes: self.changes,
            unstamped: self.unstamped,
            ways: self.ways.into_iter().map(|(name, heard)| (name, way(heard))).collect(),
        }
    }
}

/// What a stamp was cut to at most, in microseconds: a second, a tenth of it, and so on.
fn cut_of(stamp: Timestamp) -> i64 {
    let mut cut = SECOND;
    while stamp.0 % cut != 0 {
        cut /= 10;
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::reconcile::Learned;

    fn told(stamp: i64, ways: BTreeMap<String, Timestamp>) -> Told {
        Told { change: Learned { at: Timestamp(stamp), stamp: Some(Timestamp(stamp)), by: "mark".to_owned() }, ways }
    }

    #[test]
    fn the_figures_are_those_of_the_samples() {
        let mut tally = Tally::default();
        for n in 1..=200_i64 {
            let mut ways = BTreeMap::from([("pass".to_owned(), Timestamp(500 * SECOND))]);
            if n % 4 > 0 {
                ways.insert("hook".to_owned(), Timestamp(n * SECOND / 2));
            }
            tally.count("tasks", &told(0, ways), 0);
        }
        let delays = tally.end(None);
        let hook = &delays.ways["hook"];
        assert_eq!((hook.stamp_seconds, hook.too_long_seconds), (1.0, None), "nobody knows how far the clocks are apart");
        assert_eq!((hook.n, hook.few, hook.max), (150, false, 99.5));
        assert!((hook.p50 - 50.0).abs() < 1.0 && (hook.p90 - 90.0).abs() < 1.0 && (hook.p99 - 99.0).abs() < 1.0, "{hook:?}");
        assert_eq!((hook.first_percent, hook.never_percent), (75.0, 25.0));
        assert_eq!((delays.ways["pass"].first_percent, delays.ways["pass"].never_percent), (25.0, 0.0));
    }

    #[test]
    fn the_coarsest_stamps_that_a_way_told_of_bound_its_error() {
        let mut tally = Tally::default();
        let mut tell = |resource: &str, stamp: i64, way: &str| {
            let ways = BTreeMap::from([(way.to_owned(), Timestamp(stamp + SECOND))]);
            tally.count(resource, &told(stamp, ways), 0);
        };
        // One of fine stamps may be round by chance.
        for (resource, stamp, way) in [("tasks", 7 * SECOND, "hook"), ("tasks", 7_123_000, "hook"), ("deals", 8 * SECOND, "feed")] {
            tell(resource, stamp, way);
        }
        tell("tasks", 9_120_000, "feed");
        let delays = tally.end(Some((2_000, 8_000)));
        let of = |way: &str| (delays.ways[way].stamp_seconds, delays.ways[way].too_long_seconds, delays.ways[way].too_short_seconds);
        assert_eq!((of("hook"), of("feed")), ((0.001, Some(0.003), Some(0.008)), (1.0, Some(1.002), Some(0.008))));
        assert_eq!([0, 1, 10, -7_100_000].map(|at| cut_of(Timestamp(at))), [SECOND, 1, 10, 100_000]);
    }
}
