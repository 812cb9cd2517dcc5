//! The records at the start, and what new ones look like.

use super::resource::Resource as R;
use super::world::{Record, World, stamp};
use crate::sandbox::dice::Dice;

const CITIES: [&str; 6] = ["Austin", "Montréal", "Żory", "O'Fallon", "San José", "Boise"];
const STATUSES: [&str; 4] = ["Active", "ActiveUnderContract", "Pending", "Closed"];
const YEAR_US: u64 = 365 * 24 * 3_600 * 1_000_000;

/// Fills the world; all stamps lie in the year before now, and some records share theirs.
pub(super) fn seed(world: &mut World, dice: &mut Dice, listings: u64, system: &str, now_us: i64) {
    let counts = [
        (R::Office, listings / 100 + 2),
        (R::Member, listings / 20 + 5),
        (R::Property, listings),
        (R::Media, listings * 3),
        (R::OpenHouse, listings / 5),
    ];
    for (resource, n) in counts {
        for _ in 0..n {
            // A minute's resolution makes several records share one stamp.
            let ago_us = i64::try_from(dice.below(YEAR_US) / 60_000_000 * 60_000_000).unwrap_or(0);
            make(world, dice, resource, system, now_us - ago_us - 1_000_000);
        }
    }
}

/// Makes a record under a new key; none where it would lie below nothing.
pub(super) fn make(world: &mut World, dice: &mut Dice, resource: R, system: &str, at_us: i64) -> Option<String> {
    let mut record = Record::default();
    let parent = match resource {
        R::Media | R::OpenHouse => Some(world.pick(R::Property, dice.throw())?),
        _ => None,
    };
    let key = world.new_key(resource);
    record.set(resource.key(), key.as_str());
    record.set("OriginatingSystemName", system);
    record.set("OriginalEntryTimestamp", stamp(at_us));
    let number = dice.below(1_000_000);
    match resource {
        R::Property => {
            record.set("ListingId", format!("{system}-{key}"));
            record.set("StandardStatus", STATUSES[(number % 4) as usize]);
            record.set("ListPrice", 100_000.0 + number as f64 + 0.5);
            record.set("BedroomsTotal", number % 7);
            record.set("LivingArea", if number.is_multiple_of(9) { serde_json::Value::Null } else { (number % 4_000).into() });
            record.set("City", CITIES[(number % 6) as usize]);
            record.set("PublicRemarks", format!("Bright & \"airy\" <{number}>, don't miss it"));
            record.set("InternetEntireListingDisplayYN", number.is_multiple_of(2));
            record.set("OnMarketDate", stamp(at_us).get(..10).unwrap_or_default());
            record.set("ListAgentKey", world.pick(R::Member, dice.throw()));
            record.set("ListOfficeKey", world.pick(R::Office, dice.throw()));
            record.set("PhotosCount", 0);
            record.set("PhotosChangeTimestamp", stamp(at_us));
        }
        R::Member => {
            record.set("MemberFullName", format!("Agent {number}"));
            record.set("MemberEmail", format!("agent{number}@example.test"));
            record.set("MemberStatus", "Active");
            record.set("OfficeKey", world.pick(R::Office, dice.throw()));
        }
        R::Office => {
            record.set("OfficeName", format!("Office {number}"));
            record.set("OfficePhone", format!("555-{number:06}"));
            record.set("OfficeStatus", "Active");
        }
        R::Media => {
            record.document.remove("OriginalEntryTimestamp");
            record.set("ResourceName", "Property");
            record.set("ResourceRecordKey", parent);
            record.set("MediaCategory", "Photo");
            record.set("MediaURL", format!("https://media.example.test/{key}/{number}.jpg"));
            record.set("Order", number % 30);
            record.set("ShortDescription", format!("Photo {number}"));
            record.set("MediaModificationTimestamp", stamp(at_us));
        }
        R::OpenHouse => {
            record.set("ListingKey", parent);
            record.set("OpenHouseDate", stamp(at_us).get(..10).unwrap_or_default());
            record.set("OpenHouseStartTime", stamp(at_us));
            record.set("OpenHouseRemarks", format!("Come by, {number}"));
        }
        R::EntityEvent => {}
    }
    record.touch(at_us);
    world.put(resource, &key, record);
    Some(key)
}

/// Changes something of a record.
pub(super) fn edit(record: &mut Record, resource: R, number: u64, now_us: i64) {
    match resource {
        R::Property => {
            record.set("ListPrice", 100_000.0 + number as f64 + 0.25);
            record.set("StandardStatus", STATUSES[(number % 4) as usize]);
        }
        R::Member => record.set("MemberFullName", format!("Agent {number} (renamed)")),
        R::Office => record.set("OfficeName", format!("Office {number} (renamed)")),
        R::Media => {
            // A changed image gets a new address.
            let url = format!("https://media.example.test/changed/{number}.jpg");
            record.set("MediaURL", url);
            record.set("MediaModificationTimestamp", stamp(now_us));
        }
        R::OpenHouse => record.set("OpenHouseRemarks", format!("Moved, {number}")),
        R::EntityEvent => {}
    }
}
