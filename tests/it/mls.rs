//! A RESO producer's records are in step by each of the three ways alone: its pushes, its log, and passes.

use std::time::Duration;

use serde_json::json;

use crate::support::{Database, Mls, Universe, eventually, mls, on_both};

on_both!(
    pushes_alone_keep_it_in_step,
    the_log_alone_loses_nothing_that_becomes_visible_late,
    without_overlap_what_becomes_visible_late_is_lost,
    a_log_that_is_compacted_while_it_is_walked_loses_nothing,
    passes_alone_keep_it_in_step
);

const SOON: Duration = Duration::from_secs(60);
const CHANGES: u64 = 300;

/// People work; how many records there are once they have ended.
async fn work(universe: &Universe) -> usize {
    universe.sandbox.control("churn", json!({ "changes": CHANGES, "per_second": 100 })).await;
    universe.sandbox.quiet(SOON).await;
    mls::in_step(universe, SOON).await
}

async fn refusals(universe: &Universe) -> u64 {
    universe.sandbox.report().await["refusals_total"].as_u64().expect("a count")
}

/// Lost, doubled and reordered pushes are what the log and passes are for; here each one comes, in any order, some of them twice.
async fn pushes_alone_keep_it_in_step(database: Database) {
    let source = "events = { read = \"no\" }\npasses = false";
    let sandbox = vec!["--push-duplicated", "0.2", "--push-reordered", "0.2"];
    let universe = Mls { source, sandbox }.started(database).await;
    mls::subscribe(&universe).await;
    let n = work(&universe).await;
    let told = universe.database.number("select count(*) as n from instep_changes where learned_by = 'mark'").await;
    assert!(n > 0 && told > 0 && refusals(&universe).await == 0);
    println!("mls {:?}: {CHANGES} changes by pushes alone: {n} records in step, 0 refusals", universe.database.engine);
}

/// Waits for so many further reads of the log.
async fn log_was_read(universe: &Universe, times: u64) {
    let before = universe.sandbox.reads("EntityEvent").await;
    eventually("the log was read", SOON, async || {
        let reads = universe.sandbox.reads("EntityEvent").await - before;
        if reads >= times { Ok(()) } else { Err(format!("{reads} times")) }
    })
    .await;
}

/// The overlap is what finds late numbers: the same test without it can fail.
async fn without_overlap_what_becomes_visible_late_is_lost(database: Database) {
    let source = "events = { read = \"yes\", poll = \"1s\", overlap = 0 }\npasses = false";
    let sandbox = vec!["--events-late", "0.3", "--events-late-max-ms", "500"];
    let universe = Mls { source, sandbox }.started(database).await;
    log_was_read(&universe, 1).await;
    universe.sandbox.control("churn", json!({ "changes": CHANGES, "per_second": 100 })).await;
    universe.sandbox.quiet(SOON).await;
    log_was_read(&universe, 3).await;
    universe.idle(SOON).await;
    let lost = mls::differences_now(&universe).await;
    println!("mls {:?}: without overlap {lost} records differ for good", universe.database.engine);
    assert!(lost > 0, "late numbers are found without an overlap: the other test shows nothing");
}

async fn the_log_alone_loses_nothing_that_becomes_visible_late(database: Database) {
    let source = "events = { read = \"yes\", poll = \"1s\" }\npasses = false";
    let sandbox = vec!["--events-late", "0.3", "--events-late-max-ms", "500"];
    let universe = Mls { source, sandbox }.started(database).await;
    log_was_read(&universe, 1).await;
    let n = work(&universe).await;
    let late = universe.sandbox.report().await["faults"]["events_late"]["count"].as_u64().expect("a count");
    assert!(late > 0 && refusals(&universe).await == 0);
    println!(
        "mls {:?}: {CHANGES} changes by the log alone, {late} events visible late: {n} records in step, 0 refusals",
        universe.database.engine
    );
}

/// The server's links count rows, so that a walk by links would pass over events when others go.
async fn a_log_that_is_compacted_while_it_is_walked_loses_nothing(database: Database) {
    let source = "events = { read = \"yes\", poll = \"1s\", page = 10 }\npasses = false";
    let universe = Mls { source, sandbox: vec!["--compaction-ms", "50"] }.started(database).await;
    log_was_read(&universe, 1).await;
    let n = work(&universe).await;
    let compacted = universe.sandbox.report().await["events"]["compacted"].as_u64().expect("a count");
    assert!(compacted > 0 && refusals(&universe).await == 0);
    println!("mls {:?}: {compacted} events compacted away while the log was walked: {n} records in step", universe.database.engine);
}

async fn passes_alone_keep_it_in_step(database: Database) {
    let source = "events = { read = \"no\" }\n[sources.mls.resources]\nProperty = { poll = \"1s\", sweep = \"2s\" }\n\
         Member = { poll = \"1s\", sweep = \"2s\" }\nOffice = { poll = \"1s\", sweep = \"2s\" }\n\
         Media = { poll = \"1s\", sweep = \"2s\" }\nOpenHouse = { poll = \"1s\", sweep = \"2s\" }";
    let universe = Mls { source, sandbox: Vec::new() }.started(database).await;
    let n = work(&universe).await;
    assert!(n > 0 && refusals(&universe).await == 0);
    println!("mls {:?}: {CHANGES} changes by passes alone: {n} records in step, 0 refusals", universe.database.engine);
}
