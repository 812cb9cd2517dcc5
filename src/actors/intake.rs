//! `intake`: the only consumer of deliveries.
//!
//! Every event is applied by the ordering rule or becomes a mark, and with the last one the deliveries are done: per batch in one
//! transaction, of very many events in several, for the journal waits behind each of them on SQLite. Deliveries are selected by state,
//! never by a high-water id: rows become visible out of order.
//!
//! A connector that panics on a delivery quarantines that delivery. What brings the whole process down (a stack or memory
//! exhausted) cannot be caught: so the name of the delivery that is being decoded stands in a small file for just that moment
//! ([`Witness`]). A start that finds a name there counts a death for that delivery alone, and the third quarantines it. A kill at
//! any other moment, of whatever is in hand, counts for nobody.

mod witness;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::ask::{self, guarded};
use super::source::Source;
use crate::clock::Timestamp;
use crate::connectors::{Flow, Statements, Unreadable};
use crate::failpoint;
use crate::model::{Delivery, DeliveryId, Event};
use crate::report::{EventsDecided, GapOpened, ItemQuarantined};
use crate::store::{Batch, DeliveryEnd, Error, Fence, LearnedBy, Observed, What};
use crate::supervision::{Bug, ChildSpec, Context, Meltdown, Rest, Work, worker};
use witness::Witness;

/// Deliveries taken up at once.
const BATCH_ROWS: u64 = 200;
/// Bytes of bodies taken up at once.
const BATCH_BYTES: u64 = 1024 * 1024;
/// Without a wake-up the intake looks this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The cause of a gap in which the upstream sent nothing, by its own word.
const SUSPENDED: &str = "suspended";
/// Deaths while decoding it that quarantine a delivery.
const DEATHS_MAX: u32 = 3;

/// The child spec.
pub fn spec(source: Arc<Source>) -> ChildSpec {
    let waker = source.intake.clone();
    worker("intake", Meltdown::Park, Duration::from_secs(5), waker, move || Intake { source: Arc::clone(&source), witness: None })
}

struct Intake {
    source: Arc<Source>,
    /// Opened at the first step.
    witness: Option<Witness>,
}

impl Work for Intake {
    async fn step(&mut self, cx: &Context) -> Result<Rest, Bug> {
        let rest = match self.source.fence(cx).await {
            None => Rest::For(LOOK_EVERY),
            Some(fence) => match self.take(&fence).await {
                Ok(true) => Rest::Again,
                Ok(false) => Rest::For(LOOK_EVERY),
                Err(error) => {
                    self.source.saw(&fence, &error);
                    Rest::For(LOOK_EVERY)
                }
            },
        };
        // Also where nothing could be worked in, or another process does that. Should the store be away, the door knows it otherwise.
        let _ = self.count_backlog().await;
        Ok(rest)
    }
}

impl Intake {
    /// Takes a batch; whether there may be more.
    async fn take(&mut self, fence: &Fence) -> Result<bool, Error> {
        if self.witness.is_none() {
            let (witness, suspect) = Witness::open(&self.source.state.join(format!("decoding-{}", self.source.name)));
            if let Some(id) = suspect {
                self.count_death(fence, id).await?;
            }
            self.witness = Some(witness);
        }
        let source = Arc::clone(&self.source);
        let pending = source.store.pending(&source.name, BATCH_ROWS, BATCH_BYTES).await?;
        let n_taken = pending.len();
        if n_taken > 0 {
            self.work_in(fence, pending.into_iter().map(|one| one.delivery).collect()).await?;
        }
        Ok(n_taken > 0)
    }

    /// The door goes by what waits: counted at the end of every step, and within one between its transactions.
    async fn count_backlog(&self) -> Result<(), Error> {
        let backlog = self.source.store.backlog(&self.source.name).await?;
        self.source.backlog.store(backlog.deliveries, Ordering::Relaxed);
        Ok(())
    }

    /// The process before us died while it decoded this delivery.
    async fn count_death(&self, fence: &Fence, id: DeliveryId) -> Result<(), Error> {
        if self.source.store.attempt(fence, id).await? < DEATHS_MAX {
            return Ok(());
        }
        let mut batch = self.source.batch(LearnedBy::Hook);
        batch.deliveries.push((id, DeliveryEnd::Quarantined(format!("the process died {DEATHS_MAX} times decoding it"))));
        self.report_quarantined("died");
        self.source.apply_batch(fence, batch).await.map(drop)
    }

    async fn work_in(&self, fence: &Fence, deliveries: Vec<Delivery>) -> Result<(), Error> {
        self.source.pushes.came(self.source.clock.now());
        let mut batch = self.source.batch(LearnedBy::Hook);
        for delivery in deliveries {
            let read = {
                let _decoding = self.witness.as_ref().map(|witness| witness.of(delivery.id));
                failpoint::reach("decode", "named").await?;
                let read = self.statements(&delivery);
                failpoint::reach("decode", "read").await?;
                read
            };
            match read {
                Ok(Statements { events, ignored, flow, unreadable }) => {
                    let observe =
                        |event: Event| Observed { entity: event.entity.clone(), what: What::Event(event), delivery: Some(delivery.id) };
                    batch.observations.extend(events.into_iter().map(observe));
                    if let Some(flow) = flow {
                        self.note_flow(flow).await?;
                    }
                    for ignored in ignored {
                        let (source, resource) = (self.source.name.to_string(), ignored.resource.to_owned());
                        self.source.reporter.emit(EventsDecided { source, resource, outcome: ignored.reason.to_owned(), events: 1 });
                    }
                    if unreadable.is_some() {
                        self.report_quarantined("unreadable");
                    }
                    batch.deliveries.push((delivery.id, unreadable.map_or(DeliveryEnd::Done, DeliveryEnd::Quarantined)));
                }
                Err(unreadable) => {
                    self.report_quarantined("unreadable");
                    batch.deliveries.push((delivery.id, DeliveryEnd::Quarantined(unreadable.reason)));
                }
            }
            if batch.observations.len() >= ask::BATCH_ROWS {
                let full = std::mem::replace(&mut batch, self.source.batch(LearnedBy::Hook));
                self.apply(fence, full).await?;
                self.count_backlog().await?;
            }
        }
        if batch.deliveries.is_empty() { Ok(()) } else { self.apply(fence, batch).await }
    }

    /// Applies what deliveries told; where that is more than one transaction holds, they are done with the last. One that is taken up
    /// again after some of them says nothing new.
    async fn apply(&self, fence: &Fence, mut batch: Batch) -> Result<(), Error> {
        let mut observations = std::mem::take(&mut batch.observations).into_iter().peekable();
        loop {
            let taken = ask::take_bounded(&mut observations);
            if observations.peek().is_none() {
                return self.source.apply_batch(fence, Batch { observations: taken, ..batch }).await.map(drop);
            }
            let ahead = Batch { observations: taken, ..self.source.batch(LearnedBy::Hook) };
            self.source.apply_batch(fence, ahead).await?;
            self.count_backlog().await?;
        }
    }

    /// The upstream says that it stopped sending, or sends again. What was said twice, or in the wrong order, ends the same way.
    async fn note_flow(&self, flow: Flow) -> Result<(), Error> {
        let source = &self.source;
        let (began_at, ended_at) = match flow {
            Flow::Again { since } => (since, Some(since)),
            Flow::Lost { since } => {
                let gaps = source.store.open_gaps(&source.name).await?;
                let ended = gaps.iter().filter(|gap| gap.cause == SUSPENDED).find_map(|gap| gap.ended_at);
                (since, ended.map(Timestamp).filter(|ended| *ended >= since))
            }
        };
        source.store.extend_gap(&source.name, SUSPENDED, began_at, ended_at).await?;
        source.reporter.emit(GapOpened { source: source.name.to_string(), cause: SUSPENDED.to_owned() });
        source.reconciler.wake();
        Ok(())
    }

    fn statements(&self, delivery: &Delivery) -> Result<Statements, Unreadable> {
        let panicked = || Unreadable { key: None, reason: "the connector panicked on it".to_owned(), raw: delivery.request.body.clone() };
        guarded("events", || self.source.connector.events(delivery)).unwrap_or_else(|| Err(panicked()))
    }

    fn report_quarantined(&self, reason: &str) {
        let source = self.source.name.to_string();
        self.source.reporter.emit(ItemQuarantined { source, resource: "deliveries".into(), reason: reason.into() });
    }
}

#[cfg(test)]
mod tests;
