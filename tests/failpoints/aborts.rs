//! The process ends at every border between durable steps, and starts again: nothing acknowledged is lost, nothing happens
//! twice, and each restart is ready within 2 s.
//!
//! The points are those of `table.rs`. The short form dies at each of them once, in one universe a group; the long one at the
//! 1st, 2nd and 5th time that a point is reached (what happens once a start: at three starts in a row):
//! `INSTEP_LONG=1 cargo test --features failpoints --test it failpoints::aborts -- --nocapture --test-threads=1`.

use std::os::unix::fs::PermissionsExt as _;

use super::story::Story;
use crate::failpoints_table::{By, STEPS, Step};
use crate::support::{Database, Engine, is_long, on_both};

on_both!(a_first_start_may_end_anywhere, any_start_may_end_anywhere, the_way_of_a_delivery_may_end_anywhere, the_rest_may_end_anywhere,);

/// Which steps a test goes through.
type Group = fn(By) -> bool;

fn steps(engine: Engine, group: Group) -> impl Iterator<Item = (&'static Step, &'static str)> {
    let here = STEPS.iter().filter(move |step| group(step.by) && step.only.is_none_or(|only| only == engine));
    here.flat_map(|step| step.moments.iter().map(move |moment| (step, *moment)))
}

/// At which time that the point is reached the process ends: of what happens once a start always at the first.
fn hits(step: &Step, moment: &str) -> &'static [u32] {
    let is_many_times = match step.by {
        By::FreshStart => step.name == "view" || moment == "statement",
        By::Start | By::StartAfter(_) | By::DeathWhileDecoding | By::NoBulk => false,
        _ => true,
    };
    match (is_long(), is_many_times) {
        (false, _) => &[1],
        (true, true) => &[1, 2, 5],
        (true, false) => &[1, 1, 1],
    }
}

async fn a_first_start_may_end_anywhere(database: Database) {
    let mut story = Story::new(database);
    for (step, moment) in steps(story.engine(), |by| by == By::FreshStart) {
        for hit in hits(step, moment) {
            story.die_at(&format!("{}::{moment}", step.name), *hit, step.by).await;
            story.restart().await;
            if story.engine() == Engine::Sqlite {
                let mode = std::fs::metadata(story.universe.database.state()).expect("it was made").permissions().mode();
                assert_eq!(mode & 0o7777, 0o2750, "after {}::{moment} readers of the group find a directory of theirs", step.name);
            }
        }
    }
    story.end("of a first start").await;
}

async fn any_start_may_end_anywhere(database: Database) {
    let is_start = |by| matches!(by, By::Start | By::StartAfter(_) | By::DeathWhileDecoding);
    walk(database, is_start, "of a start").await;
}

async fn the_way_of_a_delivery_may_end_anywhere(database: Database) {
    walk(database, |by| by == By::Deliveries, "on the way of a delivery").await;
}

async fn the_rest_may_end_anywhere(database: Database) {
    let is_rest = |by| matches!(by, By::Passes | By::SilentDelete | By::FailingReads | By::NoBulk | By::HooksCreate | By::HooksDelete);
    walk(database, is_rest, "of passes, marks and registrations").await;
}

async fn walk(database: Database, group: Group, name: &str) {
    let mut story = Story::running(database).await;
    for (step, moment) in steps(story.engine(), group) {
        for hit in hits(step, moment) {
            story.die_at(&format!("{}::{moment}", step.name), *hit, step.by).await;
            story.restart().await;
            story.tidy_up(step.by).await;
        }
    }
    story.end(name).await;
}
