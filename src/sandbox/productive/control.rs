//! `/__sandbox/…`: what the demo and the tests do to the fake organisation behind the client's back.

use std::sync::Arc;

use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::catalog::Collection as C;
use super::changes::{Change, Operation};
use super::churn::{self, Job};
use super::dice::Dice;
use super::seed::draft;
use super::server::Answer;
use super::state::{Inner, State};
use crate::sandbox::control::{self, Failure, Tampering, read};

pub(super) async fn answer(state: &Arc<State>, method: &Method, verb: &str, query: &str, body: &[u8]) -> Answer {
    let result = match (method, verb) {
        (&Method::GET, "report") => Ok(state.inner().report(state.now_us())),
        (&Method::GET, "changes") => Ok(control::changes(&state.inner().changes, query, line)),
        (&Method::GET, "churn") => Ok(state.inner().churn.status()),
        (&Method::GET, "faults") => Ok(json!(state.inner().injector.faults)),
        (&Method::POST, "faults") => read::<Map<String, Value>>(body).and_then(|patch| set_faults(state, &patch)),
        (&Method::POST, "churn") => read(body).and_then(|job| start_churn(state, job)),
        (&Method::POST, "tamper") => read(body).map(|asked| tamper(state, &asked)),
        (&Method::POST, "quiesce") => {
            let now = || {
                let inner = state.inner();
                (inner.churn.running, inner.outbox.waiting())
            };
            control::quiesce(state.clock, read(body), now).await
        }
        (&Method::POST, "create" | "update" | "archive" | "delete" | "restore") => read(body).and_then(|asked| one(state, verb, &asked)),
        _ => return Answer::json(404, &json!({ "error": "no such control" })),
    };
    result.map_or_else(|error| Answer::json(error.0, &json!({ "error": error.1 })), |value| Answer::json(200, &value))
}

fn line(change: &Change, n: usize) -> Value {
    json!({
        "n": n, "collection": change.collection.spec().name, "id": change.id.to_string(), "operation": change.operation,
        "at_us": change.at_us, "settled_at_us": change.settled_at_us,
    })
}

fn set_faults(state: &State, patch: &Map<String, Value>) -> Result<Value, Failure> {
    let mut inner = state.inner();
    inner.injector.patch(patch).map_err(|error| (400, error.to_string()))?;
    let faults = inner.injector.faults.clone();
    inner.remember_for(&faults);
    Ok(json!(faults))
}

fn start_churn(state: &Arc<State>, job: Job) -> Result<Value, Failure> {
    let mut inner = state.inner();
    if inner.churn.running {
        return Err((409, "a churn is running".to_owned()));
    }
    inner.churn.start(&job);
    let status = inner.churn.status();
    drop(inner);
    state.tasks.spawn(churn::run(Arc::clone(state), job));
    Ok(status)
}

fn tamper(state: &State, asked: &Tampering) -> Value {
    let mut inner = state.inner();
    let mut dice = Dice::new(state.options.seed ^ asked.seed);
    let tampered = churn::tamper(&mut inner, &mut dice, asked.records, state.now_us());
    let records: Vec<Value> =
        tampered.iter().map(|(collection, id)| json!({ "collection": collection.spec().name, "id": id.to_string() })).collect();
    json!({ "records": records })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    collection: String,
    id: Option<String>,
    attributes: Option<Map<String, Value>>,
    /// Keys of related records by the relation's name; null for none.
    relationships: Option<Map<String, Value>>,
    /// Whether the change leaves traces: a new `updated_at`, an activity, deliveries.
    #[serde(default = "announce")]
    announce: bool,
}

fn announce() -> bool {
    true
}

/// One change of one record.
fn one(state: &State, verb: &str, asked: &One) -> Result<Value, Failure> {
    let collection = C::named(&asked.collection).filter(|collection| !collection.is_log());
    let collection = collection.ok_or_else(|| (404, format!("no collection {}", asked.collection)))?;
    let now_us = state.now_us();
    let mut inner = state.inner();
    let id: Option<u32> = asked.id.as_deref().map(|id| id.parse().map_err(|_| (400, "not an id".to_owned()))).transpose()?;
    let id = match (verb, id) {
        ("create", None) => {
            let mut dice = Dice::new(state.options.seed ^ u64::from(inner.world.next_id(collection)));
            let mut record = draft(&inner.world, collection, &mut dice, now_us);
            record.special = collection == C::Deals
                && asked.attributes.as_ref().is_some_and(|attributes| attributes.get("budget") == Some(&json!(true)));
            Inner::assign(&mut record, collection, asked.attributes.as_ref(), asked.relationships.as_ref());
            inner.create(collection, record, now_us)
        }
        ("create", Some(_)) => return Err((400, "the sandbox chooses ids".to_owned())),
        (_, None) => return Err((400, "an id is required".to_owned())),
        (_, Some(id)) => {
            if !change(&mut inner, verb, collection, id, asked, now_us) {
                return Err((404, format!("no {} {id}", asked.collection)));
            }
            id
        }
    };
    let number = inner.changes.len();
    drop(inner);
    state.wake.notify_one();
    Ok(json!({ "collection": collection.spec().name, "id": id.to_string(), "change": number }))
}

fn change(inner: &mut Inner, verb: &str, collection: C, id: u32, asked: &One, now_us: i64) -> bool {
    match (verb, asked.announce) {
        ("delete", true) => inner.delete(collection, id, now_us),
        ("delete", false) => inner.world.remove(collection, id, now_us).is_some(),
        ("restore", _) => inner.restore(collection, id, now_us),
        ("archive", _) => inner.edit(collection, id, now_us, |record, _| {
            record.ended_us = now_us;
            Some(Operation::Archive)
        }),
        (_, true) => inner.edit(collection, id, now_us, |record, _| {
            Inner::assign(record, collection, asked.attributes.as_ref(), asked.relationships.as_ref());
            Some(Operation::Update)
        }),
        (_, false) => {
            let Some(old) = inner.world.get(collection, id) else { return false };
            let mut record = super::world::Record::clone(old);
            Inner::assign(&mut record, collection, asked.attributes.as_ref(), asked.relationships.as_ref());
            inner.world.put(collection, id, record, now_us);
            true
        }
    }
}
