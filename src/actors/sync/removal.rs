//! Absence is suspicious: what a not-found may remove.
//!
//! A not-found counts only while the upstream shows, in the same minute, that it still shows anything: a control key known
//! alive must answer. An announced delete that is not found is two witnesses and goes at once. Absence alone spends the
//! removal budget of the resource; over it the row stays and its mark is held, for an operator or a better day.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{DueMark, Sync};
use crate::connectors::ResourceSpec;
use crate::model::ordering::{By, Started};
use crate::model::{Entity, Key};
use crate::quota::Class;
use crate::reconcile::RemovalBudget;
use crate::report::{RemovalConfirmed, RemovalHeld, ViewLost};
use crate::store::{Error, Fence, LearnedBy, Observed, What};
use crate::supervision::Context;

/// The window of the removal budget.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// "In the same minute".
const CONTROL_AGE: Duration = Duration::from_secs(60);
/// A removal without a control waits this long.
const VIEW_RETRY: Duration = Duration::from_secs(60);
/// A removal over the budget waits this long before it is weighed again.
const HELD_RETRY: Duration = Duration::from_secs(3600);

impl Sync {
    /// Removes what may be removed of the keys that were read alone and not found.
    pub(super) async fn remove(
        &mut self,
        cx: &Context,
        fence: &Fence,
        spec: &ResourceSpec,
        absent: Vec<(DueMark, Started)>,
        began: Duration,
    ) -> Result<(), Error> {
        let keys: Vec<Key> = absent.iter().map(|(due, _)| due.key.clone()).collect();
        // An announced delete has a witness of its own. For absence alone the control must be younger than the reads that met it:
        // the view may have been lost since a record was last shown.
        let is_announced = absent.iter().all(|(due, _)| due.mark.announced_delete);
        let since = if is_announced { began.saturating_sub(CONTROL_AGE) } else { began };
        if !self.control(cx, fence, spec, &keys, since).await? {
            self.source.view_lost.store(true, Ordering::Release);
            let (source, resource) = (self.source.name.to_string(), self.resource.to_string());
            self.source.reporter.emit(ViewLost { source, resource });
            return self.hold(fence, &keys, VIEW_RETRY, "not found, and so is a record known alive: the view is lost").await;
        }
        self.source.view_lost.store(false, Ordering::Release);
        let mut budget = self.budget().await?;
        let (mut going, mut held) = (Vec::new(), Vec::new());
        for (due, started) in absent {
            // What has no live row costs nothing: its tombstone only keeps a late page from inserting it.
            if due.mark.announced_delete || !self.is_live(&due.key).await? {
                going.push((due.key, started));
            } else if budget > 0 {
                budget -= 1;
                going.push((due.key, started));
            } else {
                held.push(due.key);
            }
        }
        let (source, resource) = (self.source.name.to_string(), self.resource.to_string());
        if !held.is_empty() {
            let records = held.len() as u64;
            self.source.reporter.emit(RemovalHeld { source: source.clone(), resource: resource.clone(), reason: "budget".into(), records });
            self.hold(fence, &held, HELD_RETRY, "not found, but the removal budget is spent").await?;
        }
        let records = going.len() as u64;
        let gone = going.into_iter().map(|(key, started)| Observed {
            entity: Entity { resource: self.resource.clone(), key },
            what: What::Gone { started, reason: "not found" },
            delivery: None,
        });
        self.source.apply(fence, LearnedBy::Mark, gone.collect()).await?;
        self.source.reporter.emit(RemovalConfirmed { source, resource, records });
        Ok(())
    }

    async fn is_live(&self, key: &Key) -> Result<bool, Error> {
        let entity = Entity { resource: self.resource.clone(), key: key.clone() };
        Ok(self.source.store.entity(&self.source.name, &entity).await?.row.is_some_and(|row| !row.deleted))
    }

    /// Whether the upstream shows a record that we know alive, or has shown one since `since` (monotonic time).
    async fn control(&mut self, cx: &Context, fence: &Fence, spec: &ResourceSpec, except: &[Key], since: Duration) -> Result<bool, Error> {
        if self.alive_at.is_some_and(|at| at >= since) {
            return Ok(true);
        }
        let now = self.source.clock.monotonic();
        let own = self.source.store.control_key(&self.source.name, &self.resource, except).await?;
        if let Some(key) = own {
            let is_alive = self.answers(cx, fence, spec, key).await;
            self.alive_at = is_alive.then_some(now);
            return Ok(is_alive);
        }
        // No other row of this resource is left, so another resource has to show that we still see anything.
        for other in self.source.connector.resources().iter().filter(|other| other.name != self.resource) {
            if let Some(key) = self.source.store.control_key(&self.source.name, &other.name, &[]).await? {
                return Ok(self.answers(cx, fence, other, key).await);
            }
        }
        Ok(false)
    }

    async fn answers(&self, cx: &Context, fence: &Fence, spec: &ResourceSpec, key: Key) -> bool {
        let request = self.source.connector.fetch(spec, std::slice::from_ref(&key), By::Key);
        let read = self.source.ask_page(cx, fence, Class::Live, spec, By::Key, &request).await;
        read.is_ok_and(|(page, _)| page.records.iter().flatten().any(|record| record.key == key))
    }

    /// How many more rows may vanish unannounced today.
    async fn budget(&self) -> Result<u64, Error> {
        let store = &self.source.store;
        let live_rows = store.live_rows(&self.source.name, &self.resource).await?;
        let since = self.source.clock.now().minus(DAY);
        let removed = store.removals_since(&self.source.name, &self.resource, since).await?;
        let brake = self.source.settings.brake;
        Ok(RemovalBudget { live_rows, removed_in_24h: removed, share: brake.share, floor: brake.rows, cap: brake.cap }.left())
    }

    async fn hold(&self, fence: &Fence, keys: &[Key], span: Duration, note: &str) -> Result<(), Error> {
        let until = self.source.clock.now().plus(span);
        self.source.store.hold_marks(fence, &self.resource, keys, until, note).await
    }
}
