//! The requests that Productive is asked: URLs with strictly encoded queries, always on the configured root.

use bytes::Bytes;
use http::Method;

use super::catalog::{Changes, HOOK_EVENTS, Kind};
use super::{PAGE_SIZE, Productive, kind};
use crate::connectors::escape::escape;
use crate::connectors::{Credential, FeedPosition, FeedSpec, ListQuery, Registration, Request, ResourceSpec};
use crate::model::Key;
use crate::model::ordering::By;

/// With it a date-time filter compares instants; without it the vendor cuts them to their day.
const EXACT_INSTANTS: (&str, &str) = ("x-feature-flags", "filteringSkipDatetimeCastToDate");
const JSON_API: &str = "application/vnd.api+json";

pub(super) fn fetch(productive: &Productive, resource: &ResourceSpec, keys: &[Key], by: By) -> Request {
    let kind = known(resource);
    let mut query = projection(productive, kind);
    match by {
        By::Key => {
            let key = keys.first().map_or("", Key::as_str);
            get(productive, &format!("/{}", kind.name), &format!("{}/{}", kind.name, encode(key)), &query)
        }
        By::Bulk | By::List => {
            let ids: Vec<&str> = keys.iter().map(Key::as_str).collect();
            query.push(("filter[id]".into(), ids.join(",")));
            if kind.name == "projects" {
                query.push(("filter[with_templates]".into(), "true".into()));
            }
            query.push(("page[size]".into(), PAGE_SIZE.to_string()));
            get(productive, &format!("/{}?bulk", kind.name), kind.name, &query)
        }
    }
}

pub(super) fn list(productive: &Productive, resource: &ResourceSpec, query: ListQuery<'_>) -> Request {
    let kind = known(resource);
    let mut pairs = projection(productive, kind);
    let variant = kind.variants.get(query.variant).copied().unwrap_or_default();
    pairs.extend(variant.split('&').filter_map(|pair| pair.split_once('=')).map(|(n, v)| (n.into(), v.into())));
    match (query.since, kind.changes) {
        (Some(since), Changes::Since(field)) => pairs.push((format!("filter[{field}][gt_eq]"), since.to_string())),
        (Some(since), Changes::SinceDay(field)) => {
            let day: String = since.to_string().chars().take(10).collect();
            pairs.push((format!("filter[{field}][gt_eq]"), day));
        }
        (Some(_), Changes::Newest(field)) => {
            // A sort rules out cursor mode, so these pages are numbered.
            pairs.push(("sort".into(), format!("-{field}")));
            pairs.push(("page[number]".into(), query.cursor.unwrap_or("1").to_owned()));
            pairs.push(("page[size]".into(), PAGE_SIZE.to_string()));
            return get(productive, &format!("/{}", kind.name), kind.name, &pairs);
        }
        _ => {}
    }
    pairs.push(("page[after]".into(), query.cursor.unwrap_or_default().to_owned()));
    pairs.push(("page[size]".into(), PAGE_SIZE.checked_shr(query.halvings).unwrap_or(0).max(1).to_string()));
    get(productive, &format!("/{}", kind.name), kind.name, &pairs)
}

pub(super) fn feed(productive: &Productive, feed: &FeedSpec, position: FeedPosition<'_>) -> Request {
    let FeedPosition::Stamp { since, cursor } = position else { unreachable!("no feed of it is ordered by numbers") };
    let filter = if feed.name == "activities" { "filter[after]" } else { "filter[created_at][gt_eq]" };
    let pairs = [
        (filter.to_owned(), since.to_string()),
        ("sort".to_owned(), "created_at".to_owned()),
        ("page[number]".to_owned(), cursor.unwrap_or("1").to_owned()),
        ("page[size]".to_owned(), PAGE_SIZE.to_string()),
    ];
    get(productive, &format!("/{}", feed.name), feed.name, &pairs)
}

pub(super) fn list_registrations(productive: &Productive, cursor: Option<&str>) -> Request {
    let pairs = [("page[number]".to_owned(), cursor.unwrap_or("1").to_owned()), ("page[size]".to_owned(), PAGE_SIZE.to_string())];
    Request { credential: Credential::Manage, ..get(productive, "/webhooks", "webhooks", &pairs) }
}

pub(super) fn create_registration(productive: &Productive, registration: &Registration, target: &str) -> Request {
    let event_id = HOOK_EVENTS.iter().find(|event| event.route == registration.route).map_or(0, |event| event.id);
    let body = serde_json::json!({ "data": { "type": "webhooks", "attributes": {
        "name": registration.title, "event_id": event_id, "type_id": 1, "target_url": target } } });
    Request {
        method: Method::POST,
        body: Some(Bytes::from(body.to_string())),
        declared_write: true,
        credential: Credential::Manage,
        ..get(productive, "/webhooks", "webhooks", &[])
    }
}

pub(super) fn delete_registration(productive: &Productive, id: &str) -> Request {
    Request {
        method: Method::DELETE,
        declared_write: true,
        credential: Credential::Manage,
        ..get(productive, "/webhooks", &format!("webhooks/{}", encode(id)), &[])
    }
}

fn known(resource: &ResourceSpec) -> &'static Kind {
    kind(resource.name.as_str()).expect("invariant: a spec is made from the catalog")
}

fn projection(productive: &Productive, kind: &Kind) -> Vec<(String, String)> {
    let include = productive.relations(kind).collect::<Vec<_>>().join(",");
    if include.is_empty() { Vec::new() } else { vec![("include".into(), include)] }
}

fn get(productive: &Productive, endpoint: &str, path: &str, query: &[(String, String)]) -> Request {
    let root = productive.options.url.as_str().trim_end_matches('/');
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    Request {
        method: Method::GET,
        url: format!("{root}/{path}{mark}{}", query.join("&")),
        headers: vec![
            ("content-type".into(), JSON_API.into()),
            ("accept".into(), JSON_API.into()),
            (EXACT_INSTANTS.0.into(), EXACT_INSTANTS.1.into()),
        ],
        body: None,
        endpoint: endpoint.to_owned(),
        credential: Credential::Read,
        declared_write: false,
    }
}

/// The vendor's guide escapes even `-`.
fn encode(text: &str) -> String {
    escape(text, b"_.")
}
