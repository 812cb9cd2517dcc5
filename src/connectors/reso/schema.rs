//! What a producer's `$metadata` says of its resources: the EDMX of OData 4, of which keys and the types of fields are taken.

use std::collections::{BTreeMap, BTreeSet};

use roxmltree::{Document, Node};

use crate::connectors::ColumnKind;

/// Types that stand on one another.
const BASES_MAX: usize = 16;
/// Columns of a view: PostgreSQL holds 1,600.
const COLUMNS_MAX: usize = 1_000;

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

/// Reads an EDMX. Resources with a key of several fields are left out.
///
/// # Errors
/// Says what is wrong with the text.
pub fn described(text: &str) -> Result<Schema, String> {
    // Entities of a DTD are not expanded: a document with one is refused.
    let document = Document::parse(text.trim_start_matches('\u{FEFF}')).map_err(|error| format!("is no XML: {error}"))?;
    let named = |name: &'static str| document.descendants().filter(move |node| node.tag_name().name() == name);
    let types: BTreeMap<&str, Node<'_, '_>> = named("EntityType").filter_map(|node| Some((node.attribute("Name")?, node))).collect();
    let enums: BTreeSet<&str> = named("EnumType").filter_map(|node| node.attribute("Name")).collect();
    if types.is_empty() {
        return Err("declares no entity type".to_owned());
    }
    let sets = named("EntitySet").filter_map(|node| Some((node.attribute("Name")?, local(node.attribute("EntityType")?))));
    // A type whose set is not declared goes by its own name: at many servers both are the same.
    let wanted: BTreeMap<&str, &str> = types.keys().map(|name| (*name, *name)).chain(sets).collect();
    let found = wanted.into_iter().filter_map(|(set, kind)| Some((set.to_owned(), entity_type(&types, &enums, kind)?)));
    Ok(found.collect())
}

fn entity_type(types: &BTreeMap<&str, Node<'_, '_>>, enums: &BTreeSet<&str>, name: &str) -> Option<EntityType> {
    let mut found = EntityType::default();
    let mut keys: Vec<String> = Vec::new();
    let mut next = types.get(name).copied();
    for _ in 0..BASES_MAX {
        let Some(node) = next else { break };
        let of = |name: &'static str| node.children().filter(move |child| child.tag_name().name() == name);
        if keys.is_empty() {
            let refs = of("Key").flat_map(|key| key.children()).filter(|child| child.tag_name().name() == "PropertyRef");
            keys.extend(refs.filter_map(|child| child.attribute("Name")).map(ToOwned::to_owned));
        }
        for property in of("Property") {
            let (Some(name), Some(kind)) = (property.attribute("Name"), property.attribute("Type")) else { continue };
            if !found.has(name) && found.columns.len() < COLUMNS_MAX {
                found.columns.push((name.to_owned(), column(kind, enums)));
            }
        }
        next = node.attribute("BaseType").and_then(|base| types.get(local(base)).copied());
    }
    let [key] = keys.as_slice() else { return None };
    found.numeric = found.columns.iter().any(|(name, kind)| name == key && *kind == ColumnKind::Integer);
    found.key.clone_from(key);
    Some(found)
}

fn column(kind: &str, enums: &BTreeSet<&str>) -> ColumnKind {
    match kind {
        "Edm.String" | "Edm.Guid" | "Edm.TimeOfDay" | "Edm.Duration" => ColumnKind::Text,
        "Edm.Int64" | "Edm.Int32" | "Edm.Int16" | "Edm.Byte" | "Edm.SByte" => ColumnKind::Integer,
        "Edm.Decimal" | "Edm.Double" | "Edm.Single" => ColumnKind::Real,
        "Edm.Boolean" => ColumnKind::Bool,
        "Edm.Date" => ColumnKind::Date,
        "Edm.DateTimeOffset" => ColumnKind::Instant,
        // Some refer to the lookups of another schema.
        other if enums.contains(local(other)) && !other.starts_with("Collection(") => ColumnKind::Text,
        _ => ColumnKind::Json,
    }
}

/// The name without its namespace.
fn local(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, local)| local).trim_end_matches(')')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EDMX: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<edmx:Edmx xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx" Version="4.0"><edmx:DataServices>
<Schema xmlns="http://docs.oasis-open.org/odata/ns/edm" Namespace="x.y">
<EnumType Name="Status"><Member Name="Active"/></EnumType>
<EntityType Name="Base" Abstract="true"><Key><PropertyRef Name="Id"/></Key><Property Name="Id" Type="Edm.Int64"/></EntityType>
<EntityType Name="Listing" BaseType="x.y.Base">
<Property Name="Price" Type="Edm.Decimal"/><Property Name="Status" Type="x.y.Status"/>
<Property Name="Tags" Type="Collection(x.y.Status)"/><Property Name="At" Type="Edm.DateTimeOffset"/>
<Property Name="On" Type="Edm.Date"/><Property Name="YN" Type="Edm.Boolean"/><Property Name="Where" Type="Edm.GeographyPoint"/>
<NavigationProperty Name="Media" Type="Collection(x.y.Media)"/></EntityType>
<EntityType Name="Pair"><Key><PropertyRef Name="A"/><PropertyRef Name="B"/></Key></EntityType>
<EntityType Name="Loop" BaseType="x.y.Loop"/>
<EntityContainer Name="c"><EntitySet Name="Property" EntityType="x.y.Listing"/></EntityContainer>
</Schema></edmx:DataServices></edmx:Edmx>"#;

    #[test]
    fn keys_and_types_are_those_that_are_declared() {
        let schema = described(EDMX).expect("an EDMX");
        let property = &schema["Property"];
        assert_eq!((property.key.as_str(), property.numeric), ("Id", true), "of the type that it stands on");
        let kinds: Vec<(&str, ColumnKind)> = property.fields().collect();
        let expected = [
            ("Price", ColumnKind::Real),
            ("Status", ColumnKind::Text),
            ("Tags", ColumnKind::Json),
            ("At", ColumnKind::Instant),
            ("On", ColumnKind::Date),
            ("YN", ColumnKind::Bool),
            ("Where", ColumnKind::Json),
            ("Id", ColumnKind::Integer),
        ];
        assert_eq!(kinds, expected);
        assert!(!schema.contains_key("Pair") && !schema.contains_key("Loop"), "without one key a record cannot be told");
    }

    #[test]
    fn what_is_no_description_says_so() {
        for text in ["", "{}", "<a>", "<a/>", "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>"] {
            assert!(described(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}", cut in 0_usize..2_000) {
            let _ = (described(&text), described(EDMX.get(..cut).unwrap_or(EDMX)));
        }
    }
}
