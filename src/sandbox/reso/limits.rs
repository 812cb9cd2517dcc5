//! Windows of requests and bytes, kept as a server keeps them. Written without a look at the client's limiter.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use super::options::{Options, Profile};

const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;
const HOUR_US: i64 = 60 * MINUTE_US;

/// What a window counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Requests,
    Bytes,
}

#[derive(Debug)]
struct Window {
    name: &'static str,
    unit: Unit,
    span_us: i64,
    most: u64,
    spent: VecDeque<(i64, u64)>,
    sum: u64,
}

impl Window {
    fn has_room(&mut self, now_us: i64) -> bool {
        while let Some((_, n)) = self.spent.front().copied().filter(|(at_us, _)| *at_us <= now_us - self.span_us) {
            self.spent.pop_front();
            self.sum -= n;
        }
        self.sum < self.most
    }

    fn spend(&mut self, n: u64, now_us: i64) {
        self.spent.push_back((now_us, n));
        self.sum += n;
    }
}

/// The limits of one producer. The client is refused where a window is full; refused requests do not count.
#[derive(Debug)]
pub(super) struct Limits {
    windows: Vec<Window>,
    refusals: BTreeMap<&'static str, u64>,
    pub(super) bytes: u64,
}

impl Limits {
    pub(super) fn new(options: &Options) -> Self {
        use Unit::{Bytes, Requests};
        let mut windows: Vec<(&'static str, Unit, i64, u64)> = match options.profile {
            Profile::Plain => Vec::new(),
            Profile::Mlsgrid => vec![
                ("second", Requests, SECOND_US, 2),
                ("hour", Requests, HOUR_US, 7_200),
                ("day", Requests, 24 * HOUR_US, 40_000),
                ("bytes_hour", Bytes, HOUR_US, 4 << 30),
            ],
            Profile::Bridge => vec![("minute", Requests, MINUTE_US, 334), ("hour", Requests, HOUR_US, 5_000)],
            Profile::Trestle => vec![("minute", Requests, MINUTE_US, 180), ("hour", Requests, HOUR_US, 7_200)],
            Profile::Spark => vec![("five_minutes", Requests, 5 * MINUTE_US, 1_500)],
        };
        if options.requests_per_second > 0 {
            windows.retain(|(name, ..)| *name != "second");
            windows.push(("second", Requests, SECOND_US, options.requests_per_second));
        }
        // A second stays a second: the longer windows are what a test cannot wait for.
        let scaled = |span_us: i64| if span_us == SECOND_US { span_us } else { (span_us as f64 * options.window_scale) as i64 };
        let window = |(name, unit, span_us, most)| Window { name, unit, span_us: scaled(span_us), most, spent: VecDeque::new(), sum: 0 };
        Self { windows: windows.into_iter().map(window).collect(), refusals: BTreeMap::new(), bytes: 0 }
    }

    /// Admits a request, or says which window is full.
    pub(super) fn admit(&mut self, now_us: i64) -> Result<(), &'static str> {
        let full = self.windows.iter_mut().find_map(|window| (!window.has_room(now_us)).then_some(window.name));
        if let Some(name) = full {
            self.refuse(name);
            return Err(name);
        }
        self.spend(Unit::Requests, 1, now_us);
        Ok(())
    }

    /// Books the bytes of an answer.
    pub(super) fn book(&mut self, bytes: u64, now_us: i64) {
        self.bytes += bytes;
        self.spend(Unit::Bytes, bytes, now_us);
    }

    pub(super) fn refuse(&mut self, name: &'static str) {
        *self.refusals.entry(name).or_default() += 1;
    }

    pub(super) fn refused(&self) -> u64 {
        self.refusals.values().sum()
    }

    pub(super) fn refusals(&self) -> Vec<Value> {
        self.refusals.iter().map(|(scope, count)| json!({ "scope": scope, "count": count })).collect()
    }

    fn spend(&mut self, unit: Unit, n: u64, now_us: i64) {
        for window in self.windows.iter_mut().filter(|window| window.unit == unit) {
            window.spend(n, now_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_bytes_have_their_windows() {
        let mut limits = Limits::new(&Options { profile: Profile::Mlsgrid, ..Options::default() });
        assert_eq!((limits.admit(0), limits.admit(0), limits.admit(999_999)), (Ok(()), Ok(()), Err("second")));
        assert_eq!(limits.admit(SECOND_US), Ok(()));
        limits.book(4 << 30, 2 * SECOND_US);
        assert_eq!(limits.admit(3 * SECOND_US), Err("bytes_hour"));
        assert_eq!(limits.admit(HOUR_US + 2 * SECOND_US), Ok(()));
        assert_eq!(limits.refused(), 2);
    }
}
