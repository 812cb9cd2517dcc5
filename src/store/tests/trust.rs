//! What is held of many, rows that are not trusted any more, and who told of a change.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::model::Operation;
use crate::reconcile::Terms;
use crate::reconcile::delay::{Tally, WINDOW, terms};
use crate::store::testing::{batch, break_schema, entity, hint, on_both, read, source, tasks, texts};
use crate::store::{Batch, LearnedBy};

const ROW: &str =
    "select (case when cast(payload as text) like '%forged%' then 'forged ' else 'right ' end) || version as v from instep_entity";

#[tokio::test]
async fn a_row_that_is_not_trusted_takes_what_the_next_read_shows() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        store.apply(&fence, &batch(vec![read(&fence, "1", 5, "a")])).await.expect("applied");
        // The upstream stands at an older version with the same content: the rule alone leaves the row as it is.
        store.apply(&fence, &batch(vec![read(&fence, "1", 1, "a")])).await.expect("applied");
        let ahead = texts(&store, ROW).await;
        assert!(ahead[0].contains("22:13:25"), "{ahead:?}");
        break_schema(&store, r#"update instep_entity set payload = '{"title":"forged"}'"#).await;
        store.distrust(&fence, &tasks(), &[entity("1").key, entity("9").key]).await.expect("marked");
        let due = store.due_marks(&source(), &tasks(), store.now(), 10).await.expect("marks");
        assert_eq!(due.len(), 2, "what is not there is looked for too");
        let held = store.replicas(&source(), &tasks(), &[entity("1").key, entity("9").key]).await.expect("held");
        assert!(held[&entity("1").key].mark.is_some() && held[&entity("9").key].row.is_none());
        store.apply(&fence, &batch(vec![read(&fence, "1", 1, "a")])).await.expect("applied");
        let right = texts(&store, ROW).await;
        assert!(right[0].starts_with("right") && right[0].contains("22:13:21"), "{right:?}");
        let changes = texts(&store, "select operation as v from instep_change order by number").await;
        assert_eq!(changes, ["insert", "update"], "who read the forged row is told");
        assert_eq!(store.due_marks(&source(), &tasks(), store.now(), 10).await.expect("marks").len(), 1, "the read answered it");
    })
    .await;
}

#[tokio::test]
async fn keys_are_named_in_order_or_at_random() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        let reads = (0..250).map(|n| read(&fence, &format!("{n:03}"), 1, "a")).collect();
        store.apply(&fence, &batch(reads)).await.expect("applied");
        let first = store.live_keys(&source(), &tasks(), None, 200).await.expect("keys");
        let rest = store.live_keys(&source(), &tasks(), first.last(), 200).await.expect("keys");
        assert_eq!((first.len(), rest.len(), rest[0].as_str()), (200, 50, "200"));
        let (one, other) = (store.random_keys(&source(), &tasks(), 50).await, store.random_keys(&source(), &tasks(), 50).await);
        assert_ne!(one.expect("keys"), other.expect("keys"));
        let keys: Vec<_> = first.into_iter().chain(rest).collect();
        assert_eq!(store.replicas(&source(), &tasks(), &keys).await.expect("held").len(), 250, "more than one statement holds");
    })
    .await;
}

#[tokio::test]
async fn who_told_of_a_change_is_found_behind_more_events_than_a_page_holds() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        store.apply(&fence, &Batch { learned_by: LearnedBy::Hook, ..batch(vec![hint("1", Operation::Update)]) }).await.expect("marked");
        for _ in 0..30 {
            let hints = (100..300).map(|n| hint(&n.to_string(), Operation::Update)).collect();
            store.apply(&fence, &Batch { learned_by: LearnedBy::Hook, ..batch(hints) }).await.expect("marked");
        }
        store.apply(&fence, &batch(vec![read(&fence, "1", 1, "a"), read(&fence, "2", 1, "b")])).await.expect("applied");
        let page = Batch { learned_by: LearnedBy::Pass, ..batch(vec![read(&fence, "3", 1, "c")]) };
        store.apply(&fence, &page).await.expect("applied");
        let mut found = Vec::new();
        let until = store.now().plus(Duration::from_secs(1));
        store.walk_told(&source(), (Timestamp(0), until), &terms(WINDOW, 0), |_, told| found.push(told)).await.expect("walked");
        found.sort_by_key(|told| told.change.at);
        let mut ways: Vec<String> = found.iter().flat_map(|told| told.ways.keys().cloned()).collect();
        ways.sort();
        assert_eq!(ways, ["hook", "pass", "read"]);
        let mut tally = Tally::default();
        found.iter().for_each(|told| tally.count("tasks", told, 0));
        assert_eq!((tally.end(None).changes, found.len()), (3, 3));
    })
    .await;
}

#[tokio::test]
async fn who_told_of_a_record_that_is_spoken_of_without_end_is_found_too() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        // More statements, one a millisecond, than are read at once, and a change at either end of them.
        let n = 21_000;
        store.apply(&fence, &batch(vec![read(&fence, "1", 1, "a")])).await.expect("applied");
        let first: i64 = texts(&store, "select at as v from instep_change").await[0].parse().expect("a number");
        let rows = format!(
            "with recursive n(n) as (select 1 union all select n + 1 from n where n < {n}) insert into instep_outcome \
             (source, via, resource, key, operation, received_at, outcome) \
             select 'pmp', 'hook', 'tasks', '1', 'update', {first} + n * 1000, 'marked' from n"
        );
        break_schema(&store, &rows).await;
        let later = format!(
            "insert into instep_change (source, number, epoch, resource, key, operation, at, learned_by, changed, unannounced) \
             select source, number + 1, epoch, resource, key, 'update', at + {n} * 1000, 'pass', changed, unannounced from instep_change"
        );
        break_schema(&store, &later).await;
        let (mut found, until) = (Vec::new(), Timestamp(first).plus(Duration::from_secs(60)));
        let terms = Terms { unstamped: Duration::from_micros(1), ..terms(Duration::from_secs(1), 0) };
        store.walk_told(&source(), (Timestamp(0), until), &terms, |_, told| found.push(told)).await.expect("walked");
        let hooked: Vec<_> = found.iter().map(|told| told.hooked_at().expect("told").since(Timestamp(first)).as_millis()).collect();
        assert_eq!(hooked, [1, u128::try_from(n).expect("fits")]);
    })
    .await;
}
