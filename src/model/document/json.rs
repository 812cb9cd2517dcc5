//! JSON with its number literals kept, read by `serde_json` level by level.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::page::decode;

/// Containers within containers. `serde_json` reads no deeper, so whatever we store every part of us can read again.
const DEPTH_MAX: usize = 127;

/// Bytes of a number literal. PostgreSQL's `numeric` would take more, no upstream sends more.
const NUMBER_BYTES_MAX: usize = 1_000;

/// The written exponent, either way. Together with [`NUMBER_BYTES_MAX`] it stays far inside PostgreSQL's `numeric` (16,383 decimals).
const EXPONENT_MAX: u32 = 400;

/// JSON with its number literals kept; objects are sorted and free of duplicate keys by construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// The literal as it was sent: `1e2`, `1.0`, a 23-digit id. It is finite as a 64-bit float, as not every reader of the store
    /// could take it otherwise.
    Number(Box<str>),
    /// Unescaped text.
    String(Box<str>),
    /// A list.
    Array(Vec<Json>),
    /// A map.
    Object(BTreeMap<Box<str>, Json>),
}

/// What was read, and whether it is all that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The value.
    pub json: Json,
    /// Something neither store can hold (`\u0000`, a lone surrogate, bytes that are no UTF-8) was replaced by U+FFFD.
    pub lossy: bool,
}

/// Why bytes have no canonical form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not JSON. The place is given, the text never.
    #[error("not json at line {line} column {column}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// Which of the two values is meant nobody can tell.
    #[error("an object holds a key twice")]
    DuplicateKey,
    /// Containers within containers, 128 or more.
    #[error("nested deeper than {DEPTH_MAX}")]
    TooDeep,
    /// Longer than 1,000 bytes, or beyond what a 64-bit float and PostgreSQL's `numeric` can hold (`1e400`).
    #[error("a number is out of range")]
    Number,
    /// What should be a list of records is none.
    #[error("no list at {0}")]
    NoList(String),
}

impl Parsed {
    /// Reads a JSON text.
    ///
    /// # Errors
    /// [`Unreadable`] says why it has no canonical form. No input panics.
    pub fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let (text, mut lossy) = decode(bytes);
        let raw: &RawValue = serde_json::from_str(&text).map_err(|error| syntax(&error))?;
        let json = value(raw, 0, &mut lossy)?;
        Ok(Self { json, lossy })
    }
}

impl Json {
    /// Reads a JSON text where it does not matter whether something was replaced (an envelope, a configuration).
    ///
    /// # Errors
    /// [`Unreadable`] says why it has no canonical form. No input panics.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        Parsed::read(bytes).map(|parsed| parsed.json)
    }

    /// The value of a key, if this is an object that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_object()?.get(key)
    }

    /// True for `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        *self == Self::Null
    }

    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The text of a string or the literal of a number: what an id looks like, however it was sent.
    #[must_use]
    pub fn as_id(&self) -> Option<&str> {
        match self {
            Self::String(text) | Self::Number(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a truth.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    /// The value of a number that is written as an integer and fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Number(literal) => literal.parse().ok(),
            _ => None,
        }
    }

    /// The items of a list.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The entries of an object.
    #[must_use]
    pub fn as_object(&self) -> Option<&BTreeMap<Box<str>, Self>> {
        match self {
            Self::Object(entries) => Some(entries),
            _ => None,
        }
    }
}

/// The canonical text: no blanks, keys sorted by their bytes, strings with the fewest escapes, number literals as they were sent.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(truth) => write!(f, "{truth}"),
            Self::Number(literal) => f.write_str(literal),
            Self::String(text) => write_string(f, text),
            Self::Array(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    f.write_str(if at == 0 { "" } else { "," })?;
                    item.fmt(f)?;
                }
                f.write_str("]")
            }
            Self::Object(entries) => {
                f.write_str("{")?;
                for (at, (key, item)) in entries.iter().enumerate() {
                    f.write_str(if at == 0 { "" } else { "," })?;
                    write_string(f, key)?;
                    f.write_str(":")?;
                    item.fmt(f)?;
                }
                f.write_str("}")
            }
        }
    }
}

fn write_string(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?)
}

pub(super) fn syntax(error: &serde_json::Error) -> Unreadable {
    Unreadable::Syntax { line: error.line(), column: error.column() }
}

/// `depth` containers are around this value. `RawValue` has checked the syntax of all that is inside it already, so every level
/// costs one scan of what it holds; in return no tokenizer of our own is needed and number literals survive.
fn value(raw: &RawValue, depth: usize, lossy: &mut bool) -> Result<Json, Unreadable> {
    let text = raw.get();
    let first = text.as_bytes().first().copied().unwrap_or_default();
    if depth == DEPTH_MAX && matches!(first, b'{' | b'[') {
        return Err(Unreadable::TooDeep);
    }
    match first {
        b'{' => object(text, depth, lossy),
        b'[' => {
            let items = serde_json::Deserializer::from_str(text).deserialize_seq(Items).map_err(|error| syntax(&error))?;
            items.into_iter().map(|item| value(item, depth + 1, lossy)).collect::<Result<_, _>>().map(Json::Array)
        }
        b'"' => {
            let bytes = serde_json::Deserializer::from_str(text).deserialize_bytes(Bytes).map_err(|error| syntax(&error))?;
            Ok(Json::String(storable(&bytes, lossy)))
        }
        b't' => Ok(Json::Bool(true)),
        b'f' => Ok(Json::Bool(false)),
        b'n' => Ok(Json::Null),
        _ => number(text),
    }
}

fn object(text: &str, depth: usize, lossy: &mut bool) -> Result<Json, Unreadable> {
    let entries = serde_json::Deserializer::from_str(text).deserialize_map(Entries).map_err(|error| syntax(&error))?;
    let mut sorted = BTreeMap::new();
    for (key, item) in entries {
        match sorted.entry(storable(&key, lossy)) {
            Entry::Occupied(_) => return Err(Unreadable::DuplicateKey),
            Entry::Vacant(place) => place.insert(value(item, depth + 1, lossy)?),
        };
    }
    Ok(Json::Object(sorted))
}

fn number(literal: &str) -> Result<Json, Unreadable> {
    let exponent = literal.split_once(['e', 'E']).map_or("0", |(_, exponent)| exponent);
    let near = exponent.parse::<i32>().is_ok_and(|exponent| exponent.unsigned_abs() <= EXPONENT_MAX);
    let finite = literal.parse::<f64>().is_ok_and(f64::is_finite);
    if literal.len() > NUMBER_BYTES_MAX || !near || !finite {
        return Err(Unreadable::Number);
    }
    Ok(Json::Number(Box::from(literal)))
}

/// What both stores can hold of an unescaped string: NUL and lone surrogates become U+FFFD.
fn storable(bytes: &[u8], lossy: &mut bool) -> Box<str> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => {
            *lossy = true;
            Cow::Owned(without_surrogates(bytes))
        }
    };
    if !text.contains('\0') {
        return text.into();
    }
    *lossy = true;
    text.replace('\0', "\u{FFFD}").into_boxed_str()
}

/// The text around a lone surrogate is valid, the surrogate itself is three bytes, `ED A0..BF 80..BF` (WTF-8).
fn without_surrogates(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let Err(error) = std::str::from_utf8(rest) else { break };
        let (valid, broken) = rest.split_at(error.valid_up_to());
        text.push_str(&String::from_utf8_lossy(valid));
        text.push('\u{FFFD}');
        rest = broken.get(3..).unwrap_or_default();
    }
    text.push_str(&String::from_utf8_lossy(rest));
    text
}

/// The unescaped bytes of a string, lone surrogates as WTF-8.
struct Bytes;

impl<'de> Visitor<'de> for Bytes {
    type Value = Cow<'de, [u8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(bytes))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(bytes.to_vec()))
    }
}

struct Items;

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(items)
    }
}

struct KeyBytes<'de>(Cow<'de, [u8]>);

impl<'de> serde::Deserialize<'de> for KeyBytes<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(Bytes).map(Self)
    }
}

pub(super) struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(Cow<'de, [u8]>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((KeyBytes(key), item)) = access.next_entry()? {
            entries.push((key, item));
        }
        Ok(entries)
    }
}
