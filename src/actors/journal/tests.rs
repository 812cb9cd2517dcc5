use super::*;
use crate::store::testing::{break_schema, delivery, on_both, source, texts};

/// A writer, and a delivery that waits for its answer.
fn writer(store: &Store) -> Writer {
    let clock = Clock::system();
    let options = Options {
        store: store.clone(),
        journal: Journal::new(StoreHealth::default()),
        answers: Answers::new(clock),
        reporter: Reporter::new(),
        clock,
        disk_floor: 0,
    };
    Writer { options, beat_at: Duration::ZERO }
}

#[tokio::test]
async fn a_delivery_is_acknowledged_when_it_is_stored() {
    on_both(|store| async move {
        let mut writer = writer(&store);
        let (reply, stored) = oneshot::channel();
        let commit = writer.commit(vec![Entry { delivery: delivery("d"), reply }]);
        // Both run in one task, so that what the answer finds in the store is what was committed before it.
        let look = async { (stored.await, store.backlog(&source()).await.expect("read").deliveries) };
        let ((), (stored, rows)) = futures_util::future::join(commit, look).await;
        assert_eq!((stored, rows), (Ok(true), 1));
    })
    .await;
}

#[tokio::test]
async fn what_the_store_refuses_is_never_acknowledged() {
    on_both(|store| async move {
        let kind = store.kind();
        let mut writer = writer(&store);
        break_schema(&store, "alter table instep_delivery rename to instep_delivery_elsewhere").await;
        let (reply, stored) = oneshot::channel();
        writer.commit(vec![Entry { delivery: delivery("d"), reply }]).await;
        assert_eq!(stored.await, Ok(false), "{kind:?}");
        assert!(texts(&store, "select dedupe as v from instep_delivery_elsewhere").await.is_empty());
    })
    .await;
}
