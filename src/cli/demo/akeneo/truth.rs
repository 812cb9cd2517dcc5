//! What the fake PIM really holds, by its own REST API, and how a record of it compares with a payload.
//!
//! Written without the code that reads, normalises or stores records.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::Error;
use super::super::compare::OfRecord;
use super::super::upstream::Upstream;

/// Pages of one list: far more than the largest demo has.
const PAGES_MAX: usize = 100_000;

/// Resources whose lists are nested below `/api/rest/v1/`: the list above, what stands around its codes, and by which field the replica
/// says the code.
const NESTED: [(&str, &str, [&str; 2], &str); 4] = [
    ("family-variants", "families", ["families/", "/variants"], "family"),
    ("attribute-options", "attributes", ["attributes/", "/options"], "attribute"),
    ("assets", "asset-families", ["asset-families/", "/assets"], "asset_family"),
    ("reference-entity-records", "reference-entities", ["reference-entities/", "/records"], "reference_entity"),
];
/// Fields that hold a map, also when they are empty.
const MAPS: [&str; 5] = ["values", "associations", "quantified_associations", "labels", "attribute_requirements"];
/// Attributes that have options.
const SELECTS: [&str; 2] = ["pim_catalog_simpleselect", "pim_catalog_multiselect"];

/// All records of a resource by our keys.
pub(in super::super) async fn records(upstream: &Upstream, resource: &str) -> Result<BTreeMap<String, Value>, Error> {
    let Some((_, above, [before, behind], field)) = NESTED.iter().find(|(name, ..)| *name == resource) else {
        let path = if resource == "products" { "products-uuid" } else { resource };
        let rows = list(upstream, path).await?;
        return Ok(rows.into_iter().map(|row| (code(&row), with_maps(row))).collect());
    };
    let mut found = BTreeMap::new();
    for parent in list(upstream, above).await? {
        let kind = parent.get("type").and_then(Value::as_str).unwrap_or_default();
        if resource == "attribute-options" && !SELECTS.contains(&kind) {
            continue;
        }
        let parent = code(&parent);
        let rows = list(upstream, &format!("{before}{parent}{behind}")).await?;
        found.extend(rows.into_iter().map(|row| (format!("{parent}/{}", code(&row)), below(with_maps(row), field, &parent))));
    }
    Ok(found)
}

/// PHP writes an empty map as a list, now and then; what is always a map is one here.
fn with_maps(mut row: Value) -> Value {
    for name in MAPS {
        if let Some(map) = row.get_mut(name).filter(|map| map.as_array().is_some_and(Vec::is_empty)) {
            *map = Value::Object(serde_json::Map::new());
        }
    }
    row
}

/// The replica says of every record what it stands below; upstream only its address does.
fn below(mut row: Value, field: &str, parent: &str) -> Value {
    if let Some(fields) = row.as_object_mut() {
        fields.entry(field).or_insert_with(|| parent.into());
    }
    row
}

fn code(row: &Value) -> String {
    let value = row.get("uuid").or_else(|| row.get("code")).and_then(Value::as_str);
    value.unwrap_or_default().to_owned()
}

/// All rows of a list, page by page.
async fn list(upstream: &Upstream, path: &str) -> Result<Vec<Value>, Error> {
    let walks = matches!(path, "products-uuid" | "product-models") || path.ends_with("/assets") || path.ends_with("/records");
    let query = match path {
        "measurement-families" => "",
        _ if path.ends_with("/assets") || path.ends_with("/records") => "",
        _ if walks => "?pagination_type=search_after&limit=100",
        _ => "?limit=100",
    };
    let mut next = Some(format!("/api/rest/v1/{path}{query}"));
    let mut rows = Vec::new();
    for _ in 0..PAGES_MAX {
        let Some(url) = next.take() else { return Ok(rows) };
        let mut page = upstream.observe(&url).await?;
        next = page.pointer("/_links/next/href").and_then(Value::as_str).map(ToOwned::to_owned);
        // A few lists are bare.
        let items = if page.is_array() { Some(page.take()) } else { page.pointer_mut("/_embedded/items").map(Value::take) };
        match items {
            Some(Value::Array(items)) => rows.extend(items),
            _ => return Err(Error::Answer(format!("a page of {path} has no items"))),
        }
    }
    Err(Error::Answer(format!("{path} has no last page")))
}

/// Compares a record with a payload: all fields of both, but for links, and with every empty list or map as the same nothing.
pub(in super::super) fn compare(of_record: &mut OfRecord<'_>, record: &Value, payload: &Value) {
    let (wanted, held) = (plain(record), plain(payload));
    let (Some(wanted), Some(held)) = (wanted.as_object(), held.as_object()) else {
        return of_record.differs("payload", record, payload);
    };
    for name in wanted.keys().chain(held.keys().filter(|name| !wanted.contains_key(*name))) {
        of_record.compare_values(&format!("/{name}"), wanted.get(name), held.get(name));
    }
}

fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: serde_json::Map<String, Value> =
                fields.iter().filter(|(name, _)| *name != "_links").map(|(name, value)| (name.clone(), plain(value))).collect();
            if fields.is_empty() { Value::Array(Vec::new()) } else { Value::Object(fields) }
        }
        Value::Array(items) => items.iter().map(plain).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::plain;

    #[test]
    fn links_and_the_kind_of_an_empty_map_do_not_count() {
        let one = json!({ "_links": { "self": 1 }, "values": [], "associations": { "X": { "products": [] } } });
        let other = json!({ "values": {}, "associations": { "X": { "products": [], "_links": {} } } });
        assert_eq!(plain(&one), plain(&other));
        assert_ne!(plain(&one), plain(&json!({ "values": [1], "associations": { "X": { "products": [] } } })));
    }
}
