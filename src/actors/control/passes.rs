//! `reconcile`: passes now instead of at their time, and how they go.

use serde_json::{Value, json};

use super::{owned, text, unavailable};
use crate::actors::source::Source;
use crate::actors::status::Desk;
use crate::clock::Timestamp;
use crate::connectors::ResourceSpec;
use crate::http::admin::ControlError;
use crate::reconcile;
use crate::store::{self, PassKind, PassNews};

impl Desk {
    pub(super) async fn reconcile(&self, source: &Source, request: &Value) -> Result<Value, ControlError> {
        match text(request, "action") {
            "ask" => self.ask_passes(source, request).await,
            "progress" => self.pass_progress(source, request).await,
            "plan" => self.plan(source, request).await,
            "held" => self.held(source).await,
            "approve" => self.approve(source, request).await,
            "fates" => self.fates(source, request).await,
            "reject" => self.reject(source, request).await,
            other => {
                Err(ControlError::Invalid(format!("there is no action `{other}`: ask, progress, plan, held, approve, fates or reject")))
            }
        }
    }

    async fn ask_passes(&self, source: &Source, request: &Value) -> Result<Value, ControlError> {
        let (fence, specs) = (owned(source)?, chosen(source, request)?);
        let kind = wanted(request);
        let names: Vec<_> = specs.iter().map(|spec| spec.name.clone()).collect();
        let asked_at = self.store.ask_passes(&fence, &names, kind).await.map_err(unavailable)?;
        source.reconciler.wake();
        let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        Ok(json!({ "source": source.name.as_str(), "asked_at": asked_at.to_string(), "kind": kind.as_str(), "resources": names }))
    }

    /// How the passes go that were asked for at an instant.
    async fn pass_progress(&self, source: &Source, request: &Value) -> Result<Value, ControlError> {
        let asked_at = Timestamp::parse(text(request, "asked_at"));
        let asked_at = asked_at.ok_or_else(|| ControlError::Invalid("asked_at is an instant in RFC 3339".into()))?;
        let mut resources = Vec::new();
        for spec in chosen(source, request)? {
            resources.push(self.progress_of(source, spec, wanted(request), asked_at).await.map_err(unavailable)?);
        }
        Ok(json!({ "source": source.name.as_str(), "resources": resources }))
    }

    async fn progress_of(&self, source: &Source, spec: &ResourceSpec, kind: PassKind, asked_at: Timestamp) -> Result<Value, store::Error> {
        let rows = self.store.live_rows(&source.name, &spec.name).await?;
        let passes = self.store.passes_since(&source.name, &spec.name, asked_at).await?;
        let fulfils = |pass: &&PassNews| {
            let is_wanted = kind == PassKind::Incremental || pass.kind == PassKind::Sweep.as_str();
            is_wanted && pass.started_at >= asked_at
        };
        // What has ended since tells most; else what runs, which may have begun before it was asked for.
        let ended = passes.iter().filter(fulfils).find(|pass| pass.state != "running");
        let news = ended.or_else(|| passes.iter().find(|pass| pass.state == "running"));
        let ails = source.ailing.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(spec.name.as_str()).cloned();
        let sweeps = |pass: &&PassNews| pass.state == "running" && pass.kind == PassKind::Sweep.as_str();
        let left = news.filter(sweeps).and_then(|pass| reconcile::left(pass.records, rows, self.clock.now().since(pass.started_at)));
        Ok(json!({
            "resource": spec.name.as_str(),
            "state": news.map_or("waiting", |pass| pass.state.as_str()),
            "kind": news.map(|pass| pass.kind.as_str()),
            "began_before": news.is_some_and(|pass| pass.started_at < asked_at),
            "records": news.map(|pass| pass.records),
            "pages": news.map(|pass| pass.pages),
            "live_rows": rows,
            "left_s": left.map(|left| left.as_secs()),
            "note": news.and_then(|pass| pass.note.clone()),
            "ails": ails,
        }))
    }
}

/// The resources of the request: the one that it names, or all.
pub(super) fn chosen<'a>(source: &'a Source, request: &Value) -> Result<Vec<&'a ResourceSpec>, ControlError> {
    let specs = source.connector.resources();
    match text(request, "resource") {
        "" => Ok(specs.iter().collect()),
        name => match specs.iter().find(|spec| spec.name.as_str() == name) {
            Some(spec) => Ok(vec![spec]),
            None => Err(ControlError::Invalid(format!("{} has no resource `{name}`", source.name))),
        },
    }
}

/// The one resource of the request.
pub(super) fn named<'a>(source: &'a Source, request: &Value) -> Result<&'a ResourceSpec, ControlError> {
    match chosen(source, request)?.as_slice() {
        [spec] if !text(request, "resource").is_empty() => Ok(spec),
        _ => Err(ControlError::Invalid("name a resource".into())),
    }
}

fn wanted(request: &Value) -> PassKind {
    if request.get("sweep") == Some(&Value::Bool(true)) { PassKind::Sweep } else { PassKind::Incremental }
}
