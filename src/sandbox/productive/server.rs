//! The HTTP side: who may ask, what a faulty network makes of it, and the answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::catalog::Collection as C;
use super::limits::Exceeded;
use super::list;
use super::query::{self, Manners, Refusal};
use super::state::State;
use super::wire::{self, Body};
use super::{control, render};

/// Registrations and control requests are small.
const BODY_BYTES_MAX: usize = 1 << 20;
const PREFIX: &str = "/api/v2/";
const CONTENT_TYPE: &str = "application/vnd.api+json; charset=utf-8";
/// Comparisons read the true state with this header, outside of limits, faults and counts.
const OBSERVER: &str = "x-sandbox-observer";

/// Accepts connections until the sandbox stops.
pub(super) async fn accept(state: Arc<State>, listener: TcpListener) {
    let (tasks, stop) = (state.tasks.clone(), state.stop.clone());
    wire::accept(listener, &tasks, &stop, move |request| handle(Arc::clone(&state), request)).await;
}

/// An answer before it is written.
pub(super) struct Answer {
    pub(super) status: u16,
    body: Option<String>,
    reset_s: Option<i64>,
}

impl Answer {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self { status, body: Some(body.to_string()), reset_s: None }
    }

    fn empty(status: u16) -> Self {
        Self { status, body: None, reset_s: None }
    }

    fn exceeded(exceeded: &Exceeded) -> Self {
        Self { reset_s: Some(exceeded.reset_s), ..Self::json(429, &json!({ "errors": [exceeded.error()] })) }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let mut error = json!({ "status": refusal.status, "title": refusal.title, "detail": refusal.detail });
        if let Some(code) = refusal.code {
            error["code"] = code.into();
        }
        Self::json(refusal.status, &json!({ "errors": [error] }))
    }
}

struct Call {
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Bytes,
    observer: bool,
}

impl Call {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The collection's name for counting, `other` for what is none.
    fn collection_name(&self) -> &'static str {
        let name = self.path.strip_prefix(PREFIX).and_then(|rest| rest.split('/').next());
        name.and_then(C::named).map_or("other", |collection| collection.spec().name)
    }

    /// The collection and, if it is about one record, the id's text.
    fn target(&self) -> Result<(C, Option<&str>), Refusal> {
        let missing = || Refusal::new(404, "Record Not Found", "There is nothing at this address");
        let rest = self.path.strip_prefix(PREFIX).ok_or_else(missing)?.trim_end_matches('/');
        let (name, id) = rest.split_once('/').map_or((rest, None), |(name, id)| (name, Some(id)));
        Ok((C::named(name).ok_or_else(missing)?, id))
    }

    fn base(&self) -> String {
        let host = self.header("host");
        format!("http://{host}{}", self.path.trim_end_matches('/'))
    }
}

async fn handle(state: Arc<State>, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        return respond(Answer::from(Refusal::new(413, "Payload Too Large", "The body is too large")));
    };
    let call = Call {
        observer: parts.headers.contains_key(OBSERVER),
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body: body.to_bytes(),
    };
    if let Some(verb) = call.path.strip_prefix("/__sandbox/") {
        return respond(control::answer(&state, &call.method, verb, &call.query, &call.body).await);
    }
    if call.observer {
        return respond(answer(&state, &call).unwrap_or_else(Answer::from));
    }
    // A server does not notice that its client has gone: what it has read it works off.
    let running = Arc::clone(&state);
    let served = state.tasks.spawn(async move { running.stop.run_until_cancelled(served(&running, &call)).await });
    let stopped = || respond(Answer::from(Refusal::new(503, "Service Unavailable", "The server stops")));
    served.await.ok().flatten().unwrap_or_else(stopped)
}

/// One request of a client: admitted or refused, disturbed, answered, booked and counted.
async fn served(state: &Arc<State>, call: &Call) -> Response<Body> {
    let queued = {
        let mut inner = state.inner();
        let (share, longest_ms) = (inner.injector.faults.queued, inner.injector.faults.queue_max_ms);
        inner.injector.draw("queued", share).map(|random| random % longest_ms.saturating_add(1))
    };
    if let Some(queued_ms) = queued {
        tokio::time::sleep(Duration::from_millis(queued_ms)).await;
    }
    let begin = state.clock.monotonic();
    let token = call.header("x-auth-token").to_owned();
    let verdict = admit(state, call, &token);
    let hang_ms = match &verdict {
        Ok(disturbance) => disturbance.hang_ms,
        Err(_) => 0,
    };
    if hang_ms > 0 {
        tokio::time::sleep(Duration::from_millis(hang_ms)).await;
    }
    let (answer, cut) = match verdict {
        Err(answer) => (answer, None),
        Ok(disturbance) => match disturbance.instead {
            Some(answer) => (answer, None),
            None => {
                tokio::time::sleep(Duration::from_millis(state.options.latency_ms)).await;
                (self::answer(state, call).unwrap_or_else(Answer::from), disturbance.cut)
            }
        },
    };
    let worked = state.clock.monotonic() - begin;
    let mut inner = state.inner();
    if hang_ms == 0 && answer.status != 401 && answer.status != 429 {
        inner.limits.book(i64::try_from(worked.as_micros()).unwrap_or(i64::MAX), state.now_us());
    }
    let key = (call.method.to_string(), call.collection_name().to_owned(), answer.status);
    *inner.counts.requests.entry(key).or_default() += 1;
    drop(inner);
    match cut {
        Some(random) => wire::truncated(answer.status, CONTENT_TYPE, answer.body.unwrap_or_default(), random),
        None => respond(answer),
    }
}

/// What a fault makes of an admitted request.
#[derive(Default)]
struct Disturbance {
    hang_ms: u64,
    instead: Option<Answer>,
    cut: Option<u64>,
}

fn admit(state: &State, call: &Call, token: &str) -> Result<Disturbance, Answer> {
    let options = &state.options;
    let organization = call.header("x-organization-id");
    let accepted = options.tokens.is_empty() || options.tokens.iter().chain(&options.read_only_tokens).any(|known| known == token);
    if token.is_empty() || !accepted || organization != options.organization.to_string() {
        return Err(Refusal::new(401, "Unauthenticated", "X-Auth-Token or X-Organization-Id is missing or wrong").into());
    }
    let mut inner = state.inner();
    *inner.counts.tokens.entry(token.to_owned()).or_default() += 1;
    if let Err(exceeded) = inner.limits.admit(token, state.now_us()) {
        *inner.counts.refusals.entry((token.to_owned(), exceeded.scope)).or_default() += 1;
        return Err(Answer::exceeded(&exceeded));
    }
    let faults = inner.injector.faults.clone();
    if inner.injector.draw("inject_429", faults.inject_429).is_some() {
        return Err(Answer::exceeded(&Exceeded::injected(faults.inject_429_reset_s)));
    }
    if inner.injector.draw("timeouts", faults.timeouts).is_some() {
        let late = Answer::from(Refusal::new(504, "Gateway Timeout", "The server did not answer in time"));
        return Ok(Disturbance { hang_ms: faults.timeout_hang_ms, instead: Some(late), cut: None });
    }
    if let Some(random) = inner.injector.draw("upstream_5xx", faults.upstream_5xx) {
        let status = [500, 502, 503][(random % 3) as usize];
        let error = Answer::from(Refusal::new(status, "Server Error", "Something went wrong"));
        return Ok(Disturbance { instead: Some(error), ..Disturbance::default() });
    }
    let cut = inner.injector.draw("truncated", faults.truncated);
    Ok(Disturbance { cut, ..Disturbance::default() })
}

fn answer(state: &State, call: &Call) -> Result<Answer, Refusal> {
    let target = call.target();
    let is_read = matches!(call.method, Method::GET | Method::HEAD);
    let registers = matches!(target, Ok((C::Webhooks, _)));
    let allowed = is_read || registers && matches!(call.method, Method::POST | Method::DELETE);
    if !allowed {
        if !matches!(call.method, Method::OPTIONS | Method::TRACE) {
            let key = (call.method.to_string(), call.collection_name().to_owned());
            *state.inner().counts.violations.entry(key).or_default() += 1;
        }
        return Err(Refusal::new(405, "Method Not Allowed", "This method is not allowed here"));
    }
    let (collection, id) = target?;
    if !is_read {
        return write(state, call, id);
    }
    let mut inner = state.inner();
    let faults = &inner.injector.faults;
    if !call.observer && faults.lost_permission.iter().any(|name| name == collection.spec().name) {
        let empty = faults.lost_permission_empty && id.is_none();
        inner.injector.count("lost_permission");
        if !empty {
            return Err(Refusal::new(404, "Record Not Found", "The record was not found"));
        }
        let meta = json!({ "current_page": 1, "total_pages": 0, "total_count": 0, "page_size": 30, "max_page_size": query::MAX_PAGE_SIZE });
        return Ok(Answer::json(200, &json!({ "data": [], "included": [], "links": {}, "meta": meta })));
    }
    drop(inner);
    match id {
        None => read_list(state, call, collection),
        Some(id) => read_one(state, call, collection, id),
    }
}

fn read_list(state: &State, call: &Call, collection: C) -> Result<Answer, Refusal> {
    let manners = Manners {
        instants: call.header("x-feature-flags").split(',').any(|flag| flag.trim() == "filteringSkipDatetimeCastToDate"),
        hide_archived: state.options.hide_archived,
        no_id_filter: &state.options.no_id_filter,
        observer: call.observer,
    };
    let query = query::parse(collection, &call.query, &manners)?;
    let mut inner = state.inner();
    let at_us = if call.observer { None } else { inner.injector.faults.lag_us(false).map(|lag_us| state.now_us() - lag_us) };
    let found = list::find(&inner.world, collection, &query, inner.renderer, at_us);
    if found.stale {
        inner.injector.count("read_lag");
    }
    let renderer = inner.renderer;
    drop(inner);
    Ok(Answer::json(200, &list::document(&found, collection, &query, renderer, &call.base(), &call.query)))
}

fn read_one(state: &State, call: &Call, collection: C, id: &str) -> Result<Answer, Refusal> {
    let missing = || Refusal::new(404, "Record Not Found", "The record was not found");
    let linkage = query::single_linkage(collection, &call.query, call.observer)?;
    let id: u32 = id.parse().map_err(|_| missing())?;
    let mut inner = state.inner();
    let at_us = if call.observer { None } else { inner.injector.faults.lag_us(true).map(|lag_us| state.now_us() - lag_us) };
    let view = inner.world.view_of(collection, id, at_us);
    let (record, stale) = (view.0.cloned(), view.1);
    if stale {
        inner.injector.count("read_lag");
    }
    let record = record.ok_or_else(missing)?;
    let mut document = json!({ "data": inner.renderer.resource(collection, id, &record, &linkage), "meta": {} });
    if matches!(&linkage, render::Linkage::Named(names) if !names.is_empty()) {
        let included = list::included(&inner.world, collection, &[(id, record)], &linkage);
        document["included"] = list::included_resources(&included, inner.renderer).into();
    }
    Ok(Answer::json(200, &document))
}

fn write(state: &State, call: &Call, id: Option<&str>) -> Result<Answer, Refusal> {
    let missing = || Refusal::new(404, "Record Not Found", "The record was not found");
    let mut inner = state.inner();
    if call.method == Method::DELETE {
        let id = id.and_then(|id| id.parse().ok()).ok_or_else(missing)?;
        return if inner.unregister(id, state.now_us()) { Ok(Answer::empty(204)) } else { Err(missing()) };
    }
    if id.is_some() {
        return Err(missing());
    }
    if !call.header("content-type").starts_with("application/vnd.api+json") {
        return Err(Refusal::new(415, "Unsupported Media Type", "Content-Type must be application/vnd.api+json"));
    }
    let id = inner.register(&state.options, call.header("x-auth-token"), &call.body, state.now_us())?;
    let record = inner.world.get(C::Webhooks, id).cloned().unwrap_or_default();
    let resource = inner.renderer.resource(C::Webhooks, id, &record, &render::Linkage::Named(Vec::new()));
    Ok(Answer::json(201, &json!({ "data": resource, "meta": {} })))
}

fn respond(answer: Answer) -> Response<Body> {
    let mut response = Response::builder().status(wire::status(answer.status));
    if answer.body.is_some() {
        response = response.header("content-type", CONTENT_TYPE);
    }
    if let Some(seconds) = answer.reset_s {
        response = response.header("x-ratelimit-reset", seconds);
    }
    response.body(wire::whole(answer.body.unwrap_or_default())).expect("the headers are fixed and valid")
}
