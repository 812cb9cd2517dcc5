//! The configuration: one typed tree, read from `instep.toml` and the files it includes.
//!
//! Every mistake is found in one pass and names file, line, column and key. Each key is declared once, in a [`schema::section`];
//! reading, defaults, unknown keys, `check --print` and `instep.example.toml` follow from that. Nothing of the environment is
//! interpolated into the text: a value is where it is written, and a secret is a reference to its place.

mod akeneo;
mod include;
mod productive;
mod reader;
mod reso;
mod schema;
mod secret;
mod settings;
mod source;
mod value;

pub mod example;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml::de::DeTable;

pub use akeneo::{
    Akeneo, AkeneoResource, Auth as AkeneoAuth, EventPlatform, EventsApi, Keep, ProductKey, RESOURCES as AKENEO_RESOURCES, Zone,
};
pub use productive::{Productive, Quota, QuotaScope, QuotaShare, RESOURCES as PRODUCTIVE_RESOURCES};
pub use reader::{Entry, Mistake};
pub use reso::{
    Auth as ResoAuth, Events as ResoEvents, Profile as ResoProfile, Push as ResoPush, PushResume, Quota as ResoQuota,
    RESOURCES as RESO_RESOURCES, ReadLog, Reso, ResoResource, RetryForm,
};
pub use secret::{Secret, SecretError, SecretText, Secrets};
pub use settings::{Admin, Api, ApiScope, ApiToken, Level, Limits, Listen, Listener, Log, LogFormat, Retention, Store, StoreUrl};
pub(crate) use source::check_name;
pub use source::{Audit, Brake, Common, Connector, KINDS, Resource, Source, Watch};
pub use value::Size;
pub(crate) use value::quoted;

use reader::{Context, File, Table};
use schema::{section, table};

section! {
    /// The daemon's own part of the tree.
    pub struct Settings {
        /// Where the replica and the daemon's own tables live.
        store: Store = table();
        /// The sockets.
        listen: Listen = table();
        /// Caps on everything that could grow.
        limits: Limits = table();
        /// How long and how much is kept.
        retention: Retention = table();
        /// What the daemon says.
        log: Log = table();
    }
}

/// The whole configuration. No secret is in it: only where secrets are.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where the replica and the daemon's own tables live.
    pub store: Store,
    /// The sockets.
    pub listen: Listen,
    /// Caps on everything that could grow.
    pub limits: Limits,
    /// How long and how much is kept.
    pub retention: Retention,
    /// What the daemon says.
    pub log: Log,
    /// The upstream accounts by name.
    pub sources: BTreeMap<String, Source>,
    /// Every effective value with its place, in the order of the schema.
    pub entries: Vec<Entry>,
}

/// Everything wrong with a configuration, in the order of files and lines. Ends the process with exit code 78.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct Error {
    /// At least one.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.mistakes.iter().map(Mistake::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Where relative files of the store lie: `$STATE_DIRECTORY`, which systemd sets, else the working directory.
#[must_use]
pub fn state_directory() -> PathBuf {
    // systemd separates several directories with a colon; ours is the first.
    let set = std::env::var("STATE_DIRECTORY").ok().and_then(|all| all.split(':').next().map(PathBuf::from));
    set.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| PathBuf::from("."))
}

impl Config {
    /// Reads a file and what it includes.
    ///
    /// # Errors
    /// With every mistake in them.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let main = include::read(path).map_err(|mistake| Error { mistakes: vec![mistake] })?;
        Self::read(main)
    }

    /// Reads a text as if it stood in a file of this name; files it includes are looked for beside that.
    ///
    /// # Errors
    /// With every mistake in them.
    pub fn parse(name: &str, text: &str) -> Result<Self, Error> {
        Self::read(File { name: name.to_owned(), text: text.to_owned() })
    }

    fn read(main: File) -> Result<Self, Error> {
        let log = RefCell::default();
        let included = include::files(&main, &log);
        let mut sources = BTreeMap::new();
        let mut places = BTreeMap::new();
        let mut settings = None;
        for (index, file) in std::iter::once(&main).chain(&included).enumerate() {
            let context = Context { file: Some(file), log: &log };
            let (map, syntax) = DeTable::parse_recoverable(&file.text);
            for error in &syntax {
                context.mistake(error.span().map_or(0, |span| span.start), "", error.message().replace('\n', ", "));
            }
            if !syntax.is_empty() {
                continue;
            }
            let root = Table::new(String::new(), map.get_ref(), 0, context);
            if index == 0 {
                let _ = root.item("include");
                settings = Settings::read_keys(&root);
            }
            read_sources(&root, &mut sources, &mut places);
            match index {
                0 => root.finish(&[]),
                _ => root.finish_with(|_| "only [sources.<name>] may stand in an included file".to_owned()),
            };
        }
        let reader::Log { mut mistakes, entries } = log.into_inner();
        if let Some(settings) = &settings {
            mistakes.extend(same_socket(settings, &entries));
            mistakes.extend(unknown_sources(settings, &places, &entries));
        }
        match settings {
            Some(settings) if mistakes.is_empty() => {
                let Settings { store, listen, limits, retention, log } = settings;
                Ok(Self { store, listen, limits, retention, log, sources, entries })
            }
            _ => {
                // Files stay in the order they were read in; within one, people read from the top.
                let order: Vec<&str> = std::iter::once(&main).chain(&included).map(|file| file.name.as_str()).collect();
                mistakes.sort_by_key(|mistake| (order.iter().position(|name| *name == mistake.file), mistake.line, mistake.column));
                Err(Error { mistakes })
            }
        }
    }
}

fn read_sources(root: &Table<'_>, sources: &mut BTreeMap<String, Source>, places: &mut BTreeMap<String, String>) {
    let Some(table) = root.item("sources").and_then(|item| item.table()) else {
        return;
    };
    for (name, offset, item) in table.named() {
        let place = item.context.place(offset);
        if let Some(first) = places.insert(name.to_owned(), place) {
            item.context.mistake(offset, &item.path, format!("this source is defined already in {first}"));
            places.insert(name.to_owned(), first);
            continue;
        }
        if let Err(message) = source::check_name(name) {
            item.context.mistake(offset, &item.path, message);
        }
        if let Some(source) = Source::read(&item) {
            sources.insert(name.to_owned(), source);
        }
    }
}

/// The public socket must not show what the others show.
fn same_socket(settings: &Settings, entries: &[Entry]) -> Option<Mistake> {
    let Listen { hooks, admin, api } = &settings.listen;
    let named = [("hooks", Some(hooks)), ("admin", Some(&admin.address)), ("api", api.as_ref().map(|api| &api.address))];
    let is_free = |listener: &Listener| matches!(listener, Listener::Tcp(address) if address.port() == 0);
    let named: Vec<_> = named.into_iter().filter_map(|(name, listener)| Some((name, listener.filter(|one| !is_free(one))?))).collect();
    let twins = named.iter().enumerate().find_map(|(at, (name, one))| {
        let twin = named[..at].iter().find(|(_, other)| other == one)?;
        Some(format!("{} and {name} must be two sockets", twin.0))
    });
    listen_mistake(twins?, "listen.", entries)
}

/// A token for a source that is none is a name written wrongly.
fn unknown_sources(settings: &Settings, sources: &BTreeMap<String, String>, entries: &[Entry]) -> Option<Mistake> {
    let tokens = settings.listen.api.iter().flat_map(|api| &api.tokens);
    let mut named = tokens.flat_map(|token| token.sources.iter().flatten().map(move |source| (token, source)));
    let (token, source) = named.find(|(_, source)| !sources.contains_key(*source))?;
    listen_mistake(format!("the token `{}` is for the source `{source}`, which is not defined", token.name), "listen.api.tokens", entries)
}

fn listen_mistake(message: String, key: &str, entries: &[Entry]) -> Option<Mistake> {
    let written = entries.iter().find(|entry| entry.key.starts_with(key) && entry.file.is_some())?;
    Some(Mistake { file: written.file.clone()?, line: written.line?, column: 1, key: written.key.clone(), message })
}
