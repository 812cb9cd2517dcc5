//! Tokens, lists, searches and single reads.

use serde_json::{Value, json};

use super::{Bench, Options, encoded, items, password, small, text};
use crate::clock::Timestamp;

/// `2026-01-01 10:00:00` of a stamp, in the stamp's own zone.
fn zoneless(stamp: &Value) -> String {
    text(stamp)[..19].replace('T', " ")
}

fn uuids(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| text(&row["uuid"])).collect()
}

#[tokio::test]
async fn tokens_are_granted_refreshed_once_and_expire() {
    let mut bench = Bench::new(Options { token_ttl_ms: 60_000, app_token: "app".to_owned(), ..small() }).await;
    let pair = bench.grant(password()).await.body;
    assert_eq!((&pair["expires_in"], &pair["token_type"], &pair["scope"]), (&json!(60), &json!("bearer"), &Value::Null));
    let refresh = json!({ "grant_type": "refresh_token", "refresh_token": pair["refresh_token"] });
    assert_eq!(bench.grant(refresh.clone()).await.status, 200);
    let dead = bench.grant(refresh).await;
    assert_eq!((dead.status, &dead.body["code"]), (422, &json!(422)));
    let wrong = json!({ "grant_type": "password", "username": "instep_0001", "password": "wrong" });
    assert_eq!(bench.grant(wrong).await.status, 422);
    assert_eq!(bench.get("channels").await.status, 200);
    bench.control("revoke", json!({})).await;
    let expired = bench.get("channels").await;
    assert_eq!((expired.status, &expired.body["code"]), (401, &json!(401)));
    bench.token = "app".to_owned();
    assert_eq!(bench.get("channels").await.status, 200);
    bench.token = String::new();
    assert_eq!(bench.ok("system-information").await["edition"], "Serenity");
    assert_eq!(bench.report().await["violations_total"], 0);
}

#[tokio::test]
async fn every_list_of_the_contract_is_there() {
    let bench = Bench::new(small()).await;
    for list in [
        "products-uuid",
        "products",
        "product-models",
        "families",
        "families/family_1/variants",
        "attributes",
        "attributes/color/options",
        "attribute-groups",
        "association-types",
        "categories",
        "channels",
        "locales",
        "currencies",
        "asset-families",
        "asset-families/packshots/assets",
        "reference-entities",
        "reference-entities/designer/records",
    ] {
        let rows = bench.items(list).await;
        assert!(!rows.is_empty(), "{list}");
        let own = text(&rows[0]["_links"]["self"]["href"]).split_once("/api/rest/v1/").expect("an address").1.to_owned();
        let one = bench.ok(&own).await;
        assert_eq!(one, rows[0], "{list}");
        let stamped = ["products-uuid", "products", "product-models", "categories"].contains(&list)
            || list.ends_with("assets")
            || list.ends_with("records");
        assert_eq!(rows[0].get("updated").is_some(), stamped, "{list}");
    }
    let families = bench.ok("measurement-families").await;
    assert!(families[0]["code"].is_string(), "a bare list");
    for missing in ["families/none", "families/none/variants", "products-uuid/none", "asset-families/none/assets", "nothing"] {
        let seen = bench.get(missing).await;
        assert_eq!((seen.status, &seen.body["code"]), (404, &json!(404)), "{missing}");
    }
    let product = bench.get("products-uuid/none").await.body;
    assert_eq!(product.as_object().map(serde_json::Map::len), Some(2));
    assert!(text(&product["message"]).contains("do not have permission"));
}

#[tokio::test]
async fn both_ways_of_paging_have_their_limits() {
    let bench = Bench::new(small()).await;
    let total = usize::try_from(bench.report().await["entities"]["products"].as_u64().expect("a count")).expect("a small number");
    let all = bench.walk("products-uuid?pagination_type=search_after&limit=50").await;
    assert_eq!(all.len(), total);
    assert!(uuids(&all).is_sorted());
    assert_eq!(bench.walk("products-uuid?limit=100").await.len(), total);
    let first = bench.ok("products-uuid?limit=7&with_count=true").await;
    assert_eq!((&first["current_page"], &first["items_count"]), (&json!(1), &json!(total)));
    assert!(text(&first["_links"]["next"]["href"]).starts_with(&bench.sandbox.url()));
    assert!(first["_links"].get("previous").is_none());
    let cursor = uuids(&all)[total - 11].to_owned();
    let full = bench.ok(&format!("products-uuid?pagination_type=search_after&search_after={cursor}")).await;
    assert_eq!(items(&full).len(), 10);
    let next = text(&full["_links"]["next"]["href"]).split_once("/api/rest/v1/").expect("an address").1.to_owned();
    let empty = bench.ok(&next).await;
    assert_eq!((items(&empty).len(), empty["_links"].get("next")), (0, None), "the page before was full");
    for (path, status) in [
        ("products-uuid?limit=101", 422),
        ("families?limit=101", 422),
        ("products-uuid?page=0", 422),
        ("products-uuid?limit=100&page=101", 422),
        ("products-uuid?limit=100&page=100", 200),
        ("products-uuid?pagination_type=cursor", 422),
    ] {
        assert_eq!(bench.get(path).await.status, status, "{path}");
    }
    let assets = bench.walk("asset-families/packshots/assets?limit=1").await;
    assert_eq!(assets.len() as u64, bench.report().await["entities"]["assets"].as_u64().expect("a count"));
}

#[tokio::test]
async fn products_have_the_keys_and_the_marks_of_the_vendor() {
    let bench = Bench::new(small()).await;
    let page = bench.get("products-uuid?limit=100").await;
    assert!(page.text.contains(r"http:\/\/") && !page.text.contains("http://") && page.text.is_ascii());
    assert!(page.headers.contains_key("date"));
    let rows = items(&page.body);
    assert!(rows.iter().all(|row| row.get("identifier").is_none()));
    let kinds = |empty: fn(&Value) -> bool| rows.iter().filter(|row| empty(&row["quantified_associations"])).count();
    assert!(kinds(Value::is_array) > 0 && kinds(Value::is_object) > 0);
    let sku = rows.iter().find(|row| row["values"]["sku"].is_array()).expect("a product with an identifier");
    let identifier = text(&sku["values"]["sku"][0]["data"]);
    let old = bench.ok(&format!("products/{}", encoded(identifier))).await;
    assert_eq!((&old["uuid"], &old["identifier"]), (&sku["uuid"], &json!(identifier)));
    let without =
        bench.report().await["entities"]["products"].as_u64().expect("a count") - bench.walk("products?limit=100").await.len() as u64;
    assert!(without > 0, "some products have no identifier, and the old list leaves them out");
    let few = bench.ok("products-uuid?scope=print&locales=en_US&attributes=name,description,price&limit=100").await;
    for row in items(&few) {
        for (attribute, values) in row["values"].as_object().into_iter().flatten() {
            assert!(["name", "description", "price"].contains(&attribute.as_str()));
            for value in values.as_array().expect("a list") {
                assert!(value["locale"].is_null() || value["locale"] == "en_US");
                assert!(value["scope"].is_null() || value["scope"] == "print");
            }
        }
    }
    for wrong in ["scope=moon", "locales=xx_XX", "attributes=none", "locales=es_ES"] {
        assert_eq!(bench.get(&format!("products-uuid?{wrong}")).await.status, 422, "{wrong}");
    }
}

#[tokio::test]
async fn a_model_passes_its_values_on_and_a_filter_finds_its_variants() {
    let bench = Bench::new(Options { zone_offset_minutes: 90, ..small() }).await;
    let roots = bench.search("product-models?limit=100", json!({ "parent": [{ "operator": "EMPTY" }] })).await;
    let root = text(&roots[0]["code"]).to_owned();
    let below = json!({ "parent": [{ "operator": "=", "value": root }] });
    let variants = bench.search("products-uuid?limit=100", below.clone()).await;
    assert!(!variants.is_empty() && variants.iter().all(|variant| variant["root_parent"] == json!(root)));
    let before = zoneless(&variants.iter().map(|variant| variant["updated"].clone()).max_by_key(ToString::to_string).expect("a variant"));
    let name = json!([{ "locale": "en_US", "scope": null, "data": "of the model/1" }]);
    bench.control("update", json!({ "resource": "product-models", "key": root, "fields": { "values": { "name": name } } })).await;
    let now = bench.ok(&format!("product-models/{root}")).await;
    assert!(text(&now["updated"]).ends_with("+01:30"));
    let since = json!({ "parent": below["parent"], "updated": [{ "operator": ">", "value": before }] });
    let changed = bench.search("products-uuid?limit=100", since).await;
    assert_eq!(uuids(&changed), uuids(&variants), "the index knows of the model");
    for (after, before) in changed.iter().zip(&variants) {
        assert_eq!(after["updated"], before["updated"]);
        assert_eq!(after["values"]["name"][0]["data"], "of the model/1");
    }
    let stamp = zoneless(&now["updated"]);
    for (operator, value, found) in [
        (">", json!(stamp), false),
        ("=", json!(stamp), true),
        ("!=", json!(stamp), false),
        ("BETWEEN", json!([stamp, stamp]), true),
        ("NOT BETWEEN", json!([stamp, stamp]), false),
        ("SINCE LAST N DAYS", json!(1), true),
        ("<", json!(stamp), false),
    ] {
        let search =
            json!({ "updated": [{ "operator": operator, "value": value }], "identifier": [{ "operator": "IN", "value": [root] }] });
        assert_eq!(!bench.search("product-models", search).await.is_empty(), found, "{operator}");
    }
}

#[tokio::test]
async fn searches_are_checked_as_the_vendor_checks_them() {
    let bench = Bench::new(small()).await;
    let rows = bench.items("products-uuid?limit=100").await;
    let keys = uuids(&rows);
    let of = |keys: &[&str]| json!({ "uuid": [{ "operator": "IN", "value": keys }] });
    let found = bench.search("products-uuid?limit=100", of(&[keys[3], "00000000-0000-4000-8000-000000000000", keys[1]])).await;
    assert_eq!(uuids(&found), [keys[1], keys[3]], "the unknown one is silently absent");
    let names: Vec<String> = (0..101).map(|number| format!("x{number}")).collect();
    let iso = "2026-01-01T00:00:00Z";
    let cases = [
        ("products-uuid", "{".to_owned(), 400),
        ("products-uuid", of(&names.iter().map(String::as_str).collect::<Vec<_>>()).to_string(), 422),
        ("products-uuid", json!({ "updated": [{ "operator": ">", "value": iso }] }).to_string(), 422),
        ("products-uuid", json!({ "updated": [{ "value": 1 }] }).to_string(), 422),
        ("products-uuid", json!({ "colour": [{ "operator": "=", "value": 1 }] }).to_string(), 422),
        ("families", json!({ "updated": [{ "operator": ">", "value": iso }] }).to_string(), 200),
        ("families", json!({ "updated": [{ "operator": "<", "value": iso }] }).to_string(), 422),
        ("families", json!({ "updated": [{ "operator": ">", "value": "2026-01-01 00:00:00" }] }).to_string(), 422),
        ("families", json!({ "code": [{ "operator": "IN", "value": ["family_1"] }] }).to_string(), 200),
        ("attributes/color/options", json!({ "updated": [{ "operator": ">", "value": iso }] }).to_string(), 422),
        ("asset-families/packshots/assets", json!({ "updated": [{ "operator": "BETWEEN", "value": [iso, iso] }] }).to_string(), 200),
        ("channels", json!({ "updated": [{ "operator": ">", "value": iso }] }).to_string(), 422),
    ];
    for (list, search, status) in cases {
        let seen = bench.get(&format!("{list}?search={}", encoded(&search))).await;
        assert_eq!(seen.status, status, "{list} {search}: {}", seen.text);
    }
    let many: Vec<&str> = keys.iter().copied().chain(names.iter().map(String::as_str)).collect();
    let posted = json!({ "search": of(&many).to_string(), "limit": 100, "pagination_type": "search_after", "attributes": "name" });
    let page = bench.send("POST", "/api/rest/v1/products-uuid/search", Some(posted)).await;
    assert_eq!((page.status, items(&page.body).len()), (200, 100));
    let long = "x".repeat(9_000);
    assert_eq!(bench.get(&format!("families?search={long}")).await.status, 414);
}

#[tokio::test]
async fn structure_is_filtered_by_its_date_although_it_does_not_tell_it() {
    let bench = Bench::new(small()).await;
    bench.control("update", json!({ "resource": "families", "key": "family_2", "fields": { "labels": { "en_US": "new" } } })).await;
    let seen = bench.get("families").await;
    let before = Timestamp::parse("2020-01-01T00:00:00Z").expect("an instant");
    let all = bench.search("families?limit=100", json!({ "updated": [{ "operator": ">", "value": before.to_string() }] })).await;
    assert_eq!(all.len(), items(&seen.body).len());
    let yesterday = crate::clock::Clock::system().now().minus(std::time::Duration::from_secs(86_400));
    let changed = bench.search("families?limit=100", json!({ "updated": [{ "operator": ">", "value": yesterday.to_string() }] })).await;
    assert_eq!(changed.iter().map(|family| text(&family["code"])).collect::<Vec<_>>(), ["family_2"]);
}

#[tokio::test]
async fn what_is_gone_is_gone_silently_wherever_it_was_used() {
    let bench = Bench::new(small()).await;
    let rows = bench.items("products-uuid?limit=100").await;
    let named = rows.iter().find(|row| row["values"]["name"].is_array() && row["categories"][0].is_string()).expect("a named product");
    bench.control("delete", json!({ "resource": "attributes", "key": "name" })).await;
    bench.control("delete", json!({ "resource": "categories", "key": named["categories"][0] })).await;
    let after = bench.ok(&format!("products-uuid/{}", text(&named["uuid"]))).await;
    assert_eq!((&after["updated"], after["values"].get("name")), (&named["updated"], None));
    assert!(!after["categories"].as_array().expect("a list").contains(&named["categories"][0]));
    bench.control("delete", json!({ "resource": "attributes", "key": "color" })).await;
    assert_eq!(bench.get("attributes/color/options/red").await.status, 404);
    assert_eq!(bench.report().await["entities"]["attribute-options"], 11);
}
