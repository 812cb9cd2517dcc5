//! A PIM's Event Platform: it loses events, the way is cut until the vendor suspends the subscription, and the subscription is dead:
//! suspended, or deleted by somebody else.

use std::time::Duration;

use serde_json::{Value, json};

use super::{CHANGES, Costs, EQUAL_WITHIN, SOON, each_over, gate, judged, logged, missed, opened, outage, repaired, unannounced, watch};
use crate::support::{Database, Gate, Pim, Universe, eventually, monotonic, on_both, pim};

on_both!(
    a_pims_lost_events_are_noticed,
    a_way_that_is_cut_is_noticed,
    a_subscription_that_is_suspended_is_noticed,
    a_subscription_that_is_deleted_is_noticed,
);

const PRODUCTS: &str = "products";

async fn a_pims_lost_events_are_noticed(database: Database) {
    let pim = Pim { resources: vec![(PRODUCTS, "poll = \"5s\", sweep = \"24h\"")], ..watched() };
    let universe = pim.started(database).await;
    pim::subscribe(&universe, false, true).await;
    let keys = heard(&universe).await;
    let costs = Costs::from_now(&universe).await;
    universe.sandbox.control("faults", json!({ "event_platform_lost": 1.0 })).await;
    switch(&universe, &keys[..CHANGES], false, outage()).await;
    universe.sandbox.control("faults", json!({ "event_platform_lost": 0.0 })).await;
    let ended = monotonic();
    in_step(&universe, EQUAL_WITHIN).await;
    let equal = monotonic() - ended;
    repaired(&universe, "silence").await;
    let lost = platform(&universe).await["counts"]["lost"].as_u64().expect("some were lost");
    // A poll in five seconds, and the sweeps that gaps ask for where nothing tells of deletes.
    let (sweep, figures) = (pages(&keys), format!("pim: equal {equal:.1?} after {:?}, {lost} lost", outage()));
    costs.judge(&universe, &figures, |seconds| seconds / 5 + 2 + 2 * sweep).await;
    missed(&universe, "pim", lost).await;
    told(&universe, &keys, lost).await;
}

/// The vendor suspends a subscription whose deliveries fail; it is resumed as often as that is seen, here every two seconds.
async fn a_way_that_is_cut_is_noticed(database: Database) {
    let (universe, gate, keys) = behind_a_gate(database).await;
    let (costs, before) = (Costs::from_now(&universe).await, logged(&universe).await);
    gate.cut();
    switch(&universe, &keys[..CHANGES], false, outage()).await;
    let lost = unannounced(&universe, before).await;
    opened(&universe, "public_url").await;
    opened(&universe, "registration").await;
    let noticed = costs.took();
    gate.open();
    let ended = monotonic();
    in_step(&universe, EQUAL_WITHIN).await;
    let equal = monotonic() - ended;
    repaired(&universe, "public_url").await;
    assert_eq!(lost, CHANGES as u64, "none was announced");
    let suspended = platform(&universe).await["suspensions"].as_array().map_or(0, Vec::len) as u64;
    let figures =
        format!("pim cut: noticed after {noticed:.1?}, equal {equal:.1?} after it was free, {suspended} suspensions, {lost} lost");
    // A sweep when the way is free, and one for each suspension's own gap; two requests a look; a suspension costs its resumption and a
    // look at once.
    let sweep = pages(&keys);
    costs.judge(&universe, &figures, |seconds| sweep + 2 * (seconds / 2 + 1) + (sweep + 3) * suspended).await;
    missed(&universe, "pim", lost).await;
    told(&universe, &keys, lost).await;
}

async fn a_subscription_that_is_suspended_is_noticed(database: Database) {
    // One request resumes it.
    a_dead_subscription_is_noticed(database, "suspend_by_system", 1).await;
}

async fn a_subscription_that_is_deleted_is_noticed(database: Database) {
    // It is made again between two looks.
    a_dead_subscription_is_noticed(database, "delete", 1 + 2 * 2).await;
}

async fn a_dead_subscription_is_noticed(database: Database, how: &str, mending: u64) {
    let (universe, _gate, keys) = behind_a_gate(database).await;
    let (costs, before) = (Costs::from_now(&universe).await, logged(&universe).await);
    universe.sandbox.control("subscription", json!({ "event_platform": { how: true } })).await;
    switch(&universe, &keys[..CHANGES], false, Duration::ZERO).await;
    let lost = unannounced(&universe, before).await;
    opened(&universe, "registration").await;
    let noticed = costs.took();
    repaired(&universe, "registration").await;
    in_step(&universe, EQUAL_WITHIN).await;
    let equal = costs.took();
    assert!(lost >= CHANGES as u64 / 2, "{lost} were announced to nobody: a look may have come in between, but not at once");
    // A sweep, putting it right and a look after it; two requests a look.
    let (sweep, figures) = (pages(&keys), format!("pim {how}: noticed after {noticed:.1?}, equal after {equal:.1?}, {lost} lost"));
    costs.judge(&universe, &figures, |seconds| sweep + mending + 2 + 2 * (seconds / 2 + 1)).await;
    missed(&universe, "pim", lost).await;
    let standing = platform(&universe).await["subscriptions"].take();
    assert_eq!((standing.as_array().map(Vec::len), &standing[0]["status"]), (Some(1), &json!("active")), "{standing}");
    told(&universe, &keys, lost).await;
}

/// Products alone, of which nothing comes by itself within an hour.
fn watched() -> Pim {
    Pim { entities: 120, resources: vec![(PRODUCTS, "poll = \"1h\", sweep = \"24h\"")], source: watch!(), ..Pim::default() }
}

/// A universe that manages its subscription, is delivered to by way of a gate and has heard a few events, and its products.
async fn behind_a_gate(database: Database) -> (Universe, Gate, Vec<String>) {
    let (gate, own) = gate().await;
    // 35 minutes of retries and an hour between two resumptions are seconds here.
    let sandbox = vec!["--platform-retry-scale", "0.00001", "--platform-resumes-max", "1000"];
    let universe = Pim { subscribes: true, ports: Some((gate.port, own)), sandbox, ..watched() }.started(database).await;
    let created = universe.verb(&["hooks", "create", "pim"]);
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let keys = heard(&universe).await;
    (universe, gate, keys)
}

/// Every one is switched on, so that switching it off is a change, and that much is told.
async fn heard(universe: &Universe) -> Vec<String> {
    let keys: Vec<String> = pim::truth(&universe.sandbox, PRODUCTS).await.into_keys().collect();
    switch(universe, &keys[..CHANGES + 5], true, Duration::ZERO).await;
    universe.sandbox.quiet(SOON).await;
    in_step(universe, SOON).await;
    // By then the deliveries of before are no longer near to what is lost.
    judged(universe).await;
    missed(universe, "pim", 0).await;
    keys
}

/// What is told is not missed, after a gap as before it.
async fn told(universe: &Universe, keys: &[String], lost: u64) {
    let active = async || match platform(universe).await["subscriptions"][0]["status"].take() {
        Value::String(status) if status == "active" => Ok(()),
        other => Err(other.to_string()),
    };
    eventually("the subscription is active", SOON, active).await;
    let before = logged(universe).await;
    switch(universe, &keys[CHANGES..CHANGES + 5], false, Duration::ZERO).await;
    assert_eq!(unannounced(universe, before).await, 0, "it delivers");
    in_step(universe, SOON).await;
    missed(universe, "pim", lost).await;
}

/// Whatever family and model a product has, whether it is enabled is its own.
pub(super) async fn switch(universe: &Universe, keys: &[String], enabled: bool, span: Duration) {
    each_over(span, keys, async |key| {
        pim::change(universe, "update", PRODUCTS, Some(key), json!({ "fields": { "enabled": enabled } })).await;
    })
    .await;
}

async fn in_step(universe: &Universe, deadline: Duration) {
    pim::in_step(universe, &[PRODUCTS], deadline).await;
}

async fn platform(universe: &Universe) -> Value {
    universe.sandbox.report().await["deliveries"]["event_platform"].take()
}

/// Pages of a sweep: behind a full one there is another.
fn pages(keys: &[String]) -> u64 {
    keys.len() as u64 / 100 + 1
}
