//! The fake organisation's records, and what they were a moment ago.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::catalog::{CATALOG, Collection};

/// A record, held small: what is not stated here is a function of the seed and the id, made when it is rendered.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) created_us: i64,
    pub(super) updated_us: i64,
    pub(super) activity_us: i64,
    /// Archived, closed or cancelled at; 0 for not.
    pub(super) ended_us: i64,
    /// A template (projects) or a budget (deals).
    pub(super) special: bool,
    pub(super) revision: u32,
    /// The keys of the relations in the catalog's order, 0 for none; free for logs.
    pub(super) to: Box<[u32]>,
    /// Attributes that were set after seeding.
    pub(super) own: Option<Box<Map<String, Value>>>,
}

impl Record {
    pub(super) fn set(&mut self, attribute: &str, value: Value) {
        self.own.get_or_insert_default().insert(attribute.to_owned(), value);
    }

    pub(super) fn own(&self, attribute: &str) -> Option<&Value> {
        self.own.as_ref()?.get(attribute)
    }
}

/// A state that a record had until an instant; none where it did not exist.
#[derive(Debug)]
struct Past {
    until_us: i64,
    state: Option<Arc<Record>>,
}

#[derive(Debug, Default)]
struct Table {
    live: BTreeMap<u32, Arc<Record>>,
    past: BTreeMap<u32, Vec<Past>>,
    last_id: u32,
}

/// Everything that the API shows.
#[derive(Debug)]
pub(super) struct World {
    pub(super) seed: u64,
    tables: Vec<Table>,
    /// How many live records point at one; such a record is not deleted by the churn, so that nothing ever dangles.
    referenced: HashMap<(Collection, u32), u32>,
    /// Deleted records, for restoring.
    graves: BTreeMap<(Collection, u32), Arc<Record>>,
    /// How far back states are kept; 0 for not at all.
    pub(super) memory_us: i64,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let tables = CATALOG.iter().map(|spec| Table { last_id: spec.first_id, ..Table::default() }).collect();
        Self { seed, tables, referenced: HashMap::new(), graves: BTreeMap::new(), memory_us: 0 }
    }

    pub(super) fn get(&self, collection: Collection, id: u32) -> Option<&Arc<Record>> {
        self.table(collection).live.get(&id)
    }

    pub(super) fn len(&self, collection: Collection) -> usize {
        self.table(collection).live.len()
    }

    /// A new id of the collection.
    pub(super) fn next_id(&mut self, collection: Collection) -> u32 {
        let table = &mut self.tables[collection as usize];
        table.last_id += 1;
        table.last_id
    }

    /// Creates or replaces a record as of `at_us`.
    pub(super) fn put(&mut self, collection: Collection, id: u32, record: Record, at_us: i64) -> Arc<Record> {
        let record = Arc::new(record);
        self.count_references(collection, &record, true);
        self.graves.remove(&(collection, id));
        let before = self.tables[collection as usize].live.insert(id, Arc::clone(&record));
        if let Some(before) = &before {
            self.count_references(collection, before, false);
        }
        self.remember(collection, id, before, at_us);
        record
    }

    /// Deletes a record as of `at_us`.
    pub(super) fn remove(&mut self, collection: Collection, id: u32, at_us: i64) -> Option<Arc<Record>> {
        let record = self.tables[collection as usize].live.remove(&id)?;
        self.count_references(collection, &record, false);
        self.remember(collection, id, Some(Arc::clone(&record)), at_us);
        if !collection.is_log() {
            self.graves.insert((collection, id), Arc::clone(&record));
        }
        Some(record)
    }

    pub(super) fn is_referenced(&self, collection: Collection, id: u32) -> bool {
        self.referenced.contains_key(&(collection, id))
    }

    pub(super) fn grave(&self, collection: Collection, id: u32) -> Option<&Arc<Record>> {
        self.graves.get(&(collection, id))
    }

    /// A deleted record of the collection whose relations all still exist, at or behind `from`.
    pub(super) fn restorable(&self, collection: Collection, from: u32) -> Option<u32> {
        let whole = |record: &Record| {
            collection.spec().relations.iter().zip(&record.to).all(|(relation, &to)| to == 0 || self.get(relation.target, to).is_some())
        };
        self.graves.range((collection, from)..=(collection, u32::MAX)).find(|(_, record)| whole(record)).map(|((_, id), _)| *id)
    }

    /// A live record of the collection, chosen by a random number.
    pub(super) fn pick(&self, collection: Collection, random: u64) -> Option<u32> {
        let table = self.table(collection);
        let span = u64::from(table.last_id.checked_sub(collection.spec().first_id)?);
        let from = collection.spec().first_id + u32::try_from(random.checked_rem(span)?).ok()?;
        table.live.range((Bound::Excluded(from), Bound::Unbounded)).next().or_else(|| table.live.iter().next()).map(|(id, _)| *id)
    }

    /// The collection now, or as it was at an instant within the memory.
    pub(super) fn view(&self, collection: Collection, at_us: Option<i64>) -> View<'_> {
        let table = self.table(collection);
        let overlay = match at_us {
            None => BTreeMap::new(),
            Some(at_us) => table.past.iter().filter_map(|(id, states)| Some((*id, state_at(states, at_us)?))).collect(),
        };
        View { live: &table.live, overlay }
    }

    /// One record now or at an instant, and whether that is an older state.
    pub(super) fn view_of(&self, collection: Collection, id: u32, at_us: Option<i64>) -> (Option<&Arc<Record>>, bool) {
        let table = self.table(collection);
        let past = at_us.and_then(|at_us| state_at(table.past.get(&id)?, at_us));
        past.map_or_else(|| (table.live.get(&id), false), |state| (state, true))
    }

    fn table(&self, collection: Collection) -> &Table {
        &self.tables[collection as usize]
    }

    fn count_references(&mut self, collection: Collection, record: &Record, up: bool) {
        for (relation, &to) in collection.spec().relations.iter().zip(&record.to) {
            let key = (relation.target, to);
            if to == 0 {
                continue;
            }
            let count = self.referenced.entry(key).or_default();
            *count = if up { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.referenced.remove(&key);
            }
        }
    }

    fn remember(&mut self, collection: Collection, id: u32, state: Option<Arc<Record>>, until_us: i64) {
        if self.memory_us == 0 {
            return;
        }
        let oldest = until_us - self.memory_us;
        let past = &mut self.tables[collection as usize].past;
        past.entry(id).or_default().push(Past { until_us, state });
        // Forgetting walks the whole table, so it is done now and then.
        if past.len().is_multiple_of(1024) {
            past.retain(|_, states| {
                states.retain(|past| past.until_us >= oldest);
                !states.is_empty()
            });
        }
    }
}

fn state_at(states: &[Past], at_us: i64) -> Option<Option<&Arc<Record>>> {
    states.iter().find(|past| past.until_us > at_us).map(|past| past.state.as_ref())
}

/// A collection as one reader sees it.
#[derive(Debug)]
pub(super) struct View<'a> {
    live: &'a BTreeMap<u32, Arc<Record>>,
    /// Records that this reader sees in an older state, or not at all.
    overlay: BTreeMap<u32, Option<&'a Arc<Record>>>,
}

impl<'a> View<'a> {
    pub(super) fn get(&self, id: u32) -> Option<&'a Arc<Record>> {
        match self.overlay.get(&id) {
            Some(state) => *state,
            None => self.live.get(&id),
        }
    }

    /// Whether anything is shown in an older state.
    pub(super) fn is_stale(&self) -> bool {
        !self.overlay.is_empty()
    }

    pub(super) fn is_stale_at(&self, id: u32) -> bool {
        self.overlay.contains_key(&id)
    }

    /// The number of records, where it is known without counting.
    pub(super) fn known_len(&self) -> Option<usize> {
        self.overlay.is_empty().then_some(self.live.len())
    }

    /// Records behind an id, in the order of ids.
    pub(super) fn after(&self, id: u32) -> impl Iterator<Item = (u32, &'a Arc<Record>)> {
        let mut live = self.live.range((Bound::Excluded(id), Bound::Unbounded)).peekable();
        let mut old = self.overlay.range((Bound::Excluded(id), Bound::Unbounded)).peekable();
        std::iter::from_fn(move || {
            loop {
                match (live.peek(), old.peek()) {
                    (Some((l, _)), Some((o, _))) if l < o => {}
                    (_, Some((o, state))) => {
                        let (id, state) = (**o, **state);
                        old.next();
                        if live.peek().is_some_and(|(l, _)| **l == id) {
                            live.next();
                        }
                        match state {
                            Some(state) => return Some((id, state)),
                            None => continue,
                        }
                    }
                    (None, None) => return None,
                    (Some(_), None) => {}
                }
                return live.next().map(|(id, record)| (*id, record));
            }
        })
    }

    /// Records before an id, latest first.
    pub(super) fn before(&self, id: u32) -> impl Iterator<Item = (u32, &'a Arc<Record>)> {
        // Only logs are read backwards; what the overlay adds there is what was not yet logged, which is to be left out.
        self.live.range(..id).rev().filter_map(|(id, _)| Some((*id, self.get(*id)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titled(title: &str) -> Record {
        let mut record = Record::default();
        record.set("title", title.into());
        record
    }

    fn titles(world: &World, at_us: Option<i64>) -> Vec<String> {
        let view = world.view(Collection::Tasks, at_us);
        view.after(0).filter_map(|(_, record)| record.own("title")?.as_str().map(str::to_owned)).collect()
    }

    #[test]
    fn a_lagging_reader_sees_the_past() {
        let mut world = World::new(1);
        world.memory_us = 1_000;
        world.put(Collection::Tasks, 1, titled("one"), 10);
        world.put(Collection::Tasks, 2, titled("two"), 20);
        world.put(Collection::Tasks, 1, titled("one again"), 30);
        world.remove(Collection::Tasks, 2, 40);
        assert_eq!(titles(&world, None), ["one again"]);
        assert_eq!(titles(&world, Some(5)), Vec::<String>::new());
        assert_eq!(titles(&world, Some(15)), ["one"]);
        assert_eq!(titles(&world, Some(25)), ["one", "two"]);
        assert_eq!(titles(&world, Some(35)), ["one again", "two"]);
        assert_eq!(titles(&world, Some(40)), ["one again"]);
    }

    #[test]
    fn references_are_counted_up_and_down() {
        let mut world = World::new(1);
        let task_of = |project: u32| Record { to: vec![project, 0, 0, 0, 0].into(), ..Record::default() };
        world.put(Collection::Projects, 7, Record::default(), 0);
        world.put(Collection::Tasks, 1, task_of(7), 0);
        assert!(world.is_referenced(Collection::Projects, 7));
        world.put(Collection::Tasks, 1, task_of(8), 1);
        assert!(!world.is_referenced(Collection::Projects, 7));
        world.remove(Collection::Tasks, 1, 2);
        assert!(!world.is_referenced(Collection::Projects, 8));
        assert_eq!(world.restorable(Collection::Tasks, 0), None, "its project does not exist");
    }
}
