//! People at work: a stream of changes.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::resource::Resource as R;
use super::seed;
use super::state::{Inner, State};
use crate::sandbox::dice::Dice;

/// What is asked of the churn.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Job {
    pub(super) changes: u64,
    #[serde(default = "per_second")]
    per_second: f64,
    /// Names of the resources that change; all when empty.
    #[serde(default)]
    pub(super) resources: Vec<String>,
    #[serde(default)]
    seed: u64,
    /// Part of the mix's deletes and restores that are made; an update takes the place of the others.
    #[serde(default = "all")]
    removals: f64,
}

fn all() -> f64 {
    1.0
}

fn per_second() -> f64 {
    100.0
}

/// How far the churn is.
#[derive(Debug, Default)]
pub(super) struct Churn {
    pub(super) running: bool,
    stopping: bool,
    asked: u64,
    made: u64,
    /// Draws that could not be carried out, such as restoring when nothing was deleted.
    skipped: u64,
}

impl Churn {
    pub(super) fn start(&mut self, job: &Job) {
        *self = Self { running: true, stopping: false, asked: job.changes, made: 0, skipped: 0 };
    }

    /// Ends it before its time.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    pub(super) fn status(&self) -> Value {
        json!({ "done": !self.running, "asked": self.asked, "made": self.made, "skipped": self.skipped })
    }
}

/// Makes the changes of a job at its rate. Sleeps between batches, not between changes, so that high rates are kept.
pub(super) async fn run(state: Arc<State>, job: Job, resources: Vec<R>) {
    let mut dice = Dice::new(state.options.seed ^ job.seed.rotate_left(32) ^ 0xc4a2);
    let begin = state.clock.monotonic();
    loop {
        let due = ((state.clock.monotonic() - begin).as_secs_f64() * job.per_second) as u64;
        let mut finished = false;
        // Changes of one batch share their instant.
        let now_us = state.now_us();
        for _ in 0..1_000 {
            let mut inner = state.inner();
            let churn = &inner.churn;
            // Draws that come to nothing are bounded too: a kind that cannot be changed as asked ends the churn.
            finished = churn.stopping || churn.made >= job.changes || churn.skipped > 1_000 + 10 * job.changes;
            if finished || churn.made >= due {
                break;
            }
            let made = step(&mut inner, &mut dice, &job, &resources, now_us);
            inner.churn.made += u64::from(made);
            inner.churn.skipped += u64::from(!made);
        }
        state.wake.notify_one();
        if finished {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
            () = state.stop.cancelled() => break,
        }
    }
    state.inner().churn.running = false;
}

/// Makes one change; whether it could. What it brings about is not counted.
fn step(inner: &mut Inner, dice: &mut Dice, job: &Job, resources: &[R], now_us: i64) -> bool {
    let resource = match (resources, dice.below(100)) {
        ([_, ..], random) => resources[usize::try_from(random).unwrap_or(0) % resources.len()],
        (_, 0..=49) => R::Property,
        (_, 50..=74) => R::Media,
        (_, 75..=84) => R::OpenHouse,
        (_, 85..=94) => R::Member,
        _ => R::Office,
    };
    // Listings name members and offices, which are therefore never taken away.
    let goes = matches!(resource, R::Property | R::Media | R::OpenHouse);
    let removes = goes && (job.removals >= 1.0 || dice.happens(job.removals));
    match dice.below(100) {
        0..=11 => inner.create(dice, resource, now_us).is_some(),
        12..=18 if removes => inner.world.pick(resource, dice.throw()).is_some_and(|key| inner.delete(resource, &key, now_us)),
        19..=22 if removes => {
            let keys: Vec<String> = inner.world.graves(resource).take(64).map(|(key, _)| key.to_owned()).collect();
            let index = usize::try_from(dice.below(keys.len() as u64)).unwrap_or(0);
            keys.get(index).is_some_and(|key| inner.restore(resource, key, now_us))
        }
        _ => {
            let Some(key) = inner.world.pick(resource, dice.throw()) else { return false };
            touch(inner, dice, resource, &key, now_us)
        }
    }
}

/// Changes something of a record; false when there is none.
pub(super) fn touch(inner: &mut Inner, dice: &mut Dice, resource: R, key: &str, now_us: i64) -> bool {
    let number = dice.below(1_000_000);
    let done = inner.edit(resource, key, now_us, true, |record| seed::edit(record, resource, number, now_us));
    if done {
        inner.tell_parent(resource, key, now_us);
    }
    done
}

/// Changes `count` records of different kinds without a trace: no event, no new stamp, no line in the log.
pub(super) fn tamper(inner: &mut Inner, dice: &mut Dice, count: usize, now_us: i64) -> Vec<(R, String)> {
    let mut tampered: Vec<(R, String)> = Vec::new();
    for _ in 0..count.saturating_mul(100) {
        if tampered.len() >= count {
            break;
        }
        let resource = R::RECORDS[tampered.len() % R::RECORDS.len()];
        let Some(key) = inner.world.pick(resource, dice.throw()) else { continue };
        if tampered.contains(&(resource, key.clone())) {
            continue;
        }
        let number = 1_000_000 + dice.below(1_000_000);
        inner.edit(resource, &key, now_us, false, |record| seed::edit(record, resource, number, now_us));
        tampered.push((resource, key));
    }
    tampered
}
