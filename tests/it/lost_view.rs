//! A view that is lost removes nothing, and a delete that was announced needs nobody's leave.
//!
//! For a while everything, or one resource alone, reads 404 or empty (a permission is gone), while updates and deletes are
//! announced for records that are there and for records that are not. No row goes by any path (marks, passes, feeds), and once the
//! view is back the replica gets in step without anybody's help. The short form loses the view for seconds, the long one for ten
//! minutes: `INSTEP_LONG=1 cargo test --release --features failpoints --test it lost_view -- --nocapture`.

use std::time::Duration;

use serde_json::json;

use crate::support::universe::about_task;
use crate::support::{Database, Setup, Universe, eventually, is_long, monotonic, on_both, until};

on_both!(
    everything_reads_404,
    everything_lists_empty,
    one_resource_lists_empty_beside_a_healthy_one,
    three_rows_list_empty_beside_a_healthy_resource,
    an_announced_delete_of_two_fifths_goes_through_in_one_go,
);

/// With these every path that could remove is at work: marks, polls, sweeps, feeds.
const RESOURCES: [(&str, &str); 2] = [("tasks", "sweep = \"2s\", poll = \"1s\""), ("companies", "sweep = \"2s\", poll = \"1s\"")];
const EVERYTHING: [&str; 5] = ["tasks", "companies", "activities", "deleted_items", "time_entry_versions"];
const UPDATES: usize = 500;
const DELETES: usize = 50;
/// Deliveries come in as many shoals.
const SHOALS: usize = 10;

fn span() -> Duration {
    if is_long() { Duration::from_secs(600) } else { Duration::from_secs(6) }
}

/// Probes of a lost view, breakers and passes rest at most five minutes.
fn recovery() -> Duration {
    if is_long() { Duration::from_secs(400) } else { Duration::from_secs(60) }
}

/// A universe whose second resource has three rows.
async fn with_three_companies(database: Database) -> Universe {
    let setup = Setup { resources: RESOURCES.to_vec(), source: "", entities: 1_200, ..Setup::default() };
    let mut universe = Universe::new(database, &setup);
    for key in universe.sandbox.keys("companies").await.into_iter().skip(3) {
        universe.sandbox.control("delete", json!({ "collection": "companies", "id": key, "announce": false })).await;
    }
    universe.run().await;
    universe.backfilled().await;
    assert_eq!(live(&universe, "companies").await, Ok(3));
    universe
}

async fn live(universe: &Universe, resource: &str) -> Result<i64, String> {
    universe.database.try_number(&format!("select count(*) as n from pmp_{resource}")).await
}

async fn deletes(universe: &Universe) -> Result<i64, String> {
    universe.database.try_number("select count(*) as n from instep_changes where operation = 'delete'").await
}

async fn lose(universe: &Universe, collections: &[&str], is_empty: bool) {
    universe.sandbox.control("faults", json!({ "lost_permission": collections, "lost_permission_empty": is_empty })).await;
}

async fn everything_reads_404(database: Database) {
    lose_everything(database, false).await;
}

async fn everything_lists_empty(database: Database) {
    lose_everything(database, true).await;
}

async fn lose_everything(database: Database, is_empty: bool) {
    let mut universe = with_three_companies(database).await;
    let (pid, before) = (universe.daemon().pid(), live(&universe, "tasks").await.expect("a number"));
    let (tasks, companies) = (universe.sandbox.keys("tasks").await, universe.sandbox.keys("companies").await);
    assert!(tasks.len() > DELETES, "{} tasks", tasks.len());
    lose(&universe, &EVERYTHING, is_empty).await;
    let begun = monotonic();
    for shoal in 0..SHOALS {
        until(begun + span() * u32::try_from(shoal).expect("a few") / 10).await;
        deliver_shoal(&universe, shoal, &tasks, &companies).await;
        assert_eq!(deletes(&universe).await, Ok(0), "something went while nothing is shown");
    }
    until(begun + span()).await;
    let asked = universe.sandbox.report().await["faults"]["lost_permission"]["count"].clone();
    assert_eq!((live(&universe, "tasks").await, live(&universe, "companies").await), (Ok(before), Ok(3)));
    assert_eq!(deletes(&universe).await, Ok(0));
    lose(&universe, &[], false).await;
    let returned = monotonic();
    universe.in_step(recovery()).await;
    // Half of the announced deletes were true, and now they show.
    assert_eq!(live(&universe, "tasks").await, Ok(before - DELETES as i64 / 2));
    assert_eq!(live(&universe, "companies").await, Ok(3));
    in_step_without_help(&universe).await;
    assert_eq!(universe.daemon().pid(), pid);
    println!(
        "lost_view {:?}: everything lost for {:?}, lists empty: {is_empty}: {UPDATES} updates and {DELETES} deletes announced, 0 rows removed, {asked} reads in vain, in step {:.1} s after",
        universe.database.engine,
        span(),
        (monotonic() - returned).as_secs_f64()
    );
}

/// Announces a tenth of everything; half of the deletes are true, and a tenth of the updates.
async fn deliver_shoal(universe: &Universe, shoal: usize, tasks: &[String], companies: &[String]) {
    for number in (shoal..UPDATES).step_by(SHOALS) {
        let key = &tasks[DELETES + number % (tasks.len() - DELETES)];
        if (number / SHOALS).is_multiple_of(10) {
            let attributes = json!({ "title": format!("changed out of sight {number}") });
            universe.sandbox.control("update", json!({ "collection": "tasks", "id": key, "attributes": attributes })).await;
        }
        universe.deliver_surely("task-updated", &about_task(key, &format!("hint {number}"))).await;
    }
    for number in (shoal..DELETES).step_by(SHOALS) {
        let key = &tasks[number];
        if number < DELETES / 2 {
            universe.sandbox.control("delete", json!({ "collection": "tasks", "id": key, "announce": false })).await;
        }
        universe.deliver_surely("task-deleted", &about_task(key, &format!("delete {number}"))).await;
    }
    for key in companies {
        universe.deliver_surely("company-updated", &about_task(key, &format!("shoal {shoal}"))).await;
    }
}

/// No removal is held, nothing waits for a person, and the daemon says that all is well.
async fn in_step_without_help(universe: &Universe) {
    universe.idle(recovery()).await;
    eventually("the daemon finds nothing wrong", recovery(), async || {
        let status = universe.status().await?;
        let is_well = status["wrong"] == json!([]) && status["sources"]["pmp"]["view_lost"] == false;
        if is_well { Ok(()) } else { Err(format!("wrong: {}, view_lost: {}", status["wrong"], status["sources"]["pmp"]["view_lost"])) }
    })
    .await;
}

async fn one_resource_lists_empty_beside_a_healthy_one(database: Database) {
    lose_one(database, "tasks", true).await;
}

async fn three_rows_list_empty_beside_a_healthy_resource(database: Database) {
    lose_one(database, "companies", true).await;
}

/// What the other resource shows is no proof that this one is still shown.
async fn lose_one(database: Database, resource: &str, is_empty: bool) {
    let universe = with_three_companies(database).await;
    let before = live(&universe, resource).await.expect("a number");
    let route = if resource == "tasks" { "task-updated" } else { "company-updated" };
    let keys = universe.sandbox.keys(resource).await;
    lose(&universe, &[resource], is_empty).await;
    let begun = monotonic();
    for shoal in 0..SHOALS {
        until(begun + span() * u32::try_from(shoal).expect("a few") / 10).await;
        for key in keys.iter().take(3) {
            universe.deliver_surely(route, &about_task(key, &format!("hint {shoal}"))).await;
        }
    }
    until(begun + span()).await;
    assert_eq!((live(&universe, resource).await, deletes(&universe).await), (Ok(before), Ok(0)), "{resource} was only out of sight");
    lose(&universe, &[], false).await;
    universe.in_step(recovery()).await;
    in_step_without_help(&universe).await;
    println!("lost_view {:?}: {resource} alone lost, {before} rows, lists empty: {is_empty}: 0 removed", universe.database.engine);
}

async fn an_announced_delete_of_two_fifths_goes_through_in_one_go(database: Database) {
    let mut universe = Universe::started(database, &Setup { entities: 1_200, ..Setup::default() }).await;
    let created = universe.verb(&["hooks", "create", "pmp"]);
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let before = live(&universe, "tasks").await.expect("a number");
    let gone = before * 2 / 5;
    let begun = monotonic();
    for key in universe.sandbox.keys("tasks").await.into_iter().take(usize::try_from(gone).expect("a few")) {
        universe.sandbox.control("delete", json!({ "collection": "tasks", "id": key })).await;
    }
    eventually("two fifths are gone", Duration::from_secs(60), async || {
        let held = universe.database.try_number("select count(*) as n from instep_mark where held").await?;
        assert_eq!(held, 0, "what was announced needs nobody's leave");
        match live(&universe, "tasks").await? {
            n if n == before - gone => Ok(()),
            n => Err(format!("{n} of {before} are live")),
        }
    })
    .await;
    let seconds = (monotonic() - begun).as_secs_f64();
    universe.in_step(Duration::from_secs(30)).await;
    in_step_without_help(&universe).await;
    assert!(!universe.daemon().said().contains("removal held"));
    println!(
        "lost_view {:?}: {gone} of {before} announced deletes were applied within {seconds:.1} s, none held",
        universe.database.engine
    );
}
