//! The Event Platform's subscription is never suspended by us, and a suspension that happens all the same is repaired.
//!
//! Both event systems send: a burst of changes, changes while the daemon restarts, and changes while its store is away (a server
//! that is stopped; a file that takes no writes). The fake PIM suspends as the vendor does: at the first 404 or redirect, and when
//! fewer than nine of ten deliveries of the last hour were taken. The short form has 1,000 changes and an outage of 6 s, the long one
//! 10,000 and 60 s: `INSTEP_LONG=1 cargo test --release --features failpoints --test it pim_subscription -- --nocapture`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Database, Engine, OwnServer, Pim, Strace, Universe, eventually, is_long, monotonic, on_both, pim, run, run_on_own_server, skipped,
    until,
};

on_both!(a_suspension_that_is_announced_is_a_gap_and_is_repaired);

const SOON: Duration = Duration::from_secs(180);
const RESOURCES: [&str; 2] = ["products", "product-models"];
const PASSES: &str = "poll = \"2s\", sweep = \"4s\"";
/// The Events API waits half a second for an answer; ours is to be there well before.
const ACK_MAX_MS: u64 = 400;
fn burst() -> u64 {
    if is_long() { 10_000 } else { 1_000 }
}

fn outage() -> Duration {
    Duration::from_secs(if is_long() { 60 } else { 6 })
}

#[test]
fn on_postgres_nothing_that_happens_to_us_suspends_it() {
    run_on_own_server(async |database: Database, server: OwnServer| {
        let away = async |_: &mut Universe| server.down();
        let back = async || server.up();
        nothing_suspends(database, away, back).await;
    });
}

#[test]
fn on_sqlite_nothing_that_happens_to_us_suspends_it() {
    run(Engine::Sqlite, async |database: Database| {
        if !Strace::is_here() {
            skipped("pim_subscription: there is no strace");
            return;
        }
        let strace = std::cell::RefCell::new(None);
        let away = async |universe: &mut Universe| {
            let (pid, log) = (universe.daemon().pid(), universe.folder("strace.log"));
            let refuse = ["-e", "trace=pwrite64", "-e", "inject=pwrite64:error=ENOSPC", "-o", "/dev/null"];
            strace.replace(Some(Strace::attach(pid, &refuse, &log).await));
        };
        let back = async || strace.take().expect("it is attached").detach().await;
        nothing_suspends(database, away, back).await;
    });
}

/// A PIM that sends by both systems; passes repair what is lost.
async fn telling(database: Database, events_api: bool) -> Universe {
    let pim = Pim {
        entities: 400,
        resources: RESOURCES.map(|name| (name, PASSES)).to_vec(),
        source: "",
        // 5, 10 and 20 minutes until a retry become 1.5, 3 and 6 seconds.
        sandbox: vec!["--platform-retry-scale", "0.005"],
        ..Pim::default()
    };
    let universe = pim.started(database).await;
    pim::subscribe(&universe, events_api, true).await;
    universe
}

/// People change `n` records of what both systems tell, at most so many a second. Hardly any are deleted, so that the removal budget
/// is not what is judged.
async fn people_change(universe: &Universe, n: u64, per_second: u64) {
    let job = json!({ "changes": n, "per_second": per_second, "resources": RESOURCES, "removals": 0.1, "seed": n });
    universe.sandbox.control("churn", job).await;
}

async fn nothing_suspends(database: Database, away: impl AsyncFnOnce(&mut Universe), back: impl AsyncFnOnce()) {
    let engine = database.engine;
    let mut universe = telling(database, true).await;
    people_change(&universe, burst(), 5_000).await;
    pim::quiet(&universe, Duration::from_secs(600)).await;
    let after_burst = unsuspended(&universe).await;
    let acks = &after_burst["deliveries"]["events_api"]["acks"];

    people_change(&universe, 60, 20).await;
    assert_eq!(universe.stop().await, Some(0));
    universe.run().await;
    pim::quiet(&universe, SOON).await;
    unsuspended(&universe).await;

    let refused = while_away(&mut universe, away, back).await;
    pim::quiet(&universe, SOON).await;
    let report = unsuspended(&universe).await;
    let gap = "select count(*) as n from instep_gaps where source = 'pim' and ended_at is not null";
    eventually("what the Events API lost is a gap", SOON, async || match universe.database.try_number(gap).await? {
        0 => Err("no gap has ended".to_owned()),
        n => Ok(n),
    })
    .await;
    repaired(&universe).await;
    println!(
        "pim_subscription {engine:?}: {} changes at once, a restart, the store away for {:?}: 0 suspensions; Events API acks after the burst \
         {acks}; its events {}; the platform's {}; while away {refused:?}",
        burst(),
        outage(),
        report["deliveries"]["events_api"]["counts"],
        report["deliveries"]["event_platform"]["counts"],
    );
    judge_acks(&after_burst);
}

/// The store is away for a while; what both routes were answered meanwhile.
async fn while_away(universe: &mut Universe, away: impl AsyncFnOnce(&mut Universe), back: impl AsyncFnOnce()) -> (u16, u16) {
    universe.database.disconnect().await;
    away(universe).await;
    let begun = monotonic();
    people_change(universe, outage().as_secs(), 1).await;
    let url = format!("http://127.0.0.1:{}/readyz", universe.admin_port);
    eventually("the daemon notices", SOON, async || {
        let answer = universe.client.get(&url).send().await.map_err(|error| error.to_string())?;
        if answer.status() == 503 { Ok(()) } else { Err(answer.status().to_string()) }
    })
    .await;
    let thin = json!({ "uuid": "00000000-0000-4000-8000-0000000000aa" });
    let events = pim::send_events(universe, &pim::event("product.updated", &thin)).await;
    let platform = pim::send_platform(universe, &pim::cloud_event("product.updated", &json!({ "product": thin }))).await;
    until(begun + outage()).await;
    back().await;
    universe.ready().await;
    assert_eq!(events, 503, "nothing can be kept, and no other answer would bring it back");
    assert_eq!(platform, 429, "which slows the Event Platform down, while a 503 would count against the subscription");
    (events, platform)
}

/// The report, in which nothing was ever suspended.
async fn unsuspended(universe: &Universe) -> Value {
    let report = universe.sandbox.report().await;
    assert_eq!(report["suspensions"], 0, "{}", report["deliveries"]["event_platform"]);
    assert_eq!(report["deliveries"]["event_platform"]["subscriptions"][0]["status"], "active", "{report}");
    report
}

/// The short form shares its machine with other tests; there the PIM itself may have to wait for the processor.
fn judge_acks(report: &Value) {
    let (counts, acks) = (&report["deliveries"]["events_api"]["counts"], &report["deliveries"]["events_api"]["acks"]);
    let n = |class: &str| counts[class].as_u64().unwrap_or(0);
    let (taken, lost) = (n("2xx"), n("5xx") + n("unanswered"));
    assert!(taken > 0 && counts["4xx"].is_null(), "{counts}");
    if is_long() {
        assert!(acks["max_ms"].as_u64() < Some(ACK_MAX_MS) && lost == 0, "{acks}, {counts}");
    } else {
        assert!(lost * 4 <= taken, "one in four may be answered too late here: {counts}");
    }
}

/// Waits until no gap is open and everything is as upstream.
async fn repaired(universe: &Universe) {
    let open = "select count(*) as n from instep_gaps where source = 'pim' and state = 'open'";
    eventually("every gap is repaired", SOON, async || match universe.database.try_number(open).await? {
        0 => Ok(()),
        n => Err(format!("{n} are open")),
    })
    .await;
    pim::in_step(universe, &RESOURCES, SOON).await;
}

async fn a_suspension_that_is_announced_is_a_gap_and_is_repaired(database: Database) {
    let universe = telling(database, false).await;
    let gaps = async |what: &str| {
        let sql = format!("select count(*) as n from instep_gaps where cause = 'suspended' and {what}");
        universe.database.try_number(&sql).await
    };
    let becomes = async |what: &'static str| {
        let there = async || match gaps(what).await? {
            1 => Ok(()),
            n => Err(format!("{n} gaps")),
        };
        eventually(&format!("there is a gap with {what}"), SOON, there).await;
    };
    universe.sandbox.control("subscription", json!({ "event_platform": { "suspend_by_system": true } })).await;
    becomes("ended_at is null and state = 'open'").await;
    people_change(&universe, 40, 1_000).await;
    pim::quiet(&universe, SOON).await;
    let lost = universe.sandbox.report().await["deliveries"]["event_platform"]["counts"]["lost_while_not_active"].clone();
    assert!(lost.as_u64() > Some(20), "what happens meanwhile is not told: {lost}");
    assert_eq!(gaps("state = 'open'").await, Ok(1), "it is open as long as nothing comes");
    universe.sandbox.control("subscription", json!({ "event_platform": { "resume": true } })).await;
    becomes("ended_at is not null").await;
    repaired(&universe).await;
    println!("pim_subscription {:?}: suspended and resumed: one gap, {lost} events lost, in step after it", universe.database.engine);
}
