//! Pushed events (RCP-28): who sends them, and what a body states.

use serde_json::value::RawValue;

use super::answers::Reader;
use super::log::Row;
use super::{EVENTS, Reso};
use crate::connectors::{HookSecret, Ignored, Refusal, Statements, Unreadable, Verified, bearer, signature};
use crate::model::document::{Json, Parsed, decode, raw_at, split_records};
use crate::model::{Delivery, Event, HookRequest, Push};

/// By what a consumer tells the feeds of one producer apart; the second is its older name.
const LABELS: [&str; 2] = ["entityeventsource", "consumerlabel"];
/// Characters of a label.
const LABEL_MAX: usize = 255;

pub(super) fn verify(reso: &Reso, request: &HookRequest, secrets: &[HookSecret]) -> Result<Verified, Refusal> {
    if reso.options.push.is_none() || request.route != EVENTS {
        return Err(Refusal::Route);
    }
    let token = request.header("authorization").and_then(bearer::token).ok_or(Refusal::Unsigned)?;
    let is_ours = |secret: &&HookSecret| secret.route.as_deref().is_none_or(|route| route == request.route);
    let secrets: Vec<HookSecret> = secrets.iter().filter(is_ours).cloned().collect();
    if !bearer::matches(token, &secrets) {
        return Err(Refusal::Mismatch);
    }
    // Only who holds a token is told more.
    if !request.header("content-type").is_some_and(is_json) {
        return Err(Refusal::MediaType);
    }
    shape(&request.body)?;
    let label = label(reso, request);
    Ok(Verified { dedupe: signature::digest(&[request.route.as_bytes(), label.as_bytes(), &request.body]) })
}

/// `application/json` or a kind of it, with any parameters.
fn is_json(media: &str) -> bool {
    let essence = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.strip_prefix("application/").is_some_and(|rest| rest.ends_with("+json"))
}

/// One object, or one whose `value` is a list. What its context says of itself must be events, of whatever version.
fn shape(body: &[u8]) -> Result<(), Refusal> {
    let (text, _) = decode(body);
    let whole = raw_at(&text, "").ok().flatten().filter(|raw| raw.get().starts_with('{')).ok_or(Refusal::Shape)?;
    let is_list = raw_at(whole.get(), "/value").map_err(|_| Refusal::Shape)?.is_none_or(|value| value.get().starts_with('['));
    let context = raw_at(whole.get(), "/@reso.context").map_err(|_| Refusal::Shape)?;
    let context: Option<String> = context.and_then(|raw| serde_json::from_str(raw.get()).ok());
    if is_list && context.is_none_or(|context| is_of_events(&context)) { Ok(()) } else { Err(Refusal::Shape) }
}

/// Of `urn:reso:metadata:<version>:resource:<name>[:…]` the name; another form of context says nothing.
fn is_of_events(context: &str) -> bool {
    let context = context.to_ascii_lowercase();
    let name = context.strip_prefix("urn:reso:metadata:").and_then(|rest| rest.split_once(":resource:"));
    name.is_none_or(|(_, name)| name.split(':').next() == Some("entityevent"))
}

/// What the sender calls the feed; where it says nothing, it is the one that we poll.
fn label(reso: &Reso, request: &HookRequest) -> String {
    let said = LABELS.iter().find_map(|name| request.header(name)).map(str::trim).filter(|text| !text.is_empty());
    said.map_or_else(|| reso.options.label.clone(), |text| text.chars().take(LABEL_MAX).collect())
}

pub(super) fn statements(reso: &Reso, delivery: &Delivery) -> Result<Statements, Unreadable> {
    let unreadable = |reason: &str| Unreadable { key: None, reason: reason.to_owned(), raw: delivery.request.body.clone() };
    if delivery.request.route != EVENTS {
        return Err(unreadable("the route is none of reso's"));
    }
    let (text, _) = decode(&delivery.request.body);
    let whole = raw_at(&text, "").ok().flatten().ok_or_else(|| unreadable("the delivery is no json"))?;
    let is_batch = raw_at(&text, "/value").map_err(|error| unreadable(&error.to_string()))?.is_some();
    let rows = if is_batch {
        split_records(&text, "/value").map_err(|_| unreadable("the delivery holds no list of events"))?
    } else {
        vec![whole]
    };
    let label = label(reso, &delivery.request);
    let mut stated = Statements::default();
    for raw in rows {
        match pushed(reso, raw, &label) {
            Ok(Ok(event)) => stated.events.push(event),
            Ok(Err(ignored)) => stated.ignored.push(ignored),
            Err(reason) => stated.unreadable = Some(reason),
        }
    }
    match stated.unreadable {
        Some(reason) if stated.events.is_empty() && stated.ignored.is_empty() => Err(unreadable(&reason)),
        _ => Ok(stated),
    }
}

fn pushed(reso: &Reso, raw: &RawValue, label: &str) -> Result<Result<Event, Ignored>, String> {
    let json = Parsed::read(raw.get().as_bytes()).map_err(|error| error.to_string())?.json;
    if !matches!(json, Json::Object(_)) {
        return Err("an event is no object".to_owned());
    }
    let row = Row::read(reso, &json)?;
    Ok(row.event(label, "hook").map(|event| with_record(reso, raw, event)))
}

/// A record that came along, where the configuration says that such are what a read would show.
fn with_record(reso: &Reso, raw: &RawValue, event: Event) -> Event {
    let is_taken = reso.options.push.as_ref().is_some_and(|push| push.data);
    let data = raw_at(raw.get(), "/Data").ok().flatten().filter(|data| is_taken && data.get().starts_with('{'));
    let (Some(data), Some(table)) = (data, reso.named(event.entity.resource.as_str())) else { return event };
    match (Reader { reso, table, lossy: false }).record_alone(data) {
        Ok(record) if record.key == event.entity.key && record.in_scope => {
            Event { version: record.version, push: Push::Whole(record.document), ..event }
        }
        _ => event,
    }
}
