//! Polls of event feeds: where they stand, and which rows have been applied.

use std::collections::HashSet;

use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Query};
use sea_orm::{ConnectionTrait, Value};

use crate::clock::Timestamp;
use crate::model::SourceName;
use crate::store::apply::Context;
use crate::store::connect::Store;
use crate::store::error::{Error, Kind};
use crate::store::passes::{is_or_null, note_seen};
use crate::store::sql::{of_source, padded};

/// Where an event feed stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedCursor {
    /// The next poll asks from here (less the overlap).
    pub since: Option<Timestamp>,
    /// The next page of a poll under way.
    pub cursor: Option<String>,
}

/// The page of a feed that a batch is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedStep {
    /// Which feed.
    pub feed: String,
    /// Where it must stand; `None`: it has never been polled.
    pub from: Option<FeedCursor>,
    /// Where it stands then.
    pub to: FeedCursor,
    /// Rows of the page, so that the overlap does not mark twice.
    pub seen: Vec<String>,
}

impl Store {
    /// Where a feed stands; `None`: it has never been polled.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn feed_cursor(&self, source: &SourceName, feed: &str) -> Result<Option<FeedCursor>, Error> {
        let mut select = Query::select();
        select.columns(["since", "cursor"]).from("instep_cursor").and_where(of_source(source));
        select.and_where(Expr::col("feed").eq(feed));
        let Some(row) = self.reader().query_one(&select).await? else {
            return Ok(None);
        };
        let since: Option<i64> = row.try_get("", "since")?;
        Ok(Some(FeedCursor { since: since.map(Timestamp), cursor: row.try_get("", "cursor")? }))
    }

    /// Which of these rows of a feed have been applied before.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn feed_seen(&self, source: &SourceName, feed: &str, ids: &[String]) -> Result<HashSet<String>, Error> {
        let mut seen = HashSet::new();
        for part in ids.chunks(200) {
            let mut select = Query::select();
            select.column("id").from("instep_seen").and_where(of_source(source));
            select.and_where(Expr::col("label").eq(feed_label(feed)));
            select.and_where(Expr::col("id").is_in(padded(part.iter().map(String::as_str))));
            for row in self.reader().query_all(&select).await? {
                seen.insert(row.try_get::<String>("", "id")?);
            }
        }
        Ok(seen)
    }
}

pub(crate) fn feed_label(feed: &str) -> String {
    format!("feed:{feed}")
}

/// Moves a feed: compare and set on its cursor.
pub(crate) async fn step(context: &Context<'_>, step: &FeedStep) -> Result<(), Error> {
    let source = context.fence.source();
    let since: Option<i64> = step.to.since.map(|at| at.0);
    let moved = if let Some(from) = &step.from {
        let at_since = match from.since {
            Some(at) => Expr::col("since").eq(at.0),
            None => Expr::col("since").is_null(),
        };
        let mut update = Query::update();
        update.table("instep_cursor").value("since", since).value("cursor", step.to.cursor.clone());
        update.value("at", context.now.0).and_where(of_source(source)).and_where(Expr::col("feed").eq(step.feed.as_str()));
        update.and_where(at_since).and_where(is_or_null("cursor", from.cursor.as_deref()));
        context.tx.db.execute(&update).await?.rows_affected()
    } else {
        let values: [Value; 5] =
            [source.as_str().into(), step.feed.as_str().into(), since.into(), step.to.cursor.clone().into(), context.now.0.into()];
        let mut insert = Query::insert();
        insert.into_table("instep_cursor").columns(["source", "feed", "since", "cursor", "at"]);
        insert.values_panic(values.into_iter().map(Expr::val)).on_conflict(OnConflict::new().do_nothing().to_owned());
        context.tx.db.execute(&insert).await?.rows_affected()
    };
    if moved == 0 {
        return Err(Error::new(Kind::Moved, "the feed does not stand where this page begins"));
    }
    let ids: Vec<&str> = step.seen.iter().map(String::as_str).collect();
    note_seen(context, &feed_label(&step.feed), &ids).await
}
