//! Secrets. The file holds only where a secret is; the text is read when it is needed, and again when it is rotated.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use super::reader::Item;
use super::value::{Value, quoted};

/// More than any token or key; a path to something else (a log, a device) is refused rather than read whole.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

const HOW_TO_WRITE: &str =
    "a secret is never written in the file; write { env = \"NAME\" }, { file = \"/path\" } or { credential = \"name\" }";

/// Where a secret is. It prints as `***` wherever it is formatted; only [`Secret::reference`] tells the place.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Place);

#[derive(Clone, PartialEq, Eq)]
enum Place {
    Env(String),
    File(PathBuf),
    Credential(String),
}

/// The text of a secret. It prints as `***`; only [`SecretText::expose`] gives it out.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

/// One secret, or several while one replaces another: the first is the one to send, any may verify.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets(pub Vec<Secret>);

/// Why a secret could not be read. The text of the secret is in none of them.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The environment has no such variable.
    #[error("environment variable {0} is not set")]
    NoVariable(String),
    /// systemd passed no credentials: the unit has no `LoadCredential=` or the program was started by hand.
    #[error("credential {0} cannot be read: CREDENTIALS_DIRECTORY is not set")]
    NoCredentials(String),
    /// The file cannot be read.
    #[error("{path} cannot be read: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is longer than a secret can be.
    #[error("{0} is longer than 64 KiB")]
    TooLong(String),
    /// There is nothing in it but line ends.
    #[error("{0} is empty")]
    Empty(String),
}

impl Secret {
    /// A secret in an environment variable.
    #[must_use]
    pub fn env(name: impl Into<String>) -> Self {
        Self(Place::Env(name.into()))
    }

    /// A secret in a file of its own.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Place::File(path.into()))
    }

    /// A secret that systemd passes in `$CREDENTIALS_DIRECTORY`.
    #[must_use]
    pub fn credential(name: impl Into<String>) -> Self {
        Self(Place::Credential(name.into()))
    }

    /// Reads the text as it is now, without the line ends that editors and `echo` append.
    ///
    /// # Errors
    /// When it cannot be read, is empty or is longer than a secret can be.
    pub fn read(&self) -> Result<SecretText, SecretError> {
        self.read_in(&|name| std::env::var(name).ok())
    }

    /// As [`Secret::read`], with the environment as a parameter.
    ///
    /// # Errors
    /// As [`Secret::read`].
    pub fn read_in(&self, environment: &dyn Fn(&str) -> Option<String>) -> Result<SecretText, SecretError> {
        let text = match &self.0 {
            Place::Env(name) => environment(name).ok_or_else(|| SecretError::NoVariable(name.clone()))?,
            Place::File(path) => read_file(path)?,
            Place::Credential(name) => {
                let directory = environment("CREDENTIALS_DIRECTORY").ok_or_else(|| SecretError::NoCredentials(name.clone()))?;
                read_file(&Path::new(&directory).join(name))?
            }
        };
        match text.trim_end_matches(['\n', '\r']) {
            "" => Err(SecretError::Empty(self.reference())),
            trimmed => Ok(SecretText(trimmed.to_owned())),
        }
    }

    /// Where it is, as TOML: `{ env = "X" }`.
    #[must_use]
    pub fn reference(&self) -> String {
        match &self.0 {
            Place::Env(name) => format!("{{ env = {} }}", quoted(name)),
            Place::File(path) => format!("{{ file = {} }}", quoted(&path.to_string_lossy())),
            Place::Credential(name) => format!("{{ credential = {} }}", quoted(name)),
        }
    }
}

impl SecretText {
    /// A text that is known already, such as a signature token that an upstream handed out.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself; for the one call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Secrets {
    /// Reads them all, in the order of the file.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn read(&self) -> Result<Vec<SecretText>, SecretError> {
        self.0.iter().map(Secret::read).collect()
    }
}

fn read_file(path: &Path) -> Result<String, SecretError> {
    let unreadable = |error| SecretError::Unreadable { path: path.to_owned(), error };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    match u64::try_from(text.len()) {
        Ok(length) if length <= SECRET_BYTES_MAX => Ok(text),
        _ => Err(SecretError::TooLong(path.display().to_string())),
    }
}

/// Whether a shell would take it as the name of a variable.
pub(crate) fn is_variable(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Formats as `***`, however it is asked.
macro_rules! masked {
    ($($name:ident),+) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("***")
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("***")
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str("***")
            }
        }
    )+};
}

masked!(Secret, SecretText);

impl Value for Secret {
    const SECRET: bool = true;

    fn read(item: &Item<'_>) -> Option<Self> {
        if !item.get().is_table() {
            return item.mistake(HOW_TO_WRITE);
        }
        let table = item.table()?;
        let written = |name| table.item(name).map(|place| (name, place));
        let places: Vec<_> = ["env", "file", "credential"].into_iter().filter_map(written).collect();
        if !table.finish(&[]) {
            return None;
        }
        let [(name, place)] = places.as_slice() else {
            return item.mistake(format!("must have exactly one of env, file and credential: {HOW_TO_WRITE}"));
        };
        let text = place.text("a string")?;
        match *name {
            _ if text.is_empty() => place.mistake("must not be empty"),
            // A secret itself, put where its name belongs, seldom looks like a name.
            "env" if !is_variable(text) => place.mistake("must be the name of an environment variable: letters, digits and _"),
            "env" => Some(Self::env(text)),
            "file" if Path::new(text).is_absolute() => Some(Self::file(text)),
            "file" => place.mistake("must be an absolute path"),
            _ if text.contains('/') || text == ".." => place.mistake("must be the name of a credential, not a path"),
            _ => Some(Self::credential(text)),
        }
    }

    fn show(&self) -> String {
        self.reference()
    }
}

impl Value for Secrets {
    const SECRET: bool = true;

    fn read(item: &Item<'_>) -> Option<Self> {
        match item.get().is_array() {
            true => Vec::read(item).map(Self),
            false => <Secret as Value>::read(item).map(|secret| Self(vec![secret])),
        }
    }

    fn show(&self) -> String {
        self.0.show()
    }
}
