//! The second socket: health, metrics, status and the verbs that change something. Loopback by default.
//!
//! A local socket is no proof of good intent: any web page can make a browser post to 127.0.0.1, and by DNS rebinding read
//! from it. So every route wants a `Host` from an allow-list, and a verb wants the token of a 0600 file, JSON and no `Origin`.
//! There is no CORS.

#[cfg(test)]
mod tests;
mod token;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use futures_util::Stream;
use serde_json::{Value, json};
use warp::http::{HeaderMap, HeaderValue, StatusCode, header};
use warp::reject::{MethodNotAllowed, Reject, Rejection};
use warp::{Filter, Reply};

pub use token::{Token, TokenError};

use super::body::{self, Budget};
use super::{BoxFuture, Response, Routes, json as json_answer, plain};
use crate::report::Reporter;

/// The media type of what [`Reporter::render`] writes.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Who may ask, and the limits.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names and addresses accepted in `Host` besides the loopback ones, without port: the configured address, a proxy's name.
    pub hosts: Vec<String>,
    /// What a verb must bear, any of them while one replaces another. Without one no verb is taken.
    pub tokens: Vec<Token>,
    /// Whether reading needs the token too, health included; for sockets that are not on loopback.
    pub token_for_reads: bool,
    /// Longest body of a verb in bytes. 64 KiB: verbs name things, they carry none.
    pub body_bytes_max: usize,
    /// For the body of a verb to arrive. 5 s.
    pub body_deadline: Duration,
    /// For the status to be gathered, above it 503. 5 s: it is wanted most when something hangs.
    pub status_deadline: Duration,
}

impl Options {
    /// Whether a request bears one of the tokens. Each is compared, so that the time tells nothing.
    fn is_borne_by(&self, headers: &HeaderMap) -> bool {
        self.tokens.iter().fold(false, |is_borne, token| token.is_borne_by(headers) | is_borne)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            tokens: Vec::new(),
            token_for_reads: false,
            body_bytes_max: 64 * 1024,
            body_deadline: Duration::from_secs(5),
            status_deadline: Duration::from_secs(5),
        }
    }
}

/// A yes or no with its reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// What is wrong, most important first; empty is good.
    pub wrong: Vec<String>,
}

/// What the daemon says of itself.
pub trait StatusSource: Send + Sync + 'static {
    /// Whether a delivery could be accepted durably now. From state that others keep: must neither wait nor do I/O.
    fn ready(&self) -> Condition;

    /// The summary over all parts. From state that others keep: must neither wait nor do I/O.
    fn health(&self) -> Condition;

    /// Everything, what is wrong first.
    fn status(&self) -> BoxFuture<'_, Value>;
}

/// Carries out the verbs of `POST /control/{verb}`.
pub trait Control: Send + Sync + 'static {
    /// Does `verb` with the request's JSON.
    fn control(&self, verb: String, request: Value) -> BoxFuture<'_, Result<Value, ControlError>>;
}

/// Why a verb was not carried out. The texts are shown to the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// There is no such verb. 404.
    #[error("unknown verb")]
    Unknown,
    /// The request makes no sense. 400.
    #[error("{0}")]
    Invalid(String),
    /// Not in this state. 409.
    #[error("{0}")]
    Conflict(String),
    /// Not now. 503.
    #[error("{0}")]
    Unavailable(String),
}

/// The routes for [`super::edge::serve`].
pub fn routes(options: Options, reporter: Reporter, status: Arc<dyn StatusSource>, control: Arc<dyn Control>) -> Routes {
    let options = Arc::new(options);
    let reads = warp::get().and(livez().or(ready(&status)).unify().or(health(&status)).unify());
    let reads = reads.or(metrics(reporter)).unify().or(state(&options, &status)).unify();
    guard(Arc::clone(&options))
        .and(reads.or(verbs(&options, control)).unify())
        .recover(|rejection| async move { Ok::<_, Infallible>(explain(&rejection)) })
        .unify()
        .boxed()
}

fn livez() -> Routes {
    warp::path!("livez").map(|| plain(StatusCode::OK, "ok\n")).boxed()
}

fn ready(status: &Arc<dyn StatusSource>) -> Routes {
    let status = Arc::clone(status);
    warp::path!("readyz").map(move || condition(&status.ready())).boxed()
}

fn health(status: &Arc<dyn StatusSource>) -> Routes {
    let status = Arc::clone(status);
    warp::path!("healthz").map(move || condition(&status.health())).boxed()
}

fn metrics(reporter: Reporter) -> Routes {
    warp::path!("metrics")
        .and(warp::get())
        .map(move || warp::reply::with_header(reporter.render(), header::CONTENT_TYPE, METRICS_TYPE).into_response())
        .boxed()
}

fn state(options: &Arc<Options>, status: &Arc<dyn StatusSource>) -> Routes {
    let (deadline, status) = (options.status_deadline, Arc::clone(status));
    warp::path!("status")
        .and(warp::get())
        .then(move || {
            let status = Arc::clone(&status);
            async move {
                match tokio::time::timeout(deadline, status.status()).await {
                    Ok(value) => json_answer(StatusCode::OK, &value),
                    Err(_elapsed) => failure(StatusCode::SERVICE_UNAVAILABLE, "the status could not be gathered in time"),
                }
            }
        })
        .boxed()
}

fn verbs(options: &Arc<Options>, control: Arc<dyn Control>) -> Routes {
    let options = Arc::clone(options);
    let budget = Budget::new(options.body_bytes_max.saturating_mul(8), options.body_deadline);
    warp::path!("control" / String)
        .and(warp::post())
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(move |verb: String, headers: HeaderMap, body| {
            let (options, budget, control) = (Arc::clone(&options), budget.clone(), Arc::clone(&control));
            async move {
                match verb_request(&options, &budget, &headers, body).await {
                    Ok(request) => controlled(control.control(verb, request).await),
                    Err((status, error)) => failure(status, error),
                }
            }
        })
        .boxed()
}

async fn verb_request<B: Buf>(
    options: &Options,
    budget: &Budget,
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<Value, (StatusCode, &'static str)> {
    if headers.contains_key(header::ORIGIN) {
        return Err((StatusCode::FORBIDDEN, "not for browsers"));
    }
    if options.tokens.is_empty() {
        return Err((StatusCode::FORBIDDEN, "no token is configured, so nothing can be changed here"));
    }
    if !options.is_borne_by(headers) {
        return Err((StatusCode::UNAUTHORIZED, "the token is missing or wrong"));
    }
    if !is_json(headers) {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type must be application/json"));
    }
    let held = body::read(body, options.body_bytes_max, options.body_deadline, budget).await.map_err(|error| match error {
        body::Error::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
        body::Error::TooSlow => (StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
        body::Error::NoBudget => (StatusCode::SERVICE_UNAVAILABLE, "too many requests at once"),
        body::Error::Broken => (StatusCode::BAD_REQUEST, "the body broke off"),
    })?;
    serde_json::from_slice(&held.bytes).map_err(|_| (StatusCode::BAD_REQUEST, "the body is not json"))
}

fn controlled(result: Result<Value, ControlError>) -> Response {
    let status = match &result {
        Ok(_) => StatusCode::OK,
        Err(ControlError::Unknown) => StatusCode::NOT_FOUND,
        Err(ControlError::Invalid(_)) => StatusCode::BAD_REQUEST,
        Err(ControlError::Conflict(_)) => StatusCode::CONFLICT,
        Err(ControlError::Unavailable(_)) => StatusCode::SERVICE_UNAVAILABLE,
    };
    match result {
        Ok(value) => json_answer(status, &value),
        Err(error) => failure(status, &error.to_string()),
    }
}

/// Passes requests with an allowed host and, where reads need it, the token.
fn guard(options: Arc<Options>) -> impl Filter<Extract = (), Error = Rejection> + Clone {
    warp::header::headers_cloned()
        .and_then(move |headers: HeaderMap| {
            let verdict = if !is_allowed(&options.hosts, &headers) {
                Err(warp::reject::custom(Denied::Host))
            } else if options.token_for_reads && !options.is_borne_by(&headers) {
                Err(warp::reject::custom(Denied::Token))
            } else {
                Ok(())
            };
            std::future::ready(verdict)
        })
        .untuple_one()
}

#[derive(Debug)]
enum Denied {
    Host,
    Token,
}

impl Reject for Denied {}

fn explain(rejection: &Rejection) -> Response {
    match rejection.find::<Denied>() {
        Some(Denied::Host) => failure(StatusCode::FORBIDDEN, "this host name is not served here"),
        Some(Denied::Token) => failure(StatusCode::UNAUTHORIZED, "the token is missing or wrong"),
        None if rejection.find::<MethodNotAllowed>().is_some() => failure(StatusCode::METHOD_NOT_ALLOWED, "wrong method"),
        None => failure(StatusCode::NOT_FOUND, "not found"),
    }
}

fn condition(condition: &Condition) -> Response {
    let good = condition.wrong.is_empty();
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_answer(status, &json!({ "ok": good, "wrong": condition.wrong }))
}

fn failure(status: StatusCode, error: &str) -> Response {
    let mut response = json_answer(status, &json!({ "error": error }));
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn is_allowed(hosts: &[String], headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else {
        return false;
    };
    let name = without_port(host);
    let loopback = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    loopback || hosts.iter().any(|allowed| without_brackets(allowed).eq_ignore_ascii_case(name))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') && port.bytes().all(|byte| byte.is_ascii_digit()) => without_brackets(name),
        _ => without_brackets(host),
    }
}

fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    value.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}
