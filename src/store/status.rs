//! What `/status` and `decode` ask.

use sea_orm::sea_query::{Expr, ExprTrait, Query};
use sea_orm::{ConnectionTrait, FromQueryResult};

use crate::clock::Timestamp;
use crate::model::ordering::{Mark, Row};
use crate::model::{Entity, ResourceName, SourceName};
use crate::store::connect::Store;
use crate::store::error::Error;
use crate::store::rows::{ENTITY_COLUMNS, EntityRow, MARK_COLUMNS, MarkRow};
use crate::store::sql::{of_resource, of_source};

/// A source in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SourceStatus {
    /// Incarnation of its owner.
    pub epoch: i64,
    /// Its owner.
    pub owner: Option<String>,
    /// Deliveries that wait.
    pub pending: u64,
    /// When the oldest of them came.
    pub oldest_pending: Option<Timestamp>,
    /// Things in quarantine.
    pub quarantined: u64,
    /// Open gaps.
    pub open_gaps: u64,
    /// The last change's number; 0 before the first.
    pub newest_change: i64,
    /// Its resources.
    pub resources: Vec<ResourceStatus>,
}

/// A resource in numbers.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ResourceStatus {
    /// Its name.
    pub resource: ResourceName,
    /// Live rows.
    pub rows: u64,
    /// Open marks.
    pub marks: u64,
    /// Of them held by the removal budget.
    pub held: u64,
    /// Records above that changed or went and whose children are still to be marked.
    pub cascades: u64,
    /// Newest stamp applied.
    pub live_as_of: Option<Timestamp>,
    /// Start of the last completed sweep.
    pub complete_as_of: Option<Timestamp>,
    /// End of the last completed pass.
    pub last_pass_at: Option<Timestamp>,
    /// A pass runs.
    pub pass_running: bool,
}

/// An entity as we hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// As the rule knows it.
    pub row: Option<Row>,
    /// Its mark.
    pub mark: Option<Mark>,
    /// Its payload, as the database shows it.
    pub payload: Option<String>,
}

impl Store {
    /// A source in numbers; `None` if nobody has claimed it yet.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn status(&self, source: &SourceName) -> Result<Option<SourceStatus>, Error> {
        let mut select = Query::select();
        select.columns(["epoch", "owner", "next_change"]).from("instep_source").and_where(Expr::col("name").eq(source.as_str()));
        let Some(row) = self.reader().query_one(&select).await? else {
            return Ok(None);
        };
        let backlog = self.backlog(source).await?;
        let next_change: i64 = row.try_get("", "next_change")?;
        Ok(Some(SourceStatus {
            epoch: row.try_get("", "epoch")?,
            owner: row.try_get("", "owner")?,
            pending: backlog.deliveries,
            oldest_pending: backlog.oldest,
            quarantined: self.quarantine_count(source).await?,
            open_gaps: u64::try_from(self.open_gaps(source).await?.len()).unwrap_or(u64::MAX),
            newest_change: next_change - 1,
            resources: self.resource_status(source).await?,
        }))
    }

    async fn resource_status(&self, source: &SourceName) -> Result<Vec<ResourceStatus>, Error> {
        let mut select = Query::select();
        select.columns(["resource", "live_as_of", "complete_as_of", "ended_at"]).from("instep_progress");
        select.and_where(of_source(source)).order_by("resource", sea_orm::sea_query::Order::Asc);
        let mut resources = Vec::new();
        for row in self.reader().query_all(&select).await? {
            let Ok(resource) = ResourceName::new(row.try_get::<String>("", "resource")?) else {
                continue;
            };
            let at = |column: &str| row.try_get::<Option<i64>>("", column).map(|at| at.map(Timestamp));
            let (live_as_of, complete_as_of, last_pass_at) = (at("live_as_of")?, at("complete_as_of")?, at("ended_at")?);
            let (marks, held) = self.count_marks(source, &resource).await?;
            let cascades = self.count_cascades(source, &resource).await?;
            resources.push(ResourceStatus {
                rows: self.live_rows(source, &resource).await?,
                pass_running: self.running_pass(source, &resource).await?.is_some(),
                resource,
                marks,
                held,
                cascades,
                live_as_of,
                complete_as_of,
                last_pass_at,
            });
        }
        Ok(resources)
    }

    /// An entity as we hold it.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn entity(&self, source: &SourceName, entity: &Entity) -> Result<Replica, Error> {
        let of_entity = of_resource(source, &entity.resource).and(Expr::col("key").eq(entity.key.as_str()));
        let mut select = Query::select();
        select.columns(ENTITY_COLUMNS).expr_as(Expr::col("payload").cast_as("text"), "payload").from("instep_entity");
        let row = self.reader().query_one(select.and_where(of_entity.clone())).await?;
        let payload = row.as_ref().map(|row| row.try_get("", "payload")).transpose()?.flatten();
        let row = row.map(|row| EntityRow::from_query_result(&row, "")).transpose()?.map(|row| row.row());
        let mut select = Query::select();
        select.columns(MARK_COLUMNS).from("instep_mark").and_where(of_entity);
        let mark = self.reader().query_one(&select).await?;
        let mark = mark.map(|row| MarkRow::from_query_result(&row, "")).transpose()?.map(|row| row.mark());
        Ok(Replica { row, mark, payload })
    }
}
