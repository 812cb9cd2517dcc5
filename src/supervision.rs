//! Our supervisor on ractor: children as data, one-for-one restarts with exponential backoff, intensity limits, ordered start
//! and stop with deadlines, signs of life.
//!
//! ractor notifies a supervisor and leaves the policy to it: there is no restart, no order and no graceful end of a subtree
//! (when a parent ends, its children are killed). The policy is here, once, for every level of the tree.
//!
//! - [`ChildSpec`] says how a child starts, how it is stopped and what happens when it fails too often.
//! - [`supervisor`] builds the child spec of a whole subtree, so trees nest.
//! - [`worker`] builds the child spec of a [`Work`]: state in rows, steps pulled at its own pace, a mailbox that holds wake-ups only.
//! - [`Life`] is the sign of life: an actor says until when it may be silent; silence after that is a hang.
//! - [`Roster`] is what `/status` shows of the tree.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use ractor::{ActorCell, ActorProcessingErr, SpawnErr};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::failpoint;
use crate::retry::RetryPolicy;

mod supervisor;
mod work;

pub use supervisor::{Ended, SUPERVISOR_BUDGET, Tree, run_root, supervisor};
use work::give_way;
pub use work::{Rest, Waker, Work, with_pulse, worker};

/// A broken invariant. An actor that meets one dies of it and is restarted; expected failures are data.
pub type Bug = ActorProcessingErr;

/// How a child is started: given its supervisor and its context, it answers with its cell. Quick and local.
pub type Start = Arc<dyn Fn(ActorCell, Context) -> BoxFuture<'static, Result<ActorCell, SpawnErr>> + Send + Sync>;

/// What happens when a child fails more often than the tree's intensity allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meltdown {
    /// Its supervisor stops the siblings in order and fails upward.
    Escalate,
    /// It is left alone for a while, then tried again; the siblings go on.
    Park,
}

/// A child as data.
#[derive(Clone)]
pub struct ChildSpec {
    /// Its name among its siblings.
    pub id: String,
    /// How it is started.
    pub start: Start,
    /// What happens when it fails too often.
    pub meltdown: Meltdown,
    /// How long an ordered stop may take before it is killed.
    pub stop_deadline: Duration,
    /// How long a step of it may take that announces nothing else: a hang is found after this.
    pub step_budget: Duration,
    /// Its own children, where it is a supervisor: the tree can be looked at without being started.
    pub children: Vec<ChildSpec>,
}

impl ChildSpec {
    /// The same child with a budget of its own, where the bound of its work is known.
    #[must_use]
    pub fn with_step_budget(self, step_budget: Duration) -> Self {
        Self { step_budget, ..self }
    }
}

impl std::fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChildSpec").field("id", &self.id).field("meltdown", &self.meltdown).finish_non_exhaustive()
    }
}

/// When and how often a supervisor restarts.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Delay before a restart, growing with consecutive failures.
    pub backoff: RetryPolicy,
    /// More failures than this …
    pub intensity: usize,
    /// … within this period are a meltdown.
    pub period: Duration,
    /// How long a parked child rests before it is tried again.
    pub park: Duration,
}

impl Default for Policy {
    /// Five failures a minute: a burst after an outage passes, a loop does not. A parked child is tried every five minutes.
    fn default() -> Self {
        Self {
            backoff: RetryPolicy::new(Duration::from_millis(200), Duration::from_secs(30), 2.0, 0.5)
                .expect("invariant: the constants are a valid policy"),
            intensity: 5,
            period: Duration::from_secs(60),
            park: Duration::from_secs(300),
        }
    }
}

/// What an actor is given by its supervisor, anew for every incarnation.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where it stands in the tree, e.g. `root/sources/pmp/limiter`.
    pub path: Arc<str>,
    /// Its sign of life.
    pub life: Arc<Life>,
    /// How long a step may take that announces nothing else.
    pub step_budget: Duration,
    /// Cancelled when an ordered stop begins: end bounded waits, finish what is in hand.
    pub stopping: CancellationToken,
}

impl Context {
    /// What a new incarnation is given.
    #[must_use]
    pub fn new(path: &str, clock: Clock, step_budget: Duration, stopping: CancellationToken) -> Self {
        Self { path: path.into(), life: Arc::new(Life::new(clock)), step_budget, stopping }
    }

    /// The actor's fail points: `start` and `step`.
    ///
    /// # Errors
    /// A [`Bug`], if the point was told so.
    pub(crate) async fn reach(&self, moment: &str) -> Result<(), Bug> {
        Ok(failpoint::reach_actor(&self.path, moment).await?)
    }
}

/// A step without a budget of its own may take this long: longer than any single bounded wait.
pub const STEP_BUDGET: Duration = Duration::from_secs(120);
/// A task that waits is woken every second; one that is not polled for this long has blocked its thread, whatever it announced.
/// Longer than any pure code of ours works on the largest answer.
const PULSE_BUDGET: Duration = Duration::from_secs(5);

/// Sign of life: an actor says how long it may be silent before every bounded wait. Waiting before its deadline is alive, as long
/// as its pulse beats: a blocked thread announces nothing, and is found sooner than any wait may last.
#[derive(Debug)]
pub struct Life {
    clock: Clock,
    silent_until_ms: AtomicU64,
    pulse_until_ms: AtomicU64,
}

impl Life {
    /// Alive for a minute, which is the budget of a start.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let life = Self { clock, silent_until_ms: AtomicU64::new(0), pulse_until_ms: AtomicU64::new(u64::MAX) };
        life.allow(Duration::from_secs(60));
        life
    }

    /// From now on the actor may be silent for `span`.
    pub fn allow(&self, span: Duration) {
        let until = self.clock.monotonic().saturating_add(span);
        self.silent_until_ms.store(millis(until), Ordering::Relaxed);
    }

    /// The actor's task is at work and not blocked; to be repeated every second.
    pub fn beat(&self) {
        let until = self.clock.monotonic().saturating_add(PULSE_BUDGET);
        self.pulse_until_ms.store(millis(until), Ordering::Relaxed);
    }

    /// The actor's task has nothing to do, so nobody expects a pulse.
    pub fn rest(&self) {
        self.pulse_until_ms.store(u64::MAX, Ordering::Relaxed);
    }

    /// How long the actor has been silent beyond what it announced; zero while it is alive.
    #[must_use]
    pub fn overdue(&self) -> Duration {
        let (silent, pulse) = (self.silent_until_ms.load(Ordering::Relaxed), self.pulse_until_ms.load(Ordering::Relaxed));
        self.clock.monotonic().saturating_sub(Duration::from_millis(silent.min(pulse)))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// How an actor stands, for `/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// `running`, `restarting`, `parked` or `stopped`.
    pub state: &'static str,
    /// Restarts since the process began.
    pub restarts: u64,
    /// Why it failed last.
    pub last_failure: Option<String>,
    /// Until when it waits before the next start, in milliseconds from now, while restarting or parked.
    pub next_start_ms: Option<u64>,
}

/// What is known of every actor of the tree, by its path (`root/sources/pmp/limiter`).
#[derive(Clone, Debug, Default)]
pub struct Roster {
    standings: Arc<Mutex<BTreeMap<String, Standing>>>,
    unkillable: Arc<AtomicUsize>,
}

impl Roster {
    /// All standings.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<String, Standing> {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many killed actors have not ended in time: their threads are blocked, which nothing but a new process mends.
    #[must_use]
    pub fn unkillable(&self) -> usize {
        self.unkillable.load(Ordering::Relaxed)
    }

    fn set(&self, path: &str, standing: Standing) {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), standing);
    }

    /// What is known of an actor from before its supervisor began.
    fn get(&self, path: &str) -> Option<Standing> {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    /// Who stood below a supervisor that ended runs no longer.
    fn ended_below(&self, path: &str) {
        let below = format!("{path}/");
        let mut standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, standing) in standings.range_mut(below.clone()..).take_while(|(path, _)| path.starts_with(&below)) {
            standing.state = "stopped";
            standing.next_start_ms = None;
        }
    }

    fn count_unkillable(&self, change: isize) {
        let add = |n: usize| Some(n.saturating_add_signed(change));
        // The closure always answers, so there is no failure to look at.
        let _ = self.unkillable.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

#[cfg(test)]
mod tests;
