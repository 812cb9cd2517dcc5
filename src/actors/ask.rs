//! One request upstream: a permit, a tick, an answer, a verdict. Everything that talks to an upstream passes here.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::limiter::{Health, NoPermit, Permit};
use super::source::Source;
use crate::clock::Timestamp;
use crate::connectors::{Asked, Page, ReadError, Record, Request, ResourceSpec, Response, Session, Unreadable};
use crate::failpoint;
use crate::model::Key;
use crate::model::ordering::{By, Started};
use crate::quota::Class;
use crate::report::{ChangesApplied, DeliveriesProcessed, EventsDecided, FetchAnswered, FetchFailed, GapOpened, SequenceConflicting};
use crate::store::{self, Applied, Batch, Fence, LearnedBy, Observed, ResourceRules, SEQUENCE_CONFLICT, What};
use crate::supervision::Context;
use crate::upstream::SendError;

/// Why a question got no answer that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The limiter had no permit in time: look at the rows again.
    #[error(transparent)]
    NoPermit(#[from] NoPermit),
    /// There is no complete answer.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The answer is not what was asked for.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// We are being stopped.
    #[error("stopping")]
    Stopping,
}

impl AskError {
    /// Whether the answer was larger than an answer may be: fewer records at once may still fit.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Send(SendError::TooLarge(_)))
    }
}

impl From<failpoint::Told> for AskError {
    fn from(told: failpoint::Told) -> Self {
        Self::Send(SendError::Interrupted(told.to_string()))
    }
}

/// What an answer was read as.
#[derive(Debug)]
pub struct Answer<T> {
    /// That.
    pub what: T,
    /// The upstream's clock.
    pub date: Option<Timestamp>,
    /// When the question began.
    pub started: Started,
}

/// An attempt that was answered, with the permit that waits for the verdict.
struct Sent {
    response: Response,
    permit: Permit,
    started: Started,
    session: Option<Arc<Session>>,
}

/// What an answer says about the health of the endpoint, and of the source.
pub(super) fn health(status: u16, error: Option<&ReadError>) -> Health {
    match error {
        Some(ReadError::Denied(401)) => Health::Denied,
        // A permission may be one resource's.
        Some(ReadError::Server(_) | ReadError::Malformed(_) | ReadError::Denied(_)) => Health::Ill,
        // No contract sends elsewhere: that is a login page or a proxy.
        Some(ReadError::Refused(300..=399)) => Health::Ill,
        _ if status >= 500 => Health::Ill,
        // What is not there, and what was asked wrongly, was answered well.
        _ => Health::Well,
    }
}

/// Lags up to this are waited for before the first look.
const SHORT_LAG: Duration = Duration::from_secs(2);
/// A first look that does not wait for a lag still waits for the rest of a burst.
const SOON: Duration = Duration::from_millis(50);
/// A step that asks may take this much longer than its waits for permit and answer.
pub(super) const SLACK: Duration = Duration::from_secs(30);

impl Source {
    /// Waits for the right to send one request. Where the upstream has sessions one is there afterwards: whoever held a permit while
    /// asking for it could be in its own way.
    ///
    /// # Errors
    /// [`AskError::NoPermit`], [`AskError::Stopping`]; whatever kept a session from being had.
    pub async fn permit(&self, cx: &Context, class: Class, endpoint: &str) -> Result<Permit, AskError> {
        self.log_in(cx).await?;
        self.bare_permit(cx, class, endpoint).await
    }

    /// The same, without asking for a session.
    pub(super) async fn bare_permit(&self, cx: &Context, class: Class, endpoint: &str) -> Result<Permit, AskError> {
        cx.life.allow(self.settings.patience + SLACK);
        tokio::select! {
            () = cx.stopping.cancelled() => Err(AskError::Stopping),
            permit = self.limiter.acquire(class, endpoint, self.settings.patience) => Ok(permit?),
        }
    }

    /// Sends a request under a permit and reads the answer; the tick is taken as the request goes. What the answer is read as is
    /// part of the verdict over the endpoint: one that answers 200 with a login page is as ill as one that answers 500.
    ///
    /// A session that the upstream does not accept any more is asked for anew, and the request sent once more under a permit of its own.
    ///
    /// # Errors
    /// [`AskError::Send`], [`AskError::Read`]. Where a request was sent the error comes with when it was.
    pub async fn send<T>(
        &self,
        cx: &Context,
        fence: &Fence,
        (permit, class): (Permit, Class),
        request: &Request,
        read: impl FnOnce(&Response) -> Result<T, ReadError>,
    ) -> Result<Answer<T>, (AskError, Option<Started>)> {
        let mut sent = self.attempt(cx, fence, permit, request).await?;
        if sent.response.status == 401 && self.sessions.refused(sent.session.as_ref()) {
            sent.permit.answered(&sent.response, Health::Denied);
            let again = self.permit(cx, class, &request.endpoint).await.map_err(|error| (error, Some(sent.started)))?;
            sent = self.attempt(cx, fence, again, request).await?;
        }
        let Sent { response, permit, started, .. } = sent;
        let read = guarded("read", || read(&response)).unwrap_or(Err(ReadError::Malformed("the connector panicked on it")));
        permit.answered(&response, health(response.status, read.as_ref().err()));
        failpoint::reach("fetch", "answered").await.map_err(|told| (AskError::from(told), Some(started)))?;
        match read {
            Ok(what) => Ok(Answer { what, date: response.date, started }),
            Err(error) => Err((error.into(), Some(started))),
        }
    }

    /// One attempt on the wire.
    async fn attempt(&self, cx: &Context, fence: &Fence, permit: Permit, request: &Request) -> Result<Sent, (AskError, Option<Started>)> {
        cx.life.allow(self.upstream.timeout() + SLACK);
        failpoint::reach("fetch", "permitted").await.map_err(|told| (AskError::from(told), None))?;
        let session = self.sessions.of(request.credential);
        if session.is_none() && self.has_session(request.credential) {
            // Somebody else's request has just shown that it is over.
            permit.unused();
            return Err((NoPermit.into(), None));
        }
        let started = self.started(fence);
        let begun = self.clock.monotonic();
        let sent = self.upstream.send(&*self.connector, session.as_deref(), request).await;
        let seconds = self.clock.monotonic().saturating_sub(begun).as_secs_f64();
        let (source, resource) = (self.name.to_string(), request.endpoint.clone());
        match sent {
            Ok(response) => {
                if let Some(date) = response.date {
                    self.offset.lock().unwrap_or_else(PoisonError::into_inner).saw(started.at, self.clock.now(), date);
                }
                self.reporter.emit(FetchAnswered { source, resource, status: response.status.to_string(), seconds });
                Ok(Sent { response, permit, started, session })
            }
            Err(error) => {
                permit.failed(error.reach());
                self.reporter.emit(FetchFailed { source, resource, reason: error.name().to_owned(), error: error.to_string() });
                Err((error.into(), Some(started)))
            }
        }
    }

    /// Permit and request in one.
    ///
    /// # Errors
    /// [`AskError`]. Where a request was sent the error comes with when it was.
    pub async fn ask<T>(
        &self,
        cx: &Context,
        fence: &Fence,
        class: Class,
        request: &Request,
        read: impl FnOnce(&Response) -> Result<T, ReadError>,
    ) -> Result<Answer<T>, (AskError, Option<Started>)> {
        let permit = self.permit(cx, class, &request.endpoint).await.map_err(|error| (error, None))?;
        self.send(cx, fence, (permit, class), request, read).await
    }

    /// What a bulk read holds. Records without any key among others are put aside, but an answer of nothing else is none: it would
    /// say of every key that it is missing.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read_bulk(&self, spec: &ResourceSpec, keys: &[Key], response: &Response) -> Result<Page, ReadError> {
        let page = self.connector.read(spec, Asked::Keys(keys, By::Bulk), response)?;
        let is_stranger = |record: &Result<Record, Unreadable>| record.as_ref().is_err_and(|unreadable| unreadable.key.is_none());
        if !page.records.is_empty() && page.records.iter().all(is_stranger) {
            return Err(ReadError::Malformed("no record of it has a key"));
        }
        Ok(page)
    }

    /// Reads the record of one key alone.
    ///
    /// # Errors
    /// [`AskError`]; an answer that does not hold the record is malformed.
    pub async fn ask_key(
        &self,
        cx: &Context,
        fence: &Fence,
        class: Class,
        spec: &ResourceSpec,
        key: &Key,
    ) -> Result<(Page, Started), (AskError, Option<Started>)> {
        let endpoint = self.connector.fetch(spec, std::slice::from_ref(key), By::Key).endpoint;
        let permit = self.permit(cx, class, &endpoint).await.map_err(|error| (error, None))?;
        self.read_key(cx, fence, (permit, class), spec, key).await
    }

    /// The same, under a permit that is held.
    ///
    /// # Errors
    /// As [`Self::ask_key`].
    pub(super) async fn read_key(
        &self,
        cx: &Context,
        fence: &Fence,
        permit: (Permit, Class),
        spec: &ResourceSpec,
        key: &Key,
    ) -> Result<(Page, Started), (AskError, Option<Started>)> {
        let request = self.connector.fetch(spec, std::slice::from_ref(key), By::Key);
        let read = |response: &Response| {
            let page = self.connector.read(spec, Asked::Keys(std::slice::from_ref(key), By::Key), response)?;
            // An unreadable record that has the key is an answer, too: it is put aside.
            let is_it = |record: &Result<Record, Unreadable>| match record {
                Ok(record) => record.key == *key,
                Err(unreadable) => unreadable.key.as_ref() == Some(key),
            };
            if page.records.iter().any(is_it) { Ok(page) } else { Err(ReadError::Malformed("it is not the record that was asked for")) }
        };
        let answer = self.send(cx, fence, permit, &request, read).await?;
        Ok((answer.what, answer.started))
    }

    /// Applies observations of one kind in one or more transactions of a bounded size, and wakes who has new marks.
    ///
    /// # Errors
    /// Of the store; what was applied before stays applied.
    pub async fn apply(&self, fence: &Fence, learned_by: LearnedBy, observations: Vec<Observed>) -> Result<(), store::Error> {
        let mut observations = observations.into_iter().peekable();
        while observations.peek().is_some() {
            let mut batch = self.batch(learned_by);
            batch.observations = take_bounded(&mut observations);
            self.apply_batch(fence, batch).await?;
        }
        Ok(())
    }

    /// An empty batch with this source's rules.
    #[must_use]
    pub fn batch(&self, learned_by: LearnedBy) -> Batch {
        let rules = self.connector.resources().iter().map(|spec| (spec.name.clone(), ResourceRules::of(spec))).collect();
        Batch { linger: self.first_look(), ..Batch::new(learned_by, rules) }
    }

    /// How long a fresh mark waits before its first look. Where reads lag only a moment, a look after that moment is the last one
    /// as well; where they may lag long, the first look is soon and a second one follows when the lag is over.
    fn first_look(&self) -> Duration {
        let lags = self.connector.resources().iter().map(|spec| spec.spans.read_lag);
        lags.max().filter(|lag| *lag <= SHORT_LAG).unwrap_or(SOON).max(SOON)
    }

    /// Applies one batch, reports what it did and wakes who has new marks.
    ///
    /// # Errors
    /// Of the store.
    pub async fn apply_batch(&self, fence: &Fence, mut batch: Batch) -> Result<Applied, store::Error> {
        let entities = batch.observations.iter().map(|seen| &seen.entity);
        batch.in_flight = entities.filter(|entity| self.reads(&entity.resource)).cloned().collect();
        failpoint::reach("batch", "gathered").await?;
        let applied = self.store.apply(fence, &batch).await?;
        self.wake(&applied.marks_set);
        self.demands.touched(batch.observations.iter().map(|seen| &seen.entity));
        // Whoever shows records of a resource shows the resource.
        for resource in batch.observations.iter().filter(|seen| matches!(seen.what, What::Record { .. })).map(|seen| &seen.entity.resource)
        {
            self.see(resource);
        }
        if applied.changes > 0 {
            self.reporter.emit(ChangesApplied { source: self.name.to_string(), changes: applied.changes });
        }
        let processed = batch.deliveries.len() as u64;
        if processed > 0 {
            self.reporter.emit(DeliveriesProcessed { source: self.name.to_string(), deliveries: processed });
        }
        for (resource, n) in &applied.duplicates {
            let (source, resource) = (self.name.to_string(), resource.to_string());
            self.reporter.emit(EventsDecided { source, resource, outcome: "duplicate".to_owned(), events: *n });
        }
        for conflict in &applied.conflicts {
            let (source, resource) = (self.name.to_string(), conflict.entity.resource.to_string());
            self.reporter.emit(SequenceConflicting { source, resource, number: conflict.sequence.number });
        }
        if !applied.conflicts.is_empty() {
            self.reporter.emit(GapOpened { source: self.name.to_string(), cause: SEQUENCE_CONFLICT.to_owned() });
            self.reconciler.wake();
        }
        for ((resource, reason), n) in &applied.counts {
            let (source, resource) = (self.name.to_string(), resource.to_string());
            self.reporter.emit(EventsDecided { source, resource, outcome: reason.name().to_owned(), events: *n });
        }
        Ok(applied)
    }
}

/// Observations in one transaction, which must end soon: the journal waits behind it on SQLite.
pub const BATCH_ROWS: usize = 200;
/// Bytes of documents in one transaction.
const BATCH_BYTES: usize = 1024 * 1024;

/// The next observations that fit into one transaction; at least one.
pub fn take_bounded(observations: &mut std::iter::Peekable<impl Iterator<Item = Observed>>) -> Vec<Observed> {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    while let Some(next) = observations.peek() {
        bytes += size(next);
        if !taken.is_empty() && (taken.len() >= BATCH_ROWS || bytes > BATCH_BYTES) {
            break;
        }
        taken.extend(observations.next());
    }
    taken
}

fn size(seen: &Observed) -> usize {
    match &seen.what {
        What::Record { record, .. } => record.document.text.len(),
        What::Unreadable { unreadable, .. } => unreadable.raw.len(),
        _ => 0,
    }
}

/// Runs pure connector code; `None` if it panicked. What is told to fail at the fail point `connector::<what>` panics.
pub fn guarded<T>(what: &str, call: impl FnOnce() -> T) -> Option<T> {
    let told = || {
        if failpoint::reach_now("connector", what).is_err() {
            panic!("told to");
        }
        call()
    };
    // The connector is immutable, so a panic leaves nothing half-done behind.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(told)).ok()
}

#[cfg(test)]
mod tests {
    use super::guarded;

    #[test]
    fn a_panic_of_pure_code_is_an_answer() {
        assert_eq!(guarded("events", || 1), Some(1));
        assert_eq!(guarded("events", || -> u8 { panic!("told to") }), None);
    }
}
