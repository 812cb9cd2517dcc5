//! What `/__sandbox/…` of every kind has in common.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::clock::Clock;

/// Lines of the log of changes in one answer.
const CHANGES_MAX: usize = 10_000;

/// A status and what is said with it.
pub(super) type Failure = (u16, String);

/// What is asked; an empty body asks for the defaults.
pub(super) fn read<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, Failure> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| (400, error.to_string()))
}

/// The log of changes behind the line `after` of the query; `line` is told the number of its line, from 1 on.
pub(super) fn changes<T>(log: &[T], query: &str, line: impl Fn(&T, usize) -> Value) -> Value {
    let after = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "after").and_then(|(_, value)| value.parse().ok());
    let after: usize = after.unwrap_or(0);
    log.iter().enumerate().skip(after).take(CHANGES_MAX).map(|(index, change)| line(change, index + 1)).collect()
}

/// So many records are to be changed behind everybody's back.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tampering {
    pub(super) records: usize,
    #[serde(default)]
    pub(super) seed: u64,
}

/// How long an answer may wait for quiet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Quiesce {
    #[serde(default = "quiesce_timeout_ms")]
    timeout_ms: u64,
}

fn quiesce_timeout_ms() -> u64 {
    30_000
}

/// Waits until the churn has ended and nothing is queued, delayed, in flight or to be tried again: `now` says whether the churn runs
/// and how many deliveries wait.
pub(super) async fn quiesce(clock: Clock, asked: Result<Quiesce, Failure>, now: impl Fn() -> (bool, usize)) -> Result<Value, Failure> {
    let (asked, begin) = (asked?, clock.monotonic());
    loop {
        let (running, waiting) = now();
        let waited = clock.monotonic() - begin;
        if !running && waiting == 0 {
            return Ok(json!({ "quiet": true, "waited_ms": waited.as_millis() as u64 }));
        }
        if waited >= Duration::from_millis(asked.timeout_ms) {
            return Err((504, format!("not quiet: churn running {running}, deliveries waiting {waiting}")));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
