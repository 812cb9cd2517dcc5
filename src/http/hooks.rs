//! `POST /hooks/{source}/{route…}`: from the socket to a durable delivery, with every answer that can be given on the way.
//!
//! Below `/hooks/` there is never a 404, 405 or 3xx, for some upstreams suspend a subscription at the first one: an unknown
//! source, a wrong method and a bad signature are one and the same 401, and so is every other path of this socket.
//!
//! The order is: path, source, method, [`SourceDoor::precheck`], encoding, length, [`SourceDoor::admit`], body,
//! [`SourceDoor::verify`], [`SourceDoor::journal`], 200. A request without a signature is refused before a byte of its body
//! is read; a body that is not verified is never parsed and never stored. From the last byte of the body on, the
//! work is a task of its own: a caller who hangs up does not undo it.

mod door;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::Stream;
use tokio_util::task::TaskTracker;
use warp::Filter;
use warp::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use warp::path::FullPath;

pub use door::{Door, Manner, Overload, Refusal, RequestHead, SourceDoor, Unavailable, Verdict, VerifiedDelivery};

use super::body::{self, Budget, Held};
use super::edge::closing;
use super::{Response, Routes, plain};
use crate::clock::{Clock, Timestamp};
use crate::failpoint;

/// Longest route, in bytes as sent; a registration carries a name or a number there.
const ROUTE_BYTES_MAX: usize = 256;
/// Longest query string in bytes.
const QUERY_BYTES_MAX: usize = 2048;
/// Longest name of a source, as in the configuration.
const SOURCE_BYTES_MAX: usize = 64;

/// The limits of the hooks.
#[derive(Clone, Debug)]
pub struct Options {
    /// From the header to the last byte of the body; above it 408. 4 s: with the header's 5 s below the 10 s in which senders give up.
    pub body_deadline: Duration,
    /// All bodies in memory together, those being journalled included. 64 MiB: half of what the daemon may use.
    pub body_budget_bytes: usize,
    /// How long a body waits for its share of the budget before the 503. 250 ms: callers count in seconds.
    pub budget_wait: Duration,
    /// From the last byte of the body to the answer; above it 503, while the delivery goes on to be stored. 700 ms: whoever
    /// waits for us hears within a second.
    pub accept_deadline: Duration,
    /// What `Retry-After` says when the budget, the clock or we ourselves are the reason. 5 s.
    pub retry_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            body_deadline: Duration::from_secs(4),
            body_budget_bytes: 64 * 1024 * 1024,
            budget_wait: Duration::from_millis(250),
            accept_deadline: Duration::from_millis(700),
            retry_after: Duration::from_secs(5),
        }
    }
}

/// The public side of the daemon. Cheap to clone; clones share the budget and the tasks.
#[derive(Clone)]
pub struct Hooks {
    door: Arc<dyn Door>,
    options: Options,
    clock: Clock,
    budget: Budget,
    accepting: TaskTracker,
}

impl Hooks {
    /// Hooks that ask `door` for everything they do not know themselves.
    #[must_use]
    pub fn new(door: Arc<dyn Door>, options: Options, clock: Clock) -> Self {
        let budget = Budget::new(options.body_budget_bytes, options.budget_wait);
        Self { door, options, clock, budget, accepting: TaskTracker::new() }
    }

    /// The routes for [`super::edge::serve`].
    #[must_use]
    pub fn routes(&self) -> Routes {
        let hooks = self.clone();
        warp::path::full()
            .and(warp::query::raw().or(warp::any().map(String::new)).unify())
            .and(warp::method())
            .and(warp::header::headers_cloned())
            .and(warp::body::stream())
            .then(move |path: FullPath, query: String, method: Method, headers: HeaderMap, body| {
                let hooks = hooks.clone();
                async move {
                    match request_head(path.as_str(), query, &headers) {
                        Some(head) => hooks.answer(head, method, headers, body).await,
                        None => hooks.unknown(),
                    }
                }
            })
            .boxed()
    }

    /// Waits for the deliveries that are still on their way to the journal. To be called after the edge has drained.
    pub async fn settled(&self) {
        self.accepting.close();
        self.accepting.wait().await;
    }

    async fn answer<B: Buf>(
        &self,
        head: RequestHead,
        method: Method,
        headers: HeaderMap,
        body: impl Stream<Item = Result<B, warp::Error>> + Send,
    ) -> Response {
        let Some(source) = self.door.source(&head.source) else {
            return self.unknown();
        };
        let mut attempt = Attempt { source: Arc::clone(&source), route: head.route.clone(), open: true };
        let manner = source.manner(&head.route);
        match self.accept(source, head, &method, &headers, body).await {
            Ok(took) => {
                attempt.accepted(took);
                plain(StatusCode::OK, "ok\n")
            }
            Err(refusal) => {
                let response = self.refuse(&refusal, manner);
                attempt.refused(response.status().as_u16(), &refusal);
                response
            }
        }
    }

    async fn accept<B: Buf>(
        &self,
        source: Arc<dyn SourceDoor>,
        head: RequestHead,
        method: &Method,
        headers: &HeaderMap,
        body: impl Stream<Item = Result<B, warp::Error>> + Send,
    ) -> Result<Duration, Refusal> {
        if method != Method::POST {
            return Err(Refusal::Method);
        }
        if !source.precheck(&head) {
            return Err(Refusal::Unsigned);
        }
        if !is_identity(headers) {
            return Err(Refusal::Encoding);
        }
        let bytes_max = source.body_max(&head.route);
        if content_length(headers).is_some_and(|length| length > bytes_max) {
            return Err(Refusal::TooLarge);
        }
        source.admit(&head.route).map_err(Refusal::Overload)?;
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        failpoint::reach("hook", "head_read").await?;
        let held = body::read(body, bytes_max, self.options.body_deadline, &self.budget).await?;
        failpoint::reach("hook", "body_read").await?;
        let complete = self.clock.monotonic();
        let settling = self.accepting.spawn(settle(source, head, held, self.clock));
        match tokio::time::timeout(self.options.accept_deadline, settling).await {
            Ok(Ok(settled)) => settled?,
            Ok(Err(_panicked)) => return Err(Refusal::Internal),
            Err(_elapsed) => return Err(Refusal::StoreSlow),
        }
        failpoint::reach("hook", "stored").await?;
        Ok(self.clock.monotonic().saturating_sub(complete))
    }

    fn unknown(&self) -> Response {
        self.door.unknown();
        unauthorized()
    }

    fn refuse(&self, refusal: &Refusal, manner: Manner) -> Response {
        let status = StatusCode::from_u16(refusal.status(manner.is_slowed)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let ours = self.options.retry_after;
        match refusal {
            Refusal::Method | Refusal::Unsigned | Refusal::Signature(_) => unauthorized(),
            // Nobody is there to read it.
            Refusal::CallerGone => closing(StatusCode::BAD_REQUEST, "the body broke off\n"),
            Refusal::Broken => closing(status, "the body broke off\n"),
            Refusal::TooSlow => closing(status, "the body did not arrive in time\n"),
            Refusal::TooLarge => closing(status, "the body is too large\n"),
            Refusal::Encoding => closing(status, "the body may not be encoded\n"),
            Refusal::MediaType => closing(status, "the body must be of the media type that was agreed\n"),
            Refusal::Shape => closing(status, "the body has not the shape that was agreed\n"),
            Refusal::Overload(Overload::TooManyRequests { retry_after } | Overload::Unavailable { retry_after })
            | Refusal::Store(Unavailable { retry_after }) => later(status, *retry_after, manner, self.clock.now()),
            Refusal::NoBudget | Refusal::StoreSlow => later(status, ours, manner, self.clock.now()),
            Refusal::Internal => closing(status, "internal error\n"),
        }
    }
}

/// Verifies and journals; runs as a task of its own and holds the body's share of the budget until it ends.
async fn settle(source: Arc<dyn SourceDoor>, head: RequestHead, held: Held, clock: Clock) -> Result<(), Refusal> {
    let Held { bytes, share } = held;
    let settled = match source.verify(head, bytes, clock.now()).await {
        Verdict::Accepted(delivery) => {
            failpoint::reach("hook", "verified").await?;
            source.journal(delivery).await.map_err(Refusal::Store)
        }
        Verdict::Refused(refusal) => Err(refusal),
        Verdict::Unavailable(unavailable) => Err(Refusal::Store(unavailable)),
    };
    drop(share);
    settled
}

/// A request of a known source. It reports exactly once how it ended, also when its future is dropped because the caller is gone.
struct Attempt {
    source: Arc<dyn SourceDoor>,
    route: String,
    open: bool,
}

impl Attempt {
    fn accepted(&mut self, took: Duration) {
        self.open = false;
        self.source.answered(&self.route, StatusCode::OK.as_u16(), took);
    }

    fn refused(&mut self, status: u16, refusal: &Refusal) {
        self.open = false;
        self.source.refused(&self.route, status, refusal);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.open {
            self.refused(Refusal::STATUS_CALLER_GONE, &Refusal::CallerGone);
        }
    }
}

impl From<failpoint::Told> for Refusal {
    fn from(_: failpoint::Told) -> Self {
        Self::Internal
    }
}

impl From<body::Error> for Refusal {
    fn from(error: body::Error) -> Self {
        match error {
            body::Error::TooLarge => Self::TooLarge,
            body::Error::TooSlow => Self::TooSlow,
            body::Error::NoBudget => Self::NoBudget,
            body::Error::Broken => Self::Broken,
        }
    }
}

fn request_head(path: &str, query: String, headers: &HeaderMap) -> Option<RequestHead> {
    let rest = path.strip_prefix("/hooks/")?;
    let (source, route) = rest.split_once('/').unwrap_or((rest, ""));
    let named = !source.is_empty() && source.len() <= SOURCE_BYTES_MAX;
    let clean = !route.bytes().any(|byte| byte.is_ascii_control());
    if !named || !clean || route.len() > ROUTE_BYTES_MAX || query.len() > QUERY_BYTES_MAX {
        return None;
    }
    let headers = headers.iter().map(|(name, value)| (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes())));
    Some(RequestHead { source: source.to_owned(), route: route.to_owned(), query, headers: headers.collect() })
}

fn is_identity(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The one answer to strangers. It closes the connection in every case, so that not even that tells them apart.
fn unauthorized() -> Response {
    let mut response = closing(StatusCode::UNAUTHORIZED, "unauthorized\n");
    // Both ways for every path: which one a source has is not for strangers.
    for challenge in [r#"Bearer realm="instep""#, "Signature"] {
        response.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

/// `retry_after` is what the reason says, for the manner may say nothing of its own.
fn later(status: StatusCode, retry_after: Duration, manner: Manner, now: Timestamp) -> Response {
    let span = manner.span.unwrap_or(retry_after).max(Duration::from_secs(1));
    let date = if manner.is_dated { now.plus(span).http_date() } else { None };
    let date = date.and_then(|date| HeaderValue::try_from(date).ok());
    let seconds = || HeaderValue::from(span.as_secs() + u64::from(span.subsec_nanos() > 0));
    let mut response = closing(status, "try again later\n");
    response.headers_mut().insert(header::RETRY_AFTER, date.unwrap_or_else(seconds));
    response
}
