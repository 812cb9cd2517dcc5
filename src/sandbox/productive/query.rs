//! What a list request asks for: filters, sort, page, includes. Everything that the vendor does not offer is refused, as it does.

use std::collections::BTreeSet;

use super::catalog::{Collection as C, Field, Spec};
use super::moment::{self, Bound};
use super::render::Linkage;

/// The vendor's largest page.
pub(super) const MAX_PAGE_SIZE: usize = 200;
const DEFAULT_PAGE_SIZE: usize = 30;
/// Makes cursors opaque, and a made-up one recognisable.
const CURSOR_KEY: u64 = 0x5eed_c0de_d15c_0bed;

/// A refusal as one entry of `errors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) title: &'static str,
    pub(super) detail: String,
    pub(super) code: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(status: u16, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, title, detail: detail.into(), code: None }
    }

    fn keyset(code: &'static str) -> Self {
        Self { code: Some(code), ..Self::new(400, "Keyset Pagination Error", code) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Eq,
    NotEq,
    Gt,
    GtEq,
    Lt,
    LtEq,
}

/// One condition; all of a request hold together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Ids(BTreeSet<u32>),
    /// The relation at an index points at one of these.
    To(usize, BTreeSet<u32>),
    Time(Field, Operation, Bound),
    /// 1 active or open, 2 archived or closed.
    Status(u8),
    /// The record is special: a budget, a template.
    Special(bool),
    /// An attribute that is rendered as one of these texts.
    Attribute(&'static str, Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Numbered { number: usize, size: usize },
    After { id: Option<u32>, size: usize },
}

#[derive(Clone, Debug)]
pub(super) struct Query {
    pub(super) conditions: Vec<Condition>,
    pub(super) sort: Vec<(Field, bool)>,
    pub(super) page: Page,
    pub(super) linkage: Linkage,
    /// Whether `filter[…]` may compare instants instead of days.
    pub(super) instants: bool,
}

/// How the account behaves where accounts differ.
#[derive(Clone, Debug)]
pub(super) struct Manners<'a> {
    /// The header that turns the day cut off was there.
    pub(super) instants: bool,
    /// Archived projects, people and companies are hidden when no status is asked for.
    pub(super) hide_archived: bool,
    /// Collections that refuse `filter[id]`.
    pub(super) no_id_filter: &'a [String],
    pub(super) observer: bool,
}

pub(super) fn parse(collection: C, raw: &str, manners: &Manners<'_>) -> Result<Query, Refusal> {
    let spec = collection.spec();
    let pairs: Vec<(String, String)> =
        url::form_urlencoded::parse(raw.as_bytes()).map(|(key, value)| (key.into_owned(), value.into_owned())).collect();
    let mut conditions = Vec::new();
    let mut templates = false;
    let mut status = false;
    for (key, value) in pairs.iter().filter(|(key, _)| key.starts_with("filter")) {
        let (field, operation) = filter_key(key)?;
        if field == "with_templates" && collection == C::Projects {
            templates = value == "true" || value == "1";
            continue;
        }
        if field == "type" && collection == C::Activities {
            // 2 is for changes, and there are no others here.
            if !value.split(',').any(|kind| kind == "2") {
                add(&mut conditions, Condition::Ids(BTreeSet::new()));
            }
            continue;
        }
        status |= field == "status";
        add(&mut conditions, condition(spec, field, operation, value, manners)?);
    }
    if collection == C::Projects && !templates && !manners.observer {
        conditions.push(Condition::Special(false));
    }
    let hides = matches!(collection, C::Projects | C::People | C::Companies);
    if manners.hide_archived && hides && !status && !manners.observer {
        conditions.push(Condition::Status(1));
    }
    let sort = sort(spec, &pairs)?;
    Ok(Query {
        conditions,
        page: page(spec, &pairs, &sort)?,
        sort,
        linkage: linkage(spec, &pairs, manners.observer)?,
        instants: manners.instants,
    })
}

/// Repeated `filter[id][]=` are one list.
fn add(conditions: &mut Vec<Condition>, new: Condition) {
    if let Condition::Ids(more) = &new
        && let Some(Condition::Ids(ids)) = conditions.iter_mut().find(|condition| matches!(condition, Condition::Ids(_)))
    {
        ids.extend(more);
        return;
    }
    conditions.push(new);
}

fn value_of<'a>(pairs: &'a [(String, String)], key: &str) -> Option<&'a str> {
    pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

/// `filter[field]`, `filter[field][]` and `filter[field][operation]`.
fn filter_key(key: &str) -> Result<(&str, Option<&str>), Refusal> {
    let refused = || Refusal::new(400, "Unsupported Filter", format!("Filter '{key}' is not supported on this endpoint"));
    let inner = key.strip_prefix("filter[").and_then(|rest| rest.strip_suffix(']')).ok_or_else(refused)?;
    match inner.split_once("][") {
        None => Ok((inner, None)),
        Some((field, "")) => Ok((field, None)),
        Some((field, operation)) => Ok((field, Some(operation))),
    }
}

fn condition(spec: &'static Spec, field: &str, operation: Option<&str>, value: &str, manners: &Manners<'_>) -> Result<Condition, Refusal> {
    let unsupported = || Refusal::new(400, "Unsupported Filter", format!("Filter '{field}' is not supported on this endpoint"));
    let bad_value = || Refusal::new(400, "Unsupported Filter Value", format!("Value of filter '{field}' is not supported"));
    if let Some((_, time)) = spec.filters.iter().find(|(name, _)| *name == field) {
        let operation = time_operation(field, operation).ok_or_else(unsupported)?;
        return Ok(Condition::Time(*time, operation, moment::bound(value).ok_or_else(bad_value)?));
    }
    if !matches!(operation, None | Some("eq")) {
        return Err(unsupported());
    }
    let ids = || value.split(',').map(|id| id.trim().parse::<u32>()).collect::<Result<BTreeSet<_>, _>>().map_err(|_| bad_value());
    match field {
        "id" if manners.observer || !manners.no_id_filter.iter().any(|name| name == spec.name) => return Ok(Condition::Ids(ids()?)),
        "archived" if matches!(spec.collection, C::Workflows | C::CustomFields) => {
            return Ok(Condition::Status(if value == "true" { 2 } else { 1 }));
        }
        // For tasks: open and closed.
        "status" if spec.has_archive || spec.collection == C::Tasks => {
            return value.parse().ok().filter(|status| matches!(status, 1 | 2)).map(Condition::Status).ok_or_else(bad_value);
        }
        "type" if spec.collection == C::Deals => {
            return match value {
                "1" => Ok(Condition::Special(false)),
                "2" => Ok(Condition::Special(true)),
                _ => Err(bad_value()),
            };
        }
        _ => {}
    }
    let relation = |name: &str| spec.relations.iter().position(|relation| relation.name == name);
    if let Some(index) = field.strip_suffix("_id").and_then(relation) {
        return Ok(Condition::To(index, ids()?));
    }
    let attributes: &[&'static str] = match spec.collection {
        C::Activities => &["event", "item_type", "item_id", "task_id", "deal_id"],
        C::DeletedItems => &["item_type", "deleter_id", "name", "location"],
        C::TimeEntryVersions => &["event", "item_id"],
        C::Webhooks => &["state_id", "event_id", "type_id"],
        C::WebhookLogs => &["webhook_id", "retry_attempt", "retry_job_id"],
        _ => &[],
    };
    let wanted = if field == "time_entry_id" { "item_id" } else { field };
    let name = attributes.iter().find(|name| **name == wanted).ok_or_else(unsupported)?;
    Ok(Condition::Attribute(name, value.split(',').map(str::to_owned).collect()))
}

/// `after` and `before` are filters of their own, without operations.
fn time_operation(field: &str, operation: Option<&str>) -> Option<Operation> {
    match operation {
        None if field.ends_with("after") => Some(Operation::GtEq),
        None if field.ends_with("before") => Some(Operation::LtEq),
        Some(_) if field.ends_with("after") || field.ends_with("before") => None,
        None | Some("eq") => Some(Operation::Eq),
        Some("not_eq") => Some(Operation::NotEq),
        Some("gt") => Some(Operation::Gt),
        Some("gt_eq") => Some(Operation::GtEq),
        Some("lt") => Some(Operation::Lt),
        Some("lt_eq") => Some(Operation::LtEq),
        Some(_) => None,
    }
}

fn sort(spec: &Spec, pairs: &[(String, String)]) -> Result<Vec<(Field, bool)>, Refusal> {
    let Some(value) = value_of(pairs, "sort") else { return Ok(Vec::new()) };
    let one = |part: &str| {
        let (descending, name) = part.strip_prefix('-').map_or((false, part), |name| (true, name));
        let field = spec.sorts.iter().find(|(sort, _)| *sort == name).map(|(_, field)| (*field, descending));
        field.ok_or_else(|| Refusal::new(400, "Unsupported Sort", format!("Sort '{name}' is not supported on this endpoint")))
    };
    value.split(',').map(one).collect()
}

fn page(spec: &Spec, pairs: &[(String, String)], sort: &[(Field, bool)]) -> Result<Page, Refusal> {
    let number = |key: &str| {
        let Some(value) = value_of(pairs, key) else { return Ok(None) };
        let parsed = value.parse::<usize>().ok().filter(|number| *number > 0);
        parsed.map(Some).ok_or_else(|| Refusal::new(400, "Invalid Page", format!("Value of '{key}' is not a positive number")))
    };
    let size = number("page[size]")?.unwrap_or(DEFAULT_PAGE_SIZE).min(MAX_PAGE_SIZE);
    let Some(cursor) = value_of(pairs, "page[after]") else {
        return Ok(Page::Numbered { number: number("page[number]")?.unwrap_or(1), size });
    };
    if value_of(pairs, "page[number]").is_some() {
        return Err(Refusal::keyset("keyset_conflict"));
    }
    // Rows of logs are numbered in the order of their creation, so there both sorts are walks along the id.
    let walkable = match sort {
        [] | [(Field::Id, _)] => true,
        [(Field::Created, _)] => spec.collection.is_log(),
        _ => false,
    };
    if !walkable {
        return Err(Refusal::keyset("keyset_unsupported_sort"));
    }
    let id = match cursor {
        "" => None,
        text => Some(cursor_id(spec, text).ok_or_else(|| Refusal::keyset("keyset_invalid_cursor"))?),
    };
    Ok(Page::After { id, size })
}

/// The cursor behind a record.
pub(super) fn cursor(spec: &Spec, id: u32) -> String {
    format!("{:016x}", ((u64::from(spec.first_id) << 32) | u64::from(id)) ^ CURSOR_KEY)
}

fn cursor_id(spec: &Spec, text: &str) -> Option<u32> {
    let plain = u64::from_str_radix(text, 16).ok()? ^ CURSOR_KEY;
    (plain >> 32 == u64::from(spec.first_id)).then_some(plain as u32)
}

pub(super) fn linkage(spec: &Spec, pairs: &[(String, String)], observer: bool) -> Result<Linkage, Refusal> {
    let Some(value) = value_of(pairs, "include").filter(|value| !value.is_empty()) else { return Ok(Linkage::Named(Vec::new())) };
    if observer && value == "*" {
        return Ok(Linkage::All);
    }
    let names: Vec<String> = value.split(',').map(|name| name.trim().to_owned()).collect();
    let known = |name: &String| name == "organization" || spec.relations.iter().any(|relation| relation.name == name);
    match names.iter().find(|name| !known(name)) {
        Some(name) => Err(Refusal::new(400, "Unsupported Include", format!("Include '{name}' is not supported on this endpoint"))),
        None => Ok(Linkage::Named(names)),
    }
}

/// The includes of a single read.
pub(super) fn single_linkage(collection: C, raw: &str, observer: bool) -> Result<Linkage, Refusal> {
    let pairs: Vec<(String, String)> =
        url::form_urlencoded::parse(raw.as_bytes()).map(|(key, value)| (key.into_owned(), value.into_owned())).collect();
    linkage(collection.spec(), &pairs, observer)
}
