//! Taking a response apart without reading its records, so that one that cannot be read does not spoil the others.

use std::borrow::Cow;

use serde::de::Deserializer as _;
use serde_json::value::RawValue;

use super::json::{Entries, Unreadable, syntax};

/// The bytes as text: what is no UTF-8 becomes U+FFFD; the flag says that it was so.
#[must_use]
pub fn decode(bytes: &[u8]) -> (Cow<'_, str>, bool) {
    let text = String::from_utf8_lossy(bytes);
    let lossy = matches!(text, Cow::Owned(_));
    (text, lossy)
}

/// The value at a JSON pointer (`/links/next`; empty for the whole), unread; `None` where there is none.
/// Only the objects on the way are opened; list indices are not followed.
///
/// # Errors
/// [`Unreadable`] if the text is no JSON or an object on the way holds the key twice.
pub fn raw_at<'a>(page: &'a str, pointer: &str) -> Result<Option<&'a RawValue>, Unreadable> {
    let mut at: &RawValue = serde_json::from_str(page).map_err(|error| syntax(&error))?;
    for segment in pointer.split('/').skip(1) {
        if !at.get().starts_with('{') {
            return Ok(None);
        }
        let entries = serde_json::Deserializer::from_str(at.get()).deserialize_map(Entries).map_err(|error| syntax(&error))?;
        let mut found = entries.iter().filter(|(key, _)| &**key == segment.as_bytes()).map(|(_, item)| *item);
        let Some(item) = found.next() else { return Ok(None) };
        if found.next().is_some() {
            return Err(Unreadable::DuplicateKey);
        }
        at = item;
    }
    Ok(Some(at))
}

/// The records of a page, unread, each to be read alone. `pointer` names the list that holds them (`/data`; empty for the whole).
///
/// # Errors
/// [`Unreadable`] if the page is no JSON, an object on the way holds a key twice, or there is no list.
pub fn split_records<'a>(page: &'a str, pointer: &str) -> Result<Vec<&'a RawValue>, Unreadable> {
    let no_list = || Unreadable::NoList(pointer.to_owned());
    let list = raw_at(page, pointer)?.ok_or_else(no_list)?;
    serde_json::from_str(list.get()).map_err(|_| no_list())
}
