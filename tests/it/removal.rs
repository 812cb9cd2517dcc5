//! Absence is suspicious: what is removed, what is held, and what comes back.

use std::time::Duration;

use serde_json::json;

use crate::support::universe::about_task;
use crate::support::{Database, Setup, Universe, eventually, on_both};

on_both!(
    a_lost_view_removes_nothing,
    a_view_that_became_empty_removes_nothing,
    an_announced_delete_and_a_return,
    an_unannounced_delete_is_found_within_the_budget,
    more_than_the_budget_is_held,
);

const SOON: Duration = Duration::from_secs(30);
const SWEEPS: &str = "sweep = \"2s\", poll = \"1s\"";

fn sweeping() -> Setup {
    Setup { resources: vec![("tasks", SWEEPS)], source: "feeds = false", ..Setup::default() }
}

async fn live(universe: &Universe) -> Result<i64, String> {
    universe.database.try_number("select count(*) as n from pmp_tasks").await
}

async fn deletes(universe: &Universe) -> Result<i64, String> {
    universe.database.try_number("select count(*) as n from instep_changes where operation = 'delete'").await
}

async fn live_becomes(universe: &Universe, expected: i64) {
    eventually(&format!("{expected} tasks are live"), SOON, async || match live(universe).await? {
        n if n == expected => Ok(()),
        n => Err(format!("{n} are")),
    })
    .await;
}

/// Waits until sweeps (completed or given up) that began after now have ended.
async fn swept_again(universe: &Universe, n_more: i64) {
    let sql = "select count(*) as n from instep_pass where kind = 'sweep' and ended_at is not null";
    let before = universe.database.number(sql).await;
    eventually("further sweeps end", SOON, async || {
        let n = universe.database.try_number(sql).await?;
        if n >= before + n_more { Ok(()) } else { Err(format!("{} of {n_more}", n - before)) }
    })
    .await;
}

async fn a_lost_view_removes_nothing(database: Database) {
    lose_view(database, false).await;
}

async fn a_view_that_became_empty_removes_nothing(database: Database) {
    lose_view(database, true).await;
}

async fn lose_view(database: Database, is_empty: bool) {
    let universe = Universe::started(database, &sweeping()).await;
    let before = live(&universe).await.expect("a number");
    let keys = universe.sandbox.keys("tasks").await;
    // A moment ago everything was shown, which proves nothing about now.
    universe.deliver_surely("task-updated", &about_task(&keys[1], "still shown")).await;
    universe.idle(SOON).await;
    let faults = json!({ "lost_permission": ["tasks"], "lost_permission_empty": is_empty });
    universe.sandbox.control("faults", faults).await;
    // A hint about a record that is still there, and sweeps that see nothing.
    universe.deliver_surely("task-updated", &about_task(&keys[0], "a hint")).await;
    eventually("the daemon has tried enough to notice", SOON, async || {
        let is_noticed = universe.status().await?["sources"]["pmp"]["view_lost"] == true;
        let refused = universe.sandbox.report().await["faults"]["lost_permission"]["count"].as_u64().unwrap_or(0);
        // An empty list is only seen through by reads by key; lists that are refused say nothing that could be mistaken.
        let is_tried = if is_empty { is_noticed } else { refused >= 8 };
        if is_tried || deletes(&universe).await? > 0 { Ok(()) } else { Err(format!("{refused} reads refused")) }
    })
    .await;
    assert_eq!((live(&universe).await, deletes(&universe).await), (Ok(before), Ok(0)), "nothing is removed while nothing is shown");
    universe.sandbox.control("faults", json!({ "lost_permission": [] })).await;
    universe.in_step(Duration::from_secs(90)).await;
    println!("removal {:?}: view lost, lists empty: {is_empty}: nothing removed", universe.database.engine);
}

async fn an_announced_delete_and_a_return(database: Database) {
    let universe = Universe::started(database, &Setup::default()).await;
    let created = universe.verb(&["hooks", "create", "pmp"]);
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let before = live(&universe).await.expect("a number");
    let key = universe.sandbox.keys("tasks").await.remove(0);
    let record = json!({ "collection": "tasks", "id": key });
    universe.sandbox.control("delete", record.clone()).await;
    live_becomes(&universe, before - 1).await;
    // With the content that it had: neither version nor hash tells that it is back.
    universe.sandbox.control("restore", record).await;
    live_becomes(&universe, before).await;
    universe.in_step(SOON).await;
    let sql = format!("select operation as v from instep_changes where key = '{key}' order by number");
    let operations = universe.database.texts(&sql).await;
    println!("removal {:?}: announced delete and return: {operations:?}", universe.database.engine);
    assert_eq!(operations.len(), 3, "created, deleted, back: {operations:?}");
}

async fn an_unannounced_delete_is_found_within_the_budget(database: Database) {
    let universe = Universe::started(database, &sweeping()).await;
    let before = live(&universe).await.expect("a number");
    for key in universe.sandbox.keys("tasks").await.into_iter().take(3) {
        universe.sandbox.control("delete", json!({ "collection": "tasks", "id": key, "announce": false })).await;
    }
    live_becomes(&universe, before - 3).await;
    universe.in_step(SOON).await;
    let held = universe.database.number("select count(*) as n from instep_mark where held").await;
    assert_eq!(held, 0);
    println!("removal {:?}: 3 of {before} unannounced deletes found by a sweep", universe.database.engine);
}

async fn more_than_the_budget_is_held(database: Database) {
    let setup = Setup { source: "feeds = false\nbrake = { share = 0.05, rows = 3, cap = 1000 }", ..sweeping() };
    let universe = Universe::started(database, &setup).await;
    let before = live(&universe).await.expect("a number");
    let budget = (before / 20).max(3);
    let n_gone = budget + 12;
    let gone = universe.sandbox.keys("tasks").await.into_iter().take(usize::try_from(n_gone).expect("a few"));
    for key in gone {
        universe.sandbox.control("delete", json!({ "collection": "tasks", "id": key, "announce": false })).await;
    }
    live_becomes(&universe, before - budget).await;
    let held = eventually("the rest is held", SOON, async || {
        let held = universe.database.try_number("select count(*) as n from instep_mark where held").await?;
        if held == n_gone - budget { Ok(held) } else { Err(format!("{held} of {}", n_gone - budget)) }
    })
    .await;
    swept_again(&universe, 2).await;
    assert_eq!(live(&universe).await, Ok(before - budget), "further sweeps find no more budget");
    println!("removal {:?}: of {n_gone} gone at once {budget} were removed and {held} held, of {before}", universe.database.engine);
}
