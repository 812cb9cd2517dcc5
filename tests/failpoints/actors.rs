//! Every actor fails in every way: the others go on, it comes back, and what cannot be mended from within is replaced as a process.
//!
//! The short form makes every actor fail by an error, a panic and a start that fails. The long form adds an endless await and a
//! blocked thread to each, waits until what is parked is tried again, and lets the limiter park its source:
//! `INSTEP_LONG=1 cargo test --release --features failpoints --test it failpoints::actors -- --nocapture --test-threads=1`;
//! with `INSTEP_ACTORS=limiter,owner` only those whose paths end so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Points, with_points};
use crate::support::load::Ledger;
use crate::support::universe::about_task;
use crate::support::{Database, Engine, Load, Setup, Universe, eventually, is_long, monotonic, on_both, run, until};

mod replaced;

on_both!(every_actor_fails_and_comes_back_alone, a_melting_journal_ends_the_process_in_order);

const SOON: Duration = Duration::from_secs(30);
const SOURCE: &str = "root/sources/source:pmp";
/// Whoever fails, others' deliveries are acknowledged after such a pause at most.
const STALL_MAX: Duration = Duration::from_secs(4);

/// What becomes of an actor that was told to fail so, one after the other.
struct Faults {
    step: &'static str,
    start: &'static str,
    restarts: u64,
    last_failure: &'static str,
    /// Once it is back it awaits something for ever, which costs one restart more.
    hangs: bool,
}

const SHORT: Faults =
    Faults { step: "1*return(error)->1*panic->off", start: "1*return(error)->off", restarts: 3, last_failure: "panic", hangs: false };
/// One failure more in these 60 s would be a meltdown.
const LONG: Faults = Faults {
    step: "1*return(error)->1*panic->1*sleep(12000)->off",
    start: "1*return(error)->off",
    restarts: 4,
    last_failure: "silent",
    hangs: true,
};
/// A thread that was blocked goes on after this, and its actor, replaced meanwhile, passes its points once more.
const WOKEN: Duration = Duration::from_secs(13);

/// What `/status` says of every actor, by its path.
pub(super) async fn actors(universe: &Universe) -> Result<BTreeMap<String, Value>, String> {
    let status = universe.status().await?;
    let actors = status["actors"].as_object().ok_or_else(|| format!("{status}"))?;
    Ok(actors.iter().map(|(path, standing)| (path.clone(), standing.clone())).collect())
}

fn restarts(actors: &BTreeMap<String, Value>) -> BTreeMap<String, u64> {
    actors.iter().map(|(path, standing)| (path.clone(), standing["restarts"].as_u64().unwrap_or(0))).collect()
}

/// A daemon whose fail points can be set, backfilled.
pub(super) async fn started(database: Database, setup: &Setup) -> (Universe, Points) {
    let mut universe = Universe::new(database, setup);
    let mut command = with_points(universe.command(), "");
    // No service manager, but the watchdog works at its pace.
    command.env("WATCHDOG_USEC", "3000000").env_remove("WATCHDOG_PID");
    universe.launch(&mut command);
    universe.ready().await;
    universe.backfilled().await;
    let points = Points::of(universe.daemon());
    (universe, points)
}

/// Everything that was acknowledged is there, worked in, and nothing of it in quarantine.
async fn nothing_is_lost(universe: &Universe, ledger: &Ledger) {
    universe.idle(Duration::from_secs(60)).await;
    let stored = universe.database.texts("select dedupe as v from instep_delivery").await;
    assert_eq!(ledger.missing_from(&stored.into_iter().collect()), 0, "what was acknowledged is stored");
    assert_eq!(universe.database.number("select count(*) as n from instep_quarantine").await, 0, "nothing is quarantined");
}

async fn every_actor_fails_and_comes_back_alone(database: Database) {
    let faults = if is_long() { &LONG } else { &SHORT };
    let resources = vec![("tasks", "poll = \"2s\"")];
    let (mut universe, mut points) = started(database, &Setup { entities: 100, resources, source: "", ..Setup::default() }).await;
    let pid = universe.status().await.expect("it answers")["pid"].clone();
    let mut told = Vec::new();
    // From the daemon itself, so that no new actor is forgotten.
    let mut paths: Vec<String> = actors(&universe).await.expect("it answers").into_keys().collect();
    assert!(paths.len() >= 12, "{paths:?}");
    if let Ok(only) = std::env::var("INSTEP_ACTORS") {
        paths.retain(|path| only.split(',').any(|end| path.ends_with(end)));
        assert!(!paths.is_empty(), "no actor's path ends with one of {only}");
    }
    let changes = if is_long() { 400 * paths.len() } else { 150 };
    universe.sandbox.control("churn", json!({ "changes": changes, "per_second": 10, "kinds": "hooks", "removals": 0 })).await;
    let load = Load::start(universe.hooks_port, universe.sandbox.keys("tasks").await, 2);
    for path in &paths {
        told.push(fail_one(&universe, &mut points, &load.ledger, path, faults).await);
    }
    assert!(universe.daemon().ended().is_none(), "the process lives");
    assert_eq!(universe.status().await.expect("it answers")["pid"], pid, "it is the same");
    let ledger = load.end().await;
    universe.sandbox.quiet(Duration::from_secs(600)).await;
    universe.in_step(Duration::from_secs(60)).await;
    nothing_is_lost(&universe, &ledger).await;
    println!(
        "actors {:?}: {} actors, {} faults each, {} acknowledged, {} unanswered; {}",
        universe.database.engine,
        paths.len(),
        faults.restarts + u64::from(faults.hangs),
        ledger.len(),
        ledger.unanswered(),
        told.join("; ")
    );
}

/// Lets one actor fail; how long it took, and what was acknowledged meanwhile.
async fn fail_one(universe: &Universe, points: &mut Points, ledger: &Ledger, path: &str, faults: &Faults) -> String {
    let told = fail_by(universe, points, ledger, path, faults).await;
    if !faults.hangs {
        return told;
    }
    until(monotonic() + WOKEN).await;
    let hang = Faults { step: "1*return(hang)->off", start: "off", restarts: 1, last_failure: "silent", hangs: false };
    format!("{told}, hanging {}", fail_by(universe, points, ledger, path, &hang).await)
}

async fn fail_by(universe: &Universe, points: &mut Points, ledger: &Ledger, path: &str, faults: &Faults) -> String {
    let before = restarts(&actors(universe).await.expect("it answers"));
    let mut expected = before.clone();
    *expected.get_mut(path).expect("it is known") += faults.restarts;
    let (began, acknowledged, unanswered) = (monotonic(), ledger.len(), ledger.unanswered());
    points.set(&format!("actor:{path}::start"), faults.start);
    points.set(&format!("actor:{path}::step"), faults.step);
    if path.ends_with("/keeper") {
        // Its next step may be ten minutes away, so its whole source begins anew.
        points.set(&format!("actor:{SOURCE}::step"), "1*panic->off");
        *expected.get_mut(SOURCE).expect("it is known") += 1;
    }
    let (mut reasons, mut waits) = (BTreeSet::new(), BTreeSet::new());
    let (mut last, mut longest) = ((began, acknowledged), Duration::ZERO);
    let patience = if is_long() { Duration::from_secs(150) } else { SOON };
    eventually(&format!("{path} is back"), patience, async || {
        if ledger.len() > last.1 {
            longest = longest.max(monotonic() - last.0);
            last = (monotonic(), ledger.len());
        }
        let actors = actors(universe).await?;
        let standing = &actors[path];
        reasons.extend(standing["last_failure"].as_str().map(str::to_owned));
        if standing["state"] == "restarting" {
            waits.extend(standing["next_start_ms"].as_u64());
        }
        let is_back = actors.values().all(|standing| standing["state"] == "running");
        if is_back && restarts(&actors) == expected { Ok(()) } else { Err(format!("{actors:?}")) }
    })
    .await;
    let took = monotonic() - began;
    eventually(&format!("deliveries are acknowledged after {path}"), SOON, async || {
        if ledger.len() > acknowledged { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;
    let (meanwhile, refused) = (ledger.len() - acknowledged, ledger.unanswered() - unanswered);
    let standing = actors(universe).await.expect("it answers")[path].clone();
    let last_failure = standing["last_failure"].as_str().unwrap_or_default();
    assert!(last_failure.contains(faults.last_failure), "{path}: {last_failure}");
    // While the socket of the questions itself is down nobody can see it wait.
    assert!(path == "root/admin" || !waits.is_empty(), "{path}: the wait before a restart shows");
    let n_reasons = if faults.restarts > 1 { 2 } else { 1 };
    assert!(path == "root/admin" || reasons.len() >= n_reasons, "{path}: its failures show: {reasons:?}");
    let is_in_the_way = matches!(path, "root/journal" | "root/listener");
    // A blocked thread may have work in hand that waits until others notice; then a sender is told to come again.
    assert!(is_in_the_way || is_long() || refused == 0, "{path}: {refused} deliveries were not acknowledged meanwhile");
    assert!(is_in_the_way || longest <= STALL_MAX, "{path}: for {longest:?} nothing was acknowledged");
    format!("{path} {took:.1?} +{meanwhile}-{refused}, longest pause {longest:.1?}")
}

#[test]
fn what_melts_down_in_a_source_is_parked_alone() {
    run(Engine::Sqlite, melts_in_a_source);
}

async fn melts_in_a_source(database: Database) {
    let resources = vec![("tasks", "poll = \"2s\""), ("projects", "poll = \"1s\"")];
    let (mut universe, mut points) =
        started(database, &Setup { entities: 100, resources, source: "feeds = false\n", ..Setup::default() }).await;
    let keys = universe.sandbox.keys("tasks").await;
    let (tasks, intake) = (format!("{SOURCE}/sync:tasks"), format!("{SOURCE}/intake"));
    points.set(&format!("actor:{tasks}::step"), "panic");
    universe.deliver_surely("task-updated", about_task(&keys[0], "wakes it")).await;
    universe.idle_deliveries().await;
    points.set(&format!("actor:{intake}::step"), "return(error)");
    parked(&universe, &[&tasks, &intake]).await;

    let pid = universe.daemon().pid();
    // Deliveries are kept.
    universe.deliver_surely("task-updated", about_task(&keys[1], "nobody takes it")).await;
    let project = universe.sandbox.keys("projects").await.remove(0);
    let change = json!({ "collection": "projects", "id": project, "attributes": { "name": "changed beside what is parked" } });
    universe.sandbox.control("update", change).await;
    eventually("the other resource goes on", SOON, async || {
        let differences = universe.differences("projects").await?;
        if differences.is_empty() { Ok(()) } else { Err(format!("{differences:?}")) }
    })
    .await;
    let standings = actors(&universe).await.expect("it answers");
    let others = restarts(&standings).into_iter().filter(|(path, n)| *n > 0 && *path != tasks && *path != intake);
    assert_eq!(others.count(), 0, "nobody else was restarted: {standings:?}");
    assert_eq!(universe.status().await.expect("it answers")["pid"], json!(pid));
    println!("actors {:?}: {tasks} {}", universe.database.engine, standings[&tasks]);

    if is_long() {
        points.set(&format!("actor:{tasks}::step"), "off");
        points.set(&format!("actor:{intake}::step"), "off");
        eventually("they are tried again", Duration::from_secs(330), async || {
            let actors = actors(&universe).await?;
            let state = (&actors[&tasks]["state"], &actors[&intake]["state"]);
            if state == (&json!("running"), &json!("running")) { Ok(()) } else { Err(format!("{state:?}")) }
        })
        .await;
        universe.idle(SOON).await;
        universe.in_step(SOON).await;
    }
}

/// Waits until these are parked, and `/status` says why and until when.
async fn parked(universe: &Universe, paths: &[&str]) {
    eventually("they are parked", Duration::from_secs(90), async || {
        let actors = actors(universe).await?;
        let standings: Vec<&Value> = paths.iter().map(|path| &actors[*path]).collect();
        if standings.iter().all(|standing| standing["state"] == "parked") { Ok(()) } else { Err(format!("{standings:?}")) }
    })
    .await;
    let status = universe.status().await.expect("it answers");
    for path in paths {
        let standing = &status["actors"][*path];
        assert!(standing["next_start_ms"].as_u64().is_some_and(|wait| wait >= 290_000), "{path} is tried again slowly: {standing}");
        assert_eq!(standing["restarts"], json!(6), "{path}: the sixth failure in a minute was one too many");
        let wrong = status["wrong"].as_array().expect("a list");
        assert!(wrong.iter().any(|line| line.as_str().is_some_and(|line| line.contains(&format!("{path} is parked")))), "{wrong:?}");
    }
}

#[test]
fn a_melting_source_is_parked_alone() {
    run(Engine::Sqlite, async |database| {
        let (mut universe, mut points) = started(database, &Setup { entities: 100, ..Setup::default() }).await;
        // By the limiter it takes longer: it takes its source down, again and again.
        let path = if is_long() { format!("{SOURCE}/limiter") } else { SOURCE.to_owned() };
        let began = monotonic();
        points.set(&format!("actor:{path}::step"), "panic");
        parked(&universe, &[SOURCE]).await;
        println!("actors: {SOURCE} is parked {:.1?} after {path} began to fail", monotonic() - began);
        // Deliveries are kept.
        universe.deliver_surely("task-updated", about_task("1", "nobody takes it")).await;
        let standings = actors(&universe).await.expect("it answers");
        for (path, standing) in standings {
            let is_below = path.starts_with(&format!("{SOURCE}/"));
            assert!(is_below == (standing["state"] == "stopped") || path == SOURCE, "{path}: {standing}");
            assert!(path.starts_with(SOURCE) || standing["restarts"] == json!(0), "{path}: {standing}");
        }
        assert!(universe.daemon().ended().is_none(), "the process lives");
    });
}

async fn a_melting_journal_ends_the_process_in_order(database: Database) {
    let mut universe = Universe::new(database, &Setup { entities: 100, ..Setup::default() });
    melts(&mut universe, "root/journal", "panic").await;
}

#[test]
fn what_is_critical_ends_the_process_in_order() {
    run(Engine::Sqlite, async |database| {
        let mut universe = Universe::new(database, &Setup { entities: 100, ..Setup::default() });
        melts(&mut universe, "root/listener", "return(error)").await;
        melts(&mut universe, "root/sources", "panic").await;
        // Nobody restarts the root: its first failure is the process's, and there is no order in it.
        melts(&mut universe, "root", "panic").await;
    });
}

/// An actor whose failure nobody can mend fails at every step; the next process has everything that was acknowledged.
async fn melts(universe: &mut Universe, path: &str, action: &str) {
    universe.launch(&mut with_points(universe.command(), ""));
    universe.ready().await;
    universe.backfilled().await;
    let mut points = Points::of(universe.daemon());
    let load = Load::start(universe.hooks_port, universe.sandbox.keys("tasks").await, 2);
    eventually("deliveries are acknowledged", SOON, async || if load.ledger.len() > 20 { Ok(()) } else { Err("none".to_owned()) }).await;
    let began = monotonic();
    points.set(&format!("actor:{path}::step"), action);
    let code = universe.daemon().exit_code(Duration::from_secs(60)).await;
    let took = monotonic() - began;
    let ledger = load.end().await;
    let said = universe.daemon().said();
    assert_eq!(code, Some(70), "{path}");
    assert!(said.contains("\"stopping\"") && !said.contains("not closed cleanly"), "it closed its store: {said}");
    universe.kill();
    universe.run().await;
    nothing_is_lost(universe, &ledger).await;
    assert_eq!(universe.stop().await, Some(0));
    println!("actors {:?}: {path} failed, exit 70 after {took:.1?}, {} acknowledged, all there", universe.database.engine, ledger.len());
}
