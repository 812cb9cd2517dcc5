//! What the two event systems deliver: signatures, and what a body states.

use std::sync::Arc;

use super::answers::{compose, text_at};
use super::catalog::{BESIDE, SUBJECTS, Subject, TYPE_PREFIX};
use super::{Akeneo, EVENTS, NOTIFICATIONS, PLATFORM, ProductKey};
use crate::clock::Timestamp;
use crate::connectors::{Flow, HookSecret, Ignored, Refusal, Statements, Unreadable, Verified, signature};
use crate::model::document::{decode, raw_at, split_records};
use crate::model::{Delivery, Entity, Event, HookRequest, Key, Operation, Push, Version};

pub(super) const EVENTS_SIGNATURE: &str = "x-akeneo-request-signature";
const EVENTS_TIMESTAMP: &str = "x-akeneo-request-timestamp";
pub(super) const PRIMARY: &str = "x-akeneo-signature-primary";
pub(super) const SECONDARY: &str = "x-akeneo-signature-secondary";
const ALGORITHM: &str = "x-akeneo-signature-algorithm";

pub(super) fn verify(akeneo: &Akeneo, request: &HookRequest, secrets: &[HookSecret]) -> Result<Verified, Refusal> {
    if !akeneo.routes().contains(&request.route.as_str()) {
        return Err(Refusal::Route);
    }
    let is_ours = |secret: &&HookSecret| secret.route.as_deref().is_none_or(|route| route == request.route);
    let secrets = secrets.iter().filter(is_ours).map(|secret| secret.text.as_bytes());
    if request.route == EVENTS {
        let mac = request.header(EVENTS_SIGNATURE).ok_or(Refusal::Unsigned)?;
        // The stamp is the sender's clock at sending. However old it is, what it signs is a hint, and a hint costs one read at most.
        let stamp = request.header(EVENTS_TIMESTAMP).filter(|stamp| is_stamp(stamp)).ok_or(Refusal::Unsigned)?;
        matching(secrets, &[mac], &[stamp.as_bytes(), b".", &request.body])?;
    } else {
        let macs: Vec<&str> = [PRIMARY, SECONDARY].iter().filter_map(|name| request.header(name)).collect();
        if macs.is_empty() || request.headers.iter().any(|(name, value)| name == ALGORITHM && &value[..] != b"HmacSHA256") {
            return Err(Refusal::Unsigned);
        }
        matching(secrets, &macs, &[&request.body])?;
    }
    Ok(Verified { dedupe: dedupe(request) })
}

fn is_stamp(text: &str) -> bool {
    (1..=12).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether any secret made any of the signatures: while secrets are replaced nobody knows which is which.
fn matching<'a>(mut secrets: impl Iterator<Item = &'a [u8]>, macs: &[&str], parts: &[&[u8]]) -> Result<(), Refusal> {
    let is_made_by = |secret: &[u8]| macs.iter().any(|mac| signature::hmac_sha256_hex(secret, parts, mac));
    if secrets.any(is_made_by) { Ok(()) } else { Err(Refusal::Mismatch) }
}

/// The ids of the events, which a repetition has too, or a digest of the body where it has none.
pub(super) fn dedupe(request: &HookRequest) -> String {
    let (text, _) = decode(&request.body);
    let ids: Option<Vec<String>> = match request.route.as_str() {
        EVENTS => {
            split_records(&text, "/events").ok().and_then(|events| events.iter().map(|raw| text_at(raw.get(), "/event_id")).collect())
        }
        PLATFORM => text_at(&text, "/id").map(|id| vec![id, text_at(&text, "/subject").unwrap_or_default()]),
        _ => None,
    };
    let route = request.route.as_bytes();
    match ids.filter(|ids| !ids.is_empty()) {
        Some(ids) => signature::digest(&[route].into_iter().chain(ids.iter().map(String::as_bytes)).collect::<Vec<_>>()),
        None => signature::digest(&[route, &request.body]),
    }
}

pub(super) fn statements(akeneo: &Akeneo, delivery: &Delivery) -> Result<Statements, Unreadable> {
    let unreadable = |reason: &str| Unreadable { key: None, reason: reason.to_owned(), raw: delivery.request.body.clone() };
    let (text, _) = decode(&delivery.request.body);
    let mut stated = Statements::default();
    match delivery.request.route.as_str() {
        // The button by which people test the address sends nothing.
        EVENTS if delivery.request.body.is_empty() => {}
        EVENTS => {
            let events = split_records(&text, "/events").map_err(|_| unreadable("the delivery holds no list of events"))?;
            for raw in events {
                note(&mut stated, of_events_api(akeneo, raw.get()));
            }
        }
        PLATFORM => note(&mut stated, of_platform(akeneo, &text)),
        NOTIFICATIONS => match notification(akeneo, &text, delivery.received_at) {
            Ok(Ok(flow)) => stated.flow = Some(flow),
            Ok(Err(ignored)) => stated.ignored.push(ignored),
            Err(reason) => stated.unreadable = Some(reason.to_owned()),
        },
        _ => return Err(unreadable("the route is none of akeneo's")),
    }
    match stated.unreadable {
        Some(reason) if stated.events.is_empty() && stated.ignored.is_empty() => Err(unreadable(&reason)),
        _ => Ok(stated),
    }
}

/// What one event is: one of ours, one to be left alone, or unreadable for a reason.
type Stated<T> = Result<Result<T, Ignored>, &'static str>;

fn note(stated: &mut Statements, event: Stated<Event>) {
    match event {
        Ok(Ok(event)) => stated.events.push(event),
        Ok(Err(ignored)) => stated.ignored.push(ignored),
        Err(reason) => stated.unreadable = Some(reason.to_owned()),
    }
}

fn ignored<T>(resource: &'static str, reason: &'static str) -> Stated<T> {
    Ok(Err(Ignored { resource, reason }))
}

fn of_events_api(akeneo: &Akeneo, event: &str) -> Stated<Event> {
    let action = text_at(event, "/action").ok_or("an event says not what happened")?;
    let (resource, verb) = match action.split_once('.') {
        Some(("product", verb)) => ("products", verb),
        Some(("product_model", verb)) => ("product-models", verb),
        _ => return ignored("unknown", "unknown_type"),
    };
    let operation = match verb {
        "created" => Operation::Create,
        "updated" => Operation::Update,
        "removed" => Operation::Delete,
        _ => return ignored(resource, "unknown_type"),
    };
    if text_at(event, "/author").is_some_and(|author| akeneo.ignores(&author)) {
        return ignored(resource, "ignored_author");
    }
    let Some(name) = akeneo.replicates(resource) else { return ignored(resource, "not_replicated") };
    // One text of the vendor leaves out the inner level.
    let field = |name: &str| ["/data/resource/", "/data/"].iter().find_map(|place| text_at(event, &format!("{place}{name}")));
    let key = match (resource, akeneo.options.product_key) {
        ("products", ProductKey::Uuid) => field("uuid").ok_or(
            "the event names a product without its uuid, as PIMs before 7.0 do: set product_key = \"identifier\", or let passes tell",
        )?,
        ("products", ProductKey::Identifier) => match field("identifier") {
            Some(identifier) => identifier,
            // No list by identifier holds it.
            None => return ignored(resource, "without_identifier"),
        },
        _ => field("code").ok_or("the event names no product model")?,
    };
    let key = Key::new(key).map_err(|_| "the event names its record by what is no usable key")?;
    let updated = field("updated").filter(|_| operation != Operation::Delete);
    let version = updated.and_then(|stamp| Version::stamp(&Arc::from("updated"), &stamp));
    Ok(Ok(Event { entity: Entity { resource: name, key }, operation, version, push: Push::Hint, sequence: None, via: "events_api" }))
}

fn of_platform(akeneo: &Akeneo, event: &str) -> Stated<Event> {
    let word = text_at(event, "/type").ok_or("the event has no type")?;
    let Some(word) = word.strip_prefix(TYPE_PREFIX) else { return ignored("unknown", "unknown_type") };
    let subscription = text_at(event, "/subject").unwrap_or_default();
    if !akeneo.subscribed(&subscription) {
        return ignored("unknown", "foreign_subscription");
    }
    let (entity, verb) = word.split_once('.').unwrap_or((word, ""));
    let Some(subject) = SUBJECTS.iter().find(|subject| subject.word == entity) else {
        let is_known = BESIDE.iter().any(|beginning| word.starts_with(beginning));
        return ignored("unknown", if is_known { "not_replicated" } else { "unknown_type" });
    };
    let operation = match verb {
        "created" => Operation::Create,
        // A delta is written in other ways than a read (dates, files, prices), so it is as thin as the others.
        "updated" | "updated.delta" | "became-complete" | "became-incomplete" => Operation::Update,
        "deleted" => Operation::Delete,
        _ => return ignored(subject.resource, "unknown_type"),
    };
    if text_at(event, "/data/author/identifier").is_some_and(|author| akeneo.ignores(&author)) {
        return ignored(subject.resource, "ignored_author");
    }
    let Some(resource) = akeneo.replicates(subject.resource) else { return ignored(subject.resource, "not_replicated") };
    let key = key_of_subject(akeneo, subject, event)?;
    let above = subject.above.and(key.as_str().split_once('/')).map(|(above, _)| above);
    if above.is_some_and(|above| !akeneo.keeps_below(subject.resource, above)) {
        return ignored(subject.resource, "out_of_scope");
    }
    Ok(Ok(Event { entity: Entity { resource, key }, operation, version: None, push: Push::Hint, sequence: None, via: "event_platform" }))
}

fn key_of_subject(akeneo: &Akeneo, subject: &Subject, event: &str) -> Result<Key, &'static str> {
    let field = |name: &str| subject.fields.iter().find_map(|field| text_at(event, &format!("/data/{field}/{name}")));
    if subject.resource == "products" {
        let key = match akeneo.options.product_key {
            ProductKey::Uuid => field("uuid").ok_or("the event names no product")?,
            ProductKey::Identifier => field("identifier")
                .ok_or("the event names a product without its identifier: the subscription has to set send_product_identifier")?,
        };
        return Key::new(key).map_err(|_| "the event names its record by what is no usable key");
    }
    let code = field("code").ok_or("the event names no record")?;
    let key = match subject.above {
        Some(above) => compose(&field(above).ok_or("the event does not say what its record stands below")?, &code),
        None => Key::new(code).ok(),
    };
    key.ok_or("the event names its record by what is no usable key")
}

fn notification(akeneo: &Akeneo, text: &str, received_at: Timestamp) -> Stated<Flow> {
    let word = text_at(text, "/notification_type").ok_or("the notification has no type")?;
    if !akeneo.subscribed(&text_at(text, "/subscription_id").unwrap_or_default()) {
        return ignored("unknown", "foreign_subscription");
    }
    // Its form is not documented. Nothing is lost from a moment on that is yet to come.
    let stamp = text_at(text, "/timestamp").and_then(|stamp| Timestamp::parse(&stamp));
    let seconds = || raw_at(text, "/timestamp").ok().flatten().and_then(|raw| raw.get().parse::<u32>().ok());
    let stamp = stamp.or_else(|| seconds().map(|seconds| Timestamp(i64::from(seconds) * 1_000_000)));
    let since = stamp.map_or(received_at, |stamp| stamp.min(received_at));
    match word.as_str() {
        "subscription.suspended.system" | "subscription.suspended.user" | "subscription.revoked" => Ok(Ok(Flow::Lost { since })),
        "subscription.resumed" => Ok(Ok(Flow::Again { since })),
        _ => ignored("unknown", "unknown_type"),
    }
}
