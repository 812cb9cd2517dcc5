//! Absence is suspicious: what a not-found may remove.
//!
//! A not-found counts only if the upstream shows after it that it still shows anything of the resource ([`super::view`]). An
//! announced delete that is not found is two witnesses and goes at once; for the last records of a resource another resource may
//! then be the control. Absence alone spends the removal budget of the resource; over it the row stays and its mark is held, for an
//! operator or a better day.

use std::time::Duration;

use super::view::Control;
use super::{DueMark, Sync};
use crate::actors::source::Source;
use crate::connectors::ResourceSpec;
use crate::model::ordering::Started;
use crate::model::{Entity, Key, ResourceName};
use crate::reconcile::RemovalBudget;
use crate::report::{RemovalConfirmed, RemovalHeld};
use crate::store::{Error, Fence, LearnedBy, Observed, What};
use crate::supervision::Context;

/// The window of the removal budget.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// A removal without any record that could be a control waits this long.
const CONTROL_RETRY: Duration = Duration::from_secs(60);
/// A removal over the budget waits this long before it is weighed again.
const HELD_RETRY: Duration = Duration::from_secs(3600);

/// Keys that were not found, with the beginning of the read.
type Absent = Vec<(DueMark, Started)>;

impl Sync {
    /// Removes what may be removed of the keys whose absence is confirmed: read alone and not found, or missed twice in bulk after the
    /// removal of what stands above them.
    pub(super) async fn remove(&self, cx: &Context, fence: &Fence, spec: &ResourceSpec, absent: Absent) -> Result<(), Error> {
        let keys = keys(&absent);
        let (announced, alone): (Absent, Absent) = absent.into_iter().partition(|(due, _)| due.mark.announced_delete);
        // Asked after the absence was met: the view may have been lost since a record was last shown.
        match self.control(cx, fence, spec, &keys).await? {
            Control::Shown => {
                self.source.see(&self.resource);
                self.weigh(fence, announced, alone).await
            }
            Control::Elsewhere => {
                self.weigh(fence, announced, Vec::new()).await?;
                if alone.is_empty() { Ok(()) } else { self.out_of_sight(fence, &self::keys(&alone)).await }
            }
            Control::Lost => self.out_of_sight(fence, &keys).await,
            Control::Nothing => self.hold(fence, &keys, CONTROL_RETRY, "not found, and no record is left that could be a control").await,
            Control::Unclear => {
                self.hold(fence, &keys, self.view_backoff.delay(1, rand::random()), "not found, but a control could not be read").await
            }
        }
    }

    async fn out_of_sight(&self, fence: &Fence, keys: &[Key]) -> Result<(), Error> {
        let span = self.lose();
        self.hold(fence, keys, span, "not found, and so is a record known alive: the view is lost").await
    }

    /// Announced ones go; of the others as many as the budget has room for.
    async fn weigh(&self, fence: &Fence, announced: Absent, alone: Absent) -> Result<(), Error> {
        let mut budget = if alone.is_empty() { 0 } else { self.source.removal_budget(&self.resource).await?.left() };
        let (mut going, mut held): (Absent, Vec<Key>) = (announced, Vec::new());
        for (due, started) in alone {
            // What has no live row costs nothing: its tombstone only keeps a late page from inserting it.
            if !self.is_live(&due.key).await? {
                going.push((due, started));
            } else if budget > 0 {
                budget -= 1;
                going.push((due, started));
            } else {
                held.push(due.key);
            }
        }
        let (source, resource) = (self.source.name.to_string(), self.resource.to_string());
        if !held.is_empty() {
            let records = held.len() as u64;
            self.source.reporter.emit(RemovalHeld { source: source.clone(), resource: resource.clone(), reason: "budget".into(), records });
            let until = self.source.clock.now().plus(HELD_RETRY);
            self.source.store.hold_over_budget(fence, &self.resource, &held, until).await?;
        }
        let records = going.len() as u64;
        if records == 0 {
            return Ok(());
        }
        let gone = going.into_iter().map(|(due, started)| Observed {
            entity: Entity { resource: self.resource.clone(), key: due.key },
            what: What::Gone { started, reason: "not found", by_mark: Some(due.mark.tick) },
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

    async fn hold(&self, fence: &Fence, keys: &[Key], span: Duration, note: &str) -> Result<(), Error> {
        let until = self.source.clock.now().plus(span);
        self.source.store.hold_marks(fence, &self.resource, keys, until, note).await
    }
}

impl Source {
    /// How many more rows of a resource may vanish unannounced today.
    pub(in crate::actors) async fn removal_budget(&self, resource: &ResourceName) -> Result<RemovalBudget, Error> {
        let live_rows = self.store.live_rows(&self.name, resource).await?;
        let removed_in_24h = self.store.removals_since(&self.name, resource, self.clock.now().minus(DAY)).await?;
        let brake = self.settings.brake;
        Ok(RemovalBudget { live_rows, removed_in_24h, share: brake.share, floor: brake.rows, cap: brake.cap })
    }
}

fn keys(absent: &Absent) -> Vec<Key> {
    absent.iter().map(|(due, _)| due.key.clone()).collect()
}
