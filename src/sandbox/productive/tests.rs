//! The sandbox's promises, over real HTTP.

mod deliveries;
mod disturbances;
mod reads;

use http::HeaderMap;
use serde_json::{Value, json};

use super::{Handle, Options, start};
use crate::sandbox::testing::{PATIENCE, Receiver};

/// A sandbox and a client of it.
struct Bench {
    sandbox: Handle,
    client: reqwest::Client,
    token: &'static str,
    observer: bool,
}

struct Seen {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Bench {
    async fn new(options: Options) -> Self {
        let sandbox = start(options).await.expect("the sandbox starts");
        let client = reqwest::Client::builder().no_proxy().build().expect("a plain client");
        Self { sandbox, client, token: "token-a", observer: false }
    }

    /// What the request with all headers answers.
    async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Seen {
        let method = method.parse().expect("a method");
        let mut request = self.client.request(method, format!("{}{path}", self.sandbox.url()));
        request = request.header("x-auth-token", self.token).header("x-organization-id", "435");
        if self.observer {
            request = request.header("x-sandbox-observer", "1");
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/vnd.api+json").body(body.to_string());
        }
        seen(request).await
    }

    /// A list or record below `/api/v2/`.
    async fn get(&self, path: &str) -> Seen {
        self.send("GET", &format!("/api/v2/{path}"), None).await
    }

    /// The same, which must succeed.
    async fn ok(&self, path: &str) -> Value {
        let seen = self.get(path).await;
        assert_eq!(seen.status, 200, "{path}: {}", seen.body);
        seen.body
    }

    /// The same as the observer sees it.
    async fn truth(&self, path: &str) -> Value {
        let url = format!("{}/api/v2/{path}", self.sandbox.url());
        seen(self.client.get(url).header("x-sandbox-observer", "1")).await.body
    }

    async fn control(&self, verb: &str, body: Value) -> Value {
        let seen = self.send("POST", &format!("/__sandbox/{verb}"), Some(body)).await;
        assert_eq!(seen.status, 200, "{verb}: {}", seen.body);
        seen.body
    }

    async fn report(&self) -> Value {
        self.send("GET", "/__sandbox/report", None).await.body
    }

    async fn register(&self, event: u32, url: &str) -> Seen {
        let attributes = json!({ "name": "replica", "event_id": event, "type_id": 1, "target_url": url });
        self.send("POST", "/api/v2/webhooks", Some(json!({ "data": { "type": "webhooks", "attributes": attributes } }))).await
    }

    /// All records by following `links.next`.
    async fn walk(&self, path: &str) -> Vec<Value> {
        let mut rows = Vec::new();
        let mut page = self.ok(path).await;
        loop {
            rows.extend(page["data"].as_array().expect("a list").iter().cloned());
            let Some(next) = page["links"]["next"].as_str() else { return rows };
            let rest = next.split_once("/api/v2/").expect("an address of the API").1.to_owned();
            page = self.ok(&rest).await;
        }
    }
}

async fn seen(request: reqwest::RequestBuilder) -> Seen {
    let answer = request.send().await.expect("an answer");
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let bytes = answer.bytes().await.expect("a whole body");
    Seen { status, headers, body: serde_json::from_slice(&bytes).unwrap_or_default() }
}

fn ids(rows: &[Value]) -> Vec<u64> {
    rows.iter().map(|row| row["id"].as_str().expect("ids are texts").parse().expect("ids are numbers")).collect()
}

/// Generous limits, for tests that are about something else.
fn unlimited() -> Options {
    Options { token_requests: 100_000, organization_requests: 100_000, ..Options::default() }
}
