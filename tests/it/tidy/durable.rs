//! Durable steps and their fail points: whoever adds the one without the other fails here.
//!
//! A step is durable when it writes to the database or to a file. Every transaction is begun with a name of its own, which gives
//! it its points; nothing else writes to the database but the few places of [`OUTSIDE`], and nothing writes files but those of
//! [`FILES`]. All points stand in `tests/failpoints/table.rs`, so a test of `tests/failpoints` dies at each of them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Complaints, File, files};
use crate::failpoints_table::{STEPS, TRANSACTION};

/// Writes to the database outside a named transaction: file, code, the step whose points stand round it, why it may.
const OUTSIDE: &[(&str, &str, &str, &str)] = &[
    ("src/store/connect.rs", "writer.execute_unprepared(\"create schema", "migrate", "again it changes nothing"),
    (
        "src/store/connect.rs",
        "Migrator::up(",
        "migration",
        "the steps have transactions of their own, or are statements that may run again",
    ),
    ("src/store/connect.rs", "writer.execute_unprepared(\"pragma auto_vacuum", "vacuum_mode", "SQLite sets it outside transactions only"),
    ("src/store/connect.rs", "writer.execute_unprepared(\"vacuum", "vacuum_mode", "SQLite does it outside transactions only"),
    ("src/store/connect.rs", "db.begin(", "", "here a named transaction begins"),
    ("src/store/connect.rs", "inner.writer.begin_with_options(", "", "here a named transaction begins"),
    ("src/store/connect.rs", "self.db.commit(", "", "here a named transaction ends"),
    ("src/store/reader.rs", "db.execute_unprepared(\"set session", "", "a setting of a connection that only reads"),
    ("src/store/reader.rs", "db.execute_unprepared(&format!(\"create database", "", "a database of the demo, which goes with it"),
    ("src/store/reads.rs", "self.db.execute_raw(statement)", "", "the trait wants it; nobody writes by what reads"),
    ("src/store/reads.rs", "self.db.execute_unprepared(sql)", "", "the trait wants it; nobody writes by what reads"),
    ("src/store/reader.rs", "db.execute_unprepared(&format!(\"drop database", "", "a database of the demo, which goes with it"),
    ("src/store/retention.rs", "self.writer().execute_unprepared(\"pragma incremental_vacuum", "checkpoint", "moves what is committed"),
];

/// Who makes, changes or removes files: the file of code, its step in the table, or why none is needed.
const FILES: &[(&str, Result<&str, &str>)] = &[
    ("src/store/files.rs", Ok("files")),
    ("src/http/admin/token.rs", Ok("token")),
    ("src/actors/intake/witness.rs", Ok("decode")),
    ("src/clock.rs", Err("where the wall clock stands: renamed whole, and without it the clock is believed")),
    ("src/actors/home.rs", Err("how far the database has come: renamed whole, and an older one is as true")),
    ("src/daemon.rs", Err("a directory that is there already is as good")),
    ("src/cli/init.rs", Err("a person's verb, before there is a daemon")),
    ("src/cli/metadata.rs", Err("a person's verb: renamed whole, and a daemon reads it at its next start")),
    ("src/cli/demo/process.rs", Err("the folder of a demo, which goes with it")),
];

const WRITES: &[&str] =
    &[".execute(", ".execute_raw(", ".execute_unprepared(", "Migrator::up(", ".begin(", ".begin_with_options(", ".commit("];

const FILE_WRITES: &[&str] = &[
    "OpenOptions::new()",
    "File::create(",
    "DirBuilder::new()",
    "fs::write(",
    "fs::create_dir",
    "fs::hard_link(",
    "fs::remove_",
    "fs::rename(",
    "set_permissions(",
    "chown(",
];

/// The code of a file in one piece: comments and its own tests are gone, and so are the line breaks within a chain of calls.
fn code(file: &File) -> String {
    let text = file.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let lines = lines.map(|line| line.split(" // ").next().unwrap_or(line));
    lines.fold(String::new(), |text, line| match line.trim_start() {
        chained if chained.starts_with('.') => text + chained,
        _ => text + "\n" + line,
    })
}

/// Names that transactions are begun with; `None` where one is begun without a name in quotes.
fn begun(code: &str) -> Vec<Option<&str>> {
    code.split(".begin(Lane::").skip(1).map(|rest| quoted(rest.split_once(", ")?.1)).collect()
}

/// Points that are reached by name, step and moment.
fn reached(code: &str) -> Vec<(&str, &str)> {
    let calls = ["::reach(", "::reach_now("].iter().flat_map(|call| code.split(call).skip(1)).filter_map(two_quoted);
    let foreign = code.split("fail_point!(").skip(1).filter_map(quoted).filter_map(|point| point.split_once("::"));
    calls.chain(foreign).collect()
}

/// The text in quotes that this begins with.
fn quoted(text: &str) -> Option<&str> {
    text.strip_prefix('"')?.split('"').next()
}

/// The two texts in quotes that this begins with, a comma between them.
fn two_quoted(text: &str) -> Option<(&str, &str)> {
    let first = quoted(text)?;
    Some((first, quoted(text.get(first.len() + 2..)?.strip_prefix(", ")?)?))
}

/// Writes to the database that go through no named transaction, each as its line.
fn writes_outside(code: &str) -> Vec<&str> {
    let is_outside = |line: &&str| {
        let writes = WRITES.iter().flat_map(|write| line.match_indices(write)).any(|(at, found)| {
            let (before, after) = (&line[..at], &line[at + found.len()..]);
            let named = found == ".begin(" && after.starts_with("Lane::");
            let ends = found == ".commit(" && (before.ends_with("tx") || before.ends_with("lock"));
            !named && !ends && !before.ends_with("tx.db") && !before.ends_with("lock.db")
        });
        let returning = ["(&insert)", "(&update)", "(&delete)"].iter().any(|statement| line.contains(statement));
        writes || returning && line.contains("reader()")
    };
    code.lines().filter(is_outside).collect()
}

fn sources() -> impl Iterator<Item = (File, String)> {
    let is_ours = |file: &File| {
        let is_test = file.is_test() || file.path.ends_with("testing.rs") || file.path.iter().any(|part| part == "tests");
        (file.path.starts_with("src") || file.path.starts_with("migrations")) && !is_test && file.room() != "sandbox"
    };
    files().into_iter().filter(is_ours).map(|file| {
        let code = code(&file);
        (file, code)
    })
}

#[test]
fn every_durable_step_has_its_points() {
    let mut complaints = Complaints::default();
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    let mut points: BTreeSet<(String, String)> = BTreeSet::new();
    for (file, code) in sources() {
        for name in begun(&code) {
            let Some(name) = name else {
                complaints.add(&file, 1, "a transaction is begun with a name in quotes");
                continue;
            };
            *names.entry(name.to_owned()).or_default() += 1;
            points.extend(TRANSACTION.iter().map(|moment| (name.to_owned(), (*moment).to_owned())));
        }
        for (step, moment) in reached(&code) {
            if !points.insert((step.to_owned(), moment.to_owned())) {
                complaints.add(&file, 1, format_args!("{step}::{moment} is a point already"));
            }
        }
    }
    assert!(names.len() > 20, "only {} transactions were found", names.len());
    let twice: Vec<_> = names.iter().filter(|(_, n)| **n > 1).collect();
    assert!(twice.is_empty(), "transactions of the same name: {twice:?}");
    let table: Vec<(String, String)> =
        STEPS.iter().flat_map(|step| step.moments.iter().map(|moment| (step.name.to_owned(), (*moment).to_owned()))).collect();
    let known: BTreeSet<_> = table.iter().cloned().collect();
    assert_eq!(known.len(), table.len(), "a point stands twice in tests/failpoints/table.rs");
    let missing: Vec<_> = points.difference(&known).collect();
    assert!(missing.is_empty(), "points without a row in tests/failpoints/table.rs: {missing:?}");
    let gone: Vec<_> = known.difference(&points).collect();
    assert!(gone.is_empty(), "rows of tests/failpoints/table.rs without a point: {gone:?}");
    complaints.end();
}

#[test]
fn nothing_is_written_outside_a_named_transaction() {
    let mut complaints = Complaints::default();
    let mut used = BTreeSet::new();
    for (file, code) in sources().filter(|(file, _)| file.room() == "store") {
        for line in writes_outside(&code) {
            let allowed = OUTSIDE.iter().position(|(path, what, ..)| file.path.ends_with(path) && line.contains(what));
            match allowed {
                Some(index) => drop(used.insert(index)),
                None => complaints.add(&file, 1, format_args!("a write without a named transaction: {}", line.trim())),
            }
        }
    }
    for (index, (path, what, step, _)) in OUTSIDE.iter().enumerate() {
        assert!(used.contains(&index), "{path} has no {what:?} any more");
        assert!(step.is_empty() || STEPS.iter().any(|known| known.name == *step), "{step} stands in no table");
    }
    complaints.end();
}

#[test]
fn every_file_that_is_written_has_its_points() {
    let mut complaints = Complaints::default();
    let mut used = BTreeSet::new();
    for (file, code) in sources() {
        let Some(line) = code.lines().find(|line| FILE_WRITES.iter().any(|write| line.contains(write))) else { continue };
        match FILES.iter().position(|(path, _)| file.path.ends_with(path)) {
            Some(index) => drop(used.insert(index)),
            None => complaints.add(&file, 1, format_args!("a file is written without points: {}", line.trim())),
        }
    }
    for (index, (path, step)) in FILES.iter().enumerate() {
        assert!(used.contains(&index), "{path} writes no files any more");
        if let Ok(step) = step {
            assert!(STEPS.iter().any(|known| known.name == *step), "{step} stands in no table");
        }
    }
    complaints.end();
}

#[test]
fn the_checks_see_what_they_look_for() {
    let file = |text: &str| File { path: "src/store/x.rs".into(), text: text.to_owned() };
    let chained =
        code(&file("let a = writer // why\n    // more\n    .execute(&insert)\n    .await?;\n#[cfg(test)]\nmod tests {\n.execute("));
    assert_eq!(chained, "\nlet a = writer.execute(&insert).await?;");
    assert_eq!(writes_outside(&chained).len(), 1, "a statement on a bare connection");
    assert_eq!(writes_outside("self.reader().query_one(&insert).await?").len(), 1, "and one that returns rows");
    assert_eq!(writes_outside("let tx = self.inner.writer.begin().await?;").len(), 1, "a transaction without a name");
    let named = "let tx = self.begin(Lane::Work, \"x\").await?;\ntx.db.execute(&insert).await?;\ntx.commit().await";
    assert!(writes_outside(named).is_empty());
    assert_eq!(begun(named), [Some("x")]);
    assert_eq!(begun("self.begin(Lane::Work, step)"), [None], "a name that cannot be read here");
    let points = "failpoint::reach(\"a\", \"b\").await?; failpoint::reach_now(\"c\", \"d\")?; failpoint::reach(self.step, \"e\"); \
                  fail::fail_point!(\"f::g\", |x| x)";
    assert_eq!(reached(points), [("a", "b"), ("c", "d"), ("f", "g")]);
}
