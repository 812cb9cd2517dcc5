//! House rules that a machine can check: who may use what, sizes, and what must not be there.
//!
//! Clippy knows the length of functions and `forbid(unsafe_code)` the rest; what they cannot see is here.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

mod durable;

/// Lines of a file.
const LINES_MAX: usize = 500;

/// Crates that only some rooms may use, so that replacing one stays a matter of one room.
const OWNERS: &[(&str, &[&str])] = &[
    ("sea_orm", &["store", "migrations"]),
    ("sea_orm_migration", &["store", "migrations"]),
    ("warp", &["http", "sandbox"]),
    ("hyper", &["http", "sandbox"]),
    ("hyper_util", &["http", "sandbox"]),
    ("backoff", &["retry"]),
    ("sd_notify", &["service"]),
    ("listenfd", &["service"]),
    ("ractor", &["actors", "supervision"]),
    ("reqwest", &["upstream", "cli", "sandbox", "demo"]),
    ("prometheus_client", &["report"]),
    ("tracing_subscriber", &["telemetry"]),
    ("clap", &["cli", "sandbox"]),
    ("fail", &["failpoint", "migrations"]),
];

/// Rooms that decide and never wait: bytes in, decisions out.
const PURE: &[&str] = &["model", "reconcile", "quota", "connectors"];

/// What rooms of the library may use of each other; whoever is not listed stands above and may use all of these.
const BELOW: &[(&str, &[&str])] = &[
    ("clock", &["failpoint"]),
    ("failpoint", &[]),
    ("retry", &[]),
    ("report", &[]),
    ("service", &[]),
    ("telemetry", &[]),
    ("config", &[]),
    ("model", &["clock"]),
    ("quota", &["clock"]),
    ("reconcile", &["clock"]),
    ("connectors", &["clock", "model", "reconcile"]),
    ("upstream", &["clock", "connectors", "failpoint", "quota"]),
    ("store", &["clock", "connectors", "failpoint", "model", "quota", "reconcile"]),
    ("http", &["clock", "failpoint", "report"]),
    ("supervision", &["clock", "failpoint", "report", "retry"]),
    // A referee that shares the player's code sees the player's mistakes as rules.
    ("sandbox", &["clock"]),
];

pub(crate) struct File {
    /// Below the root of the repository.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl File {
    /// The room of the library (`actors` of `src/actors/sync.rs`), or the folder at the top (`tests`, `migrations`).
    fn room(&self) -> String {
        let mut parts = self.path.iter().filter_map(|part| part.to_str());
        let top = parts.next().unwrap_or_default();
        let room = if top == "src" { parts.next().unwrap_or_default() } else { top };
        room.trim_end_matches(".rs").to_owned()
    }

    fn is_test(&self) -> bool {
        self.path.starts_with("tests") || self.path.file_name().is_some_and(|name| name == "tests.rs")
    }

    /// Lines with their numbers, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line.split(" // ").next().unwrap_or(line)));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// Complaints of a check, all of them at once.
#[derive(Default)]
struct Complaints(String);

impl Complaints {
    fn add(&mut self, file: &File, line: usize, what: impl std::fmt::Display) {
        writeln!(self.0, "{}:{line}: {what}", file.path.display()).expect("invariant: a text can be written to");
    }

    fn end(self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All Rust files; at least as many as the library has rooms, or the walk is broken.
pub(crate) fn files() -> Vec<File> {
    let mut files = Vec::new();
    for top in ["src", "tests", "migrations/src"] {
        walk(&root().join(top), &mut files);
    }
    assert!(files.len() > 100, "only {} files were found", files.len());
    files
}

fn walk(folder: &Path, files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            files.push(File { path: path.strip_prefix(root()).expect("below the root").to_owned(), text });
        }
    }
}

/// Whether a path of this crate or room begins in the line: `name::` that is no part of a longer name.
fn names(line: &str, name: &str) -> bool {
    let is_own = |at: usize| {
        let before = line[..at].chars().next_back();
        let after = &line[at + name.len()..];
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') && (after.starts_with("::") || after.starts_with(';'))
    };
    line.match_indices(name).any(|(at, _)| is_own(at))
}

/// Rooms named in a line as `crate::room`, also in braces: `use crate::{clock, model::Key};`.
fn rooms_used(line: &str) -> Vec<&str> {
    let mut used = Vec::new();
    for (at, found) in line.match_indices("crate::") {
        if line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &line[at + found.len()..];
        match rest.strip_prefix('{') {
            Some(group) => used.extend(group.split(',').map(|part| first_name(part.trim()))),
            None => used.push(first_name(rest)),
        }
    }
    used.retain(|name| !name.is_empty());
    used
}

fn first_name(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

#[test]
fn crates_stay_in_their_rooms() {
    let mut complaints = Complaints::default();
    for file in files().iter().filter(|file| !file.path.starts_with("tests")) {
        let room = file.room();
        for (number, line) in file.code() {
            for (name, owners) in OWNERS.iter().filter(|(name, owners)| names(line, name) && !owners.contains(&room.as_str())) {
                complaints.add(file, number, format_args!("only {} may use {name}", owners.join(" and ")));
            }
            if PURE.contains(&room.as_str()) && ["tokio", "tokio_util", "futures_util", "std::net"].iter().any(|name| names(line, name)) {
                complaints.add(file, number, format_args!("{room} is pure: nothing of it waits"));
            }
        }
    }
    complaints.end();
}

#[test]
fn rooms_use_only_what_stands_below_them() {
    let mut complaints = Complaints::default();
    for file in files().iter().filter(|file| file.path.starts_with("src") && !file.is_test()) {
        let room = file.room();
        let Some((_, below)) = BELOW.iter().find(|(name, _)| *name == room) else { continue };
        for (number, line) in file.code() {
            for used in rooms_used(line).into_iter().filter(|used| *used != room && !below.contains(used)) {
                // Macros stand at the root of the crate too, and are no rooms.
                if root().join("src").join(format!("{used}.rs")).exists() {
                    complaints.add(file, number, format_args!("{room} may not use {used}"));
                }
            }
        }
    }
    complaints.end();
}

#[test]
fn only_the_clock_reads_time() {
    let mut complaints = Complaints::default();
    for file in files().iter().filter(|file| file.path.starts_with("src") && !file.is_test() && file.room() != "clock") {
        for (number, line) in file.code().filter(|(_, line)| line.contains("Instant::now") || line.contains("SystemTime::now")) {
            complaints.add(file, number, format_args!("ask crate::clock: {}", line.trim()));
        }
    }
    complaints.end();
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut complaints = Complaints::default();
    for file in files() {
        let n_lines = file.text.lines().count();
        if n_lines > LINES_MAX {
            complaints.add(&file, n_lines, format_args!("more than {LINES_MAX} lines"));
        }
        if file.path.file_name().is_some_and(|name| name == "mod.rs") {
            complaints.add(&file, 1, "name.rs beside name/, never mod.rs");
        }
        if !file.is_test() && !file.text.starts_with("//! ") {
            complaints.add(&file, 1, "a file begins with what it is: //!");
        }
        if file.text.contains('\r') || file.text.contains('\t') || !file.text.ends_with('\n') {
            complaints.add(&file, 1, "neither tabs nor carriage returns, and a line break at the end");
        }
    }
    complaints.end();
}

#[test]
fn nothing_is_unfinished_silenced_or_skipped() {
    // In two parts, or this file would find itself.
    let never = [
        concat!("to", "do!("),
        concat!("un", "implemented!("),
        concat!("db", "g!("),
        concat!("#[ig", "nore"),
        concat!("#[al", "low("),
        concat!("#![al", "low("),
        concat!(".un", "wrap()"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    let mut complaints = Complaints::default();
    for file in files() {
        for (index, line) in file.text.lines().enumerate() {
            for what in never.iter().filter(|what| line.contains(**what)) {
                complaints.add(&file, index + 1, what);
            }
        }
        for (number, line) in file.code().filter(|(_, line)| line.contains("#[expect(") && line.ends_with(")]")) {
            if !line.contains("reason = ") {
                complaints.add(&file, number, "an expectation says why");
            }
        }
    }
    complaints.end();
}

#[test]
fn the_project_speaks_of_itself_alone() {
    let mut complaints = Complaints::default();
    let mut texts = files();
    for path in [
        "README.md",
        "actors.md",
        "CHANGELOG.md",
        "docs/guarantees.md",
        "docs/pitfalls.md",
        "systemd/README.md",
        "instep.example.toml",
        ".ci/run",
        "Cargo.toml",
        "deny.toml",
    ] {
        texts.push(File { path: path.into(), text: read(path) });
    }
    for file in &texts {
        for (index, line) in file.text.lines().enumerate() {
            let tracker = line.match_indices('#').any(|(at, _)| line[at + 1..].starts_with(|c: char| c.is_ascii_digit()));
            let tracker = tracker && file.path.extension().is_some_and(|extension| extension == "md");
            let place = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")].iter().any(|place| line.contains(place));
            if tracker || place {
                complaints.add(file, index + 1, format_args!("numbers of issues and places on somebody's machine: {}", line.trim()));
            }
        }
    }
    complaints.end();
}

#[test]
fn messages_are_lower_case_without_a_final_stop() {
    let mut complaints = Complaints::default();
    let places = ["#[error(", "tracing::error!(", "tracing::warn!(", "tracing::info!(", "tracing::debug!("];
    let mut n_checked = 0;
    for file in files().iter().filter(|file| file.path.starts_with("src")) {
        for place in places {
            for (at, _) in file.text.match_indices(place) {
                let line = file.text[..at].lines().count();
                for message in literals(&file.text[at + place.len()..]) {
                    n_checked += 1;
                    if message.starts_with(|c: char| c.is_uppercase()) || message.ends_with(['.', '!', '?']) {
                        complaints.add(file, line, format_args!("lower case, no final stop: {message:?}"));
                    }
                }
            }
        }
    }
    assert!(n_checked > 50, "only {n_checked} messages were found");
    complaints.end();
}

/// The string literals up to the parenthesis that closes what the text begins in.
fn literals(text: &str) -> Vec<String> {
    let (mut found, mut current, mut depth) = (Vec::new(), None::<String>, 1);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (&mut current, c) {
            (Some(literal), '\\') => literal.extend(['\\'].into_iter().chain(chars.next())),
            (Some(_), '"') => found.extend(current.take()),
            (Some(literal), _) => literal.push(c),
            (None, '"') => current = Some(String::new()),
            (None, '(') => depth += 1,
            (None, ')') => {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            (None, _) => {}
        }
    }
    found
}

#[test]
fn the_package_is_what_it_says() {
    assert!(read("LICENSE").contains("Apache License"));
    let manifest = read("Cargo.toml");
    for line in ["license = \"Apache-2.0\"", "unsafe_code = \"forbid\"", "ractor = { version = \"=", "readme = \"README.md\""] {
        assert!(manifest.contains(line), "Cargo.toml lacks {line}");
    }
    assert!(read("CHANGELOG.md").contains("## [Unreleased]"));
    let library = read("src/lib.rs");
    assert!(library.contains("#![forbid(unsafe_code)]"));
    // Every file of the library is reached from lib.rs, and nothing else lies among them.
    for entry in fs::read_dir(root().join("src")).expect("src") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        if !["lib", "main"].contains(&name.as_str()) {
            assert!(library.contains(&format!("mod {name};")), "{} is no room of lib.rs", path.display());
        }
    }
}

#[test]
fn the_checks_see_what_they_look_for() {
    assert!(names("use ractor::Actor;", "ractor") && names("    ractor::Actor::spawn()", "ractor"));
    assert!(!names("use tractor::Actor;", "ractor") && !names("\"ractor=warn\"", "ractor") && !names("x::ractor::y", "ractor"));
    assert_eq!(rooms_used("use crate::model::Key; // crate"), ["model"]);
    assert_eq!(rooms_used("let a: crate::quota::Limits = crate::clock::now();"), ["quota", "clock"]);
    assert_eq!(rooms_used("use crate::{clock::Clock, store};"), ["clock", "store"]);
    assert_eq!(literals("\"no (one) is \\\"here\\\"\", x = f(\"b\")) \"not this\""), ["no (one) is \\\"here\\\"", "b"]);
}
