//! Productive: the sender drops webhooks, the way is cut, a registration is missing.

use std::time::Duration;

use serde_json::{Value, json};

use super::{CHANGES, Costs, EQUAL_WITHIN, SOON, each_over, gate, judged, opened, outage, repaired, watch};
use crate::support::{Database, Gate, Setup, Universe, eventually, monotonic, on_both};

on_both!(a_sender_that_drops_webhooks_is_noticed, a_way_that_is_cut_is_noticed, a_registration_that_is_missing_is_noticed);

/// Webhooks only, and what the gaps ask for: passes and feeds would not come by themselves within an hour.
fn webhooks_alone(gate: &Gate) -> Setup {
    Setup {
        resources: vec![("tasks", "poll = \"1h\", sweep = \"24h\"")],
        source: concat!("feeds = false\n", watch!()),
        public_port: Some(gate.port),
        ..Setup::default()
    }
}

async fn a_sender_that_drops_webhooks_is_noticed(database: Database) {
    let setup = Setup { resources: vec![("tasks", "poll = \"30s\"")], source: watch!(), ..Setup::default() };
    let universe = Universe::started(database, &setup).await;
    create(&universe);
    let keys = universe.sandbox.keys("tasks").await;
    let told = &keys[CHANGES..CHANGES + 5];
    change(&universe, told, Duration::ZERO).await;
    universe.sandbox.quiet(SOON).await;
    universe.in_step(SOON).await;
    let costs = Costs::from_now(&universe).await;
    universe.sandbox.control("faults", json!({ "hooks_lost": 1.0 })).await;
    change(&universe, &keys[..CHANGES], outage()).await;
    universe.sandbox.control("faults", json!({ "hooks_lost": 0.0 })).await;
    let ended = monotonic();
    universe.in_step(EQUAL_WITHIN).await;
    let equal = monotonic() - ended;
    repaired(&universe, "silence").await;
    let lost = universe.sandbox.report().await["deliveries"]["lost"].as_u64().expect("some were lost");
    // Two feeds a second with what they tell fetched in one request each; polls, the gap's pass and registrations.
    let figures = format!("dropped: equal {equal:.1?} after {:?}, {lost} missed", outage());
    costs.judge(&universe, &figures, |seconds| 3 * seconds + (seconds / 30 + 2) + (seconds / 2 + 1)).await;
    missed(&universe, lost).await;
    // What is told is not missed, after a gap as before it.
    change(&universe, told, Duration::ZERO).await;
    universe.in_step(SOON).await;
    judged(&universe).await;
    missed(&universe, lost).await;
}

async fn a_way_that_is_cut_is_noticed(database: Database) {
    let (mut universe, gate) = behind_a_gate(database).await;
    let keys = universe.sandbox.keys("tasks").await;
    eventually("the way is seen to be free", SOON, async || match universe.gauge("public_url_ok", "pmp").await {
        Some(1.0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let made_up = universe.client.post(format!("http://127.0.0.1:{}/hooks/pmp/probe", gate.port)).header("instep-probe", "00.00");
    assert_eq!(made_up.send().await.expect("an answer").status(), 401, "a stranger's");
    let costs = Costs::from_now(&universe).await;
    gate.cut();
    change(&universe, &keys[..CHANGES], outage()).await;
    opened(&universe, "public_url").await;
    let noticed = costs.took();
    assert_eq!(universe.gauge("public_url_ok", "pmp").await, Some(0.0));
    let status = universe.status().await.expect("it answers");
    let tells = |wrong: &Value| wrong.as_str().is_some_and(|wrong| wrong.contains("public_url does not lead here"));
    assert!(status["wrong"].as_array().is_some_and(|wrong| wrong.iter().any(tells)), "{}", status["wrong"]);
    universe.ready().await;
    assert!(gate.refused() > CHANGES, "the deliveries and the probes led nowhere: {}", gate.refused());
    gate.open();
    let ended = monotonic();
    universe.in_step(EQUAL_WITHIN).await;
    let equal = monotonic() - ended;
    repaired(&universe, "public_url").await;
    let pages = pages(&universe).await;
    // One sweep of 600 records and nothing to fetch besides, registrations every two seconds.
    let figures = format!("cut: noticed after {noticed:.1?}, equal {equal:.1?} after it was free");
    costs.judge(&universe, &figures, |seconds| pages + seconds / 2 + 1).await;
    missed(&universe, CHANGES as u64).await;
    assert_eq!(universe.gauge("public_url_ok", "pmp").await, Some(1.0));
}

async fn a_registration_that_is_missing_is_noticed(database: Database) {
    let (universe, _gate) = behind_a_gate(database).await;
    let keys = universe.sandbox.keys("tasks").await;
    let costs = Costs::from_now(&universe).await;
    // Looks have seen it healthy by now: it was made before the first of them.
    let id = universe.database.texts("select upstream_id as v from instep_registration where route = 'task-updated'").await.remove(0);
    let delete = universe.client.delete(format!("{}webhooks/{id}", universe.sandbox.url)).header("x-auth-token", "the vendor's own form");
    let deleted = delete.header("x-organization-id", "435").header("content-type", "application/vnd.api+json").send().await;
    assert!(deleted.expect("an answer").status().is_success());
    change(&universe, &keys[..CHANGES], Duration::ZERO).await;
    opened(&universe, "registration").await;
    let noticed = costs.took();
    repaired(&universe, "registration").await;
    universe.in_step(EQUAL_WITHIN).await;
    let (equal, pages) = (costs.took(), pages(&universe).await);
    // A sweep; three looks' worth of making the one that is missing; a look every two seconds.
    let figures = format!("missing: noticed after {noticed:.1?}, equal after {equal:.1?}");
    costs.judge(&universe, &figures, |seconds| pages + 4 + seconds / 2 + 2).await;
    missed(&universe, CHANGES as u64).await;
    // The one in its place is delivered to.
    change(&universe, &keys[CHANGES..CHANGES + 3], Duration::ZERO).await;
    universe.sandbox.quiet(SOON).await;
    universe.in_step(SOON).await;
    let standing = universe.sandbox.truth("webhooks").await;
    assert_eq!(standing.len(), 3, "three routes, each once: {standing:?}");
}

/// A universe that is delivered to by way of a gate, with its registrations made.
async fn behind_a_gate(database: Database) -> (Universe, Gate) {
    let (gate, own) = gate().await;
    let universe = Universe::started_at(database, &webhooks_alone(&gate), own).await;
    create(&universe);
    (universe, gate)
}

pub(super) fn create(universe: &Universe) {
    let created = universe.verb(&["hooks", "create", "pmp"]);
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
}

/// Changes each of these records once, evenly over a time.
pub(super) async fn change(universe: &Universe, keys: &[String], span: Duration) {
    each_over(span, keys, async |key| {
        let title = format!("changed at {:?}", monotonic());
        universe.sandbox.control("update", json!({ "collection": "tasks", "id": key, "attributes": { "title": title } })).await;
    })
    .await;
}

async fn missed(universe: &Universe, wanted: u64) {
    super::missed(universe, "pmp", wanted).await;
}

/// Pages of a sweep of the tasks, in all variants.
async fn pages(universe: &Universe) -> u64 {
    universe.sandbox.truth("tasks").await.len().div_ceil(200) as u64 + 1
}
