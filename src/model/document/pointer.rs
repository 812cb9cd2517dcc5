//! JSON pointers over [`Json`]: finding, cutting, and naming what changed.

use std::collections::BTreeSet;

use super::json::Json;

/// Names of a change row. A document whose every key changed needs no list of them.
const CHANGED_MAX: usize = 256;

impl Json {
    /// The value at a JSON pointer (`/attributes/title`, `/items/0`; empty for the whole).
    #[must_use]
    pub fn pointer(&self, pointer: &str) -> Option<&Self> {
        segments(pointer).try_fold(self, |at, segment| match at {
            Self::Object(entries) => entries.get(segment.as_str()),
            Self::Array(items) => items.get(segment.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// The same, to be normalised in place.
    #[must_use]
    pub fn pointer_mut(&mut self, pointer: &str) -> Option<&mut Self> {
        segments(pointer).try_fold(self, |at, segment| match at {
            Self::Object(entries) => entries.get_mut(segment.as_str()),
            Self::Array(items) => items.get_mut(segment.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// Cuts every value that a pointer with globs names (`*` stands for any text within one segment) and says how many those were.
    /// Of a list the items are named by index. The whole document cannot be cut.
    pub fn remove_pointer(&mut self, pointer: &str) -> usize {
        let segments: Vec<String> = segments(pointer).collect();
        remove(self, &segments)
    }
}

/// The names of the fields that differ between two canonical texts, one level below each of `roots` (JSON pointers; empty for the top).
/// More than 256 are one `*`; so is a text that cannot be read.
#[must_use]
pub fn changed_fields(old: &str, new: &str, roots: &[&str]) -> Vec<String> {
    let (Ok(old), Ok(new)) = (Json::parse(old.as_bytes()), Json::parse(new.as_bytes())) else {
        return vec!["*".to_owned()];
    };
    let names = names(&old, &new, roots);
    if names.len() > CHANGED_MAX { vec!["*".to_owned()] } else { names.into_iter().collect() }
}

/// The names of the fields in which two canonical texts differ, as [`changed_fields`] has them, without what `volatile` names
/// (pointers with `*`) and with numbers compared by value. What lies outside of every root is named by its place at the top. Empty:
/// they agree.
#[must_use]
pub fn differing_fields(one: &str, other: &str, volatile: &[String], roots: &[String]) -> Vec<String> {
    let read = |text: &str| {
        let mut json = Json::parse(text.as_bytes()).ok()?;
        for pointer in volatile {
            json.remove_pointer(pointer);
        }
        Some(json.with_plain_numbers())
    };
    let (Some(one), Some(other)) = (read(one), read(other)) else { return vec!["*".to_owned()] };
    if one == other {
        return Vec::new();
    }
    let roots: Vec<&str> = roots.iter().map(String::as_str).collect();
    let mut found = names(&one, &other, &roots);
    if found.is_empty() {
        found = names(&one, &other, &[""]);
    }
    if found.is_empty() || found.len() > CHANGED_MAX { vec!["*".to_owned()] } else { found.into_iter().collect() }
}

fn names(old: &Json, new: &Json, roots: &[&str]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for root in roots {
        let fields = |json: &'_ Json| json.pointer(root).and_then(Json::as_object).cloned().unwrap_or_default();
        let (old, new) = (fields(old), fields(new));
        let keys = old.keys().chain(new.keys());
        names.extend(keys.filter(|key| old.get(*key) != new.get(*key)).map(|key| key.to_string()));
    }
    names
}

/// `~1` stands for `/` and `~0` for `~` (RFC 6901).
fn segments(pointer: &str) -> impl Iterator<Item = String> + '_ {
    pointer.split('/').skip(1).map(|segment| segment.replace("~1", "/").replace("~0", "~"))
}

fn remove(json: &mut Json, segments: &[String]) -> usize {
    let Some((segment, below)) = segments.split_first() else { return 0 };
    match json {
        Json::Object(entries) if below.is_empty() => {
            let before = entries.len();
            entries.retain(|key, _| !glob(segment, key));
            before - entries.len()
        }
        Json::Object(entries) => entries.iter_mut().filter(|(key, _)| glob(segment, key)).map(|(_, item)| remove(item, below)).sum(),
        Json::Array(items) if below.is_empty() => {
            let before = items.len();
            let mut index = 0_usize..;
            items.retain(|_| !index.next().is_some_and(|at| glob(segment, &at.to_string())));
            before - items.len()
        }
        Json::Array(items) => {
            let named = items.iter_mut().enumerate().filter(|(at, _)| glob(segment, &at.to_string()));
            named.map(|(_, item)| remove(item, below)).sum()
        }
        _ => 0,
    }
}

/// Whether `text` is `pattern`, where each `*` stands for any text.
#[must_use]
pub fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = tail.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    let mut rest = text;
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}
