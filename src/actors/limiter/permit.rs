//! How others reach the limiter, and the right to send one request.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::oneshot;

use super::Message;
use super::books::Shelf;
use crate::connectors::Response;
use crate::quota::{Class, PermitId, Snapshot};
use crate::upstream::Reach;

/// Who finds no limiter waits this long before asking again.
const GONE_PAUSE: Duration = Duration::from_millis(500);
/// The breaker of a source stands under this instead of an endpoint.
const SOURCE: &str = "";

/// How others reach the limiter, whatever its incarnation.
#[derive(Clone, Debug, Default)]
pub struct Handle {
    pub(super) address: Arc<Mutex<Option<ActorRef<Message>>>>,
    pub(super) shelf: Shelf,
    /// On whose behalf: breakers and 503 pauses are a source's own, the quota is everybody's.
    source: String,
}

/// There is no limiter at this moment, or it gave up waiting: ask again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no permit was to be had in time")]
pub struct NoPermit;

/// What the limiter shows of itself.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The limits.
    pub snapshot: Snapshot,
    /// Requests that wait.
    pub n_waiting: usize,
    /// Every endpoint of the source that was asked, and whether its breaker is open; the source's own has an empty name.
    pub breakers: Vec<(String, bool)>,
}

impl Handle {
    /// The same limiter, asked on behalf of `source`.
    #[must_use]
    pub fn of(&self, source: &str) -> Self {
        Self { source: source.to_owned(), ..self.clone() }
    }

    /// Waits for a permit for one request; gives up after `patience`.
    ///
    /// # Errors
    /// [`NoPermit`].
    pub async fn acquire(&self, class: Class, endpoint: &str, patience: Duration) -> Result<Permit, NoPermit> {
        let (reply, answer) = oneshot::channel();
        let target = Target { source: self.source.clone(), endpoint: endpoint.to_owned() };
        self.cast(Message::Acquire { class, target, reply });
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(mut permit)) => {
                permit.unheeded = None;
                Ok(permit)
            }
            Ok(Err(_)) => {
                // It is being restarted: whoever asks again at once would only spin.
                tokio::time::sleep(GONE_PAUSE).await;
                Err(NoPermit)
            }
            Err(_) => Err(NoPermit),
        }
    }

    /// The limiter's state; `None` while it restarts.
    pub async fn observe(&self) -> Option<Observed> {
        let (reply, answer) = oneshot::channel();
        self.cast(Message::Observe(self.source.clone(), reply));
        tokio::time::timeout(Duration::from_secs(1), answer).await.ok()?.ok()
    }

    fn cast(&self, message: Message) {
        let address = self.address.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(actor) = address {
            // A dead limiter drops the reply, which is what the caller then sees.
            let _ = actor.cast(message);
        }
    }
}

/// The right to send one request. Dropped without a verdict it counts as lost: the server may still stamp it much later.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    handle: Handle,
    id: Option<PermitId>,
    target: Target,
    /// What its end means until the one who asked has it: whoever went meanwhile leaves it on the way.
    unheeded: Option<Verdict>,
}

/// What breakers and 503 pauses are kept by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Whose request.
    pub source: String,
    /// Where it goes.
    pub endpoint: String,
}

impl Target {
    /// The source as a whole.
    pub(super) fn whole(&self) -> Self {
        Self { source: self.source.clone(), endpoint: SOURCE.to_owned() }
    }

    /// One name, for the pauses of the limiter.
    pub(super) fn name(&self) -> String {
        format!("{}{}", self.source, self.endpoint)
    }
}

/// What an answer says about the health of what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers as its contract says.
    Well,
    /// It fails, or what it answers is none of what was asked for.
    Ill,
    /// The credential is not accepted, wherever it is shown.
    Denied,
}

/// What a response means for limits and breaker.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// An answer came: its status and the headers that speak of limits.
    Answered {
        /// HTTP status.
        status: u16,
        /// `Retry-After` or `X-RateLimit-Reset`, as sent.
        wait: Option<String>,
        /// Bytes of the body.
        bytes: u64,
        /// What is made of it.
        health: Health,
    },
    /// An answer began and did not end: the request is spent, and nothing runs any more.
    BrokenOff,
    /// The request did not reach the upstream: it counted nothing, but the breaker does.
    NotReached,
    /// Nothing was tried.
    Unused,
}

impl Permit {
    /// On its way to whoever asked.
    pub(super) fn granted(handle: Handle, id: PermitId, target: Target) -> Self {
        Self { handle, id: Some(id), target, unheeded: Some(Verdict::Unused) }
    }

    /// Ends the permit with an answer.
    pub fn answered(self, response: &Response, health: Health) {
        let wait = response.header("retry-after").or_else(|| response.header("x-ratelimit-reset")).map(ToOwned::to_owned);
        self.end(Verdict::Answered { status: response.status, wait, bytes: response.body.len() as u64, health });
    }

    /// Ends the permit of a request without a complete answer.
    pub fn failed(self, reach: Reach) {
        match reach {
            Reach::Nobody => self.end(Verdict::NotReached),
            Reach::Answered => self.end(Verdict::BrokenOff),
            // Without a verdict: the server may still work on it and stamp it late.
            Reach::Unknown => drop(self),
        }
    }

    /// Ends the permit of a request that was not needed after all.
    pub fn unused(self) {
        self.end(Verdict::Unused);
    }

    fn end(mut self, verdict: Verdict) {
        self.enter(Some(verdict));
    }

    fn enter(&mut self, verdict: Option<Verdict>) {
        if let Some(id) = self.id.take() {
            self.handle.shelf.open(|books| books.ended(id, &self.target, verdict));
            self.handle.cast(Message::Look);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let verdict = self.unheeded.take();
        self.enter(verdict);
    }
}
