//! The queries of whoever brings a catalogue into a shop, unchanged on both stores.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Database, Pim, Universe, eventually, on_both, pim};

on_both!(the_shops_queries_run_unchanged);

const PASSES: &str = "poll = \"1s\", sweep = \"2s\"";
const KEEP: &str = "keep = { families = [\"family_1\"] }";
const SOON: Duration = Duration::from_secs(60);

/// What to push to the shop: changed products with one locale and one channel.
const B1: &str = "select p.key, s.text as sku, n.text as name, v.data as price from pim_products p
left join pim_product_values s on s.key = p.key and s.attribute = 'sku'
left join pim_product_values n on n.key = p.key and n.attribute = 'name' and n.locale = 'fr_FR'
left join pim_product_values v on v.key = p.key and v.attribute = 'price' and v.scope = 'ecommerce'
where p.enabled and p.key in (select key from instep_changes where source = 'pim' and resource = 'products' and number > :cursor) order by p.key";
/// Variants whose model is not here.
const B2: &str = "select p.key, p.parent from pim_products p left join pim_product_models m on m.key = p.parent where p.parent is not null and m.key is null";
/// Whether the Events API may be switched off.
const B3: &str = "select resource, operation, count(distinct key) filter (where via = 'events_api') as legacy, count(distinct key) filter (where via = 'event_platform') as platform
from instep_events where source = 'pim' and received_at >= :since group by 1, 2";
/// What both systems missed.
const B3_MISSED: &str = "select learned_by, count(*) as n from instep_changes where source = 'pim' and at >= :since group by 1";

async fn the_shops_queries_run_unchanged(database: Database) {
    // A model that is not kept hands nothing down; passes find what it changed.
    let resources = vec![("products", PASSES), ("product-models", KEEP)];
    let universe = Pim { resources, source: "", ..Pim::default() }.started(database).await;
    pushes(&universe, 0).await;
    orphans(&universe).await;
    pim::subscribe(&universe, true, true).await;
    let since = universe.database.number("select max(number) as n from instep_changes").await;
    let job = json!({ "changes": 60, "per_second": 200, "resources": ["products", "product-models"], "removals": 0.5 });
    universe.sandbox.control("churn", job).await;
    pim::quiet(&universe, SOON).await;
    pim::in_step(&universe, &["products"], SOON).await;
    pushes(&universe, since).await;
    coverage(&universe).await;
}

/// The only value of an attribute that fits, as its data.
fn value<'a>(product: &'a Value, attribute: &str, fits: impl Fn(&Value) -> bool) -> Option<&'a Value> {
    product["values"][attribute].as_array()?.iter().find(|value| fits(value)).map(|value| &value["data"])
}

async fn pushes(universe: &Universe, cursor: i64) {
    let sql = B1.replace(":cursor", &cursor.to_string());
    let rows = universe.database.rows(&sql, &["key", "sku", "name", "price"]).await;
    let truth = pim::truth(&universe.sandbox, "products").await;
    let sql = format!("select distinct key as v from instep_changes where source = 'pim' and resource = 'products' and number > {cursor}");
    let changed = universe.database.texts(&sql).await;
    let mut expected: Vec<&String> =
        changed.iter().filter(|key| truth.get(*key).is_some_and(|product| product["enabled"] == true)).collect();
    expected.sort();
    let keys: Vec<&String> = rows.iter().filter_map(|row| row[0].as_ref()).collect();
    assert_eq!(keys, expected, "a row for every changed product that is enabled");
    for row in &rows {
        let product = &truth[row[0].as_deref().expect("a key")];
        let text = |data: Option<&Value>| data.and_then(Value::as_str).map(ToOwned::to_owned);
        assert_eq!(row[1], text(value(product, "sku", |_| true)), "{row:?}");
        assert_eq!(row[2], text(value(product, "name", |value| value["locale"] == "fr_FR")), "{row:?}");
        let price = row[3].as_deref().map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
        assert_eq!(price.as_ref(), value(product, "price", |value| value["scope"] == "ecommerce"), "{row:?}");
    }
    let named = rows.iter().filter(|row| row[2].is_some() && row[3].is_some()).count();
    assert!(named > 0, "some have a name and a price");
    println!("pim_scope {:?}: B1 from {cursor}: {} products, {named} with name and price", universe.database.engine, rows.len());
}

async fn orphans(universe: &Universe) {
    let rows = universe.database.rows(B2, &["key", "parent"]).await;
    let models = pim::truth(&universe.sandbox, "product-models").await;
    let is_orphan = |product: &Value| product["parent"].as_str().is_some_and(|parent| models[parent]["family"] != "family_1");
    let mut expected = pim::keys(&universe.sandbox, "products", is_orphan).await;
    let mut keys: Vec<String> = rows.into_iter().filter_map(|row| row[0].clone()).collect();
    keys.sort();
    expected.sort();
    assert_eq!(keys, expected, "variants of models that are not kept");
    println!("pim_scope {:?}: B2: {} variants without their model", universe.database.engine, keys.len());
}

async fn coverage(universe: &Universe) {
    let since = "'2020-01-01T00:00:00.000000Z'";
    let number = |cell: &Option<String>| cell.as_deref().and_then(|text| text.parse::<u64>().ok()).expect("a number");
    let report = universe.sandbox.report().await;
    let mut expected = BTreeMap::new();
    for row in report["coverage"].as_array().expect("rows") {
        let (resource, operation) = (row["resource"].as_str().expect("a name"), row["operation"].as_str().expect("a word"));
        let told = |system: &str| row["keys"][system].as_u64().expect("a number");
        // What a model took along was told by nobody.
        if told("events_api") + told("event_platform") > 0 {
            expected.insert((resource.to_owned(), operation.to_owned()), (told("events_api"), told("event_platform")));
        }
    }
    let sql = B3.replace(":since", since);
    eventually("B3 tells what the PIM counted", SOON, async || {
        let rows = universe.database.try_rows(&sql, &["resource", "operation", "legacy", "platform"]).await?;
        let text = |cell: &Option<String>| cell.clone().unwrap_or_default();
        let held: BTreeMap<_, _> = rows.iter().map(|row| ((text(&row[0]), text(&row[1])), (number(&row[2]), number(&row[3])))).collect();
        if held == expected { Ok(()) } else { Err(format!("{held:?}, {expected:?} counted by the PIM")) }
    })
    .await;
    let missed = universe.database.rows(&B3_MISSED.replace(":since", since), &["learned_by", "n"]).await;
    println!("pim_scope {:?}: B3 {expected:?}, as the PIM counts; changes by how they were learned {missed:?}", universe.database.engine);
    assert!(missed.iter().any(|row| row[0].as_deref() == Some("pass")), "the first sweep: {missed:?}");
}
