//! What of a PIM is kept, what is left alone, and what costs nothing: the scope, our own writes, events of no concern, tokens.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Database, Pim, Universe, eventually, monotonic, on_both, pim};

mod queries;

on_both!(
    what_leaves_the_scope_goes_and_returns_by_event,
    what_leaves_the_scope_goes_and_returns_by_pass,
    our_own_writes_are_left_alone,
    what_is_of_no_concern_is_acknowledged,
    tokens_that_end_cost_no_row,
    a_token_that_is_revoked_costs_one_request,
);

const SOON: Duration = Duration::from_secs(30);
const KEEP: &str = "keep = { families = [\"family_1\", \"family_2\"], categories = [\"category_*\"], enabled = true }";
const KEEP_SWEPT: &str =
    "keep = { families = [\"family_1\", \"family_2\"], categories = [\"category_*\"], enabled = true }, poll = \"1s\", sweep = \"2s\"";

/// The rule of [`KEEP`], written down a second time.
fn is_kept(product: &Value) -> bool {
    let family = product["family"].as_str().unwrap_or_default();
    let is_in_one = product["categories"].as_array().is_some_and(|codes| codes.iter().any(|code| code.as_str().is_some_and(is_category)));
    ["family_1", "family_2"].contains(&family) && is_in_one && product["enabled"] == true
}

fn is_category(code: &str) -> bool {
    code.starts_with("category_")
}

/// Waits until the replica holds what is in scope, and nothing else.
async fn in_scope(universe: &Universe) -> usize {
    let mut truth = pim::truth(&universe.sandbox, "products").await;
    truth.retain(|_, product| is_kept(product));
    becomes(universe, &truth).await;
    truth.len()
}

async fn becomes(universe: &Universe, truth: &BTreeMap<String, Value>) {
    eventually("the replica holds what is in scope", SOON, async || {
        match pim::differences_from(universe, "products", truth).await?.as_slice() {
            [] => Ok(()),
            found => Err(format!("{} differences; {}", found.len(), found[0])),
        }
    })
    .await;
}

/// Products that are in scope and stand below no model.
async fn simple(universe: &Universe) -> Vec<String> {
    pim::keys(&universe.sandbox, "products", |product| is_kept(product) && product["parent"].is_null()).await
}

async fn edit(universe: &Universe, key: &str, fields: Value, announce: bool) {
    pim::change(universe, "update", "products", Some(key), json!({ "fields": fields, "announce": announce })).await;
}

/// Why a product is in the replica no more.
async fn reason(universe: &Universe, key: &str) -> Vec<String> {
    universe
        .database
        .texts(&format!("select deleted_reason as v from pim_products_all where key = '{key}' and deleted_at is not null"))
        .await
}

/// Takes products out of the scope in each way that there is, and back in.
async fn out_and_in(universe: &Universe, announce: bool) -> usize {
    let (mut keys, truth) = (simple(universe).await.into_iter(), pim::truth(&universe.sandbox, "products").await);
    let all = in_scope(universe).await;
    let ways = [json!({ "enabled": false }), json!({ "family": "family_3" }), json!({ "categories": ["master"] })];
    let mut left = Vec::new();
    for way in ways {
        let key = keys.next().expect("there are enough products in scope");
        edit(universe, &key, way, announce).await;
        left.push(key);
    }
    assert_eq!(in_scope(universe).await, all - left.len());
    for key in &left {
        assert_eq!(reason(universe, key).await, ["out of scope"], "{key}");
    }
    for key in &left {
        let before = |name: &str| truth[key][name].clone();
        let back = json!({ "enabled": true, "family": before("family"), "categories": before("categories") });
        edit(universe, key, back, announce).await;
    }
    assert_eq!(in_scope(universe).await, all, "they return");
    let held = universe.database.number("select count(*) as n from instep_mark where held").await;
    assert_eq!(held, 0, "who leaves the scope is seen to leave, and spends no budget");
    all
}

async fn what_leaves_the_scope_goes_and_returns_by_event(database: Database) {
    let pim = Pim { resources: vec![("products", KEEP)], ..Pim::default() };
    let universe = pim.started(database).await;
    for (events_api, platform) in [(true, false), (false, true)] {
        pim::subscribe(&universe, events_api, platform).await;
        let all = out_and_in(&universe, true).await;
        let by = if events_api { "the Events API" } else { "the Event Platform" };
        println!("pim_scope {:?}: of {all} products three leave and return by {by}", universe.database.engine);
    }
}

async fn what_leaves_the_scope_goes_and_returns_by_pass(database: Database) {
    let pim = Pim { resources: vec![("products", KEEP_SWEPT)], source: "", ..Pim::default() };
    let universe = pim.started(database).await;
    for (announce, by) in [(true, "a pass that asks for changes"), (false, "a sweep alone")] {
        let all = out_and_in(&universe, announce).await;
        println!("pim_scope {:?}: of {all} products three leave and return by {by}", universe.database.engine);
    }
}

async fn our_own_writes_are_left_alone(database: Database) {
    let pim = Pim { resources: vec![("products", "")], source: "passes = false\nignore_authors = [\"shop_writer\"]", ..Pim::default() };
    let universe = pim.started(database).await;
    pim::subscribe(&universe, true, true).await;
    let key = pim::keys(&universe.sandbox, "products", |product| product["parent"].is_null()).await.remove(0);
    let before = universe.replica("pim_products").await.expect("the replica");
    let ours = json!({ "fields": { "groups": ["ours"] }, "author": "shop_writer", "author_type": "api" });
    pim::change(&universe, "update", "products", Some(&key), ours).await;
    pim::quiet(&universe, SOON).await;
    eventually("both systems have told of it", SOON, async || match universe.counted("events", "outcome=\"ignored_author\"").await {
        2 => Ok(()),
        n => Err(format!("{n} events")),
    })
    .await;
    universe.idle(SOON).await;
    assert_eq!(universe.replica("pim_products").await.as_ref(), Ok(&before), "what we wrote ourselves is no news");
    pim::change(&universe, "update", "products", Some(&key), json!({ "fields": { "groups": ["hers"] } })).await;
    pim::in_step(&universe, &["products"], SOON).await;
    println!("pim_scope {:?}: a write of our own was told by both systems and left alone", universe.database.engine);
}

async fn what_is_of_no_concern_is_acknowledged(database: Database) {
    let universe = Pim { resources: vec![("products", "")], ..Pim::default() }.started(database).await;
    pim::subscribe(&universe, true, false).await;
    let requests = universe.sandbox.report().await["requests_total"].clone();
    let probed = universe.sandbox.control("subscription", json!({ "events_api": { "probe": true } })).await;
    assert_eq!(probed["events_api"]["probe_status"], 200, "the test button");
    assert_eq!(pim::send_events(&universe, "").await, 200, "the same, signed here");
    let app = json!({ "client_id": "1_x" });
    for word in ["app.deleted", "job.export.status-changed", "workflow.task.completed", "product.something-new", "novelty.invented"] {
        assert_eq!(pim::send_platform(&universe, &pim::cloud_event(word, &app)).await, 200, "{word}");
    }
    let foreign = pim::cloud_event("x", &app).replace("com.akeneo.pim.v1.x", "org.example.other");
    assert_eq!(pim::send_platform(&universe, &foreign).await, 200, "not even the vendor's prefix");
    let quarantined = async || universe.database.try_number("select count(*) as n from instep_quarantine").await;
    universe.idle(SOON).await;
    assert_eq!(quarantined().await, Ok(0), "what is of no concern is no mistake");
    let unreadable = ["no JSON at all", "{\"events\": 7}", "{\"events\":[{\"action\":\"product.updated\"}]}"];
    for body in unreadable {
        assert_eq!(pim::send_events(&universe, body).await, 200, "{body}");
        assert_eq!(pim::send_platform(&universe, body).await, 200, "{body}");
    }
    let n = 2 * unreadable.len() as i64;
    eventually("each of them is quarantined", SOON, async || match quarantined().await? {
        found if found == n => Ok(()),
        found => Err(format!("{found} of {n}")),
    })
    .await;
    assert_eq!(universe.sandbox.report().await["requests_total"], requests, "nothing of it is asked for");
    println!(
        "pim_scope {:?}: probes and 6 types of no concern answered 200, {n} unreadable bodies 200 and quarantined",
        universe.database.engine
    );
}

/// Requests of the daemon, by what was asked for and answered.
async fn asked(universe: &Universe, collection: &str, status: u16) -> u64 {
    let report = universe.sandbox.report().await;
    let rows = report["requests"].as_array().cloned().unwrap_or_default();
    let is_it = |row: &&Value| row["collection"] == collection && row["status"] == status;
    rows.iter().filter(is_it).filter_map(|row| row["count"].as_u64()).sum()
}

/// Changes a product that nobody changed before, so that it is asked for at once; how many requests were refused for their token.
async fn refused_meanwhile(universe: &Universe, key: Option<String>) -> u64 {
    let (key, before) = (key.expect("there are enough products"), asked(universe, "products-uuid", 401).await);
    edit(universe, &key, json!({ "groups": ["news"] }), true).await;
    pim::in_step(universe, &["products"], SOON).await;
    asked(universe, "products-uuid", 401).await - before
}

/// Nothing was removed and nothing put aside for want of a token.
async fn unharmed(universe: &Universe) {
    assert_eq!(universe.database.number("select count(*) as n from instep_quarantine").await, 0);
    assert_eq!(universe.database.number("select count(*) as n from instep_changes where operation = 'delete'").await, 0);
}

async fn tokens_that_end_cost_no_row(database: Database) {
    const LIVES: Duration = Duration::from_secs(7);
    let pim = Pim { resources: vec![("products", "")], sandbox: vec!["--token-ttl-ms", "2000"], ..Pim::default() };
    let universe = pim.started(database).await;
    pim::subscribe(&universe, false, true).await;
    let mut keys = pim::keys(&universe.sandbox, "products", |_| true).await.into_iter();
    let (begun, mut refused, mut n) = (monotonic(), 0, 0);
    while monotonic() < begun + LIVES {
        refused += refused_meanwhile(&universe, keys.next()).await;
        n += 1;
    }
    let logins = asked(&universe, "token", 200).await;
    println!(
        "pim_scope {:?}: {n} changes over {LIVES:?} with tokens of 2 s: {logins} tokens, {refused} requests refused",
        universe.database.engine
    );
    assert!(logins > 3 && refused <= logins, "{refused} requests refused with {logins} tokens");
    unharmed(&universe).await;
}

async fn a_token_that_is_revoked_costs_one_request(database: Database) {
    let universe = Pim { resources: vec![("products", "")], ..Pim::default() }.started(database).await;
    pim::subscribe(&universe, false, true).await;
    let mut keys = pim::keys(&universe.sandbox, "products", |_| true).await.into_iter();
    let mut refused = Vec::new();
    for refresh_too in [true, false, true] {
        universe.sandbox.control("revoke", json!({ "refresh": refresh_too })).await;
        refused.push(refused_meanwhile(&universe, keys.next()).await);
    }
    println!("pim_scope {:?}: tokens revoked three times: {refused:?} requests refused", universe.database.engine);
    assert_eq!(refused, [1, 1, 1], "each is noticed by one request");
    unharmed(&universe).await;
}
