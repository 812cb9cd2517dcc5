//! Passes of the reconciler: where they stand, what they have seen, what they have proved.

use sea_orm::sea_query::{Expr, ExprTrait, Func, OnConflict, Query, UpdateStatement};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::model::{ResourceName, SourceName, Tick};
use crate::store::apply::Context;
use crate::store::connect::{Lane, Store, Tx};
use crate::store::error::{Error, Kind};
use crate::store::fence::Fence;
use crate::store::sql::{clean, groups, of_resource, of_source};
use crate::store::{gaps, wishes};

/// The two kinds of pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PassKind {
    /// What changed since the watermark.
    Incremental,
    /// Everything; what it does not meet is suspect.
    Sweep,
}

impl PassKind {
    /// As it stands in rows and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Incremental => "incremental",
            Self::Sweep => "sweep",
        }
    }
}

/// Which page is next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassPosition {
    /// Which of the resource's lists.
    pub variant: usize,
    /// Its page; `None`: the first.
    pub cursor: Option<String>,
}

/// A pass to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPass {
    /// Over which resource.
    pub resource: ResourceName,
    /// Of which kind.
    pub kind: PassKind,
    /// Asks only for what changed since then.
    pub lower_bound: Option<Timestamp>,
}

/// A running pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Its id.
    pub id: Uuid,
    /// Over which resource.
    pub resource: ResourceName,
    /// Of which kind.
    pub kind: PassKind,
    /// The page that is next.
    pub position: PassPosition,
    /// Asks only for what changed since then.
    pub lower_bound: Option<Timestamp>,
    /// Taken before its first request: rows with an older tick were not met by it.
    pub first_tick: Tick,
    /// The upstream's `Date` of its first response.
    pub first_date: Option<Timestamp>,
    /// Highest stamp it met.
    pub high_stamp: Option<Timestamp>,
    /// When it began, by our clock.
    pub started_at: Timestamp,
    /// Pages applied.
    pub pages: u64,
    /// Records applied.
    pub records: u64,
    /// A refused cursor has sent it back to its beginning once already.
    pub restarted: bool,
}

/// The page of a pass that a batch is: moves the pass from one position to the next, or fails with [`Kind::Moved`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassStep {
    /// Which pass.
    pub id: Uuid,
    /// Where it must stand.
    pub from: PassPosition,
    /// Where it stands then.
    pub to: PassPosition,
    /// The upstream's `Date`; only the first page's is kept.
    pub date: Option<Timestamp>,
    /// Highest stamp of the page.
    pub high_stamp: Option<Timestamp>,
    /// Records of the page. A page split over several batches counts as a page in the one that moves the position.
    pub records: u64,
}

/// How a pass ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PassEnd {
    /// It met every page. `watermark`: where the next incremental one begins.
    Completed {
        /// From now on.
        watermark: Option<Timestamp>,
    },
    /// It was given up, for this reason.
    Stopped(String),
}

/// What is known of a resource's passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Where the next incremental pass begins.
    pub watermark: Option<Timestamp>,
    /// Start of the last completed incremental pass.
    pub incremental_at: Option<Timestamp>,
    /// Start of the last completed sweep.
    pub sweep_at: Option<Timestamp>,
    /// End of the last completed pass.
    pub ended_at: Option<Timestamp>,
    /// The upstream refused bulk reads: single reads from now on.
    pub bulk_unsupported: bool,
}

impl Store {
    /// Starts a pass. One at a time over a resource: where one runs, it is returned as it stands.
    ///
    /// # Errors
    /// [`Kind::Fenced`], [`Kind::Unavailable`].
    pub async fn start_pass(&self, fence: &Fence, new: &NewPass) -> Result<Pass, Error> {
        self.run(|| self.start_once(fence, new)).await?;
        let running = self.running_pass(fence.source(), &new.resource).await?;
        running.ok_or_else(|| Error::new(Kind::Moved, "the pass that was started has ended"))
    }

    async fn start_once(&self, fence: &Fence, new: &NewPass) -> Result<(), Error> {
        let tx = self.begin(Lane::Work, "start_pass").await?;
        fence.lock(&tx).await?;
        let tick = fence.tick();
        let mut lower_bound = new.lower_bound;
        if let (PassKind::Incremental, Some(bound)) = (new.kind, lower_bound) {
            let reaches_back = gaps::reaches_back_to(&tx, fence.source()).await?;
            lower_bound = reaches_back.map_or(lower_bound, |at| Some(bound.min(at)));
        }
        let values: [Value; 14] = [
            Uuid::now_v7().to_string().into(),
            fence.source().as_str().into(),
            new.resource.as_str().into(),
            new.kind.as_str().into(),
            0_i64.into(),
            lower_bound.map(|at| at.0).into(),
            tick.epoch.into(),
            tick.counter.into(),
            self.now().0.into(),
            "running".into(),
            0_i64.into(),
            0_i64.into(),
            false.into(),
            Option::<String>::None.into(),
        ];
        let insert = Query::insert()
            .into_table("instep_pass")
            .columns([
                "id",
                "source",
                "resource",
                "kind",
                "variant",
                "lower_bound",
                "first_epoch",
                "first_counter",
                "started_at",
                "state",
                "pages",
                "records",
                "restarted",
                "note",
            ])
            .values_panic(values.into_iter().map(Expr::val))
            .on_conflict(OnConflict::new().do_nothing().to_owned())
            .take();
        tx.db.execute(&insert).await?;
        tx.commit().await
    }

    /// The pass that runs over a resource.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn running_pass(&self, source: &SourceName, resource: &ResourceName) -> Result<Option<Pass>, Error> {
        let mut select = Query::select();
        select.columns([
            "id",
            "kind",
            "variant",
            "cursor",
            "lower_bound",
            "first_epoch",
            "first_counter",
            "first_date",
            "high_stamp",
            "started_at",
            "pages",
            "records",
            "restarted",
        ]);
        select.from("instep_pass").and_where(of_resource(source, resource)).and_where(Expr::cust("state = 'running'"));
        let row = self.reader().query_one(&select).await?;
        row.map(|row| PassRow::from_query_result(&row, "")?.pass(resource)).transpose()
    }

    /// Sends a pass back to its beginning, once, because its cursor was refused. `false`: it has been sent back before.
    ///
    /// # Errors
    /// [`Kind::Fenced`], [`Kind::Unavailable`].
    pub async fn restart_pass(&self, fence: &Fence, id: Uuid) -> Result<bool, Error> {
        self.run(|| async {
            let tx = self.begin(Lane::Work, "restart_pass").await?;
            fence.lock(&tx).await?;
            let update = running(id)
                .value("variant", 0_i64)
                .value("cursor", Option::<String>::None)
                .value("restarted", true)
                .and_where(Expr::col("restarted").not())
                .take();
            let restarted = tx.db.execute(&update).await?.rows_affected() == 1;
            tx.commit().await?;
            Ok(restarted)
        })
        .await
    }

    /// Ends a pass and notes what it proved. Its seen notes go with it.
    ///
    /// # Errors
    /// [`Kind::Fenced`], [`Kind::Moved`] if it does not run any more, [`Kind::Unavailable`].
    pub async fn finish_pass(&self, fence: &Fence, pass: &Pass, end: &PassEnd) -> Result<(), Error> {
        self.run(|| self.finish_once(fence, pass, end)).await
    }

    async fn finish_once(&self, fence: &Fence, pass: &Pass, end: &PassEnd) -> Result<(), Error> {
        let tx = self.begin(Lane::Work, "finish_pass").await?;
        fence.lock(&tx).await?;
        let now = self.now().0;
        let (state, note) = match end {
            PassEnd::Completed { .. } => ("completed", None),
            PassEnd::Stopped(reason) => ("stopped", Some(clean(reason))),
        };
        let update = running(pass.id).value("state", state).value("note", note).value("ended_at", now).take();
        if tx.db.execute(&update).await?.rows_affected() == 0 {
            return Err(Error::new(Kind::Moved, "the pass does not run any more"));
        }
        if let PassEnd::Completed { watermark } = end {
            self.progressed(&tx, fence, pass, *watermark, now).await?;
            wishes::fulfil(&tx, fence, pass, Timestamp(now)).await?;
        }
        let delete = Query::delete()
            .from_table("instep_seen")
            .and_where(of_source(fence.source()))
            .and_where(Expr::col("label").eq(seen_label(&pass.id)))
            .take();
        tx.db.execute(&delete).await?;
        tx.commit().await
    }

    async fn progressed(&self, tx: &Tx<'_>, fence: &Fence, pass: &Pass, watermark: Option<Timestamp>, now: i64) -> Result<(), Error> {
        let started = pass.started_at.0;
        let began = if pass.kind == PassKind::Sweep { "sweep_at" } else { "incremental_at" };
        let mut columns = vec!["source", "resource", "bulk_unsupported", "ended_at", began];
        let mut values: Vec<Value> =
            vec![fence.source().as_str().into(), pass.resource.as_str().into(), false.into(), now.into(), started.into()];
        if let Some(watermark) = watermark {
            columns.push("watermark");
            values.push(watermark.0.into());
        }
        if pass.kind == PassKind::Sweep {
            columns.push("complete_as_of");
            values.push(started.into());
        }
        let updated: Vec<&'static str> = columns[3..].to_vec();
        let insert = Query::insert()
            .into_table("instep_progress")
            .columns(columns)
            .values_panic(values.into_iter().map(Expr::val))
            .on_conflict(OnConflict::columns(["source", "resource"]).update_columns(updated).to_owned())
            .take();
        tx.db.execute(&insert).await?;
        Ok(())
    }

    /// What is known of a resource's passes.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn progress(&self, source: &SourceName, resource: &ResourceName) -> Result<Progress, Error> {
        let mut select = Query::select();
        select.columns(["watermark", "incremental_at", "sweep_at", "ended_at", "bulk_unsupported"]).from("instep_progress");
        select.and_where(of_resource(source, resource));
        let Some(row) = self.reader().query_one(&select).await? else {
            return Ok(Progress::default());
        };
        let at = |column: &str| row.try_get::<Option<i64>>("", column).map(|at| at.map(Timestamp));
        Ok(Progress {
            watermark: at("watermark")?,
            incremental_at: at("incremental_at")?,
            sweep_at: at("sweep_at")?,
            ended_at: at("ended_at")?,
            bulk_unsupported: row.try_get("", "bulk_unsupported")?,
        })
    }

    /// Remembers that the upstream refuses bulk reads of a resource.
    ///
    /// # Errors
    /// [`Kind::Fenced`], [`Kind::Unavailable`].
    pub async fn set_bulk_unsupported(&self, fence: &Fence, resource: &ResourceName) -> Result<(), Error> {
        self.run(|| async {
            let tx = self.begin(Lane::Work, "bulk_unsupported").await?;
            fence.lock(&tx).await?;
            let insert = Query::insert()
                .into_table("instep_progress")
                .columns(["source", "resource", "bulk_unsupported"])
                .values_panic([fence.source().as_str().into(), resource.as_str().into(), true.into()])
                .on_conflict(OnConflict::columns(["source", "resource"]).update_column("bulk_unsupported").to_owned())
                .take();
            tx.db.execute(&insert).await?;
            tx.commit().await
        })
        .await
    }
}

/// Label of the seen notes of a pass.
pub(crate) fn seen_label(pass: &Uuid) -> String {
    format!("pass:{pass}")
}

fn running(id: Uuid) -> UpdateStatement {
    let mut update = Query::update();
    update.table("instep_pass").and_where(Expr::col("id").eq(id.to_string())).and_where(Expr::col("state").eq("running"));
    update
}

pub(crate) fn is_or_null(column: &'static str, value: Option<&str>) -> Expr {
    value.map_or_else(|| Expr::col(column).is_null(), |value| Expr::col(column).eq(value))
}

/// Moves a pass: compare and set on its position.
pub(crate) async fn step(context: &Context<'_>, step: &PassStep) -> Result<(), Error> {
    let variant = |position: &PassPosition| i64::try_from(position.variant).unwrap_or(i64::MAX);
    let high: Option<i64> = step.high_stamp.map(|at| at.0);
    let mut update = running(step.id);
    update.value("variant", variant(&step.to)).value("cursor", step.to.cursor.clone());
    update.value("pages", Expr::col("pages").add(i64::from(step.from != step.to)));
    update.value("records", Expr::col("records").add(i64::try_from(step.records).unwrap_or(0)));
    if let Some(date) = step.date {
        update.value("first_date", Func::coalesce([Expr::col("first_date"), date.0.into()]));
    }
    if let Some(high) = high {
        let lower = Expr::col("high_stamp").is_null().or(Expr::col("high_stamp").lt(high));
        let raised = sea_orm::sea_query::CaseStatement::new().case(lower, high).finally(Expr::col("high_stamp"));
        update.value("high_stamp", raised);
    }
    update.and_where(Expr::col("variant").eq(variant(&step.from)));
    update.and_where(is_or_null("cursor", step.from.cursor.as_deref()));
    if context.tx.db.execute(&update).await?.rows_affected() == 0 {
        return Err(Error::new(Kind::Moved, "the pass does not stand where this page begins"));
    }
    Ok(())
}

/// Remembers rows of a feed, or unreadable keys of a pass.
pub(crate) async fn note_seen(context: &Context<'_>, label: &str, ids: &[&str]) -> Result<(), Error> {
    for group in groups(ids) {
        let mut insert = Query::insert();
        insert.into_table("instep_seen").columns(["source", "label", "id", "at"]);
        for id in group {
            let source = context.fence.source().as_str();
            insert.values_panic([source.into(), label.into(), (*id).into(), context.now.0.into()]);
        }
        insert.on_conflict(OnConflict::new().do_nothing().to_owned());
        context.tx.db.execute(&insert).await?;
    }
    Ok(())
}

#[derive(FromQueryResult)]
struct PassRow {
    id: String,
    kind: String,
    variant: i64,
    cursor: Option<String>,
    lower_bound: Option<i64>,
    first_epoch: i64,
    first_counter: i64,
    first_date: Option<i64>,
    high_stamp: Option<i64>,
    started_at: i64,
    pages: i64,
    records: i64,
    restarted: bool,
}

impl PassRow {
    fn pass(self, resource: &ResourceName) -> Result<Pass, Error> {
        Ok(Pass {
            id: self.id.parse().map_err(|_| Error::new(Kind::Bug, "a stored pass's id is no uuid"))?,
            resource: resource.clone(),
            kind: if self.kind == "sweep" { PassKind::Sweep } else { PassKind::Incremental },
            position: PassPosition { variant: usize::try_from(self.variant).unwrap_or(0), cursor: self.cursor },
            lower_bound: self.lower_bound.map(Timestamp),
            first_tick: Tick { epoch: self.first_epoch, counter: self.first_counter },
            first_date: self.first_date.map(Timestamp),
            high_stamp: self.high_stamp.map(Timestamp),
            started_at: Timestamp(self.started_at),
            pages: u64::try_from(self.pages).unwrap_or(0),
            records: u64::try_from(self.records).unwrap_or(0),
            restarted: self.restarted,
        })
    }
}
