//! Holds `actors.md` against the code: the tree, every card, what each says of restart and stop, the tests it names.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use instep::actors::Plan;
use instep::actors::journal::StoreHealth;
use instep::actors::source::Process;
use instep::clock::Clock;
use instep::config::Config;
use instep::daemon::{Sockets, source_of};
use instep::report::Reporter;
use instep::store::{self, Store};
use instep::supervision::{ChildSpec, Meltdown, Policy, Tree};
use instep::upstream::ByteBudget;

/// The fields of a card, in their order.
const FIELDS: [&str; 12] =
    ["Purpose", "File", "Parent", "Meltdown", "Start and stop", "In", "Out", "Mailbox", "State", "On failure", "Shows", "Reports"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The tree of a daemon with one source, built as the daemon builds it and never started.
async fn tree(resources: &str) -> Tree {
    let state = tempfile::tempdir().expect("a directory");
    let token = state.path().join("token");
    fs::write(&token, "token-of-an-application").expect("our own folder");
    let text = format!(
        "[listen.api]\naddress = \"127.0.0.1:0\"\ntokens = [{{ name = \"p\", token = {{ file = {token:?} }} }}]\n\
         [sources.pmp]\nkind = \"productive\"\norganization = 1\ntoken = {{ env = \"NOT_READ_BEFORE_A_REQUEST\" }}\nresources = {resources}\n"
    );
    let config = Config::parse("instep.toml", &text).unwrap_or_else(|error| panic!("{error}"));
    let (clock, reporter) = (Clock::system(), Reporter::new());
    let url = format!("sqlite://{}", state.path().join("replica.db").display());
    let options = store::Options { url, read_group: None, grant: Vec::new(), connections: 1, clock };
    let store = Store::open(options).await.expect("the store opens");
    let budget = ByteBudget::new(config.limits.responses_in_flight.0);
    let process = Process {
        store,
        health: StoreHealth::default(),
        clock,
        reporter,
        state: state.path().to_owned(),
        identity: instep::actors::home::Identity::default(),
    };
    let source = source_of(&config, "pmp", &config.sources["pmp"], budget, process.clone());
    let sources = vec![Arc::new(source.expect("the source is built"))];
    let bind = || TcpListener::bind("127.0.0.1:0").expect("a port");
    let sockets = Sockets { hooks: bind(), admin: bind(), api: Some(bind()) };
    let plan = Plan::new(&config, sockets, process, sources);
    plan.expect("the tree is laid out").tree()
}

/// Every child by its path, in the order of start; names of sources and resources as the document writes them.
fn specs<'a>(parent: &str, children: &'a [ChildSpec], found: &mut Vec<(String, &'a ChildSpec)>) {
    for child in children {
        let id = child.id.replace("source:pmp", "source:<name>").replace("sync:tasks", "sync:<resource>");
        let path = format!("{parent}/{id}");
        found.push((path.clone(), child));
        specs(&path, &child.children, found);
    }
}

/// The first figure of the document, as paths.
fn figure(document: &str) -> Vec<String> {
    let figure = document.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a figure");
    let mut path: Vec<&str> = Vec::new();
    let mut paths = Vec::new();
    for line in figure.lines().filter(|line| !line.trim().is_empty()) {
        let depth = line.chars().position(|c| c == '├' || c == '└').map_or(0, |column| column / 4 + 1);
        let name = line.trim_start_matches([' ', '│', '├', '└', '─']).split_whitespace().next().expect("a name");
        path.truncate(depth);
        path.push(name);
        paths.push(path.join("/"));
    }
    paths
}

/// Cards by name: the lines `- Field: text` below a heading ``### `name` ``.
fn cards(document: &str) -> BTreeMap<&str, Vec<(&str, &str)>> {
    let mut cards = BTreeMap::new();
    for section in document.split("\n### `").skip(1) {
        let (name, body) = section.split_once("`\n").expect("a heading is a name alone");
        let body = body.split("\n## ").next().unwrap_or(body);
        let fields = body.lines().filter_map(|line| line.strip_prefix("- ")?.split_once(": "));
        assert!(cards.insert(name, fields.collect()).is_none(), "{name} has two cards");
    }
    cards
}

fn field<'a>(card: &[(&str, &'a str)], name: &str) -> &'a str {
    card.iter().find(|(field, _)| *field == name).map(|(_, text)| *text).unwrap_or_else(|| panic!("no field {name}"))
}

#[tokio::test]
async fn the_figure_is_the_tree() {
    let tree = tree("[\"tasks\"]").await;
    let mut found = Vec::new();
    specs("root", &tree.children, &mut found);
    let built: Vec<String> = std::iter::once("root".to_owned()).chain(found.into_iter().map(|(path, _)| path)).collect();
    assert_eq!(figure(&read("actors.md")), built);
}

#[tokio::test]
async fn every_actor_has_a_card_that_is_true() {
    let document = read("actors.md");
    let tree = tree("[\"tasks\"]").await;
    let mut found = Vec::new();
    specs("root", &tree.children, &mut found);
    let cards = cards(&document);
    assert_eq!(cards.len(), found.len() + 1, "a card for root and one for every child: {:?}", cards.keys());
    for (name, card) in &cards {
        let fields: Vec<&str> = card.iter().map(|(field, _)| *field).collect();
        assert_eq!(fields, FIELDS, "the fields of {name}");
        let file = field(card, "File").trim_matches(['`', '.']);
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(file).exists(), "{name}: {file} is not there");
    }
    for (path, spec) in found {
        let (parent, name) = path.rsplit_once('/').expect("below root");
        let card = cards.get(name).unwrap_or_else(|| panic!("{name} has no card"));
        let parent = parent.rsplit('/').next().expect("a name");
        assert_eq!(field(card, "Parent"), format!("`{parent}`."), "the parent of {name}");
        let meltdown = if spec.meltdown == Meltdown::Escalate { "escalates" } else { "parked" };
        assert!(field(card, "Meltdown").starts_with(meltdown), "{name}: it is {meltdown}");
        let deadline = match spec.children.is_empty() {
            true => format!("stop deadline {} s", spec.stop_deadline.as_secs()),
            false => "stop deadline the sum of its children's and 1 s".to_owned(),
        };
        let budget = format!("step budget {} s.", spec.step_budget.as_secs());
        for text in [deadline, budget] {
            assert!(field(card, "Start and stop").contains(&text), "{name}: {text}");
        }
    }
}

#[tokio::test]
async fn systemd_waits_longer_than_the_whole_stop() {
    let tree = tree("\"all\"").await;
    let whole = tree.children.iter().map(|child| child.stop_deadline).sum::<Duration>() + Duration::from_secs(1);
    let unit = read("systemd/instep.service");
    let seconds = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")?.strip_suffix('s')?.parse().ok());
    let seconds = seconds.expect("TimeoutStopSec in seconds");
    assert!(whole < Duration::from_secs(seconds), "a stop may take {whole:?}, systemd waits {seconds} s");
    let sources = tree.children.iter().find(|child| child.id == "sources").expect("sources");
    let further = sources.children[0].stop_deadline.as_secs();
    assert!(unit.contains(&format!("each further source adds {further} s")), "the unit says what a further source adds: {further} s");
}

#[test]
fn reports_are_those_of_the_code() {
    let document = read("actors.md");
    let declared = read("src/report.rs");
    for (name, card) in cards(&document) {
        let told: Vec<&str> = field(&card, "Reports").split('`').skip(1).step_by(2).filter(|word| !word.contains('/')).collect();
        for report in &told {
            assert!(declared.contains(&format!(" {report}(")), "{name}: there is no report {report}");
        }
        let file = read(field(&card, "File").trim_matches(['`', '.']));
        for call in file.split("reporter.emit(").skip(1).chain(file.split("reporter.set(").skip(1)) {
            let report = call.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            // Others are imported under an alias.
            if !report.is_empty() && declared.contains(&format!("    {report}(")) {
                assert!(told.contains(&report), "{name}: its card lacks {report}");
            }
        }
    }
}

#[test]
fn the_policy_is_what_the_document_says() {
    let (document, policy) = (read("actors.md"), Policy::default());
    let (intensity, period, park) = (policy.intensity, policy.period.as_secs(), policy.park.as_secs());
    for text in [format!("more than {intensity} failures in {period} s"), format!("parked for {park} s")] {
        assert!(document.contains(&text), "actors.md does not say: {text}");
    }
}

#[test]
fn what_we_rely_on_in_ractor_is_tested() {
    let document = read("actors.md");
    let section = document.split("\n## What we rely on in ractor\n").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("a section");
    let mut named: Vec<&str> = section.lines().filter_map(|row| row.rsplit('`').nth(1).filter(|_| row.starts_with("| "))).collect();
    named.sort_unstable();
    let tests = read("tests/it/ractor_semantics.rs");
    let mut written: Vec<&str> =
        tests.split("#[tokio::test").skip(1).filter_map(|test| test.split("async fn ").nth(1)?.split('(').next()).collect();
    written.sort_unstable();
    assert_eq!(named, written);
}

#[test]
fn limits_name_keys_that_exist() {
    let (document, example) = (read("actors.md"), read("instep.example.toml"));
    let section = document.split("\n## Limits\n").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("a section");
    let keys: Vec<&str> =
        section.split('`').filter(|word| word.contains('.') && word.chars().all(|c| c.is_alphanumeric() || "._<>".contains(c))).collect();
    assert!(keys.len() > 10, "only {} keys were found", keys.len());
    for key in keys {
        let name = key.rsplit('.').next().expect("a name");
        let is_there = example.lines().any(|line| line.trim_start_matches(['#', ' ']).starts_with(&format!("{name} = ")));
        assert!(is_there, "{key} is no key of the configuration");
    }
}
