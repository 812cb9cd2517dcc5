//! Whoever waits for one record to be read, or to change: noted in memory for as long as somebody waits.
//!
//! A demand is granted by the sync actor of its resource before anything else, so that reads of one resource still come from one
//! place. Demands for the same record are one read. Who waits is told when the record was read or touched by any other way, and
//! then looks at its row: nobody asks the store in between.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::clock::Timestamp;
use crate::model::{Entity, Key, ResourceName};

/// Who waits for what.
#[derive(Debug, Default)]
pub(super) struct Demands {
    asked: Mutex<BTreeMap<Entity, Asked>>,
    /// Something is demanded for.
    demanded: Notify,
}

#[derive(Debug)]
struct Asked {
    n_waiting: usize,
    /// A read is demanded for and not begun.
    is_wanted: bool,
    /// When the read under way was begun.
    reading_since: Option<Timestamp>,
    /// Reads begun.
    n_begun: u64,
    news: watch::Sender<News>,
}

/// What is told to those who wait.
#[derive(Clone, Copy, Debug, Default)]
struct News {
    /// Reads ended, however they ended.
    n_ended: u64,
    /// Transactions that touched the record.
    n_touched: u64,
}

/// Somebody who waits.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    demands: &'a Demands,
    entity: Entity,
    /// Reads begun before.
    n_before: u64,
    news: watch::Receiver<News>,
}

/// Reads that were begun for those who wait; they end with this.
#[derive(Debug)]
pub(super) struct Granted<'a> {
    demands: &'a Demands,
    resource: ResourceName,
    /// Of which records.
    pub(super) keys: Vec<Key>,
}

impl Demands {
    fn asked(&self) -> MutexGuard<'_, BTreeMap<Entity, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait. To be called before the row is looked at, so that nothing is missed in between.
    pub(super) fn wait(&self, entity: &Entity) -> Waiting<'_> {
        let mut all = self.asked();
        let asked = all.entry(entity.clone()).or_insert_with(|| Asked {
            n_waiting: 0,
            is_wanted: false,
            reading_since: None,
            n_begun: 0,
            news: watch::Sender::new(News::default()),
        });
        asked.n_waiting += 1;
        Waiting { demands: self, entity: entity.clone(), n_before: asked.n_begun, news: asked.news.subscribe() }
    }

    /// Begins reads of what is demanded for of a resource, `n` at most.
    pub(super) fn grant(&self, resource: &ResourceName, n: usize, now: Timestamp) -> Granted<'_> {
        let mut all = self.asked();
        let wanted = all.iter_mut().filter(|(entity, asked)| entity.resource == *resource && asked.is_granted_next());
        let begin = |(entity, asked): (&Entity, &mut Asked)| {
            (asked.is_wanted, asked.reading_since) = (false, Some(now));
            asked.n_begun += 1;
            entity.key.clone()
        };
        let keys = wanted.take(n).map(begin).collect();
        Granted { demands: self, resource: resource.clone(), keys }
    }

    /// Waits until something of the resource is demanded for.
    pub(super) async fn demanded(&self, resource: &ResourceName) {
        loop {
            let mut demanded = std::pin::pin!(self.demanded.notified());
            demanded.as_mut().enable();
            if self.asked().iter().any(|(entity, asked)| entity.resource == *resource && asked.is_granted_next()) {
                return;
            }
            demanded.await;
        }
    }

    /// A transaction has touched these records.
    pub(super) fn touched<'a>(&self, entities: impl IntoIterator<Item = &'a Entity>) {
        let all = self.asked();
        if all.is_empty() {
            return;
        }
        for asked in entities.into_iter().filter_map(|entity| all.get(entity)) {
            asked.news.send_modify(|news| news.n_touched += 1);
        }
    }
}

impl Asked {
    fn is_granted_next(&self) -> bool {
        self.is_wanted && self.reading_since.is_none()
    }
}

impl Waiting<'_> {
    /// For which record.
    pub(super) fn entity(&self) -> &Entity {
        &self.entity
    }

    /// Demands for a read that is begun at `since` or later, unless one is demanded for or under way; `admit` says whether a further one may be
    /// made. True if this made it.
    pub(super) fn demand(&self, since: Timestamp, admit: impl FnOnce() -> Result<(), Duration>) -> Result<bool, Duration> {
        let mut all = self.demands.asked();
        let Some(asked) = all.get_mut(&self.entity) else { return Ok(false) };
        if asked.is_wanted || asked.reading_since.is_some_and(|begun| begun >= since) {
            return Ok(false);
        }
        admit()?;
        asked.is_wanted = true;
        drop(all);
        self.demands.demanded.notify_waiters();
        Ok(true)
    }

    /// Whether a read that was begun since this began to wait has ended.
    pub(super) fn is_served(&self) -> bool {
        self.news.borrow().n_ended > self.n_before
    }

    /// Waits until there is something new.
    pub(super) async fn news(&mut self) {
        // The sender stays for as long as anybody waits.
        let _ = self.news.changed().await;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut all = self.demands.asked();
        let Some(asked) = all.get_mut(&self.entity) else { return };
        asked.n_waiting -= 1;
        if asked.n_waiting == 0 && asked.reading_since.is_none() {
            all.remove(&self.entity);
        }
    }
}

impl Drop for Granted<'_> {
    fn drop(&mut self) {
        let mut all = self.demands.asked();
        for key in self.keys.drain(..) {
            let entity = Entity { resource: self.resource.clone(), key };
            let Some(asked) = all.get_mut(&entity) else { continue };
            asked.reading_since = None;
            asked.news.send_modify(|news| news.n_ended = asked.n_begun);
            if asked.n_waiting == 0 {
                all.remove(&entity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{entity, tasks};

    const NOW: Timestamp = Timestamp(1_000_000);

    fn free() -> Result<(), Duration> {
        Ok(())
    }

    #[test]
    fn wishes_for_one_record_are_one_read() {
        let demands = Demands::default();
        let waiting: Vec<_> = (0..200).map(|_| demands.wait(&entity("1"))).collect();
        let made = waiting.iter().filter(|one| one.demand(NOW, free) == Ok(true)).count();
        assert_eq!(made, 1);
        let granted = demands.grant(&tasks(), 16, NOW);
        assert_eq!(granted.keys, [entity("1").key]);
        assert!(demands.grant(&tasks(), 16, NOW).keys.is_empty(), "it is begun");
        assert!(waiting.iter().all(|one| !one.is_served()));
        drop(granted);
        assert!(waiting.iter().all(Waiting::is_served));
        drop(waiting);
        assert!(demands.asked().is_empty(), "nothing is kept for nobody");
    }

    #[test]
    fn who_comes_while_a_read_is_under_way_takes_it_or_waits_for_the_next() {
        let demands = Demands::default();
        let first = demands.wait(&entity("1"));
        assert_eq!(first.demand(NOW, free), Ok(true));
        let granted = demands.grant(&tasks(), 16, NOW);
        let second = demands.wait(&entity("1"));
        assert_eq!(second.demand(NOW, || panic!("the read under way is as fresh as that")), Ok(false));
        assert_eq!(second.demand(Timestamp(NOW.0 + 1), free), Ok(true), "a fresher one is demanded for");
        assert!(demands.grant(&tasks(), 16, NOW).keys.is_empty(), "and begun when the first has ended");
        drop(granted);
        assert!(first.is_served() && !second.is_served());
        drop(demands.grant(&tasks(), 16, NOW));
        assert!(second.is_served());
    }

    #[test]
    fn a_wish_that_is_not_admitted_is_none() {
        let demands = Demands::default();
        let waiting = demands.wait(&entity("1"));
        assert_eq!(waiting.demand(NOW, || Err(Duration::from_secs(3))), Err(Duration::from_secs(3)));
        assert!(demands.grant(&tasks(), 16, NOW).keys.is_empty());
        assert_eq!(waiting.demand(NOW, free), Ok(true));
        drop(waiting);
        assert!(demands.grant(&tasks(), 16, NOW).keys.is_empty(), "who went wants nothing");
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_what_happens_to_the_record_alone() {
        let demands = Demands::default();
        let mut waiting = demands.wait(&entity("1"));
        demands.touched([&entity("2")]);
        assert!(!waiting.news.has_changed().expect("a sender"));
        demands.touched([&entity("1")]);
        waiting.news().await;
        assert!(!waiting.is_served(), "it was touched, not read");
    }
}
