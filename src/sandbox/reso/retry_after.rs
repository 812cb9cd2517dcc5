//! `Retry-After` as a sender reads it: seconds, or a date of HTTP.

/// Microseconds to wait from `now_us` on.
pub(super) fn read(text: &str, now_us: i64) -> Option<i64> {
    if let Ok(seconds) = text.trim().parse::<u32>() {
        return Some(i64::from(seconds) * 1_000_000);
    }
    let date = jiff::fmt::strtime::parse("%a, %d %b %Y %H:%M:%S GMT", text.trim()).ok()?.to_datetime().ok()?;
    let at = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    Some((at.as_microsecond() - now_us).max(0))
}

/// `Sat, 28 Nov 2026 02:00:00 GMT`.
pub(super) fn http_date(at_us: i64) -> String {
    let at = jiff::Timestamp::from_microsecond(at_us).unwrap_or_default();
    at.to_zoned(jiff::tz::TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        assert_eq!(read("3", 0), Some(3_000_000));
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(read("Thu, 01 Jan 1970 00:00:05 GMT", 1_000_000), Some(4_000_000));
        assert_eq!(read("soon", 0), None);
    }
}
