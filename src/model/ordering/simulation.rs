//! Random schedules against the rule, and broken rules to show that they would be found.

mod broken;
mod world;

use self::world::{End, World};
use super::{Mark, Observation, Row, Spans, Verdict, decide};
use crate::clock::Timestamp;

type Rule = fn(&Observation, Option<&Row>, Option<&Mark>, bool, &Spans, Timestamp) -> Verdict;

/// Random schedules of each setting.
const SCHEDULES: u64 = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stamps {
    Millis,
    Seconds,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pushes {
    Whole,
    Thin,
    Mixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freshness {
    Consistent,
    ListsLag,
    AllLag,
}

/// What an upstream is like.
#[derive(Clone, Copy, Debug)]
struct Setting {
    stamps: Stamps,
    pushes: Pushes,
    freshness: Freshness,
    restore: bool,
    /// States leave the scope of the source and return.
    scopes: bool,
}

fn settings(stamps: Stamps) -> Vec<Setting> {
    let mut settings = Vec::new();
    for pushes in [Pushes::Whole, Pushes::Thin, Pushes::Mixed] {
        for freshness in [Freshness::Consistent, Freshness::ListsLag, Freshness::AllLag] {
            for (restore, scopes) in [(false, false), (true, false), (true, true)] {
                settings.push(Setting { stamps, pushes, freshness, restore, scopes });
            }
        }
    }
    settings
}

/// Runs every setting with these stamps, prints a line for each, shows the first schedule that ended wrong.
fn every_schedule_ends_right(stamps: Stamps) {
    let mut failed = 0;
    for setting in settings(stamps) {
        let mut world = World::new(setting, decide);
        let mut wrong = 0_u64;
        let mut restless = 0_u64;
        let mut first = None;
        for seed in 0..SCHEDULES {
            match world.run(seed, false) {
                End::Right => continue,
                End::Wrong => wrong += 1,
                End::Restless => restless += 1,
            }
            first = first.or(Some(seed));
        }
        let reads = world.reads() * 100 / SCHEDULES;
        println!("{setting:?}: {SCHEDULES} schedules, {wrong} wrong, {restless} restless, {}.{:02} reads each", reads / 100, reads % 100);
        if let Some(seed) = first.filter(|_| failed == 0) {
            println!("seed {seed}:");
            world.run(seed, true);
        }
        failed += wrong + restless;
    }
    assert_eq!(failed, 0, "schedules that ended wrong");
}

#[test]
fn every_schedule_ends_right_with_stamps_in_milliseconds() {
    every_schedule_ends_right(Stamps::Millis);
}

#[test]
fn every_schedule_ends_right_with_stamps_in_seconds() {
    every_schedule_ends_right(Stamps::Seconds);
}

#[test]
fn every_schedule_ends_right_without_stamps() {
    every_schedule_ends_right(Stamps::None);
}
