//! What upstreams do on bad days, all of it at once: every fault has a source of its own behind a proxy that injects it, in one
//! daemon with a healthy source.
//!
//! Meanwhile hints keep coming for every source, so that there is always something to ask. Shown: the process and its actors live
//! on; what an ailing upstream is asked follows the schedule of its breaker, or what it said itself (within a tenth, or one request
//! where there are few); nothing is removed and nothing quarantined; the healthy source's way from hook to row is as it was before
//! (p99 at most 1.2 times or 50 ms above its baseline; the short form takes too few samples for a p99 and judges the p90); once the
//! faults end every source gets in step. The long form has ten minutes of faults (or `INSTEP_FAULTS_SECONDS`) and the breakers' defaults:
//! `INSTEP_LONG=1 cargo test --release --features failpoints --test it upstream_faults -- --nocapture`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::hostile::{Fault, Hostile};
use crate::support::latency::{latencies, percentile};
use crate::support::universe::{Other, about_task, client, deliver_to};
use crate::support::{Database, Sandbox, Setup, Universe, eventually, is_long, monotonic, on_both, until};

on_both!(every_fault_at_once_leaves_the_others_alone, a_pause_outlives_the_process, a_broken_tls_is_left_alone);

/// How often an upstream with a fault should be asked.
#[derive(Clone, Copy, Debug)]
enum Ideal {
    /// Until the breaker opens, then by probes; each try lasts so long.
    Breaker(Duration),
    /// Once every so often, between these.
    Every(Duration, Duration),
    /// At pauses that double from a second to the longest window.
    Growing,
    /// Nothing fails that would be tried again.
    Free,
}

struct Case {
    name: &'static str,
    fault: Fault,
    ideal: Ideal,
}

const SECOND: Duration = Duration::from_secs(1);
/// The longest window of the quota of those who say 429: no pause is longer.
const WINDOW: Duration = Duration::from_secs(4);
const TIMEOUT: Duration = Duration::from_secs(2);
const SHORT_BREAKER: &str = "passes = false\nfeeds = false\nbreaker = { failures = 3, open_for = \"1s\", open_max = \"4s\" }";
const LONG_BREAKER: &str = "passes = false\nfeeds = false";
const LOGIN: &str = "<!doctype html><html><head><title>Sign in</title></head><body><form action=\"/login\"></form></body></html>";

fn said(name: &'static str, status: u16, wait: Option<&str>, ideal: Ideal) -> Case {
    Case { name, fault: Fault::Status(status, wait.map(ToOwned::to_owned)), ideal }
}

fn body(name: &'static str, kind: &'static str, text: &'static str) -> Case {
    Case { name, fault: Fault::Body(kind, text), ideal: Ideal::Breaker(Duration::ZERO) }
}

fn cases() -> Vec<Case> {
    let every = |seconds: f64| Ideal::Every(Duration::from_secs_f64(seconds), Duration::from_secs_f64(seconds));
    let at_once = Ideal::Breaker(Duration::ZERO);
    let case = |name, fault, ideal| Case { name, fault, ideal };
    vec![
        said("s429_seconds", 429, Some("2"), every(2.0)),
        said("s429_float", 429, Some("1.5"), every(1.5)),
        // A date is cut to the second.
        case("s429_date", Fault::RefusedUntil(3), Ideal::Every(SECOND * 2, SECOND * 3)),
        said("s429_negative", 429, Some("-7"), Ideal::Growing),
        said("s429_absurd", 429, Some("99999999"), every(WINDOW.as_secs_f64())),
        said("s429_without", 429, None, every(WINDOW.as_secs_f64())),
        said("s500", 500, None, at_once),
        said("s501", 501, None, at_once),
        said("s502", 502, None, at_once),
        said("s503", 503, Some("1"), at_once),
        said("s504", 504, None, at_once),
        case("gone", Fault::Gone, at_once),
        case("hang", Fault::Hang, Ideal::Breaker(TIMEOUT)),
        case("drip", Fault::Drip, Ideal::Breaker(TIMEOUT)),
        case("cut", Fault::Cut, at_once),
        case("wrong_length", Fault::WrongLength, at_once),
        body("html", "text/html", LOGIN),
        body("garbage", "application/json", "\u{1}\u{2}]}{ nothing \u{fffd}"),
        body("shape", "application/json", "{\"data\":{\"unexpected\":[1,2]}}"),
        body("strangers", "application/json", "{\"data\":[{\"unexpected\":1},2,null]}"),
        body("empty", "application/json", ""),
        case("circle", Fault::Circle, Ideal::Free),
        case("shift", Fault::Shift, Ideal::Free),
        case("cursor", Fault::CursorExpired, Ideal::Free),
    ]
}

fn span() -> Duration {
    let asked = std::env::var("INSTEP_FAULTS_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    if is_long() { SECOND * asked.unwrap_or(600) } else { SECOND * 11 }
}

/// One source with its fault.
struct Patient {
    case: Case,
    proxy: Hostile,
    rows: i64,
    failures: u64,
}

async fn every_fault_at_once_leaves_the_others_alone(database: Database) {
    let upstream = Sandbox::start(database.folder(), &Setup { entities: 150, ..Setup::default() }, client());
    let mut patients = Vec::new();
    for case in cases() {
        patients.push(Patient { case, proxy: Hostile::before(&upstream.url).await, rows: 0, failures: 0 });
    }
    let others = patients.iter().enumerate().map(|(number, patient)| other(number, patient)).collect();
    let tables = "[limits]\nupstream_timeout = \"2s\"\n";
    let mut universe = Universe::started(database, &Setup { entities: 150, others, tables, ..Setup::default() }).await;
    let pid = universe.daemon().pid();
    for patient in &mut patients {
        patient.rows = live(&universe, patient.case.name).await;
    }
    let hints = Hints::start(&universe, &patients, upstream.keys("tasks").await);
    let mut next = 0;
    let _ = latencies(&universe, SECOND * 2, "first", &mut next).await;
    let baseline = latencies(&universe, span().min(SECOND * 60) / 2, "before", &mut next).await;
    for patient in &mut patients {
        patient.failures = failures(&universe, patient.case.name).await;
        patient.proxy.begin(&patient.case.fault);
    }
    let begun = monotonic();
    let meanwhile = latencies(&universe, span(), "meanwhile", &mut next).await;
    let mut said = Vec::new();
    for patient in &patients {
        let failed = failures(&universe, patient.case.name).await - patient.failures;
        let ended = monotonic();
        said.push(judge(patient, &patient.proxy.end().await, failed, begun, ended));
        let deletes = format!("select count(*) as n from instep_changes where operation = 'delete' and source = '{}'", patient.case.name);
        assert_eq!(universe.database.number(&deletes).await, 0, "{}: something was removed", patient.case.name);
        assert_eq!(live(&universe, patient.case.name).await, patient.rows, "{}: rows", patient.case.name);
    }
    hints.end().await;
    let quarantined = universe.database.number("select count(*) as n from instep_quarantine").await;
    assert_eq!(quarantined, 0, "what is wholly unreadable is no record");
    in_step(&universe, &upstream, &patients).await;
    assert_eq!(universe.daemon().pid(), pid);
    unharmed(&universe).await;
    let share = if is_long() { 0.99 } else { 0.9 };
    let (before, after) = (percentile(&baseline, share), percentile(&meanwhile, share));
    println!(
        "upstream_faults {:?}: {} faults for {:?}, healthy hook to row p{} {:.0} ms before ({} samples), {:.0} ms meanwhile ({}); asked/ideal: {}",
        universe.database.engine,
        patients.len(),
        span(),
        share * 100.0,
        before * 1e3,
        baseline.len(),
        after * 1e3,
        meanwhile.len(),
        said.join(", ")
    );
    let wrong: Vec<&String> = said.iter().filter(|said| said.contains('!')).collect();
    assert!(wrong.is_empty(), "not by schedule: {wrong:?}");
    // Beside other tests the machine's own noise is larger.
    let (times, slack) = if is_long() { (1.2, 0.05) } else { (1.4, 0.1) };
    assert!(after <= (before * times).max(before + slack), "the healthy source waits: {before} s before, {after} s meanwhile");
}

fn other(number: usize, patient: &Patient) -> Other {
    let is_429 = patient.case.name.starts_with("s429");
    let is_pass = matches!(patient.case.ideal, Ideal::Free);
    Other {
        name: patient.case.name.to_owned(),
        organization: 1_000 + number as u64,
        url: patient.proxy.url.clone(),
        quota: if is_429 {
            "quota = [{ requests = 100000, per = \"4s\" }, { concurrent = 8 }]"
        } else {
            "quota = [{ requests = 2000, per = \"1s\" }, { concurrent = 8 }]"
        },
        source: match (is_pass, is_long()) {
            (true, _) => "feeds = false",
            (false, true) => LONG_BREAKER,
            (false, false) => SHORT_BREAKER,
        },
        tasks: if is_pass { "sweep = \"2s\", poll = \"1s\"" } else { "" },
    }
}

async fn live(universe: &Universe, source: &str) -> i64 {
    universe.database.number(&format!("select count(*) as n from {source}_tasks")).await
}

/// Requests of a source that got no answer, as the daemon counts them.
async fn failures(universe: &Universe, source: &str) -> u64 {
    universe.counted("fetch_failures", &format!("source=\"{source}\"")).await
}

/// Hints about all tasks of all patients, one a second each.
struct Hints {
    stop: CancellationToken,
    senders: JoinSet<()>,
}

impl Hints {
    fn start(universe: &Universe, patients: &[Patient], keys: Vec<String>) -> Self {
        let (stop, mut senders) = (CancellationToken::new(), JoinSet::new());
        for (place, patient) in patients.iter().enumerate() {
            let (name, keys, stop, port) = (patient.case.name, keys.clone(), stop.clone(), universe.hooks_port);
            // Not all at the same moment.
            let mut pace = tokio::time::interval(SECOND);
            pace.reset_after(SECOND * u32::try_from(place).expect("a few") / 24);
            senders.spawn(async move {
                let client = client();
                for number in 0.. {
                    pace.tick().await;
                    if stop.is_cancelled() {
                        return;
                    }
                    let hint = about_task(&keys[number % keys.len()], &format!("hint {number}"));
                    // Whatever becomes of it: another follows.
                    let _ = deliver_to(&client, port, name, "task-updated", &hint).await;
                }
            });
        }
        Self { stop, senders }
    }

    async fn end(mut self) {
        self.stop.cancel();
        while self.senders.join_next().await.is_some() {}
    }
}

/// Asked so often, against the ideal; with an exclamation mark where that is not within a tenth or one request.
fn judge(patient: &Patient, asked: &[(Duration, String)], failed: u64, begun: Duration, ended: Duration) -> String {
    let times: Vec<Duration> = asked.iter().map(|(at, _)| *at).collect();
    // Whom nobody listens to cannot count.
    let n = if matches!(patient.case.fault, Fault::Gone) { failed as f64 } else { times.len() as f64 };
    let first = times.first().copied().unwrap_or(begun + SECOND / 2);
    let (least, most) = match patient.case.ideal {
        Ideal::Breaker(lasts) => {
            let ideal = breaker_ideal(&times, lasts, begun, ended);
            (ideal, ideal)
        }
        Ideal::Every(shortest, longest) => (every_ideal(first, ended, longest), every_ideal(first, ended, shortest)),
        Ideal::Growing => {
            let ideal = growing_ideal(first, ended, SECOND, WINDOW);
            (ideal, ideal)
        }
        Ideal::Free => return format!("{} {n}", patient.case.name),
    };
    let is_kept = n >= (least * 0.9).min(least - 1.0) && n <= (most * 1.1).max(most + 1.0);
    let early = earliest(patient, &times).map_or_else(String::new, |early| format!(" early by {early:?}!"));
    let told = if least == most { format!("{least}") } else { format!("{least} to {most}") };
    format!("{} {n}/{told}{}{early}", patient.case.name, if is_kept { "" } else { "!" })
}

/// By how much a request came before its time, if one did.
fn earliest(patient: &Patient, times: &[Duration]) -> Option<Duration> {
    let Ideal::Every(shortest, _) = patient.case.ideal else { return None };
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.filter_map(|gap| shortest.checked_sub(gap + SECOND / 50)).filter(|early| !early.is_zero()).max()
}

fn breaker_ideal(times: &[Duration], lasts: Duration, begun: Duration, ended: Duration) -> f64 {
    let (failures, mut open_for, open_max) = if is_long() { (5, SECOND * 10, SECOND * 300) } else { (3, SECOND, SECOND * 4) };
    let Some(opened) = times.get(failures - 1).copied().or((times.is_empty()).then_some(begun + SECOND)) else { return failures as f64 };
    let (mut at, mut n) = (opened + lasts + open_for, failures as f64);
    while at < ended {
        n += 1.0;
        open_for = (open_for * 2).min(open_max);
        at += lasts + open_for;
    }
    n
}

fn every_ideal(first: Duration, ended: Duration, gap: Duration) -> f64 {
    1.0 + (ended.saturating_sub(first).as_secs_f64() / gap.as_secs_f64()).floor()
}

fn growing_ideal(first: Duration, ended: Duration, from: Duration, to: Duration) -> f64 {
    let (mut at, mut gap, mut n) = (first, from, 0.0);
    while at < ended {
        n += 1.0;
        at += gap;
        gap = (gap * 2).min(to);
    }
    n
}

async fn in_step(universe: &Universe, upstream: &Sandbox, patients: &[Patient]) {
    let truth: BTreeMap<String, Value> = upstream.truth("tasks").await;
    let deadline = if is_long() { SECOND * 700 } else { SECOND * 40 };
    for patient in patients {
        let name = patient.case.name;
        eventually(&format!("{name} is in step and nothing waits"), deadline, async || {
            let differences = universe.differences_of(name, "tasks", &truth).await?;
            let marks = universe.database.try_number(&format!("select count(*) as n from instep_mark where source = '{name}'")).await?;
            if differences.is_empty() && marks == 0 { Ok(()) } else { Err(format!("{} differences, {marks} marks", differences.len())) }
        })
        .await;
    }
}

/// No actor was restarted, parked or killed.
async fn unharmed(universe: &Universe) {
    let status = universe.status().await.expect("a status");
    let actors = status["actors"].to_string();
    assert!(actors.contains("\"restarts\":0"), "{actors}");
    let restarted: Vec<&str> = actors.split("\"restarts\":").skip(1).filter(|rest| !rest.starts_with('0')).collect();
    assert!(restarted.is_empty(), "{restarted:?}");
}

async fn one(database: Database, source: &'static str) -> (Universe, Sandbox, Hostile) {
    let upstream = Sandbox::start(database.folder(), &Setup { entities: 100, ..Setup::default() }, client());
    let proxy = Hostile::before(&upstream.url).await;
    let quota = "quota = [{ requests = 2000, per = \"60s\" }, { concurrent = 8 }]";
    let other = Other { name: "other".to_owned(), organization: 1_000, url: proxy.url.clone(), quota, source, tasks: "" };
    let setup = Setup { entities: 100, others: vec![other], ..Setup::default() };
    (Universe::started(database, &setup).await, upstream, proxy)
}

async fn a_pause_outlives_the_process(database: Database) {
    let (mut universe, upstream, proxy) = one(database, SHORT_BREAKER).await;
    let keys = upstream.keys("tasks").await;
    let pause = SECOND * 8;
    proxy.begin(&Fault::Status(429, Some("8".to_owned())));
    assert_eq!(universe.deliver_to("other", "task-updated", &about_task(&keys[0], "before")).await, Ok(200));
    let refused =
        eventually("it is refused", SECOND * 10, async || proxy.asked().first().map(|asked| asked.0).ok_or_else(String::new)).await;
    eventually("the pause is written down", SECOND * 5, async || {
        let kept = universe.database.try_number("select count(*) as n from instep_permit_block where limit_id = 'pause'").await?;
        if kept == 1 { Ok(()) } else { Err(String::new()) }
    })
    .await;
    universe.kill();
    universe.run().await;
    let ready = monotonic() - refused;
    assert!(ready < pause, "the restart took longer than the pause");
    assert_eq!(universe.deliver_to("other", "task-updated", &about_task(&keys[1], "after")).await, Ok(200));
    let again =
        eventually("it is asked again", SECOND * 20, async || proxy.asked().get(1).map(|asked| asked.0).ok_or_else(String::new)).await;
    println!(
        "upstream_faults {:?}: told to wait {pause:?}, killed, ready again after {ready:.1?}, asked again after {:.2?}",
        universe.database.engine,
        again - refused
    );
    assert!(again - refused >= pause - SECOND / 10, "asked again after {:?}", again - refused);
    assert!(again - refused < pause + SECOND * 5);
}

async fn a_broken_tls_is_left_alone(database: Database) {
    let (mut universe, upstream, proxy) = one(database, SHORT_BREAKER).await;
    let (keys, rows) = (upstream.keys("tasks").await, live(&universe, "other").await);
    assert_eq!(universe.stop().await, Some(0));
    let right = std::fs::read_to_string(universe.config()).expect("our own file");
    let wrong = right.replace(&proxy.url, &proxy.url.replace("http:", "https:"));
    std::fs::write(universe.config(), wrong).expect("our own file");
    universe.run().await;
    let (begun, span) = (monotonic(), SECOND * 8);
    for number in 0..20 {
        until(begun + span * number / 20).await;
        let hint = about_task(&keys[number as usize % keys.len()], &format!("hint {number}"));
        assert_eq!(universe.deliver_to("other", "task-updated", &hint).await, Ok(200));
    }
    until(begun + span).await;
    let n = failures(&universe, "other").await as f64;
    // Three in the first second, as the hints come, then by probes.
    let ideal = breaker_ideal(&[], Duration::ZERO, begun, begun + span);
    println!("upstream_faults {:?}: no TLS for {span:?}, tried {n} times, ideal {ideal}", universe.database.engine);
    assert!((n - ideal).abs() <= 1.0, "tried {n} times, ideal {ideal}");
    assert_eq!(live(&universe, "other").await, rows);
    unharmed(&universe).await;
    assert_eq!(universe.stop().await, Some(0));
    std::fs::write(universe.config(), right).expect("our own file");
    universe.run().await;
    universe.idle(SECOND * 60).await;
    assert_eq!(universe.differences_of("other", "tasks", &upstream.truth("tasks").await).await, Ok(Vec::new()));
}
