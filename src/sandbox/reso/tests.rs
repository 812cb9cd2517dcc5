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
    token: String,
}

struct Seen {
    status: u16,
    headers: HeaderMap,
    text: String,
    body: Value,
}

impl Bench {
    async fn new(options: Options) -> Self {
        let token = options.token.clone();
        let sandbox = start(options).await.expect("the sandbox starts");
        let client = reqwest::Client::builder().no_proxy().build().expect("a plain client");
        Self { sandbox, client, token }
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().expect("a method");
        let request = self.client.request(method, format!("{}{path}", self.sandbox.url()));
        request.header("authorization", format!("Bearer {}", self.token)).header("accept-encoding", "gzip")
    }

    /// Something below `/odata/`.
    async fn get(&self, path: &str) -> Seen {
        seen(self.request("GET", &format!("/odata/{path}"))).await
    }

    /// The same, which must succeed.
    async fn ok(&self, path: &str) -> Value {
        let seen = self.get(path).await;
        assert_eq!(seen.status, 200, "{path}: {}", seen.text);
        seen.body
    }

    async fn rows(&self, path: &str) -> Vec<Value> {
        rows(&self.ok(path).await)
    }

    /// The texts of a field in all rows, by following the links.
    async fn walk(&self, path: &str, field: &str) -> Vec<String> {
        let mut texts = Vec::new();
        let mut page = self.ok(path).await;
        loop {
            texts.extend(rows(&page).iter().map(|row| text(&row[field]).to_owned()));
            let Some(next) = page["@odata.nextLink"].as_str() else { return texts };
            let rest = next.split_once("/odata/").expect("an address of the API").1.to_owned();
            page = self.ok(&rest).await;
        }
    }

    async fn truth(&self, path: &str) -> Seen {
        seen(self.client.get(format!("{}/odata/{path}", self.sandbox.url())).header("x-sandbox-observer", "1")).await
    }

    async fn control(&self, verb: &str, body: Value) -> Value {
        let seen = seen(self.request("POST", &format!("/__sandbox/{verb}")).body(body.to_string())).await;
        assert_eq!(seen.status, 200, "{verb}: {}", seen.text);
        seen.body
    }

    async fn report(&self) -> Value {
        seen(self.request("GET", "/__sandbox/report")).await.body
    }

    async fn changes(&self) -> Vec<Value> {
        seen(self.request("GET", "/__sandbox/changes")).await.body.as_array().expect("a list").clone()
    }
}

fn rows(page: &Value) -> Vec<Value> {
    page["value"].as_array().expect("a list").clone()
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

/// Few listings, for tests that are about something else.
fn small() -> Options {
    Options { entities: 60, ..Options::default() }
}

/// The one 429 that a test is about.
fn refused_once() -> Value {
    json!({ "scope": "second", "count": 1 })
}
