//! Who may ask.

use warp::http::{HeaderMap, header};

use super::Refusal;
use crate::http::admin::Token;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Rows as they are held, and histories.
    Read,
    /// Whatever may cost a request upstream.
    Refresh,
}

impl Scope {
    /// As it is written.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Refresh => "refresh",
        }
    }
}

/// Somebody with tokens.
#[derive(Clone, Debug)]
pub struct Client {
    /// What it bears; several while one replaces another.
    pub tokens: Vec<Token>,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// For which sources; none: for all.
    pub sources: Option<Vec<String>>,
}

/// Who bears the token. Every token is compared, each in constant time, whichever matches.
pub(super) fn admitted<'a>(clients: &'a [Client], headers: &HeaderMap) -> Result<&'a Client, Refusal> {
    if !headers.contains_key(header::AUTHORIZATION) {
        return Err(Refusal::Nobody);
    }
    let mut found = None;
    for client in clients {
        for token in &client.tokens {
            if token.is_borne_by(headers) {
                found = Some(client);
            }
        }
    }
    found.ok_or(Refusal::Unknown)
}
