//! Where a delivery or record goes that cannot be processed, with the reason.

use sea_orm::sea_query::{Expr, Func, Order, Query};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};

use crate::clock::Timestamp;
use crate::model::{DeliveryId, SourceName};
use crate::store::apply::Context;
use crate::store::connect::Store;
use crate::store::error::Error;
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
        use sea_orm::sea_query::ExprTrait;
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
        select.columns(["kind", "resource", "key", "reason", "delivery_id", "at"]).from("instep_quarantine");
        select.and_where(of_source(source)).order_by("at", Order::Desc).order_by("id", Order::Desc).limit(limit);
        let rows = self.reader().query_all(&select).await?;
        let rows = rows.iter().map(|row| Row::from_query_result(row, "")).collect::<Result<Vec<_>, _>>()?;
        Ok(rows.into_iter().map(Row::quarantined).collect())
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

#[derive(FromQueryResult)]
struct Row {
    kind: String,
    resource: Option<String>,
    key: Option<String>,
    reason: String,
    delivery_id: Option<String>,
    at: i64,
}

impl Row {
    fn quarantined(self) -> Quarantined {
        let Self { kind, resource, key, reason, delivery_id, at } = self;
        Quarantined { kind, resource, key, reason, delivery: delivery_id, at: Timestamp(at) }
    }
}
