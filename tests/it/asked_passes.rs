//! An operator need not wait: passes run when they are asked for, whoever dies meanwhile, and gaps may be opened by hand.

use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Database, Setup, Universe, eventually, monotonic, on_both};

on_both!(
    what_nothing_tells_is_found_by_a_sweep_that_is_asked_for,
    a_pass_that_is_asked_for_outlives_the_daemon,
    a_pass_that_is_given_up_is_said_and_the_verb_fails,
    who_waits_no_longer_is_told_what_goes_on,
    a_gap_of_an_operator_is_closed_by_a_pass_that_asks_from_before_it_on,
    a_gap_that_wants_a_sweep_is_closed_by_none_but_a_sweep,
);

const SOON: Duration = Duration::from_secs(30);
/// Nothing comes by itself within a test.
const LATE: &str = "sweep = \"24h\", poll = \"24h\"";

fn setup(source: &'static str) -> Setup {
    Setup { resources: vec![("tasks", LATE), ("companies", LATE)], source, ..Setup::default() }
}

pub(crate) fn said(output: &Output) -> String {
    format!("{:?} {}{}", output.status.code(), String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub(crate) fn answer(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

async fn open_gaps(universe: &Universe) -> Result<i64, String> {
    universe.database.try_number("select count(*) as n from instep_gaps where state = 'open'").await
}

async fn what_nothing_tells_is_found_by_a_sweep_that_is_asked_for(database: Database) {
    // Not even passes run by themselves here: who asks has his reasons.
    let universe = Universe::started(database, &setup("passes = false\nfeeds = false")).await;
    let key = universe.sandbox.keys("tasks").await.remove(0);
    universe.sandbox.change_silently("tasks", &key, json!({ "title": "nobody was told" })).await;
    let incremental = universe.verb(&["reconcile", "pmp", "tasks"]);
    assert_eq!(incremental.status.code(), Some(0), "{}", said(&incremental));
    assert_eq!(universe.differences("tasks").await.map(|all| all.len()), Ok(1), "it has no new stamp");
    let sweep = universe.verb(&["reconcile", "pmp", "tasks", "--sweep", "--json"]);
    assert_eq!(sweep.status.code(), Some(0), "{}", said(&sweep));
    let answer = answer(&sweep);
    let row = &answer["resources"][0];
    let n_tasks = universe.sandbox.keys("tasks").await.len() as u64;
    assert_eq!((&row["state"], &row["kind"], row["records"].as_u64()), (&json!("completed"), &json!("sweep"), Some(n_tasks)), "{row}");
    assert_eq!(universe.differences("tasks").await, Ok(Vec::new()));
    let others = universe.database.number("select count(*) as n from instep_pass where resource <> 'tasks' and kind <> 'sweep'").await;
    assert_eq!(others, 0, "only what was asked for");
    // What makes no sense is said, each with its code.
    let codes = [&["reconcile", "pmp", "nothing"][..], &["reconcile", "nobody"], &["gaps", "open", "pmp", "--from", "2999-01-01"]];
    assert_eq!(codes.map(|verb| universe.verb(verb).status.code()), [Some(1); 3]);
    assert_eq!(universe.verb(&["gaps", "open", "pmp", "--from", "lately"]).status.code(), Some(64));
    println!("asked_passes {:?}: {}", universe.database.engine, String::from_utf8_lossy(&incremental.stdout).trim());
}

async fn a_pass_that_is_asked_for_outlives_the_daemon(database: Database) {
    let mut universe = Universe::started(database, &setup("feeds = false")).await;
    let key = universe.sandbox.keys("tasks").await.remove(0);
    universe.sandbox.change_silently("tasks", &key, json!({ "title": "nobody was told" })).await;
    universe.sandbox.control("faults", json!({ "upstream_5xx": 1.0 })).await;
    let asked = universe.verb(&["reconcile", "pmp", "--sweep", "--detach"]);
    assert_eq!(asked.status.code(), Some(0), "{}", said(&asked));
    universe.kill();
    universe.sandbox.control("faults", json!({ "upstream_5xx": 0.0 })).await;
    let before = "select count(*) as n from instep_pass where kind = 'sweep' and state = 'completed'";
    assert_eq!(universe.database.number(before).await, 2, "the first sweeps alone");
    universe.run().await;
    eventually("the sweeps that were asked for end", SOON, async || match universe.database.try_number(before).await? {
        4 => Ok(()),
        n => Err(format!("{n} of 4 sweeps")),
    })
    .await;
    assert_eq!(universe.differences("tasks").await, Ok(Vec::new()));
    let left = universe.database.number("select count(*) as n from instep_progress where asked_at is not null").await;
    assert_eq!(left, 0, "a wish that is fulfilled is gone, and no sweep follows");
}

async fn a_pass_that_is_given_up_is_said_and_the_verb_fails(database: Database) {
    let universe = Universe::started(database, &setup("feeds = false")).await;
    universe.sandbox.control("faults", json!({ "lost_permission": ["tasks"], "lost_permission_empty": true })).await;
    let refused = universe.verb(&["reconcile", "pmp", "--sweep"]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("pmp tasks: sweep given up: the list shows none of the"), "{}", said(&refused));
    assert!(said(&refused).contains("pmp companies: sweep completed"), "{}", said(&refused));
    // It rests for an hour now, unless somebody asks again.
    universe.sandbox.control("faults", json!({ "lost_permission": [], "lost_permission_empty": false })).await;
    let asked = universe.verb(&["reconcile", "pmp", "tasks", "--sweep"]);
    assert_eq!(asked.status.code(), Some(0), "{}", said(&asked));
    println!("asked_passes {:?}: {}", universe.database.engine, String::from_utf8_lossy(&refused.stdout).trim().replace('\n', "; "));
}

async fn who_waits_no_longer_is_told_what_goes_on(database: Database) {
    let universe = Universe::started(database, &setup("passes = false\nfeeds = false")).await;
    let key = universe.sandbox.keys("tasks").await.remove(0);
    universe.sandbox.change_silently("tasks", &key, json!({ "title": "nobody was told" })).await;
    universe.sandbox.control("faults", json!({ "upstream_5xx": 1.0 })).await;
    let begun = monotonic();
    let waited = universe.verb(&["reconcile", "pmp", "--sweep", "--timeout", "1s", "--json"]);
    let took = monotonic() - begun;
    assert_eq!(waited.status.code(), Some(75), "{}", said(&waited));
    assert!(said(&waited).contains("not over after 1s: pmp companies, pmp tasks; the daemon goes on"), "{}", said(&waited));
    let states: Vec<Value> = answer(&waited)["resources"].as_array().expect("rows").iter().map(|row| row["state"].clone()).collect();
    assert!(states.iter().all(|state| state == "waiting" || state == "running") && states.len() == 2, "{}", said(&waited));
    assert!((Duration::from_secs(1)..SOON).contains(&took), "{took:?}");
    universe.sandbox.control("faults", json!({ "upstream_5xx": 0.0 })).await;
    let swept = "select count(*) as n from instep_pass where kind = 'sweep' and state = 'completed'";
    eventually("the sweeps that were asked for end", Duration::from_secs(60), async || match universe.database.try_number(swept).await? {
        4 => Ok(()),
        n => Err(format!("{n} of 4 sweeps")),
    })
    .await;
    assert_eq!(universe.differences("tasks").await, Ok(Vec::new()));
    // One that ends in time is as one without a limit.
    let whole = universe.verb(&["reconcile", "pmp", "tasks", "--timeout", "60s"]);
    assert_eq!(whole.status.code(), Some(0), "{}", said(&whole));
    assert_eq!(universe.verb(&["reconcile", "pmp", "--timeout", "soon"]).status.code(), Some(64));
}

async fn a_gap_of_an_operator_is_closed_by_a_pass_that_asks_from_before_it_on(database: Database) {
    let universe = Universe::started(database, &setup("")).await;
    let key = universe.sandbox.keys("tasks").await.remove(0);
    // As if an update of long ago had been lost: the row is older than the record, whose stamp lies far below the watermark.
    let lost =
        format!("update instep_entity set hash = null, version_value = version_value - 1 where resource = 'tasks' and key = '{key}'");
    universe.database.execute(&lost).await;
    let repaired = format!("select count(*) as n from instep_changes where key = '{key}' and resource = 'tasks' and learned_by = 'pass'");
    assert_eq!(universe.database.number(&repaired).await, 1, "the backfill");
    let incremental = universe.verb(&["reconcile", "pmp", "tasks"]);
    assert_eq!(incremental.status.code(), Some(0), "{}", said(&incremental));
    assert_eq!(universe.database.number(&repaired).await, 1, "the watermark is past it");
    let opened = universe.verb(&["gaps", "open", "pmp", "--from", "2001-01-01", "--to", "2020-01-01T06:00:00Z", "--json"]);
    assert_eq!(opened.status.code(), Some(0), "{}", said(&opened));
    assert_eq!(answer(&opened)["cause"], "operator");
    eventually("the gap is closed", SOON, async || match open_gaps(&universe).await? {
        0 => Ok(()),
        n => Err(format!("{n} open: {}", said(&universe.verb(&["gaps", "list"])))),
    })
    .await;
    assert_eq!(universe.database.number(&repaired).await, 2, "the pass that closed it asked from before it on");
    let kinds = universe.database.texts("select distinct kind as v from instep_pass where resource = 'tasks' order by kind").await;
    assert_eq!(kinds, ["incremental", "sweep"]);
    let listed = universe.verb(&["gaps", "list", "pmp", "--all", "--json"]);
    let all = answer(&listed);
    let gap = &all["gaps"][0];
    assert_eq!((&gap["cause"], &gap["state"]), (&json!("operator"), &json!("repaired")), "{all}");
    assert_eq!(answer(&universe.verb(&["gaps", "list", "--json"]))["gaps"], json!([]));
}

async fn a_gap_that_wants_a_sweep_is_closed_by_none_but_a_sweep(database: Database) {
    let universe = Universe::started(database, &setup("")).await;
    universe.sandbox.control("faults", json!({ "upstream_5xx": 1.0 })).await;
    let opened = universe.verb(&["gaps", "open", "pmp", "--sweep"]);
    assert_eq!(opened.status.code(), Some(0), "{}", said(&opened));
    let listed = answer(&universe.verb(&["gaps", "list", "pmp", "--json"]));
    assert_eq!(listed["gaps"][0]["waits_for"], json!(["companies", "tasks"]), "{listed}");
    universe.sandbox.control("faults", json!({ "upstream_5xx": 0.0 })).await;
    let swept = "select count(*) as n from instep_pass where kind = 'sweep' and state = 'completed'";
    eventually("the gap is closed", Duration::from_secs(60), async || match open_gaps(&universe).await? {
        0 => Ok(()),
        n => Err(format!("{n} open")),
    })
    .await;
    assert_eq!(universe.database.number(swept).await, 4, "one more of each");
}
