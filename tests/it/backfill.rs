//! A first sweep that is killed again and again goes on where it was: it reads no page twice but the one under way, and is never
//! refused.
//!
//! The long form has 50,000 records and the vendor's limits:
//! `INSTEP_LONG=1 cargo test --release --test it backfill -- --nocapture --test-threads=1`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Database, Setup, Universe, is_long, monotonic, on_both, until};

on_both!(a_killed_backfill_goes_on_where_it_was);

/// Every resource of the vendor.
const RESOURCES: [&str; 22] = instep::config::PRODUCTIVE_RESOURCES;
const QUIET: &str = "feeds = false\npasses = false";
/// Records of a page.
const PAGE: usize = 200;
const PATIENCE: Duration = Duration::from_secs(900);

async fn a_killed_backfill_goes_on_where_it_was(database: Database) {
    // So slow an upstream that a backfill lasts for several lives.
    let (entities, latency_ms, life) = if is_long() { (50_000, "100", 3_500) } else { (3_000, "80", 1_500) };
    let setup = Setup {
        entities,
        resources: RESOURCES.map(|name| (name, "")).to_vec(),
        source: QUIET,
        sandbox: vec!["--latency-ms".to_owned(), latency_ms.to_owned()],
        limits: &[],
        quota: "",
        ..Setup::default()
    };
    let mut universe = Universe::new(database, &setup);
    let (begin, mut kills) = (monotonic(), 0_u64);
    universe.run().await;
    loop {
        until(monotonic() + Duration::from_millis(rand::random_range(life / 2..life))).await;
        if complete(&universe).await == RESOURCES.len() as i64 {
            break;
        }
        assert!(monotonic() - begin < PATIENCE, "it does not end: {} resources are complete", complete(&universe).await);
        universe.kill();
        kills += 1;
        universe.run().await;
    }
    let took = monotonic() - begin;
    universe.idle(PATIENCE).await;
    let report = universe.sandbox.report().await;
    // Each life also looks once at the registrations of webhooks, which is none of the backfill's requests.
    let requests = report["requests"].as_array().cloned().unwrap_or_default();
    let (looks, pages): (Vec<_>, Vec<_>) = requests.iter().partition(|row| row["collection"] == "webhooks");
    let count = |rows: Vec<&Value>| rows.iter().filter_map(|row| row["count"].as_u64()).sum::<u64>();
    let (looks, asked) = (count(looks), count(pages));
    let ideal = universe.database.number("select sum(pages) as n from instep_pass where kind = 'sweep' and state = 'completed'").await;
    let rows = universe.database.number("select count(*) as n from instep_entity").await;
    let (mut least, mut lists) = (0, 0);
    for resource in RESOURCES {
        least += universe.sandbox.keys(resource).await.len().div_ceil(PAGE).max(1) as i64;
        // Active and archived ones are listed apart.
        lists += 2;
    }
    assert!((least..=least + lists).contains(&ideal), "{ideal} pages were read, and there are {least}");
    println!(
        "backfill {:?}: {rows} records in {took:.1?}, {kills} kills; {asked} requests where {ideal} pages are there, {looks} looks at registrations, {} refusals",
        universe.database.engine, report["refusals_total"],
    );
    assert!(kills >= 2, "it was over after {kills} kills");
    assert_eq!(report["refusals"], json!([]));
    universe.in_step(PATIENCE).await;
    assert!(looks <= kills + 1, "{looks} looks at registrations in {} lives", kills + 1);
    let bound = ideal as f64 * 1.05 + kills as f64;
    assert!(asked as f64 <= bound, "{asked} requests, at most {bound:.0}");
}

/// Resources that were read completely; a file whose writer was just killed may not be readable for a moment.
async fn complete(universe: &Universe) -> i64 {
    universe.database.try_number("select count(*) as n from instep_resources where complete_as_of is not null").await.unwrap_or(0)
}
