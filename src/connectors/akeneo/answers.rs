//! What Akeneo's answers hold.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::catalog::{Above, Kind, MAPS, Paging, VOLATILE};
use super::cursor::{Place, next};
use super::requests::path;
use super::{Akeneo, ProductKey, ResourceOptions, kind};
use crate::clock::Timestamp;
use crate::connectors::{Asked, ListQuery, Page, ReadError, Record, ResourceSpec, Response, Unreadable, alone};
use crate::model::document::{Json, Parsed, Shape, decode, raw_at, split_records};
use crate::model::ordering::By;
use crate::model::{Document, Key, Version};

pub(super) fn page(akeneo: &Akeneo, resource: &ResourceSpec, asked: Asked<'_>, response: &Response) -> Result<Page, ReadError> {
    let kind = kind(resource.name.as_str()).ok_or(ReadError::Malformed("the resource is unknown"))?;
    let (text, lossy) = decode(&response.body);
    let reader = Reader { akeneo, kind, above: None, lossy };
    match (asked, kind.above) {
        (Asked::Page(query), Some(nest)) => nested(&reader, nest, query, response, &text),
        (Asked::Page(query), None) => {
            failure(response, query.since.is_some(), query.cursor.is_some())?;
            let next = next(akeneo, &path(akeneo, kind, None), kind.paging, &text)?;
            Ok(Page { records: reader.records(&text)?, next })
        }
        (Asked::Keys(keys, By::Key), nest) => {
            failure(response, false, false)?;
            let key = keys.first().map_or("", Key::as_str);
            if kind.paging == Paging::Whole {
                return whole(&reader, key, &text);
            }
            let above = nest.and(key.split_once('/')).map(|(above, _)| above);
            let raw = raw_at(&text, "").ok().flatten().filter(|raw| raw.get().starts_with('{'));
            let raw = raw.ok_or(ReadError::Malformed("no record"))?;
            Ok(Page { records: vec![Reader { above, ..reader }.record_alone(raw)], next: None })
        }
        (Asked::Keys(..), _) => {
            failure(response, true, false)?;
            Ok(Page { records: reader.records(&text)?, next: None })
        }
    }
}

/// Measurement families have no read of one; their list has no pages, so it tells of each whether it is there.
fn whole(reader: &Reader<'_>, key: &str, text: &str) -> Result<Page, ReadError> {
    let mut page = Page { records: reader.records(text)?, next: None };
    let is_it = |record: &Result<Record, Unreadable>| match record {
        Ok(record) => record.key.as_str() == key,
        Err(unreadable) => unreadable.key.as_ref().is_some_and(|found| found.as_str() == key),
    };
    page.records.retain(is_it);
    if page.records.is_empty() { Err(ReadError::NotFound) } else { Ok(page) }
}

/// A page of the collection above, or of the records of one of its own.
fn nested(reader: &Reader<'_>, nest: Above, query: ListQuery<'_>, response: &Response, text: &str) -> Result<Page, ReadError> {
    let (akeneo, kind) = (reader.akeneo, reader.kind);
    let place = Place::read(query.cursor).ok_or(ReadError::CursorRefused)?;
    let Some(code) = place.left.first().cloned() else {
        failure(response, false, place.above.is_some())?;
        let next = next(akeneo, nest.path, nest.paging, text)?;
        let codes = items(text)?.into_iter().filter_map(|raw| code_above(akeneo, kind, nest, raw)).collect();
        return Ok(Page { records: Vec::new(), next: Place::after_above(next, codes).write() });
    };
    let (records, next) = match failure(response, query.since.is_some(), place.page.is_some()) {
        // It was removed while the walk came to it: then it holds nothing.
        Err(ReadError::NotFound) => (Vec::new(), None),
        Err(error) => return Err(error),
        Ok(()) => {
            let next = next(akeneo, &path(akeneo, kind, Some(&code)), kind.paging, text)?;
            (Reader { above: Some(&code), ..*reader }.records(text)?, next)
        }
    };
    Ok(Page { records, next: place.after_page(next).write() })
}

/// The code of a record above whose own are to be listed.
fn code_above(akeneo: &Akeneo, kind: &Kind, nest: Above, raw: &RawValue) -> Option<String> {
    let code = text_at(raw.get(), "/code")?;
    let is_kept = akeneo.resource(kind).is_none_or(|set| set.keep.keeps_below(&code));
    let has_any = nest.types.is_empty() || text_at(raw.get(), "/type").is_some_and(|word| nest.types.contains(&word.as_str()));
    (is_kept && has_any && compose(&code, "x").is_some()).then_some(code)
}

/// The key of a record in a nested collection: `above/code`.
pub(super) fn compose(above: &str, code: &str) -> Option<Key> {
    // Codes hold no slash, so the first one parts them.
    let are_parts = Key::new(above).is_ok() && Key::new(code).is_ok() && !above.contains('/');
    if are_parts { Key::new(format!("{above}/{code}")).ok() } else { None }
}

/// The text at a pointer, without reading what stands beside it.
pub(super) fn text_at(json: &str, pointer: &str) -> Option<String> {
    serde_json::from_str(raw_at(json, pointer).ok().flatten()?.get()).ok()
}

/// Of assets the vendor's reference and its own client disagree on the name of the list; measurement families are a bare one.
fn items(text: &str) -> Result<Vec<&RawValue>, ReadError> {
    let lists = ["/_embedded/items", "/_embedded/_items", ""];
    lists.iter().find_map(|pointer| split_records(text, pointer).ok()).ok_or(ReadError::Malformed("no list of records"))
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    akeneo: &'a Akeneo,
    kind: &'static Kind,
    /// The code of the record above.
    above: Option<&'a str>,
    /// The page held bytes that are no UTF-8.
    lossy: bool,
}

impl Reader<'_> {
    fn records(&self, text: &str) -> Result<Vec<Result<Record, Unreadable>>, ReadError> {
        Ok(items(text)?.into_iter().map(|raw| self.record_alone(raw)).collect())
    }

    fn record_alone(&self, raw: &RawValue) -> Result<Record, Unreadable> {
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
        let code = parsed.json.get(self.key_field()).and_then(Json::as_str).unwrap_or_default().to_owned();
        let Some(key) = self.key(&code) else { return Err(unreadable(None, self.without_key().to_owned())) };
        let set = self.akeneo.resource(self.kind);
        let parent = match parsed.json.get("parent").and_then(Json::as_str).filter(|_| self.kind.has_values).map(Key::new) {
            Some(Err(_)) => return Err(unreadable(Some(key), "the parent is no usable key".to_owned())),
            Some(Ok(parent)) => Some(parent),
            None => None,
        };
        normalise(&mut parsed.json);
        if let (Json::Object(fields), Some(nest), Some(above)) = (&mut parsed.json, self.kind.above, self.above) {
            fields.entry(nest.field.into()).or_insert_with(|| Json::String(above.into()));
        }
        if let (Some(set), true) = (set, self.kind.has_values) {
            project(&mut parsed.json, set);
        }
        let in_scope = set.is_none_or(|set| set.keep.keeps(&code, self.above, &parsed.json));
        let updated = parsed.json.get("updated").and_then(Json::as_str).filter(|_| self.kind.is_dated);
        let version = updated.and_then(|text| Version::stamp(&Arc::from("updated"), text));
        let changed_at = updated.and_then(Timestamp::parse);
        let shape = Shape { exclude: self.akeneo.options.exclude.clone(), volatile: volatile() };
        Ok(Record { key, version, changed_at, document: Document::new(parsed, &shape, bytes), parent, in_scope })
    }

    fn key_field(&self) -> &'static str {
        match (self.kind.name, self.akeneo.options.product_key) {
            ("products", ProductKey::Uuid) => "uuid",
            ("products", ProductKey::Identifier) => "identifier",
            _ => "code",
        }
    }

    fn key(&self, code: &str) -> Option<Key> {
        match self.above {
            Some(above) => compose(above, code),
            None => Key::new(code).ok(),
        }
    }

    fn without_key(&self) -> &'static str {
        match self.key_field() {
            "uuid" => "the product has no usable uuid: products of this PIM may have none, then set product_key = \"identifier\"",
            "identifier" => "the product has no usable identifier",
            _ => "the record has no usable code",
        }
    }

    /// The key of a record that cannot be read as a whole.
    fn key_of(&self, raw: &RawValue) -> Option<Key> {
        self.key(&text_at(raw.get(), &format!("/{}", self.key_field()))?)
    }
}

/// What is left out of the hash of every record.
pub(super) fn volatile() -> Vec<String> {
    VOLATILE.iter().map(|pointer| (*pointer).to_owned()).collect()
}

/// Cuts links, which say where a record is and not what, and writes empty maps in one way: PHP sends them as `[]` or `{}`.
fn normalise(json: &mut Json) {
    unlink(json);
    let Json::Object(fields) = json else { return };
    for name in MAPS {
        if let Some(map) = fields.get_mut(name).filter(|map| map.as_array().is_some_and(<[Json]>::is_empty)) {
            *map = Json::Object(Default::default());
        }
    }
}

/// As deep as a document may be nested, which its reader bounds.
fn unlink(json: &mut Json) {
    match json {
        Json::Object(fields) => {
            fields.remove("_links");
            fields.values_mut().for_each(unlink);
        }
        Json::Array(items) => items.iter_mut().for_each(unlink),
        _ => {}
    }
}

/// Leaves the values of the configured channel, locales and attributes: the same of every read, whichever of these wishes it could carry.
fn project(json: &mut Json, set: &ResourceOptions) {
    let Some(Json::Object(values)) = json.pointer_mut("/values") else { return };
    let fits = |value: &Json, name: &str, wanted: &dyn Fn(&str) -> bool| value.get(name).and_then(Json::as_str).is_none_or(wanted);
    let is_kept = |value: &Json| {
        fits(value, "scope", &|scope| set.scope.as_deref().is_none_or(|wanted| wanted == scope))
            && fits(value, "locale", &|locale| set.locales.is_empty() || set.locales.iter().any(|wanted| wanted == locale))
    };
    values.retain(|attribute, items| {
        let Json::Array(items) = items else { return true };
        items.retain(is_kept);
        let is_wanted = set.attributes.is_empty() || set.attributes.iter().any(|wanted| **wanted == **attribute);
        is_wanted && !items.is_empty()
    });
}

/// The one place where a status becomes a reason. `by_search`: the request had a filter that not every version knows.
fn failure(response: &Response, by_search: bool, has_cursor: bool) -> Result<(), ReadError> {
    let says_unsupported = || {
        let body = String::from_utf8_lossy(&response.body);
        body.contains("not supported") || body.contains("not support")
    };
    Err(match response.status {
        200 => return Ok(()),
        400 | 422 if by_search && says_unsupported() => ReadError::Unsupported,
        400 | 422 if has_cursor => ReadError::CursorRefused,
        404 | 410 => ReadError::NotFound,
        status @ (401 | 403) => ReadError::Denied(status),
        429 => ReadError::RateLimited,
        status if status >= 500 => ReadError::Server(status),
        status => ReadError::Refused(status),
    })
}
