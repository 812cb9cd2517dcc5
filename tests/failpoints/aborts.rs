//! The process ends at a border between durable steps, and starts again: nothing acknowledged is lost, nothing happens twice.

use std::time::Duration;

use super::{Points, with_points};
use crate::support::universe::about_task;
use crate::support::{Database, Setup, Universe, on_both};

on_both!(an_abort_after_the_journals_commit_keeps_the_delivery);

async fn an_abort_after_the_journals_commit_keeps_the_delivery(database: Database) {
    let mut universe = Universe::new(database, &Setup { entities: 100, ..Setup::default() });
    universe.launch(&mut with_points(universe.command(), ""));
    universe.ready().await;
    universe.backfilled().await;
    let keys = universe.sandbox.keys("tasks").await;
    Points::of(universe.daemon()).set("journal::after_commit", "return(abort)");
    assert!(universe.deliver("task-updated", &about_task(&keys[0], "durable, never acknowledged")).await.is_err());
    assert_eq!(universe.daemon().exit_code(Duration::from_secs(10)).await, None, "it was aborted");
    universe.kill();
    universe.run().await;
    let stored = universe.database.number("select count(*) as n from instep_delivery").await;
    assert_eq!(stored, 1, "what was committed is there");
    universe.idle(Duration::from_secs(30)).await;
}
