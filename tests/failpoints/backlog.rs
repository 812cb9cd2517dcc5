//! A producer that is told to come later, because nothing can be worked in: it waits as it is told, and everything arrives in the end;
//! or it gives up, and its log repairs what it never sent again.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Points, with_points};
use crate::support::{Database, Mls, Universe, eventually, mls, on_both};

on_both!(
    a_producer_waits_as_many_seconds_as_it_is_told,
    a_producer_waits_until_the_date_that_it_is_told,
    a_producer_that_gives_up_loses_nothing,
    whoever_sends_to_a_parked_intake_is_told_to_come_later,
);

const SOON: Duration = Duration::from_secs(60);
/// Every delivery fails where it is decoded, and waits.
const DECODE: &str = "decode::named";
/// The least mark that there may be.
const MARK: &str = "[limits]\nbacklog = 100";
const PUSHES_ALONE: &str = "events = { read = \"no\" }\npasses = false\npush.retry_after = \"1s\"";

async fn pushed(universe: &Universe) -> Value {
    universe.sandbox.report().await["push"].clone()
}

fn count(push: &Value, what: &str) -> u64 {
    push[what].as_u64().unwrap_or(0)
}

async fn running(mls: &Mls, database: Database) -> (Universe, Points) {
    let mut universe = mls.universe(database);
    universe.launch(&mut with_points(universe.command(), ""));
    let points = Points::of(universe.daemon());
    universe.ready().await;
    universe.backfilled().await;
    (universe, points)
}

/// A daemon that works nothing in, of a producer that has begun to push its whole log, an event a request.
async fn stuck(mls: &Mls, database: Database) -> (Universe, Points) {
    let (universe, mut points) = running(mls, database).await;
    points.set(DECODE, "return(error)");
    mls::push(&universe, json!({ "from": 1 })).await;
    (universe, points)
}

/// Waits until the producer was told to come later so many times.
async fn is_told(universe: &Universe, times: u64) {
    eventually("the producer is told to come later", SOON, async || {
        let push = pushed(universe).await;
        if count(&push, "status_429") >= times { Ok(()) } else { Err(push.to_string()) }
    })
    .await;
}

async fn waits_as_told(database: Database, form: &str, source: &'static str) {
    let mls = Mls { source, tables: MARK, ..Mls::default() };
    let (universe, mut points) = stuck(&mls, database).await;
    is_told(&universe, 3).await;
    let waiting = universe.database.number("select count(*) as n from instep_delivery where state = 'pending'").await;
    points.set(DECODE, "off");
    universe.sandbox.quiet(SOON).await;
    universe.idle(SOON).await;
    let n = mls::in_step(&universe, SOON).await;
    let push = pushed(&universe).await;
    println!(
        "backlog {:?}: {waiting} deliveries waited; {} pushes were answered 429 with Retry-After {form}: {} pauses kept, {} not, asked to \
         wait {} ms, waited {} ms; {} of {} events sent, {n} records in step",
        universe.database.engine,
        count(&push, "status_429"),
        count(&push, "pauses_honoured"),
        count(&push, "pauses_broken"),
        push["asked_to_wait_ms"],
        push["waited_ms"],
        push["sent"],
        push["queued"],
    );
    assert!(waiting > 100, "{waiting} waited");
    assert_eq!((count(&push, "status_429"), count(&push, "pauses_broken")), (count(&push, "retry_after"), 0), "{push}");
    assert!(count(&push, "waited_ms") >= count(&push, "asked_to_wait_ms") && count(&push, "asked_to_wait_ms") > 0, "{push}");
    assert_eq!((count(&push, "sent"), count(&push, "refused")), (count(&push, "queued"), 0), "{push}");
}

async fn a_producer_waits_as_many_seconds_as_it_is_told(database: Database) {
    waits_as_told(database, "in seconds", PUSHES_ALONE).await;
}

async fn a_producer_waits_until_the_date_that_it_is_told(database: Database) {
    let source = "events = { read = \"no\" }\npasses = false\npush.retry_after = \"2s\"\npush.retry_after_form = \"date\"";
    waits_as_told(database, "as a date", source).await;
}

async fn a_producer_that_gives_up_loses_nothing(database: Database) {
    let source = "events = { read = \"yes\", poll = \"1s\" }\npasses = false\npush.retry_after = \"1s\"";
    let mls = Mls { source, tables: MARK, sandbox: vec!["--push-tries", "2", "--push-impatient"], ..Mls::default() };
    let (universe, mut points) = stuck(&mls, database).await;
    is_told(&universe, 3).await;
    universe.sandbox.control("churn", json!({ "changes": 300, "per_second": 100 })).await;
    universe.sandbox.quiet(SOON).await;
    let push = pushed(&universe).await;
    let n = mls::in_step(&universe, SOON).await;
    println!(
        "backlog {:?}: {} of {} events were given up after two tries: {n} records in step by the log",
        universe.database.engine, push["given_up"], push["queued"]
    );
    assert!(count(&push, "given_up") > 300, "{push}");
    points.set(DECODE, "off");
    universe.idle(SOON).await;
    mls::in_step(&universe, SOON).await;
}

async fn whoever_sends_to_a_parked_intake_is_told_to_come_later(database: Database) {
    let (mut universe, mut points) = running(&Mls { source: PUSHES_ALONE, tables: MARK, ..Mls::default() }, database).await;
    points.set("actor:root/sources/source:mls/intake::step", "panic");
    eventually("the intake is parked", SOON, async || match universe.counted("actors_parked", "intake").await {
        0 => Err("not yet".to_owned()),
        _ => Ok(()),
    })
    .await;
    mls::push(&universe, json!({ "from": 1 })).await;
    is_told(&universe, 2).await;
    let waiting = universe.database.number("select count(*) as n from instep_delivery where state = 'pending'").await;
    universe.stop().await;
    universe.run().await;
    universe.sandbox.quiet(SOON).await;
    universe.idle(SOON).await;
    let n = mls::in_step(&universe, SOON).await;
    println!(
        "backlog {:?}: {waiting} deliveries waited for a parked intake; {n} records in step after a restart",
        universe.database.engine
    );
    assert_eq!(waiting, 101);
}
