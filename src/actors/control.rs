//! The verbs of the admin socket: what an operator may have the daemon do, within its rate limits and its fence.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ask::{Answer, guarded};
use super::history;
use super::keeper::HooksError;
use super::source::Source;
use super::status::Desk;
use crate::clock::Timestamp;
use crate::connectors::{Asked, ListQuery, ResourceSpec};
use crate::http::BoxFuture;
use crate::http::admin::{Control, ControlError};
use crate::http::api;
use crate::model::ordering::{Observation, decide};
use crate::model::{Delivery, DeliveryId, Event, HookRequest, Operation};
use crate::quota::Class;
use crate::reconcile::{Told, delay};
use crate::store::{self, Fence};
use crate::supervision::{Context, STEP_BUDGET};

mod gaps;
mod passes;
mod plan;
mod quarantine;
mod removals;

/// How long a refresh of the command line waits for the upstream.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(10);

impl Control for Desk {
    fn control(&self, verb: String, request: Value) -> BoxFuture<'_, Result<Value, ControlError>> {
        Box::pin(async move {
            let name = text(&request, "source");
            let source = self.sources.iter().find(|source| source.name.as_str() == name);
            let source = source.ok_or_else(|| ControlError::Invalid(format!("there is no source `{name}`")))?;
            match verb.as_str() {
                "hooks" => self.hooks(source, &request).await,
                "probe" => self.probe(source).await,
                "adopt" => source.adopt().await.map(|()| json!({ "adopted": name })).map_err(unavailable),
                "decode" => self.decode(source, &request).await,
                "coverage" => self.coverage(source, &request).await,
                "gaps" => self.gaps(source, &request).await,
                "reconcile" => self.reconcile(source, &request).await,
                "undelete" => self.undelete(source, &request).await,
                "quarantine" => self.quarantine(source, &request).await,
                "explain" => explain(source, &request).await,
                "refresh" => refresh(source, &request).await,
                "verify" => self.verify(source, &request).await,
                "delay" => self.delay(source, &request).await,
                _ => Err(ControlError::Unknown),
            }
        })
    }
}

impl Desk {
    pub(super) fn context(&self) -> Context {
        Context::new("control", self.clock, STEP_BUDGET, CancellationToken::new())
    }

    async fn hooks(&self, source: &Source, request: &Value) -> Result<Value, ControlError> {
        let (fence, cx) = (owned(source)?, self.context());
        let registered = match text(request, "action") {
            "create" => source.create_hooks(&cx, &fence).await,
            // Who delivers by invitation has no registrations to ask for.
            "list" if source.connector.inviting().is_some() && !source.settings.manages_hooks => Ok(Vec::new()),
            "list" => source.list_hooks(&cx, &fence).await,
            "delete" => {
                let n = source.delete_hooks(&cx, &fence).await.map_err(refused)?;
                return Ok(json!({ "deleted": n }));
            }
            "invite" => return source.invite(&fence, text(request, "revoke")).await.map_err(refused),
            other => return Err(ControlError::Invalid(format!("there is no action `{other}`: create, list, delete or invite"))),
        };
        let show =
            |one: crate::connectors::Registered| json!({ "id": one.id, "route": one.route, "state": one.state, "healthy": one.healthy });
        let rows: Vec<Value> = registered.map_err(refused)?.into_iter().map(show).collect();
        let invitations = source.invitations().await.map_err(unavailable)?;
        Ok(json!({ "registrations": rows, "invitations": invitations }))
    }

    /// Reads one page of every resource: shows a refused credential, a filter or relation that the upstream does not know.
    async fn probe(&self, source: &Source) -> Result<Value, ControlError> {
        let (fence, cx) = (owned(source)?, self.context());
        let mut resources = serde_json::Map::new();
        for spec in source.connector.resources() {
            resources.insert(spec.name.to_string(), probe_one(source, &cx, &fence, spec).await);
        }
        Ok(json!({ "resources": resources }))
    }

    /// Which way of events told what since an instant.
    async fn coverage(&self, source: &Source, request: &Value) -> Result<Value, ControlError> {
        let since = Timestamp::parse(text(request, "since"));
        let since = since.ok_or_else(|| ControlError::Invalid("since is an instant in RFC 3339".into()))?;
        let coverage = self.store.coverage(&source.name, since).await.map_err(unavailable)?;
        let store::Coverage { ways, rows } = coverage;
        Ok(json!({ "source": source.name.as_str(), "since": since.to_string(), "ways": ways, "rows": rows }))
    }

    /// How late and how lossy the ways are by which changes are learned, since an instant.
    async fn delay(&self, source: &Source, request: &Value) -> Result<Value, ControlError> {
        let since = Timestamp::parse(text(request, "since"));
        let since = since.ok_or_else(|| ControlError::Invalid("since is an instant in RFC 3339".into()))?;
        if let (None, Some(spec)) = (source.clock_ahead(), source.connector.resources().first()) {
            // Whatever it answers says what time it is there.
            probe_one(source, &self.context(), &owned(source)?, spec).await;
        }
        let ahead = source.clock_ahead();
        let mut tally = delay::Tally::default();
        let ahead_us = ahead.map_or(0, |estimate| estimate.shown_us());
        let is_since = |told: &Told| told.change.stamp.is_none_or(|stamp| stamp.0 - ahead_us >= since.0);
        let (span, terms) = ((since, self.clock.now()), delay::terms(delay::WINDOW, ahead_us));
        let walked = self.store.walk_told(&source.name, span, &terms, |resource, told| {
            if is_since(&told) {
                tally.count(resource.as_str(), &told, ahead_us);
            }
        });
        walked.await.map_err(unavailable)?;
        let seconds = |micros: i64| micros as f64 / 1e6;
        let clock = ahead.map(|ahead| {
            json!({ "ahead_seconds": seconds(ahead.ahead_us), "error_seconds": seconds(ahead.error_us), "corrected_seconds": seconds(ahead_us) })
        });
        let delays = tally.end(ahead.map(|estimate| estimate.bounds_us()));
        Ok(json!({ "source": source.name.as_str(), "since": since.to_string(), "clock": clock, "delays": delays }))
    }

    /// What a delivery would do to the replica as it stands; changes nothing.
    async fn decode(&self, source: &Source, request: &Value) -> Result<Value, ControlError> {
        let headers = request.get("headers").and_then(Value::as_object).into_iter().flatten();
        let header = |(name, value): (&String, &Value)| Some((name.to_ascii_lowercase(), Bytes::from(value.as_str()?.to_owned())));
        let hook = HookRequest {
            route: text(request, "route").to_owned(),
            query: String::new(),
            headers: headers.filter_map(header).collect(),
            body: Bytes::from(text(request, "body").to_owned()),
        };
        let now = self.clock.now();
        let secrets = source.hook_secrets().await.map_err(ControlError::Unavailable)?;
        let verified = guarded("verify", || source.connector.verify(&hook, &secrets, now).map_err(|refusal| refusal.to_string()));
        let verified = verified.unwrap_or_else(|| Err("the connector panicked on it".to_owned()));
        let delivery =
            Delivery { id: DeliveryId(Uuid::nil()), source: source.name.clone(), received_at: now, dedupe: String::new(), request: hook };
        let statements = match guarded("events", || source.connector.events(&delivery)) {
            Some(Ok(statements)) => statements,
            Some(Err(unreadable)) => return Ok(json!({ "signature": verdict(&verified), "unreadable": unreadable.reason })),
            None => return Ok(json!({ "signature": verdict(&verified), "unreadable": "the connector panicked on it" })),
        };
        let mut shown = Vec::new();
        for event in &statements.events {
            shown.push(self.weigh(source, event).await.map_err(unavailable)?);
        }
        let ignored: Vec<Value> = statements.ignored.iter().map(|one| json!({ "resource": one.resource, "reason": one.reason })).collect();
        Ok(json!({ "signature": verdict(&verified), "events": shown, "ignored": ignored, "unreadable": statements.unreadable }))
    }

    async fn weigh(&self, source: &Source, event: &Event) -> Result<Value, store::Error> {
        let replica = self.store.entity(&source.name, &event.entity).await?;
        let Some(spec) = source.spec(&event.entity.resource) else { return Ok(Value::Null) };
        let delete = event.operation == Operation::Delete;
        let observation = Observation::Push { delete, version: event.version.clone(), hash: event.push.hash() };
        let verdict = decide(&observation, replica.row.as_ref(), replica.mark.as_ref(), false, &spec.spans, self.clock.now());
        Ok(json!({
            "resource": event.entity.resource.as_str(),
            "key": event.entity.key.as_str(),
            "operation": event.operation.name(),
            "version": event.version.as_ref().map(crate::model::Version::text),
            "row": replica.row.map(|row| json!({ "deleted": row.deleted, "version": row.version.map(|version| version.text()) })),
            "mark_open": replica.mark.is_some(),
            "outcome": verdict.reason.name(),
        }))
    }
}

/// The life of one entity.
async fn explain(source: &Source, request: &Value) -> Result<Value, ControlError> {
    let entity = source.entity(text(request, "resource"), text(request, "key")).map_err(ControlError::Invalid)?;
    let limit = history::limit(request.get("limit").and_then(Value::as_str)).map_err(ControlError::Invalid)?;
    source.history(&entity, limit).await.map_err(unavailable)
}

/// Has one record read now; what is held then, with the status that the API would give it.
async fn refresh(source: &Source, request: &Value) -> Result<Value, ControlError> {
    let (resource, key) = (text(request, "resource").to_owned(), text(request, "key").to_owned());
    let what = api::What::Refresh { max_age: api::REFRESH_AGE, timeout: None };
    let answer = source.answer(&api::Asked { source: source.name.to_string(), resource, key, what }, REFRESH_TIMEOUT).await;
    let shown: Value = serde_json::from_str(&answer.body).map_err(|error| ControlError::Unavailable(error.to_string()))?;
    match answer.status {
        503 => Err(ControlError::Unavailable(text(&shown, "error").to_owned())),
        // Without a key there is no such record, and not only none that is held.
        400 | 404 if shown.get("key").is_none() => Err(ControlError::Invalid(text(&shown, "error").to_owned())),
        status => Ok(json!({ "status": status, "retry_after_s": answer.retry_after.map(|span| span.as_secs_f64()), "row": shown })),
    }
}

async fn probe_one(source: &Source, cx: &Context, fence: &Fence, spec: &ResourceSpec) -> Value {
    let query = ListQuery { variant: 0, since: None, cursor: None, halvings: 0 };
    let request = source.connector.list(spec, query);
    match source.ask(cx, fence, Class::Refresh, &request, |response| source.connector.read(spec, Asked::Page(query), response)).await {
        Ok(Answer { what: page, .. }) => {
            let unreadable = page.records.iter().find_map(|record| record.as_ref().err()).map(|error| error.reason.clone());
            let doubt = source.connector.doubts(spec, &page);
            json!({ "ok": unreadable.is_none() && doubt.is_none(), "records": page.records.len(), "unreadable": unreadable, "doubt": doubt })
        }
        Err((error, _)) => json!({ "ok": false, "error": error.to_string() }),
    }
}

pub(super) fn text<'a>(request: &'a Value, name: &str) -> &'a str {
    request.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn verdict(verified: &Result<crate::connectors::Verified, String>) -> String {
    verified.as_ref().map_or_else(Clone::clone, |_| "valid".to_owned())
}

fn owned(source: &Source) -> Result<Fence, ControlError> {
    source.fence_now().ok_or_else(|| ControlError::Unavailable("the source has no owner yet".into()))
}

pub(super) fn unavailable(error: store::Error) -> ControlError {
    ControlError::Unavailable(error.to_string())
}

fn refused(error: HooksError) -> ControlError {
    match error {
        HooksError::Configuration(_) | HooksError::Suspended(_) | HooksError::Registration(_) | HooksError::Invitation(_) => {
            ControlError::Conflict(error.to_string())
        }
        HooksError::Ask(_) | HooksError::Store(_) | HooksError::Secrets(_) => ControlError::Unavailable(error.to_string()),
    }
}
