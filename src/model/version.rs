//! The upstream's own ordering stamp of a record.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;

/// How far a stamp may run ahead of the upstream's own `Date` before it counts as none: more than any honest clock, less than
/// what one record stamped in another year would need to win for ever.
const AHEAD_MAX: Duration = Duration::from_secs(5 * 60);

/// What a version's value is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// An update time.
    Stamp {
        /// The instant.
        at: Timestamp,
        /// Its precision in microseconds (1,000,000 where the upstream cuts to seconds); at least 1.
        precision_us: i64,
    },
    /// A sequence number: exact.
    Sequence(i64),
}

/// A version is (field, value, precision). Versions of different fields are not comparable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// The upstream's field that it was read from, e.g. `updated_at`; shared, as a resource has one.
    pub field: Arc<str>,
    /// The value.
    pub value: Value,
}

/// How one version stands to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Newer beyond the coarser precision of both.
    Newer,
    /// Older beyond the coarser precision of both.
    Older {
        /// By how much; `None` for sequences, which measure no time.
        by: Option<Duration>,
    },
    /// Equal at the coarser precision.
    Tie,
    /// Of different fields or kinds, or one of them is missing.
    Incomparable,
}

impl Version {
    /// Reads an ISO 8601 stamp with `Z` or a numeric offset; its precision is that of the digits written.
    /// An upstream that drops trailing zeros is thereby taken for coarser, which is the safe side: a tie costs a read.
    #[must_use]
    pub fn stamp(field: &Arc<str>, text: &str) -> Option<Self> {
        let at = Timestamp::parse(text)?;
        Some(Self { field: field.clone(), value: Value::Stamp { at, precision_us: written_precision(text) } })
    }

    /// A sequence number.
    #[must_use]
    pub fn sequence(field: &Arc<str>, number: i64) -> Self {
        Self { field: field.clone(), value: Value::Sequence(number) }
    }

    /// The same version, known to be no more precise than `precision_us` (an upstream may write `.000` and mean whole seconds).
    #[must_use]
    pub fn cut_to(self, precision_us: i64) -> Self {
        let value = match self.value {
            Value::Stamp { at, precision_us: written } => Value::Stamp { at, precision_us: written.max(precision_us) },
            sequence @ Value::Sequence(_) => sequence,
        };
        Self { value, ..self }
    }

    /// The version, unless it is a stamp further ahead than five minutes of `date`, the upstream's clock: such a stamp counts as none.
    #[must_use]
    pub fn plausible(self, date: Timestamp) -> Option<Self> {
        match self.value {
            Value::Stamp { at, .. } if at > date.plus(AHEAD_MAX) => None,
            _ => Some(self),
        }
    }

    /// How this version stands to `other`.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Order {
        if self.field != other.field {
            return Order::Incomparable;
        }
        match (self.value, other.value) {
            (Value::Sequence(a), Value::Sequence(b)) if a > b => Order::Newer,
            (Value::Sequence(a), Value::Sequence(b)) if a < b => Order::Older { by: None },
            (Value::Sequence(_), Value::Sequence(_)) => Order::Tie,
            (Value::Stamp { at: a, precision_us: p }, Value::Stamp { at: b, precision_us: q }) => stamps(a, b, p.max(q)),
            _ => Order::Incomparable,
        }
    }

    /// The instant of a stamp; `None` for a sequence.
    #[must_use]
    pub fn at(&self) -> Option<Timestamp> {
        match self.value {
            Value::Stamp { at, .. } => Some(at),
            Value::Sequence(_) => None,
        }
    }

    /// The value as text for a column: RFC 3339 in UTC with six fractional digits, or a decimal number.
    #[must_use]
    pub fn text(&self) -> String {
        match self.value {
            Value::Stamp { at, .. } => at.to_string(),
            Value::Sequence(number) => number.to_string(),
        }
    }

    /// The precision for a column: microseconds of a stamp, 0 for a sequence.
    #[must_use]
    pub fn precision_us(&self) -> i64 {
        match self.value {
            Value::Stamp { precision_us, .. } => precision_us,
            Value::Sequence(_) => 0,
        }
    }

    /// The way back from the columns that [`text`](Self::text), `field` and [`precision_us`](Self::precision_us) filled.
    #[must_use]
    pub fn parse(field: &Arc<str>, text: &str, precision_us: i64) -> Option<Self> {
        if precision_us < 1 {
            return Some(Self::sequence(field, text.parse().ok()?));
        }
        let at = Timestamp::parse(text)?;
        Some(Self { field: field.clone(), value: Value::Stamp { at, precision_us } })
    }
}

/// How `a` stands to `b` where either may be missing.
#[must_use]
pub fn compare(a: Option<&Version>, b: Option<&Version>) -> Order {
    match (a, b) {
        (Some(a), Some(b)) => a.compare(b),
        _ => Order::Incomparable,
    }
}

fn stamps(a: Timestamp, b: Timestamp, precision_us: i64) -> Order {
    let (a, b) = (cut(a, precision_us), cut(b, precision_us));
    match a.cmp(&b) {
        std::cmp::Ordering::Greater => Order::Newer,
        std::cmp::Ordering::Less => Order::Older { by: Some(b.since(a)) },
        std::cmp::Ordering::Equal => Order::Tie,
    }
}

fn cut(at: Timestamp, precision_us: i64) -> Timestamp {
    Timestamp(at.0.saturating_sub(at.0.rem_euclid(precision_us.max(1))))
}

/// Microseconds that the last written digit of the seconds stands for.
fn written_precision(text: &str) -> i64 {
    let fraction = text.split_once(['.', ',']).map_or("", |(_, rest)| rest);
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).take(6).count();
    (digits..6).fold(1, |unit, _| unit * 10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field() -> Arc<str> {
        Arc::from("updated_at")
    }

    fn stamp(text: &str) -> Version {
        Version::stamp(&field(), text).expect("a stamp")
    }

    #[test]
    fn stamps_are_instants() {
        assert_eq!(stamp("2026-03-14T05:17:19.292+01:00").compare(&stamp("2026-03-14T04:17:19.292Z")), Order::Tie);
        assert_eq!(Version::stamp(&field(), "2026-03-14"), None);
        assert_eq!(Version::stamp(&field(), "2026-03-14T05:17:19"), None, "no offset: which instant is unknown");
    }

    #[test]
    fn the_coarser_precision_decides() {
        let seconds = stamp("2026-03-14T10:00:00Z");
        assert_eq!(seconds.precision_us(), 1_000_000);
        assert_eq!(stamp("2026-03-14T10:00:00.5Z").precision_us(), 100_000);
        assert_eq!(stamp("2026-03-14T10:00:00.123456789Z").precision_us(), 1);
        let millis = stamp("2026-03-14T10:00:00.500Z");
        assert_eq!(seconds.compare(&millis), Order::Tie);
        assert_eq!(millis.compare(&seconds), Order::Tie);
        let later = stamp("2026-03-14T10:00:01.500Z");
        assert_eq!(seconds.compare(&later), Order::Older { by: Some(Duration::from_secs(1)) });
        assert_eq!(millis.cut_to(1_000_000).compare(&stamp("2026-03-14T10:00:00.900Z")), Order::Tie);
    }

    #[test]
    fn different_fields_and_kinds_do_not_compare() {
        let other: Arc<str> = Arc::from("ModificationTimestamp");
        let a = stamp("2026-03-14T10:00:00Z");
        assert_eq!(a.compare(&Version { field: other, ..a.clone() }), Order::Incomparable);
        assert_eq!(a.compare(&Version::sequence(&field(), 7)), Order::Incomparable);
        assert_eq!(compare(Some(&a), None), Order::Incomparable);
    }

    #[test]
    fn a_stamp_ahead_of_the_upstreams_clock_counts_as_none() {
        let date = Timestamp::parse("2026-03-14T10:00:00Z").expect("a date");
        assert!(stamp("2026-03-14T10:05:00Z").plausible(date).is_some());
        assert_eq!(stamp("2099-01-01T00:00:00Z").plausible(date), None);
        assert!(Version::sequence(&field(), i64::MAX).plausible(date).is_some());
    }

    fn any_version() -> impl Strategy<Value = Version> {
        let precision = prop::sample::select(vec![1_i64, 1_000, 1_000_000]);
        prop_oneof![
            (-5_000_000_i64..5_000_000, precision)
                .prop_map(|(us, precision_us)| Version { field: field(), value: Value::Stamp { at: Timestamp(us), precision_us } }),
            any::<i64>().prop_map(|n| Version::sequence(&field(), n)),
        ]
    }

    proptest! {
        #[test]
        fn compare_is_antisymmetric(a in any_version(), b in any_version()) {
            match (a.compare(&b), b.compare(&a)) {
                (Order::Newer, Order::Older { .. }) | (Order::Older { .. }, Order::Newer) => {}
                (x, y) => prop_assert!(x == y && matches!(x, Order::Tie | Order::Incomparable)),
            }
        }

        #[test]
        fn columns_round_trip(a in any_version()) {
            prop_assert_eq!(Version::parse(&a.field, &a.text(), a.precision_us()), Some(a));
        }

        #[test]
        fn reading_a_stamp_never_panics(text in ".*") {
            let _ = Version::stamp(&field(), &text);
        }
    }
}
