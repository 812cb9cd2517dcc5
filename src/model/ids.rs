//! Names and keys, checked once where they enter.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a name or key was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("is empty")]
    Empty,
    /// The text is longer than allowed.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// The text holds a character that is not allowed.
    #[error("holds a character that is not allowed")]
    Character,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $max:expr, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and wraps a text.
            ///
            /// # Errors
            /// [`IdError`] says which rule the text breaks.
            pub fn new(text: impl AsRef<str>) -> Result<Self, IdError> {
                let text = text.as_ref();
                if text.is_empty() {
                    return Err(IdError::Empty);
                }
                if text.len() > $max {
                    return Err(IdError::TooLong($max));
                }
                // Names become parts of paths, where these two mean another place.
                if matches!(text, "." | "..") {
                    return Err(IdError::Character);
                }
                let allowed: fn(usize, char) -> bool = $allowed;
                if !text.char_indices().all(|(at, c)| allowed(at, c)) {
                    return Err(IdError::Character);
                }
                Ok(Self(Arc::from(text)))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }
    };
}

text_id!(
    /// A configured upstream account. It becomes part of view names, so: `[a-z][a-z0-9_]*`, at most 31 bytes.
    SourceName,
    31,
    |at, c| c.is_ascii_lowercase() || at > 0 && (c.is_ascii_digit() || c == '_')
);
text_id!(
    /// One kind of record of a source, written as its vendor writes it (`tasks`, `product-models`, `Property`).
    ResourceName,
    63,
    |at, c| c.is_ascii_alphabetic() || at > 0 && (c.is_ascii_digit() || c == '_' || c == '-')
);
text_id!(
    /// The upstream's identifier of a record: at most 512 bytes (a PostgreSQL btree entry holds 2,704), no control characters,
    /// neither `.` nor `..`. U+FFFD stands where something was replaced: two records that the upstream tells apart would become one.
    Key,
    512,
    |_, c| !c.is_control() && c != '\u{FFFD}'
);

/// One record within a source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entity {
    /// The kind of record.
    pub resource: ResourceName,
    /// Which one.
    pub key: Key,
}

/// The source's logical clock. `epoch` is raised in the database at every start or takeover, `counter` within it.
/// A read takes a tick when its request is issued, a mark when it is set, a row keeps the tick of what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tick {
    /// Incarnation of the owner.
    pub epoch: i64,
    /// Counter within the incarnation.
    pub counter: i64,
}
