//! What is not to be seen in a list, or not to be held, costs no second sweep a request.
//!
//! - Productive lists archived records apart, and may hide them from a list that asks for no status.
//! - MLS Grid shows no longer what may not be viewed but flags it (`MlgCanView`), and sweeps ask for the rest alone. A server of RESO's
//!   standard without such a flag has nothing of the kind: what its client may not see is not there.
//! - A PIM has no archive: its lists show products that are disabled like any other. Those that the configuration does not keep are met
//!   by every sweep and held by none, so that each of them could cost a read.
//!
//! Half of it is hidden from the beginning, the other half after it was held.

use std::collections::BTreeMap;
use std::ops::Range;

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
    /// How many records there are, and how many of them are to be hidden.
    sizes: (usize, usize),
}

/// What an upstream has: records, hidden ones, and requests of a sweep.
struct Has {
    records: usize,
    hidden: usize,
    pages: usize,
}

/// So many records, and how many of them are to be hidden.
fn sizes() -> (usize, usize) {
    if is_long() { (10_000, 3_000) } else { (1_000, 300) }
}

/// Does something for each number, many at a time.
async fn for_each(numbers: Range<usize>, deed: impl AsyncFn(usize)) {
    let deed = &deed;
    futures_util::stream::iter(numbers).for_each_concurrent(WRITERS, |number| async move { deed(number).await }).await;
}

/// Backfills, takes what changed meanwhile, sweeps once more and counts.
async fn costs_its_pages(
    universe: &mut Universe,
    hidden: &Hidden,
    hide: impl AsyncFn(&Universe, usize),
    has: impl AsyncFn(&Universe) -> Has,
) {
    let ((source, resource), (n, n_hidden)) = (hidden.of, hidden.sizes);
    for_each(0..n_hidden / 2, async |number| hide(universe, number).await).await;
    universe.run().await;
    universe.backfilled().await;
    for_each(n_hidden / 2..n_hidden, async |number| hide(universe, number).await).await;
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
    let has = has(universe).await;
    println!(
        "sweeps {:?}: {} {}, {} of them {}; another sweep took {asked} requests for {} pages",
        universe.database.engine, has.records, resource, has.hidden, hidden.what, has.pages,
    );
    assert!(has.hidden >= n_hidden && has.records >= n && asked >= has.pages as u64);
    assert!(asked as f64 <= has.pages as f64 * 1.05, "{asked} requests for {} pages", has.pages);
}

async fn archived_people_cost_a_second_sweep_its_pages(database: Database) {
    let (resources, sandbox) = (vec![("people", "")], vec!["--hide-archived".to_owned()]);
    let mut universe = Universe::new(database, &Setup { entities: 100, resources, sandbox, ..Setup::default() });
    let sizes = sizes();
    for_each(0..sizes.0, async |_| drop(universe.sandbox.control("create", json!({ "collection": "people", "announce": false })).await))
        .await;
    let keys = universe.sandbox.keys("people").await;
    let hide = async |universe: &Universe, number: usize| {
        universe.sandbox.control("archive", json!({ "collection": "people", "id": keys[number * 3] })).await;
    };
    let has = async |universe: &Universe| {
        let people = universe.sandbox.truth("people").await;
        let archived = people.values().filter(|person| person["attributes"]["archived_at"].is_string()).count();
        Has { records: people.len(), hidden: archived, pages: (people.len() - archived).div_ceil(200) + archived.div_ceil(200) }
    };
    let hidden = Hidden { what: "archived and hidden from plain lists", of: ("pmp", "people"), collection: "people", sizes };
    costs_its_pages(&mut universe, &hidden, hide, has).await;
    assert_eq!(universe.differences("people").await, Ok(Vec::new()));
}

/// MLS Grid's pages have a thousand records, so that the short form has more of them: a page of it is hidden.
async fn listings_that_may_not_be_viewed_cost_a_second_sweep_nothing(database: Database) {
    let sizes = if is_long() { sizes() } else { (2_700, 810) };
    let source = "profile = \"mlsgrid\"\noriginating_system = \"demo\"\npasses = false";
    let (resources, sandbox) = (vec![("Property", "")], vec!["--profile", "mlsgrid"]);
    let mut universe = Mls { entities: sizes.0 as u64, resources, source, sandbox, ..Mls::default() }.universe(database);
    let keys: Vec<String> = mls::truth(&universe, "Property", "ListingKey").await.into_keys().collect();
    let hide = async |universe: &Universe, number: usize| {
        universe.sandbox.control("delete", json!({ "resource": "Property", "key": keys[number * 3] })).await;
    };
    let has = async |universe: &Universe| {
        let seen = mls::truth(universe, "Property", "ListingKey").await.len();
        Has { records: keys.len(), hidden: keys.len() - seen, pages: seen.div_ceil(1_000) }
    };
    let hidden = Hidden { what: "not to be viewed", of: ("mls", "Property"), collection: "Property", sizes };
    costs_its_pages(&mut universe, &hidden, hide, has).await;
    let seen = mls::truth(&universe, "Property", "ListingKey").await;
    assert_eq!(mls::differences_of(&universe, "Property", &seen).await, Ok(Vec::new()));
}

async fn products_that_are_not_kept_cost_a_second_sweep_its_pages(database: Database) {
    let (sizes, resources) = (sizes(), vec![("products", "keep = { enabled = true }")]);
    let mut universe = Pim { entities: sizes.0 as u64, resources, ..Pim::default() }.universe(database);
    let keys = pim::keys(&universe.sandbox, "products", |_| true).await;
    let hide = async |universe: &Universe, number: usize| {
        let fields = json!({ "fields": { "enabled": false } });
        pim::change(universe, "update", "products", Some(&keys[number * 3]), fields).await;
    };
    let kept = async |universe: &Universe| {
        let mut kept: BTreeMap<String, Value> = pim::truth(&universe.sandbox, "products").await;
        kept.retain(|_, product| product["enabled"] == true);
        kept
    };
    let has = async |universe: &Universe| {
        let hidden = keys.len() - kept(universe).await.len();
        Has { records: keys.len(), hidden, pages: pim::pages(&universe.sandbox, "products").await }
    };
    let hidden = Hidden { what: "disabled, listed and not kept", of: ("pim", "products"), collection: "products-uuid", sizes };
    costs_its_pages(&mut universe, &hidden, hide, has).await;
    assert_eq!(pim::differences_from(&universe, "products", &kept(&universe).await).await, Ok(Vec::new()));
}
