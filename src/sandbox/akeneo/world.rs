//! The PIM's records, and what they were a moment ago.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::resource::Resource;

/// A record. Stamps are whole seconds, as the vendor keeps them.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) created_s: i64,
    pub(super) updated_s: i64,
    pub(super) revision: u32,
    /// The document without what is derived; of products and models without values.
    pub(super) document: Map<String, Value>,
    /// Values that were set after seeding, by attribute; the others are a function of the seed, made when they are rendered.
    pub(super) values: Map<String, Value>,
}

impl Record {
    /// A text of the document; empty where there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.document.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// The texts of a list in the document.
    pub(super) fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        self.document.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
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
    live: BTreeMap<String, Arc<Record>>,
    past: HashMap<String, Vec<Past>>,
    /// How many keys were ever made here.
    made: u64,
}

/// Everything that the API shows.
#[derive(Debug)]
pub(super) struct World {
    pub(super) seed: u64,
    tables: Vec<Table>,
    /// Deleted records, for restoring.
    graves: BTreeMap<(Resource, String), Arc<Record>>,
    /// How far back states are kept; 0 for not at all.
    pub(super) memory_us: i64,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let tables = Resource::all().map(|_| Table::default()).collect();
        Self { seed, tables, graves: BTreeMap::new(), memory_us: 0 }
    }

    pub(super) fn get(&self, resource: Resource, key: &str) -> Option<&Arc<Record>> {
        self.table(resource).live.get(key)
    }

    /// A record as the index showed it at an instant within the memory, or now.
    pub(super) fn get_at(&self, resource: Resource, key: &str, at_us: Option<i64>) -> Option<&Arc<Record>> {
        let table = self.table(resource);
        match at_us.and_then(|at_us| state_at(table.past.get(key)?, at_us)) {
            Some(state) => state,
            None => table.live.get(key),
        }
    }

    pub(super) fn len(&self, resource: Resource) -> usize {
        self.table(resource).live.len()
    }

    /// Numbers the records that are ever made of a kind, from 1.
    pub(super) fn next_number(&mut self, resource: Resource) -> u64 {
        let table = &mut self.tables[resource as usize];
        table.made += 1;
        table.made
    }

    /// Creates or replaces a record as of `at_us`.
    pub(super) fn put(&mut self, resource: Resource, key: &str, record: Record, at_us: i64) -> Arc<Record> {
        let record = Arc::new(record);
        self.graves.remove(&(resource, key.to_owned()));
        let before = self.tables[resource as usize].live.insert(key.to_owned(), Arc::clone(&record));
        self.remember(resource, key, before, at_us);
        record
    }

    /// Deletes a record as of `at_us`.
    pub(super) fn remove(&mut self, resource: Resource, key: &str, at_us: i64) -> Option<Arc<Record>> {
        let record = self.tables[resource as usize].live.remove(key)?;
        self.remember(resource, key, Some(Arc::clone(&record)), at_us);
        self.graves.insert((resource, key.to_owned()), Arc::clone(&record));
        Some(record)
    }

    pub(super) fn grave(&self, resource: Resource, key: &str) -> Option<&Arc<Record>> {
        self.graves.get(&(resource, key.to_owned()))
    }

    /// Deleted records of a kind, in the order of their keys.
    pub(super) fn graves(&self, resource: Resource) -> impl Iterator<Item = (&str, &Arc<Record>)> {
        let from = self.graves.range((resource, String::new())..);
        from.take_while(move |((of, _), _)| *of == resource).map(|((_, key), record)| (key.as_str(), record))
    }

    /// A live record of the kind, chosen by a random number.
    pub(super) fn pick(&self, resource: Resource, random: u64) -> Option<&str> {
        let live = &self.table(resource).live;
        let index = random.checked_rem(live.len() as u64)?;
        live.keys().nth(usize::try_from(index).ok()?).map(String::as_str)
    }

    /// Live records of the kind, in the order of their keys.
    pub(super) fn live(&self, resource: Resource) -> impl Iterator<Item = (&str, &Arc<Record>)> {
        self.table(resource).live.iter().map(|(key, record)| (key.as_str(), record))
    }

    /// Products or models whose direct parent is this model.
    pub(super) fn children(&self, resource: Resource, model: &str) -> Vec<String> {
        self.live(resource).filter(|(_, record)| record.text("parent") == model).map(|(key, _)| key.to_owned()).collect()
    }

    /// What lies in a container.
    pub(super) fn inside(&self, resource: Resource, container: &str) -> Vec<String> {
        let prefix = format!("{container}/");
        let from = self.table(resource).live.range(prefix.clone()..);
        from.map(|(key, _)| key).take_while(|key| key.starts_with(&prefix)).cloned().collect()
    }

    /// The kind now, or as it was at an instant within the memory.
    pub(super) fn view(&self, resource: Resource, at_us: Option<i64>) -> View<'_> {
        let table = self.table(resource);
        let overlay = match at_us {
            None => BTreeMap::new(),
            Some(at_us) => table.past.iter().filter_map(|(key, states)| Some((key.as_str(), state_at(states, at_us)?))).collect(),
        };
        View { live: &table.live, overlay }
    }

    fn table(&self, resource: Resource) -> &Table {
        &self.tables[resource as usize]
    }

    fn remember(&mut self, resource: Resource, key: &str, state: Option<Arc<Record>>, until_us: i64) {
        if self.memory_us == 0 {
            return;
        }
        let oldest = until_us - self.memory_us;
        let past = &mut self.tables[resource as usize].past;
        past.entry(key.to_owned()).or_default().push(Past { until_us, state });
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

/// A kind of record as one reader sees it.
#[derive(Debug)]
pub(super) struct View<'a> {
    live: &'a BTreeMap<String, Arc<Record>>,
    /// Records that this reader sees in an older state, or not at all.
    overlay: BTreeMap<&'a str, Option<&'a Arc<Record>>>,
}

impl<'a> View<'a> {
    /// Whether anything is shown in an older state.
    pub(super) fn is_stale(&self) -> bool {
        !self.overlay.is_empty()
    }

    pub(super) fn get(&self, key: &str) -> Option<(&'a str, &'a Arc<Record>)> {
        match self.overlay.get_key_value(key) {
            Some((key, state)) => Some((*key, (*state)?)),
            None => self.live.get_key_value(key).map(|(key, record)| (key.as_str(), record)),
        }
    }

    /// Records behind a key, in the order of keys.
    pub(super) fn after(&self, key: &str) -> impl Iterator<Item = (&'a str, &'a Arc<Record>)> + use<'a, '_> {
        let bounds = (Bound::Excluded(key), Bound::Unbounded);
        let mut live = self.live.range::<str, _>(bounds).peekable();
        let mut old = self.overlay.range::<str, _>(bounds).peekable();
        std::iter::from_fn(move || {
            loop {
                match (live.peek(), old.peek()) {
                    (Some((l, _)), Some((o, _))) if l.as_str() < **o => {}
                    (_, Some((o, state))) => {
                        let (key, state) = (**o, **state);
                        old.next();
                        if live.peek().is_some_and(|(l, _)| l.as_str() == key) {
                            live.next();
                        }
                        match state {
                            Some(state) => return Some((key, state)),
                            None => continue,
                        }
                    }
                    (None, None) => return None,
                    (Some(_), None) => {}
                }
                return live.next().map(|(key, record)| (key.as_str(), record));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(label: &str) -> Record {
        let document = [("label".to_owned(), label.into())].into_iter().collect();
        Record { document, ..Record::default() }
    }

    fn labels(world: &World, at_us: Option<i64>) -> Vec<String> {
        world.view(Resource::Families, at_us).after("").map(|(_, record)| record.text("label").to_owned()).collect()
    }

    #[test]
    fn a_lagging_reader_sees_the_past() {
        let mut world = World::new(1);
        world.memory_us = 1_000;
        world.put(Resource::Families, "a", labelled("one"), 10);
        world.put(Resource::Families, "b", labelled("two"), 20);
        world.put(Resource::Families, "a", labelled("one again"), 30);
        world.remove(Resource::Families, "b", 40);
        assert_eq!(labels(&world, None), ["one again"]);
        assert_eq!(labels(&world, Some(5)), Vec::<String>::new());
        assert_eq!(labels(&world, Some(25)), ["one", "two"]);
        assert_eq!(labels(&world, Some(35)), ["one again", "two"]);
        assert_eq!(labels(&world, Some(40)), ["one again"]);
        assert_eq!(world.get_at(Resource::Families, "b", Some(35)).map(|record| record.text("label")), Some("two"));
        assert!(world.get_at(Resource::Families, "b", None).is_none());
        assert_eq!(world.graves(Resource::Families).count(), 1);
    }
}
