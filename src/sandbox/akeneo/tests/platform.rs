//! The Event Platform: managing subscriptions, deliveries, retries and suspension.

use serde_json::{Value, json};

use super::{Bench, Options, PATIENCE, Receiver, Seen, seen, small, text};
use crate::sandbox::akeneo::{invent, signature};

impl Bench {
    async fn manage(&self, method: &str, path: &str, body: Option<Value>) -> Seen {
        let url = format!("{}/event-platform/api/v1/{path}", self.sandbox.url());
        let request = self.client.request(method.parse().expect("a method"), url).header("x-pim-url", self.sandbox.url());
        let request = request.header("x-pim-token", &self.token).header("x-pim-client-id", "1_instep");
        seen(match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_string()),
            None => request,
        })
        .await
    }

    /// A subscriber with one subscription to the types; the path of it.
    async fn subscribe(&self, url: &str, events: &[&str], notifications: Option<&str>) -> String {
        let mut contact = json!({ "technical_email": "ops@example.test" });
        if let Some(url) = notifications {
            contact["notification_channels"] = json!(["webhook"]);
            contact["notification_webhook_url"] = url.into();
            contact["notification_webhook_secret"] = "sixteen-characters".into();
        }
        let subscriber = self.manage("POST", "subscribers", Some(json!({ "name": "replica", "contact": contact }))).await;
        assert_eq!(subscriber.status, 201, "{}", subscriber.text);
        assert!(subscriber.body["contact"].get("notification_webhook_secret").is_none());
        let list = format!("subscribers/{}/subscriptions", text(&subscriber.body["id"]));
        let events: Vec<String> = events.iter().map(|kind| format!("com.akeneo.pim.v1.{kind}")).collect();
        let asked = json!({
            "source": "pim", "subject": self.sandbox.url(), "events": events, "type": "https",
            "config": { "url": url, "secret": { "primary": "unit-primary", "secondary": "unit-secondary" }, "headers": { "X-Tenant": "a" } },
        });
        let subscription = self.manage("POST", &list, Some(asked)).await;
        assert_eq!(subscription.status, 201, "{}", subscription.text);
        format!("{list}/{}", text(&subscription.body["id"]))
    }

    async fn status(&self, subscription: &str) -> String {
        text(&self.manage("GET", subscription, None).await.body["status"]).to_owned()
    }

    async fn rename(&self, resource: &str, key: &str) {
        self.control("update", json!({ "resource": resource, "key": key })).await;
    }

    async fn platform_count(&self, name: &str) -> u64 {
        self.report().await["deliveries"]["event_platform"]["counts"][name].as_u64().unwrap_or(0)
    }

    async fn until_count(&self, name: &str, count: u64) {
        let reached = async {
            while self.platform_count(name).await < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{name} stays below {count}"));
    }
}

#[tokio::test]
async fn an_event_is_a_signed_cloud_event_of_identifiers() {
    let bench = Bench::new(small()).await;
    let mut receiver = Receiver::new(Vec::new()).await;
    let types = ["product.updated", "attribute-option.updated", "asset.deleted", "reference-entity-record.created"];
    let path = bench.subscribe(&receiver.url, &types, None).await;
    let key = invent::uuid(1, 1);
    bench.rename("products", &key).await;
    let (headers, body) = receiver.next().await;
    assert_eq!(headers["x-akeneo-signature-primary"], signature::event_platform("unit-primary", &body).as_str());
    assert_eq!(headers["x-akeneo-signature-secondary"], signature::event_platform("unit-secondary", &body).as_str());
    assert_eq!(
        (&headers["x-akeneo-signature-algorithm"], &headers["x-tenant"]),
        (&"HmacSHA256".parse().expect("a value"), &"a".parse().expect("a value"))
    );
    let event: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((&event["specversion"], &event["type"]), (&json!("1.0"), &json!("com.akeneo.pim.v1.product.updated")));
    assert_eq!(text(&event["subject"]), path.rsplit('/').next().expect("an id"));
    assert_eq!(event["data"], json!({ "product": { "uuid": key }, "author": { "identifier": "julia", "type": "user" } }));
    let own = json!({ "resource": "attribute-options", "key": "color/red", "author": "instep_0001", "author_type": "api" });
    bench.control("update", own).await;
    let event = receiver.next_body().await;
    let author = json!({ "identifier": "1_instep", "type": "api" });
    assert_eq!(
        event["data"],
        json!({ "attribute_option": { "code": "red", "attribute": { "code": "color" } }, "author": author }),
        "own changes are told"
    );
    bench.control("delete", json!({ "resource": "assets", "key": "packshots/packshot_3" })).await;
    assert_eq!(receiver.next_body().await["data"]["asset"], json!({ "code": "packshot_3", "asset_family": { "code": "packshots" } }));
    bench.control("create", json!({ "resource": "reference-entity-records", "key": "designer/me" })).await;
    let record = json!({ "code": "me", "reference_entity": { "code": "designer" } });
    assert_eq!(receiver.next_body().await["data"]["reference_entity_record"], record);
    bench.rename("channels", "print").await;
    bench.control("update", json!({ "resource": "families", "key": "family_1", "fields": { "attributes": ["sku"] } })).await;
    bench.control("quiesce", json!({})).await;
    assert!(receiver.deliveries.try_recv().is_err(), "neither is told");
    assert_eq!(bench.report().await["violations_total"], 0);
}

#[tokio::test]
async fn a_delta_tells_what_changed() {
    let bench = Bench::new(small()).await;
    let mut receiver = Receiver::new(Vec::new()).await;
    bench.subscribe(&receiver.url, &["product.updated", "product.updated.delta"], None).await;
    let key = invent::uuid(1, 1);
    let before = bench.ok(&format!("products-uuid/{key}")).await;
    let name = json!([{ "locale": "en_US", "scope": null, "data": "new" }]);
    let fields = json!({ "values": { "name": name }, "enabled": before["enabled"] != json!(true) });
    bench.control("update", json!({ "resource": "products", "key": key, "fields": fields })).await;
    let (first, second) = (receiver.next_body().await, receiver.next_body().await);
    let is_delta = |event: &Value| text(&event["type"]).ends_with(".delta");
    let (thin, delta) = if is_delta(&first) { (second, first) } else { (first, second) };
    assert_eq!(thin["data"]["product"], json!({ "uuid": key }));
    let changes = &delta["data"]["product"]["changes"];
    assert_eq!(changes["enabled"], json!({ "previous": before["enabled"], "new": fields["enabled"] }));
    let row = &changes["values"]["name"][0];
    assert_eq!((&row["previous"], &row["new"]), (&before["values"]["name"][0]["data"], &json!("new")));
    assert_eq!(changes["values"]["name"].as_array().map(Vec::len), Some(3), "two locales were cleared");
    bench.control("quiesce", json!({})).await;
    assert_eq!(bench.last_change().await["announced"], json!(["event_platform"]));
}

#[tokio::test]
async fn the_management_api_checks_its_headers_and_bodies() {
    let mut bench = Bench::new(small()).await;
    let path = bench.subscribe("http://127.0.0.1:1/", &["product.updated"], None).await;
    let shown = bench.manage("GET", &path, None).await.body;
    assert_eq!((&shown["status"], shown["config"].get("secret")), (&json!("active"), None));
    let list = path.rsplit_once('/').expect("a list").0.to_owned();
    assert_eq!(bench.manage("GET", &list, None).await.body.as_array().map(Vec::len), Some(1));
    assert_eq!(bench.manage("GET", "subscribers", None).await.body.as_array().map(Vec::len), Some(1));
    let changed = bench
        .manage("PATCH", &path, Some(json!({ "events": ["com.akeneo.pim.v1.family.updated"], "send_product_identifier": true })))
        .await;
    assert_eq!((changed.status, &changed.body["events"]), (200, &json!(["com.akeneo.pim.v1.family.updated"])));
    assert_eq!(bench.manage("POST", &list, Some(json!({ "source": "pim" }))).await.status, 422);
    assert_eq!(bench.manage("POST", &format!("{path}/resume"), None).await.status, 409);
    assert_eq!(bench.manage("POST", &format!("{path}/suspend"), None).await.body["status"], "suspended");
    assert_eq!(bench.manage("POST", &format!("{path}/resume"), None).await.body["status"], "active");
    assert_eq!(bench.manage("DELETE", &path, None).await.status, 204);
    assert_eq!(bench.manage("GET", &path, None).await.status, 404);
    bench.token = "wrong".to_owned();
    assert_eq!(bench.manage("GET", "subscribers", None).await.status, 401);
}

#[tokio::test]
async fn failures_are_retried_three_times() {
    let bench = Bench::new(Options { platform_retry_scale: 0.0001, ..small() }).await;
    let mut receiver = Receiver::new(vec![500, 503, 200, 500, 500, 500, 500]).await;
    let path = bench.subscribe(&receiver.url, &["family.updated"], None).await;
    bench.rename("families", "family_1").await;
    let first = receiver.next().await.1;
    assert_eq!(receiver.next().await.1, first);
    assert_eq!(receiver.next().await.1, first);
    bench.control("quiesce", json!({})).await;
    assert_eq!(bench.last_change().await["announced"], json!(["event_platform"]));
    bench.rename("families", "family_2").await;
    for _ in 0..4 {
        receiver.next().await;
    }
    bench.control("quiesce", json!({})).await;
    let change = bench.last_change().await;
    assert_eq!((&change["announced"], change["settled_at_us"].is_i64()), (&json!([]), true));
    assert_eq!((bench.platform_count("retried").await, bench.platform_count("given_up").await), (5, 1));
    assert_eq!(bench.status(&path).await, "active", "too few to judge by");
}

#[tokio::test]
async fn the_first_404_suspends_and_what_happens_meanwhile_is_lost() {
    for status in [404, 302] {
        let bench = Bench::new(small()).await;
        let (mut receiver, mut notified) = (Receiver::new(vec![status]).await, Receiver::new(vec![503]).await);
        let path = bench.subscribe(&receiver.url, &["family.updated"], Some(&notified.url)).await;
        bench.rename("families", "family_1").await;
        receiver.next().await;
        let (headers, body) = notified.next().await;
        assert_eq!(headers["x-akeneo-signature-primary"], signature::event_platform("sixteen-characters", &body).as_str());
        assert_eq!(notified.next().await.1, body, "a second try");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["notification_type"], "subscription.suspended.system");
        assert_eq!(text(&body["subscription_id"]), path.rsplit('/').next().expect("an id"));
        assert_eq!(bench.status(&path).await, "suspended");
        bench.rename("families", "family_2").await;
        assert_eq!(bench.manage("POST", &format!("{path}/resume"), None).await.status, 200);
        assert_eq!(notified.next_body().await["notification_type"], "subscription.resumed");
        bench.rename("families", "family_3").await;
        let event = receiver.next_body().await;
        assert_eq!(event["data"]["family"]["code"], "family_3", "what happened while suspended never comes");
        assert_eq!(bench.report().await["suspensions"], 1);
    }
}

#[tokio::test]
async fn under_nine_of_ten_suspends_and_resuming_too_often_revokes() {
    let options = Options { platform_sample_min: 10, platform_resumes_max: 1, platform_rate_start: 100.0, ..small() };
    let bench = Bench::new(options).await;
    let mut receiver = Receiver::new([vec![200; 9], vec![400; 2]].concat()).await;
    let path = bench.subscribe(&receiver.url, &["family.updated"], None).await;
    for n in 1..=11 {
        bench.rename("families", "family_1").await;
        receiver.next().await;
        bench.until_count(if n <= 9 { "2xx" } else { "4xx" }, if n <= 9 { n } else { n - 9 }).await;
        assert_eq!(bench.status(&path).await, if n < 11 { "active" } else { "suspended" }, "{n}");
    }
    bench.manage("POST", &format!("{path}/resume"), None).await;
    bench.manage("POST", &format!("{path}/suspend"), None).await;
    assert_eq!(bench.manage("POST", &format!("{path}/resume"), None).await.body["status"], "revoked");
    assert_eq!(bench.manage("POST", &format!("{path}/resume"), None).await.status, 409);
}

#[tokio::test]
async fn a_receiver_that_asks_for_less_gets_it_later() {
    let bench = Bench::new(Options { platform_rate_start: 50.0, ..small() }).await;
    let mut receiver = Receiver::new(vec![429, 429]).await;
    let path = bench.subscribe(&receiver.url, &["family.updated"], None).await;
    bench.rename("families", "family_1").await;
    let first = receiver.next().await.1;
    assert_eq!(receiver.next().await.1, first);
    assert_eq!(receiver.next().await.1, first);
    bench.control("quiesce", json!({})).await;
    let report = bench.report().await["deliveries"]["event_platform"].clone();
    assert_eq!((&report["counts"]["429"], &report["subscriptions"][0]["rate"]), (&json!(2), &json!(13.5)));
    assert_eq!(bench.status(&path).await, "active");
    let hour = Bench::new(Options { platform_hour_ms: 1, platform_rate_start: 50.0, ..small() }).await;
    let mut receiver = Receiver::new(vec![429; 100]).await;
    hour.subscribe(&receiver.url, &["family.updated"], None).await;
    hour.rename("families", "family_1").await;
    receiver.next().await;
    hour.until_count("given_up_throttled", 1).await;
}

#[tokio::test]
async fn who_does_not_answer_in_time_is_asked_again() {
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let bench = Bench::new(Options { platform_timeout_ms: 20, platform_retry_scale: 0.00001, ..small() }).await;
    bench.subscribe(&format!("http://{}/", deaf.local_addr().expect("an address")), &["family.updated"], None).await;
    bench.rename("families", "family_1").await;
    bench.control("quiesce", json!({})).await;
    assert_eq!((bench.platform_count("unanswered").await, bench.platform_count("given_up").await), (4, 1));
    assert_eq!(bench.last_change().await["announced"], json!([]));
}

#[tokio::test]
async fn a_new_subscription_takes_its_time() {
    let bench = Bench::new(Options { platform_activation_ms: 600_000, ..small() }).await;
    let mut receiver = Receiver::new(Vec::new()).await;
    bench.subscribe(&receiver.url, &["family.updated"], None).await;
    bench.rename("families", "family_1").await;
    bench.control("quiesce", json!({})).await;
    assert!(receiver.deliveries.try_recv().is_err());
    assert_eq!(bench.platform_count("queued").await, 0);
}

#[tokio::test]
async fn the_address_of_the_events_api_gets_nothing() {
    let mut receiver = Receiver::new(Vec::new()).await;
    let bench = Bench::new(Options { events_url: receiver.url.clone(), ..small() }).await;
    bench.subscribe(&receiver.url, &["product.updated"], None).await;
    bench.rename("products", &invent::uuid(1, 1)).await;
    assert!(receiver.next_body().await.get("events").is_some());
    bench.control("quiesce", json!({})).await;
    assert!(receiver.deliveries.try_recv().is_err());
    assert_eq!(bench.last_change().await["announced"], json!(["events_api"]));
    let other = Receiver::new(Vec::new()).await;
    bench.control("subscription", json!({ "event_platform": { "url": other.url } })).await;
    bench.rename("products", &invent::uuid(1, 1)).await;
    bench.control("quiesce", json!({})).await;
    assert_eq!(bench.last_change().await["announced"], json!(["events_api", "event_platform"]));
    let coverage = bench.report().await["coverage"][0].clone();
    assert_eq!(coverage["changes"], json!({ "all": 2, "events_api": 2, "event_platform": 1, "both": 1, "none": 0 }));
    assert_eq!(coverage["keys"], json!({ "all": 1, "events_api": 1, "event_platform": 1, "both": 1, "none": 0 }));
}
