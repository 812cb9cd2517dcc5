//! What a producer's `$metadata` says of its resources.

use std::collections::BTreeMap;

use crate::connectors::ColumnKind;

/// Of each resource, by name, what its records look like.
pub type Schema = BTreeMap<String, EntityType>;

/// The records of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntityType {
    /// The field that identifies a record.
    pub key: String,
    /// Whether it is a number.
    pub numeric: bool,
    /// Its fields, in the order in which they are declared.
    pub columns: Vec<(String, ColumnKind)>,
}

impl EntityType {
    pub(super) fn has(&self, field: &str) -> bool {
        self.columns.iter().any(|(name, _)| name == field)
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, ColumnKind)> {
        self.columns.iter().map(|(name, kind)| (name.as_str(), *kind))
    }
}
