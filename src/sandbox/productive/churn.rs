//! People at work: a stream of changes with the mix of an agency's day.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::catalog::Collection as C;
use super::changes::Operation;
use super::dice::Dice;
use super::moment;
use super::seed::draft;
use super::state::{Inner, State};
use super::world::{Record, World};

/// Which collections change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kinds {
    /// Only those that webhooks tell of.
    Hooks,
    #[default]
    All,
}

/// What is asked of the churn.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Job {
    pub(super) changes: u64,
    #[serde(default = "per_second")]
    per_second: f64,
    #[serde(default)]
    kinds: Kinds,
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
    asked: u64,
    made: u64,
    /// Draws that could not be carried out, such as restoring when nothing was deleted.
    skipped: u64,
}

impl Churn {
    pub(super) fn start(&mut self, job: &Job) {
        *self = Self { running: true, asked: job.changes, made: 0, skipped: 0 };
    }

    pub(super) fn status(&self) -> Value {
        json!({ "done": !self.running, "asked": self.asked, "made": self.made, "skipped": self.skipped })
    }
}

/// Makes the changes of a job at its rate. Sleeps between batches, not between changes, so that high rates are kept.
pub(super) async fn run(state: Arc<State>, job: Job) {
    let mut dice = Dice::new(state.options.seed ^ job.seed.rotate_left(32));
    let begin = state.clock.monotonic();
    loop {
        let due = ((state.clock.monotonic() - begin).as_secs_f64() * job.per_second) as u64;
        let mut finished = false;
        for _ in 0..1_000 {
            let mut inner = state.inner();
            finished = inner.churn.made >= job.changes;
            if finished || inner.churn.made >= due {
                break;
            }
            let made = step(&mut inner, &mut dice, &job, state.now_us());
            inner.churn.made += made;
            inner.churn.skipped += u64::from(made == 0);
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

/// Makes one change, or two that are hard to tell apart; how many.
fn step(inner: &mut Inner, dice: &mut Dice, job: &Job, now_us: i64) -> u64 {
    let collection = collection(dice, job.kinds);
    let mark = inner.changes.len();
    let removes = is_deletable(collection) && (job.removals >= 1.0 || dice.happens(job.removals));
    match dice.below(100) {
        0..=11 => {
            let mut record = draft(&inner.world, collection, dice, now_us);
            record.special = collection == C::Deals && dice.happens(0.6);
            inner.create(collection, record, now_us);
        }
        12..=19 if removes => delete(inner, dice, collection, now_us),
        20..=23 if removes => {
            let from = inner.world.pick(collection, dice.throw()).unwrap_or(0);
            let found = inner.world.restorable(collection, from).or_else(|| inner.world.restorable(collection, 0));
            if let Some(id) = found {
                inner.restore(collection, id, now_us);
            }
        }
        24..=28 if collection.spec().has_archive => archive(inner, dice, collection, now_us),
        29..=32 if collection == C::Tasks => move_task(inner, dice, now_us),
        33..=36 => update_twice(inner, dice, collection, now_us, now_us),
        // Nearly always the same second, never the same millisecond.
        37..=40 => update_twice(inner, dice, collection, now_us - 3_000, now_us),
        _ => {
            if let Some(id) = inner.world.pick(collection, dice.throw()) {
                update(inner, dice, collection, id, now_us);
            }
        }
    }
    (inner.changes.len() - mark) as u64
}

fn collection(dice: &mut Dice, kinds: Kinds) -> C {
    const HOOKED: [C; 8] = [C::Bookings, C::Expenses, C::Payments, C::Invoices, C::Deals, C::Projects, C::People, C::Companies];
    match dice.below(100) {
        0..=59 => C::Tasks,
        60..=79 => C::TimeEntries,
        _ if kinds == Kinds::Hooks => HOOKED[dice.below(HOOKED.len() as u64) as usize],
        _ => {
            let all: Vec<C> = C::records().collect();
            all[dice.below(all.len() as u64) as usize]
        }
    }
}

/// Collections with DELETE; the others are archived at most.
pub(super) fn is_deletable(collection: C) -> bool {
    !collection.is_log()
        && !matches!(collection, C::People | C::Companies | C::Boards | C::TaskLists | C::Workflows | C::WorkflowStatuses | C::CustomFields)
}

/// Deletes a record that nothing points at.
fn delete(inner: &mut Inner, dice: &mut Dice, collection: C, now_us: i64) {
    for _ in 0..16 {
        let Some(id) = inner.world.pick(collection, dice.throw()) else { return };
        if !inner.world.is_referenced(collection, id) {
            inner.delete(collection, id, now_us);
            return;
        }
    }
}

fn archive(inner: &mut Inner, dice: &mut Dice, collection: C, now_us: i64) {
    let Some(id) = inner.world.pick(collection, dice.throw()) else { return };
    inner.edit(collection, id, now_us, |record, _| {
        let archive = record.ended_us == 0;
        record.ended_us = if archive { now_us } else { 0 };
        Some(if archive { Operation::Archive } else { Operation::Unarchive })
    });
}

fn move_task(inner: &mut Inner, dice: &mut Dice, now_us: i64) {
    let (Some(id), Some(list)) = (inner.world.pick(C::Tasks, dice.throw()), inner.world.pick(C::TaskLists, dice.throw())) else { return };
    inner.edit(C::Tasks, id, now_us, |record, inner| {
        let project = inner.world.get(C::TaskLists, list)?.to[0];
        record.to[0] = project;
        record.to[1] = list;
        Some(Operation::Move)
    });
}

fn update_twice(inner: &mut Inner, dice: &mut Dice, collection: C, first_us: i64, second_us: i64) {
    let Some(id) = inner.world.pick(collection, dice.throw()) else { return };
    update(inner, dice, collection, id, first_us);
    update(inner, dice, collection, id, second_us);
}

fn update(inner: &mut Inner, dice: &mut Dice, collection: C, id: u32, now_us: i64) {
    inner.edit(collection, id, now_us, |record, inner| {
        change_something(record, &inner.world, dice, collection, now_us);
        Some(Operation::Update)
    });
}

fn change_something(record: &mut Record, world: &World, dice: &mut Dice, collection: C, now_us: i64) {
    match (collection, dice.below(4)) {
        (C::Tasks, 0) => record.ended_us = if record.ended_us == 0 { now_us } else { 0 },
        (C::Tasks, 1) => record.to[2] = world.pick(C::People, dice.throw()).unwrap_or(0),
        (C::Tasks, 2) => {
            let due = moment::day_of(now_us) + i64::try_from(dice.below(90)).unwrap_or(0);
            record.set("due_date", moment::date(due).into());
        }
        (C::TimeEntries, 0) => {
            let time = 5 * (1 + dice.below(96));
            record.set("time", time.into());
            record.set("billable_time", time.into());
        }
        _ => set_text(record, collection, dice.below(1_000_000)),
    }
}

/// Writes something new into the attribute that edits touch first.
pub(super) fn set_text(record: &mut Record, collection: C, number: u64) {
    let attribute = collection.spec().text;
    let revision = record.revision + 1;
    let value: Value = match attribute {
        "access_type_id" | "type_id" => (number * 100 + u64::from(revision)).into(),
        _ => format!("Edit {revision}.{number} <R&D> żółć").into(),
    };
    record.set(attribute, value);
}

/// Changes one record of `count` different collections without a trace: no event, no activity, no new `updated_at`.
pub(super) fn tamper(inner: &mut Inner, dice: &mut Dice, count: usize, now_us: i64) -> Vec<(C, u32)> {
    const TARGETS: [C; 4] = [C::Tasks, C::Projects, C::TimeEntries, C::Companies];
    let mut tampered = Vec::new();
    while tampered.len() < count {
        let collection = TARGETS[tampered.len() % TARGETS.len()];
        let Some(id) = inner.world.pick(collection, dice.throw()) else { break };
        if tampered.contains(&(collection, id)) {
            if tampered.len() >= inner.world.len(collection) {
                break;
            }
            continue;
        }
        let Some(old) = inner.world.get(collection, id) else { break };
        let mut record = Record::clone(old);
        set_text(&mut record, collection, dice.below(1_000_000));
        inner.world.put(collection, id, record, now_us);
        tampered.push((collection, id));
    }
    tampered
}
