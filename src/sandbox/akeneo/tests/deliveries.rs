//! The Events API, and what the log says of changes.

use serde_json::{Value, json};

use super::{Bench, Options, PATIENCE, Receiver, small, text};
use crate::sandbox::akeneo::{Faults, signature};

async fn with_receiver(options: Options, script: Vec<u16>) -> (Bench, Receiver) {
    let receiver = Receiver::new(script).await;
    let bench = Bench::new(Options { events_url: receiver.url.clone(), ..options }).await;
    (bench, receiver)
}

async fn some_product(bench: &Bench) -> String {
    text(&bench.items("products-uuid?limit=1").await[0]["uuid"]).to_owned()
}

#[tokio::test]
async fn an_update_carries_the_whole_product_signed() {
    let (bench, mut receiver) = with_receiver(small(), Vec::new()).await;
    let key = some_product(&bench).await;
    bench.control("update", json!({ "resource": "products", "key": key })).await;
    let (headers, body) = receiver.next().await;
    let header = |name: &str| headers[name].to_str().expect("text").to_owned();
    let seconds: i64 = header("x-akeneo-request-timestamp").parse().expect("seconds");
    assert_eq!(header("x-akeneo-request-signature"), signature::events_api("events-api-secret", seconds, &body));
    assert!(!String::from_utf8_lossy(&body).contains("http://"), "slashes are escaped");
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let event = &body["events"][0];
    assert_eq!((&event["action"], &event["author"], &event["author_type"]), (&json!("product.updated"), &json!("julia"), &json!("ui")));
    assert!(event["event_datetime"].is_string() && event["event_id"].is_string());
    assert_eq!(event["pim_source"], bench.sandbox.url());
    let mut read = bench.ok(&format!("products-uuid/{key}")).await;
    read.as_object_mut().expect("a document").remove("_links");
    assert_eq!(event["data"]["resource"], read);
    bench.control("quiesce", json!({})).await;
    let change = bench.last_change().await;
    assert_eq!(
        (&change["resource"], &change["operation"], &change["announced"]),
        (&json!("products"), &json!("update"), &json!(["events_api"]))
    );
    assert!(change["settled_at_us"].as_i64() >= change["at_us"].as_i64());
    let report = bench.report().await;
    let row = json!({ "all": 1, "events_api": 1, "event_platform": 0, "both": 0, "none": 0 });
    assert_eq!(report["coverage"], json!([{ "resource": "products", "operation": "update", "changes": row, "keys": row }]));
    assert_eq!(report["deliveries"]["events_api"]["acks"]["count"], 1);
}

#[tokio::test]
async fn the_body_is_read_when_it_is_sent() {
    let faults = Faults { events_api_delayed: 1.0, hooks_delay_max_ms: 1, ..Faults::default() };
    let (bench, mut receiver) =
        with_receiver(Options { faults, events_date_alias: true, events_by_identifier: true, ..small() }, Vec::new()).await;
    let created =
        bench.control("create", json!({ "resource": "products", "fields": { "identifier": "gone" }, "author_type": "api" })).await;
    bench.control("delete", json!({ "resource": "products", "key": created["key"] })).await;
    let body = receiver.next_body().await;
    let events = body["events"].as_array().expect("a list");
    assert_eq!(events.len(), 1, "what was created is gone");
    assert_eq!(
        (&events[0]["action"], &events[0]["data"]["resource"]),
        (&json!("product.removed"), &json!({ "uuid": created["key"], "identifier": "gone" }))
    );
    assert!(events[0]["event_date"].is_string() && events[0].get("event_datetime").is_none());
    bench.control("quiesce", json!({})).await;
    assert_eq!(bench.report().await["deliveries"]["events_api"]["counts"]["not_found"], 1);
}

#[tokio::test]
async fn a_model_takes_its_descendants_with_it_without_a_word() {
    let (bench, mut receiver) = with_receiver(small(), Vec::new()).await;
    let roots = bench.search("product-models?limit=100", json!({ "parent": [{ "operator": "EMPTY" }] })).await;
    let root = text(&roots[0]["code"]).to_owned();
    let variants = bench.search("products-uuid?limit=100", json!({ "parent": [{ "operator": "=", "value": root }] })).await;
    bench.control("delete", json!({ "resource": "product-models", "key": root })).await;
    let body = receiver.next_body().await;
    assert_eq!(body["events"][0]["action"], "product_model.removed");
    assert_eq!(body["events"][0]["data"]["resource"], json!({ "code": root }));
    bench.control("quiesce", json!({})).await;
    assert!(receiver.deliveries.try_recv().is_err(), "nothing else is told");
    for variant in &variants {
        assert_eq!(bench.get(&format!("products-uuid/{}", text(&variant["uuid"]))).await.status, 404);
    }
    let coverage = bench.report().await["coverage"].clone();
    let of_products = coverage.as_array().expect("a list").iter().find(|row| row["resource"] == "products").expect("products");
    assert_eq!(of_products["changes"]["none"], json!(variants.len()));
}

#[tokio::test]
async fn imports_come_in_tens_and_own_changes_not_at_all() {
    let (bench, mut receiver) = with_receiver(Options { events_in_flight: 1, ..small() }, Vec::new()).await;
    bench.control("churn", json!({ "changes": 200, "per_second": 100_000, "resources": ["products"], "removals": 0 })).await;
    bench.control("quiesce", json!({})).await;
    let mut sizes = Vec::new();
    while let Ok((_, body)) = receiver.deliveries.try_recv() {
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        sizes.push(body["events"].as_array().expect("a list").len());
    }
    assert!(sizes.iter().sum::<usize>() >= 200 && sizes.iter().max() == Some(&10), "{sizes:?}");
    let key = some_product(&bench).await;
    bench.control("update", json!({ "resource": "products", "key": key, "author": "instep_0001", "author_type": "api" })).await;
    bench.control("update", json!({ "resource": "families", "key": "family_1" })).await;
    bench.control("quiesce", json!({})).await;
    assert!(receiver.deliveries.try_recv().is_err());
    assert_eq!(bench.report().await["deliveries"]["events_api"]["counts"]["suppressed"], 1);
}

#[tokio::test]
async fn there_is_no_second_try_and_the_hour_has_an_end() {
    let hour = Options { events_requests_per_hour: 2, events_hour_ms: 3_600_000, events_age_max_ms: 7_200_000, ..small() };
    let (bench, mut receiver) = with_receiver(hour, vec![500, 200]).await;
    let key = some_product(&bench).await;
    for _ in 0..3 {
        bench.control("update", json!({ "resource": "products", "key": key })).await;
    }
    receiver.next().await;
    receiver.next().await;
    let settled = async {
        while bench.report().await["deliveries"]["events_api"]["counts"]["2xx"] != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.expect("both are answered");
    let report = bench.report().await["deliveries"]["events_api"].clone();
    assert_eq!((&report["counts"]["5xx"], &report["waiting"]), (&json!(1), &json!(1)), "{report}");
    assert!(receiver.deliveries.try_recv().is_err());
}

#[tokio::test]
async fn the_probe_is_empty_and_signed() {
    let (bench, mut receiver) = with_receiver(small(), Vec::new()).await;
    let shown = bench.control("subscription", json!({ "events_api": { "secret": "a_secret", "probe": true } })).await;
    assert_eq!(shown["events_api"]["probe_status"], 200);
    let (headers, body) = receiver.next().await;
    assert!(body.is_empty());
    let seconds = headers["x-akeneo-request-timestamp"].to_str().expect("text").parse().expect("seconds");
    assert_eq!(headers["x-akeneo-request-signature"], signature::events_api("a_secret", seconds, b"").as_str());
}

#[tokio::test]
async fn two_changes_may_share_a_second_and_some_leave_no_trace() {
    let (bench, mut receiver) = with_receiver(small(), Vec::new()).await;
    let key = some_product(&bench).await;
    let answer =
        bench.control("update", json!({ "resource": "products", "key": key, "fields": { "enabled": false }, "same_second": true })).await;
    assert_eq!(answer["change"], 2);
    let (first, second) = (receiver.next_body().await, receiver.next_body().await);
    let updated = |body: &Value| body["events"][0]["data"]["resource"]["updated"].clone();
    assert_eq!(updated(&first), updated(&second));
    let before = bench.ok(&format!("products-uuid/{key}")).await;
    bench.control("update", json!({ "resource": "products", "key": key, "fields": { "enabled": true }, "announce": false })).await;
    let after = bench.ok(&format!("products-uuid/{key}")).await;
    assert_eq!((&after["updated"], &after["enabled"]), (&before["updated"], &json!(true)));
    let tampered = bench.control("tamper", json!({ "records": 4 })).await;
    assert_eq!(tampered["records"].as_array().map(Vec::len), Some(4));
    assert_eq!(bench.report().await["changes"], 2);
    bench.control("delete", json!({ "resource": "products", "key": key })).await;
    bench.control("restore", json!({ "resource": "products", "key": key })).await;
    assert_eq!(receiver.next_body().await["events"][0]["action"], "product.removed");
    assert_eq!(receiver.next_body().await["events"][0]["action"], "product.created");
}

#[tokio::test]
async fn lost_and_duplicated_events_are_counted() {
    let faults = Faults { events_api_lost: 0.2, events_api_duplicated: 0.2, events_api_reordered: 0.1, ..Faults::default() };
    let (bench, mut receiver) = with_receiver(Options { faults, ..small() }, Vec::new()).await;
    bench.control("churn", json!({ "changes": 100, "per_second": 10_000, "resources": ["products"], "removals": 0 })).await;
    bench.control("quiesce", json!({})).await;
    let mut n_events = 0;
    while let Ok((_, body)) = receiver.deliveries.try_recv() {
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        n_events += body["events"].as_array().map_or(0, Vec::len) as u64;
    }
    let report = bench.report().await;
    let count = |name: &str| report["deliveries"]["events_api"]["counts"][name].as_u64().unwrap_or(0);
    let twice = report["faults"]["events_api_duplicated"]["count"].as_u64().expect("a count");
    assert!(count("lost") > 0 && twice > 0);
    assert_eq!(n_events, count("queued") - count("lost") + twice);
    assert_eq!(report["never_happened"], json!([]));
    let none: u64 = report["coverage"].as_array().expect("rows").iter().filter_map(|row| row["changes"]["none"].as_u64()).sum();
    assert_eq!(none, count("lost"));
}

#[tokio::test]
async fn who_does_not_answer_in_time_has_lost_the_event() {
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let events_url = format!("http://{}/", deaf.local_addr().expect("an address"));
    let bench = Bench::new(Options { events_url, events_timeout_ms: 50, ..small() }).await;
    let key = some_product(&bench).await;
    bench.control("update", json!({ "resource": "products", "key": key })).await;
    bench.control("quiesce", json!({})).await;
    let report = bench.report().await["deliveries"]["events_api"].clone();
    assert_eq!((&report["counts"]["unanswered"], &report["acks"]["count"]), (&json!(1), &json!(0)));
    let change = bench.last_change().await;
    assert_eq!(change["announced"], json!([]));
    assert!(change["settled_at_us"].as_i64().expect("settled") - change["at_us"].as_i64().expect("a stamp") >= 50_000);
}

#[tokio::test]
async fn what_waits_too_long_is_discarded() {
    let faults = Faults { events_api_delayed: 1.0, hooks_delay_max_ms: 1, ..Faults::default() };
    let (bench, mut receiver) = with_receiver(Options { faults, events_age_max_ms: 0, ..small() }, Vec::new()).await;
    let key = some_product(&bench).await;
    bench.control("update", json!({ "resource": "products", "key": key })).await;
    bench.control("quiesce", json!({})).await;
    assert!(receiver.deliveries.try_recv().is_err());
    assert_eq!(bench.report().await["deliveries"]["events_api"]["counts"]["too_old"], 1);
}
