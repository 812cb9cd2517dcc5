//! What cannot be read or held is defined, is the same on both stores, and nothing waits for it.
//!
//! The definitions stand in `src/model/document.rs` and, for people, in `docs/poison.md`; here is the table that holds them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use instep::connectors::signature::digest;
use instep::model::document::Json;
use serde_json::json;

use crate::support::universe::about_task;
use crate::support::{Database, Engine, Setup, Splice, Universe, on_both, run};

on_both!(exactly_the_poison_of_a_thousand_deliveries_is_quarantined);

const ROUTE: &str = "task-updated";
const SOON: Duration = Duration::from_secs(60);

/// What becomes of a record that holds such a value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// Stored as this JSON, nothing lost.
    Kept(String),
    /// Stored as this JSON, and what was sent beside it.
    Lossy(&'static str),
    /// Set aside, for this reason.
    Quarantined(&'static str),
}

struct Poison {
    name: &'static str,
    value: Vec<u8>,
    end: End,
}

/// Every kind of value that some reader stumbles over.
fn poisons() -> Vec<Poison> {
    let poison = |name, value: &[u8], end| Poison { name, value: value.to_vec(), end };
    let digits = "12345678901234567890123";
    let large = format!("\"{}\"", "x".repeat(5 * 1024 * 1024));
    let deep = "[".repeat(129) + &"]".repeat(129);
    vec![
        poison("a NUL", br#""a\u0000b""#, End::Lossy("\"a\u{FFFD}b\"")),
        poison("a lone high surrogate", br#""a\ud800b""#, End::Lossy("\"a\u{FFFD}b\"")),
        poison("a lone low surrogate", br#""a\udc00b""#, End::Lossy("\"a\u{FFFD}b\"")),
        poison("a NUL in a name", br#"{"a\u0000b":1}"#, End::Lossy("{\"a\u{FFFD}b\":1}")),
        poison("bytes that are no UTF-8", b"\"a\xff\xfeb\"", End::Lossy("\"a\u{FFFD}\u{FFFD}b\"")),
        poison("a number of 23 digits", digits.as_bytes(), End::Kept(digits.to_owned())),
        poison("a string of 5 MiB", large.as_bytes(), End::Kept(large.clone())),
        poison("a number beyond every float", b"1e400", End::Quarantined("a number is out of range")),
        poison("129 lists in each other", deep.as_bytes(), End::Quarantined("nested deeper than 127")),
        poison("a name twice", br#"{"a":1,"a":2}"#, End::Quarantined("an object holds a key twice")),
        poison("names that become one", br#"{"a\u0000":1,"a\ud800":2}"#, End::Quarantined("an object holds a key twice")),
    ]
}

/// Deliveries: each kind of value in the record that comes along, then in the id, then bodies that are no JSON. `None`: a hint like any other.
fn bodies() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let body = |id: &[u8], title: &[u8]| {
        let parts: [&[u8]; 5] =
            [br#"{"event":"update_task","object":{"data":{"id":"#, id, br#","type":"tasks","attributes":{"title":"#, title, b"}}}}"];
        parts.concat()
    };
    let reason = |end: &End| match end {
        End::Quarantined(reason) => Some(*reason),
        _ => None,
    };
    let nameless = Some("the delivery names no record");
    let long = format!("\"{}\"", "9".repeat(513));
    let mut bodies: Vec<_> = poisons().iter().map(|poison| (body(b"\"1\"", &poison.value), reason(&poison.end))).collect();
    bodies.extend([
        (body(b"12345678901234567890123", b"0"), None),
        (body(br#""1\u0000""#, b"1"), nameless),
        (body(br#""1\ud800""#, b"2"), nameless),
        (body(b"\"1\xff\"", b"3"), nameless),
        (body(long.as_bytes(), b"4"), nameless),
        (body(b"{}", b"5"), nameless),
        (b"".to_vec(), Some("not json at line 1 column 0")),
        (b"{\"a\":\"\x00\"}".to_vec(), Some("not json at line 1 column 6")),
        // Deep enough to exhaust the stack of whoever reads it by recursion.
        ("[".repeat(500_000).into_bytes(), Some("not json at line 1 column 500000")),
        (format!("{}{}", "[".repeat(500_000), "]".repeat(500_000)).into_bytes(), Some("nested deeper than 127")),
    ]);
    bodies
}

async fn exactly_the_poison_of_a_thousand_deliveries_is_quarantined(database: Database) {
    const SENT: usize = 1_000;
    let setup = Setup { tables: "[limits]\nhook_body = \"8MiB\"\n", ..Setup::default() };
    let mut universe = Universe::started(database, &setup).await;
    let keys = universe.sandbox.keys("tasks").await;
    let bodies = bodies();
    let every = SENT / bodies.len();
    let body = |number: usize| match bodies.get(number / every).filter(|_| number % every == every / 2) {
        Some((poison, _)) => poison.clone(),
        None => about_task(&keys[number % keys.len()], &format!("delivery {number}")).into_bytes(),
    };
    let sent = futures_util::stream::iter(0..SENT).map(|number| {
        let (universe, body) = (&universe, body(number));
        async move { universe.deliver_surely(ROUTE, body).await }
    });
    assert_eq!(sent.buffer_unordered(16).count().await, SENT, "each is acknowledged");
    universe.idle(SOON).await;
    let found = "select d.dedupe, q.reason from instep_quarantine q join instep_delivery d on d.id = q.delivery_id";
    let found: BTreeMap<_, _> =
        universe.database.rows(found, &["dedupe", "reason"]).await.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let refused = bodies.iter().filter_map(|(body, reason)| Some((Some(digest(&[ROUTE.as_bytes(), body])), Some((*reason)?.to_owned()))));
    let expected: BTreeMap<_, _> = refused.collect();
    assert_eq!(found, expected, "exactly these, for these reasons");
    let count = async |state: &str| {
        universe.database.number(&format!("select count(distinct dedupe) as n from instep_delivery where state = '{state}'")).await
    };
    let (done, quarantined) = (count("done").await, count("quarantined").await);
    assert_eq!((done, quarantined), ((SENT - expected.len()) as i64, expected.len() as i64));
    universe.in_step(SOON).await;
    println!("poison {:?}: {done} done, {quarantined} quarantined of {SENT}", universe.database.engine);
    assert!(universe.daemon().ended().is_none(), "the daemon lives");
}

/// By which way a record came.
const WAYS: [&str; 3] = ["a list page", "a bulk read", "a read by key"];

/// What is left of a record that came this way with this value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Left {
    way: &'static str,
    poison: &'static str,
    title: Option<String>,
    column: Option<String>,
    /// Whether what was sent is kept beside the row, with the poison in it.
    raw: Option<bool>,
    reason: Option<String>,
    /// As `raw`, of the quarantine.
    body: Option<bool>,
}

#[test]
fn a_record_ends_the_same_whichever_way_it_came_and_on_both_stores() {
    run(Engine::Sqlite, async |sqlite| {
        let Some(postgres) = Database::fresh(Engine::Postgres).await else { return };
        let (on_sqlite, on_postgres) = tokio::join!(records(sqlite), records(postgres.clone()));
        postgres.remove().await;
        assert_eq!(on_sqlite.len(), on_postgres.len());
        for (left, other) in on_sqlite.iter().zip(&on_postgres) {
            assert!(left == other, "{} in {} differs: {} and {}", left.poison, left.way, short(left), short(other));
        }
        println!("poison: {} records the same on both stores", on_sqlite.len());
    });
}

fn short(left: &Left) -> String {
    format!("{left:?}").chars().take(600).collect()
}

async fn records(database: Database) -> Vec<Left> {
    let poisons = poisons();
    let marker = |number: usize| format!("POISON {number}");
    let mut universe = Universe::new(database, &Setup { entities: 300, ..Setup::default() });
    let values = poisons.iter().enumerate().map(|(number, poison)| (marker(number), poison.value.clone())).collect();
    let splice = Splice::start(&universe.sandbox.url, values).await;
    let config = std::fs::read_to_string(universe.config()).expect("our own folder");
    std::fs::write(universe.config(), config.replace(&universe.sandbox.url, &splice.url)).expect("our own folder");
    let keys = universe.sandbox.keys("tasks").await;
    assert!(keys.len() > WAYS.len() * poisons.len(), "{} tasks", keys.len());
    let mut left = Vec::new();
    for (way, keys) in WAYS.into_iter().zip(keys.chunks(poisons.len())) {
        let clean = if way == WAYS[0] { Vec::new() } else { titles(&universe, keys).await };
        for (number, key) in keys.iter().enumerate().take(poisons.len()) {
            universe.sandbox.change_silently("tasks", key, json!({ "title": marker(number) })).await;
        }
        if way == WAYS[0] {
            universe.run().await;
            universe.backfilled().await;
        } else {
            if way == WAYS[2] {
                splice.refuse_bulk();
            }
            for key in keys {
                universe.deliver_surely(ROUTE, about_task(key, way)).await;
            }
            universe.idle(SOON).await;
        }
        for (number, (poison, key)) in poisons.iter().zip(keys).enumerate() {
            let found = what_is_left(&universe, way, poison, key).await;
            check(&found, poison, clean.get(number).cloned().flatten());
            left.push(found);
        }
    }
    let all = (WAYS.len() * poisons.len()) as i64;
    let quarantined = universe.database.number("select count(*) as n from instep_quarantine").await;
    let refused = poisons.iter().filter(|poison| matches!(poison.end, End::Quarantined(_))).count() * WAYS.len();
    println!("poison {:?}: {quarantined} of {all} poisoned records quarantined, the others kept", universe.database.engine);
    assert_eq!(quarantined, refused as i64, "exactly the poison");
    assert!(universe.daemon().ended().is_none(), "the daemon lives");
    left
}

async fn titles(universe: &Universe, keys: &[String]) -> Vec<Option<String>> {
    let mut titles = Vec::new();
    for key in keys {
        titles.push(title(&universe.database, key).await);
    }
    titles
}

async fn title(database: &Database, key: &str) -> Option<String> {
    let payload = format!("select payload from instep_entity where resource = 'tasks' and key = '{key}'");
    let payload = database.rows(&payload, &["payload"]).await.into_iter().next()?[0].clone()?;
    // JSONB has an order and blanks of its own; in canonical form equal values are equal texts.
    let payload = Json::parse(payload.as_bytes()).expect("the store holds JSON");
    payload.pointer("/attributes/title").map(ToString::to_string)
}

async fn what_is_left(universe: &Universe, way: &'static str, poison: &Poison, key: &str) -> Left {
    let database = &universe.database;
    let hex = |column: &str| match database.engine {
        Engine::Sqlite => format!("case when {column} is not null then hex({column}) end"),
        Engine::Postgres => format!("upper(encode({column}, 'hex'))"),
    };
    // An answer is read as text, so bytes that are none are already replaced in it.
    let sent: String = String::from_utf8_lossy(&poison.value).bytes().map(|byte| format!("{byte:02X}")).collect();
    let holds = |kept: Option<String>| kept.map(|kept| kept.contains(&sent));
    let row = format!("select {} as raw from instep_entity where resource = 'tasks' and key = '{key}'", hex("raw"));
    let raw = database.rows(&row, &["raw"]).await.into_iter().next().and_then(|row| row[0].clone());
    let view = database.rows(&format!("select title from pmp_tasks where key = '{key}'"), &["title"]).await.into_iter().next();
    let refused = format!("select reason, {} as body from instep_quarantine where resource = 'tasks' and key = '{key}'", hex("body"));
    let refused = database.rows(&refused, &["reason", "body"]).await.into_iter().next();
    let (reason, body) = refused.map_or((None, None), |row| (row[0].clone(), row[1].clone()));
    let (title, column) = (title(database, key).await, view.and_then(|row| row[0].clone()).map(by_value));
    Left { way, poison: poison.name, title, column, raw: holds(raw), reason, body: holds(body) }
}

/// JSON in a column of text: the stores put other blanks into it.
fn by_value(text: String) -> String {
    Json::parse(text.as_bytes()).map_or(text, |json| json.to_string())
}

fn check(left: &Left, poison: &Poison, clean: Option<String>) {
    let (title, raw, reason) = match &poison.end {
        End::Kept(json) => (Some(json.clone()), None, None),
        End::Lossy(json) => (Some((*json).to_owned()), Some(true), None),
        // A row that was there before stays as it was.
        End::Quarantined(reason) => (clean, None, Some((*reason).to_owned())),
    };
    let body = reason.is_some().then_some(true);
    let is_so = (&left.title, &left.raw, &left.reason, &left.body) == (&title, &raw, &reason, &body);
    assert!(is_so, "{} in {}: {}", poison.name, left.way, short(left));
}
