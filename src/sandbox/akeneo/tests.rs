//! The sandbox's promises, over real HTTP.

mod deliveries;
mod disturbances;
mod platform;
mod reads;

use http::HeaderMap;
use serde_json::{Value, json};

use super::{Handle, Options, start};
use crate::sandbox::testing::{PATIENCE, Receiver};
use crate::sandbox::wire::base64;

/// A sandbox and a client of it.
struct Bench {
    sandbox: Handle,
    client: reqwest::Client,
    /// The bearer token.
    token: String,
}

struct Seen {
    status: u16,
    headers: HeaderMap,
    text: String,
    body: Value,
}

impl Bench {
    /// A sandbox, and a token of it.
    async fn new(options: Options) -> Self {
        let sandbox = start(options).await.expect("the sandbox starts");
        let client = reqwest::Client::builder().no_proxy().build().expect("a plain client");
        let mut bench = Self { sandbox, client, token: String::new() };
        let pair = bench.grant(password()).await;
        assert_eq!(pair.status, 200, "{}", pair.text);
        bench.token = pair.body["access_token"].as_str().expect("a token").to_owned();
        bench
    }

    async fn grant(&self, form: Value) -> Seen {
        let basic = format!("Basic {}", base64(b"1_instep:connection-secret"));
        let url = format!("{}/api/oauth/v1/token", self.sandbox.url());
        let request = self.client.post(url).header("authorization", basic).header("content-type", "application/json");
        seen(request.body(form.to_string())).await
    }

    async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Seen {
        let method = method.parse().expect("a method");
        let request = self.client.request(method, format!("{}{path}", self.sandbox.url()));
        let request = request.header("authorization", format!("Bearer {}", self.token));
        seen(match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_string()),
            None => request,
        })
        .await
    }

    /// A list or record below `/api/rest/v1/`.
    async fn get(&self, path: &str) -> Seen {
        self.send("GET", &format!("/api/rest/v1/{path}"), None).await
    }

    /// The same, which must succeed.
    async fn ok(&self, path: &str) -> Value {
        let seen = self.get(path).await;
        assert_eq!(seen.status, 200, "{path}: {}", seen.text);
        seen.body
    }

    /// The items of a list.
    async fn items(&self, path: &str) -> Vec<Value> {
        items(&self.ok(path).await)
    }

    /// The items that `search` finds, as JSON.
    async fn search(&self, list: &str, search: Value) -> Vec<Value> {
        self.items(&format!("{list}{}search={}", if list.contains('?') { "&" } else { "?" }, encoded(&search.to_string()))).await
    }

    /// The same as the observer sees it.
    async fn truth(&self, path: &str) -> Value {
        let url = format!("{}/api/rest/v1/{path}", self.sandbox.url());
        seen(self.client.get(url).header("x-sandbox-observer", "1")).await.body
    }

    async fn control(&self, verb: &str, body: Value) -> Value {
        let seen = self.send("POST", &format!("/__sandbox/{verb}"), Some(body)).await;
        assert_eq!(seen.status, 200, "{verb}: {}", seen.text);
        seen.body
    }

    async fn report(&self) -> Value {
        self.send("GET", "/__sandbox/report", None).await.body
    }

    /// The last line of the log of changes.
    async fn last_change(&self) -> Value {
        let changes = self.send("GET", "/__sandbox/changes", None).await.body;
        changes.as_array().and_then(|changes| changes.last()).expect("a change").clone()
    }

    /// All items by following `next`.
    async fn walk(&self, path: &str) -> Vec<Value> {
        let mut rows = Vec::new();
        let mut page = self.ok(path).await;
        loop {
            rows.extend(items(&page));
            let Some(next) = page["_links"]["next"]["href"].as_str() else { return rows };
            let rest = next.split_once("/api/rest/v1/").expect("an address of the API").1.to_owned();
            page = self.ok(&rest).await;
        }
    }
}

fn password() -> Value {
    json!({ "grant_type": "password", "username": "instep_0001", "password": "connection-password" })
}

fn items(page: &Value) -> Vec<Value> {
    page["_embedded"]["items"].as_array().expect("a list").clone()
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

async fn seen(request: reqwest::RequestBuilder) -> Seen {
    let answer = request.send().await.expect("an answer");
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let bytes = answer.bytes().await.expect("a whole body");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Seen { status, headers, body: serde_json::from_str(&text).unwrap_or_default(), text }
}

/// Generous limits and few products, for tests that are about something else.
fn small() -> Options {
    Options { entities: 150, requests_per_second: 100_000, events_requests_per_hour: 100_000, ..Options::default() }
}
