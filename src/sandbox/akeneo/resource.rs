//! What the PIM holds, and what each list of the REST API can do.

/// A kind of record. Its name is that of the control, the report and, where the API has one word, the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Resource {
    Products,
    ProductModels,
    Families,
    FamilyVariants,
    Attributes,
    AttributeOptions,
    AttributeGroups,
    Categories,
    Channels,
    Locales,
    Currencies,
    AssociationTypes,
    MeasurementFamilies,
    AssetFamilies,
    Assets,
    ReferenceEntities,
    ReferenceEntityRecords,
}

/// How the `updated` filter of a list works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dates {
    /// There is none.
    None,
    /// `>` alone, ISO 8601.
    After,
    /// All operators, ISO 8601.
    Iso,
    /// All operators, without a zone: in that of the PIM's server.
    Zoneless,
}

/// How a list is paged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paging {
    /// `page` alone.
    Page,
    /// `page`, or `search_after` when asked for.
    Both,
    /// `search_after` alone, in pages of a fixed size.
    SearchAfter,
    /// The whole list as a bare array.
    None,
}

/// What the Event Platform calls a resource: `product-model` in types, `product_model` in data, and the record around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announced {
    pub(super) stem: &'static str,
    pub(super) data: &'static str,
    pub(super) container: Option<&'static str>,
}

#[derive(Debug)]
pub(super) struct Spec {
    pub(super) name: &'static str,
    /// As messages call it: `Family "x" does not exist.`
    pub(super) what: &'static str,
    pub(super) dates: Dates,
    /// Whether `created` and `updated` are told.
    pub(super) stamped: bool,
    pub(super) paging: Paging,
    /// What its records lie in; their keys are then `container/code`.
    pub(super) container: Option<Resource>,
    pub(super) announced: Option<Announced>,
}

use Dates as D;
use Paging as P;

const fn spec(name: &'static str, what: &'static str, dates: D, stamped: bool, paging: P) -> Spec {
    Spec { name, what, dates, stamped, paging, container: None, announced: None }
}

const fn plain(stem: &'static str, data: &'static str) -> Option<Announced> {
    Some(Announced { stem, data, container: None })
}

const fn inside(stem: &'static str, data: &'static str, container: &'static str) -> Option<Announced> {
    Some(Announced { stem, data, container: Some(container) })
}

static SPECS: [(Resource, Spec); 17] = [
    (Resource::Products, Spec { announced: plain("product", "product"), ..spec("products", "Product", D::Zoneless, true, P::Both) }),
    (
        Resource::ProductModels,
        Spec { announced: plain("product-model", "product_model"), ..spec("product-models", "Product model", D::Zoneless, true, P::Both) },
    ),
    (Resource::Families, Spec { announced: plain("family", "family"), ..spec("families", "Family", D::After, false, P::Page) }),
    (
        Resource::FamilyVariants,
        Spec { container: Some(Resource::Families), ..spec("family-variants", "Family variant", D::None, false, P::Page) },
    ),
    (
        Resource::Attributes,
        Spec { announced: plain("attribute", "attribute"), ..spec("attributes", "Attribute", D::After, false, P::Page) },
    ),
    (
        Resource::AttributeOptions,
        Spec {
            container: Some(Resource::Attributes),
            announced: inside("attribute-option", "attribute_option", "attribute"),
            ..spec("attribute-options", "Attribute option", D::None, false, P::Page)
        },
    ),
    (
        Resource::AttributeGroups,
        Spec {
            announced: plain("attribute-group", "attribute_group"),
            ..spec("attribute-groups", "Attribute group", D::After, false, P::Page)
        },
    ),
    (Resource::Categories, Spec { announced: plain("category", "category"), ..spec("categories", "Category", D::After, true, P::Page) }),
    (Resource::Channels, spec("channels", "Channel", D::None, false, P::Page)),
    (Resource::Locales, spec("locales", "Locale", D::None, false, P::Page)),
    (Resource::Currencies, spec("currencies", "Currency", D::None, false, P::Page)),
    (Resource::AssociationTypes, spec("association-types", "Association type", D::None, false, P::Page)),
    (Resource::MeasurementFamilies, spec("measurement-families", "Measurement family", D::None, false, P::None)),
    (Resource::AssetFamilies, spec("asset-families", "Asset family", D::None, false, P::SearchAfter)),
    (
        Resource::Assets,
        Spec {
            container: Some(Resource::AssetFamilies),
            announced: inside("asset", "asset", "asset_family"),
            ..spec("assets", "Asset", D::Iso, true, P::SearchAfter)
        },
    ),
    (Resource::ReferenceEntities, spec("reference-entities", "Reference entity", D::None, false, P::SearchAfter)),
    (
        Resource::ReferenceEntityRecords,
        Spec {
            container: Some(Resource::ReferenceEntities),
            announced: inside("reference-entity-record", "reference_entity_record", "reference_entity"),
            ..spec("reference-entity-records", "Record", D::Iso, true, P::SearchAfter)
        },
    ),
];

impl Resource {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        SPECS.iter().map(|(resource, _)| *resource)
    }

    /// Those that change: asset families and reference entities only hold others.
    pub(super) fn records() -> impl Iterator<Item = Self> {
        Self::all().filter(|resource| !matches!(resource, Self::AssetFamilies | Self::ReferenceEntities))
    }

    pub(super) fn spec(self) -> &'static Spec {
        &SPECS[self as usize].1
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::all().find(|resource| resource.spec().name == name)
    }

    /// Products and models have values; a family says which.
    pub(super) fn has_values(self) -> bool {
        matches!(self, Self::Products | Self::ProductModels)
    }

    /// Products and models are all that the Events API tells of.
    pub(super) fn events_api_stem(self) -> Option<&'static str> {
        match self {
            Self::Products => Some("product"),
            Self::ProductModels => Some("product_model"),
            _ => None,
        }
    }
}

/// The code in a key: what follows the container.
pub(super) fn code(key: &str) -> &str {
    key.split_once('/').map_or(key, |(_, code)| code)
}

/// The container in a key.
pub(super) fn container(key: &str) -> Option<&str> {
    key.split_once('/').map(|(container, _)| container)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_kinds() {
        for (index, (resource, spec)) in SPECS.iter().enumerate() {
            assert_eq!(*resource as usize, index, "{}", spec.name);
            assert_eq!(Resource::named(spec.name), Some(*resource));
        }
        assert_eq!(Resource::records().count(), 15);
    }
}
