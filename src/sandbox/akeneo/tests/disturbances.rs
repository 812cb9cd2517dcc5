//! Limits, faults and what the observer sees in spite of them.

use serde_json::json;

use super::{Bench, Options, PATIENCE, items, password, small, text};
use crate::sandbox::akeneo::{Faults, invent};

#[tokio::test]
async fn requests_beyond_the_second_are_refused_and_counted() {
    let bench = Bench::new(Options { requests_per_second: 1, retry_after_share: 1.0, ..small() }).await;
    let refused = async {
        loop {
            let seen = bench.get("channels").await;
            if seen.status == 429 {
                return seen;
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused).await.expect("two in a second are too many");
    assert_eq!(refused.headers["retry-after"], "1");
    let report = bench.report().await;
    assert_eq!((&report["refusals"][0]["client"], &report["refusals"][0]["scope"]), (&json!("connection"), &json!("requests_per_second")));
    assert!(report["refusals_total"].as_u64() >= Some(1));
    assert_eq!(bench.truth("channels").await["_embedded"]["items"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn the_fifth_call_at_a_time_is_refused() {
    let faults = Faults { timeouts: 1.0, timeout_hang_ms: 600_000, ..Faults::default() };
    let bench = Bench::new(Options { retry_after_share: 0.0, ..small() }).await;
    bench.control("faults", json!(faults)).await;
    let hanging = async { futures_util::future::join_all((0..4).map(|_| bench.get("channels"))).await.len() };
    let fifth = async {
        while bench.report().await["calls_at_a_time_max"] != 4 {
            tokio::task::yield_now().await;
        }
        bench.get("channels").await
    };
    let fifth = tokio::select! {
        _ = hanging => panic!("they hang"),
        fifth = tokio::time::timeout(PATIENCE, fifth) => fifth.expect("in time"),
    };
    assert_eq!((fifth.status, fifth.headers.get("retry-after"), fifth.text.as_str()), (429, None, ""));
    let scope = json!([{ "client": "connection", "scope": "connection_calls", "count": 1 }]);
    assert_eq!(bench.report().await["refusals"], scope);
}

#[tokio::test]
async fn lists_lag_while_single_reads_and_the_observer_do_not() {
    let faults = Faults { index_lag_ms: 1_500, ..Faults::default() };
    let bench = Bench::new(Options { faults, ..small() }).await;
    let key = text(&bench.control("create", json!({ "resource": "products" })).await["key"]).to_owned();
    let search = json!({ "uuid": [{ "operator": "IN", "value": [key] }] });
    assert_eq!(bench.search("products-uuid", search.clone()).await.len(), 0);
    assert_eq!(bench.get(&format!("products-uuid/{key}")).await.status, 200);
    let query = format!("products-uuid?search={}", super::encoded(&search.to_string()));
    assert_eq!(items(&bench.truth(&query).await).len(), 1);
    let appears = async {
        while bench.search("products-uuid", search.clone()).await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, appears).await.expect("the lag ends");
    let change = bench.last_change().await;
    assert_eq!(change["settled_at_us"].as_i64().expect("a stamp") - change["at_us"].as_i64().expect("a stamp"), 1_500_000);
    assert!(bench.report().await["faults"]["index_lag"]["count"].as_u64() >= Some(1));
}

#[tokio::test]
async fn a_lost_permission_is_404_or_an_empty_list() {
    let bench = Bench::new(small()).await;
    let key = invent::uuid(1, 1);
    bench.control("faults", json!({ "lost_permission": ["products"] })).await;
    assert_eq!(bench.get("products-uuid").await.status, 404);
    assert_eq!(bench.get(&format!("products-uuid/{key}")).await.status, 404);
    assert_eq!(bench.get("product-models").await.status, 200);
    bench.control("faults", json!({ "lost_permission_empty": true })).await;
    assert_eq!(bench.items("products-uuid").await.len(), 0);
    assert!(!items(&bench.truth("products-uuid").await).is_empty());
}

#[tokio::test]
async fn everything_may_fail_and_links_may_lead_astray() {
    let bench = Bench::new(small()).await;
    bench.control("faults", json!({ "failing": true })).await;
    assert_eq!((bench.get("channels").await.status, bench.grant(password()).await.status), (500, 500));
    bench.control("faults", json!({ "failing": false, "next_root": "http://elsewhere.test" })).await;
    let page = bench.ok("products-uuid?limit=2").await;
    assert!(text(&page["_links"]["next"]["href"]).starts_with("http://elsewhere.test/api/rest/v1/products-uuid"));
    assert!(text(&page["_links"]["self"]["href"]).starts_with(&bench.sandbox.url()));
    bench.control("faults", json!({ "next_root": "", "upstream_5xx": 1.0 })).await;
    let failed = bench.get("channels").await;
    assert!(failed.status >= 500 && failed.text.is_empty());
    bench.control("faults", json!({ "upstream_5xx": 0.0, "inject_429": 1.0, "inject_429_retry_after_s": 7 })).await;
    assert_eq!(bench.get("channels").await.headers["retry-after"], "7");
    bench.control("faults", json!({ "inject_429": 0.0, "truncated": 1.0 })).await;
    let url = format!("{}/api/rest/v1/channels", bench.sandbox.url());
    let request = bench.client.get(url).header("authorization", format!("Bearer {}", bench.token));
    let half = request.send().await.expect("a head").bytes().await;
    assert!(half.is_err() || serde_json::from_slice::<serde_json::Value>(&half.expect("half a body")).is_err());
    assert_eq!(bench.report().await["never_happened"], json!([]));
}

#[tokio::test]
async fn writes_are_violations() {
    let bench = Bench::new(small()).await;
    let key = invent::uuid(1, 1);
    assert_eq!(bench.send("DELETE", &format!("/api/rest/v1/products-uuid/{key}"), None).await.status, 405);
    assert_eq!(bench.send("PATCH", "/api/rest/v1/families", Some(json!({}))).await.status, 405);
    let violations = json!([
        { "method": "DELETE", "collection": "products-uuid", "count": 1 },
        { "method": "PATCH", "collection": "families", "count": 1 },
    ]);
    assert_eq!(bench.report().await["violations"], violations);
    assert_eq!(bench.get(&format!("products-uuid/{key}")).await.status, 200);
}

#[tokio::test]
async fn the_churn_repeats_and_leaves_nothing_dangling() {
    let mut logs = Vec::new();
    for _ in 0..2 {
        let bench = Bench::new(small()).await;
        bench.control("churn", json!({ "changes": 400, "per_second": 100_000 })).await;
        bench.control("quiesce", json!({})).await;
        let changes = bench.send("GET", "/__sandbox/changes", None).await.body;
        let lines = changes.as_array().expect("a list").iter();
        logs.push(lines.map(|line| format!("{} {} {}", line["resource"], line["key"], line["operation"])).collect::<Vec<_>>());
        for product in bench.walk("products-uuid?limit=100&pagination_type=search_after").await {
            if let Some(parent) = product["parent"].as_str() {
                assert_eq!(bench.get(&format!("product-models/{parent}")).await.status, 200);
            }
        }
    }
    assert_eq!(logs[0], logs[1]);
    let kinds: std::collections::BTreeSet<&str> = logs[0].iter().filter_map(|line| line.split(' ').next()).collect();
    assert!(kinds.len() >= 12, "{kinds:?}");
}
