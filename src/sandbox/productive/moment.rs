//! Instants and dates as the vendor writes them: in the organisation's zone, with a numeric offset.
//!
//! The organisation lives in central Europe, so that both `+01:00` and `+02:00` occur and text never sorts as time.

use crate::clock::Timestamp;

const DAY_SECONDS: i64 = 86_400;
const SECOND_US: i64 = 1_000_000;

/// `2026-03-14T05:17:19.292+01:00`.
pub(super) fn date_time(at_us: i64) -> String {
    let seconds = at_us.div_euclid(SECOND_US);
    let offset = offset_seconds(seconds);
    let local = seconds + offset;
    let in_day = local.rem_euclid(DAY_SECONDS);
    format!(
        "{}T{:02}:{:02}:{:02}.{:03}+{:02}:00",
        date(local.div_euclid(DAY_SECONDS)),
        in_day / 3600,
        in_day / 60 % 60,
        in_day % 60,
        at_us.rem_euclid(SECOND_US) / 1000,
        offset / 3600
    )
}

/// The same, cut to whole seconds as the vendor does with `last_activity_at`.
pub(super) fn date_time_whole(at_us: i64) -> String {
    date_time(at_us - at_us.rem_euclid(SECOND_US))
}

/// `2026-03-14` of a day number (days since the epoch).
pub(super) fn date(day: i64) -> String {
    let (year, month, day) = civil(day);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The organisation's day number in which an instant lies.
pub(super) fn day_of(at_us: i64) -> i64 {
    let seconds = at_us.div_euclid(SECOND_US);
    (seconds + offset_seconds(seconds)).div_euclid(DAY_SECONDS)
}

/// A date or a date-time as a filter's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    /// The organisation's day number.
    pub(super) day: i64,
    /// Whole seconds since the epoch; none when only a date was given.
    pub(super) second: Option<i64>,
}

/// Reads `2026-09-12` or an ISO 8601 date-time with offset.
pub(super) fn bound(text: &str) -> Option<Bound> {
    if let Some(day) = day_number(text) {
        return Some(Bound { day, second: None });
    }
    let at = Timestamp::parse(text)?;
    Some(Bound { day: day_of(at.0), second: Some(at.seconds()) })
}

/// The day number of `2026-09-12`.
pub(super) fn day_number(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, '-');
    let year: i64 = parts.next()?.parse().ok()?;
    let month: i64 = parts.next()?.parse().ok()?;
    let day: i64 = parts.next()?.parse().ok()?;
    ((1..=12).contains(&month) && (1..=31).contains(&day)).then(|| days(year, month, day))
}

/// Summer time from the last Sunday of March to the last Sunday of October, 01:00 UTC.
fn offset_seconds(at_seconds: i64) -> i64 {
    let (year, _, _) = civil(at_seconds.div_euclid(DAY_SECONDS));
    let from = last_sunday(days(year, 3, 31)) * DAY_SECONDS + 3600;
    let until = last_sunday(days(year, 10, 31)) * DAY_SECONDS + 3600;
    if (from..until).contains(&at_seconds) { 7200 } else { 3600 }
}

/// The last Sunday on or before a day; day 0 was a Thursday.
fn last_sunday(day: i64) -> i64 {
    day - (day + 4).rem_euclid(7)
}

/// Days since the epoch of a Gregorian date, counted in years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The Gregorian date of a day number.
fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        Timestamp::parse(text).expect("a valid instant").0
    }

    #[test]
    fn instants_are_written_in_the_organisations_zone() {
        assert_eq!(date_time(at("2026-03-14T04:17:19.292Z")), "2026-03-14T05:17:19.292+01:00");
        assert_eq!(date_time(at("2026-07-01T22:30:00.007Z")), "2026-07-02T00:30:00.007+02:00");
        assert_eq!(date_time(at("2026-03-29T00:59:59Z")), "2026-03-29T01:59:59.000+01:00");
        assert_eq!(date_time(at("2026-03-29T01:00:00Z")), "2026-03-29T03:00:00.000+02:00");
        assert_eq!(date_time_whole(at("2026-03-14T04:17:19.999Z")), "2026-03-14T05:17:19.000+01:00");
    }

    #[test]
    fn bounds_are_days_or_instants() {
        let day = bound("2026-09-12").expect("a date");
        assert_eq!((date(day.day), day.second), ("2026-09-12".to_owned(), None));
        let late = bound("2026-09-12T23:30:00Z").expect("a date-time");
        assert_eq!(date(late.day), "2026-09-13");
        assert_eq!(bound("2026-09-12T10:15:30 02:00"), None);
    }
}
