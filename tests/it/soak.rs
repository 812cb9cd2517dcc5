//! Nothing grows: a mixed workload with a fault a minute, and what the process, the database and its WAL take meanwhile.
//!
//! The short form runs every fault once, a few seconds each, and judges only what must hold in any span: the same process, no
//! descriptor and no thread that stays behind, everything in step at the end. The long one judges the slopes too:
//! `INSTEP_LONG=1 INSTEP_SOAK_MINUTES=30 cargo test --release --features failpoints --test it soak -- --nocapture` (both stores side by side;
//! without the variable an hour).

use std::time::Duration;

use futures_util::future::join3;
use serde_json::{Value, json};

use crate::support::universe::{about_task, client, deliver};
use crate::support::{Database, Setup, Universe, is_long, monotonic, on_both, until};

on_both!(nothing_grows);

const RESOURCES: [(&str, &str); 6] = [
    ("companies", "poll = \"5s\""),
    ("projects", "poll = \"5s\""),
    ("boards", "sweep = \"20s\""),
    ("task_lists", "sweep = \"20s\""),
    ("tasks", "poll = \"5s\", sweep = \"30s\""),
    ("people", "poll = \"5s\""),
];
/// So short that rows go as fast as they come long before the measuring ends.
const RETENTION: &str = "[retention]\ndeliveries = \"2m\"\noutcomes = \"2m\"\ndeliveries_rows = 1000\nchanges_rows = 1000\noutcomes_rows = 1000\nquarantine_rows = 1000\n";
/// Deliveries a second beside those of the upstream: fewer than a run of the retention takes away.
const DELIVERIES_PER_SECOND: f64 = 6.0;
const CHANGES_PER_SECOND: f64 = 4.0;

/// How long, and what is judged.
struct Form {
    span: Duration,
    fault_every: Duration,
    sample_every: Duration,
    /// Samples before this are a start, not a trend.
    warm_up: Duration,
}

fn form() -> Form {
    if !is_long() {
        let second = Duration::from_secs(1);
        return Form { span: second * 22, fault_every: second * 2, sample_every: second / 2, warm_up: second * 8 };
    }
    let minutes = std::env::var("INSTEP_SOAK_MINUTES").map_or(60, |text| text.parse().expect("INSTEP_SOAK_MINUTES is a number"));
    let span = Duration::from_secs(60 * minutes);
    Form { span, fault_every: Duration::from_secs(60), sample_every: Duration::from_secs(5), warm_up: span / 3 }
}

/// What a process and its store take at a moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    rss_kib: f64,
    descriptors: f64,
    threads: f64,
    database_kib: f64,
    wal_kib: f64,
}

async fn nothing_grows(database: Database) {
    let form = form();
    let setup = Setup {
        entities: 3_000,
        resources: RESOURCES.to_vec(),
        source: "",
        store: "",
        tables: RETENTION,
        sandbox: ["--retries", "1000", "--retries-over-ms", "1000000"].map(str::to_owned).to_vec(),
        ..Setup::default()
    };
    let mut universe = Universe::started(database, &setup).await;
    let created = universe.verb(&["hooks", "create", "pmp"]);
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let (pid, began) = (universe.daemon().pid(), monotonic());
    let changes = (form.span.as_secs_f64() * CHANGES_PER_SECOND) as u64;
    universe.sandbox.control("churn", json!({ "changes": changes, "per_second": CHANGES_PER_SECOND, "seed": 11 })).await;
    let keys = universe.sandbox.keys("tasks").await;
    let sending = send(universe.hooks_port, keys, began + form.span);
    let watching = watch(&universe, pid, began, &form);
    let (sent, samples, faults) = join3(sending, watching, trouble(&universe, pid, began, &form)).await;
    assert_eq!(universe.daemon().pid(), pid);
    assert!(universe.daemon().ended().is_none(), "it is the same process");
    universe.sandbox.quiet(Duration::from_secs(60)).await;
    universe.in_step(Duration::from_secs(120)).await;
    judge(&universe, &samples, &form);
    println!("soak {:?}: {sent} deliveries, {changes} changes, {} faults: {}", universe.database.engine, faults.len(), faults.join(", "));
}

async fn send(port: u16, keys: Vec<String>, end: Duration) -> u64 {
    let client = client();
    let (mut sent, mut next) = (0, monotonic());
    while monotonic() < end {
        let body = about_task(&keys[sent as usize % keys.len()], &format!("soak {sent}"));
        // Refused while a fault holds; what was acknowledged is another test's promise.
        let _ = deliver(&client, port, "task-updated", &body).await;
        sent += 1;
        next = (next + Duration::from_secs_f64(1.0 / DELIVERIES_PER_SECOND)).max(monotonic());
        until(next).await;
    }
    sent
}

async fn watch(universe: &Universe, pid: u32, began: Duration, form: &Form) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut next = monotonic();
    while monotonic() < began + form.span {
        if let Ok(sample) = sample(universe, pid, began).await {
            samples.push(sample);
        }
        // What a monitoring system asks all the time.
        let _ = universe.status().await;
        next += form.sample_every;
        until(next).await;
    }
    samples
}

async fn sample(universe: &Universe, pid: u32, began: Duration) -> Result<Sample, String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).ok_or_else(|| format!("no {name}"))
    };
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).map_err(|error| error.to_string())?.count();
    let (database, wal) = universe.database.bytes().await?;
    let kib = |bytes: u64| bytes as f64 / 1024.0;
    Ok(Sample {
        at: monotonic() - began,
        rss_kib: line("VmRSS")?,
        descriptors: descriptors as f64,
        threads: line("Threads")?,
        database_kib: kib(database),
        wal_kib: kib(wal),
    })
}

/// One fault after the other, each for a quarter of the time to the next.
async fn trouble(universe: &Universe, pid: u32, began: Duration, form: &Form) -> Vec<&'static str> {
    let mut met = Vec::new();
    let mut at = began + form.fault_every;
    while at + form.fault_every <= began + form.span {
        until(at).await;
        let fault = FAULTS[met.len() % FAULTS.len()];
        universe.database.vacuum().await;
        cause(universe, pid, fault, form.fault_every / 4).await;
        met.push(fault);
        at += form.fault_every;
    }
    met
}

const FAULTS: [&str; 9] = [
    "upstream errors",
    "an idle reader",
    "hooks lost and doubled",
    "torn answers",
    "poison",
    "a frozen upstream",
    "connections cut",
    "a frozen daemon",
    "half requests",
];

async fn cause(universe: &Universe, pid: u32, fault: &str, span: Duration) {
    let upstream = async |during: Value, after: Value| {
        universe.sandbox.control("faults", during).await;
        until(monotonic() + span).await;
        universe.sandbox.control("faults", after).await;
    };
    let freeze = async |pid: u32| {
        signal(pid, "STOP");
        until(monotonic() + span.min(Duration::from_secs(10))).await;
        signal(pid, "CONT");
    };
    match fault {
        "upstream errors" => upstream(json!({ "upstream_5xx": 0.5 }), json!({ "upstream_5xx": 0.0 })).await,
        "hooks lost and doubled" => {
            let none = json!({ "hooks_lost": 0.0, "hooks_duplicated": 0.0 });
            upstream(json!({ "hooks_lost": 0.3, "hooks_duplicated": 0.5 }), none).await;
        }
        "torn answers" => upstream(json!({ "truncated": 0.5 }), json!({ "truncated": 0.0 })).await,
        "an idle reader" => universe.database.read_without_end(span).await,
        "connections cut" => universe.database.cut_connections().await,
        "a frozen upstream" => freeze(universe.sandbox.pid()).await,
        "a frozen daemon" => freeze(pid).await,
        "poison" => {
            for n in 0..20 {
                let body = format!("{{\"event\":\"update_task\",\"number\":{n},\"item_id\":1e400}}");
                let _ = universe.deliver("task-updated", &body).await;
            }
        }
        "half requests" => {
            use tokio::io::AsyncWriteExt as _;
            let mut open = Vec::new();
            for _ in 0..50 {
                if let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", universe.hooks_port)).await {
                    let _ = stream.write_all(b"POST /hooks/pmp/task-updated HTTP/1.1\r\nHost: a\r\n").await;
                    open.push(stream);
                }
            }
            until(monotonic() + span).await;
        }
        other => panic!("no fault {other}"),
    }
}

fn signal(pid: u32, name: &str) {
    let sent = std::process::Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "{name} to {pid}");
}

/// Prints the trends after the warm-up, and judges them where the span is long enough to have any.
fn judge(universe: &Universe, samples: &[Sample], form: &Form) {
    let warm: Vec<Sample> = samples.iter().filter(|sample| sample.at >= form.warm_up).copied().collect();
    assert!(warm.len() >= 10, "{} samples", warm.len());
    let engine = universe.database.engine;
    for (name, unit, field, noise) in FIELDS {
        let values: Vec<f64> = warm.iter().map(field).collect();
        let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
        let third = values.len() / 3;
        let (first, last) = (median(&values[..third]), median(&values[values.len() - third..]));
        let slope = slope(&warm, field) * 3_600.0;
        println!(
            "soak {engine:?}: {name} {low:.0} to {high:.0} {unit}, typically {first:.0} in the first third after the warm-up and {last:.0} \
             in the last, slope {slope:+.1} {unit} an hour"
        );
        if is_long() || unit.is_empty() {
            assert!(last - first <= noise, "{name} grows from {first:.0} to {last:.0} {unit}; {noise} are noise");
        }
    }
}

/// Reads one quantity off a sample.
type Field = fn(&Sample) -> f64;

/// Name, unit, quantity, and how much more its last third may show than its first. What churn adds to the world is in the database
/// as well, and the WAL's file keeps the size of its longest wait.
const FIELDS: [(&str, &str, Field, f64); 5] = [
    ("RSS", "KiB", |sample| sample.rss_kib, 4_096.0),
    ("descriptors", "", |sample| sample.descriptors, 8.0),
    ("threads", "", |sample| sample.threads, 1.0),
    ("database", "KiB", |sample| sample.database_kib, 8_192.0),
    ("WAL", "KiB", |sample| sample.wal_kib, 16_384.0),
];

/// The middle one.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Least squares, a second.
fn slope(samples: &[Sample], field: fn(&Sample) -> f64) -> f64 {
    let n = samples.len() as f64;
    let mean_at = samples.iter().map(|sample| sample.at.as_secs_f64()).sum::<f64>() / n;
    let mean = samples.iter().map(field).sum::<f64>() / n;
    let (mut over, mut under) = (0.0, 0.0);
    for sample in samples {
        let at = sample.at.as_secs_f64() - mean_at;
        over += at * (field(sample) - mean);
        under += at * at;
    }
    if under == 0.0 { 0.0 } else { over / under }
}
