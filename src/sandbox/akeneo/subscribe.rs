//! Control of both event systems: where they send to, with which secrets, and whether they do.

use serde::Deserialize;
use serde_json::{Value, json};

use super::changes::System;
use super::cloud_event::TYPE_PREFIX;
use super::platform::{Subscriber, Target};
use super::resource::Resource;
use super::state::Inner;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Subscribing {
    events_api: Option<EventsApi>,
    event_platform: Option<EventPlatform>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EventsApi {
    url: Option<String>,
    secret: Option<String>,
    enabled: Option<bool>,
    /// Send the empty request of the "Test" button and tell its status.
    probe: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EventPlatform {
    enabled: Option<bool>,
    /// A new subscription to all types but deltas, with a subscriber of its own.
    url: Option<String>,
    primary: Option<String>,
    secondary: Option<String>,
    notification_url: Option<String>,
    notification_secret: Option<String>,
    /// Types instead of all, with or without their prefix.
    events: Option<Vec<String>>,
    send_product_identifier: bool,
    /// The subscription that these are about; all when empty.
    id: String,
    suspend: bool,
    /// As the vendor suspends, not as a user does.
    suspend_by_system: bool,
    resume: bool,
    /// As somebody else may delete it at the vendor.
    delete: bool,
}

impl Subscribing {
    /// Whether the Events API's receiver is to be tested.
    pub(super) fn probes(&self) -> bool {
        self.events_api.as_ref().is_some_and(|asked| asked.probe)
    }
}

/// Does what is asked; what is wrong with it otherwise.
pub(super) fn apply(inner: &mut Inner, asked: Subscribing, now_us: i64) -> Result<(), String> {
    if let Some(asked) = asked.events_api {
        set_events_api(inner, asked, now_us)?;
    }
    if let Some(asked) = asked.event_platform {
        set_platform(inner, asked, now_us)?;
    }
    inner.book_platform(now_us);
    Ok(())
}

fn set_events_api(inner: &mut Inner, asked: EventsApi, now_us: i64) -> Result<(), String> {
    if let Some(url) = asked.url {
        if !url.is_empty() && url::Url::parse(&url).is_err() {
            return Err(format!("no address: {url}"));
        }
        inner.events_api.url = url;
    }
    if let Some(secret) = asked.secret {
        inner.events_api.secret = secret;
    }
    if let Some(enabled) = asked.enabled {
        inner.events_api.enabled = enabled;
    }
    if !inner.events_api.enabled || inner.events_api.url.is_empty() {
        for change in inner.events_api.discard() {
            inner.delivered(change, System::EventsApi, false, now_us);
        }
    }
    Ok(())
}

fn set_platform(inner: &mut Inner, asked: EventPlatform, now_us: i64) -> Result<(), String> {
    if let Some(enabled) = asked.enabled {
        inner.platform.enabled = enabled;
    }
    if let Some(url) = &asked.url {
        url::Url::parse(url).map_err(|error| format!("{url}: {error}"))?;
        subscribe(inner, &asked, url, now_us);
    }
    let ids: Vec<String> = inner.platform.subscriptions.keys().filter(|id| asked.id.is_empty() || **id == asked.id).cloned().collect();
    for id in ids {
        if asked.suspend || asked.suspend_by_system {
            inner.platform.suspend(&id, "asked for by control", asked.suspend_by_system, now_us);
        }
        if asked.resume {
            inner.platform.resume(&id, now_us);
        }
        if asked.delete {
            inner.platform.remove(&id);
        }
    }
    Ok(())
}

fn subscribe(inner: &mut Inner, asked: &EventPlatform, url: &str, now_us: i64) {
    let id = inner.platform.new_id(now_us);
    let mut contact = json!({ "technical_email": "ops@example.test" });
    if let Some(notification_url) = &asked.notification_url {
        contact["notification_channels"] = json!(["webhook"]);
        contact["notification_webhook_url"] = notification_url.as_str().into();
        contact["notification_webhook_secret"] = asked.notification_secret.as_deref().unwrap_or_default().into();
    }
    let subscriber = Subscriber { id: id.clone(), name: "control".to_owned(), contact, created_us: now_us, updated_us: now_us };
    inner.platform.subscribers.insert(id.clone(), subscriber);
    let whole = |kind: &String| if kind.starts_with(TYPE_PREFIX) { kind.clone() } else { format!("{TYPE_PREFIX}{kind}") };
    let events = asked.events.as_ref().map_or_else(all_types, |events| events.iter().map(whole).collect());
    let subscription = inner.platform.add(&id, now_us);
    subscription.events = events.into_iter().collect();
    subscription.send_identifier = asked.send_product_identifier;
    subscription.target = Target {
        url: url.to_owned(),
        primary: asked.primary.clone().unwrap_or_else(|| "platform-primary-secret".to_owned()),
        secondary: asked.secondary.clone(),
        headers: Vec::new(),
    };
}

/// Every type that is sent here, without deltas.
fn all_types() -> Vec<String> {
    let stems = Resource::all().filter_map(|resource| Some(resource.spec().announced?.stem));
    stems.flat_map(|stem| ["created", "updated", "deleted"].map(|verb| format!("{TYPE_PREFIX}{stem}.{verb}"))).collect()
}

/// Both systems as they are.
pub(super) fn shown(inner: &Inner) -> Value {
    let row = |subscription: &super::platform::Subscription| json!({ "id": subscription.id, "status": subscription.status.name(), "url": subscription.target.url, "events": subscription.events });
    let subscriptions: Vec<Value> = inner.platform.subscriptions.values().map(row).collect();
    json!({
        "events_api": { "url": inner.events_api.url, "enabled": inner.events_api.enabled },
        "event_platform": { "enabled": inner.platform.enabled, "subscriptions": subscriptions },
    })
}
