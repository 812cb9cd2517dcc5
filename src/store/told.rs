//! Changes, each with who told of it: by this lost webhooks are noticed and delays are measured ([`crate::reconcile::Told`]).
//!
//! Nothing is remembered between two looks: what was said of a record stands in the log of events, by entity.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use sea_orm::sea_query::{Expr, ExprTrait, Order, Query};
use sea_orm::{ConnectionTrait, FromQueryResult};

use crate::clock::Timestamp;
use crate::model::{Entity, Key, Operation, ResourceName, SourceName};
use crate::reconcile::{Learned, Statements, Terms, Told};
use crate::store::apply::LearnedBy;
use crate::store::connect::Store;
use crate::store::error::Error;
use crate::store::sql::{RECEIVED_AT, of_resource, of_source, padded};

/// Changes read at once.
const PAGE: u64 = 1_000;
/// Statements read at once; where more were made about the records of a page, each half of it is looked at apart. Of one record so many
/// are looked at, the first.
const STATEMENTS_MAX: u64 = 20_000;
/// Statements of a resource among which a delivery's is looked for: they have no index by way.
const RECALLED_MAX: u64 = 100_000;
/// A delivery is worked in so long after it was received, at most; later ones are not seen.
const WORKED_WITHIN: Duration = Duration::from_secs(3_600);

/// An effective change of a record, as the replica learned it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its number.
    pub number: i64,
    /// Of which record.
    pub record: Entity,
    /// What it did.
    pub operation: Operation,
    /// When and how it was learned.
    pub learned: Learned,
}

#[derive(FromQueryResult)]
struct ChangeRow {
    number: i64,
    at: i64,
    resource: String,
    key: String,
    operation: String,
    learned_by: String,
    upstream_at: Option<i64>,
}

impl ChangeRow {
    fn change(self) -> Option<Change> {
        let record = Entity { resource: ResourceName::new(&self.resource).ok()?, key: Key::new(&self.key).ok()? };
        let operation = match self.operation.as_str() {
            "insert" | "revive" => Operation::Create,
            "delete" => Operation::Delete,
            _ => Operation::Update,
        };
        let learned = Learned { at: Timestamp(self.at), stamp: self.upstream_at.map(Timestamp), by: self.learned_by };
        Some(Change { number: self.number, record, operation, learned })
    }
}

#[derive(FromQueryResult)]
struct StatementRow {
    key: String,
    via: String,
    at: i64,
}

impl Store {
    /// The number of the last change that was learned up to an instant; 0 without one.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn last_change_until(&self, source: &SourceName, until: Timestamp) -> Result<i64, Error> {
        let mut select = Query::select();
        select.column("number").from("instep_change").and_where(of_source(source)).and_where(Expr::col("at").lte(until.0));
        select.order_by("at", Order::Desc).order_by("number", Order::Desc).limit(1);
        Ok(self.reader().query_one(&select).await?.map(|row| row.try_get("", "number")).transpose()?.unwrap_or(0))
    }

    /// A page of the changes above a number that were learned up to an instant, in the order of their numbers; empty: there are no more.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn changes_until(&self, source: &SourceName, above: i64, until: Timestamp) -> Result<Vec<Change>, Error> {
        let mut select = Query::select();
        select.columns(["number", "at", "resource", "key", "operation", "learned_by", "upstream_at"]).from("instep_change");
        select.and_where(of_source(source)).and_where(Expr::col("number").gt(above)).and_where(Expr::col("at").lte(until.0));
        select.order_by("number", Order::Asc).limit(PAGE);
        let rows = self.reader().query_all(&select).await?;
        let mut changes = Vec::with_capacity(rows.len());
        for row in rows {
            changes.extend(ChangeRow::from_query_result(&row, "")?.change());
        }
        Ok(changes)
    }

    /// Each of these changes and who told of it.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn who_told(&self, source: &SourceName, changes: Vec<Change>, terms: &Terms) -> Result<Vec<(Change, Told)>, Error> {
        let mut by_resource: BTreeMap<ResourceName, Vec<Change>> = BTreeMap::new();
        for change in changes {
            by_resource.entry(change.record.resource.clone()).or_default().push(change);
        }
        let (mut parts, mut told): (Vec<Vec<Change>>, Vec<(Change, Told)>) = (by_resource.into_values().collect(), Vec::new());
        while let Some(mut part) = parts.pop() {
            let (said, is_full) = self.said(source, &part, terms).await?;
            if is_full && part.len() > 1 {
                parts.push(part.split_off(part.len() / 2));
                parts.push(part);
                continue;
            }
            let nothing = Statements::new();
            told.extend(part.into_iter().map(|change| {
                let said = said.get(change.record.key.as_str()).unwrap_or(&nothing);
                let told = Told::by(change.learned.clone(), said, terms);
                (change, told)
            }));
        }
        told.sort_unstable_by_key(|(change, _)| change.number);
        Ok(told)
    }

    /// What was said of the records of these changes of one resource, by key, and whether there was more than is read at once.
    async fn said(&self, source: &SourceName, changes: &[Change], terms: &Terms) -> Result<(HashMap<String, Statements>, bool), Error> {
        let mut keys: Vec<&str> = changes.iter().map(|change| change.record.key.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        let spans = || changes.iter().map(|change| terms.span(&change.learned));
        let (Some(first), Some(from), Some(until)) =
            (changes.first(), spans().map(|(from, _)| from).min(), spans().map(|(_, until)| until).max())
        else {
            return Ok((HashMap::new(), false));
        };
        let mut select = Query::select();
        select.columns(["key", "via"]).expr_as(Expr::cust(format!("coalesce({RECEIVED_AT}, received_at)")), "at").from("instep_outcome");
        select.and_where(of_resource(source, &first.record.resource)).and_where(Expr::col("key").is_in(padded(keys)));
        select.and_where(Expr::col("received_at").between(from.0, until.plus(WORKED_WITHIN).0));
        select.order_by("received_at", Order::Asc).limit(STATEMENTS_MAX);
        let rows = self.reader().query_all(&select).await?;
        let is_full = rows.len() as u64 == STATEMENTS_MAX;
        let mut said: HashMap<String, Statements> = HashMap::new();
        for row in rows {
            let row = StatementRow::from_query_result(&row, "")?;
            said.entry(row.key).or_default().entry(row.via).or_default().push(Timestamp(row.at));
        }
        said.values_mut().flat_map(BTreeMap::values_mut).for_each(|instants| instants.sort_unstable());
        Ok((said, is_full))
    }

    /// Walks the changes applied from `from` until `until`, each with its resource and who told of it.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn walk_told(
        &self,
        source: &SourceName,
        (from, until): (Timestamp, Timestamp),
        terms: &Terms,
        mut each: impl FnMut(&ResourceName, Told),
    ) -> Result<(), Error> {
        let before = Duration::from_micros(1);
        let mut above = self.last_change_until(source, from.minus(before)).await?;
        loop {
            let changes = self.changes_until(source, above, until.minus(before)).await?;
            let Some(last) = changes.last() else { return Ok(()) };
            above = last.number;
            self.who_told(source, changes, terms).await?.into_iter().for_each(|(change, told)| each(&change.record.resource, told));
        }
    }

    /// Whether a delivery ever spoke of a record of a resource, as far as statements are kept; of very many, the first keys' are looked at.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn was_told(&self, source: &SourceName, resource: &ResourceName) -> Result<bool, Error> {
        let mut some = Query::select();
        some.column("via").from("instep_outcome").and_where(of_resource(source, resource)).limit(RECALLED_MAX);
        let mut select = Query::select();
        select.column("via").from_subquery(some, "some").and_where(Expr::col("via").ne(LearnedBy::Feed.as_str())).limit(1);
        Ok(self.reader().query_one(&select).await?.is_some())
    }

    /// From when on every statement is kept; `None`: none was ever forgotten.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn statements_since(&self) -> Result<Option<Timestamp>, Error> {
        let mut select = Query::select();
        select.columns(["id", "received_at"]).from("instep_outcome").order_by("id", Order::Asc).limit(1);
        let Some(row) = self.reader().query_one(&select).await? else { return Ok(None) };
        let (id, at): (i64, i64) = (row.try_get("", "id")?, row.try_get("", "received_at")?);
        Ok((id > 1).then_some(Timestamp(at)))
    }
}
