//! A first sweep that is killed again and again goes on where it was: it reads no page twice but the one under way, and is never
//! refused.
//!
//! So with every kind of upstream, over all of its resources. The long form has 50,000 records and the limits of vendors; those of
//! RESO's standard are none, so that eight requests a second are agreed on:
//! `INSTEP_LONG=1 cargo test --release --test it backfill -- --nocapture --test-threads=1`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Database, Mls, Pim, Setup, Universe, Upstream, eventually, is_long, monotonic, on_both, until};

on_both!(
    a_killed_backfill_of_productive_goes_on_where_it_was,
    a_killed_backfill_of_a_pim_goes_on_where_it_was,
    a_killed_backfill_of_a_producer_goes_on_where_it_was,
);

const PATIENCE: Duration = Duration::from_secs(900);

async fn a_killed_backfill_of_productive_goes_on_where_it_was(database: Database) {
    goes_on_where_it_was::<Setup>(database).await;
}

async fn a_killed_backfill_of_a_pim_goes_on_where_it_was(database: Database) {
    goes_on_where_it_was::<Pim>(database).await;
}

async fn a_killed_backfill_of_a_producer_goes_on_where_it_was(database: Database) {
    goes_on_where_it_was::<Mls>(database).await;
}

async fn goes_on_where_it_was<U: Upstream>(database: Database) {
    // So slow an upstream that a backfill lasts for several lives, each of which gets on by some pages.
    let (records, latency_ms, pages) = if is_long() { (50_000, "100", 17..35) } else { (3_000, "80", 5..13) };
    let mut universe = U::all(database, records, latency_ms);
    let (begin, mut kills) = (monotonic(), 0);
    loop {
        universe.run().await;
        let until_page = walked::<U>(&universe).await + rand::random_range(pages.clone());
        let is_swept = eventually("it gets on", PATIENCE, async || match universe.is_swept().await {
            false if walked::<U>(&universe).await < until_page => Err(format!("it is not yet at page {until_page}")),
            is_swept => Ok(is_swept),
        })
        .await;
        if is_swept {
            break;
        }
        // Anywhere within the next page.
        until(monotonic() + Duration::from_millis(rand::random_range(0..200))).await;
        universe.kill();
        kills += 1;
    }
    let took = monotonic() - begin;
    universe.idle(PATIENCE).await;
    let (asked, beside) = (walked::<U>(&universe).await, universe.sandbox.requests(is_beside::<U>).await);
    let refusals = universe.sandbox.report().await["refusals"].clone();
    let ideal = U::pages(&universe).await as u64;
    let walked = universe.database.number("select sum(pages) as n from instep_pass where kind = 'sweep' and state = 'completed'").await;
    let rows = universe.database.number("select count(*) as n from instep_entity").await;
    println!(
        "backfill of {} {:?}: {rows} records in {took:.1?}, {kills} kills; {asked} requests where {ideal} pages are there, {beside} beside \
         them ({}), refusals {refusals}",
        U::NAME,
        universe.database.engine,
        U::BESIDE.join(", "),
    );
    assert!(kills >= 2, "it was over after {kills} kills");
    assert_eq!(walked, ideal as i64, "pages that were walked, and those that are there");
    assert_eq!(refusals, json!([]));
    U::in_step(&universe, PATIENCE).await;
    assert!(beside <= (kills + 1) * U::BESIDE.len() as u64, "{beside} requests beside the walk in {} lives", kills + 1);
    let bound = ideal as f64 * 1.05 + kills as f64;
    assert!(asked as f64 <= bound, "{asked} requests, at most {bound:.0}");
}

/// Requests that walk.
async fn walked<U: Upstream>(universe: &Universe) -> u64 {
    universe.sandbox.requests(|row| !is_beside::<U>(row)).await
}

fn is_beside<U: Upstream>(row: &Value) -> bool {
    row["collection"].as_str().is_some_and(|name| U::BESIDE.contains(&name))
}
