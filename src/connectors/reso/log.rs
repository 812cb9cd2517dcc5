//! The log of events (RCP-27), and its rows: they are the same when they are pushed.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::answers::{How, failure, next_link};
use super::requests::get;
use super::{LOG, Reso, catalog};
use crate::connectors::{FeedPage, FeedPosition, FeedRow, Ignored, ReadError, Request, Response, Unreadable};
use crate::model::document::{Json, Parsed, decode, split_records};
use crate::model::{Entity, Event, Key, Operation, Push, Sequence};

const SEQUENCE: &str = "EntityEventSequence";

/// A row of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Its number.
    pub(super) number: Option<i64>,
    /// What it is about; `Err`: none of ours.
    pub(super) entity: Result<Entity, Ignored>,
}

impl Row {
    /// Reads one. Older texts of the standard call its fields by other names, and what a number is and what a text varies.
    pub(super) fn read(reso: &Reso, row: &Json) -> Result<Self, &'static str> {
        let field = |names: &[&str]| names.iter().find_map(|name| row.get(name).filter(|value| !value.is_null()));
        let number = match field(&[SEQUENCE, "EntityEventSequenceNumeric"]) {
            Some(number) => Some(sequence(number).ok_or("the number of the event is none")?),
            None => None,
        };
        let name = field(&["ResourceName"]).and_then(Json::as_str).ok_or("the event names no resource")?;
        let key = field(&["ResourceRecordKey", "ResourceRecordKeyNumeric"]).ok_or("the event names no record")?;
        let Some(spec) = reso.replicates(name) else {
            let resource = catalog::find(name).map_or("unknown", |kind| kind.name);
            return Ok(Self { number, entity: Err(Ignored { resource, reason: "not_replicated" }) });
        };
        let key = key.as_id().and_then(|id| Key::new(id).ok()).ok_or("the event names its record by what is no usable key")?;
        Ok(Self { number, entity: Ok(Entity { resource: spec.name.clone(), key }) })
    }

    /// What it states: that something happened to the record. Created, changed, removed and out of sight look alike.
    pub(super) fn event(self, label: &str, via: &'static str) -> Result<Event, Ignored> {
        let sequence = self.number.map(|number| Sequence { label: label.to_owned(), number });
        let entity = self.entity?;
        Ok(Event { entity, operation: Operation::Update, version: None, push: Push::Hint, sequence, via })
    }
}

/// A whole number that is not negative, as a number or as a text; never by way of a float.
fn sequence(json: &Json) -> Option<i64> {
    let text = match json {
        Json::Number(literal) => literal,
        Json::String(text) => text,
        _ => return None,
    };
    let text = text.trim();
    let whole = text.split_once('.').filter(|(_, fraction)| fraction.bytes().all(|byte| byte == b'0')).map_or(text, |(whole, _)| whole);
    whole.parse().ok().filter(|number| *number >= 0)
}

/// What lies above a number, the lowest first; or the newest row. Its links are never followed.
pub(super) fn request(reso: &Reso, position: FeedPosition<'_>) -> Request {
    let query = match position {
        FeedPosition::Number { after, page } => {
            let filter = if after < 0 { format!("{SEQUENCE} ge 0") } else { format!("{SEQUENCE} gt {after}") };
            [("$filter", filter), ("$orderby", format!("{SEQUENCE} asc")), ("$top", page.to_string())]
        }
        FeedPosition::Newest => [("$filter", String::new()), ("$orderby", format!("{SEQUENCE} desc")), ("$top", "1".to_owned())],
        FeedPosition::Stamp { .. } => unreachable!("its feed is ordered by numbers"),
    };
    get(reso, format!("/{LOG}"), LOG, &query)
}

pub(super) fn page(reso: &Reso, response: &Response) -> Result<FeedPage, ReadError> {
    failure(response, How::List)?;
    let (text, _) = decode(&response.body);
    let rows = split_records(&text, "/value").map_err(|_| ReadError::Malformed("no list of events"))?;
    let next = next_link(&text)?;
    Ok(FeedPage { rows: rows.into_iter().map(|raw| row(reso, raw)).collect(), next })
}

fn row(reso: &Reso, raw: &RawValue) -> Result<FeedRow, Unreadable> {
    let unreadable = |reason: String| Unreadable { key: None, reason, raw: Bytes::copy_from_slice(raw.get().as_bytes()) };
    let json = Parsed::read(raw.get().as_bytes()).map_err(|error| unreadable(error.to_string()))?.json;
    let row = Row::read(reso, &json).map_err(|reason| unreadable(reason.to_owned()))?;
    let number = row.number.ok_or_else(|| unreadable("the event has no number".to_owned()))?;
    let event = row.event(&reso.options.label, "feed").ok();
    Ok(FeedRow { id: number.to_string(), number: Some(number), at: None, event })
}
