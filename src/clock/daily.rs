//! A time of day in a zone, such as 03:00 in Europe/Amsterdam.

use std::time::Duration;

use jiff::civil::Time;
use jiff::tz::TimeZone;

use super::Timestamp;

/// A time of day in a zone. Where summer time begins and the clock leaps over it, it is as much later that day as the clock leaps;
/// where it comes twice, it is the first.
#[derive(Clone, Debug)]
pub struct Daily {
    time: Time,
    zone: TimeZone,
    later: Duration,
}

impl Daily {
    /// From `HH:MM` and the name of a zone.
    #[must_use]
    pub fn parse(at: &str, zone: &str) -> Option<Self> {
        let is_plain =
            at.len() == 5 && at.bytes().enumerate().all(|(index, byte)| if index == 2 { byte == b':' } else { byte.is_ascii_digit() });
        let (hour, minute) = at.split_once(':').filter(|_| is_plain)?;
        let time = Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()?;
        Some(Self { time, zone: TimeZone::get(zone).ok()?, later: Duration::ZERO })
    }

    /// Every day later by `span`.
    #[must_use]
    pub fn later(self, span: Duration) -> Self {
        Self { later: span, ..self }
    }

    /// The first of its instants that is not before `from`.
    #[must_use]
    pub fn at_or_after(&self, from: Timestamp) -> Timestamp {
        self.search(from.minus(self.later)).map_or(from, |at| at.plus(self.later))
    }

    /// `None` beyond the years that have dates.
    fn search(&self, from: Timestamp) -> Option<Timestamp> {
        let mut date = jiff::Timestamp::from_microsecond(from.0).ok()?.to_zoned(self.zone.clone()).date();
        loop {
            let at = Timestamp(date.to_datetime(self.time).to_zoned(self.zone.clone()).ok()?.timestamp().as_microsecond());
            if at >= from {
                return Some(at);
            }
            date = date.tomorrow().ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn next(at: &str, zone: &str, from: &str) -> String {
        let from = Timestamp::parse(from).expect("an instant");
        Daily::parse(at, zone).expect("a time of day").at_or_after(from).to_string()
    }

    #[test]
    fn it_follows_the_zone_through_summer_and_winter() {
        let amsterdam = |from| next("03:00", "Europe/Amsterdam", from);
        assert_eq!(amsterdam("2026-01-10T12:00:00Z"), "2026-01-11T02:00:00.000000Z");
        assert_eq!(amsterdam("2026-07-10T12:00:00Z"), "2026-07-11T01:00:00.000000Z");
        assert_eq!(amsterdam("2026-07-11T01:00:00Z"), "2026-07-11T01:00:00.000000Z", "at it is not behind it");
        assert_eq!(next("03:00", "UTC", "2026-07-11T02:59:59Z"), "2026-07-11T03:00:00.000000Z");
    }

    #[test]
    fn what_the_clock_leaps_over_is_later_and_what_comes_twice_is_the_first() {
        // At 02:00 the clock says 03:00; in autumn 02:00 to 03:00 comes twice.
        assert_eq!(next("02:30", "Europe/Amsterdam", "2026-03-29T00:00:00Z"), "2026-03-29T01:30:00.000000Z");
        assert_eq!(next("02:30", "Europe/Amsterdam", "2026-10-25T00:00:00Z"), "2026-10-25T00:30:00.000000Z");
    }

    #[test]
    fn nonsense_is_refused() {
        for (at, zone) in
            [("24:00", "UTC"), ("3:00", "UTC"), ("03:60", "UTC"), ("03:00", "Mars/Olympus"), ("-3:00", "UTC"), ("03:00:00", "UTC")]
        {
            assert!(Daily::parse(at, zone).is_none(), "{at} {zone}");
        }
    }

    proptest! {
        #[test]
        fn it_comes_once_a_day_and_is_never_behind(
            from in 0_i64..4_000_000_000,
            later in 0_u64..86_400,
            zone in prop::sample::select(vec!["UTC", "Europe/Amsterdam", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
        ) {
            let daily = Daily::parse("02:30", zone).expect("a time of day").later(Duration::from_secs(later));
            let from = Timestamp(from * 1_000_000);
            let at = daily.at_or_after(from);
            prop_assert!(at >= from && at.since(from) <= Duration::from_secs(25 * 3600), "{}", at);
            prop_assert_eq!(daily.at_or_after(at), at);
            let following = daily.at_or_after(at.plus(Duration::from_secs(1)));
            let hours = following.since(at).as_secs() / 3600;
            prop_assert!((22..=25).contains(&hours), "{hours} h to the next");
        }
    }
}
