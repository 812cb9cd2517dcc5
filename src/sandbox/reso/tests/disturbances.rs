//! Limits and faults, and the log when writers run at the same time.

use serde_json::{Value, json};

use super::{Bench, Options, PATIENCE, refused_once, small};
use crate::sandbox::reso::Faults;

#[tokio::test]
async fn requests_beyond_the_second_are_refused_and_counted() {
    let bench = Bench::new(Options { requests_per_second: 1, ..small() }).await;
    let refused = async { while bench.get("Property?$top=1").await.status != 429 {} };
    tokio::time::timeout(PATIENCE, refused).await.expect("two in a second are too many");
    let report = bench.report().await;
    assert_eq!((&report["refusals"][0], &report["refusals_total"]), (&refused_once(), &json!(1)));
    assert_eq!(bench.truth("Property?$top=1").await.status, 200);
}

#[tokio::test]
async fn numbers_become_visible_late_and_out_of_order() {
    let faults = Faults { events_late: 0.3, events_late_max_ms: 300, events_hidden: 0.1, events_foreign: 0.1, ..Faults::default() };
    let bench = Bench::new(Options { faults, ..small() }).await;
    let head = bench.report().await["events"]["last"].as_u64().expect("a number");
    bench.control("churn", json!({ "changes": 200, "per_second": 100_000 })).await;
    bench.control("quiesce", json!({})).await;
    let path = format!("EntityEvent?$filter=EntityEventSequence gt {head}&$select=EntityEventSequence");
    let at_once = bench.rows(&path).await;
    let report = bench.report().await;
    let [late, hidden, foreign] = ["events_late", "events_hidden", "events_foreign"].map(|name| report["faults"][name]["count"].as_u64());
    let n_changes = bench.changes().await.len() as u64;
    let all = n_changes + foreign.expect("a count");
    assert!(late > Some(0) && (at_once.len() as u64) < all, "some are not visible at once");
    let later = async { while (bench.rows(&path).await.len() as u64) < all {} };
    tokio::time::timeout(PATIENCE, later).await.expect("all become visible");
    let appeared: Vec<Value> = bench.rows(&path).await.into_iter().filter(|row| !at_once.contains(row)).collect();
    let newest_at_once = at_once.last().map(|row| row["EntityEventSequence"].as_u64());
    assert!(appeared.iter().any(|row| Some(row["EntityEventSequence"].as_u64()) < newest_at_once), "behind the head");
    let span = bench.report().await["events"]["last"].as_u64().expect("a number") - head;
    assert_eq!(Some(span - all), hidden, "numbers are left out");
}

#[tokio::test]
async fn everything_may_fail() {
    let bench = Bench::new(small()).await;
    bench.control("faults", json!({ "failing": true })).await;
    assert_eq!(bench.get("Property").await.status, 500);
    bench.control("faults", json!({ "failing": false, "upstream_5xx": 1.0 })).await;
    assert!(bench.get("Property").await.status >= 500);
    bench.control("faults", json!({ "upstream_5xx": 0.0, "inject_429": 1.0 })).await;
    assert_eq!(bench.get("Property").await.status, 429);
    bench.control("faults", json!({ "inject_429": 0.0, "lost_permission": ["Media"] })).await;
    assert_eq!((bench.get("Media").await.status, bench.get("Member").await.status), (404, 200));
    bench.control("faults", json!({ "lost_permission": [], "truncated": 1.0 })).await;
    let half = bench.request("GET", "/odata/Property").send().await.expect("a head").bytes().await;
    assert!(half.is_err() || serde_json::from_slice::<Value>(&half.expect("half a body")).is_err());
    assert_eq!(bench.report().await["never_happened"], json!([]));
}

#[tokio::test]
async fn the_churn_repeats_and_leaves_nothing_dangling() {
    let mut logs = Vec::new();
    for _ in 0..2 {
        let bench = Bench::new(small()).await;
        bench.control("churn", json!({ "changes": 300, "per_second": 100_000 })).await;
        bench.control("quiesce", json!({})).await;
        let line = |line: &Value| format!("{} {} {}", line["resource"], line["key"], line["operation"]);
        logs.push(bench.changes().await.iter().map(line).collect::<Vec<_>>());
        let listings = bench.walk("Property", "ListingKey").await;
        for listing in bench.walk("Media", "ResourceRecordKey").await {
            assert!(listings.contains(&listing), "{listing}");
        }
    }
    assert_eq!(logs[0], logs[1]);
}
