//! The only reader of time. Everything else is given a [`Clock`] or an instant.
//!
//! Wall time ([`Timestamp`]) is for people, for rows and for talking to upstreams; it never orders states (see `model::ordering`).
//! Spans inside one process are measured by [`Clock::monotonic`].

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::failpoint;

mod daily;

pub use daily::Daily;

/// Two clocks are read one after the other, and wall clocks are slewed: what differs by less is no set clock.
const NOISE_MICROS: u64 = 2_000_000;

/// An instant of wall time: microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Parses RFC 3339 / ISO 8601 with `Z` or a numeric offset.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let instant: jiff::Timestamp = text.trim().parse().ok()?;
        Some(Self(instant.as_microsecond()))
    }

    /// This instant later by `span`, saturating.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }

    /// This instant earlier by `span`, saturating.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(micros(span)))
    }

    /// The span from `earlier` to this instant; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// As an HTTP date (RFC 9110, 5.6.7), rounded up to whole seconds: what is waited for until then has come. `None` beyond the
    /// years that it can say.
    #[must_use]
    pub fn http_date(self) -> Option<String> {
        let up = self.0.checked_add(999_999)?.div_euclid(1_000_000);
        let instant = jiff::Timestamp::from_second(up).ok()?;
        jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&instant).ok()
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// RFC 3339 in UTC with six fractional digits: `2026-03-14T04:17:19.292000Z`, equal in width so that text sorts as time.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(instant) => write!(f, "{instant:.6}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

/// Where wall time and monotonic time come from.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of time")]
    pub fn system() -> Self {
        Self { origin: Instant::now() }
    }

    /// Wall time.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of time")]
    pub fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(micros(since).saturating_add(failpoint::clock_moved_by()))
    }

    /// Time since this clock was made; never goes back.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of time")]
    pub fn monotonic(&self) -> Duration {
        Instant::now().saturating_duration_since(self.origin)
    }

    /// Where the wall clock stands on the machine's uptime; `None` where the machine tells no uptime.
    #[must_use]
    pub fn anchor(&self) -> Option<Anchor> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        Some(Anchor { boot, uptime: uptime()?, wall: self.now() })
    }
}

/// A moment at which the wall clock was believed, on the machine's uptime: that nobody sets, and it outlives a restart of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Which uptime it is.
    boot: String,
    /// Microseconds since the machine's start, sleep included.
    uptime: i64,
    /// What the wall clock said.
    wall: Timestamp,
}

impl Anchor {
    /// By how many microseconds the wall clock was set since `earlier`; `None` where the machine was started anew.
    #[must_use]
    pub fn set_since(&self, earlier: &Self) -> Option<i64> {
        Some(set_by((earlier.wall, Duration::ZERO), (self.wall, self.passed_since(earlier)?)))
    }

    /// The time that really passed since `earlier`; `None` where the machine was started anew.
    #[must_use]
    pub fn passed_since(&self, earlier: &Self) -> Option<Duration> {
        let passed = u64::try_from(self.uptime.saturating_sub(earlier.uptime)).ok()?;
        (self.boot == earlier.boot).then_some(Duration::from_micros(passed))
    }
}

/// What is kept of the wall clock for later: a file, which outlives the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchors {
    /// Where it was last believed.
    pub believed: Anchor,
    /// Where it was last seen.
    pub last: Anchor,
}

impl Anchors {
    /// Of a clock that nobody has set so far.
    #[must_use]
    pub fn at(anchor: Anchor) -> Self {
        Self { believed: anchor.clone(), last: anchor }
    }

    /// What was kept, if anything. Half a file is nothing.
    #[must_use]
    pub fn load(file: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(file).ok()?).ok()
    }

    /// Keeps it.
    ///
    /// # Errors
    /// Of the file system.
    pub fn store(&self, file: &Path) -> std::io::Result<()> {
        let new = file.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(new, file)
    }
}

/// By how many microseconds the wall clock was set between two moments, each by the wall clock and by one that nobody sets.
#[must_use]
pub fn set_by(earlier: (Timestamp, Duration), later: (Timestamp, Duration)) -> i64 {
    let set = later.0.0.saturating_sub(earlier.0.0).saturating_sub(micros(later.1.saturating_sub(earlier.1)));
    if set.unsigned_abs() <= NOISE_MICROS { 0 } else { set }
}

fn uptime() -> Option<i64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).ok()?;
    Some(micros(Duration::from(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    #[test]
    fn an_anchor_tells_by_how_much_the_wall_clock_was_set() {
        let at = |boot: &str, uptime, wall| Anchor { boot: boot.into(), uptime, wall: Timestamp(wall) };
        let earlier = at("a", HOUR, 100 * HOUR);
        assert_eq!(at("a", 3 * HOUR, 102 * HOUR).set_since(&earlier), Some(0));
        assert_eq!(at("a", 3 * HOUR, 112 * HOUR).set_since(&earlier), Some(10 * HOUR));
        assert_eq!(at("a", 3 * HOUR, 0).set_since(&earlier), Some(-102 * HOUR));
        assert_eq!(at("a", 3 * HOUR, 0).passed_since(&earlier), Some(Duration::from_secs(7200)));
        assert_eq!(at("b", 3 * HOUR, 102 * HOUR).set_since(&earlier), None, "another start of the machine");
    }

    #[test]
    fn an_http_date_is_that_of_the_standard_and_never_too_early() {
        let date = |micros| Timestamp(micros).http_date();
        assert_eq!(date(784_111_777_000_000).as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!(date(784_111_776_000_001).as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!(date(0).as_deref(), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
        assert_eq!(date(i64::MAX), None);
    }

    #[test]
    fn anchors_outlive_the_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("clock");
        assert_eq!(Anchors::load(&file), None);
        let anchor = Clock::system().anchor().expect("this machine tells its uptime");
        let anchors = Anchors::at(anchor.clone());
        anchors.store(&file).expect("stored");
        assert_eq!(Anchors::load(&file), Some(anchors));
        assert_eq!(Clock::system().anchor().and_then(|now| now.set_since(&anchor)), Some(0), "the same start");
        std::fs::write(&file, "{").expect("our own file");
        assert_eq!(Anchors::load(&file), None, "half a file");
    }
}
