//! A repeated delivery is a second look, unless the first still waits.

use std::time::Duration;

use serde_json::json;

use crate::support::universe::about_task;
use crate::support::{Database, Setup, Universe, eventually, on_both};

on_both!(the_same_body_again_is_a_second_look, a_duplicate_of_a_waiting_delivery_is_swallowed);

const SOON: Duration = Duration::from_secs(20);

async fn title(universe: &Universe, key: &str) -> Result<String, String> {
    let rows = universe.database.try_rows(&format!("select title from pmp_tasks where key = '{key}'"), &["title"]).await?;
    rows.into_iter().flatten().next().flatten().ok_or_else(|| "no such task".to_owned())
}

async fn shows(universe: &Universe, key: &str, expected: &str) {
    eventually(&format!("the replica shows {expected:?}"), SOON, async || {
        let title = title(universe, key).await?;
        if title == expected { Ok(()) } else { Err(title) }
    })
    .await;
}

async fn the_same_body_again_is_a_second_look(database: Database) {
    let universe = Universe::started(database, &Setup::default()).await;
    let key = universe.sandbox.keys("tasks").await.remove(0);
    let body = about_task(&key, "the same words");
    let before = universe.sandbox.reads("tasks").await;
    let mut reads = Vec::new();
    // The change leaves no trace upstream, so that nothing but the delivery can lead to it.
    for now in ["first", "second"] {
        universe.sandbox.change_silently("tasks", &key, json!({ "title": now })).await;
        universe.deliver_surely("task-updated", &body).await;
        shows(&universe, &key, now).await;
        universe.idle(SOON).await;
        reads.push(universe.sandbox.reads("tasks").await - before);
    }
    println!("duplicates {:?}: reads after each delivery {reads:?}", universe.database.engine);
    assert!(reads[0] >= 1 && reads[1] > reads[0], "two looks: {reads:?}");
    let rows = universe.database.number("select count(*) as n from instep_delivery where state = 'done'").await;
    // On a busy machine a sender may be told to come again although its delivery is stored.
    assert!(rows >= 2, "both were taken: {rows}");
}

async fn a_duplicate_of_a_waiting_delivery_is_swallowed(database: Database) {
    const SENT: usize = 200;
    let universe = Universe::started(database, &Setup::default()).await;
    let key = universe.sandbox.keys("tasks").await.remove(0);
    let body = about_task(&key, "all at once");
    let sent = (0..SENT).map(|_| universe.deliver_surely("task-updated", &body));
    futures_util::future::join_all(sent).await;
    universe.idle(SOON).await;
    let rows = universe.database.number("select count(*) as n from instep_delivery").await;
    println!("duplicates {:?}: {SENT} at once became {rows} rows", universe.database.engine);
    assert!((1..SENT as i64 / 2).contains(&rows), "{rows} rows of {SENT} deliveries that came together");
}
