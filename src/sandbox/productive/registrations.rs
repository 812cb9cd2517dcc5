//! `/webhooks`: the only thing a client may write.

use serde_json::{Map, Value, json};

use super::catalog::Collection as C;
use super::dice::mix;
use super::hooks::Webhook;
use super::options::{Options, Plan};
use super::query::Refusal;
use super::state::Inner;
use super::world::Record;

impl Inner {
    /// `POST /webhooks`. The vendor chooses the signature token.
    pub(super) fn register(&mut self, options: &Options, token: &str, body: &[u8], now_us: i64) -> Result<u32, Refusal> {
        if options.read_only_tokens.iter().any(|read_only| read_only == token) {
            return Err(Refusal::new(403, "Access Denied", "The token is read-only"));
        }
        if options.plan == Plan::BelowUltimate {
            let refusal = Refusal::new(403, "Access Denied", "Your plan does not include webhooks");
            return Err(Refusal { code: Some("webhooks_limit_exceeded"), ..refusal });
        }
        let document: Value =
            serde_json::from_slice(body).map_err(|_| Refusal::new(400, "Bad Request", "The body is not a JSON document"))?;
        let attributes = &document["data"]["attributes"];
        let invalid = |name: &str| Refusal::new(422, "Invalid Attribute", format!("{name} is missing or invalid"));
        let event_id = attributes["event_id"].as_u64().filter(|id| (1..=35).contains(id)).ok_or_else(|| invalid("event_id"))?;
        let type_id = attributes["type_id"].as_u64().filter(|id| (1..=2).contains(id)).ok_or_else(|| invalid("type_id"))?;
        let target_url =
            attributes["target_url"].as_str().filter(|url| url::Url::parse(url).is_ok()).ok_or_else(|| invalid("target_url"))?;
        let id = self.world.next_id(C::Webhooks);
        let signature_token = signature_token(self.world.seed, id);
        let event_id = u32::try_from(event_id).unwrap_or(0);
        let fields = json!({
            "name": attributes["name"], "event_id": event_id, "state_id": 3, "retry_attempts": null, "deactivated_at": null,
            "signature_token": signature_token, "target_url": target_url, "type_id": type_id, "test": false,
            "custom_headers": attributes["custom_headers"],
        });
        let own = fields.as_object().cloned().unwrap_or_default();
        let record = Record { created_us: now_us, updated_us: now_us, activity_us: now_us, own: Some(Box::new(own)), ..Record::default() };
        self.world.put(C::Webhooks, id, record, now_us);
        self.outbox.webhooks.insert(id, Webhook { event_id, target_url: target_url.to_owned(), signature_token, deactivated: false });
        Ok(id)
    }

    /// `DELETE /webhooks/{id}`.
    pub(super) fn unregister(&mut self, id: u32, now_us: i64) -> bool {
        self.outbox.webhooks.remove(&id);
        self.outbox.discard(id);
        self.world.remove(C::Webhooks, id, now_us).is_some()
    }

    /// Sets attributes of a webhook where they differ.
    pub(super) fn mark_webhook(&mut self, id: u32, attributes: &[(&str, Value)], now_us: i64) {
        let Some(old) = self.world.get(C::Webhooks, id) else { return };
        if attributes.iter().all(|(name, value)| old.own(name) == Some(value)) {
            return;
        }
        let mut record = Record::clone(old);
        for (name, value) in attributes {
            record.set(name, value.clone());
        }
        self.world.put(C::Webhooks, id, record, now_us);
    }

    /// Attributes given by a test, and keys of relations by name; false when the record is unknown.
    pub(super) fn assign(
        record: &mut Record,
        collection: C,
        attributes: Option<&Map<String, Value>>,
        relationships: Option<&Map<String, Value>>,
    ) {
        for (name, value) in attributes.into_iter().flatten() {
            record.set(name, value.clone());
        }
        for (index, relation) in collection.spec().relations.iter().enumerate() {
            let Some(value) = relationships.and_then(|keys| keys.get(relation.name)) else { continue };
            let id = value.as_str().and_then(|text| text.parse().ok()).or_else(|| value.as_u64().and_then(|id| u32::try_from(id).ok()));
            if let Some(slot) = record.to.get_mut(index) {
                *slot = id.unwrap_or(0);
            }
        }
    }
}

/// A token in the shape of a UUID.
fn signature_token(seed: u64, id: u32) -> String {
    let (high, low) = (mix(&[seed, 1, u64::from(id)]), mix(&[seed, 2, u64::from(id)]));
    format!(
        "{:08x}-{:04x}-4{:03x}-9{:03x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0xfff,
        low & 0xffff_ffff_ffff
    )
}
