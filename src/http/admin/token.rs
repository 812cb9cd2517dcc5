//! The secret that a state-changing request must bear.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use subtle::ConstantTimeEq;
use warp::http::{HeaderMap, header};

use crate::failpoint;

/// Shortest token in bytes; what [`Token::ensure`] writes has 64.
const BYTES_MIN: usize = 16;
/// Longest token in bytes; a larger file is not a token.
const BYTES_MAX: u64 = 1024;

/// A bearer token. Never printed.
#[derive(Clone)]
pub struct Token(String);

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("token file: {0}")]
    Io(#[from] io::Error),
    /// Others may read the file; the mode found.
    #[error("token file is open to others: mode {0:o}, wanted 600")]
    Open(u32),
    /// The content is too short, too long or not printable ASCII.
    #[error("it is no token: one has 16 to 1024 printable ASCII characters and no space")]
    Content,
}

impl Token {
    /// Reads a token file that only its owner can read.
    ///
    /// # Errors
    /// [`TokenError`] when the file is missing, open to others or holds no token.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let file = File::open(path)?;
        let mode = file.metadata()?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(TokenError::Open(mode));
        }
        let mut text = String::new();
        file.take(BYTES_MAX + 1).read_to_string(&mut text)?;
        Self::from_text(text.trim_ascii())
    }

    /// Reads the token file, after making one from `random` bytes if there is none.
    ///
    /// # Errors
    /// [`TokenError`] as for [`Self::read`], or when the file cannot be made.
    pub fn ensure(path: &Path, random: [u8; 32]) -> Result<Self, TokenError> {
        if !path.exists() {
            // Linked into place when complete, so that a kill in between leaves no half a token behind.
            let draft = path.with_extension("draft");
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            failpoint::reach_now("token", "drafted").map_err(io::Error::other)?;
            if let Err(error) = fs::hard_link(&draft, path)
                && error.kind() != io::ErrorKind::AlreadyExists
            {
                return Err(error.into());
            }
            failpoint::reach_now("token", "linked").map_err(io::Error::other)?;
            fs::remove_file(&draft)?;
        }
        Self::read(path)
    }

    /// A token from wherever the configuration keeps it.
    ///
    /// # Errors
    /// [`TokenError::Content`] if it is too short, too long or not printable ASCII.
    pub fn from_text(text: &str) -> Result<Self, TokenError> {
        let fits = text.len() >= BYTES_MIN && text.len() as u64 <= BYTES_MAX;
        if !fits || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Content);
        }
        Ok(Self(text.to_owned()))
    }

    /// The text, for the client's `Authorization: Bearer …`.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub(in crate::http) fn is_borne_by(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()) else {
            return false;
        };
        let Some((scheme, borne)) = value.split_at_checked(b"bearer ".len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(borne.ct_eq(self.0.as_bytes()))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let made = Token::ensure(&path, [7; 32]).expect("made");
        let found = Token::ensure(&path, [8; 32]).expect("found");
        assert_eq!(made.expose(), found.expose());
        assert_eq!(made.expose().len(), 64);
        assert_eq!(format!("{made:?}"), "Token(…)");

        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("mode");
        assert!(matches!(Token::read(&path), Err(TokenError::Open(0o640))));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, content) in [("empty", ""), ("short", "abc"), ("spaced", "sixteen bytes and a space"), ("long", &"x".repeat(2000))] {
            let path = folder.path().join(name);
            fs::write(&path, content).expect("written");
            fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("mode");
            assert!(matches!(Token::read(&path), Err(TokenError::Content)), "{name}");
        }
    }
}
