//! A RESO producer's records are in step by each of the three ways alone: its pushes, its log, and passes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Database, Mls, Universe, eventually, mls, monotonic, on_both};

mod walks;

on_both!(
    pushes_alone_keep_it_in_step,
    the_log_alone_loses_nothing_that_becomes_visible_late,
    without_overlap_what_becomes_visible_late_is_lost,
    a_log_that_is_compacted_while_it_is_walked_loses_nothing,
    passes_alone_keep_it_in_step,
    a_producer_that_has_stopped_is_asked_once_to_resume,
    who_is_invited_is_let_in_until_that_is_revoked,
);

const SOON: Duration = Duration::from_secs(60);
const CHANGES: u64 = 300;

/// People work; how many records there are once they have ended.
async fn work(universe: &Universe) -> usize {
    universe.sandbox.control("churn", json!({ "changes": CHANGES, "per_second": 100 })).await;
    universe.sandbox.quiet(SOON).await;
    mls::in_step(universe, SOON).await
}

async fn refusals(universe: &Universe) -> u64 {
    universe.sandbox.report().await["refusals_total"].as_u64().expect("a count")
}

/// Lost, doubled and reordered pushes are what the log and passes are for; here each one comes, in any order, some of them twice.
async fn pushes_alone_keep_it_in_step(database: Database) {
    let source = "events = { read = \"no\" }\npasses = false";
    let sandbox = vec!["--push-duplicated", "0.2", "--push-reordered", "0.2"];
    let universe = Mls { source, sandbox, ..Mls::default() }.started(database).await;
    mls::subscribe(&universe).await;
    let n = work(&universe).await;
    let faults = universe.sandbox.report().await["faults"].clone();
    for fault in ["push_duplicated", "push_reordered"] {
        assert!(faults[fault]["count"].as_u64().is_some_and(|count| count > 0), "{fault}: {faults}");
    }
    assert_eq!(universe.sandbox.reads("EntityEvent").await, 0, "the log is not asked");
    assert_eq!(refusals(&universe).await, 0);
    println!("mls {:?}: {CHANGES} changes by pushes alone: {n} records in step, 0 refusals", universe.database.engine);
}

/// Waits for so many further reads of the log.
async fn log_was_read(universe: &Universe, times: u64) {
    let before = universe.sandbox.reads("EntityEvent").await;
    eventually("the log was read", SOON, async || {
        let reads = universe.sandbox.reads("EntityEvent").await - before;
        if reads >= times { Ok(()) } else { Err(format!("{reads} times")) }
    })
    .await;
}

/// The overlap is what finds late numbers: the same test without it can fail.
async fn without_overlap_what_becomes_visible_late_is_lost(database: Database) {
    let source = "events = { read = \"yes\", poll = \"1s\", overlap = 0 }\npasses = false";
    let sandbox = vec!["--events-late", "0.3", "--events-late-max-ms", "500"];
    let universe = Mls { source, sandbox, ..Mls::default() }.started(database).await;
    log_was_read(&universe, 1).await;
    let mut lost = 0;
    // Whether a late number is met depends on when the log is read: several rounds, if need be.
    for round in 0..10 {
        universe.sandbox.control("churn", json!({ "changes": CHANGES, "per_second": 100, "seed": round })).await;
        universe.sandbox.quiet(SOON).await;
        log_was_read(&universe, 3).await;
        universe.idle(SOON).await;
        lost = mls::differences_now(&universe).await;
        if lost > 0 {
            break;
        }
    }
    println!("mls {:?}: without overlap {lost} records differ for good", universe.database.engine);
    assert!(lost > 0, "late numbers are found without an overlap: the other test shows nothing");
}

async fn the_log_alone_loses_nothing_that_becomes_visible_late(database: Database) {
    let source = "events = { read = \"yes\", poll = \"1s\" }\npasses = false";
    let sandbox = vec!["--events-late", "0.3", "--events-late-max-ms", "500"];
    let universe = Mls { source, sandbox, ..Mls::default() }.started(database).await;
    log_was_read(&universe, 1).await;
    let n = work(&universe).await;
    let late = universe.sandbox.report().await["faults"]["events_late"]["count"].as_u64().expect("a count");
    assert!(late > 0 && refusals(&universe).await == 0);
    println!(
        "mls {:?}: {CHANGES} changes by the log alone, {late} events visible late: {n} records in step, 0 refusals",
        universe.database.engine
    );
}

/// The server's links count rows, so that a walk by links would pass over events when others go.
async fn a_log_that_is_compacted_while_it_is_walked_loses_nothing(database: Database) {
    let source = "events = { read = \"yes\", poll = \"1s\", page = 10 }\npasses = false";
    let universe = Mls { source, sandbox: vec!["--compaction-ms", "50"], ..Mls::default() }.started(database).await;
    log_was_read(&universe, 1).await;
    let n = work(&universe).await;
    let compacted = universe.sandbox.report().await["events"]["compacted"].as_u64().expect("a count");
    assert!(compacted > 0 && refusals(&universe).await == 0);
    println!("mls {:?}: {compacted} events compacted away while the log was walked: {n} records in step", universe.database.engine);
}

async fn passes_alone_keep_it_in_step(database: Database) {
    let source = "events = { read = \"no\" }\n[sources.mls.resources]\nProperty = { poll = \"1s\", sweep = \"2s\" }\n\
         Member = { poll = \"1s\", sweep = \"2s\" }\nOffice = { poll = \"1s\", sweep = \"2s\" }\n\
         Media = { poll = \"1s\", sweep = \"2s\" }\nOpenHouse = { poll = \"1s\", sweep = \"2s\" }";
    let universe = Mls { source, ..Mls::default() }.started(database).await;
    let n = work(&universe).await;
    assert!(n > 0 && refusals(&universe).await == 0);
    println!("mls {:?}: {CHANGES} changes by passes alone: {n} records in step, 0 refusals", universe.database.engine);
}

/// The producer stops after three pushes that nobody took; its log goes on and tells of what was not announced.
async fn a_producer_that_has_stopped_is_asked_once_to_resume(database: Database) {
    let source = "events = { read = \"yes\", poll = \"1s\" }\npasses = false\npush_resume = { url = \"/resume\", after = \"10s\" }";
    let sandbox = vec!["--push-failures-max", "3", "--push-retry-ms", "20"];
    let mut universe = Mls { source, sandbox, ..Mls::default() }.started(database).await;
    mls::subscribe(&universe).await;
    universe.stop().await;
    universe.sandbox.control("churn", json!({ "changes": 50, "per_second": 1_000 })).await;
    eventually("the producer stops", SOON, async || {
        let push = universe.sandbox.report().await["push"].take();
        if push["is_stopped"] == true { Ok(()) } else { Err(push.to_string()) }
    })
    .await;
    universe.run().await;
    let begun = monotonic();
    let n = mls::in_step(&universe, SOON).await;
    let delivered = universe.database.number("select count(*) as n from instep_delivery").await;
    assert_eq!(delivered, 0, "the log alone has brought it in step");
    universe.sandbox.quiet(SOON).await;
    let resumed_ms = (monotonic() - begun).as_millis();
    // It delivers as before, and is not asked again.
    work(&universe).await;
    let report = universe.sandbox.report().await;
    let push = &report["push"];
    let is_resume = |row: &&Value| row["collection"] == "resume";
    let asked: Vec<&Value> = report["requests"].as_array().expect("rows").iter().filter(is_resume).collect();
    println!(
        "mls {:?}: stopped after {} pushes that nobody took, {n} records in step by the log; asked to resume and done after {resumed_ms} ms; \
         {} of {} events sent",
        universe.database.engine, push["unanswered"], push["sent"], push["queued"]
    );
    assert!(resumed_ms >= 10_000, "asked too early");
    assert_eq!(asked, [&json!({ "method": "POST", "collection": "resume", "status": 200, "count": 1 })]);
    assert_eq!((&push["resumed"], &push["stopped"], &push["sent"]), (&json!(1), &json!(1), &push["queued"]));
}

async fn who_is_invited_is_let_in_until_that_is_revoked(database: Database) {
    let universe = Mls { source: "events = { read = \"no\" }\npasses = false", ..Mls::default() }.started(database).await;
    let invited = mls::hooks(&universe, &["invite", "mls"]).expect("the first");
    let (id, token) = (invited["id"].as_str().expect("an id"), invited["token"].as_str().expect("a token"));
    mls::hooks(&universe, &["invite", "mls"]).expect("the one that is to take its place");
    assert!(mls::hooks(&universe, &["invite", "mls"]).is_none(), "no third one");
    let listed = mls::hooks(&universe, &["list", "mls"]).expect("they are listed").to_string();
    assert!(listed.contains(id) && !listed.contains(token), "{listed}");
    let event = json!({ "EntityEventSequence": 1, "ResourceName": "Member", "ResourceRecordKey": "nobody" });
    let deliver = async |token: &str, media_type: &str, body: String| {
        let url = invited["url"].as_str().expect("an address");
        let request = universe.client.post(url).header("authorization", format!("Bearer {token}")).header("content-type", media_type);
        let answer = request.body(body).send().await.expect("an answer");
        let challenges = answer.headers().get_all("www-authenticate").iter().filter_map(|value| value.to_str().ok());
        (answer.status().as_u16(), challenges.map(ToOwned::to_owned).collect::<Vec<_>>())
    };
    assert_eq!(deliver(token, "application/json", event.to_string()).await.0, 200);
    assert_eq!(deliver(token, "text/plain", event.to_string()).await.0, 415);
    assert_eq!(deliver(token, "application/json", "[]".to_owned()).await.0, 400);
    let stranger = deliver(&token.to_uppercase(), "text/plain", "[]".to_owned()).await;
    assert_eq!(stranger, (401, vec!["Bearer realm=\"instep\"".to_owned(), "Signature".to_owned()]), "a stranger learns nothing else");
    mls::hooks(&universe, &["invite", "mls", "--revoke", id]).expect("it is ended");
    assert_eq!(deliver(token, "application/json", event.to_string()).await, stranger);
}
