//! A record's state in canonical form.

use std::collections::BTreeMap;

/// JSON with its number literals kept; objects are sorted and free of duplicate keys by construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// The literal as it was sent: `1e2`, `1.0`, a 23-digit id.
    Number(Box<str>),
    /// Unescaped text.
    String(Box<str>),
    /// A list.
    Array(Vec<Json>),
    /// A map.
    Object(BTreeMap<Box<str>, Json>),
}

/// SHA-256 of the canonical text without version and volatile fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

/// A whole state of a record, canonical and hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Canonical JSON text, storable on both stores (`\u0000` and lone surrogates replaced by U+FFFD).
    pub text: Box<str>,
    /// True if something was replaced: then `raw` holds what was sent.
    pub lossy: bool,
    /// The bytes as sent, only where `lossy`.
    pub raw: Option<Box<[u8]>>,
    /// Hash of the canonical document without version and volatile fields.
    pub hash: Hash,
}
