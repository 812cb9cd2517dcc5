//! Addresses.

use bytes::Bytes;
use http::Method;

use super::cursor::{Place, link};
use super::profile::{Replication, Walk};
use super::{Reso, Resuming, Table, stamps};
use crate::clock::Timestamp;
use crate::connectors::escape::escape;
use crate::connectors::{Credential, ListQuery, Request, ResourceSpec};
use crate::model::Key;
use crate::model::ordering::By;

/// Bytes of an address up to which no server in between is known to object.
const URL_BYTES_MAX: usize = 6_000;

pub(super) fn fitting(reso: &Reso, resource: &ResourceSpec, keys: &[Key]) -> usize {
    let table = reso.table(resource);
    let beside = fetch(reso, resource, &[], By::Bulk).url.len();
    let mut left = URL_BYTES_MAX.saturating_sub(beside);
    let fits = |key: &&Key| {
        let bytes = encode(&literal(table, key.as_str())).len() + 1;
        let fits = bytes <= left;
        left = left.saturating_sub(bytes);
        fits
    };
    keys.iter().take(resource.bulk).take_while(fits).count().max(1)
}

pub(super) fn fetch(reso: &Reso, resource: &ResourceSpec, keys: &[Key], by: By) -> Request {
    let table = reso.table(resource);
    let endpoint = format!("/{}", table.name);
    let mut query = Vec::new();
    if by != By::Key {
        let literals: Vec<String> = keys.iter().map(|key| literal(table, key.as_str())).collect();
        let filter = format!("{} in ({})", table.key, literals.join(","));
        query.push(("$filter", every(reso, table, &[filter])));
        query.push(("$top", resource.bulk.to_string()));
        if reso.options.profile.walk == Walk::Keys {
            // A server may serve smaller pages than were asked for.
            query.push(("$count", "true".to_owned()));
        }
        query.extend(projection(reso, table));
        return get(reso, format!("{endpoint}?bulk"), &table.name, &query);
    }
    let key = literal(table, keys.first().map_or("", Key::as_str));
    if table.filter.is_some() {
        // A record alone takes no filter, and it is to be shown by the same one as in lists.
        query.push(("$filter", every(reso, table, &[format!("{} eq {key}", table.key)])));
        query.extend(projection(reso, table));
        return get(reso, endpoint, &table.name, &query);
    }
    query.extend(projection(reso, table));
    get(reso, endpoint, &format!("{}({})", table.name, path_literal(&key)), &query)
}

pub(super) fn list(reso: &Reso, resource: &ResourceSpec, query: ListQuery<'_>) -> Request {
    let table = reso.table(resource);
    let profile = reso.options.profile;
    let size = page_size(reso, table, query.halvings).to_string();
    // What is no place of ours is refused when its answer is read.
    let place = query.cursor.and_then(Place::read);
    if let Some(Place::Link(address, _)) = &place {
        let request = get(reso, format!("/{}", table.name), &table.name, &[]);
        return match link(reso, &table.name, address) {
            Ok(url) => Request { url, ..request },
            Err(_) => request,
        };
    }
    let (mut terms, mut pairs) = (Vec::new(), Vec::new());
    let from = match place {
        Some(Place::Stamp(at, _)) => Some(at),
        _ => query.since,
    };
    terms.extend(from.and_then(|from| since(table, from)));
    if query.since.is_none() {
        terms.extend(profile.visible.map(|field| format!("{field} eq true")));
    }
    let is_keyset = profile.walk == Walk::Keys && !matches!(place, Some(Place::Walk | Place::Skip(_)));
    if let Some(Place::Key(last)) = &place {
        terms.push(format!("{} gt {}", table.key, literal(table, last)));
    }
    pairs.push(("$filter", every(reso, table, &terms)));
    match (&place, is_keyset, query.since) {
        (_, true, None) => pairs.extend([("$orderby", table.key.clone()), ("$top", size.clone())]),
        (_, true, Some(_)) => {
            pairs.extend([
                ("$orderby", table.timestamp.clone().unwrap_or_default()),
                ("$top", size.clone()),
                ("$count", "true".to_owned()),
            ]);
            if let Some(Place::Stamp(_, met @ 1..)) = place {
                pairs.push(("$skip", met.to_string()));
            }
        }
        (Some(Place::Skip(met)), ..) => {
            pairs.extend([("$skip", met.to_string()), ("$top", size.clone()), ("$count", "true".to_owned())]);
        }
        _ if profile.walk == Walk::Keys => pairs.push(("$count", "true".to_owned())),
        _ => pairs.push(("$top", size.clone())),
    }
    let replication = if matches!(place, Some(Place::Walk | Place::Skip(_))) { Replication::Plain } else { profile.replication };
    if replication == Replication::Parameter && query.since.is_none() {
        pairs.push(("replication", "true".to_owned()));
    }
    pairs.extend(projection(reso, table));
    let path = match replication {
        Replication::Path => format!("{}/replication", table.name),
        Replication::Plain | Replication::Parameter => table.name.clone(),
    };
    let mut request = get(reso, format!("/{}", table.name), &path, &pairs);
    if place == Some(Place::Walk) {
        // With `$top` there would be no link to a next page.
        request.headers.push(("prefer".into(), format!("odata.maxpagesize={size}")));
    }
    request
}

/// A request that asks the producer to deliver again.
pub(super) fn resume(reso: &Reso, resuming: &Resuming) -> Request {
    let mut headers = vec![("accept".to_owned(), "application/json".to_owned())];
    headers.extend(resuming.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())));
    if resuming.body.is_some() && !headers.iter().any(|(name, _)| name == "content-type") {
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
    }
    Request {
        method: resuming.method.clone(),
        url: resuming.url.to_string(),
        headers,
        body: resuming.body.clone().map(Bytes::from),
        endpoint: "/resume".to_owned(),
        declared_write: true,
        ..reso.nothing()
    }
}

/// The description of all resources, as XML: the form that every server has.
pub(super) fn describe(reso: &Reso) -> Request {
    let headers = vec![("accept".to_owned(), "application/xml".to_owned())];
    Request { headers, ..get(reso, "/$metadata".to_owned(), "$metadata", &[]) }
}

/// Records of a page; halved where answers were too large.
pub(super) fn page_size(reso: &Reso, table: &Table, halvings: u32) -> usize {
    let profile = reso.options.profile;
    let whole = if table.expand.is_empty() { profile.page } else { profile.page_expanded };
    whole.checked_shr(halvings).unwrap_or(0).max(1)
}

/// Changes from this moment on; a little earlier only asks for more.
fn since(table: &Table, from: Timestamp) -> Option<String> {
    Some(format!("{} ge {}", table.timestamp.as_ref()?, stamps::literal(from)))
}

/// All of these, and what is asked of every record. Empty where nothing is.
fn every(reso: &Reso, table: &Table, terms: &[String]) -> String {
    let system = reso.options.system.as_ref().map(|system| format!("OriginatingSystemName eq {}", quoted(system)));
    let own = table.filter.as_ref().map(|filter| format!("({filter})"));
    system.into_iter().chain(terms.iter().cloned()).chain(own).collect::<Vec<_>>().join(" and ")
}

fn projection(reso: &Reso, table: &Table) -> Vec<(&'static str, String)> {
    let mut pairs = Vec::new();
    if !table.select.is_empty() {
        let parent = table.parent.iter().flat_map(|parent| [Some(parent.key), parent.named_by]).flatten();
        let system = reso.options.system.iter().map(|_| "OriginatingSystemName");
        let needed = [Some(table.key.as_str()), table.timestamp.as_deref(), reso.options.profile.visible];
        let mut fields: Vec<&str> = needed.into_iter().flatten().chain(parent).chain(system).collect();
        let asked: Vec<&str> = table.select.iter().map(String::as_str).filter(|field| !fields.contains(field)).collect();
        fields.extend(asked);
        pairs.push(("$select", fields.join(",")));
    }
    if !table.expand.is_empty() {
        pairs.push(("$expand", table.expand.join(",")));
    }
    pairs
}

/// A key as OData writes it.
fn literal(table: &Table, key: &str) -> String {
    let is_number = table.numeric && key.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if is_number { key.to_owned() } else { quoted(key) }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The literal within a path, where the quotes around it may stand as they are.
fn path_literal(literal: &str) -> String {
    match literal.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        Some(inner) => format!("'{}'", escape(inner, b"_-.")),
        None => escape(literal, b"_-."),
    }
}

pub(super) fn get(reso: &Reso, endpoint: String, path: &str, query: &[(&str, String)]) -> Request {
    let root = reso.options.url.as_str().trim_end_matches('/');
    let query = query.iter().filter(|(_, value)| !value.is_empty());
    let query: Vec<String> = query.map(|(name, value)| format!("{name}={}", encode(value))).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    Request {
        method: Method::GET,
        url: format!("{root}/{path}{mark}{}", query.join("&")),
        headers: vec![("accept".into(), "application/json".into())],
        body: None,
        endpoint,
        credential: Credential::Read,
        declared_write: false,
    }
}

fn encode(text: &str) -> String {
    escape(text, b"_-.,:()")
}
