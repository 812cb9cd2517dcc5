//! The daemon ends at every border of what an operator asks of it: what was acknowledged to him is done, once; what was not is done
//! wholly or not at all, and asking again is harmless.
//!
//! The points are those of `table.rs` that only a verb makes the daemon pass. Verbs are requests to the daemon's admin socket, so it is
//! the daemon that dies, and the verb hears no answer. In the long form each death is died three times:
//! `INSTEP_LONG=1 cargo test --release --features failpoints --test it failpoints::operators -- --nocapture`.

use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};

use super::{FORGIVE, Points, dies, launch, points};
use crate::asked_passes::{answer, said};
use crate::failpoints_table::By;
use crate::support::universe::{DELIVERIES_ONLY, about_task};
use crate::support::{Database, Setup, Universe, eventually, on_both};

on_both!(
    a_wish_for_a_gap_or_a_pass_may_end_anywhere,
    a_decision_over_removals_may_end_anywhere,
    a_way_out_of_quarantine_may_end_anywhere,
    a_repair_may_end_anywhere,
    an_adoption_may_end_anywhere,
);

const SOON: Duration = Duration::from_secs(60);
const SWEEP: &[&str] = &["reconcile", "pmp", "tasks", "--sweep"];
/// Sweeps that have ended as they should.
const SWEPT: &str = "select count(*) as n from instep_pass where kind = 'sweep' and state = 'completed'";
const MARKS: &str = "select count(*) as n from instep_mark";
const LIVE: &str = "select count(*) as n from pmp_tasks";

/// A universe through the lives of its daemon.
struct Lives {
    universe: Universe,
    points: Points,
    deaths: usize,
}

impl Lives {
    /// Nothing comes by itself there: what happens was asked for.
    async fn started(database: Database, source: &'static str) -> Self {
        let mut universe = Universe::new(database, &Setup { source, ..Setup::default() });
        let points = launch(&mut universe).await;
        universe.backfilled().await;
        Self { universe, points, deaths: 0 }
    }

    /// The daemon dies of the verb, at the point, and the verb is told of no success.
    async fn die_of(&mut self, point: &str, verb: &[&str]) {
        self.points.set_deadly(point, "return(abort)");
        let output = self.universe.verb(verb);
        assert!(!output.status.success(), "{point}: acknowledged by nobody: {}", said(&output));
        self.be_dead(point).await;
    }

    async fn be_dead(&mut self, point: &str) {
        dies(&mut self.universe, point).await;
        let log = std::fs::read_to_string(self.universe.folder("daemon.log")).expect("it wrote one");
        assert!(log.contains(&format!("fail point {point}: abort")), "{point}: it died elsewhere");
        self.universe.database.execute(FORGIVE).await;
        self.deaths += 1;
    }

    /// The next daemon, which owns its source.
    async fn live_again(&mut self) {
        self.points = launch(&mut self.universe).await;
        self.universe.owned().await;
    }

    /// Something is done to the database behind the daemon's back, between two lives.
    async fn meanwhile(&mut self, sql: &str) {
        self.universe.kill();
        self.universe.database.execute(sql).await;
        self.live_again().await;
    }

    fn ask(&self, verb: &[&str]) -> Output {
        self.universe.verb(&[verb, &["--json"]].concat())
    }

    /// What the daemon acknowledges.
    fn done(&self, verb: &[&str]) -> Value {
        let output = self.ask(verb);
        assert_eq!(output.status.code(), Some(0), "{verb:?}: {}", said(&output));
        answer(&output)
    }

    async fn number(&self, sql: &str) -> i64 {
        self.universe.database.number(sql).await
    }

    async fn becomes(&self, sql: &str, expected: i64) {
        eventually(&format!("{sql} becomes {expected}"), SOON, async || match self.universe.database.try_number(sql).await? {
            n if n == expected => Ok(()),
            n => Err(n.to_string()),
        })
        .await;
    }

    async fn end(self, what: &str) {
        self.universe.in_step(SOON).await;
        self.universe.idle(SOON).await;
        let n_changes = self.universe.database.assert_numbers_without_holes().await;
        let engine = self.universe.database.engine;
        println!("operators {engine:?}: {} deaths of {what}, nothing half done, {n_changes} changes without hole", self.deaths);
    }
}

/// Whether what was asked for is done when the daemon dies there.
fn is_done(point: &str) -> bool {
    point.ends_with("::after_commit")
}

async fn a_wish_for_a_gap_or_a_pass_may_end_anywhere(database: Database) {
    let mut lives = Lives::started(database, DELIVERIES_ONLY).await;
    for (step, point) in points(By::Wish) {
        match step.name {
            "open_gap" => open_a_gap(&mut lives, &point).await,
            "ask_passes" => ask_for_a_pass(&mut lives, &point).await,
            other => panic!("nobody asks for {other}"),
        }
    }
    lives.end("wishes").await;
}

async fn open_a_gap(lives: &mut Lives, point: &str) {
    let verb = ["gaps", "open", "pmp", "--from", "2020-01-01", "--to", "2020-01-02"];
    let (open, all) = ("select count(*) as n from instep_gaps where state = 'open'", "select count(*) as n from instep_gaps");
    let before = lives.number(all).await;
    lives.die_of(point, &verb).await;
    assert_eq!(lives.number(open).await, i64::from(is_done(point)), "{point}");
    lives.live_again().await;
    lives.done(&verb);
    assert_eq!((lives.number(open).await, lives.number(all).await), (1, before + 1), "{point}: one gap, however often it is asked for");
    lives.done(SWEEP);
    lives.becomes(open, 0).await;
}

async fn ask_for_a_pass(lives: &mut Lives, point: &str) {
    let wishes = "select count(*) as n from instep_progress where asked_at is not null";
    let key = lives.universe.sandbox.keys("tasks").await.remove(0);
    lives.universe.sandbox.change_silently("tasks", &key, json!({ "title": format!("nobody was told before {point}") })).await;
    let before = lives.number(SWEPT).await;
    lives.die_of(point, &[SWEEP, &["--detach"]].concat()).await;
    let wished = i64::from(is_done(point));
    assert_eq!(lives.number(wishes).await, wished, "{point}");
    lives.live_again().await;
    // The next daemon does what its predecessor has written down, and nothing else.
    lives.becomes(SWEPT, before + wished).await;
    lives.done(SWEEP);
    assert_eq!((lives.number(SWEPT).await, lives.number(wishes).await), (before + wished + 1, 0), "{point}");
    assert_eq!(lives.universe.differences("tasks").await, Ok(Vec::new()), "{point}");
}

/// Rows that may go unannounced, all of which go before the first death; and how many each death decides over.
const BUDGET: usize = 5;
const HELD: usize = 10;

async fn a_decision_over_removals_may_end_anywhere(database: Database) {
    let mut lives = Lives::started(database, "passes = false\nfeeds = false\nbrake = { share = 0.0, rows = 5, cap = 5 }").await;
    let held = "select count(*) as n from instep_mark where held";
    let before = lives.number(LIVE).await;
    let mut keys = lives.universe.sandbox.keys("tasks").await.into_iter();
    let mut gone = 0;
    for (step, point) in points(By::Decision) {
        // What was rejected is missed again by each sweep, and what was approved is gone.
        let missed = lives.number(LIVE).await - (before - gone as i64);
        let n = HELD - usize::try_from(missed).expect("rows") + if gone == 0 { BUDGET } else { 0 };
        for key in keys.by_ref().take(n) {
            lives.universe.sandbox.control("delete", json!({ "collection": "tasks", "id": key, "announce": false })).await;
        }
        gone += n;
        lives.done(SWEEP);
        lives.becomes(held, HELD as i64).await;
        lives.becomes(MARKS, HELD as i64).await;
        let live = lives.number(LIVE).await;
        let (action, counted, goes) = match step.name {
            "approve_removals" => ("approve", "approved", HELD as i64),
            "reject_removals" => ("reject", "rejected", 0),
            other => panic!("nobody decides by {other}"),
        };
        let verb = ["reconcile", action, "pmp", "tasks"];
        lives.die_of(&point, &verb).await;
        let left = if is_done(&point) { 0 } else { HELD as i64 };
        assert_eq!((lives.number(held).await, lives.number(LIVE).await), (left, live), "{point}");
        lives.live_again().await;
        assert_eq!(lives.done(&verb)[counted], left, "{point}");
        lives.becomes(MARKS, 0).await;
        assert_eq!(lives.number(LIVE).await, live - goes, "{point}");
    }
    // Rows that were kept are missed again by a later sweep, and their removals are then approved.
    lives.done(SWEEP);
    lives.becomes(held, HELD as i64).await;
    lives.done(&["reconcile", "approve", "pmp", "tasks"]);
    lives.universe.in_step(SOON).await;
    let removed = lives.number("select count(*) as n from instep_changes where operation = 'delete'").await;
    assert_eq!(removed, gone as i64, "each is removed once");
    lives.end("decisions").await;
}

async fn a_way_out_of_quarantine_may_end_anywhere(database: Database) {
    let mut lives = Lives::started(database, DELIVERIES_ONLY).await;
    for (n, (step, point)) in points(By::Quarantine).into_iter().enumerate() {
        match step.name {
            "replay" => replay_a_delivery(&mut lives, &point, n).await,
            "replay_record" => replay_a_record(&mut lives, &point).await,
            "discard" => discard_a_delivery(&mut lives, &point, n).await,
            other => panic!("nobody asks for {other}"),
        }
        assert_eq!(lives.number("select count(*) as n from instep_quarantine").await, 0, "{point}");
    }
    lives.end("ways out of quarantine").await;
}

/// A delivery that nobody can read; its number in quarantine, and its id.
async fn poisoned(lives: &Lives, n: usize) -> (String, String) {
    lives.universe.deliver_surely("task-updated", &format!("{{ \"event\": \"cut off {n}")).await;
    lives.becomes("select count(*) as n from instep_quarantine", 1).await;
    let row = lives.universe.database.rows("select id, delivery_id from instep_quarantine", &["id", "delivery_id"]).await.remove(0);
    let mut row = row.into_iter().map(|text| text.expect("it is set"));
    (row.next().expect("a number"), row.next().expect("an id"))
}

/// How a delivery stands, and whether it is in quarantine.
async fn stands(lives: &Lives, id: &str) -> (String, i64) {
    let state = lives.universe.database.texts(&format!("select state as v from instep_delivery where id = '{id}'")).await.remove(0);
    (state, lives.number(&format!("select count(*) as n from instep_quarantine where delivery_id = '{id}'")).await)
}

fn state(name: &str, quarantined: i64) -> (String, i64) {
    (name.to_owned(), quarantined)
}

/// Asks again for what may be done: then the daemon says that there is nothing to do, else it does it.
fn ask_again(lives: &Lives, point: &str, verb: &[&str]) {
    let again = lives.ask(verb);
    assert_eq!(again.status.code(), Some(i32::from(is_done(point))), "{point}: {}", said(&again));
    assert!(!is_done(point) || said(&again).contains("has nothing of number"), "{point}: {}", said(&again));
}

async fn replay_a_delivery(lives: &mut Lives, point: &str, n: usize) {
    let (number, id) = poisoned(lives, n).await;
    let verb = ["quarantine", "replay", "pmp", &number];
    lives.die_of(point, &verb).await;
    assert_eq!(stands(lives, &id).await, if is_done(point) { state("pending", 0) } else { state("quarantined", 1) }, "{point}");
    // As if the connector had learned to read it.
    let key = lives.universe.sandbox.keys("tasks").await.remove(n);
    lives.universe.sandbox.change_silently("tasks", &key, json!({ "title": "told by what was put aside" })).await;
    let body = lives.universe.database.blob(about_task(&key, "a hint"));
    lives.universe.database.execute(&format!("update instep_delivery set body = {body} where id = '{id}'")).await;
    lives.live_again().await;
    ask_again(lives, point, &verb);
    lives.universe.in_step(SOON).await;
    assert_eq!(stands(lives, &id).await, state("done", 0), "{point}");
    let told = format!("select count(*) as n from instep_events where delivery_id = '{id}'");
    assert_eq!(lives.number(&told).await, 1, "{point}: it is worked in once");
}

async fn replay_a_record(lives: &mut Lives, point: &str) {
    let key = lives.universe.sandbox.keys("tasks").await.remove(0);
    lives.universe.sandbox.change_silently("tasks", &key, json!({ "title": format!("readable since {point}") })).await;
    let put = format!(
        "insert into instep_quarantine (source, kind, resource, key, reason, at) \
         select 'pmp', 'record', 'tasks', '{key}', 'put here', max(at) from instep_heartbeat"
    );
    lives.universe.database.execute(&put).await;
    let number = lives.universe.database.texts("select id as v from instep_quarantine").await.remove(0);
    let verb = ["quarantine", "replay", "pmp", &number];
    lives.die_of(point, &verb).await;
    let (quarantined, marked) = (lives.number("select count(*) as n from instep_quarantine").await, lives.number(MARKS).await);
    assert_eq!((quarantined, marked), if is_done(point) { (0, 1) } else { (1, 0) }, "{point}");
    lives.live_again().await;
    ask_again(lives, point, &verb);
    lives.universe.in_step(SOON).await;
}

async fn discard_a_delivery(lives: &mut Lives, point: &str, n: usize) {
    let (number, id) = poisoned(lives, n).await;
    let (open, all) = ("select count(*) as n from instep_gaps where state = 'open'", "select count(*) as n from instep_gaps");
    let before = lives.number(all).await;
    let verb = ["quarantine", "discard", "pmp", &number];
    lives.die_of(point, &verb).await;
    assert_eq!(stands(lives, &id).await, if is_done(point) { state("discarded", 0) } else { state("quarantined", 1) }, "{point}");
    assert_eq!(lives.number(open).await, i64::from(is_done(point)), "{point}");
    lives.live_again().await;
    ask_again(lives, point, &verb);
    assert_eq!(stands(lives, &id).await, state("discarded", 0), "{point}");
    assert_eq!((lives.number(open).await, lives.number(all).await), (1, before + 1), "{point}: what it said is unknown, once");
    lives.done(SWEEP);
    lives.becomes(open, 0).await;
}

/// The verb waits until a daemon is there again, and goes on.
async fn a_repair_may_end_anywhere(database: Database) {
    let mut lives = Lives::started(database, DELIVERIES_ONLY).await;
    let keys = lives.universe.sandbox.keys("tasks").await;
    let stale: Vec<String> = keys[..3].iter().map(|key| format!("'{key}'")).collect();
    let distrusted = "select count(*) as n from instep_entity where resource = 'tasks' and hash is null and version_value is null";
    for (_, point) in points(By::Repair) {
        let older = "update instep_entity set version_value = version_value - 3600000000 where resource = 'tasks' and key in";
        lives.meanwhile(&format!("{older} ({})", stale.join(", "))).await;
        for key in &keys[3..6] {
            lives.universe.sandbox.change_silently("tasks", key, json!({ "title": format!("nobody was told before {point}") })).await;
        }
        lives.points.set_deadly(&point, "return(abort)");
        let verb = lives.universe.verb_begun(&["verify", "pmp", "tasks", "--all", "--repair", "--settle", "1s", "--json"]);
        lives.be_dead(&point).await;
        let n = if is_done(&point) { 6 } else { 0 };
        assert_eq!((lives.number(distrusted).await, lives.number(MARKS).await), (n, n), "{point}");
        lives.live_again().await;
        let output = verb.wait_with_output().expect("it ends");
        assert_eq!((output.status.code(), answer(&output)["repaired"].as_u64()), (Some(0), Some(6)), "{point}: {}", said(&output));
        assert_eq!(lives.universe.differences("tasks").await, Ok(Vec::new()), "{point}");
        assert_eq!(lives.number(distrusted).await, 0, "{point}: every row has its version again");
    }
    lives.done(&["verify", "pmp", "--all", "--settle", "1s"]);
    lives.end("repairs").await;
}

async fn an_adoption_may_end_anywhere(database: Database) {
    let mut lives = Lives::started(database, DELIVERIES_ONLY).await;
    let elsewhere = "select count(*) as n from instep_home where host = 'elsewhere'";
    let here = "select count(*) as n from instep_home h, instep_instance i where h.host = i.host";
    for (_, point) in points(By::Adopt) {
        lives.meanwhile("update instep_home set host = 'elsewhere'").await;
        assert!(said(&lives.universe.verb(&["hooks", "create", "pmp"])).contains("suspended"), "{point}: its webhooks are another's");
        lives.die_of(&point, &["adopt", "pmp"]).await;
        let adopted = i64::from(is_done(&point));
        assert_eq!((lives.number(here).await, lives.number(elsewhere).await), (adopted, 1 - adopted), "{point}");
        lives.live_again().await;
        assert_eq!(said(&lives.universe.verb(&["hooks", "create", "pmp"])).contains("suspended"), !is_done(&point), "{point}");
        for _ in 0..2 {
            let again = lives.universe.verb(&["adopt", "pmp"]);
            assert!(again.status.success(), "{point}: {}", said(&again));
        }
        let made = lives.universe.verb(&["hooks", "create", "pmp"]);
        assert!(made.status.success(), "{point}: {}", said(&made));
        assert_eq!((lives.number(here).await, lives.number(elsewhere).await), (1, 0), "{point}");
        assert_eq!(lives.universe.sandbox.truth("webhooks").await.len(), 3, "{point}: registered once, by whoever is at home");
    }
    lives.end("adoptions").await;
}
