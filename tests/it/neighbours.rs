//! A PIM that fails in every way leaves its neighbour alone: Productive in the same daemon is as quick as before.
//!
//! One fault of the PIM comes after the other: errors, cut, refused and hanging answers, lists and records that may no longer be
//! seen. Meanwhile people go on changing it, both of its event systems tell of it, and passes go on asking. Nothing is removed by any
//! fault, and the PIM's replica gets in step by itself once they have ended (after the last one, hanging, only the long form waits
//! for it: calls without an answer count as running for a minute). Productive's way from hook to row is measured before and
//! meanwhile: p99 at most 1.2 times or 50 ms above. The short form has a second a fault, too few samples for a p99, and company on
//! its two cores: it judges the p90, with twice that slack. The long one has a minute a fault:
//! `INSTEP_LONG=1 cargo test --release --features failpoints --test it neighbours -- --nocapture`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::latency::{latencies, percentile};
use crate::support::universe::client;
use crate::support::{Database, Pim, Sandbox, Setup, Universe, is_long, on_both, pim};

on_both!(a_pim_that_fails_in_every_way_leaves_its_neighbour_alone);

const RESOURCES: [&str; 3] = ["products", "product-models", "categories"];
const PASSES: &str = "poll = \"1s\", sweep = \"2s\"";

/// A way to fail: what it is called here and in the PIM's report, what begins it and what ends it.
struct Fault {
    name: &'static str,
    counted: &'static str,
    begin: Value,
    end: Value,
}

fn faults() -> Vec<Fault> {
    let fault = |name, counted, begin, end| Fault { name, counted, begin, end };
    let none: [&str; 0] = [];
    let lost = |is_empty: bool| json!({ "lost_permission": RESOURCES, "lost_permission_empty": is_empty });
    let seen = || json!({ "lost_permission": none, "lost_permission_empty": false });
    let (hanging, no_5xx) = (json!({ "timeouts": 1.0, "timeout_hang_ms": 2_500 }), || json!({ "upstream_5xx": 0.0 }));
    vec![
        fault("5xx", "upstream_5xx", json!({ "upstream_5xx": 1.0 }), no_5xx()),
        fault("half of it 5xx", "upstream_5xx", json!({ "upstream_5xx": 0.5 }), no_5xx()),
        fault("cut", "truncated", json!({ "truncated": 1.0 }), json!({ "truncated": 0.0 })),
        fault("429", "inject_429", json!({ "inject_429": 1.0 }), json!({ "inject_429": 0.0 })),
        fault("500 for tokens too", "failing", json!({ "failing": true }), json!({ "failing": false })),
        fault("nothing may be seen", "lost_permission", lost(false), seen()),
        fault("every list is empty", "lost_permission", lost(true), seen()),
        // At the end: a call without an answer counts as running for another minute, and there are four.
        fault("hanging", "timeouts", hanging, json!({ "timeouts": 0.0 })),
    ]
}

/// How often a fault met a request.
async fn met(sandbox: &Sandbox, fault: &Fault) -> u64 {
    sandbox.report().await["faults"][fault.counted]["count"].as_u64().unwrap_or(0)
}

fn each() -> Duration {
    Duration::from_secs(if is_long() { 60 } else { 1 })
}

/// Both sources in one daemon; `universe.sandbox` is Productive's upstream.
async fn both(database: Database) -> (Universe, Sandbox) {
    let setup = Setup::default();
    let pim = Pim {
        resources: RESOURCES.map(|name| (name, PASSES)).to_vec(),
        // Probes come so often that each fault is met.
        source: "breaker = { failures = 3, open_for = \"200ms\", open_max = \"1s\" }",
        ..Pim::default()
    };
    let mut universe = Universe::new(database, &setup);
    let sandbox = pim.sandbox(universe.database.folder(), client());
    universe.expect_more(RESOURCES.len());
    let sources = format!("{}{}", universe.productive(&setup), pim.configuration(&universe, &sandbox.url));
    universe.configure("", "[limits]\nupstream_timeout = \"2s\"", &sources);
    universe.run().await;
    universe.swept().await;
    (universe, sandbox)
}

/// Waits until the PIM's replica is in step, which needs nobody's help.
async fn recovers(universe: &Universe, sandbox: &Sandbox, seconds: u64) {
    sandbox.quiet(Duration::from_secs(120)).await;
    pim::in_step_with(universe, sandbox, &RESOURCES, Duration::from_secs(seconds)).await;
}

async fn a_pim_that_fails_in_every_way_leaves_its_neighbour_alone(database: Database) {
    let (mut universe, sandbox) = both(database).await;
    let pid = universe.daemon().pid();
    pim::subscribe_at(&universe, &sandbox, true, true).await;
    let n_faults = faults().len();
    let seconds = (4 + n_faults as u64) * each().as_secs();
    let job = json!({ "changes": seconds * 5, "per_second": 5, "resources": RESOURCES, "removals": 0.0 });
    sandbox.control("churn", job).await;
    let mut next = 0;
    let _ = latencies(&universe, Duration::from_secs(1), "first", &mut next).await;
    let baseline = latencies(&universe, each() * 4, "before", &mut next).await;
    let (mut meanwhile, mut said) = (Vec::new(), Vec::new());
    for fault in faults() {
        if fault.counted == "timeouts" {
            recovers(&universe, &sandbox, 60).await;
        }
        let before = met(&sandbox, &fault).await;
        sandbox.control("faults", fault.begin.clone()).await;
        let mut n = 0;
        // The pauses that the fault before left behind may keep requests away from this one for a while.
        for _ in 0..10 {
            meanwhile.extend(latencies(&universe, each(), fault.name, &mut next).await);
            n = met(&sandbox, &fault).await - before;
            if n > 0 {
                break;
            }
        }
        sandbox.control("faults", fault.end.clone()).await;
        assert!(n > 0, "{}: no request met it", fault.name);
        said.push(format!("{} {n}", fault.name));
    }
    let share = if is_long() { 0.99 } else { 0.9 };
    let (before, after) = (percentile(&baseline, share), percentile(&meanwhile, share));
    let removed = universe.database.number("select count(*) as n from instep_changes where operation = 'delete'").await;
    assert_eq!(removed, 0, "no fault removes anything");
    if is_long() {
        recovers(&universe, &sandbox, 400).await;
    }
    universe.in_step(Duration::from_secs(30)).await;
    assert_eq!(universe.daemon().pid(), pid, "the same process");
    assert_eq!(universe.database.number("select count(*) as n from instep_quarantine").await, 0, "nothing of it is anybody's record");
    println!(
        "neighbours {:?}: {n_faults} faults of {:?} each; Productive's hook to row p{} {:.0} ms before ({} samples), {:.0} ms meanwhile ({}); \
         requests that met each: {}",
        universe.database.engine,
        each(),
        share * 100.0,
        before * 1e3,
        baseline.len(),
        after * 1e3,
        meanwhile.len(),
        said.join(", ")
    );
    let slack = if is_long() { 1.0 } else { 2.0 };
    let bound = (before * (1.0 + 0.2 * slack)).max(before + 0.05 * slack);
    assert!(after <= bound, "Productive waits: {before} s before, {after} s meanwhile");
}
