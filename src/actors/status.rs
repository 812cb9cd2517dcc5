//! What the daemon says of itself. Not an actor: it runs inside the admin socket's requests.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::PlanError;
use super::janitor::Overlong;
use super::journal::{Journal, Room};
use super::source::{LiveMode, Source};
use super::watchdog::Critical;
use crate::clock::Clock;
use crate::config::Config;
use crate::http::BoxFuture;
use crate::http::admin::{Condition, Options, StatusSource, Token};
use crate::store::Store;
use crate::supervision::Roster;
use serde_json::{Value, json};

/// File in the state directory that holds the control token; only the daemon's user can read it.
pub const TOKEN_FILE: &str = "control-token";

/// For the rows of a source; without them the rest is told all the same.
const ROWS_DEADLINE: Duration = Duration::from_secs(2);

/// Longest request of a verb: `decode` carries a delivery's body.
const VERB_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Answers the admin socket.
#[derive(Debug)]
pub struct Desk {
    pub(super) clock: Clock,
    pub(super) store: Store,
    pub(super) sources: Vec<Arc<Source>>,
    pub(super) journal: Journal,
    pub(super) roster: Roster,
    pub(super) critical: Critical,
    pub(super) overlong: Overlong,
}

/// Who may ask what, and the tokens of the control verbs: one is made at the first start, kept beside the store,
/// where none is configured.
///
/// # Errors
/// When a configured token cannot be read or is none, or the file cannot be written.
pub fn admin_options(config: &Config, state: &Path) -> Result<Options, PlanError> {
    let wrong = |error: &dyn std::fmt::Display| PlanError::Token(format!("listen.admin.token: {error}"));
    let configured = config.listen.admin.token.read().map_err(|error| wrong(&error))?;
    let token_for_reads = !configured.is_empty();
    let mut tokens =
        configured.iter().map(|text| Token::from_text(text.expose()).map_err(|error| wrong(&error))).collect::<Result<Vec<_>, _>>()?;
    if tokens.is_empty() {
        let made = Token::ensure(&state.join(TOKEN_FILE), rand::random());
        tokens.push(made.map_err(|error| PlanError::State(format!("the control token in {}: {error}", state.display())))?);
    }
    Ok(Options { tokens, token_for_reads, body_bytes_max: VERB_BYTES_MAX, ..Options::default() })
}

impl Desk {
    fn wrong(&self) -> Vec<String> {
        let suspended = |source: &Arc<Source>| Some(format!("{}: managing webhooks is suspended: {}", source.name, source.suspended()?));
        let mut wrong: Vec<String> = self.sources.iter().filter_map(suspended).collect();
        wrong.extend(self.ready().wrong);
        if self.journal.health().room() == Room::Low {
            wrong.push("the disk is nearly at disk_floor: passes rest".to_owned());
        }
        if let Some(seconds) = self.overlong.seconds() {
            let wal = self.store.wal_bytes();
            wrong.push(format!("a reader of the database has kept a transaction open for {seconds} s (wal: {wal} bytes): end it"));
        }
        for (path, standing) in self.roster.snapshot() {
            if matches!(standing.state, "parked" | "restarting") {
                let why = standing.last_failure.unwrap_or_default();
                wrong.push(format!("{path} is {}: {why}", standing.state));
            }
        }
        for source in &self.sources {
            if source.view_lost() {
                wrong.push(format!("{}: the upstream no longer shows what must be there; nothing is removed", source.name));
            }
            let ailing = source.ailing.lock().unwrap_or_else(PoisonError::into_inner).clone();
            wrong.extend(ailing.into_iter().map(|(name, why)| format!("{}: {name} cannot be read: {why}", source.name)));
            if source.fence_now().is_none() {
                wrong.push(format!("{}: this process does not own the source yet", source.name));
            }
            wrong.extend(source.probe.standing().wrong().map(|what| format!("{}: {what}", source.name)));
            if let LiveMode::Webhooks { unhealthy, .. } = source.live_mode() {
                wrong.extend(unhealthy.into_iter().map(|what| format!("{}: webhook {what}", source.name)));
            }
        }
        wrong
    }

    async fn source_status(&self, source: &Source) -> Value {
        let rows = match tokio::time::timeout(ROWS_DEADLINE, self.store.status(&source.name)).await {
            Ok(Ok(status)) => serde_json::to_value(status).unwrap_or(Value::Null),
            Ok(Err(error)) => json!({ "error": error.to_string() }),
            Err(_elapsed) => json!({ "error": "the store does not answer" }),
        };
        let now = self.clock.monotonic();
        let limiter = source.limiter.observe().await.map(|observed| {
            let limits = observed.snapshot.limits.iter();
            let limits: Vec<_> = limits.map(|l| json!({ "id": l.id, "usable": l.usable, "spent": l.spent, "burst": l.burst })).collect();
            json!({
                "waiting": observed.n_waiting,
                "in_flight": observed.snapshot.in_flight,
                "lost": observed.snapshot.lost,
                "refusals": observed.snapshot.refusals,
                "paused_s": observed.snapshot.paused_until.map(|until| until.saturating_sub(now).as_secs_f64()),
                "paused_endpoints": observed.snapshot.paused_endpoints,
                "open_breakers": observed.breakers.iter().filter(|(_, open)| *open).map(|(name, _)| name).collect::<Vec<_>>(),
                "limits": limits,
            })
        });
        json!({
            "kind": source.connector.kind(),
            "live": source.live_mode(),
            "suspended": source.suspended(),
            "public_url": source.probe.standing(),
            "owned": source.fence_now().map(|fence| fence.epoch()),
            "view_lost": source.view_lost(),
            "limiter": limiter,
            "rows": rows,
        })
    }
}

impl StatusSource for Desk {
    fn ready(&self) -> Condition {
        let mut wrong = Vec::new();
        if self.journal.health().is_lost() {
            wrong.push("the store cannot commit".to_owned());
        }
        if self.journal.health().room() == Room::None {
            wrong.push("the disk is below disk_floor".to_owned());
        }
        wrong.extend(self.critical.silent().into_iter().map(|id| format!("{id} gives no sign of life")));
        Condition { wrong }
    }

    fn health(&self) -> Condition {
        Condition { wrong: self.wrong() }
    }

    fn status(&self) -> BoxFuture<'_, Value> {
        Box::pin(async move {
            let mut sources = serde_json::Map::new();
            for source in &self.sources {
                sources.insert(source.name.to_string(), self.source_status(source).await);
            }
            json!({
                "wrong": self.wrong(),
                "version": env!("CARGO_PKG_VERSION"),
                "pid": std::process::id(),
                "uptime_s": self.clock.monotonic().as_secs(),
                "sources": sources,
                "actors": self.roster.snapshot(),
                "unkillable_actors": self.roster.unkillable(),
            })
        })
    }
}
