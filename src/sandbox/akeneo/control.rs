//! `/__sandbox/…`: what the demo and the tests do to the fake PIM behind the client's back.

use std::sync::Arc;

use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::changes::{Author, Manner, Operation};
use super::churn::{self, Job};
use super::events_api;
use super::resource::Resource as R;
use super::seed;
use super::server::Answer;
use super::state::{Inner, State};
use super::subscribe::{self, Subscribing};
use super::world::Record;
use crate::sandbox::control::{self, Failure, Tampering, read};
use crate::sandbox::dice::Dice;

pub(super) async fn answer(state: &Arc<State>, method: &Method, verb: &str, query: &str, body: &[u8]) -> Answer {
    let result = match (method, verb) {
        (&Method::GET, "report") => Ok(state.inner().report(state.now_us())),
        (&Method::GET, "changes") => Ok(control::changes(&state.inner().changes, query, |change, n| change.line(n))),
        (&Method::GET, "churn") => Ok(state.inner().churn.status()),
        (&Method::GET, "faults") => Ok(json!(state.inner().injector.faults)),
        (&Method::GET, "subscription") => Ok(subscribe::shown(&state.inner())),
        (&Method::POST, "faults") => read::<Map<String, Value>>(body).and_then(|patch| set_faults(state, &patch)),
        (&Method::POST, "churn") => read(body).and_then(|job| start_churn(state, job)),
        (&Method::POST, "tamper") => read(body).map(|asked| tamper(state, &asked)),
        (&Method::POST, "revoke") => read(body).map(|asked| revoke(state, &asked)),
        (&Method::POST, "subscription") => match read::<Subscribing>(body) {
            Ok(asked) => subscription(state, asked).await,
            Err(error) => Err(error),
        },
        (&Method::POST, "quiesce") => {
            let now = || {
                let inner = state.inner();
                (inner.churn.running, inner.waiting())
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
    let faults = inner.injector.faults.clone();
    inner.remember_for(&faults);
    Ok(json!(faults))
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
    R::records().find(|resource| resource.spec().name == name).ok_or_else(|| (404, format!("no resource {name}")))
}

fn tamper(state: &State, asked: &Tampering) -> Value {
    let mut inner = state.inner();
    let mut dice = Dice::new(state.options.seed ^ asked.seed);
    let tampered = churn::tamper(&mut inner, &mut dice, asked.records, state.now_us());
    let records: Vec<Value> = tampered.iter().map(|(resource, key)| json!({ "resource": resource.spec().name, "key": key })).collect();
    json!({ "records": records })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revocation {
    /// Refresh tokens too.
    #[serde(default)]
    refresh: bool,
}

/// Ends all access tokens before their time.
fn revoke(state: &State, asked: &Revocation) -> Value {
    state.inner().tokens.revoke(asked.refresh);
    json!({})
}

async fn subscription(state: &Arc<State>, asked: Subscribing) -> Result<Value, Failure> {
    let probes = asked.probes();
    subscribe::apply(&mut state.inner(), asked, state.now_us()).map_err(|error| (400, error))?;
    state.wake();
    let mut shown = subscribe::shown(&state.inner());
    if probes {
        shown["events_api"]["probe_status"] = events_api::probe(state).await.into();
    }
    Ok(shown)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    resource: String,
    key: Option<String>,
    /// Top-level fields of the document; `values` of products and models by attribute.
    fields: Option<Map<String, Value>>,
    /// Whether the change leaves traces: a new `updated`, events, a line in the log.
    #[serde(default = "announce")]
    announce: bool,
    /// One more change goes before it, in the same second.
    #[serde(default)]
    same_second: bool,
    author: Option<String>,
    author_type: Option<String>,
}

fn announce() -> bool {
    true
}

/// One change of one record, or two with one stamp.
fn one(state: &State, verb: &str, asked: &One) -> Result<Value, Failure> {
    let resource = changing(&asked.resource)?;
    let somebody = Author::somebody();
    let author = Author { name: asked.author.clone().unwrap_or(somebody.name), kind: asked.author_type.clone().unwrap_or(somebody.kind) };
    let manner = Manner { author, announce: asked.announce, now_us: state.now_us() };
    let mut inner = state.inner();
    let mut dice = Dice::new(state.options.seed ^ inner.changes.len() as u64);
    let key = match (&asked.key, verb) {
        (Some(key), _) => key.clone(),
        (None, "create") => seed::new_key(&mut inner.world, resource, "new_"),
        (None, _) => return Err((400, "a key is required".to_owned())),
    };
    if asked.same_second && matches!(verb, "update" | "delete") {
        churn::touch(&mut inner, &mut dice, resource, &key, &manner);
    }
    let done = match verb {
        "create" => create(&mut inner, &mut dice, resource, &key, asked, &manner),
        "delete" => inner.delete(resource, &key, &manner),
        "restore" => churn::restore_one(&mut inner, resource, &key, &manner),
        _ if asked.fields.is_none() => churn::touch(&mut inner, &mut dice, resource, &key, &manner),
        _ => inner.edit(resource, &key, &manner, |record| assign(record, resource, asked.fields.as_ref())),
    };
    if !done {
        return Err((404, format!("{verb} is not possible for {} {key}", asked.resource)));
    }
    if asked.same_second && matches!(verb, "create" | "restore") {
        churn::touch(&mut inner, &mut dice, resource, &key, &manner);
    }
    let number = inner.changes.len();
    drop(inner);
    state.wake();
    Ok(json!({ "resource": resource.spec().name, "key": key, "change": number }))
}

/// Creates a record under a key that is free; a variant or sub model gets the family of its parent.
fn create(inner: &mut Inner, dice: &mut Dice, resource: R, key: &str, asked: &One, manner: &Manner) -> bool {
    let needs_container = resource.spec().container.is_some();
    if inner.world.get(resource, key).is_some() || needs_container != key.contains('/') {
        return false;
    }
    let document = seed::draft(&inner.world, dice, resource);
    let mut record = seed::record(resource, key, document, manner.now_us.div_euclid(1_000_000));
    assign(&mut record, resource, asked.fields.as_ref());
    let parent = inner.world.get(R::ProductModels, record.text("parent")).filter(|_| resource.has_values()).cloned();
    if let Some(parent) = parent {
        record.document.insert("family".to_owned(), parent.text("family").into());
        if resource == R::ProductModels {
            record.document.insert("family_variant".to_owned(), parent.text("family_variant").into());
        }
    }
    inner.create(resource, key, record, Operation::Create, manner);
    true
}

fn assign(record: &mut Record, resource: R, fields: Option<&Map<String, Value>>) {
    for (name, value) in fields.into_iter().flatten() {
        match value.as_object().filter(|_| name == "values" && resource.has_values()) {
            Some(values) => record.values.extend(values.clone()),
            None => {
                record.document.insert(name.clone(), value.clone());
            }
        }
    }
}
