//! The life of one entity, out of the rows that stand: what told of it, what became of that, and what is held now.
//!
//! What retention has removed is gone from here as well. A delivery that could not be parsed names nobody, so it stands in
//! nobody's history.

use sea_orm::sea_query::{Expr, ExprTrait, Order, Query, SelectStatement};
use sea_orm::{ConnectionTrait, FromQueryResult, QueryResult};

use crate::clock::Timestamp;
use crate::model::{Entity, SourceName, Version};
use crate::store::connect::Store;
use crate::store::error::Error;
use crate::store::rows::{ENTITY_COLUMNS, EntityRow, MARK_COLUMNS, MarkRow};
use crate::store::sql::{RECEIVED_AT, of_resource};

/// An entity's life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Its newest entries, oldest first.
    pub entries: Vec<Entry>,
    /// There are older ones.
    pub more: bool,
    /// What is held.
    pub row: Option<StoredRow>,
    /// The mark that is open.
    pub mark: Option<OpenMark>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was worked in.
    pub at: Timestamp,
    /// What.
    pub what: Happened,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// A delivery, feed or log named it.
    Event(Told),
    /// The replica changed.
    Change(Changed),
    /// A record with its key could not be read, for this reason. Only the last time is known.
    Quarantined(String),
}

/// An event that named the entity, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Which way it came.
    pub via: String,
    /// What it announced.
    pub operation: String,
    /// What became of it.
    pub outcome: String,
    /// Why.
    pub reason: Option<String>,
    /// The delivery that told.
    pub delivery: Option<String>,
    /// When that was received, as long as it is kept.
    pub received_at: Option<Timestamp>,
}

/// A change of the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its number within the source.
    pub number: i64,
    /// `insert`, `update`, `delete` or `revive`.
    pub operation: String,
    /// The version that was held from then on.
    pub version: Option<String>,
    /// When the upstream says that it changed.
    pub upstream_at: Option<Timestamp>,
    /// How we came to know.
    pub learned_by: String,
    /// The delivery whose push was applied.
    pub delivery: Option<String>,
    /// Names of the fields that changed, as a JSON list.
    pub fields: String,
}

/// An entity as it is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// Its version.
    pub version: Option<Version>,
    /// When it was removed, if it was.
    pub deleted_at: Option<Timestamp>,
    /// Why.
    pub deleted_reason: Option<String>,
    /// When the last read was issued that showed what is held, or that it is gone. A page of a list counts as older by as much as
    /// lists lag behind reads by key.
    pub compared_at: Option<Timestamp>,
    /// The last change of it.
    pub last_change: i64,
    /// Hash of its document; `None` for a tombstone without one.
    pub hash: Option<Vec<u8>>,
    /// The document as the database shows it.
    pub payload: Option<String>,
}

/// A mark that is open: the entity will be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenMark {
    /// Why it was set.
    pub reason: String,
    /// When the last hint came.
    pub last_hint_at: Timestamp,
    /// The newest version that a hint stated.
    pub hint: Option<Version>,
    /// A delete was announced.
    pub announced_delete: bool,
    /// Reads in vain, in a row.
    pub attempts: i64,
    /// Not read before this.
    pub next: Timestamp,
    /// Its removal waits for the removal budget, a control or a person.
    pub held: bool,
    /// What the last read met.
    pub note: Option<String>,
}

impl OpenMark {
    fn of(row: MarkRow) -> Self {
        let hint = row.mark().hint;
        let MarkRow { reason, announced_delete, last_hint_at, attempts, not_before, held, note, .. } = row;
        Self { reason, last_hint_at: Timestamp(last_hint_at), hint, announced_delete, attempts, next: Timestamp(not_before), held, note }
    }
}

impl Store {
    /// An entity's life: its newest entries, `limit` at most.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn history(&self, source: &SourceName, entity: &Entity, limit: usize) -> Result<History, Error> {
        let mut entries = self.told(source, entity, limit).await?;
        entries.extend(self.changed(source, entity, limit).await?);
        entries.extend(self.put_aside(source, entity).await?);
        // Stable: within one transaction an event stands before the change that it made.
        entries.sort_by_key(|entry| entry.at);
        let older = entries.len().saturating_sub(limit);
        let entries = entries.split_off(older);
        let (row, mark) = (self.stored_row(source, entity).await?, self.open_mark(source, entity).await?);
        Ok(History { entries, more: older > 0, row, mark })
    }

    /// An entity as it is held; `None` if it never was, or its tombstone has outlived its time.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn stored_row(&self, source: &SourceName, entity: &Entity) -> Result<Option<StoredRow>, Error> {
        let mut select = of_entity("instep_entity", source, entity);
        select.columns(ENTITY_COLUMNS).column("deleted_reason").expr_as(Expr::col("payload").cast_as("text"), "payload");
        let Some(row) = self.reader().query_one(&select).await? else { return Ok(None) };
        let stored = EntityRow::from_query_result(&row, "")?;
        Ok(Some(StoredRow {
            version: stored.row().version,
            deleted_at: stored.deleted_at.map(Timestamp),
            deleted_reason: row.try_get("", "deleted_reason")?,
            compared_at: stored.compared_at.map(Timestamp),
            last_change: stored.last_change,
            hash: stored.hash,
            payload: row.try_get("", "payload")?,
        }))
    }

    /// The mark of an entity, if one is open.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn open_mark(&self, source: &SourceName, entity: &Entity) -> Result<Option<OpenMark>, Error> {
        let mut select = of_entity("instep_mark", source, entity);
        let row = self.reader().query_one(select.columns(MARK_COLUMNS)).await?;
        Ok(row.map(|row| MarkRow::from_query_result(&row, "")).transpose()?.map(OpenMark::of))
    }

    async fn told(&self, source: &SourceName, entity: &Entity, limit: usize) -> Result<Vec<Entry>, Error> {
        let mut select = of_entity("instep_outcome", source, entity);
        select.columns(["via", "operation", "outcome", "reason", "delivery_id", "received_at"]);
        select.expr_as(Expr::cust(RECEIVED_AT), "came_at");
        let told = |row: &QueryResult| {
            let what = Happened::Event(Told {
                via: row.try_get("", "via")?,
                operation: row.try_get("", "operation")?,
                outcome: row.try_get("", "outcome")?,
                reason: row.try_get("", "reason")?,
                delivery: row.try_get("", "delivery_id")?,
                received_at: row.try_get::<Option<i64>>("", "came_at")?.map(Timestamp),
            });
            Ok(Entry { at: Timestamp(row.try_get("", "received_at")?), what })
        };
        self.newest(select, "id", limit, told).await
    }

    async fn changed(&self, source: &SourceName, entity: &Entity, limit: usize) -> Result<Vec<Entry>, Error> {
        let mut select = of_entity("instep_change", source, entity);
        select.columns(["number", "operation", "version", "upstream_at", "at", "learned_by", "delivery_id"]);
        select.expr_as(Expr::col("changed").cast_as("text"), "fields");
        let changed = |row: &QueryResult| {
            let what = Happened::Change(Changed {
                number: row.try_get("", "number")?,
                operation: row.try_get("", "operation")?,
                version: row.try_get("", "version")?,
                upstream_at: row.try_get::<Option<i64>>("", "upstream_at")?.map(Timestamp),
                learned_by: row.try_get("", "learned_by")?,
                delivery: row.try_get("", "delivery_id")?,
                fields: row.try_get("", "fields")?,
            });
            Ok(Entry { at: Timestamp(row.try_get("", "at")?), what })
        };
        self.newest(select, "number", limit, changed).await
    }

    async fn put_aside(&self, source: &SourceName, entity: &Entity) -> Result<Vec<Entry>, Error> {
        let mut select = of_entity("instep_quarantine", source, entity);
        select.columns(["reason", "at"]);
        let put_aside = |row: &QueryResult| {
            let what = Happened::Quarantined(row.try_get("", "reason")?);
            Ok(Entry { at: Timestamp(row.try_get("", "at")?), what })
        };
        self.newest(select, "id", 1, put_aside).await
    }

    /// One more than `limit`, so that the caller sees whether there are more; oldest first.
    async fn newest(
        &self,
        mut select: SelectStatement,
        order: &'static str,
        limit: usize,
        read: impl Fn(&QueryResult) -> Result<Entry, Error>,
    ) -> Result<Vec<Entry>, Error> {
        select.order_by(order, Order::Desc).limit(limit as u64 + 1);
        let rows = self.reader().query_all(&select).await?;
        rows.iter().rev().map(read).collect()
    }
}

fn of_entity(table: &'static str, source: &SourceName, entity: &Entity) -> SelectStatement {
    let mut select = Query::select();
    select.from(table).and_where(of_resource(source, &entity.resource)).and_where(Expr::col("key").eq(entity.key.as_str()));
    select
}
