//! What rule 11 needs to know before anything is removed: how much was, what is left, who is surely alive, who is suspect.

use std::time::Duration;

use sea_orm::ConnectionTrait;
use sea_orm::sea_query::{Expr, ExprTrait, Func, Order, Query, SelectStatement};

use crate::clock::Timestamp;
use crate::model::{Entity, Key, ResourceName, SourceName};
use crate::store::connect::Store;
use crate::store::error::{Error, Kind};
use crate::store::fence::Fence;
use crate::store::marks::MarkReason;
use crate::store::passes::{Pass, seen_label};
use crate::store::sql::{of_resource, padded};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Suspects marked in one transaction.
const CHUNK: u64 = 200;

impl Store {
    /// Removals of a resource since `since` that no delete event had announced. What lies ahead of us was dated by a wall clock that
    /// was set back since, and counts as long as it is less than a day.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn removals_since(&self, source: &SourceName, resource: &ResourceName, since: Timestamp) -> Result<u64, Error> {
        let mut select = Query::select();
        select.expr_as(Func::count(Expr::cust("*")), "n").from("instep_change").and_where(of_resource(source, resource));
        select
            .and_where(Expr::cust("unannounced"))
            .and_where(Expr::col("at").gt(since.0))
            .and_where(Expr::col("at").lt(self.now().plus(DAY).0));
        self.count(&select).await
    }

    /// Live rows of a resource.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn live_rows(&self, source: &SourceName, resource: &ResourceName) -> Result<u64, Error> {
        let mut select = live(source, resource);
        select.expr_as(Func::count(Expr::cust("*")), "n");
        self.count(&select).await
    }

    /// Live entities other than these whose delete nobody has announced, and below no record of `parent` that is gone (they go with
    /// it, most of them perhaps before they are marked): controls that must answer before an absence counts. The one that was seen
    /// alive last comes first; the others are a sample of `n`.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn control_keys(
        &self,
        source: &SourceName,
        (resource, parent): (&ResourceName, Option<&ResourceName>),
        except: &[Key],
        n: u64,
    ) -> Result<Vec<Key>, Error> {
        let mut last = Query::select();
        last.column("control_key").from("instep_progress").and_where(of_resource(source, resource));
        let row = self.reader().query_one(&last).await?;
        let last: Option<String> = row.map(|row| row.try_get("", "control_key")).transpose()?.flatten();
        let mut standing = live(source, resource);
        let announced = Query::select().column("key").from("instep_mark").and_where(of_resource(source, resource)).take();
        let announced = announced.clone().and_where(Expr::cust("announced_delete")).take();
        standing.column("key").and_where(Expr::col("key").not_in_subquery(announced));
        if let Some(parent) = parent {
            let mut gone = Query::select();
            gone.column("key").from("instep_entity").and_where(of_resource(source, parent)).and_where(Expr::cust("deleted_at is not null"));
            standing.and_where(Expr::col("parent").is_null().or(Expr::col("parent").not_in_subquery(gone)));
        }
        if !except.is_empty() {
            standing.and_where(Expr::col("key").is_not_in(padded(except.iter().map(Key::as_str))));
        }
        let mut keys = Vec::new();
        if let Some(last) = last {
            keys = self.keys(&standing.clone().and_where(Expr::col("key").eq(last)).take()).await?;
        }
        if n > 0 {
            keys.extend(self.keys(standing.order_by_expr(Func::random().into(), Order::Asc).limit(n)).await?);
        }
        Ok(keys)
    }

    /// How many live rows a finished sweep has not met.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn count_suspects(&self, source: &SourceName, pass: &Pass) -> Result<u64, Error> {
        let mut select = suspects(source, pass);
        select.expr_as(Func::count(Expr::cust("*")), "n");
        self.count(&select).await
    }

    /// A sample of the live rows that a finished sweep has not met.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn sample_suspects(&self, source: &SourceName, pass: &Pass, n: u64) -> Result<Vec<Key>, Error> {
        let mut select = suspects(source, pass);
        select.column("key").order_by_expr(Func::random().into(), Order::Asc).limit(n);
        self.keys(&select).await
    }

    /// Marks every live row that a finished sweep has not met; returns how many.
    ///
    /// # Errors
    /// [`Kind::Fenced`], [`Kind::Unavailable`].
    pub async fn mark_suspects(&self, fence: &Fence, pass: &Pass) -> Result<u64, Error> {
        let mut after: Option<Key> = None;
        let mut marked = 0;
        loop {
            let mut select = suspects(fence.source(), pass);
            select.column("key").order_by("key", Order::Asc).limit(CHUNK);
            if let Some(after) = &after {
                select.and_where(Expr::col("key").gt(after.as_str()));
            }
            let keys = self.keys(&select).await?;
            let Some(last) = keys.last().cloned() else {
                return Ok(marked);
            };
            let resource = pass.resource.clone();
            let entities: Vec<Entity> = keys.into_iter().map(|key| Entity { resource: resource.clone(), key }).collect();
            self.mark_entities(fence, &entities, MarkReason::Suspect).await?;
            marked += u64::try_from(entities.len()).unwrap_or(0);
            after = Some(last);
        }
    }

    pub(crate) async fn keys(&self, select: &SelectStatement) -> Result<Vec<Key>, Error> {
        read_keys(&self.reader().query_all(select).await?)
    }
}

pub(crate) fn read_keys(rows: &[sea_orm::QueryResult]) -> Result<Vec<Key>, Error> {
    let key = |row: &sea_orm::QueryResult| -> Result<Key, Error> {
        Key::new(row.try_get::<String>("", "key")?).map_err(|_| Error::new(Kind::Bug, "a stored key is no key"))
    };
    rows.iter().map(key).collect()
}

pub(crate) fn live(source: &SourceName, resource: &ResourceName) -> SelectStatement {
    let mut select = Query::select();
    select.from("instep_entity").and_where(of_resource(source, resource)).and_where(Expr::cust("deleted_at is null"));
    select
}

/// Live rows whose tick is older than the pass's first, less the unreadable ones that it met.
fn suspects(source: &SourceName, pass: &Pass) -> SelectStatement {
    let first = pass.first_tick;
    let older = Expr::col("tick_epoch")
        .lt(first.epoch)
        .or(Expr::col("tick_epoch").eq(first.epoch).and(Expr::col("tick_counter").lt(first.counter)));
    let seen = Query::select()
        .column("id")
        .from("instep_seen")
        .and_where(Expr::col("source").eq(source.as_str()))
        .and_where(Expr::col("label").eq(seen_label(&pass.id)))
        .take();
    let mut select = live(source, &pass.resource);
    select.and_where(older).and_where(Expr::col("key").not_in_subquery(seen));
    select
}
