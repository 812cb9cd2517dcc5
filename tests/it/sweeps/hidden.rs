//! What is not to be seen in a list, or not to be held, costs no second sweep a request.
//!
//! - Productive lists archived records apart, and may hide them from a list that asks for no status.
//! - MLS Grid shows no longer what may not be viewed but flags it (`MlgCanView`), and sweeps ask for the rest alone. A server of RESO's
//!   standard without such a flag has nothing of the kind: what its client may not see is not there.
//! - A PIM has no archive: its lists show products that are disabled like any other. Those that the configuration does not keep are met
//!   by every sweep and held by none, so that each of them could cost a read.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::{PATIENCE, WRITERS};
use crate::asked_passes::said;
use crate::support::{Database, Mls, Pim, Setup, Universe, is_long, mls, on_both, pim};

on_both!(
    archived_people_cost_a_second_sweep_its_pages,
    listings_that_may_not_be_viewed_cost_a_second_sweep_nothing,
    products_that_are_not_kept_cost_a_second_sweep_its_pages,
);

/// What is hidden in an upstream.
struct Hidden {
    what: &'static str,
    /// Source and resource.
    of: (&'static str, &'static str),
    /// What the upstream counts its requests as.
    collection: &'static str,
    /// How many records there are, and how many of them are hidden.
    records: usize,
    hidden: usize,
    /// Requests of a sweep.
    pages: usize,
}

/// So many records, and how many of them are to be hidden.
fn sizes() -> (usize, usize) {
    if is_long() { (10_000, 3_000) } else { (1_000, 300) }
}

/// Does something for each of so many, by many at a time.
async fn for_each(n: usize, deed: impl AsyncFn(usize)) {
    let deed = &deed;
    futures_util::stream::iter(0..n).for_each_concurrent(WRITERS, |number| async move { deed(number).await }).await;
}

/// Backfills, takes what changed meanwhile, sweeps once more and counts.
async fn costs_its_pages(universe: &mut Universe, hidden: &Hidden) {
    let (source, resource) = hidden.of;
    universe.run().await;
    universe.backfilled().await;
    let is_of_it = |row: &Value| row["collection"] == hidden.collection;
    // The first incremental pass is due behind the backfill, whoever asks for what.
    let polled = universe.verb(&["reconcile", source, resource]);
    assert_eq!(polled.status.code(), Some(0), "{}", said(&polled));
    universe.idle(PATIENCE).await;
    let before = universe.sandbox.requests(is_of_it).await;
    let swept = universe.verb(&["reconcile", source, resource, "--sweep"]);
    assert_eq!(swept.status.code(), Some(0), "{}", said(&swept));
    universe.idle(PATIENCE).await;
    let asked = universe.sandbox.requests(is_of_it).await - before;
    println!(
        "sweeps {:?}: {} {}, {} of them {}; another sweep took {asked} requests for {} pages",
        universe.database.engine, hidden.records, resource, hidden.hidden, hidden.what, hidden.pages,
    );
    let (n, n_hidden) = sizes();
    assert!(hidden.hidden >= n_hidden && hidden.records >= n && asked >= hidden.pages as u64);
    assert!(asked as f64 <= hidden.pages as f64 * 1.05, "{asked} requests for {} pages", hidden.pages);
}

async fn archived_people_cost_a_second_sweep_its_pages(database: Database) {
    let (n, n_archived) = sizes();
    let resources = vec![("people", "")];
    let mut universe =
        Universe::new(database, &Setup { entities: 100, resources, sandbox: vec!["--hide-archived".to_owned()], ..Setup::default() });
    for_each(n, async |number| {
        let made = universe.sandbox.control("create", json!({ "collection": "people", "announce": false })).await;
        if number < n_archived {
            universe.sandbox.control("archive", json!({ "collection": "people", "id": made["id"] })).await;
        }
    })
    .await;
    let people = universe.sandbox.truth("people").await;
    let archived = people.values().filter(|person| person["attributes"]["archived_at"].is_string()).count();
    let pages = (people.len() - archived).div_ceil(200) + archived.div_ceil(200);
    let (what, of) = ("archived and hidden from plain lists", ("pmp", "people"));
    costs_its_pages(&mut universe, &Hidden { what, of, collection: "people", records: people.len(), hidden: archived, pages }).await;
    assert_eq!(universe.differences("people").await, Ok(Vec::new()));
}

/// MLS Grid's pages have a thousand records, so that the short form has more of them: a page of it is hidden.
async fn listings_that_may_not_be_viewed_cost_a_second_sweep_nothing(database: Database) {
    let (n, n_hidden) = if is_long() { sizes() } else { (2_700, 810) };
    let mut universe = Mls {
        entities: n as u64,
        resources: vec![("Property", "")],
        source: "profile = \"mlsgrid\"\noriginating_system = \"demo\"\npasses = false",
        sandbox: vec!["--profile", "mlsgrid"],
        ..Mls::default()
    }
    .universe(database);
    let keys: Vec<String> = mls::truth(&universe, "Property", "ListingKey").await.into_keys().collect();
    let gone: Vec<&String> = keys.iter().step_by(3).take(n_hidden).collect();
    for_each(gone.len(), async |number| {
        universe.sandbox.control("delete", json!({ "resource": "Property", "key": gone[number] })).await;
    })
    .await;
    let seen = mls::truth(&universe, "Property", "ListingKey").await;
    let pages = seen.len().div_ceil(1_000);
    let (what, of) = ("not to be viewed", ("mls", "Property"));
    let hidden = Hidden { what, of, collection: "Property", records: keys.len(), hidden: gone.len(), pages };
    costs_its_pages(&mut universe, &hidden).await;
    assert_eq!(mls::differences_of(&universe, "Property", &seen).await, Ok(Vec::new()));
}

async fn products_that_are_not_kept_cost_a_second_sweep_its_pages(database: Database) {
    let (n, n_disabled) = sizes();
    let resources = vec![("products", "keep = { enabled = true }")];
    let mut universe = Pim { entities: n as u64, resources, ..Pim::default() }.universe(database);
    let keys = pim::keys(&universe.sandbox, "products", |_| true).await;
    for_each(n_disabled, async |number| {
        let fields = json!({ "fields": { "enabled": false } });
        pim::change(&universe, "update", "products", Some(&keys[number * 3]), fields).await;
    })
    .await;
    let mut kept: BTreeMap<String, Value> = pim::truth(&universe.sandbox, "products").await;
    kept.retain(|_, product| product["enabled"] == true);
    let pages = pim::pages(&universe.sandbox, "products").await;
    let (what, of, disabled) = ("disabled, listed and not kept", ("pim", "products"), keys.len() - kept.len());
    let hidden = Hidden { what, of, collection: "products-uuid", records: keys.len(), hidden: disabled, pages };
    costs_its_pages(&mut universe, &hidden).await;
    assert_eq!(pim::differences_from(&universe, "products", &kept).await, Ok(Vec::new()));
}
