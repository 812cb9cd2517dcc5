//! The fake organisation as the demo sees it: its true state over plain HTTP, and its controls.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::Error;

/// A control request waits for the organisation to be quiet, at most this long.
const TIMEOUT: Duration = Duration::from_secs(180);
/// Shows the true state, outside of limits, faults and counts.
const OBSERVER: &str = "x-sandbox-observer";
/// Records that somebody keeps editing while the others change: lagging reads of these are sure to be stale.
const HOT_RECORDS: usize = 2;
/// How often each of them is edited …
const HOT_EDITS: usize = 40;
/// … and how soon again: sooner than reads lag.
const HOT_PAUSE: Duration = Duration::from_millis(125);
/// Pages of one collection: far more than the largest demo has.
const PAGES_MAX: usize = 100_000;

/// One change as the organisation's own log tells it.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) resource: String,
    pub(super) key: String,
    pub(super) operation: String,
    /// Microseconds since the epoch.
    pub(super) at_us: i64,
    /// When the last delay that was injected for it is over.
    pub(super) settled_at_us: i64,
}

/// A client of the sandbox.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    client: reqwest::Client,
    /// `http://127.0.0.1:port`.
    root: String,
}

impl Upstream {
    /// `address` is what the sandbox says when it starts: `http://127.0.0.1:port/`, with a path behind it where its API has one.
    pub(super) fn new(address: &str) -> Result<Self, Error> {
        // An error only says that the provider is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
        let url =
            url::Url::parse(address).map_err(|error| Error::Answer(format!("the sandbox says `{address}` as its address: {error}")))?;
        Ok(Self { client, root: url.origin().ascii_serialization() })
    }

    /// All records of a collection by their keys, with the linkage of all relations.
    pub(super) async fn collection(&self, name: &str) -> Result<BTreeMap<String, Value>, Error> {
        let mut records = BTreeMap::new();
        let mut next = Some(format!("{}/api/v2/{name}?include=*&page[size]=200&page[after]=", self.root));
        for _ in 0..PAGES_MAX {
            let Some(url) = next.take() else { return Ok(records) };
            let mut page = self.observe(&url).await?;
            let Some(Value::Array(rows)) = page.get_mut("data").map(Value::take) else {
                return Err(Error::Answer(format!("a page of {name} has no list in `data`")));
            };
            for row in rows {
                let key = row.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
                records.insert(key, row);
            }
            next = page.pointer("/links/next").and_then(Value::as_str).map(ToOwned::to_owned);
        }
        Err(Error::Answer(format!("{name} has no last page")))
    }

    /// What was asked, refused, delivered and injected so far.
    pub(super) async fn report(&self) -> Result<Value, Error> {
        self.get("report").await
    }

    pub(super) async fn faults(&self, patch: &Value) -> Result<(), Error> {
        self.post("faults", patch).await.map(|_| ())
    }

    /// Starts the churn, types into some records meanwhile, and waits until all has ended and no delivery is left.
    pub(super) async fn churn_and_edit(&self, job: &Value, deadline: Duration) -> Result<(), Error> {
        self.post("churn", job).await?;
        self.keep_editing().await?;
        self.quiesce(deadline).await
    }

    /// Starts the churn and waits until it has ended and no delivery is left.
    pub(super) async fn churn(&self, job: &Value, deadline: Duration) -> Result<(), Error> {
        self.post("churn", job).await?;
        self.quiesce(deadline).await
    }

    /// Whether the churn has ended and no delivery is left.
    pub(super) async fn is_quiet(&self) -> Result<bool, Error> {
        let done = self.get("churn").await?.get("done") == Some(&Value::Bool(true));
        Ok(done && self.report().await?.get("deliveries_waiting") == Some(&json!(0)))
    }

    async fn quiesce(&self, deadline: Duration) -> Result<(), Error> {
        let timeout_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        self.post("quiesce", &json!({ "timeout_ms": timeout_ms })).await.map(|_| ())
    }

    /// Somebody types into the names of companies, which nobody deletes meanwhile.
    async fn keep_editing(&self) -> Result<(), Error> {
        let url = format!("{}/api/v2/companies?page[size]={HOT_RECORDS}", self.root);
        let page = self.observe(&url).await?;
        let rows = page.get("data").and_then(Value::as_array).cloned().unwrap_or_default();
        for edit in 0..HOT_EDITS {
            for key in rows.iter().filter_map(|row| row.get("id")) {
                let attributes = json!({ "name": format!("Typing {edit}") });
                self.post("update", &json!({ "collection": "companies", "id": key, "attributes": attributes })).await?;
            }
            tokio::time::sleep(HOT_PAUSE).await;
        }
        Ok(())
    }

    /// Changes records without a trace; which.
    pub(super) async fn tamper(&self, records: usize) -> Result<Vec<(String, String)>, Error> {
        let answer = self.post("tamper", &json!({ "records": records, "seed": 7 })).await?;
        let rows = answer.get("records").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(rows.iter().map(entity).collect())
    }

    /// The log of changes behind the first `after`.
    pub(super) async fn changes(&self, after: usize) -> Result<Vec<Change>, Error> {
        let mut changes: Vec<Change> = Vec::new();
        loop {
            let lines = self.get(&format!("changes?after={}", after + changes.len())).await?;
            let lines = lines.as_array().cloned().unwrap_or_default();
            if lines.is_empty() {
                return Ok(changes);
            }
            let number = |line: &Value, name: &str| line.get(name).and_then(Value::as_i64).unwrap_or_default();
            changes.extend(lines.iter().map(|line| {
                let (resource, key) = entity(line);
                let (at_us, settled_at_us) = (number(line, "at_us"), number(line, "settled_at_us"));
                Change { resource, key, operation: text(line, "operation"), at_us, settled_at_us }
            }));
        }
    }

    /// What is really there: the answer to the true state's observer. `url` is absolute, or a path of this sandbox.
    pub(super) async fn observe(&self, url: &str) -> Result<Value, Error> {
        let url = if url.starts_with('/') { format!("{}{url}", self.root) } else { url.to_owned() };
        self.answer(self.client.get(url).header(OBSERVER, "1")).await
    }

    async fn get(&self, verb: &str) -> Result<Value, Error> {
        self.answer(self.client.get(format!("{}/__sandbox/{verb}", self.root))).await
    }

    /// Has the sandbox do something.
    pub(super) async fn post(&self, verb: &str, body: &Value) -> Result<Value, Error> {
        self.answer(self.client.post(format!("{}/__sandbox/{verb}", self.root)).body(body.to_string())).await
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<Value, Error> {
        let answer = request.send().await?;
        let status = answer.status();
        let bytes = answer.bytes().await?;
        if !status.is_success() {
            return Err(Error::Answer(format!("the sandbox answered {status}: {}", String::from_utf8_lossy(&bytes))));
        }
        serde_json::from_slice(&bytes).map_err(|error| Error::Answer(format!("the sandbox's answer cannot be read: {error}")))
    }
}

/// Which record a line is about; the sandboxes name it in their vendors' words.
fn entity(line: &Value) -> (String, String) {
    let either = |one: &str, other: &str| if line.get(one).is_some() { text(line, one) } else { text(line, other) };
    (either("collection", "resource"), either("id", "key"))
}

fn text(line: &Value, name: &str) -> String {
    line.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}
