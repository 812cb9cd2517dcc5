//! Instants as the vendor writes and reads them: whole seconds, in the zone of the PIM's server.

use jiff::tz::{Offset, TimeZone};

use crate::clock::Timestamp;

/// The zone of the PIM's server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Zone {
    offset_s: i32,
}

impl Zone {
    /// Offsets that no zone has are taken as UTC.
    pub(super) fn new(offset_minutes: i32) -> Self {
        let offset_s = offset_minutes.saturating_mul(60);
        Self { offset_s: Offset::from_seconds(offset_s).map_or(0, Offset::seconds) }
    }

    /// `2026-01-01T10:00:00+01:00`.
    pub(super) fn stamp(self, at_s: i64) -> String {
        self.written(at_s, "%Y-%m-%dT%H:%M:%S%:z")
    }

    /// Reads `2026-01-01 10:00:00` as the server's PHP does: in its own zone.
    pub(super) fn read_zoneless(self, text: &str) -> Option<i64> {
        if text.len() != "2026-01-01 10:00:00".len() {
            return None;
        }
        let local = jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", text).ok()?;
        Some(self.zone().to_timestamp(local).ok()?.as_second())
    }

    fn written(self, at_s: i64, format: &str) -> String {
        let instant = jiff::Timestamp::from_second(at_s).unwrap_or_default();
        instant.to_zoned(self.zone()).strftime(format).to_string()
    }

    fn zone(self) -> TimeZone {
        Offset::from_seconds(self.offset_s).map_or(TimeZone::UTC, TimeZone::fixed)
    }
}

/// Reads ISO 8601 with `Z` or an offset.
pub(super) fn read_iso(text: &str) -> Option<i64> {
    Timestamp::parse(text).map(Timestamp::seconds)
}

/// `2026-01-01T10:00:00Z`, as CloudEvents have it.
pub(super) fn utc(at_s: i64) -> String {
    Zone::new(0).written(at_s, "%Y-%m-%dT%H:%M:%SZ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_written_and_read_in_the_servers_zone() {
        let at_s = read_iso("2026-01-01T09:00:00Z").expect("a valid instant");
        let (utc_zone, east) = (Zone::new(0), Zone::new(330));
        assert_eq!(utc_zone.stamp(at_s), "2026-01-01T09:00:00+00:00");
        assert_eq!(east.stamp(at_s), "2026-01-01T14:30:00+05:30");
        assert_eq!(Zone::new(-60).stamp(at_s), "2026-01-01T08:00:00-01:00");
        assert_eq!(east.read_zoneless("2026-01-01 14:30:00"), Some(at_s));
        assert_eq!(utc_zone.read_zoneless("2026-01-01 09:00:00"), Some(at_s));
        assert_eq!(utc_zone.read_zoneless("2026-01-01T09:00:00Z"), None);
        assert_eq!(utc_zone.read_zoneless("2026-13-01 09:00:00"), None);
        assert_eq!(utc(at_s), "2026-01-01T09:00:00Z");
    }
}
