//! `/event-platform/api/v1/…`: subscribers and their subscriptions.
//!
//! The vendor's own description of this API is not public: documents of lists, changes and errors are our choice, the rest is
//! documented. Receivers may be plain HTTP here, which the vendor refuses.

use serde_json::{Value, json};

use super::options::Options;
use super::platform::{Platform, Subscriber, Subscription, Target};
use super::query::Refusal;
use crate::clock::Timestamp;
use crate::sandbox::micros;

const SUBSCRIBERS_MAX: usize = 20;
const SUBSCRIPTIONS_MAX: usize = 20;
const FILTER_MAX: usize = 500;
const HEADERS_MAX: usize = 5;
const SECRET_LENGTHS: std::ops::RangeInclusive<usize> = 16..=256;

/// One request, whose headers were in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    /// Below `/event-platform/api/v1/`.
    pub(super) path: &'a [&'a str],
    pub(super) body: &'a [u8],
    pub(super) root: &'a str,
    pub(super) now_us: i64,
}

/// Answers one request: a status and, unless it is 204, a document.
pub(super) fn answer(platform: &mut Platform, options: &Options, asked: Asked<'_>) -> Result<(u16, Value), Refusal> {
    let none = || Refusal::new(404, "not found");
    let Asked { root, body, now_us, .. } = asked;
    match (asked.method, asked.path) {
        ("GET", ["subscribers"]) => Ok((200, platform.subscribers.values().map(|subscriber| shown_subscriber(subscriber, root)).collect())),
        ("POST", ["subscribers"]) => subscribe(platform, root, &read(body)?, now_us),
        ("GET", ["subscribers", id]) => Ok((200, shown_subscriber(platform.subscribers.get(*id).ok_or_else(none)?, root))),
        ("PATCH", ["subscribers", id]) => {
            let subscriber = platform.subscribers.get_mut(*id).ok_or_else(none)?;
            change_subscriber(subscriber, &read(body)?)?;
            subscriber.updated_us = now_us;
            Ok((200, shown_subscriber(subscriber, root)))
        }
        ("DELETE", ["subscribers", id]) => {
            platform.subscribers.remove(*id).ok_or_else(none)?;
            for subscription in ids_of(platform, id) {
                platform.remove(&subscription);
            }
            Ok((204, Value::Null))
        }
        (_, ["subscribers", subscriber, "subscriptions", rest @ ..]) => {
            platform.subscribers.get(*subscriber).ok_or_else(none)?;
            of_subscriber(platform, options, subscriber, Asked { path: rest, ..asked })
        }
        _ => Err(none()),
    }
}

fn of_subscriber(platform: &mut Platform, options: &Options, subscriber: &str, asked: Asked<'_>) -> Result<(u16, Value), Refusal> {
    let none = || Refusal::new(404, "not found");
    let Asked { root, path, body, now_us, .. } = asked;
    let ids = ids_of(platform, subscriber);
    let id = match path {
        [] => "",
        [id, ..] => ids.iter().find(|known| known == id).map(String::as_str).ok_or_else(none)?,
    };
    let live_us = now_us + micros(options.platform_activation_ms);
    let wrong_state = || Refusal::new(409, "the subscription is not in a state that allows this");
    match (asked.method, path) {
        ("GET", []) => Ok((200, ids.iter().filter_map(|id| Some(shown(platform.subscriptions.get(id)?, root))).collect())),
        ("POST", []) => {
            if ids.len() >= SUBSCRIPTIONS_MAX {
                return Err(Refusal::new(422, "a subscriber has at most 20 subscriptions"));
            }
            let asked = read(body)?;
            validate(&asked, root)?;
            let mut fresh = Draft::default();
            fresh.read(&asked)?;
            let subscription = platform.add(subscriber, now_us);
            fresh.write(subscription, live_us);
            Ok((201, shown(subscription, root)))
        }
        ("GET", [_]) => Ok((200, shown(platform.subscriptions.get(id).ok_or_else(none)?, root))),
        ("PATCH", [_]) => {
            let subscription = platform.subscriptions.get_mut(id).ok_or_else(none)?;
            let mut changed = Draft::of(subscription);
            changed.read(&read(body)?)?;
            changed.write(subscription, live_us);
            subscription.updated_us = now_us;
            Ok((200, shown(subscription, root)))
        }
        ("DELETE", [_]) => {
            platform.remove(id);
            Ok((204, Value::Null))
        }
        ("POST", [_, "suspend"]) => {
            if !platform.suspend(id, "asked for", false, now_us) {
                return Err(wrong_state());
            }
            Ok((200, shown(platform.subscriptions.get(id).ok_or_else(none)?, root)))
        }
        ("POST", [_, "resume"]) => {
            if !platform.resume(id, now_us) {
                return Err(wrong_state());
            }
            Ok((200, shown(platform.subscriptions.get(id).ok_or_else(none)?, root)))
        }
        _ => Err(none()),
    }
}

fn ids_of(platform: &Platform, subscriber: &str) -> Vec<String> {
    platform.subscriptions.values().filter(|subscription| subscription.subscriber == subscriber).map(|found| found.id.clone()).collect()
}

fn read(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|_| Refusal::new(400, "the body is no JSON document"))
}

fn invalid(what: &str) -> Refusal {
    Refusal::new(422, format!("{what} is missing or invalid"))
}

fn subscribe(platform: &mut Platform, root: &str, asked: &Value, now_us: i64) -> Result<(u16, Value), Refusal> {
    if platform.subscribers.len() >= SUBSCRIBERS_MAX {
        return Err(Refusal::new(422, "a PIM has at most 20 subscribers"));
    }
    let mut subscriber =
        Subscriber { id: platform.new_id(now_us), name: String::new(), contact: json!({}), created_us: now_us, updated_us: now_us };
    change_subscriber(&mut subscriber, asked)?;
    if subscriber.name.is_empty() || !subscriber.contact["technical_email"].is_string() {
        return Err(invalid("name or contact.technical_email"));
    }
    let shown = shown_subscriber(&subscriber, root);
    platform.subscribers.insert(subscriber.id.clone(), subscriber);
    Ok((201, shown))
}

fn change_subscriber(subscriber: &mut Subscriber, asked: &Value) -> Result<(), Refusal> {
    let mut contact = subscriber.contact.clone();
    for (name, value) in asked["contact"].as_object().into_iter().flatten() {
        contact[name] = value.clone();
    }
    if let Some(secret) = contact.get("notification_webhook_secret").filter(|secret| !secret.is_null()) {
        secret.as_str().filter(|secret| SECRET_LENGTHS.contains(&secret.len())).ok_or_else(|| invalid("notification_webhook_secret"))?;
    }
    if let Some(url) = contact.get("notification_webhook_url").filter(|url| !url.is_null()) {
        url.as_str().filter(|url| url::Url::parse(url).is_ok()).ok_or_else(|| invalid("notification_webhook_url"))?;
    }
    subscriber.contact = contact;
    if let Some(name) = asked["name"].as_str() {
        subscriber.name = name.to_owned();
    }
    Ok(())
}

fn shown_subscriber(subscriber: &Subscriber, root: &str) -> Value {
    let mut contact = subscriber.contact.clone();
    if let Some(contact) = contact.as_object_mut() {
        contact.remove("notification_webhook_secret");
    }
    json!({
        "id": subscriber.id, "name": subscriber.name, "subject": root, "status": "active", "contact": contact,
        "created_at": Timestamp(subscriber.created_us).to_string(), "updated_at": Timestamp(subscriber.updated_us).to_string(),
    })
}

fn validate(asked: &Value, root: &str) -> Result<(), Refusal> {
    if asked["source"] != "pim" {
        return Err(invalid("source"));
    }
    let subject = asked["subject"].as_str().unwrap_or_default();
    if subject.trim_end_matches('/') != root {
        return Err(invalid("subject"));
    }
    if asked["type"] != "https" {
        return Err(Refusal::new(422, "only the type https is served here"));
    }
    if !asked["events"].is_array() || !asked["config"].is_object() {
        return Err(invalid("events or config"));
    }
    Ok(())
}

/// What can be chosen of a subscription, read whole before any of it takes effect.
#[derive(Default)]
struct Draft {
    events: std::collections::BTreeSet<String>,
    filter: Option<String>,
    send_identifier: bool,
    target: Target,
}

impl Draft {
    fn of(subscription: &Subscription) -> Self {
        Self {
            events: subscription.events.clone(),
            filter: subscription.filter.clone(),
            send_identifier: subscription.send_identifier,
            target: subscription.target.clone(),
        }
    }

    fn read(&mut self, asked: &Value) -> Result<(), Refusal> {
        if let Some(events) = asked.get("events") {
            let types = events.as_array().filter(|events| !events.is_empty()).ok_or_else(|| invalid("events"))?;
            self.events =
                types.iter().map(|kind| kind.as_str().map(ToOwned::to_owned)).collect::<Option<_>>().ok_or_else(|| invalid("events"))?;
        }
        if let Some(filter) = asked["filter"].as_str() {
            if filter.len() > FILTER_MAX {
                return Err(invalid("filter"));
            }
            self.filter = Some(filter.to_owned());
        }
        if let Some(send) = asked["send_product_identifier"].as_bool() {
            self.send_identifier = send;
        }
        let Some(config) = asked.get("config") else { return Ok(()) };
        if let Some(url) = config.get("url") {
            self.target.url = url.as_str().filter(|url| url::Url::parse(url).is_ok()).ok_or_else(|| invalid("config.url"))?.to_owned();
        }
        if let Some(secret) = config.get("secret") {
            let text = |name: &str| secret[name].as_str().filter(|secret| !secret.is_empty()).map(ToOwned::to_owned);
            self.target.primary = text("primary").ok_or_else(|| invalid("config.secret.primary"))?;
            self.target.secondary = text("secondary");
        }
        if let Some(headers) = config.get("headers").and_then(Value::as_object) {
            let one = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
            let headers: Vec<_> = headers.iter().map(one).collect::<Option<_>>().ok_or_else(|| invalid("config.headers"))?;
            let is_valid = |(name, value): &(String, String)| {
                let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
                is_name && (1..=128).contains(&name.len()) && value.len() <= 256 && value.bytes().all(|byte| (32..127).contains(&byte))
            };
            if headers.len() > HEADERS_MAX || !headers.iter().all(is_valid) {
                return Err(invalid("config.headers"));
            }
            self.target.headers = headers;
        }
        if self.target.url.is_empty() || self.target.primary.is_empty() {
            return Err(invalid("config.url or config.secret"));
        }
        Ok(())
    }

    fn write(self, subscription: &mut Subscription, live_us: i64) {
        subscription.events = self.events;
        subscription.filter = self.filter;
        subscription.send_identifier = self.send_identifier;
        subscription.target = self.target;
        subscription.live_us = live_us;
    }
}

/// A subscription without its secrets.
fn shown(subscription: &Subscription, root: &str) -> Value {
    let headers: serde_json::Map<String, Value> =
        subscription.target.headers.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    json!({
        "id": subscription.id, "subscriber_id": subscription.subscriber, "source": "pim", "subject": root, "type": "https",
        "events": subscription.events, "filter": subscription.filter, "send_product_identifier": subscription.send_identifier,
        "status": subscription.status.name(), "config": { "url": subscription.target.url, "headers": headers },
        "created_at": Timestamp(subscription.created_us).to_string(), "updated_at": Timestamp(subscription.updated_us).to_string(),
    })
}
