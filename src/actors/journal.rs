//! `journal`: writes deliveries, many in one commit, and answers only after it.
//!
//! Group commit without a timer: whatever waits when a commit ends goes into the next one. The queue lies outside the actor, so
//! a restarted journal continues with it; an entry whose batch died with an incarnation is answered "unavailable".
//! Empty commits keep the heartbeat, by which a start can tell how long nobody was listening.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::answers::Answers;
use crate::clock::Clock;
use crate::model::Delivery;
use crate::report::{DiskFreeBytes, GapOpened, JournalCommitted, JournalFailed, Reporter, StoreLost, StoreRegained};
use crate::store::{AnswerCount, Store};
use crate::supervision::{Bug, ChildSpec, Context, Meltdown, Rest, Waker, Work, worker};

/// Deliveries in one commit: enough to saturate the disk, few enough to answer within its time.
const BATCH_ROWS: usize = 500;
/// Bytes of bodies in one commit.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Deliveries waiting at once; beyond it the edge answers "come again".
const QUEUE_MAX: usize = 20_000;
/// An empty commit this often.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Between commits the store is only asked whether it is there, so that readiness is no older than this.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A commit that takes longer counts as a store that is away, until it ends: its callers have been answered 503 already, and
/// whoever comes now need not wait for the same. It is not given up: an outcome that is known is better than one that is not.
const SLOW: Duration = Duration::from_secs(1);
/// A lost store is looked for this often.
const LOST_RETRY: Duration = Duration::from_millis(500);

/// One transaction of the store, which ends within 15 s; each of several is announced.
const STEP_BUDGET: Duration = Duration::from_secs(20);

/// Whether the store can commit, as its writers last saw it.
#[derive(Clone, Debug, Default)]
pub struct StoreHealth {
    lost: Arc<AtomicBool>,
    room: Arc<AtomicU8>,
}

/// How much room the disk has left, against the configured floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Enough.
    Enough,
    /// Less than twice the floor: passes rest.
    Low,
    /// Less than the floor: hooks are refused too, while there is still room to work off what was taken.
    None,
}

impl StoreHealth {
    /// True while the last commit failed.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// How much room the disk has left.
    #[must_use]
    pub fn room(&self) -> Room {
        match self.room.load(Ordering::Acquire) {
            0 => Room::Enough,
            1 => Room::Low,
            _ => Room::None,
        }
    }

    fn saw_disk(&self, free: Option<u64>, floor: u64) {
        let room = match free {
            Some(free) if free < floor => 2,
            Some(free) if free < floor.saturating_mul(2) => 1,
            _ => 0,
        };
        self.room.store(room, Ordering::Release);
    }

    fn saw(&self, error: Option<&str>, reporter: &Reporter) {
        let was_lost = self.lost.swap(error.is_some(), Ordering::AcqRel);
        match error {
            Some(error) if !was_lost => reporter.emit(StoreLost { error: error.to_owned() }),
            None if was_lost => reporter.emit(StoreRegained {}),
            _ => {}
        }
    }
}

/// The delivery could not be stored; nothing of it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the delivery could not be stored")]
pub struct NotStored;

/// How the edge reaches the journal.
#[derive(Clone, Debug)]
pub struct Journal {
    queue: Arc<Mutex<Vec<Entry>>>,
    waker: Waker,
    health: StoreHealth,
}

#[derive(Debug)]
struct Entry {
    delivery: Delivery,
    reply: oneshot::Sender<bool>,
}

impl Journal {
    /// An empty queue that tells through `health` how the store stands.
    #[must_use]
    pub fn new(health: StoreHealth) -> Self {
        Self { queue: Arc::default(), waker: Waker::default(), health }
    }

    /// Stores a delivery; `Ok` only after its commit.
    ///
    /// # Errors
    /// [`NotStored`].
    pub async fn put(&self, delivery: Delivery) -> Result<(), NotStored> {
        let (reply, stored) = oneshot::channel();
        {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.len() >= QUEUE_MAX {
                return Err(NotStored);
            }
            queue.push(Entry { delivery, reply });
        }
        self.waker.wake();
        if stored.await.unwrap_or(false) { Ok(()) } else { Err(NotStored) }
    }

    /// Whether the store can commit.
    #[must_use]
    pub fn health(&self) -> &StoreHealth {
        &self.health
    }

    fn take(&self) -> Vec<Entry> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = 0;
        let mut fits = |entry: &Entry| {
            bytes += entry.delivery.request.body.len();
            bytes <= BATCH_BYTES
        };
        let n_rows = queue.iter().take(BATCH_ROWS).take_while(|entry| fits(entry)).count().max(1).min(queue.len());
        queue.drain(..n_rows).collect()
    }
}

/// What the actor is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// The store.
    pub store: Store,
    /// The queue.
    pub journal: Journal,
    /// Counts of answers, written beside the deliveries.
    pub answers: Answers,
    /// Where commits are reported.
    pub reporter: Reporter,
    /// The clock.
    pub clock: Clock,
    /// Bytes free below which hooks are refused.
    pub disk_floor: u64,
}

/// The child spec.
pub fn spec(options: Options) -> ChildSpec {
    let waker = options.journal.waker.clone();
    let make = move || Writer { options: options.clone(), beat_at: Duration::ZERO };
    worker("journal", Meltdown::Escalate, Duration::from_secs(5), waker, make).with_step_budget(STEP_BUDGET)
}

struct Writer {
    options: Options,
    /// When the last commit was, in monotonic time.
    beat_at: Duration,
}

impl Work for Writer {
    async fn step(&mut self, cx: &Context) -> Result<Rest, Bug> {
        let batch = self.options.journal.take();
        if !batch.is_empty() {
            self.commit(batch).await;
            // What failed a moment ago would fail again, or succeed for want of size alone: nobody could see that it failed.
            let is_lost = self.options.journal.health.is_lost();
            return Ok(if is_lost { Rest::For(LOST_RETRY) } else { Rest::Again });
        }
        self.look_at_disk();
        let now = self.options.clock.monotonic();
        let is_lost = self.options.journal.health.is_lost();
        if is_lost || now.saturating_sub(self.beat_at) >= HEARTBEAT || self.options.answers.waits() {
            self.beat(cx).await;
        } else if let Err(error) = self.watched(self.options.store.ping()).await {
            self.failed(&error);
        }
        Ok(Rest::For(if self.options.journal.health.is_lost() { LOST_RETRY } else { LOOK_EVERY }))
    }

    async fn finish(&mut self, cx: &Context) {
        loop {
            let batch = self.options.journal.take();
            if batch.is_empty() {
                break;
            }
            self.commit(batch).await;
        }
        self.beat(cx).await;
    }
}

impl Writer {
    fn look_at_disk(&self) {
        let free = self.options.store.disk_free();
        if let Some(free) = free {
            self.options.reporter.set(DiskFreeBytes {}, free as f64);
        }
        self.options.journal.health.saw_disk(free, self.options.disk_floor);
    }

    /// Waits for the store, and says that it is away while it takes too long.
    async fn watched<T>(&self, asked: impl Future<Output = T>) -> T {
        let mut asked = std::pin::pin!(asked);
        tokio::select! {
            done = &mut asked => return done,
            () = tokio::time::sleep(SLOW) => {}
        }
        self.options.journal.health.saw(Some("no answer within a second"), &self.options.reporter);
        asked.await
    }

    async fn commit(&mut self, batch: Vec<Entry>) {
        let started = self.options.clock.monotonic();
        let (deliveries, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|entry| (entry.delivery, entry.reply)).unzip();
        let written = self.watched(self.options.store.journal(&deliveries)).await;
        let ended = self.options.clock.monotonic();
        match written {
            Ok(results) => {
                self.beat_at = ended;
                self.options.journal.health.saw(None, &self.options.reporter);
                let seconds = ended.saturating_sub(started).as_secs_f64();
                self.options.reporter.emit(JournalCommitted { deliveries: results.len(), seconds });
                for (result, reply) in results.iter().zip(replies) {
                    // The caller may have hung up: the delivery is stored all the same.
                    let _ = reply.send(result.is_ok());
                }
            }
            Err(error) => {
                self.failed(&error);
                for reply in replies {
                    let _ = reply.send(false);
                }
            }
        }
    }

    /// An empty commit, with the counts of answers in it.
    async fn beat(&mut self, cx: &Context) {
        let counts = self.options.answers.take();
        match self.watched(self.write_counts(cx, &counts)).await {
            Ok(()) => {
                self.beat_at = self.options.clock.monotonic();
                self.options.journal.health.saw(None, &self.options.reporter);
            }
            Err(error) => {
                self.options.answers.put_back(counts);
                self.failed(&error);
            }
        }
    }

    /// Counts, gaps, heartbeat. A failure half-way counts some answers twice rather than none.
    async fn write_counts(&self, cx: &Context, counts: &[(AnswerCount, Option<&'static str>)]) -> Result<(), crate::store::Error> {
        let store = &self.options.store;
        if !counts.is_empty() {
            let rows: Vec<AnswerCount> = counts.iter().map(|(count, _)| count.clone()).collect();
            store.count_answers(&rows).await?;
        }
        for (count, cause) in counts {
            if let Some(cause) = cause {
                cx.life.allow(cx.step_budget);
                store.extend_gap(&count.source, cause, count.at, Some(self.options.clock.now())).await?;
                self.options.reporter.emit(GapOpened { source: count.source.to_string(), cause: (*cause).to_owned() });
            }
        }
        cx.life.allow(cx.step_budget);
        store.heartbeat().await
    }

    fn failed(&self, error: &crate::store::Error) {
        self.options.reporter.emit(JournalFailed { error: error.to_string() });
        self.options.journal.health.saw(Some(&error.to_string()), &self.options.reporter);
    }
}

#[cfg(test)]
mod tests;
