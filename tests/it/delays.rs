//! `instep report delay` says how late and how lossy each way is; what it says is compared with what the test did, with every upstream.
//!
//! When a change truly was the sandbox's log of changes says, to the microsecond. A stamp says it less exactly, a PIM's to the second;
//! a figure can be wrong by as much, and must say so. When a delivery was truly there lies between its sending and its answer.

use std::collections::HashMap;
use std::time::Duration;

use instep::clock::{Clock, Timestamp};
use serde_json::{Value, json};

use crate::support::{Database, Mls, Pim, Setup, Universe, mls, on_both, pim, universe, until};

on_both!(
    the_figures_of_productive_are_those_of_the_deliveries,
    the_figures_of_a_pims_events_api_are_those_of_the_deliveries,
    the_figures_of_a_pims_event_platform_are_those_of_the_deliveries,
    the_figures_of_a_producer_are_those_of_the_deliveries,
    few_samples_are_told_to_be_few,
);

const SOON: Duration = Duration::from_secs(60);
const CHANGES: usize = 160;
/// Every so many changes one is never told by a delivery.
const LOST_EVERY: usize = 8;
/// What the clocks of two processes of one machine, and cut microseconds, may differ by.
const HAIR: f64 = 0.002;

/// An upstream of which the test makes the changes and sends the deliveries.
trait Upstream {
    const SOURCE: &'static str;
    const RESOURCE: &'static str;
    /// The way by which the test tells.
    const HOOK: &'static str;
    /// The way that finds out without the test, and whether it tells of every change or only of those it shows first.
    const OTHER: (&'static str, bool);
    /// What its stamps are cut to, in microseconds.
    const STAMPS_US: i64;

    async fn started(&self, database: Database) -> Universe;
    /// Records that the test may change.
    async fn keys(&self, universe: &Universe) -> Vec<String>;
    async fn change(&self, universe: &Universe, key: &str);
    /// The delivery about a change that was made.
    async fn delivery(&self, universe: &Universe, key: &str) -> String;
    async fn send(&self, universe: &Universe, body: &str) -> u16;
    async fn in_step(&self, universe: &Universe);
}

struct Productive;

impl Upstream for Productive {
    const SOURCE: &'static str = "pmp";
    const RESOURCE: &'static str = "tasks";
    const HOOK: &'static str = "hook";
    const OTHER: (&'static str, bool) = ("feed", true);
    const STAMPS_US: i64 = 1_000;

    async fn started(&self, database: Database) -> Universe {
        let source = "passes = false\nfeeds = true\naudit = { share = 0.0 }\n";
        Universe::started(database, &Setup { source, ..Setup::default() }).await
    }

    async fn keys(&self, universe: &Universe) -> Vec<String> {
        universe.sandbox.keys("tasks").await
    }

    async fn change(&self, universe: &Universe, key: &str) {
        let asked = json!({ "collection": "tasks", "id": key, "attributes": { "title": format!("{key} again") } });
        universe.sandbox.control("update", asked).await;
    }

    async fn delivery(&self, _: &Universe, key: &str) -> String {
        universe::about_task(key, "changed")
    }

    async fn send(&self, universe: &Universe, body: &str) -> u16 {
        universe.deliver("task-updated", body).await.expect("an answer")
    }

    async fn in_step(&self, universe: &Universe) {
        universe.in_step(SOON).await;
    }
}

/// A PIM, by its older or its newer event system. It has no log to ask, so passes are the other way.
struct PimBy<const PLATFORM: bool>;

impl<const PLATFORM: bool> Upstream for PimBy<PLATFORM> {
    const SOURCE: &'static str = "pim";
    const RESOURCE: &'static str = "products";
    const HOOK: &'static str = if PLATFORM { "event_platform" } else { "events_api" };
    const OTHER: (&'static str, bool) = ("pass", false);
    const STAMPS_US: i64 = 1_000_000;

    async fn started(&self, database: Database) -> Universe {
        let resources = vec![("products", "poll = \"1s\", sweep = \"24h\"")];
        Pim { entities: 400, resources, source: "audit = { share = 0.0 }", ..Pim::default() }.started(database).await
    }

    async fn keys(&self, universe: &Universe) -> Vec<String> {
        pim::keys(&universe.sandbox, "products", |_| true).await
    }

    async fn change(&self, universe: &Universe, key: &str) {
        let fields = json!({ "fields": { "groups": [format!("group_{key}")] } });
        pim::change(universe, "update", "products", Some(key), fields).await;
    }

    async fn delivery(&self, _: &Universe, key: &str) -> String {
        let product = json!({ "uuid": key });
        match PLATFORM {
            true => pim::cloud_event("product.updated", &json!({ "product": product })),
            false => pim::event("product.updated", &product),
        }
    }

    async fn send(&self, universe: &Universe, body: &str) -> u16 {
        if PLATFORM { pim::send_platform(universe, body).await } else { pim::send_events(universe, body).await }
    }

    async fn in_step(&self, universe: &Universe) {
        pim::in_step(universe, &["products"], SOON).await;
    }
}

struct Producer;

impl Upstream for Producer {
    const SOURCE: &'static str = "mls";
    const RESOURCE: &'static str = "Property";
    const HOOK: &'static str = "hook";
    const OTHER: (&'static str, bool) = ("feed", true);
    const STAMPS_US: i64 = 1_000;

    async fn started(&self, database: Database) -> Universe {
        let source = "events = { read = \"yes\", poll = \"1s\" }\npasses = false\naudit = { share = 0.0 }";
        Mls { source, entities: 200, ..Mls::default() }.started(database).await
    }

    async fn keys(&self, universe: &Universe) -> Vec<String> {
        mls::truth(universe, "Property", "ListingKey").await.into_keys().collect()
    }

    async fn change(&self, universe: &Universe, key: &str) {
        let fields = json!({ "PublicRemarks": format!("{key} again") });
        universe.sandbox.control("update", json!({ "resource": "Property", "key": key, "fields": fields })).await;
    }

    async fn delivery(&self, universe: &Universe, key: &str) -> String {
        let of = format!("/odata/EntityEvent?$filter=ResourceRecordKey%20eq%20'{key}'&$orderby=EntityEventSequence%20desc&$top=1");
        let found = universe.sandbox.observe(&of).await.expect("a page");
        mls::event(found["value"][0]["EntityEventSequence"].as_u64().unwrap_or_else(|| panic!("{found}")), "Property", key)
    }

    async fn send(&self, universe: &Universe, body: &str) -> u16 {
        mls::send(universe, mls::PUSH_TOKEN, body).await
    }

    async fn in_step(&self, universe: &Universe) {
        mls::in_step(universe, SOON).await;
    }
}

async fn the_figures_of_productive_are_those_of_the_deliveries(database: Database) {
    figures(&Productive, database).await;
}

async fn the_figures_of_a_pims_events_api_are_those_of_the_deliveries(database: Database) {
    figures(&PimBy::<false>, database).await;
}

async fn the_figures_of_a_pims_event_platform_are_those_of_the_deliveries(database: Database) {
    figures(&PimBy::<true>, database).await;
}

async fn the_figures_of_a_producer_are_those_of_the_deliveries(database: Database) {
    figures(&Producer, database).await;
}

/// Of sorted seconds, that of so many per cent.
fn percentile(sorted: &[f64], per_cent: usize) -> f64 {
    sorted[(sorted.len() * per_cent).div_ceil(100).saturating_sub(1)]
}

/// Between sending a delivery and its answer it was there.
type Told = HashMap<String, (Timestamp, Timestamp)>;

/// What the test did: when each record changed, by the sandbox's own log, and when it was told of.
struct Done {
    changed_us: HashMap<String, i64>,
    told: Told,
}

impl Done {
    /// Delays of the deliveries from their changes, or from stamps that are cut to so many microseconds: the shortest and the longest
    /// that they can have been.
    fn delays(&self, stamps_us: i64) -> (Vec<f64>, Vec<f64>) {
        let since = |key: &String, at: &Timestamp| {
            let changed_us = self.changed_us[key];
            (at.0 - (changed_us - changed_us.rem_euclid(stamps_us))) as f64 / 1e6
        };
        let mut shortest: Vec<f64> = self.told.iter().map(|(key, (sent, _))| since(key, sent)).collect();
        let mut longest: Vec<f64> = self.told.iter().map(|(key, (_, answered))| since(key, answered)).collect();
        shortest.sort_by(f64::total_cmp);
        longest.sort_by(f64::total_cmp);
        (shortest, longest)
    }
}

/// The test delivers by itself, each at a delay of its own after the change.
async fn change_and_tell<U: Upstream>(upstream: &U, universe: &Universe) -> Done {
    let clock = Clock::system();
    let lines = universe.sandbox.get("changes").await.as_array().expect("lines").len();
    let keys = upstream.keys(universe).await[..CHANGES].to_vec();
    // From nothing to two seconds: more than the other way takes, so that either is first for some.
    let mut planned: Vec<(Duration, String)> = Vec::new();
    for (n, key) in keys.iter().enumerate() {
        upstream.change(universe, key).await;
        if n % LOST_EVERY > 0 {
            planned.push((clock.monotonic() + Duration::from_millis((n as u64 * 733) % 2_000), key.clone()));
        }
    }
    planned.sort();
    let mut told = Told::new();
    for (at, key) in planned {
        let body = upstream.delivery(universe, &key).await;
        until(at).await;
        let sent = clock.now();
        pim::arrives(async || upstream.send(universe, &body).await).await;
        told.insert(key, (sent, clock.now()));
    }
    let log = universe.sandbox.get(&format!("changes?after={lines}")).await;
    let text = |line: &Value, names: [&str; 2]| names.iter().find_map(|name| line[*name].as_str().map(ToOwned::to_owned)).expect("a text");
    let of = log.as_array().expect("lines").iter().filter(|line| text(line, ["resource", "collection"]) == U::RESOURCE);
    let changed_us = of.map(|line| (text(line, ["key", "id"]), line["at_us"].as_i64().expect("an instant"))).collect();
    Done { changed_us, told }
}

fn report(universe: &Universe, source: &str, since: Timestamp, arguments: &[&str]) -> String {
    let output = universe.verb(&[&["report", "delay", source, "--since", &since.to_string()], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

async fn figures<U: Upstream>(upstream: &U, database: Database) {
    let universe = upstream.started(database).await;
    let since = Clock::system().now();
    let done = change_and_tell(upstream, &universe).await;
    assert_eq!(done.changed_us.len(), CHANGES);
    upstream.in_step(&universe).await;
    universe.idle(SOON).await;
    // Whole seconds: the first changes may bear a stamp from before they were made.
    let since = Timestamp(since.0 - U::STAMPS_US);
    let answer: Value = serde_json::from_str(&report(&universe, U::SOURCE, since, &["--json"])).expect("JSON");
    shares::<U>(&answer, &done);
    let line = distribution::<U>(&answer, &done);
    let clock = &answer["clock"];
    let (ahead, error) = (number(&clock["ahead_seconds"]), number(&clock["error_seconds"]));
    assert!(ahead.abs() <= error + HAIR, "both clocks are one: {clock}");
    let text = report(&universe, U::SOURCE, since, &[]);
    let says_so = text.contains(&format!("{}: its stamps are whole seconds", U::HOOK));
    assert_eq!(says_so, U::STAMPS_US == 1_000_000, "{text}");
    println!(
        "delays {} {} {:?}: {line}; clocks {ahead:.3} s apart, give or take {error:.3} s",
        U::SOURCE,
        U::HOOK,
        universe.database.engine
    );
}

/// Who told of how many.
fn shares<U: Upstream>(answer: &Value, done: &Done) {
    let (hook, other) = (&answer["delays"]["ways"][U::HOOK], &answer["delays"]["ways"][U::OTHER.0]);
    let told = Some(done.told.len() as u64);
    assert_eq!((answer["delays"]["changes"].as_u64(), hook["n"].as_u64()), (Some(CHANGES as u64), told), "{answer}");
    let never = 100.0 * CHANGES.div_ceil(LOST_EVERY) as f64 / CHANGES as f64;
    assert!((number(&hook["never_percent"]) - never).abs() < 0.01, "{never}: {hook}");
    assert_eq!(hook["few"].as_bool(), Some(false));
    if U::OTHER.1 {
        assert_eq!((other["told"].as_u64(), number(&other["never_percent"])), (Some(CHANGES as u64), 0.0), "{answer}");
    } else {
        assert!(other["told"].as_u64() >= Some(CHANGES.div_ceil(LOST_EVERY) as u64), "what no delivery told it did: {answer}");
    }
    let first = number(&hook["first_percent"]) + number(&other["first_percent"]);
    assert!((first - 100.0).abs() < 0.1, "one of the two is first: {answer}");
}

/// Every figure is that of the stamps, and the truth is where the report says it is.
fn distribution<U: Upstream>(answer: &Value, done: &Done) -> String {
    let hook = &answer["delays"]["ways"][U::HOOK];
    let (too_long, too_short) = (number(&hook["too_long_seconds"]), number(&hook["too_short_seconds"]));
    let error = number(&answer["clock"]["error_seconds"]);
    let stamps = U::STAMPS_US as f64 / 1e6;
    assert_eq!(number(&hook["stamp_seconds"]), stamps, "{hook}");
    assert!((too_long + too_short - stamps - 2.0 * error).abs() < 1e-5, "the stamps' error and the clocks', and no more: {answer}");
    let (shortest, longest) = done.delays(1);
    let (from_stamp, to_stamp) = done.delays(U::STAMPS_US);
    let mut line = format!("n {}", hook["n"]);
    for (name, per_cent) in [("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)] {
        let told = number(&hook[name]);
        let (least, most) = (percentile(&from_stamp, per_cent), percentile(&to_stamp, per_cent));
        let (low, high) = (least - (0.1 * least).max(0.05), most + (0.1 * most).max(0.05));
        assert!(low <= told && told <= high, "{name}: {told} told, from the stamps {least} to {most}; {answer}");
        let (least, most) = (percentile(&shortest, per_cent), percentile(&longest, per_cent));
        let holds = told - too_long <= most + HAIR && told + too_short >= least - HAIR;
        assert!(holds, "{name}: {told} told, too long by {too_long} or too short by {too_short} at most, truly {least} to {most}");
        line += &format!(", {name} {told:.3} s ({least:.3} truly)");
    }
    format!("{line}, never {} %; at most {too_long:.3} s too long, {too_short:.3} s too short", hook["never_percent"])
}

async fn few_samples_are_told_to_be_few(database: Database) {
    let source = "passes = false\nfeeds = true\naudit = { share = 0.0 }\n";
    let universe = Universe::started(database, &Setup { entities: 100, source, ..Setup::default() }).await;
    for key in &universe.sandbox.keys("tasks").await[..3] {
        Productive.change(&universe, key).await;
    }
    universe.in_step(SOON).await;
    let output = universe.verb(&["report", "delay", "pmp", "--since", "10m"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("fewer than 100") && text.contains("give or take"), "{text}");
}
