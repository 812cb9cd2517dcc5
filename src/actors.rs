//! The tree as data, and one file an actor. `actors.md` documents every card; a test holds it against [`Plan::tree`].
//!
//! ```text
//! root                      one-for-one; journal, listener and sources escalate, the others are parked
//! ├─ journal                group-commit writer of deliveries
//! ├─ admin                  health, metrics, status, control
//! ├─ sources                one child per configured source
//! │   └─ source:<name>      one-for-one; everything is parked alone, the limiter takes the source with it
//! │       ├─ limiter        grants permits
//! │       ├─ owner          holds the source's row
//! │       ├─ sync:<resource> one per resource: drains marks, fetches, applies reads
//! │       ├─ intake         the only consumer of deliveries
//! │       ├─ reconciler     event feeds, passes, watermarks, gaps
//! │       └─ keeper         webhook registrations upstream
//! ├─ janitor                retention, checkpoint
//! ├─ api                    rows by their keys, for applications; only where it is configured
//! ├─ listener               the public edge: hooks only; last, so that nothing is taken before it can be kept
//! └─ watchdog               signs of life
//! ```
//!
//! Architecture invariants: an actor owns no state that is not in rows, but for what a restart may forget; no payload is put into
//! a mailbox; nobody but the supervisors starts actors.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Anchors, Clock};
use crate::config::Config;
use crate::daemon::Sockets;
use crate::http::{admin as admin_routes, api as api_routes, edge, hooks};
use crate::report::Reporter;
use crate::store::RetentionOptions;
use crate::supervision::{ChildSpec, Life, Meltdown, Policy, Roster, Tree, supervisor};

pub mod answers;
pub mod api;
pub mod ask;
pub mod control;
mod delays;
mod demands;
pub mod door;
pub mod history;
pub mod home;
pub mod intake;
mod invitations;
pub mod janitor;
pub mod journal;
pub mod keeper;
pub mod limiter;
pub mod listener;
mod meter;
pub mod owner;
pub mod probe;
mod pushes;
pub mod reconciler;
mod refresh;
mod session;
pub mod source;
pub mod status;
pub mod sync;
#[cfg(test)]
pub(crate) mod testing;
mod verify;
pub mod watchdog;

pub use source::Source;

/// Why the tree cannot be laid out.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A token that the configuration names cannot be read, or is none.
    #[error("{0}")]
    Token(String),
    /// The state directory's own token can neither be made nor read.
    #[error("{0}")]
    State(String),
}

/// Everything the tree is made of.
#[derive(Clone)]
pub struct Plan {
    clock: Clock,
    anchors: Option<Anchors>,
    reporter: Reporter,
    roster: Roster,
    sources: Vec<Arc<Source>>,
    journal: journal::Options,
    janitor: janitor::Options,
    hooks: listener::Options,
    admin: listener::Options,
    api: Option<listener::Options>,
    critical: watchdog::Critical,
    owner: String,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("sources", &self.sources.len()).finish_non_exhaustive()
    }
}

impl Plan {
    /// Lays out the tree.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn new(config: &Config, sockets: Sockets, process: source::Process, sources: Vec<Arc<Source>>) -> Result<Self, PlanError> {
        let source::Process { store, health, clock, reporter, state, .. } = process;
        let (roster, critical) = (Roster::default(), watchdog::Critical::default());
        let (queue, answers) = (journal::Journal::new(health), answers::Answers::new(clock));
        let door = door::Doors::new(&sources, &queue, &answers, &reporter);
        let gate = hooks::Hooks::new(Arc::new(door), hook_options(config), clock);
        let overlong = janitor::Overlong::default();
        let desk = Arc::new(status::Desk {
            clock,
            store: store.clone(),
            sources: sources.clone(),
            journal: queue.clone(),
            roster: roster.clone(),
            critical: critical.clone(),
            overlong: overlong.clone(),
        });
        let admin_options = status::admin_options(config, &state)?;
        let routes = admin_routes::routes(admin_options, reporter.clone(), Arc::clone(&desk) as _, desk as _);
        let api = config.listen.api.as_ref().zip(sockets.api);
        let api = api.map(|(configured, socket)| api_options(config, configured, socket, &sources)).transpose()?;
        let retention = retention(config, &sources);
        let anchored_at = state.join("clock");
        Ok(Self {
            anchors: Anchors::load(&anchored_at).or_else(|| clock.anchor().map(Anchors::at)),
            clock,
            roster,
            critical,
            owner: format!("pid {}", std::process::id()),
            journal: journal::Options {
                store: store.clone(),
                journal: queue,
                answers,
                reporter: reporter.clone(),
                clock,
                disk_floor: config.retention.disk_floor.0,
            },
            janitor: janitor::Options {
                store,
                sources: sources.clone(),
                retention,
                reader_max: config.store.reader_max,
                overlong,
                clock,
                anchors: anchored_at,
                reached: home::reached_file(&state),
                reporter: reporter.clone(),
            },
            hooks: listener::Options {
                id: "listener",
                socket: Arc::new(sockets.hooks),
                routes: gate.routes(),
                hooks: Some(gate),
                edge: edge_options(config),
                meltdown: Meltdown::Escalate,
            },
            admin: listener::Options {
                id: "admin",
                socket: Arc::new(sockets.admin),
                routes,
                hooks: None,
                edge: edge::Options { connections_max: ADMIN_CONNECTIONS, drain_deadline: Duration::from_secs(1), ..edge_options(config) },
                meltdown: Meltdown::Park,
            },
            api,
            reporter,
            sources,
        })
    }

    /// The watchdog feeds nobody while the root is silent.
    pub fn watch_root(&self, life: &Arc<Life>) {
        self.critical.watch_life("root", life);
    }

    /// The tree as data: children in their order of start.
    #[must_use]
    pub fn tree(&self) -> Tree {
        let sources = self.sources.iter().map(|source| self.source(source)).collect();
        let mut children = vec![
            self.critical.watch(journal::spec(self.journal.clone())),
            listener::spec(self.admin.clone()),
            supervisor("sources", Meltdown::Escalate, self.subtree("root/sources", sources)),
            janitor::spec(self.janitor.clone()),
        ];
        children.extend(self.api.clone().map(listener::spec));
        children.push(self.critical.watch(listener::spec(self.hooks.clone())));
        children.push(watchdog::spec(self.critical.clone(), self.roster.clone()));
        self.subtree("root", children)
    }

    fn source(&self, source: &Arc<Source>) -> ChildSpec {
        let limiter = limiter::Options {
            source: source.name.to_string(),
            scope: source.scope.clone(),
            limits: source.limits.clone(),
            store: source.store.clone(),
            clock: self.clock,
            breaker: source.settings.breaker,
            anchors: self.anchors.clone(),
            reporter: self.reporter.clone(),
        };
        let mut children = Vec::new();
        if source.owns_limiter {
            children.push(limiter::spec(limiter, source.limiter.clone()));
        }
        children.push(owner::spec(Arc::clone(source), self.owner.clone()));
        let resources = source.connector.resources().iter();
        children.extend(resources.map(|spec| sync::spec(Arc::clone(source), spec.name.clone())));
        children.push(intake::spec(Arc::clone(source)));
        children.push(reconciler::spec(Arc::clone(source)));
        children.push(keeper::spec(Arc::clone(source)));
        let id = format!("source:{}", source.name);
        let tree = self.subtree(&format!("root/sources/{id}"), children);
        supervisor(id, Meltdown::Park, tree)
    }

    fn subtree(&self, path: &str, children: Vec<ChildSpec>) -> Tree {
        Tree {
            path: path.to_owned(),
            children,
            policy: Policy::default(),
            roster: self.roster.clone(),
            reporter: self.reporter.clone(),
            clock: self.clock,
        }
    }
}

/// The admin socket serves a few probes and people.
const ADMIN_CONNECTIONS: usize = 64;
/// Connections of applications; each may wait for a row, which is all that it costs.
const API_CONNECTIONS: usize = 512;

fn api_options(
    config: &Config,
    configured: &crate::config::Api,
    socket: std::net::TcpListener,
    sources: &[Arc<Source>],
) -> Result<listener::Options, PlanError> {
    let counter = api::Counter { sources: sources.to_vec(), timeout: configured.timeout };
    Ok(listener::Options {
        id: "api",
        socket: Arc::new(socket),
        routes: api_routes::routes(api::clients(configured)?, Arc::new(counter)),
        hooks: None,
        edge: edge::Options { connections_max: API_CONNECTIONS, drain_deadline: Duration::from_secs(1), ..edge_options(config) },
        meltdown: Meltdown::Park,
    })
}

fn edge_options(config: &Config) -> edge::Options {
    let limits = &config.limits;
    edge::Options {
        header_timeout: limits.header_timeout,
        header_bytes_max: limits.header_bytes.0 as usize,
        connections_max: limits.connections as usize,
        drain_deadline: limits.drain,
        ..edge::Options::default()
    }
}

fn hook_options(config: &Config) -> hooks::Options {
    let limits = &config.limits;
    hooks::Options {
        body_deadline: limits.body_timeout,
        body_budget_bytes: limits.bodies_in_flight.0 as usize,
        ..hooks::Options::default()
    }
}

fn retention(config: &Config, sources: &[Arc<Source>]) -> RetentionOptions {
    let kept = &config.retention;
    let keep_deleted = sources.iter().flat_map(|source| {
        let resources = source.connector.resources().iter();
        resources.map(|spec| (source.name.to_string(), spec.name.to_string(), spec.keep_deleted))
    });
    RetentionOptions {
        deliveries: kept.deliveries,
        deliveries_max: kept.deliveries_rows,
        changes: kept.changes,
        changes_max: kept.changes_rows,
        outcomes: kept.outcomes,
        outcomes_max: kept.outcomes_rows,
        tombstones: kept.tombstones,
        tombstones_max: kept.tombstones_rows,
        quarantine: kept.quarantine,
        quarantine_max: kept.quarantine_rows,
        history: kept.history,
        keep_deleted: keep_deleted.collect(),
        ..RetentionOptions::default()
    }
}
