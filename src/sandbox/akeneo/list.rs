//! Finds what a list asks for and writes it as a HAL document.

use std::sync::Arc;

use serde_json::{Value, json};

use super::query::{Condition, From, Query};
use super::render::{Format, Renderer, Wanted};
use super::resource::{Resource as R, code};
use super::world::{Record, View};

/// The list that is asked: a kind, perhaps of one container, in a format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed<'a> {
    pub(super) resource: R,
    pub(super) container: Option<&'a str>,
    pub(super) format: Format,
}

/// Records of a page, and what the links need.
#[derive(Debug, Default)]
pub(super) struct Found<'a> {
    rows: Vec<(&'a str, &'a Arc<Record>)>,
    total: Option<usize>,
    /// Whether anything of this kind is shown in an older state.
    pub(super) stale: bool,
}

/// The records of a page as one reader sees them.
pub(super) fn find<'a>(renderer: &Renderer<'a>, listed: Listed<'_>, query: &Query) -> Found<'a> {
    let view = renderer.world.view(listed.resource, renderer.at_us);
    let begin = match &query.from {
        From::Page(_) => String::new(),
        From::After(key) => listed.container.map_or_else(|| key.clone(), |container| format!("{container}/{key}")),
    };
    let matching = candidates(&view, listed, query, &begin).filter(|(key, record)| matches(renderer, listed, query, key, record));
    let (mut rows, mut total) = (Vec::new(), None);
    match query.from {
        From::After(_) => rows.extend(matching.take(query.limit)),
        From::Page(page) => {
            let skipped = (page - 1).saturating_mul(query.limit);
            if query.with_count {
                let all: Vec<_> = matching.collect();
                total = Some(all.len());
                rows.extend(all.into_iter().skip(skipped).take(query.limit));
            } else {
                rows.extend(matching.skip(skipped).take(query.limit));
            }
        }
    }
    Found { rows, total, stale: view.is_stale() }
}

type Rows<'v, 'a> = Box<dyn Iterator<Item = (&'a str, &'a Arc<Record>)> + 'v>;

/// All records of the container behind a key; where keys are asked for only those, so that a bulk read is no scan.
fn candidates<'v, 'a>(view: &'v View<'a>, listed: Listed<'v>, query: &'v Query, begin: &'v str) -> Rows<'v, 'a> {
    let whole = move |key: &str| listed.container.map_or_else(|| key.to_owned(), |container| format!("{container}/{key}"));
    let keys = query.conditions.iter().find_map(|condition| match condition {
        Condition::Keys(keys) => Some(keys),
        _ => None,
    });
    if let Some(keys) = keys {
        let behind = keys.iter().map(move |key| whole(key)).filter(move |key| key.as_str() > begin);
        return Box::new(behind.filter_map(|key| view.get(&key)));
    }
    let prefix = listed.container.map_or_else(String::new, |container| format!("{container}/"));
    let begin = if begin.is_empty() { prefix.as_str() } else { begin };
    let rows = view.after(begin);
    Box::new(rows.take_while(move |(key, _)| key.starts_with(&prefix)))
}

fn matches(renderer: &Renderer<'_>, listed: Listed<'_>, query: &Query, key: &str, record: &Record) -> bool {
    if listed.format == Format::Identifier && listed.resource == R::Products && record.text("identifier").is_empty() {
        return false;
    }
    query.conditions.iter().all(|condition| match condition {
        // Candidates were taken by the first of these; another one narrows them.
        Condition::Keys(keys) => keys.contains(code(key)),
        Condition::Stamp { created, from_s, until_s, inside } => {
            let at_s = if *created { record.created_s } else { renderer.indexed_s(record) };
            (*from_s..=*until_s).contains(&at_s) == *inside
        }
        Condition::Identifiers(identifiers) => identifiers.contains(record.text("identifier")),
        Condition::Below(model) => renderer.descends_from(record, model),
        Condition::Parents(parents) if parents.is_empty() => record.text("parent").is_empty(),
        Condition::Parents(parents) => parents.contains(record.text("parent")),
        Condition::Text { field, any_of, inside } => any_of.contains(record.text(field)) == *inside,
        Condition::Flag { field, is } => record.document.get(*field) == Some(&Value::Bool(*is)),
    })
}

/// A list that is not paged: a bare array.
pub(super) fn bare(found: &Found<'_>, renderer: &Renderer<'_>, listed: Listed<'_>) -> Value {
    found.rows.iter().map(|(key, record)| renderer.resource(listed.resource, key, record, listed.format, &Wanted::default())).collect()
}

/// The HAL document of a page. `next` is there if and only if the page is full, so the last page may be empty.
pub(super) fn document(found: &Found<'_>, renderer: &Renderer<'_>, listed: Listed<'_>, query: &Query, links: &Links<'_>) -> Value {
    let one = |(key, record): &(&str, &Arc<Record>)| renderer.resource(listed.resource, key, record, listed.format, &query.wanted);
    let items: Vec<Value> = found.rows.iter().map(one).collect();
    let first = match query.from {
        From::Page(_) => links.to(links.root, "page", "1"),
        From::After(_) => links.without("search_after"),
    };
    let mut document =
        json!({ "_links": { "self": { "href": links.own() }, "first": { "href": first } }, "_embedded": { "items": items } });
    if let From::Page(page) = query.from {
        document["current_page"] = page.into();
        if page > 1 {
            document["_links"]["previous"] = json!({ "href": links.to(links.root, "page", &(page - 1).to_string()) });
        }
        if let Some(total) = found.total {
            document["items_count"] = total.into();
        }
    }
    if let Some((key, _)) = found.rows.last().filter(|_| found.rows.len() == query.limit) {
        let (name, value) = match query.from {
            From::Page(page) => ("page", (page + 1).to_string()),
            From::After(_) => ("search_after", code(key).to_owned()),
        };
        document["_links"]["next"] = json!({ "href": links.to(links.next_root, name, &value) });
    }
    document
}

/// Addresses of a list: its own, and those that differ in one parameter.
#[derive(Debug)]
pub(super) struct Links<'a> {
    pub(super) root: &'a str,
    /// What links to the next page begin with; the root unless a fault says otherwise.
    pub(super) next_root: &'a str,
    pub(super) path: &'a str,
    pub(super) parameters: Vec<(String, String)>,
}

impl Links<'_> {
    fn own(&self) -> String {
        self.written(self.root, self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    fn without(&self, name: &str) -> String {
        let kept = self.parameters.iter().filter(|(given, _)| given != name);
        self.written(self.root, kept.map(|(name, value)| (name.as_str(), value.as_str())))
    }

    fn to(&self, root: &str, name: &str, value: &str) -> String {
        let kept = self.parameters.iter().filter(|(given, _)| given != name).map(|(name, value)| (name.as_str(), value.as_str()));
        self.written(root, kept.chain([(name, value)]))
    }

    fn written<'p>(&self, root: &str, parameters: impl Iterator<Item = (&'p str, &'p str)>) -> String {
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{root}{}{mark}{query}", self.path)
    }
}
