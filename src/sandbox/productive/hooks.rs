//! Webhook deliveries: signed, thin, unordered, retried, and now and then lost.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value, json};
use sha2::Sha256;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::catalog::Collection as C;
use super::faults::Injector;
use super::moment::date_time;
use super::options::{Faults, Options, OverCap};
use super::render::{Linkage, Renderer};
use super::state::State;
use super::world::Record;

/// Failed attempts that `/webhook_logs` keeps, payloads included.
const LOGS_MAX: u32 = 10_000;

/// A change as its deliveries tell it; rendered when sent, so that a long queue stays small.
#[derive(Debug)]
pub(super) struct Happening {
    pub(super) verb: &'static str,
    pub(super) item: &'static str,
    pub(super) collection: C,
    pub(super) id: u32,
    pub(super) record: Arc<Record>,
    pub(super) project: Option<(u32, Arc<Record>)>,
    pub(super) at_us: i64,
}

/// A registered webhook.
#[derive(Clone, Debug)]
pub(super) struct Webhook {
    pub(super) event_id: u32,
    pub(super) target_url: String,
    pub(super) signature_token: String,
    pub(super) deactivated: bool,
}

#[derive(Clone, Debug)]
struct Delivery {
    number: u64,
    webhook: u32,
    happening: Arc<Happening>,
    attempt: u32,
}

/// Registrations and deliveries that wait.
#[derive(Debug)]
pub(super) struct Outbox {
    pub(super) webhooks: BTreeMap<u32, Webhook>,
    waiting: BTreeMap<(i64, u64), Delivery>,
    in_flight: usize,
    next_number: u64,
    latest_sent: u64,
    caps: BTreeMap<u32, VecDeque<i64>>,
    cap: usize,
    cap_period_us: i64,
    over_cap: OverCap,
    pub(super) counts: BTreeMap<&'static str, u64>,
}

enum Next {
    Now(Delivery, Webhook),
    At(i64),
    Nothing,
}

impl Outbox {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            webhooks: BTreeMap::new(),
            waiting: BTreeMap::new(),
            in_flight: 0,
            next_number: 0,
            latest_sent: 0,
            caps: BTreeMap::new(),
            cap: options.hook_cap,
            cap_period_us: i64::try_from(options.hook_cap_per_ms).unwrap_or(i64::MAX / 1000).saturating_mul(1000),
            over_cap: options.hook_cap_then,
            counts: BTreeMap::new(),
        }
    }

    /// Deliveries that are not finished.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len() + self.in_flight
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Queues a happening for every webhook of the event, with the faults in force; the latest due time.
    pub(super) fn queue(&mut self, event: u32, happening: &Arc<Happening>, injector: &mut Injector<Faults>) -> Option<i64> {
        let wanted = |webhook: &Webhook| webhook.event_id == event && !webhook.deactivated;
        let webhooks: Vec<u32> = self.webhooks.iter().filter(|(_, webhook)| wanted(webhook)).map(|(id, _)| *id).collect();
        let mut latest = None;
        for webhook in webhooks {
            self.count("queued");
            let faults = injector.faults.clone();
            if injector.draw("hooks_lost", faults.hooks_lost).is_some() {
                self.count("lost");
                continue;
            }
            let mut due_us = happening.at_us;
            if let Some(random) = injector.draw("hooks_delayed", faults.hooks_delayed) {
                due_us += i64::try_from(random % faults.hooks_delay_max_ms.max(1)).unwrap_or(0) * 1000 + 1000;
            }
            if let Some(random) = injector.draw("hooks_reordered", faults.hooks_reordered) {
                // Long enough for the next change of a busy record to overtake this one.
                due_us += 50_000 + i64::try_from(random % 350_000).unwrap_or(0);
            }
            self.put(webhook, happening, due_us);
            if let Some(random) = injector.draw("hooks_duplicated", faults.hooks_duplicated) {
                due_us += i64::try_from(random % 200_000).unwrap_or(0);
                self.put(webhook, happening, due_us);
            }
            latest = latest.max(Some(due_us));
        }
        latest
    }

    /// Forgets what waits for a webhook that is no more.
    pub(super) fn discard(&mut self, webhook: u32) {
        let before = self.waiting.len();
        self.waiting.retain(|_, delivery| delivery.webhook != webhook);
        let discarded = before - self.waiting.len();
        if discarded > 0 {
            *self.counts.entry("discarded").or_default() += discarded as u64;
        }
    }

    fn put(&mut self, webhook: u32, happening: &Arc<Happening>, due_us: i64) {
        self.next_number += 1;
        let delivery = Delivery { number: self.next_number, webhook, happening: Arc::clone(happening), attempt: 0 };
        self.waiting.insert((due_us, delivery.number), delivery);
    }

    fn next(&mut self, now_us: i64) -> Next {
        while let Some((&(due_us, number), _)) = self.waiting.first_key_value() {
            if due_us > now_us {
                return Next::At(due_us);
            }
            let Some(delivery) = self.waiting.remove(&(due_us, number)) else { break };
            let Some(webhook) = self.webhooks.get(&delivery.webhook).filter(|webhook| !webhook.deactivated).cloned() else {
                self.count("discarded");
                continue;
            };
            if let Some(free_us) = self.over_cap(&delivery, now_us) {
                match self.over_cap {
                    OverCap::Drop => self.count("dropped_over_cap"),
                    OverCap::Delay => {
                        self.count("delayed_over_cap");
                        self.waiting.insert((free_us, delivery.number), delivery);
                    }
                }
                continue;
            }
            if delivery.number < self.latest_sent && delivery.attempt == 0 {
                self.count("overtaken");
            }
            self.latest_sent = self.latest_sent.max(delivery.number);
            self.in_flight += 1;
            self.count("sent");
            return Next::Now(delivery, webhook);
        }
        Next::Nothing
    }

    /// When the cap leaves room again, if it leaves none now.
    fn over_cap(&mut self, delivery: &Delivery, now_us: i64) -> Option<i64> {
        if self.cap == 0 || delivery.attempt > 0 {
            return None;
        }
        let sent = self.caps.entry(delivery.webhook).or_default();
        while sent.front().is_some_and(|at| *at <= now_us - self.cap_period_us) {
            sent.pop_front();
        }
        if sent.len() < self.cap {
            sent.push_back(now_us);
            return None;
        }
        sent.front().map(|at| at + self.cap_period_us)
    }
}

/// Sends what is due until the sandbox stops.
pub(super) async fn dispatch(state: Arc<State>) {
    let permits = Arc::new(Semaphore::new(state.options.deliveries_in_flight.max(1)));
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&permits).acquire_owned() => permit,
            () = state.stop.cancelled() => return,
        };
        let Ok(permit) = permit else { return };
        let now_us = state.now_us();
        let next = state.inner().outbox.next(now_us);
        let wait = match next {
            Next::Now(delivery, webhook) => {
                state.tasks.spawn(send(Arc::clone(&state), delivery, webhook, permit));
                continue;
            }
            Next::At(due_us) => Duration::from_micros(u64::try_from(due_us - now_us).unwrap_or(0)),
            // Woken when something is queued.
            Next::Nothing => Duration::from_secs(3600),
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = state.wake.notified() => {}
            () = state.stop.cancelled() => return,
        }
    }
}

async fn send(state: Arc<State>, delivery: Delivery, webhook: Webhook, permit: OwnedSemaphorePermit) {
    let renderer = state.inner().renderer;
    let body = body(renderer, &delivery.happening);
    // The webhook's custom headers are not sent: a client found that the vendor does not send them either.
    let request = state
        .client
        .post(&webhook.target_url)
        .header("content-type", "application/json")
        .header("user-agent", "productive-webhooks")
        .header("productive-signature", signature(&webhook.signature_token, state.clock.now().seconds(), body.as_bytes()))
        .body(body.clone());
    let status = tokio::select! {
        answer = request.send() => match answer {
            Ok(answer) => {
                let status = answer.status().as_u16();
                // Reading the body to its end gives the connection back to the pool.
                let _ = answer.bytes().await;
                Some(status)
            }
            Err(_) => None,
        },
        () = state.stop.cancelled() => return,
    };
    drop(permit);
    finish(&state, delivery, status, &body);
}

/// Books the outcome of one attempt: any 2xx is success, everything else is tried again, and after the last try the webhook is switched off.
fn finish(state: &State, delivery: Delivery, status: Option<u16>, body: &str) {
    let now_us = state.now_us();
    let mut inner = state.inner();
    inner.outbox.in_flight -= 1;
    let class = match status {
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(_) => "5xx",
        None => "unanswered",
    };
    inner.outbox.count(class);
    if class == "2xx" {
        inner.mark_webhook(delivery.webhook, &[("state_id", 1.into())], now_us);
        return;
    }
    inner.outbox.count("failed");
    let last = delivery.attempt >= state.options.retries;
    let target_url = inner.outbox.webhooks.get(&delivery.webhook).map(|webhook| webhook.target_url.as_str());
    let log = webhook_log(&delivery, target_url, status, body, last, now_us);
    let row = inner.world.next_id(C::WebhookLogs);
    inner.world.put(C::WebhookLogs, row, log, now_us);
    inner.world.remove(C::WebhookLogs, row.saturating_sub(LOGS_MAX), now_us);
    let attempts: Value = delivery.attempt.into();
    if last {
        inner.outbox.count("given_up");
        if let Some(webhook) = inner.outbox.webhooks.get_mut(&delivery.webhook) {
            webhook.deactivated = true;
        }
        inner.outbox.discard(delivery.webhook);
        let at: Value = date_time(now_us).into();
        inner.mark_webhook(delivery.webhook, &[("state_id", 2.into()), ("retry_attempts", attempts), ("deactivated_at", at)], now_us);
        return;
    }
    if inner.outbox.webhooks.get(&delivery.webhook).is_none_or(|webhook| webhook.deactivated) {
        inner.outbox.count("discarded");
        return;
    }
    inner.mark_webhook(delivery.webhook, &[("state_id", 2.into()), ("retry_attempts", attempts)], now_us);
    inner.outbox.count("retried");
    let spacing_ms = state.options.retries_over_ms / u64::from(state.options.retries.max(1));
    let due_us = now_us + i64::try_from(spacing_ms).unwrap_or(i64::MAX / 2000).saturating_mul(1000);
    inner.outbox.waiting.insert((due_us, delivery.number), Delivery { attempt: delivery.attempt + 1, ..delivery });
    drop(inner);
    state.wake.notify_one();
}

fn webhook_log(delivery: &Delivery, target_url: Option<&str>, status: Option<u16>, body: &str, last: bool, now_us: i64) -> Record {
    let mut log = Record { created_us: now_us, updated_us: now_us, activity_us: now_us, ..Record::default() };
    log.set("webhook_id", delivery.webhook.into());
    log.set("target_url", target_url.into());
    log.set("status_code", status.into());
    log.set("retry_attempt", delivery.attempt.into());
    log.set("retry_job_id", if last { Value::Null } else { delivery.number.to_string().into() });
    log.set("payload", serde_json::from_str(body).unwrap_or_default());
    log
}

/// The delivery's bytes. The vendor's serialiser writes `<`, `>` and `&` as escapes.
fn body(renderer: Renderer, happening: &Happening) -> String {
    let linkage = Linkage::All;
    let mut attributes = renderer.attributes(happening.collection, happening.id, &happening.record);
    // Thinner than a read: neither custom fields nor the task list are told.
    attributes.retain(|name, _| !matches!(name.as_str(), "custom_fields" | "tag_list" | "description" | "preferences"));
    let mut relationships = renderer.relationships(happening.collection, &happening.record, &linkage);
    relationships.remove("task_list");
    let included: Vec<Value> = happening
        .project
        .iter()
        .map(|(id, project)| {
            let name = renderer.attributes(C::Projects, *id, project).remove("name").unwrap_or_default();
            json!({ "id": id.to_string(), "type": "projects", "attributes": { "name": name } })
        })
        .collect();
    let data = json!({
        "id": happening.id.to_string(), "type": happening.collection.spec().name, "attributes": attributes, "relationships": relationships,
    });
    let fields = [
        ("event", format!("{}_{}", happening.verb, happening.item).into()),
        ("item_type", happening.item.into()),
        ("item_id", happening.id.into()),
        ("created", date_time(happening.at_us).into()),
        ("object", json!({ "data": data, "included": included })),
    ];
    let body: Map<String, Value> = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Value::Object(body).to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// `t=<seconds>, s=<hex>` over `<seconds>.<body>`.
pub(super) fn signature(token: &str, seconds: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(token.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(seconds.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={seconds}, s={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_contracts_vector() {
        let body = r#"{"event":"update_task","item_type":"task","item_id":42,"created":"2026-01-02T03:04:05.678+01:00","object":{"data":{"id":"42","type":"tasks","attributes":{"title":"Zażółć"}}}}"#;
        assert_eq!(body.len(), 178);
        assert_eq!(
            signature("11111111-2222-3333-4444-555555555555", 1_700_000_000, body.as_bytes()),
            "t=1700000000, s=fa753a30101effb4ef71823fbb5f50808d7fb4166329dcc3aaf6d77d89c1c2ff"
        );
    }
}
