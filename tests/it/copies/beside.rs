//! A clone of the database is started beside its original, and both go on: of registrations the clone only looks.
//!
//! The original keeps its hands off them here, so that whatever changes one is the clone's. One is taken away or switched off meanwhile,
//! as an administrator or the upstream does: what a clone that took itself for the original would put right. That it could is shown at
//! the end, when it is adopted. The short form looks every second and takes ten, the long one has the intervals of a configuration that
//! says nothing, and takes five minutes: `INSTEP_LONG=1 cargo test --release --features failpoints --test it beside -- --nocapture`.

use std::time::Duration;

use serde_json::json;

use super::{Copy, SOON, create, requests};
use crate::support::{Database, Pim, Setup, Universe, eventually, is_long, monotonic, on_both, pim, until};

on_both!(a_clone_beside_productive_only_looks, a_clone_beside_a_pim_only_looks);

const PRODUCTS: [&str; 2] = ["products", "product-models"];

/// How long both run.
fn span() -> Duration {
    Duration::from_secs(if is_long() { 300 } else { 10 })
}

/// Changes in that time.
fn changes() -> u64 {
    span().as_secs() * 5
}

/// Lines of the source, for one that manages its registrations and for one that only watches.
fn source(manages: bool) -> &'static str {
    match (is_long(), manages) {
        (true, true) => "",
        (true, false) => "manage = false\n",
        (false, true) => "watch = { look = \"1s\", mend = \"1s\" }\n",
        (false, false) => "watch = { look = \"1s\", mend = \"1s\" }\nmanage = false\n",
    }
}

/// An upstream whose registrations the daemon manages.
trait Managed {
    const SOURCE: &'static str;
    /// What the sandbox calls requests about registrations, and how many of them are one look.
    const COLLECTION: &'static str;
    const LOOK: u64;

    /// Not started; with the configuration of one that manages its registrations.
    fn universe(&self, database: Database) -> Universe;
    /// Writes the configuration anew.
    fn configure(&self, universe: &Universe, manages: bool);
    /// An administrator or the upstream takes a registration away or switches it off.
    async fn spoil(&self, universe: &Universe);
    async fn is_whole(&self, universe: &Universe) -> bool;
    async fn people_work(&self, universe: &Universe);
    async fn in_step(&self, universe: &Universe);
}

struct Productive;

impl Productive {
    fn setup(manages: bool) -> Setup {
        Setup { resources: vec![("tasks", "")], source: source(manages), ..Setup::default() }
    }
}

impl Managed for Productive {
    const SOURCE: &'static str = "pmp";
    const COLLECTION: &'static str = "webhooks";
    const LOOK: u64 = 1;

    fn universe(&self, database: Database) -> Universe {
        Universe::new(database, &Self::setup(true))
    }

    fn configure(&self, universe: &Universe, manages: bool) {
        universe.configure("", "", &universe.productive(&Self::setup(manages)));
    }

    async fn spoil(&self, universe: &Universe) {
        let id = universe.database.texts("select upstream_id as v from instep_registration where route = 'task-updated'").await.remove(0);
        super::delete(universe, &id).await;
    }

    async fn is_whole(&self, universe: &Universe) -> bool {
        universe.sandbox.truth("webhooks").await.len() == 3
    }

    async fn people_work(&self, universe: &Universe) {
        let job = json!({ "changes": changes(), "per_second": 5, "kinds": "hooks", "removals": 0.1 });
        universe.sandbox.control("churn", job).await;
    }

    async fn in_step(&self, universe: &Universe) {
        universe.in_step(SOON).await;
    }
}

struct AkeneoPim;

impl AkeneoPim {
    fn setup(manages: bool) -> Pim {
        let resources = PRODUCTS.map(|name| (name, "poll = \"5s\", sweep = \"10s\"")).to_vec();
        Pim { resources, source: source(manages), subscribes: true, ..Pim::default() }
    }
}

impl Managed for AkeneoPim {
    const SOURCE: &'static str = "pim";
    const COLLECTION: &'static str = "event-platform";
    const LOOK: u64 = 2;

    fn universe(&self, database: Database) -> Universe {
        Self::setup(true).universe(database)
    }

    fn configure(&self, universe: &Universe, manages: bool) {
        universe.configure("", "", &Self::setup(manages).configuration(universe, &universe.sandbox.url));
    }

    async fn spoil(&self, universe: &Universe) {
        universe.sandbox.control("subscription", json!({ "event_platform": { "suspend_by_system": true } })).await;
    }

    async fn is_whole(&self, universe: &Universe) -> bool {
        universe.sandbox.report().await["deliveries"]["event_platform"]["subscriptions"][0]["status"] == "active"
    }

    async fn people_work(&self, universe: &Universe) {
        let job = json!({ "changes": changes(), "per_second": 5, "resources": PRODUCTS, "removals": 0.1 });
        universe.sandbox.control("churn", job).await;
    }

    async fn in_step(&self, universe: &Universe) {
        pim::in_step(universe, &PRODUCTS, SOON).await;
    }
}

async fn a_clone_beside_productive_only_looks(database: Database) {
    only_looks(&Productive, database).await;
}

async fn a_clone_beside_a_pim_only_looks(database: Database) {
    only_looks(&AkeneoPim, database).await;
}

async fn only_looks<U: Managed>(upstream: &U, database: Database) {
    let mut universe = upstream.universe(database);
    universe.run().await;
    universe.backfilled().await;
    create(&universe, U::SOURCE);
    assert_eq!(universe.stop().await, Some(0));
    universe.database.disconnect().await;
    let copied = universe.database.copied().await;
    let managing = std::fs::read_to_string(universe.config()).expect("it was written");
    upstream.configure(&universe, false);
    universe.run().await;
    let begun = monotonic();
    upstream.people_work(&universe).await;
    let copy = Copy::configured(&universe, copied, managing).await;
    copy.is_suspended(U::SOURCE).await;
    assert!(upstream.is_whole(&universe).await);
    upstream.spoil(&universe).await;
    let (changed, looked) = requests(&universe, U::COLLECTION).await;
    until(begun + span()).await;
    let looks = if is_long() { 2 } else { 6 };
    eventually("both look at the registrations", SOON, async || match requests(&universe, U::COLLECTION).await.1 - looked {
        n if n >= looks * U::LOOK => Ok(()),
        n => Err(format!("{n} requests")),
    })
    .await;
    let (after, n_looks) = requests(&universe, U::COLLECTION).await;
    assert_eq!(after - changed, 0, "requests other than GET");
    assert!(!upstream.is_whole(&universe).await, "nobody has put it right");
    universe.sandbox.quiet(SOON).await;
    upstream.in_step(&universe).await;
    let adopted = copy.verb(&["adopt", U::SOURCE]);
    assert!(adopted.status.success(), "{}", String::from_utf8_lossy(&adopted.stderr));
    eventually("the clone puts right what is amiss once it is adopted", span() + SOON, async || {
        if upstream.is_whole(&universe).await { Ok(()) } else { Err(format!("{:?}", requests(&universe, U::COLLECTION).await)) }
    })
    .await;
    println!(
        "beside {} {:?}: {:?} beside its original with {} changes: {} looks, 0 requests other than GET; {} once adopted",
        U::SOURCE,
        universe.database.engine,
        span(),
        changes(),
        (n_looks - looked) / U::LOOK,
        requests(&universe, U::COLLECTION).await.0 - changed,
    );
    copy.remove().await;
}
