//! Answers a list request from a view of the world.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::catalog::{Collection, Field};
use super::moment::{Bound, day_number, day_of};
use super::query::{self, Condition, Operation, Page, Query};
use super::render::{Linkage, Renderer, own_day};
use super::world::{Record, View, World};

type Row = (u32, Arc<Record>);

/// What a list request found; rendered outside the world's lock.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) rows: Vec<Row>,
    pub(super) included: Vec<(Collection, u32, Arc<Record>)>,
    total: Option<usize>,
    more: bool,
    /// What was looked at is shown in an older state.
    pub(super) stale: bool,
}

pub(super) fn find(world: &World, collection: Collection, query: &Query, renderer: Renderer, at_us: Option<i64>) -> Found {
    let view = world.view(collection, at_us);
    let matcher = Matcher { collection, query, renderer };
    let mut found = match query.page {
        Page::After { id, size } => walk(&view, &matcher, id, size),
        Page::Numbered { number, size } => numbered(&view, &matcher, number, size),
    };
    found.stale = match matcher.ids() {
        Some(ids) => ids.iter().any(|id| view.is_stale_at(*id)),
        None => view.is_stale(),
    };
    if !matches!(query.linkage, Linkage::All) {
        found.included = included(world, collection, &found.rows, &query.linkage);
    }
    found
}

/// The records that the rows point at by the relations asked for, each once.
pub(super) fn included(world: &World, collection: Collection, rows: &[Row], linkage: &Linkage) -> Vec<(Collection, u32, Arc<Record>)> {
    let mut wanted = BTreeMap::new();
    for (index, relation) in collection.spec().relations.iter().enumerate().filter(|(_, relation)| linkage.covers(relation.name)) {
        for to in rows.iter().filter_map(|(_, record)| record.to.get(index)) {
            if let Some(record) = world.get(relation.target, *to) {
                wanted.insert((relation.target, *to), Arc::clone(record));
            }
        }
    }
    wanted.into_iter().map(|((collection, id), record)| (collection, id, record)).collect()
}

fn walk(view: &View<'_>, matcher: &Matcher<'_>, from: Option<u32>, size: usize) -> Found {
    let descending = matcher.query.sort.first().is_some_and(|(_, descending)| *descending);
    let mut rows: Vec<Row> = if descending {
        take(view.before(from.unwrap_or(u32::MAX)), matcher, size + 1)
    } else {
        let from = from.unwrap_or(0);
        match matcher.ids() {
            Some(ids) => take(ids.range(from.saturating_add(1)..).filter_map(|id| Some((*id, view.get(*id)?))), matcher, size + 1),
            None => take(view.after(from), matcher, size + 1),
        }
    };
    let more = rows.len() > size;
    rows.truncate(size);
    Found { rows, included: Vec::new(), total: None, more, stale: false }
}

fn take<'a>(rows: impl Iterator<Item = (u32, &'a Arc<Record>)>, matcher: &Matcher<'_>, count: usize) -> Vec<Row> {
    rows.filter(|(id, record)| matcher.holds(*id, record)).take(count).map(|(id, record)| (id, Arc::clone(record))).collect()
}

fn numbered(view: &View<'_>, matcher: &Matcher<'_>, number: usize, size: usize) -> Found {
    let skip = (number - 1).saturating_mul(size);
    let query = matcher.query;
    let unsorted = query.sort.is_empty() || query.sort == [(Field::Id, false)];
    if let (true, true, Some(total)) = (unsorted, query.conditions.is_empty(), view.known_len()) {
        let rows = view.after(0).skip(skip).take(size).map(|(id, record)| (id, Arc::clone(record))).collect();
        return Found { rows, included: Vec::new(), total: Some(total), more: false, stale: false };
    }
    let mut all: Vec<(u32, &Arc<Record>)> = match matcher.ids() {
        Some(ids) => ids.iter().filter_map(|id| Some((*id, view.get(*id)?))).filter(|(id, record)| matcher.holds(*id, record)).collect(),
        None => view.after(0).filter(|(id, record)| matcher.holds(*id, record)).collect(),
    };
    let total = all.len();
    let order = |a: &(u32, &Arc<Record>), b: &(u32, &Arc<Record>)| compare(&query.sort, a, b);
    // Only the page is sorted: what lies before and behind it is parted off.
    if skip + size < all.len() {
        all.select_nth_unstable_by(skip + size, order);
        all.truncate(skip + size);
    }
    if skip > 0 && skip < all.len() {
        all.select_nth_unstable_by(skip, order);
    }
    let mut rows: Vec<(u32, &Arc<Record>)> = all.into_iter().skip(skip).collect();
    rows.sort_unstable_by(order);
    let rows = rows.into_iter().map(|(id, record)| (id, Arc::clone(record))).collect();
    Found { rows, included: Vec::new(), total: Some(total), more: false, stale: false }
}

fn compare(sort: &[(Field, bool)], a: &(u32, &Arc<Record>), b: &(u32, &Arc<Record>)) -> Ordering {
    for (field, descending) in sort {
        let order = moment(a.0, a.1, *field).cmp(&moment(b.0, b.1, *field));
        if order != Ordering::Equal {
            return if *descending { order.reverse() } else { order };
        }
    }
    a.0.cmp(&b.0)
}

/// The sort key: microseconds, days, or the id.
fn moment(id: u32, record: &Record, field: Field) -> i64 {
    match field {
        Field::Id => i64::from(id),
        Field::Created => record.created_us,
        Field::Updated => record.updated_us,
        Field::Activity => record.activity_us,
        Field::Ended => record.ended_us,
        Field::Day => {
            let set = ["date", "started_on", "paid_on"].iter().find_map(|name| record.own(name)?.as_str());
            set.and_then(day_number).unwrap_or_else(|| own_day(record))
        }
    }
}

#[derive(Debug)]
struct Matcher<'a> {
    collection: Collection,
    query: &'a Query,
    renderer: Renderer,
}

impl Matcher<'_> {
    fn ids(&self) -> Option<&BTreeSet<u32>> {
        self.query.conditions.iter().find_map(|condition| match condition {
            Condition::Ids(ids) => Some(ids),
            _ => None,
        })
    }

    fn holds(&self, id: u32, record: &Record) -> bool {
        self.query.conditions.iter().all(|condition| match condition {
            Condition::Ids(ids) => ids.contains(&id),
            Condition::To(index, ids) => record.to.get(*index).is_some_and(|to| ids.contains(to)),
            Condition::Time(field, operation, bound) => self.holds_in_time(id, record, *field, *operation, *bound),
            Condition::Status(status) => (record.ended_us != 0) == (*status == 2),
            Condition::Special(special) => record.special == *special,
            Condition::Attribute(name, wanted) => self.holds_in_attribute(id, record, name, wanted),
        })
    }

    /// Days are compared, or whole seconds where the header asks for it and both sides have them.
    fn holds_in_time(&self, id: u32, record: &Record, field: Field, operation: Operation, bound: Bound) -> bool {
        let at = moment(id, record, field);
        if field == Field::Ended && at == 0 {
            return false;
        }
        // The contract gives services' `updated_at` the format of a date, so the header does not concern it.
        let instants = self.query.instants && self.collection != Collection::Services;
        let (left, right) = match (field, bound.second) {
            (Field::Day, _) => (at, bound.day),
            (_, Some(second)) if instants => (at.div_euclid(1_000_000), second),
            _ => (day_of(at), bound.day),
        };
        match operation {
            Operation::Eq => left == right,
            Operation::NotEq => left != right,
            Operation::Gt => left > right,
            Operation::GtEq => left >= right,
            Operation::Lt => left < right,
            Operation::LtEq => left <= right,
        }
    }

    fn holds_in_attribute(&self, id: u32, record: &Record, name: &str, wanted: &[String]) -> bool {
        let attributes = self.renderer.attributes(self.collection, id, record);
        let text = match attributes.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => return false,
        };
        wanted.contains(&text)
    }
}

/// The whole document of a list.
pub(super) fn document(found: &Found, collection: Collection, query: &Query, renderer: Renderer, base: &str, raw: &str) -> Value {
    let data: Vec<Value> = found.rows.iter().map(|(id, record)| renderer.resource(collection, *id, record, &query.linkage)).collect();
    let (meta, links) = match query.page {
        Page::After { size, .. } => {
            let next = found.more.then(|| found.rows.last()).flatten().map(|(id, _)| query::cursor(collection.spec(), *id));
            let mut links = json!({});
            if let Some(cursor) = next {
                links["next"] = link(base, raw, "page[after]", &cursor).into();
            }
            (json!({ "page_size": size, "max_page_size": query::MAX_PAGE_SIZE }), links)
        }
        Page::Numbered { number, size } => {
            let total = found.total.unwrap_or_default();
            let pages = total.div_ceil(size);
            let page = |number: usize| link(base, raw, "page[number]", &number.to_string());
            let mut links = json!({ "first": page(1), "last": page(pages.max(1)) });
            if number < pages {
                links["next"] = page(number + 1).into();
            }
            if number > 1 {
                links["prev"] = page(number - 1).into();
            }
            let meta = json!({ "current_page": number, "total_pages": pages, "total_count": total, "page_size": size, "max_page_size": query::MAX_PAGE_SIZE });
            (meta, links)
        }
    };
    json!({ "data": data, "included": included_resources(&found.included, renderer), "links": links, "meta": meta })
}

pub(super) fn included_resources(included: &[(Collection, u32, Arc<Record>)], renderer: Renderer) -> Vec<Value> {
    let bare = Linkage::Named(Vec::new());
    included.iter().map(|(collection, id, record)| renderer.resource(*collection, *id, record, &bare)).collect()
}

/// The request's own address with one parameter replaced.
fn link(base: &str, raw: &str, parameter: &str, value: &str) -> String {
    let mut pairs = url::form_urlencoded::Serializer::new(String::new());
    for (key, old) in url::form_urlencoded::parse(raw.as_bytes()).filter(|(key, _)| key != parameter) {
        pairs.append_pair(&key, &old);
    }
    pairs.append_pair(parameter, value);
    format!("{base}?{}", pairs.finish())
}
