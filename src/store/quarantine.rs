//! Where a delivery or record goes that cannot be processed, with the reason.

use sea_orm::sea_query::{Expr, ExprTrait, Func, Order, Query};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};

use crate::clock::Timestamp;
use crate::model::{DeliveryId, Entity, SourceName};
use crate::store::apply::Context;
use crate::store::connect::{Lane, Store, Tx};
use crate::store::error::Error;
use crate::store::fence::Fence;
use crate::store::gaps::{self, DISCARDED};
use crate::store::marks::{self, MarkReason};
use crate::store::sql::{clean, of_source};

/// What is quarantined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuarantineKind {
    /// A delivery; its body stays with the delivery.
    Delivery,
    /// A record of a page or bulk read.
    Record,
}

impl QuarantineKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Delivery => "delivery",
            Self::Record => "record",
        }
    }
}

/// One thing in quarantine, without its body.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Quarantined {
    /// Its number.
    pub id: i64,
    /// `delivery` or `record`.
    pub kind: String,
    /// Of a record.
    pub resource: Option<String>,
    /// Of a record, where it could be read.
    pub key: Option<String>,
    /// Why.
    pub reason: String,
    /// Of a delivery.
    pub delivery: Option<String>,
    /// Since when.
    pub at: Timestamp,
}

/// What a quarantined thing holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantinedBody {
    /// Of a delivery: the route by which it came.
    pub route: Option<String>,
    /// The bytes.
    pub body: Vec<u8>,
}

/// The columns of a [`Quarantined`].
const COLUMNS: [&str; 7] = ["id", "kind", "resource", "key", "reason", "delivery_id", "at"];

/// What goes in.
pub(crate) struct Refusal<'a> {
    pub(crate) kind: QuarantineKind,
    pub(crate) resource: Option<&'a str>,
    pub(crate) key: Option<&'a str>,
    pub(crate) reason: &'a str,
    pub(crate) body: Option<&'a [u8]>,
    pub(crate) delivery: Option<DeliveryId>,
}

/// A larger body is cut: it is there for people, the upstream has the record.
const BODY_MAX: usize = 256 * 1024;

/// Writes one row. A record's key has one row: the newest.
pub(crate) async fn put(context: &Context<'_>, refusal: &Refusal<'_>) -> Result<(), Error> {
    let source = context.fence.source();
    if let (Some(resource), Some(key)) = (refusal.resource, refusal.key) {
        let delete = Query::delete()
            .from_table("instep_quarantine")
            .and_where(of_source(source))
            .and_where(Expr::col("resource").eq(resource))
            .and_where(Expr::col("key").eq(key))
            .take();
        context.tx.db.execute(&delete).await?;
    }
    let body: Option<Vec<u8>> = refusal.body.map(|body| body[..body.len().min(BODY_MAX)].to_vec());
    let values: [Value; 8] = [
        source.as_str().into(),
        refusal.kind.as_str().into(),
        refusal.resource.map(str::to_owned).into(),
        refusal.key.map(str::to_owned).into(),
        clean(refusal.reason).into(),
        body.into(),
        refusal.delivery.map(|id| id.0.to_string()).into(),
        context.now.0.into(),
    ];
    let insert = Query::insert()
        .into_table("instep_quarantine")
        .columns(["source", "kind", "resource", "key", "reason", "body", "delivery_id", "at"])
        .values_panic(values.into_iter().map(Expr::val))
        .take();
    context.tx.db.execute(&insert).await?;
    Ok(())
}

impl Store {
    /// The newest quarantined things of a source.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn quarantine(&self, source: &SourceName, limit: u64) -> Result<Vec<Quarantined>, Error> {
        let mut select = Query::select();
        select.columns(COLUMNS).from("instep_quarantine");
        select.and_where(of_source(source)).order_by("at", Order::Desc).order_by("id", Order::Desc).limit(limit);
        let rows = self.reader().query_all(&select).await?;
        let rows = rows.iter().map(|row| Row::from_query_result(row, "")).collect::<Result<Vec<_>, _>>()?;
        Ok(rows.into_iter().map(Row::quarantined).collect())
    }

    /// One quarantined thing of a source.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn quarantined(&self, source: &SourceName, id: i64) -> Result<Option<Quarantined>, Error> {
        let mut select = Query::select();
        select.columns(COLUMNS).from("instep_quarantine").and_where(of_source(source)).and_where(Expr::col("id").eq(id));
        let row = self.reader().query_one(&select).await?;
        Ok(row.map(|row| Row::from_query_result(&row, "")).transpose()?.map(Row::quarantined))
    }

    /// What a quarantined thing holds: of a delivery its body, of a record its bytes, as far as they are kept.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn quarantined_body(&self, source: &SourceName, one: &Quarantined) -> Result<Option<QuarantinedBody>, Error> {
        let mut select = Query::select();
        match &one.delivery {
            Some(delivery) if one.kind == QuarantineKind::Delivery.as_str() => {
                select.columns(["route", "body"]).from("instep_delivery").and_where(Expr::col("id").eq(delivery.as_str()));
            }
            _ => {
                select.expr_as(Expr::cust("null"), "route").column("body").from("instep_quarantine").and_where(Expr::col("id").eq(one.id));
            }
        }
        let Some(row) = self.reader().query_one(select.and_where(of_source(source))).await? else { return Ok(None) };
        let body: Option<Vec<u8>> = row.try_get("", "body")?;
        body.map(|body| Ok(QuarantinedBody { route: row.try_get("", "route")?, body })).transpose()
    }

    /// Takes a record out of quarantine and marks its key, so that it is read again. `false`: it is not there any more.
    ///
    /// # Errors
    /// [`crate::store::Kind::Fenced`], [`crate::store::Kind::Unavailable`].
    pub async fn replay_record(&self, fence: &Fence, id: i64, entity: &Entity) -> Result<bool, Error> {
        self.run(|| async {
            let tx = self.begin(Lane::Work, "replay_record").await?;
            fence.lock(&tx).await?;
            let replayed = remove(&tx, fence.source(), id).await?;
            if replayed {
                let now = self.now();
                marks::renew(&tx, fence, std::slice::from_ref(entity), MarkReason::Refresh, (now, now)).await?;
            }
            tx.commit().await?;
            Ok(replayed)
        })
        .await
    }

    /// Takes a thing out of quarantine for good. What a delivery said is then unknown, so that a gap opens over the time since it came.
    /// `false`: it is not there any more.
    ///
    /// # Errors
    /// [`crate::store::Kind::Fenced`], [`crate::store::Kind::Unavailable`].
    pub async fn discard(&self, fence: &Fence, one: &Quarantined) -> Result<bool, Error> {
        self.run(|| async {
            let tx = self.begin(Lane::Work, "discard").await?;
            fence.lock(&tx).await?;
            let discarded = remove(&tx, fence.source(), one.id).await?;
            if let (true, Some(delivery)) = (discarded, one.delivery.as_deref().filter(|_| one.kind == QuarantineKind::Delivery.as_str())) {
                let now = self.now();
                let update = Query::update()
                    .table("instep_delivery")
                    .value("state", "discarded")
                    .value("done_at", now.0)
                    .and_where(Expr::col("id").eq(delivery))
                    .and_where(of_source(fence.source()))
                    .and_where(Expr::col("state").eq("quarantined"))
                    .returning_col("received_at")
                    .take();
                let row = tx.db.query_one(&update).await?;
                let received: Option<i64> = row.map(|row| row.try_get("", "received_at")).transpose()?;
                // Where the delivery itself is gone, it came before it was put aside.
                let began = received.unwrap_or(one.at.0);
                gaps::extend(&tx, fence.source(), DISCARDED, Ord::min(began, now.0), Some(now.0)).await?;
            }
            tx.commit().await?;
            Ok(discarded)
        })
        .await
    }

    /// How many things of a source are in quarantine.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn quarantine_count(&self, source: &SourceName) -> Result<u64, Error> {
        let mut select = Query::select();
        select.expr_as(Func::count(Expr::cust("*")), "n").from("instep_quarantine").and_where(of_source(source));
        let row = self.reader().query_one(&select).await?;
        let n: i64 = row.map(|row| row.try_get("", "n")).transpose()?.unwrap_or(0);
        Ok(u64::try_from(n).unwrap_or(0))
    }
}

async fn remove(tx: &Tx<'_>, source: &SourceName, id: i64) -> Result<bool, Error> {
    let delete = Query::delete().from_table("instep_quarantine").and_where(of_source(source)).and_where(Expr::col("id").eq(id)).take();
    Ok(tx.db.execute(&delete).await?.rows_affected() == 1)
}

#[derive(FromQueryResult)]
struct Row {
    id: i64,
    kind: String,
    resource: Option<String>,
    key: Option<String>,
    reason: String,
    delivery_id: Option<String>,
    at: i64,
}

impl Row {
    fn quarantined(self) -> Quarantined {
        let Self { id, kind, resource, key, reason, delivery_id, at } = self;
        Quarantined { id, kind, resource, key, reason, delivery: delivery_id, at: Timestamp(at) }
    }
}
