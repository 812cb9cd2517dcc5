//! The push of EntityEvents (RCP-28): one request at a time, tried again until it is taken, stopped after too many failures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::events::Log;
use super::options::Options;
use super::retry_after;
use super::state::State;
use crate::sandbox::micros;

const CONTEXT: &str = "urn:reso:metadata:2.0:resource:entityevent";

/// An event that waits.
#[derive(Clone, Copy, Debug)]
struct Queued {
    number: u64,
    /// Its line in the log of changes.
    change: Option<usize>,
    tries: u64,
}

/// The receiver, and what waits for it.
#[derive(Debug)]
pub(super) struct Push {
    pub(super) url: String,
    pub(super) token: String,
    pub(super) label: String,
    pub(super) batch: usize,
    waiting: BTreeMap<(i64, u64), Queued>,
    serial: u64,
    in_flight: usize,
    failures: u64,
    stopped: bool,
    /// What waits while it is stopped is lost.
    forgets: bool,
    paused_until_us: i64,
    /// When the last 429 came that said how long to wait, and how long.
    refused: Option<(i64, i64)>,
    counts: BTreeMap<&'static str, u64>,
    asked_us: i64,
    waited_us: i64,
    /// The longest time to an answer.
    slowest_us: i64,
    latest: u64,
}

enum Next {
    Now(Vec<Queued>),
    At(i64),
    Nothing,
}

impl Push {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            url: options.push_url.clone(),
            token: options.push_token.clone(),
            label: options.push_label.clone(),
            batch: options.push_batch.max(1),
            waiting: BTreeMap::new(),
            serial: 0,
            in_flight: 0,
            failures: 0,
            stopped: false,
            forgets: options.push_forgets,
            paused_until_us: 0,
            refused: None,
            counts: BTreeMap::new(),
            asked_us: 0,
            waited_us: 0,
            slowest_us: 0,
            latest: 0,
        }
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Queues an event, if there is a receiver.
    pub(super) fn queue(&mut self, number: u64, change: Option<usize>, due_us: i64) {
        if self.url.is_empty() {
            return;
        }
        self.count("queued");
        self.put(Queued { number, change, tries: 0 }, due_us);
        self.forget();
    }

    fn put(&mut self, queued: Queued, due_us: i64) {
        self.serial += 1;
        self.waiting.insert((due_us, self.serial), queued);
    }

    /// Events that are not taken.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len() + self.in_flight
    }

    /// Forgets what waits.
    pub(super) fn discard(&mut self) {
        self.waiting.clear();
    }

    /// Sends nothing until it is resumed.
    pub(super) fn stop(&mut self) {
        if !self.stopped {
            self.stopped = true;
            self.count("stopped");
        }
        self.forget();
    }

    /// Loses what waits, where it does not keep it while it is stopped.
    fn forget(&mut self) {
        if self.stopped && self.forgets {
            let lost = std::mem::take(&mut self.waiting).len() as u64;
            *self.counts.entry("lost_while_stopped").or_default() += lost;
        }
    }

    /// Goes on after a stop.
    pub(super) fn resume(&mut self) {
        if self.stopped {
            self.count("resumed");
        }
        (self.stopped, self.failures, self.paused_until_us) = (false, 0, 0);
    }

    fn next(&mut self, now_us: i64) -> Next {
        if self.stopped || self.url.is_empty() {
            return Next::Nothing;
        }
        let Some((&(due_us, _), _)) = self.waiting.first_key_value() else { return Next::Nothing };
        let due_us = due_us.max(self.paused_until_us);
        if due_us > now_us {
            return Next::At(due_us);
        }
        let mut batch = Vec::new();
        while batch.len() < self.batch {
            match self.waiting.first_entry().filter(|first| first.key().0 <= now_us) {
                Some(first) => batch.push(first.remove()),
                None => break,
            }
        }
        let overtaken = batch.iter().filter(|queued| queued.tries == 0 && queued.number < self.latest).count();
        *self.counts.entry("overtaken").or_default() += overtaken as u64;
        self.latest = batch.iter().map(|queued| queued.number).max().unwrap_or(0).max(self.latest);
        if let Some((at_us, asked_us)) = self.refused.take() {
            self.waited_us += now_us - at_us;
            self.count(if now_us - at_us >= asked_us { "pauses_honoured" } else { "pauses_broken" });
        }
        if batch.iter().any(|queued| queued.tries > 0) {
            self.count("retried");
        }
        self.count("requests");
        self.in_flight = batch.len();
        Next::Now(batch)
    }

    /// Books the outcome of one request; the lines of the log of changes that were taken.
    fn finish(&mut self, batch: Vec<Queued>, outcome: &Outcome, options: &Options, now_us: i64) -> Vec<usize> {
        self.in_flight = 0;
        if let Outcome::Answered(200..=299, _) = outcome {
            self.failures = 0;
            *self.counts.entry("sent").or_default() += batch.len() as u64;
            return batch.into_iter().filter_map(|queued| queued.change).collect();
        }
        let mut pause_us = micros(options.push_retry_ms);
        match outcome {
            Outcome::Abandoned => self.count("abandoned"),
            Outcome::Answered(429, text) => {
                self.count("status_429");
                if let Some(asked_us) = text.as_deref().and_then(|text| retry_after::read(text, now_us)) {
                    self.count("retry_after");
                    self.asked_us += asked_us;
                    self.refused = Some((now_us, asked_us));
                    pause_us = if options.push_impatient { 0 } else { asked_us };
                }
            }
            Outcome::Answered(..) => self.count("refused"),
            Outcome::Broken => self.count("unanswered"),
        }
        // Who says "later" has not failed.
        if !matches!(outcome, Outcome::Answered(429, _)) {
            self.failures += 1;
        }
        self.paused_until_us = now_us + pause_us;
        for queued in batch {
            let tries = queued.tries + 1;
            if options.push_tries > 0 && tries >= options.push_tries {
                self.count("given_up");
            } else {
                self.put(Queued { tries, ..queued }, now_us);
            }
        }
        if self.stopped || self.failures >= options.push_failures_max {
            self.stop();
        }
        Vec::new()
    }

    pub(super) fn report(&self) -> Value {
        let mut report = json!(self.counts);
        report["waiting"] = self.waiting().into();
        report["is_stopped"] = self.stopped.into();
        report["asked_to_wait_ms"] = (self.asked_us / 1_000).into();
        report["waited_ms"] = (self.waited_us / 1_000).into();
        report["slowest_ms"] = (self.slowest_us / 1_000).into();
        report
    }
}

/// What became of one request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// A status, and what Retry-After says.
    Answered(u16, Option<String>),
    /// Nobody answered in time: it may have been stored even so.
    Abandoned,
    Broken,
}

/// Sends what is due until the sandbox stops.
pub(super) async fn dispatch(state: Arc<State>) {
    loop {
        let now_us = state.now_us();
        let next = state.inner().push.next(now_us);
        let wait = match next {
            Next::Now(batch) => {
                tokio::select! {
                    () = send(&state, batch) => continue,
                    () = state.stop.cancelled() => return,
                }
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

async fn send(state: &State, batch: Vec<Queued>) {
    let (request, timeout) = {
        let inner = state.inner();
        let push = &inner.push;
        let body = body(&inner.events, &batch, push.batch > 1);
        let mut request = state
            .client
            .post(&push.url)
            .header("content-type", "application/json")
            .header("user-agent", "instep-sandbox-reso")
            .header("authorization", format!("Bearer {}", push.token));
        if !push.label.is_empty() {
            request = request.header("EntityEventSource", &push.label);
        }
        (body.map(|body| request.body(body.to_string())), Duration::from_millis(state.options.push_timeout_ms))
    };
    let begun_us = state.now_us();
    let outcome = match request {
        // All of it was compacted away: later events stand for these.
        None => Outcome::Answered(200, None),
        Some(request) => match tokio::time::timeout(timeout, request.send()).await {
            Err(_) => Outcome::Abandoned,
            Ok(Err(_)) => Outcome::Broken,
            Ok(Ok(answer)) => {
                let says = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
                let status = answer.status().as_u16();
                // Reading the body to its end gives the connection back to the pool.
                let _ = tokio::time::timeout(timeout, answer.bytes()).await;
                Outcome::Answered(status, says)
            }
        },
    };
    let now_us = state.now_us();
    let mut inner = state.inner();
    inner.push.slowest_us = inner.push.slowest_us.max(now_us - begun_us);
    for change in inner.push.finish(batch, &outcome, &state.options, now_us) {
        if let Some(change) = inner.changes.get_mut(change) {
            change.pushed = true;
            change.settled_at_us = change.settled_at_us.max(now_us);
        }
    }
}

fn body(log: &Log, batch: &[Queued], as_batch: bool) -> Option<Value> {
    let event = |queued: &Queued| {
        let event = log.get(queued.number)?;
        Some(json!({
            "EntityEventSequence": queued.number, "ResourceName": event.resource.name(), "ResourceRecordKey": &*event.key,
        }))
    };
    let mut events: Vec<Value> = batch.iter().filter_map(event).collect();
    if events.is_empty() {
        return None;
    }
    let mut body = if as_batch { json!({ "value": events }) } else { events.remove(0) };
    body["@reso.context"] = CONTEXT.into();
    Some(body)
}
