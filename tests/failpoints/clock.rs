//! Somebody sets the wall clock: by a second, by minutes, by a year, to 1970, in the nights when summer time begins and ends.
//!
//! Nothing stalls, nothing spins, nothing is purged, no budget vanishes or freezes, and what the replica shows is right. Long form,
//! with purges that come due while the clock is wrong: `INSTEP_LONG=1 cargo test --release --features failpoints --test it clock`.

use std::process::Command;
use std::time::Duration;

use instep::clock::{Clock, Timestamp};
use instep::connectors::signature::digest;
use serde_json::{Value, json};

use super::{Points, with_points};
use crate::support::universe::about_task;
use crate::support::{Database, Setup, Universe, eventually, is_long, monotonic, on_both, until};

on_both!(
    the_wall_clock_is_set_while_it_runs,
    the_wall_clock_is_set_between_two_lives,
    a_first_start_in_the_wrong_year_misses_nothing,
    a_set_clock_neither_frees_nor_freezes_permits,
);

const YEAR: i64 = 31_536_000;
const SOON: Duration = Duration::from_secs(20);
const ROUTE: &str = "task-updated";
const COMPLETED: &str = "select count(*) as n from instep_pass where state = 'completed'";

/// A command whose clock begins so much ahead, in a place where clocks are set twice a year.
fn starting_at(universe: &Universe, seconds: i64) -> Command {
    let mut command = with_points(universe.command(), &format!("clock={seconds}"));
    command.env("TZ", "Europe/Berlin");
    command
}

async fn started_at(universe: &mut Universe, seconds: i64) -> Points {
    let mut command = starting_at(universe, seconds);
    universe.launch(&mut command);
    universe.ready().await;
    Points::of(universe.daemon())
}

fn wall() -> i64 {
    Clock::system().now().seconds()
}

fn to(instant: &str) -> i64 {
    Timestamp::parse(instant).expect("an instant").seconds() - wall()
}

/// Processor time of the daemon so far.
fn processor(universe: &mut Universe) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", universe.daemon().pid())).expect("the process runs");
    let fields: Vec<u64> = stat.rsplit(')').next().unwrap_or_default().split(' ').filter_map(|field| field.parse().ok()).collect();
    // After the state: parent, group, session, terminal, its group, flags, four kinds of faults, then user and system time.
    Duration::from_millis((fields[10] + fields[11]) * 10)
}

/// Requests that the upstream was asked so far.
async fn requests(universe: &Universe) -> u64 {
    let report = universe.sandbox.report().await;
    let rows = report["requests"].as_array().cloned().unwrap_or_default();
    rows.iter().filter_map(|row| row["count"].as_u64()).sum()
}

async fn rename(universe: &Universe, key: &str, title: &str) {
    let request = json!({ "collection": "tasks", "id": key, "attributes": { "title": title } });
    universe.sandbox.control("update", request).await;
}

/// Changes that only a feed or a pass tells of, and changes that only a delivery tells of, arrive; passes go on; nothing is left.
async fn works(universe: &Universe, keys: &[String], name: &str) {
    let passes = universe.database.number(COMPLETED).await;
    rename(universe, &keys[0], &format!("announced: {name}")).await;
    universe.sandbox.change_silently("tasks", &keys[1], json!({ "title": format!("silently: {name}") })).await;
    let hint = about_task(&keys[1], name);
    universe.deliver_surely(ROUTE, &hint).await;
    universe.in_step(SOON).await;
    eventually(&format!("passes go on ({name})"), SOON, async || {
        let n = universe.database.try_number(COMPLETED).await?;
        if n >= passes + 2 { Ok(()) } else { Err(format!("{} more", n - passes)) }
    })
    .await;
    universe.idle(SOON).await;
    // An older delivery tells nothing new.
    let about = format!("select count(*) as n from instep_changes where key = '{}'", keys[1]);
    let changes = universe.database.number(&about).await;
    universe.deliver_surely(ROUTE, &hint).await;
    universe.idle(SOON).await;
    assert_eq!(universe.database.number(&about).await, changes, "{name}: a repetition is no change");
}

fn polling() -> Setup {
    let resources = vec![("tasks", "poll = \"1s\", sweep = \"1h\"")];
    Setup { entities: 100, resources, source: "feeds = true\npasses = true\n", ..Setup::default() }
}

async fn the_wall_clock_is_set_while_it_runs(database: Database) {
    let mut universe = Universe::new(database, &polling());
    let mut points = started_at(&mut universe, 0).await;
    universe.backfilled().await;
    let keys = universe.sandbox.keys("tasks").await;
    let steps = [
        ("not set", 0),
        ("a second ahead", 1),
        ("a second back", -1),
        ("five minutes ahead", 300),
        ("five minutes back", -300),
        ("a year ahead", YEAR),
        ("a year back", -YEAR),
        ("1970", -wall() + 5),
        ("the night in spring", to("2027-03-28T00:59:58Z")),
        ("the night in autumn", to("2026-10-25T00:59:58Z")),
        ("right again", 0),
    ];
    let (mut usual, mut most) = ((0, Duration::ZERO), (0, Duration::ZERO));
    for (number, (name, seconds)) in steps.into_iter().enumerate() {
        if seconds < -60 {
            // A mark that waits for its next try when the clock is set back must not wait until it has caught up.
            universe.sandbox.control("faults", json!({ "upstream_5xx": 1.0 })).await;
            universe.deliver_surely(ROUTE, &about_task(&keys[2], name)).await;
            eventually("a read failed", SOON, async || {
                let n = universe.database.try_number("select count(*) as n from instep_mark where attempts > 0").await?;
                if n > 0 { Ok(()) } else { Err("none yet".to_owned()) }
            })
            .await;
            universe.sandbox.control("faults", json!({ "upstream_5xx": 0.0 })).await;
        }
        let before = (requests(&universe).await, processor(&mut universe), monotonic());
        points.set("clock", &seconds.to_string());
        works(&universe, &keys, name).await;
        dated_by(&universe, name, &keys[1], seconds).await;
        until(before.2 + Duration::from_secs(1)).await;
        let spent = (requests(&universe).await - before.0, processor(&mut universe) - before.1);
        if number == 0 {
            usual = spent;
        } else {
            most = (most.0.max(spent.0), most.1.max(spent.1));
            // A step that waited for a backoff lasts longer, at about ten requests a second; a loop would ask for thousands.
            assert!(spent.0 <= 3 * usual.0 + 100, "{name}: {} requests instead of {}", spent.0, usual.0);
            assert!(spent.1 <= 3 * usual.1 + Duration::from_secs(3), "{name}: {:?} instead of {:?}", spent.1, usual.1);
        }
    }
    println!(
        "clock {:?}: {} settings of the wall clock; a step took {} requests and {:?} of the processor before, at most {} and {:?} after",
        universe.database.engine,
        steps.len() - 1,
        usual.0,
        usual.1,
        most.0,
        most.1
    );
    assert_eq!(universe.stop().await, Some(0));
}

/// Rows are dated by the wall clock as it is set, in UTC wherever we are.
async fn dated_by(universe: &Universe, name: &str, key: &str, seconds: i64) {
    let identity = digest(&[ROUTE.as_bytes(), about_task(key, name).as_bytes()]);
    let sql = format!("select max(received_at) as n from instep_delivery where dedupe = '{identity}'");
    let at = universe.database.number(&sql).await / 1_000_000;
    assert!((at - wall() - seconds).abs() < 60, "{name}: received at {at} instead of {}", wall() + seconds);
}

async fn the_wall_clock_is_set_between_two_lives(database: Database) {
    let mut universe = Universe::new(database, &polling());
    let mut points = started_at(&mut universe, 0).await;
    universe.backfilled().await;
    let keys = universe.sandbox.keys("tasks").await;
    for key in &keys[..40] {
        universe.deliver_surely(ROUTE, &about_task(key, &format!("delivery of {key}"))).await;
    }
    universe.idle(SOON).await;
    let kept = "select (select count(*) from instep_delivery where state = 'done') + (select count(*) from instep_changes) as n";
    for (name, seconds) in [("a year ahead", YEAR), ("a year back", -YEAR), ("1970", -wall() + 5), ("right again", 0)] {
        let rows = universe.database.number(kept).await;
        drop(points);
        universe.kill();
        points = started_at(&mut universe, seconds).await;
        works(&universe, &keys, name).await;
        if seconds != 0 {
            let daemon = universe.daemon();
            eventually("it is noticed", SOON, async || {
                if daemon.said().contains("the wall clock leapt") { Ok(()) } else { Err("no word of it".to_owned()) }
            })
            .await;
        }
        eventually(&format!("gaps are repaired ({name})"), SOON, async || {
            match universe.database.try_number("select count(*) as n from instep_gap where state = 'open'").await? {
                0 => Ok(()),
                n => Err(format!("{n} are open")),
            }
        })
        .await;
        if is_long() {
            // The janitor purges every minute.
            until(monotonic() + Duration::from_secs(130)).await;
        }
        let left = universe.database.number(kept).await;
        println!("clock {:?}: {name}, after a restart: {rows} rows before, {left} after", universe.database.engine);
        // What was dated 1970 is old by the right clock, and goes.
        assert!(left > rows || seconds == 0, "{name}: {left} of {rows} rows are left");
    }
}

async fn a_first_start_in_the_wrong_year_misses_nothing(database: Database) {
    let setup = Setup { entities: 100, source: "feeds = true\npasses = false\n", ..Setup::default() };
    let mut universe = Universe::new(database, &setup);
    let _points = started_at(&mut universe, YEAR).await;
    universe.backfilled().await;
    eventually("both feeds have begun", SOON, async || {
        match universe.database.try_number("select count(*) as n from instep_cursor").await? {
            2 => Ok(()),
            n => Err(format!("{n} have")),
        }
    })
    .await;
    let keys = universe.sandbox.keys("tasks").await;
    let begin = monotonic();
    rename(&universe, &keys[0], "only a feed tells").await;
    universe.in_step(SOON).await;
    println!("clock {:?}: begun a year ahead, a feed told after {:.1?}", universe.database.engine, monotonic() - begin);
}

/// The window of the quota, and what may be asked in it.
const WINDOW: Duration = Duration::from_secs(8);
const ALLOWED: u64 = 30;

async fn a_set_clock_neither_frees_nor_freezes_permits(database: Database) {
    let mut universe = Universe::new(database, &Setup { entities: 100, ..Setup::default() });
    let text = std::fs::read_to_string(universe.config()).expect("it was written");
    let quota = format!("quota = [{{ requests = {ALLOWED}, per = \"{}s\" }}, {{ concurrent = 8 }}]", WINDOW.as_secs());
    let text = text.replace("quota = [{ requests = 2000, per = \"1s\" }, { concurrent = 8 }]", &quota).replace("\"50ms\"", "\"0s\"");
    std::fs::write(universe.config(), text).expect("our own folder");
    let mut points = started_at(&mut universe, 0).await;
    universe.backfilled().await;
    let keys = universe.sandbox.keys("tasks").await;
    let mut figures = Vec::new();
    for seconds in [300, YEAR, -YEAR] {
        let (asked, begin) = (requests(&universe).await, monotonic());
        let mut number = 0;
        // Hints until the budget is spent: the upstream is asked nothing more although marks wait.
        eventually("the budget is spent", SOON, async || {
            for _ in 0..4 {
                number += 1;
                let hint = about_task(&keys[number % keys.len()], &format!("{seconds} {number}"));
                universe.deliver(ROUTE, &hint).await?;
            }
            match requests(&universe).await - asked {
                n if n + 8 >= ALLOWED => Ok(()),
                n => Err(format!("{n} requests")),
            }
        })
        .await;
        drop(points);
        universe.kill();
        points = started_at(&mut universe, seconds).await;
        rename_silently(&universe, &keys[0], seconds).await;
        until(begin + WINDOW).await;
        let in_window = requests(&universe).await - asked;
        figures.push(in_window);
        assert!(in_window <= ALLOWED, "{seconds}: {in_window} requests in one window of {ALLOWED}");
        universe.in_step(3 * WINDOW).await;
        universe.idle(3 * WINDOW).await;
        let back = monotonic() - begin;
        assert!(back <= 4 * WINDOW, "{seconds}: the budget came back after {back:?}");
        // The next clock is set anew from here, with a whole budget.
        until(monotonic() + WINDOW).await;
    }
    println!("clock {:?}: {figures:?} requests in a window of {ALLOWED}, across restarts with the clock set", universe.database.engine);
}

async fn rename_silently(universe: &Universe, key: &str, seconds: i64) {
    let title: Value = json!(format!("set by {seconds}"));
    universe.sandbox.change_silently("tasks", key, json!({ "title": title })).await;
    universe.deliver_surely(ROUTE, &about_task(key, &format!("after {seconds}"))).await;
}
