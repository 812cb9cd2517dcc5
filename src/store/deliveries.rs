//! Deliveries: journalled at the edge, taken by state, ended with the batch that applied their events.

use std::collections::HashSet;

use bytes::Bytes;
use sea_orm::sea_query::{Alias, Expr, ExprTrait, Func, OnConflict, Order, Query};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::model::{Delivery, DeliveryId, HookRequest, SourceName};
use crate::store::apply::{Context, DeliveryEnd};
use crate::store::connect::{Lane, Store, Tx};
use crate::store::error::{Error, Kind};
use crate::store::fence::Fence;
use crate::store::quarantine::{self, QuarantineKind, Refusal};
use crate::store::sql::{clean, groups, of_source};

/// What became of a delivery at the journal; both are answered 2xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Journaled {
    /// Durable now.
    Stored,
    /// Its original is still pending.
    Duplicate,
}

/// A delivery that waits for the intake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingDelivery {
    /// It.
    pub delivery: Delivery,
    /// How often it was tried in the careful mode.
    pub attempts: u32,
}

/// How much waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Deliveries pending.
    pub deliveries: u64,
    /// When the oldest of them came.
    pub oldest: Option<Timestamp>,
}

impl Store {
    /// Stores deliveries (of any sources) in one durable commit; when this returns `Ok`, each `Ok` in it survives a power cut.
    ///
    /// A delivery that the database refuses is found by halving and answered alone. The same id again is harmless.
    ///
    /// # Errors
    /// [`Kind::Unavailable`]: the outcome is unknown; nothing may be acknowledged. [`Kind::Fsync`]: the process must end.
    pub async fn journal(&self, deliveries: &[Delivery]) -> Result<Vec<Result<Journaled, Error>>, Error> {
        let mut order: Vec<usize> = (0..deliveries.len()).collect();
        order.sort_by_key(|at| (&deliveries[*at].source, &deliveries[*at].dedupe, deliveries[*at].id));
        let mut outcomes: Vec<Result<Journaled, Error>> = vec![Ok(Journaled::Duplicate); deliveries.len()];
        let mut left = vec![order.as_slice()];
        while let Some(part) = left.pop() {
            let batch: Vec<&Delivery> = part.iter().map(|at| &deliveries[*at]).collect();
            match self.run(|| self.journal_once(&batch)).await {
                Ok(stored) => {
                    for at in part {
                        if stored.contains(&deliveries[*at].id.0) {
                            outcomes[*at] = Ok(Journaled::Stored);
                        }
                    }
                }
                Err(error) if error.kind() == Kind::Data && part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    left.extend([second, first]);
                }
                Err(error) if error.kind() == Kind::Data => outcomes[part[0]] = Err(error),
                Err(error) => return Err(error),
            }
        }
        Ok(outcomes)
    }

    async fn journal_once(&self, deliveries: &[&Delivery]) -> Result<HashSet<Uuid>, Error> {
        let tx = self.begin(Lane::Journal, "journal").await?;
        let mut stored = HashSet::new();
        for group in groups(deliveries) {
            let mut insert = Query::insert();
            insert.into_table("instep_delivery").columns([
                "id",
                "source",
                "received_at",
                "dedupe",
                "route",
                "query",
                "headers",
                "body",
                "state",
                "attempts",
            ]);
            for delivery in group {
                insert.values_panic(values(delivery));
            }
            insert.on_conflict(OnConflict::new().do_nothing().to_owned()).returning_col("id");
            for row in tx.db.query_all(&insert).await? {
                stored.extend(row.try_get::<String>("", "id")?.parse::<Uuid>());
            }
        }
        self.beat(&tx).await?;
        tx.commit().await?;
        Ok(stored)
    }

    /// An empty commit of the journal: the store can accept. Together with [`Store::journal`] it keeps the heartbeat by which a
    /// later start knows how long deliveries may have been lost.
    ///
    /// # Errors
    /// As [`Store::journal`].
    pub async fn heartbeat(&self) -> Result<(), Error> {
        self.run(|| async {
            let tx = self.begin(Lane::Journal, "heartbeat").await?;
            self.beat(&tx).await?;
            tx.commit().await
        })
        .await
    }

    /// When the journal last committed, by any process; `None` before the first time.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn last_heartbeat(&self) -> Result<Option<Timestamp>, Error> {
        let select = Query::select().column("at").from("instep_heartbeat").and_where(Expr::col("name").eq("journal")).take();
        let row = self.reader().query_one(&select).await?;
        Ok(row.map(|row| row.try_get("", "at")).transpose()?.map(Timestamp))
    }

    async fn beat(&self, tx: &Tx<'_>) -> Result<(), Error> {
        let beat = Query::insert()
            .into_table("instep_heartbeat")
            .columns(["name", "at"])
            .values_panic(["journal".into(), self.now().0.into()])
            .on_conflict(OnConflict::column("name").update_column("at").to_owned())
            .take();
        tx.db.execute(&beat).await?;
        Ok(())
    }

    /// The oldest pending deliveries of a source: at most `rows`, and as many as fit into `bytes` of bodies (always one).
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn pending(&self, source: &SourceName, rows: u64, bytes: u64) -> Result<Vec<PendingDelivery>, Error> {
        let mut sizes = Query::select();
        sizes.column("id").expr_as(Func::cust("length").arg(Expr::col("body")), "size").from("instep_delivery");
        sizes.and_where(of_source(source)).and_where(Expr::cust("state = 'pending'"));
        sizes.order_by("received_at", Order::Asc).order_by("id", Order::Asc).limit(rows);
        let mut ids: Vec<String> = Vec::new();
        let mut left = i64::try_from(bytes).unwrap_or(i64::MAX);
        for row in self.reader().query_all(&sizes).await? {
            left = left.saturating_sub(i64::from(row.try_get::<i32>("", "size")?));
            if left < 0 && !ids.is_empty() {
                break;
            }
            ids.push(row.try_get("", "id")?);
        }
        let mut found = Vec::with_capacity(ids.len());
        for group in groups(&ids) {
            let mut select = Query::select();
            select.columns(["id", "received_at", "dedupe", "route", "query", "headers", "body", "attempts"]).from("instep_delivery");
            select.and_where(Expr::col("id").is_in(group.iter().map(String::as_str))).and_where(Expr::cust("state = 'pending'"));
            for row in self.reader().query_all(&select).await? {
                found.push(DeliveryRow::from_query_result(&row, "")?.pending(source)?);
            }
        }
        found.sort_by_key(|pending| (pending.delivery.received_at, pending.delivery.id));
        Ok(found)
    }

    /// Notes durably that this delivery is about to be tried alone (after an unclean end); returns how often it has been.
    ///
    /// # Errors
    /// [`Kind::Fenced`], [`Kind::Unavailable`].
    pub async fn attempt(&self, fence: &Fence, id: DeliveryId) -> Result<u32, Error> {
        self.run(|| async {
            let tx = self.begin(Lane::Work, "attempt").await?;
            fence.lock(&tx).await?;
            let update = Query::update()
                .table("instep_delivery")
                .value("attempts", Expr::col("attempts").add(1))
                .and_where(Expr::col("id").eq(id.0.to_string()))
                .returning_col("attempts")
                .take();
            let row = tx.db.query_one(&update).await?;
            let attempts: i64 = row.map(|row| row.try_get("", "attempts")).transpose()?.unwrap_or(0);
            tx.commit().await?;
            Ok(u32::try_from(attempts).unwrap_or(u32::MAX))
        })
        .await
    }

    /// How much waits for a source. Reads the index of pending deliveries only.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn backlog(&self, source: &SourceName) -> Result<Backlog, Error> {
        let mut select = Query::select();
        select.expr_as(Func::count(Expr::cust("*")), Alias::new("n")).expr_as(Func::min(Expr::col("received_at")), Alias::new("oldest"));
        select.from("instep_delivery").and_where(of_source(source)).and_where(Expr::cust("state = 'pending'"));
        let Some(row) = self.reader().query_one(&select).await? else {
            return Ok(Backlog::default());
        };
        let deliveries: i64 = row.try_get("", "n")?;
        let oldest: Option<i64> = row.try_get("", "oldest")?;
        Ok(Backlog { deliveries: u64::try_from(deliveries).unwrap_or(0), oldest: oldest.map(Timestamp) })
    }

    /// When the last delivery came by a route, of those that are kept.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn last_delivery(&self, source: &SourceName, route: &str) -> Result<Option<Timestamp>, Error> {
        let mut select = Query::select();
        select.expr_as(Func::max(Expr::col("received_at")), Alias::new("last")).from("instep_delivery");
        select.and_where(of_source(source)).and_where(Expr::col("route").eq(route));
        let row = self.reader().query_one(&select).await?;
        let last: Option<i64> = row.map(|row| row.try_get("", "last")).transpose()?.flatten();
        Ok(last.map(Timestamp))
    }

    /// Puts a quarantined delivery back to the pending ones. `false`: there is none of that id, or its twin is pending.
    ///
    /// # Errors
    /// [`Kind::Fenced`], [`Kind::Unavailable`].
    pub async fn replay(&self, fence: &Fence, id: DeliveryId) -> Result<bool, Error> {
        let replayed = self.run(|| self.replay_once(fence, id)).await;
        match replayed {
            Err(error) if error.kind() == Kind::Data => Ok(false),
            done => done,
        }
    }

    async fn replay_once(&self, fence: &Fence, id: DeliveryId) -> Result<bool, Error> {
        let tx = self.begin(Lane::Work, "replay").await?;
        fence.lock(&tx).await?;
        let id = id.0.to_string();
        let update = Query::update()
            .table("instep_delivery")
            .value("state", "pending")
            .value("attempts", 0_i64)
            .value("done_at", Option::<i64>::None)
            .and_where(Expr::col("id").eq(id.as_str()))
            .and_where(of_source(fence.source()))
            .and_where(Expr::col("state").eq("quarantined"))
            .take();
        let replayed = tx.db.execute(&update).await?.rows_affected() == 1;
        if replayed {
            let delete = Query::delete().from_table("instep_quarantine").and_where(Expr::col("delivery_id").eq(id)).take();
            tx.db.execute(&delete).await?;
        }
        tx.commit().await?;
        Ok(replayed)
    }
}

/// Sets the states that a batch gives to its deliveries.
pub(crate) async fn end(context: &Context<'_>, deliveries: &[(DeliveryId, DeliveryEnd)]) -> Result<(), Error> {
    let done: Vec<String> = deliveries.iter().filter(|(_, end)| *end == DeliveryEnd::Done).map(|(id, _)| id.0.to_string()).collect();
    for group in groups(&done) {
        let update = Query::update()
            .table("instep_delivery")
            .value("state", "done")
            .value("done_at", context.now.0)
            .and_where(Expr::col("id").is_in(group.iter().map(String::as_str)))
            .take();
        context.tx.db.execute(&update).await?;
    }
    for (id, end) in deliveries {
        let DeliveryEnd::Quarantined(reason) = end else {
            continue;
        };
        let update = Query::update()
            .table("instep_delivery")
            .value("state", "quarantined")
            .value("reason", clean(reason))
            .value("done_at", context.now.0)
            .and_where(Expr::col("id").eq(id.0.to_string()))
            .take();
        context.tx.db.execute(&update).await?;
        let refusal = Refusal { kind: QuarantineKind::Delivery, resource: None, key: None, reason, body: None, delivery: Some(*id) };
        quarantine::put(context, &refusal).await?;
    }
    Ok(())
}

#[derive(FromQueryResult)]
struct DeliveryRow {
    id: String,
    received_at: i64,
    dedupe: String,
    route: String,
    query: String,
    headers: Vec<u8>,
    body: Vec<u8>,
    attempts: i64,
}

impl DeliveryRow {
    fn pending(self, source: &SourceName) -> Result<PendingDelivery, Error> {
        let id = self.id.parse().map_err(|_| Error::new(Kind::Bug, "a stored delivery's id is no uuid"))?;
        let headers = unpack(Bytes::from(self.headers)).ok_or_else(|| Error::new(Kind::Bug, "stored headers are cut off"))?;
        let request = HookRequest { route: self.route, query: self.query, headers, body: Bytes::from(self.body) };
        let received_at = Timestamp(self.received_at);
        let delivery = Delivery { id: DeliveryId(id), source: source.clone(), received_at, dedupe: self.dedupe, request };
        Ok(PendingDelivery { delivery, attempts: u32::try_from(self.attempts).unwrap_or(u32::MAX) })
    }
}

fn values(delivery: &Delivery) -> Vec<Expr> {
    let values: [Value; 10] = [
        delivery.id.0.to_string().into(),
        delivery.source.as_str().into(),
        delivery.received_at.0.into(),
        delivery.dedupe.as_str().into(),
        delivery.request.route.as_str().into(),
        delivery.request.query.as_str().into(),
        pack(&delivery.request.headers).into(),
        delivery.request.body.to_vec().into(),
        "pending".into(),
        0_i64.into(),
    ];
    values.into_iter().map(Expr::val).collect()
}

/// Headers as bytes, because values may hold any: length and text of each name and value in turn.
fn pack(headers: &[(String, Bytes)]) -> Vec<u8> {
    let mut packed = Vec::new();
    for part in headers.iter().flat_map(|(name, value)| [name.as_bytes(), value]) {
        packed.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        packed.extend(part);
    }
    packed
}

fn unpack(mut packed: Bytes) -> Option<Vec<(String, Bytes)>> {
    let mut part = || {
        let length = packed.split_to_checked(4)?;
        let length = u32::from_be_bytes(length.as_ref().try_into().ok()?);
        packed.split_to_checked(usize::try_from(length).ok()?)
    };
    let mut headers = Vec::new();
    while let Some(name) = part() {
        headers.push((String::from_utf8(name.to_vec()).ok()?, part()?));
    }
    Some(headers)
}

trait SplitChecked {
    fn split_to_checked(&mut self, at: usize) -> Option<Bytes>;
}

impl SplitChecked for Bytes {
    fn split_to_checked(&mut self, at: usize) -> Option<Bytes> {
        (at <= self.len()).then(|| self.split_to(at))
    }
}
