//! The limiter keeps to the upstream's limits and uses its share of them, whatever is killed: the vendor's real limits, a second
//! client on the same token and one on the same organisation, late answers, requests that wait at the upstream and are counted
//! after their sender's death, timeouts; and every few seconds the daemon is killed, or the limiter alone panics.
//!
//! *Our share* is `quota_share` times the token's limit, *used* is what the upstream counted of ours. What requests without a
//! verdict bind is part of the share and counts as not used (`src/quota/blocks.rs` says what can be had).
//!
//! The short form takes 15 s. The long one, five minutes, is
//! `INSTEP_LONG=1 cargo test --release --features failpoints --test it failpoints::limiter -- --nocapture --test-threads=1`.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use super::{Points, with_points};
use crate::support::universe::{READ_TOKEN, about_task, client, deliver};
use crate::support::{Database, Setup, Universe, eventually, is_long, monotonic, on_both, until};

on_both!(kills_cause_no_refusal_and_leave_the_share_used, what_the_limiter_knows_outlives_it);

/// The bottleneck is the token's limit: 100 in 10 s, of which nine tenths are ours.
const QUOTA: &str = "quota_share = { token = 0.9, organization = 0.9 }";
const SHARE_PER_SECOND: f64 = 9.0;

/// A tenth of the token's limit, and a little less, is the second client's: he sends this often.
const OTHERS_EVERY: Duration = Duration::from_millis(1_200);

/// Tasks are read one by one, four at a time, and asked for more often than the limit allows; passes go on beside them.
const RESOURCES: [(&str, &str); 3] = [("tasks", ""), ("projects", "poll = \"1s\""), ("deals", "poll = \"1s\"")];
const ASKED_EVERY: Duration = Duration::from_millis(60);

const FAULTS: [&str; 12] = [
    "--no-id-filter",
    "tasks",
    "--second-client-rps",
    "0.5",
    "--queued",
    "0.02",
    "--queue-max-ms",
    "1000",
    "--timeouts",
    "0.002",
    "--timeout-hang-ms",
    "30000",
];

const LIMITER: &str = "actor:root/sources/source:pmp/limiter::step";

/// What was done to us, and what we did meanwhile.
#[derive(Default)]
struct Deeds {
    daemons: u32,
    limiters: u32,
    /// Requests of ours that the upstream counted.
    ours: u64,
}

async fn kills_cause_no_refusal_and_leave_the_share_used(database: Database) {
    let (warm_up, span) = if is_long() { (12, 300) } else { (4, 12) };
    let setup = Setup {
        entities: 3_000,
        resources: RESOURCES.to_vec(),
        source: "feeds = false",
        tables: "[limits]\nupstream_timeout = \"3s\"",
        sandbox: FAULTS.map(str::to_owned).to_vec(),
        limits: &[],
        quota: QUOTA,
        ..Setup::default()
    };
    let mut universe = Universe::new(database, &setup);
    let points = launch(&mut universe);
    universe.ready().await;
    let begin = monotonic() + Duration::from_secs(warm_up);
    let end = begin + Duration::from_secs(span);
    let others = AtomicU64::new(0);
    let (url, database) = (universe.sandbox.url.clone(), universe.database.clone());
    let keys = universe.sandbox.keys("tasks").await;
    let (asking, other) = (ask(universe.hooks_port, &keys, end), second_client(&url, end, &others));
    let (sampling, trouble) = (under_way(&database, begin, end), trouble(&mut universe, points, &others, begin..end));
    let ((), refused_others, n_under_way, deeds) = tokio::join!(asking, other, sampling, trouble);
    let report = universe.sandbox.report().await;
    let said = universe.daemon().said();
    let restarts = said.matches("\"actor restarted\",\"actor\":\"root/sources/source:pmp/limiter\"").count();
    let (n_lost, n_queued) = (&report["faults"]["timeouts"]["count"], &report["faults"]["queued"]["count"]);
    // Every permit under way binds until its end is written, and what a kill or a timeout met binds for the queue's time on top.
    let in_doubt = n_under_way * f64::from(deeds.daemons) + n_lost.as_f64().unwrap_or(0.0);
    let to_be_had = 1.0 - (n_under_way + in_doubt * 60.0 / span as f64) / (SHARE_PER_SECOND * 10.0);
    let used = deeds.ours as f64 / (SHARE_PER_SECOND * span as f64);
    println!(
        "limiter {:?}: {} daemons and {} limiters killed in {span} s, {} requests of ours, {:.1} % of our share where {:.1} % could be \
         had with {n_under_way:.2} under way, {} refusals; {n_queued} waited, {n_lost} timed out, {} of the second client, {} of the third",
        universe.database.engine,
        deeds.daemons,
        deeds.limiters,
        deeds.ours,
        used * 100.0,
        to_be_had * 100.0,
        report["refusals_total"],
        others.load(Ordering::Relaxed),
        report["second_client"]["requests"],
    );
    assert_eq!(report["refusals"], json!([]), "who keeps to the limit is not refused, and nobody is because of us");
    assert_eq!(refused_others, 0, "the second client had what quota_share leaves him");
    assert_eq!(report["second_client"]["refused"], 0, "so had the organisation's other clients");
    assert!(deeds.daemons >= 1 && restarts >= 1, "{} daemons and {restarts} limiters were killed", deeds.daemons);
    // A short span is mostly begin and end.
    let enough = if is_long() { 0.9 } else { 0.4 };
    assert!(used >= enough, "{:.1} % of our share are too little", used * 100.0);
}

/// Kills the daemon and the limiter in turn; counts from the begin of the span.
async fn trouble(universe: &mut Universe, mut points: Points, others: &AtomicU64, span: Range<Duration>) -> Deeds {
    let mut deeds = Deeds::default();
    let mut before = None;
    loop {
        let next = monotonic() + Duration::from_millis(rand::random_range(2_500..5_500));
        if before.is_none() && next >= span.start {
            until(span.start).await;
            before = Some(counted(universe, others).await);
            deeds = Deeds::default();
        }
        until(next.min(span.end)).await;
        if next >= span.end {
            deeds.ours = counted(universe, others).await - before.expect("a span is longer than a life");
            return deeds;
        }
        if deeds.limiters >= deeds.daemons {
            universe.kill();
            points = launch(universe);
            deeds.daemons += 1;
        } else {
            points.set(LIMITER, "1*panic");
            deeds.limiters += 1;
        }
    }
}

/// Asks for a look at one task after the other; what is refused by a dead daemon is asked for no more.
async fn ask(port: u16, keys: &[String], end: Duration) {
    let client = client();
    let mut next = monotonic();
    for number in 0.. {
        until(next).await;
        if next >= end {
            return;
        }
        let body = about_task(&keys[number % keys.len()], &format!("hint {number}"));
        // A refusal by a dead daemon is no loss: there are more hints than the limit allows requests.
        let _ = deliver(&client, port, "task-updated", &body).await;
        next = (next + ASKED_EVERY).max(monotonic());
    }
}

/// How many requests were under way on average, by the rows: from their booking until their end was written.
async fn under_way(database: &Database, begin: Duration, end: Duration) -> f64 {
    let sql = "select coalesce(sum(amount), 0) as n from instep_permit_block \
               where finished_at is null and limit_id like '%/requests/10s'";
    until(begin).await;
    let (mut sum, mut samples, mut next) = (0, 0, monotonic());
    while next < end {
        until(next).await;
        // A file whose writer was just killed may not be readable for a moment.
        if let Ok(n) = database.try_number(sql).await {
            sum += n;
            samples += 1;
        }
        next = monotonic() + Duration::from_millis(100);
    }
    sum as f64 / f64::from(samples)
}

/// The limiter alone dies: no permit is forgotten and none is held that had come back. After an ordered stop nothing is in doubt.
async fn what_the_limiter_knows_outlives_it(database: Database) {
    let quota = "quota = [{ requests = 100, per = \"10m\" }, { concurrent = 8 }]";
    let mut universe = Universe::new(database, &Setup { entities: 100, quota, ..Setup::default() });
    let mut points = launch(&mut universe);
    universe.ready().await;
    universe.backfilled().await;
    let keys = universe.sandbox.keys("tasks").await;
    let mut before = settled(&universe).await;
    // Read from the rows alone a block of four would count in full, so one is left that is not used up.
    while before % 4 != 1 {
        universe.deliver_surely("task-updated", &about_task(&keys[0], &format!("after {before}"))).await;
        let more = before + 1;
        before = eventually("one more request", Duration::from_secs(60), async || match settled(&universe).await {
            spent if spent >= more => Ok(spent),
            spent => Err(format!("{spent} spent")),
        })
        .await;
    }
    points.set(LIMITER, "1*panic");
    eventually("the limiter starts again", Duration::from_secs(30), async || {
        let restarts = universe.status().await?["actors"]["root/sources/source:pmp/limiter"]["restarts"].as_u64();
        if restarts == Some(1) { Ok(()) } else { Err(format!("{restarts:?} restarts")) }
    })
    .await;
    assert_eq!(settled(&universe).await, before, "the next incarnation goes on with the same books");
    assert_eq!(universe.stop().await, Some(0));
    let unfinished = universe.database.number("select count(*) as n from instep_permit_block where finished_at is null").await;
    let counted = universe.database.number("select sum(amount) as n from instep_permit_block").await;
    assert_eq!((unfinished, counted), (0, before), "an ordered stop leaves nothing in doubt");
}

/// What is spent once nothing is under way.
async fn settled(universe: &Universe) -> i64 {
    eventually("nothing is under way", Duration::from_secs(60), async || {
        universe.idle(Duration::from_secs(60)).await;
        let status = universe.status().await?;
        let limiter = &status["sources"]["pmp"]["limiter"];
        match (limiter["in_flight"].as_u64(), limiter["limits"][0]["spent"].as_i64()) {
            (Some(0), Some(spent)) => Ok(spent),
            _ => Err(limiter.to_string()),
        }
    })
    .await
}

fn launch(universe: &mut Universe) -> Points {
    universe.launch(&mut with_points(universe.command(), ""));
    Points::of(universe.daemon())
}

/// Spends what our share leaves of the token's limit; answers how often that was refused.
async fn second_client(url: &str, end: Duration, sent: &AtomicU64) -> u64 {
    let client = client();
    let (mut refused, mut next) = (0, monotonic());
    while next < end {
        until(next).await;
        let request = client.get(format!("{url}workflows")).header("x-auth-token", READ_TOKEN).header("x-organization-id", "435");
        sent.fetch_add(1, Ordering::Relaxed);
        // Some of his time out as well.
        if let Ok(answer) = request.timeout(Duration::from_secs(2)).send().await {
            refused += u64::from(answer.status().as_u16() == 429);
        }
        next = (next + OTHERS_EVERY).max(monotonic());
    }
    refused
}

/// Requests under the token that were not the second client's.
async fn counted(universe: &Universe, others: &AtomicU64) -> u64 {
    let all = universe.sandbox.report().await["tokens"][READ_TOKEN].as_u64().unwrap_or(0);
    all.saturating_sub(others.load(Ordering::Relaxed))
}
