//! Which way of events told what, out of the log of events.

use crate::clock::Timestamp;
use crate::model::Operation;
use crate::store::testing::{batch, delivery, hint, on_both, read, source, texts};
use crate::store::{Batch, DeliveryEnd, LearnedBy, Observed, Store, What};

async fn tell(store: &Store, via: &'static str, dedupe: &str, key: &str, operation: Operation) {
    let fence = store.claim(&source(), "test").await.expect("claimed");
    let told = delivery(dedupe);
    store.journal(std::slice::from_ref(&told)).await.expect("stored");
    let mut seen: Observed = hint(key, operation);
    if let What::Event(event) = &mut seen.what {
        event.via = via;
    }
    seen.delivery = Some(told.id);
    let page = Batch { deliveries: vec![(told.id, DeliveryEnd::Done)], learned_by: LearnedBy::Hook, ..batch(vec![seen]) };
    store.apply(&fence, &page).await.expect("applied");
}

#[tokio::test]
async fn the_log_of_events_says_which_way_and_why() {
    on_both(|store| async move {
        tell(&store, "events_api", "a", "1", Operation::Update).await;
        tell(&store, "event_platform", "b", "1", Operation::Delete).await;
        let events = "select via || ' ' || operation || ' ' || outcome || ': ' || reason as v from instep_events order by received_at";
        let expected = ["events_api update marked: a read tells the state", "event_platform delete marked: a read confirms a delete"];
        assert_eq!(texts(&store, events).await, expected);
    })
    .await;
}

#[tokio::test]
async fn coverage_counts_what_each_way_both_and_only_passes_told() {
    on_both(|store| async move {
        tell(&store, "events_api", "a", "1", Operation::Update).await;
        tell(&store, "event_platform", "b", "1", Operation::Update).await;
        // The platform did not hear our answer and sends again; the original is done by then.
        tell(&store, "event_platform", "b", "1", Operation::Update).await;
        tell(&store, "event_platform", "c", "2", Operation::Delete).await;
        let fence = store.claim(&source(), "test").await.expect("claimed");
        let page = Batch { learned_by: LearnedBy::Pass, ..batch(vec![read(&fence, "1", 1, "a"), read(&fence, "3", 1, "a")]) };
        store.apply(&fence, &page).await.expect("applied");
        let coverage = store.coverage(&source(), Timestamp(0)).await.expect("counted");
        assert_eq!(coverage.ways, ["event_platform", "events_api"]);
        let rows = coverage.rows.iter().map(|row| {
            let told = |way: &str| row.told.get(way).copied().unwrap_or(0);
            (row.operation.as_str(), told("events_api"), told("event_platform"), row.both, row.pass)
        });
        assert_eq!(rows.collect::<Vec<_>>(), [("create", 0, 0, 0, 1), ("delete", 0, 1, 0, 0), ("update", 1, 1, 1, 0)]);
        let lead = coverage.rows[2].lead.clone().expect("both told");
        assert!(lead.earlier == "events_api" && lead.seconds < 60.0, "{lead:?}");
        let later = store.now().plus(std::time::Duration::from_secs(1));
        assert!(store.coverage(&source(), later).await.expect("counted").rows.is_empty());
    })
    .await;
}

#[tokio::test]
async fn coverage_goes_through_more_rows_than_a_page_holds() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        // Many of one instant: pages are told apart by more than it.
        for _ in 0..60 {
            let hints = (0..200).map(|n| hint(&n.to_string(), Operation::Update)).collect();
            store.apply(&fence, &Batch { learned_by: LearnedBy::Hook, ..batch(hints) }).await.expect("marked");
        }
        crate::store::testing::break_schema(&store, "update instep_outcome set received_at = 1000").await;
        let coverage = store.coverage(&source(), Timestamp(0)).await.expect("counted");
        assert_eq!(coverage.rows[0].told["hook"], 12_000);
    })
    .await;
}
