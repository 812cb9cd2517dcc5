//! What a sweep finds and what it costs: nothing is lost where 48 writers change and delete records and so shift the pages that it
//! walks, no row that is alive upstream is absent meanwhile, and records that lists hide are not read one by one.
//!
//! So with every kind of upstream. The short form is a tenth of the long one:
//! `INSTEP_LONG=1 cargo test --release --test it sweeps -- --nocapture --test-threads=1`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use instep::clock::Clock;

use crate::support::{Database, Mls, Pim, Setup, Universe, Upstream, eventually, is_long, monotonic, on_both, until};

mod hidden;

on_both!(
    writers_cost_a_sweep_of_productive_no_record,
    writers_cost_a_sweep_of_a_pim_no_record,
    writers_cost_a_sweep_of_a_producer_no_record,
);

const WRITERS: usize = 48;
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(300);

async fn writers_cost_a_sweep_of_productive_no_record(database: Database) {
    writers_cost_a_sweep_no_record::<Setup>(database).await;
}

async fn writers_cost_a_sweep_of_a_pim_no_record(database: Database) {
    writers_cost_a_sweep_no_record::<Pim>(database).await;
}

async fn writers_cost_a_sweep_of_a_producer_no_record(database: Database) {
    writers_cost_a_sweep_no_record::<Mls>(database).await;
}

async fn writers_cost_a_sweep_no_record<U: Upstream>(database: Database) {
    // A sweep takes somewhat longer than the writers.
    let (records, latency_ms, span) = match (is_long(), U::PAGE) {
        (true, 200) => (20_000, "50", Duration::from_secs(4)),
        (true, _) => (20_000, "25", Duration::from_secs(4)),
        (false, 200) => (2_000, "250", Duration::from_secs(2)),
        (false, _) => (2_000, "125", Duration::from_secs(2)),
    };
    let mut universe = U::one(database, records, latency_ms, "sweep = \"2s\", poll = \"1h\"");
    universe.run().await;
    universe.backfilled().await;
    let keys = U::keys(&universe).await;
    let gone: Vec<String> = keys.iter().step_by(50).cloned().collect();
    let changed: Vec<String> = keys.iter().skip(5).step_by(10).cloned().collect();
    let quoted: Vec<String> = gone.iter().map(|key| format!("'{key}'")).collect();
    let sql = format!("select count(*) as n from {} where key not in ({})", U::VIEW, quoted.join(", "));
    let staying = (keys.len() - gone.len()) as i64;

    let is_over = AtomicBool::new(false);
    let working = async {
        passes(&universe, "kind = 'sweep' and state = 'running' and pages > 0").await;
        let begin = monotonic();
        write::<U>(&universe, &changed, &gone, span).await;
        let took = monotonic() - begin;
        let ended = Clock::system().now();
        passes(&universe, &format!("kind = 'sweep' and state = 'completed' and started_at > {}", ended.0)).await;
        universe.idle(PATIENCE).await;
        is_over.store(true, Ordering::Release);
        took
    };
    let (took, (samples, absent)) = tokio::join!(working, watch(&universe, &sql, staying, &is_over));
    let differences = U::differences(&universe).await;
    println!(
        "sweeps of {} {:?}: {} records, {} changed and {} deleted by {WRITERS} writers within {took:.1?} of a sweep; {} differences after \
         one more pass, a live row absent in {absent} of {samples} looks",
        U::NAME,
        universe.database.engine,
        keys.len(),
        changed.len(),
        gone.len(),
        differences.len(),
    );
    assert_eq!(differences, Vec::<String>::new());
    assert!(samples > 20 && absent == 0);
}

/// Changes and deletes, spread over a span.
async fn write<U: Upstream>(universe: &Universe, changed: &[String], gone: &[String], span: Duration) {
    let mut deeds: Vec<(bool, &String)> = changed.iter().map(|key| (false, key)).collect();
    for (n, key) in gone.iter().enumerate() {
        deeds.insert(n * 6, (true, key));
    }
    let (begin, every) = (monotonic(), span / deeds.len() as u32);
    let deed = async |n: usize, deletes: bool, key: &String| {
        until(begin + every * n as u32).await;
        if deletes { U::delete(universe, key).await } else { U::change(universe, key, n).await }
    };
    let deed = &deed;
    futures_util::stream::iter(deeds.into_iter().enumerate())
        .for_each_concurrent(WRITERS, |(n, (deletes, key))| async move { deed(n, deletes, key).await })
        .await;
}

/// Looks whether every record is there that stays alive upstream; in how many looks one was not.
async fn watch(universe: &Universe, sql: &str, staying: i64, is_over: &AtomicBool) -> (u32, u32) {
    let (mut samples, mut absent, mut next) = (0, 0, monotonic());
    while !is_over.load(Ordering::Acquire) {
        absent += u32::from(universe.database.number(sql).await != staying);
        samples += 1;
        next += SAMPLE_EVERY;
        until(next).await;
    }
    (samples, absent)
}

/// Waits for a pass of which this holds.
async fn passes(universe: &Universe, condition: &str) {
    let sql = format!("select count(*) as n from instep_pass where {condition}");
    eventually(&format!("a pass with {condition}"), PATIENCE, async || match universe.database.try_number(&sql).await? {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    })
    .await;
}
