//! The only reader of time. Everything else is given a [`Clock`] or an instant.
//!
//! Wall time ([`Timestamp`]) is for people, for rows and for talking to upstreams; it never orders states (see `model::ordering`).
//! Spans inside one process are measured by [`Clock::monotonic`].

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

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

/// Where wall time and monotonic time come from. Tests move the wall clock with [`Clock::shifted`].
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    shift_micros: i64,
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of time")]
    pub fn system() -> Self {
        Self { origin: Instant::now(), shift_micros: 0 }
    }

    /// The same clock with its wall time moved by `micros`.
    #[must_use]
    pub fn shifted(self, micros: i64) -> Self {
        Self { shift_micros: self.shift_micros.saturating_add(micros), ..self }
    }

    /// Wall time.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of time")]
    pub fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(micros(since).saturating_add(self.shift_micros))
    }

    /// Time since this clock was made; never goes back.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of time")]
    pub fn monotonic(&self) -> Duration {
        Instant::now().saturating_duration_since(self.origin)
    }
}
