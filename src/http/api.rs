//! The third socket: rows by their keys for applications, fresher ones on demand, and the history of one.
//!
//! Every request bears a token of the configuration (RFC 6750), which is looked at before anything else: without one no row is
//! read and nothing is asked upstream. There is no CORS; TLS ends in front of us.

mod client;
mod query;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use warp::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use warp::path::FullPath;
use warp::{Filter, Reply};

pub use client::{Client, Scope};
use query::Query;

pub use query::REFRESH_AGE;

use super::{BoxFuture, Response, Routes, json as json_answer};

/// Longest time that a caller may ask to be kept waiting; below the edge's own deadline for a request.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(15);

/// What is asked of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Of which source.
    pub source: String,
    /// Which of its resources.
    pub resource: String,
    /// Its key, as the upstream writes it.
    pub key: String,
    /// What.
    pub what: What,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The row as it is held.
    Row,
    /// The row, compared with the upstream no longer ago than this.
    Fresh {
        /// How long ago.
        max_age: Duration,
        /// How long the caller waits; none: as configured.
        timeout: Option<Duration>,
    },
    /// That it is read: nothing older than this will do.
    Refresh {
        /// How old a read may be that is under way or over already.
        max_age: Duration,
        /// How long the caller waits; none: as configured.
        timeout: Option<Duration>,
    },
    /// The row in this version or a newer one.
    Version {
        /// As the upstream writes it.
        version: String,
        /// How long the caller waits; none: as configured.
        timeout: Option<Duration>,
    },
    /// Its history, of so many entries.
    History {
        /// As the caller wrote it.
        limit: Option<String>,
    },
}

/// What is answered. The status is one of HTTP's.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// 200, 400, 404, 410, 429, 503 or 504.
    pub status: u16,
    /// JSON.
    pub body: String,
    /// Names the state that the body shows; without quotes.
    pub tag: Option<String>,
    /// When to ask again.
    pub retry_after: Option<Duration>,
    /// The row is older than was asked for.
    pub is_stale: bool,
}

/// Who knows the rows.
pub trait Replica: Send + Sync + 'static {
    /// Answers within the time that the caller waits.
    fn answer(&self, asked: Asked) -> BoxFuture<'_, Answer>;
}

/// The routes for [`super::edge::serve`].
pub fn routes(clients: Vec<Client>, replica: Arc<dyn Replica>) -> Routes {
    let clients = Arc::new(clients);
    warp::method()
        .and(warp::path::full())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(warp::header::headers_cloned())
        .then(move |method: Method, path: FullPath, query: String, headers: HeaderMap| {
            let (clients, replica) = (Arc::clone(&clients), Arc::clone(&replica));
            async move {
                match asked(&clients, &method, path.as_str(), &query, &headers) {
                    Ok(asked) => answered(replica.answer(asked).await, &headers),
                    Err(refusal) => refusal.response(),
                }
            }
        })
        .boxed()
}

/// Why a request is not answered by a row.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refusal {
    /// No token: RFC 6750 wants no error code then.
    Nobody,
    /// A token that is none of ours.
    Unknown,
    /// The token is not for that; the scope it lacks, or none where it is not for the source.
    Forbidden(Option<Scope>),
    /// There is no such path.
    Path,
    /// The path takes this method alone.
    Method(&'static str),
    /// The request makes no sense.
    Invalid(String),
}

impl Refusal {
    fn response(self) -> Response {
        let allowed = if let Self::Method(allowed) = self { Some(allowed) } else { None };
        let (status, text, challenge) = match self {
            Self::Nobody => (StatusCode::UNAUTHORIZED, "a bearer token is needed".to_owned(), Some("Bearer".to_owned())),
            Self::Unknown => {
                (StatusCode::UNAUTHORIZED, "the token is not known".to_owned(), Some("Bearer error=\"invalid_token\"".to_owned()))
            }
            Self::Forbidden(scope) => {
                let lacks = scope.map_or_else(String::new, |scope| format!(", scope=\"{}\"", scope.word()));
                let text = scope.map_or_else(
                    || "the token is not for this source".to_owned(),
                    |scope| format!("the token has not the scope `{}`", scope.word()),
                );
                (StatusCode::FORBIDDEN, text, Some(format!("Bearer error=\"insufficient_scope\"{lacks}")))
            }
            Self::Path => {
                let text = "not found: /v1/{source}/{resource}/{key}, with the key percent-encoded (`/` as %2F)";
                (StatusCode::NOT_FOUND, text.to_owned(), None)
            }
            Self::Method(allowed) => (StatusCode::METHOD_NOT_ALLOWED, format!("only {allowed}"), None),
            Self::Invalid(why) => (StatusCode::BAD_REQUEST, why, None),
        };
        let mut response = json_answer(status, &serde_json::json!({ "error": text }));
        if let Some(allowed) = allowed {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        if let Some(challenge) = challenge.and_then(|text| HeaderValue::from_str(&text).ok()) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// What a request asks, if whoever asks may.
fn asked(clients: &[Client], method: &Method, path: &str, query: &str, headers: &HeaderMap) -> Result<Asked, Refusal> {
    let client = client::admitted(clients, headers)?;
    let (parts, action) = query::place(path)?;
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    match action {
        query::Action::Refresh if *method != Method::POST => return Err(Refusal::Method("POST")),
        query::Action::Row | query::Action::History if !is_read => return Err(Refusal::Method("GET, HEAD")),
        query::Action::Row | query::Action::History | query::Action::Refresh => {}
    }
    let what = Query::read(query, action)?.what(action)?;
    // Whatever may cost a request upstream is a refresh.
    let scope = if matches!(what, What::Row | What::History { .. }) { Scope::Read } else { Scope::Refresh };
    if !client.scopes.contains(&scope) {
        return Err(Refusal::Forbidden(Some(scope)));
    }
    let [source, resource, key] = parts;
    // Whether there is such a source is nobody's business whose token is not for it.
    if client.sources.as_ref().is_some_and(|sources| !sources.contains(&source)) {
        return Err(Refusal::Forbidden(None));
    }
    Ok(Asked { source, resource, key, what })
}

fn answered(answer: Answer, headers: &HeaderMap) -> Response {
    let Answer { status, body, tag, retry_after, is_stale } = answer;
    let tag = tag.map(|tag| format!("W/\"{tag}\""));
    let is_known = status == 200 && !is_stale && tag.as_ref().is_some_and(|tag| is_matched(headers, tag));
    let status =
        if is_known { StatusCode::NOT_MODIFIED } else { StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR) };
    let mut response = if is_known { status.into_response() } else { warp::reply::with_status(body, status).into_response() };
    let set = response.headers_mut();
    set.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !is_known {
        set.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some(tag) = tag.and_then(|tag| HeaderValue::from_str(&tag).ok()) {
        set.insert(header::ETAG, tag);
    }
    if let Some(span) = retry_after {
        let seconds = span.as_secs() + u64::from(span.subsec_nanos() > 0);
        set.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if is_stale {
        set.insert(header::WARNING, HeaderValue::from_static("110 - \"Response is Stale\""));
    }
    response
}

/// Whether the caller has this state; compared weakly (RFC 9110, 13.1.2).
fn is_matched(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = known.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|known| known == "*" || known.trim_start_matches("W/") == tag.trim_start_matches("W/"))
}
