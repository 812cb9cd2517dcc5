//! A connector that panics costs the delivery or the answer that it panicked on.

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::json;

use super::actors::{actors, started};
use crate::support::universe::about_task;
use crate::support::{Database, Setup, on_both};

on_both!(a_connector_that_panics_costs_what_it_panicked_on);

const SOON: Duration = Duration::from_secs(60);

async fn a_connector_that_panics_costs_what_it_panicked_on(database: Database) {
    const SENT: usize = 1_000;
    let (mut universe, mut points) = started(database, &Setup { source: "passes = false\n", ..Setup::default() }).await;
    let keys = universe.sandbox.keys("tasks").await;
    points.set("connector::events", "499*off->1*panic->off");
    let sent = futures_util::stream::iter(0..SENT).map(|number| {
        let (universe, body) = (&universe, about_task(&keys[number % keys.len()], &format!("delivery {number}")));
        async move { universe.deliver_surely("task-updated", body).await }
    });
    assert_eq!(sent.buffer_unordered(16).count().await, SENT, "each is acknowledged");
    universe.idle(SOON).await;
    let quarantined = "select q.reason as v from instep_quarantine q join instep_delivery d on d.id = q.delivery_id";
    let quarantined = universe.database.texts(&format!("{quarantined} where d.state = 'quarantined'")).await;
    assert_eq!(quarantined, ["the connector panicked on it"], "exactly the one");
    let count = "select count(distinct dedupe) as n from instep_delivery";
    let done = universe.database.number(&format!("{count} where state = 'done'")).await;
    assert_eq!(universe.database.number(count).await, SENT as i64);
    assert!(done >= SENT as i64 - 1, "{done}");

    // An answer that it panics on is no answer: it is asked for again.
    points.set("connector::read", "1*panic->off");
    universe.sandbox.change_silently("tasks", &keys[0], json!({ "title": "read with a panic" })).await;
    universe.deliver_surely("task-updated", about_task(&keys[0], "look")).await;
    universe.in_step(SOON).await;
    points.set("connector::read", "2*panic->off");
    universe
        .sandbox
        .control("update", json!({ "collection": "tasks", "id": keys[1], "attributes": { "title": "fed with a panic" } }))
        .await;
    universe.in_step(SOON).await;
    // Nobody can tell a forged request from one that the connector cannot read.
    points.set("connector::verify", "1*panic->off");
    assert_eq!(universe.deliver("task-updated", about_task(&keys[2], "refused")).await, Ok(401));
    universe.deliver_surely("task-updated", about_task(&keys[2], "accepted")).await;
    universe.idle(SOON).await;

    let standings = actors(&universe).await.expect("it answers");
    assert!(standings.values().all(|standing| standing["restarts"] == json!(0)), "no actor died of it: {standings:?}");
    assert!(universe.daemon().ended().is_none(), "the daemon lives");
    println!("panics {:?}: {done} done, {} quarantined of {SENT}; no restarts", universe.database.engine, quarantined.len());
}
