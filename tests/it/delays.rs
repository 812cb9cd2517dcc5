//! `instep report delay` says how late and how lossy each way is; what it says is compared with what the test did.

use std::collections::HashMap;
use std::time::Duration;

use instep::clock::{Clock, Timestamp};
use serde_json::{Value, json};

use crate::support::{Database, Setup, Universe, on_both, until};

on_both!(the_figures_are_those_of_the_deliveries, few_samples_are_told_to_be_few);

const SOON: Duration = Duration::from_secs(60);
const CHANGES: usize = 160;
/// Every so many changes one is never told by a webhook.
const LOST_EVERY: usize = 8;

async fn change(universe: &Universe, key: &str) {
    let asked = json!({ "collection": "tasks", "id": key, "attributes": { "title": format!("{key} again") } });
    universe.sandbox.control("update", asked).await;
}

fn report(universe: &Universe, since: Timestamp) -> Value {
    let output = universe.verb(&["report", "delay", "pmp", "--json", "--since", &since.to_string()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Of sorted seconds, that of so many per cent.
fn percentile(sorted: &[f64], per_cent: usize) -> f64 {
    sorted[(sorted.len() * per_cent).div_ceil(100).saturating_sub(1)]
}

/// The test delivers by itself, each at a delay of its own after the upstream's stamp; the feed tells of all.
async fn the_figures_are_those_of_the_deliveries(database: Database) {
    let source = "passes = false\nfeeds = true\naudit = { share = 0.0 }\n";
    let universe = Universe::started(database, &Setup { source, ..Setup::default() }).await;
    let (clock, since) = (Clock::system(), Clock::system().now());
    let keys = universe.sandbox.keys("tasks").await[..CHANGES].to_vec();
    // From nothing to two seconds: more than the feed takes, so that either is first for some.
    let mut planned: Vec<(Duration, String)> = Vec::new();
    for (n, key) in keys.iter().enumerate() {
        change(&universe, key).await;
        if n % LOST_EVERY > 0 {
            let delay = Duration::from_millis((n as u64 * 733) % 2_000);
            planned.push((clock.monotonic() + delay, key.clone()));
        }
    }
    planned.sort();
    let mut sent = HashMap::new();
    for (at, key) in planned {
        until(at).await;
        let body = crate::support::universe::about_task(&key, "changed");
        sent.insert(key, clock.now());
        universe.deliver_surely("task-updated", body).await;
    }
    universe.in_step(SOON).await;
    universe.idle(SOON).await;
    let truth = universe.sandbox.truth("tasks").await;
    let stamp = |key: &str| Timestamp::parse(truth[key]["attributes"]["updated_at"].as_str().expect("a stamp")).expect("an instant");
    let mut delays: Vec<f64> = sent.iter().map(|(key, at)| at.since(stamp(key)).as_secs_f64()).collect();
    delays.sort_by(f64::total_cmp);
    let answer = report(&universe, since);
    let (hook, feed) = (&answer["delays"]["ways"]["hook"], &answer["delays"]["ways"]["feed"]);
    assert_eq!((answer["delays"]["changes"].as_u64(), hook["n"].as_u64()), (Some(CHANGES as u64), Some(delays.len() as u64)), "{answer}");
    assert_eq!((feed["told"].as_u64(), hook["few"].as_bool()), (Some(CHANGES as u64), Some(false)), "{answer}");
    let never = 100.0 * CHANGES.div_ceil(LOST_EVERY) as f64 / CHANGES as f64;
    assert!((hook["never_percent"].as_f64().expect("a share") - never).abs() < 0.01, "{never}: {hook}");
    assert_eq!(feed["never_percent"].as_f64(), Some(0.0));
    let first = hook["first_percent"].as_f64().expect("a share") + feed["first_percent"].as_f64().expect("a share");
    assert!((first - 100.0).abs() < 0.1, "one of the two is first: {answer}");
    for (name, per_cent) in [("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)] {
        let (told, truly) = (hook[name].as_f64().expect("seconds"), percentile(&delays, per_cent));
        assert!((told - truly).abs() <= (0.1 * truly).max(0.05), "{name}: {told} told, {truly} truly; {answer}");
    }
    let clock = &answer["clock"];
    let (ahead, error) = (clock["ahead_seconds"].as_f64().expect("seconds"), clock["error_seconds"].as_f64().expect("seconds"));
    assert!(ahead.abs() <= error + 0.002, "both clocks are one: {clock}");
    println!(
        "delays {:?}: n {}, p50 {:.3} s ({:.3} truly), p90 {:.3} ({:.3}), p99 {:.3} ({:.3}), max {:.3} ({:.3}), never {} %; clocks {ahead:.3} s \
         apart, give or take {error:.3} s",
        universe.database.engine,
        hook["n"],
        hook["p50"].as_f64().unwrap_or(0.0),
        percentile(&delays, 50),
        hook["p90"].as_f64().unwrap_or(0.0),
        percentile(&delays, 90),
        hook["p99"].as_f64().unwrap_or(0.0),
        percentile(&delays, 99),
        hook["max"].as_f64().unwrap_or(0.0),
        percentile(&delays, 100),
        hook["never_percent"],
    );
}

async fn few_samples_are_told_to_be_few(database: Database) {
    let source = "passes = false\nfeeds = true\naudit = { share = 0.0 }\n";
    let universe = Universe::started(database, &Setup { entities: 100, source, ..Setup::default() }).await;
    for key in &universe.sandbox.keys("tasks").await[..3] {
        change(&universe, key).await;
    }
    universe.in_step(SOON).await;
    let output = universe.verb(&["report", "delay", "pmp", "--since", "10m"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("fewer than 100") && text.contains("give or take"), "{text}");
}
