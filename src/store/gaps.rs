//! Gaps: periods in which deliveries may have been lost. One opens or grows at the door, and closes when every resource has
//! been compared by a pass that began after its end.

use std::time::Duration;

use sea_orm::sea_query::{Expr, ExprTrait, Func, Order, Query, SelectStatement};
use sea_orm::{ConnectionTrait, FromQueryResult, Statement, Value};

use crate::clock::Timestamp;
use crate::model::{ResourceName, SourceName};
use crate::store::connect::{Lane, Store, Tx};
use crate::store::error::Error;
use crate::store::fence::Fence;
use crate::store::logs;
use crate::store::passes::PassKind;
use crate::store::sql::{clean, of_source};

/// A gap.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, FromQueryResult)]
pub struct Gap {
    /// Its number.
    pub id: i64,
    /// From when on, in microseconds.
    pub began_at: i64,
    /// Until when; `None`: it goes on.
    pub ended_at: Option<i64>,
    /// Why.
    pub cause: String,
    /// `open` or `repaired`.
    pub state: String,
    /// The pass that repaired it.
    pub pass_id: Option<String>,
    /// When an operator opened it; `None` where the daemon did. Its period may be long over, so what repairs it begins after this.
    pub opened_at: Option<i64>,
}

/// Opened by an operator.
pub const OPERATOR: &str = "operator";
/// Opened by an operator, who wants a sweep.
pub const OPERATOR_SWEEP: &str = "operator_sweep";
/// A delivery was discarded from quarantine: what it said is unknown.
pub const DISCARDED: &str = "discarded";

/// The columns of a [`Gap`].
const COLUMNS: [&str; 7] = ["id", "began_at", "ended_at", "cause", "state", "pass_id", "opened_at"];

/// How far before its beginning a pass asks that repairs a gap of an operator: their clock is not the upstream's.
const CLOCKS_APART: Duration = Duration::from_secs(60);

impl Gap {
    /// Only a sweep repairs it: what happened meanwhile is told by nothing that an incremental pass sees.
    #[must_use]
    pub fn wants_sweep(&self) -> bool {
        logs::BY_SWEEP.contains(&self.cause.as_str())
    }

    /// A pass repairs it that began after this; `None`: it goes on.
    #[must_use]
    pub fn repairable_from(&self) -> Option<Timestamp> {
        self.ended_at.map(|ended| Timestamp(ended).max(Timestamp(self.opened_at.unwrap_or(i64::MIN))))
    }
}

impl Store {
    /// Opens a gap, or extends the open one of the same cause to cover this period. Not fenced: the edge of any process may
    /// have lost something.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`]: note it again later.
    pub async fn extend_gap(
        &self,
        source: &SourceName,
        cause: &str,
        began_at: Timestamp,
        ended_at: Option<Timestamp>,
    ) -> Result<(), Error> {
        let cause = clean(cause);
        self.run(|| self.extend_once(source, &cause, began_at.0, ended_at.map(|at| at.0))).await
    }

    async fn extend_once(&self, source: &SourceName, cause: &str, began: i64, ended: Option<i64>) -> Result<(), Error> {
        let tx = self.begin(Lane::Work, "extend_gap").await?;
        extend(&tx, source, cause, began, ended).await?;
        tx.commit().await
    }

    /// The open gaps of a source, the oldest first.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn open_gaps(&self, source: &SourceName) -> Result<Vec<Gap>, Error> {
        let mut select = Query::select();
        select.columns(COLUMNS).from("instep_gap").and_where(of_source(source));
        select.and_where(Expr::cust("state = 'open'")).order_by("began_at", Order::Asc);
        self.select_gaps(&select).await
    }

    /// The newest gaps of a source, repaired ones too.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn newest_gaps(&self, source: &SourceName, limit: u64) -> Result<Vec<Gap>, Error> {
        let mut select = Query::select();
        select.columns(COLUMNS).from("instep_gap").and_where(of_source(source)).order_by("id", Order::Desc).limit(limit);
        self.select_gaps(&select).await
    }

    async fn select_gaps(&self, select: &SelectStatement) -> Result<Vec<Gap>, Error> {
        let rows = self.reader().query_all(select).await?;
        rows.iter().map(|row| Ok(Gap::from_query_result(row, "")?)).collect()
    }

    /// Opens a gap for an operator, or extends the one that is open: a pass that begins after now, and asks from before its
    /// beginning on, repairs it, or a sweep alone.
    ///
    /// # Errors
    /// [`crate::store::Kind::Fenced`], [`crate::store::Kind::Unavailable`].
    pub async fn open_gap(&self, fence: &Fence, began_at: Timestamp, ended_at: Timestamp, sweep: bool) -> Result<(), Error> {
        let cause = if sweep { OPERATOR_SWEEP } else { OPERATOR };
        self.run(|| async {
            let tx = self.begin(Lane::Work, "open_gap").await?;
            fence.lock(&tx).await?;
            extend(&tx, fence.source(), cause, began_at.0, Some(ended_at.0)).await?;
            let update = Query::update()
                .table("instep_gap")
                .value("opened_at", self.now().0)
                .and_where(of_source(fence.source()))
                .and_where(Expr::col("cause").eq(cause))
                .and_where(Expr::cust("state = 'open'"))
                .take();
            tx.db.execute(&update).await?;
            tx.commit().await
        })
        .await
    }

    /// Closes every gap that is repaired: each of `resources` has a completed pass, of the kind that repairs it, that began after the
    /// gap's end. A sweep always repairs; an incremental pass asks from a watermark that was set before the gap, and is enough where
    /// deletes are learned in another way. Returns how many were closed.
    ///
    /// A gap whose end lies ahead was opened by a wall clock that was set back since; it counts as ended now, and the next passes
    /// close it. A pass that began ahead of our clock proves nothing; the next one does.
    ///
    /// # Errors
    /// [`crate::store::Kind::Fenced`], [`crate::store::Kind::Unavailable`].
    pub async fn close_gaps(&self, fence: &Fence, resources: &[(ResourceName, PassKind)]) -> Result<u64, Error> {
        let (mut compared_since, mut swept_since): (Option<Timestamp>, Option<Timestamp>) = (None, None);
        for (index, (resource, repairing)) in resources.iter().enumerate() {
            let progress = self.progress(fence.source(), resource).await?;
            let incremental = progress.incremental_at.filter(|_| *repairing == PassKind::Incremental);
            let Some(latest) = incremental.max(progress.sweep_at) else {
                return Ok(0);
            };
            if latest > self.now() {
                return Ok(0);
            }
            compared_since = Some(compared_since.map_or(latest, |since| since.min(latest)));
            // `None` is less than any: without a sweep of each nothing is swept.
            swept_since = if index == 0 { progress.sweep_at } else { swept_since.min(progress.sweep_at) };
        }
        let Some(compared_since) = compared_since else {
            return Ok(0);
        };
        let swept_since = swept_since.filter(|at| *at <= self.now()).unwrap_or(Timestamp(i64::MIN));
        self.run(|| async {
            let tx = self.begin(Lane::Work, "close_gap").await?;
            fence.lock(&tx).await?;
            let now = self.now().0;
            let ahead = "update instep_gap set ended_at = case when ended_at > $1 then $1 else ended_at end, \
                         began_at = case when began_at > $1 then $1 else began_at end, \
                         opened_at = case when opened_at > $1 then $1 else opened_at end \
                         where source = $2 and state = 'open' and (ended_at > $1 or opened_at > $1)";
            tx.db.execute_raw(self.raw(ahead, [now.into(), fence.source().as_str().into()])).await?;
            let pass = Query::select()
                .column("id")
                .from("instep_pass")
                .and_where(of_source(fence.source()))
                .and_where(Expr::col("state").eq("completed"))
                .order_by("ended_at", Order::Desc)
                .limit(1)
                .take();
            let pass: Option<String> = tx.db.query_one(&pass).await?.map(|row| row.try_get("", "id")).transpose()?;
            let update = Query::update()
                .table("instep_gap")
                .value("state", "repaired")
                .value("pass_id", pass)
                .and_where(of_source(fence.source()))
                .and_where(Expr::col("state").eq("open"))
                .and_where(over(compared_since))
                .and_where(Expr::col("cause").is_not_in(logs::BY_SWEEP).or(over(swept_since)))
                .take();
            let closed = tx.db.execute(&update).await?.rows_affected();
            tx.commit().await?;
            Ok(closed)
        })
        .await
    }
}

/// Ended and opened before this.
fn over(instant: Timestamp) -> Expr {
    let opened = Expr::col("opened_at").is_null().or(Expr::col("opened_at").lt(instant.0));
    Expr::col("ended_at").lt(instant.0).and(opened)
}

/// From when on an incremental pass has to ask that is to repair what operators opened; within the transaction that starts it, so
/// that none of them is opened in between.
pub(crate) async fn reaches_back_to(tx: &Tx<'_>, source: &SourceName) -> Result<Option<Timestamp>, Error> {
    let mut select = Query::select();
    select.expr_as(Func::min(Expr::col("began_at")), "at").from("instep_gap").and_where(of_source(source));
    select.and_where(Expr::cust("state = 'open'")).and_where(Expr::col("cause").eq(OPERATOR));
    let row = tx.db.query_one(&select).await?;
    let at: Option<i64> = row.map(|row| row.try_get("", "at")).transpose()?.flatten();
    Ok(at.map(|at| Timestamp(at).minus(CLOCKS_APART)))
}

/// Opens a gap within a transaction, or extends the open one of the same cause.
pub(crate) async fn extend(tx: &Tx<'_>, source: &SourceName, cause: &str, began: i64, ended: Option<i64>) -> Result<(), Error> {
    let insert = "insert into instep_gap (source, began_at, ended_at, cause, state) values ($1, $2, $3, $4, 'open') \
                  on conflict (source, cause) where state = 'open' do update set \
                  began_at = case when excluded.began_at < instep_gap.began_at then excluded.began_at else instep_gap.began_at end, \
                  ended_at = case when excluded.ended_at < instep_gap.ended_at then instep_gap.ended_at else excluded.ended_at end";
    let values: [Value; 4] = [source.as_str().into(), began.into(), ended.into(), cause.into()];
    tx.db.execute_raw(Statement::from_sql_and_values(tx.db.get_database_backend(), insert, values)).await?;
    Ok(())
}
