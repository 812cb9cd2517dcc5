//! Logs of numbered events: where they stand, and of which record each number is.
//!
//! A number is for ever that of one record (RCP-27), so an event whose number is noted has been told before, by whichever way: it is
//! dropped. Notes are set in the transaction that sets the event's mark. A number that is said of another record breaks the contract:
//! the first note stands, the other record is looked at all the same, and a gap is opened that only a sweep repairs.

use std::collections::{BTreeMap, HashMap, HashSet};

use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Query};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};

use crate::clock::Timestamp;
use crate::model::{Entity, Sequence, SourceName};
use crate::reconcile::{LogPosition, LogWalk};
use crate::store::apply::{Batch, Conflict, Context, What};
use crate::store::connect::{Store, Tx};
use crate::store::error::{Error, Kind};
use crate::store::homes::RESTORED;
use crate::store::passes::note_seen;
use crate::store::sql::{groups, of_source};
use crate::store::{feeds, gaps};

/// The cause of a gap: a number was said of two records.
pub const SEQUENCE_CONFLICT: &str = "sequence_conflict";
/// The cause of a gap: a log has begun anew, at lower numbers.
pub const LOG_RESTARTED: &str = "log_restarted";
/// The cause of a gap: a log was read for the first time after passes had begun.
pub const FEED_BEGAN_LATE: &str = "feed_began_late";
/// Gaps of these causes are repaired by sweeps alone: the events of what went are lost.
pub(crate) const BY_SWEEP: [&str; 5] = [SEQUENCE_CONFLICT, LOG_RESTARTED, FEED_BEGAN_LATE, RESTORED, gaps::OPERATOR_SWEEP];

/// A page of a log, or the end of one of its polls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStep {
    /// Which feed.
    pub feed: String,
    /// The label of its numbers.
    pub label: String,
    /// Where it must stand; `None`: it has never been polled.
    pub from: Option<LogPosition>,
    /// Where it stands then.
    pub to: LogPosition,
    /// Above which number the next poll begins: notes above it are kept whatever their age.
    pub floor: i64,
    /// A poll is complete with it.
    pub is_complete: bool,
    /// What may have been lost.
    pub lost: Option<LogLoss>,
    /// Unreadable rows of the page, so that the overlap does not put them aside twice.
    pub unreadable: Vec<String>,
}

/// What may have been lost of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLoss {
    /// It begins anew: the notes of its numbers hold no longer, and what it said since the last poll is lost.
    Restarted,
    /// Passes had begun by then.
    BeganLate(Timestamp),
}

/// Why an event of a batch is not weighed, or is weighed with a complaint.
#[derive(Debug, Default)]
pub(crate) struct Sifted {
    /// Observations whose numbers are known, by their index.
    pub(crate) known: HashSet<usize>,
    /// Numbers that are new, with their records.
    fresh: Vec<(Sequence, Entity)>,
    /// Numbers that are another record's, with the instants of their notes.
    pub(crate) conflicts: Vec<(Conflict, i64)>,
}

#[derive(FromQueryResult)]
struct LogRow {
    high: i64,
    walk_after: Option<i64>,
    walk_ceiling: Option<i64>,
}

/// Of which record a number is noted: resource and key, and when.
type Noted = (String, String, i64);

impl Store {
    /// Where a log stands; `None`: it has never been polled.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn log_position(&self, source: &SourceName, feed: &str) -> Result<Option<LogPosition>, Error> {
        let mut select = Query::select();
        select.columns(["high", "walk_after", "walk_ceiling"]).from("instep_log").and_where(of_source(source));
        select.and_where(Expr::col("feed").eq(feed));
        let Some(row) = self.reader().query_one(&select).await? else { return Ok(None) };
        let LogRow { high, walk_after, walk_ceiling } = LogRow::from_query_result(&row, "")?;
        let walk = walk_after.zip(walk_ceiling).map(|(after, ceiling)| LogWalk { after, ceiling });
        Ok(Some(LogPosition { high, walk }))
    }

    /// Of which records these numbers of a log are noted, as resource and key.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn noted_numbers(&self, source: &SourceName, label: &str, numbers: &[i64]) -> Result<HashMap<i64, (String, String)>, Error> {
        let noted = noted(&self.reader(), source, label, numbers).await?;
        Ok(noted.into_iter().map(|(number, (resource, key, _))| (number, (resource, key))).collect())
    }
}

/// Notes of numbers; those of a log that is no more do not count.
async fn noted(db: &impl ConnectionTrait, source: &SourceName, label: &str, numbers: &[i64]) -> Result<HashMap<i64, Noted>, Error> {
    let mut known = HashMap::new();
    for part in numbers.chunks(200) {
        let mut wanted = part.to_vec();
        // As with texts: few different statements are prepared.
        wanted.resize(wanted.len().next_power_of_two(), part[part.len() - 1]);
        let mut select = Query::select();
        select.columns(["number", "resource", "key", "at"]).from("instep_sequence").and_where(of_source(source));
        select.and_where(Expr::col("label").eq(label)).and_where(Expr::col("number").is_in(wanted)).and_where(Expr::cust(
            "at > coalesce((select max(l.began_at) from instep_log l where l.source = instep_sequence.source \
             and l.label = instep_sequence.label), 0)",
        ));
        for row in db.query_all(&select).await? {
            let noted = (row.try_get("", "resource")?, row.try_get("", "key")?, row.try_get("", "at")?);
            known.insert(row.try_get("", "number")?, noted);
        }
    }
    Ok(known)
}

/// Which events of a batch have been told before.
pub(crate) async fn sift(tx: &Tx<'_>, source: &SourceName, batch: &Batch) -> Result<Sifted, Error> {
    let mut labels: BTreeMap<&str, Vec<(usize, i64, &Entity)>> = BTreeMap::new();
    for (index, observed) in batch.observations.iter().enumerate() {
        if let What::Event(event) = &observed.what
            && let Some(sequence) = &event.sequence
        {
            labels.entry(sequence.label.as_str()).or_default().push((index, sequence.number, &observed.entity));
        }
    }
    let mut sifted = Sifted::default();
    for (label, events) in labels {
        let numbers: Vec<i64> = events.iter().map(|(_, number, _)| *number).collect();
        let mut known = noted(&tx.db, source, label, &numbers).await?;
        for (index, number, entity) in events {
            let sequence = || Sequence { label: label.to_owned(), number };
            match known.get(&number) {
                None => {
                    known.insert(number, (entity.resource.to_string(), entity.key.to_string(), i64::MAX));
                    sifted.fresh.push((sequence(), entity.clone()));
                }
                Some((resource, key, _)) if resource == entity.resource.as_str() && key == entity.key.as_str() => {
                    sifted.known.insert(index);
                }
                Some((.., at)) => sifted.conflicts.push((Conflict { sequence: sequence(), entity: entity.clone() }, *at)),
            }
        }
    }
    Ok(sifted)
}

/// Notes the numbers of the batch's events, and what is wrong with them.
pub(crate) async fn note(context: &Context<'_>, sifted: &Sifted) -> Result<(), Error> {
    let mut fresh: Vec<&(Sequence, Entity)> = sifted.fresh.iter().collect();
    fresh.sort_by(|(a, _), (b, _)| (&a.label, a.number).cmp(&(&b.label, b.number)));
    for group in groups(&fresh) {
        let mut insert = Query::insert();
        insert.into_table("instep_sequence").columns(["source", "label", "number", "resource", "key", "at"]);
        for (sequence, entity) in group {
            let values: [Value; 6] = [
                context.fence.source().as_str().into(),
                sequence.label.as_str().into(),
                sequence.number.into(),
                entity.resource.as_str().into(),
                entity.key.as_str().into(),
                context.now.0.into(),
            ];
            insert.values_panic(values.into_iter().map(Expr::val));
        }
        // There may be one of a log that is no more.
        insert.on_conflict(OnConflict::columns(["source", "label", "number"]).update_columns(["resource", "key", "at"]).to_owned());
        context.tx.db.execute(&insert).await?;
    }
    if let Some(began) = sifted.conflicts.iter().map(|(_, at)| Ord::min(*at, context.now.0)).min() {
        gaps::extend(context.tx, context.fence.source(), SEQUENCE_CONFLICT, began, Some(context.now.0)).await?;
    }
    Ok(())
}

/// Moves a log: compare and set on where it stands.
pub(crate) async fn step(context: &Context<'_>, step: &LogStep) -> Result<(), Error> {
    let source = context.fence.source();
    let is_it = of_source(source).and(Expr::col("feed").eq(step.feed.as_str()));
    let polled = Query::select().column("polled_at").from("instep_log").and_where(is_it.clone()).take();
    let polled_at: Option<i64> = context.tx.db.query_one(&polled).await?.map(|row| row.try_get("", "polled_at")).transpose()?;
    let (after, ceiling) = (step.to.walk.map(|walk| walk.after), step.to.walk.map(|walk| walk.ceiling));
    let moved = if let Some(from) = &step.from {
        let mut update = Query::update();
        update.table("instep_log").value("label", step.label.as_str()).value("high", step.to.high).value("floor", step.floor);
        update.value("walk_after", after).value("walk_ceiling", ceiling);
        if step.is_complete {
            update.value("polled_at", context.now.0);
        }
        if step.lost == Some(LogLoss::Restarted) {
            update.value("began_at", context.now.0);
        }
        update.and_where(is_it).and_where(Expr::col("high").eq(from.high));
        for (column, value) in [("walk_after", from.walk.map(|walk| walk.after)), ("walk_ceiling", from.walk.map(|walk| walk.ceiling))] {
            update.and_where(value.map_or_else(|| Expr::col(column).is_null(), |value| Expr::col(column).eq(value)));
        }
        context.tx.db.execute(&update).await?.rows_affected()
    } else {
        let mut insert = Query::insert();
        insert.into_table("instep_log");
        insert.columns(["source", "feed", "label", "high", "floor", "began_at", "polled_at", "walk_after", "walk_ceiling"]);
        let values: [Value; 9] = [
            source.as_str().into(),
            step.feed.as_str().into(),
            step.label.as_str().into(),
            step.to.high.into(),
            step.floor.into(),
            0_i64.into(),
            context.now.0.into(),
            after.into(),
            ceiling.into(),
        ];
        insert.values_panic(values.into_iter().map(Expr::val)).on_conflict(OnConflict::new().do_nothing().to_owned());
        context.tx.db.execute(&insert).await?.rows_affected()
    };
    if moved == 0 {
        return Err(Error::new(Kind::Moved, "the log does not stand where this page begins"));
    }
    let unreadable: Vec<&str> = step.unreadable.iter().map(String::as_str).collect();
    note_seen(context, &feeds::feed_label(&step.feed), &unreadable).await?;
    let now = context.now.0;
    match step.lost {
        Some(LogLoss::Restarted) => {
            gaps::extend(context.tx, source, LOG_RESTARTED, Ord::min(polled_at.unwrap_or(now), now), Some(now)).await
        }
        Some(LogLoss::BeganLate(began)) => gaps::extend(context.tx, source, FEED_BEGAN_LATE, Ord::min(began.0, now), Some(now)).await,
        None => Ok(()),
    }
}
