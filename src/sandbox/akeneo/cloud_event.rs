//! Events of the Event Platform: their types, what they carry, and how they are written.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::changes::{Author, Happening, Operation};
use super::invent;
use super::moment;
use super::options::Options;
use super::resource::{Resource as R, code, container};
use super::world::{Record, World};

pub(super) const TYPE_PREFIX: &str = "com.akeneo.pim.v1.";

/// The types that tell of a change: one, and for updates of products and models one more with what changed.
pub(super) fn types(happening: &Happening) -> Vec<String> {
    let Some(announced) = happening.resource.spec().announced else { return Vec::new() };
    let verb = match happening.operation {
        Operation::Create | Operation::Restore => "created",
        Operation::Update => "updated",
        Operation::Delete => "deleted",
    };
    let kind = format!("{TYPE_PREFIX}{}.{verb}", announced.stem);
    let delta = happening.delta.as_ref().map(|_| format!("{kind}.delta"));
    [kind].into_iter().chain(delta).collect()
}

/// What an event carries: identifiers alone, or with them what changed.
pub(super) fn data(happening: &Happening, kind: &str, send_identifier: bool, options: &Options) -> Value {
    let Some(announced) = happening.resource.spec().announced else { return json!({}) };
    let mut record = match happening.resource {
        R::Products => json!({ "uuid": happening.key }),
        _ => json!({ "code": code(&happening.key) }),
    };
    if let Some(identifier) = happening.record.document.get("identifier").filter(|identifier| send_identifier && identifier.is_string()) {
        record["identifier"] = identifier.clone();
    }
    if let Some(name) = announced.container {
        record[name] = json!({ "code": container(&happening.key) });
    }
    if let Some(changes) = happening.delta.as_ref().filter(|_| kind.ends_with(".delta")) {
        let at = moment::utc(happening.record.updated_s).replace('T', " ").replace('Z', ".000000");
        record["updated_at"] = json!({ "date": at, "timezone": "UTC" });
        record["changes"] = changes.clone();
    }
    json!({ announced.data: record, "author": author(&happening.author, options) })
}

/// A connection is known here by its client id, a user by the name.
fn author(author: &Author, options: &Options) -> Value {
    let identifier = if author.name == options.username { &options.client_id } else { &author.name };
    json!({ "identifier": identifier, "type": if author.kind == "ui" { "user" } else { author.kind.as_str() } })
}

pub(super) fn written(id: &str, kind: &str, subscription: &str, at_us: i64, data: &Value) -> String {
    let event = json!({
        "specversion": "1.0", "id": id, "source": "akeneo-event-platform", "type": kind, "subject": subscription,
        "datacontenttype": "application/json", "dataschema": format!("https://event.prd.sdk.akeneo.cloud/spec/{kind}.schema.json"),
        "time": moment::utc(at_us.div_euclid(1_000_000)), "data": data,
    });
    event.to_string()
}

/// What differs between two states of a product or model, as deltas have it.
pub(super) fn changes(world: &World, key: &str, old: &Record, new: &Record) -> Value {
    let mut changes = Map::new();
    for name in ["enabled", "family", "parent"] {
        let (previous, now) = (old.document.get(name), new.document.get(name));
        if previous != now {
            changes.insert(name.to_owned(), json!({ "previous": previous, "new": now }));
        }
    }
    let (before, after): (BTreeSet<&str>, BTreeSet<&str>) = (old.texts("categories").collect(), new.texts("categories").collect());
    if before != after {
        let (added, removed): (Vec<_>, Vec<_>) = (after.difference(&before).collect(), before.difference(&after).collect());
        changes.insert("categories".to_owned(), json!({ "added": added, "removed": removed }));
    }
    let changed = new.values.iter().filter(|(attribute, rows)| old.values.get(*attribute) != Some(rows));
    let values: Map<String, Value> =
        changed.filter_map(|(attribute, rows)| Some((attribute.clone(), rows_changed(world, key, old, attribute, rows)?))).collect();
    if !values.is_empty() {
        changes.insert("values".to_owned(), values.into());
    }
    changes.into()
}

fn rows_changed(world: &World, key: &str, old: &Record, attribute: &str, rows: &Value) -> Option<Value> {
    let definition = world.get(R::Attributes, attribute)?;
    let previous = match old.values.get(attribute) {
        Some(rows) => rows.as_array().cloned().unwrap_or_default(),
        None => invent::values(world.seed, key, definition).unwrap_or_default(),
    };
    let new = rows.as_array().cloned().unwrap_or_default();
    let data = |rows: &[Value], place: &Value| {
        let found = rows.iter().find(|row| row["locale"] == place["locale"] && row["scope"] == place["scope"]);
        found.map(|row| row["data"].clone())
    };
    let gone = previous.iter().filter(|row| data(&new, row).is_none());
    let places = new.iter().chain(gone).filter(|row| data(&previous, row) != data(&new, row));
    let row = |place: &Value| {
        json!({
            "previous": data(&previous, place), "new": data(&new, place), "type": definition.text("type"), "locale": place["locale"],
            "scope": place["scope"],
        })
    };
    Some(places.map(row).collect())
}
