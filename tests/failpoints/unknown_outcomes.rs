//! A commit that reports a failure although it holds, as a connection lost at that moment does: whoever wrote forgets what it
//! knew and reads the rows again, so nothing happens twice.
//!
//! Every transaction of `table.rs` that this story passes gets such a commit; the long form three in a row:
//! `INSTEP_LONG=1 cargo test --release --features failpoints --test it failpoints::unknown_outcomes -- --nocapture --test-threads=1`.

use super::story::Story;
use crate::failpoints_table::{By, STEPS, TRANSACTION};
use crate::support::{Database, is_long, on_both};

on_both!(every_commit_may_report_a_failure_and_hold);

async fn every_commit_may_report_a_failure_and_hold(database: Database) {
    let mut story = Story::running(database).await;
    let (engine, times) = (story.engine(), if is_long() { 3 } else { 1 });
    let is_meant = |by: By| by != By::FreshStart && by.is_of_a_story();
    let transactions = STEPS.iter().filter(|step| step.moments == TRANSACTION && step.only.is_none_or(|only| only == engine));
    let mut n = 0;
    for step in transactions.filter(|step| is_meant(step.by)) {
        let point = format!("{}::after_commit", step.name);
        let line = format!("fail point {point}: error");
        let before = story.told(&line);
        let is_told = |story: &mut Story| (story.told(&line) > before).then_some(());
        story.reach(&point, &format!("{times}*return(error)->off"), step.by, is_told).await;
        n += 1;
        assert!(story.universe.daemon().ended().is_none(), "{point}: it lives on");
        story.tidy_up(step.by).await;
    }
    println!("unknown_outcomes {engine:?}: {n} transactions, {times} times each");
    story.end("with unknown outcomes").await;
}
