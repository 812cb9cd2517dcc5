//! Webhooks and what people's changes leave behind.

use serde_json::{Value, json};

use super::{Bench, Options, PATIENCE, Receiver, ids, unlimited};
use crate::sandbox::productive::hooks::signature;
use crate::sandbox::productive::{OverCap, Plan};

async fn some_task(bench: &Bench) -> String {
    bench.ok("tasks?page[size]=1").await["data"][0]["id"].as_str().expect("an id").to_owned()
}

async fn rename(bench: &Bench, id: &str, title: &str) {
    bench.control("update", json!({ "collection": "tasks", "id": id, "attributes": { "title": title } })).await;
}

#[tokio::test]
async fn an_update_is_delivered_signed_and_thin() {
    let bench = Bench::new(unlimited()).await;
    let mut receiver = Receiver::new(Vec::new()).await;
    let created = bench.register(24, &receiver.url).await;
    assert_eq!(created.status, 201);
    assert_eq!(created.body["data"]["attributes"]["state_id"], 3);
    let token = created.body["data"]["attributes"]["signature_token"].as_str().expect("a token").to_owned();
    let id = some_task(&bench).await;
    rename(&bench, &id, "R&D <now>").await;
    let (headers, body) = receiver.next().await;
    let header = headers["productive-signature"].to_str().expect("text");
    let seconds = header.strip_prefix("t=").and_then(|rest| rest.split_once(", s=")).expect("both parts").0.parse().expect("seconds");
    assert_eq!(header, signature(&token, seconds, &body));
    assert!(!body.contains(&b'<') && !body.contains(&b'&'));
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((body["event"].as_str(), body["item_type"].as_str()), (Some("update_task"), Some("task")));
    assert_eq!(body["item_id"].to_string(), id);
    let data = &body["object"]["data"];
    assert_eq!((data["id"].as_str(), data["attributes"]["title"].as_str()), (Some(id.as_str()), Some("R&D <now>")));
    assert!(data["relationships"].get("task_list").is_none());
    assert_eq!(data["relationships"]["project"]["data"]["type"], "projects");
    bench.control("quiesce", json!({})).await;
    let hook = created.body["data"]["id"].as_str().expect("an id");
    assert_eq!(bench.ok(&format!("webhooks/{hook}")).await["data"]["attributes"]["state_id"], 1);
    assert_eq!(bench.send("DELETE", &format!("/api/v2/webhooks/{hook}"), None).await.status, 204);
    rename(&bench, &id, "nobody is told").await;
    assert_eq!(bench.report().await["deliveries"]["queued"], 1);
}

#[tokio::test]
async fn each_event_has_its_own_webhook() {
    let bench = Bench::new(unlimited()).await;
    let mut receiver = Receiver::new(Vec::new()).await;
    for event in [1, 25, 4, 28] {
        bench.register(event, &receiver.url).await;
    }
    let task = bench.control("create", json!({ "collection": "tasks", "attributes": { "title": "new" } })).await;
    assert_eq!(receiver.next_body().await["event"], "create_task");
    bench.control("delete", json!({ "collection": "tasks", "id": task["id"] })).await;
    assert_eq!(receiver.next_body().await["event"], "delete_task");
    bench.control("create", json!({ "collection": "deals" })).await;
    bench.control("create", json!({ "collection": "deals", "attributes": { "budget": true } })).await;
    let budget = receiver.next_body().await;
    assert_eq!((budget["event"].as_str(), &budget["object"]["data"]["type"]), (Some("create_budget"), &json!("deals")));
    let bin = bench.ok("deleted_items?sort=-created_at&filter[item_type]=task").await;
    assert_eq!(bin["data"][0]["attributes"]["item_id"].to_string(), task["id"].as_str().expect("an id"));
    bench.control("restore", json!({ "collection": "tasks", "id": task["id"] })).await;
    assert_eq!(receiver.next_body().await["object"]["data"]["attributes"]["title"], "new");
    assert_eq!(bench.ok("deleted_items").await["meta"]["total_count"], 0);
}

#[tokio::test]
async fn failures_are_retried_and_the_webhook_is_switched_off_after_the_last() {
    let bench = Bench::new(Options { retries: 2, retries_over_ms: 40, ..unlimited() }).await;
    let mut receiver = Receiver::new(vec![500, 503, 200, 500, 404, 301]).await;
    let hook = bench.register(24, &receiver.url).await.body["data"]["id"].as_str().expect("an id").to_owned();
    let id = some_task(&bench).await;
    rename(&bench, &id, "twice refused").await;
    let first = receiver.next().await.1;
    assert_eq!(receiver.next().await.1, first);
    assert_eq!(receiver.next().await.1, first);
    bench.control("quiesce", json!({})).await;
    assert_eq!(bench.ok(&format!("webhooks/{hook}")).await["data"]["attributes"]["deactivated_at"], Value::Null);
    rename(&bench, &id, "always refused").await;
    bench.control("quiesce", json!({})).await;
    let attributes = bench.ok(&format!("webhooks/{hook}")).await["data"]["attributes"].clone();
    assert!(attributes["deactivated_at"].is_string());
    assert_eq!(attributes["state_id"], 2);
    let counts = bench.report().await["deliveries"].clone();
    assert_eq!((&counts["sent"], &counts["2xx"], &counts["retried"], &counts["given_up"]), (&json!(6), &json!(1), &json!(4), &json!(1)));
    let logs = bench.ok(&format!("webhook_logs?filter[webhook_id]={hook}")).await;
    assert_eq!(logs["meta"]["total_count"], 5);
    assert_eq!(logs["data"][0]["attributes"]["payload"]["event"], "update_task");
    rename(&bench, &id, "nobody listens").await;
    assert_eq!(bench.report().await["deliveries"]["queued"], 2);
}

#[tokio::test]
async fn a_cap_drops_or_delays() {
    for (then, per_ms, count, sent) in [(OverCap::Drop, 60_000, "dropped_over_cap", 2), (OverCap::Delay, 2_000, "delayed_over_cap", 3)] {
        let options = Options { hook_cap: 2, hook_cap_per_ms: per_ms, hook_cap_then: then, ..unlimited() };
        let bench = Bench::new(options).await;
        let receiver = Receiver::new(Vec::new()).await;
        bench.register(24, &receiver.url).await;
        let id = some_task(&bench).await;
        for title in ["a", "b", "c"] {
            rename(&bench, &id, title).await;
        }
        bench.control("quiesce", json!({})).await;
        let counts = bench.report().await["deliveries"].clone();
        assert_eq!((&counts[count], &counts["2xx"]), (&json!(1), &json!(sent)), "{counts}");
    }
}

#[tokio::test]
async fn the_plan_and_the_token_decide_who_may_register() {
    let below = Bench::new(Options { plan: Plan::BelowUltimate, ..unlimited() }).await;
    let refused = below.register(24, "http://localhost:1/").await;
    assert_eq!((refused.status, refused.body["errors"][0]["code"].as_str()), (403, Some("webhooks_limit_exceeded")));
    let read_only = Bench::new(Options { read_only_tokens: vec!["token-a".to_owned()], ..unlimited() }).await;
    let refused = read_only.register(24, "http://localhost:1/").await;
    assert_eq!((refused.status, refused.body["errors"][0].get("code")), (403, None));
    let bench = Bench::new(unlimited()).await;
    assert_eq!(bench.send("POST", "/api/v2/webhooks", None).await.status, 415);
    assert_eq!(bench.register(99, "http://localhost:1/").await.status, 422);
    assert_eq!(bench.report().await["violations_total"], 0);
}

#[tokio::test]
async fn churn_leaves_changes_activities_and_versions() {
    let bench = Bench::new(unlimited()).await;
    let mut receiver = Receiver::new(Vec::new()).await;
    for event in [1, 24, 25, 7, 8, 9] {
        bench.register(event, &receiver.url).await;
    }
    bench.control("churn", json!({ "changes": 400, "per_second": 5000, "kinds": "hooks", "seed": 4 })).await;
    bench.control("quiesce", json!({ "timeout_ms": PATIENCE.as_millis() as u64 })).await;
    let changes = bench.send("GET", "/__sandbox/changes?after=0", None).await.body;
    let changes = changes.as_array().expect("a list");
    assert!(changes.len() >= 400);
    let of = |operation: &str| changes.iter().filter(|change| change["operation"] == operation).count();
    for operation in ["create", "update", "delete", "restore", "archive", "move"] {
        assert!(of(operation) > 0, "{operation}");
    }
    assert_eq!(changes[9]["n"], 10);
    let told = |collection: &str| changes.iter().filter(|change| change["collection"] == collection).count();
    let mut received = 0;
    while receiver.deliveries.try_recv().is_ok() {
        received += 1;
    }
    assert_eq!(received, told("tasks") + told("time_entries"));
    let feed = bench.walk("activities?sort=created_at&page[after]=&page[size]=200").await;
    assert_eq!(feed.len(), changes.len());
    assert!(ids(&feed).is_sorted());
    let latest = bench.ok("activities?sort=-created_at&page[size]=1").await;
    assert_eq!(latest["data"][0]["id"], feed[feed.len() - 1]["id"]);
    let versions = bench.ok("time_entry_versions").await["meta"]["total_count"].as_u64();
    assert_eq!(versions, Some(told("time_entries") as u64));
    // Nothing dangles: every task's relations exist.
    for task in bench.truth("tasks?page[size]=200&include=*").await["data"].as_array().expect("a list") {
        let list = task["relationships"]["task_list"]["data"]["id"].as_str().expect("a task list");
        assert_eq!(bench.get(&format!("task_lists/{list}")).await.status, 200);
    }
}

#[tokio::test]
async fn equal_seeds_make_equal_churns() {
    let mut logs = Vec::new();
    for _ in 0..2 {
        let bench = Bench::new(unlimited()).await;
        bench.control("churn", json!({ "changes": 200, "per_second": 10000, "seed": 9 })).await;
        bench.control("quiesce", json!({})).await;
        let changes = bench.send("GET", "/__sandbox/changes", None).await.body;
        let line = |change: &Value| (change["collection"].clone(), change["id"].clone(), change["operation"].clone());
        logs.push(changes.as_array().expect("a list").iter().map(line).collect::<Vec<_>>());
    }
    assert_eq!(logs[0], logs[1]);
}
