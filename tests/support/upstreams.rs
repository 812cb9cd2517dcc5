//! Each kind of upstream in one shape, for what is promised of walks through the lists of any.
//!
//! What a walk costs is reckoned from what an upstream truly holds and from the size of its pages: written down here a second time,
//! so that a page too many is seen.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Database, Mls, Pim, Setup, Universe, mls, pim};

/// Without feeds, the log and passes but the first.
const WALKED_ONCE: &str = "passes = false";

/// A kind of upstream; what makes it is the setup of its universe.
pub(crate) trait Upstream {
    /// What it is called in what a test says.
    const NAME: &'static str;
    /// The view of its resource of most records, of which [`Self::one`] has no other.
    const VIEW: &'static str;
    /// Records of a page.
    const PAGE: usize;
    /// Requests that belong to no walk, but to each life of the daemon, by their collections.
    const BESIDE: &'static [&'static str];

    /// About so many records of one resource, which is replicated by passes alone and has this in its table.
    fn one(database: Database, records: u64, latency_ms: &'static str, table: &'static str) -> Universe;

    /// About so many records of all resources, each of which is walked once, within the upstream's own limits.
    fn all(database: Database, records: u64, latency_ms: &'static str) -> Universe;

    /// The true keys of the one resource.
    async fn keys(universe: &Universe) -> Vec<String>;

    /// Changes a record of it.
    async fn change(universe: &Universe, key: &str, n: usize);

    /// Deletes a record of it.
    async fn delete(universe: &Universe, key: &str);

    /// Where its replica differs from the truth.
    async fn differences(universe: &Universe) -> Vec<String>;

    /// Requests of one walk through all resources.
    async fn pages(universe: &Universe) -> usize;

    /// Waits until the replica of all resources holds what the upstream has.
    async fn in_step(universe: &Universe, deadline: Duration);
}

/// Resources whose archived records are listed apart.
const LISTED_APART: [&str; 5] = ["projects", "task_lists", "boards", "people", "companies"];

/// Productive.
impl Upstream for Setup {
    const NAME: &'static str = "Productive";
    const VIEW: &'static str = "pmp_tasks";
    const PAGE: usize = 200;
    const BESIDE: &'static [&'static str] = &["webhooks"];

    fn one(database: Database, records: u64, latency_ms: &'static str, table: &'static str) -> Universe {
        let resources = vec![("tasks", table)];
        // Tasks are 430 of 1,000 records.
        let setup = Self { entities: records * 233 / 100, resources, source: "feeds = false", ..Self::default() };
        Universe::new(database, &Self { sandbox: vec!["--latency-ms".to_owned(), latency_ms.to_owned()], ..setup })
    }

    fn all(database: Database, records: u64, latency_ms: &'static str) -> Universe {
        let resources = instep::config::PRODUCTIVE_RESOURCES.map(|name| (name, "")).to_vec();
        let sandbox = vec!["--latency-ms".to_owned(), latency_ms.to_owned()];
        let setup = Self { entities: records, resources, sandbox, limits: &[], quota: "", ..Self::default() };
        Universe::new(database, &setup)
    }

    async fn keys(universe: &Universe) -> Vec<String> {
        universe.sandbox.keys("tasks").await
    }

    async fn change(universe: &Universe, key: &str, n: usize) {
        let attributes = json!({ "title": format!("changed while a sweep walks, {n}") });
        universe.sandbox.control("update", json!({ "collection": "tasks", "id": key, "attributes": attributes })).await;
    }

    async fn delete(universe: &Universe, key: &str) {
        universe.sandbox.control("delete", json!({ "collection": "tasks", "id": key })).await;
    }

    async fn differences(universe: &Universe) -> Vec<String> {
        universe.differences("tasks").await.expect("the replica can be read")
    }

    async fn pages(universe: &Universe) -> usize {
        let mut pages = 0;
        for resource in instep::config::PRODUCTIVE_RESOURCES {
            let truth = universe.sandbox.truth(resource).await;
            let is_archived = |row: &&Value| row["attributes"]["archived_at"].is_string();
            let archived = if LISTED_APART.contains(&resource) { truth.values().filter(is_archived).count() } else { 0 };
            pages += (truth.len() - archived).div_ceil(Self::PAGE).max(1);
            if LISTED_APART.contains(&resource) {
                pages += archived.div_ceil(Self::PAGE).max(1);
            }
        }
        pages
    }

    async fn in_step(universe: &Universe, deadline: Duration) {
        universe.in_step(deadline).await;
    }
}

/// Akeneo.
impl Upstream for Pim {
    const NAME: &'static str = "a PIM";
    const VIEW: &'static str = "pim_products";
    const PAGE: usize = pim::PAGE;
    const BESIDE: &'static [&'static str] = &["token"];

    fn one(database: Database, records: u64, latency_ms: &'static str, table: &'static str) -> Universe {
        let (resources, sandbox) = (vec![("products", table)], vec!["--latency-ms", latency_ms]);
        Self { entities: records, resources, source: "", sandbox, ..Self::default() }.universe(database)
    }

    fn all(database: Database, records: u64, latency_ms: &'static str) -> Universe {
        let resources = instep::config::AKENEO_RESOURCES.map(|name| (name, "")).to_vec();
        // Of 142 records 100 are products.
        let entities = records * 100 / 142;
        let sandbox = vec!["--latency-ms", latency_ms];
        Self { entities, resources, source: WALKED_ONCE, quota: "", limits: &[], sandbox, ..Self::default() }.universe(database)
    }

    async fn keys(universe: &Universe) -> Vec<String> {
        pim::keys(&universe.sandbox, "products", |_| true).await
    }

    async fn change(universe: &Universe, key: &str, n: usize) {
        let fields = json!({ "fields": { "identifier": format!("changed while a sweep walks, {n}") } });
        pim::change(universe, "update", "products", Some(key), fields).await;
    }

    async fn delete(universe: &Universe, key: &str) {
        pim::change(universe, "delete", "products", Some(key), json!({})).await;
    }

    async fn differences(universe: &Universe) -> Vec<String> {
        let truth = pim::truth(&universe.sandbox, "products").await;
        pim::differences_from(universe, "products", &truth).await.expect("the replica can be read")
    }

    async fn pages(universe: &Universe) -> usize {
        let mut pages = 0;
        for resource in instep::config::AKENEO_RESOURCES {
            pages += pim::pages(&universe.sandbox, resource).await;
        }
        pages
    }

    async fn in_step(universe: &Universe, deadline: Duration) {
        pim::in_step(universe, &instep::config::AKENEO_RESOURCES, deadline).await;
    }
}

/// Pages of a hundred, however many are asked for.
const SMALL_PAGES: [&str; 2] = ["--page-max", "100"];
/// The standard knows no limits, so that those of a vendor are agreed on, three times as fast.
const LIMITED: [&str; 4] = ["--profile", "trestle", "--window-scale", "0.33333"];
const AGREED: &str = "events = { read = \"no\" }\npasses = false\nquota = [{ requests = 180, per = \"20s\" }]";

/// A RESO producer.
impl Upstream for Mls {
    const NAME: &'static str = "a producer";
    const VIEW: &'static str = "mls_property";
    const PAGE: usize = 100;
    const BESIDE: &'static [&'static str] = &[];

    fn one(database: Database, records: u64, latency_ms: &'static str, table: &'static str) -> Universe {
        let (resources, source) = (vec![("Property", table)], "events = { read = \"no\" }");
        let sandbox = SMALL_PAGES.into_iter().chain(["--latency-ms", latency_ms]).collect();
        Self { entities: records, resources, source, sandbox, ..Self::default() }.universe(database)
    }

    fn all(database: Database, records: u64, latency_ms: &'static str) -> Universe {
        let sandbox = SMALL_PAGES.into_iter().chain(LIMITED).chain(["--latency-ms", latency_ms]).collect();
        // Of 426 records 100 are listings.
        Self { entities: records * 100 / 426, source: AGREED, sandbox, ..Self::default() }.universe(database)
    }

    async fn keys(universe: &Universe) -> Vec<String> {
        mls::truth(universe, "Property", "ListingKey").await.into_keys().collect()
    }

    async fn change(universe: &Universe, key: &str, n: usize) {
        let fields = json!({ "PublicRemarks": format!("changed while a sweep walks, {n}") });
        universe.sandbox.control("update", json!({ "resource": "Property", "key": key, "fields": fields })).await;
    }

    async fn delete(universe: &Universe, key: &str) {
        universe.sandbox.control("delete", json!({ "resource": "Property", "key": key })).await;
    }

    async fn differences(universe: &Universe) -> Vec<String> {
        let truth = mls::truth(universe, "Property", "ListingKey").await;
        mls::differences_of(universe, "Property", &truth).await.expect("the replica can be read")
    }

    async fn pages(universe: &Universe) -> usize {
        let mut pages = 0;
        for (resource, key) in mls::KEYS {
            // A walk from key to key ends with an empty page: whether a shorter one is the last nobody says.
            pages += mls::truth(universe, resource, key).await.len().div_ceil(Self::PAGE) + 1;
        }
        pages
    }

    async fn in_step(universe: &Universe, deadline: Duration) {
        mls::in_step(universe, deadline).await;
    }
}
