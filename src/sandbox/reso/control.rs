//! `/__sandbox/…`: what the demo and the tests do to the fake producer behind the client's back.

use std::sync::Arc;

use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::churn::{self, Job};
use super::resource::Resource as R;
use super::server::Answer;
use super::state::{Inner, State};
use crate::sandbox::control::{self, Failure, Tampering, read};
use crate::sandbox::dice::Dice;

pub(super) async fn answer(state: &Arc<State>, method: &Method, verb: &str, query: &str, body: &[u8]) -> Answer {
    let result = match (method, verb) {
        (&Method::GET, "report") => Ok(state.inner().report()),
        (&Method::GET, "changes") => Ok(control::changes(&state.inner().changes, query, |change, n| change.line(n))),
        (&Method::GET, "churn") => Ok(state.inner().churn.status()),
        (&Method::GET, "tokens") => Ok(state.inner().tokens.issued(&state.options)),
        (&Method::GET, "faults") => Ok(json!(state.inner().injector.faults)),
        (&Method::POST, "faults") => read::<Map<String, Value>>(body).and_then(|patch| set_faults(state, &patch)),
        (&Method::POST, "churn") => read(body).and_then(|job| start_churn(state, job)),
        (&Method::POST, "churn/stop") => {
            state.inner().churn.stop();
            Ok(json!({}))
        }
        (&Method::POST, "tamper") => read(body).map(|asked| tamper(state, &asked)),
        (&Method::POST, "revoke") => {
            state.inner().tokens.revoke();
            Ok(json!({}))
        }
        (&Method::POST, "compact") => {
            state.inner().events.compact(state.now_us());
            Ok(state.inner().report()["events"].take())
        }
        (&Method::POST, "push") => read(body).map(|asked| push(state, asked)),
        (&Method::POST, "quiesce") => {
            let now = || {
                let inner = state.inner();
                (inner.churn.running, inner.push.waiting())
            };
            control::quiesce(state.clock, read(body), now).await
        }
        (&Method::POST, "create" | "update" | "delete" | "restore") => read(body).and_then(|asked| one(state, verb, &asked)),
        _ => return Answer::json(404, &json!({ "error": "no such control" })),
    };
    result.map_or_else(|error| Answer::json(error.0, &json!({ "error": error.1 })), |value| Answer::json(200, &value))
}

fn set_faults(state: &State, patch: &Map<String, Value>) -> Result<Value, Failure> {
    let mut inner = state.inner();
    inner.injector.patch(patch).map_err(|error| (400, error.to_string()))?;
    Ok(json!(inner.injector.faults))
}

fn start_churn(state: &Arc<State>, job: Job) -> Result<Value, Failure> {
    let resources: Vec<R> = job.resources.iter().map(|name| changing(name)).collect::<Result<_, _>>()?;
    let mut inner = state.inner();
    if inner.churn.running {
        return Err((409, "a churn is running".to_owned()));
    }
    inner.churn.start(&job);
    let status = inner.churn.status();
    drop(inner);
    state.tasks.spawn(churn::run(Arc::clone(state), job, resources));
    Ok(status)
}

/// A resource that changes.
fn changing(name: &str) -> Result<R, Failure> {
    R::RECORDS.into_iter().find(|resource| resource.name() == name).ok_or_else(|| (404, format!("no resource {name}")))
}

fn tamper(state: &State, asked: &Tampering) -> Value {
    let mut inner = state.inner();
    let mut dice = Dice::new(state.options.seed ^ asked.seed);
    let tampered = churn::tamper(&mut inner, &mut dice, asked.records, state.now_us());
    let records: Vec<Value> = tampered.iter().map(|(resource, key)| json!({ "resource": resource.name(), "key": key })).collect();
    json!({ "records": records })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pushing {
    url: Option<String>,
    token: Option<String>,
    label: Option<String>,
    batch: Option<usize>,
    /// Everything in the log from this number on is pushed, once more or for the first time.
    from: Option<u64>,
    /// Stop it, as its operator may, or let it go on.
    stop: Option<bool>,
}

/// Changes the receiver; what waits for none is discarded.
fn push(state: &State, asked: Pushing) -> Value {
    let now_us = state.now_us();
    let mut inner = state.inner();
    let Inner { push, events, .. } = &mut *inner;
    for (place, value) in [(&mut push.url, asked.url), (&mut push.token, asked.token), (&mut push.label, asked.label)] {
        if let Some(value) = value {
            *place = value;
        }
    }
    push.batch = asked.batch.unwrap_or(push.batch).max(1);
    if push.url.is_empty() {
        push.discard();
    }
    if let Some(from) = asked.from {
        for number in events.numbers(from) {
            push.queue(number, None, now_us);
        }
    }
    match asked.stop {
        Some(true) => push.stop(),
        Some(false) => push.resume(),
        None => {}
    }
    let report = push.report();
    drop(inner);
    state.wake.notify_one();
    report
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    resource: String,
    key: Option<String>,
    /// Fields to set.
    fields: Option<Map<String, Value>>,
    /// Whether the change leaves traces: a new stamp, an event, a line in the log.
    #[serde(default = "announce")]
    announce: bool,
}

fn announce() -> bool {
    true
}

/// One change of one record.
fn one(state: &State, verb: &str, asked: &One) -> Result<Value, Failure> {
    let resource = changing(&asked.resource)?;
    let now_us = state.now_us();
    let mut inner = state.inner();
    let mut dice = Dice::new(state.options.seed ^ inner.changes.len() as u64);
    let key = match (&asked.key, verb) {
        (Some(key), "update" | "delete" | "restore") => Some(key.clone()),
        (None, "create") => inner.create(&mut dice, resource, now_us),
        (None, _) => return Err((400, "a key is required".to_owned())),
        (Some(_), _) => return Err((400, "keys of new records are not chosen".to_owned())),
    };
    let key = key.ok_or_else(|| (404, "nothing can be created".to_owned()))?;
    let set = asked.fields.as_ref();
    let done = match verb {
        "create" => true,
        "delete" => inner.delete(resource, &key, now_us),
        "restore" => inner.restore(resource, &key, now_us),
        _ if set.is_none() => churn::touch(&mut inner, &mut dice, resource, &key, now_us),
        _ => inner.edit(resource, &key, now_us, asked.announce, |record| record.document.extend(set.cloned().unwrap_or_default())),
    };
    if !done {
        return Err((404, format!("{verb} is not possible for {} {key}", asked.resource)));
    }
    let number = inner.changes.len();
    drop(inner);
    state.wake.notify_one();
    Ok(json!({ "resource": resource.name(), "key": key, "change": number }))
}
