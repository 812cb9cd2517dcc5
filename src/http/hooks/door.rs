//! What the hooks ask of the rest of the daemon. Object-safe, so that the socket knows neither connectors nor the store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::http::BoxFuture;

/// The sources that this process takes deliveries for.
pub trait Door: Send + Sync + 'static {
    /// The source of that name. Must not block.
    fn source(&self, name: &str) -> Option<Arc<dyn SourceDoor>>;

    /// Counts a request to no known source. It has no label: strangers choose the names. Must not block.
    fn unknown(&self);
}

/// One source, as seen from the socket. For each of its requests exactly one of [`Self::answered`] and [`Self::refused`] is called.
pub trait SourceDoor: Send + Sync + 'static {
    /// Longest body of a delivery on this route in bytes; the connector's default or the configuration's.
    fn body_max(&self, route: &str) -> u64;

    /// Whether the route is one of the source's and the request has what a signature needs (the header is present). False refuses it
    /// before its body is read.
    fn precheck(&self, head: &RequestHead) -> bool;

    /// Whether the backlog has room, by the connector's policy for the route. Asked before the body is read; must not block.
    ///
    /// # Errors
    /// The answer to give instead.
    fn admit(&self, route: &str) -> Result<(), Overload>;

    /// How a sender of this route is told that a delivery cannot be taken now. Must not block.
    fn manner(&self, _route: &str) -> Manner {
        Manner::default()
    }

    /// Checks the signature over the raw body. May read the secrets once more; must end by itself, for it holds the body in memory.
    fn verify(&self, head: RequestHead, body: Bytes, now: Timestamp) -> BoxFuture<'_, Verdict>;

    /// Stores the delivery; `Ok` only after a confirmed commit. Must end by itself, for it holds the body in memory.
    /// It is called even if the caller hung up, and runs on after the answer's deadline.
    fn journal(&self, delivery: VerifiedDelivery) -> BoxFuture<'_, Result<(), Unavailable>>;

    /// A request was acknowledged, so long after the last byte of its body. Must not block.
    fn answered(&self, route: &str, status: u16, took: Duration);

    /// A request was refused, or its caller was gone before the acknowledgement. To be counted durably, and to open a gap where the
    /// upstream does not retry what comes on this route. Must not block.
    fn refused(&self, route: &str, status: u16, refusal: &Refusal);
}

/// The head of a request to `/hooks/{source}/{route}?{query}`, nothing of it trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The name in the path.
    pub source: String,
    /// The rest of the path without the leading slash, percent-encoding kept; at most 256 bytes.
    pub route: String,
    /// The query string without `?`; empty if there was none.
    pub query: String,
    /// Header names in lower case with their raw values, in the order of arrival of their names.
    pub headers: Vec<(String, Bytes)>,
}

impl RequestHead {
    /// The first header of that (lower case) name, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).and_then(|(_, value)| std::str::from_utf8(value).ok())
    }
}

/// A request whose signature was right; only [`SourceDoor::verify`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedDelivery {
    /// The head as it came.
    pub head: RequestHead,
    /// The body, byte for byte.
    pub body: Bytes,
    /// When the body was complete, by our clock.
    pub received_at: Timestamp,
    /// What identifies a repetition of it while the original is still pending.
    pub dedupe: String,
}

/// How the senders of a route are told to come again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// They slow down at a 429: then that is what they get whenever a delivery cannot be taken now.
    pub is_slowed: bool,
    /// `Retry-After` says a date, not seconds.
    pub is_dated: bool,
    /// What it says, whatever the reason; `None`: what the reason says.
    pub span: Option<Duration>,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The signature is right.
    Accepted(VerifiedDelivery),
    /// It is not; or the sender is known and sent what it should not have.
    Refused(Refusal),
    /// It could not be checked, since the secrets cannot be read now.
    Unavailable(Unavailable),
}

/// The backlog is above its mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overload {
    /// 429, for upstreams that slow down at it.
    TooManyRequests {
        /// What `Retry-After` says, rounded up to whole seconds.
        retry_after: Duration,
    },
    /// 503, for upstreams that take a 429 as a failure of theirs.
    Unavailable {
        /// What `Retry-After` says, rounded up to whole seconds.
        retry_after: Duration,
    },
}

/// The store cannot commit now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// What `Retry-After` says, rounded up to whole seconds.
    pub retry_after: Duration,
}

/// Why a request of a known source got no 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not a POST. 401.
    Method,
    /// No signature header. 401.
    Unsigned,
    /// The signature is wrong; the reason is for our log and metrics, never for the caller, and one of a fixed set. 401.
    Signature(&'static str),
    /// Somebody known sent another media type than the contract's. 415, said to whoever holds a secret only.
    MediaType,
    /// Somebody known sent a body of another shape than the contract's. 400, said to whoever holds a secret only.
    Shape,
    /// `Content-Encoding` other than identity; the signature covers raw bytes. 415.
    Encoding,
    /// The body is longer than the source's cap. 413.
    TooLarge,
    /// The body did not arrive within its deadline. 408, which senders treat as they treat a timeout.
    TooSlow,
    /// The body broke off or was not well framed. 400, which nobody may be there to read.
    Broken,
    /// The backlog is above its mark. 429 or 503.
    Overload(Overload),
    /// No memory left for bodies. 503 or 429.
    NoBudget,
    /// The store cannot commit. 503 or 429.
    Store(Unavailable),
    /// The store did not commit in time; it may do so yet. 503 or 429.
    StoreSlow,
    /// The caller hung up before the answer. If its body was complete, the delivery is stored nevertheless. Counted as 499.
    CallerGone,
    /// Verification or journal panicked. 500.
    Internal,
}

impl Refusal {
    /// The status under which callers are counted who were gone before an answer; never sent.
    pub const STATUS_CALLER_GONE: u16 = 499;

    /// The status of the answer: the only place that says which refusal gets which. `is_slowed`: the upstream slows down at a 429, and
    /// takes a 503 as a fault that it counts against us.
    #[must_use]
    pub fn status(&self, is_slowed: bool) -> u16 {
        match self {
            Self::Store(_) | Self::NoBudget | Self::StoreSlow if is_slowed => 429,
            Self::Method | Self::Unsigned | Self::Signature(_) => 401,
            Self::Broken | Self::Shape => 400,
            Self::TooSlow => 408,
            Self::TooLarge => 413,
            Self::Encoding | Self::MediaType => 415,
            Self::Overload(Overload::TooManyRequests { .. }) => 429,
            Self::Overload(Overload::Unavailable { .. }) | Self::Store(_) | Self::NoBudget | Self::StoreSlow => 503,
            Self::CallerGone => Self::STATUS_CALLER_GONE,
            Self::Internal => 500,
        }
    }

    /// A short, constant name for metrics and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Unsigned => "unsigned",
            Self::Signature(reason) => reason,
            Self::MediaType => "media_type",
            Self::Shape => "shape",
            Self::Encoding => "encoding",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::Broken => "broken",
            Self::Overload(_) => "overload",
            Self::NoBudget => "no_budget",
            Self::Store(_) => "store_unavailable",
            Self::StoreSlow => "store_slow",
            Self::CallerGone => "caller_gone",
            Self::Internal => "internal",
        }
    }
}
