//! What the removal budget holds back waits for a person or a better day, and nothing else waits with it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::asked_passes::{answer, said};
use crate::support::universe::about_task;
use crate::support::{Database, Setup, Universe, eventually, on_both};

on_both!(
    only_what_the_budget_does_not_allow_is_held,
    what_is_approved_goes_if_a_read_does_not_find_it,
    an_approval_removes_nothing_while_the_view_is_lost,
    what_is_rejected_stays_until_a_later_sweep,
    what_is_rejected_while_it_is_read_stays,
    what_is_held_is_released_by_itself,
    a_removed_record_comes_back_only_if_it_is_shown,
);

const SOON: Duration = Duration::from_secs(60);
const LATE: &str = "sweep = \"24h\", poll = \"24h\"";
/// Rows that may go unannounced, and how many go.
const BUDGET: i64 = 5;
const GONE: i64 = 30;

fn setup(brake: &'static str) -> Setup {
    Setup { resources: vec![("tasks", LATE)], source: brake, ..Setup::default() }
}

fn tight() -> Setup {
    setup("feeds = false\nbrake = { share = 0.0, rows = 5, cap = 5 }")
}

async fn live(universe: &Universe) -> Result<i64, String> {
    universe.database.try_number("select count(*) as n from pmp_tasks").await
}

async fn live_becomes(universe: &Universe, expected: i64) {
    eventually(&format!("{expected} tasks are live"), SOON, async || match live(universe).await? {
        n if n == expected => Ok(()),
        n => Err(format!("{n} are")),
    })
    .await;
}

async fn held_becomes(universe: &Universe, expected: i64) {
    eventually(&format!("{expected} removals are held"), SOON, async || {
        let held = universe.database.try_number("select count(*) as n from instep_mark where held").await?;
        let open = universe.database.try_number("select count(*) as n from instep_mark").await?;
        if (held, open) == (expected, expected) { Ok(()) } else { Err(format!("{held} of {open} marks")) }
    })
    .await;
}

fn done(universe: &Universe, verb: &[&str]) -> Value {
    let output = universe.verb(&[verb, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{verb:?}: {}", said(&output));
    answer(&output)
}

fn sweep(universe: &Universe) {
    done(universe, &["reconcile", "pmp", "tasks", "--sweep"]);
}

async fn remove(universe: &Universe, keys: &[String]) {
    for key in keys {
        universe.sandbox.control("delete", json!({ "collection": "tasks", "id": key, "announce": false })).await;
    }
}

async fn restore(universe: &Universe, keys: &[String]) {
    for key in keys {
        universe.sandbox.control("restore", json!({ "collection": "tasks", "id": key, "announce": false })).await;
    }
}

/// A universe in which so many tasks have gone that most of their removals are held; their keys, and how many tasks there were.
async fn held_back(database: Database) -> (Universe, Vec<String>, i64) {
    held_back_of(database, &tight()).await
}

async fn held_back_of(database: Database, setup: &Setup) -> (Universe, Vec<String>, i64) {
    let universe = Universe::started(database, setup).await;
    let before = live(&universe).await.expect("a number");
    let gone: Vec<String> = universe.sandbox.keys("tasks").await.into_iter().take(GONE as usize).collect();
    remove(&universe, &gone).await;
    sweep(&universe);
    live_becomes(&universe, before - BUDGET).await;
    held_becomes(&universe, GONE - BUDGET).await;
    (universe, gone, before)
}

/// Starts the daemon with a budget that has room.
async fn roomy(universe: &mut Universe) {
    let roomy = setup("feeds = false\nbrake = { share = 0.5, rows = 100, cap = 100 }");
    universe.configure("", "", &universe.productive(&roomy));
    universe.run().await;
    universe.owned().await;
}

async fn watermark(universe: &Universe) -> i64 {
    universe.database.number("select watermark as n from instep_progress where resource = 'tasks'").await
}

async fn only_what_the_budget_does_not_allow_is_held(database: Database) {
    let (universe, gone, before) = held_back(database).await;
    let marked = watermark(&universe).await;
    // Beside what is held everything goes on: an update, a new record, the watermark, and a sweep is complete.
    let key = universe.sandbox.keys("tasks").await.pop().expect("a task");
    universe.sandbox.control("update", json!({ "collection": "tasks", "id": key, "attributes": { "title": "beside what is held" } })).await;
    done(&universe, &["reconcile", "pmp", "tasks"]);
    let title = format!("select count(*) as n from pmp_tasks where key = '{key}' and title = 'beside what is held'");
    assert_eq!(universe.database.number(&title).await, 1);
    assert!(watermark(&universe).await > marked, "the watermark moves");
    let held = done(&universe, &["reconcile", "held", "pmp"]);
    let row = &held["held"][0];
    assert_eq!((&row["resource"], &row["by_budget"], &row["keys"]), (&json!("tasks"), &json!(true), &json!(GONE - BUDGET)), "{held}");
    assert_eq!((&row["budget_left"], &row["removed_in_24h"], &row["live_rows"]), (&json!(0), &json!(BUDGET), &json!(before - BUDGET)));
    let sample = row["sample"].as_array().expect("a sample");
    assert!(sample.len() == 5 && sample.iter().all(|key| gone.iter().any(|gone| key == gone)), "{held}");
    // A following sweep weighs them again and comes to the same.
    sweep(&universe);
    held_becomes(&universe, GONE - BUDGET).await;
    assert_eq!(live(&universe).await, Ok(before - BUDGET));
    // Whoever does not want to wait need not.
    let approved = done(&universe, &["reconcile", "approve", "pmp", "tasks", "--no-wait"]);
    assert_eq!(approved, json!({ "source": "pmp", "resource": "tasks", "approved": GONE - BUDGET }));
    live_becomes(&universe, before - GONE).await;
    println!("decided_removals {:?}: {BUDGET} of {GONE} removed, {} held, updates applied", universe.database.engine, GONE - BUDGET);
}

async fn what_is_approved_goes_if_a_read_does_not_find_it(database: Database) {
    let (universe, gone, before) = held_back(database).await;
    let held = universe.database.texts("select key as v from instep_mark where held order by key").await;
    // One of them has come back meanwhile, and nobody said so.
    restore(&universe, &held[..1]).await;
    let approved = done(&universe, &["reconcile", "approve", "pmp", "tasks"]);
    let counts = ["approved", "removed", "kept", "waiting"].map(|name| approved[name].as_i64());
    assert_eq!(counts, [GONE - BUDGET, GONE - BUDGET - 1, 1, 0].map(Some), "{approved}");
    assert_eq!(approved["kept_keys"], json!(held[..1]));
    assert_eq!(live(&universe).await, Ok(before - GONE + 1), "it has waited for all of them");
    held_becomes(&universe, 0).await;
    let is_back = format!("select count(*) as n from pmp_tasks where key = '{}'", held[0]);
    assert_eq!(universe.database.number(&is_back).await, 1, "a read is the truth");
    let spent = universe.database.number("select count(*) as n from instep_change where unannounced").await;
    assert_eq!(spent, BUDGET, "what a person approves spends no budget");
    assert_eq!(done(&universe, &["reconcile", "approve", "pmp", "tasks"])["approved"], 0, "nothing is left to approve");
    assert_eq!(universe.verb(&["reconcile", "approve", "pmp", "nothing"]).status.code(), Some(1));
    println!("decided_removals {:?}: of {} approved one was found, the rest of {} went", universe.database.engine, held.len(), gone.len());
}

async fn an_approval_removes_nothing_while_the_view_is_lost(database: Database) {
    let (universe, _, before) = held_back(database).await;
    universe.sandbox.control("faults", json!({ "lost_permission": ["tasks"] })).await;
    let waited = universe.verb(&["reconcile", "approve", "pmp", "tasks", "--timeout", "2s", "--json"]);
    assert_eq!(waited.status.code(), Some(75), "{}", said(&waited));
    let counts = ["approved", "removed", "kept", "waiting"].map(|name| answer(&waited)[name].as_i64());
    assert_eq!(counts, [GONE - BUDGET, 0, 0, GONE - BUDGET].map(Some), "{}", said(&waited));
    assert!(said(&waited).contains("25 removal(s) wait; the daemon goes on"), "{}", said(&waited));
    eventually("the lost view is noticed", SOON, async || {
        let status = universe.status().await?;
        if status["sources"]["pmp"]["view_lost"] == true { Ok(()) } else { Err(status["wrong"].to_string()) }
    })
    .await;
    assert_eq!(live(&universe).await, Ok(before - BUDGET), "no read has shown that anything is shown");
    universe.sandbox.control("faults", json!({ "lost_permission": [] })).await;
    live_becomes(&universe, before - GONE).await;
}

async fn what_is_rejected_stays_until_a_later_sweep(database: Database) {
    let (universe, _, before) = held_back(database).await;
    assert_eq!(done(&universe, &["reconcile", "reject", "pmp", "tasks"])["rejected"], json!(GONE - BUDGET));
    assert_eq!(universe.database.number("select count(*) as n from instep_mark").await, 0);
    done(&universe, &["reconcile", "pmp", "tasks"]);
    universe.idle(SOON).await;
    assert_eq!(live(&universe).await, Ok(before - BUDGET), "no incremental pass suspects them");
    sweep(&universe);
    held_becomes(&universe, GONE - BUDGET).await;
    assert_eq!(live(&universe).await, Ok(before - BUDGET));
}

/// The budget has room again, and the reads that would remove what was held are under way when a person decides to keep it.
async fn what_is_rejected_while_it_is_read_stays(database: Database) {
    let slow = ["--latency-ms", "600"].map(str::to_owned).to_vec();
    let (mut universe, _, before) = held_back_of(database, &Setup { sandbox: slow, ..tight() }).await;
    assert_eq!(universe.stop().await, Some(0));
    roomy(&mut universe).await;
    done(&universe, &["reconcile", "pmp", "tasks", "--sweep", "--detach"]);
    // What is held rests for an hour, unless a sweep has it looked at again.
    let due = "select count(*) as n from instep_mark where held and not_before < (select max(at) from instep_heartbeat) + 600000000";
    eventually("what is held is read again", SOON, async || match universe.database.try_number(due).await? {
        n if n == GONE - BUDGET => Ok(()),
        n => Err(format!("{n} are due")),
    })
    .await;
    let rejected = done(&universe, &["reconcile", "reject", "pmp", "tasks"])["rejected"].as_i64().expect("a number");
    assert!(rejected > 0, "it was decided before the reads ended");
    // One step of a resource follows the other: when this is read, what was under way has ended.
    let key = universe.sandbox.keys("tasks").await.pop().expect("a task");
    universe.sandbox.change_silently("tasks", &key, json!({ "title": "read after that" })).await;
    universe.deliver_surely("task-updated", about_task(&key, "a hint")).await;
    let is_read = format!("select count(*) as n from pmp_tasks where key = '{key}' and title = 'read after that'");
    eventually("a later mark is read", SOON, async || match universe.database.try_number(&is_read).await? {
        1 => Ok(()),
        _ => Err("not yet".to_owned()),
    })
    .await;
    universe.idle(SOON).await;
    assert_eq!(live(&universe).await, Ok(before - GONE + rejected), "what was rejected stays");
    println!("decided_removals {:?}: {rejected} of {} rejected while they were read", universe.database.engine, GONE - BUDGET);
}

async fn what_is_held_is_released_by_itself(database: Database) {
    let (mut universe, gone, before) = held_back(database).await;
    // Half of them come back: the next sweep finds them, and their removals are off.
    let (back, away): (Vec<String>, Vec<String>) = {
        let held = universe.database.texts("select key as v from instep_mark where held order by key").await;
        let (back, _) = held.split_at(held.len() / 2);
        (back.to_vec(), gone.iter().filter(|key| !back.contains(key)).cloned().collect())
    };
    restore(&universe, &back).await;
    sweep(&universe);
    let left = away.len() as i64 - BUDGET;
    held_becomes(&universe, left).await;
    // With room in the budget the next sweep lets the others go.
    assert_eq!(universe.stop().await, Some(0));
    roomy(&mut universe).await;
    sweep(&universe);
    live_becomes(&universe, before - away.len() as i64).await;
    universe.in_step(SOON).await;
}

async fn a_removed_record_comes_back_only_if_it_is_shown(database: Database) {
    let universe = Universe::started(database, &tight()).await;
    let before = live(&universe).await.expect("a number");
    let key = universe.sandbox.keys("tasks").await.remove(0);
    let undelete = |key: &str| universe.verb(&["undelete", "pmp", "tasks", key, "--json"]);
    assert_eq!(undelete(&key).status.code(), Some(1), "it is live");
    assert_eq!(undelete("999999999").status.code(), Some(1), "it was never there");
    remove(&universe, std::slice::from_ref(&key)).await;
    sweep(&universe);
    live_becomes(&universe, before - 1).await;
    let absent = undelete(&key);
    assert_eq!((absent.status.code(), &answer(&absent)["outcome"]), (Some(1), &json!("not found")), "{}", said(&absent));
    assert_eq!(live(&universe).await, Ok(before - 1));
    restore(&universe, std::slice::from_ref(&key)).await;
    let back = undelete(&key);
    assert_eq!((back.status.code(), &answer(&back)["outcome"]), (Some(0), &json!("revived")), "{}", said(&back));
    assert_eq!(live(&universe).await, Ok(before));
    let learned = format!("select learned_by as v from instep_changes where key = '{key}' and operation = 'revive'");
    assert_eq!(universe.database.texts(&learned).await, ["refresh"]);
}
