//! Collections: what is asked for, in its order, page by page.

use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::options::{NextLinks, Options, Profile};
use super::query::{Query, Refusal};
use super::resource::{CAN_VIEW, MODIFIED, Resource};
use super::state::Inner;
use super::world::Record;

/// Rows with nothing but their keys, in one page of Trestle.
const KEYS_MAX: usize = 300_000;

type Row = (String, Arc<Record>);

/// Who looks, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Viewer {
    pub(super) now_us: i64,
    /// The observer sees only what can be viewed, and all of it.
    pub(super) observer: bool,
}

/// A page, and how the next one is asked for.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) rows: Vec<Value>,
    pub(super) count: Option<usize>,
    pub(super) next: Option<Vec<(String, String)>>,
}

/// Finds a page. `wanted` is what the client prefers as its size.
pub(super) fn find(
    inner: &Inner,
    resource: Resource,
    query: &Query,
    (options, viewer): (&Options, Viewer),
    (parameters, wanted): (&[(String, String)], Option<usize>),
) -> Result<Page, Refusal> {
    let orderby = order(resource, query, options);
    let after = query.token.as_deref().map(read_token).transpose()?;
    let (default, mut max) = options.pages();
    if options.profile == Profile::Trestle && query.is_keys_only(resource) {
        max = max.max(KEYS_MAX);
    }
    let size = wanted.unwrap_or(default).clamp(1, max);
    // A $top beyond the default is honoured up to the greatest page.
    let size = query.top.map_or(size, |top| if wanted.is_none() { top.min(max) } else { top.min(size) });
    let is_behind = |row: &Row| after.as_ref().is_none_or(|after| compare(&values(row, &orderby), after, &orderby) == Ordering::Greater);
    let mut rows: Vec<Row> = Vec::new();
    let in_place = orderby.is_empty() || orderby[0] == (resource.key().to_owned(), false);
    let enough = if in_place && !query.count { query.skip.saturating_add(size).saturating_add(1) } else { usize::MAX };
    for row in candidates(inner, resource, query, viewer) {
        if rows.len() >= enough {
            break;
        }
        if query.filter.as_ref().is_none_or(|filter| filter.holds(resource, &row.1)) && is_behind(&row) {
            rows.push(row);
        }
    }
    if !in_place {
        rows.sort_by_cached_key(|row| Sorted { values: values(row, &orderby), descends: orderby.iter().map(|(_, down)| *down).collect() });
    }
    let count = query.count.then_some(rows.len());
    let more = rows.len() > query.skip.saturating_add(size);
    let page: Vec<Row> = rows.into_iter().skip(query.skip).take(size).collect();
    let left = query.top.map(|top| top.saturating_sub(page.len()));
    let next = match page.last() {
        Some(last) if more && left != Some(0) => next(query, options, parameters, page.len(), left, &values(last, &orderby)),
        _ => None,
    };
    let rows = page.iter().map(|(_, record)| shown(resource, record, &query.select, options)).collect();
    Ok(Page { rows, count, next })
}

fn candidates<'a>(inner: &'a Inner, resource: Resource, query: &Query, viewer: Viewer) -> Box<dyn Iterator<Item = Row> + 'a> {
    if resource == Resource::EntityEvent {
        let mut from = query.filter.as_ref().map_or(0, |filter| filter.sequence_from());
        if let Some(Ok(after)) = query.token.as_deref().map(read_token) {
            from = from.max(after.last().and_then(Value::as_str).and_then(|key| key.parse().ok()).unwrap_or(0));
        }
        return Box::new(inner.events.visible(from, viewer.now_us));
    }
    let seen = move |(_, record): &(&str, &Arc<Record>)| record.hidden_us.is_none() || !viewer.observer;
    let row = |(key, record): (&str, &Arc<Record>)| (key.to_owned(), Arc::clone(record));
    match query.filter.as_ref().and_then(|filter| filter.keys(resource.key())) {
        Some(keys) => {
            let rows = keys.into_iter().filter_map(|key| Some((key, inner.world.get(resource, key)?)));
            Box::new(rows.filter(seen).map(row).collect::<Vec<_>>().into_iter())
        }
        None => Box::new(inner.world.all(resource).filter(seen).map(row)),
    }
}

/// What is asked for; MLS Grid's own is by stamp.
fn order(resource: Resource, query: &Query, options: &Options) -> Vec<(String, bool)> {
    let by_stamp = query.orderby.is_empty() && options.profile == Profile::Mlsgrid && resource != Resource::EntityEvent;
    if by_stamp { vec![(MODIFIED.to_owned(), false)] } else { query.orderby.clone() }
}

/// What a row is ordered by; its key decides the last.
fn values((key, record): &Row, orderby: &[(String, bool)]) -> Vec<Value> {
    let of = |(name, _): &(String, bool)| record.document.get(name).cloned().unwrap_or_default();
    orderby.iter().map(of).chain([key.as_str().into()]).collect()
}

struct Sorted {
    values: Vec<Value>,
    descends: Vec<bool>,
}

impl PartialEq for Sorted {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Sorted {}

impl PartialOrd for Sorted {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sorted {
    fn cmp(&self, other: &Self) -> Ordering {
        let descends = self.descends.iter().copied().map(|down| (String::new(), down)).collect::<Vec<_>>();
        compare(&self.values, &other.values, &descends)
    }
}

fn compare(one: &[Value], other: &[Value], orderby: &[(String, bool)]) -> Ordering {
    for (index, (one, other)) in one.iter().zip(other).enumerate() {
        let ordering = compare_values(one, other);
        let descends = orderby.get(index).is_some_and(|(_, descends)| *descends);
        if ordering != Ordering::Equal {
            return if descends { ordering.reverse() } else { ordering };
        }
    }
    Ordering::Equal
}

fn compare_values(one: &Value, other: &Value) -> Ordering {
    match (one, other) {
        // Nothing stands before everything.
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (Value::String(one), Value::String(other)) => match (one.parse::<u64>(), other.parse::<u64>()) {
            // Sequences as keys.
            (Ok(one), Ok(other)) => one.cmp(&other),
            _ => one.cmp(other),
        },
        (Value::Bool(one), Value::Bool(other)) => one.cmp(other),
        _ => one.as_f64().partial_cmp(&other.as_f64()).unwrap_or(Ordering::Equal),
    }
}

fn next(
    query: &Query,
    options: &Options,
    parameters: &[(String, String)],
    served: usize,
    left: Option<usize>,
    last: &[Value],
) -> Option<Vec<(String, String)>> {
    let mut next: Vec<(String, String)> =
        parameters.iter().filter(|(name, _)| !matches!(name.as_str(), "$skip" | "$top" | "$skiptoken")).cloned().collect();
    match options.links() {
        NextLinks::None => return None,
        NextLinks::Skip => next.push(("$skip".to_owned(), (query.skip + served).to_string())),
        NextLinks::Skiptoken => {
            let text = Value::from(last.to_vec()).to_string();
            next.push(("$skiptoken".to_owned(), text.bytes().map(|byte| format!("{byte:02x}")).collect()));
        }
    }
    if let Some(left) = left {
        next.push(("$top".to_owned(), left.to_string()));
    }
    Some(next)
}

fn read_token(token: &str) -> Result<Vec<Value>, Refusal> {
    let byte = |at: usize| token.get(at..at + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
    let bytes: Option<Vec<u8>> = (0..token.len()).step_by(2).map(byte).collect();
    let values = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    values.ok_or_else(|| Refusal::new(400, "$skiptoken cannot be read"))
}

/// A record as a client sees it.
pub(super) fn shown(resource: Resource, record: &Record, select: &[String], options: &Options) -> Value {
    let mut document: Map<String, Value> = record.document.clone();
    let views = options.profile == Profile::Mlsgrid && resource != Resource::EntityEvent;
    if record.hidden_us.is_some() {
        // Only keys and flags are left.
        document.retain(|name, _| name == resource.key() || name == MODIFIED || name == "OriginatingSystemName");
    }
    if views {
        document.insert(CAN_VIEW.to_owned(), record.hidden_us.is_none().into());
    }
    if !select.is_empty() {
        document.retain(|name, _| select.iter().any(|wanted| wanted == name));
    }
    json!(document)
}
