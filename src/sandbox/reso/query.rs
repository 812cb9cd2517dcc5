//! The system query options of a collection.

use super::filter::{self, Filter, Manners};
use super::options::{Options, Profile};
use super::resource::Resource;

/// An answer that says no, in OData's words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

/// What is asked of a collection.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    pub(super) filter: Option<Filter>,
    pub(super) select: Vec<String>,
    /// Fields, and whether they descend.
    pub(super) orderby: Vec<(String, bool)>,
    pub(super) top: Option<usize>,
    pub(super) skip: usize,
    pub(super) token: Option<String>,
    pub(super) count: bool,
}

impl Query {
    /// Whether nothing but the key is asked for.
    pub(super) fn is_keys_only(&self, resource: Resource) -> bool {
        self.select.len() == 1 && self.select[0] == resource.key()
    }
}

/// Reads the options that this producer knows; all others are refused.
pub(super) fn parse(resource: Resource, parameters: &[(String, String)], options: &Options) -> Result<Query, Refusal> {
    let bad = |message: String| Refusal::new(400, message);
    let number = |name: &str, value: &str| value.parse::<usize>().map_err(|_| bad(format!("{name} is no number: {value}")));
    let manners = Manners { no_key_order: options.no_key_order, no_in: options.no_in };
    let mut query = Query::default();
    for (name, value) in parameters {
        match name.as_str() {
            "$filter" => query.filter = Some(filter::parse(resource, value, manners).map_err(bad)?),
            "$select" => query.select = fields(resource, value)?,
            "$orderby" if options.no_orderby => return Err(bad("$orderby is not supported".to_owned())),
            "$orderby" => query.orderby = order(resource, value)?,
            "$top" => query.top = Some(number(name, value)?),
            "$skip" => query.skip = number(name, value)?,
            "$skiptoken" => query.token = Some(value.clone()),
            "$count" => query.count = value == "true",
            _ => return Err(bad(format!("the query option {name} is not supported"))),
        }
    }
    if options.profile == Profile::Mlsgrid && resource != Resource::EntityEvent {
        let filter = query.filter.as_ref();
        if filter.map_or(0, |filter| filter.equals("OriginatingSystemName")) != 1 {
            return Err(bad("exactly one OriginatingSystemName eq is required in $filter".to_owned()));
        }
        if filter.is_some_and(|filter| filter.n_or() > 5) {
            return Err(bad("at most 5 or are allowed in $filter".to_owned()));
        }
    }
    Ok(query)
}

fn fields(resource: Resource, text: &str) -> Result<Vec<String>, Refusal> {
    let known = |name: &str| match resource.kind(name) {
        Some(_) => Ok(name.to_owned()),
        None => Err(Refusal::new(400, format!("{} has no field {name}", resource.name()))),
    };
    text.split(',').map(|name| known(name.trim())).collect()
}

fn order(resource: Resource, text: &str) -> Result<Vec<(String, bool)>, Refusal> {
    let one = |part: &str| {
        let (name, descends) = match part.trim().split_once(' ') {
            None => (part.trim(), false),
            Some((name, "asc")) => (name, false),
            Some((name, "desc")) => (name, true),
            Some(_) => return Err(Refusal::new(400, format!("$orderby cannot be read: {part}"))),
        };
        Ok((fields(resource, name)?.remove(0), descends))
    };
    text.split(',').map(one).collect()
}
