//! Pages larger than an answer may be are asked for in smaller parts, and nothing is missed.

use std::time::Duration;

use crate::support::{Database, Setup, Universe, on_both};

on_both!(a_page_above_the_cap_is_read_in_smaller_ones);

async fn a_page_above_the_cap_is_read_in_smaller_ones(database: Database) {
    // A page of 200 tasks has about 300 KiB.
    let setup = Setup { tables: "[limits]\nupstream_response = \"64KiB\"", entities: 2_000, ..Setup::default() };
    let universe = Universe::started(database, &setup).await;
    universe.in_step(Duration::from_secs(20)).await;
    let metrics = universe.client.get(format!("http://127.0.0.1:{}/metrics", universe.admin_port)).send().await.expect("metrics");
    let text = String::from_utf8(metrics.bytes().await.expect("a body").to_vec()).expect("text");
    let refused: Vec<&str> = text.lines().filter(|line| line.contains("too_large")).collect();
    let live = universe.database.number("select count(*) as n from pmp_tasks").await;
    println!("large_pages {:?}: {live} tasks in step; {refused:?}", universe.database.engine);
    assert!(!refused.is_empty(), "no answer was too large, so nothing was shown");
}
