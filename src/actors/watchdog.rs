//! `watchdog`: feeds systemd's watchdog while the critical actors live.
//!
//! The ping depends on journal and listener only: a source that hangs is its supervisor's affair. It is withheld when killed
//! actors did not end (their threads are blocked, which only a new process mends) more than a few times.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use crate::service;
use crate::supervision::{Bug, ChildSpec, Context, Life, Meltdown, Rest, Roster, Waker, Work, worker};

/// Blocked threads beyond which the process should be replaced.
const UNKILLABLE_MAX: usize = 3;
/// Without systemd the watchdog looks this often, for nobody.
const IDLE: Duration = Duration::from_secs(30);

/// Signs of life of the critical actors; each incarnation puts its own in.
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
            lives.retain(|(known, _)| *known != id);
            lives.push((id.clone(), Arc::clone(&cx.life)));
            start(supervisor, cx)
        });
        ChildSpec { start, ..spec }
    }

    /// Who has been silent for longer than announced.
    #[must_use]
    pub fn silent(&self) -> Vec<String> {
        let lives = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lives.iter().filter(|(_, life)| !life.overdue().is_zero()).map(|(id, _)| id.clone()).collect()
    }
}

/// The child spec.
pub fn spec(critical: Critical, roster: Roster) -> ChildSpec {
    worker("watchdog", Meltdown::Escalate, Duration::from_secs(1), Waker::default(), move || Watchdog {
        critical: critical.clone(),
        roster: roster.clone(),
    })
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
}
