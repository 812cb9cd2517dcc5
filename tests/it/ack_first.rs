//! Acknowledging comes first: a backfill, a retention that has much to remove, and a slow disk do not hold it up.
//!
//! 100 deliveries a second are sent at their moments, however slowly they are answered, and measured from the moment at which
//! each was due. The daemon reads everything for the first time meanwhile and removes deliveries of long ago. "Slow" adds
//! 10 ms to every fsync: of the daemon on SQLite, of the server on PostgreSQL. The short form has a small part of the records and
//! shares its machine with other tests, so that its bounds are loose; the long one reads 50,000 tasks, finds 100,000 old deliveries,
//! and has the promised bounds, which are of an optimised build on a machine of its own:
//! `INSTEP_LONG=1 cargo test --release --features failpoints --test it ack_first -- --nocapture --test-threads=1`.

use std::time::Duration;

use crate::support::pace::Answer;
use crate::support::{
    Database, Engine, OwnServer, Paced, Setup, Strace, Universe, eventually, is_long, monotonic, run, run_on_own_server, skipped, until,
};

/// Deliveries a second.
const PER_SECOND: u32 = 100;

struct Form {
    /// Of the organisation, of which the daemon reads the tasks.
    entities: u64,
    /// Tasks that must have been read in the meantime.
    rows: i64,
    /// Deliveries that the retention finds.
    old: u32,
    /// At least so long, and until the backfill has ended.
    span: Duration,
    /// Of the deliveries, so many are acknowledged …
    share: f64,
    /// … within these.
    p99: Duration,
    max: Duration,
}

fn form() -> Form {
    let (seconds, millis) = (Duration::from_secs, Duration::from_millis);
    if is_long() {
        Form { entities: 118_000, rows: 50_000, old: 100_000, span: seconds(60), share: 1.0, p99: millis(100), max: millis(400) }
    } else {
        // The daemon gives a delivery up after 700 ms; the rest of the time is the busy machine's.
        Form { entities: 3_000, rows: 150, old: 10_000, span: seconds(6), share: 0.9, p99: seconds(2), max: seconds(4) }
    }
}

#[test]
fn on_sqlite() {
    run(Engine::Sqlite, async |database| measure(database, false).await);
}

#[test]
fn on_sqlite_with_a_slow_disk() {
    if is_traceable() {
        run(Engine::Sqlite, async |database| measure(database, true).await);
    }
}

#[test]
fn on_postgres() {
    run_on_own_server(async |database, _server: OwnServer| measure(database, false).await);
}

#[test]
fn on_postgres_with_a_slow_disk() {
    if is_traceable() {
        run_on_own_server(async |database, server: OwnServer| {
            server.down();
            server.up_with_slow_disk();
            measure(database, true).await;
        });
    }
}

fn is_traceable() -> bool {
    if !Strace::is_here() {
        skipped("ack_first: there is no strace");
    }
    Strace::is_here()
}

async fn measure(database: Database, is_slow: bool) {
    let form = form();
    let engine = database.engine;
    let mut universe = Universe::new(database, &Setup { entities: form.entities, ..Setup::default() });
    let migrated = universe.verb(&["migrate"]);
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    universe.database.execute(&old_deliveries(engine, form.old)).await;
    let mut keys = universe.sandbox.keys("tasks").await;
    keys.truncate(500);

    let mut command = universe.command();
    if is_slow && engine == Engine::Sqlite {
        command = Strace::slow_disk(command);
    }
    universe.launch(&mut command);
    universe.ready().await;
    let (load, begin) = (Paced::start(universe.hooks_port, keys, PER_SECOND), monotonic());
    universe.swept_within(Duration::from_secs(900)).await;
    let backfill = monotonic() - begin;
    until(begin + form.span).await;
    let (ledger, answers) = load.end().await;

    let rows = universe.database.number("select count(*) as n from pmp_tasks").await;
    let left = universe.database.number("select count(*) as n from instep_delivery where done_at < 1000000000000").await;
    let removed = i64::from(form.old) - left;
    let mut took: Vec<Duration> = answers.iter().map(Answer::since_due).collect();
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    let (p50, p99, max) = (at(0.5), at(0.99), at(1.0));
    println!(
        "ack_first {engine:?}{}: {} of {} deliveries at {PER_SECOND}/s acknowledged: p50 {p50:.1?}, p99 {p99:.1?}, max {max:.1?}; meanwhile {rows} rows \
         read in {backfill:.1?}, {removed} old deliveries removed",
        if is_slow { " with 10 ms more for every fsync" } else { "" },
        ledger.len(),
        took.len(),
    );
    let (n, is_known) = (ledger.len(), |answer: &Answer| answer.status == Some(200) || answer.status == Some(503) && answer.retry_after);
    assert!(answers.iter().all(is_known), "another answer than 200 and 503");
    assert!(n as f64 >= form.share * answers.len() as f64, "{n} of {} deliveries are acknowledged", answers.len());
    assert!(removed >= i64::from(form.old) / 20, "{removed} were removed: the retention was to work meanwhile");
    assert!(rows >= form.rows, "{rows} rows: a backfill was to run meanwhile");
    assert!(p99 <= form.p99 && max <= form.max, "p99 {p99:?}, max {max:?}");
    assert_counted(&universe, n).await;
    assert_eq!(universe.stop().await, Some(0));
}

/// The daemon's own histogram has them all.
async fn assert_counted(universe: &Universe, n: usize) {
    eventually("the histogram has them all", Duration::from_secs(5), async || {
        let answer = universe.client.get(format!("http://127.0.0.1:{}/metrics", universe.admin_port)).send().await;
        let text = answer.map_err(|error| error.to_string())?.text().await.map_err(|error| error.to_string())?;
        let counted = text.lines().find(|line| line.starts_with("instep_ack_seconds_count")).unwrap_or_default().to_owned();
        if counted.ends_with(&format!(" {n}")) { Ok(()) } else { Err(counted) }
    })
    .await;
}

/// Deliveries that ended in 1970.
fn old_deliveries(engine: Engine, n: u32) -> String {
    let (numbers, body) = match engine {
        Engine::Sqlite => (format!("with recursive s(n) as (select 1 union all select n + 1 from s where n < {n})"), "randomblob(600)"),
        Engine::Postgres => (format!("with s as (select generate_series(1, {n}) as n)"), "decode(repeat('6162', 300), 'hex')"),
    };
    let insert = "insert into instep_delivery (id, source, received_at, dedupe, route, query, headers, body, state, attempts, done_at)";
    let row = format!("'old-' || n, 'pmp', n, 'old-' || n, 'task-updated', '', {body}, {body}, 'done', 0, n");
    match engine {
        Engine::Sqlite => format!("{insert} {numbers} select {row} from s"),
        Engine::Postgres => format!("{numbers} {insert} select {row} from s"),
    }
}
