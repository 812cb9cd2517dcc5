//! The process ends while what stands below a record is told to be looked at: the next one goes on where it ended, and every record
//! below follows.
//!
//! The points are those of `table.rs` that only an upstream with hierarchies passes. Each is died at once after a change and once after
//! a removal, in the long form three times:
//! `INSTEP_LONG=1 cargo test --release --features failpoints --test it failpoints::cascades -- --nocapture`.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::{FORGIVE, dies, launch, points};
use crate::failpoints_table::By;
use crate::support::{Database, Pim, Universe, eventually, on_both, pim};

on_both!(a_cascade_may_end_anywhere);

/// Variants of each model.
const CHILDREN: usize = 20;
const SOON: Duration = Duration::from_secs(60);

/// A death to die.
struct Death {
    point: String,
    is_removal: bool,
    model: String,
}

async fn model_with_variants(universe: &Universe) -> String {
    let root = json!({ "fields": { "family": "family_1", "family_variant": "family_1_by_size" } });
    let model = pim::change(universe, "create", "product-models", None, root).await;
    let below = || json!({ "fields": { "parent": model } });
    join_all((0..CHILDREN).map(|_| pim::change(universe, "create", "products", None, below()))).await;
    model
}

async fn deaths(universe: &Universe) -> Vec<Death> {
    let mut deaths = Vec::new();
    for (_, point) in points(By::Cascade) {
        for is_removal in [false, true] {
            deaths.push(Death { point: point.clone(), is_removal, model: model_with_variants(universe).await });
        }
    }
    deaths
}

/// Something happens to the model, and the daemon is told.
async fn happens(universe: &Universe, death: &Death, number: usize) {
    let (verb, action) = if death.is_removal { ("delete", "product_model.removed") } else { ("update", "product_model.updated") };
    let further = if death.is_removal { json!({}) } else { json!({ "fields": pim::values("name", &format!("change {number}")) }) };
    pim::change(universe, verb, "product-models", Some(&death.model), further).await;
    let body = pim::event(action, &json!({ "code": death.model }));
    // It may die of it before it has answered.
    pim::arrives(async || pim::try_send_events(universe, &body).await.unwrap_or(200)).await;
}

/// No delivery, no mark and no cascade.
async fn nothing_waits(universe: &Universe) {
    let waiting = "select (select count(*) from instep_cascade) + (select count(*) from instep_mark) + \
                   (select count(*) from instep_delivery where state = 'pending') as n";
    eventually("nothing waits", SOON, async || match universe.database.try_number(waiting).await? {
        0 => Ok(()),
        n => Err(format!("{n} wait")),
    })
    .await;
}

async fn a_cascade_may_end_anywhere(database: Database) {
    let mut universe = Pim::default().universe(database);
    let deaths = deaths(&universe).await;
    let mut points = launch(&mut universe).await;
    universe.swept_within(SOON * 2).await;
    universe.idle(SOON).await;
    for (number, death) in deaths.iter().enumerate() {
        points.set_deadly(&death.point, "return(abort)");
        happens(&universe, death, number).await;
        dies(&mut universe, &death.point).await;
        universe.database.execute(FORGIVE).await;
        points = launch(&mut universe).await;
        // What was cut off goes on, and would die the next death before anybody told of it.
        nothing_waits(&universe).await;
    }
    pim::in_step(&universe, &["products", "product-models"], SOON * 2).await;
    universe.idle(SOON).await;
    let n_changes = universe.database.assert_numbers_without_holes().await;
    let engine = universe.database.engine;
    println!("cascades {engine:?}: {} deaths, each model's {CHILDREN} variants followed, {n_changes} changes without hole", deaths.len());
}
