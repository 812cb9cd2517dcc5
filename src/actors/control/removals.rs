//! `reconcile held`, `approve`, `reject` and `undelete`: what an operator decides about removals. A read is the truth here too: nothing
//! is removed that a read shows, and nothing comes back that none does.

use std::sync::PoisonError;

use serde_json::{Value, json};

use super::passes::named;
use super::{owned, text, unavailable};
use crate::actors::ask::AskError;
use crate::actors::source::Source;
use crate::actors::status::Desk;
use crate::actors::sync::observed;
use crate::connectors::ReadError;
use crate::http::admin::ControlError;
use crate::model::ordering::By;
use crate::model::{Entity, Key};
use crate::quota::Class;
use crate::store::LearnedBy;

/// Removals of which about so many are approved by one request, so that its answer names them all.
const APPROVED_AT_ONCE: usize = 1_000;

fn texts(keys: &[Key]) -> Vec<&str> {
    keys.iter().map(Key::as_str).collect()
}

impl Desk {
    /// What is not removed although it was not found, and why.
    pub(super) async fn held(&self, source: &Source) -> Result<Value, ControlError> {
        let mut rows = Vec::new();
        for held in self.store.held(&source.name).await.map_err(unavailable)? {
            let budget = source.removal_budget(&held.resource).await.map_err(unavailable)?;
            rows.push(json!({
                "resource": held.resource.as_str(),
                "why": held.why,
                "by_budget": held.by_budget,
                "keys": held.keys,
                "sample": texts(&held.sample),
                "missing_since": held.missing_since.map(|at| at.to_string()),
                "looked_at_again": held.next.to_string(),
                "live_rows": budget.live_rows,
                "removed_in_24h": budget.removed_in_24h,
                "budget_left": budget.left(),
            }));
        }
        Ok(json!({ "source": source.name.as_str(), "held": rows }))
    }

    pub(super) async fn approve(&self, source: &Source, request: &Value) -> Result<Value, ControlError> {
        let (fence, spec) = (owned(source)?, named(source, request)?);
        let approved = self.store.approve_removals(&fence, &spec.name, APPROVED_AT_ONCE).await.map_err(unavailable)?;
        source.wake([&spec.name]);
        let more = approved.len() >= APPROVED_AT_ONCE;
        Ok(json!({ "source": source.name.as_str(), "resource": spec.name.as_str(), "keys": texts(&approved), "more": more }))
    }

    /// What has become of keys whose removal was approved.
    pub(super) async fn fates(&self, source: &Source, request: &Value) -> Result<Value, ControlError> {
        let spec = named(source, request)?;
        let keys = request.get("keys").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let keys: Option<Vec<Key>> = keys.iter().map(|key| Key::new(key.as_str()?).ok()).collect();
        let keys = keys.ok_or_else(|| ControlError::Invalid("keys is a list of keys".into()))?;
        let fates = self.store.fates(&source.name, &spec.name, &keys).await.map_err(unavailable)?;
        let ails = source.ailing.lock().unwrap_or_else(PoisonError::into_inner).get(spec.name.as_str()).cloned();
        let why = fates.why.or(ails).filter(|_| !fates.waiting.is_empty());
        Ok(json!({
            "source": source.name.as_str(),
            "resource": spec.name.as_str(),
            "removed": texts(&fates.removed),
            "kept": texts(&fates.kept),
            "waiting": texts(&fates.waiting),
            "why": why,
        }))
    }

    pub(super) async fn reject(&self, source: &Source, request: &Value) -> Result<Value, ControlError> {
        let (fence, spec) = (owned(source)?, named(source, request)?);
        let rejected = self.store.reject_removals(&fence, &spec.name).await.map_err(unavailable)?;
        Ok(json!({ "source": source.name.as_str(), "resource": spec.name.as_str(), "rejected": rejected }))
    }

    /// Reads a removed record once more, and takes it back if it is shown.
    pub(super) async fn undelete(&self, source: &Source, request: &Value) -> Result<Value, ControlError> {
        let (fence, spec, cx) = (owned(source)?, named(source, request)?, self.context());
        let key = Key::new(text(request, "key")).map_err(|error| ControlError::Invalid(format!("no key: {error}")))?;
        let entity = Entity { resource: spec.name.clone(), key };
        let is_deleted = async || Ok(self.store.entity(&source.name, &entity).await.map_err(unavailable)?.row.map(|row| row.deleted));
        match is_deleted().await? {
            Some(true) => {}
            Some(false) => return Err(ControlError::Conflict(format!("{} {} is live", spec.name, entity.key.as_str()))),
            None => {
                let why = format!("there is no tombstone of {} {}: a sweep brings what the upstream lists", spec.name, entity.key.as_str());
                return Err(ControlError::Conflict(why));
            }
        }
        let _reading = source.reading(&spec.name);
        let outcome = match source.ask_key(&cx, &fence, Class::Refresh, spec, &entity.key).await {
            Ok((page, started)) => {
                let is_readable = page.records.iter().all(Result::is_ok);
                let seen = observed(&spec.name, By::Key, page, started);
                source.apply(&fence, LearnedBy::Refresh, seen).await.map_err(unavailable)?;
                match is_deleted().await? {
                    Some(false) => "revived",
                    _ if is_readable => "out of scope",
                    _ => "unreadable",
                }
            }
            Err((AskError::Read(ReadError::NotFound), _)) => "not found",
            Err((error, _)) => return Err(ControlError::Unavailable(error.to_string())),
        };
        Ok(json!({ "source": source.name.as_str(), "resource": spec.name.as_str(), "key": entity.key.as_str(), "outcome": outcome }))
    }
}
