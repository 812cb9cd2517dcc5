//! Whether the configured zone is the server's.
//!
//! The filter of products on `updated` has no zone; the server reads it in its own. The stamps of its answers are written in the same
//! zone, with their offset, so they tell (contract, sections 1.2 and 3.3).

use super::Akeneo;
use super::answers::text_at;
use super::catalog::Changes;
use crate::connectors::{Page, ResourceSpec};

/// Summer time is so much ahead of the winter's, which is what is configured.
const SUMMER_SECONDS: i32 = 3600;

pub(super) fn doubts(akeneo: &Akeneo, resource: &ResourceSpec, page: &Page) -> Option<String> {
    super::kind(resource.name.as_str()).filter(|kind| kind.changes == Changes::Local)?;
    let records = page.records.iter().flatten();
    let stamp = records.map(|record| text_at(&record.document.text, "/updated")).find_map(|stamp| stamp)?;
    let (offset, seconds) = offset(&stamp)?;
    let configured = akeneo.options.zone_seconds;
    if seconds == configured || seconds == configured + SUMMER_SECONDS {
        return None;
    }
    Some(format!(
        "the PIM writes its stamps at {offset}: set zone = \"{offset}\", or in summer time an hour less; else passes ask for a wrong span"
    ))
}

/// The offset behind a stamp, as it is written and in seconds to the east.
fn offset(stamp: &str) -> Option<(&str, i32)> {
    if stamp.ends_with('Z') {
        return Some(("+00:00", 0));
    }
    let text = stamp.get(stamp.len().checked_sub(6)?..)?;
    let (sign, digits) = text.split_at_checked(1)?;
    let (hours, minutes) = digits.split_once(':')?;
    let seconds = hours.parse::<i32>().ok()? * 3600 + minutes.parse::<i32>().ok()? * 60;
    match sign {
        "+" => Some((text, seconds)),
        "-" => Some((text, -seconds)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::offset;

    #[test]
    fn an_offset_is_read_from_the_end_of_a_stamp() {
        assert_eq!(offset("2026-01-01T10:00:00Z"), Some(("+00:00", 0)));
        assert_eq!(offset("2026-01-01T10:00:00+02:00"), Some(("+02:00", 7200)));
        assert_eq!(offset("2026-01-01T10:00:00-03:30"), Some(("-03:30", -12_600)));
        for none in ["", "é", "2026-01-01", "2026-01-01T10:00:00", "12345é"] {
            assert_eq!(offset(none), None, "{none}");
        }
    }
}
