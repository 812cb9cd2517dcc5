//! `instep verify` finds every difference between replica and upstream, names it, finds no other, and puts it right.
//!
//! Differences are planted in the database, as a mistake or a person would, and upstream, where nobody is told of them. What the verb
//! says is compared with what was planted; what it leaves is compared with the truth by the tests' own walk.

use std::collections::BTreeMap;
use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Database, Engine, Mls, Pim, Setup, Universe, eventually, is_long, mls, monotonic, on_both, pim};

on_both!(
    every_planted_difference_of_productive_is_found_and_repaired,
    every_planted_difference_of_a_pim_is_found_and_repaired,
    every_planted_difference_of_a_producer_is_found_and_repaired,
    a_row_with_a_newer_version_than_upstream_is_put_right,
    changes_under_way_are_no_differences,
    what_was_not_read_again_is_not_taken_for_right,
    a_walk_survives_the_end_of_its_daemon,
);

const SOON: Duration = Duration::from_secs(60);
/// Of each kind.
const EACH: usize = 25;
/// Columns of a row but its key.
const COLUMNS: &str = "source, resource, version, version_field, version_value, version_precision, changed_at, payload, raw, hash, \
     deleted_at, deleted_reason, tick_epoch, tick_counter, first_change, last_change, looked_at, hot_ms, parent";

/// The differences of a JSON answer: what kind by key.
fn found(output: &Output) -> BTreeMap<String, String> {
    let answer = json_of(output);
    let resources = answer["resources"].as_array().expect("resources");
    let all = resources.iter().flat_map(|of| of["differences"].as_array().expect("differences"));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    all.map(|one| (text(&one["key"]), text(&one["kind"]))).collect()
}

fn json_of(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

fn verify(universe: &Universe, arguments: &[&str]) -> Output {
    universe.verb(&[&["verify"], arguments, &["--json"]].concat())
}

fn list(keys: &[String]) -> String {
    let quoted: Vec<String> = keys.iter().map(|key| format!("'{key}'")).collect();
    quoted.join(", ")
}

/// Plants a hundred differences, `EACH` of every kind; what was planted, by key.
async fn plant(
    universe: &mut Universe,
    (source, resource): (&str, &str),
    extra_key: impl Fn(usize) -> String,
    silently: impl AsyncFn(&Universe, &str),
) -> BTreeMap<String, &'static str> {
    let of = format!("source = '{source}' and resource = '{resource}'");
    let keys = universe.database.texts(&format!("select key as v from instep_entity where {of} and deleted_at is null order by key")).await;
    assert!(keys.len() >= 4 * EACH, "only {} rows", keys.len());
    let mut groups = keys.chunks(EACH).map(<[String]>::to_vec);
    let mut group = || groups.next().expect("there are enough");
    let (changed, missing, stale, copied) = (group(), group(), group(), group());
    universe.stop().await;
    let (upstream, forged) = changed.split_at(10);
    for key in upstream {
        silently(universe, key).await;
    }
    let edited = match universe.database.engine {
        Engine::Sqlite => "json_set(payload, '$.forged', 1)",
        Engine::Postgres => "jsonb_set(payload, '{forged}', '1')",
    };
    let extra: Vec<String> = (0..EACH).map(extra_key).collect();
    let mut statements = vec![
        format!("update instep_entity set payload = {edited} where {of} and key in ({})", list(forged)),
        format!("delete from instep_entity where {of} and key in ({})", list(&missing)),
        format!("update instep_entity set version_value = version_value - 3600000000 where {of} and key in ({})", list(&stale)),
    ];
    for (key, original) in extra.iter().zip(&copied) {
        statements.push(format!(
            "insert into instep_entity (key, {COLUMNS}) select '{key}', {COLUMNS} from instep_entity where {of} and key = '{original}'"
        ));
    }
    universe.database.execute(&statements.join("; ")).await;
    universe.run().await;
    let kinds = [("changed", changed), ("missing", missing), ("extra", extra), ("stale", stale)];
    kinds.into_iter().flat_map(|(kind, keys)| keys.into_iter().map(move |key| (key, kind))).collect()
}

/// The verb finds exactly what was planted, by sample and by list, repairs it, and then finds nothing.
async fn finds_and_repairs(universe: &Universe, of: (&str, &str), planted: &BTreeMap<String, &'static str>) {
    let (source, resource) = of;
    let planted: BTreeMap<String, String> = planted.iter().map(|(key, kind)| (key.clone(), (*kind).to_owned())).collect();
    let live =
        format!("select count(*) as n from instep_entity where source = '{source}' and resource = '{resource}' and deleted_at is null");
    let (rows, begun) = (universe.database.number(&live).await, monotonic());
    let sampled = verify(universe, &[source, resource, "--sample", "5000", "--settle", "1s"]);
    let held: BTreeMap<String, String> = planted.clone().into_iter().filter(|(_, kind)| kind != "missing").collect();
    assert_eq!(found(&sampled), held, "a sample of all rows finds what is held and wrong");
    assert_eq!((sampled.status.code(), json_of(&sampled)["compared"].as_i64()), (Some(1), Some(rows)));
    let output = verify(universe, &[source, resource, "--all", "--settle", "1s"]);
    assert_eq!(found(&output), planted);
    assert_eq!(output.status.code(), Some(1));
    let all = json_of(&output);
    assert_eq!(all["compared"].as_i64(), Some(rows + EACH as i64), "rows, and those that are missing");
    let walked = monotonic() - begun;
    let repaired = verify(universe, &[source, resource, "--all", "--settle", "1s", "--repair"]);
    assert_eq!((repaired.status.code(), json_of(&repaired)["repaired"].as_u64()), (Some(0), Some(4 * EACH as u64)));
    let after = verify(universe, &[source, "--all", "--settle", "1s"]);
    assert_eq!((after.status.code(), found(&after).len()), (Some(0), 0));
    println!(
        "verify {source} {resource} {:?}: {} of 100 planted differences found and no other in {} records ({} % agreed; sample and list {:.1} s); \
         after the repair {} % of {} records agree",
        universe.database.engine,
        found(&output).len(),
        all["compared"],
        all["agreement_percent"],
        walked.as_secs_f64(),
        json_of(&after)["agreement_percent"],
        json_of(&after)["compared"],
    );
}

async fn every_planted_difference_of_productive_is_found_and_repaired(database: Database) {
    let mut universe = Universe::started(database, &Setup::default()).await;
    let of = ("pmp", "tasks");
    let silently = async |universe: &Universe, key: &str| {
        universe.sandbox.change_silently("tasks", key, json!({ "title": format!("nobody was told of {key}") })).await;
    };
    let planted = plant(&mut universe, of, |n| (990_000_000 + n).to_string(), silently).await;
    finds_and_repairs(&universe, of, &planted).await;
    universe.in_step(SOON).await;
}

async fn every_planted_difference_of_a_pim_is_found_and_repaired(database: Database) {
    let setup = Pim { resources: vec![("products", "")], ..Pim::default() };
    let mut universe = setup.started(database).await;
    let of = ("pim", "products");
    let silently = async |universe: &Universe, key: &str| {
        let product = pim::product(&universe.sandbox, key).await.expect("it is there");
        let further = json!({ "fields": { "enabled": product["enabled"] == false }, "announce": false });
        pim::change(universe, "update", "products", Some(key), further).await;
    };
    let extra = |n: usize| format!("00000000-0000-4000-8000-{n:012}");
    let planted = plant(&mut universe, of, extra, silently).await;
    finds_and_repairs(&universe, of, &planted).await;
    pim::in_step(&universe, &["products"], SOON).await;
}

async fn every_planted_difference_of_a_producer_is_found_and_repaired(database: Database) {
    let source = "events = { read = \"no\" }\npasses = false";
    let mut universe = Mls { source, ..Mls::default() }.started(database).await;
    let of = ("mls", "Property");
    let silently = async |universe: &Universe, key: &str| {
        let asked = json!({ "resource": "Property", "key": key, "fields": { "PublicRemarks": "nobody was told" }, "announce": false });
        universe.sandbox.control("update", asked).await;
    };
    let planted = plant(&mut universe, of, |n| format!("nobody{n}"), silently).await;
    finds_and_repairs(&universe, of, &planted).await;
    mls::in_step(&universe, SOON).await;
}

/// A version that no read will ever beat, with the right content and with another; reads by the rule alone leave the first as it is.
async fn a_row_with_a_newer_version_than_upstream_is_put_right(database: Database) {
    let mut universe = Universe::started(database, &Setup { entities: 100, ..Setup::default() }).await;
    let keys = universe.database.texts("select key as v from instep_entity where resource = 'tasks' order by key limit 4").await;
    universe.stop().await;
    let ahead = format!("update instep_entity set version_value = version_value + 86400000000 where key in ({})", list(&keys));
    universe.database.execute(&ahead).await;
    universe.run().await;
    for key in &keys[2..] {
        universe.sandbox.change_silently("tasks", key, json!({ "title": "other content" })).await;
    }
    let output = verify(&universe, &["pmp", "tasks", "--all", "--settle", "1s"]);
    let wanted: BTreeMap<String, String> = keys.iter().map(|key| (key.clone(), "ahead".to_owned())).collect();
    assert_eq!((output.status.code(), found(&output)), (Some(1), wanted));
    let repaired = verify(&universe, &["pmp", "tasks", "--all", "--settle", "1s", "--repair"]);
    assert_eq!((repaired.status.code(), json_of(&repaired)["repaired"].as_u64()), (Some(0), Some(4)));
    assert_eq!(verify(&universe, &["--all", "--settle", "1s"]).status.code(), Some(0));
    universe.in_step(SOON).await;
    let late = "select count(*) as n from instep_entity where version_value > (select max(at) from instep_heartbeat)";
    assert_eq!(universe.database.number(late).await, 0, "no version lies ahead any more");
}

/// Waits until what was refused was sent again: nothing waits upstream for longer than a moment.
async fn retried(universe: &Universe) {
    eventually("refused deliveries came again", Duration::from_secs(300), async || {
        match universe.sandbox.report().await["deliveries_waiting"].as_u64() {
            Some(0..=2) => Ok(()),
            waiting => Err(format!("{waiting:?} wait")),
        }
    })
    .await;
}

/// Hooks are live, and records change while they are compared. A walk beside which a delivery was refused shows nothing: on a busy
/// machine it comes again seconds later, and what it tells is a difference until then.
async fn changes_under_way_are_no_differences(database: Database) {
    let mut setup = Setup { entities: 400, ..Setup::default() };
    setup.resources.extend([("projects", ""), ("companies", "")]);
    let universe = Universe::started(database, &setup).await;
    assert!(universe.verb(&["hooks", "create", "pmp"]).status.success());
    universe.sandbox.control("churn", json!({ "changes": 1_500, "per_second": 15 })).await;
    let (mut looked, mut walks, mut busy) = (0, 0, 0);
    while universe.sandbox.get("churn").await["done"] != true {
        let before = universe.counted("deliveries_refused", "pmp").await;
        let output = verify(&universe, &["pmp", "--all", "--settle", "4s"]);
        let answer = json_of(&output);
        if universe.counted("deliveries_refused", "pmp").await > before {
            busy += 1;
            retried(&universe).await;
            continue;
        }
        assert_eq!((output.status.code(), found(&output).len()), (Some(0), 0), "{answer}");
        looked += answer["compared"].as_u64().expect("a count");
        walks += 1;
    }
    // The last retry of what a busy machine refused may be minutes away.
    universe.sandbox.quiet(Duration::from_secs(300)).await;
    universe.in_step(SOON).await;
    println!(
        "verify {:?}: 0 false alarms in {looked} comparisons, {walks} walks beside 1,500 changes ({busy} walks beside refused deliveries left out)",
        universe.database.engine
    );
    assert!(walks > 0, "no walk was without refused deliveries");
}

/// The upstream fails just when what differs is looked at again.
async fn what_was_not_read_again_is_not_taken_for_right(database: Database) {
    let universe = Universe::started(database, &Setup { entities: 100, ..Setup::default() }).await;
    let keys = universe.sandbox.keys("tasks").await;
    for key in &keys[..5] {
        universe.sandbox.change_silently("tasks", key, json!({ "title": "nobody was told" })).await;
    }
    let before = universe.sandbox.reads("tasks").await;
    let walk = universe.verb_begun(&["verify", "pmp", "tasks", "--all", "--json", "--settle", "3s"]);
    eventually("the list is walked", SOON, async || match universe.sandbox.reads("tasks").await - before {
        0 => Err("no read".to_owned()),
        _ => Ok(()),
    })
    .await;
    universe.sandbox.control("faults", json!({ "upstream_5xx": 1.0 })).await;
    eventually("a look fails", SOON, async || {
        let report = universe.sandbox.report().await;
        let rows = report["requests"].as_array().cloned().unwrap_or_default();
        let is_failure = |row: &Value| row["collection"] == "tasks" && row["status"].as_u64().is_some_and(|status| status >= 500);
        if rows.iter().any(is_failure) { Ok(()) } else { Err("none did".to_owned()) }
    })
    .await;
    universe.sandbox.control("faults", json!({ "upstream_5xx": 0.0 })).await;
    let output = walk.wait_with_output().expect("it ends");
    let wanted: BTreeMap<String, String> = keys[..5].iter().map(|key| (key.clone(), "changed".to_owned())).collect();
    assert_eq!((output.status.code(), found(&output)), (Some(1), wanted));
}

/// The daemon is killed under the walk and started again: it goes on where it was, and nobody waits for it meanwhile. The long form
/// walks 20,000 records.
async fn a_walk_survives_the_end_of_its_daemon(database: Database) {
    let entities = if is_long() { 47_000 } else { 2_000 };
    let mut setup = Setup { entities, ..Setup::default() };
    setup.sandbox.extend(["--latency-ms".to_owned(), "150".to_owned()]);
    let mut universe = Universe::new(database, &setup);
    universe.run().await;
    universe.swept_within(Duration::from_secs(600)).await;
    universe.idle(SOON).await;
    let n_tasks = universe.database.number("select count(*) as n from instep_entity where resource = 'tasks'").await;
    let before = universe.sandbox.reads("tasks").await;
    let begun = monotonic();
    let mut walk = universe.verb_begun(&["verify", "pmp", "tasks", "--all", "--json", "--settle", "1s"]);
    eventually("the walk has begun", SOON, async || match universe.sandbox.reads("tasks").await - before {
        reads @ 2.. => Ok(reads),
        reads => Err(format!("{reads} reads")),
    })
    .await;
    assert!(walk.try_wait().expect("our child").is_none(), "it is under way");
    universe.kill();
    universe.run().await;
    let mut slowest = Duration::ZERO;
    eventually("the walk ends", Duration::from_secs(600), async || {
        let asked = monotonic();
        universe.status().await?;
        slowest = slowest.max(monotonic() - asked);
        if walk.try_wait().expect("our child").is_some() { Ok(()) } else { Err("it is under way".to_owned()) }
    })
    .await;
    let output = walk.wait_with_output().expect("it ended");
    let answer = json_of(&output);
    assert_eq!((output.status.code(), answer["compared"].as_i64(), found(&output).len()), (Some(0), Some(n_tasks), 0));
    assert!(slowest < Duration::from_secs(2), "/status took {slowest:?} beside the walk");
    println!(
        "verify {:?}: {n_tasks} records walked in {:.1} s over a killed daemon, /status took at most {slowest:.0?} meanwhile",
        universe.database.engine,
        (monotonic() - begun).as_secs_f64(),
    );
}
