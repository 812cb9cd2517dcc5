//! `quarantine`: what could not be processed, and what becomes of it.

use serde_json::{Value, json};

use super::{owned, text, unavailable};
use crate::actors::source::Source;
use crate::actors::status::Desk;
use crate::http::admin::ControlError;
use crate::model::{DeliveryId, Entity, Key, ResourceName};
use crate::report::GapOpened;
use crate::store::{DISCARDED, Fence, Quarantined};

/// The newest things that are listed, or replayed together.
const LISTED_MAX: u64 = 1_000;

impl Desk {
    pub(super) async fn quarantine(&self, source: &Source, request: &Value) -> Result<Value, ControlError> {
        match text(request, "action") {
            "list" => {
                let all = self.store.quarantine(&source.name, LISTED_MAX).await.map_err(unavailable)?;
                Ok(json!({ "source": source.name.as_str(), "quarantine": all }))
            }
            "show" => self.show_quarantined(source, request).await,
            "replay" => self.replay(source, request).await,
            "discard" => self.discard(source, request).await,
            other => Err(ControlError::Invalid(format!("there is no action `{other}`: list, show, replay or discard"))),
        }
    }

    async fn quarantined(&self, source: &Source, request: &Value) -> Result<Quarantined, ControlError> {
        let id = request.get("id").and_then(Value::as_i64).ok_or_else(|| ControlError::Invalid("name its number".into()))?;
        let one = self.store.quarantined(&source.name, id).await.map_err(unavailable)?;
        one.ok_or_else(|| ControlError::Conflict(format!("{} has nothing of number {id} in quarantine", source.name)))
    }

    async fn show_quarantined(&self, source: &Source, request: &Value) -> Result<Value, ControlError> {
        let one = self.quarantined(source, request).await?;
        let body = self.store.quarantined_body(&source.name, &one).await.map_err(unavailable)?;
        let mut shown = serde_json::to_value(&one).unwrap_or(Value::Null);
        shown["source"] = source.name.as_str().into();
        shown["route"] = body.as_ref().and_then(|body| body.route.clone()).into();
        // For people: what is no UTF-8 shows as such.
        shown["body"] = body.map(|body| String::from_utf8_lossy(&body.body).into_owned()).into();
        Ok(shown)
    }

    /// Tries one thing again, or all that there is.
    async fn replay(&self, source: &Source, request: &Value) -> Result<Value, ControlError> {
        let fence = owned(source)?;
        let chosen = match request.get("id").and_then(Value::as_i64) {
            Some(_) => vec![self.quarantined(source, request).await?],
            None => self.store.quarantine(&source.name, LISTED_MAX).await.map_err(unavailable)?,
        };
        let (mut replayed, mut kept) = (0, Vec::new());
        for one in &chosen {
            match self.replay_one(source, &fence, one).await? {
                None => replayed += 1,
                Some(why) => kept.push(json!({ "id": one.id, "why": why })),
            }
        }
        if replayed > 0 {
            source.intake.wake();
        }
        Ok(json!({ "source": source.name.as_str(), "replayed": replayed, "kept": kept }))
    }

    /// Why it stays, if it does.
    async fn replay_one(&self, source: &Source, fence: &Fence, one: &Quarantined) -> Result<Option<&'static str>, ControlError> {
        if one.kind == "delivery" {
            let Some(id) = one.delivery.as_deref().and_then(|id| id.parse().ok()) else { return Ok(Some("its delivery has no number")) };
            // A delivery goes back to where it was before it was taken: the intake weighs it as if it had just come.
            let replayed = self.store.replay(fence, DeliveryId(id)).await.map_err(unavailable)?;
            return Ok((!replayed).then_some("the delivery is not kept any more, or one like it waits already"));
        }
        let (Some(resource), Some(key)) = (&one.resource, &one.key) else {
            return Ok(Some("it has no key: a sweep meets it again"));
        };
        let spec = ResourceName::new(resource.as_str()).ok().and_then(|name| source.spec(&name));
        let (Some(spec), Ok(key)) = (spec, Key::new(key.as_str())) else {
            return Ok(Some("its resource is not configured"));
        };
        // Of a record the bytes are old by now; its key is read again.
        let entity = Entity { resource: spec.name.clone(), key };
        let replayed = self.store.replay_record(fence, one.id, &entity).await.map_err(unavailable)?;
        source.wake([&spec.name]);
        Ok((!replayed).then_some("it is not there any more"))
    }

    async fn discard(&self, source: &Source, request: &Value) -> Result<Value, ControlError> {
        let (fence, one) = (owned(source)?, self.quarantined(source, request).await?);
        if !self.store.discard(&fence, &one).await.map_err(unavailable)? {
            return Err(ControlError::Conflict(format!("{} has nothing of number {} in quarantine", source.name, one.id)));
        }
        let is_delivery = one.kind == "delivery";
        if is_delivery {
            source.reporter.emit(GapOpened { source: source.name.to_string(), cause: DISCARDED.to_owned() });
            source.reconciler.wake();
        }
        Ok(json!({ "source": source.name.as_str(), "discarded": one.id, "gap": is_delivery.then_some(DISCARDED) }))
    }
}
