//! `intake`: the only consumer of deliveries.
//!
//! Per batch one transaction: every event is applied by the ordering rule or becomes a mark, and the deliveries are done. It
//! selects by state, never by a high-water id: rows become visible out of order.
//!
//! A connector that panics on a delivery quarantines that delivery. What brings the whole process down (a stack or memory
//! exhausted) cannot be caught, so every incarnation begins carefully: one delivery at a time, its attempt written first, until
//! it has passed the batch it found. Only deaths in that mode count; the third quarantines.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::ask::guarded;
use super::source::Source;
use crate::connectors::Unreadable;
use crate::model::{Delivery, Event};
use crate::report::ItemQuarantined;
use crate::store::{DeliveryEnd, Error, Fence, LearnedBy, Observed, PendingDelivery, What};
use crate::supervision::{Bug, ChildSpec, Context, Meltdown, Rest, Work, worker};

/// Deliveries in one transaction.
const BATCH_ROWS: u64 = 200;
/// Bytes of bodies in one transaction.
const BATCH_BYTES: u64 = 1024 * 1024;
/// Without a wake-up the intake looks this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Deaths in careful mode that quarantine a delivery.
const DEATHS_MAX: u32 = 3;

/// The child spec.
pub fn spec(source: Arc<Source>) -> ChildSpec {
    let waker = source.intake.clone();
    worker("intake", Meltdown::Park, Duration::from_secs(5), waker, move || Intake { source: Arc::clone(&source), careful: None })
}

struct Intake {
    source: Arc<Source>,
    /// Deliveries still to be taken one by one; `None` before the first look.
    careful: Option<usize>,
}

impl Work for Intake {
    async fn step(&mut self, cx: &Context) -> Result<Rest, Bug> {
        let Some(fence) = self.source.fence(&cx.stopping).await else { return Ok(Rest::For(LOOK_EVERY)) };
        match self.take(&fence).await {
            Ok(true) => Ok(Rest::Again),
            Ok(false) => Ok(Rest::For(LOOK_EVERY)),
            Err(error) => {
                self.source.saw(&fence, &error);
                Ok(Rest::For(LOOK_EVERY))
            }
        }
    }
}

impl Intake {
    /// Takes a batch; whether there may be more.
    async fn take(&mut self, fence: &Fence) -> Result<bool, Error> {
        let source = Arc::clone(&self.source);
        let pending = source.store.pending(&source.name, BATCH_ROWS, BATCH_BYTES).await?;
        if self.careful.is_none() {
            self.careful = Some(pending.len());
        }
        let left = self.careful.unwrap_or(0);
        if left > 0 && !pending.is_empty() {
            for one in pending.into_iter().take(left) {
                self.take_carefully(fence, one).await?;
                self.careful = self.careful.map(|left| left.saturating_sub(1));
            }
            return Ok(true);
        }
        self.careful = Some(0);
        let n_taken = pending.len();
        if n_taken > 0 {
            self.work_in(fence, pending.into_iter().map(|one| one.delivery).collect()).await?;
        }
        source.backlog.store(source.store.backlog(&source.name).await?.deliveries, Ordering::Relaxed);
        Ok(n_taken > 0)
    }

    async fn take_carefully(&self, fence: &Fence, one: PendingDelivery) -> Result<(), Error> {
        if one.attempts >= DEATHS_MAX {
            let mut batch = self.source.batch(LearnedBy::Hook);
            batch.deliveries.push((one.delivery.id, DeliveryEnd::Quarantined(format!("the process died {DEATHS_MAX} times on it"))));
            self.report_quarantined("died");
            return self.source.apply_batch(fence, batch).await.map(drop);
        }
        self.source.store.attempt(fence, one.delivery.id).await?;
        self.work_in(fence, vec![one.delivery]).await
    }

    async fn work_in(&self, fence: &Fence, deliveries: Vec<Delivery>) -> Result<(), Error> {
        let mut batch = self.source.batch(LearnedBy::Hook);
        for delivery in deliveries {
            match self.events(&delivery) {
                Ok(events) => {
                    let observe =
                        |event: Event| Observed { entity: event.entity.clone(), what: What::Event(event), delivery: Some(delivery.id) };
                    batch.observations.extend(events.into_iter().map(observe));
                    batch.deliveries.push((delivery.id, DeliveryEnd::Done));
                }
                Err(unreadable) => {
                    self.report_quarantined("unreadable");
                    batch.deliveries.push((delivery.id, DeliveryEnd::Quarantined(unreadable.reason)));
                }
            }
        }
        self.source.apply_batch(fence, batch).await.map(drop)
    }

    fn events(&self, delivery: &Delivery) -> Result<Vec<Event>, Unreadable> {
        let panicked = || Unreadable { key: None, reason: "the connector panicked on it".to_owned(), raw: delivery.request.body.clone() };
        guarded(|| self.source.connector.events(delivery)).unwrap_or_else(|| Err(panicked()))
    }

    fn report_quarantined(&self, reason: &str) {
        let source = self.source.name.to_string();
        self.source.reporter.emit(ItemQuarantined { source, resource: "deliveries".into(), reason: reason.into() });
    }
}
