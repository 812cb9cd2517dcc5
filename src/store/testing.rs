//! A fresh store of each engine for every test.

use std::collections::HashMap;
use std::env;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use sea_orm::{ConnectionTrait, Database};
use uuid::Uuid;

use crate::clock::{Clock, Timestamp};
use crate::connectors::Record;
use crate::model::document::{Document, Shape};
use crate::model::ordering::{By, Spans, Started};
use crate::model::{Delivery, DeliveryId, Entity, Event, HookRequest, Key, Operation, Push, ResourceName, SourceName, Tick, Version};
use crate::store::{Batch, Fence, LearnedBy, Observed, Options, ResourceRules, Store, What};

/// Where tests find a server; each makes a database of its own there.
pub(crate) fn server() -> String {
    env::var("INSTEP_TEST_POSTGRES").unwrap_or_else(|_| "postgres://root@127.0.0.1:5432".to_owned())
}

pub(crate) fn options(url: String) -> Options {
    Options { url, read_group: None, grant: Vec::new(), connections: 4, clock: Clock::system() }
}

/// Runs a test on a fresh store of each engine. Without a server the PostgreSQL half is skipped aloud, and fails in CI.
pub(crate) async fn on_both<F: Future<Output = ()>>(test: impl Fn(Store) -> F) {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let store = Store::open(options(format!("sqlite://{}", dir.path().join("replica.db").display()))).await;
    let store = store.expect("sqlite opens");
    store.migrate().await.expect("sqlite migrates");
    test(store).await;

    let Ok(admin) = Database::connect(format!("{}/postgres", server())).await else {
        assert!(env::var("CI").is_err(), "no PostgreSQL at {}", server());
        eprintln!("skipped PostgreSQL: no server at {}", server());
        return;
    };
    let name = format!("instep_test_{}", Uuid::now_v7().simple());
    admin.execute_unprepared(&format!("create database {name}")).await.expect("a database for the test");
    let store = Store::open(options(format!("{}/{name}", server()))).await.expect("postgres opens");
    store.migrate().await.expect("postgres migrates");
    test(store.clone()).await;
    store.close().await.expect("postgres closes");
    admin.execute_unprepared(&format!("drop database {name} with (force)")).await.expect("the database goes");
}

pub(crate) fn source() -> SourceName {
    SourceName::new("pmp").expect("a name")
}

pub(crate) fn tasks() -> ResourceName {
    ResourceName::new("tasks").expect("a name")
}

pub(crate) fn entity(key: &str) -> Entity {
    Entity { resource: tasks(), key: Key::new(key).expect("a key") }
}

pub(crate) fn rules(read_lag: Duration) -> HashMap<ResourceName, ResourceRules> {
    let day = Duration::from_secs(86_400);
    let spans = Spans { read_lag, list_lag: read_lag, version_skew: Duration::ZERO, tombstones: 90 * day };
    HashMap::from([(tasks(), ResourceRules { spans, keep_deleted: day, roots: vec![String::new()], parent: None, inherits: false })])
}

pub(crate) fn batch(observations: Vec<Observed>) -> Batch {
    Batch { observations, ..Batch::new(LearnedBy::Mark, rules(Duration::ZERO)) }
}

pub(crate) fn document(json: &str) -> Document {
    let shape = Shape { volatile: vec!["/updated_at".to_owned()], ..Shape::default() };
    Document::parse(json.as_bytes(), &shape).expect("a document")
}

pub(crate) fn started(fence: &Fence) -> Started {
    Started { tick: fence.tick(), at: Clock::system().now() }
}

/// A read by key that shows `title` at second `version`.
pub(crate) fn read(fence: &Fence, key: &str, version: i64, title: &str) -> Observed {
    let json = format!(r#"{{"title":"{title}","updated_at":{version}}}"#);
    read_json(fence, key, version, &json)
}

pub(crate) fn read_json(fence: &Fence, key: &str, version: i64, json: &str) -> Observed {
    let entity = entity(key);
    let at = Timestamp(1_700_000_000_000_000 + version * 1_000_000);
    let record = Record {
        key: entity.key.clone(),
        version: Version::stamp(&"updated_at".into(), &at.to_string()),
        changed_at: Some(at),
        document: document(json),
        parent: None,
        in_scope: true,
    };
    Observed { entity, what: What::Record { by: By::Key, started: started(fence), record }, delivery: None }
}

pub(crate) fn hint(key: &str, operation: Operation) -> Observed {
    let entity = entity(key);
    let event = Event { entity: entity.clone(), operation, version: None, push: Push::Hint, sequence: None, via: "hook" };
    Observed { entity, what: What::Event(event), delivery: None }
}

pub(crate) fn gone(tick: Tick, key: &str) -> Observed {
    let started = Started { tick, at: Clock::system().now() };
    Observed { entity: entity(key), what: What::Gone { started, reason: "not found", by_mark: None }, delivery: None }
}

pub(crate) fn delivery(dedupe: &str) -> Delivery {
    Delivery {
        id: DeliveryId(Uuid::now_v7()),
        source: source(),
        received_at: Clock::system().now(),
        dedupe: dedupe.to_owned(),
        request: HookRequest {
            route: "tasks".to_owned(),
            query: String::new(),
            headers: vec![("x-raw".to_owned(), Bytes::from_static(b"\xff\x00"))],
            body: Bytes::from_static(b"{}"),
        },
    }
}

/// Runs a statement that breaks the schema, so that what uses it fails.
pub(crate) async fn break_schema(store: &Store, sql: &str) {
    store.writer().execute_unprepared(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// The first column of a query's rows, as text.
pub(crate) async fn texts(store: &Store, sql: &str) -> Vec<String> {
    let rows = store.reader().query_all_raw(store.raw(format!("select cast(x.v as text) as v from ({sql}) x"), [])).await;
    let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error}"));
    rows.iter().map(|row| row.try_get::<Option<String>>("", "v").expect("text").unwrap_or_else(|| "null".to_owned())).collect()
}
