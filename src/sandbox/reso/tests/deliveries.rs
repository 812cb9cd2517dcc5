//! The push: its form, and what it makes of receivers that refuse, are late or ask to wait.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Bench, Options, PATIENCE, Receiver, seen, small, text};
use crate::sandbox::reso::Faults;

fn to(receiver: &Receiver) -> Options {
    Options { push_url: receiver.url.clone(), push_label: "demo-feed".to_owned(), push_retry_ms: 10, ..small() }
}

#[tokio::test]
async fn a_change_is_pushed_as_the_standard_writes_it() {
    let mut receiver = Receiver::new(Vec::new()).await;
    let bench = Bench::new(to(&receiver)).await;
    bench.control("update", json!({ "resource": "Member", "key": "M0000001" })).await;
    let (headers, body) = receiver.next().await;
    assert_eq!(headers["authorization"], "Bearer push-token");
    assert_eq!(headers["entityeventsource"], "demo-feed");
    assert_eq!(headers["content-type"], "application/json");
    let body: Value = serde_json::from_slice(&body).expect("an object");
    let last = bench.report().await["events"]["last"].clone();
    let wanted = json!({
        "@reso.context": "urn:reso:metadata:2.0:resource:entityevent",
        "EntityEventSequence": last, "ResourceName": "Member", "ResourceRecordKey": "M0000001",
    });
    assert_eq!(body, wanted);
    bench.control("quiesce", json!({})).await;
    assert_eq!(bench.changes().await[0]["announced"], json!(["push"]));
}

#[tokio::test]
async fn the_whole_log_is_pushed_in_batches() {
    let mut receiver = Receiver::new(Vec::new()).await;
    let bench = Bench::new(Options { events_at_start: 1_000, push_batch: 300, ..to(&receiver) }).await;
    bench.control("push", json!({ "from": 1 })).await;
    bench.control("quiesce", json!({})).await;
    let mut numbers = Vec::new();
    for _ in 0..4 {
        let body = receiver.next_body().await;
        assert_eq!(text(&body["@reso.context"]), "urn:reso:metadata:2.0:resource:entityevent");
        numbers.extend(body["value"].as_array().expect("a batch").iter().filter_map(|event| event["EntityEventSequence"].as_u64()));
    }
    assert_eq!(numbers, (1..=1_000).collect::<Vec<u64>>());
    assert_eq!(bench.report().await["push"]["sent"], 1_000);
}

#[tokio::test]
async fn failures_are_tried_again_until_the_push_stops_and_is_resumed() {
    let mut receiver = Receiver::new(vec![500, 503, 500]).await;
    let bench = Bench::new(Options { push_failures_max: 3, ..to(&receiver) }).await;
    bench.control("update", json!({ "resource": "Member", "key": "M0000001" })).await;
    for _ in 0..3 {
        receiver.next().await;
    }
    let stops = async {
        while bench.report().await["push"]["is_stopped"] != true {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, stops).await.expect("it stops");
    assert_eq!(bench.client.post(format!("{}/resume", bench.sandbox.url())).send().await.expect("an answer").status(), 401);
    assert_eq!(seen(bench.request("POST", "/resume")).await.status, 200);
    receiver.next().await;
    bench.control("quiesce", json!({})).await;
    let push = bench.report().await["push"].take();
    assert_eq!((&push["stopped"], &push["resumed"], &push["refused"], &push["retried"]), (&json!(1), &json!(1), &json!(3), &json!(3)));
}

#[tokio::test]
async fn a_push_that_forgets_loses_what_happens_while_it_is_stopped() {
    let mut receiver = Receiver::new(vec![500]).await;
    let bench = Bench::new(Options { push_failures_max: 1, push_forgets: true, ..to(&receiver) }).await;
    let change = async |key: &str| bench.control("update", json!({ "resource": "Member", "key": key })).await;
    change("M0000001").await;
    receiver.next().await;
    bench.control("quiesce", json!({})).await;
    change("M0000002").await;
    bench.control("push", json!({ "stop": false })).await;
    change("M0000003").await;
    receiver.next().await;
    bench.control("quiesce", json!({})).await;
    bench.control("push", json!({ "stop": true })).await;
    change("M0000004").await;
    let push = bench.report().await["push"].take();
    assert_eq!((&push["lost_while_stopped"], &push["sent"], &push["waiting"]), (&json!(3), &json!(1), &json!(0)));
    let announced: Vec<bool> = bench.changes().await.iter().map(|change| change["announced"] == json!(["push"])).collect();
    assert_eq!(announced, [false, false, true, false]);
}

#[tokio::test]
async fn an_event_is_given_up_after_its_tries_whatever_was_answered() {
    let mut receiver = Receiver::new(vec![429, 503, 200]).await;
    let bench = Bench::new(Options { push_tries: 2, ..to(&receiver) }).await;
    for key in ["M0000001", "M0000002"] {
        bench.control("update", json!({ "resource": "Member", "key": key })).await;
        bench.control("quiesce", json!({})).await;
    }
    for _ in 0..3 {
        receiver.next().await;
    }
    let push = bench.report().await["push"].take();
    assert_eq!((&push["given_up"], &push["sent"], &push["is_stopped"]), (&json!(1), &json!(1), &json!(false)));
}

/// Answers every request with 429 once, then 200, and says when to come again.
async fn waits_as_told(impatient: bool) -> Value {
    let mut receiver = Receiver::refusing("1").await;
    let bench = Bench::new(Options { push_impatient: impatient, ..to(&receiver) }).await;
    bench.control("update", json!({ "resource": "Member", "key": "M0000001" })).await;
    receiver.next().await;
    receiver.next().await;
    bench.control("quiesce", json!({})).await;
    bench.report().await["push"].take()
}

#[tokio::test]
async fn retry_after_is_honoured_or_not() {
    let honoured = waits_as_told(false).await;
    assert_eq!((&honoured["status_429"], &honoured["retry_after"], &honoured["pauses_honoured"]), (&json!(1), &json!(1), &json!(1)));
    assert!(honoured["waited_ms"].as_u64() >= honoured["asked_to_wait_ms"].as_u64());
    let broken = waits_as_told(true).await;
    assert_eq!((&broken["pauses_broken"], &broken["is_stopped"]), (&json!(1), &json!(false)));
}

#[tokio::test]
async fn pushes_are_lost_doubled_and_overtaken() {
    let mut receiver = Receiver::new(Vec::new()).await;
    let faults = Faults { push_lost: 0.1, push_duplicated: 0.1, push_reordered: 0.2, ..Faults::default() };
    let bench = Bench::new(Options { faults, ..to(&receiver) }).await;
    bench.control("churn", json!({ "changes": 200, "per_second": 100_000 })).await;
    bench.control("quiesce", json!({})).await;
    let push = bench.report().await["push"].take();
    let sent = push["sent"].as_u64().expect("a count");
    let mut numbers = Vec::new();
    for _ in 0..sent {
        numbers.push(receiver.next_body().await["EntityEventSequence"].as_u64().expect("a number"));
    }
    let unlike: BTreeSet<u64> = numbers.iter().copied().collect();
    assert!(unlike.len() < numbers.len(), "some come twice");
    assert!(numbers.windows(2).any(|two| two[0] > two[1]), "some are overtaken");
    assert_eq!(unlike.len() as u64 + push["lost"].as_u64().expect("a count"), bench.changes().await.len() as u64);
}
