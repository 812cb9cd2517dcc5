//! What passes would cost is said before any runs, and the upstream then counts so many requests; sweeps that have a time of day keep
//! it.

use std::time::Duration;

use instep::clock::Clock;
use serde_json::Value;

use crate::asked_passes::{answer, said};
use crate::support::{Database, Pim, Setup, Universe, eventually, on_both};

on_both!(
    a_plan_of_productive_is_what_is_then_counted,
    a_plan_of_a_pim_is_what_is_then_counted,
    a_sweep_begins_at_its_time_of_day_and_once,
    a_sweep_whose_time_passed_while_nobody_ran_is_made_up_for_once,
);

const LATE: &str = "sweep = \"24h\", poll = \"24h\"";
const SOON: Duration = Duration::from_secs(60);

/// Plans, sweeps, and compares for each resource and for all of them; a fifth, or one request where there are few.
async fn holds(universe: &Universe, source: &str, kinds: &[&str]) {
    // The first incremental passes are due behind the backfill; from then on nothing comes by itself.
    let first = universe.verb(&["reconcile", source]);
    assert_eq!(first.status.code(), Some(0), "{}", said(&first));
    universe.idle(SOON).await;
    for kind in kinds {
        let plan = answer(&universe.verb(&["reconcile", "plan", source, "--json"]));
        let resources = plan["resources"].as_array().expect("resources");
        let mut before = Vec::new();
        for row in resources {
            before.push(counted(universe, row).await);
        }
        let verb: &[&str] = if *kind == "sweep" { &["reconcile", source, "--sweep"] } else { &["reconcile", source] };
        let done = universe.verb(verb);
        assert_eq!(done.status.code(), Some(0), "{}", said(&done));
        let (mut all_planned, mut all_counted) = (0, 0);
        for (row, before) in resources.iter().zip(before) {
            let counted = counted(universe, row).await - before;
            // Who has no incremental passes is swept.
            let cost = if row[*kind].is_object() { &row[*kind] } else { &row["sweep"] };
            let planned = cost["requests"].as_u64().expect("a number");
            assert!(is_near(planned, counted), "{kind} of {}: {planned} planned, {counted} counted", row["resource"]);
            (all_planned, all_counted) = (all_planned + planned, all_counted + counted);
        }
        assert!(is_near(all_planned, all_counted), "{kind}: {all_planned} planned, {all_counted} counted");
        println!("planned_passes {:?}: {source}, {kind}: {all_planned} requests planned, {all_counted} counted", universe.database.engine);
    }
}

/// What the upstream has counted for a resource, with the walk through what stands above it.
async fn counted(universe: &Universe, row: &Value) -> u64 {
    let name = row["resource"].as_str().expect("a name");
    let above = if name == "attribute-options" { universe.sandbox.reads("attributes").await } else { 0 };
    universe.sandbox.reads(name).await + above
}

fn is_near(planned: u64, counted: u64) -> bool {
    planned.abs_diff(counted) <= (counted / 5).max(1)
}

async fn a_plan_of_productive_is_what_is_then_counted(database: Database) {
    let resources = vec![("tasks", LATE), ("companies", LATE), ("projects", LATE), ("people", LATE)];
    let setup = Setup { entities: 6_000, resources, source: "feeds = false", ..Setup::default() };
    let universe = Universe::started(database, &setup).await;
    holds(&universe, "pmp", &["sweep", "incremental"]).await;
    let shown = universe.verb(&["reconcile", "plan"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("live rows") && shown.contains("tasks"), "{shown}");
    let plan: Value = answer(&universe.verb(&["reconcile", "plan", "pmp", "--json"]));
    assert_eq!(plan["sweeps"]["seconds"], 0.0, "2,000 a second are enough: {plan}");
}

async fn a_plan_of_a_pim_is_what_is_then_counted(database: Database) {
    let resources = vec![("product-models", LATE), ("categories", LATE), ("attribute-options", LATE)];
    let pim = Pim { entities: 6_000, resources, source: "", ..Pim::default() };
    let universe = pim.started(database).await;
    holds(&universe, "pim", &["sweep"]).await;
}

/// Five hours and three quarters ahead of UTC, in winter and in summer.
const ZONE: &str = "Asia/Kathmandu";
const AHEAD_MINUTES: i64 = 345;
/// Within this of its time a sweep has begun on a busy machine; a zone or a minute that is mistaken is further off.
const PUNCTUAL: i64 = 30;
/// Sweeps that were begun, the backfill too.
const BEGUN: &str = "select count(*) as n from instep_pass where kind = 'sweep'";

/// Seconds since 1970.
fn now() -> i64 {
    Clock::system().now().0 / 1_000_000
}

/// A source that is swept once a day, at a second that is near.
struct Nightly {
    universe: Universe,
    name: String,
    due: i64,
}

impl Nightly {
    /// The source has everything, and its daemon is gone.
    async fn settled(database: Database) -> Self {
        let universe = Universe::new(database, &Self::setup());
        let due = now() + 20;
        let turn = |name: &String| (due - Self::later(name)) % 60 == 0;
        let name = (0..).map(|n| format!("s{n}")).find(turn).expect("one of sixty");
        let mut nightly = Self { universe, name, due };
        nightly.configure();
        nightly.universe.run().await;
        nightly.universe.backfilled().await;
        nightly.universe.kill();
        // As if that had been yesterday.
        nightly.universe.database.execute("update instep_progress set sweep_at = sweep_at - 72000000000").await;
        while nightly.due < now() + 12 {
            nightly.due += 60;
        }
        nightly.configure();
        nightly
    }

    fn setup() -> Setup {
        Setup { resources: vec![("tasks", "sweep = \"24h\", poll = \"1s\"")], source: "feeds = false\n", ..Setup::default() }
    }

    /// How many seconds later than at its time of day a source is swept: FNV-1a of its name, of a quarter of an hour.
    fn later(name: &str) -> i64 {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        i64::try_from(hash % 900).expect("it is small")
    }

    fn configure(&self) {
        let minutes = (self.due - Self::later(&self.name)) / 60 + AHEAD_MINUTES;
        let at = format!("sweep_at = \"{:02}:{:02}\"\nsweep_zone = \"{ZONE}\"\n", minutes / 60 % 24, minutes % 60);
        let source = self.universe.productive(&Self::setup()).replace("sources.pmp", &format!("sources.{}", self.name));
        self.universe.configure("", "", &source.replace("feeds = false\n", &format!("feeds = false\n{at}")));
    }

    /// The second sweep has begun at its time, is complete, and no third follows.
    async fn is_swept_once(&self) {
        let database = &self.universe.database;
        let completed = "select count(*) as n from instep_pass where kind = 'sweep' and state = 'completed'";
        eventually("the sweep is complete", SOON * 2, async || match database.try_number(completed).await? {
            1 => Err("only the backfill".to_owned()),
            n => Ok(n),
        })
        .await;
        self.is_left_alone().await;
    }

    /// Passes come and go, and among them no sweep.
    async fn is_left_alone(&self) {
        let database = &self.universe.database;
        let passes = "select count(*) as n from instep_pass where kind = 'incremental' and state = 'completed'";
        let before = database.number(passes).await;
        eventually("three further passes end", SOON, async || match database.try_number(passes).await? - before {
            n if n >= 3 => Ok(()),
            n => Err(n.to_string()),
        })
        .await;
        assert_eq!(database.number(BEGUN).await, 2, "the backfill, and the sweep of the day");
    }

    /// How long after its time the last sweep has begun, in seconds.
    async fn late(&self) -> i64 {
        self.universe.database.number("select max(started_at) as n from instep_pass where kind = 'sweep'").await / 1_000_000 - self.due
    }
}

async fn a_sweep_begins_at_its_time_of_day_and_once(database: Database) {
    let mut nightly = Nightly::settled(database).await;
    nightly.universe.run().await;
    assert!(now() < nightly.due, "it is started before");
    nightly.is_swept_once().await;
    let late = nightly.late().await;
    assert!((0..PUNCTUAL).contains(&late), "{late} s after its time");
    println!("planned_passes {:?}: a sweep of {ZONE} began {late} s after its time", nightly.universe.database.engine);
}

async fn a_sweep_whose_time_passed_while_nobody_ran_is_made_up_for_once(database: Database) {
    let mut nightly = Nightly::settled(database).await;
    nightly.universe.run().await;
    nightly.universe.kill();
    assert!(now() < nightly.due, "it is killed before");
    assert_eq!(nightly.universe.database.number(BEGUN).await, 1, "the backfill alone");
    eventually("its time is over", SOON * 2, async || if now() > nightly.due { Ok(()) } else { Err(now().to_string()) }).await;
    nightly.universe.run().await;
    nightly.is_swept_once().await;
    assert!(nightly.late().await > 0, "nobody was there before");
    nightly.universe.kill();
    nightly.universe.run().await;
    nightly.is_left_alone().await;
}
