//! Removals that wait for the budget or for a person, and what the person decides.

use std::collections::{HashMap, HashSet};

use sea_orm::ConnectionTrait;
use sea_orm::sea_query::{Alias, Expr, ExprTrait, Func, Order, Query, SelectStatement};

use crate::clock::Timestamp;
use crate::model::{Key, ResourceName, SourceName};
use crate::store::connect::{Lane, Store};
use crate::store::error::Error;
use crate::store::fence::Fence;
use crate::store::marks::OVER_BUDGET;
use crate::store::removals::{self, read_keys};
use crate::store::sql::{of_resource, of_source, padded};

/// Keys of which so many are shown.
const SAMPLE: u64 = 5;
/// Marks decided over in one transaction.
const CHUNK: u64 = 200;
/// The note of a mark whose removal a person has approved.
const APPROVED: &str = "its removal was approved";

/// Removals of a resource that are held for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Of which resource.
    pub resource: ResourceName,
    /// Why.
    pub why: String,
    /// The budget is spent: a person may decide.
    pub by_budget: bool,
    /// How many.
    pub keys: u64,
    /// The first of them.
    pub sample: Vec<Key>,
    /// When the first of them was missed first.
    pub missing_since: Option<Timestamp>,
    /// When the next of them is looked at again.
    pub next: Timestamp,
}

/// What has become of removals that were approved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// No read found them.
    pub removed: Vec<Key>,
    /// A read has shown them.
    pub kept: Vec<Key>,
    /// They were not read yet, or what the read said could not be believed yet.
    pub waiting: Vec<Key>,
    /// Why one of these waits, where that was said.
    pub why: Option<String>,
}

impl Store {
    /// The removals of a source that are held, by resource and reason.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn held(&self, source: &SourceName) -> Result<Vec<Held>, Error> {
        let mut select = Query::select();
        select.columns(["resource", "note"]).expr_as(Func::count(Expr::cust("*")), Alias::new("n"));
        select.expr_as(Func::min(Expr::col("missing_since")), Alias::new("missing"));
        select.expr_as(Func::min(Expr::col("not_before")), Alias::new("next"));
        select.from("instep_mark").and_where(of_source(source)).and_where(Expr::col("held"));
        select.group_by_columns(["resource", "note"]).order_by("resource", Order::Asc);
        let mut found = Vec::new();
        for row in self.reader().query_all(&select).await? {
            let note: Option<String> = row.try_get("", "note")?;
            let Ok(resource) = ResourceName::new(row.try_get::<String>("", "resource")?) else { continue };
            let mut sample = Query::select();
            sample.column("key").from("instep_mark").and_where(of_resource(source, &resource)).and_where(Expr::col("held"));
            sample.and_where(crate::store::passes::is_or_null("note", note.as_deref())).order_by("key", Order::Asc).limit(SAMPLE);
            found.push(Held {
                sample: self.keys(&sample).await?,
                resource,
                by_budget: note.as_deref() == Some(OVER_BUDGET),
                why: note.unwrap_or_default(),
                keys: u64::try_from(row.try_get::<i64>("", "n")?).unwrap_or(0),
                missing_since: row.try_get::<Option<i64>>("", "missing")?.map(Timestamp),
                next: Timestamp(row.try_get("", "next")?),
            });
        }
        Ok(found)
    }

    /// A person announces removals of a resource that the budget does not allow, about `most` of them: each key is read alone once more, at
    /// once, and what is then not found goes. Returns which; none: none is held by the budget any more.
    ///
    /// # Errors
    /// [`crate::store::Kind::Fenced`], [`crate::store::Kind::Unavailable`]: some of them may be approved.
    pub async fn approve_removals(&self, fence: &Fence, resource: &ResourceName, most: usize) -> Result<Vec<Key>, Error> {
        let mut approved = Vec::new();
        while approved.len() < most {
            let keys = self.keys(&over_budget(fence.source(), resource)).await?;
            if keys.is_empty() {
                break;
            }
            approved.extend(self.run(|| self.approve_once(fence, resource, &keys)).await?);
        }
        Ok(approved)
    }

    async fn approve_once(&self, fence: &Fence, resource: &ResourceName, keys: &[Key]) -> Result<Vec<Key>, Error> {
        let tx = self.begin(Lane::Work, "approve_removals").await?;
        fence.lock(&tx).await?;
        let is_meant = of_resource(fence.source(), resource).and(still_held(keys));
        let mut select = Query::select();
        select.column("key").from("instep_mark").and_where(is_meant.clone()).order_by("key", Order::Asc);
        let approved = read_keys(&tx.db.query_all(&select).await?)?;
        let mut update = Query::update();
        update.table("instep_mark").value("announced_delete", true).value("held", false).value("confirm", true);
        update.value("not_before", self.now().0).value("attempts", 0_i64).value("note", APPROVED).and_where(is_meant);
        tx.db.execute(&update).await?;
        tx.commit().await?;
        Ok(approved)
    }

    /// What has become of removals that were approved.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn fates(&self, source: &SourceName, resource: &ResourceName, keys: &[Key]) -> Result<Fates, Error> {
        let mut fates = Fates::default();
        for keys in keys.chunks(CHUNK as usize) {
            let is_one = of_resource(source, resource).and(Expr::col("key").is_in(padded(keys.iter().map(Key::as_str))));
            // Marks first: what is done between the two questions has removed its mark with its row, and is seen as it ended.
            let mut marks = Query::select();
            marks.columns(["key", "note"]).from("instep_mark").and_where(is_one.clone());
            let mut marked: HashMap<Key, Option<String>> = HashMap::new();
            let rows = self.reader().query_all(&marks).await?;
            for (key, row) in read_keys(&rows)?.into_iter().zip(&rows) {
                marked.insert(key, row.try_get("", "note")?);
            }
            let mut live = removals::live(source, resource);
            live.column("key").and_where(is_one);
            let live: HashSet<Key> = self.keys(&live).await?.into_iter().collect();
            for key in keys {
                match marked.remove(key) {
                    _ if !live.contains(key) => fates.removed.push(key.clone()),
                    None => fates.kept.push(key.clone()),
                    Some(note) => {
                        fates.why = fates.why.or(note.filter(|note| note != APPROVED));
                        fates.waiting.push(key.clone());
                    }
                }
            }
        }
        Ok(fates)
    }

    /// A person keeps the rows of a resource whose removal the budget does not allow: their marks go. A later sweep that does not meet
    /// them suspects them again. Returns how many.
    ///
    /// # Errors
    /// [`crate::store::Kind::Fenced`], [`crate::store::Kind::Unavailable`]: some of them may be rejected.
    pub async fn reject_removals(&self, fence: &Fence, resource: &ResourceName) -> Result<u64, Error> {
        let mut n = 0;
        loop {
            let keys = self.keys(&over_budget(fence.source(), resource)).await?;
            if keys.is_empty() {
                return Ok(n);
            }
            n += self.run(|| self.reject_once(fence, resource, &keys)).await?;
        }
    }

    async fn reject_once(&self, fence: &Fence, resource: &ResourceName, keys: &[Key]) -> Result<u64, Error> {
        let tx = self.begin(Lane::Work, "reject_removals").await?;
        fence.lock(&tx).await?;
        let mut delete = Query::delete();
        delete.from_table("instep_mark").and_where(of_resource(fence.source(), resource)).and_where(still_held(keys));
        let n = tx.db.execute(&delete).await?.rows_affected();
        tx.commit().await?;
        Ok(n)
    }
}

fn over_budget(source: &SourceName, resource: &ResourceName) -> SelectStatement {
    let mut select = Query::select();
    select.column("key").from("instep_mark").and_where(of_resource(source, resource)).and_where(Expr::col("held"));
    select.and_where(Expr::col("note").eq(OVER_BUDGET)).order_by("key", Order::Asc).limit(CHUNK);
    select
}

/// Those of these keys about which nothing was said since they were chosen.
fn still_held(keys: &[Key]) -> Expr {
    let is_one = Expr::col("key").is_in(padded(keys.iter().map(Key::as_str)));
    is_one.and(Expr::col("held")).and(Expr::col("note").eq(OVER_BUDGET))
}
