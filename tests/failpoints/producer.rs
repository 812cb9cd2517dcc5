//! The process ends at every border of what only a producer with a log and with invitations passes: the log never stands further
//! than what is noted of it, no record is lost, and a token is let in exactly while its invitation stands.
//!
//! The points are those of `table.rs` that no other upstream of these tests passes, and those of every transaction that works a log
//! in; in the long form each three times:
//! `INSTEP_LONG=1 cargo test --release --features failpoints --test it failpoints::producer -- --nocapture`.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::{dies, launch, points};
use crate::failpoints_table::{By, TRANSACTION};
use crate::support::{Database, Mls, Universe, eventually, mls, on_both};

on_both!(the_walk_of_a_log_may_end_anywhere, inviting_and_revoking_may_end_anywhere);

const SOON: Duration = Duration::from_secs(60);
/// The log alone, in short pages. No note of a number is so old that it expires, so that all of them can be counted.
const LOG_ALONE: &str = "events = { read = \"yes\", poll = \"1s\", page = 25, overlap = 50 }\npasses = false";

fn names(by: By) -> Vec<String> {
    points(by).into_iter().map(|(_, point)| point).collect()
}

/// The numbers that the log shows.
async fn shown(universe: &Universe) -> BTreeSet<i64> {
    let log = universe.sandbox.observe_pages_of("/odata/EntityEvent?$orderby=EntityEventSequence", 1_000).await;
    log["value"].as_array().expect("rows").iter().filter_map(|row| row["EntityEventSequence"].as_i64()).collect()
}

/// Where the log stands; every number up to there, from where it was first read on, must be noted.
async fn stands(universe: &Universe, from: i64) -> i64 {
    let high = universe.database.number("select high as n from instep_log").await;
    let noted = universe.database.texts("select cast(number as text) as v from instep_sequence").await;
    let noted: BTreeSet<i64> = noted.iter().map(|number| number.parse().expect("a number")).collect();
    let passed: Vec<i64> =
        shown(universe).await.into_iter().filter(|number| (from..=high).contains(number) && !noted.contains(number)).collect();
    assert_eq!(passed, Vec::<i64>::new(), "the log stands at {high}, and these were passed over");
    high
}

async fn the_walk_of_a_log_may_end_anywhere(database: Database) {
    let mut universe = Mls { source: LOG_ALONE, ..Mls::default() }.universe(database);
    let mut set = launch(&mut universe).await;
    universe.backfilled().await;
    let from = universe.database.number("select high as n from instep_log").await + 1;
    let mut deaths = names(By::Log);
    deaths.extend(TRANSACTION.iter().map(|moment| format!("apply::{moment}")));
    for point in &deaths {
        set.set_deadly(point, "return(abort)");
        universe.sandbox.control("churn", json!({ "changes": 60, "per_second": 200 })).await;
        dies(&mut universe, point).await;
        // What the dead one has left; the next one goes on from there.
        stands(&universe, from).await;
        set = launch(&mut universe).await;
        universe.sandbox.quiet(SOON).await;
    }
    let n = mls::in_step(&universe, SOON).await;
    let last = universe.sandbox.report().await["events"]["last"].as_i64().expect("a number");
    eventually("the log stands at its end", SOON, async || match stands(&universe, from).await {
        high if high == last => Ok(()),
        high => Err(format!("{high} of {last}")),
    })
    .await;
    universe.idle(SOON).await;
    let n_changes = universe.database.assert_numbers_without_holes().await;
    println!(
        "producer {:?}: {} deaths on the way of a log of {} numbers, 0 passed over; {n} records in step, {n_changes} changes without hole",
        universe.database.engine,
        deaths.len(),
        last + 1 - from
    );
}

/// The ids of the invitations that live.
async fn living(universe: &Universe) -> Vec<String> {
    universe.database.texts("select id as v from instep_invitation where revoked_at is null").await
}

/// Invites; the id and the token.
async fn invited(universe: &Universe) -> (String, String) {
    // The daemon may not own its source yet.
    let invited =
        eventually("an invitation is made", SOON, async || mls::hooks(universe, &["invite", "mls"]).ok_or_else(|| "not yet".to_owned()))
            .await;
    let text = |name: &str| invited[name].as_str().expect("a text").to_owned();
    (text("id"), text("token"))
}

/// Ends it; whoever shows its token is a stranger.
async fn revoked(universe: &Universe, id: &str) {
    eventually("it is ended", SOON, async || {
        mls::hooks(universe, &["invite", "mls", "--revoke", id]).map(drop).ok_or_else(|| "not yet".to_owned())
    })
    .await;
}

async fn inviting_and_revoking_may_end_anywhere(database: Database) {
    let mut universe = Mls { source: "events = { read = \"no\" }\npasses = false", ..Mls::default() }.universe(database);
    let mut set = launch(&mut universe).await;
    universe.backfilled().await;
    let mut n_deaths = 0;
    for point in names(By::HooksInvite) {
        set.set_deadly(&point, "return(abort)");
        // A refusal is none of the death: the daemon may not own its source yet.
        eventually("it dies of the wish", SOON, async || {
            let answer = mls::hooks(&universe, &["invite", "mls"]);
            if universe.daemon().ended().is_some() { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
        dies(&mut universe, &point).await;
        set = launch(&mut universe).await;
        // Nobody was shown the token of what may stand: it takes up a place until it is ended.
        let left = living(&universe).await;
        assert_eq!(left.len(), usize::from(point.ends_with("after_commit")), "{point}");
        for id in left {
            revoked(&universe, &id).await;
        }
        n_deaths += 1;
    }
    for point in names(By::HooksRevoke) {
        let (id, token) = invited(&universe).await;
        assert_eq!(mls::deliver(&universe, &token).await, 200, "{point}");
        set.set_deadly(&point, "return(abort)");
        assert_eq!(mls::hooks(&universe, &["invite", "mls", "--revoke", &id]), None, "{point}");
        dies(&mut universe, &point).await;
        set = launch(&mut universe).await;
        let is_ended = point.ends_with("after_commit");
        assert_eq!(mls::deliver(&universe, &token).await, if is_ended { 401 } else { 200 }, "{point}");
        assert_eq!(living(&universe).await.is_empty(), is_ended, "{point}");
        revoked(&universe, &id).await;
        assert_eq!(mls::deliver(&universe, &token).await, 401, "{point}");
        n_deaths += 1;
    }
    println!("producer {:?}: {n_deaths} deaths while inviting and revoking", universe.database.engine);
}
