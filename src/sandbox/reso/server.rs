//! The HTTP side: who may ask, what a faulty network makes of it, and the answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::control;
use super::list::{self, Viewer};
use super::metadata;
use super::options::Profile;
use super::query::{self, Refusal};
use super::resource::Resource;
use super::retry_after::http_date;
use super::state::{Inner, State};
use crate::sandbox::wire::{self, Body};

/// Control requests are small.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Longer addresses are refused.
const ADDRESS_BYTES_MAX: usize = 16_384;
const TOKEN: &str = "/oauth2/token";
/// The standard leaves its path open.
const RESUME: &str = "/resume";
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
    content_type: &'static str,
    body: String,
    headers: Vec<(&'static str, String)>,
}

impl Answer {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self { status, content_type: "application/json", body: body.to_string(), headers: Vec::new() }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let mut answer = Self::json(
            refusal.status,
            &json!({ "error": { "code": refusal.status.to_string(), "message": refusal.message, "details": [] } }),
        );
        if refusal.status == 401 {
            answer.headers.push(("www-authenticate", "Bearer".to_owned()));
        }
        answer
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

    /// What the report counts it as.
    fn collection(&self) -> &'static str {
        match self.path.as_str() {
            TOKEN => "token",
            RESUME => "resume",
            "/odata/$metadata" => "$metadata",
            path => {
                let name = path.trim_start_matches("/odata/").split(['(', '/']).next().unwrap_or_default();
                Resource::named(name).map_or("other", Resource::name)
            }
        }
    }

    /// A write that a reader has no reason for.
    fn is_violation(&self) -> bool {
        !matches!(self.method, Method::GET | Method::HEAD) && self.path != TOKEN && self.path != RESUME
    }

    fn parameters(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(self.query.as_bytes()).into_owned().collect()
    }

    /// `Prefer: odata.maxpagesize=N`.
    fn page_wanted(&self) -> Option<usize> {
        let wanted = self.header("prefer").split(',').find_map(|part| part.trim().split_once("maxpagesize="));
        wanted.and_then(|(_, n)| n.trim().parse().ok()).filter(|n| *n > 0)
    }
}

async fn handle(state: Arc<State>, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let now_us = state.now_us();
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        return respond(Refusal::new(413, "The body is too large").into(), now_us);
    };
    let call = Call {
        observer: parts.headers.contains_key(OBSERVER),
        method: parts.method,
        path: decoded(parts.uri.path()),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body: body.to_bytes(),
    };
    if let Some(verb) = call.path.strip_prefix("/__sandbox/") {
        return respond(control::answer(&state, &call.method, verb, &call.query, &call.body).await, now_us);
    }
    if call.observer {
        return respond(answer(&state, &call).unwrap_or_else(Answer::from), now_us);
    }
    // A server does not notice that its client has gone: what it has read it works off.
    let running = Arc::clone(&state);
    let served = state.tasks.spawn(async move { running.stop.run_until_cancelled(served(&running, &call)).await });
    let stopped = || respond(Refusal::new(503, "The server stops").into(), now_us);
    served.await.ok().flatten().unwrap_or_else(stopped)
}

/// A plus stands for itself in a path.
fn decoded(path: &str) -> String {
    let pair = format!("={}", path.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// One request of a client: admitted or refused, disturbed, answered and counted.
async fn served(state: &Arc<State>, call: &Call) -> Response<Body> {
    let (answer, cut) = match admit(state) {
        Err(answer) => (answer, None),
        Ok(disturbance) => {
            tokio::time::sleep(Duration::from_millis(disturbance.hang_ms.saturating_add(state.options.latency_ms))).await;
            (disturbance.instead.unwrap_or_else(|| self::answer(state, call).unwrap_or_else(Answer::from)), disturbance.cut)
        }
    };
    let now_us = state.now_us();
    let key = (call.method.to_string(), call.collection(), answer.status);
    let mut inner = state.inner();
    inner.limits.book(answer.body.len() as u64, now_us);
    *inner.counts.requests.entry(key).or_default() += 1;
    if call.is_violation() {
        *inner.counts.violations.entry((call.method.to_string(), call.collection())).or_default() += 1;
    }
    drop(inner);
    match cut {
        Some(random) => wire::truncated(answer.status, answer.content_type, answer.body, random),
        None => respond(answer, now_us),
    }
}

/// What a fault makes of an admitted request.
#[derive(Default)]
struct Disturbance {
    hang_ms: u64,
    instead: Option<Answer>,
    cut: Option<u64>,
}

fn admit(state: &State) -> Result<Disturbance, Answer> {
    let now_us = state.now_us();
    let mut inner = state.inner();
    let faults = inner.injector.faults.clone();
    if inner.injector.draw("inject_429", faults.inject_429).is_some() {
        inner.limits.refuse("injected");
        return Err(too_many());
    }
    if inner.limits.admit(now_us).is_err() {
        return Err(too_many());
    }
    if faults.failing {
        inner.injector.count("failing");
        return Ok(Disturbance { instead: Some(Refusal::new(500, "Internal Server Error").into()), ..Disturbance::default() });
    }
    if inner.injector.draw("timeouts", faults.timeouts).is_some() {
        let late = Answer::from(Refusal::new(504, "Gateway Timeout"));
        return Ok(Disturbance { hang_ms: faults.timeout_hang_ms, instead: Some(late), cut: None });
    }
    if let Some(random) = inner.injector.draw("upstream_5xx", faults.upstream_5xx) {
        let error = Refusal::new([500, 502, 503][(random % 3) as usize], "Something went wrong").into();
        return Ok(Disturbance { instead: Some(error), ..Disturbance::default() });
    }
    let cut = inner.injector.draw("truncated", faults.truncated);
    Ok(Disturbance { cut, ..Disturbance::default() })
}

fn too_many() -> Answer {
    Refusal::new(429, "The allowance is exceeded").into()
}

fn answer(state: &State, call: &Call) -> Result<Answer, Refusal> {
    let (options, now_us) = (&state.options, state.now_us());
    if call.path == TOKEN {
        if call.method != Method::POST {
            return Err(Refusal::new(405, "Only POST"));
        }
        return Ok(Answer::json(200, &state.inner().tokens.grant(options, call.header("authorization"), &call.body, now_us)?));
    }
    if options.profile == Profile::Mlsgrid && !call.observer && !call.header("accept-encoding").contains("gzip") {
        return Err(Refusal::new(400, "COMPRESSION REQUIRED"));
    }
    if !call.observer {
        state.inner().tokens.check(options, call.header("authorization"), now_us)?;
    }
    if call.path == RESUME && call.method == Method::POST {
        state.inner().push.resume();
        state.wake.notify_one();
        return Ok(Answer::json(200, &json!({})));
    }
    if call.path.len() + call.query.len() > ADDRESS_BYTES_MAX {
        return Err(Refusal::new(414, "The address is too long"));
    }
    if call.is_violation() {
        return Err(Refusal::new(405, "Only reading is allowed"));
    }
    let Some(rest) = call.path.strip_prefix("/odata") else { return Err(Refusal::new(404, "Nothing is here")) };
    match rest {
        "" | "/" => return Ok(Answer::json(200, &metadata::service(&state.root))),
        "/$metadata" => {
            let body = metadata::edmx(options.profile);
            return Ok(Answer { status: 200, content_type: "application/xml", body, headers: Vec::new() });
        }
        _ => {}
    }
    let mut inner = state.inner();
    if inner.says_farewell {
        inner.world.forget_hidden(now_us - options.farewell_us());
    }
    let (name, key) = match rest.trim_matches('/').split_once('(') {
        None => (rest.trim_matches('/'), None),
        Some((name, key)) => (name, Some(key.strip_suffix(')').ok_or_else(|| Refusal::new(400, "The key cannot be read"))?)),
    };
    let resource = Resource::named(name).ok_or_else(|| Refusal::new(404, format!("There is no resource {name}")))?;
    if !call.observer && inner.injector.faults.lost_permission.iter().any(|lost| lost == name) {
        inner.injector.count("lost_permission");
        return Err(Refusal::new(404, format!("There is no resource {name}")));
    }
    match key {
        Some(key) => one(state, &inner, resource, key, call),
        None => collection(state, &inner, resource, call),
    }
}

fn one(state: &State, inner: &Inner, resource: Resource, key: &str, call: &Call) -> Result<Answer, Refusal> {
    let missing = || Refusal::new(404, "No record found");
    let (name, root) = (resource.name(), &state.root);
    let mut select = Vec::new();
    for (option, value) in call.parameters() {
        match option.as_str() {
            "$select" => select = value.split(',').map(|field| field.trim().to_owned()).collect(),
            _ => return Err(Refusal::new(400, format!("the query option {option} is not supported"))),
        }
    }
    let record = if resource == Resource::EntityEvent {
        let number: u64 = key.parse().map_err(|_| Refusal::new(400, "The key is no number"))?;
        let first = inner.events.visible(number, state.now_us()).next();
        first.filter(|(found, _)| *found == number.to_string()).ok_or_else(missing)?.1
    } else {
        let key = key.strip_prefix('\'').and_then(|key| key.strip_suffix('\''));
        let key = key.ok_or_else(|| Refusal::new(400, "The key is no text in quotes"))?.replace("''", "'");
        let record = inner.world.get(resource, &key).ok_or_else(missing)?;
        if call.observer && record.hidden_us.is_some() {
            return Err(missing());
        }
        Arc::clone(record)
    };
    let mut document = list::shown(resource, &record, &select, &state.options);
    document["@odata.context"] = format!("{root}/odata/$metadata#{name}/$entity").into();
    Ok(Answer::json(200, &document))
}

fn collection(state: &State, inner: &Inner, resource: Resource, call: &Call) -> Result<Answer, Refusal> {
    let parameters = call.parameters();
    let mut options = state.options.clone();
    if call.observer {
        options.profile = Profile::Plain;
    }
    let query = query::parse(resource, &parameters, &options)?;
    // The observer's pages have the client's fields.
    options.profile = state.options.profile;
    let viewer = Viewer { now_us: state.now_us(), observer: call.observer };
    let page = list::find(inner, resource, &query, (&options, viewer), (&parameters, call.page_wanted()))?;
    let mut document = json!({
        "@odata.context": format!("{}/odata/$metadata#{}", state.root, resource.name()),
        "value": page.rows,
    });
    if let Some(count) = page.count {
        document["@odata.count"] = count.into();
    }
    if let Some(next) = page.next {
        let text = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(next).finish();
        document["@odata.nextLink"] = format!("{}/odata/{}?{text}", state.root, resource.name()).into();
    }
    let mut answer = Answer::json(200, &document);
    if let Some(wanted) = call.page_wanted() {
        answer.headers.push(("preference-applied", format!("odata.maxpagesize={}", wanted.min(options.pages().1))));
    }
    Ok(answer)
}

fn respond(answer: Answer, now_us: i64) -> Response<Body> {
    let mut response = Response::builder()
        .status(wire::status(answer.status))
        .header("content-type", answer.content_type)
        .header("odata-version", "4.01")
        .header("date", http_date(now_us));
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response.body(wire::whole(answer.body)).expect("the headers are fixed and valid")
}
