//! What strangers, upstreams and people send may be anything: no parser panics on it, and no bit of a signed delivery can be turned.
//!
//! The bodies are those of the fuzz targets (`tests/fuzz`), run over their seeds, over mutations of the seeds and over arbitrary
//! bytes. `INSTEP_LONG=1 cargo test --test it properties -- --nocapture` runs a hundred times as many.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::test_runner::{Config, TestRunner};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::universe::{TOKEN, about_task, signature};
use crate::support::{Database, Engine, Setup, Universe, is_long, run};

#[path = "../fuzz/parsers.rs"]
mod parsers;

/// Mutated seeds for each target in the short form; half as many arbitrary inputs.
const CASES: u32 = 400;
/// What parsers look for, so that mutations hit more than syntax errors.
const WORDS: [&str; 20] = [
    "{}",
    "[",
    "\"id\":",
    "null",
    "1e400",
    "\\u0000",
    "\\ud800",
    "\"data\":",
    ":[{",
    "\"",
    ",",
    "t=",
    ", s=",
    "=",
    "\n",
    "..",
    "9999999999",
    "\u{fffd}",
    "é",
    "[a]\n",
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(name)
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let files = fs::read_dir(folder("corpus").join(target)).unwrap_or_else(|error| panic!("{target}: {error}"));
    let seeds: Vec<_> = files.map(|file| fs::read(file.expect("an entry").path()).expect("a seed")).collect();
    assert!(seeds.len() >= 3, "{target} has {} seeds", seeds.len());
    seeds
}

/// One change of an input; places are taken modulo its length.
#[derive(Clone, Debug)]
enum Change {
    Flip(usize),
    Set(usize, u8),
    Cut(usize, usize),
    Repeat(usize, usize),
    Word(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    (0..5_u8, any::<usize>(), any::<usize>()).prop_map(|(kind, at, what)| match kind {
        0 => Change::Flip(at),
        1 => Change::Set(at, (what % 256) as u8),
        2 => Change::Cut(at, what % 32),
        3 => Change::Repeat(at, what % 64),
        _ => Change::Word(at, what),
    })
}

fn changed(mut input: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let n = input.len().max(1);
        let span = |at: usize, length: usize| (at % n).min(input.len())..(at % n + length).min(input.len());
        match *change {
            Change::Flip(at) => input.get_mut(at / 8 % n).into_iter().for_each(|byte| *byte ^= 1 << (at % 8)),
            Change::Set(at, value) => input.get_mut(at % n).into_iter().for_each(|byte| *byte = value),
            Change::Cut(at, length) => drop(input.drain(span(at, length))),
            Change::Repeat(at, length) => {
                let part = input[span(at, length)].to_vec();
                input.splice(span(at, 0), part);
            }
            Change::Word(at, word) => drop(input.splice(span(at, 0), WORDS[word % WORDS.len()].bytes())),
        }
    }
    input
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases: if is_long() { cases * 100 } else { cases }, failure_persistence: None, ..Config::default() })
}

fn holds(strategy: &impl Strategy<Value = Vec<u8>>, cases: u32, target: &str) {
    let outcome = runner(cases).run(strategy, |input| {
        parsers::run(target, &input);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{target}: {error}"));
}

#[test]
fn no_parser_panics_on_its_seeds() {
    let mut n_seeds = 0;
    for (target, _) in parsers::TARGETS {
        for seed in seeds(target) {
            parsers::run(target, &seed);
            n_seeds += 1;
        }
    }
    println!("properties: {n_seeds} seeds of {} targets", parsers::TARGETS.len());
}

#[test]
fn no_parser_panics_on_changed_seeds() {
    for (target, _) in parsers::TARGETS {
        let seeds = seeds(target);
        let changed =
            (any::<usize>(), vec(change(), 1..8)).prop_map(move |(at, changes)| changed(seeds[at % seeds.len()].clone(), &changes));
        holds(&changed, CASES, target);
    }
}

#[test]
fn no_parser_panics_on_arbitrary_bytes() {
    for (target, _) in parsers::TARGETS {
        holds(&vec(any::<u8>(), 0..1024), CASES / 2, target);
    }
}

/// The fuzzer runs what CI runs: each of its targets is one call of the same body, with seeds and a place in the manifest.
#[test]
fn every_body_is_a_fuzz_target() {
    let manifest = fs::read_to_string(folder("Cargo.toml")).expect("a manifest");
    let n_targets = fs::read_dir(folder("fuzz_targets")).expect("targets").count();
    assert_eq!(n_targets, parsers::TARGETS.len());
    for (target, _) in parsers::TARGETS {
        let text =
            fs::read_to_string(folder("fuzz_targets").join(format!("{target}.rs"))).unwrap_or_else(|error| panic!("{target}: {error}"));
        let wanted = format!(
            "#![no_main]\n\n#[path = \"../parsers.rs\"]\nmod parsers;\n\n\
             libfuzzer_sys::fuzz_target!(|data: &[u8]| parsers::run(\"{target}\", data));\n"
        );
        assert!(text.ends_with(&wanted), "{target}: {text}");
        assert!(manifest.contains(&format!("name = \"{target}\"\npath = \"fuzz_targets/{target}.rs\"")), "{target} is not in the manifest");
    }
}

/// The connector alone is tried with every bit (`every_flipped_bit_of_header_or_body_is_refused`); here a sample passes through the
/// socket. Whatever the store, nothing of it gets there.
#[test]
fn no_turned_bit_of_a_signed_delivery_is_accepted() {
    run(Engine::Sqlite, no_turned_bit_is_accepted);
}

async fn no_turned_bit_is_accepted(database: Database) {
    let every = if is_long() { 1 } else { 5 };
    let mut universe = Universe::new(database, &Setup { entities: 100, ..Setup::default() });
    universe.run().await;
    let port = universe.hooks_port;
    let body = about_task("1", "signed").into_bytes();
    let header = signature(TOKEN, about_task("1", "signed")).into_bytes();
    let (mut n_sent, mut statuses) = (0, std::collections::BTreeMap::<u16, usize>::new());
    for bit in (0..(header.len() + body.len()) * 8).step_by(every) {
        let (mut header, mut body) = (header.clone(), body.clone());
        let turned = if bit / 8 < header.len() { &mut header[bit / 8] } else { &mut body[bit / 8 - header.len()] };
        *turned ^= 1 << (bit % 8);
        *statuses.entry(status_of(port, &header, &body).await).or_default() += 1;
        n_sent += 1;
    }
    println!("properties: {n_sent} deliveries with one bit turned, answered {statuses:?}");
    assert!(statuses.keys().all(|status| matches!(status, 400 | 401)), "{statuses:?}");
    assert_eq!(universe.database.number("select count(*) as n from instep_delivery").await, 0);
    assert_eq!(status_of(port, &header, &body).await, 200, "as it was signed it is taken");
}

/// Sends a delivery whose header may hold any byte.
async fn status_of(port: u16, signature: &[u8], body: &[u8]) -> u16 {
    let head = format!(
        "POST /hooks/pmp/task-updated HTTP/1.1\r\nhost: hooks.example\r\nconnection: close\r\ncontent-length: {}\r\nproductive-signature: ",
        body.len()
    );
    let request = [head.as_bytes(), signature, b"\r\n\r\n", body].concat();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
    stream.write_all(&request).await.expect("sent");
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("an end").expect("read");
    let answer = String::from_utf8_lossy(&answer);
    answer.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no status in {answer:?}"))
}
