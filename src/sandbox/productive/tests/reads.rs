//! Documents, paging, filters and refusals.

use serde_json::{Value, json};

use super::{Bench, Options, ids, seen, unlimited};
use crate::clock::Timestamp;
use crate::sandbox::productive::moment::day_of;

#[tokio::test]
async fn both_headers_are_required() {
    let bench = Bench::new(Options { tokens: vec!["token-a".to_owned()], ..unlimited() }).await;
    let url = format!("{}/api/v2/tasks", bench.sandbox.url());
    let none = seen(bench.client.get(&url)).await;
    assert_eq!((none.status, none.body["errors"][0]["title"].as_str()), (401, Some("Unauthenticated")));
    assert_eq!(seen(bench.client.get(&url).header("x-auth-token", "token-a")).await.status, 401);
    let stranger = bench.client.get(&url).header("x-auth-token", "token-b").header("x-organization-id", "435");
    assert_eq!(seen(stranger).await.status, 401);
    let known = bench.get("tasks").await;
    assert_eq!(known.status, 200);
    assert_eq!(known.headers["content-type"], "application/vnd.api+json; charset=utf-8");
}

#[tokio::test]
async fn relations_are_linked_only_when_asked_for() {
    let bench = Bench::new(unlimited()).await;
    let bare = bench.ok("tasks?page[size]=5").await;
    let relationships = &bare["data"][0]["relationships"];
    assert_eq!(relationships["project"], json!({ "meta": { "included": false } }));
    assert_eq!(relationships["organization"]["data"], json!({ "type": "organizations", "id": "435" }));
    let full = bench.ok("tasks?page[size]=5&include=project,assignee").await;
    let project = &full["data"][0]["relationships"]["project"]["data"];
    assert_eq!(project["type"], "projects");
    assert_eq!(full["data"][0]["relationships"]["task_list"], json!({ "meta": { "included": false } }));
    let included = full["included"].as_array().expect("a list");
    assert!(included.iter().any(|resource| resource["type"] == "projects" && resource["id"] == project["id"]));
    let single = bench.ok(&format!("tasks/{}?include=task_list", bare["data"][0]["id"].as_str().expect("an id"))).await;
    assert_eq!(single["data"]["relationships"]["task_list"]["data"]["type"], "task_lists");
    let unknown = bench.get("tasks?include=mother").await;
    assert_eq!(unknown.status, 400);
    assert_eq!(bench.get("tasks/1").await.body["errors"][0]["title"], "Record Not Found");
}

#[tokio::test]
async fn attributes_are_written_as_the_vendor_writes_them() {
    let bench = Bench::new(unlimited()).await;
    let tasks = bench.ok("tasks?page[size]=200").await;
    for task in tasks["data"].as_array().expect("a list") {
        let attributes = &task["attributes"];
        assert!(attributes["task_number"].is_string() && attributes["number"].is_string());
        assert!(attributes["custom_fields"].is_null() || attributes["custom_fields"].is_object());
        let updated = attributes["updated_at"].as_str().expect("a date-time");
        assert!(updated.ends_with("+01:00") || updated.ends_with("+02:00"), "{updated}");
        let activity = attributes["last_activity_at"].as_str().expect("a date-time");
        assert!(activity.contains(".000+"), "{activity}");
        assert!(Timestamp::parse(updated).is_some());
    }
    assert!(bench.ok("projects").await["data"][0]["attributes"].get("updated_at").is_none());
    assert!(bench.ok("people").await["data"][0]["attributes"].get("updated_at").is_none());
    assert!(bench.ok("invoices").await["data"][0]["attributes"]["amount"].is_u64());
    let availabilities = bench.ok("people").await["data"][0]["attributes"]["availabilities"].clone();
    assert!(availabilities.is_string());
}

#[tokio::test]
async fn pages_are_numbered_and_clamped() {
    let bench = Bench::new(unlimited()).await;
    let first = bench.ok("tasks").await;
    let total = first["meta"]["total_count"].as_u64().expect("a count");
    assert_eq!(first["meta"]["page_size"], 30);
    assert_eq!(first["meta"]["total_pages"], json!(total.div_ceil(30)));
    assert_eq!(bench.ok("tasks?page[size]=1000").await["meta"]["page_size"], 200);
    let rows = bench.walk("tasks?page[size]=97&sort=-updated_at").await;
    assert_eq!(rows.len() as u64, total);
    let stamps: Vec<Timestamp> =
        rows.iter().map(|row| Timestamp::parse(row["attributes"]["updated_at"].as_str().expect("text")).expect("a stamp")).collect();
    assert!(stamps.is_sorted_by(|a, b| a >= b));
    let mut all = ids(&rows);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len() as u64, total);
}

#[tokio::test]
async fn cursors_walk_by_id_and_refuse_what_they_cannot() {
    let bench = Bench::new(unlimited()).await;
    let first = bench.ok("tasks?page[after]=&page[size]=50").await;
    assert_eq!(first["meta"], json!({ "page_size": 50, "max_page_size": 200 }));
    let rows = bench.walk("tasks?page[after]=&page[size]=50").await;
    let walked = ids(&rows);
    assert!(walked.is_sorted());
    assert_eq!(walked.len() as u64, bench.ok("tasks").await["meta"]["total_count"].as_u64().expect("a count"));
    for (path, code) in [
        ("tasks?page[after]=&page[number]=1", "keyset_conflict"),
        ("tasks?page[after]=&sort=updated_at", "keyset_unsupported_sort"),
        ("tasks?page[after]=abc", "keyset_invalid_cursor"),
    ] {
        let refused = bench.get(path).await;
        assert_eq!((refused.status, refused.body["errors"][0]["code"].as_str()), (400, Some(code)));
    }
}

#[tokio::test]
async fn date_times_are_cut_to_the_day_without_the_flag() {
    let bench = Bench::new(unlimited()).await;
    let task = bench.ok("tasks?page[size]=1&sort=-updated_at").await["data"][0].clone();
    let updated = Timestamp::parse(task["attributes"]["updated_at"].as_str().expect("text")).expect("a stamp");
    let later = Timestamp(updated.0 - updated.0.rem_euclid(1_000_000) + 1_000_000);
    let path = |from: Timestamp| format!("tasks?filter[updated_at][gt_eq]={from}");
    let found = ids(bench.ok(&path(later)).await["data"].as_array().expect("a list"));
    assert_eq!(found.contains(&ids(std::slice::from_ref(&task))[0]), day_of(later.0) == day_of(updated.0));
    let flagged = |path: String| {
        let request = bench.client.get(format!("{}/api/v2/{path}", bench.sandbox.url()));
        let request = request.header("x-auth-token", "t").header("x-organization-id", "435");
        seen(request.header("x-feature-flags", "filteringSkipDatetimeCastToDate"))
    };
    assert_eq!(flagged(path(later)).await.body["meta"]["total_count"], 0);
    // Whole seconds: a bound within the same second still finds it.
    let within = Timestamp(updated.0 - updated.0.rem_euclid(1_000_000) + 999_000);
    assert_eq!(flagged(path(within)).await.body["data"][0]["id"], task["id"]);
}

#[tokio::test]
async fn unsupported_filters_and_sorts_are_refused() {
    let bench = Bench::new(Options { no_id_filter: vec!["boards".to_owned()], ..unlimited() }).await;
    for (path, title) in [
        ("projects?filter[updated_at][gt_eq]=2026-01-01", "Unsupported Filter"),
        ("tasks?filter[mood]=1", "Unsupported Filter"),
        ("boards?filter[id]=1", "Unsupported Filter"),
        ("tasks?filter[updated_at][gt_eq]=yesterday", "Unsupported Filter Value"),
        ("projects?sort=updated_at", "Unsupported Sort"),
    ] {
        let refused = bench.get(path).await;
        assert_eq!((refused.status, refused.body["errors"][0]["title"].as_str()), (400, Some(title)), "{path}");
        assert_eq!(refused.body["errors"][0]["status"], 400);
    }
    let some = ids(bench.ok("tasks?page[size]=3").await["data"].as_array().expect("a list"));
    let list = bench.ok(&format!("tasks?filter[id]={},{},7", some[0], some[2])).await;
    assert_eq!(ids(list["data"].as_array().expect("a list")), [some[0], some[2]]);
    let array = bench.ok(&format!("tasks?filter[id][]={}&filter[id][]={}", some[0], some[1])).await;
    assert_eq!(ids(array["data"].as_array().expect("a list")), [some[0], some[1]]);
}

#[tokio::test]
async fn templates_hide_and_archived_ones_may() {
    let bench = Bench::new(Options { entities: 20_000, ..unlimited() }).await;
    let count = |list: Value| list["meta"]["total_count"].as_u64().expect("a count");
    let (shown, all) = (count(bench.ok("projects").await), count(bench.ok("projects?filter[with_templates]=true").await));
    assert!(shown < all, "{shown} {all}");
    let (active, archived) = (count(bench.ok("people?filter[status]=1").await), count(bench.ok("people?filter[status]=2").await));
    assert!(archived > 0);
    assert_eq!(count(bench.ok("people").await), active + archived);
    let hiding = Bench::new(Options { entities: 20_000, hide_archived: true, ..unlimited() }).await;
    assert_eq!(count(hiding.ok("people").await), active);
    assert_eq!(count(hiding.truth("people").await), active + archived);
}

#[tokio::test]
async fn writes_are_violations() {
    let bench = Bench::new(unlimited()).await;
    let id = bench.ok("tasks?page[size]=1").await["data"][0]["id"].as_str().expect("an id").to_owned();
    for (method, path) in [
        ("PATCH", format!("tasks/{id}")),
        ("POST", "tasks".to_owned()),
        ("DELETE", format!("tasks/{id}")),
        ("PATCH", "webhooks/1".to_owned()),
    ] {
        assert_eq!(bench.send(method, &format!("/api/v2/{path}"), Some(json!({}))).await.status, 405, "{method} {path}");
    }
    let report = bench.report().await;
    assert_eq!(report["violations_total"], 4);
    assert_eq!(bench.get(&format!("tasks/{id}")).await.status, 200);
}
