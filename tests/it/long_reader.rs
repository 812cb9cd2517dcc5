//! A reader that keeps its transaction open holds the store's cleaning back, and never unnoticed.

use std::time::Duration;

use futures_util::future::join;

use crate::support::universe::about_task;
use crate::support::{Database, Setup, Universe, eventually, on_both};

on_both!(an_idle_transaction_of_another_process_is_told_of);

/// Three runs of the janitor: it sees the copying stand for the first time, sees it still stand, and sees it go on.
const SOON: Duration = Duration::from_secs(40);
const TOLD: &str = "a reader of the database has kept a transaction open";

async fn an_idle_transaction_of_another_process_is_told_of(database: Database) {
    let mut universe = Universe::started(database, &Setup { store: "reader_max = \"2s\"", ..Setup::default() }).await;
    let keys = universe.sandbox.keys("tasks").await;
    let told = async |universe: &Universe| {
        let wrong = universe.status().await?["wrong"].clone();
        let is_told = wrong.as_array().is_some_and(|all| all.iter().any(|one| one.as_str().is_some_and(|text| text.starts_with(TOLD))));
        Ok::<_, String>((is_told, wrong))
    };
    assert!(!told(&universe).await.expect("a status").0);
    let watching = async {
        let mut n = 0;
        eventually("the reader is told of", SOON, async || {
            // So that there is something to hold back.
            n += 1;
            universe.deliver_surely("task-updated", &about_task(&keys[0], &format!("{n}"))).await;
            let (is_told, wrong) = told(&universe).await?;
            if is_told { Ok(()) } else { Err(wrong.to_string()) }
        })
        .await;
        let metrics = universe.client.get(format!("http://127.0.0.1:{}/metrics", universe.admin_port)).send().await.expect("metrics");
        String::from_utf8(metrics.bytes().await.expect("a body").to_vec()).expect("text")
    };
    let ((), metrics) = join(universe.database.read_without_end(Duration::from_secs(24)), watching).await;
    let line = metrics.lines().find(|line| line.starts_with("instep_reader_seconds")).expect("the gauge").to_owned();
    eventually("its end is noticed", SOON, async || match told(&universe).await? {
        (false, _) => Ok(()),
        (true, wrong) => Err(wrong.to_string()),
    })
    .await;
    assert!(universe.daemon().said().contains("a reader keeps a transaction open"), "a line in the log");
    println!("long_reader {:?}: told of in /status, in the log and as {line}", universe.database.engine);
}
