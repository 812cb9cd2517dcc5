//! Walks a parsed file, remembers where every value stands, and collects mistakes instead of stopping at the first.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::schema::{Key, Presence};
use super::value::{Check, Value};

/// One thing wrong in a file. Its text never holds a secret: a wrong secret is described, not repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// The file, as it was named.
    pub file: String,
    /// Line, from 1; 0 when the file could not be read at all.
    pub line: usize,
    /// Column in characters, from 1; 0 when the file could not be read at all.
    pub column: usize,
    /// The key with its path, e.g. `sources.pmp.token`; empty for a syntax error.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.message)
    }
}

/// One effective value, for `check --print`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The key with its path.
    pub key: String,
    /// The value as TOML; none when the key is optional and not set. A secret is shown as its reference.
    pub value: Option<String>,
    /// The file it stands in; none for a default.
    pub file: Option<String>,
    /// The line it stands on; none for a default.
    pub line: Option<usize>,
}

/// A file being read.
#[derive(Debug)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) text: String,
}

impl File {
    /// Line and column, both from 1, of a byte offset.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }
}

/// What reading has found so far.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) mistakes: Vec<Mistake>,
    pub(super) entries: Vec<Entry>,
}

/// Where a value comes from (no file: a built-in default) and where findings go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) file: Option<&'a File>,
    pub(super) log: &'a RefCell<Log>,
}

impl Context<'_> {
    fn of_default(self) -> Self {
        Self { file: None, ..self }
    }

    /// `file:line` of a byte offset.
    pub(super) fn place(&self, offset: usize) -> String {
        match self.file {
            Some(file) => format!("{}:{}", file.name, file.position(offset).0),
            None => "the defaults".to_owned(),
        }
    }

    pub(super) fn mistake(&self, offset: usize, key: &str, message: impl Into<String>) {
        let (line, column) = self.file.map_or((0, 0), |file| file.position(offset));
        let file = self.file.map_or_else(|| "built-in default".to_owned(), |file| file.name.clone());
        let mistake = Mistake { file, line, column, key: key.to_owned(), message: message.into() };
        self.log.borrow_mut().mistakes.push(mistake);
    }

    fn entry(&self, offset: usize, key: &str, value: Option<String>) {
        let file = self.file.map(|file| file.name.clone());
        let line = self.file.map(|file| file.position(offset).0);
        self.log.borrow_mut().entries.push(Entry { key: key.to_owned(), value, file, line });
    }
}

/// One value with its place.
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub(super) path: String,
    pub(super) value: &'a Spanned<DeValue<'a>>,
    pub(super) context: Context<'a>,
}

impl<'a> Item<'a> {
    /// The value itself, without its place.
    pub(super) fn get(&self) -> &'a DeValue<'a> {
        self.value.get_ref()
    }

    /// Records a mistake at this value. Returns none, so that a reader can end with it.
    pub(super) fn mistake<T>(&self, message: impl Into<String>) -> Option<T> {
        self.context.mistake(self.value.span().start, &self.path, message);
        None
    }

    /// Records that this is not what was wanted, and what it is.
    pub(super) fn wrong_type<T>(&self, wanted: &str) -> Option<T> {
        self.mistake(format!("must be {wanted}, not {}", kind_of(self.get())))
    }

    /// The text, or a mistake saying what was wanted.
    pub(super) fn text(&self, wanted: &str) -> Option<&'a str> {
        match self.get().as_str() {
            Some(text) => Some(text),
            None => self.wrong_type(wanted),
        }
    }

    /// The table, or a mistake.
    pub(super) fn table(&self) -> Option<Table<'a>> {
        match self.get().as_table() {
            Some(map) => Some(Table::new(self.path.clone(), map, self.value.span().start, self.context)),
            None => self.wrong_type("a table"),
        }
    }

    /// The values of an array, or a mistake saying what was wanted.
    pub(super) fn array(&self, wanted: &str) -> Option<Vec<Item<'a>>> {
        let Some(array) = self.get().as_array() else {
            return self.wrong_type(wanted);
        };
        let items =
            array.iter().enumerate().map(|(index, value)| Item { path: format!("{}[{index}]", self.path), value, context: self.context });
        Some(items.collect())
    }

    /// Notes the effective value of a key for `check --print`; `below` names a key under this one.
    pub(super) fn record(&self, below: &str, value: String) {
        self.context.entry(self.value.span().start, &join(&self.path, below), Some(value));
    }

    /// Reads an element of a list, whose keys are shown with the list and not one by one.
    pub(super) fn element<T: Value>(&self) -> Option<T> {
        let shown = self.context.log.borrow().entries.len();
        let value = T::read(self);
        self.context.log.borrow_mut().entries.truncate(shown);
        value
    }

    fn checked<T: Value>(&self, checks: &[Check<'_, T>]) -> Option<T> {
        let value = T::read(self)?;
        for check in checks {
            if let Err(message) = check(&value) {
                return self.mistake(message);
            }
        }
        if T::KEYS.is_empty() {
            self.record("", value.show());
        }
        Some(value)
    }
}

/// One table with its place, and which of its keys were asked for.
#[derive(Debug)]
pub(super) struct Table<'a> {
    path: String,
    map: &'a DeTable<'a>,
    start: usize,
    context: Context<'a>,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Table<'a> {
    pub(super) fn new(path: String, map: &'a DeTable<'a>, start: usize, context: Context<'a>) -> Self {
        Self { path, map, start, context, asked: RefCell::default() }
    }

    /// Reads one key: the written value, or its default. None when there is a mistake in it.
    pub(super) fn value<T: Value>(&self, key: &Key, checks: &[Check<'_, T>]) -> Option<T> {
        if let Some(item) = self.item(key.name) {
            return item.checked(checks);
        }
        let path = join(&self.path, key.name);
        match key.presence {
            Presence::Default(text) => {
                let value = DeValue::parse(text).expect("a built-in default is TOML");
                Item { path, value: &value, context: self.context.of_default() }.checked(checks)
            }
            Presence::Optional(_) => {
                self.context.of_default().entry(0, &path, None);
                T::absent()
            }
            Presence::Required(example) => {
                let message = format!("is required and missing; for example `{} = {example}`", key.name);
                self.context.mistake(self.start, &path, message);
                None
            }
        }
    }

    /// Tables below the key `name` that are not written, one for each of `keys`, as they are by default.
    pub(super) fn defaults<'n, T: Value>(&self, name: &str, keys: impl Iterator<Item = &'n str>) -> Option<BTreeMap<String, T>> {
        let empty = DeValue::parse("{}").expect("an empty table is TOML");
        let path = join(&self.path, name);
        let read = keys.map(|key| {
            let item = Item { path: join(&path, key), value: &empty, context: self.context.of_default() };
            Some((key.to_owned(), T::read(&item)?))
        });
        read.collect()
    }

    /// The written value of a key, which counts as asked for from now on.
    pub(super) fn item(&self, name: &'static str) -> Option<Item<'a>> {
        self.asked.borrow_mut().insert(name);
        let value = self.map.get(name)?;
        Some(Item { path: join(&self.path, name), value, context: self.context })
    }

    /// Every value with its key, for tables whose keys are names; the offset is the key's.
    pub(super) fn named(&self) -> impl Iterator<Item = (&'a str, usize, Item<'a>)> {
        self.map.iter().map(|(key, value)| {
            let name: &'a str = key.get_ref().as_ref();
            (name, key.span().start, Item { path: join(&self.path, name), value, context: self.context })
        })
    }

    /// Records every key that nobody asked for: with the connector kind it belongs to (`elsewhere`: kind and its keys), or the
    /// name that was probably meant. Returns whether there was none.
    pub(super) fn finish(&self, elsewhere: &[(&str, &[&str])]) -> bool {
        self.finish_with(|name| {
            let owners = elsewhere.iter().filter(|(_, keys)| keys.contains(&name));
            let owners: Vec<String> = owners.map(|(kind, _)| format!("\"{kind}\"")).collect();
            match owners.is_empty() {
                true => format!("unknown key{}", suggestion(name, self.asked.borrow().iter().copied())),
                false => format!("this key belongs to a source of kind {}", owners.join(" or ")),
            }
        })
    }

    /// Records every key that nobody asked for with a message made from its name. Returns whether there was none.
    pub(super) fn finish_with(&self, message: impl Fn(&str) -> String) -> bool {
        let mut all_known = true;
        for (key, _) in self.map {
            let name: &str = key.get_ref().as_ref();
            if !self.asked.borrow().contains(name) {
                self.context.mistake(key.span().start, &join(&self.path, name), message(name));
                all_known = false;
            }
        }
        all_known
    }
}

/// `, did you mean …?` for the nearest of the known names, or which names there are.
pub(super) fn suggestion<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    let known: Vec<&str> = known.collect();
    let near = known.iter().map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate)).min();
    match near {
        Some((distance, candidate)) if distance <= 1.max(candidate.len() / 3) => format!(", did you mean `{candidate}`?"),
        _ => format!("; known here: {}", known.join(", ")),
    }
}

fn join(path: &str, name: &str) -> String {
    match (path, name) {
        (path, "") => path.to_owned(),
        ("", name) => name.to_owned(),
        (path, name) => format!("{path}.{name}"),
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
