//! What was acknowledged is kept: `kill -9` at random moments under load.
//!
//! The short form kills 5 times. The long one, 50 kills and at least 20,000 acknowledged deliveries, is
//! `INSTEP_LONG=1 cargo test --release --features failpoints --test it durability -- --nocapture --test-threads=1`.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::support::{Database, Load, Setup, Universe, eventually, is_long, monotonic, on_both, until};

on_both!(every_acknowledged_delivery_survives_kills);

const RESOURCES: [(&str, &str); 4] =
    [("companies", "poll = \"3s\""), ("projects", "poll = \"3s\""), ("task_lists", "sweep = \"5s\""), ("tasks", "poll = \"2s\"")];

async fn every_acknowledged_delivery_survives_kills(database: Database) {
    let (kills, acknowledged) = if is_long() { (50, 20_000) } else { (5, 300) };
    let sandbox = ["--retries", "1000", "--retries-over-ms", "1000000"].map(str::to_owned).to_vec();
    let setup = Setup { entities: 3_000, resources: RESOURCES.to_vec(), source: "feeds = false", sandbox, ..Setup::default() };
    let mut universe = Universe::started(database, &setup).await;
    let created = universe.verb(&["hooks", "create", "pmp"]);
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));

    let keys = universe.sandbox.keys("tasks").await;
    let n_tasks = keys.len();
    let load = Load::start(universe.hooks_port, keys, 16);
    universe.sandbox.control("churn", json!({ "changes": 400, "per_second": 40.0, "kinds": "hooks", "seed": 7 })).await;
    let mut lives = Vec::new();
    for _ in 0..kills {
        let life = Duration::from_millis(rand::random_range(50..2_000));
        until(monotonic() + life).await;
        universe.kill();
        lives.push(life.as_millis());
        // Some of the next kills meet a daemon that is still starting.
        universe.launch(&mut universe.command());
    }
    universe.ready().await;
    eventually("enough deliveries are acknowledged", Duration::from_secs(600), async || {
        let n = load.ledger.len();
        if n >= acknowledged { Ok(()) } else { Err(format!("{n} so far")) }
    })
    .await;
    let ledger = load.end().await;
    universe.sandbox.quiet(Duration::from_secs(60)).await;
    universe.idle(Duration::from_secs(180)).await;
    universe.in_step(Duration::from_secs(120)).await;

    let found: BTreeSet<String> = universe.database.texts("select dedupe as v from instep_delivery").await.into_iter().collect();
    let (n, unanswered) = (ledger.len(), ledger.unanswered());
    println!("durability {:?}: {kills} kills, {n} acknowledged, {unanswered} not; lives in ms {lives:?}", universe.database.engine);
    assert_eq!(ledger.missing_from(&found), 0, "acknowledged deliveries are lost");
    let n_changes = universe.database.assert_numbers_without_holes().await;
    let quarantined = universe.database.number("select count(*) as n from instep_quarantine").await;
    assert_eq!(quarantined, 0, "a kill is no reason to give a delivery up");
    println!("durability {:?}: {n_tasks} tasks in step, {n_changes} changes, numbered 1 to {n_changes}", universe.database.engine);
}
