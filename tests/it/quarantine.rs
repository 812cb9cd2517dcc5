//! What could not be processed is shown, tried again or given up, and what is given up opens a gap.

use std::time::Duration;

use serde_json::json;

use crate::asked_passes::{answer, said};
use crate::support::universe::about_task;
use crate::support::{Database, Setup, Universe, eventually, on_both};

on_both!(
    a_delivery_that_is_replayed_is_taken_as_if_it_had_just_come,
    a_delivery_that_is_discarded_opens_a_gap,
    of_a_record_that_is_replayed_the_key_is_read_again,
);

const SOON: Duration = Duration::from_secs(30);
const POISON: &str = "{ \"event\": \"cut off";

async fn quarantined(universe: &Universe) -> Result<i64, String> {
    universe.database.try_number("select count(*) as n from instep_quarantine").await
}

async fn quarantined_becomes(universe: &Universe, expected: i64) {
    eventually(&format!("{expected} in quarantine"), SOON, async || match quarantined(universe).await? {
        n if n == expected => Ok(()),
        n => Err(format!("{n} are")),
    })
    .await;
    universe.idle(SOON).await;
}

/// The number of the one thing that is in quarantine.
fn number(universe: &Universe) -> String {
    let listed = answer(&universe.verb(&["quarantine", "list", "pmp", "--json"]));
    assert_eq!(listed["quarantine"].as_array().map(Vec::len), Some(1), "{listed}");
    listed["quarantine"][0]["id"].as_i64().expect("a number").to_string()
}

async fn a_delivery_that_is_replayed_is_taken_as_if_it_had_just_come(database: Database) {
    let universe = Universe::started(database, &Setup::default()).await;
    universe.deliver_surely("task-updated", POISON).await;
    quarantined_becomes(&universe, 1).await;
    let id = number(&universe);
    let shown = answer(&universe.verb(&["quarantine", "show", "pmp", &id, "--json"]));
    assert_eq!((&shown["kind"], &shown["route"], &shown["body"]), (&json!("delivery"), &json!("task-updated"), &json!(POISON)), "{shown}");
    // It is as unreadable as before.
    let replayed = universe.verb(&["quarantine", "replay", "pmp", &id]);
    assert_eq!(replayed.status.code(), Some(0), "{}", said(&replayed));
    eventually("it is quarantined again", SOON, async || {
        let again = universe.database.try_number("select max(id) as n from instep_quarantine").await.unwrap_or(0);
        if again > id.parse().expect("a number") { Ok(()) } else { Err(format!("{again}")) }
    })
    .await;
    // As if the connector had learned to read it.
    let key = universe.sandbox.keys("tasks").await.remove(0);
    universe.sandbox.change_silently("tasks", &key, json!({ "title": "told by what was put aside" })).await;
    let body = universe.database.blob(about_task(&key, "a hint"));
    universe.database.execute(&format!("update instep_delivery set body = {body} where state = 'quarantined'")).await;
    let all = answer(&universe.verb(&["quarantine", "replay", "pmp", "--all", "--json"]));
    assert_eq!((&all["replayed"], &all["kept"]), (&json!(1), &json!([])), "{all}");
    universe.in_step(SOON).await;
    assert_eq!(quarantined(&universe).await, Ok(0));
    assert_eq!(universe.verb(&["quarantine", "replay", "pmp", "4711"]).status.code(), Some(1), "there is none of that number");
    assert_eq!(universe.verb(&["quarantine", "replay", "pmp"]).status.code(), Some(64), "neither a number nor all");
    let gaps = universe.database.number("select count(*) as n from instep_gaps").await;
    assert_eq!(gaps, 0, "nothing is lost");
}

async fn a_delivery_that_is_discarded_opens_a_gap(database: Database) {
    let late = "sweep = \"24h\", poll = \"24h\"";
    let universe = Universe::started(database, &Setup { resources: vec![("tasks", late)], source: "", ..Setup::default() }).await;
    let passes = "select count(*) as n from instep_pass where kind = 'incremental' and state = 'completed'";
    let before = universe.database.number(passes).await;
    universe.deliver_surely("task-updated", POISON).await;
    quarantined_becomes(&universe, 1).await;
    let discarded = answer(&universe.verb(&["quarantine", "discard", "pmp", &number(&universe), "--json"]));
    assert_eq!(discarded["gap"], "discarded");
    eventually("a pass has closed the gap", SOON, async || {
        let gaps = universe.database.try_rows("select cause, state from instep_gaps", &["cause", "state"]).await?;
        let closed = [Some("discarded".to_owned()), Some("repaired".to_owned())];
        if gaps == [closed.to_vec()] { Ok(()) } else { Err(format!("{gaps:?}")) }
    })
    .await;
    assert!(universe.database.number(passes).await > before);
    assert_eq!(universe.database.texts("select state as v from instep_delivery").await, ["discarded"]);
    assert_eq!(quarantined(&universe).await, Ok(0));
}

async fn of_a_record_that_is_replayed_the_key_is_read_again(database: Database) {
    let universe = Universe::started(database, &Setup::default()).await;
    let key = universe.sandbox.keys("tasks").await.remove(0);
    universe.sandbox.change_silently("tasks", &key, json!({ "title": "readable by now" })).await;
    for key in [format!("'{key}'"), "null".to_owned()] {
        let put = format!(
            "insert into instep_quarantine (source, kind, resource, key, reason, at) values ('pmp', 'record', 'tasks', {key}, 'put here', 1)"
        );
        universe.database.execute(&put).await;
    }
    let replayed = universe.verb(&["quarantine", "replay", "pmp", "--all", "--json"]);
    let all = answer(&replayed);
    assert_eq!((replayed.status.code(), &all["replayed"]), (Some(1), &json!(1)), "{all}");
    assert_eq!(all["kept"][0]["why"], "it has no key: a sweep meets it again");
    universe.in_step(SOON).await;
    universe.idle(SOON).await;
    let discarded = universe.verb(&["quarantine", "discard", "pmp", &number(&universe)]);
    assert_eq!(discarded.status.code(), Some(0), "{}", said(&discarded));
    assert_eq!((quarantined(&universe).await, universe.database.number("select count(*) as n from instep_gaps").await), (Ok(0), 0));
}
