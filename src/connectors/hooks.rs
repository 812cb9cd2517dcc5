//! Deliveries between the edge and the intake: what is let in, and what it states.

use std::time::Duration;

use super::Request;
use crate::clock::Timestamp;
use crate::model::Event;

/// A request whose signature held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What identifies a repetition while the original is pending.
    pub dedupe: String,
}

/// Why a request is not let in. All that a stranger can meet look the same from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The signature header is missing or malformed.
    #[error("no usable signature")]
    Unsigned,
    /// No secret matches.
    #[error("no secret matches the signature")]
    Mismatch,
    /// The route is none of this source's.
    #[error("the route is unknown")]
    Route,
    /// The sender is known, but its body is of another media type than the contract's: 415.
    #[error("the body's media type is another")]
    MediaType,
    /// The sender is known, but its body has not the contract's shape: 400.
    #[error("the body has another shape")]
    Shape,
}

/// A secret by which deliveries are verified, with the route it belongs to (`None`: any).
#[derive(Clone, PartialEq, Eq)]
pub struct HookSecret {
    /// The route it was issued for.
    pub route: Option<String>,
    /// The secret, or what is known of it. Never printed.
    pub text: String,
    /// What `text` is.
    pub form: SecretForm,
}

/// What is known of a secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecretForm {
    /// The secret itself.
    #[default]
    Whole,
    /// Its SHA-256 in lower-case hex: enough to know a token that is shown to us.
    Digest,
}

/// What a sender is told that is invited with a token of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inviting {
    /// The route that its deliveries are to come by.
    pub route: &'static str,
    /// The header that carries the token.
    pub header: &'static str,
    /// What stands before the token in it.
    pub scheme: &'static str,
    /// A header by which several feeds of one sender are told apart, and what it may say.
    pub label: Option<(&'static str, String)>,
}

/// How a sender that has stopped is asked to deliver again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// A declared write.
    pub request: Request,
    /// It has stopped where a feed told of events for so long that no delivery announced.
    pub after: Duration,
}

/// In which of its two forms `Retry-After` is said (RFC 9110, 10.2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetryAfter {
    /// So many seconds.
    #[default]
    Seconds,
    /// A date.
    Date,
}

impl std::fmt::Debug for HookSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HookSecret").field("route", &self.route).finish_non_exhaustive()
    }
}

/// What the edge does while the backlog is above its mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overload {
    /// Goes on accepting, down to the disk floor: this upstream never sends a refused delivery again.
    Accept,
    /// 429, for upstreams that slow down at it.
    TooManyRequests,
    /// 503, for upstreams that take a 429 as a failure of theirs.
    Unavailable,
}

/// How the edge treats the deliveries of one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookPolicy {
    /// Largest body in bytes.
    pub body_max: u64,
    /// What it does with too large a backlog.
    pub overload: Overload,
    /// How long the upstream sends a refused delivery again by itself. Zero: never, so that every refusal opens a gap.
    pub retries_for: Duration,
    /// A request without any of these headers (lower case) is refused before its body is read.
    pub signature_headers: &'static [&'static str],
    /// How a refused sender is told when to come again.
    pub retry_after: RetryAfter,
    /// What it is told then, where the source says something else than the daemon.
    pub retry_after_span: Option<Duration>,
    /// The most that the sender sends, where its contract says so.
    pub cap: Option<Cap>,
}

/// The most that a sender sends: from there on its deliveries wait, or are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    /// So many …
    pub deliveries: usize,
    /// … in this time.
    pub window: Duration,
}

/// What a verified delivery states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statements {
    /// What happened to records of ours.
    pub events: Vec<Event>,
    /// What is acknowledged and left alone.
    pub ignored: Vec<Ignored>,
    /// What it says about the deliveries themselves.
    pub flow: Option<Flow>,
    /// Why a part of it could not be read: the delivery goes into quarantine once the rest is worked in.
    pub unreadable: Option<String>,
}

impl From<Vec<Event>> for Statements {
    fn from(events: Vec<Event>) -> Self {
        Self { events, ..Self::default() }
    }
}

/// An event that is none of ours. Both texts are constants, for they become labels of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// What it is about, as far as we know the kind.
    pub resource: &'static str,
    /// Why it is left alone.
    pub reason: &'static str,
}

/// What an upstream says about its deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// From this moment on they are lost.
    Lost {
        /// Since when.
        since: Timestamp,
    },
    /// They come again.
    Again {
        /// Since when.
        since: Timestamp,
    },
}

/// A route that its upstream ends on a day that it has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retiring {
    /// The route.
    pub route: &'static str,
    /// From this moment on nothing need come by it.
    pub from: Timestamp,
}

impl Retiring {
    /// Whether the upstream has ended it by now, and nothing came by it for a day.
    #[must_use]
    pub fn is_silent(&self, now: Timestamp, last_delivery: Option<Timestamp>) -> bool {
        now >= self.from && last_delivery.is_none_or(|last| now.since(last) >= DAY)
    }
}

/// Any route that is in use hears something in this time.
const DAY: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_silent_only_once_its_end_has_come_and_a_day_was_quiet() {
        let at = |hours: i64| Timestamp(hours * 3_600_000_000);
        let retiring = Retiring { route: "events", from: at(100) };
        assert!(!retiring.is_silent(at(99), None), "its end is yet to come");
        assert!(retiring.is_silent(at(100), None));
        assert!(!retiring.is_silent(at(120), Some(at(97))), "it was heard within the day");
        assert!(retiring.is_silent(at(121), Some(at(97))));
    }
}
