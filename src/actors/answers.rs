//! What the edge answered, counted per minute, source and status, on its way into the store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::{Clock, Timestamp};
use crate::model::SourceName;
use crate::store::AnswerCount;

/// Counts that wait to be written. Bounded: sources × statuses × the minutes of a store outage, of which the oldest go first.
#[derive(Clone, Debug)]
pub struct Answers {
    clock: Clock,
    waiting: Arc<Mutex<BTreeMap<Place, Count>>>,
}

/// Minutes × sources × statuses that wait at most: a day of outage of ten sources with two statuses each.
const WAITING_MAX: usize = 30_000;

type Place = (Timestamp, SourceName, u16);

#[derive(Clone, Debug, Default)]
struct Count {
    n: u64,
    gap: Option<&'static str>,
}

impl Answers {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, waiting: Arc::default() }
    }

    /// One more answer. `gap` names the cause if the refused delivery will not come again by itself.
    pub fn count(&self, source: &SourceName, status: u16, gap: Option<&'static str>) {
        let minute = Timestamp(self.clock.now().0.div_euclid(60_000_000) * 60_000_000);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.entry((minute, source.clone(), status)).or_default();
        count.n += 1;
        count.gap = gap.or(count.gap);
        if waiting.len() > WAITING_MAX {
            waiting.pop_first();
        }
    }

    pub(super) fn waits(&self) -> bool {
        !self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(super) fn take(&self) -> Vec<(AnswerCount, Option<&'static str>)> {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let count = |((at, source, status), count): (Place, Count)| (AnswerCount { at, source, status, n: count.n }, count.gap);
        waiting.into_iter().map(count).collect()
    }

    pub(super) fn put_back(&self, counts: Vec<(AnswerCount, Option<&'static str>)>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for (AnswerCount { at, source, status, n }, gap) in counts {
            let count = waiting.entry((at, source, status)).or_default();
            count.n += n;
            count.gap = gap.or(count.gap);
        }
    }
}
