//! Webhooks are lost, in three ways: the sender drops them, the way to us is cut while we are well, a registration is dead. Each is
//! noticed by itself, is a gap, and is repaired; how many changes were missed is counted.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Database, Gate, Pim, Setup, Universe, eventually, is_long, monotonic, on_both, pim, until};

on_both!(
    a_sender_that_drops_webhooks_is_noticed,
    a_way_that_is_cut_is_noticed,
    a_registration_that_is_missing_is_noticed,
    a_pims_lost_events_are_noticed,
);

/// For what takes a poll or two on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// The longest time from the end of an outage until the replica is equal.
const EQUAL_WITHIN: Duration = Duration::from_secs(120);
/// Everything that looks for lost webhooks, in seconds instead of minutes.
const WATCH: &str = "watch = { look = \"2s\", mend = \"1s\", probe = \"2s\", late = \"4s\", missed = 5 }\n";
/// How many records change while webhooks are lost, each once.
const CHANGES: usize = 20;

/// How long webhooks are lost.
fn outage() -> Duration {
    Duration::from_secs(if is_long() { 60 } else { 5 })
}

/// Webhooks only, and what the gaps ask for: passes and feeds would not come by themselves within an hour.
fn webhooks_alone(gate: &Gate) -> Setup {
    Setup {
        resources: vec![("tasks", "poll = \"1h\", sweep = \"24h\"")],
        source: "feeds = false\nwatch = { look = \"2s\", mend = \"1s\", probe = \"2s\", late = \"4s\", missed = 5 }\n",
        public_port: Some(gate.port),
        ..Setup::default()
    }
}

async fn a_sender_that_drops_webhooks_is_noticed(database: Database) {
    let setup = Setup { resources: vec![("tasks", "poll = \"30s\"")], source: WATCH, ..Setup::default() };
    let universe = Universe::started(database, &setup).await;
    create(&universe);
    let keys = universe.sandbox.keys("tasks").await;
    let told = &keys[CHANGES..CHANGES + 5];
    change(&universe, told).await;
    universe.sandbox.quiet(SOON).await;
    universe.in_step(SOON).await;
    let (began, before) = (monotonic(), requests(&universe).await);
    universe.sandbox.control("faults", json!({ "hooks_lost": 1.0 })).await;
    change_over(&universe, &keys[..CHANGES], outage()).await;
    universe.sandbox.control("faults", json!({ "hooks_lost": 0.0 })).await;
    let ended = monotonic();
    universe.in_step(EQUAL_WITHIN).await;
    let equal = monotonic() - ended;
    repaired(&universe, "silence").await;
    let took = monotonic() - began;
    let asked = requests(&universe).await - before;
    let lost = universe.sandbox.report().await["deliveries"]["lost"].as_u64();
    missed(&universe, lost.expect("some were lost")).await;
    // Two feeds a second with what they tell fetched in one request each; polls, the gap's pass and registrations.
    let plan = 3 * (took.as_secs() + 1) + (took.as_secs() / 30 + 2) + (took.as_secs() / 2 + 1);
    println!("dropped {:?}: equal {equal:.1?} after {:?}, {asked} requests of {plan} planned", universe.database.engine, outage());
    assert!(asked * 10 <= plan * 12, "{asked} requests, {plan} planned");
    // What is told is not missed, after a gap as before it.
    change(&universe, told).await;
    universe.in_step(SOON).await;
    judged(&universe).await;
    missed(&universe, lost.expect("some were lost")).await;
}

async fn a_way_that_is_cut_is_noticed(database: Database) {
    let (mut universe, gate) = behind_a_gate(database, |_| {}).await;
    let keys = universe.sandbox.keys("tasks").await;
    eventually("the way is seen to be free", SOON, async || match universe.gauge("public_url_ok", "pmp").await {
        Some(1.0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let made_up = universe.client.post(format!("http://127.0.0.1:{}/hooks/pmp/probe", gate.port)).header("instep-probe", "00.00");
    assert_eq!(made_up.send().await.expect("an answer").status(), 401, "a stranger's");
    let (cut, before) = (monotonic(), requests(&universe).await);
    gate.cut();
    change_over(&universe, &keys[..CHANGES], outage()).await;
    opened(&universe, "public_url").await;
    let noticed = monotonic() - cut;
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
    let asked = requests(&universe).await - before;
    // One sweep of 600 records and nothing to fetch besides, registrations every two seconds.
    let plan = pages(&universe).await + (monotonic() - cut).as_secs() / 2 + 1;
    println!(
        "cut {:?}: noticed after {noticed:.1?}, equal {equal:.1?} after, {asked} requests of {plan} planned",
        universe.database.engine
    );
    assert!(asked * 10 <= plan * 12, "{asked} requests, {plan} planned");
    missed(&universe, CHANGES as u64).await;
    assert_eq!(universe.gauge("public_url_ok", "pmp").await, Some(1.0));
}

async fn a_registration_that_is_missing_is_noticed(database: Database) {
    let (universe, _gate) = behind_a_gate(database, |_| {}).await;
    let keys = universe.sandbox.keys("tasks").await;
    let before = requests(&universe).await;
    let began = monotonic();
    // Looks have seen it healthy by now: it was made before the first of them.
    let id = universe.database.texts("select upstream_id as v from instep_registration where route = 'task-updated'").await.remove(0);
    let delete = universe.client.delete(format!("{}webhooks/{id}", universe.sandbox.url)).header("x-auth-token", "the vendor's own form");
    let deleted = delete.header("x-organization-id", "435").header("content-type", "application/vnd.api+json").send().await;
    assert!(deleted.expect("an answer").status().is_success());
    change(&universe, &keys[..CHANGES]).await;
    opened(&universe, "registration").await;
    let noticed = monotonic() - began;
    repaired(&universe, "registration").await;
    universe.in_step(EQUAL_WITHIN).await;
    let equal = monotonic() - began;
    let asked = requests(&universe).await - before;
    // A sweep; three looks' worth of making the one that is missing; a look every two seconds.
    let plan = pages(&universe).await + 4 + (monotonic() - began).as_secs() / 2 + 2;
    println!("missing {:?}: noticed after {noticed:.1?}, equal after {equal:.1?}, {asked} of {plan}", universe.database.engine);
    assert!(asked * 10 <= plan * 12, "{asked} requests, {plan} planned");
    missed(&universe, CHANGES as u64).await;
    // The one in its place is delivered to.
    change(&universe, &keys[CHANGES..CHANGES + 3]).await;
    universe.sandbox.quiet(SOON).await;
    universe.in_step(SOON).await;
    let standing = universe.sandbox.truth("webhooks").await;
    assert_eq!(standing.len(), 3, "three routes, each once: {standing:?}");
}

async fn a_pims_lost_events_are_noticed(database: Database) {
    let pim = Pim { entities: 120, resources: vec![("products", "poll = \"5s\", sweep = \"24h\"")], source: WATCH, ..Pim::default() };
    let universe = pim.started(database).await;
    pim::subscribe(&universe, false, true).await;
    let keys: Vec<String> = pim::truth(&universe.sandbox, "products").await.into_keys().collect();
    // Whatever family and model a product has, this is its own.
    let switch = async |keys: &[String], enabled: bool, span: Duration| {
        let (begin, each) = (monotonic(), span / u32::try_from(keys.len()).expect("few"));
        for (n, key) in keys.iter().enumerate() {
            pim::change(&universe, "update", "products", Some(key), json!({ "fields": { "enabled": enabled } })).await;
            until(begin + each * u32::try_from(n + 1).expect("few")).await;
        }
    };
    // Every one is switched on first, so that switching it off is a change.
    switch(&keys[..CHANGES + 5], true, Duration::ZERO).await;
    pim::quiet(&universe, SOON).await;
    pim::in_step(&universe, &["products"], SOON).await;
    // By then the deliveries of before are no longer near to what is lost.
    judged(&universe).await;
    let told = &keys[CHANGES..CHANGES + 5];
    switch(told, false, Duration::ZERO).await;
    pim::quiet(&universe, SOON).await;
    pim::in_step(&universe, &["products"], SOON).await;
    let (began, before) = (monotonic(), requests(&universe).await);
    universe.sandbox.control("faults", json!({ "event_platform_lost": 1.0 })).await;
    switch(&keys[..CHANGES], false, outage()).await;
    universe.sandbox.control("faults", json!({ "event_platform_lost": 0.0 })).await;
    let ended = monotonic();
    pim::in_step(&universe, &["products"], EQUAL_WITHIN).await;
    let equal = monotonic() - ended;
    repaired(&universe, "silence").await;
    let (took, asked) = (monotonic() - began, requests(&universe).await - before);
    let lost = universe.sandbox.report().await["deliveries"]["event_platform"]["counts"]["lost"].as_u64();
    counted(&universe, "pim", lost.expect("some were lost")).await;
    // A poll in five seconds, and the sweeps that gaps ask for where nothing tells of deletes; each in pages of a hundred.
    let sweep = keys.len().div_ceil(100) as u64 + 1;
    let plan = took.as_secs() / 5 + 2 + 2 * sweep;
    println!(
        "pim {:?}: equal {equal:.1?} after {:?}, {lost:?} lost, {asked} requests of {plan} planned",
        universe.database.engine,
        outage()
    );
    assert!(asked * 10 <= plan * 12, "{asked} requests, {plan} planned");
    switch(told, true, Duration::ZERO).await;
    pim::in_step(&universe, &["products"], SOON).await;
    counted(&universe, "pim", lost.expect("some were lost")).await;
}

/// A universe that is delivered to by way of a gate, with its registrations made.
async fn behind_a_gate(database: Database, with: impl FnOnce(&mut Setup)) -> (Universe, Gate) {
    // The gate must be known before the daemon's port is.
    let hooks = crate::support::process::free_port();
    let gate = Gate::to(hooks).await;
    let mut setup = webhooks_alone(&gate);
    with(&mut setup);
    let universe = Universe::started_at(database, &setup, hooks).await;
    create(&universe);
    (universe, gate)
}

fn create(universe: &Universe) {
    let created = universe.verb(&["hooks", "create", "pmp"]);
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
}

/// Changes each of these records once.
async fn change(universe: &Universe, keys: &[String]) {
    change_over(universe, keys, Duration::ZERO).await;
}

/// The same, spread over a time.
async fn change_over(universe: &Universe, keys: &[String], span: Duration) {
    let (begin, each) = (monotonic(), span / u32::try_from(keys.len()).expect("few"));
    for (n, key) in keys.iter().enumerate() {
        let title = format!("changed at {:?}", monotonic());
        universe.sandbox.control("update", json!({ "collection": "tasks", "id": key, "attributes": { "title": title } })).await;
        until(begin + each * u32::try_from(n + 1).expect("few")).await;
    }
}

async fn opened(universe: &Universe, cause: &str) {
    gaps(universe, cause, "1 = 1").await;
}

async fn repaired(universe: &Universe, cause: &str) {
    gaps(universe, cause, "state = 'repaired'").await;
    let open = universe.database.try_number("select count(*) as n from instep_gaps where state = 'open'").await;
    assert_eq!(
        open,
        Ok(0),
        "no other gap is open: {:?}",
        universe.database.texts("select cause as v from instep_gaps where state = 'open'").await
    );
}

async fn gaps(universe: &Universe, cause: &str, condition: &str) {
    let sql = format!("select count(*) as n from instep_gaps where cause = '{cause}' and {condition}");
    eventually(&format!("a gap of cause {cause}, {condition}"), EQUAL_WITHIN, async || match universe.database.try_number(&sql).await? {
        0 => Err("there is none".to_owned()),
        _ => Ok(()),
    })
    .await;
}

/// Waits until exactly so many changes are counted as missed, and everything that is there is judged.
async fn missed(universe: &Universe, wanted: u64) {
    counted(universe, "pmp", wanted).await;
}

/// The same of any source.
async fn counted(universe: &Universe, source: &str, wanted: u64) {
    judged(universe).await;
    eventually("the missed changes are counted", SOON, async || match universe.counted("webhooks_missed", source).await {
        n if n == wanted => Ok(()),
        n => Err(format!("{n} counted, {wanted} wanted")),
    })
    .await;
}

/// Waits until every change that was learned by now is old enough to have been judged.
async fn judged(universe: &Universe) {
    universe.idle(SOON).await;
    until(monotonic() + Duration::from_secs(8)).await;
}

/// Requests of the daemon so far, whatever became of them.
async fn requests(universe: &Universe) -> u64 {
    let report = universe.sandbox.report().await;
    let rows = report["requests"].as_array().cloned().unwrap_or_default();
    rows.iter().filter_map(|row| row["count"].as_u64()).sum()
}

/// Pages of a sweep of the tasks, in all variants.
async fn pages(universe: &Universe) -> u64 {
    universe.sandbox.truth("tasks").await.len().div_ceil(200) as u64 + 1
}
