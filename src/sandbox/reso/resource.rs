//! The resources that the producer serves, and their fields.

use serde::Serialize;

/// A resource of the Data Dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(super) enum Resource {
    Property,
    Member,
    Office,
    Media,
    OpenHouse,
    EntityEvent,
}

/// The type of a field, as `$metadata` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Whole,
    Long,
    Decimal,
    Bool,
    Date,
    Stamp,
}

impl Kind {
    pub(super) const fn edm(self) -> &'static str {
        match self {
            Self::Text => "Edm.String",
            Self::Whole => "Edm.Int32",
            Self::Long => "Edm.Int64",
            Self::Decimal => "Edm.Decimal",
            Self::Bool => "Edm.Boolean",
            Self::Date => "Edm.Date",
            Self::Stamp => "Edm.DateTimeOffset",
        }
    }
}

/// A field that MLS Grid adds.
pub(super) const CAN_VIEW: &str = "MlgCanView";
pub(super) const MODIFIED: &str = "ModificationTimestamp";
pub(super) const SEQUENCE: &str = "EntityEventSequence";

type Fields = &'static [(&'static str, Kind)];

const PROPERTY: Fields = &[
    ("ListingKey", Kind::Text),
    ("ListingId", Kind::Text),
    ("OriginatingSystemName", Kind::Text),
    ("StandardStatus", Kind::Text),
    ("ListPrice", Kind::Decimal),
    ("BedroomsTotal", Kind::Whole),
    ("LivingArea", Kind::Decimal),
    ("City", Kind::Text),
    ("PublicRemarks", Kind::Text),
    ("InternetEntireListingDisplayYN", Kind::Bool),
    ("OnMarketDate", Kind::Date),
    ("ListAgentKey", Kind::Text),
    ("ListOfficeKey", Kind::Text),
    ("PhotosCount", Kind::Whole),
    ("PhotosChangeTimestamp", Kind::Stamp),
    ("OriginalEntryTimestamp", Kind::Stamp),
    (MODIFIED, Kind::Stamp),
];
const MEMBER: Fields = &[
    ("MemberKey", Kind::Text),
    ("OriginatingSystemName", Kind::Text),
    ("MemberFullName", Kind::Text),
    ("MemberEmail", Kind::Text),
    ("MemberStatus", Kind::Text),
    ("OfficeKey", Kind::Text),
    ("OriginalEntryTimestamp", Kind::Stamp),
    (MODIFIED, Kind::Stamp),
];
const OFFICE: Fields = &[
    ("OfficeKey", Kind::Text),
    ("OriginatingSystemName", Kind::Text),
    ("OfficeName", Kind::Text),
    ("OfficePhone", Kind::Text),
    ("OfficeStatus", Kind::Text),
    ("OriginalEntryTimestamp", Kind::Stamp),
    (MODIFIED, Kind::Stamp),
];
const MEDIA: Fields = &[
    ("MediaKey", Kind::Text),
    ("OriginatingSystemName", Kind::Text),
    ("ResourceName", Kind::Text),
    ("ResourceRecordKey", Kind::Text),
    ("MediaCategory", Kind::Text),
    ("MediaURL", Kind::Text),
    ("Order", Kind::Whole),
    ("ShortDescription", Kind::Text),
    ("MediaModificationTimestamp", Kind::Stamp),
    (MODIFIED, Kind::Stamp),
];
const OPEN_HOUSE: Fields = &[
    ("OpenHouseKey", Kind::Text),
    ("OriginatingSystemName", Kind::Text),
    ("ListingKey", Kind::Text),
    ("OpenHouseDate", Kind::Date),
    ("OpenHouseStartTime", Kind::Stamp),
    ("OpenHouseRemarks", Kind::Text),
    ("OriginalEntryTimestamp", Kind::Stamp),
    (MODIFIED, Kind::Stamp),
];
const ENTITY_EVENT: Fields = &[(SEQUENCE, Kind::Long), ("ResourceName", Kind::Text), ("ResourceRecordKey", Kind::Text)];

impl Resource {
    pub(super) const RECORDS: [Self; 5] = [Self::Property, Self::Member, Self::Office, Self::Media, Self::OpenHouse];
    pub(super) const ALL: [Self; 6] = [Self::Property, Self::Member, Self::Office, Self::Media, Self::OpenHouse, Self::EntityEvent];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.name() == name)
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Property => "Property",
            Self::Member => "Member",
            Self::Office => "Office",
            Self::Media => "Media",
            Self::OpenHouse => "OpenHouse",
            Self::EntityEvent => "EntityEvent",
        }
    }

    /// All fields; the first is the key.
    pub(super) const fn fields(self) -> Fields {
        match self {
            Self::Property => PROPERTY,
            Self::Member => MEMBER,
            Self::Office => OFFICE,
            Self::Media => MEDIA,
            Self::OpenHouse => OPEN_HOUSE,
            Self::EntityEvent => ENTITY_EVENT,
        }
    }

    pub(super) const fn key(self) -> &'static str {
        self.fields()[0].0
    }

    pub(super) fn kind(self, field: &str) -> Option<Kind> {
        if field == CAN_VIEW {
            return Some(Kind::Bool);
        }
        self.fields().iter().find(|(name, _)| *name == field).map(|(_, kind)| *kind)
    }
}
