//! Collections, single records, `$metadata`, tokens and the log.

use serde_json::{Value, json};

use super::{Bench, Options, rows, seen, small, text};
use crate::sandbox::reso::{NextLinks, Profile};
use crate::sandbox::wire::base64;

#[tokio::test]
async fn metadata_and_the_service_document_name_what_is_served() {
    let bench = Bench::new(small()).await;
    let edmx = bench.get("$metadata").await;
    assert_eq!((edmx.status, edmx.headers["content-type"].as_bytes()), (200, b"application/xml".as_slice()));
    assert_eq!(edmx.headers["odata-version"], "4.01");
    assert!(edmx.headers.contains_key("date"));
    assert!(edmx.text.contains("<EntityType Name=\"OpenHouse\"><Key><PropertyRef Name=\"OpenHouseKey\"/></Key>"));
    assert!(edmx.text.contains("<Property Name=\"EntityEventSequence\" Type=\"Edm.Int64\" Nullable=\"false\"/>"));
    let service = bench.ok("").await;
    assert_eq!(rows(&service).len(), 6);
    for row in rows(&service) {
        assert_eq!(bench.get(&format!("{}?$top=1", text(&row["url"]))).await.status, 200);
    }
}

#[tokio::test]
async fn single_records_are_found_or_404() {
    let bench = Bench::new(small()).await;
    let record = bench.ok("Property('L0000001')").await;
    assert_eq!(record["ListingKey"], "L0000001");
    assert_eq!(text(&record["ModificationTimestamp"]).len(), "2026-01-01T10:00:00.123Z".len());
    let missing = bench.get("Property('nobody')").await;
    assert_eq!((missing.status, &missing.body["error"]["code"]), (404, &json!("404")));
    assert_eq!(bench.get("Nothing").await.status, 404);
    assert_eq!(bench.get("Property(1)").await.status, 400);
    assert_eq!(bench.ok("EntityEvent(1)").await["EntityEventSequence"], 1);
    assert_eq!(bench.get("EntityEvent(999999)").await.status, 404);
    assert_eq!(seen(bench.request("DELETE", "/odata/Property('L0000001')")).await.status, 405);
    assert_eq!(bench.report().await["violations_total"], 1);
}

#[tokio::test]
async fn every_way_of_paging_walks_all_rows_once() {
    for next_links in [NextLinks::Skip, NextLinks::Skiptoken] {
        let bench = Bench::new(Options { page: 7, next_links: Some(next_links), ..small() }).await;
        let wanted: Vec<String> = (1..=60).map(|number| format!("L{number:07}")).collect();
        assert_eq!(bench.walk("Property?$select=ListingKey", "ListingKey").await, wanted, "{next_links:?}");
        let mut by_stamp = bench.walk("Property?$orderby=ModificationTimestamp desc&$top=60", "ListingKey").await;
        by_stamp.sort();
        assert_eq!(by_stamp, wanted, "{next_links:?}");
    }
    let bench = Bench::new(Options { page: 7, next_links: Some(NextLinks::None), ..small() }).await;
    let page = bench.ok("Property?$count=true").await;
    assert_eq!((rows(&page).len(), &page["@odata.count"], page.get("@odata.nextLink")), (7, &json!(60), None));
    assert_eq!(bench.ok("Property?$top=1").await.get("@odata.nextLink"), None);
    assert_eq!(bench.rows("Property?$top=5&$skip=58").await.len(), 2);
    let preferred = seen(bench.request("GET", "/odata/Property").header("prefer", "odata.maxpagesize=3")).await;
    assert_eq!((rows(&preferred.body).len(), preferred.headers["preference-applied"].as_bytes()), (3, b"odata.maxpagesize=3".as_slice()));
}

#[tokio::test]
async fn what_is_switched_off_is_refused() {
    let bench = Bench::new(Options { no_key_order: true, no_in: true, no_orderby: true, ..small() }).await;
    for query in ["$filter=ListingKey gt 'L'", "$filter=ListingKey in ('L')", "$orderby=ListingKey", "$expand=Media", "$select=Nope"] {
        assert_eq!(bench.get(&format!("Property?{query}")).await.status, 400, "{query}");
    }
    assert_eq!(bench.rows("Property?$filter=ListingKey eq 'L0000003'").await.len(), 1);
}

#[tokio::test]
async fn tokens_come_by_form_or_basic_and_end() {
    let mut bench = Bench::new(Options { token_ttl_ms: 600_000, ..small() }).await;
    let url = "/oauth2/token";
    let form = "grant_type=client_credentials&client_id=instep&client_secret=client-secret";
    let basic = format!("Basic {}", base64(b"instep:client-secret"));
    let by_form = seen(bench.client.post(format!("{}{url}", bench.sandbox.url())).body(form)).await;
    let request = bench.client.post(format!("{}{url}", bench.sandbox.url())).header("authorization", basic);
    let by_basic = seen(request.body("grant_type=client_credentials")).await;
    for granted in [by_form, by_basic] {
        assert_eq!((granted.status, &granted.body["expires_in"]), (200, &json!(600)));
        bench.token = text(&granted.body["access_token"]).to_owned();
        assert_eq!(bench.get("Property?$top=1").await.status, 200);
    }
    bench.control("revoke", json!({})).await;
    let refused = bench.get("Property?$top=1").await;
    assert_eq!((refused.status, refused.headers["www-authenticate"].as_bytes()), (401, b"Bearer".as_slice()));
    let wrong = form.replace("client-secret", "wrong");
    assert_eq!(seen(bench.client.post(format!("{}{url}", bench.sandbox.url())).body(wrong)).await.status, 401);
    let mut strict = Bench::new(Options { forbidden: true, ..small() }).await;
    strict.token = "wrong".to_owned();
    assert_eq!(strict.get("Property").await.status, 403);
}

#[tokio::test]
async fn the_log_tells_of_changes_in_the_order_of_children_before_parents() {
    let bench = Bench::new(small()).await;
    let head = bench.rows("EntityEvent?$orderby=EntityEventSequence desc&$top=1").await[0]["EntityEventSequence"].clone();
    let photo = bench.rows("Media?$top=1").await.remove(0);
    let listing = text(&photo["ResourceRecordKey"]).to_owned();
    let before = bench.ok(&format!("Property('{listing}')")).await;
    bench.control("update", json!({ "resource": "Media", "key": photo["MediaKey"] })).await;
    let after = bench.ok(&format!("Property('{listing}')")).await;
    assert_ne!(before["PhotosChangeTimestamp"], after["PhotosChangeTimestamp"]);
    bench.control("delete", json!({ "resource": "Property", "key": listing })).await;
    assert_eq!(bench.get(&format!("Property('{listing}')")).await.status, 404);
    assert_eq!(bench.rows(&format!("Media?$filter=ResourceRecordKey eq '{listing}'")).await, Vec::<Value>::new());
    let told = bench.rows(&format!("EntityEvent?$filter=EntityEventSequence gt {head}&$orderby=EntityEventSequence asc")).await;
    let names: Vec<&str> = told.iter().map(|event| text(&event["ResourceName"])).collect();
    assert_eq!((names[0], names[1], names[names.len() - 1]), ("Media", "Property", "Property"));
    assert_eq!(told.len(), bench.changes().await.len());
    assert!(told.windows(2).all(|two| two[0]["EntityEventSequence"].as_u64() < two[1]["EntityEventSequence"].as_u64()));
    bench.control("restore", json!({ "resource": "Property", "key": listing })).await;
    assert_eq!(bench.get(&format!("Property('{listing}')")).await.status, 200);
}

#[tokio::test]
async fn compaction_keeps_the_last_event_of_each_record() {
    let bench = Bench::new(Options { entities: 20, events_at_start: 500, ..small() }).await;
    assert_eq!(bench.report().await["events"]["last"], 500);
    let entities: u64 = bench.report().await["entities"].as_object().expect("counts").values().filter_map(Value::as_u64).sum();
    bench.control("compact", json!({})).await;
    let left = bench.rows("EntityEvent").await;
    assert_eq!((left.len() as u64, left.last().map(|last| &last["EntityEventSequence"])), (entities, Some(&json!(500))));
}

#[tokio::test]
async fn mls_grid_says_farewell_and_wants_its_system_and_gzip() {
    let options = Options { profile: Profile::Mlsgrid, requests_per_second: 100_000, window_scale: 0.000_001, ..small() };
    let bench = Bench::new(options).await;
    assert_eq!(bench.get("Property").await.status, 400);
    let plain = bench.client.get(format!("{}/odata/Property", bench.sandbox.url())).header("authorization", "Bearer static-token");
    let plain = plain.header("accept-encoding", "identity");
    assert!(seen(plain).await.text.contains("COMPRESSION REQUIRED"));
    let system = "OriginatingSystemName eq 'demo'";
    bench.control("delete", json!({ "resource": "Member", "key": "M0000001" })).await;
    let gone = bench.rows(&format!("Member?$filter={system} and MemberKey eq 'M0000001'")).await;
    assert_eq!(gone[0]["MlgCanView"], false);
    assert_eq!(gone[0].get("MemberFullName"), None);
    assert_eq!(bench.truth("Member('M0000001')").await.status, 404);
    assert_eq!(bench.rows(&format!("Member?$filter={system} and MemberKey eq 'M0000002'")).await[0]["MlgCanView"], true);
    let viewed = bench.rows(&format!("Member?$filter={system} and MlgCanView eq true")).await;
    assert!(viewed.len() > 1 && viewed.iter().all(|member| member["MlgCanView"] == true), "{viewed:?}");
    // 7 days at this scale are 0.6 s.
    let disappears = async {
        while bench.get("Member('M0000001')").await.status != 404 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::PATIENCE, disappears).await.expect("it disappears in time");
}
