//! The HTTP side: who may ask, what a faulty network makes of it, and the answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use super::control;
use super::list::{self, Links, Listed};
use super::management::{self, Asked};
use super::query::{self, Manners, POSTED_IN_MAX, Refusal};
use super::render::{Format, Renderer, Wanted, php};
use super::resource::{Paging, Resource as R, code, container};
use super::route::Route;
use super::state::{Inner, State};
use crate::sandbox::dice::{happens, mix};
use crate::sandbox::wire::{self, Body};

/// Searches and control requests are small.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Longer addresses are refused.
const ADDRESS_BYTES_MAX: usize = 8_192;
const REST: &str = "/api/rest/v1";
const TOKEN: &str = "/api/oauth/v1/token";
const PLATFORM: &str = "/event-platform/api/v1/";
/// Comparisons read the true state with this header, outside of tokens, limits, faults and counts.
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
    retry_after_s: Option<u64>,
}

impl Answer {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self { status, body: Some(body.to_string()), retry_after_s: None }
    }

    /// As PHP writes it.
    fn php(body: &Value) -> Self {
        Self { status: 200, body: Some(php(body)), retry_after_s: None }
    }

    /// What stands before the PIM answers 429 with or without a word, and says when to come again or not.
    fn refused(retry_after_s: Option<u64>) -> Self {
        let body = retry_after_s.map(|_| php(&json!({ "code": 429, "message": "Too many requests" })));
        Self { status: 429, body, retry_after_s }
    }

    fn content_type(&self) -> &'static str {
        "application/json"
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let body = php(&json!({ "code": refusal.status, "message": refusal.message }));
        Self { status: refusal.status, body: Some(body), retry_after_s: None }
    }
}

struct Call {
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Bytes,
    observer: bool,
    route: Route,
}

impl Call {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn is_token(&self) -> bool {
        self.path == TOKEN
    }

    fn is_platform(&self) -> bool {
        self.path.starts_with(PLATFORM)
    }

    /// What the report counts it as.
    fn collection(&self) -> &'static str {
        match () {
            () if self.is_token() => "token",
            () if self.is_platform() => "event-platform",
            () => self.route.name(),
        }
    }

    fn is_read(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    /// A write that a reader has no reason for.
    fn is_violation(&self) -> bool {
        let allowed = self.is_token() || self.is_platform() || self.route == Route::Search && self.method == Method::POST;
        !self.is_read() && !allowed && !matches!(self.method, Method::OPTIONS | Method::TRACE)
    }

    fn parameters(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(self.query.as_bytes()).into_owned().collect()
    }
}

async fn handle(state: Arc<State>, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        return respond(Refusal::new(413, "The body is too large").into());
    };
    let path = parts.uri.path().to_owned();
    let call = Call {
        observer: parts.headers.contains_key(OBSERVER),
        route: route(&path),
        method: parts.method,
        path,
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
    let stopped = || respond(Refusal::new(503, "The server stops").into());
    served.await.ok().flatten().unwrap_or_else(stopped)
}

fn route(path: &str) -> Route {
    let Some(rest) = path.strip_prefix(REST).filter(|rest| rest.is_empty() || rest.starts_with('/')) else { return Route::None };
    // A plus stands for itself in a path.
    let decode = |segment: &str| {
        let pair = format!("={}", segment.replace('+', "%2B"));
        url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let rest = rest.trim_matches('/');
    let segments: Vec<String> = if rest.is_empty() { Vec::new() } else { rest.split('/').map(decode).collect() };
    Route::of(&segments)
}

/// One request of a client: admitted or refused, disturbed, answered and counted.
async fn served(state: &Arc<State>, call: &Call) -> Response<Body> {
    let (answer, cut) = match admit(state) {
        Err(answer) => (answer, None),
        Ok(disturbance) => {
            tokio::time::sleep(Duration::from_millis(disturbance.hang_ms.saturating_add(state.options.latency_ms))).await;
            let answer = disturbance.instead.unwrap_or_else(|| self::answer(state, call).unwrap_or_else(Answer::from));
            state.inner().limits.end();
            (answer, disturbance.cut)
        }
    };
    let key = (call.method.to_string(), call.collection(), answer.status);
    let mut inner = state.inner();
    *inner.counts.requests.entry(key).or_default() += 1;
    if call.is_violation() {
        *inner.counts.violations.entry((call.method.to_string(), call.collection())).or_default() += 1;
    }
    drop(inner);
    match cut {
        Some(random) => wire::truncated(answer.status, answer.content_type(), answer.body.unwrap_or_default(), random),
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

/// Begins a call, which the caller ends.
fn admit(state: &State) -> Result<Disturbance, Answer> {
    let now_us = state.now_us();
    let mut inner = state.inner();
    let faults = inner.injector.faults.clone();
    if inner.injector.draw("inject_429", faults.inject_429).is_some() {
        inner.limits.refuse("injected");
        return Err(Answer::refused(Some(faults.inject_429_retry_after_s).filter(|seconds| *seconds > 0)));
    }
    if inner.limits.begin(now_us).is_err() {
        let says = happens(mix(&[state.options.seed, inner.limits.refused()]), state.options.retry_after_share);
        return Err(Answer::refused(says.then_some(1)));
    }
    if faults.failing {
        inner.injector.count("failing");
        let error = Answer::from(Refusal::new(500, "Internal Server Error"));
        return Ok(Disturbance { instead: Some(error), ..Disturbance::default() });
    }
    if inner.injector.draw("timeouts", faults.timeouts).is_some() {
        let late = Answer::from(Refusal::new(504, "Gateway Timeout"));
        return Ok(Disturbance { hang_ms: faults.timeout_hang_ms, instead: Some(late), cut: None });
    }
    if let Some(random) = inner.injector.draw("upstream_5xx", faults.upstream_5xx) {
        // What stands before the PIM has no documents.
        let error = Answer { status: [500, 502, 503][(random % 3) as usize], body: None, retry_after_s: None };
        return Ok(Disturbance { instead: Some(error), ..Disturbance::default() });
    }
    let cut = inner.injector.draw("truncated", faults.truncated);
    Ok(Disturbance { cut, ..Disturbance::default() })
}

fn answer(state: &State, call: &Call) -> Result<Answer, Refusal> {
    if call.is_token() {
        return token(state, call);
    }
    if call.is_platform() {
        return platform(state, call);
    }
    if call.path.len() + call.query.len() > ADDRESS_BYTES_MAX {
        return Err(Refusal::new(414, "Request-URI Too Large"));
    }
    match &call.route {
        Route::None => return Err(Refusal::new(404, "No route found")),
        Route::Root => {
            return Ok(Answer::php(&json!({ "host": state.root, "authentication": { "fos_oauth_server_token": { "route": TOKEN } } })));
        }
        Route::Information => return Ok(Answer::php(&json!({ "version": "7.0.0", "edition": "Serenity" }))),
        _ => {}
    }
    if !call.observer {
        let bearer = call.header("authorization").strip_prefix("Bearer ").unwrap_or_default();
        state.inner().tokens.check(&state.options, bearer, state.now_us())?;
    }
    if call.is_violation() || call.route == Route::Search && call.method != Method::POST {
        return Err(Refusal::new(405, "Method Not Allowed"));
    }
    let accept = call.header("accept");
    if !accept.is_empty() && !accept.contains("json") && !accept.contains("*/*") {
        return Err(Refusal::new(406, "Only JSON is served here"));
    }
    match &call.route {
        Route::One { resource, key, format } => read_one(state, call, *resource, key, *format),
        Route::List { resource, container, format } => {
            let listed = Listed { resource: *resource, container: container.as_deref(), format: *format };
            read_list(state, call, listed, call.parameters(), false)
        }
        _ => search(state, call),
    }
}

fn token(state: &State, call: &Call) -> Result<Answer, Refusal> {
    if call.method != Method::POST {
        return Err(Refusal::new(405, "Method Not Allowed"));
    }
    let form = if call.header("content-type").starts_with("application/x-www-form-urlencoded") {
        let pairs = url::form_urlencoded::parse(&call.body).into_owned();
        Value::Object(pairs.map(|(name, value)| (name, value.into())).collect::<Map<_, _>>())
    } else {
        serde_json::from_slice(&call.body).map_err(|_| Refusal::new(400, "Invalid json message received"))?
    };
    let pair = state.inner().tokens.grant(&state.options, call.header("authorization"), &form, state.now_us())?;
    Ok(Answer::json(200, &pair))
}

fn platform(state: &State, call: &Call) -> Result<Answer, Refusal> {
    let now_us = state.now_us();
    let mut inner = state.inner();
    let allowed = inner.tokens.check(&state.options, call.header("x-pim-token"), now_us).is_ok()
        && call.header("x-pim-url").trim_end_matches('/') == state.root
        && call.header("x-pim-client-id") == state.options.client_id;
    if !allowed && !call.observer {
        return Err(Refusal::new(401, "X-PIM-URL, X-PIM-TOKEN or X-PIM-CLIENT-ID is missing or wrong"));
    }
    let path: Vec<&str> = call.path.trim_start_matches(PLATFORM).trim_end_matches('/').split('/').collect();
    let asked = Asked { method: call.method.as_str(), path: &path, body: &call.body, root: &state.root, now_us };
    let result = management::answer(&mut inner.platform, &state.options, asked);
    inner.book_platform(now_us);
    drop(inner);
    state.wake();
    let (status, document) = result?;
    Ok(if status == 204 { Answer { status, body: None, retry_after_s: None } } else { Answer::json(status, &document) })
}

/// `POST /products-uuid/search`: the parameters of a list in a body.
fn search(state: &State, call: &Call) -> Result<Answer, Refusal> {
    let document: Value = serde_json::from_slice(&call.body).map_err(|_| Refusal::new(400, "Invalid json message received"))?;
    let mut parameters = call.parameters();
    for (name, value) in document.as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        parameters.push((name.clone(), text));
    }
    read_list(state, call, Listed { resource: R::Products, container: None, format: Format::Uuid }, parameters, true)
}

fn read_list(state: &State, call: &Call, listed: Listed<'_>, parameters: Vec<(String, String)>, posted: bool) -> Result<Answer, Refusal> {
    let now_us = state.now_us();
    let mut inner = state.inner();
    let lost = !call.observer && inner.has_lost(listed.resource);
    if lost && !inner.injector.faults.lost_permission_empty {
        return Err(Refusal::new(404, "Resource does not exist or you do not have permission to access it."));
    }
    let by_name: BTreeMap<String, String> = parameters.iter().cloned().collect();
    let mut manners = Manners::new(&inner.world, state.zone, now_us.div_euclid(1_000_000));
    if posted {
        manners.in_max = POSTED_IN_MAX;
    }
    let query = query::parse(listed.resource, &by_name, &manners)?;
    if let Some((of, container)) = listed.resource.spec().container.zip(listed.container) {
        inner.world.get(of, container).ok_or_else(|| missing(of, container))?;
    }
    let at_us = if call.observer { None } else { inner.injector.faults.lag_us().map(|lag_us| now_us - lag_us) };
    let renderer = Renderer { world: &inner.world, at_us, zone: state.zone, root: &state.root };
    let found = if lost { list::Found::default() } else { list::find(&renderer, listed, &query) };
    let next_root = &inner.injector.faults.next_root;
    let astray = !next_root.is_empty() && !call.observer;
    // What was posted is told by the body again; its links carry only what the next page needs.
    let parameters = if posted { call.parameters() } else { parameters };
    let links = Links { root: &state.root, next_root: if astray { next_root } else { &state.root }, path: &call.path, parameters };
    let document = if listed.resource.spec().paging == Paging::None {
        list::bare(&found, &renderer, listed)
    } else {
        list::document(&found, &renderer, listed, &query, &links)
    };
    let stale = found.stale;
    if stale {
        inner.injector.count("index_lag");
    }
    if astray && document.pointer("/_links/next").is_some() {
        inner.injector.count("next_root");
    }
    drop(inner);
    Ok(Answer::php(&document))
}

fn missing(resource: R, key: &str) -> Refusal {
    let what = resource.spec().what;
    Refusal::new(
        404,
        match resource {
            R::Products | R::ProductModels => format!("{what} \"{key}\" does not exist or you do not have permission to access it."),
            R::FamilyVariants => {
                let family = container(key).unwrap_or_default();
                format!("{what} \"{}\" does not exist or is not a variant of the family \"{family}\".", code(key))
            }
            _ => format!("{what} \"{}\" does not exist.", code(key)),
        },
    )
}

fn read_one(state: &State, call: &Call, resource: R, key: &str, format: Format) -> Result<Answer, Refusal> {
    let mut inner = state.inner();
    if !call.observer && inner.has_lost(resource) {
        return Err(missing(resource, key));
    }
    let found = if format == Format::Identifier && resource == R::Products {
        inner.world.live(R::Products).find(|(_, product)| product.text("identifier") == key && !key.is_empty())
    } else {
        inner.world.get(resource, key).map(|record| (key, record))
    };
    let (found_key, record) = found.ok_or_else(|| missing(resource, key))?;
    let renderer = Renderer { world: &inner.world, at_us: None, zone: state.zone, root: &state.root };
    Ok(Answer::php(&renderer.resource(resource, found_key, record, format, &Wanted::default())))
}

impl Inner {
    /// Whether the connection may no longer see a kind of record; counted.
    fn has_lost(&mut self, resource: R) -> bool {
        let lost = self.injector.faults.lost_permission.iter().any(|name| name == resource.spec().name);
        if lost {
            self.injector.count("lost_permission");
        }
        lost
    }
}

fn respond(answer: Answer) -> Response<Body> {
    let mut response = Response::builder().status(wire::status(answer.status));
    if answer.body.is_some() {
        response = response.header("content-type", answer.content_type());
    }
    if let Some(seconds) = answer.retry_after_s {
        response = response.header("retry-after", seconds);
    }
    response.body(wire::whole(answer.body.unwrap_or_default())).expect("the headers are fixed and valid")
}
