//! The Events API: up to ten events a request, half a second to answer, no second try.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::acks::Acks;
use super::changes::{Happening, Operation, System};
use super::invent;
use super::options::{Faults, Options};
use super::render::{Format, Renderer, php};
use super::signature;
use super::state::{Inner, State};
use crate::sandbox::faults::Injector;
use crate::sandbox::micros;

#[derive(Clone, Debug)]
struct Event {
    number: u64,
    id: String,
    happening: Arc<Happening>,
}

/// The connection's subscription and what waits for it.
#[derive(Debug)]
pub(super) struct Outbox {
    pub(super) url: String,
    pub(super) secret: String,
    pub(super) enabled: bool,
    options: Options,
    waiting: BTreeMap<(i64, u64), Event>,
    /// Events that were taken and are not finished.
    in_flight: usize,
    next_number: u64,
    /// Requests of the last hour.
    sent: VecDeque<i64>,
    counts: BTreeMap<&'static str, u64>,
    acks: Acks,
}

/// A request that is about to be sent.
#[derive(Debug)]
struct Prepared {
    url: String,
    secret: String,
    body: String,
    changes: Vec<usize>,
}

enum Next {
    Now(Prepared),
    At(i64),
    Nothing,
}

impl Outbox {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            url: options.events_url.clone(),
            secret: options.events_secret.clone(),
            enabled: true,
            options: options.clone(),
            waiting: BTreeMap::new(),
            in_flight: 0,
            next_number: 0,
            sent: VecDeque::new(),
            counts: BTreeMap::new(),
            acks: Acks::default(),
        }
    }

    /// Events that are not finished.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len() + self.in_flight
    }

    pub(super) fn report(&self) -> Value {
        json!({ "counts": self.counts, "waiting": self.waiting(), "acks": self.acks.report() })
    }

    fn count(&mut self, what: &'static str, n: usize) {
        *self.counts.entry(what).or_default() += n as u64;
    }

    /// Forgets what waits; the changes that will not be told.
    pub(super) fn discard(&mut self) -> Vec<usize> {
        let changes: Vec<usize> = std::mem::take(&mut self.waiting).into_values().map(|event| event.happening.change).collect();
        self.count("discarded", changes.len());
        changes
    }

    /// Queues a change; how many deliveries of it will come.
    pub(super) fn queue(&mut self, happening: &Arc<Happening>, injector: &mut Injector<Faults>) -> usize {
        if !self.enabled || self.url.is_empty() || happening.resource.events_api_stem().is_none() {
            return 0;
        }
        if happening.author.name == self.options.username {
            // A connection is not told of what it did itself.
            self.count("suppressed", 1);
            return 0;
        }
        self.count("queued", 1);
        let dues = System::EventsApi.dues(injector, happening.at_us);
        if dues.is_empty() {
            self.count("lost", 1);
        }
        self.next_number += 1;
        let id = invent::uuid(self.options.seed ^ 0xe7e7, self.next_number);
        for due_us in &dues {
            self.next_number += 1;
            let event = Event { number: self.next_number, id: id.clone(), happening: Arc::clone(happening) };
            self.waiting.insert((*due_us, event.number), event);
        }
        dues.len()
    }

    /// Takes the events of the next request, or says when there may be one. Old ones are taken too, for discarding.
    fn take(&mut self, now_us: i64) -> Result<Vec<Event>, Option<i64>> {
        while self.sent.front().is_some_and(|at_us| *at_us <= now_us - micros(self.options.events_hour_ms)) {
            self.sent.pop_front();
        }
        let (due_us, _) = *self.waiting.first_key_value().ok_or(None)?.0;
        if due_us > now_us {
            return Err(Some(due_us));
        }
        if self.sent.len() >= self.options.events_requests_per_hour {
            self.counts.insert("hour_was_full", 1);
            return Err(Some(self.sent.front().map_or(now_us, |at_us| at_us + micros(self.options.events_hour_ms))));
        }
        let mut events: Vec<Event> = Vec::new();
        while let Some(first) = self.waiting.first_entry() {
            // What people do at the screen comes singly, everything else in tens.
            let alone = first.get().happening.author.kind == "ui";
            let full = events.len() >= self.options.events_per_request || alone && !events.is_empty();
            if first.key().0 > now_us || full {
                break;
            }
            events.push(first.remove());
            if alone {
                break;
            }
        }
        Ok(events)
    }
}

impl Inner {
    /// The next request, with bodies as they are now: what was deleted meanwhile is told only by its removal.
    fn next_events_request(&mut self, state: &State, now_us: i64) -> Next {
        loop {
            let events = match self.events_api.take(now_us) {
                Ok(events) => events,
                Err(Some(at_us)) => return Next::At(at_us),
                Err(None) => return Next::Nothing,
            };
            let oldest_us = now_us - micros(state.options.events_age_max_ms);
            let (mut bodies, mut changes) = (Vec::new(), Vec::new());
            for event in events {
                let body = if event.happening.at_us < oldest_us { Err("too_old") } else { self.event(state, &event).ok_or("not_found") };
                match body {
                    Ok(body) => {
                        bodies.push(body);
                        changes.push(event.happening.change);
                    }
                    Err(why) => {
                        self.events_api.count(why, 1);
                        self.delivered(event.happening.change, System::EventsApi, false, now_us);
                    }
                }
            }
            if bodies.is_empty() {
                continue;
            }
            self.events_api.sent.push_back(now_us);
            self.events_api.in_flight += changes.len();
            self.events_api.count("requests", 1);
            self.events_api.count("sent", changes.len());
            let (url, secret) = (self.events_api.url.clone(), self.events_api.secret.clone());
            return Next::Now(Prepared { url, secret, body: php(&json!({ "events": bodies })), changes });
        }
    }

    fn event(&self, state: &State, event: &Event) -> Option<Value> {
        let happening = &event.happening;
        let stem = happening.resource.events_api_stem()?;
        let format = if state.options.events_by_identifier { Format::Identifier } else { Format::Uuid };
        let (verb, resource) = match happening.operation {
            Operation::Delete => ("removed", removed(happening, format)),
            operation => {
                let record = self.world.get(happening.resource, &happening.key)?;
                let renderer = Renderer { world: &self.world, at_us: None, zone: state.zone, root: &state.root };
                let verb = if operation == Operation::Update { "updated" } else { "created" };
                (verb, renderer.in_event(happening.resource, &happening.key, record, format))
            }
        };
        let time = if state.options.events_date_alias { "event_date" } else { "event_datetime" };
        Some(json!({
            "action": format!("{stem}.{verb}"), "event_id": event.id, time: state.zone.stamp(happening.at_us.div_euclid(1_000_000)),
            "author": happening.author.name, "author_type": happening.author.kind, "pim_source": state.root, "data": { "resource": resource },
        }))
    }
}

fn removed(happening: &Happening, format: Format) -> Value {
    if happening.resource.events_api_stem() == Some("product_model") {
        return json!({ "code": happening.key });
    }
    let mut resource = json!({ "uuid": happening.key });
    if format == Format::Identifier {
        resource["identifier"] = happening.record.document.get("identifier").cloned().unwrap_or_default();
    }
    resource
}

/// Sends what is due until the sandbox stops.
pub(super) async fn dispatch(state: Arc<State>) {
    let permits = Arc::new(Semaphore::new(state.options.events_in_flight.max(1)));
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&permits).acquire_owned() => permit,
            () = state.stop.cancelled() => return,
        };
        let Ok(permit) = permit else { return };
        let now_us = state.now_us();
        let next = state.inner().next_events_request(&state, now_us);
        let wait = match next {
            Next::Now(request) => {
                state.tasks.spawn(send(Arc::clone(&state), request, permit));
                continue;
            }
            Next::At(due_us) => Duration::from_micros(u64::try_from(due_us - now_us).unwrap_or(0)),
            // Woken when something is queued.
            Next::Nothing => Duration::from_secs(3600),
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = state.wake_events_api.notified() => {}
            () = state.stop.cancelled() => return,
        }
    }
}

async fn send(state: Arc<State>, request: Prepared, permit: OwnedSemaphorePermit) {
    let begin = state.clock.monotonic();
    let status = tokio::select! {
        status = post(&state, &request.url, &request.secret, &request.body) => status,
        () = state.stop.cancelled() => return,
    };
    drop(permit);
    let now_us = state.now_us();
    let mut inner = state.inner();
    if status.is_some() {
        inner.events_api.acks.note(state.clock.monotonic() - begin);
    }
    inner.events_api.in_flight -= request.changes.len();
    let class = class(status);
    // Whatever is no success is lost for good.
    inner.events_api.count(class, request.changes.len());
    for change in &request.changes {
        inner.delivered(*change, System::EventsApi, class == "2xx", now_us);
    }
}

/// One request; the status of the answer, none when there was none in time.
async fn post(state: &State, url: &str, secret: &str, body: &str) -> Option<u16> {
    let seconds = state.clock.now().seconds();
    let request = state
        .client
        .post(url)
        .timeout(Duration::from_millis(state.options.events_timeout_ms))
        .header("content-type", "application/json")
        .header("user-agent", "AkeneoPIM/7.0.0")
        .header("x-akeneo-request-signature", signature::events_api(secret, seconds, body.as_bytes()))
        .header("x-akeneo-request-timestamp", seconds.to_string())
        .body(body.to_owned());
    answered(request).await
}

/// Sends a request and reads the answer to its end, which gives the connection back to the pool.
pub(super) async fn answered(request: reqwest::RequestBuilder) -> Option<u16> {
    let answer = request.send().await.ok()?;
    let status = answer.status().as_u16();
    answer.bytes().await.ok()?;
    Some(status)
}

pub(super) fn class(status: Option<u16>) -> &'static str {
    match status {
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(429) => "429",
        Some(400..=499) => "4xx",
        Some(_) => "5xx",
        None => "unanswered",
    }
}

/// The "Test" button: an empty body, signed as any other; the status of the answer.
pub(super) async fn probe(state: &State) -> Option<u16> {
    let (url, secret) = {
        let inner = state.inner();
        (inner.events_api.url.clone(), inner.events_api.secret.clone())
    };
    post(state, &url, &secret, "").await
}
