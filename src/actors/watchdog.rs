//! `watchdog`: feeds systemd's watchdog while the critical actors live.
//!
//! The ping depends on root, journal and listener only: a source that hangs is its supervisor's affair. A killed incarnation of
//! theirs that does not end counts as silent for as long as it lasts: its thread is blocked, and may hold what its successor needs.
//! Of others one thread may be blocked; more would leave the runtime none.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use crate::service;
use crate::supervision::{Bug, ChildSpec, Context, Life, Meltdown, Rest, Roster, Waker, Work, worker};

/// Blocked threads beyond which the process should be replaced: the runtime has two.
const UNKILLABLE_MAX: usize = 1;
/// A ping is a datagram to a local socket.
const STEP_BUDGET: Duration = Duration::from_secs(2);
/// Without systemd the watchdog looks this often, for nobody.
const IDLE: Duration = Duration::from_secs(30);

/// Signs of life of the critical actors; each incarnation puts its own in, and those of earlier ones stay while they last.
#[derive(Clone, Debug, Default)]
pub struct Critical(Arc<Mutex<Lives>>);

/// By the actor's id.
type Lives = Vec<(String, Arc<Life>)>;

impl Critical {
    /// The same spec, with every incarnation's sign of life kept here.
    #[must_use]
    pub fn watch(&self, spec: ChildSpec) -> ChildSpec {
        let (list, start, id) = (Arc::clone(&self.0), Arc::clone(&spec.start), spec.id.clone());
        let start: crate::supervision::Start = Arc::new(move |supervisor, cx| {
            let mut lives = list.lock().unwrap_or_else(PoisonError::into_inner);
            put(&mut lives, &id, &cx.life);
            start(supervisor, cx)
        });
        ChildSpec { start, ..spec }
    }

    /// Keeps the sign of life of an actor that has no spec: the root.
    pub fn watch_life(&self, id: &str, life: &Arc<Life>) {
        put(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), id, life);
    }

    /// Who has been silent for longer than announced.
    #[must_use]
    pub fn silent(&self) -> Vec<String> {
        let lives = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_newest = |at: usize, id: &String| lives[at + 1..].iter().all(|(later, _)| later != id);
        let silent = lives.iter().enumerate().filter(|(at, (id, life))| {
            let is_there = is_newest(*at, id) || Arc::strong_count(life) > 1;
            is_there && !life.overdue().is_zero()
        });
        silent.map(|(_, (id, _))| id.clone()).collect()
    }
}

fn put(lives: &mut Lives, id: &str, life: &Arc<Life>) {
    // An incarnation that has ended has dropped its sign of life; here is then the only one left.
    lives.retain(|(known, life)| known != id || Arc::strong_count(life) > 1);
    lives.push((id.to_owned(), Arc::clone(life)));
}

/// The child spec.
pub fn spec(critical: Critical, roster: Roster) -> ChildSpec {
    worker("watchdog", Meltdown::Escalate, Duration::from_secs(1), Waker::default(), move || Watchdog {
        critical: critical.clone(),
        roster: roster.clone(),
    })
    .with_step_budget(STEP_BUDGET)
}

struct Watchdog {
    critical: Critical,
    roster: Roster,
}

impl Work for Watchdog {
    async fn step(&mut self, _: &Context) -> Result<Rest, Bug> {
        if self.critical.silent().is_empty() && self.roster.unkillable() <= UNKILLABLE_MAX {
            service::watchdog();
        }
        Ok(Rest::For(service::watchdog_interval().unwrap_or(IDLE)))
    }

    /// Nobody pings from now on, also where a meltdown stops everything: systemd gives a stop its own time.
    async fn finish(&mut self, _: &Context) {
        service::stopping("stopping");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn an_earlier_incarnation_counts_for_as_long_as_it_lasts() {
        let critical = Critical::default();
        let (blocked, next) = (Arc::new(Life::new(Clock::system())), Arc::new(Life::new(Clock::system())));
        critical.watch_life("journal", &blocked);
        blocked.allow(Duration::ZERO);
        while blocked.overdue().is_zero() {
            std::thread::yield_now();
        }
        assert_eq!(critical.silent(), ["journal"]);
        critical.watch_life("journal", &next);
        assert_eq!(critical.silent(), ["journal"], "its thread is blocked");
        drop(blocked);
        assert!(critical.silent().is_empty(), "it has ended");
    }
}
