//! What stands below a product model follows it: the PIM tells of the model alone.
//!
//! There are no passes. A model that is removed takes its variants along, a value of it that changes changes theirs, and the stamp
//! of a variant tells neither. The short form has models of 30 variants, the long one of 10,000:
//! `INSTEP_LONG=1 cargo test --release --features failpoints --test it pim_cascade -- --nocapture`.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Database, Pim, Universe, eventually, is_long, monotonic, on_both, pim};

on_both!(
    a_removed_model_takes_its_descendants_along,
    what_a_model_hands_down_reaches_every_variant,
    a_variant_that_moved_outlives_its_old_model,
);

const RESOURCES: [&str; 2] = ["products", "product-models"];
/// Rows that may go by their absence alone: far fewer than a model has variants.
const BUDGET: usize = 3;
const BRAKE: &str = "passes = false\nbrake = { share = 0.01, rows = 3, cap = 3 }";
const CALLS: usize = 50;

fn n_variants() -> usize {
    if is_long() { 10_000 } else { 30 }
}

fn soon() -> Duration {
    Duration::from_secs(if is_long() { 900 } else { 60 })
}

/// A model with two sub models, each with half of the variants.
struct Family {
    root: String,
    subs: Vec<String>,
    variants: Vec<String>,
}

impl Family {
    async fn create(universe: &Universe) -> Self {
        let of = |variant: &str| json!({ "fields": { "family": "family_1", "family_variant": variant } });
        let root = pim::change(universe, "create", "product-models", None, of("family_1_by_color_size")).await;
        let mut subs = Vec::new();
        for _ in 0..2 {
            let below = json!({ "fields": { "parent": root } });
            subs.push(pim::change(universe, "create", "product-models", None, below).await);
        }
        let mut variants = Vec::new();
        let parents: Vec<&String> = (0..n_variants()).map(|number| &subs[number % subs.len()]).collect();
        for parents in parents.chunks(CALLS) {
            let below = |parent: &&String| json!({ "fields": { "parent": parent } });
            let created = parents.iter().map(|parent| pim::change(universe, "create", "products", None, below(parent)));
            variants.extend(join_all(created).await);
        }
        Self { root, subs, variants }
    }
}

/// A PIM with such families, of which both systems tell only what comes from now on.
async fn with_families(database: Database, source: &'static str, n: usize) -> (Universe, Vec<Family>) {
    let mut universe = Pim { source, ..Pim::default() }.universe(database);
    let mut families = Vec::new();
    for _ in 0..n {
        families.push(Family::create(&universe).await);
    }
    universe.run().await;
    universe.swept_within(soon()).await;
    universe.idle(soon()).await;
    (universe, families)
}

async fn n_live(universe: &Universe, keys: &[String]) -> usize {
    let held: BTreeSet<String> = universe.database.texts("select key as v from pim_products").await.into_iter().collect();
    keys.iter().filter(|key| held.contains(*key)).count()
}

async fn told_events(universe: &Universe) -> u64 {
    universe.sandbox.report().await["deliveries"]["events_api"]["counts"]["sent"].as_u64().unwrap_or(0)
}

async fn a_removed_model_takes_its_descendants_along(database: Database) {
    let (universe, families) = with_families(database, BRAKE, 1).await;
    let family = &families[0];
    assert_eq!(n_live(&universe, &family.variants).await, n_variants());
    pim::subscribe(&universe, true, false).await;
    let begun = monotonic();
    pim::change(&universe, "delete", "product-models", Some(&family.root), json!({})).await;
    pim::quiet(&universe, soon()).await;
    assert_eq!(told_events(&universe).await, 1, "the PIM tells of the model alone");
    pim::in_step(&universe, &RESOURCES, soon()).await;
    let took = monotonic() - begun;
    universe.idle(soon()).await;
    assert_eq!(n_live(&universe, &family.variants).await, 0);
    let held = universe.database.number("select count(*) as n from instep_mark where held").await;
    assert_eq!(held, 0, "nothing waits for an operator");
    budget_is_whole(&universe).await;
    println!(
        "pim_cascade {:?}: one event removed a model, {} sub models and {} variants within {took:.1?}; the budget of 3 was left",
        universe.database.engine,
        family.subs.len(),
        family.variants.len()
    );
}

/// As many as the budget has may still go without a word, and no more.
async fn budget_is_whole(universe: &Universe) {
    let simple = |product: &Value| product["parent"].is_null() && product["associations"] == json!({});
    let keys = pim::keys(&universe.sandbox, "products", simple).await;
    for key in keys.iter().take(BUDGET + 1) {
        pim::change(universe, "delete", "products", Some(key), json!({ "announce": false })).await;
        let hint = pim::cloud_event("product.updated", &json!({ "product": { "uuid": key } }));
        assert_eq!(pim::send_platform(universe, &hint).await, 200);
    }
    eventually("the last one is held", soon(), async || {
        let held = universe.database.try_number("select count(*) as n from instep_mark where held").await?;
        let live = n_live(universe, &keys[..=BUDGET]).await;
        if (held, live) == (1, 1) { Ok(()) } else { Err(format!("{held} held, {live} live")) }
    })
    .await;
}

async fn what_a_model_hands_down_reaches_every_variant(database: Database) {
    let (universe, families) = with_families(database, "passes = false", 1).await;
    let family = &families[0];
    pim::subscribe(&universe, false, true).await;
    let stamps = async || {
        let truth = pim::truth(&universe.sandbox, "products").await;
        family.variants.iter().map(|key| truth[key]["updated"].clone()).collect::<Vec<Value>>()
    };
    let before = stamps().await;
    let begun = monotonic();
    pim::change(&universe, "update", "product-models", Some(&family.root), json!({ "fields": pim::values("name", "handed down") })).await;
    pim::in_step(&universe, &RESOURCES, soon()).await;
    let took = monotonic() - begun;
    assert_eq!(stamps().await, before, "their own stamps stay");
    let named = "select count(*) as n from pim_product_values where attribute = 'name' and text = 'handed down'";
    assert_eq!(universe.database.number(named).await, n_variants() as i64);

    // Something of the model that no sub model shows, and what it makes of the variants.
    universe.idle(soon()).await;
    let subs = async || {
        universe.replica("pim_product_models").await.map(|rows| family.subs.iter().map(|key| rows[key].clone()).collect::<Vec<_>>())
    };
    let held = subs().await;
    for keys in family.variants.chunks(CALLS) {
        let silent = || json!({ "fields": { "groups": ["by inheritance"] }, "announce": false });
        join_all(keys.iter().map(|key| pim::change(&universe, "update", "products", Some(key), silent()))).await;
    }
    pim::change(&universe, "update", "product-models", Some(&family.root), json!({ "fields": { "categories": ["master"] } })).await;
    pim::in_step(&universe, &RESOURCES, soon()).await;
    assert_eq!(subs().await, held, "the sub models in between did not change");
    println!(
        "pim_cascade {:?}: a model's value reached {} variants below two sub models within {took:.1?}; so did what no sub model shows",
        universe.database.engine,
        family.variants.len()
    );
}

async fn a_variant_that_moved_outlives_its_old_model(database: Database) {
    let (universe, families) = with_families(database, BRAKE, 2).await;
    let (old, new) = (&families[0], &families[1]);
    let moved: Vec<&String> = old.variants.iter().take(8).collect();
    // Of half of the moves nobody ever hears.
    for (number, key) in moved.iter().enumerate() {
        if number == moved.len() / 2 {
            pim::subscribe(&universe, true, true).await;
        }
        pim::change(&universe, "update", "products", Some(key), json!({ "fields": { "parent": new.subs[0] } })).await;
    }
    pim::change(&universe, "delete", "product-models", Some(&old.root), json!({})).await;
    pim::quiet(&universe, soon()).await;
    pim::in_step(&universe, &RESOURCES, soon()).await;
    let places = format!("select count(*) as n from pim_products where parent = '{}'", new.subs[0]);
    assert_eq!(universe.database.number(&places).await, n_variants().div_ceil(2) as i64 + 8);
    let gone = "select count(*) as n from instep_changes where resource = 'products' and operation = 'delete'";
    assert_eq!(universe.database.number(gone).await, n_variants() as i64 - 8, "what moved was never removed");
    println!(
        "pim_cascade {:?}: of {} variants the 8 that moved stayed when their old model went; of 4 moves nothing was told",
        universe.database.engine,
        old.variants.len()
    );
}
