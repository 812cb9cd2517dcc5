//! What stands above a record changed or went: its children are looked at, a page at a time.
//!
//! Upstreams tell of a parent alone: deleting a product model removes its variants without a word of them, and changing it changes
//! what they inherit. So the transaction that changes or removes a row notes a *cascade* for every resource whose rows stand below
//! it ([`note`]), and the sync actor of that resource works cascades off in bounded transactions ([`Store::walk_cascades`]), each
//! of which sets marks on the next children in the order of their keys and moves the cascade's `done_to`. A crash anywhere repeats
//! nothing but that page.
//!
//! - A *removed* parent is one witness of its children's absence; whether that counts as announced is the parent's own. Children are
//!   never removed with it: they may have moved, and the event that said so may be lost. Only direct children are marked; theirs are
//!   when they go themselves.
//! - A *changed* parent reaches only resources that inherit from it ([`crate::connectors::ResourceSpec::inherits`]). It marks
//!   descendants, not only children: what is inherited reaches a grandchild through a record that does not change itself. So a page
//!   also notes a cascade for each child that has children, one deeper, down to [`DEPTH_MAX`], where a cycle of garbage ends.
//! - A parent that *appears* has not changed as far as anybody knows. It reaches the children that were read before it, and not those
//!   that the same answer held: else whoever lists both for the first time would read every child twice.
//! - Cascades of one parent coalesce. One that is met while it is under way goes round once more after its end (`again_depth`),
//!   behind the others, so that a parent that changes without end starves nobody.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::sea_query::{Expr, ExprTrait, Func, OnConflict, Order, Query};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};

use crate::clock::Timestamp;
use crate::failpoint;
use crate::model::{Entity, Key, ResourceName, SourceName, Tick};
use crate::store::apply::rested;
use crate::store::connect::{Lane, Store, Tx};
use crate::store::error::{Error, Kind};
use crate::store::fence::Fence;
use crate::store::marks::{self, Fresh, MarkReason};
use crate::store::sql::{groups, of_resource, padded};

/// Levels below a changed record that are looked at. Real trees have two or three.
const DEPTH_MAX: i64 = 8;
/// Children marked in one transaction, which also notes the cascades of those that have children themselves.
pub(crate) const CHILDREN_A_STEP: usize = 100;
/// Cascades begun in one transaction.
const CASCADES_A_STEP: u64 = 20;

/// Why the children of a record are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It was held for the first time, by a read with this tick.
    Appeared(Tick),
    /// Another state of it was applied.
    Changed,
    /// It was removed.
    Removed {
        /// An event had announced that.
        announced: bool,
    },
}

impl Cause {
    /// Both at once: whoever was removed in between may have taken its children with it.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Removed { announced: a }, Self::Removed { announced: b }) => Self::Removed { announced: a || b },
            (removed @ Self::Removed { .. }, _) | (_, removed @ Self::Removed { .. }) => removed,
            _ => Self::Changed,
        }
    }

    /// Whether it is there no more.
    pub(crate) fn removed(self) -> bool {
        matches!(self, Self::Removed { .. })
    }

    /// The tick of the answer that showed it for the first time.
    fn appeared(self) -> Option<Tick> {
        if let Self::Appeared(tick) = self { Some(tick) } else { None }
    }

    fn announced(self) -> bool {
        self == Self::Removed { announced: true }
    }
}

/// What one step over the cascades did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Children marked.
    pub marked: usize,
    /// There are more.
    pub more: bool,
    /// Resources below that have cascades of their own now.
    pub below: BTreeSet<ResourceName>,
}

/// A cascade as stored.
#[derive(Debug, FromQueryResult)]
struct Cascade {
    parent: String,
    removed: bool,
    announced: bool,
    depth: i64,
    done_to: Option<String>,
    again_depth: Option<i64>,
}

/// Notes in a transaction that the children of these records, in these resources, are to be looked at; returns the resources that
/// have such children.
pub(crate) async fn note<'a>(
    tx: &Tx<'_>,
    fence: &Fence,
    resources: impl Iterator<Item = &'a ResourceName>,
    causes: &[(&str, Cause)],
    depth: i64,
) -> Result<BTreeSet<ResourceName>, Error> {
    let mut noted = BTreeSet::new();
    if causes.is_empty() || depth >= DEPTH_MAX {
        return Ok(noted);
    }
    let tick = fence.tick();
    for resource in resources {
        let parents = parents(tx, fence, resource, causes).await?;
        let due: Vec<_> = causes.iter().filter(|(key, _)| parents.contains(*key)).collect();
        for group in groups(&due) {
            let mut insert = Query::insert();
            insert.into_table("instep_cascade");
            insert.columns(["source", "resource", "parent", "removed", "announced", "depth", "tick_epoch", "tick_counter"]);
            for (key, cause) in group {
                let values: [Value; 8] = [
                    fence.source().as_str().into(),
                    resource.as_str().into(),
                    (*key).into(),
                    cause.removed().into(),
                    cause.announced().into(),
                    depth.into(),
                    tick.epoch.into(),
                    tick.counter.into(),
                ];
                insert.values_panic(values.into_iter().map(Expr::val));
            }
            insert.on_conflict(met_again());
            tx.db.execute(&insert).await?;
            noted.insert(resource.clone());
        }
    }
    Ok(noted)
}

/// Those of the records that have children to be looked at.
async fn parents(tx: &Tx<'_>, fence: &Fence, resource: &ResourceName, causes: &[(&str, Cause)]) -> Result<BTreeSet<String>, Error> {
    let mut by_tick: BTreeMap<Option<Tick>, Vec<&str>> = BTreeMap::new();
    for (key, cause) in causes {
        by_tick.entry(cause.appeared()).or_default().push(key);
    }
    let mut parents = BTreeSet::new();
    for (tick, keys) in by_tick {
        let mut select = Query::select();
        select.distinct().column("parent").from("instep_entity").and_where(live_below(fence, resource));
        select.and_where(Expr::col("parent").is_in(padded(keys)));
        if let Some(Tick { epoch, counter }) = tick {
            select.and_where(Expr::col("tick_epoch").ne(epoch).or(Expr::col("tick_counter").ne(counter)));
        }
        for row in tx.db.query_all(&select).await? {
            parents.insert(row.try_get("", "parent")?);
        }
    }
    Ok(parents)
}

/// A cascade keeps its turn. What was marked already under a smaller statement is marked again after its end.
fn met_again() -> OnConflict {
    let mut conflict = OnConflict::columns(["source", "resource", "parent"]);
    for flag in ["removed", "announced"] {
        conflict.value(flag, Expr::cust(format!("instep_cascade.{flag} or excluded.{flag}")));
    }
    conflict.value(
        "depth",
        Expr::cust(
            "case when instep_cascade.done_to is null and instep_cascade.depth > excluded.depth then excluded.depth \
             else instep_cascade.depth end",
        ),
    );
    conflict.value(
        "again_depth",
        Expr::cust(
            "case when instep_cascade.done_to is null then null when instep_cascade.again_depth < excluded.depth \
             then instep_cascade.again_depth else excluded.depth end",
        ),
    );
    conflict
}

fn live_below(fence: &Fence, resource: &ResourceName) -> Expr {
    of_resource(fence.source(), resource).and(Expr::cust("deleted_at is null and parent is not null"))
}

impl Store {
    /// Marks the next children of a resource whose parents changed or went, in one bounded transaction. `below` are the resources
    /// whose rows stand below the resource's and inherit from them.
    ///
    /// # Errors
    /// [`Kind::Fenced`], [`Kind::Unavailable`].
    pub async fn walk_cascades(&self, fence: &Fence, resource: &ResourceName, below: &[ResourceName]) -> Result<Walked, Error> {
        let mut any = Query::select();
        any.expr(Expr::val(1_i64)).from("instep_cascade").and_where(of_resource(fence.source(), resource)).limit(1);
        if self.reader().query_one(&any).await?.is_none() {
            return Ok(Walked::default());
        }
        self.run(|| self.walk_once(fence, resource, below)).await
    }

    /// How many cascades of a resource are to be worked off.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn count_cascades(&self, source: &SourceName, resource: &ResourceName) -> Result<u64, Error> {
        let mut select = Query::select();
        select.expr_as(Func::count(Expr::cust("*")), "n").from("instep_cascade").and_where(of_resource(source, resource));
        self.count(&select).await
    }

    async fn walk_once(&self, fence: &Fence, resource: &ResourceName, below: &[ResourceName]) -> Result<Walked, Error> {
        let tx = self.begin(Lane::Work, "cascade").await?;
        fence.lock(&tx).await?;
        let now = self.now();
        let mut select = Query::select();
        select.columns(["parent", "removed", "announced", "depth", "done_to", "again_depth"]).from("instep_cascade");
        select.and_where(of_resource(fence.source(), resource));
        select.order_by("tick_epoch", Order::Asc).order_by("tick_counter", Order::Asc).order_by("parent", Order::Asc);
        let rows = tx.db.query_all(select.limit(CASCADES_A_STEP)).await?;
        let mut walked = Walked { more: rows.len() as u64 == CASCADES_A_STEP, ..Walked::default() };
        // Both kinds of a child that two parents name in one step cannot be: a row has one parent.
        let mut fresh: BTreeMap<bool, Vec<Fresh>> = BTreeMap::new();
        for row in rows {
            let cascade = Cascade::from_query_result(&row, "")?;
            let left = CHILDREN_A_STEP - walked.marked;
            if left == 0 {
                walked.more = true;
                break;
            }
            let children = children(&tx, fence, resource, &cascade, left, now).await?;
            let last = children.last().map(|child| child.entity.key.clone()).filter(|_| children.len() == left);
            walked.more |= last.is_some() || cascade.again_depth.is_some();
            if !cascade.removed {
                let causes: Vec<_> = children.iter().map(|child| (child.entity.key.as_str(), Cause::Changed)).collect();
                walked.below.extend(note(&tx, fence, below.iter(), &causes, cascade.depth + 1).await?);
            }
            walked.marked += children.len();
            fresh.entry(cascade.removed).or_default().extend(children);
            step(&tx, fence, resource, &cascade, last.as_ref()).await?;
        }
        for (removed, marks) in &fresh {
            let reason = if *removed { MarkReason::Cascade } else { MarkReason::Parent };
            marks::insert(&tx, fence, marks, reason, now, &renewed()).await?;
        }
        failpoint::reach("cascade", "marks_written").await?;
        tx.commit().await?;
        Ok(walked)
    }
}

/// The next live children of a cascade's parent; each rests first if it was looked at just now.
async fn children(
    tx: &Tx<'_>,
    fence: &Fence,
    resource: &ResourceName,
    cascade: &Cascade,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<Fresh>, Error> {
    let mut select = Query::select();
    select.columns(["key", "looked_at", "hot_ms"]).from("instep_entity").and_where(live_below(fence, resource));
    select.and_where(Expr::col("parent").eq(cascade.parent.as_str()));
    if let Some(done_to) = &cascade.done_to {
        select.and_where(Expr::col("key").gt(done_to.as_str()));
    }
    select.order_by("key", Order::Asc).limit(limit as u64);
    let mut children = Vec::new();
    for row in tx.db.query_all(&select).await? {
        let key = Key::new(row.try_get::<String>("", "key")?).map_err(|_| Error::new(Kind::Bug, "a stored key is no key"))?;
        let not_before = rested(row.try_get("", "looked_at")?, row.try_get("", "hot_ms")?, now, now);
        let entity = Entity { resource: resource.clone(), key };
        children.push(Fresh { entity, announced_delete: cascade.removed && cascade.announced, not_before });
    }
    Ok(children)
}

/// Moves a cascade to `last`; one that has no more children goes, or goes round once more behind the others.
async fn step(tx: &Tx<'_>, fence: &Fence, resource: &ResourceName, cascade: &Cascade, last: Option<&Key>) -> Result<(), Error> {
    let of_cascade = of_resource(fence.source(), resource).and(Expr::col("parent").eq(cascade.parent.as_str()));
    let mut update = Query::update();
    update.table("instep_cascade").and_where(of_cascade.clone());
    match (last, cascade.again_depth) {
        (Some(last), _) => {
            update.value("done_to", last.as_str());
        }
        (None, Some(depth)) => {
            let tick = fence.tick();
            update.value("done_to", Option::<String>::None).value("again_depth", Option::<i64>::None).value("depth", depth);
            update.value("tick_epoch", tick.epoch).value("tick_counter", tick.counter);
        }
        (None, None) => {
            let mut delete = Query::delete();
            tx.db.execute(delete.from_table("instep_cascade").and_where(of_cascade)).await?;
            return Ok(());
        }
    }
    tx.db.execute(&update).await?;
    Ok(())
}

/// An open mark keeps its hints. One that fails keeps its backoff, and any is due no later than it was.
fn renewed() -> OnConflict {
    let mut conflict = OnConflict::columns(["source", "resource", "key"]);
    conflict.update_columns(["versionless", "last_hint_at", "tick_epoch", "tick_counter"]);
    conflict.value("announced_delete", Expr::cust("instep_mark.announced_delete or excluded.announced_delete"));
    conflict.value("reason", Expr::cust("case when excluded.reason = 'cascade' then excluded.reason else instep_mark.reason end"));
    conflict.value(
        "not_before",
        Expr::cust(
            "case when instep_mark.attempts > 0 or instep_mark.not_before < excluded.not_before then instep_mark.not_before \
             else excluded.not_before end",
        ),
    );
    conflict
}
