//! Memory is bounded, however much there is upstream and however much waits.
//!
//! The short form is a proportion of the long one, 200,000 entities and a backlog of 100,000 deliveries:
//! `INSTEP_LONG=1 cargo test --release --test it memory -- --nocapture --test-threads=1`.

use std::time::Duration;

use crate::support::universe::about_task;
use crate::support::{Database, Setup, Universe, eventually, is_long, on_both};

on_both!(memory_stays_bounded);

/// Every resource of the vendor.
const RESOURCES: [&str; 22] = instep::config::PRODUCTIVE_RESOURCES;

async fn memory_stays_bounded(database: Database) {
    let (entities, backlog, limit_mib, patience) =
        if is_long() { (200_000, 100_000, 128, Duration::from_secs(1_800)) } else { (5_000, 3_000, 96, Duration::from_secs(120)) };
    let resources = RESOURCES.map(|name| (name, "")).to_vec();
    let mut universe = Universe::new(database, &Setup { entities, resources, ..Setup::default() });
    universe.run().await;
    let n = RESOURCES.len() as i64;
    eventually("the first sweep ends", patience, async || {
        let complete = universe.database.try_number("select count(*) as n from instep_resources where complete_as_of is not null").await?;
        if complete == n { Ok(()) } else { Err(format!("{complete} of {n}")) }
    })
    .await;
    let after_sweep = universe.daemon().memory_kib("VmHWM");
    let keys = universe.sandbox.keys("tasks").await;
    let sent = deliver_all(&universe, &keys, backlog).await;
    assert_eq!(sent, backlog, "each is acknowledged");
    universe.idle(patience).await;
    let after_load = universe.daemon().memory_kib("VmHWM");

    // The intake is too quick for a backlog to gather, so all of them wait again, for a daemon that finds them at its start.
    assert_eq!(universe.stop().await, Some(0));
    universe.database.execute("update instep_delivery set state = 'pending', done_at = null").await;
    universe.run().await;
    universe.idle(patience).await;
    let after_backlog = universe.daemon().memory_kib("VmHWM");
    let rows = universe.database.number("select count(*) as n from instep_entity").await;
    println!(
        "memory {:?}: {rows} entities, {sent} deliveries; VmHWM {} MiB after the sweep, {} MiB after the load, {} MiB after it all waited again",
        universe.database.engine,
        after_sweep / 1024,
        after_load / 1024,
        after_backlog / 1024
    );
    let peak = after_load.max(after_backlog);
    assert!(peak <= limit_mib * 1024, "{peak} KiB, at most {limit_mib} MiB");
}

async fn deliver_all(universe: &Universe, keys: &[String], n: usize) -> usize {
    use futures_util::StreamExt as _;
    let sent = futures_util::stream::iter(0..n).map(|number| {
        let body = about_task(&keys[number % keys.len()], &format!("delivery {number}"));
        async move { universe.deliver_surely("task-updated", &body).await }
    });
    sent.buffer_unordered(64).count().await
}
