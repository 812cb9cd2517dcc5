//! What answers hold.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::cursor::{Place, link, link_header};
use super::profile::{Replication, Walk};
use super::requests::page_size;
use super::{Reso, Table, stamps};
use crate::connectors::{Asked, ListQuery, Page, ReadError, Record, ResourceSpec, Response, Unreadable, alone};
use crate::model::document::{Json, Parsed, Shape, decode, raw_at, split_records};
use crate::model::ordering::By;
use crate::model::{Document, Key};

pub(super) fn page(reso: &Reso, resource: &ResourceSpec, asked: Asked<'_>, response: &Response) -> Result<Page, ReadError> {
    let table = reso.named(resource.name.as_str()).ok_or(ReadError::Malformed("the resource is unknown"))?;
    let (text, lossy) = decode(&response.body);
    let reader = Reader { reso, table, lossy };
    match asked {
        Asked::Keys(keys, By::Key) => {
            failure(response, How::Alone)?;
            let key = keys.first().map_or("", Key::as_str);
            let whole = raw_at(&text, "").ok().flatten().filter(|raw| raw.get().starts_with('{')).ok_or(NO_RECORD)?;
            let record = match values(&text)? {
                None if table.filter.is_none() => reader.record_alone(whole),
                None => return Err(NO_RECORD),
                // By its filter: what does not pass it is not there.
                Some(list) if list.is_empty() && table.filter.is_some() => return Err(ReadError::NotFound),
                Some(list) if list.len() == 1 => reader.record_alone(list[0]),
                Some(_) => return Err(NO_RECORD),
            };
            let found = record.as_ref().map_or_else(|unreadable| unreadable.key.as_ref(), |record| Some(&record.key));
            if found.is_some_and(|found| found.as_str() != key) {
                return Err(ReadError::Malformed("the answer is another record"));
            }
            Ok(Page { records: vec![record], next: None })
        }
        Asked::Keys(..) => {
            failure(response, How::Bulk)?;
            let records = reader.records(&text)?;
            // What a page was too small for must not count as missing.
            let is_cut = next_link(&text)?.is_some() || count(&text).is_some_and(|count| count > records.len());
            if is_cut && records.len() < resource.bulk { Err(ReadError::Unsupported) } else { Ok(Page { records, next: None }) }
        }
        Asked::Page(query) => listed(&reader, query, response, &text),
    }
}

const NO_RECORD: ReadError = ReadError::Malformed("no record");

/// The list of a page, or `None` where the answer is none.
fn values(text: &str) -> Result<Option<Vec<&RawValue>>, ReadError> {
    let list = raw_at(text, "/value").map_err(|_| ReadError::Malformed("the answer cannot be read"))?;
    Ok(list.filter(|raw| raw.get().starts_with('[')).and_then(|_| split_records(text, "/value").ok()))
}

fn listed(reader: &Reader<'_>, query: ListQuery<'_>, response: &Response, text: &str) -> Result<Page, ReadError> {
    let profile = reader.reso.options.profile;
    let place = match query.cursor {
        Some(cursor) => Some(Place::read(cursor).ok_or(ReadError::CursorRefused)?),
        None => None,
    };
    // Core 2.0.0 promises neither the comparison of texts nor an order by them: then links are walked, within the same pass.
    let by_key = profile.walk == Walk::Keys && query.since.is_none() && matches!(place, None | Some(Place::Key(_)));
    // So is a vendor's own way of asking for everything.
    let is_special = profile.replication != Replication::Plain && query.since.is_none() && place.is_none();
    if by_key && matches!(response.status, 400 | 501) || is_special && matches!(response.status, 400 | 404 | 501) {
        return Ok(Page { records: Vec::new(), next: Some(Place::Walk.write()) });
    }
    failure(response, How::of(place.as_ref(), query))?;
    let records = reader.records(text)?;
    let next = if by_key {
        after_key(reader, place.as_ref(), &records)
    } else if profile.walk == Walk::Keys && query.since.is_some() {
        after_stamp(place, query, text, &records)
    } else {
        after_link(reader, (place, query), response, text, &records)?
    };
    Ok(Page { records, next: next.map(|place| place.write()) })
}

/// On from the last key, until a page is empty: whether a shorter page is the last one nobody says.
fn after_key(reader: &Reader<'_>, place: Option<&Place>, records: &[Result<Record, Unreadable>]) -> Option<Place> {
    let key = |record: &Result<Record, Unreadable>| match record {
        Ok(record) => Some(record.key.as_str().to_owned()),
        Err(unreadable) => unreadable.key.as_ref().map(|key| key.as_str().to_owned()),
    };
    let last = records.iter().rev().find_map(key);
    let was_asked_above = |asked: &str| records.iter().any(|record| key(record).is_some_and(|key| key == asked));
    match (last, place) {
        _ if records.is_empty() => None,
        // The filter was passed over.
        (_, Some(Place::Key(asked))) if was_asked_above(asked) => Some(Place::Walk),
        (Some(last), _) if reader.is_literal(&last) => Some(Place::Key(last)),
        _ => Some(Place::Walk),
    }
}

/// On from the last stamp, behind what has been met of it where a page holds no other.
fn after_stamp(place: Option<Place>, query: ListQuery<'_>, text: &str, records: &[Result<Record, Unreadable>]) -> Option<Place> {
    let (from, met) = match place {
        Some(Place::Stamp(at, met)) => (at, met),
        _ => (query.since?, 0),
    };
    let is_all = count(text).is_some_and(|count| count <= met.saturating_add(records.len()));
    if records.is_empty() || is_all {
        return None;
    }
    let last = records.iter().rev().find_map(|record| record.as_ref().ok()?.changed_at);
    // Filters are asked with milliseconds, so what lies within one of them is no progress.
    let has_passed = |last: crate::clock::Timestamp| stamps::literal(last) > stamps::literal(from);
    // Where the order was passed over, the last is not the highest.
    let stamps = records.iter().filter_map(|record| record.as_ref().ok()?.changed_at);
    match last.filter(|last| has_passed(*last) && stamps.is_sorted()) {
        Some(last) => Some(Place::Stamp(last, 0)),
        None => Some(Place::Stamp(from, met.saturating_add(records.len()))),
    }
}

/// Where the link leads. A server without links (Core 2.0.0) has its rows counted instead.
fn after_link(
    reader: &Reader<'_>,
    (place, query): (Option<Place>, ListQuery<'_>),
    response: &Response,
    text: &str,
    records: &[Result<Record, Unreadable>],
) -> Result<Option<Place>, ReadError> {
    if records.is_empty() {
        return Ok(None);
    }
    let met = match place {
        Some(Place::Skip(met) | Place::Link(_, met)) => met,
        Some(Place::Walk | Place::Key(_) | Place::Stamp(..)) | None => 0,
    };
    let met = met.saturating_add(records.len());
    let link_of = |address: &str| link(reader.reso, &reader.table.name, address).map(|url| Some(Place::Link(url, met)));
    if let Some(address) = next_link(text)? {
        return link_of(&address);
    }
    if let Some(address) = response.header("link").and_then(link_header) {
        return link_of(address);
    }
    let size = page_size(reader.reso, reader.table, query.halvings);
    // To some `$top` is a page, to others all that is wanted, in as many pages as they like: where so much came, nobody says that it
    // was all. Else whoever gives links gives none on the last page.
    let is_counted = match place {
        Some(Place::Walk | Place::Skip(_)) => true,
        _ if reader.reso.options.profile.replication == Replication::Path => false,
        Some(Place::Link(..)) => met.is_multiple_of(size),
        None => met >= size,
        Some(Place::Key(_) | Place::Stamp(..)) => false,
    };
    let is_all = count(text).is_some_and(|count| count <= met);
    Ok(if is_counted && !is_all { Some(Place::Skip(met)) } else { None })
}

/// `@odata.nextLink`; in answers of OData 4.01 the prefix may be left out.
pub(super) fn next_link(text: &str) -> Result<Option<String>, ReadError> {
    for name in ["/@odata.nextLink", "/@nextLink"] {
        let raw = raw_at(text, name).map_err(|_| ReadError::Malformed("the answer cannot be read"))?;
        if let Some(raw) = raw.filter(|raw| raw.get() != "null") {
            let link: String = serde_json::from_str(raw.get()).map_err(|_| ReadError::Malformed("the link to the next page is no text"))?;
            return Ok(Some(link).filter(|link| !link.is_empty()));
        }
    }
    Ok(None)
}

/// How many records the whole list has, as a number or a text.
fn count(text: &str) -> Option<usize> {
    let raw = ["/@odata.count", "/@count"].iter().find_map(|name| raw_at(text, name).ok().flatten())?;
    raw.get().trim_matches('"').parse().ok()
}

#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) reso: &'a Reso,
    pub(super) table: &'a Table,
    /// The answer held bytes that are no UTF-8.
    pub(super) lossy: bool,
}

impl Reader<'_> {
    fn records(&self, text: &str) -> Result<Vec<Result<Record, Unreadable>>, ReadError> {
        let list = values(text)?.ok_or(ReadError::Malformed("no list of records"))?;
        Ok(list.into_iter().map(|raw| self.record_alone(raw)).collect())
    }

    pub(super) fn record_alone(&self, raw: &RawValue) -> Result<Record, Unreadable> {
        let bytes = || Bytes::copy_from_slice(raw.get().as_bytes());
        let panicked = || Unreadable { key: self.key_of(raw), reason: "the connector panicked on it".to_owned(), raw: bytes() };
        alone(panicked, || self.record(raw))
    }

    fn record(&self, raw: &RawValue) -> Result<Record, Unreadable> {
        let bytes = raw.get().as_bytes();
        let unreadable = |key: Option<Key>, reason: String| Unreadable { key, reason, raw: Bytes::copy_from_slice(bytes) };
        let mut parsed = Parsed::read(bytes).map_err(|error| unreadable(self.key_of(raw), error.to_string()))?;
        // Of a page with bytes that are no UTF-8 only those records suffer that held some.
        parsed.lossy |= self.lossy && raw.get().contains('\u{FFFD}');
        let key = parsed.json.get(&self.table.key).and_then(Json::as_id).and_then(|id| Key::new(id).ok());
        let Some(key) = key else { return Err(unreadable(None, format!("the record has no usable {}", self.table.key))) };
        let parent = self.parent(&parsed.json).map_err(|reason| unreadable(Some(key.clone()), reason))?;
        strip(&mut parsed.json);
        let field = self.table.timestamp.as_deref();
        let stamp = field.and_then(|field| parsed.json.get(field)).and_then(Json::as_str);
        let version = field.zip(stamp).and_then(|(field, text)| stamps::version(field, text));
        let changed_at = stamp.and_then(stamps::instant);
        let in_scope = self.in_scope(&parsed.json);
        let shape = Shape { exclude: self.reso.options.exclude.clone(), volatile: self.table.volatile() };
        Ok(Record { key, version, changed_at, document: Document::new(parsed, &shape, bytes), parent, in_scope })
    }

    fn parent(&self, json: &Json) -> Result<Option<Key>, String> {
        let Some(parent) = self.table.parent else { return Ok(None) };
        let is_of_it = parent.named_by.is_none_or(|field| {
            json.get(field).and_then(Json::as_str).is_some_and(|resource| resource.eq_ignore_ascii_case(parent.resource))
        });
        let id = json.get(parent.key).filter(|id| is_of_it && !id.is_null());
        match id.map(|id| id.as_id().and_then(|id| Key::new(id).ok())) {
            None => Ok(None),
            Some(Some(key)) => Ok(Some(key)),
            Some(None) => Err(format!("{} is no usable key", parent.key)),
        }
    }

    /// Whether we may see it, and it is of the system that is asked for.
    fn in_scope(&self, json: &Json) -> bool {
        let options = &self.reso.options;
        let is_visible = options.profile.visible.is_none_or(|field| json.get(field).and_then(Json::as_bool) != Some(false));
        let system = json.get("OriginatingSystemName").and_then(Json::as_str);
        let is_ours = options.system.as_deref().is_none_or(|wanted| system.is_none_or(|system| system.eq_ignore_ascii_case(wanted)));
        is_visible && is_ours
    }

    /// Whether a key can be compared in a filter as it is.
    fn is_literal(&self, key: &str) -> bool {
        !self.table.numeric || key.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
    }

    /// The key of a record that cannot be read as a whole.
    fn key_of(&self, raw: &RawValue) -> Option<Key> {
        let id = Parsed::read(raw_at(raw.get(), &format!("/{}", self.table.key)).ok().flatten()?.get().as_bytes()).ok()?;
        Key::new(id.json.as_id()?).ok()
    }
}

/// Cuts annotations, which say how a record was asked for and not what it is: names of fields hold no `@`. As deep as a document may
/// be nested, which its reader bounds.
fn strip(json: &mut Json) {
    match json {
        Json::Object(fields) => {
            fields.retain(|name, _| !name.contains('@'));
            fields.values_mut().for_each(strip);
        }
        Json::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

/// How something was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// One record.
    Alone,
    /// Several.
    Bulk,
    /// What changed.
    Changes,
    /// A page that a link or cursor led to.
    Further,
    /// Anything else.
    List,
}

impl How {
    fn of(place: Option<&Place>, query: ListQuery<'_>) -> Self {
        match place {
            Some(Place::Link(..)) => Self::Further,
            None if query.since.is_some() => Self::Changes,
            _ => Self::List,
        }
    }
}

/// The one place where a status becomes a reason.
pub(super) fn failure(response: &Response, how: How) -> Result<(), ReadError> {
    Err(match response.status {
        200 => return Ok(()),
        // Core 2.0.0 has no `in`; a key that is read alone is always understood.
        400 | 501 if how == How::Bulk => ReadError::Unsupported,
        501 if how == How::Changes => ReadError::Unsupported,
        400 if how == How::Changes && says_unsupported(response) => ReadError::Unsupported,
        // A link dies: at some after idle minutes, at others when what it counts has changed.
        400 | 404 | 410 if how == How::Further => ReadError::CursorRefused,
        404 | 410 => ReadError::NotFound,
        status @ (401 | 403) => ReadError::Denied(status),
        429 => ReadError::RateLimited,
        status if status >= 500 => ReadError::Server(status),
        status => ReadError::Refused(status),
    })
}

fn says_unsupported(response: &Response) -> bool {
    let body = String::from_utf8_lossy(&response.body).to_ascii_lowercase();
    ["not supported", "unsupported", "not filterable", "not sortable", "not implemented"].iter().any(|words| body.contains(words))
}
