//! The life of a record can be told from what stands in rows, and one sentence says what is held of it now and why.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::universe::about_task;
use crate::support::{Database, Setup, Splice, Universe, eventually, on_both};

on_both!(a_life_is_told_from_its_rows);

const SOON: Duration = Duration::from_secs(30);
/// A title that the way upstream turns into a number which no reader takes.
const POISON: &str = "POISON";

async fn explained(universe: &Universe, key: &str, more: &[&str]) -> Value {
    let arguments: Vec<&str> = ["explain", "pmp", "tasks", key, "--json"].into_iter().chain(more.iter().copied()).collect();
    let output = universe.verb(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Waits until the record's history ends with a change of this operation and nothing is left to look at.
async fn changed(universe: &Universe, key: &str, operation: &str) {
    let sql = format!("select operation as v from instep_changes where key = '{key}' order by number desc limit 1");
    eventually(&format!("the last change is {operation}"), SOON, async || {
        let last = universe.database.try_rows(&sql, &["v"]).await?.into_iter().flatten().next().flatten();
        if last.as_deref() == Some(operation) { Ok(()) } else { Err(format!("{last:?}")) }
    })
    .await;
    universe.idle(SOON).await;
}

/// What is told of each entry: what, and the words that matter of it.
fn told(story: &Value) -> Vec<String> {
    let word = |entry: &Value, name: &str| entry[name].as_str().unwrap_or("-").to_owned();
    let entries = story["entries"].as_array().expect("entries");
    let tell = |entry: &Value| match entry["what"].as_str() {
        Some("event") => {
            format!("{} {} {} ({})", word(entry, "via"), word(entry, "operation"), word(entry, "outcome"), word(entry, "reason"))
        }
        Some("change") => format!("{} by {}", word(entry, "operation"), word(entry, "learned_by")),
        _ => format!("{} ({})", word(entry, "what"), word(entry, "reason")),
    };
    entries.iter().map(tell).collect()
}

/// A task is made, told of out of order, deleted, restored and spoilt; what is told of it before it was spoilt.
async fn live(universe: &Universe, key: &str) -> Value {
    universe.deliver_surely("task-created", about_task(key, "made")).await;
    changed(universe, key, "insert").await;
    let stale = json!({ "data": { "id": key, "type": "tasks", "attributes": { "updated_at": "2020-01-01T00:00:00.000Z" } } });
    universe.deliver_surely("task-updated", json!({ "event": "update_task", "object": stale }).to_string()).await;
    universe.idle(SOON).await;
    let record = json!({ "collection": "tasks", "id": key, "announce": false });
    universe.sandbox.control("delete", record.clone()).await;
    universe.deliver_surely("task-deleted", about_task(key, "gone")).await;
    changed(universe, key, "delete").await;
    let removed = explained(universe, key, &[]).await;
    assert!(removed["holds"].as_str().is_some_and(|text| text.starts_with("It is held as removed since ")), "{removed}");
    universe.sandbox.control("restore", record).await;
    universe.deliver_surely("task-updated", about_task(key, "back")).await;
    changed(universe, key, "revive").await;
    let before = explained(universe, key, &[]).await;
    universe.sandbox.change_silently("tasks", key, json!({ "title": POISON })).await;
    universe.deliver_surely("task-updated", about_task(key, "poisoned")).await;
    let sql = format!("select count(*) as n from instep_quarantine where key = '{key}'");
    eventually("it is in quarantine", SOON, async || match universe.database.try_number(&sql).await? {
        1 => Ok(()),
        n => Err(format!("{n} rows")),
    })
    .await;
    universe.idle(SOON).await;
    before
}

async fn a_life_is_told_from_its_rows(database: Database) {
    let mut universe = Universe::new(database, &Setup { entities: 100, ..Setup::default() });
    let splice = Splice::start(&universe.sandbox.url, vec![(POISON.to_owned(), b"1e400".to_vec())]).await;
    let config = std::fs::read_to_string(universe.config()).expect("our own folder");
    std::fs::write(universe.config(), config.replace(&universe.sandbox.url, &splice.url)).expect("our own folder");
    universe.run().await;
    universe.backfilled().await;

    let made =
        universe.sandbox.control("create", json!({ "collection": "tasks", "attributes": { "title": "new" }, "announce": false })).await;
    let key = made["id"].as_str().expect("an id").to_owned();
    let nothing = explained(&universe, &key, &[]).await;
    assert_eq!((&nothing["row"], &nothing["entries"]), (&Value::Null, &json!([])));
    assert!(nothing["holds"].as_str().is_some_and(|text| text.starts_with("Nothing is held: no event")), "{nothing}");

    let before = live(&universe, &key).await;

    let story = explained(&universe, &key, &[]).await;
    let expected = [
        "hook create marked (a read tells the state)",
        "insert by mark",
        "hook update stale (older than what is held)",
        "hook delete marked (a read confirms a delete)",
        "delete by mark",
        "hook update marked (only a read revives)",
        "revive by mark",
        "hook update marked (a read tells the state)",
        "quarantined (a number is out of range)",
    ];
    println!("explain {:?}: {:#?}\n{}", universe.database.engine, told(&story), story["holds"]);
    assert_eq!(told(&story), expected);
    let holds = story["holds"].as_str().expect("a sentence");
    assert!(holds.starts_with("Version ") && holds.contains("its record could not be read at "), "{holds}");
    assert!(holds.contains("learned by a read that a mark asked for"), "{holds}");
    assert_eq!(story["row"]["version"], before["row"]["version"], "what is held is what was held before the record was unreadable");
    assert_eq!(story["row"]["as_of"], before["row"]["as_of"], "and nobody says that it was compared since");
    assert_eq!(story["mark"], Value::Null);
    for event in story["entries"].as_array().into_iter().flatten().filter(|entry| entry["what"] == "event") {
        assert!(event["received_at"].as_str() <= event["at"].as_str() && event["delivery"].is_string(), "{event}");
    }

    let short = explained(&universe, &key, &["--limit", "2"]).await;
    assert_eq!((told(&short), &short["more"]), (expected[7..].iter().map(ToString::to_string).collect(), &json!(true)));
    let text = universe.verb(&["explain", "pmp", "tasks", &key]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("revive to version "), "for people as well");
    for (arguments, why) in [
        (["explain", "nobody", "tasks", "1"], "there is no source `nobody`"),
        (["explain", "pmp", "nothing", "1"], "has no resource `nothing`"),
        (["explain", "pmp", "tasks", ""], "the key is empty"),
    ] {
        let refused = universe.verb(&arguments);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(1) && said.contains(why), "{arguments:?}: {said}");
    }
}
