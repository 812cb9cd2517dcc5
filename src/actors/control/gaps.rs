//! `gaps`: the periods in which deliveries may have been lost, and those that an operator adds to them.

use serde_json::{Value, json};

use super::{owned, text, unavailable};
use crate::actors::source::Source;
use crate::actors::status::Desk;
use crate::clock::Timestamp;
use crate::connectors::ResourceSpec;
use crate::http::admin::ControlError;
use crate::reconcile::{self, PassKind};
use crate::report::GapOpened;
use crate::store::{Gap, OPERATOR, OPERATOR_SWEEP};

/// The newest gaps that `--all` shows of a source.
const GAPS_MAX: u64 = 1_000;

impl Desk {
    pub(super) async fn gaps(&self, source: &Source, request: &Value) -> Result<Value, ControlError> {
        match text(request, "action") {
            "list" => self.list_gaps(source, request.get("all") == Some(&Value::Bool(true))).await,
            "open" => self.open_gap(source, request).await,
            other => Err(ControlError::Invalid(format!("there is no action `{other}`: list or open"))),
        }
    }

    async fn list_gaps(&self, source: &Source, all: bool) -> Result<Value, ControlError> {
        let store = &self.store;
        let gaps = if all { store.newest_gaps(&source.name, GAPS_MAX).await } else { store.open_gaps(&source.name).await };
        let mut rows = Vec::new();
        for gap in gaps.map_err(unavailable)? {
            let mut waits_for = Vec::new();
            for spec in source.connector.resources().iter().filter(|_| gap.state == "open") {
                if self.is_owed(source, spec, &gap).await.map_err(unavailable)? {
                    waits_for.push(spec.name.to_string());
                }
            }
            rows.push(json!({
                "id": gap.id,
                "cause": gap.cause,
                "began_at": Timestamp(gap.began_at).to_string(),
                "ended_at": gap.ended_at.map(|at| Timestamp(at).to_string()),
                "opened_at": gap.opened_at.map(|at| Timestamp(at).to_string()),
                "state": gap.state,
                "pass": gap.pass_id,
                "waits_for": waits_for,
            }));
        }
        Ok(json!({ "source": source.name.as_str(), "gaps": rows }))
    }

    /// Whether a resource still owes the pass that repairs a gap.
    async fn is_owed(&self, source: &Source, spec: &ResourceSpec, gap: &Gap) -> Result<bool, crate::store::Error> {
        let progress = self.store.progress(&source.name, &spec.name).await?;
        let by_sweep = gap.wants_sweep() || reconcile::repairing(&source.schedule(spec)) == PassKind::Sweep;
        let repaired_at = if by_sweep { progress.sweep_at } else { progress.sweep_at.max(progress.incremental_at) };
        Ok(gap.repairable_from().is_none_or(|from| repaired_at.is_none_or(|at| at <= from)))
    }

    async fn open_gap(&self, source: &Source, request: &Value) -> Result<Value, ControlError> {
        let (fence, now) = (owned(source)?, self.clock.now());
        let instant = |name: &str| match text(request, name) {
            "" => Ok(None),
            given => Timestamp::parse(given).map(Some).ok_or_else(|| ControlError::Invalid(format!("{name} is an instant in RFC 3339"))),
        };
        let ended_at = instant("to")?.unwrap_or(now);
        let began_at = instant("from")?.unwrap_or(ended_at);
        if began_at > ended_at || ended_at > now {
            return Err(ControlError::Invalid("a gap ends after it began, and not ahead of now".into()));
        }
        let sweep = request.get("sweep") == Some(&Value::Bool(true));
        self.store.open_gap(&fence, began_at, ended_at, sweep).await.map_err(unavailable)?;
        let cause = if sweep { OPERATOR_SWEEP } else { OPERATOR };
        source.reporter.emit(GapOpened { source: source.name.to_string(), cause: cause.to_owned() });
        source.reconciler.wake();
        Ok(json!({ "source": source.name.as_str(), "cause": cause, "began_at": began_at.to_string(), "ended_at": ended_at.to_string() }))
    }
}
