//! A number is one event, whichever way tells of it; where logs stand.

use crate::model::{Operation, Sequence};
use crate::reconcile::{LogPosition, LogWalk, floor};
use crate::store::testing::{batch, break_schema, hint, on_both, source, texts};
use crate::store::{
    Applied, Batch, FEED_BEGAN_LATE, Fence, Kind, LOG_RESTARTED, LearnedBy, LogLoss, LogStep, NewPass, Observed, PassEnd, PassKind,
    RetentionOptions, SEQUENCE_CONFLICT, Store, What,
};

fn told(key: &str, label: &str, number: i64) -> Observed {
    let mut observed = hint(key, Operation::Update);
    if let What::Event(event) = &mut observed.what {
        event.sequence = Some(Sequence { label: label.to_owned(), number });
    }
    observed
}

async fn tell(store: &Store, fence: &Fence, learned_by: LearnedBy, seen: Vec<Observed>) -> Applied {
    store.apply(fence, &Batch { learned_by, ..batch(seen) }).await.expect("applied")
}

async fn marked(store: &Store) -> Vec<String> {
    let keys = texts(store, "select key as v from instep_mark order by key").await;
    break_schema(store, "delete from instep_mark").await;
    keys
}

async fn causes(store: &Store) -> Vec<String> {
    store.open_gaps(&source()).await.expect("read").into_iter().map(|gap| gap.cause).collect()
}

fn step(from: Option<LogPosition>, to: LogPosition) -> LogStep {
    LogStep {
        feed: "log".to_owned(),
        label: "a".to_owned(),
        from,
        to,
        floor: floor(to.high, 10),
        is_complete: to.walk.is_none(),
        lost: None,
        unreadable: Vec::new(),
    }
}

async fn move_log(store: &Store, fence: &Fence, step: LogStep) -> Result<Applied, Kind> {
    store.apply(fence, &Batch { log: Some(step), ..batch(Vec::new()) }).await.map_err(|error| error.kind())
}

#[tokio::test]
async fn an_event_whose_number_is_known_marks_nothing_whichever_way_it_comes_again() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        let first = tell(&store, &fence, LearnedBy::Hook, vec![told("1", "a", 7), told("1", "a", 7), told("2", "a", 8)]).await;
        assert_eq!(first.duplicates.values().sum::<u64>(), 1, "twice in one delivery");
        assert_eq!(marked(&store).await, ["1", "2"]);
        for way in [LearnedBy::Feed, LearnedBy::Hook] {
            let again = tell(&store, &fence, way, vec![told("1", "a", 7), told("1", "a", 9), told("2", "b", 8)]).await;
            let is_feed = way == LearnedBy::Feed;
            assert_eq!(again.duplicates.values().sum::<u64>(), if is_feed { 1 } else { 3 });
            let expected: &[&str] = if is_feed { &["1", "2"] } else { &[] };
            assert_eq!(marked(&store).await, expected, "another number, and another label's");
        }
        let unnumbered = tell(&store, &fence, LearnedBy::Hook, vec![hint("1", Operation::Update)]).await;
        assert!(unnumbered.duplicates.is_empty() && marked(&store).await == ["1"]);
        assert!(texts(&store, "select outcome as v from instep_outcome").await.contains(&"duplicate".to_owned()));
        assert!(causes(&store).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_number_of_two_records_keeps_the_first_and_opens_a_gap_that_only_a_sweep_repairs() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        tell(&store, &fence, LearnedBy::Hook, vec![told("1", "a", 7)]).await;
        marked(&store).await;
        let other = tell(&store, &fence, LearnedBy::Feed, vec![told("2", "a", 7)]).await;
        assert_eq!(other.conflicts.len(), 1);
        assert_eq!(marked(&store).await, ["2"], "a look harms nobody");
        let noted = store.noted_numbers(&source(), "a", &[7]).await.expect("read");
        assert_eq!(noted[&7], ("tasks".to_owned(), "1".to_owned()), "the first stands");
        assert_eq!(causes(&store).await, [SEQUENCE_CONFLICT]);
        for (kind, left) in [(PassKind::Incremental, 1), (PassKind::Sweep, 0)] {
            let resource = crate::store::testing::tasks();
            let pass = store.start_pass(&fence, &NewPass { resource: resource.clone(), kind, lower_bound: None }).await.expect("started");
            store.finish_pass(&fence, &pass, &PassEnd::Completed { watermark: None }).await.expect("finished");
            store.close_gaps(&fence, &[(resource, PassKind::Incremental)]).await.expect("closed");
            assert_eq!(causes(&store).await.len(), left, "{kind:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_log_moves_only_from_where_it_stands() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        assert_eq!(store.log_position(&source(), "log").await.expect("read"), None);
        let at = LogPosition::at(Some(5));
        move_log(&store, &fence, step(None, at)).await.expect("moved");
        assert_eq!(move_log(&store, &fence, step(None, at)).await, Err(Kind::Moved), "it stands somewhere");
        let walking = LogPosition { walk: Some(LogWalk { after: 9, ceiling: 20 }), ..at };
        move_log(&store, &fence, step(Some(at), walking)).await.expect("moved");
        assert_eq!(store.log_position(&source(), "log").await.expect("read"), Some(walking));
        assert_eq!(move_log(&store, &fence, step(Some(at), walking)).await, Err(Kind::Moved));
        // What tells of numbers far above moves nothing.
        tell(&store, &fence, LearnedBy::Hook, vec![told("1", "a", 5_000)]).await;
        assert_eq!(store.log_position(&source(), "log").await.expect("read"), Some(walking));
    })
    .await;
}

#[tokio::test]
async fn a_log_that_begins_anew_forgets_its_numbers_and_opens_a_gap() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        let (at, anew) = (LogPosition::at(Some(50)), LogPosition::at(Some(3)));
        move_log(&store, &fence, step(None, at)).await.expect("moved");
        tell(&store, &fence, LearnedBy::Hook, vec![told("1", "a", 3), told("1", "b", 3)]).await;
        marked(&store).await;
        move_log(&store, &fence, LogStep { lost: Some(LogLoss::Restarted), ..step(Some(at), anew) }).await.expect("moved");
        assert_eq!(causes(&store).await, [LOG_RESTARTED]);
        assert!(store.noted_numbers(&source(), "a", &[3]).await.expect("read").is_empty());
        let again = tell(&store, &fence, LearnedBy::Feed, vec![told("2", "a", 3), told("1", "b", 3)]).await;
        assert!(again.conflicts.is_empty(), "it is another log");
        assert_eq!(marked(&store).await, ["2"], "the other log goes on");
        assert_eq!(store.noted_numbers(&source(), "a", &[3]).await.expect("read")[&3].1, "2");
        let late = LogStep { lost: Some(LogLoss::BeganLate(store.now())), feed: "late".to_owned(), ..step(None, at) };
        move_log(&store, &fence, late).await.expect("moved");
        assert_eq!(causes(&store).await, [LOG_RESTARTED, FEED_BEGAN_LATE]);
    })
    .await;
}

#[tokio::test]
async fn old_numbers_go_but_for_those_that_the_next_poll_asks_for_again() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        move_log(&store, &fence, step(None, LogPosition::at(Some(20)))).await.expect("moved");
        tell(&store, &fence, LearnedBy::Feed, vec![told("1", "a", 9), told("1", "a", 10), told("1", "b", 10)]).await;
        break_schema(&store, "update instep_sequence set at = 1").await;
        store.purge(&RetentionOptions::default(), store.now()).await.expect("purged");
        assert_eq!(texts(&store, "select label || number as v from instep_sequence order by 1").await, ["a10"]);
        tell(&store, &fence, LearnedBy::Feed, vec![told("1", "a", 1), told("1", "a", 2)]).await;
        let capped = RetentionOptions { sequences_max: 1, ..RetentionOptions::default() };
        store.purge(&capped, store.now()).await.expect("purged");
        assert_eq!(texts(&store, "select count(*) as v from instep_sequence").await, ["2"], "the youngest below, and the one above");
    })
    .await;
}
