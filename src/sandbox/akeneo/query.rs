//! What a list is asked: paging, `search`, and which values.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::moment::{self, Zone};
use super::render::Wanted;
use super::resource::{Dates, Paging, Resource as R};
use super::world::World;

/// Items of a page, at most.
pub(super) const LIMIT_MAX: usize = 100;
/// Items of a list by `IN`, at most; by `POST …/search` more.
const IN_MAX: usize = 100;
pub(super) const POSTED_IN_MAX: usize = 800;
/// How far pages by number lead.
const PAGED_MAX: usize = 10_000;
const TOO_FAR: &str = "You have reached the maximum number of pages you can retrieve with the \"page\" pagination type. \
                       Please use the search after pagination type instead";

/// Why a request cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// 1 for the first.
    Page(usize),
    /// Behind this key; the beginning when empty.
    After(String),
}

/// One condition of `search`.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    /// The stamp lies in it; both ends included. `created` or `updated`.
    Stamp {
        created: bool,
        from_s: i64,
        until_s: i64,
        inside: bool,
    },
    Keys(BTreeSet<String>),
    Identifiers(BTreeSet<String>),
    /// A model whose descendants are wanted.
    Below(String),
    /// Direct parents; empty for none at all.
    Parents(BTreeSet<String>),
    Text {
        field: &'static str,
        any_of: BTreeSet<String>,
        inside: bool,
    },
    Flag {
        field: &'static str,
        is: bool,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Query {
    pub(super) from: From,
    pub(super) limit: usize,
    pub(super) with_count: bool,
    pub(super) conditions: Vec<Condition>,
    pub(super) wanted: Wanted,
}

impl Query {
    fn whole() -> Self {
        Self { from: From::Page(1), limit: usize::MAX, with_count: false, conditions: Vec::new(), wanted: Wanted::default() }
    }
}

/// What the parsing depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners<'a> {
    pub(super) world: &'a World,
    pub(super) zone: Zone,
    pub(super) now_s: i64,
    pub(super) in_max: usize,
}

impl<'a> Manners<'a> {
    pub(super) fn new(world: &'a World, zone: Zone, now_s: i64) -> Self {
        Self { world, zone, now_s, in_max: IN_MAX }
    }
}

/// Reads the parameters of a list.
pub(super) fn parse(resource: R, parameters: &BTreeMap<String, String>, manners: &Manners<'_>) -> Result<Query, Refusal> {
    let get = |name: &str| parameters.get(name).map(String::as_str);
    let paging = resource.spec().paging;
    let limit = match get("limit") {
        Some(text) if paging != Paging::SearchAfter => number(text, "limit")?,
        _ if paging == Paging::SearchAfter => LIMIT_MAX,
        _ if paging == Paging::None => return Ok(Query::whole()),
        _ => 10,
    };
    if limit > LIMIT_MAX {
        return Err(Refusal::new(422, format!("You cannot request more than {LIMIT_MAX} items.")));
    }
    let by_cursor = match (paging, get("pagination_type")) {
        (Paging::SearchAfter, _) | (Paging::Both, Some("search_after")) => true,
        (Paging::Both, None | Some("page")) | (Paging::Page | Paging::None, _) => false,
        (Paging::Both, Some(_)) => return Err(Refusal::new(422, "Pagination type does not exist.")),
    };
    let from = if by_cursor {
        From::After(get("search_after").unwrap_or_default().to_owned())
    } else {
        From::Page(get("page").map_or(Ok(1), |text| number(text, "page"))?)
    };
    let too_far = |page: usize| paging == Paging::Both && page.saturating_mul(limit) > PAGED_MAX;
    if matches!(from, From::Page(page) if too_far(page)) {
        return Err(Refusal::new(422, TOO_FAR));
    }
    let wanted = if resource.has_values() { wanted(parameters, manners)? } else { Wanted::default() };
    let conditions = get("search").map_or(Ok(Vec::new()), |text| search(resource, text, manners))?;
    Ok(Query { from, limit, with_count: get("with_count") == Some("true"), conditions, wanted })
}

fn number(text: &str, name: &str) -> Result<usize, Refusal> {
    let refusal = || Refusal::new(422, format!("\"{text}\" is not a valid {name} number."));
    text.parse().ok().filter(|number| *number > 0).ok_or_else(refusal)
}

fn wanted(parameters: &BTreeMap<String, String>, manners: &Manners<'_>) -> Result<Wanted, Refusal> {
    let list = |name: &str| parameters.get(name).map(|text| text.split(',').map(|part| part.trim().to_owned()).collect::<BTreeSet<_>>());
    let wanted = Wanted { scope: parameters.get("scope").cloned(), locales: list("locales"), attributes: list("attributes") };
    if let Some(scope) = wanted.scope.as_ref().filter(|scope| manners.world.get(R::Channels, scope).is_none()) {
        return Err(Refusal::new(422, format!("Scope \"{scope}\" does not exist.")));
    }
    for locale in wanted.locales.iter().flatten() {
        let found = manners.world.get(R::Locales, locale);
        if found.is_none_or(|found| found.document.get("enabled") != Some(&Value::Bool(true))) {
            return Err(Refusal::new(422, format!("Locale \"{locale}\" does not exist or is not activated.")));
        }
    }
    for attribute in wanted.attributes.iter().flatten() {
        if manners.world.get(R::Attributes, attribute).is_none() {
            return Err(Refusal::new(422, format!("Attribute \"{attribute}\" does not exist.")));
        }
    }
    Ok(wanted)
}

fn search(resource: R, text: &str, manners: &Manners<'_>) -> Result<Vec<Condition>, Refusal> {
    let document: Value = serde_json::from_str(text).map_err(|_| Refusal::new(400, "Search query parameter should be valid JSON."))?;
    let Some(properties) = document.as_object() else {
        let is_empty = document.as_array().is_some_and(Vec::is_empty);
        return if is_empty { Ok(Vec::new()) } else { Err(Refusal::new(400, "Search query parameter has to be an object.")) };
    };
    let mut conditions = Vec::new();
    for (property, filters) in properties {
        let structure = || {
            Refusal::new(
                422,
                format!(
                    "Structure of filter \"{property}\" should respect this structure: {{\"{property}\":[{{\"operator\": \"my_operator\", \"value\": \"my_value\"}}]}}"
                ),
            )
        };
        for filter in filters.as_array().ok_or_else(structure)? {
            let filter = filter.as_object().ok_or_else(structure)?;
            let Some(operator) = filter.get("operator").and_then(Value::as_str) else {
                return Err(Refusal::new(422, format!("Operator is missing for the property \"{property}\".")));
            };
            conditions.push(condition(resource, property, operator, filter.get("value").unwrap_or(&Value::Null), manners)?);
        }
    }
    Ok(conditions)
}

fn condition(resource: R, property: &str, operator: &str, value: &Value, manners: &Manners<'_>) -> Result<Condition, Refusal> {
    let unsupported =
        || Refusal::new(422, format!("Filter on property \"{property}\" is not supported or does not support operator \"{operator}\"."));
    let texts = || texts(property, value, manners.in_max);
    let inside = !operator.starts_with("NOT");
    Ok(match (property, operator) {
        ("updated" | "created", _) => stamp(resource, property, operator, value, manners)?.ok_or_else(unsupported)?,
        ("uuid", "IN") if resource == R::Products => Condition::Keys(texts()?),
        ("identifier", "IN") if resource == R::Products => Condition::Identifiers(texts()?),
        ("identifier", "IN") if resource == R::ProductModels => Condition::Keys(texts()?),
        ("identifier", "=") if resource.has_values() => {
            let one = [value.as_str().ok_or_else(unsupported)?.to_owned()].into();
            if resource == R::Products { Condition::Identifiers(one) } else { Condition::Keys(one) }
        }
        ("parent", "=") if resource.has_values() => Condition::Below(value.as_str().ok_or_else(unsupported)?.to_owned()),
        ("parent", "IN") if resource.has_values() => Condition::Parents(texts()?),
        ("parent", "EMPTY") if resource.has_values() => Condition::Parents(BTreeSet::new()),
        ("parent", "=") if resource == R::Categories => {
            Condition::Text { field: "parent", any_of: [value.as_str().ok_or_else(unsupported)?.to_owned()].into(), inside: true }
        }
        ("family", "IN" | "NOT IN") if resource.has_values() => Condition::Text { field: "family", any_of: texts()?, inside },
        ("enabled", "=" | "!=") if matches!(resource, R::Products | R::Locales | R::Currencies) => {
            let asked = value.as_bool().ok_or_else(unsupported)?;
            Condition::Flag { field: "enabled", is: asked == (operator == "=") }
        }
        ("type", "IN") if resource == R::Attributes => Condition::Text { field: "type", any_of: texts()?, inside: true },
        ("code", "IN") if has_codes(resource) => Condition::Keys(texts()?),
        _ => return Err(unsupported()),
    })
}

/// Kinds whose lists know `code IN`.
fn has_codes(resource: R) -> bool {
    matches!(
        resource,
        R::Families | R::Attributes | R::AttributeGroups | R::Categories | R::Channels | R::Assets | R::ReferenceEntityRecords
    )
}

fn texts(property: &str, value: &Value, max: usize) -> Result<BTreeSet<String>, Refusal> {
    let list = value.as_array().ok_or_else(|| Refusal::new(422, format!("Property \"{property}\" expects an array as data.")))?;
    if list.len() > max {
        return Err(Refusal::new(422, format!("Property \"{property}\" accepts at most {max} items.")));
    }
    let text = |item: &Value| item.as_str().map(ToOwned::to_owned);
    list.iter().map(text).collect::<Option<_>>().ok_or_else(|| Refusal::new(422, format!("Property \"{property}\" expects texts.")))
}

/// A condition on a stamp; none where the kind does not know it.
fn stamp(resource: R, property: &str, operator: &str, value: &Value, manners: &Manners<'_>) -> Result<Option<Condition>, Refusal> {
    let (created, dates) = (property == "created", resource.spec().dates);
    let known = match dates {
        Dates::None => false,
        Dates::After => !created && operator == ">",
        Dates::Iso => !created,
        Dates::Zoneless => true,
    };
    if !known {
        return Ok(None);
    }
    let read = |value: &Value| {
        let text = value.as_str().unwrap_or_default();
        let (read, format) = match dates {
            Dates::Zoneless => (manners.zone.read_zoneless(text), "yyyy-mm-dd H:i:s"),
            _ => (moment::read_iso(text), "ISO 8601"),
        };
        read.ok_or_else(|| {
            Refusal::new(422, format!("Property \"{property}\" expects a string with the format \"{format}\" as data, {value} given."))
        })
    };
    let pair = || {
        let list = value.as_array().filter(|list| list.len() == 2);
        let list = list.ok_or_else(|| Refusal::new(422, format!("Property \"{property}\" should contain two dates.")))?;
        Ok::<_, Refusal>((read(&list[0])?, read(&list[1])?))
    };
    let (from_s, until_s, inside) = match operator {
        ">" => (read(value)? + 1, i64::MAX, true),
        "<" => (i64::MIN, read(value)? - 1, true),
        "=" | "!=" => {
            let at_s = read(value)?;
            (at_s, at_s, operator == "=")
        }
        "BETWEEN" | "NOT BETWEEN" => {
            let (from_s, until_s) = pair()?;
            (from_s, until_s, operator == "BETWEEN")
        }
        "SINCE LAST N DAYS" => {
            let days = value.as_i64().ok_or_else(|| Refusal::new(422, format!("Property \"{property}\" expects a number of days.")))?;
            (manners.now_s.saturating_sub(days.saturating_mul(86_400)), i64::MAX, true)
        }
        _ => return Ok(None),
    };
    Ok(Some(Condition::Stamp { created, from_s, until_s, inside }))
}
