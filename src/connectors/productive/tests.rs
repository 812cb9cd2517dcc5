use bytes::Bytes;

use super::*;
use crate::connectors::{Response, SecretForm};
use crate::model::{DeliveryId, Operation, SourceName};

/// The first page of everything.
const PAGE: Asked<'static> = Asked::Page(ListQuery { variant: 0, since: None, cursor: None, halvings: 0 });
const DAY: Duration = Duration::from_secs(24 * 3600);

fn productive() -> Productive {
    let names = resource_names().into_iter().map(|name| (name.to_owned(), ResourceOptions::default())).collect();
    Productive::new(Options {
        url: "https://api.example.test/api/v2/".parse().expect("invariant: a URL"),
        organization: 435,
        resources: names,
        exclude: vec!["/attributes/cost*".to_owned()],
        read_lag: Duration::from_secs(30),
        list_lag: Duration::from_secs(300),
        keep_deleted: DAY * 30,
        tombstones: DAY * 90,
        signature_tolerance: None,
    })
    .expect("invariant: known resources")
}

fn resource(productive: &Productive, name: &str) -> ResourceSpec {
    productive.resources().iter().find(|spec| spec.name.as_str() == name).expect("invariant: replicated").clone()
}

fn answer(status: u16, body: &str) -> Response {
    Response { status, headers: Vec::new(), body: Bytes::copy_from_slice(body.as_bytes()), date: None }
}

fn delivery(route: &str, body: &str) -> Delivery {
    let request =
        HookRequest { route: route.into(), query: String::new(), headers: Vec::new(), body: Bytes::copy_from_slice(body.as_bytes()) };
    Delivery {
        id: DeliveryId(uuid::Uuid::nil()),
        source: SourceName::new("pmp").expect("invariant: a name"),
        received_at: Timestamp(0),
        dedupe: String::new(),
        request,
    }
}

/// Computed with another implementation (contract, section 4, vector 6).
const VECTOR_TOKEN: &str = "11111111-2222-3333-4444-555555555555";
const VECTOR_BODY: &str = r#"{"event":"update_task","item_type":"task","item_id":42,"created":"2026-01-02T03:04:05.678+01:00","object":{"data":{"id":"42","type":"tasks","attributes":{"title":"Zażółć"}}}}"#;
const VECTOR_MAC: &str = "fa753a30101effb4ef71823fbb5f50808d7fb4166329dcc3aaf6d77d89c1c2ff";

fn signed(header: &str) -> HookRequest {
    HookRequest {
        headers: vec![(SIGNATURE_HEADER.to_owned(), Bytes::copy_from_slice(header.as_bytes()))],
        ..delivery("task-updated", VECTOR_BODY).request
    }
}

#[test]
fn a_signature_holds_with_either_separator_and_under_any_of_the_tokens() {
    let productive = productive();
    let secrets = |route: Option<&str>| {
        let other = HookSecret { route: None, text: "another".into(), form: SecretForm::Whole };
        vec![other, HookSecret { route: route.map(ToOwned::to_owned), text: VECTOR_TOKEN.into(), form: SecretForm::Whole }]
    };
    for separator in [",", ", "] {
        let request = signed(&format!("t=1700000000{separator}s={VECTOR_MAC}"));
        for route in [None, Some("task-updated"), Some("task-created")] {
            assert!(productive.verify(&request, &secrets(route), Timestamp(0)).is_ok(), "{separator:?} {route:?}");
        }
        assert_eq!(productive.verify(&request, &[], Timestamp(0)), Err(Refusal::Mismatch));
    }
}

#[test]
fn every_flipped_bit_of_header_or_body_is_refused() {
    let productive = productive();
    let secrets = [HookSecret { route: None, text: VECTOR_TOKEN.into(), form: SecretForm::Whole }];
    for separator in [",", ", "] {
        let header = format!("t=1700000000{separator}s={VECTOR_MAC}").into_bytes();
        for bit in 0..header.len() * 8 {
            let mut flipped = header.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let request = HookRequest { headers: vec![(SIGNATURE_HEADER.to_owned(), flipped.into())], ..signed("") };
            assert!(productive.verify(&request, &secrets, Timestamp(0)).is_err(), "{separator:?}, bit {bit}");
        }
    }
    let good = signed(&format!("t=1700000000,s={VECTOR_MAC}"));
    for bit in 0..good.body.len() * 8 {
        let mut body = good.body.to_vec();
        body[bit / 8] ^= 1 << (bit % 8);
        let request = HookRequest { body: body.into(), ..good.clone() };
        assert_eq!(productive.verify(&request, &secrets, Timestamp(0)), Err(Refusal::Mismatch), "bit {bit}");
    }
}

#[test]
fn broken_signature_headers_and_foreign_routes_are_refused() {
    let productive = productive();
    let secrets = [HookSecret { route: None, text: VECTOR_TOKEN.into(), form: SecretForm::Whole }];
    for header in ["", "t=1", "s=ff", "t=1700000000 s=ff", ",", "t=,s=", "=", "t=1700000000,s=zz"] {
        assert!(productive.verify(&signed(header), &secrets, Timestamp(0)).is_err(), "{header:?}");
    }
    let foreign = HookRequest { route: "task-exploded".into(), ..signed(&format!("t=1700000000,s={VECTOR_MAC}")) };
    assert_eq!(productive.verify(&foreign, &secrets, Timestamp(0)), Err(Refusal::Route));
}

#[test]
fn a_delivery_is_a_hint_whose_operation_comes_from_its_route() {
    let productive = productive();
    for (route, operation) in
        [("task-created", Operation::Create), ("task-updated", Operation::Update), ("task-deleted", Operation::Delete)]
    {
        let events = productive.events(&delivery(route, VECTOR_BODY)).expect("readable").events;
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].entity.key.as_str(), events[0].operation), ("42", operation));
        assert_eq!(events[0].push, crate::model::Push::Hint);
    }
    let archived = productive.events(&delivery("person-archived", r#"{"item_id":7}"#)).expect("readable").events;
    assert_eq!((archived[0].entity.resource.as_str(), archived[0].operation), ("people", Operation::Update));
    for body in ["", "[]", "{}", r#"{"item_id":null}"#, r#"{"item_id":1,"item_id":2}"#] {
        assert!(productive.events(&delivery("task-updated", body)).is_err(), "{body}");
    }
}

const TASK: &str = r#"{"id":"1","type":"tasks","attributes":{"title":"T","cost_default":3,"updated_at":"2026-03-14T05:17:19.292+01:00"},
  "relationships":{"organization":{"data":{"type":"organizations","id":"435"}},"project":{"data":{"type":"projects","id":"7"}},
  "task_list":{"data":{"type":"task_lists","id":8}},"assignee":{"data":null},"workflow_status":{"data":null},"creator":{"data":null},
  "subscribers":{"meta":{"included":false}}}}"#;

#[test]
fn one_unreadable_record_does_not_spoil_its_page() {
    let productive = productive();
    let tasks = resource(&productive, "tasks");
    let body = format!(
        r#"{{"data":[{TASK},{{"id":"2","attributes":{{"x":1,"x":2}}}},{}],"links":{{"next":"https://elsewhere.test/tasks?page%5Bafter%5D=abc%2B"}},"meta":{{}}}}"#,
        TASK.replace(r#""project":{"data":{"type":"projects","id":"7"}}"#, r#""project":{"meta":{"included":false}}"#)
    );
    let page = productive.read(&tasks, PAGE, &answer(200, &body)).expect("a page");
    assert_eq!(page.next.as_deref(), Some("abc+"), "the cursor is taken out of the link; the link is never followed");
    let first = page.records[0].as_ref().expect("readable");
    assert!(!first.document.text.contains("cost_default"), "excluded");
    assert!(!first.document.text.contains("subscribers"), "relations without linkage are not stored");
    assert_eq!(page.records[1].as_ref().expect_err("a key twice").key.as_ref().map(Key::as_str), Some("2"));
    assert!(page.records[2].as_ref().expect_err("a foreign key would be lost").reason.contains("project"));
}

#[test]
fn the_version_and_volatile_fields_are_not_in_the_hash() {
    let productive = productive();
    let tasks = resource(&productive, "tasks");
    let read = |task: &str| {
        let page = productive.read(&tasks, Asked::Keys(&[], By::Key), &answer(200, &format!(r#"{{"data":{task}}}"#))).expect("a page");
        page.records.into_iter().next().expect("one").expect("readable")
    };
    let (old, new) = (read(TASK), read(&TASK.replace("19.292", "20.000")));
    assert_eq!(old.document.hash, new.document.hash);
    assert_ne!(new.version, old.version);
    assert_ne!(old.document.hash, read(&TASK.replace("\"T\"", "\"U\"")).document.hash);
}

#[test]
fn pages_are_found_by_number_where_there_is_no_cursor() {
    let productive = productive();
    let tasks = resource(&productive, "tasks");
    let page = |meta: &str| productive.read(&tasks, PAGE, &answer(200, &format!(r#"{{"data":[],"meta":{meta}}}"#))).expect("a page");
    assert_eq!(page(r#"{"current_page":1,"total_pages":3}"#).next.as_deref(), Some("2"));
    assert_eq!(page(r#"{"current_page":3,"total_pages":3}"#).next, None);
}

#[test]
fn statuses_become_reasons_once() {
    let productive = productive();
    let tasks = resource(&productive, "tasks");
    let read = |status, body: &str| productive.read(&tasks, PAGE, &answer(status, body)).expect_err("a failure");
    assert_eq!(read(400, r#"{"errors":[{"title":"Unsupported Filter"}]}"#), ReadError::Unsupported);
    assert_eq!(read(400, r#"{"errors":[{"code":"keyset_invalid_cursor"}]}"#), ReadError::CursorRefused);
    assert_eq!(read(404, ""), ReadError::NotFound);
    assert_eq!(read(403, ""), ReadError::Denied(403));
    assert_eq!(read(429, ""), ReadError::RateLimited);
    assert_eq!(read(502, "<html>"), ReadError::Server(502));
    assert_eq!(read(422, ""), ReadError::Refused(422));
    assert!(matches!(read(200, "<html>login</html>"), ReadError::Malformed(_)));
}

#[test]
fn requests_ask_for_every_relation_and_escape_strictly() {
    let productive = productive();
    let tasks = resource(&productive, "tasks");
    let keys = [Key::new("1").expect("a key"), Key::new("2+3").expect("a key")];
    let bulk = productive.fetch(&tasks, &keys, By::Bulk);
    assert!(bulk.url.starts_with("https://api.example.test/api/v2/tasks?include=project%2Ctask_list%2Cassignee"), "{}", bulk.url);
    assert!(bulk.url.contains("filter%5Bid%5D=1%2C2%2B3"), "{}", bulk.url);
    let one = productive.fetch(&tasks, &keys[1..], By::Key);
    assert!(one.url.contains("/tasks/2%2B3?include="), "{}", one.url);
    let since = ListQuery { variant: 0, since: Timestamp::parse("2026-09-12T10:15:30.25Z"), cursor: None, halvings: 0 };
    assert!(productive.list(&tasks, since).url.contains("filter%5Bupdated_at%5D%5Bgt_eq%5D=2026%2D09%2D12T10%3A15%3A30.250000Z"));
    let projects = resource(&productive, "projects");
    let newest = productive.list(&projects, ListQuery { cursor: Some("2"), ..since }).url;
    assert!(newest.contains("sort=%2Dlast_activity_at") && newest.contains("page%5Bnumber%5D=2"), "{newest}");
}

#[test]
fn feeds_announce_deletes_and_recoveries() {
    let productive = productive();
    let rows = |feed: &FeedSpec, attributes: &str| {
        let body = format!(r#"{{"data":[{{"id":"8","attributes":{attributes}}}]}}"#);
        let page = productive.read_feed(feed, &answer(200, &body)).expect("a page");
        page.rows.into_iter().next().expect("one").expect("readable")
    };
    let bin = rows(
        &catalog::DELETED_ITEMS,
        r#"{"item_id":194,"item_type":"project","created_at":"2026-03-14T05:05:04.358+01:00","recovered_at":null}"#,
    );
    let event = bin.event.expect("replicated");
    assert_eq!((event.entity.resource.as_str(), event.entity.key.as_str(), event.operation), ("projects", "194", Operation::Delete));
    let back = rows(&catalog::DELETED_ITEMS, r#"{"item_id":194,"item_type":"budget","recovered_at":"2026-03-14T05:05:04.358+01:00"}"#);
    assert_ne!(back.id, bin.id);
    assert_eq!(back.event.expect("replicated").operation, Operation::Update);
    for (word, operation) in [("create", Operation::Update), ("destroy", Operation::Delete), ("delete", Operation::Delete)] {
        let row = rows(&catalog::ACTIVITIES, &format!(r#"{{"event":"{word}","item_type":"task","item_id":5}}"#));
        assert_eq!(row.event.expect("replicated").operation, operation);
    }
    assert_eq!(rows(&catalog::ACTIVITIES, r#"{"event":"create","item_type":"dashboard","item_id":5}"#).event, None);
    let entry = rows(&catalog::TIME_ENTRY_VERSIONS, r#"{"event":"restore","time_entry_id":"9"}"#);
    assert_eq!(entry.event.expect("replicated").entity.resource.as_str(), "time_entries");
}

#[test]
fn a_plan_without_webhooks_is_told_from_a_read_only_token() {
    let target = |route: &str| format!("https://hooks.test/hooks/pmp/{route}");
    let read = |status, body: &str| productive().read_registrations(&answer(status, body), &target);
    assert_eq!(read(403, r#"{"errors":[{"code":"webhooks_limit_exceeded"}]}"#), Err(RegistrationError::NotInPlan));
    assert_eq!(read(403, r#"{"errors":[{"title":"Access Denied"}]}"#), Err(RegistrationError::ReadOnly));
    let body = r#"{"data":{"id":41,"attributes":{"target_url":"https://hooks.test/hooks/pmp/task-updated","signature_token":"t","state_id":3,"deactivated_at":null}}}"#;
    let (mine, _) = read(201, body).expect("readable");
    assert_eq!((mine[0].id.as_str(), mine[0].route.as_deref(), mine[0].healthy), ("41", Some("task-updated"), true));
}

#[test]
fn ids_that_are_no_keys_spoil_their_record_alone() {
    let productive = productive();
    let tasks = resource(&productive, "tasks");
    let linked = |id: &str| {
        let relations = ["project", "task_list", "assignee", "workflow_status", "creator"]
            .map(|name| format!("\"{name}\":{{\"data\":{}}}", if name == "project" { id } else { "null" }));
        format!("{{\"id\":\"1\",\"type\":\"tasks\",\"attributes\":{{}},\"relationships\":{{{}}}}}", relations.join(","))
    };
    let too_long = format!("{{\"type\":\"projects\",\"id\":\"{}\"}}", "x".repeat(513));
    let records =
        [linked("{\"type\":\"projects\",\"id\":\"7\"}"), linked(&too_long), linked("{\"id\":\"7\\u0000\"}"), linked("{\"id\":[]}")];
    let body = format!("{{\"data\":[{},{{\"id\":\"2\\ud800\"}}]}}", records.join(","));
    let page = productive.read(&tasks, PAGE, &answer(200, &body)).expect("a page");
    let reasons: Vec<_> = page.records.iter().map(|record| record.as_ref().err().map(|error| error.reason.as_str())).collect();
    let no_key = Some("the relation `project` leads to no usable key");
    assert_eq!(reasons, [None, no_key, no_key, no_key, Some("the record has no usable id")]);
}

#[test]
fn of_a_page_that_is_no_utf8_one_record_suffers() {
    let productive = productive();
    let people = resource(&productive, "people");
    let body = b"{\"data\":[{\"id\":\"1\",\"attributes\":{\"title\":\"a\xffb\"}},{\"id\":\"2\",\"attributes\":{\"title\":\"c\"}}]}";
    let response = Response { body: Bytes::from_static(body), ..answer(200, "") };
    let page = productive.read(&people, PAGE, &response).expect("a page");
    let lossy: Vec<bool> = page.records.iter().map(|record| record.as_ref().expect("readable").document.lossy).collect();
    assert_eq!(lossy, [true, false]);
}
