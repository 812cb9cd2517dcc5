//! What the daemon says of itself, and the verbs of its control. Not an actor: it runs inside the admin socket's requests.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::journal::Journal;
use super::keeper::HooksError;
use super::source::{LiveMode, Source};
use super::watchdog::Critical;
use crate::clock::Clock;
use crate::config::Config;
use crate::http::BoxFuture;
use crate::http::admin::{Condition, Control, ControlError, Options, StatusSource, Token};
use crate::store::Store;
use crate::supervision::{Context, Life, Roster};

/// File in the state directory that holds the control token; only the daemon's user can read it.
pub const TOKEN_FILE: &str = "control-token";

/// Answers the admin socket.
#[derive(Debug)]
pub struct Desk {
    clock: Clock,
    store: Store,
    sources: Vec<Arc<Source>>,
    journal: Journal,
    roster: Roster,
    critical: Critical,
}

/// Who may ask what, and the token of the control verbs: made at the first start, kept beside the store.
///
/// # Errors
/// When a configured token cannot be read or the file cannot be written.
pub fn admin_options(config: &Config, state: &Path) -> Result<Options, String> {
    let configured = config.listen.admin.token.read().map_err(|error| error.to_string())?;
    let token_for_reads = !configured.is_empty();
    let token = match configured.first() {
        Some(text) => Token::from_text(text.expose()),
        None => Token::ensure(&state.join(TOKEN_FILE), rand::random()),
    };
    Ok(Options { token: Some(token.map_err(|error| error.to_string())?), token_for_reads, ..Options::default() })
}

impl Desk {
    /// A desk over everything that runs.
    #[must_use]
    pub fn new(clock: Clock, store: Store, sources: Vec<Arc<Source>>, journal: Journal, roster: Roster, critical: Critical) -> Self {
        Self { clock, store, sources, journal, roster, critical }
    }

    fn wrong(&self) -> Vec<String> {
        let mut wrong = self.ready().wrong;
        for (path, standing) in self.roster.snapshot() {
            if matches!(standing.state, "parked" | "restarting") {
                let why = standing.last_failure.unwrap_or_default();
                wrong.push(format!("{path} is {}: {why}", standing.state));
            }
        }
        for source in &self.sources {
            if source.view_lost.load(Ordering::Acquire) {
                wrong.push(format!("{}: the upstream no longer shows what must be there; nothing is removed", source.name));
            }
            if source.fence_now().is_none() {
                wrong.push(format!("{}: this process does not own the source yet", source.name));
            }
            if let LiveMode::Webhooks { unhealthy, .. } = source.live_mode() {
                wrong.extend(unhealthy.into_iter().map(|what| format!("{}: webhook {what}", source.name)));
            }
        }
        wrong
    }

    async fn source_status(&self, source: &Source) -> Value {
        let rows = match self.store.status(&source.name).await {
            Ok(status) => serde_json::to_value(status).unwrap_or(Value::Null),
            Err(error) => json!({ "error": error.to_string() }),
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
                "open_breakers": observed.open_breakers,
                "limits": limits,
            })
        });
        json!({
            "kind": "productive",
            "live": source.live_mode(),
            "owned": source.fence_now().map(|fence| fence.epoch()),
            "view_lost": source.view_lost.load(Ordering::Acquire),
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

impl Control for Desk {
    fn control(&self, verb: String, request: Value) -> BoxFuture<'_, Result<Value, ControlError>> {
        Box::pin(async move {
            match verb.as_str() {
                "hooks" => self.hooks(&request).await,
                _ => Err(ControlError::Unknown),
            }
        })
    }
}

impl Desk {
    async fn hooks(&self, request: &Value) -> Result<Value, ControlError> {
        let text = |name: &str| request.get(name).and_then(Value::as_str).unwrap_or_default();
        let source = self.sources.iter().find(|source| source.name.as_str() == text("source"));
        let source = source.ok_or_else(|| ControlError::Invalid(format!("there is no source `{}`", text("source"))))?;
        let fence = source.fence_now().ok_or_else(|| ControlError::Unavailable("the source has no owner yet".into()))?;
        let cx = Context { life: Arc::new(Life::new(self.clock)), stopping: CancellationToken::new() };
        let registered = match text("action") {
            "create" => source.create_hooks(&cx, &fence).await,
            "list" => source.list_hooks(&cx, &fence).await,
            "delete" => {
                let n = source.delete_hooks(&cx, &fence).await.map_err(refused)?;
                return Ok(json!({ "deleted": n }));
            }
            other => return Err(ControlError::Invalid(format!("there is no action `{other}`: create, list or delete"))),
        };
        let rows = registered
            .map_err(refused)?
            .into_iter()
            .map(|one| json!({ "id": one.id, "route": one.route, "state": one.state, "healthy": one.healthy }));
        Ok(json!({ "registrations": rows.collect::<Vec<_>>() }))
    }
}

fn refused(error: HooksError) -> ControlError {
    match error {
        HooksError::Configuration(_) | HooksError::Registration(_) => ControlError::Conflict(error.to_string()),
        HooksError::Ask(_) | HooksError::Store(_) => ControlError::Unavailable(error.to_string()),
    }
}
