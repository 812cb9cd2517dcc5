//! Rows as they are read, and what they mean to the model.

use std::sync::Arc;

use sea_orm::FromQueryResult;

use crate::clock::Timestamp;
use crate::model::ordering::{Agreeing, Mark, Row};
use crate::model::version::Value;
use crate::model::{Hash, Tick, Version};

/// What the rule needs of an entity, and what the change row needs.
#[derive(Clone, Debug, FromQueryResult)]
pub(crate) struct EntityRow {
    pub(crate) key: String,
    pub(crate) version_field: Option<String>,
    pub(crate) version_value: Option<i64>,
    pub(crate) version_precision: Option<i64>,
    pub(crate) hash: Option<Vec<u8>>,
    pub(crate) deleted_at: Option<i64>,
    pub(crate) tick_epoch: i64,
    pub(crate) tick_counter: i64,
    pub(crate) first_change: i64,
    pub(crate) last_change: i64,
    pub(crate) looked_at: Option<i64>,
    pub(crate) hot_ms: i64,
    pub(crate) parent: Option<String>,
    pub(crate) compared_at: Option<i64>,
}

/// Its columns.
pub(crate) const ENTITY_COLUMNS: [&str; 14] = [
    "key",
    "version_field",
    "version_value",
    "version_precision",
    "hash",
    "deleted_at",
    "tick_epoch",
    "tick_counter",
    "first_change",
    "last_change",
    "looked_at",
    "hot_ms",
    "parent",
    "compared_at",
];

impl EntityRow {
    pub(crate) fn row(&self) -> Row {
        Row {
            deleted: self.deleted_at.is_some(),
            version: version(self.version_field.as_deref(), self.version_value, self.version_precision),
            hash: self.hash.as_deref().and_then(hash),
            tick: Tick { epoch: self.tick_epoch, counter: self.tick_counter },
        }
    }
}

/// A mark as stored.
#[derive(Clone, Debug, FromQueryResult)]
pub(crate) struct MarkRow {
    pub(crate) key: String,
    pub(crate) reason: String,
    pub(crate) hint_field: Option<String>,
    pub(crate) hint_value: Option<i64>,
    pub(crate) hint_precision: Option<i64>,
    pub(crate) versionless: bool,
    pub(crate) announced_delete: bool,
    pub(crate) last_hint_at: i64,
    pub(crate) tick_epoch: i64,
    pub(crate) tick_counter: i64,
    pub(crate) attempts: i64,
    pub(crate) not_before: i64,
    pub(crate) agreeing_hash: Option<Vec<u8>>,
    pub(crate) agreeing_epoch: Option<i64>,
    pub(crate) agreeing_counter: Option<i64>,
    pub(crate) agreeing_since: Option<i64>,
    pub(crate) missing_since: Option<i64>,
    pub(crate) confirm: bool,
    pub(crate) held: bool,
    pub(crate) note: Option<String>,
}

/// Its columns.
pub(crate) const MARK_COLUMNS: [&str; 20] = [
    "key",
    "reason",
    "hint_field",
    "hint_value",
    "hint_precision",
    "versionless",
    "announced_delete",
    "last_hint_at",
    "tick_epoch",
    "tick_counter",
    "attempts",
    "not_before",
    "agreeing_hash",
    "agreeing_epoch",
    "agreeing_counter",
    "agreeing_since",
    "missing_since",
    "confirm",
    "held",
    "note",
];

impl MarkRow {
    pub(crate) fn mark(&self) -> Mark {
        let agreeing = self.agreeing_hash.as_deref().and_then(hash).map(|hash| Agreeing {
            hash,
            tick: Tick { epoch: self.agreeing_epoch.unwrap_or_default(), counter: self.agreeing_counter.unwrap_or_default() },
            since: Timestamp(self.agreeing_since.unwrap_or_default()),
        });
        Mark {
            tick: Tick { epoch: self.tick_epoch, counter: self.tick_counter },
            hint: version(self.hint_field.as_deref(), self.hint_value, self.hint_precision),
            versionless: self.versionless,
            announced_delete: self.announced_delete,
            last_hint_at: Timestamp(self.last_hint_at),
            agreeing,
        }
    }
}

fn hash(bytes: &[u8]) -> Option<Hash> {
    Some(Hash(bytes.try_into().ok()?))
}

fn version(field: Option<&str>, value: Option<i64>, precision_us: Option<i64>) -> Option<Version> {
    let value = match (value?, precision_us?) {
        (number, 0) => Value::Sequence(number),
        (at, precision_us) => Value::Stamp { at: Timestamp(at), precision_us },
    };
    Some(Version { field: Arc::from(field?), value })
}

/// The three columns of a version: field, value, precision (0: a sequence).
pub(crate) fn version_columns(version: Option<&Version>) -> (Option<String>, Option<i64>, Option<i64>) {
    let Some(version) = version else {
        return (None, None, None);
    };
    let value = match version.value {
        Value::Stamp { at, .. } => at.0,
        Value::Sequence(number) => number,
    };
    (Some(version.field.to_string()), Some(value), Some(version.precision_us()))
}
