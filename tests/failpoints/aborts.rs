//! The process ends at every border between durable steps, and starts again: nothing acknowledged is lost, nothing happens
//! twice, and each restart is ready within 2 s.
//!
//! The points are those of `table.rs`, but for those of `cascades.rs`, `producer.rs` and `operators.rs`. The short form dies at each of them once, in one universe a group; the long one at the
//! 1st, 2nd and 5th time that a point is reached (what happens once a start: at three starts in a row):
//! `INSTEP_LONG=1 cargo test --release --features failpoints --test it failpoints::aborts -- --nocapture --test-threads=1`.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::story::Story;
use super::{Points, with_points};
use crate::failpoints_table::{By, STEPS, Step};
use crate::support::universe::about_task;
use crate::support::{Database, Engine, Setup, Universe, is_long, on_both};

on_both!(
    an_abort_after_the_journals_commit_keeps_the_delivery,
    a_first_start_may_end_anywhere,
    any_start_may_end_anywhere,
    the_way_of_a_delivery_may_end_anywhere,
    the_rest_may_end_anywhere,
);

async fn an_abort_after_the_journals_commit_keeps_the_delivery(database: Database) {
    let mut universe = Universe::new(database, &Setup { entities: 100, ..Setup::default() });
    universe.launch(&mut with_points(universe.command(), ""));
    universe.ready().await;
    universe.backfilled().await;
    let keys = universe.sandbox.keys("tasks").await;
    Points::of(universe.daemon()).set("journal::after_commit", "return(abort)");
    assert!(universe.deliver("task-updated", &about_task(&keys[0], "durable, never acknowledged")).await.is_err());
    assert_eq!(universe.daemon().exit_code(Duration::from_secs(10)).await, None, "it was aborted");
    universe.kill();
    universe.run().await;
    let stored = universe.database.number("select count(*) as n from instep_delivery").await;
    assert_eq!(stored, 1, "what was committed is there");
    universe.idle(Duration::from_secs(30)).await;
}

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
    walk(database, |by| by != By::FreshStart && by.needs_a_start(), "of a start").await;
}

async fn the_way_of_a_delivery_may_end_anywhere(database: Database) {
    walk(database, |by| by == By::Deliveries, "on the way of a delivery").await;
}

async fn the_rest_may_end_anywhere(database: Database) {
    let is_rest =
        |by| matches!(by, By::Passes | By::SilentDelete | By::FailingReads | By::Refusals | By::NoBulk | By::HooksCreate | By::HooksDelete);
    walk(database, is_rest, "of passes, marks and registrations").await;
}

async fn walk(database: Database, group: Group, name: &str) {
    let mut story = Story::running(database).await;
    let deaths: Vec<_> =
        steps(story.engine(), group).flat_map(|(step, moment)| hits(step, moment).iter().map(move |hit| (step, moment, *hit))).collect();
    for (index, (step, moment, hit)) in deaths.iter().enumerate() {
        story.die_at(&format!("{}::{moment}", step.name), *hit, step.by).await;
        // Whoever dies in a start dies in the next start again: the short form lets the daemon up only now and then.
        let is_up = is_long() || !step.by.needs_a_start() || index % 4 == 3 || index + 1 == deaths.len();
        if is_up {
            story.restart().await;
            story.tidy_up(step.by).await;
        }
    }
    story.end(name).await;
}
