//! Upstream against replica, field by field: every typed column of the view and every field of the payload.
//!
//! Written without the code that normalises, stores or shows records. Left out is only what is not replicated by design:
//! relations that are not asked for, parts of a relation beside its linkage, and excluded attributes.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Error;
use crate::clock::Timestamp;
use crate::connectors::{Column, ColumnKind, ResourceSpec};
use crate::store::reader::{Reader, TextRow};

/// Parts of attribute names that the default configuration excludes.
const EXCLUDED: [&str; 3] = ["cost", "salar", "margin"];
/// Always linked, whatever is asked for.
const ALWAYS_LINKED: &str = "organization";

/// One field that differs.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Difference {
    pub(super) resource: String,
    pub(super) key: String,
    pub(super) field: String,
    pub(super) upstream: String,
    pub(super) replica: String,
}

/// What a comparison found.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) entities: usize,
    pub(super) differences: Vec<Difference>,
}

/// Compares two documents of one record.
pub(super) type Payloads = fn(&mut OfRecord<'_>, &Value, &Value);

impl Comparison {
    /// Compares all records of a resource with the rows of its view.
    pub(super) async fn add(
        &mut self,
        reader: &Reader,
        source: &str,
        spec: &ResourceSpec,
        records: &BTreeMap<String, Value>,
        payloads: Payloads,
    ) -> Result<(), Error> {
        let names: Vec<String> = spec.columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
        let mut columns = vec!["key", "payload"];
        columns.extend(names.iter().map(String::as_str));
        let rows = reader.texts(&columns, &format!("{source}_{}", spec.name.as_str().replace('-', "_"))).await?;
        let mut rows: BTreeMap<String, TextRow> =
            rows.into_iter().map(|mut row| (row[0].take().unwrap_or_default(), row.split_off(1))).collect();
        self.entities += records.len();
        for (key, record) in records {
            let mut of_record = OfRecord { spec, key, found: &mut self.differences };
            match rows.remove(key) {
                None => of_record.differs("*", "exists", "no row"),
                Some(row) => of_record.compare(record, &row, payloads),
            }
        }
        for key in rows.keys() {
            OfRecord { spec, key, found: &mut self.differences }.differs("*", "does not exist", "a live row");
        }
        Ok(())
    }
}

/// One record under comparison.
pub(super) struct OfRecord<'a> {
    spec: &'a ResourceSpec,
    key: &'a str,
    found: &'a mut Vec<Difference>,
}

impl OfRecord<'_> {
    pub(super) fn differs(&mut self, field: &str, upstream: impl ToString, replica: impl ToString) {
        let (resource, key) = (self.spec.name.to_string(), self.key.to_owned());
        self.found.push(Difference {
            resource,
            key,
            field: field.to_owned(),
            upstream: upstream.to_string(),
            replica: replica.to_string(),
        });
    }

    /// `row`: the payload, then the columns of the spec in their order.
    fn compare(&mut self, record: &Value, row: &TextRow, payloads: Payloads) {
        let (payload, columns) = (row.first().cloned().flatten(), row.get(1..).unwrap_or_default());
        match payload.as_deref().map(serde_json::from_str::<Value>) {
            Some(Ok(payload)) => payloads(self, record, &payload),
            _ => self.differs("payload", "a document", payload.unwrap_or_else(|| "null".to_owned())),
        }
        let spec = self.spec;
        for (column, shown) in spec.columns.iter().zip(columns) {
            let (wanted, shown) = (expected(column, record), canonical(column.kind, shown.as_deref()));
            if wanted != shown {
                let text = |value: Option<String>| value.unwrap_or_else(|| "null".to_owned());
                self.differs(&column.name, text(wanted), text(shown));
            }
        }
    }

    /// Of JSON:API.
    pub(super) fn compare_payload(&mut self, record: &Value, payload: &Value) {
        for name in ["id", "type"] {
            self.compare_values(&format!("/{name}"), record.get(name), payload.get(name));
        }
        let mut attributes = object(record, "attributes");
        attributes.retain(|name, _| !EXCLUDED.iter().any(|part| name.contains(part)));
        self.compare_objects("/attributes", &attributes, &object(payload, "attributes"));
        let asked = |name: &str| {
            name == ALWAYS_LINKED
                || self.spec.columns.iter().any(|column| column.reference && column.name.strip_suffix("_id") == Some(name))
        };
        let relations: Map<String, Value> = object(record, "relationships").into_iter().filter(|(name, _)| asked(name)).collect();
        self.compare_objects("/relationships", &relations, &object(payload, "relationships"));
        let parts = payload.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
        let unknown: Vec<&str> = parts.filter(|name| !matches!(*name, "id" | "type" | "attributes" | "relationships")).collect();
        for name in unknown {
            self.differs(&format!("/{name}"), "nothing", "a value");
        }
    }

    /// Of records whose fields are all at the top: every one.
    pub(super) fn compare_fields(&mut self, record: &Value, payload: &Value) {
        match (record.as_object(), payload.as_object()) {
            (Some(record), Some(payload)) => self.compare_objects("", record, payload),
            _ => self.differs("payload", record, payload),
        }
    }

    fn compare_objects(&mut self, path: &str, upstream: &Map<String, Value>, replica: &Map<String, Value>) {
        for (name, wanted) in upstream {
            self.compare_values(&format!("{path}/{name}"), Some(wanted), replica.get(name));
        }
        for (name, held) in replica.iter().filter(|(name, _)| !upstream.contains_key(*name)) {
            self.compare_values(&format!("{path}/{name}"), None, Some(held));
        }
    }

    pub(super) fn compare_values(&mut self, path: &str, upstream: Option<&Value>, replica: Option<&Value>) {
        if upstream != replica {
            let text = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), ToString::to_string);
            self.differs(path, text(upstream), text(replica));
        }
    }
}

fn object(value: &Value, name: &str) -> Map<String, Value> {
    value.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
}

/// What a column must show of an upstream record.
fn expected(column: &Column, record: &Value) -> Option<String> {
    let value = record.pointer(&column.pointer).filter(|value| !value.is_null())?;
    let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    match column.kind {
        ColumnKind::Text => Some(text),
        ColumnKind::Integer | ColumnKind::Real | ColumnKind::Bool | ColumnKind::Date | ColumnKind::Instant => {
            canonical(column.kind, Some(&text))
        }
        ColumnKind::Json => canonical(column.kind, Some(&value.to_string())),
    }
}

/// One spelling for what both databases show: `true` or 1, `…+00` or `…Z`, any order of keys.
fn canonical(kind: ColumnKind, text: Option<&str>) -> Option<String> {
    let text = text?;
    match kind {
        ColumnKind::Text | ColumnKind::Date => Some(text.to_owned()),
        ColumnKind::Integer => text.parse::<i64>().ok().map(|number| number.to_string()),
        ColumnKind::Real => text.parse::<f64>().ok().map(|number| number.to_string()),
        ColumnKind::Bool => match text {
            "true" | "1" | "t" => Some("true".to_owned()),
            "false" | "0" | "f" => Some("false".to_owned()),
            _ => None,
        },
        ColumnKind::Instant => instant(text).map(|at| at.to_string()),
        ColumnKind::Json => Some(serde_json::from_str::<Value>(text).map_or_else(|_| text.to_owned(), |value| value.to_string())),
    }
}

/// An instant as an API, SQLite's views or PostgreSQL (session in UTC) write it.
pub(super) fn instant(text: &str) -> Option<Timestamp> {
    let text = text.replacen(' ', "T", 1);
    Timestamp::parse(&text.strip_suffix("+00").map_or_else(|| text.clone(), |instant| format!("{instant}Z")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_databases_say_the_same() {
        let same = |kind, one, other| assert_eq!(canonical(kind, Some(one)), canonical(kind, Some(other)), "{one} {other}");
        same(ColumnKind::Instant, "2026-01-02 03:04:05.678+00", "2026-01-02T04:04:05.678+01:00");
        same(ColumnKind::Instant, "2026-01-02T03:04:05.678000Z", "2026-01-02 03:04:05.678+00");
        same(ColumnKind::Bool, "1", "true");
        same(ColumnKind::Json, "{\"b\": 1, \"a\": []}", "{\"a\":[],\"b\":1}");
        assert_ne!(
            canonical(ColumnKind::Instant, Some("2026-01-02T03:04:05Z")),
            canonical(ColumnKind::Instant, Some("2026-01-02T03:04:06Z"))
        );
        assert_eq!(canonical(ColumnKind::Integer, Some("seven")), None);
    }
}
