//! What a walk may lose while others write: links that count rows pass over some when others go, in sweeps and in the log of events.
//! From key to key and from number to number nothing is passed over, and what a sweep misses is read before it is removed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{SOON, log_was_read, refusals};
use crate::support::{Database, Engine, Mls, Universe, eventually, mls, on_both};

on_both!(
    a_sweep_from_key_to_key_misses_no_live_record,
    a_sweep_by_links_misses_live_records_and_removes_none,
    links_through_a_log_that_is_compacted_lose_events,
    a_collection_that_is_not_found_removes_nothing,
    pages_smaller_than_a_vendor_says_are_walked_to_the_end,
);

/// Sweeps alone, one after the other.
const SWEEPS: &str = "events = { read = \"no\" }\n[sources.mls.resources]\nProperty = { poll = \"30d\", sweep = \"1s\" }\n\
     Member = { poll = \"30d\", sweep = \"1s\" }\nOffice = { poll = \"30d\", sweep = \"1s\" }\n\
     Media = { poll = \"30d\", sweep = \"1s\" }\nOpenHouse = { poll = \"30d\", sweep = \"1s\" }";
/// Lists of many pages, each of which takes its time.
const MANY_PAGES: [&str; 4] = ["--page-max", "10", "--latency-ms", "20"];
/// A record, by its resource and key.
type Record = (String, String);

/// What sweeps made of a producer's records while others wrote.
struct Swept {
    /// Removed at the producer.
    gone: usize,
    /// Not met by a sweep.
    missed: usize,
    /// Of these, what the producer never removed.
    missed_live: usize,
    /// Taken out of the replica, though the producer never removed them.
    lost: usize,
}

/// How often each record was removed, by the producer's own log of changes.
async fn removed(universe: &Universe) -> BTreeMap<Record, usize> {
    let changes = universe.sandbox.get("changes").await;
    let text = |line: &Value, name: &str| line[name].as_str().expect("a text").to_owned();
    let mut removed = BTreeMap::new();
    for line in changes.as_array().expect("lines").iter().filter(|line| line["operation"] == "delete") {
        *removed.entry((text(line, "resource"), text(line, "key"))).or_default() += 1;
    }
    removed
}

async fn records(universe: &Universe, sql: &str) -> Vec<Record> {
    let rows = universe.database.rows(sql, &["resource", "key"]).await;
    let record = |row: Vec<Option<String>>| row.into_iter().collect::<Option<Vec<_>>>().and_then(|row| row.try_into().ok());
    rows.into_iter().filter_map(record).map(|[resource, key]: [String; 2]| (resource, key)).collect()
}

/// From now on every mark of a record that a sweep did not meet is noted in a table of ours; the mark itself soon goes.
async fn note_what_is_missed(universe: &mut Universe) {
    universe.stop().await;
    let sql = match universe.database.engine {
        Engine::Sqlite => {
            "create table missed (resource text, key text); create trigger missed after insert on instep_mark when new.reason = 'suspect' \
             begin insert into missed values (new.resource, new.key); end"
        }
        Engine::Postgres => {
            "create table public.missed (resource text, key text); create function public.note() returns trigger language plpgsql as \
             $$ begin insert into public.missed values (new.resource, new.key); return null; end $$; create trigger missed \
             after insert on instep_mark for each row when (new.reason = 'suspect') execute function public.note()"
        }
    };
    universe.database.execute(sql).await;
    universe.run().await;
}

/// Removes and makes records while sweeps go on, in so many rounds or until a live one was missed; then waits until all is in step.
async fn swept(universe: &Universe, rounds: u64) -> Swept {
    let mut missed = BTreeSet::new();
    let mut gone = BTreeMap::new();
    for round in 0..rounds {
        let churn = json!({ "changes": 500, "per_second": 100, "resources": ["Property", "Media", "OpenHouse"], "seed": round });
        universe.sandbox.control("churn", churn).await;
        universe.sandbox.quiet(SOON).await;
        mls::in_step(universe, SOON).await;
        gone = removed(universe).await;
        missed = records(universe, "select resource, key from missed").await.into_iter().collect();
        if missed.iter().any(|record| !gone.contains_key(record)) {
            break;
        }
    }
    let removed_here = records(universe, "select resource, key from instep_changes where operation = 'delete'").await;
    assert!(!removed_here.is_empty() && !missed.is_empty(), "nothing was shown");
    let (mut lost, mut left) = (0, gone.clone());
    for record in removed_here {
        match left.get_mut(&record) {
            Some(times @ 1..) => *times -= 1,
            _ => lost += 1,
        }
    }
    let missed_live = missed.iter().filter(|record| !gone.contains_key(*record)).count();
    Swept { gone: gone.values().sum(), missed: missed.len(), missed_live, lost }
}

async fn sweeps(database: Database, way: &str, sandbox: &[&'static str], rounds: u64) -> Swept {
    let sandbox = MANY_PAGES.iter().chain(sandbox).copied().collect();
    let mut universe = Mls { source: SWEEPS, sandbox, ..Mls::default() }.started(database).await;
    note_what_is_missed(&mut universe).await;
    let swept = swept(&universe, rounds).await;
    assert_eq!(refusals(&universe).await, 0);
    let Swept { gone, missed, missed_live, lost } = swept;
    println!(
        "mls {:?}: sweeps {way}, {gone} times a record removed meanwhile: {missed} records not met, {missed_live} of them live; {lost} live \
         ones removed",
        universe.database.engine
    );
    swept
}

async fn a_sweep_from_key_to_key_misses_no_live_record(database: Database) {
    let swept = sweeps(database, "from key to key", &[], 2).await;
    assert_eq!((swept.missed_live, swept.lost), (0, 0));
}

/// The server compares no keys, so that its links are followed. Each record that a sweep did not meet is read before it is removed.
async fn a_sweep_by_links_misses_live_records_and_removes_none(database: Database) {
    let swept = sweeps(database, "by links", &["--no-key-order"], 12).await;
    assert!(swept.missed_live > 0, "links lose nothing here: the other test shows nothing");
    assert_eq!(swept.lost, 0, "live records were removed");
}

/// Walks the log from above a number in pages of ten, with a compaction behind the first; the records whose last event it did not see.
async fn walked(universe: &Universe, from: u64, by_links: bool) -> usize {
    let mut seen = BTreeSet::new();
    let page = |above: u64| format!("/odata/EntityEvent?$filter=EntityEventSequence%20gt%20{above}&$orderby=EntityEventSequence");
    let mut next = Some(page(from));
    let mut n_pages = 0;
    while let Some(path) = next {
        let shown = universe.sandbox.observe_pages_of(&path, 10).await;
        let rows = shown["value"].as_array().expect("rows");
        let numbers: Vec<u64> = rows.iter().filter_map(|row| row["EntityEventSequence"].as_u64()).collect();
        seen.extend(numbers.iter().copied());
        n_pages += 1;
        if n_pages == 1 {
            universe.sandbox.control("compact", json!({})).await;
        }
        next = match (by_links, numbers.last()) {
            (true, _) => shown["@odata.nextLink"].as_str().map(|link| link[link.find("/odata/").expect("a path")..].to_owned()),
            (false, last) => last.map(|last| page(*last)),
        };
    }
    assert!(n_pages > 2, "{n_pages} pages");
    // What the compaction has left is the last event of each record.
    let left = universe.sandbox.observe_pages_of(&page(from), 1_000).await;
    let numbers = left["value"].as_array().expect("rows").iter().filter_map(|row| row["EntityEventSequence"].as_u64());
    numbers.filter(|number| !seen.contains(number)).count()
}

/// Two walks over a log of the same work, of which a compaction takes away a part behind their first page; then the daemon's.
async fn links_through_a_log_that_is_compacted_lose_events(database: Database) {
    let source = "events = { read = \"yes\", poll = \"1s\", page = 10 }\npasses = false";
    let mut universe = Mls { source, ..Mls::default() }.started(database).await;
    log_was_read(&universe, 1).await;
    universe.kill();
    let mut lost = Vec::new();
    for by_links in [false, true] {
        let from = universe.sandbox.report().await["events"]["last"].as_u64().expect("a number");
        universe.sandbox.control("churn", json!({ "changes": 200, "per_second": 100_000, "resources": ["Property", "Office"] })).await;
        universe.sandbox.quiet(SOON).await;
        lost.push(walked(&universe, from, by_links).await);
    }
    universe.run().await;
    let n = mls::in_step(&universe, SOON).await;
    println!(
        "mls {:?}: a log compacted behind the first page of ten: the last events of {} records not seen from number to number, of {} by \
         links; {n} records in step",
        universe.database.engine, lost[0], lost[1]
    );
    assert_eq!(lost[0], 0);
    assert!(lost[1] > 0, "links lose nothing here");
}

/// A 404 of a collection, in which its records cannot be found either, is a permission that was lost.
async fn a_collection_that_is_not_found_removes_nothing(database: Database) {
    let universe = Mls { source: SWEEPS, ..Mls::default() }.started(database).await;
    universe.sandbox.control("faults", json!({ "lost_permission": ["Media"] })).await;
    // A listing that goes takes its pictures along, so that those are looked for.
    universe.sandbox.control("churn", json!({ "changes": 100, "resources": ["Property"] })).await;
    universe.sandbox.quiet(SOON).await;
    eventually("pictures are looked for in vain", SOON, async || {
        let asked = universe.sandbox.report().await["faults"]["lost_permission"]["count"].as_u64().expect("a count");
        let marks = universe.database.try_number("select count(*) as n from instep_mark where resource = 'Media'").await?;
        if asked > 5 && marks > 0 { Ok(()) } else { Err(format!("asked {asked} times, {marks} marks")) }
    })
    .await;
    let pictures = records(&universe, "select resource, key from instep_changes where operation = 'delete' and resource = 'Media'").await;
    assert_eq!(pictures, Vec::<Record>::new());
    universe.sandbox.control("faults", json!({ "lost_permission": [] })).await;
    let n = mls::in_step(&universe, SOON * 3).await;
    println!("mls {:?}: 0 of Media removed while the collection answered 404; {n} records in step after it", universe.database.engine);
}

/// A vendor whose pages are smaller than its documents say: what was asked for as a page is then all that its links lead through.
async fn pages_smaller_than_a_vendor_says_are_walked_to_the_end(database: Database) {
    let source = "profile = \"spark\"\npasses = false";
    let sandbox = vec!["--profile", "spark", "--page-max", "400"];
    let universe = Mls { entities: 400, source, sandbox, ..Mls::default() }.started(database).await;
    let photos = mls::truth(&universe, "Media", "MediaKey").await.len();
    assert!(photos > 1_000, "{photos} photos are no more than one page of those that are asked for");
    let n = mls::in_step(&universe, SOON).await;
    println!("mls {:?}: {photos} photos in pages of 400 where 1,000 were asked for; {n} records in step", universe.database.engine);
}
