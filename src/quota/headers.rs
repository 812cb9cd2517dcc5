//! What upstreams say about waiting: `Retry-After` and `X-RateLimit-Reset` in all the forms in which they are met.

use std::time::Duration;

use crate::clock::Timestamp;

/// Numbers above this are instants in seconds since the epoch, not spans: a span of 31 years is none.
const EPOCH_SECONDS: f64 = 1e9;

/// Numbers above this are instants in milliseconds since the epoch.
const EPOCH_MILLIS: f64 = 1e12;

/// How long to wait by a `Retry-After` or `X-RateLimit-Reset` value: seconds (whole or not), an instant in seconds or milliseconds
/// since the epoch, or an HTTP date. Past instants and negative spans are zero; nothing is longer than `longest`.
///
/// `wall` is our wall time, against which instants are measured. None if the value is none of these forms.
#[must_use]
pub fn wait(value: &str, wall: Timestamp, longest: Duration) -> Option<Duration> {
    let value = value.trim();
    match value.parse::<f64>() {
        Ok(number) if number.is_nan() => None,
        Ok(number) => Some(number_wait(number, wall).min(longest)),
        Err(_) => Some(http_date(value)?.since(wall).min(longest)),
    }
}

/// Parses an HTTP date (`Sun, 06 Nov 1994 08:49:37 GMT`), also the value of the header `Date`.
#[must_use]
pub fn http_date(value: &str) -> Option<Timestamp> {
    let zoned = jiff::fmt::rfc2822::parse(value.trim()).ok()?;
    Some(Timestamp(zoned.timestamp().as_microsecond()))
}

fn number_wait(number: f64, wall: Timestamp) -> Duration {
    let seconds = if number > EPOCH_MILLIS {
        number / 1e3 - wall.0 as f64 / 1e6
    } else if number > EPOCH_SECONDS {
        number - wall.0 as f64 / 1e6
    } else {
        number
    };
    // The conversion refuses negative numbers and those beyond its range: the former mean now, the latter the longest.
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONGEST: Duration = Duration::from_secs(3600);

    fn waits(value: &str) -> Option<u128> {
        // 2026-03-14T04:17:19Z
        wait(value, Timestamp(1_773_461_839_000_000), LONGEST).map(|wait| wait.as_millis())
    }

    #[test]
    fn spans_are_seconds_whole_or_not() {
        assert_eq!(waits("7"), Some(7_000));
        assert_eq!(waits(" 0.25 "), Some(250));
        assert_eq!(waits("-3"), Some(0));
    }

    #[test]
    fn large_numbers_are_instants_in_seconds_or_milliseconds() {
        assert_eq!(waits("1773461849"), Some(10_000));
        let millis = waits("1773461849000").expect("a number");
        assert!((9_990..=10_010).contains(&millis), "{millis}");
        assert_eq!(waits("1773461000"), Some(0), "past");
    }

    #[test]
    fn dates_are_instants() {
        assert_eq!(waits("Sat, 14 Mar 2026 04:17:49 GMT"), Some(30_000));
        assert_eq!(waits("Sat, 14 Mar 2026 04:17:09 GMT"), Some(0));
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Timestamp(784_111_777_000_000)));
    }

    proptest! {
        #[test]
        fn whatever_a_header_says_no_wait_is_longer_than_the_longest(value in "\\PC{0,40}", number: f64, at: i64) {
            for value in [value, number.to_string(), format!("{number:e}"), at.to_string()] {
                prop_assert!(wait(&value, Timestamp(at / 2), LONGEST).is_none_or(|wait| wait <= LONGEST), "{value}");
            }
        }

        #[test]
        fn spans_and_instants_that_mean_the_same_are_the_same(seconds in 0_u64..3_600) {
            let span = waits(&seconds.to_string());
            prop_assert_eq!(span, Some(u128::from(seconds) * 1_000));
            prop_assert_eq!(waits(&(1_773_461_839 + seconds).to_string()), span);
            prop_assert_eq!(waits(&format!("-{seconds}")), Some(0));
        }
    }

    #[test]
    fn the_absurd_is_clamped_and_the_unreadable_is_none() {
        assert_eq!(waits("86400"), Some(3_600_000));
        assert_eq!(waits("1e300"), Some(3_600_000));
        assert_eq!(waits("inf"), Some(3_600_000));
        assert_eq!(waits("NaN"), None);
        assert_eq!(waits("soon"), None);
        assert_eq!(waits(""), None);
    }
}
