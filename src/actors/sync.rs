//! `sync:<resource>`: drains marks, fetches, applies reads.
//!
//! Bulk before single: the due marks of the resource go into one read of up to `bulk` keys. The permit comes first and the keys
//! are chosen after it, so that whatever gathers while the limiter holds us back goes into the same request. Keys that a bulk
//! read did not hold are read alone, and what is then not found goes through the removal budget ([`removal`]); only where the
//! removal of what stands above them is one witness, a second bulk read is the other. While the view of the resource is lost
//! nothing but that view is looked for ([`view`]). Before it looks at marks, a step reads what somebody waits for ([`granting`]) and
//! marks the next children of what changed or went.
//!
//! Everything it knows is in the marks: a new incarnation continues with them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::ask::{Answer, AskError};
use super::source::Source;
use crate::clock::{Timestamp, set_by};
use crate::connectors::{Page, ReadError, ResourceSpec, Response, Unreadable};
use crate::model::ordering::{By, Started};
use crate::model::{Entity, Key, ResourceName};
use crate::quota::Class;
use crate::retry::RetryPolicy;
use crate::store::{DueMark, Fence, LearnedBy, Observed, What};
use crate::supervision::{Bug, ChildSpec, Context, Meltdown, Rest, Work, worker};
use view::View;

mod granting;
mod removal;
mod split;
#[cfg(test)]
mod tests;
mod view;

/// Without marks the actor looks this often; a wake-up that was lost costs no more.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// A lost view is looked for at least this often.
const VIEW_RETRY_MAX: Duration = Duration::from_secs(60);
/// After the store failed.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// Keys read alone at once.
const SINGLES_AT_ONCE: usize = 4;
/// Keys read alone in one step.
const SINGLES_A_STEP: usize = 16;

/// The child spec.
pub fn spec(source: Arc<Source>, resource: ResourceName) -> ChildSpec {
    let waker = source.syncs.get(&resource).cloned().unwrap_or_default();
    let id = format!("sync:{resource}");
    worker(id, Meltdown::Park, Duration::from_secs(5), waker, move || Sync {
        source: Arc::clone(&source),
        resource: resource.clone(),
        looked_at: None,
        dated: None,
        backoff: policy(Duration::from_secs(300)),
        view_backoff: policy(VIEW_RETRY_MAX),
    })
}

struct Sync {
    source: Arc<Source>,
    resource: ResourceName,
    /// When the last bulk read was, in monotonic time.
    looked_at: Option<Duration>,
    /// Wall and monotonic time of a moment at which the marks' dates held.
    dated: Option<(Timestamp, Duration)>,
    backoff: RetryPolicy,
    view_backoff: RetryPolicy,
}

fn policy(max: Duration) -> RetryPolicy {
    RetryPolicy::new(Duration::from_secs(1), max, 2.0, 0.5).expect("invariant: the constants are a valid policy")
}

impl Work for Sync {
    async fn step(&mut self, cx: &Context) -> Result<Rest, Bug> {
        let Some(fence) = self.source.fence(cx).await else { return Ok(Rest::For(LOOK_EVERY)) };
        let source = Arc::clone(&self.source);
        let Some(spec) = source.spec(&self.resource) else { return Ok(Rest::For(LOOK_EVERY)) };
        match self.look(cx, &fence, spec).await {
            Ok(rest) => Ok(rest),
            Err(error) => {
                // Whatever the outcome was, the next step begins with the rows.
                self.source.saw(&fence, &error);
                Ok(Rest::For(STORE_RETRY))
            }
        }
    }
}

impl Sync {
    async fn look(&mut self, cx: &Context, fence: &Fence, spec: &ResourceSpec) -> Result<Rest, crate::store::Error> {
        self.redate(fence).await?;
        self.grant(cx, fence, spec).await?;
        let idle = if self.descend(fence, spec).await? { Duration::ZERO } else { LOOK_EVERY };
        let store = &self.source.store;
        let now = self.source.clock.now();
        let due_at = store.next_due(&self.source.name, &self.resource).await?;
        match due_at.map_or(LOOK_EVERY, |due_at| due_at.since(now)).min(idle) {
            Duration::ZERO if due_at.is_some_and(|due_at| due_at <= now) => {}
            Duration::ZERO => return Ok(Rest::Again),
            wait => return Ok(Rest::For(wait)),
        }
        let is_bulk = spec.bulk > 1 && !store.progress(&self.source.name, &self.resource).await?.bulk_unsupported;
        let due = store.due_marks(&self.source.name, &self.resource, now, spec.bulk as u64).await?;
        let (alone, together): (Vec<_>, Vec<_>) = due.into_iter().partition(|due| !is_bulk || due.by_key);
        let n_alone = alone.len();
        match self.view(cx, fence, spec, &alone).await? {
            View::Shown => {}
            View::Rests(span) => return Ok(Rest::For(span)),
            // New records may be what the upstream shows again first.
            View::Glimpse(span) if !together.is_empty() => {
                let _ = self.read_together(cx, fence, spec).await?;
                return Ok(Rest::For(span));
            }
            View::Glimpse(span) => return Ok(Rest::For(span)),
        }
        if n_alone > 0 {
            self.read_alone(cx, fence, spec, alone.into_iter().take(SINGLES_A_STEP).collect(), Class::Live).await?;
        }
        if together.is_empty() {
            return Ok(Rest::Again);
        }
        // Hints gather for a moment, so that a burst becomes one read; one that is full gains nothing by waiting.
        let passed = self.looked_at.map(|at| self.source.clock.monotonic().saturating_sub(at));
        let left = passed.map_or(Duration::ZERO, |passed| self.source.settings.linger.saturating_sub(passed));
        if !left.is_zero() && n_alone <= SINGLES_A_STEP && !self.fills(spec, &together) {
            return Ok(Rest::For(left));
        }
        self.read_together(cx, fence, spec).await
    }

    /// Whether due marks fill a bulk read.
    fn fills(&self, spec: &ResourceSpec, due: &[DueMark]) -> bool {
        let keys: Vec<Key> = due.iter().map(|due| due.key.clone()).collect();
        keys.len() >= spec.bulk || self.source.connector.fitting(spec, &keys) < keys.len()
    }

    /// Marks the next children of what changed or went above them; whether there are more.
    async fn descend(&self, fence: &Fence, spec: &ResourceSpec) -> Result<bool, crate::store::Error> {
        if spec.parent.is_none() {
            return Ok(false);
        }
        let others = self.source.connector.resources().iter();
        let below: Vec<ResourceName> = others
            .filter(|other| other.inherits && other.parent.as_ref() == Some(&self.resource))
            .map(|other| other.name.clone())
            .collect();
        let walked = self.source.store.walk_cascades(fence, &self.resource, &below).await?;
        self.source.wake(&walked.below);
        Ok(walked.more)
    }

    /// A wall clock that is set makes marks wait too long, or counts a lag as over that is not: they are dated anew.
    async fn redate(&mut self, fence: &Fence) -> Result<(), crate::store::Error> {
        let now = (self.source.clock.now(), self.source.clock.monotonic());
        let set = self.dated.map(|before| set_by(before, now));
        if set != Some(0) {
            // Before this incarnation only a clock that was set back can be told.
            let marks = self.source.store.redate_marks(fence, &self.resource, set.is_some()).await?;
            if marks > 0 {
                tracing::warn!(source = %self.source.name, resource = %self.resource, marks, "the wall clock was set; marks are looked at anew");
            }
        }
        self.dated = Some(now);
        Ok(())
    }

    /// One bulk read of whatever is due when the permit is there.
    async fn read_together(&mut self, cx: &Context, fence: &Fence, spec: &ResourceSpec) -> Result<Rest, crate::store::Error> {
        let endpoint = self.source.connector.fetch(spec, &[], By::Bulk).endpoint;
        let permit = match self.permit(cx, Class::Live, &endpoint).await {
            Ok(permit) => permit,
            Err(AskError::NoPermit(_) | AskError::Stopping) => return Ok(Rest::Again),
            Err(error) => {
                let due = self.due_together(spec).await?;
                self.defer(fence, &due, &error).await?;
                return Ok(Rest::Again);
            }
        };
        let mut due = self.due_together(spec).await?;
        let mut keys: Vec<Key> = due.iter().map(|due| due.key.clone()).collect();
        keys.truncate(self.source.connector.fitting(spec, &keys).max(1));
        due.truncate(keys.len());
        if keys.is_empty() {
            permit.unused();
            return Ok(Rest::Again);
        }
        self.looked_at = Some(self.source.clock.monotonic());
        let source = Arc::clone(&self.source);
        let _reading = source.reading(&self.resource);
        let request = self.source.connector.fetch(spec, &keys, By::Bulk);
        let read = |response: &Response| source.read_bulk(spec, &keys, response);
        match self.source.send(cx, fence, (permit, Class::Live), &request, read).await {
            Ok(answer) => self.apply_bulk(cx, fence, spec, &due, answer).await?,
            Err((error, started)) => self.bulk_failed(cx, fence, spec, due, started, &error).await?,
        }
        Ok(Rest::Again)
    }

    /// The due marks that a bulk read may answer.
    async fn due_together(&self, spec: &ResourceSpec) -> Result<Vec<DueMark>, crate::store::Error> {
        let now = self.source.clock.now();
        let due = self.source.store.due_marks(&self.source.name, &self.resource, now, spec.bulk as u64).await?;
        Ok(due.into_iter().filter(|due| !due.by_key).collect())
    }

    async fn apply_bulk(
        &self,
        cx: &Context,
        fence: &Fence,
        spec: &ResourceSpec,
        due: &[DueMark],
        answer: Answer<Page>,
    ) -> Result<(), crate::store::Error> {
        let Answer { what: page, started, .. } = answer;
        let mut observations = observed(&self.resource, By::Bulk, page, started);
        let found: HashSet<Key> = observations.iter().map(|seen| seen.entity.key.clone()).collect();
        let missing = due.iter().filter(|due| !found.contains(&due.key)).cloned();
        let (absent, missing): (Vec<_>, Vec<_>) = missing.partition(|due| confirms(due, started, spec));
        observations.extend(missing.into_iter().map(|due| Observed {
            entity: Entity { resource: self.resource.clone(), key: due.key },
            what: What::Missing { started },
            delivery: None,
        }));
        self.source.apply(fence, LearnedBy::Mark, observations).await?;
        let absent: Vec<_> = absent.into_iter().map(|due| (due, started)).collect();
        if absent.is_empty() { Ok(()) } else { self.remove(cx, fence, spec, absent).await }
    }

    async fn read_alone(
        &mut self,
        cx: &Context,
        fence: &Fence,
        spec: &ResourceSpec,
        due: Vec<DueMark>,
        class: Class,
    ) -> Result<(), crate::store::Error> {
        let learned_by = if class == Class::Refresh { LearnedBy::Refresh } else { LearnedBy::Mark };
        let source = Arc::clone(&self.source);
        let _reading = source.reading(&self.resource);
        let reads = due.into_iter().map(|due| {
            let (source, this) = (&source, &*self);
            async move {
                let endpoint = source.connector.fetch(spec, std::slice::from_ref(&due.key), By::Key).endpoint;
                let read = match this.permit(cx, class, &endpoint).await {
                    Ok(permit) => source.read_key(cx, fence, (permit, class), spec, &due.key).await,
                    Err(error) => Err((error, None)),
                };
                (due, read)
            }
        });
        let reads: Vec<_> = futures_util::stream::iter(reads).buffer_unordered(SINGLES_AT_ONCE).collect().await;
        let (mut observations, mut absent) = (Vec::new(), Vec::new());
        for (due, read) in reads {
            match read {
                Ok((page, started)) => observations.extend(observed(&self.resource, By::Key, page, started)),
                Err((AskError::Read(ReadError::NotFound), Some(started))) => absent.push((due, started)),
                Err((AskError::Stopping | AskError::NoPermit(_) | AskError::Read(ReadError::RateLimited), _)) => {}
                Err((error, started)) => self.alone_failed(fence, &[due], started, &error).await?,
            }
        }
        if !observations.is_empty() {
            self.source.apply(fence, learned_by, observations).await?;
        }
        if absent.is_empty() { Ok(()) } else { self.remove(cx, fence, spec, absent).await }
    }

    /// A read that cannot be taken apart any further: again later, or never if the record is larger than an answer may be.
    async fn alone_failed(
        &self,
        fence: &Fence,
        due: &[DueMark],
        started: Option<Started>,
        error: &AskError,
    ) -> Result<(), crate::store::Error> {
        let ([alone], Some(started), true) = (due, started, error.is_too_large()) else { return self.defer(fence, due, error).await };
        let key = Some(alone.key.clone());
        let unreadable = Unreadable { key, reason: error.to_string(), raw: bytes::Bytes::new() };
        let entity = Entity { resource: self.resource.clone(), key: alone.key.clone() };
        let seen = Observed { entity, what: What::Unreadable { started, unreadable }, delivery: None };
        self.source.apply(fence, LearnedBy::Mark, vec![seen]).await
    }

    async fn defer(&self, fence: &Fence, due: &[DueMark], error: &AskError) -> Result<(), crate::store::Error> {
        let attempts = due.iter().map(|due| due.attempts).max().unwrap_or(0);
        let delay = self.backoff.delay(attempts, rand::random());
        let keys: Vec<Key> = due.iter().map(|due| due.key.clone()).collect();
        let not_before = self.source.clock.now().plus(delay);
        self.source.store.defer_marks(fence, &self.resource, &keys, not_before, &error.to_string()).await
    }
}

/// Whether a bulk read that did not hold a key is the second witness of its absence, after the removal of what stands above it: it
/// was begun `read_lag` after the first that missed it, for two answers of one index agree however often they are repeated.
fn confirms(due: &DueMark, started: Started, spec: &ResourceSpec) -> bool {
    let first = due.missing_since.filter(|first| *first <= started.at);
    due.cascade && first.is_some_and(|first| started.at.since(first) >= spec.spans.read_lag)
}

/// The observations of a page; what cannot be read and has no key says nothing about any entity.
pub(super) fn observed(resource: &ResourceName, by: By, page: Page, started: Started) -> Vec<Observed> {
    let observe = |key: Key, what| Observed { entity: Entity { resource: resource.clone(), key }, what, delivery: None };
    let seen = page.records.into_iter().filter_map(|record| match record {
        Ok(record) => Some(observe(record.key.clone(), What::Record { by, started, record })),
        Err(unreadable) => unreadable.key.clone().map(|key| observe(key, What::Unreadable { started, unreadable })),
    });
    seen.collect()
}
