//! Passes that an operator wants now. The wish is in the resource's row until a pass that began after it has met every page, so it
//! survives whoever was to run it; how it goes is read off the passes.

use sea_orm::sea_query::{CaseStatement, Expr, ExprTrait, Func, OnConflict, Order, Query};
use sea_orm::{ConnectionTrait, Value};

use crate::clock::Timestamp;
use crate::model::{ResourceName, SourceName};
use crate::store::connect::{Engine, Lane, Store, Tx};
use crate::store::error::Error;
use crate::store::fence::Fence;
use crate::store::passes::{Pass, PassKind};
use crate::store::sql::{of_resource, of_source};

/// A pass that an operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Over which resource.
    pub resource: ResourceName,
    /// Of which kind at least: a sweep fulfils either.
    pub kind: PassKind,
    /// Since when; only a pass that begins after it fulfils it.
    pub at: Timestamp,
}

/// How a pass stands that runs, or has ended since it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassNews {
    /// Of which kind.
    pub kind: String,
    /// `running`, `completed` or `stopped`.
    pub state: String,
    /// Pages met.
    pub pages: u64,
    /// Records met.
    pub records: u64,
    /// When it began.
    pub started_at: Timestamp,
    /// Why it was given up.
    pub note: Option<String>,
}

impl Store {
    /// Notes that a pass over each of these resources is wanted now; returns since when. A sweep that was asked for before stays one.
    ///
    /// # Errors
    /// [`crate::store::Kind::Fenced`], [`crate::store::Kind::Unavailable`].
    pub async fn ask_passes(&self, fence: &Fence, resources: &[ResourceName], kind: PassKind) -> Result<Timestamp, Error> {
        self.run(|| async {
            let tx = self.begin(Lane::Work, "ask_passes").await?;
            fence.lock(&tx).await?;
            let now = self.now();
            let sweep = PassKind::Sweep.as_str();
            for resource in resources {
                let values: [Value; 5] =
                    [fence.source().as_str().into(), resource.as_str().into(), false.into(), kind.as_str().into(), now.0.into()];
                let stays = Expr::col(("instep_progress", "asked_kind")).eq(sweep);
                let stronger = CaseStatement::new().case(stays, sweep).finally(kind.as_str());
                let insert = Query::insert()
                    .into_table("instep_progress")
                    .columns(["source", "resource", "bulk_unsupported", "asked_kind", "asked_at"])
                    .values_panic(values.into_iter().map(Expr::val))
                    .on_conflict(
                        OnConflict::columns(["source", "resource"]).value("asked_kind", stronger).update_column("asked_at").to_owned(),
                    )
                    .take();
                tx.db.execute(&insert).await?;
            }
            tx.commit().await?;
            Ok(now)
        })
        .await
    }

    /// The passes that are wanted and were not completed yet.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn wishes(&self, source: &SourceName) -> Result<Vec<Wish>, Error> {
        let mut select = Query::select();
        select.columns(["resource", "asked_kind", "asked_at"]).from("instep_progress").and_where(of_source(source));
        select.and_where(Expr::col("asked_at").is_not_null());
        let mut wishes = Vec::new();
        for row in self.reader().query_all(&select).await? {
            let (kind, at): (Option<String>, i64) = (row.try_get("", "asked_kind")?, row.try_get("", "asked_at")?);
            let kind = if kind.as_deref() == Some(PassKind::Sweep.as_str()) { PassKind::Sweep } else { PassKind::Incremental };
            let Ok(resource) = ResourceName::new(row.try_get::<String>("", "resource")?) else { continue };
            wishes.push(Wish { resource, kind, at: Timestamp(at) });
        }
        Ok(wishes)
    }

    /// The passes over a resource that run or began since then, the latest first.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn passes_since(&self, source: &SourceName, resource: &ResourceName, since: Timestamp) -> Result<Vec<PassNews>, Error> {
        let mut select = Query::select();
        select.columns(["kind", "state", "pages", "records", "started_at", "note"]).from("instep_pass");
        select.and_where(of_resource(source, resource));
        select.and_where(Expr::cust("state = 'running'").or(Expr::col("started_at").gte(since.0)));
        select.order_by("started_at", Order::Desc).limit(PASSES_MAX);
        let rows = self.reader().query_all(&select).await?;
        let whole = |row: &sea_orm::QueryResult, column: &str| -> Result<u64, Error> {
            Ok(u64::try_from(row.try_get::<i64>("", column)?).unwrap_or(0))
        };
        let news = |row: &sea_orm::QueryResult| -> Result<PassNews, Error> {
            Ok(PassNews {
                kind: row.try_get("", "kind")?,
                state: row.try_get("", "state")?,
                pages: whole(row, "pages")?,
                records: whole(row, "records")?,
                started_at: Timestamp(row.try_get("", "started_at")?),
                note: row.try_get("", "note")?,
            })
        };
        rows.iter().map(news).collect()
    }
}

impl Store {
    /// Live rows of a resource that changed upstream since then, which an incremental pass from there on meets again.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn changed_since(&self, source: &SourceName, resource: &ResourceName, since: Timestamp) -> Result<u64, Error> {
        let mut select = Query::select();
        select.expr_as(Func::count(Expr::cust("*")), "n").from("instep_entity").and_where(of_resource(source, resource));
        select.and_where(Expr::cust("deleted_at is null")).and_where(Expr::col("changed_at").gte(since.0));
        self.count(&select).await
    }

    /// How many lists the live rows of a resource are in, where each is below another record, whose key theirs begin with.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn lists_below(&self, source: &SourceName, resource: &ResourceName) -> Result<u64, Error> {
        let position = if self.kind() == Engine::Postgres { "strpos" } else { "instr" };
        let mut select = Query::select();
        select.expr_as(Expr::cust(format!("count(distinct substr(key, 1, {position}(key, '/')))")), "n").from("instep_entity");
        select.and_where(of_resource(source, resource)).and_where(Expr::cust("deleted_at is null"));
        self.count(&select).await
    }
}

/// A wish that was given up again and again is followed no further back than this.
const PASSES_MAX: u64 = 20;

/// A completed pass fulfils the wish that was there before it began, if it is of the wanted kind or a sweep. A wish that lies ahead of
/// us was dated by a wall clock that was set back since.
pub(crate) async fn fulfil(tx: &Tx<'_>, fence: &Fence, pass: &Pass, now: Timestamp) -> Result<(), Error> {
    let mut update = Query::update();
    update.table("instep_progress").value("asked_kind", Option::<String>::None).value("asked_at", Option::<i64>::None);
    update.and_where(of_resource(fence.source(), &pass.resource));
    update.and_where(Expr::col("asked_at").lte(pass.started_at.0).or(Expr::col("asked_at").gt(now.0)));
    if pass.kind == PassKind::Incremental {
        update.and_where(Expr::col("asked_kind").eq(pass.kind.as_str()));
    }
    tx.db.execute(&update).await?;
    Ok(())
}
