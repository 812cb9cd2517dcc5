//! The fake upstream: a process, and what tests do to it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::process::{INSTEP, Process};
use super::{Setup, eventually};

/// Limits so high that tests are not slowed down; the sandbox's own are tested elsewhere.
pub(crate) const UNLIMITED: [&str; 8] = [
    "--token-requests",
    "1000000",
    "--organization-requests",
    "1000000",
    "--server-ms-per-hour",
    "1000000000",
    "--server-ms-per-day",
    "1000000000",
];

/// A running fake upstream.
pub(crate) struct Sandbox {
    /// What it says when it starts: `http://127.0.0.1:port/`, with a path behind it where its API has one.
    pub(crate) url: String,
    process: Process,
    client: reqwest::Client,
}

impl Sandbox {
    /// Starts a fake Productive as the setup wants it.
    pub(crate) fn start(folder: &Path, setup: &Setup, client: reqwest::Client) -> Self {
        let entities = setup.entities.to_string();
        let chosen = setup.limits.iter().copied().chain(setup.sandbox.iter().map(String::as_str));
        let arguments: Vec<&str> = ["productive", "--entities", &entities].into_iter().chain(chosen).collect();
        Self::start_as(folder, &arguments, client)
    }

    /// Starts `instep sandbox` with these arguments, the first of which is the kind.
    pub(crate) fn start_as(folder: &Path, arguments: &[&str], client: reqwest::Client) -> Self {
        let mut command = Command::new(INSTEP);
        command.arg("sandbox").args(arguments).args(["--port", "0"]).stdout(Stdio::piped());
        let mut process = Process::start(&mut command, &folder.join("sandbox.log"));
        let mut url = String::new();
        let stdout = process.stdout().expect("it was piped");
        BufReader::new(stdout).read_line(&mut url).expect("the sandbox says where it is");
        assert!(url.starts_with("http://"), "the sandbox did not start: {}", process.said());
        Self { url: url.trim().to_owned(), process, client }
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What became of requests, deliveries and faults.
    pub(crate) async fn report(&self) -> Value {
        self.get("report").await
    }

    /// `GET` requests for a collection that were answered 200.
    pub(crate) async fn reads(&self, collection: &str) -> u64 {
        self.requests(|row| row["method"] == "GET" && row["collection"] == collection && row["status"] == 200).await
    }

    /// Requests that fit, by the method, collection and status of a row of the report.
    pub(crate) async fn requests(&self, fits: impl Fn(&Value) -> bool) -> u64 {
        let report = self.report().await;
        let rows = report["requests"].as_array().expect("rows");
        rows.iter().filter(|row| fits(row)).filter_map(|row| row["count"].as_u64()).sum()
    }

    /// A control endpoint that only answers.
    pub(crate) async fn get(&self, verb: &str) -> Value {
        let answer = self.client.get(self.control_url(verb)).send().await.expect("the sandbox answers");
        serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON")
    }

    /// A control endpoint that does something: `update`, `delete`, `faults`, `churn`, …
    pub(crate) async fn control(&self, verb: &str, request: Value) -> Value {
        let answer = self.client.post(self.control_url(verb)).body(request.to_string()).send().await.expect("the sandbox answers");
        let status = answer.status();
        let body = answer.bytes().await.expect("a body");
        assert!(status.is_success(), "{verb} {request}: {status} {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("JSON")
    }

    /// Changes a record without a trace: no delivery, no row in a feed, no new stamp.
    pub(crate) async fn change_silently(&self, collection: &str, key: &str, attributes: Value) {
        self.control("update", json!({ "collection": collection, "id": key, "attributes": attributes, "announce": false })).await;
    }

    /// Waits until no delivery is on its way and no churn runs.
    pub(crate) async fn quiet(&self, deadline: Duration) {
        eventually("the sandbox is quiet", deadline, async || {
            let report = self.report().await;
            let churn = self.get("churn").await;
            let is_quiet = report["deliveries_waiting"] == 0 && churn["done"] == true;
            if is_quiet { Ok(()) } else { Err(format!("{} waiting, churn {churn}", report["deliveries_waiting"])) }
        })
        .await;
    }

    /// The true records of a collection by key, relations included.
    pub(crate) async fn truth(&self, collection: &str) -> BTreeMap<String, Value> {
        let mut records = BTreeMap::new();
        for number in 1.. {
            let url = format!("{}{collection}?page[size]=200&page[number]={number}&include=*", self.url);
            let answer = self.client.get(url).header("x-sandbox-observer", "1").send().await.expect("the sandbox answers");
            let page: Value = serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON");
            let rows = page["data"].as_array().unwrap_or_else(|| panic!("{collection}: {page}"));
            for row in rows {
                records.insert(row["id"].as_str().expect("ids are texts").to_owned(), row.clone());
            }
            if rows.is_empty() || page["meta"]["total_pages"].as_u64().is_none_or(|total| number >= total) {
                break;
            }
        }
        records
    }

    /// The keys of a collection.
    pub(crate) async fn keys(&self, collection: &str) -> Vec<String> {
        self.truth(collection).await.into_keys().collect()
    }

    /// What stands at a path of it, as it truly is: outside of tokens, limits, faults and counts.
    pub(crate) async fn observe(&self, path: &str) -> Option<Value> {
        let request = self.client.get(self.at(path)).header("x-sandbox-observer", "1");
        let answer = request.send().await.expect("the sandbox answers");
        let is_there = answer.status().is_success();
        let body = answer.bytes().await.expect("a body");
        is_there.then(|| serde_json::from_slice(&body).expect("JSON"))
    }

    /// As [`Self::observe`], in pages of so many rows.
    pub(crate) async fn observe_pages_of(&self, path: &str, rows: usize) -> Value {
        let request =
            self.client.get(self.at(path)).header("x-sandbox-observer", "1").header("prefer", format!("odata.maxpagesize={rows}"));
        let answer = request.send().await.expect("the sandbox answers");
        serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON")
    }

    fn at(&self, path: &str) -> String {
        let root = url::Url::parse(&self.url).expect("an address").origin().ascii_serialization();
        format!("{root}{path}")
    }

    fn control_url(&self, verb: &str) -> String {
        self.at(&format!("/__sandbox/{verb}"))
    }
}
