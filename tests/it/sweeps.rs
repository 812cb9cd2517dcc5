//! What a sweep finds and what it costs: nothing is lost where 48 writers change and delete records and so shift the pages that it
//! walks, no row that is alive upstream is absent meanwhile, and records that plain lists hide are not read one by one.
//!
//! The short form is a tenth of the long one: `INSTEP_LONG=1 cargo test --release --test it sweeps -- --nocapture --test-threads=1`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use instep::clock::{Clock, Timestamp};
use serde_json::json;

use crate::support::{Database, Setup, Universe, eventually, is_long, monotonic, on_both, until};

on_both!(writers_cost_a_sweep_no_record, a_second_sweep_costs_its_pages);

const WRITERS: usize = 48;
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// Records of a page.
const PAGE: usize = 200;
const PATIENCE: Duration = Duration::from_secs(300);

async fn writers_cost_a_sweep_no_record(database: Database) {
    // Tasks are 430 of 1,000 records; a sweep takes somewhat longer than the writers.
    let (entities, quota, span) = if is_long() {
        (46_600, "quota = [{ requests = 20, per = \"1s\" }, { concurrent = 8 }]", Duration::from_secs(4))
    } else {
        (4_660, "quota = [{ requests = 5, per = \"1s\" }, { concurrent = 8 }]", Duration::from_secs(2))
    };
    let resources = vec![("tasks", "sweep = \"2s\", poll = \"1h\"")];
    let universe = Universe::started(database, &Setup { entities, resources, source: "feeds = false", quota, ..Setup::default() }).await;
    let keys = universe.sandbox.keys("tasks").await;
    let gone: Vec<String> = keys.iter().step_by(50).cloned().collect();
    let changed: Vec<String> = keys.iter().skip(5).step_by(10).cloned().collect();
    let quoted: Vec<String> = gone.iter().map(|key| format!("'{key}'")).collect();
    let sql = format!("select count(*) as n from pmp_tasks where key not in ({})", quoted.join(", "));
    let staying = (keys.len() - gone.len()) as i64;

    let is_over = AtomicBool::new(false);
    let working = async {
        sweeps(&universe, "state = 'running' and pages > 0").await;
        let begin = monotonic();
        write(&universe, &changed, &gone, span).await;
        let took = monotonic() - begin;
        let ended = Clock::system().now();
        sweeps(&universe, &format!("state = 'completed' and started_at > {}", ended.0)).await;
        universe.idle(PATIENCE).await;
        is_over.store(true, Ordering::Release);
        took
    };
    let (took, (samples, absent)) = tokio::join!(working, watch(&universe, &sql, staying, &is_over));
    let differences = universe.differences("tasks").await.expect("the replica can be read");
    println!(
        "sweeps {:?}: {} records, {} changed and {} deleted by {WRITERS} writers within {took:.1?} of a sweep; {} differences after one \
         more pass, a live row absent in {absent} of {samples} looks",
        universe.database.engine,
        keys.len(),
        changed.len(),
        gone.len(),
        differences.len(),
    );
    assert_eq!(differences, Vec::<String>::new());
    assert!(samples > 20 && absent == 0);
}

/// Changes and deletes, spread over a span.
async fn write(universe: &Universe, changed: &[String], gone: &[String], span: Duration) {
    let mut deeds: Vec<(&str, &String)> = changed.iter().map(|key| ("update", key)).collect();
    for (n, key) in gone.iter().enumerate() {
        deeds.insert(n * 6, ("delete", key));
    }
    let (begin, every) = (monotonic(), span / deeds.len() as u32);
    let deed = async |n: usize, verb: &str, key: &String| {
        until(begin + every * n as u32).await;
        let mut asked = json!({ "collection": "tasks", "id": key });
        if verb == "update" {
            asked["attributes"] = json!({ "title": format!("changed while a sweep walks, {n}") });
        }
        universe.sandbox.control(verb, asked).await;
    };
    let deed = &deed;
    futures_util::stream::iter(deeds.into_iter().enumerate())
        .for_each_concurrent(WRITERS, |(n, (verb, key))| async move { deed(n, verb, key).await })
        .await;
}

/// Looks whether every record is there that stays alive upstream; in how many looks one was not.
async fn watch(universe: &Universe, sql: &str, staying: i64, is_over: &AtomicBool) -> (u32, u32) {
    let (mut samples, mut absent, mut next) = (0, 0, monotonic());
    while !is_over.load(Ordering::Acquire) {
        absent += u32::from(universe.database.number(sql).await != staying);
        samples += 1;
        next += SAMPLE_EVERY;
        until(next).await;
    }
    (samples, absent)
}

/// Waits for a sweep of which this holds; answers how many there are.
async fn sweeps(universe: &Universe, condition: &str) -> i64 {
    let sql = format!("select count(*) as n from instep_pass where kind = 'sweep' and {condition}");
    eventually(&format!("a sweep with {condition}"), PATIENCE, async || match universe.database.try_number(&sql).await? {
        0 => Err("none".to_owned()),
        n => Ok(n),
    })
    .await
}

async fn a_second_sweep_costs_its_pages(database: Database) {
    let (n, n_archived) = if is_long() { (10_000, 3_000) } else { (1_000, 300) };
    let setup = Setup {
        entities: 100,
        resources: vec![("people", "sweep = \"10s\"")],
        source: "feeds = false",
        sandbox: vec!["--hide-archived".to_owned()],
        ..Setup::default()
    };
    let mut universe = Universe::new(database, &setup);
    make_people(&universe, n, n_archived).await;
    universe.run().await;
    universe.backfilled().await;
    sweeps(&universe, "state = 'completed'").await;
    let first = universe.sandbox.reads("people").await;
    let second = Timestamp(universe.database.number("select max(started_at) as n from instep_pass where kind = 'sweep'").await);
    sweeps(&universe, &format!("state = 'completed' and started_at > {}", second.0)).await;
    universe.idle(PATIENCE).await;
    let reads = universe.sandbox.reads("people").await - first;
    let is_archived = |person: &serde_json::Value| person["attributes"]["archived_at"].is_string();
    let people = universe.sandbox.truth("people").await;
    let archived = people.values().filter(|person| is_archived(person)).count();
    let pages = (people.len() - archived).div_ceil(PAGE) + archived.div_ceil(PAGE);
    println!(
        "sweeps {:?}: {} people, {archived} of them archived and hidden from plain lists; the second sweep took {reads} requests for {pages} pages",
        universe.database.engine,
        people.len(),
    );
    assert!(archived >= n_archived && people.len() >= n);
    assert_eq!(universe.differences("people").await, Ok(Vec::new()));
    assert!(reads as f64 <= pages as f64 * 1.05, "{reads} requests for {pages} pages");
}

async fn make_people(universe: &Universe, n: usize, n_archived: usize) {
    let make = async |number: usize| {
        let made = universe.sandbox.control("create", json!({ "collection": "people", "announce": false })).await;
        if number < n_archived {
            universe.sandbox.control("archive", json!({ "collection": "people", "id": made["id"] })).await;
        }
    };
    let make = &make;
    futures_util::stream::iter(0..n).for_each_concurrent(WRITERS, |number| async move { make(number).await }).await;
}
