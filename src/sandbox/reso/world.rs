//! The producer's records.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::resource::{MODIFIED, Resource};
use crate::clock::Timestamp;

/// A record with all of its fields.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) document: Map<String, Value>,
    pub(super) modified_us: i64,
    /// Since when it may no longer be viewed, where the producer still tells of it.
    pub(super) hidden_us: Option<i64>,
}

impl Record {
    /// A text of the document; empty where there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.document.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.document.insert(name.to_owned(), value.into());
    }

    /// Stamps it; a record's own stamp never goes back.
    pub(super) fn touch(&mut self, now_us: i64) {
        self.modified_us = self.modified_us.max(now_us.div_euclid(1_000) * 1_000);
        self.set(MODIFIED, stamp(self.modified_us));
    }
}

/// `2026-01-01T10:00:00.123Z`.
pub(super) fn stamp(at_us: i64) -> String {
    let text = Timestamp(at_us).to_string();
    // Six digits of the fraction and `Z`: three go.
    format!("{}Z", &text[..text.len().saturating_sub(4)])
}

/// Everything that the API shows.
#[derive(Debug, Default)]
pub(super) struct World {
    tables: BTreeMap<Resource, BTreeMap<String, Arc<Record>>>,
    /// Removed records, for restoring.
    graves: BTreeMap<(Resource, String), Arc<Record>>,
    made: BTreeMap<Resource, u64>,
}

impl World {
    /// A record, also one that may no longer be viewed.
    pub(super) fn get(&self, resource: Resource, key: &str) -> Option<&Arc<Record>> {
        self.tables.get(&resource)?.get(key)
    }

    pub(super) fn len(&self, resource: Resource) -> usize {
        self.tables.get(&resource).map_or(0, BTreeMap::len)
    }

    /// Records in the order of their keys.
    pub(super) fn all(&self, resource: Resource) -> impl Iterator<Item = (&str, &Arc<Record>)> {
        self.tables.get(&resource).into_iter().flatten().map(|(key, record)| (key.as_str(), record))
    }

    pub(super) fn put(&mut self, resource: Resource, key: &str, record: Record) {
        self.graves.remove(&(resource, key.to_owned()));
        self.tables.entry(resource).or_default().insert(key.to_owned(), Arc::new(record));
    }

    pub(super) fn remove(&mut self, resource: Resource, key: &str) -> Option<Arc<Record>> {
        let record = self.tables.get_mut(&resource)?.remove(key)?;
        self.graves.insert((resource, key.to_owned()), Arc::clone(&record));
        Some(record)
    }

    /// Forgets what has been hidden since before an instant.
    pub(super) fn forget_hidden(&mut self, before_us: i64) {
        for (resource, table) in &mut self.tables {
            let gone: Vec<String> = table
                .iter()
                .filter(|(_, record)| record.hidden_us.is_some_and(|since_us| since_us < before_us))
                .map(|(key, _)| key.clone())
                .collect();
            for key in gone {
                if let Some(record) = table.remove(&key) {
                    self.graves.insert((*resource, key), record);
                }
            }
        }
    }

    pub(super) fn grave(&self, resource: Resource, key: &str) -> Option<&Arc<Record>> {
        self.graves.get(&(resource, key.to_owned()))
    }

    /// Removed records of a kind, in the order of their keys.
    pub(super) fn graves(&self, resource: Resource) -> impl Iterator<Item = (&str, &Arc<Record>)> {
        let from = self.graves.range((resource, String::new())..);
        from.take_while(move |((of, _), _)| *of == resource).map(|((_, key), record)| (key.as_str(), record))
    }

    /// A record that can be viewed, chosen by a random number.
    pub(super) fn pick(&self, resource: Resource, random: u64) -> Option<String> {
        let table = self.tables.get(&resource)?;
        let index = random.checked_rem(table.len() as u64)?;
        // While none is missing the number of a record is its place, and nothing need be counted.
        let numbered = key(resource, index + 1);
        let is_whole = self.made.get(&resource).is_some_and(|made| *made == table.len() as u64);
        if is_whole && table.get(&numbered).is_some_and(|record| record.hidden_us.is_none()) {
            return Some(numbered);
        }
        let index = usize::try_from(index).ok()?;
        let mut from = table.iter().skip(index).chain(table.iter().take(index));
        from.find(|(_, record)| record.hidden_us.is_none()).map(|(key, _)| key.clone())
    }

    /// What lies below a listing.
    pub(super) fn below(&self, listing: &str) -> Vec<(Resource, String)> {
        let of = |resource: Resource, field: &'static str| {
            self.all(resource).filter(move |(_, record)| record.text(field) == listing).map(move |(key, _)| (resource, key.to_owned()))
        };
        of(Resource::Media, "ResourceRecordKey").chain(of(Resource::OpenHouse, "ListingKey")).collect()
    }

    /// A key that was never used.
    pub(super) fn new_key(&mut self, resource: Resource) -> String {
        let made = self.made.entry(resource).or_default();
        *made += 1;
        key(resource, *made)
    }
}

/// The key of the n-th record that was made.
fn key(resource: Resource, n: u64) -> String {
    let prefix = match resource {
        Resource::Property => "L",
        Resource::Member => "M",
        Resource::Office => "O",
        Resource::Media => "P",
        Resource::OpenHouse => "H",
        Resource::EntityEvent => "E",
    };
    format!("{prefix}{n:07}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_picked_by_its_number_is_what_stands_there() {
        let mut world = World::default();
        for _ in 0..20 {
            let key = world.new_key(Resource::Property);
            world.put(Resource::Property, &key, Record::default());
        }
        let nth = |world: &World, n: usize| world.all(Resource::Property).nth(n).map(|(key, _)| key.to_owned());
        for n in 0..20 {
            assert_eq!(world.pick(Resource::Property, 40 + n), nth(&world, usize::try_from(n).expect("small")));
        }
        world.remove(Resource::Property, "L0000003");
        assert_eq!(world.pick(Resource::Property, 2).as_deref(), Some("L0000004"));
        world.put(Resource::Property, "L0000003", Record { hidden_us: Some(1), ..Record::default() });
        assert_eq!(world.pick(Resource::Property, 2).as_deref(), Some("L0000004"), "it may not be viewed");
    }
}
