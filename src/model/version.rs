//! The upstream's own ordering stamp of a record.

use std::fmt;

use crate::clock::Timestamp;

/// What a version's value is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// An update time; `precision` in microseconds (1,000,000 where the upstream cuts to seconds).
    Stamp { at: Timestamp, precision_us: i64 },
    /// A sequence number: exact.
    Sequence(i64),
}

/// A version is (field, value, precision). Versions of different fields are not comparable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// The upstream's field that it was read from, e.g. `updated_at`.
    pub field: String,
    /// The value.
    pub value: Value,
}
