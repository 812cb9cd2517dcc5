//! People at work: a stream of changes with the mix of a shop's day.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::changes::{Author, Manner, Operation};
use super::invent;
use super::resource::{Resource as R, code, container};
use super::seed::{self, ANCHORS, draft_model, draft_product};
use super::state::{Inner, State};
use super::world::{Record, World};
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
    #[serde(default = "julia")]
    author: String,
    #[serde(default = "api")]
    author_type: String,
}

fn all() -> f64 {
    1.0
}

fn per_second() -> f64 {
    100.0
}

fn julia() -> String {
    Author::somebody().name
}

/// A day's changes are imports and other connections, mostly, which come in tens.
fn api() -> String {
    "api".to_owned()
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
pub(super) async fn run(state: Arc<State>, job: Job, resources: Vec<R>) {
    let mut dice = Dice::new(state.options.seed ^ job.seed.rotate_left(32));
    let begin = state.clock.monotonic();
    loop {
        let due = ((state.clock.monotonic() - begin).as_secs_f64() * job.per_second) as u64;
        let mut finished = false;
        for _ in 0..1_000 {
            let mut inner = state.inner();
            // Draws that come to nothing are bounded too: a kind that cannot be changed as asked ends the churn.
            finished = inner.churn.made >= job.changes || inner.churn.skipped > 1_000 + 10 * job.changes;
            if finished || inner.churn.made >= due {
                break;
            }
            let made = step(&mut inner, &mut dice, &job, &resources, state.now_us());
            inner.churn.made += made;
            inner.churn.skipped += u64::from(made == 0);
        }
        state.wake();
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

/// Makes one change, or two that are hard to tell apart; how many. What a model takes with it is not counted.
fn step(inner: &mut Inner, dice: &mut Dice, job: &Job, resources: &[R], now_us: i64) -> u64 {
    let resource = resource(dice, resources);
    let author = Author { name: job.author.clone(), kind: job.author_type.clone() };
    let manner = Manner { author, announce: true, now_us };
    // Locales, currencies and channels are only switched, never made or deleted.
    let is_made = !matches!(resource, R::Locales | R::Currencies | R::Channels);
    let removes = is_made && (job.removals >= 1.0 || dice.happens(job.removals));
    let made = match dice.below(100) {
        0..=11 if is_made => create(inner, dice, resource, &manner),
        12..=18 if removes => delete(inner, dice, resource, &manner),
        19..=22 if removes => restore(inner, dice, resource, &manner),
        23..=28 => update(inner, dice, resource, 2, &manner),
        _ => update(inner, dice, resource, 1, &manner),
    };
    made.unwrap_or(0)
}

fn resource(dice: &mut Dice, resources: &[R]) -> R {
    let any = |dice: &mut Dice, of: &[R]| of[dice.below(of.len() as u64) as usize];
    if !resources.is_empty() {
        return any(dice, resources);
    }
    match dice.below(100) {
        0..=54 => R::Products,
        55..=74 => R::ProductModels,
        _ => any(dice, &R::records().collect::<Vec<_>>()),
    }
}

fn create(inner: &mut Inner, dice: &mut Dice, resource: R, manner: &Manner) -> Option<u64> {
    let document = match resource {
        // Half of what is new are variants of what is there.
        R::Products if dice.happens(0.5) => {
            let parent = inner.world.pick(R::ProductModels, dice.throw())?.to_owned();
            let model = inner.world.get(R::ProductModels, &parent)?.clone();
            let is_leaf = !model.text("parent").is_empty() || model.text("family_variant").ends_with("_by_size");
            draft_product(&inner.world, dice, model.text("family"), is_leaf.then_some(parent.as_str()))
        }
        R::ProductModels if dice.happens(0.5) => {
            let parent = inner.world.pick(R::ProductModels, dice.throw())?.to_owned();
            let model = inner.world.get(R::ProductModels, &parent)?.clone();
            let is_root = model.text("parent").is_empty() && model.text("family_variant").ends_with("_by_color_size");
            draft_model(&inner.world, dice, model.text("family"), is_root, is_root.then_some(parent.as_str()))
        }
        _ => seed::draft(&inner.world, dice, resource),
    };
    let key = seed::new_key(&mut inner.world, resource, "new_");
    let record = seed::record(resource, &key, document, manner.now_us.div_euclid(1_000_000));
    inner.create(resource, &key, record, Operation::Create, manner);
    Some(1)
}

/// Whether nothing refers to a record that would then change without a word.
fn is_deletable(world: &World, resource: R, key: &str) -> bool {
    match resource {
        R::Products => (1..=ANCHORS).all(|number| invent::uuid(world.seed, number) != key),
        R::ProductModels => true,
        _ => code(key).starts_with("new_"),
    }
}

fn delete(inner: &mut Inner, dice: &mut Dice, resource: R, manner: &Manner) -> Option<u64> {
    for _ in 0..16 {
        let key = inner.world.pick(resource, dice.throw())?.to_owned();
        if is_deletable(&inner.world, resource, &key) {
            return inner.delete(resource, &key, manner).then_some(1);
        }
    }
    None
}

/// Whether everything that a deleted record needs is still there.
fn is_restorable(world: &World, resource: R, key: &str, record: &Record) -> bool {
    let parent = record.text("parent");
    let has_parent = !resource.has_values() || parent.is_empty() || world.get(R::ProductModels, parent).is_some();
    let has_container = container(key).zip(resource.spec().container).is_none_or(|(code, of)| world.get(of, code).is_some());
    has_parent && has_container
}

fn restore(inner: &mut Inner, dice: &mut Dice, resource: R, manner: &Manner) -> Option<u64> {
    let whole = |(key, record): &(&str, &Arc<Record>)| is_restorable(&inner.world, resource, key, record);
    let keys: Vec<String> = inner.world.graves(resource).filter(whole).take(64).map(|(key, _)| key.to_owned()).collect();
    let key = keys.get(usize::try_from(dice.below(keys.len() as u64)).ok()?)?;
    restore_one(inner, resource, key, manner).then_some(1)
}

/// Brings a deleted record back under its key; false when none was deleted.
pub(super) fn restore_one(inner: &mut Inner, resource: R, key: &str, manner: &Manner) -> bool {
    let Some(grave) = inner.world.grave(resource, key) else { return false };
    let mut record = Record::clone(grave);
    record.updated_s = record.updated_s.max(manner.now_us.div_euclid(1_000_000));
    inner.create(resource, key, record, Operation::Restore, manner);
    true
}

fn update(inner: &mut Inner, dice: &mut Dice, resource: R, times: u64, manner: &Manner) -> Option<u64> {
    let key = inner.world.pick(resource, dice.throw())?.to_owned();
    for _ in 0..times {
        touch(inner, dice, resource, &key, manner);
    }
    Some(times)
}

/// Changes something of a record; false when there is none.
pub(super) fn touch(inner: &mut Inner, dice: &mut Dice, resource: R, key: &str, manner: &Manner) -> bool {
    let number = dice.below(1_000_000);
    if !resource.has_values() {
        return inner.edit(resource, key, manner, |record| rename(record, resource, number));
    }
    let Some(record) = inner.world.get(resource, key).cloned() else { return false };
    let attribute = attribute(&inner.world, dice, resource, &record);
    let value = attribute.as_deref().and_then(|attribute| {
        let attribute = inner.world.get(R::Attributes, attribute)?;
        invent::values(inner.world.seed ^ number ^ 0xed17, key, attribute)
    });
    let sibling = (resource == R::Products).then(|| sibling(&inner.world, dice, &record)).flatten();
    let choice = dice.below(100);
    inner.edit(resource, key, manner, |record| match (choice, sibling, attribute) {
        (0..=2, Some(model), _) => {
            record.document.insert("parent".to_owned(), model.into());
        }
        (3..=5, _, _) if resource == R::Products && record.document["identifier"].is_string() => {
            record.document.insert("identifier".to_owned(), format!("SKU/{number:06}-{}", code(key)).into());
        }
        // An empty list is an attribute that somebody cleared.
        (6..=99, _, Some(attribute)) => {
            record.values.insert(attribute, value.unwrap_or_default().into());
        }
        _ => toggle(record, resource),
    })
}

/// An attribute that is edited at the record's own level; none where it has no family.
fn attribute(world: &World, dice: &mut Dice, resource: R, record: &Record) -> Option<String> {
    const COMMON: [&str; 7] = ["name", "description", "price", "features", "waterproof", "designer", "care"];
    const OF_COLOUR: [&str; 2] = ["picture", "packshots"];
    const OF_VARIANT: [&str; 3] = ["stock", "weight", "release_date"];
    let family = world.get(R::Families, record.text("family"))?;
    let pool: &[&str] = match (resource, record.text("parent").is_empty()) {
        (R::Products, false) => &OF_VARIANT,
        (_, false) => &OF_COLOUR,
        (R::Products, true) if dice.happens(0.5) => &OF_VARIANT,
        _ => &COMMON,
    };
    let attribute = pool[dice.below(pool.len() as u64) as usize];
    family.texts("attributes").any(|known| known == attribute).then(|| attribute.to_owned())
}

/// Another model that a variant can move to: one with the same family variant and parent.
fn sibling(world: &World, dice: &mut Dice, variant: &Record) -> Option<String> {
    let model = world.get(R::ProductModels, variant.text("parent"))?;
    let other = world.pick(R::ProductModels, dice.throw())?;
    let found = world.get(R::ProductModels, other)?;
    let is_alike = found.text("family_variant") == model.text("family_variant");
    let same_level = found.text("parent").is_empty() == model.text("parent").is_empty();
    (is_alike && same_level && other != variant.text("parent")).then(|| other.to_owned())
}

/// A change that is never nothing: products are switched, models move in or out of the tree's root.
fn toggle(record: &mut Record, resource: R) {
    if resource == R::Products {
        let enabled = record.document.get("enabled") == Some(&Value::Bool(true));
        record.document.insert("enabled".to_owned(), (!enabled).into());
        return;
    }
    let mut categories: Vec<String> = record.texts("categories").filter(|category| *category != "master").map(ToOwned::to_owned).collect();
    if categories.len() == record.texts("categories").count() {
        categories.push("master".to_owned());
    }
    record.document.insert("categories".to_owned(), categories.into());
}

/// Writes something new into what is edited of a record without values.
fn rename(record: &mut Record, resource: R, number: u64) {
    let text = format!("Edit {}.{number} <R&D> żółć/{number}", record.revision + 1);
    match resource {
        R::Locales | R::Currencies => {
            // What is activated stays so, or queries for it would be refused.
            record.document.insert("label".to_owned(), text.into());
        }
        R::Assets | R::ReferenceEntityRecords => {
            let label = json!({ "label": [{ "locale": "en_US", "channel": null, "data": text }] });
            record.document.insert("values".to_owned(), label);
        }
        _ => {
            let labels = record.document.entry("labels").or_insert_with(|| json!({}));
            labels["en_US"] = text.into();
        }
    }
}

/// Changes `count` records of different kinds without a trace: no event, no new stamp, no line in the log.
pub(super) fn tamper(inner: &mut Inner, dice: &mut Dice, count: usize, now_us: i64) -> Vec<(R, String)> {
    const TARGETS: [R; 4] = [R::Products, R::ProductModels, R::Categories, R::Families];
    let manner = Manner { author: Author::somebody(), announce: false, now_us };
    let mut tampered: Vec<(R, String)> = Vec::new();
    while tampered.len() < count {
        let resource = TARGETS[tampered.len() % TARGETS.len()];
        let Some(key) = inner.world.pick(resource, dice.throw()).map(ToOwned::to_owned) else { break };
        if tampered.contains(&(resource, key.clone())) {
            if tampered.len() >= inner.world.len(resource) {
                break;
            }
            continue;
        }
        let number = dice.below(1_000_000);
        inner.edit(resource, &key, &manner, |record| {
            if resource.has_values() { toggle(record, resource) } else { rename(record, resource, number) }
        });
        tampered.push((resource, key));
    }
    tampered
}
