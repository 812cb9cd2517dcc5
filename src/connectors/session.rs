//! Sessions: tokens that are asked for with credentials and expire. They live in memory only and are never printed.

use std::fmt;
use std::time::Duration;

use super::Request;

/// A request for a session: a declared write on the configured origin that carries its own credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Login(pub Request);

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("url", &self.0.url).finish_non_exhaustive()
    }
}

/// What an upstream gave for a login.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// What requests are authorised by.
    pub token: String,
    /// What the next session is asked for with, once.
    pub refresh: Option<String>,
    /// How long the token is good, from the answer on; `None`: until it is refused.
    pub lasts: Option<Duration>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("lasts", &self.lasts).finish_non_exhaustive()
    }
}
