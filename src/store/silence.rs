//! What was said of records, and what the replica learned of them: the pages by which lost webhooks are noticed
//! ([`crate::reconcile::Ledger`]).
//!
//! Rows of one source become visible in the order of their instants, for its transactions are serial.

use sea_orm::sea_query::{Expr, ExprTrait, Order, Query};
use sea_orm::{ConnectionTrait, FromQueryResult};

use crate::clock::Timestamp;
use crate::model::{Entity, Key, Operation, ResourceName, SourceName};
use crate::reconcile::Learned;
use crate::store::connect::Store;
use crate::store::error::Error;
use crate::store::sql::of_source;

/// Rows read at once.
const PAGE: u64 = 2_000;

/// A statement of a delivery or feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// When it was worked in, and what orders those of one instant.
    pub position: (i64, i64),
    /// About which record.
    pub entity: Entity,
    /// A feed said so.
    pub by_feed: bool,
}

/// A change with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberedChange {
    /// Its number.
    pub number: i64,
    /// What it did.
    pub operation: Operation,
    /// The change.
    pub learned: Learned<Entity>,
}

#[derive(FromQueryResult)]
struct StatementRow {
    received_at: i64,
    id: i64,
    resource: String,
    key: String,
    via: String,
}

#[derive(FromQueryResult)]
struct ChangeRow {
    number: i64,
    at: i64,
    resource: String,
    key: String,
    operation: String,
    learned_by: String,
    upstream_at: Option<i64>,
}

fn entity(resource: &str, key: &str) -> Option<Entity> {
    Some(Entity { resource: ResourceName::new(resource).ok()?, key: Key::new(key).ok()? })
}

impl Store {
    /// A page of statements behind a position, and whether there may be more.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn statements(&self, source: &SourceName, behind: (i64, i64)) -> Result<(Vec<Statement>, bool), Error> {
        let mut select = Query::select();
        select.columns(["received_at", "id", "resource", "key", "via"]).from("instep_outcome").and_where(of_source(source));
        select.and_where(Expr::col("received_at").gte(behind.0));
        select.and_where(Expr::col("received_at").gt(behind.0).or(Expr::col("id").gt(behind.1)));
        select.order_by("received_at", Order::Asc).order_by("id", Order::Asc).limit(PAGE);
        let rows = self.reader().query_all(&select).await?;
        let is_full = rows.len() as u64 == PAGE;
        let mut statements = Vec::with_capacity(rows.len());
        for row in rows {
            let row = StatementRow::from_query_result(&row, "")?;
            let entity = entity(&row.resource, &row.key);
            statements.extend(entity.map(|entity| Statement { position: (row.received_at, row.id), entity, by_feed: row.via == "feed" }));
        }
        Ok((statements, is_full))
    }

    /// The number of the last change that was learned up to an instant; 0 without one.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn last_change_until(&self, source: &SourceName, until: Timestamp) -> Result<i64, Error> {
        let mut select = Query::select();
        select.column("number").from("instep_change").and_where(of_source(source)).and_where(Expr::col("at").lte(until.0));
        select.order_by("at", Order::Desc).order_by("number", Order::Desc).limit(1);
        Ok(self.reader().query_one(&select).await?.map(|row| row.try_get("", "number")).transpose()?.unwrap_or(0))
    }

    /// A page of changes above a number that were learned up to an instant, and whether there may be more.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn changes_until(&self, source: &SourceName, above: i64, until: Timestamp) -> Result<(Vec<NumberedChange>, bool), Error> {
        let mut select = Query::select();
        select.columns(["number", "at", "resource", "key", "operation", "learned_by", "upstream_at"]).from("instep_change");
        select.and_where(of_source(source)).and_where(Expr::col("number").gt(above)).and_where(Expr::col("at").lte(until.0));
        select.order_by("number", Order::Asc).limit(PAGE);
        let rows = self.reader().query_all(&select).await?;
        let is_full = rows.len() as u64 == PAGE;
        let mut changes = Vec::with_capacity(rows.len());
        for row in rows {
            let row = ChangeRow::from_query_result(&row, "")?;
            let Some(entity) = entity(&row.resource, &row.key) else { continue };
            let operation = match row.operation.as_str() {
                "insert" | "revive" => Operation::Create,
                "delete" => Operation::Delete,
                _ => Operation::Update,
            };
            let (at, stamp) = (Timestamp(row.at), row.upstream_at.map(Timestamp));
            let learned = Learned { record: entity, at, stamp, by_pass: row.learned_by == "pass" };
            changes.push(NumberedChange { number: row.number, operation, learned });
        }
        Ok((changes, is_full))
    }
}
