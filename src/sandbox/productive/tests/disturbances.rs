//! Limits, faults and what the observer sees in spite of them.

use std::time::Duration;

use serde_json::json;

use super::{Bench, Options, PATIENCE, Receiver, unlimited};
use crate::sandbox::productive::Faults;

#[tokio::test]
async fn the_hundred_and_first_request_is_refused_and_counted() {
    let bench = Bench::new(Options { token_requests: 3, token_period_ms: 60_000, ..Options::default() }).await;
    for _ in 0..3 {
        assert_eq!(bench.get("workflows").await.status, 200);
    }
    let refused = bench.get("workflows").await;
    assert_eq!(refused.status, 429);
    let error = &refused.body["errors"][0];
    assert_eq!((&error["title"], &error["limit"], &error["period"]), (&json!("Too many requests"), &json!(3), &json!(60)));
    let reset: u64 = refused.headers["x-ratelimit-reset"].to_str().expect("text").parse().expect("seconds");
    assert!((1..=60).contains(&reset));
    let other = Bench { token: "token-b", ..bench };
    assert_eq!(other.get("workflows").await.status, 200);
    let report = other.report().await;
    assert_eq!(report["refusals"], json!([{ "token": "token-a", "scope": "token", "count": 1 }]));
    assert_eq!((&report["tokens"]["token-a"], &report["tokens"]["token-b"]), (&json!(4), &json!(1)));
    assert_eq!(other.truth("workflows").await["meta"]["total_count"], 3);
}

#[tokio::test]
async fn server_time_is_limited_too() {
    let bench = Bench::new(Options { server_ms_per_hour: 20, latency_ms: 25, ..Options::default() }).await;
    assert_eq!(bench.get("tasks").await.status, 200);
    let refused = bench.get("tasks").await;
    assert_eq!((refused.status, refused.body["errors"][0]["title"].as_str()), (429, Some("Server time limit exceeded")));
}

#[tokio::test]
async fn lists_lag_while_the_observer_sees_the_truth() {
    let faults = Faults { read_lag_ms: 1_500, ..Faults::default() };
    let bench = Bench::new(Options { faults, ..unlimited() }).await;
    let created = bench.control("create", json!({ "collection": "tasks", "attributes": { "title": "young" } })).await;
    let id = created["id"].as_str().expect("an id");
    let path = format!("tasks?filter[id]={id}");
    assert_eq!(bench.truth(&path).await["meta"]["total_count"], 1);
    assert_eq!(bench.ok(&path).await["meta"]["total_count"], 0);
    // Reads by key are consistent unless said otherwise.
    assert_eq!(bench.get(&format!("tasks/{id}")).await.status, 200);
    let appears = async {
        while bench.ok(&path).await["meta"]["total_count"] == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, appears).await.expect("the lag ends");
    let change = bench.send("GET", "/__sandbox/changes", None).await.body[0].clone();
    assert_eq!(change["settled_at_us"].as_i64().expect("a stamp") - change["at_us"].as_i64().expect("a stamp"), 1_500_000);
    assert!(bench.report().await["faults"]["read_lag"]["count"].as_u64() >= Some(1));
}

#[tokio::test]
async fn reads_by_key_lag_when_asked_to() {
    let faults = Faults { read_lag_ms: 60_000, read_lag_all: true, ..Faults::default() };
    let bench = Bench::new(Options { faults, ..unlimited() }).await;
    let before = bench.ok("tasks?page[size]=1").await["data"][0].clone();
    let id = before["id"].as_str().expect("an id");
    bench.control("update", json!({ "collection": "tasks", "id": id, "attributes": { "title": "new" } })).await;
    assert_eq!(bench.ok(&format!("tasks/{id}")).await["data"]["attributes"], before["attributes"]);
    bench.control("faults", json!({ "read_lag_ms": 0 })).await;
    assert_eq!(bench.ok(&format!("tasks/{id}")).await["data"]["attributes"]["title"], "new");
}

#[tokio::test]
async fn tampering_leaves_no_trace() {
    let bench = Bench::new(unlimited()).await;
    let tampered = bench.control("tamper", json!({ "records": 3 })).await;
    let records = tampered["records"].as_array().expect("a list").clone();
    assert_eq!(records.len(), 3);
    let untouched = Bench::new(unlimited()).await;
    for record in &records {
        let path = format!("{}/{}", record["collection"].as_str().expect("a name"), record["id"].as_str().expect("an id"));
        let (now, before) = (bench.ok(&path).await, untouched.ok(&path).await);
        let differing: Vec<&String> = now["data"]["attributes"]
            .as_object()
            .expect("attributes")
            .iter()
            .filter(|(name, value)| {
                !name.ends_with("_at") && !name.contains("date") && before["data"]["attributes"][name.as_str()] != **value
            })
            .map(|(name, _)| name)
            .collect();
        assert_eq!(differing.len(), 1, "{path}: {differing:?}");
    }
    assert_eq!(bench.ok("activities").await["meta"]["total_count"], 0);
    assert_eq!(bench.report().await["changes"], 0);
}

#[tokio::test]
async fn faults_happen_and_are_counted() {
    let bench = Bench::new(unlimited()).await;
    bench
        .control("faults", json!({ "upstream_5xx": 0.3, "truncated": 0.3, "timeouts": 0.1, "timeout_hang_ms": 5, "inject_429": 0.1 }))
        .await;
    let (mut refused, mut torn) = (0, 0);
    for _ in 0..60 {
        let url = format!("{}/api/v2/workflows", bench.sandbox.url());
        let answer = bench.client.get(url).header("x-auth-token", "t").header("x-organization-id", "435").send().await.expect("a head");
        if answer.status().as_u16() != 200 {
            refused += 1;
            continue;
        }
        let whole = answer.bytes().await.ok().and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
        torn += u64::from(whole.is_none());
    }
    let report = bench.report().await;
    let count = |kind: &str| report["faults"][kind]["count"].as_u64().expect("a count");
    assert_eq!(count("truncated"), torn);
    assert_eq!(count("upstream_5xx") + count("timeouts") + count("inject_429"), refused);
    assert_eq!(report["refusals_total"], 0);
    assert_eq!(report["never_happened"], json!([]));
    bench.control("faults", json!({ "hooks_lost": 0.5 })).await;
    assert_eq!(bench.report().await["never_happened"], json!(["hooks_lost"]));
}

#[tokio::test]
async fn lost_permission_shows_nothing() {
    let bench = Bench::new(unlimited()).await;
    bench.control("faults", json!({ "lost_permission": ["tasks"] })).await;
    assert_eq!(bench.get("tasks").await.status, 404);
    assert_eq!(bench.get("projects").await.status, 200);
    bench.control("faults", json!({ "lost_permission_empty": true })).await;
    assert_eq!(bench.ok("tasks").await["data"], json!([]));
    assert!(bench.truth("tasks").await["meta"]["total_count"].as_u64() > Some(0));
}

#[tokio::test]
async fn deliveries_are_lost_duplicated_and_delayed() {
    let faults = Faults {
        hooks_lost: 0.2,
        hooks_duplicated: 0.2,
        hooks_delayed: 0.2,
        hooks_delay_max_ms: 100,
        hooks_reordered: 0.2,
        ..Faults::default()
    };
    let bench = Bench::new(Options { faults, ..unlimited() }).await;
    let mut receiver = Receiver::new(Vec::new()).await;
    for event in [1, 24, 25] {
        bench.register(event, &receiver.url).await;
    }
    bench.control("churn", json!({ "changes": 300, "per_second": 2000, "kinds": "hooks" })).await;
    bench.control("quiesce", json!({ "timeout_ms": PATIENCE.as_millis() as u64 })).await;
    let report = bench.report().await;
    assert_eq!(report["never_happened"], json!([]));
    let count = |kind: &str| report["faults"][kind]["count"].as_u64().expect("a count");
    let deliveries = &report["deliveries"];
    assert_eq!(
        deliveries["sent"].as_u64().expect("a count"),
        deliveries["queued"].as_u64().expect("a count") - count("hooks_lost") + count("hooks_duplicated")
    );
    assert!(deliveries["overtaken"].as_u64() > Some(0));
    let mut received = 0;
    while receiver.deliveries.try_recv().is_ok() {
        received += 1;
    }
    assert_eq!(deliveries["2xx"], received);
}

#[tokio::test]
async fn a_request_that_waits_is_counted_when_it_is_looked_at_even_if_its_sender_has_gone() {
    let faults = Faults { queued: 1.0, queue_max_ms: 400, ..Faults::default() };
    let bench = Bench::new(Options { faults, ..unlimited() }).await;
    let url = format!("{}/api/v2/workflows", bench.sandbox.url());
    let request = bench.client.get(url).header("x-auth-token", "gone").header("x-organization-id", "435");
    assert!(request.timeout(Duration::from_millis(30)).send().await.is_err() || bench.report().await["tokens"]["gone"] == 1);
    let counted = async {
        while bench.report().await["tokens"]["gone"] != 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect("it is looked at in the end");
}
