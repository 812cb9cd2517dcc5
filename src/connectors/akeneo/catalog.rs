//! What Akeneo has: one line of spec a resource, one an entity of the Event Platform.
//!
//! Sources: the vendor's REST reference (filters, pagination) and its lists of event types, as collected in the contract (sections
//! 1.3, 2.3, 3.2).

use crate::connectors::ColumnKind::{self, Bool, Instant, Integer, Json, Text};

/// How a collection can be asked for what changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changes {
    /// By a filter on `updated` whose value has no zone: the server's own is meant.
    Local,
    /// By a filter on `updated` with an instant.
    Instant,
    /// Not at all: full lists only.
    None,
}

/// How a list is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paging {
    /// From key to key (`search_after`). The size of a page may change on the way.
    Keys,
    /// The same, on lists that name no size.
    KeysUnsized,
    /// By numbers.
    Numbers,
    /// There is one page, which is a bare list.
    Whole,
}

/// The collection whose records hold those of a nested one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Above {
    /// Its path, which the path of the nested one goes on from.
    pub(super) path: &'static str,
    pub(super) paging: Paging,
    /// What a record below it is given to tell it by, under this name.
    pub(super) field: &'static str,
    /// Only records of these types hold any; none: all may.
    pub(super) types: &'static [&'static str],
}

/// One collection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// Its path below `/api/rest/v1/`, or below a record of `above`.
    pub(super) path: &'static str,
    pub(super) above: Option<Above>,
    pub(super) paging: Paging,
    pub(super) changes: Changes,
    /// The property that a list of keys is searched by.
    pub(super) bulk: Option<&'static str>,
    /// Answers carry `updated`, which orders their states.
    pub(super) is_dated: bool,
    /// Records have values, a parent and a projection (`scope`, `locales`, `attributes`).
    pub(super) has_values: bool,
    /// Typed columns, by field.
    pub(super) columns: &'static [(&'static str, ColumnKind)],
}

const PLAIN: Kind = Kind {
    name: "",
    path: "",
    above: None,
    paging: Paging::Numbers,
    changes: Changes::None,
    bulk: None,
    is_dated: false,
    has_values: false,
    columns: &[("code", Text), ("labels", Json)],
};

/// Options stand below the attributes that have any.
const SELECTS: &[&str] = &["pim_catalog_simpleselect", "pim_catalog_multiselect"];

#[rustfmt::skip]
pub(super) const KINDS: &[Kind] = &[
    Kind { name: "products", path: "products-uuid", paging: Paging::Keys, changes: Changes::Local, bulk: Some("uuid"), is_dated: true, has_values: true,
        columns: &[("uuid", Text), ("identifier", Text), ("enabled", Bool), ("family", Text), ("parent", Text), ("groups", Json), ("categories", Json), ("associations", Json), ("quantified_associations", Json), ("created", Instant), ("updated", Instant)], ..PLAIN },
    Kind { name: "product-models", path: "product-models", paging: Paging::Keys, changes: Changes::Local, bulk: Some("identifier"), is_dated: true, has_values: true,
        columns: &[("code", Text), ("family", Text), ("family_variant", Text), ("parent", Text), ("categories", Json), ("associations", Json), ("quantified_associations", Json), ("created", Instant), ("updated", Instant)], ..PLAIN },
    Kind { name: "families", path: "families", changes: Changes::Instant, bulk: Some("code"),
        columns: &[("code", Text), ("labels", Json), ("attributes", Json), ("attribute_as_label", Text), ("attribute_as_image", Text), ("attribute_requirements", Json)], ..PLAIN },
    Kind { name: "family-variants", path: "variants", above: Some(Above { path: "families", paging: Paging::Numbers, field: "family", types: &[] }),
        columns: &[("code", Text), ("family", Text), ("labels", Json), ("variant_attribute_sets", Json)], ..PLAIN },
    Kind { name: "attributes", path: "attributes", changes: Changes::Instant, bulk: Some("code"),
        columns: &[("code", Text), ("type", Text), ("group", Text), ("labels", Json), ("localizable", Bool), ("scopable", Bool), ("unique", Bool), ("useable_as_grid_filter", Bool), ("sort_order", Integer), ("metric_family", Text), ("default_metric_unit", Text), ("reference_data_name", Text), ("available_locales", Json)], ..PLAIN },
    Kind { name: "attribute-options", path: "options", above: Some(Above { path: "attributes", paging: Paging::Numbers, field: "attribute", types: SELECTS }),
        columns: &[("code", Text), ("attribute", Text), ("sort_order", Integer), ("labels", Json)], ..PLAIN },
    Kind { name: "attribute-groups", path: "attribute-groups", changes: Changes::Instant, bulk: Some("code"),
        columns: &[("code", Text), ("labels", Json), ("attributes", Json), ("sort_order", Integer)], ..PLAIN },
    Kind { name: "categories", path: "categories", changes: Changes::Instant, bulk: Some("code"), is_dated: true,
        columns: &[("code", Text), ("parent", Text), ("labels", Json), ("updated", Instant)], ..PLAIN },
    Kind { name: "channels", path: "channels",
        columns: &[("code", Text), ("labels", Json), ("category_tree", Text), ("locales", Json), ("currencies", Json), ("conversion_units", Json)], ..PLAIN },
    Kind { name: "locales", path: "locales", columns: &[("code", Text), ("enabled", Bool)], ..PLAIN },
    Kind { name: "currencies", path: "currencies", columns: &[("code", Text), ("label", Text), ("enabled", Bool)], ..PLAIN },
    Kind { name: "association-types", path: "association-types",
        columns: &[("code", Text), ("labels", Json), ("is_two_way", Bool), ("is_quantified", Bool)], ..PLAIN },
    Kind { name: "measurement-families", path: "measurement-families", paging: Paging::Whole,
        columns: &[("code", Text), ("labels", Json), ("standard_unit_code", Text), ("units", Json)], ..PLAIN },
    Kind { name: "assets", path: "assets", above: Some(Above { path: "asset-families", paging: Paging::KeysUnsized, field: "asset_family", types: &[] }),
        paging: Paging::KeysUnsized, changes: Changes::Instant, is_dated: true,
        columns: &[("code", Text), ("asset_family", Text), ("values", Json), ("created", Instant), ("updated", Instant)], ..PLAIN },
    Kind { name: "reference-entity-records", path: "records", above: Some(Above { path: "reference-entities", paging: Paging::KeysUnsized, field: "reference_entity", types: &[] }),
        paging: Paging::KeysUnsized, changes: Changes::Instant, is_dated: true,
        columns: &[("code", Text), ("reference_entity", Text), ("values", Json), ("created", Instant), ("updated", Instant)], ..PLAIN },
];

/// Fields that hold a map. PHP writes an empty one as a list.
pub(super) const MAPS: [&str; 9] = [
    "values",
    "associations",
    "quantified_associations",
    "labels",
    "metadata",
    "attribute_requirements",
    "conversion_units",
    "guidelines",
    "group_labels",
];

/// Stored, but no change of the record: they move by themselves or are seen differently by different users.
pub(super) const VOLATILE: [&str; 5] = ["/updated", "/quality_scores", "/completenesses", "/metadata", "/workflow_execution_statuses"];

/// What the Event Platform's types begin with.
pub(super) const TYPE_PREFIX: &str = "com.akeneo.pim.v1.";

/// An entity of the Event Platform: as its types name it, the resource, and where in `data` it stands.
pub(super) struct Subject {
    pub(super) word: &'static str,
    pub(super) resource: &'static str,
    /// Of models the field table and the example disagree on the name.
    pub(super) fields: &'static [&'static str],
    /// Where the code of the record above it is, in the entity.
    pub(super) above: Option<&'static str>,
}

const fn subject(word: &'static str, resource: &'static str, fields: &'static [&'static str], above: Option<&'static str>) -> Subject {
    Subject { word, resource, fields, above }
}

/// Entities whose events speak of records that can be replicated.
pub(super) const SUBJECTS: [Subject; 9] = [
    subject("product", "products", &["product"], None),
    subject("product-model", "product-models", &["product_model", "product"], None),
    subject("family", "families", &["family"], None),
    subject("attribute", "attributes", &["attribute"], None),
    subject("attribute-group", "attribute-groups", &["attribute_group"], None),
    subject("category", "categories", &["category"], None),
    subject("attribute-option", "attribute-options", &["attribute_option"], Some("attribute/code")),
    subject("asset", "assets", &["asset"], Some("asset_family/code")),
    subject("reference-entity-record", "reference-entity-records", &["reference_entity_record"], Some("reference_entity/code")),
];

/// Types of the Event Platform that speak of nothing that can be replicated, by their beginnings.
pub(super) const BESIDE: [&str; 4] = ["app.", "connection.", "job.", "workflow."];
