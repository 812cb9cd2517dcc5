//! Limits as data: what a vendor allows, and how much of it is ours.

use std::time::Duration;

use crate::clock::Timestamp;

/// How long a request without a verdict may still wait in the server's queue before the server stamps it.
const MAX_SERVER_QUEUE: Duration = Duration::from_secs(60);

/// How far the server's clock may be from ours where a window is aligned to it: both run NTP, `Date` is cut to seconds.
const ALIGNED_SKEW: Duration = Duration::from_secs(30);

/// Windows up to this length are too short for reserved shares: whoever waits, waits seconds.
const RESERVED_ABOVE: Duration = Duration::from_secs(60);

/// The longest window that is accepted: a month, longer than any vendor's.
const WINDOW_MAX: Duration = Duration::from_secs(31 * 24 * 3600);

/// What a request is for; the order is the order of precedence, the first goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Somebody waits for this very record.
    Refresh,
    /// A hint said that these records changed.
    Live,
    /// Event feeds and incremental passes.
    Incremental,
    /// Sweeps and the backfill.
    Sweep,
    /// Comparisons of the replica with the upstream: nobody waits for them but who asked.
    Audit,
}

impl Class {
    /// Every class, the first first.
    pub const ALL: [Self; 5] = [Self::Refresh, Self::Live, Self::Incremental, Self::Sweep, Self::Audit];

    /// Per cent of a long window that this class leaves to those above it: live has 20 % of its own, incremental and sweeps another
    /// 10 % each.
    fn reserved_percent(self) -> u64 {
        match self {
            Self::Refresh | Self::Live => 0,
            Self::Incremental => 20,
            Self::Sweep => 30,
            Self::Audit => 40,
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Requests on the wire.
    Requests,
    /// Bytes of responses.
    Bytes,
    /// Milliseconds of the server's processing time.
    ServerMillis,
    /// Cost points of a query.
    Points,
}

/// Over what it is counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// Any window of this length, sliding or fixed at an unknown instant.
    Window(Duration),
    /// Windows of this length that begin at whole multiples of it since the epoch (UTC): clock hours, UTC days.
    Aligned(Duration),
    /// A bucket: the limit's amount is its capacity, which leaks at this rate.
    Bucket {
        /// Units that come back each second.
        refill_per_second: f64,
    },
}

/// One limit of a vendor and our share of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Scope and name, unique in the database: `productive:org:435/requests/30min`. Durable blocks are kept under it.
    pub id: String,
    /// What the vendor allows in one window, or the capacity of the bucket.
    pub amount: u64,
    /// Over what it is counted.
    pub shape: Shape,
    /// What is counted.
    pub unit: Unit,
    /// Our share of it, above 0 and up to 1; the rest is for other clients of the same account.
    pub share: f64,
}

impl Limit {
    /// Our share in whole units, rounded down.
    #[must_use]
    pub fn usable(&self) -> u64 {
        // Amounts are far below 2^52 (validated), so the product is exact enough to be cut to whole units.
        (self.amount as f64 * self.share).floor() as u64
    }

    /// The length of the window; for a bucket the time in which it empties.
    #[must_use]
    pub fn window(&self) -> Duration {
        match self.shape {
            Shape::Window(window) | Shape::Aligned(window) => window,
            Shape::Bucket { refill_per_second } => Duration::from_secs_f64(self.amount as f64 / refill_per_second),
        }
    }

    /// How long after `from`, the last instant at which the server may have stamped a request, its charge is held. A bucket holds
    /// nothing: from then on the charge leaks.
    pub(crate) fn hold(&self, from: Timestamp) -> Duration {
        match self.shape {
            Shape::Window(window) => window,
            Shape::Aligned(window) => aligned_hold(window, from),
            Shape::Bucket { .. } => Duration::ZERO,
        }
    }

    /// The longest that a charge can be held after its last possible stamp; bounds what rows of another clock may claim.
    pub(crate) fn hold_max(&self) -> Duration {
        match self.shape {
            Shape::Aligned(window) => window + 2 * ALIGNED_SKEW,
            Shape::Window(_) | Shape::Bucket { .. } => self.window(),
        }
    }

    /// What `class` must leave untouched: only in windows over a minute.
    pub(crate) fn reserved(&self, class: Class) -> u64 {
        match self.shape {
            Shape::Window(window) | Shape::Aligned(window) if window > RESERVED_ABOVE => {
                (self.usable() * class.reserved_percent()).div_ceil(100)
            }
            _ => 0,
        }
    }

    fn check(&self) -> Result<(), InvalidLimits> {
        let fail = |why| Err(InvalidLimits::Limit { id: self.id.clone(), why });
        if !(self.share > 0.0 && self.share <= 1.0) {
            return fail("share must be above 0 and at most 1");
        }
        if self.amount > 1 << 50 {
            return fail("amount is absurd");
        }
        if self.usable() == 0 {
            return fail("our share is less than one unit");
        }
        match self.shape {
            Shape::Bucket { refill_per_second } if !(1e-6..=1e12).contains(&refill_per_second) => fail("refill must be a positive number"),
            _ if self.window().is_zero() || self.window() > WINDOW_MAX => fail("window must be above zero and at most 31 days"),
            _ => Ok(()),
        }
    }
}

/// The server's boundary lies within the skew of ours. A charge made until just before it may fall on either side, so it is held to the
/// end of the later window; a charge comes back only once the server's window has surely turned over.
fn aligned_hold(window: Duration, from: Timestamp) -> Duration {
    let length = i64::try_from(window.as_micros()).unwrap_or(i64::MAX);
    let skewed = from.plus(ALIGNED_SKEW).0;
    let boundary = skewed.div_euclid(length).saturating_add(1).saturating_mul(length);
    Timestamp(boundary).plus(ALIGNED_SKEW).since(from)
}

/// What a request of a class costs at most, reserved until its response tells. Requests always cost one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Bytes of the response.
    pub bytes: u64,
    /// Milliseconds of the server's time.
    pub server_ms: u64,
    /// Cost points.
    pub points: u64,
}

impl Expected {
    pub(crate) fn of(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests => 1,
            Unit::Bytes => self.bytes,
            Unit::ServerMillis => self.server_ms,
            Unit::Points => self.points,
        }
    }
}

/// How many requests may be under way at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// The cap.
    pub cap: u32,
    /// Requests without a verdict lower the cap while the server may still work on them, but not below this. Zero where the vendor
    /// counts concurrent requests; above zero where the cap is only our own politeness, so that timeouts do not stop everything.
    pub floor: u32,
}

/// How much of the vendor's limits is ours; the rest is for other clients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuotaShare {
    /// Of a token's limits.
    pub token: f64,
    /// Of an organisation's limits.
    pub organisation: f64,
}

impl Default for QuotaShare {
    /// Nine tenths of a token, which is ours alone; six of an organisation's, which people and other integrations use too.
    fn default() -> Self {
        Self { token: 0.9, organisation: 0.6 }
    }
}

/// Why [`Limits`] are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimits {
    /// A limit is out of range by itself.
    #[error("limit {id}: {why}")]
    Limit {
        /// The limit's id.
        id: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two limits have one id.
    #[error("limit {id} is given twice")]
    Duplicate {
        /// The id.
        id: String,
    },
    /// A request of this class could never be granted.
    #[error("limit {id}: a request of class {class:?} reserves more than the class may ever use")]
    Unreachable {
        /// The limit's id.
        id: String,
        /// The class.
        class: Class,
    },
    /// The cap on concurrent requests is zero or below its floor.
    #[error("concurrency must be at least one and not below its floor")]
    Concurrency,
}

/// All limits that hold for the requests of one scope; always valid.
#[derive(Clone, Debug)]
pub struct Limits {
    limits: Vec<Limit>,
    concurrency: Concurrency,
    expected: [Expected; 5],
    max_server_queue: Duration,
}

impl Limits {
    /// Checks and makes the limits of a scope. `expected` gives each class's largest charge, in the order of [`Class::ALL`].
    ///
    /// # Errors
    /// [`InvalidLimits`] names the first limit that is out of range, doubled, or that some class could never get through.
    pub fn new(limits: Vec<Limit>, concurrency: Concurrency, expected: [Expected; 5]) -> Result<Self, InvalidLimits> {
        if concurrency.cap == 0 || concurrency.floor > concurrency.cap {
            return Err(InvalidLimits::Concurrency);
        }
        for (index, limit) in limits.iter().enumerate() {
            limit.check()?;
            if limits[..index].iter().any(|other| other.id == limit.id) {
                return Err(InvalidLimits::Duplicate { id: limit.id.clone() });
            }
            for (class, expected) in Class::ALL.into_iter().zip(&expected) {
                if expected.of(limit.unit) + limit.reserved(class) > limit.usable() {
                    return Err(InvalidLimits::Unreachable { id: limit.id.clone(), class });
                }
            }
        }
        Ok(Self { limits, concurrency, expected, max_server_queue: MAX_SERVER_QUEUE })
    }

    /// Productive's documented limits: 100 requests in 10 s for a token; for an organisation 4,000 requests in 30 min and, of the
    /// server's own time, 30 min in each clock hour and 6 h in each UTC day. It names no cap on concurrent requests: 8 is ours.
    ///
    /// `token` is a label of the token that stays the same over restarts, never the token.
    ///
    /// # Errors
    /// [`InvalidLimits`] if a share is out of range.
    pub fn productive(organisation: &str, token: &str, share: QuotaShare) -> Result<Self, InvalidLimits> {
        let limit = |id: String, amount, shape, unit, share| Limit { id, amount, shape, unit, share };
        let hour = Duration::from_secs(3600);
        let org = format!("productive:org:{organisation}");
        let limits = vec![
            limit(
                format!("productive:token:{token}/requests/10s"),
                100,
                Shape::Window(Duration::from_secs(10)),
                Unit::Requests,
                share.token,
            ),
            limit(format!("{org}/requests/30min"), 4_000, Shape::Window(hour / 2), Unit::Requests, share.organisation),
            limit(format!("{org}/server-time/hour"), 1_800_000, Shape::Aligned(hour), Unit::ServerMillis, share.organisation),
            limit(format!("{org}/server-time/day"), 6 * 3_600_000, Shape::Aligned(24 * hour), Unit::ServerMillis, share.organisation),
        ];
        let server = |server_ms| Expected { server_ms, ..Expected::default() };
        // A single record or a batch by keys answers well within 5 s; a page of 200 with relations may take 10.
        let expected = [server(5_000), server(5_000), server(10_000), server(10_000), server(10_000)];
        Self::new(limits, Concurrency { cap: 8, floor: 4 }, expected)
    }

    /// The same limits with another longest time in the server's queue (default 60 s).
    #[must_use]
    pub fn with_max_server_queue(self, max_server_queue: Duration) -> Self {
        Self { max_server_queue, ..self }
    }

    /// How long a request without a verdict may still wait before the server stamps it.
    #[must_use]
    pub fn max_server_queue(&self) -> Duration {
        self.max_server_queue
    }

    /// The single limits.
    #[must_use]
    pub fn list(&self) -> &[Limit] {
        &self.limits
    }

    /// The longest window: no pause is ever longer.
    #[must_use]
    pub fn longest_window(&self) -> Duration {
        self.limits.iter().map(Limit::window).max().unwrap_or(RESERVED_ABOVE)
    }

    pub(crate) fn concurrency(&self) -> Concurrency {
        self.concurrency
    }

    pub(crate) fn expected(&self, class: Class) -> Expected {
        self.expected[class as usize]
    }

    /// The largest reserve that any class makes of `limit`.
    pub(crate) fn expected_max(&self, limit: &Limit) -> u64 {
        self.expected.iter().map(|expected| expected.of(limit.unit)).max().unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(amount: u64, window: u64) -> Limit {
        Limit { id: "x".into(), amount, shape: Shape::Window(Duration::from_secs(window)), unit: Unit::Requests, share: 1.0 }
    }

    fn build(limits: Vec<Limit>) -> Result<Limits, InvalidLimits> {
        Limits::new(limits, Concurrency { cap: 4, floor: 0 }, [Expected::default(); 5])
    }

    #[test]
    fn productive_has_its_documented_numbers_and_our_share_of_them() {
        let limits = Limits::productive("435", "main", QuotaShare::default()).expect("the defaults are valid");
        let usable: Vec<(u64, u64)> = limits.list().iter().map(|limit| (limit.usable(), limit.window().as_secs())).collect();
        assert_eq!(usable, [(90, 10), (2_400, 1_800), (1_080_000, 3_600), (12_960_000, 86_400)]);
        assert_eq!(limits.longest_window(), Duration::from_secs(86_400));
        assert_eq!(limits.list()[1].id, "productive:org:435/requests/30min");
    }

    #[test]
    fn nonsense_is_refused_with_its_name() {
        assert!(matches!(build(vec![Limit { share: 0.0, ..requests(10, 1) }]), Err(InvalidLimits::Limit { .. })));
        assert!(matches!(build(vec![Limit { share: 1.1, ..requests(10, 1) }]), Err(InvalidLimits::Limit { .. })));
        assert!(matches!(build(vec![Limit { share: 0.5, ..requests(1, 1) }]), Err(InvalidLimits::Limit { .. })));
        assert!(matches!(build(vec![requests(10, 0)]), Err(InvalidLimits::Limit { .. })));
        let endless = Shape::Bucket { refill_per_second: 0.0 };
        assert!(matches!(build(vec![Limit { shape: endless, ..requests(10, 1) }]), Err(InvalidLimits::Limit { .. })));
        assert!(matches!(build(vec![requests(1, 1), requests(2, 1)]), Err(InvalidLimits::Duplicate { .. })));
        // One request in two minutes leaves a sweep nothing below the reserve of the classes above it.
        assert!(matches!(build(vec![requests(1, 120)]), Err(InvalidLimits::Unreachable { .. })));
        let none = Concurrency { cap: 0, floor: 0 };
        assert!(matches!(Limits::new(vec![], none, [Expected::default(); 5]), Err(InvalidLimits::Concurrency)));
    }

    #[test]
    fn shares_are_reserved_in_windows_over_a_minute_only() {
        let percent = |window: u64| Class::ALL.map(|class| requests(100, window).reserved(class));
        assert_eq!(percent(60), [0, 0, 0, 0, 0]);
        assert_eq!(percent(61), [0, 0, 20, 30, 40]);
    }

    #[test]
    fn an_aligned_charge_is_held_until_the_servers_window_has_surely_turned_over() {
        let hour = Duration::from_secs(3600);
        let held = |second: i64| aligned_hold(hour, Timestamp(second * 1_000_000)).as_secs();
        assert_eq!(held(0), 3_630, "at the hour: to the next one, and the skew");
        assert_eq!(held(1_800), 1_830);
        assert_eq!(held(3_569), 61, "safely before the boundary");
        assert_eq!(held(3_570), 3_660, "within the skew it may count for the next hour already");
        assert_eq!(held(-1), 3_631, "instants before the epoch are no exception");
    }
}
