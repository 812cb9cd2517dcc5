//! Stamps as they are met: with an offset or without, with a fraction or two.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::model::Version;

/// The version that a field states.
pub(super) fn version(field: &str, text: &str) -> Option<Version> {
    Version::stamp(&Arc::from(field), &clean(text)?)
}

/// The instant that a text means.
pub(super) fn instant(text: &str) -> Option<Timestamp> {
    Timestamp::parse(&clean(text)?)
}

/// As a literal of a filter; cut to what most servers keep.
pub(super) fn literal(at: Timestamp) -> String {
    let text = at.to_string();
    match text.split_once('.') {
        Some((seconds, fraction)) => format!("{seconds}.{}Z", fraction.get(..3).unwrap_or("000")),
        None => text,
    }
}

/// The text as RFC 3339 has it. A stamp without a zone is taken for UTC, a day for its beginning, of several fractions the first
/// counts: samples of the standard itself have such.
fn clean(text: &str) -> Option<String> {
    let text = text.trim();
    if Timestamp::parse(text).is_some() {
        return Some(text.to_owned());
    }
    let (day, rest) = text.split_at_checked(10)?;
    let rest = rest.trim_start_matches(['T', 't', ' ']);
    let (time, zone) = rest.split_at(rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len()));
    let mut parts = time.trim().split('.');
    let seconds = parts.next().filter(|time| !time.is_empty()).unwrap_or("00:00:00");
    let fraction = parts.next().filter(|digits| !digits.is_empty()).map(|digits| format!(".{digits}")).unwrap_or_default();
    let zone = if zone.is_empty() { "Z" } else { zone };
    Some(format!("{day}T{seconds}{fraction}{zone}")).filter(|text| Timestamp::parse(text).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stamps_are_understood_as_they_are_met() {
        for (text, meant) in [
            ("2026-03-14T04:17:19Z", "2026-03-14T04:17:19.000000Z"),
            ("2026-03-14T04:17:19.292+01:00", "2026-03-14T03:17:19.292000Z"),
            ("2026-03-14T04:17:19.123.456Z", "2026-03-14T04:17:19.123000Z"),
            (" 2026-03-14 04:17:19 ", "2026-03-14T04:17:19.000000Z"),
            ("2026-03-14T04:17:19.", "2026-03-14T04:17:19.000000Z"),
            ("2026-03-14", "2026-03-14T00:00:00.000000Z"),
        ] {
            assert_eq!(instant(text).map(|at| at.to_string()).as_deref(), Some(meant), "{text}");
        }
        for text in ["", "soon", "2026-13-01", "2026-03-14T99:00:00Z", "éééééééééé"] {
            assert_eq!(instant(text), None, "{text}");
        }
    }

    #[test]
    fn bounds_are_cut_and_never_rounded_up() {
        let at = Timestamp::parse("2026-03-14T04:17:19.999999Z").expect("a stamp");
        assert_eq!(literal(at), "2026-03-14T04:17:19.999Z");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}", stamp in "[0-9TZ:.+ -]{0,40}") {
            let _ = (instant(&text), instant(&stamp), version("f", &stamp));
        }
    }
}
