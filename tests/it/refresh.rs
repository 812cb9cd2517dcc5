//! A record is read when somebody asks for that: once for all who ask, within a share of the quota, and by the rule.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::universe::about_task;
use crate::support::{Database, Setup, Universe, eventually, on_both};

on_both!(
    two_hundred_at_once_are_one_request,
    beyond_its_share_a_refresh_waits,
    a_refresh_goes_by_the_rule,
    a_refresh_overtakes_marks_that_wait
);

const SOON: Duration = Duration::from_secs(30);

/// Every record was compared by the first sweep, and long enough ago to be read again.
async fn started(database: Database, setup: &Setup) -> (Universe, Api) {
    let (universe, api) = Api::started(database, setup).await;
    for key in universe.sandbox.keys("tasks").await {
        aged(&api, &key).await;
    }
    (universe, api)
}

/// Waits until the record would be read again: what was compared within the last second is not.
async fn aged(api: &Api, key: &str) {
    eventually("the comparison is older than a second", SOON, async || {
        let age = api.get(&Api::task(key)).await.body["age_s"].as_f64().unwrap_or_default();
        if age > 1.0 { Ok(()) } else { Err(format!("{age} s")) }
    })
    .await;
}

/// Requests for tasks that reached the upstream, whatever it answered.
async fn asked(universe: &Universe) -> u64 {
    let report = universe.sandbox.report().await;
    let rows = report["requests"].as_array().cloned().unwrap_or_default();
    rows.iter().filter(|row| row["collection"] == "tasks").filter_map(|row| row["count"].as_u64()).sum()
}

async fn two_hundred_at_once_are_one_request(database: Database) {
    const CALLERS: usize = 200;
    let (universe, api) = started(database, &Setup { entities: 100, ..Setup::default() }).await;
    let key = universe.sandbox.keys("tasks").await.remove(0);
    universe.sandbox.change_silently("tasks", &key, json!({ "title": "only a read shows this" })).await;
    let before = asked(&universe).await;
    let answers = api.post_at_once(&format!("{}/refresh", Api::task(&key)), CALLERS).await;
    let n_asked = asked(&universe).await - before;
    let n_fresh = answers
        .iter()
        .filter(|(status, row)| {
            *status == 200 && row["payload"]["attributes"]["title"] == "only a read shows this" && row["stale"] == false
        })
        .count();
    println!("refresh {:?}: {CALLERS} at once, {n_fresh} fresh answers, {n_asked} requests upstream", universe.database.engine);
    assert_eq!((n_fresh, n_asked), (CALLERS, 1), "{:?}", answers.iter().find(|(status, _)| *status != 200));
    let learned = universe.database.texts(&format!("select learned_by as v from instep_changes where key = '{key}' order by number")).await;
    assert_eq!(learned.last().map(String::as_str), Some("refresh"));
    universe.idle(SOON).await;
    assert_eq!(asked(&universe).await - before, 1, "no mark is left that would ask again");
}

async fn beyond_its_share_a_refresh_waits(database: Database) {
    // A twentieth of 100 in 10 s.
    let setup = Setup {
        entities: 100,
        quota: "refresh_share = 0.05\nquota = [{ requests = 100, per = \"10s\" }, { concurrent = 8 }]",
        ..Setup::default()
    };
    let (universe, api) = started(database, &setup).await;
    let keys = universe.sandbox.keys("tasks").await;
    let before = asked(&universe).await;
    let mut answers = Vec::new();
    for key in keys.iter().take(12) {
        answers.push(api.post(&format!("{}/refresh", Api::task(key))).await);
    }
    let n_asked = asked(&universe).await - before;
    let n_fresh = answers.iter().filter(|answer| answer.status == 200).count();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    let usable = universe.status().await.expect("a status")["sources"]["pmp"]["limiter"]["limits"][0]["usable"].as_u64().expect("a number");
    println!("refresh {:?}: of 12 {n_fresh} were read, {} refused, {n_asked} requests upstream", universe.database.engine, refused.len());
    assert_eq!((n_fresh as u64, n_asked, n_fresh + refused.len()), (usable / 20, usable / 20, 12));
    for answer in &refused {
        let wait: u64 = answer.header("retry-after").and_then(|text| text.parse().ok()).expect("Retry-After");
        assert!((1..=10).contains(&wait), "{wait}");
        assert!(answer.body["age_s"].as_f64().is_some_and(|age| age > 0.0) && answer.body["stale"] == true, "{:?}", answer.body);
    }
    // Whoever reads gets what is held, and is told.
    let stale = api.get(&format!("{}?max_age=0", Api::task(&keys[11]))).await;
    assert_eq!((stale.status, stale.header("warning"), &stale.body["stale"]), (200, Some("110 - \"Response is Stale\""), &json!(true)));
    assert!(stale.header("retry-after").is_some());
    let verb = universe.verb(&["refresh", "pmp", "tasks", &keys[10]]);
    assert_eq!(verb.status.code(), Some(75), "{}", String::from_utf8_lossy(&verb.stderr));
    // Live marks have the rest of the quota.
    universe.deliver_surely("task-updated", about_task(&keys[11], "a hint")).await;
    universe.idle(SOON).await;
    eventually("the share comes back", SOON, async || match api.post(&format!("{}/refresh", Api::task(&keys[10]))).await.status {
        200 => Ok(()),
        status => Err(status.to_string()),
    })
    .await;
}

async fn a_refresh_goes_by_the_rule(database: Database) {
    let (universe, api) = started(database, &Setup { entities: 100, ..Setup::default() }).await;
    let keys = universe.sandbox.keys("tasks").await;
    let verb = |key: &str| {
        let output = universe.verb(&["refresh", "pmp", "tasks", key]);
        let row: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.code(), row)
    };
    // What is gone is confirmed as any absence is: by a control, out of the removal budget.
    universe.sandbox.control("delete", json!({ "collection": "tasks", "id": keys[0], "announce": false })).await;
    let gone = api.post(&format!("{}/refresh", Api::task(&keys[0]))).await;
    assert_eq!((gone.status, &gone.body["deleted"], &gone.body["payload"]), (410, &json!(true), &Value::Null));
    universe.sandbox.control("restore", json!({ "collection": "tasks", "id": keys[0], "announce": false })).await;
    aged(&api, &keys[0]).await;
    let (code, row) = verb(&keys[0]);
    assert_eq!((code, &row["deleted"]), (Some(0), &json!(false)), "a read by key revives: {row}");
    // An upstream that fails changes nothing.
    universe.sandbox.change_silently("tasks", &keys[1], json!({ "title": "not to be seen" })).await;
    universe.sandbox.control("faults", json!({ "upstream_5xx": 1.0 })).await;
    let failed = api.post(&format!("{}/refresh", Api::task(&keys[1]))).await;
    assert_eq!((failed.status, &failed.body["stale"]), (504, &json!(true)), "{failed:?}");
    assert!(failed.body["payload"]["attributes"]["title"] != "not to be seen" && failed.body["why"].is_string(), "{failed:?}");
    universe.sandbox.control("faults", json!({ "upstream_5xx": 0.0 })).await;
    universe.idle(SOON).await;
    // What nobody has heard of is asked for, and not found.
    let (code, row) = verb("999999999");
    println!("refresh {:?}: what is not there: {row}", universe.database.engine);
    assert_eq!((code, &row["deleted"], &row["change"]), (Some(0), &json!(true), &json!(0)));
    assert_eq!(api.get(&Api::task("999999999")).await.status, 404, "it was never held");
    universe.in_step(SOON).await;
    for (arguments, why) in [(["refresh", "pmp", "nothing", "1"], "has no resource"), (["refresh", "pmp", "tasks", "."], "the key holds")] {
        let refused = universe.verb(&arguments);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(1) && said.contains(why), "{arguments:?}: {said}");
    }
}

async fn a_refresh_overtakes_marks_that_wait(database: Database) {
    // Of 20 in 10 s four may be refreshes.
    let setup = Setup {
        entities: 150,
        sandbox: ["--no-id-filter", "tasks"].map(str::to_owned).to_vec(),
        quota: "quota = [{ requests = 20, per = \"10s\" }, { concurrent = 4 }]",
        ..Setup::default()
    };
    let (universe, api) = started(database, &setup).await;
    let keys = universe.sandbox.keys("tasks").await;
    let sandbox = &universe.sandbox;
    // Bulk reads are refused, so that every mark wants a request of its own and the quota is spent soon.
    for key in &keys {
        sandbox.change_silently("tasks", key, json!({ "title": "changed" })).await;
    }
    let waiting = async || universe.status().await.expect("a status")["sources"]["pmp"]["limiter"]["waiting"].as_u64().unwrap_or(0);
    eventually("a mark waits for a permit", SOON, async || {
        for key in &keys[1..] {
            universe.deliver_surely("task-updated", about_task(key, &uuid::Uuid::now_v7().to_string())).await;
        }
        if waiting().await > 0 { Ok(()) } else { Err("none does".to_owned()) }
    })
    .await;
    let answer = api.get(&format!("{}?max_age=1ms&timeout=15s", Api::task(&keys[0]))).await;
    assert_eq!((answer.status, &answer.body["payload"]["attributes"]["title"]), (200, &json!("changed")), "{}", answer.body["why"]);
    universe.in_step(Duration::from_secs(60)).await;
}
