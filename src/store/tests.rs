//! Transactions of the store, on both databases.

use std::collections::HashSet;
use std::time::Duration;

use crate::model::Operation;
use crate::model::ordering::Reason;
use crate::quota::{BlockRequest, Bookings, FinishedBlock};
use crate::store::testing::{batch, delivery, entity, gone, hint, on_both, options, read, read_json, rules, source, started, tasks, texts};
use crate::store::{
    Batch, DeliveryEnd, FeedCursor, FeedStep, Journaled, Kind, LearnedBy, NewPass, PassEnd, PassKind, PassPosition, PassStep,
    RetentionOptions, Store, What,
};

mod cascades;
mod history;
mod logs;
mod order;
mod rivals;
mod told;
mod trust;

const NUMBERS: &str = "select number as v from instep_change order by number";

#[tokio::test]
async fn an_update_names_its_changed_fields_and_an_equal_read_writes_no_change() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        store.apply(&fence, &batch(vec![read(&fence, "1", 1, "a")])).await.expect("applied");
        let same = store.apply(&fence, &batch(vec![read(&fence, "1", 1, "a")])).await.expect("applied");
        assert_eq!((same.changes, same.counts[&(tasks(), Reason::Same)]), (0, 1));
        let two = vec![read_json(&fence, "1", 2, r#"{"title":"b","done":true}"#), read(&fence, "1", 3, "c")];
        let applied = store.apply(&fence, &batch(two)).await.expect("applied");
        assert_eq!((applied.changes, applied.first_number), (2, Some(2)));
        assert_eq!(texts(&store, NUMBERS).await, ["1", "2", "3"]);
        assert_eq!(texts(&store, "select operation as v from instep_change order by number").await, ["insert", "update", "update"]);
        let changed = texts(&store, "select changed as v from instep_change order by number").await;
        assert!(changed[1].contains("title") && changed[1].contains("done") && changed[2].contains("title"), "{changed:?}");
    })
    .await;
}

#[tokio::test]
async fn a_hint_becomes_a_mark_a_read_clears_it_and_a_removal_is_accounted() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        store.apply(&fence, &batch(vec![read(&fence, "1", 1, "a"), read(&fence, "2", 1, "b")])).await.expect("applied");
        let hints = vec![hint("1", Operation::Delete), hint("2", Operation::Update)];
        let set = store.apply(&fence, &Batch { learned_by: LearnedBy::Hook, ..batch(hints) }).await.expect("marked");
        assert!(set.marks_set.contains(&tasks()));
        let far = store.now().plus(Duration::from_secs(60));
        assert_eq!(store.due_marks(&source(), &tasks(), far, 10).await.expect("marks").len(), 2);
        let looks = vec![gone(started(&fence).tick, "1"), read(&fence, "2", 2, "c")];
        store.apply(&fence, &batch(looks)).await.expect("looked");
        assert!(store.due_marks(&source(), &tasks(), far, 10).await.expect("marks").is_empty());
        let since = crate::clock::Timestamp(0);
        assert_eq!(store.removals_since(&source(), &tasks(), since).await.expect("count"), 0, "it was announced");
        assert_eq!(store.control_keys(&source(), (&tasks(), None), &[], 0).await.expect("keys"), [entity("2").key]);
        assert_eq!(store.control_keys(&source(), (&tasks(), None), &[entity("2").key], 2).await.expect("keys"), []);
        store.apply(&fence, &batch(vec![gone(started(&fence).tick, "2")])).await.expect("removed");
        assert_eq!(store.removals_since(&source(), &tasks(), since).await.expect("count"), 1);
        assert_eq!(store.live_rows(&source(), &tasks()).await.expect("count"), 0);
        store.apply(&fence, &batch(vec![read(&fence, "2", 2, "c")])).await.expect("revived");
        let operations = texts(&store, "select operation as v from instep_change order by number").await;
        assert_eq!(operations, ["insert", "insert", "delete", "update", "delete", "revive"]);
    })
    .await;
}

#[tokio::test]
async fn numbers_have_no_hole_under_concurrent_applies_and_a_former_owner_writes_nothing() {
    on_both(|store| async move {
        let former = store.claim(&source(), "former").await.expect("claimed");
        let fence = store.claim(&source(), "owner").await.expect("claimed");
        let refused = store.apply(&former, &batch(vec![read(&former, "x", 1, "a")])).await;
        assert_eq!(refused.map_err(|error| error.kind()), Err(Kind::Fenced));
        let applies = (0..40).map(|n| {
            let (store, fence) = (store.clone(), fence.clone());
            async move {
                let keys = [format!("{n}"), "shared".to_owned()];
                let observed = keys.iter().map(|key| read(&fence, key, n, &format!("t{n}"))).collect();
                store.apply(&fence, &batch(observed)).await.expect("applied")
            }
        });
        let applied = futures_util::future::join_all(applies).await;
        let total: u64 = applied.iter().map(|applied| applied.changes).sum();
        let expected: Vec<String> = (1..=total).map(|n| n.to_string()).collect();
        assert_eq!(texts(&store, NUMBERS).await, expected);
    })
    .await;
}

#[tokio::test]
async fn a_duplicate_is_swallowed_only_while_its_original_is_pending() {
    on_both(|store| async move {
        let first = delivery("d");
        let (twin, other) = (delivery("d"), delivery("e"));
        let outcomes = store.journal(&[first.clone(), other.clone()]).await.expect("stored");
        assert_eq!(outcomes, [Ok(Journaled::Stored), Ok(Journaled::Stored)]);
        assert_eq!(
            store.journal(&[twin.clone(), first.clone()]).await.expect("stored"),
            [Ok(Journaled::Duplicate), Ok(Journaled::Duplicate)]
        );
        let pending = store.pending(&source(), 10, 1 << 20).await.expect("pending");
        assert_eq!(pending.iter().map(|p| p.delivery.clone()).collect::<Vec<_>>(), [first.clone(), other.clone()]);
        let fence = store.claim(&source(), "test").await.expect("claimed");
        let ends = vec![(first.id, DeliveryEnd::Done), (other.id, DeliveryEnd::Quarantined("poison\u{0}".to_owned()))];
        store.apply(&fence, &Batch { deliveries: ends, ..batch(Vec::new()) }).await.expect("ended");
        assert_eq!(store.journal(&[twin]).await.expect("stored"), [Ok(Journaled::Stored)]);
        assert_eq!(store.quarantine_count(&source()).await.expect("count"), 1);
        assert!(store.replay(&fence, other.id).await.expect("replayed"));
        assert_eq!(store.backlog(&source()).await.expect("backlog").deliveries, 2);
        assert_eq!(store.quarantine_count(&source()).await.expect("count"), 0);
    })
    .await;
}

#[tokio::test]
async fn one_delivery_that_the_database_refuses_does_not_stop_the_others() {
    on_both(|store| async move {
        let mut deliveries: Vec<_> = (0..9).map(|n| delivery(&format!("d{n}"))).collect();
        deliveries[4].request.route = "nul\u{0}".to_owned();
        let outcomes = store.journal(&deliveries).await.expect("stored");
        let refused: HashSet<usize> = (0..9).filter(|at| outcomes[*at].is_err()).collect();
        // SQLite keeps a NUL in text; PostgreSQL refuses it.
        let expected = if store.kind() == crate::store::Engine::Sqlite { HashSet::new() } else { HashSet::from([4]) };
        assert_eq!(refused, expected);
    })
    .await;
}

#[tokio::test]
async fn a_payload_that_the_database_cannot_hold_is_quarantined_alone() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        let mut huge = read(&fence, "2", 1, "b");
        if let What::Record { record, .. } = &mut huge.what {
            record.document.text = r#"{"n":1e200000}"#.into();
        }
        let observed = vec![read(&fence, "1", 1, "a"), huge, read_json(&fence, "3", 1, r#"{"t":"\u0000"}"#)];
        let applied = store.apply(&fence, &batch(observed)).await.expect("applied");
        let postgres = store.kind() == crate::store::Engine::Postgres;
        assert_eq!((applied.changes, applied.quarantined), if postgres { (2, 1) } else { (3, 0) });
    })
    .await;
}

#[tokio::test]
async fn a_page_moves_its_pass_once_and_what_a_sweep_missed_is_suspect() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        store.apply(&fence, &batch(vec![read(&fence, "1", 1, "a"), read(&fence, "2", 1, "b")])).await.expect("applied");
        let new = NewPass { resource: tasks(), kind: PassKind::Sweep, lower_bound: None };
        let pass = store.start_pass(&fence, &new).await.expect("started");
        assert_eq!(store.start_pass(&fence, &new).await.expect("the same").id, pass.id);
        let to = PassPosition { variant: 0, cursor: Some("p2".to_owned()) };
        let date = Some(store.now());
        let step = PassStep { id: pass.id, from: pass.position.clone(), to, date, high_stamp: date, records: 1 };
        let page = Batch { pass: Some(step), ..batch(vec![read(&fence, "1", 1, "a")]) };
        store.apply(&fence, &page).await.expect("applied");
        let again = store.apply(&fence, &page).await;
        assert_eq!(again.map_err(|error| error.kind()), Err(Kind::Moved));
        let pass = store.running_pass(&source(), &tasks()).await.expect("read").expect("runs");
        assert_eq!((pass.position.cursor.as_deref(), pass.pages, pass.first_date), (Some("p2"), 1, date));
        assert_eq!(store.count_suspects(&source(), &pass).await.expect("count"), 1);
        assert_eq!(store.sample_suspects(&source(), &pass, 20).await.expect("keys"), [entity("2").key]);
        assert_eq!(store.mark_suspects(&fence, &pass).await.expect("marked"), 1);
        store
            .extend_gap(
                &source(),
                "down",
                pass.started_at.minus(Duration::from_secs(9)),
                Some(pass.started_at.minus(Duration::from_secs(1))),
            )
            .await
            .expect("opened");
        let by = |kind| [(tasks(), kind)];
        assert_eq!(store.close_gaps(&fence, &by(PassKind::Sweep)).await.expect("none"), 0);
        store.finish_pass(&fence, &pass, &PassEnd::Completed { watermark: date }).await.expect("finished");
        assert_eq!(store.progress(&source(), &tasks()).await.expect("progress").watermark, date);
        assert_eq!(store.close_gaps(&fence, &by(PassKind::Sweep)).await.expect("closed"), 1);
    })
    .await;
}

#[tokio::test]
async fn where_only_a_sweep_sees_deletes_an_incremental_pass_closes_no_gap() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "here").await.expect("claimed");
        let ended = store.now().minus(Duration::from_secs(1));
        store.extend_gap(&source(), "down", ended.minus(Duration::from_secs(9)), Some(ended)).await.expect("opened");
        for (kind, closed_by_either, closed_by_sweep) in [(PassKind::Incremental, 1, 0), (PassKind::Sweep, 1, 1)] {
            let pass = store.start_pass(&fence, &NewPass { resource: tasks(), kind, lower_bound: None }).await.expect("started");
            store.finish_pass(&fence, &pass, &PassEnd::Completed { watermark: None }).await.expect("finished");
            let closed = store.close_gaps(&fence, &[(tasks(), PassKind::Sweep)]).await.expect("asked");
            assert_eq!(closed, closed_by_sweep, "{kind:?} where a sweep is needed");
            if closed == 0 {
                let other = store.close_gaps(&fence, &[(tasks(), PassKind::Incremental)]).await.expect("asked");
                assert_eq!(other, closed_by_either, "{kind:?} where either is enough");
                store.extend_gap(&source(), "again", ended.minus(Duration::from_secs(9)), Some(ended)).await.expect("opened");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn permit_blocks_are_booked_finished_and_expired_in_one_transaction() {
    on_both(|store| async move {
        let block = |limit: &str| BlockRequest { limit: limit.to_owned(), amount: 5 };
        let wanted = Bookings { wanted: vec![block("a"), block("b")], ..Bookings::default() };
        let ids = store.book("org", &wanted).await.expect("booked");
        let finished = FinishedBlock { id: ids[0], amount: 3, finished_at: store.now() };
        let ended = Bookings { finished: vec![finished], expired: vec![ids[1]], ..Bookings::default() };
        store.book("org", &ended).await.expect("booked");
        let blocks = store.blocks("org").await.expect("blocks");
        assert_eq!(blocks.iter().map(|b| (b.id, b.amount, b.finished_at.is_some())).collect::<Vec<_>>(), [(ids[0], 3, true)]);
    })
    .await;
}

#[tokio::test]
async fn a_second_daemon_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("sqlite://{}", dir.path().join("replica.db").display());
    let store = Store::open(options(url.clone())).await.expect("opens");
    let refused = Store::open(options(url)).await.expect_err("refused");
    assert_eq!(refused.kind(), Kind::Locked);
    assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
    drop(store);
}

#[tokio::test]
async fn a_mark_that_a_lagging_read_cannot_clear_is_looked_at_after_the_lag() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        let lag = Duration::from_secs(300);
        let lagging = |observations| Batch { rules: rules(lag), ..batch(observations) };
        store.apply(&fence, &lagging(vec![read(&fence, "1", 1, "a")])).await.expect("applied");
        let events = Batch { learned_by: LearnedBy::Hook, ..lagging(vec![hint("1", Operation::Update)]) };
        store.apply(&fence, &events).await.expect("marked");
        store.apply(&fence, &lagging(vec![read(&fence, "1", 1, "a")])).await.expect("looked");
        let due = store.next_due(&source(), &tasks()).await.expect("read").expect("still marked");
        assert!(due > store.now().plus(lag - Duration::from_secs(30)), "{due}");
    })
    .await;
}

#[tokio::test]
async fn retention_takes_a_little_at_a_time_and_keeps_what_is_young() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        for part in 0..7 {
            let hints = (0..200).map(|n| hint(&format!("{part}-{n}"), Operation::Update)).collect();
            store.apply(&fence, &Batch { learned_by: LearnedBy::Hook, ..batch(hints) }).await.expect("marked");
        }
        let removed = batch(vec![read(&fence, "1", 1, "a"), gone(started(&fence).tick, "1")]);
        store.apply(&fence, &removed).await.expect("applied");
        let options =
            RetentionOptions { keep_deleted: vec![("pmp".to_owned(), "tasks".to_owned(), Duration::ZERO)], ..RetentionOptions::default() };
        assert!(store.purge(&options, store.now()).await.expect("purged").rows.iter().all(|(_, rows)| *rows == 0));
        let later = store.now().plus(Duration::from_secs(40 * 86_400));
        let purged = store.purge(&options, later).await.expect("purged");
        assert!(purged.rows.contains(&("instep_outcome", 1_000)), "{purged:?}");
        assert!(store.purge(&options, later).await.expect("purged").rows.contains(&("instep_outcome", 400)));
        assert_eq!(texts(&store, "select count(*) as v from instep_entity where payload is not null").await, ["0"]);
        assert_eq!(texts(&store, "select count(*) as v from instep_change").await, ["2"]);
        store.checkpoint().await.expect("checkpointed");
        assert!(store.sizes().await.expect("sizes").iter().any(|size| size.name == "instep_change"));
        assert_eq!(store.status(&source()).await.expect("status").expect("claimed").newest_change, 2);
    })
    .await;
}

#[tokio::test]
async fn a_replaced_secret_stays_valid() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        for (id, secret) in [("1", "old"), ("2", "new")] {
            store.put_registration(&fence, "tasks", id, Some(secret), "active").await.expect("stored");
        }
        let secrets = store.hook_secrets(&source()).await.expect("secrets");
        assert_eq!(secrets.iter().map(|secret| secret.text.as_str()).collect::<HashSet<_>>(), HashSet::from(["old", "new"]));
        let replaced = store.registrations(&source()).await.expect("read").iter().filter(|r| r.replaced_at.is_some()).count();
        assert_eq!(replaced, 1);
    })
    .await;
}

#[tokio::test]
async fn two_invitations_live_at_once_and_a_revoked_one_is_no_secret() {
    use crate::connectors::SecretForm;
    use crate::store::Invited;
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        let invite = async |id: &str| store.put_invitation(&fence, id, "events", &format!("sha-{id}")).await.expect("stored");
        assert_eq!([invite("a").await, invite("b").await], [Invited::Made, Invited::Made]);
        assert_eq!(invite("b").await, Invited::Made, "a commit whose outcome is unknown is tried again");
        let Invited::Full(live) = invite("c").await else { panic!("a third one lives") };
        assert_eq!(live.iter().map(|one| one.id.as_str()).collect::<HashSet<_>>(), HashSet::from(["a", "b"]));
        let known = async || {
            let secrets = store.hook_secrets(&source()).await.expect("secrets");
            assert!(secrets.iter().all(|one| one.form == SecretForm::Digest && one.route.as_deref() == Some("events")));
            secrets.into_iter().map(|secret| secret.text).collect::<HashSet<_>>()
        };
        assert_eq!(known().await, HashSet::from(["sha-a".to_owned(), "sha-b".to_owned()]));
        assert!(store.revoke_invitation(&fence, "a").await.expect("revoked"));
        assert!(store.revoke_invitation(&fence, "a").await.expect("revoked"), "again it changes nothing");
        assert!(!store.revoke_invitation(&fence, "c").await.expect("asked"), "it was never made");
        assert_eq!(known().await, HashSet::from(["sha-b".to_owned()]));
        assert_eq!(invite("c").await, Invited::Made);
        let all = store.invitations(&source()).await.expect("read");
        assert_eq!(all.iter().filter(|one| one.is_live()).count(), 2);
        assert_eq!(all.len(), 3, "who was invited is remembered");
        assert!(!format!("{all:?}").contains("sha-"), "not even the digest is printed");
    })
    .await;
}

/// Needs the right to become another user, and SQLite's shell; says so where it has none.
#[tokio::test]
async fn another_user_reads_while_the_store_is_open_and_after_it_was_closed() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
    let path = dir.path().join("replica.db");
    let mut options = options(format!("sqlite://{}", path.display()));
    options.read_group = Some("nogroup".to_owned());
    let Ok(store) = Store::open(options).await else {
        eprintln!("skipped: may not give files to another group");
        return;
    };
    store.migrate().await.expect("migrates");
    let fence = store.claim(&source(), "test").await.expect("claimed");
    store.apply(&fence, &batch(vec![read(&fence, "1", 1, "a")])).await.expect("applied");
    let ask = || {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "sqlite3", "-readonly"]);
        command.arg(&path).arg("select count(*) from instep_changes");
        command.output().map(|output| (String::from_utf8_lossy(&output.stdout).trim().to_owned(), output.stderr))
    };
    let Ok((open, _)) = ask() else {
        eprintln!("skipped: no setpriv");
        return;
    };
    assert_eq!(open, "1");
    store.close().await.expect("closed");
    let (closed, error) = ask().expect("ran before");
    assert_eq!(closed, "1", "{}", String::from_utf8_lossy(&error));
    assert!(path.with_extension("db-wal").exists() && path.with_extension("db-shm").exists());
}

#[tokio::test]
async fn a_feed_moves_once_and_remembers_its_rows() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        let to = FeedCursor { since: Some(store.now()), cursor: None };
        let seen = vec!["a".to_owned(), "b".to_owned()];
        let step = FeedStep { feed: "deleted_items".to_owned(), from: None, to: to.clone(), seen };
        let page = Batch { feed: Some(step), ..batch(Vec::new()) };
        store.apply(&fence, &page).await.expect("applied");
        assert_eq!(store.apply(&fence, &page).await.map_err(|error| error.kind()), Err(Kind::Moved));
        assert_eq!(store.feed_cursor(&source(), "deleted_items").await.expect("read"), Some(to));
        let known = store.feed_seen(&source(), "deleted_items", &["b".to_owned(), "c".to_owned()]).await.expect("read");
        assert_eq!(known, HashSet::from(["b".to_owned()]));
    })
    .await;
}

#[tokio::test]
async fn a_delivery_is_done_only_with_the_transaction_that_applied_it() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        let one = delivery("d");
        store.journal(std::slice::from_ref(&one)).await.expect("stored");
        let mut all = batch(vec![read(&fence, "1", 1, "a")]);
        all.deliveries.push((one.id, DeliveryEnd::Done));
        let nowhere = PassPosition::default();
        let id = uuid::Uuid::now_v7();
        let step = PassStep { id, from: nowhere.clone(), to: nowhere, date: None, high_stamp: None, records: 1 };
        let moved = store.apply(&fence, &Batch { pass: Some(step), ..all.clone() }).await;
        assert_eq!(moved.map_err(|error| error.kind()), Err(Kind::Moved));
        assert_eq!(store.backlog(&source()).await.expect("read").deliveries, 1, "what failed to be applied still waits");
        assert_eq!(store.live_rows(&source(), &tasks()).await.expect("count"), 0);
        store.apply(&fence, &all).await.expect("applied");
        assert_eq!(store.backlog(&source()).await.expect("read").deliveries, 0);
        assert_eq!(texts(&store, NUMBERS).await, ["1"], "what was rolled back left no hole");
    })
    .await;
}
