//! What Productive's answers and deliveries mean.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::catalog::{HOOK_EVENTS, resource_of_item};
use super::{Productive, kind};
use crate::clock::Timestamp;
use crate::connectors::{
    FeedPage, FeedRow, FeedSpec, Ignored, Page, ReadError, Record, Registered, RegistrationError, ResourceSpec, Response, Statements,
    Unreadable, alone,
};
use crate::model::document::{Json, Parsed, Shape, decode, raw_at, split_records};
use crate::model::ordering::By;
use crate::model::{Delivery, Document, Entity, Event, Key, Operation, Push, Version};

/// Changes with every comment and every visit; stored, but no change of the record.
const VOLATILE: &[&str] = &["/attributes/last_activity_at", "/attributes/last_seen_at"];

pub(super) fn events(productive: &Productive, delivery: &Delivery) -> Result<Statements, Unreadable> {
    let unreadable = |reason: &str| Unreadable { key: None, reason: reason.to_owned(), raw: delivery.request.body.clone() };
    let Some(hook) = HOOK_EVENTS.iter().find(|event| event.route == delivery.request.route) else {
        return Err(unreadable("the route is none of productive's"));
    };
    let parsed = Parsed::read(&delivery.request.body).map_err(|error| unreadable(&error.to_string()))?;
    let object = parsed.json.pointer("/object/data/id");
    let id = object.or_else(|| parsed.json.get("item_id")).and_then(Json::as_id);
    let key = id.and_then(|id| Key::new(id).ok()).ok_or_else(|| unreadable("the delivery names no record"))?;
    let Some(resource) = productive.replicates(hook.resource) else {
        let ignored = vec![Ignored { resource: hook.resource, reason: "not_replicated" }];
        return Ok(Statements { ignored, ..Statements::default() });
    };
    let version = kind(hook.resource).and_then(|kind| version_of(kind.version, parsed.json.pointer("/object/data/attributes")));
    Ok(vec![Event { entity: Entity { resource, key }, operation: hook.operation, version, push: Push::Hint, sequence: None, via: "hook" }]
        .into())
}

pub(super) fn page(productive: &Productive, resource: &ResourceSpec, by: By, response: &Response) -> Result<Page, ReadError> {
    failure(response)?;
    let (text, lossy) = decode(&response.body);
    if by == By::Key {
        let data = raw_at(&text, "/data").ok().flatten().ok_or(ReadError::Malformed("no `data`"))?;
        return Ok(Page { records: vec![record_alone(productive, resource, data, lossy)], next: None });
    }
    let records = split_records(&text, "/data").map_err(|_| ReadError::Malformed("no list in `data`"))?;
    let records = records.into_iter().map(|raw| record_alone(productive, resource, raw, lossy)).collect();
    Ok(Page { records, next: next_page(&text)? })
}

fn record_alone(productive: &Productive, resource: &ResourceSpec, raw: &RawValue, lossy: bool) -> Result<Record, Unreadable> {
    let bytes = || Bytes::copy_from_slice(raw.get().as_bytes());
    let panicked = || Unreadable { key: key_of(raw), reason: "the connector panicked on it".to_owned(), raw: bytes() };
    alone(panicked, || record(productive, resource, raw, lossy))
}

fn record(productive: &Productive, resource: &ResourceSpec, raw: &RawValue, lossy: bool) -> Result<Record, Unreadable> {
    let bytes = raw.get().as_bytes();
    let unreadable = |key: Option<Key>, reason: String| Unreadable { key, reason, raw: Bytes::copy_from_slice(bytes) };
    let mut parsed = match Parsed::read(bytes) {
        Ok(parsed) => parsed,
        Err(error) => return Err(unreadable(key_of(raw), error.to_string())),
    };
    // Of a page with bytes that are no UTF-8 only those records suffer that held some.
    parsed.lossy |= lossy && raw.get().contains('\u{FFFD}');
    let key = parsed.json.get("id").and_then(Json::as_id).and_then(|id| Key::new(id).ok());
    let Some(key) = key else { return Err(unreadable(None, "the record has no usable id".to_owned())) };
    let Some(kind) = kind(resource.name.as_str()) else { return Err(unreadable(Some(key), "the resource is unknown".to_owned())) };
    if let Err(reason) = keep_linked_relations(&mut parsed.json, productive.relations(kind)) {
        return Err(unreadable(Some(key), reason));
    }
    let attributes = parsed.json.get("attributes");
    let version = version_of(kind.version, attributes);
    let stamp = |name: &str| attributes.and_then(|a| a.get(name)).and_then(Json::as_str).and_then(Timestamp::parse);
    let changed_at = match kind.changes {
        super::Changes::Since(field) | super::Changes::SinceDay(field) | super::Changes::Newest(field) => stamp(field),
        super::Changes::None => None,
    };
    let shape = Shape { exclude: productive.options.exclude.clone(), volatile: volatile(resource) };
    Ok(Record { key, version, changed_at, document: Document::new(parsed, &shape, bytes), parent: None, in_scope: true })
}

/// What is left out of the hash of a resource's records.
pub(super) fn volatile(resource: &ResourceSpec) -> Vec<String> {
    let version = kind(resource.name.as_str()).and_then(|kind| kind.version);
    let fixed = VOLATILE.iter().map(|pointer| (*pointer).to_owned());
    fixed.chain(version.map(|field| format!("/attributes/{field}"))).collect()
}

/// Drops relations without linkage, which say nothing; refuses a record in which one that was asked for has none, since
/// storing it would erase a foreign key, or one that leads to what cannot be a key, which PostgreSQL could not index.
fn keep_linked_relations<'a>(json: &mut Json, asked: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let Some(Json::Object(relations)) = json.pointer_mut("/relationships") else { return Ok(()) };
    for name in asked {
        if relations.get(name).is_some_and(|relation| relation.get("data").is_none()) {
            return Err(format!("the relation `{name}` was asked for and came back without linkage"));
        }
        let id = relations.get(name).and_then(|relation| relation.pointer("/data/id")).filter(|id| !id.is_null());
        if id.is_some_and(|id| id.as_id().is_none_or(|id| Key::new(id).is_err())) {
            return Err(format!("the relation `{name}` leads to no usable key"));
        }
    }
    relations.retain(|_, relation| relation.get("data").is_some());
    for relation in relations.values_mut() {
        if let Json::Object(parts) = relation {
            parts.retain(|part, _| &**part == "data");
        }
    }
    Ok(())
}

fn version_of(field: Option<&'static str>, attributes: Option<&Json>) -> Option<Version> {
    let field = field?;
    Version::stamp(&Arc::from(field), attributes?.get(field)?.as_str()?)
}

/// The key of a record that cannot be read as a whole.
fn key_of(raw: &RawValue) -> Option<Key> {
    let id = Parsed::read(raw_at(raw.get(), "/id").ok().flatten()?.get().as_bytes()).ok()?;
    Key::new(id.json.as_id()?).ok()
}

/// Where the next page is: the cursor inside `links.next`, or the next page's number. Never a URL, so none is ever followed.
fn next_page(text: &str) -> Result<Option<String>, ReadError> {
    let malformed = |_| ReadError::Malformed("`links` or `meta` cannot be read");
    let next = raw_at(text, "/links/next").map_err(malformed)?;
    if let Some(link) = next.and_then(|raw| serde_json::from_str::<Option<String>>(raw.get()).ok()).flatten() {
        let base = url::Url::parse("http://relative.invalid/").map_err(|_| ReadError::Malformed("`links.next` is no URL"))?;
        let url = base.join(&link).map_err(|_| ReadError::Malformed("`links.next` is no URL"))?;
        let value = |name: &str| url.query_pairs().find(|(n, _)| n == name).map(|(_, value)| value.into_owned());
        return Ok(value("page[after]").or_else(|| value("page[number]")));
    }
    let number = |pointer| raw_at(text, pointer).map(|raw| raw.and_then(|raw| raw.get().parse::<u64>().ok())).map_err(malformed);
    match (number("/meta/current_page")?, number("/meta/total_pages")?) {
        (Some(current), Some(total)) if current < total => Ok(Some((current + 1).to_string())),
        _ => Ok(None),
    }
}

pub(super) fn feed_page(productive: &Productive, feed: &FeedSpec, response: &Response) -> Result<FeedPage, ReadError> {
    failure(response)?;
    let (text, _) = decode(&response.body);
    let rows = split_records(&text, "/data").map_err(|_| ReadError::Malformed("no list in `data`"))?;
    let rows = rows.into_iter().map(|raw| feed_row(productive, feed, raw)).collect();
    Ok(FeedPage { rows, next: next_page(&text)? })
}

fn feed_row(productive: &Productive, feed: &FeedSpec, raw: &RawValue) -> Result<FeedRow, Unreadable> {
    let unreadable = |reason: String| Unreadable { key: None, reason, raw: Bytes::copy_from_slice(raw.get().as_bytes()) };
    let row = Parsed::read(raw.get().as_bytes()).map_err(|error| unreadable(error.to_string()))?.json;
    let id = row.get("id").and_then(Json::as_id).ok_or_else(|| unreadable("the row has no id".to_owned()))?.to_owned();
    let attribute = |name: &str| row.get("attributes").and_then(|attributes| attributes.get(name)).filter(|value| !value.is_null());
    let at = attribute("created_at").and_then(Json::as_str).and_then(Timestamp::parse);
    let (resource, key) = if feed.name == "time_entry_versions" {
        let linked = row.pointer("/relationships/time_entry/data/id");
        (Some("time_entries"), attribute("time_entry_id").or_else(|| attribute("item_id")).or(linked))
    } else {
        (attribute("item_type").and_then(Json::as_str).and_then(resource_of_item), attribute("item_id"))
    };
    let word = attribute("event").and_then(Json::as_str).unwrap_or_default();
    let gone = if feed.name == "deleted_items" {
        attribute("recovered_at").is_none()
    } else {
        // The contract's own examples disagree on the word.
        matches!(word, "delete" | "destroy") || attribute("item_deleted_at").is_some()
    };
    let operation = if gone { Operation::Delete } else { Operation::Update };
    let entity = resource.and_then(|name| productive.replicates(name)).zip(key.and_then(Json::as_id).and_then(|id| Key::new(id).ok()));
    let event = entity.map(|(resource, key)| Event {
        entity: Entity { resource, key },
        operation,
        version: None,
        push: Push::Hint,
        sequence: None,
        via: "feed",
    });
    // A row that was recovered meanwhile is another statement than the deletion it was before.
    let id = if attribute("recovered_at").is_some() { format!("{id}/recovered") } else { id };
    Ok(FeedRow { id, number: None, at, event })
}

pub(super) fn registrations(
    response: &Response,
    target: &dyn Fn(&str) -> String,
) -> Result<(Vec<Registered>, Option<String>), RegistrationError> {
    if response.status == 403 {
        let limited = response.body.windows(b"webhooks_limit_exceeded".len()).any(|window| window == b"webhooks_limit_exceeded");
        return Err(if limited { RegistrationError::NotInPlan } else { RegistrationError::ReadOnly });
    }
    failure(response)?;
    let (text, _) = decode(&response.body);
    let data = raw_at(&text, "/data").ok().flatten();
    let json = data.and_then(|raw| Parsed::read(raw.get().as_bytes()).ok()).map(|parsed| parsed.json);
    let rows = match json {
        Some(Json::Array(rows)) => rows,
        Some(row @ Json::Object(_)) => vec![row],
        _ => return Err(ReadError::Malformed("no `data`").into()),
    };
    let registered = rows.iter().filter_map(|row| registered(row, target)).collect();
    Ok((registered, next_page(&text)?))
}

fn registered(row: &Json, target: &dyn Fn(&str) -> String) -> Option<Registered> {
    let attribute = |name: &str| row.pointer("/attributes").and_then(|attributes| attributes.get(name)).filter(|value| !value.is_null());
    let url = attribute("target_url").and_then(Json::as_str);
    let route = HOOK_EVENTS.iter().map(|event| event.route).find(|route| url == Some(target(route).as_str()));
    let deactivated = attribute("deactivated_at").is_some();
    let state = match attribute("state_id").and_then(Json::as_i64) {
        _ if deactivated => "deactivated",
        Some(1) => "working",
        Some(2) => "issues",
        _ => "waiting",
    };
    Some(Registered {
        // Checked like a key, for it becomes a part of the path of its removal.
        id: row.get("id").and_then(Json::as_id).and_then(|id| Key::new(id).ok())?.into(),
        route: route.map(ToOwned::to_owned),
        secret: attribute("signature_token").and_then(Json::as_str).map(ToOwned::to_owned),
        healthy: !matches!(state, "deactivated" | "issues"),
        delivers: !deactivated,
        state: state.to_owned(),
    })
}

/// The one place where a status becomes a reason.
fn failure(response: &Response) -> Result<(), ReadError> {
    let body = || String::from_utf8_lossy(&response.body);
    Err(match response.status {
        200 | 201 => return Ok(()),
        400 if body().contains("Unsupported") || body().contains("keyset_unsupported") => ReadError::Unsupported,
        400 if body().contains("keyset_") => ReadError::CursorRefused,
        404 | 410 => ReadError::NotFound,
        status @ (401 | 403) => ReadError::Denied(status),
        429 => ReadError::RateLimited,
        status if status >= 500 => ReadError::Server(status),
        status => ReadError::Refused(status),
    })
}
