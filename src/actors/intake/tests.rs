use super::*;
use crate::actors::testing::{PATIENCE, source};
use crate::connectors::akeneo::{EVENTS, NOTIFICATIONS};
use crate::model::HookRequest;
use crate::store::Store;
use crate::store::testing::{delivery, on_both, source as name, texts};

struct Running {
    intake: Intake,
    fence: Fence,
    store: Store,
}

impl Running {
    async fn start(store: &Store) -> Self {
        let url = "http://127.0.0.1:1/".parse().expect("a URL");
        let source = Arc::new(source(store, &url, 1_000, PATIENCE));
        let fence = store.claim(&name(), "test").await.expect("claimed");
        Self { intake: Intake { source, witness: None }, fence, store: store.clone() }
    }

    async fn take(&self, route: &str, body: &str) {
        let request = HookRequest { route: route.to_owned(), body: body.to_owned().into(), headers: Vec::new(), query: String::new() };
        let delivery = Delivery { request, ..delivery(body) };
        self.store.journal(std::slice::from_ref(&delivery)).await.expect("committed");
        self.intake.work_in(&self.fence, vec![delivery]).await.expect("worked in");
    }

    async fn notice(&self, word: &str, stamp: &str) {
        let body = format!(r#"{{"notification_type":"subscription.{word}","timestamp":"{stamp}","subscription_id":"s"}}"#);
        self.take(NOTIFICATIONS, &body).await;
    }

    /// The open gap: from when, and until when.
    async fn gap(&self) -> (String, Option<String>) {
        let gaps = self.store.open_gaps(&name()).await.expect("read");
        assert!(gaps.len() == 1 && gaps[0].cause == "suspended", "{gaps:?}");
        (Timestamp(gaps[0].began_at).to_string(), gaps[0].ended_at.map(|at| Timestamp(at).to_string()))
    }
}

#[tokio::test]
async fn a_suspension_is_a_gap_until_deliveries_come_again_in_whatever_order_that_is_told() {
    on_both(|store| async move {
        let running = Running::start(&store).await;
        let at = |minute: u8| format!("2026-01-01T10:{minute:02}:00.000000Z");
        running.notice("suspended.system", &at(10)).await;
        assert_eq!(running.gap().await, (at(10), None));
        running.notice("suspended.system", &at(10)).await;
        assert_eq!(running.gap().await, (at(10), None), "said twice");
        running.notice("resumed", &at(30)).await;
        assert_eq!(running.gap().await, (at(10), Some(at(30))));
        running.notice("suspended.user", &at(5)).await;
        assert_eq!(running.gap().await, (at(5), Some(at(30))), "told late: it is over");
        running.notice("revoked", &at(40)).await;
        assert_eq!(running.gap().await, (at(5), None), "a further one");
        running.notice("resumed", &at(50)).await;
        assert_eq!(running.gap().await, (at(5), Some(at(50))));
    })
    .await;
}

#[tokio::test]
async fn what_can_be_read_of_a_delivery_is_worked_in_and_the_rest_is_kept_with_the_reason() {
    on_both(|store| async move {
        let running = Running::start(&store).await;
        let event = |author: &str, resource: &str| {
            format!(r#"{{"action":"product.updated","author":"{author}","data":{{"resource":{resource}}}}}"#)
        };
        let events = [event("julia", r#"{"uuid":"u-1"}"#), event("julia", "{}"), event("shop", r#"{"uuid":"u-2"}"#)];
        running.take(EVENTS, &format!(r#"{{"events":[{}]}}"#, events.join(","))).await;
        running.take(EVENTS, "").await;
        assert_eq!(texts(&store, "select key as v from instep_mark").await, ["u-1"], "neither the unreadable nor our own");
        assert_eq!(texts(&store, "select state as v from instep_delivery order by id").await, ["quarantined", "done"]);
        let reasons = texts(&store, "select reason as v from instep_quarantine").await;
        assert!(reasons.len() == 1 && reasons[0].starts_with("the event names a product without its uuid"), "{reasons:?}");
    })
    .await;
}

/// On SQLite the journal waits behind every transaction, and with it whoever delivers.
#[tokio::test]
async fn a_delivery_of_very_many_events_is_worked_in_by_short_transactions() {
    on_both(|store| async move {
        let running = Running::start(&store).await;
        let event = |n: usize| format!(r#"{{"action":"product.updated","author":"julia","data":{{"resource":{{"uuid":"u-{n}"}}}}}}"#);
        let events: Vec<String> = (0..450).map(event).collect();
        running.take(EVENTS, &format!(r#"{{"events":[{}]}}"#, events.join(","))).await;
        assert_eq!(texts(&store, "select state as v from instep_delivery").await, ["done"]);
        // What is marked in one transaction has one tick.
        let sizes = "select cast(count(*) as text) as v from instep_mark group by tick_epoch, tick_counter order by count(*)";
        assert_eq!(texts(&store, sizes).await, ["50", "200", "200"]);
    })
    .await;
}
