//! What passes would cost is said before any runs, and the upstream then counts so many requests.

use std::time::Duration;

use serde_json::Value;

use crate::asked_passes::{answer, said};
use crate::support::{Database, Pim, Setup, Universe, on_both};

on_both!(a_plan_of_productive_is_what_is_then_counted, a_plan_of_a_pim_is_what_is_then_counted);

const LATE: &str = "sweep = \"24h\", poll = \"24h\"";
const SOON: Duration = Duration::from_secs(60);

/// Plans, sweeps, and compares for each resource and for all of them; a fifth, or one request where there are few.
async fn holds(universe: &Universe, source: &str, kinds: &[&str]) {
    // The first incremental passes are due behind the backfill; from then on nothing comes by itself.
    let first = universe.verb(&["reconcile", source]);
    assert_eq!(first.status.code(), Some(0), "{}", said(&first));
    universe.idle(SOON).await;
    for kind in kinds {
        let plan = answer(&universe.verb(&["reconcile", "plan", source, "--json"]));
        let resources = plan["resources"].as_array().expect("resources");
        let mut before = Vec::new();
        for row in resources {
            before.push(counted(universe, row).await);
        }
        let verb: &[&str] = if *kind == "sweep" { &["reconcile", source, "--sweep"] } else { &["reconcile", source] };
        let done = universe.verb(verb);
        assert_eq!(done.status.code(), Some(0), "{}", said(&done));
        let (mut all_planned, mut all_counted) = (0, 0);
        for (row, before) in resources.iter().zip(before) {
            let counted = counted(universe, row).await - before;
            // Who has no incremental passes is swept.
            let cost = if row[*kind].is_object() { &row[*kind] } else { &row["sweep"] };
            let planned = cost["requests"].as_u64().expect("a number");
            assert!(is_near(planned, counted), "{kind} of {}: {planned} planned, {counted} counted", row["resource"]);
            (all_planned, all_counted) = (all_planned + planned, all_counted + counted);
        }
        assert!(is_near(all_planned, all_counted), "{kind}: {all_planned} planned, {all_counted} counted");
        println!("planned_passes {:?}: {source}, {kind}: {all_planned} requests planned, {all_counted} counted", universe.database.engine);
    }
}

/// What the upstream has counted for a resource, with the walk through what stands above it.
async fn counted(universe: &Universe, row: &Value) -> u64 {
    let name = row["resource"].as_str().expect("a name");
    let above = if name == "attribute-options" { universe.sandbox.reads("attributes").await } else { 0 };
    universe.sandbox.reads(name).await + above
}

fn is_near(planned: u64, counted: u64) -> bool {
    planned.abs_diff(counted) <= (counted / 5).max(1)
}

async fn a_plan_of_productive_is_what_is_then_counted(database: Database) {
    let resources = vec![("tasks", LATE), ("companies", LATE), ("projects", LATE), ("people", LATE)];
    let setup = Setup { entities: 6_000, resources, source: "feeds = false", ..Setup::default() };
    let universe = Universe::started(database, &setup).await;
    holds(&universe, "pmp", &["sweep", "incremental"]).await;
    let shown = universe.verb(&["reconcile", "plan"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("live rows") && shown.contains("tasks"), "{shown}");
    let plan: Value = answer(&universe.verb(&["reconcile", "plan", "pmp", "--json"]));
    assert_eq!(plan["sweeps"]["seconds"], 0.0, "2,000 a second are enough: {plan}");
}

async fn a_plan_of_a_pim_is_what_is_then_counted(database: Database) {
    let resources = vec![("product-models", LATE), ("categories", LATE), ("attribute-options", LATE)];
    let pim = Pim { entities: 6_000, resources, source: "", ..Pim::default() };
    let universe = pim.started(database).await;
    holds(&universe, "pim", &["sweep"]).await;
}
