//! Who goes first: the journal, whatever else is written, and the checkpoint in nobody's way.

use std::sync::Mutex;

use futures_util::future::join_all;

use crate::store::Kind;
use crate::store::connect::Lane;
use crate::store::error::Error;
use crate::store::testing::{batch, delivery, on_both, options, read, source, texts};
use crate::store::{Engine, Store};

#[tokio::test]
async fn the_journal_goes_before_all_writers_that_wait_longer() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        let ended = Mutex::new(Vec::new());
        let held = store.begin(Lane::Work, "held").await.expect("begun");
        let writers = (0..20).map(|n| {
            let (store, fence, ended) = (&store, &fence, &ended);
            async move {
                store.apply(fence, &batch(vec![read(fence, &n.to_string(), 1, "a")])).await.expect("applied");
                ended.lock().expect("no panic under the lock").push("writer");
            }
        });
        let journal = async {
            let stored = store.journal(&[delivery("d")]).await.expect("journalled");
            assert!(stored.iter().all(Result::is_ok));
            ended.lock().expect("no panic under the lock").push("journal");
        };
        match store.kind() {
            // All stand in line, the journal last, before the first may begin.
            Engine::Sqlite => {
                let release = async { held.commit().await.expect("ended") };
                futures_util::future::join3(join_all(writers), journal, release).await;
            }
            // All wait for the source's row, and the journal for nobody.
            Engine::Postgres => {
                fence.lock(&held).await.expect("locked");
                let release = async {
                    journal.await;
                    held.commit().await.expect("ended");
                };
                futures_util::future::join(join_all(writers), release).await;
            }
        }
        let ended = ended.into_inner().expect("no panic under the lock");
        let before = ended.iter().position(|who| *who == "journal").expect("it ended");
        // On SQLite one of them may stand at the pen already.
        assert!(before <= usize::from(store.kind() == Engine::Sqlite), "{:?}: {before} writers came first", store.kind());
    })
    .await;
}

#[tokio::test]
async fn a_checkpoint_ends_and_a_large_log_begins_anew_while_others_write() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let store = Store::open(options(format!("sqlite://{}", dir.path().join("replica.db").display()))).await.expect("sqlite opens");
    assert_eq!(store.kind(), Engine::Sqlite);
    store.migrate().await.expect("sqlite migrates");
    let fence = store.claim(&source(), "test").await.expect("claimed");
    let large = "x".repeat(60_000);
    let mut highest = 0;
    for round in 0..12 {
        let write = async {
            for n in 0..100 {
                let seen = read(&fence, &n.to_string(), round * 100 + n, &format!("{large}{round}"));
                store.apply(&fence, &batch(vec![seen])).await.expect("applied");
            }
        };
        let (copied, ()) = futures_util::future::join(store.checkpoint(), write).await;
        copied.expect("copied");
        highest = highest.max(store.wal_bytes());
    }
    // Without beginning anew it would hold all twelve rounds, more than 72 MiB.
    assert!(highest < 40 * 1024 * 1024, "the log grew to {highest} bytes");
    assert_eq!(texts(&store, "select count(*) as v from instep_entity").await, ["100"]);
}

#[tokio::test]
async fn nothing_is_written_after_a_failed_fsync() {
    on_both(|store| async move {
        let refused = store.run(|| async { Err::<(), _>(Error::new(Kind::Fsync, "the disk lost something")) }).await;
        assert_eq!(refused.map_err(|error| error.kind()), Err(Kind::Fsync));
        assert!(store.broken().is_cancelled());
        let refused = store.journal(&[delivery("d")]).await;
        assert_eq!(refused.map_err(|error| error.kind()), Err(Kind::Fsync), "{:?}", store.kind());
        assert!(store.heartbeat().await.is_err());
        assert!(texts(&store, "select dedupe as v from instep_delivery").await.is_empty());
    })
    .await;
}
