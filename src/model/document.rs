//! A record's state in canonical form, and what has none.
//!
//! What is poison is decided here, before a store sees it, so that both stores hold the same (`docs/poison.md` is the table for
//! people, `tests/it/poison.rs` the one for the machine):
//!
//! - *Kept exactly*: numbers as they were written, up to 1,000 bytes and while a 64-bit float holds them finite; strings of any
//!   length that an answer may have.
//! - *Kept with a loss*: `\u0000`, lone surrogates and bytes that are no UTF-8 become U+FFFD, and the record is kept as sent beside
//!   it ([`Document::raw`]).
//! - *Unreadable*: larger numbers, 128 containers in each other, a name twice (also where it becomes so by a replacement).
//! - An id that would be longer than 512 bytes, or changed by a replacement, is none: two records would become one.

use sha2::{Digest, Sha256};

mod json;
mod page;
mod pointer;

pub use json::{Json, Parsed, Unreadable};
pub use page::{decode, raw_at, split_records};
pub use pointer::{changed_fields, differing_fields, glob};

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
    /// The bytes as sent, only where `lossy`, and not where a field was excluded: what must not be stored is not kept in here either.
    pub raw: Option<Box<[u8]>>,
    /// Hash of the canonical document without version and volatile fields.
    pub hash: Hash,
}

/// Which fields of a resource's documents are treated apart. Each is a JSON pointer whose segments may hold `*`:
/// `/attributes/cost*` names every attribute that begins so, `/items/*/url` the `url` of every item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Cut before hashing and storing (secrets, salaries).
    pub exclude: Vec<String>,
    /// Stored but left out of the hash: the version field, and what changes without the record changing.
    pub volatile: Vec<String>,
}

impl Document {
    /// Reads one record as it was sent.
    ///
    /// # Errors
    /// [`Unreadable`] says why it has no canonical form.
    pub fn parse(raw: &[u8], shape: &Shape) -> Result<Self, Unreadable> {
        Ok(Self::new(Parsed::read(raw)?, shape, raw))
    }

    /// Makes the document of a record that was read already (and normalised by its connector). `raw` are the bytes as sent.
    #[must_use]
    pub fn new(parsed: Parsed, shape: &Shape, raw: &[u8]) -> Self {
        let Parsed { mut json, lossy } = parsed;
        let excluded = shape.exclude.iter().map(|pointer| json.remove_pointer(pointer)).sum::<usize>();
        let text = json.to_string();
        let volatile = shape.volatile.iter().map(|pointer| json.remove_pointer(pointer)).sum::<usize>();
        let hash = if volatile == 0 { Hash::of(&text) } else { Hash::of(&json.to_string()) };
        let raw = (lossy && excluded == 0).then(|| Box::from(raw));
        Self { text: text.into_boxed_str(), lossy, raw, hash }
    }
}

impl Hash {
    fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }
}

#[cfg(test)]
mod tests;
