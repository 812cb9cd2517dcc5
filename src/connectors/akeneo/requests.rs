//! The requests that Akeneo is asked: always on the configured root, with every part of a path and query escaped.

use http::Method;
use serde_json::json;

use super::catalog::{Changes, Kind, Paging};
use super::cursor::{ABOVE_PAGE, Place};
use super::{Akeneo, ProductKey, ResourceOptions, kind};
use crate::clock::Timestamp;
use crate::connectors::escape::escape;
use crate::connectors::{Credential, ListQuery, Request, ResourceSpec};
use crate::model::Key;
use crate::model::ordering::By;

/// Largest page the vendor serves, and the most keys that a search may name.
pub(super) const PAGE_SIZE: usize = 100;
/// Bytes of an address up to which no server in between is known to object.
const URL_BYTES_MAX: usize = 7_000;
/// Bytes of an address that are not keys: origin, path, projection.
const URL_BYTES_BESIDE: usize = 1_500;

/// How many keys fit into the address of one search.
pub(super) fn fitting(keys: &[Key]) -> usize {
    let mut left = URL_BYTES_MAX - URL_BYTES_BESIDE;
    let fits = |key: &&Key| {
        let bytes = encode(&json!(key.as_str()).to_string()).len() + encode(",").len();
        let fits = bytes <= left;
        left = left.saturating_sub(bytes);
        fits
    };
    keys.iter().take(PAGE_SIZE).take_while(fits).count().max(1)
}

pub(super) fn fetch(akeneo: &Akeneo, resource: &ResourceSpec, keys: &[Key], by: By) -> Request {
    let kind = known(resource);
    let key = keys.first().map_or("", Key::as_str);
    match (by, kind.above) {
        (By::Key, _) if kind.paging == Paging::Whole => get(akeneo, format!("/{}", kind.path), kind.path, &[]),
        (By::Key, Some(_)) => {
            let (above, code) = key.split_once('/').unwrap_or((key, key));
            get(akeneo, format!("/{}", kind.name), &format!("{}/{}", path(akeneo, kind, Some(above)), encode(code)), &[])
        }
        (By::Key, None) => get(akeneo, format!("/{}", kind.name), &format!("{}/{}", path(akeneo, kind, None), encode(key)), &[]),
        (By::Bulk | By::List, _) => {
            let codes: Vec<&str> = keys.iter().map(Key::as_str).collect();
            let mut query = vec![("limit", PAGE_SIZE.to_string())];
            if let Some(property) = bulk_property(akeneo, kind) {
                query.push(("search", json!({ property: [{ "operator": "IN", "value": codes }] }).to_string()));
            }
            query.extend(projection(akeneo.resource(kind)));
            get(akeneo, format!("/{}?bulk", kind.name), &path(akeneo, kind, None), &query)
        }
    }
}

pub(super) fn list(akeneo: &Akeneo, resource: &ResourceSpec, query: ListQuery<'_>) -> Request {
    let kind = known(resource);
    let endpoint = format!("/{}", kind.name);
    let Some(above) = kind.above else {
        let pairs = page(akeneo, kind, query.since, query.cursor, query.halvings);
        return get(akeneo, endpoint, &path(akeneo, kind, None), &pairs);
    };
    // What is no place of ours is refused when its answer is read.
    let place = Place::read(query.cursor).unwrap_or_default();
    match place.left.first() {
        Some(code) => {
            let pairs = page(akeneo, kind, query.since, place.page.as_deref(), 0);
            get(akeneo, endpoint, &path(akeneo, kind, Some(code)), &pairs)
        }
        None => get(akeneo, endpoint, above.path, &walk(above.paging, ABOVE_PAGE, place.above.as_deref())),
    }
}

/// The path of a kind's list, below the record of this code where it is nested.
pub(super) fn path(akeneo: &Akeneo, kind: &Kind, above: Option<&str>) -> String {
    match (kind.above, above) {
        (Some(nest), Some(code)) => format!("{}/{}/{}", nest.path, encode(code), kind.path),
        _ if kind.name == "products" && akeneo.options.product_key == ProductKey::Identifier => "products".to_owned(),
        _ => kind.path.to_owned(),
    }
}

fn bulk_property(akeneo: &Akeneo, kind: &Kind) -> Option<&'static str> {
    let by_identifier = kind.name == "products" && akeneo.options.product_key == ProductKey::Identifier;
    if by_identifier { Some("identifier") } else { kind.bulk }
}

fn page(akeneo: &Akeneo, kind: &Kind, since: Option<Timestamp>, cursor: Option<&str>, halvings: u32) -> Vec<(&'static str, String)> {
    let size = if kind.paging == Paging::Keys { PAGE_SIZE.checked_shr(halvings).unwrap_or(0).max(1) } else { PAGE_SIZE };
    let mut pairs = walk(kind.paging, size, cursor);
    // The filter means later than, to the second; the bound is inclusive.
    let bound = since.map(|since| since.seconds().saturating_sub(1));
    let value = bound.and_then(|seconds| match kind.changes {
        Changes::Local => civil(seconds.saturating_add(akeneo.options.zone_seconds.into()), ' ', ""),
        Changes::Instant => civil(seconds, 'T', "Z"),
        Changes::None => None,
    });
    pairs.extend(value.map(|value| ("search", json!({ "updated": [{ "operator": ">", "value": value }] }).to_string())));
    pairs.extend(projection(akeneo.resource(kind)));
    pairs
}

fn walk(paging: Paging, size: usize, cursor: Option<&str>) -> Vec<(&'static str, String)> {
    let mut pairs = Vec::new();
    match paging {
        Paging::Keys => {
            pairs.extend([("pagination_type", "search_after".to_owned()), ("limit", size.to_string())]);
            pairs.extend(cursor.map(|cursor| ("search_after", cursor.to_owned())));
        }
        Paging::KeysUnsized => pairs.extend(cursor.map(|cursor| ("search_after", cursor.to_owned()))),
        Paging::Numbers => pairs.extend([("page", cursor.unwrap_or("1").to_owned()), ("limit", size.to_string())]),
        Paging::Whole => {}
    }
    pairs
}

/// What of the values is asked for. A channel alone would hide locales in a way that only the upstream can tell, so it goes along only
/// with locales; what is left too much is cut when the answer is read, as in reads of single records, which take no such wishes.
fn projection(set: Option<&ResourceOptions>) -> Vec<(&'static str, String)> {
    let Some(set) = set else { return Vec::new() };
    let mut pairs = Vec::new();
    if !set.locales.is_empty() {
        pairs.extend(set.scope.clone().map(|scope| ("scope", scope)));
        pairs.push(("locales", set.locales.join(",")));
    }
    if !set.attributes.is_empty() {
        pairs.push(("attributes", set.attributes.join(",")));
    }
    pairs
}

/// Date and time of day of a moment; `None` where the calendar ends.
fn civil(seconds: i64, between: char, after: &str) -> Option<String> {
    let text = Timestamp(seconds.checked_mul(1_000_000)?).to_string();
    let (date, time) = text.get(..19)?.split_once('T')?;
    Some(format!("{date}{between}{time}{after}"))
}

fn known(resource: &ResourceSpec) -> &'static Kind {
    kind(resource.name.as_str()).expect("invariant: a spec is made from the catalog")
}

pub(super) fn get(akeneo: &Akeneo, endpoint: String, path: &str, query: &[(&str, String)]) -> Request {
    let root = akeneo.options.url.as_str().trim_end_matches('/');
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    Request {
        method: Method::GET,
        url: format!("{root}/api/rest/v1/{path}{mark}{}", query.join("&")),
        headers: vec![("accept".into(), "application/json".into())],
        body: None,
        endpoint,
        credential: Credential::Read,
        declared_write: false,
    }
}

pub(super) fn encode(text: &str) -> String {
    escape(text, b"_-.")
}
