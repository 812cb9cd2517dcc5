//! Which way of events told what: whether one of an upstream's event systems may be switched off.
//!
//! Out of the log of events and the changes, page by page in the order of time. Its words:
//!
//! - A *way* is `instep_events.via`: `events_api`, `event_platform`, `hook`, `feed`. Its instant is when the delivery was received,
//!   as long as that is kept, else when the event was worked in.
//! - An *announcement* is one statement of a way about (source, resource, key, operation), together with the first statement about the
//!   same by each other way that comes within [`WINDOW`] of it. So n updates told by two ways are n announcements by both, in
//!   whatever order they came; statements further apart than the window are announcements of their own. A repetition (the same
//!   delivery again, known by what its upstream calls it) counts once.
//! - An announcement by more than one way is *told by both*. Its *lead* is the time between its first and its second way; the median is
//!   signed before it is taken, so that it names the way that is usually first.
//! - *First learned by a pass*: a change that a page of a pass showed, or a removal that no event had announced, where no way had
//!   said anything of the record within the window before. The backfill is such a pass: ask from after it on.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use sea_orm::sea_query::{Expr, ExprTrait, JoinType, Order, Query};
use sea_orm::{ConnectionTrait, FromQueryResult};

use crate::clock::Timestamp;
use crate::model::SourceName;
use crate::store::connect::Store;
use crate::store::error::Error;
use crate::store::sql::of_source;

/// Two ways' statements further apart are about two changes. The Event Platform's last retry comes after 35 minutes.
const WINDOW: Duration = Duration::from_secs(3_600);
/// Rows read at once.
const PAGE: u64 = 5_000;
/// Records with announcements that may still be joined; beyond it the oldest are closed before their window ends.
const OPEN_MAX: usize = 100_000;
/// Open announcements of one record; beyond it the oldest is closed.
const OPEN_EACH: usize = 64;
/// Leads of which a median is taken; later ones are left out.
const LEADS_MAX: usize = 20_000;

/// What was told since an instant.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Coverage {
    /// Ways that told anything, by name.
    pub ways: Vec<String>,
    /// By resource and operation.
    pub rows: Vec<Covered>,
}

/// What was told of one operation on one resource.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Covered {
    /// Of which resource.
    pub resource: String,
    /// `create`, `update` or `delete`.
    pub operation: String,
    /// Announcements by way, those by several ways included.
    pub told: BTreeMap<String, u64>,
    /// Announcements by more than one way.
    pub both: u64,
    /// Changes first learned by a pass.
    pub pass: u64,
    /// Which way is usually first; `None` without announcements by both.
    pub lead: Option<Lead>,
}

/// How much earlier one way told of the same than another.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Lead {
    /// The way that is usually first.
    pub earlier: String,
    /// The median, in seconds.
    pub seconds: f64,
}

/// A statement of a way, or a change that a pass was first to show.
#[derive(Clone, Debug)]
struct Said {
    at: i64,
    resource: String,
    key: String,
    operation: String,
    /// `None`: a pass.
    via: Option<String>,
    /// Names the delivery, as its upstream does.
    delivery: Option<String>,
}

/// An announcement that other ways may still join.
#[derive(Debug)]
struct Open {
    operation: String,
    at: i64,
    told: Vec<(String, i64, Option<String>)>,
}

/// Leads between two ways, positive where the first of the pair was earlier.
#[derive(Debug, Default)]
struct Leads {
    pair: Option<(String, String)>,
    micros: Vec<i64>,
}

#[derive(Debug, Default)]
struct Tally {
    open: HashMap<(String, String), Vec<Open>>,
    rows: BTreeMap<(String, String), (Covered, Leads)>,
    heard: u64,
}

impl Tally {
    fn hear(&mut self, said: Said) {
        self.heard += 1;
        if self.heard.is_multiple_of(PAGE) {
            self.tidy(said.at);
        }
        let entity = (said.resource.clone(), said.key.clone());
        let Some(via) = said.via else {
            let is_told = |open: &Open| said.at.saturating_sub(open.at) <= window();
            if !self.open.get(&entity).is_some_and(|open| open.iter().any(is_told)) {
                self.rows.entry((said.resource, said.operation)).or_default().0.pass += 1;
            }
            return;
        };
        let open = self.open.entry(entity).or_default();
        let mut ended: Vec<Open> = open.extract_if(.., |open| said.at.saturating_sub(open.at) > window()).collect();
        let mut same = open.iter_mut().filter(|open| open.operation == said.operation);
        let repeats = |open: &Open| open.told.iter().any(|(v, _, d)| *v == via && *d == said.delivery);
        if said.delivery.is_none() || !same.any(|open| repeats(open)) {
            let joins = |open: &&mut Open| open.operation == said.operation && open.told.iter().all(|(v, ..)| *v != via);
            match open.iter_mut().find(joins) {
                Some(open) => open.told.push((via, said.at, said.delivery)),
                None => open.push(Open { operation: said.operation, at: said.at, told: vec![(via, said.at, said.delivery)] }),
            }
        }
        if open.len() > OPEN_EACH {
            ended.push(open.remove(0));
        }
        for one in ended {
            self.close(&said.resource, one);
        }
    }

    fn close(&mut self, resource: &str, mut open: Open) {
        let (covered, leads) = self.rows.entry((resource.to_owned(), open.operation)).or_default();
        open.told.sort_by_key(|(_, at, _)| *at);
        for (via, ..) in &open.told {
            *covered.told.entry(via.clone()).or_default() += 1;
        }
        let [(first, began, _), (second, joined, _), ..] = open.told.as_slice() else { return };
        covered.both += 1;
        let (pair, micros) = match first < second {
            true => ((first.clone(), second.clone()), joined - began),
            false => ((second.clone(), first.clone()), began - joined),
        };
        if leads.micros.len() < LEADS_MAX && *leads.pair.get_or_insert_with(|| pair.clone()) == pair {
            leads.micros.push(micros);
        }
    }

    /// Closes what nothing can join any more, and the oldest where there are too many.
    fn tidy(&mut self, now: i64) {
        let mut before = now.saturating_sub(window());
        if self.open.len() > OPEN_MAX {
            let mut begun: Vec<i64> = self.open.values().flatten().map(|open| open.at).collect();
            begun.sort_unstable();
            before = Ord::max(before, begun[begun.len().saturating_sub(OPEN_MAX / 2)]);
        }
        self.close_before(before);
    }

    fn close_before(&mut self, before: i64) {
        let mut ended = Vec::new();
        self.open.retain(|(resource, _), open| {
            ended.extend(open.extract_if(.., |open| open.at < before).map(|open| (resource.clone(), open)));
            !open.is_empty()
        });
        for (resource, open) in ended {
            self.close(&resource, open);
        }
    }

    fn end(mut self) -> Coverage {
        self.close_before(i64::MAX);
        let mut coverage = Coverage::default();
        for ((resource, operation), (covered, leads)) in self.rows {
            coverage.ways.extend(covered.told.keys().cloned());
            coverage.rows.push(Covered { resource, operation, lead: leads.median(), ..covered });
        }
        coverage.ways.sort();
        coverage.ways.dedup();
        coverage
    }
}

impl Leads {
    fn median(mut self) -> Option<Lead> {
        self.micros.sort_unstable();
        let (first, second) = self.pair?;
        let micros = *self.micros.get(self.micros.len() / 2)?;
        let earlier = if micros >= 0 { first } else { second };
        Some(Lead { earlier, seconds: Duration::from_micros(micros.unsigned_abs()).as_secs_f64() })
    }
}

fn window() -> i64 {
    i64::try_from(WINDOW.as_micros()).unwrap_or(i64::MAX)
}

impl Store {
    /// Which way of events told what of a source since an instant, as far as the log of events reaches back.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn coverage(&self, source: &SourceName, since: Timestamp) -> Result<Coverage, Error> {
        let mut tally = Tally::default();
        let (mut events, mut changes) = (Vec::new(), Vec::new());
        let (mut event_at, mut change_at) = (Some((since.0, i64::MIN)), Some((since.0, i64::MIN)));
        loop {
            if let (true, Some(from)) = (events.is_empty(), event_at) {
                (events, event_at) = self.events_page(source, from).await?;
            }
            if let (true, Some(from)) = (changes.is_empty(), change_at) {
                (changes, change_at) = self.changes_page(source, from).await?;
            }
            // Both pages stand with their oldest row last.
            let next = match (events.last(), changes.last()) {
                (None, None) => return Ok(tally.end()),
                (Some(event), Some(change)) if change.at < event.at => changes.pop(),
                (Some(_), _) => events.pop(),
                (None, Some(_)) => changes.pop(),
            };
            let Some(next) = next else { continue };
            tally.hear(next);
        }
    }

    async fn events_page(&self, source: &SourceName, from: Position) -> Result<(Vec<Said>, Option<Position>), Error> {
        let of = |column: &'static str| Expr::col(("instep_outcome", column));
        let mut select = Query::select();
        select.columns(["resource", "key", "operation", "via", "received_at", "id"].map(|column| ("instep_outcome", column)));
        select.expr_as(Expr::cust("coalesce(instep_delivery.received_at, instep_outcome.received_at)"), "at");
        select.expr_as(Expr::cust("coalesce(instep_delivery.dedupe, instep_outcome.delivery_id)"), "delivery");
        select.from("instep_outcome");
        let delivery = Expr::col(("instep_delivery", "id")).equals(("instep_outcome", "delivery_id"));
        select.join(JoinType::LeftJoin, "instep_delivery", delivery);
        select.and_where(of("source").eq(source.as_str())).and_where(of("received_at").gte(from.0));
        select.and_where(of("received_at").gt(from.0).or(of("id").gt(from.1)));
        select.order_by(("instep_outcome", "received_at"), Order::Asc).order_by(("instep_outcome", "id"), Order::Asc).limit(PAGE);
        let mut said = Vec::new();
        let mut last = None;
        for row in self.reader().query_all(&select).await? {
            let event = EventRow::from_query_result(&row, "")?;
            last = Some((event.received_at, event.id));
            let EventRow { at, resource, key, operation, via, delivery, .. } = event;
            said.push(Said { at, resource, key, operation, via: Some(via), delivery });
        }
        Ok(paged(said, last))
    }

    async fn changes_page(&self, source: &SourceName, from: Position) -> Result<(Vec<Said>, Option<Position>), Error> {
        let mut select = Query::select();
        select.columns(["resource", "key", "operation", "at", "number"]).from("instep_change").and_where(of_source(source));
        select.and_where(Expr::cust("(learned_by = 'pass' or unannounced)"));
        select.and_where(Expr::col("at").gte(from.0)).and_where(Expr::col("at").gt(from.0).or(Expr::col("number").gt(from.1)));
        select.order_by("at", Order::Asc).order_by("number", Order::Asc).limit(PAGE);
        let mut said = Vec::new();
        let mut last = None;
        for row in self.reader().query_all(&select).await? {
            let ChangeRow { at, number, resource, key, operation } = ChangeRow::from_query_result(&row, "")?;
            last = Some((at, number));
            // A record that returns is told of as a new one.
            let operation = match operation.as_str() {
                "insert" | "revive" => "create".to_owned(),
                _ => operation,
            };
            said.push(Said { at, resource, key, operation, via: None, delivery: None });
        }
        Ok(paged(said, last))
    }
}

/// An instant and what orders rows of the same.
type Position = (i64, i64);

#[derive(Debug, FromQueryResult)]
struct EventRow {
    at: i64,
    received_at: i64,
    id: i64,
    resource: String,
    key: String,
    operation: String,
    via: String,
    delivery: Option<String>,
}

#[derive(Debug, FromQueryResult)]
struct ChangeRow {
    at: i64,
    number: i64,
    resource: String,
    key: String,
    operation: String,
}

/// A page with its oldest row last, and where the next begins; none after a page that is not full.
fn paged(mut said: Vec<Said>, last: Option<Position>) -> (Vec<Said>, Option<Position>) {
    let next = last.filter(|_| said.len() as u64 == PAGE);
    said.reverse();
    (said, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    /// `at` seconds, operation, way (empty: a pass), delivery.
    fn tally(said: &[(i64, &str, &str, &str)]) -> Coverage {
        let mut tally = Tally::default();
        for (at, operation, via, delivery) in said {
            let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            tally.hear(Said {
                at: at * SECOND,
                resource: "products".to_owned(),
                key: "1".to_owned(),
                operation: (*operation).to_owned(),
                via: text(via),
                delivery: text(delivery),
            });
        }
        tally.end()
    }

    fn counts(coverage: &Coverage, operation: &str) -> (u64, u64, u64, u64) {
        let row = coverage.rows.iter().find(|row| row.operation == operation).expect("a row");
        let told = |way: &str| row.told.get(way).copied().unwrap_or(0);
        (told("events_api"), told("event_platform"), row.both, row.pass)
    }

    #[test]
    fn statements_of_two_ways_within_the_window_are_one_announcement() {
        let within = tally(&[
            (0, "update", "events_api", "a"),
            (1, "update", "events_api", "b"),
            (3, "update", "event_platform", "c"),
            (3_600, "update", "event_platform", "d"),
        ]);
        assert_eq!(counts(&within, "update"), (2, 2, 2, 0));
        let beyond = tally(&[(0, "update", "events_api", "a"), (3_601, "update", "event_platform", "b")]);
        assert_eq!(counts(&beyond, "update"), (1, 1, 0, 0));
        let unlike = tally(&[(0, "update", "events_api", "a"), (1, "create", "event_platform", "b")]);
        assert_eq!((counts(&unlike, "update"), counts(&unlike, "create")), ((1, 0, 0, 0), (0, 1, 0, 0)));
    }

    #[test]
    fn a_delivery_that_comes_again_counts_once() {
        let again = tally(&[
            (0, "update", "event_platform", "a"),
            (300, "update", "event_platform", "a"),
            (301, "update", "events_api", "b"),
            (302, "update", "event_platform", "c"),
        ]);
        assert_eq!(counts(&again, "update"), (1, 2, 1, 0));
    }

    #[test]
    fn a_pass_is_first_only_where_nothing_was_told_before() {
        let told = tally(&[(0, "update", "events_api", "a"), (60, "update", "", ""), (7_200, "update", "", ""), (7_201, "delete", "", "")]);
        assert_eq!(counts(&told, "update"), (1, 0, 0, 1));
        assert_eq!(counts(&told, "delete"), (0, 0, 0, 1));
    }

    #[test]
    fn the_median_lead_names_the_way_that_is_usually_first() {
        let lead = |said: &[(i64, &str, &str, &str)]| tally(said).rows.remove(0).lead.map(|lead| (lead.earlier, lead.seconds));
        let day = 86_400;
        let mostly = [
            (0, "update", "events_api", "a"),
            (4, "update", "event_platform", "b"),
            (day, "update", "events_api", "c"),
            (day + 2, "update", "event_platform", "d"),
            (2 * day, "update", "event_platform", "e"),
            (2 * day + 9, "update", "events_api", "f"),
        ];
        assert_eq!(lead(&mostly), Some(("events_api".to_owned(), 2.0)));
        assert_eq!(lead(&mostly[4..]), Some(("event_platform".to_owned(), 9.0)));
        assert_eq!(lead(&mostly[..1]), None);
    }

    #[test]
    fn what_is_open_is_bounded() {
        let mut tally = Tally::default();
        for n in 0..i64::try_from(OPEN_MAX).expect("fits") + 10 {
            let said = |key: i64| Said {
                at: n,
                resource: "products".to_owned(),
                key: key.to_string(),
                operation: "update".to_owned(),
                via: Some("events_api".to_owned()),
                delivery: None,
            };
            tally.hear(said(n));
            tally.hear(said(-1));
        }
        tally.tidy(0);
        assert!(tally.open.len() <= OPEN_MAX / 2 + 1, "{}", tally.open.len());
        assert!(tally.open.values().all(|open| open.len() <= OPEN_EACH));
        let n_told = 2 * (OPEN_MAX as u64 + 10);
        assert_eq!(tally.end().rows[0].told["events_api"], n_told, "nothing is left out");
    }
}
