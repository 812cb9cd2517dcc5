//! Marks: which entities have to be looked at, and when.

use std::time::Duration;

use sea_orm::sea_query::{Condition, Expr, ExprTrait, Func, OnConflict, Order, Query, SelectStatement};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};

use crate::clock::Timestamp;
use crate::model::ordering::Mark;
use crate::model::{Entity, Key, ResourceName, SourceName};
use crate::store::connect::{Lane, Store, Tx};
use crate::store::error::{Error, Kind};
use crate::store::fence::Fence;
use crate::store::rows::{MARK_COLUMNS, MarkRow};
use crate::store::sql::{clean, groups, of_resource, padded};

/// A mark that waits further ahead than any backoff can be the work of a wall clock that was wrong: it counts as due.
const AHEAD_MAX: Duration = Duration::from_secs(24 * 3600);

/// A hint this far ahead of us was dated by a wall clock that was set back since; less is the difference of two machines.
const HINT_AHEAD_MAX: Duration = Duration::from_secs(2);

/// The note of a mark whose removal the budget does not allow.
pub(crate) const OVER_BUDGET: &str = "not found, but the removal budget is spent";

/// When the last hint came, of a mark that no hint has set: whatever is read from now on answers it.
const NO_HINT: Timestamp = Timestamp(0);

/// Why an entity is marked from outside a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MarkReason {
    /// A finished sweep did not see it.
    Suspect,
    /// What stands above it was removed.
    Cascade,
    /// What stands above it changed.
    Parent,
    /// Somebody waits for it, or the wall clock was set.
    Refresh,
}

impl MarkReason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Suspect => "suspect",
            Self::Cascade => "cascade",
            Self::Parent => "parent",
            Self::Refresh => "refresh",
        }
    }
}

/// A mark whose time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueMark {
    /// Of which entity.
    pub key: Key,
    /// As the rule knows it.
    pub mark: Mark,
    /// Failed reads in a row.
    pub attempts: u32,
    /// Only a read by key can tell: a list or bulk read cannot revive, confirm absence or rewind.
    pub by_key: bool,
    /// What stands above it was removed: a second bulk read confirms its absence, and no read by key is needed.
    pub cascade: bool,
    /// When a list or bulk read first missed it.
    pub missing_since: Option<Timestamp>,
    /// Its removal waits for the removal budget or an operator.
    pub held: bool,
    /// Since when it is due.
    pub not_before: Timestamp,
}

impl Store {
    /// Marks that are due, the longest first.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn due_marks(&self, source: &SourceName, resource: &ResourceName, now: Timestamp, limit: u64) -> Result<Vec<DueMark>, Error> {
        let mut select = Query::select();
        select.columns(MARK_COLUMNS).from("instep_mark").and_where(of_resource(source, resource));
        let due = Expr::col("not_before").lte(now.0).or(Expr::col("not_before").gt(now.plus(AHEAD_MAX).0));
        select.and_where(due).order_by("not_before", Order::Asc).order_by("key", Order::Asc).limit(limit);
        let rows = self.reader().query_all(&select).await?;
        rows.iter().map(|row| due_mark(MarkRow::from_query_result(row, "")?)).collect()
    }

    /// When the next mark of a resource is due; may lie in the past.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn next_due(&self, source: &SourceName, resource: &ResourceName) -> Result<Option<Timestamp>, Error> {
        let mut select = Query::select();
        let now = self.now();
        let ahead = Expr::case(Expr::col("not_before").gt(now.plus(AHEAD_MAX).0), now.0).finally(Expr::col("not_before"));
        select.expr_as(Func::min(ahead), "at").from("instep_mark").and_where(of_resource(source, resource));
        let row = self.reader().query_one(&select).await?;
        let at: Option<i64> = row.map(|row| row.try_get("", "at")).transpose()?.flatten();
        Ok(at.map(Timestamp))
    }

    /// Dates marks anew after the wall clock was set: all of them, or only those whose hint lies ahead of it. They are then due, and
    /// no read that was issued before clears them; returns how many there were.
    ///
    /// # Errors
    /// [`Kind::Fenced`], [`Kind::Unavailable`].
    pub async fn redate_marks(&self, fence: &Fence, resource: &ResourceName, all: bool) -> Result<u64, Error> {
        let mut select = Query::select();
        select.column("key").from("instep_mark").and_where(of_resource(fence.source(), resource));
        if !all {
            select.and_where(Expr::col("last_hint_at").gt(self.now().plus(HINT_AHEAD_MAX).0));
        }
        let keys = self.keys(&select).await?;
        let entities: Vec<Entity> = keys.into_iter().map(|key| Entity { resource: resource.clone(), key }).collect();
        self.mark_entities(fence, &entities, MarkReason::Refresh).await?;
        Ok(u64::try_from(entities.len()).unwrap_or(0))
    }

    /// After a read that failed: counts the attempt and looks again at `not_before`.
    ///
    /// # Errors
    /// [`Kind::Fenced`], [`Kind::Unavailable`].
    pub async fn defer_marks(
        &self,
        fence: &Fence,
        resource: &ResourceName,
        keys: &[Key],
        not_before: Timestamp,
        note: &str,
    ) -> Result<(), Error> {
        let values = [("not_before", not_before.0.into()), ("note", clean(note).into())];
        self.run(|| self.touch_marks(fence, resource, keys, &values, 1, Condition::all())).await
    }

    /// A removal that cannot be believed now: the mark is held, and looked at again at `not_before`.
    ///
    /// # Errors
    /// [`Kind::Fenced`], [`Kind::Unavailable`].
    pub async fn hold_marks(
        &self,
        fence: &Fence,
        resource: &ResourceName,
        keys: &[Key],
        not_before: Timestamp,
        note: &str,
    ) -> Result<(), Error> {
        let values = [("not_before", not_before.0.into()), ("note", clean(note).into()), ("held", true.into())];
        self.run(|| self.touch_marks(fence, resource, keys, &values, 0, Condition::all())).await
    }

    /// A removal that the budget does not allow, unless somebody has announced or approved it since it was weighed.
    ///
    /// # Errors
    /// [`Kind::Fenced`], [`Kind::Unavailable`].
    pub async fn hold_over_budget(&self, fence: &Fence, resource: &ResourceName, keys: &[Key], not_before: Timestamp) -> Result<(), Error> {
        let values = [("not_before", not_before.0.into()), ("note", OVER_BUDGET.into()), ("held", true.into())];
        let unannounced = Condition::all().add(Expr::col("announced_delete").not());
        self.run(|| self.touch_marks(fence, resource, keys, &values, 0, unannounced.clone())).await
    }

    async fn touch_marks(
        &self,
        fence: &Fence,
        resource: &ResourceName,
        keys: &[Key],
        values: &[(&'static str, Value)],
        attempts: i64,
        only: Condition,
    ) -> Result<(), Error> {
        let tx = self.begin(Lane::Work, "touch_marks").await?;
        fence.lock(&tx).await?;
        for group in keys.chunks(200) {
            let mut update = Query::update();
            update.table("instep_mark").value("attempts", Expr::col("attempts").add(attempts));
            update.values(values.iter().map(|(column, value)| (*column, Expr::val(value.clone()))));
            update.and_where(of_resource(fence.source(), resource));
            update.and_where(Expr::col("key").is_in(padded(group.iter().map(Key::as_str))));
            update.cond_where(only.clone());
            tx.db.execute(&update).await?;
        }
        tx.commit().await
    }

    /// Marks entities from outside a batch, at most 200 a transaction.
    ///
    /// # Errors
    /// [`Kind::Fenced`], [`Kind::Unavailable`].
    pub async fn mark_entities(&self, fence: &Fence, entities: &[Entity], reason: MarkReason) -> Result<(), Error> {
        let mut sorted = entities.to_vec();
        sorted.sort();
        sorted.dedup();
        for part in sorted.chunks(200) {
            self.run(|| self.mark_once(fence, part, reason, self.now())).await?;
        }
        Ok(())
    }

    /// Marks records that somebody waits for: they are due at once. Nobody said that they changed, so the next read of them is enough;
    /// an open mark keeps its hints.
    ///
    /// # Errors
    /// [`Kind::Fenced`], [`Kind::Unavailable`].
    pub async fn want(&self, fence: &Fence, resource: &ResourceName, keys: &[Key]) -> Result<(), Error> {
        let entities: Vec<_> = keys.iter().map(|key| Entity { resource: resource.clone(), key: key.clone() }).collect();
        self.run(|| self.mark_once(fence, &entities, MarkReason::Refresh, NO_HINT)).await
    }

    /// The marks of these records, due or not.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn marks_of(&self, source: &SourceName, resource: &ResourceName, keys: &[Key]) -> Result<Vec<DueMark>, Error> {
        let mut select = Query::select();
        select.columns(MARK_COLUMNS).from("instep_mark").and_where(of_resource(source, resource));
        select.and_where(Expr::col("key").is_in(padded(keys.iter().map(Key::as_str))));
        let rows = self.reader().query_all(&select).await?;
        rows.iter().map(|row| due_mark(MarkRow::from_query_result(row, "")?)).collect()
    }

    async fn mark_once(&self, fence: &Fence, entities: &[Entity], reason: MarkReason, hint_at: Timestamp) -> Result<(), Error> {
        let tx = self.begin(Lane::Work, "set_marks").await?;
        fence.lock(&tx).await?;
        renew(&tx, fence, entities, reason, (hint_at, self.now())).await?;
        tx.commit().await
    }

    /// How many marks are open, and how many of them are held.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn count_marks(&self, source: &SourceName, resource: &ResourceName) -> Result<(u64, u64), Error> {
        let count = |condition: Condition| {
            let mut select = Query::select();
            select.expr_as(Func::count(Expr::cust("*")), "n").from("instep_mark").and_where(of_resource(source, resource));
            select.cond_where(condition).take()
        };
        let all = self.count(&count(Condition::all())).await?;
        let held = self.count(&count(Condition::all().add(Expr::col("held")))).await?;
        Ok((all, held))
    }

    /// Runs a `select count(*) as n`.
    pub(crate) async fn count(&self, select: &SelectStatement) -> Result<u64, Error> {
        let row = self.reader().query_one(select).await?;
        let n: i64 = row.map(|row| row.try_get("", "n")).transpose()?.unwrap_or(0);
        Ok(u64::try_from(n).unwrap_or(0))
    }
}

/// Marks entities within a transaction.
pub(crate) async fn renew(
    tx: &Tx<'_>,
    fence: &Fence,
    entities: &[Entity],
    reason: MarkReason,
    (hint_at, now): (Timestamp, Timestamp),
) -> Result<(), Error> {
    let fresh = |entity: &Entity| Fresh { entity: entity.clone(), announced_delete: false, not_before: now.0 };
    let fresh: Vec<Fresh> = entities.iter().map(fresh).collect();
    // An open mark keeps its hints; it is renewed, and due at once.
    let mut renewed = OnConflict::columns(["source", "resource", "key"]);
    match hint_at {
        NO_HINT => renewed.update_column("not_before"),
        _ => renewed.update_columns(["versionless", "last_hint_at", "tick_epoch", "tick_counter", "not_before", "attempts"]),
    };
    renewed.value("missing_since", Expr::cust("coalesce(instep_mark.missing_since, excluded.missing_since)"));
    insert(tx, fence, &fresh, reason, hint_at, &renewed).await
}

/// A mark from outside a batch.
pub(crate) struct Fresh {
    pub(crate) entity: Entity,
    pub(crate) announced_delete: bool,
    pub(crate) not_before: i64,
}

/// Sets marks that only time clears; `renewed` says what becomes of those that are open.
pub(crate) async fn insert(
    tx: &Tx<'_>,
    fence: &Fence,
    marks: &[Fresh],
    reason: MarkReason,
    now: Timestamp,
    renewed: &OnConflict,
) -> Result<(), Error> {
    let tick = fence.tick();
    let missing: Option<i64> = (reason == MarkReason::Suspect).then_some(now.0);
    for group in groups(marks) {
        let mut insert = Query::insert();
        insert.into_table("instep_mark").columns([
            "source",
            "resource",
            "key",
            "reason",
            "versionless",
            "announced_delete",
            "last_hint_at",
            "tick_epoch",
            "tick_counter",
            "attempts",
            "not_before",
            "missing_since",
            "confirm",
            "held",
        ]);
        for mark in group {
            let values: [Value; 14] = [
                fence.source().as_str().into(),
                mark.entity.resource.as_str().into(),
                mark.entity.key.as_str().into(),
                reason.as_str().into(),
                true.into(),
                mark.announced_delete.into(),
                now.0.into(),
                tick.epoch.into(),
                tick.counter.into(),
                0_i64.into(),
                mark.not_before.into(),
                missing.into(),
                false.into(),
                false.into(),
            ];
            insert.values_panic(values.into_iter().map(Expr::val));
        }
        insert.on_conflict(renewed.clone());
        tx.db.execute(&insert).await?;
    }
    Ok(())
}

fn due_mark(row: MarkRow) -> Result<DueMark, Error> {
    let mark = row.mark();
    Ok(DueMark {
        key: Key::new(&row.key).map_err(|_| Error::new(Kind::Bug, "a stored key is no key"))?,
        attempts: u32::try_from(row.attempts).unwrap_or(u32::MAX),
        by_key: row.confirm || mark.agreeing.is_some(),
        cascade: row.reason == MarkReason::Cascade.as_str(),
        missing_since: row.missing_since.map(Timestamp),
        held: row.held,
        not_before: Timestamp(row.not_before),
        mark,
    })
}
