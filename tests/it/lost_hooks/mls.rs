//! A RESO producer: it loses pushes, the way is cut, and its feed is dead: the token that it was given is no longer valid, so that it has
//! stopped and keeps nothing until it is asked to resume. With its log and without, where passes alone show what was lost.

use std::time::Duration;

use serde_json::json;

use super::{CHANGES, Costs, EQUAL_WITHIN, SOON, each_over, gate, judged, logged, missed, opened, outage, repaired, unannounced, watch};
use crate::support::{Database, Mls, Universe, eventually, mls, monotonic, on_both, until};

on_both!(
    pushes_that_are_lost_are_noticed_by_the_log,
    pushes_that_are_lost_are_noticed_by_passes,
    a_way_that_is_cut_is_noticed,
    a_dead_feed_is_noticed_and_asked_to_resume_by_the_log,
    a_dead_feed_is_noticed_and_asked_to_resume_by_passes,
    a_feed_that_died_before_a_start_is_noticed,
);

/// The five resources, looked at this often by themselves.
macro_rules! polled {
    ($poll:literal) => {
        concat!(
            "[sources.mls.resources]\nProperty = { poll = \"",
            $poll,
            "\" }\nMember = { poll = \"",
            $poll,
            "\" }\n",
            "Office = { poll = \"",
            $poll,
            "\" }\nMedia = { poll = \"",
            $poll,
            "\" }\nOpenHouse = { poll = \"",
            $poll,
            "\" }\n"
        )
    };
}

const RESOURCES: u64 = mls::KEYS.len() as u64;
/// A page of each, and the empty one behind it.
const SWEEP: u64 = 2 * RESOURCES;
/// The log every second: within seconds it tells of what no push told.
const LOG: &str = concat!(watch!(), "events = { read = \"yes\", poll = \"1s\" }\n", polled!("1h"));
/// Passes every five seconds.
const PASSES: &str = concat!(watch!(), "events = { read = \"no\" }\n", polled!("5s"));
/// Pushes, and what gaps ask for.
const PUSHES: &str = concat!(watch!(), "events = { read = \"no\" }\n", polled!("1h"));
/// As the first, of a producer that can be asked to resume.
const LOG_RESUMING: &str =
    concat!(watch!(), "events = { read = \"yes\", poll = \"1s\" }\npush_resume = { url = \"/resume\", after = \"10s\" }\n", polled!("1h"));
/// As the second, of such a producer.
const PASSES_RESUMING: &str =
    concat!(watch!(), "events = { read = \"no\" }\npush_resume = { url = \"/resume\", after = \"10s\" }\n", polled!("5s"));

/// What is asked in so many seconds where nothing is wrong, and once for the gap.
type Plan = fn(u64) -> u64;

/// A read of the log a second with one of what it tells, a sample a minute, and a pass of each resource.
fn by_log(seconds: u64) -> u64 {
    2 * seconds + seconds / 60 + 1 + RESOURCES
}

/// A pass of each resource every five seconds, a sample a minute, and a sweep of each resource.
fn by_passes(seconds: u64) -> u64 {
    RESOURCES * (seconds / 5 + 1) + seconds / 60 + 1 + SWEEP
}

async fn pushes_that_are_lost_are_noticed_by_the_log(database: Database) {
    pushes_that_are_lost_are_noticed(database, LOG, by_log).await;
}

async fn pushes_that_are_lost_are_noticed_by_passes(database: Database) {
    pushes_that_are_lost_are_noticed(database, PASSES, by_passes).await;
}

async fn pushes_that_are_lost_are_noticed(database: Database, source: &'static str, plan: Plan) {
    let (universe, keys) = pushed_to(database, Mls { source, ..Mls::default() }).await;
    let (costs, before) = (Costs::from_now(&universe).await, logged(&universe).await);
    universe.sandbox.control("faults", json!({ "push_lost": 1.0 })).await;
    change(&universe, &keys[..CHANGES], outage()).await;
    universe.sandbox.control("faults", json!({ "push_lost": 0.0 })).await;
    let ended = monotonic();
    mls::in_step(&universe, EQUAL_WITHIN).await;
    let equal = monotonic() - ended;
    repaired(&universe, "silence").await;
    let lost = count(&universe, "lost").await;
    assert_eq!((lost, unannounced(&universe, before).await), (CHANGES as u64, lost));
    costs.judge(&universe, &format!("mls: equal {equal:.1?} after {:?}, {lost} lost", outage()), plan).await;
    missed(&universe, "mls", lost).await;
    told(&universe, &keys, lost).await;
}

async fn a_way_that_is_cut_is_noticed(database: Database) {
    let (gate, own) = gate().await;
    // Each push is tried once, and it never stops.
    let sandbox = vec!["--push-tries", "1", "--push-failures-max", "1000000", "--push-retry-ms", "20"];
    let mls = Mls { source: PUSHES, sandbox, ports: Some((gate.port, own)), ..Mls::default() };
    let (universe, keys) = pushed_to(database, mls).await;
    let costs = Costs::from_now(&universe).await;
    gate.cut();
    change(&universe, &keys[..CHANGES], outage()).await;
    universe.sandbox.quiet(SOON).await;
    opened(&universe, "public_url").await;
    let noticed = costs.took();
    assert!(gate.refused() > CHANGES, "the pushes and the probes led nowhere: {}", gate.refused());
    gate.open();
    let ended = monotonic();
    mls::in_step(&universe, EQUAL_WITHIN).await;
    let equal = monotonic() - ended;
    repaired(&universe, "public_url").await;
    let lost = count(&universe, "given_up").await;
    assert_eq!(lost, CHANGES as u64);
    let figures = format!("mls cut: noticed after {noticed:.1?}, equal {equal:.1?} after it was free, {lost} lost");
    // A sweep of each resource, and a sample a minute.
    costs.judge(&universe, &figures, |seconds| SWEEP + seconds / 60 + 1).await;
    missed(&universe, "mls", lost).await;
    told(&universe, &keys, lost).await;
}

async fn a_dead_feed_is_noticed_and_asked_to_resume_by_the_log(database: Database) {
    a_dead_feed_is_noticed_and_asked_to_resume(database, LOG_RESUMING, by_log).await;
}

async fn a_dead_feed_is_noticed_and_asked_to_resume_by_passes(database: Database) {
    a_dead_feed_is_noticed_and_asked_to_resume(database, PASSES_RESUMING, by_passes).await;
}

async fn a_dead_feed_is_noticed_and_asked_to_resume(database: Database, source: &'static str, plan: Plan) {
    let sandbox = vec!["--push-forgets", "--push-failures-max", "3", "--push-retry-ms", "20"];
    let (universe, keys) = pushed_to(database, Mls { source, sandbox, ..Mls::default() }).await;
    let (costs, before) = (Costs::from_now(&universe).await, logged(&universe).await);
    universe.sandbox.control("push", json!({ "token": "one that is no longer valid" })).await;
    change(&universe, &keys[..CHANGES], outage()).await;
    // The producer is given the right one again, and waits to be asked.
    universe.sandbox.control("push", json!({ "token": mls::PUSH_TOKEN })).await;
    let ended = monotonic();
    mls::in_step(&universe, EQUAL_WITHIN).await;
    let equal = monotonic() - ended;
    repaired(&universe, "silence").await;
    eventually("it is asked to resume", EQUAL_WITHIN, async || match universe.sandbox.report().await["push"].take() {
        push if push["is_stopped"] == false => Ok(()),
        push => Err(push.to_string()),
    })
    .await;
    let resumed = monotonic() - ended;
    let lost = count(&universe, "lost_while_stopped").await;
    assert_eq!((lost, unannounced(&universe, before).await), (CHANGES as u64, lost));
    let figures = format!("mls stopped: equal {equal:.1?} after {:?}, resumed after {resumed:.1?}, {lost} lost", outage());
    // It is asked to resume after 10 s, and again after 10, 20 and 40 s.
    costs.judge(&universe, &figures, |seconds| plan(seconds) + 1 + seconds / 20).await;
    missed(&universe, "mls", lost).await;
    told(&universe, &keys, lost).await;
}

/// The process that heard it last is no more, and what it heard is too long ago for a judgement.
async fn a_feed_that_died_before_a_start_is_noticed(database: Database) {
    let (mut universe, keys) = pushed_to(database, Mls { source: PASSES, sandbox: vec!["--push-forgets"], ..Mls::default() }).await;
    universe.stop().await;
    universe.sandbox.control("push", json!({ "stop": true })).await;
    // Four times as long as a push may be late.
    until(monotonic() + Duration::from_secs(16)).await;
    universe.run().await;
    universe.ready().await;
    let began = monotonic();
    change(&universe, &keys[..CHANGES], Duration::ZERO).await;
    opened(&universe, "silence").await;
    let noticed = monotonic() - began;
    mls::in_step(&universe, EQUAL_WITHIN).await;
    repaired(&universe, "silence").await;
    let lost = count(&universe, "lost_while_stopped").await;
    assert_eq!(lost, CHANGES as u64);
    missed(&universe, "mls", lost).await;
    println!("{:?}: mls dead before the start: noticed after {noticed:.1?}, {lost} lost", universe.database.engine);
    universe.sandbox.control("push", json!({ "stop": false })).await;
    told(&universe, &keys, lost).await;
}

/// A universe that is pushed to and has heard a few pushes, and its listings.
async fn pushed_to(database: Database, mls: Mls) -> (Universe, Vec<String>) {
    let port = mls.ports.map(|(public, _)| public);
    let universe = mls.started(database).await;
    mls::push_to(&universe, port.unwrap_or(universe.hooks_port), json!({ "batch": 1 })).await;
    let keys: Vec<String> = mls::truth(&universe, "Property", "ListingKey").await.into_keys().collect();
    told(&universe, &keys, 0).await;
    (universe, keys)
}

/// What is told is not missed, after a gap as before it.
async fn told(universe: &Universe, keys: &[String], lost: u64) {
    let before = logged(universe).await;
    change(universe, &keys[CHANGES..CHANGES + 5], Duration::ZERO).await;
    assert_eq!(unannounced(universe, before).await, 0, "it pushes");
    mls::in_step(universe, SOON).await;
    judged(universe).await;
    missed(universe, "mls", lost).await;
}

/// Changes each of these listings once, evenly over a time.
pub(super) async fn change(universe: &Universe, keys: &[String], span: Duration) {
    each_over(span, keys, async |key| {
        let fields = json!({ "PublicRemarks": format!("changed at {:?}", monotonic()) });
        universe.sandbox.control("update", json!({ "resource": "Property", "key": key, "fields": fields })).await;
    })
    .await;
}

/// What the producer counts of its pushes.
async fn count(universe: &Universe, what: &str) -> u64 {
    universe.sandbox.report().await["push"][what].as_u64().unwrap_or(0)
}
