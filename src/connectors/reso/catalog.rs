//! What of the Data Dictionary (2.0) is built in: keys, what stands below what, and the columns of most use. Anything else is in the
//! payload, or typed by the producer's own `$metadata`.

use crate::connectors::ColumnKind::{self, Bool, Date, Instant, Integer, Real, Text};

/// What is replicated where nothing else is said.
pub(super) const DEFAULTS: [&str; 5] = ["Property", "Member", "Office", "Media", "OpenHouse"];

/// The record above a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parent {
    /// In this resource.
    pub(super) resource: &'static str,
    /// The field that holds its key.
    pub(super) key: &'static str,
    /// A field that names its resource, where it may be one of several.
    pub(super) named_by: Option<&'static str>,
}

/// One resource of the Data Dictionary.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) key: &'static str,
    pub(super) parent: Option<Parent>,
    pub(super) columns: &'static [(&'static str, ColumnKind)],
}

/// Fields that nearly every resource has.
pub(super) const COMMON: [(&str, ColumnKind); 3] =
    [("ModificationTimestamp", Instant), ("OriginalEntryTimestamp", Instant), ("OriginatingSystemName", Text)];

const OF_LISTING: Option<Parent> = Some(Parent { resource: "Property", key: "ListingKey", named_by: None });
const OF_ANY: Option<Parent> = Some(Parent { resource: "Property", key: "ResourceRecordKey", named_by: Some("ResourceName") });

const fn kind(name: &'static str, key: &'static str, parent: Option<Parent>, columns: &'static [(&'static str, ColumnKind)]) -> Kind {
    Kind { name, key, parent, columns }
}

/// The resources that are known by name.
pub(super) const KINDS: [Kind; 18] = [
    kind("Property", "ListingKey", None, PROPERTY),
    kind("Member", "MemberKey", None, MEMBER),
    kind("Office", "OfficeKey", None, OFFICE),
    kind("Media", "MediaKey", OF_ANY, MEDIA),
    kind("OpenHouse", "OpenHouseKey", OF_LISTING, OPEN_HOUSE),
    kind("PropertyRooms", "RoomKey", OF_LISTING, &[("RoomKey", Text), ("ListingKey", Text), ("RoomType", Text), ("RoomLevel", Text)]),
    kind("PropertyUnitTypes", "UnitTypeKey", OF_LISTING, &[("UnitTypeKey", Text), ("ListingKey", Text), ("UnitTypeType", Text)]),
    kind("PropertyGreenVerification", "GreenBuildingVerificationKey", OF_LISTING, GREEN),
    kind("PropertyPowerProduction", "PowerProductionKey", OF_LISTING, &[("PowerProductionKey", Text), ("ListingKey", Text)]),
    kind("Showing", "ShowingKey", OF_LISTING, &[("ShowingKey", Text), ("ListingKey", Text)]),
    kind("Teams", "TeamKey", None, &[("TeamKey", Text), ("TeamName", Text), ("TeamLeadKey", Text)]),
    kind("TeamMembers", "TeamMemberKey", None, &[("TeamMemberKey", Text), ("TeamKey", Text), ("MemberKey", Text)]),
    kind("OUID", "OrganizationUniqueIdKey", None, &[("OrganizationUniqueIdKey", Text), ("OrganizationUniqueId", Text)]),
    kind("HistoryTransactional", "HistoryTransactionalKey", None, HISTORY),
    kind("Lookup", "LookupKey", None, &[("LookupKey", Text), ("LookupName", Text), ("LookupValue", Text), ("StandardLookupValue", Text)]),
    kind("Field", "FieldKey", None, &[("FieldKey", Text), ("ResourceName", Text), ("FieldName", Text)]),
    kind("Contacts", "ContactKey", None, &[("ContactKey", Text), ("OwnerMemberKey", Text)]),
    kind("InternetTracking", "EventKey", None, &[("EventKey", Text)]),
];

const PROPERTY: &[(&str, ColumnKind)] = &[
    ("ListingKey", Text),
    ("ListingId", Text),
    ("StandardStatus", Text),
    ("MlsStatus", Text),
    ("PropertyType", Text),
    ("PropertySubType", Text),
    ("ListPrice", Real),
    ("OriginalListPrice", Real),
    ("ClosePrice", Real),
    ("ListingContractDate", Date),
    ("CloseDate", Date),
    ("OnMarketDate", Date),
    ("OffMarketDate", Date),
    ("ExpirationDate", Date),
    ("DaysOnMarket", Integer),
    ("UnparsedAddress", Text),
    ("StreetNumber", Text),
    ("StreetName", Text),
    ("UnitNumber", Text),
    ("City", Text),
    ("StateOrProvince", Text),
    ("PostalCode", Text),
    ("CountyOrParish", Text),
    ("Country", Text),
    ("Latitude", Real),
    ("Longitude", Real),
    ("BedroomsTotal", Integer),
    ("BathroomsTotalInteger", Integer),
    ("LivingArea", Real),
    ("LotSizeArea", Real),
    ("YearBuilt", Integer),
    ("PhotosCount", Integer),
    ("PublicRemarks", Text),
    ("ListAgentKey", Text),
    ("CoListAgentKey", Text),
    ("BuyerAgentKey", Text),
    ("ListOfficeKey", Text),
    ("CoListOfficeKey", Text),
    ("BuyerOfficeKey", Text),
    ("StatusChangeTimestamp", Instant),
    ("PriceChangeTimestamp", Instant),
    ("MajorChangeTimestamp", Instant),
    ("PhotosChangeTimestamp", Instant),
    ("OnMarketTimestamp", Instant),
    ("OffMarketTimestamp", Instant),
    ("PendingTimestamp", Instant),
];

const MEMBER: &[(&str, ColumnKind)] = &[
    ("MemberKey", Text),
    ("MemberMlsId", Text),
    ("MemberStatus", Text),
    ("MemberType", Text),
    ("MemberFullName", Text),
    ("MemberFirstName", Text),
    ("MemberLastName", Text),
    ("MemberEmail", Text),
    ("MemberStateLicense", Text),
    ("OfficeKey", Text),
];

const OFFICE: &[(&str, ColumnKind)] = &[
    ("OfficeKey", Text),
    ("OfficeMlsId", Text),
    ("OfficeStatus", Text),
    ("OfficeType", Text),
    ("OfficeName", Text),
    ("OfficePhone", Text),
    ("OfficeEmail", Text),
    ("OfficeCity", Text),
    ("OfficeStateOrProvince", Text),
    ("OfficePostalCode", Text),
    ("MainOfficeKey", Text),
    ("OfficeBrokerKey", Text),
];

const MEDIA: &[(&str, ColumnKind)] = &[
    ("MediaKey", Text),
    ("ResourceName", Text),
    ("ResourceRecordKey", Text),
    ("ResourceRecordID", Text),
    ("MediaCategory", Text),
    ("MediaType", Text),
    ("MediaURL", Text),
    ("MediaObjectID", Text),
    ("MediaStatus", Text),
    ("ShortDescription", Text),
    ("Order", Integer),
    ("ImageWidth", Integer),
    ("ImageHeight", Integer),
    ("PreferredPhotoYN", Bool),
    ("MediaModificationTimestamp", Instant),
];

const OPEN_HOUSE: &[(&str, ColumnKind)] = &[
    ("OpenHouseKey", Text),
    ("OpenHouseId", Text),
    ("ListingKey", Text),
    ("ListingId", Text),
    ("OpenHouseDate", Date),
    ("OpenHouseStartTime", Instant),
    ("OpenHouseEndTime", Instant),
    ("OpenHouseStatus", Text),
    ("OpenHouseType", Text),
    ("OpenHouseRemarks", Text),
    ("ShowingAgentKey", Text),
];

const GREEN: &[(&str, ColumnKind)] = &[("GreenBuildingVerificationKey", Text), ("ListingKey", Text), ("GreenVerificationBody", Text)];

const HISTORY: &[(&str, ColumnKind)] = &[
    ("HistoryTransactionalKey", Text),
    ("ResourceName", Text),
    ("ResourceRecordKey", Text),
    ("FieldName", Text),
    ("PreviousValue", Text),
    ("NewValue", Text),
];

/// By name, if it is known.
pub(super) fn find(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// Whether a field holds the key of another record, by the names that the Data Dictionary gives such.
pub(super) fn is_reference(field: &str) -> bool {
    const OF: [&str; 5] = ["ListingKey", "ResourceRecordKey", "AgentKey", "OfficeKey", "MemberKey"];
    OF.iter().any(|ending| field.ends_with(ending)) || matches!(field, "TeamKey" | "OfficeBrokerKey" | "TeamLeadKey")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_known_and_its_columns_hold_its_key() {
        for name in DEFAULTS {
            let kind = find(name).expect("known");
            assert!(kind.columns.iter().any(|(field, _)| *field == kind.key), "{name}");
            assert!(kind.parent.is_none_or(|parent| kind.columns.iter().any(|(field, _)| *field == parent.key)), "{name}");
        }
    }
}
