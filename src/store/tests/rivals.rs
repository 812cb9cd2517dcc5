//! What several writers do to each other: a former owner, two processes at one database, a clock behind the others'.

use std::time::Duration;

use bytes::Bytes;
use sea_orm::{ConnectionTrait as _, Database, Statement};

use crate::connectors::Unreadable;
use crate::model::{DeliveryId, Operation};
use crate::store::testing::{batch, delivery, entity, gone, hint, on_both, options, read, server, source, started, tasks, texts};
use crate::store::{
    Batch, DeliveryEnd, Error, FeedCursor, FeedStep, Fence, Journaled, Kind, LearnedBy, MarkReason, NewPass, Observed, Pass, PassEnd,
    PassKind, PassPosition, PassStep, Quarantined, Store, What,
};

/// Everything that can be written for a source, tried by one owner.
async fn write_all(store: &Store, fence: &Fence, pass: &Pass, id: DeliveryId) -> Vec<(&'static str, Result<(), Error>)> {
    let keys = [entity("1").key];
    let (soon, nowhere) = (store.now(), PassPosition::default());
    let step = PassStep { id: pass.id, from: nowhere.clone(), to: nowhere, date: None, high_stamp: None, records: 0 };
    let feed = FeedStep { feed: "f".to_owned(), from: None, to: FeedCursor { since: None, cursor: None }, seen: Vec::new() };
    let new = NewPass { resource: tasks(), kind: PassKind::Sweep, lower_bound: None };
    let (kind, reason) = ("delivery".to_owned(), "put aside".to_owned());
    let aside = &Quarantined { id: 1, kind, resource: None, key: None, reason, delivery: Some(id.0.to_string()), at: soon };
    let apply = async |batch: Batch| store.apply(fence, &batch).await.map(drop);
    vec![
        ("a read", apply(batch(vec![read(fence, "1", 9, "late")])).await),
        ("a removal", apply(batch(vec![gone(started(fence).tick, "1")])).await),
        ("a hint", apply(Batch { learned_by: LearnedBy::Hook, ..batch(vec![hint("2", Operation::Update)]) }).await),
        ("a delivery's end", apply(Batch { deliveries: vec![(id, DeliveryEnd::Done)], ..batch(Vec::new()) }).await),
        ("a page", apply(Batch { pass: Some(step), ..batch(Vec::new()) }).await),
        ("a feed's page", apply(Batch { feed: Some(feed), ..batch(Vec::new()) }).await),
        ("an attempt", store.attempt(fence, id).await.map(drop)),
        ("a replay", store.replay(fence, id).await.map(drop)),
        ("marks", store.mark_entities(fence, &[entity("3")], MarkReason::Suspect).await),
        ("deferred marks", store.defer_marks(fence, &tasks(), &keys, soon, "late").await),
        ("removals over the budget", store.hold_over_budget(fence, &tasks(), &keys, soon).await),
        ("a pass that is asked for", store.ask_passes(fence, &[tasks()], PassKind::Sweep).await.map(drop)),
        ("a gap of an operator", store.open_gap(fence, soon, soon, true).await),
        ("a record to be read again", store.replay_record(fence, 1, &entity("3")).await.map(drop)),
        ("a discarded delivery", store.discard(fence, aside).await.map(drop)),
        ("an approval", store.approve_removals(fence, &tasks(), 1_000).await.map(drop)),
        ("what a person keeps", store.reject_removals(fence, &tasks()).await.map(drop)),
        ("distrust", store.distrust(fence, &tasks(), &keys).await),
        ("held marks", store.hold_marks(fence, &tasks(), &keys, soon, "late").await),
        ("suspects", store.mark_suspects(fence, pass).await.map(drop)),
        ("a pass", store.start_pass(fence, &new).await.map(drop)),
        ("a pass sent back", store.restart_pass(fence, pass.id).await.map(drop)),
        ("a pass's end", store.finish_pass(fence, pass, &PassEnd::Completed { watermark: Some(soon) }).await),
        ("what a resource cannot", store.set_bulk_unsupported(fence, &tasks()).await),
        ("a closed gap", store.close_gaps(fence, &[(tasks(), PassKind::Sweep)]).await.map(drop)),
        ("a registration", store.put_registration(fence, "r", "9", Some("late"), "active").await),
        ("an invitation", store.put_invitation(fence, "9", "r", "late").await.map(drop)),
        ("an invitation's end", store.revoke_invitation(fence, "1").await.map(drop)),
        ("a registration's end", store.drop_registration(fence, "1").await),
    ]
}

/// Everything that a former owner could have changed.
async fn state(store: &Store) -> Vec<String> {
    let mut found = Vec::new();
    for sql in [
        "select key as v from instep_entity where deleted_at is null order by key",
        "select key as v from instep_mark order by key",
        "select held as v from instep_mark order by key",
        "select number as v from instep_change order by number",
        "select state as v from instep_pass order by id",
        "select restarted as v from instep_pass order by id",
        "select feed as v from instep_cursor order by feed",
        "select state as v from instep_gap order by id",
        "select upstream_id as v from instep_registration order by upstream_id",
        "select state as v from instep_registration order by upstream_id",
        "select state as v from instep_delivery order by id",
        "select attempts as v from instep_delivery order by id",
        "select bulk_unsupported as v from instep_progress order by resource",
    ] {
        found.push(format!("{sql}: {:?}", texts(store, sql).await));
    }
    found
}

#[tokio::test]
async fn a_former_owner_can_write_nothing() {
    on_both(|store| async move {
        let former = store.claim(&source(), "former").await.expect("claimed");
        let one = delivery("d");
        store.journal(std::slice::from_ref(&one)).await.expect("stored");
        store.apply(&former, &batch(vec![read(&former, "1", 1, "a")])).await.expect("applied");
        store.put_registration(&former, "r", "1", Some("s"), "active").await.expect("stored");
        over_budget(&store, &former, &["4".to_owned()]).await;
        // Before its pass, so that only the fence stands between the gap and its end.
        let ago = store.now().minus(Duration::from_secs(60));
        store.extend_gap(&source(), "down", ago, Some(ago)).await.expect("opened");
        let new = NewPass { resource: tasks(), kind: PassKind::Sweep, lower_bound: None };
        let done = store.start_pass(&former, &new).await.expect("started");
        store.finish_pass(&former, &done, &PassEnd::Completed { watermark: None }).await.expect("finished");
        let pass = store.start_pass(&former, &new).await.expect("started");

        let fence = store.claim(&source(), "owner").await.expect("claimed");
        let before = state(&store).await;
        for (what, written) in write_all(&store, &former, &pass, one.id).await {
            assert_eq!(written.map_err(|error| error.kind()), Err(Kind::Fenced), "{what}");
        }
        assert_eq!(state(&store).await, before);
        // What is refused is the owner, not the request.
        let refused = write_all(&store, &fence, &pass, one.id).await.into_iter().filter(|(_, written)| written.is_err());
        assert_eq!(refused.map(|(what, _)| what).collect::<Vec<_>>(), Vec::<&str>::new());
        assert_ne!(state(&store).await, before);
    })
    .await;
}

/// A row becomes visible when its transaction ends, whatever its id: nothing may be looked for beyond "the highest seen so far".
#[tokio::test]
async fn a_delivery_with_an_older_id_than_one_that_is_done_is_still_taken() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        let (older, newer) = (delivery("older"), delivery("newer"));
        assert!(older.id.0 < newer.id.0);
        store.journal(std::slice::from_ref(&newer)).await.expect("stored");
        let ends = vec![(newer.id, DeliveryEnd::Done)];
        store.apply(&fence, &Batch { deliveries: ends, ..batch(Vec::new()) }).await.expect("ended");
        store.journal(std::slice::from_ref(&older)).await.expect("stored");
        let pending = store.pending(&source(), 10, 1 << 20).await.expect("pending");
        assert_eq!(pending.iter().map(|pending| pending.delivery.id).collect::<Vec<_>>(), [older.id]);
    })
    .await;
}

/// Two processes accept the same repetitions in opposite order. Rows are written in key order, so neither waits for the other in a
/// circle; unsorted, two in five such pairs end in a deadlock.
#[tokio::test]
async fn two_processes_that_journal_the_same_in_opposite_order_both_succeed() {
    let Ok(admin) = Database::connect(format!("{}/postgres", server())).await else {
        assert!(std::env::var("CI").is_err(), "no PostgreSQL at {}", server());
        eprintln!("skipped: no server at {}", server());
        return;
    };
    let name = format!("instep_test_{}", uuid::Uuid::now_v7().simple());
    admin.execute_unprepared(&format!("create database {name}")).await.expect("a database for the test");
    let url = format!("{}/{name}", server());
    let one = Store::open(options(url.clone())).await.expect("opens");
    one.migrate().await.expect("migrates");
    let other = Store::open(options(url)).await.expect("opens");
    let mut stored = 0;
    for round in 0..30 {
        let twins = || (0..40).map(|n| delivery(&format!("{round}-{n}"))).collect::<Vec<_>>();
        let (forth, mut back) = (twins(), twins());
        back.reverse();
        let (first, second) = futures_util::future::join(one.journal(&forth), other.journal(&back)).await;
        let outcomes = first.expect("stored").into_iter().chain(second.expect("stored"));
        stored += outcomes.filter(|outcome| *outcome == Ok(Journaled::Stored)).count();
    }
    assert_eq!(stored, 30 * 40, "each once, by whichever came first");
    one.close().await.expect("closes");
    other.close().await.expect("closes");
    // A deadlock is retried and would only cost time; the server remembers it.
    let asked = format!("select deadlocks from pg_stat_database where datname = '{name}'");
    let row = admin.query_one_raw(Statement::from_string(admin.get_database_backend(), asked)).await.expect("asked").expect("a row");
    assert_eq!(row.try_get::<i64>("", "deadlocks").expect("a number"), 0);
    admin.execute_unprepared(&format!("drop database {name} with (force)")).await.expect("the database goes");
}

/// Hints that never end cost one read a second, then less and less.
#[tokio::test]
async fn an_entity_that_is_told_of_without_end_rests_longer_and_longer() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        store.apply(&fence, &batch(vec![read(&fence, "1", 1, "a")])).await.expect("applied");
        let mut rests = Vec::new();
        for version in 2..9 {
            let told = Batch { learned_by: LearnedBy::Hook, ..batch(vec![hint("1", Operation::Update)]) };
            store.apply(&fence, &told).await.expect("marked");
            let due = store.next_due(&source(), &tasks()).await.expect("read").expect("marked");
            rests.push(due.since(store.now()).as_secs_f64());
            store.apply(&fence, &batch(vec![read(&fence, "1", version, "b")])).await.expect("looked");
        }
        // The first read was a look too; the clock moves on before the question, so a rest is seen a little short.
        let expected = [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0];
        for (seen, expected) in rests.iter().zip(expected) {
            assert!((seen - expected).abs() < 0.5 + expected / 10.0, "{rests:?}, expected {expected:?}");
        }
    })
    .await;
}

/// Live rows of these keys, missed by a sweep and held because the budget is spent.
async fn over_budget(store: &Store, fence: &Fence, keys: &[String]) {
    let rows = keys.iter().map(|key| read(fence, key, 1, "a")).collect();
    store.apply(fence, &batch(rows)).await.expect("applied");
    let entities: Vec<_> = keys.iter().map(|key| entity(key)).collect();
    store.mark_entities(fence, &entities, MarkReason::Suspect).await.expect("marked");
    let keys: Vec<_> = entities.into_iter().map(|entity| entity.key).collect();
    store.hold_over_budget(fence, &tasks(), &keys, store.now()).await.expect("held");
}

fn many(n: usize) -> Vec<String> {
    (0..n).map(|n| format!("{n:03}")).collect()
}

const LIVE: &str = "select key as v from instep_entity where deleted_at is null order by key";
const MARKED: &str = "select key as v from instep_mark order by key";
const HELD: &str = "select key as v from instep_mark where held order by key";
const APPROVED: &str = "select key as v from instep_mark where announced_delete and not held order by key";

/// Two people decide at once, over more than one transaction holds.
#[tokio::test]
async fn of_an_approval_and_a_rejection_at_once_each_removal_obeys_one() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        over_budget(&store, &fence, &many(450)).await;
        let tasks = tasks();
        let (one, other) = (store.approve_removals(&fence, &tasks, 1_000), store.reject_removals(&fence, &tasks));
        let (approved, rejected) = futures_util::future::join(one, other).await;
        let (approved, rejected) = (approved.expect("approved").len() as u64, rejected.expect("rejected"));
        assert_eq!(approved + rejected, 450, "{approved} approved, {rejected} rejected");
        assert_eq!(texts(&store, APPROVED).await.len() as u64, approved, "what was approved is not taken back");
        assert_eq!(texts(&store, MARKED).await.len() as u64, approved, "and what was rejected has no mark");
        assert_eq!(texts(&store, LIVE).await.len(), 450, "no decision removes a row");
    })
    .await;
}

/// A sweep ends beside the decision, and the resource's actor weighs anew what was held: both were begun before it.
#[tokio::test]
async fn what_is_approved_beside_a_running_pass_stays_approved() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        let names = many(300);
        over_budget(&store, &fence, &names).await;
        let new = NewPass { resource: tasks(), kind: PassKind::Sweep, lower_bound: None };
        let pass = store.start_pass(&fence, &new).await.expect("started");
        let keys: Vec<_> = names.iter().map(|name| entity(name).key).collect();
        let sweep = async {
            store.mark_suspects(&fence, &pass).await.expect("marked");
            store.finish_pass(&fence, &pass, &PassEnd::Completed { watermark: None }).await.expect("finished");
        };
        let weigh = async {
            for group in keys.chunks(50) {
                store.hold_over_budget(&fence, &tasks(), group, store.now()).await.expect("held");
            }
        };
        let approve = async { store.approve_removals(&fence, &tasks(), 1_000).await.expect("approved") };
        let (approved, (), ()) = futures_util::future::join3(approve, sweep, weigh).await;
        assert_eq!(approved.len(), 300, "each once");
        assert_eq!((texts(&store, APPROVED).await, texts(&store, HELD).await), (names, Vec::new()));
    })
    .await;
}

/// The budget has room again, and the reads of what was held are under way when a person decides to keep it.
#[tokio::test]
async fn of_a_removal_and_a_rejection_at_once_each_row_obeys_one() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        let names = many(40);
        over_budget(&store, &fence, &names).await;
        let looked_at = started(&fence);
        let by_mark = |name: &String| {
            let what = What::Gone { started: looked_at, reason: "not found", by_mark: Some(fence.tick()) };
            batch(vec![Observed { entity: entity(name), what, delivery: None }])
        };
        let removals = async {
            let mut removed = 0;
            for name in &names {
                removed += store.apply(&fence, &by_mark(name)).await.expect("weighed").changes;
            }
            removed
        };
        let reject = async { store.reject_removals(&fence, &tasks()).await.expect("rejected") };
        let (removed, rejected) = futures_util::future::join(removals, reject).await;
        assert_eq!(removed + rejected, 40, "{removed} removed, {rejected} rejected");
        assert_eq!(texts(&store, LIVE).await.len() as u64, rejected, "what was rejected stays");
        assert_eq!(texts(&store, MARKED).await, Vec::<String>::new());
    })
    .await;
}

/// The reads were begun before the decision, and end after it.
#[tokio::test]
async fn a_read_under_way_removes_what_was_approved_and_nothing_that_was_rejected() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        for (round, is_approved) in [true, false].into_iter().enumerate() {
            let name = round.to_string();
            over_budget(&store, &fence, std::slice::from_ref(&name)).await;
            let what = What::Gone { started: started(&fence), reason: "not found", by_mark: Some(fence.tick()) };
            let decided = match is_approved {
                true => store.approve_removals(&fence, &tasks(), 1_000).await.map(|keys| keys.len() as u64),
                false => store.reject_removals(&fence, &tasks()).await,
            };
            assert_eq!(decided.expect("decided"), 1);
            let ends = batch(vec![Observed { entity: entity(&name), what, delivery: None }]);
            let applied = store.apply(&fence, &ends).await.expect("weighed");
            assert_eq!(applied.changes, u64::from(is_approved));
        }
        assert_eq!(texts(&store, LIVE).await, ["1"]);
        let spent = "select key as v from instep_change where unannounced";
        assert_eq!(texts(&store, spent).await, Vec::<String>::new(), "what a person approves spends no budget");
    })
    .await;
}

/// A record is taken out of quarantine while a read of its key is under way, which may have been issued before it became readable.
#[tokio::test]
async fn a_read_under_way_does_not_answer_a_replay() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        let unreadable = Unreadable { key: Some(entity("1").key), reason: "no title".to_owned(), raw: Bytes::from_static(b"{}") };
        let what = What::Unreadable { started: started(&fence), unreadable };
        let put_aside = batch(vec![Observed { entity: entity("1"), what, delivery: None }]);
        store.apply(&fence, &put_aside).await.expect("put aside");
        let told = Batch { learned_by: LearnedBy::Hook, ..batch(vec![hint("1", Operation::Update)]) };
        store.apply(&fence, &told).await.expect("marked");
        let under_way = read(&fence, "1", 1, "a");
        let aside = store.quarantine(&source(), 10).await.expect("read").remove(0);
        assert!(store.replay_record(&fence, aside.id, &entity("1")).await.expect("replayed"));
        store.apply(&fence, &batch(vec![under_way])).await.expect("applied");
        assert_eq!((texts(&store, LIVE).await, texts(&store, MARKED).await), (vec!["1".to_owned()], vec!["1".to_owned()]));
        store.apply(&fence, &batch(vec![read(&fence, "1", 2, "b")])).await.expect("applied");
        assert_eq!(texts(&store, MARKED).await, Vec::<String>::new(), "a read that was begun since answers it");
    })
    .await;
}

/// A page that was asked for before the removal still shows the record, and takes its mark away: no person has.
#[tokio::test]
async fn a_page_that_takes_a_mark_away_takes_no_later_removal_back() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        store.apply(&fence, &batch(vec![read(&fence, "1", 1, "a")])).await.expect("applied");
        store.mark_entities(&fence, &[entity("1")], MarkReason::Suspect).await.expect("marked");
        let tick = store.marks_of(&source(), &tasks(), &[entity("1").key]).await.expect("read").remove(0).mark.tick;
        let page = read(&fence, "1", 1, "a");
        let what = What::Gone { started: started(&fence), reason: "not found", by_mark: Some(tick) };
        store.apply(&fence, &batch(vec![page])).await.expect("applied");
        assert_eq!(texts(&store, MARKED).await, Vec::<String>::new());
        store.apply(&fence, &batch(vec![Observed { entity: entity("1"), what, delivery: None }])).await.expect("removed");
        assert_eq!(texts(&store, LIVE).await, Vec::<String>::new(), "it was asked for later");
    })
    .await;
}
