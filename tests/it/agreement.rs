//! The metrics of agreement say what is true: rows that differ are noticed unasked and put right, and of webhooks that came the delay is known.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::support::universe::about_task;
use crate::support::{Database, Setup, Universe, eventually, on_both};

on_both!(
    rows_that_differ_are_noticed_unasked_and_put_right,
    a_change_whose_webhook_is_under_way_counts_for_nothing,
    delays_of_webhooks_are_measured,
);

const SOON: Duration = Duration::from_secs(60);

/// The metrics of source `pmp` that begin so, by their whole name with labels.
async fn metrics(universe: &Universe, name: &str) -> Result<BTreeMap<String, f64>, String> {
    let answer = universe.client.get(format!("http://127.0.0.1:{}/metrics", universe.admin_port)).send().await;
    let body = answer.map_err(|error| error.to_string())?.bytes().await.map_err(|error| error.to_string())?;
    let text = String::from_utf8(body.to_vec()).map_err(|error| error.to_string())?;
    let of = text.lines().filter(|line| line.starts_with(&format!("instep_{name}")) && line.contains("source=\"pmp\""));
    Ok(of.filter_map(|line| line.rsplit_once(' ')).filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
}

async fn metric(universe: &Universe, name: &str) -> Result<f64, String> {
    metrics(universe, name).await?.into_values().next().ok_or_else(|| format!("no {name}"))
}

/// Nobody tells of the changes and no pass runs: only the samples can find them.
async fn rows_that_differ_are_noticed_unasked_and_put_right(database: Database) {
    let source = "passes = false\nfeeds = false\naudit = { share = 0.5, every = \"1s\" }\n";
    let universe = Universe::started(database, &Setup { entities: 100, source, ..Setup::default() }).await;
    eventually("rows are sampled", SOON, async || match metric(&universe, "agreement_ratio").await? {
        1.0 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    assert_eq!(universe.counted("sampled_rows_differing", "pmp").await, 0);
    let keys = universe.sandbox.keys("tasks").await;
    for key in &keys[..6] {
        universe.sandbox.change_silently("tasks", key, json!({ "title": format!("nobody was told of {key}") })).await;
    }
    universe.in_step(Duration::from_secs(180)).await;
    assert_eq!(universe.counted("sampled_rows_differing", "pmp").await, 6);
    let ratio = metric(&universe, "agreement_ratio").await.expect("a ratio");
    assert!(ratio < 1.0 && ratio > 0.5, "{ratio}");
    println!("agreement {:?}: 6 rows of {} noticed and put right by samples alone, ratio {ratio:.3}", universe.database.engine, keys.len());
}

/// Samples see changes before their webhooks come.
async fn a_change_whose_webhook_is_under_way_counts_for_nothing(database: Database) {
    let source = "passes = false\nfeeds = false\naudit = { share = 0.5, every = \"1s\" }\n";
    let universe = Universe::started(database, &Setup { entities: 20, source, ..Setup::default() }).await;
    let keys = universe.sandbox.keys("tasks").await;
    // A quarter: one turn or two are enough to meet some of them.
    let changed = &keys[..keys.len() / 4];
    for key in changed {
        universe.sandbox.change_silently("tasks", key, json!({ "title": "a webhook is under way" })).await;
    }
    let further = async |n: u64| {
        let before = universe.sandbox.reads("tasks").await;
        eventually(&format!("{n} further reads"), SOON, async || match universe.sandbox.reads("tasks").await - before {
            reads if reads >= n => Ok(()),
            reads => Err(reads.to_string()),
        })
        .await;
    };
    further(3).await;
    for key in changed {
        universe.deliver_surely("task-updated", about_task(key, "late")).await;
    }
    universe.in_step(SOON).await;
    // What differed is looked at again ten seconds later, one record a turn.
    further(20).await;
    assert_eq!(universe.counted("sampled_rows_differing", "pmp").await, 0);
    assert_eq!(metric(&universe, "agreement_ratio").await, Ok(1.0));
}

/// Some webhooks are lost; the feed tells of everything.
async fn delays_of_webhooks_are_measured(database: Database) {
    const CHANGES: usize = 80;
    let source = "passes = false\nfeeds = true\naudit = { share = 0.0 }\nwatch = { late = \"5s\" }\n";
    let universe = Universe::started(database, &Setup { source, ..Setup::default() }).await;
    assert!(universe.verb(&["hooks", "create", "pmp"]).status.success());
    eventually("webhooks are live", SOON, async || match metric(&universe, "live_mode").await? {
        1.0 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    universe.sandbox.control("faults", json!({ "hooks_lost": 0.25 })).await;
    let keys = universe.sandbox.keys("tasks").await;
    for key in &keys[..CHANGES] {
        let asked = json!({ "collection": "tasks", "id": key, "attributes": { "title": format!("{key} again") } });
        universe.sandbox.control("update", asked).await;
    }
    universe.sandbox.quiet(SOON).await;
    universe.in_step(SOON).await;
    let lost = universe.sandbox.report().await["faults"]["hooks_lost"]["count"].as_u64().expect("a count");
    assert!(lost > 5 && lost < CHANGES as u64, "{lost}");
    let expected = (CHANGES as u64 - lost) as f64;
    eventually("they are measured", Duration::from_secs(120), async || match metric(&universe, "webhook_delay_seconds_count").await? {
        n if n == expected => Ok(()),
        n => Err(format!("{n} of {expected}")),
    })
    .await;
    assert!(metric(&universe, "agreement_ratio").await.is_err(), "share = 0: nothing is sampled");
    println!("delays {:?}: {lost} of {CHANGES} webhooks lost, of {expected} the delay is known", universe.database.engine);
}
