//! What stands above a record changed or went: its children are marked, a page at a time.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::model::ordering::{By, Started};
use crate::model::{Entity, Key, Operation, ResourceName};
use crate::store::testing::{batch, hint, on_both, read, rules, source, started, texts};
use crate::store::{Batch, Fence, LearnedBy, Observed, ResourceRules, Store, Walked, What};

fn models() -> ResourceName {
    ResourceName::new("product-models").expect("a name")
}

fn products() -> ResourceName {
    ResourceName::new("products").expect("a name")
}

/// Models below models, products below models.
fn family() -> HashMap<ResourceName, ResourceRules> {
    let common = rules(Duration::ZERO).into_values().next().expect("of tasks");
    [models(), products()]
        .into_iter()
        .map(|name| (name, ResourceRules { parent: Some(models()), inherits: true, ..common.clone() }))
        .collect()
}

fn below_models() -> Vec<ResourceName> {
    vec![models(), products()]
}

fn entity(resource: &ResourceName, key: &str) -> Entity {
    Entity { resource: resource.clone(), key: Key::new(key).expect("a key") }
}

/// A read by key of a record below `parent` (empty: below none).
fn show(fence: &Fence, resource: &ResourceName, key: &str, parent: &str, version: i64, title: &str) -> Observed {
    let mut seen = read(fence, key, version, title);
    seen.entity = entity(resource, key);
    if let What::Record { record, .. } = &mut seen.what {
        record.parent = Key::new(parent).ok();
    }
    seen
}

fn gone(fence: &Fence, resource: &ResourceName, key: &str) -> Observed {
    Observed {
        entity: entity(resource, key),
        what: What::Gone { started: started(fence), reason: "not found", by_mark: None },
        delivery: None,
    }
}

async fn put(store: &Store, fence: &Fence, seen: Vec<Observed>) {
    for part in seen.chunks(200) {
        store.apply(fence, &Batch { rules: family(), ..batch(part.to_vec()) }).await.expect("applied");
    }
}

/// A root, a sub model, two variants, and a stranger.
async fn tree(store: &Store) -> Fence {
    let fence = store.claim(&source(), "test").await.expect("claimed");
    let rows = vec![
        show(&fence, &models(), "root", "", 1, "a"),
        show(&fence, &models(), "sub", "root", 1, "a"),
        show(&fence, &products(), "v1", "sub", 1, "a"),
        show(&fence, &products(), "v2", "sub", 1, "a"),
        show(&fence, &products(), "alone", "", 1, "a"),
    ];
    put(store, &fence, rows).await;
    walk_all(store, &fence).await;
    clear(store).await;
    fence
}

async fn clear(store: &Store) {
    crate::store::testing::break_schema(store, "delete from instep_mark").await;
}

/// Walks the cascades of both resources until there are none, as their sync actors do; returns the steps.
async fn walk_all(store: &Store, fence: &Fence) -> usize {
    for n_steps in 0..1_000 {
        let models = store.walk_cascades(fence, &models(), &below_models()).await.expect("walked");
        let products = store.walk_cascades(fence, &products(), &[]).await.expect("walked");
        if (models, products) == (Walked::default(), Walked::default()) {
            return n_steps;
        }
    }
    panic!("the cascades have no end: {:?}", texts(store, "select parent as v from instep_cascade").await);
}

const MARKS: &str =
    "select key || ' ' || reason || case when announced_delete then ' announced' else '' end as v from instep_mark order by key";

#[tokio::test]
async fn the_parent_is_stored_with_every_read_and_a_push_does_not_change_it() {
    on_both(|store| async move {
        let fence = tree(&store).await;
        put(&store, &fence, vec![show(&fence, &products(), "v1", "root", 1, "a"), show(&fence, &products(), "v2", "", 2, "b")]).await;
        let parents = "select key || ' ' || coalesce(parent, '-') as v from instep_entity order by key";
        assert_eq!(texts(&store, parents).await, ["alone -", "root -", "sub root", "v1 root", "v2 -"]);
    })
    .await;
}

#[tokio::test]
async fn what_stood_below_a_record_that_is_gone_proves_nothing() {
    on_both(|store| async move {
        let fence = tree(&store).await;
        let controls = async || {
            let of = (&products(), Some(&models()));
            let mut keys = store.control_keys(&source(), of, &[], 10).await.expect("keys");
            keys.sort();
            keys.dedup();
            keys.iter().map(|key| key.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(controls().await, ["alone", "v1", "v2"]);
        put(&store, &fence, vec![gone(&fence, &models(), "sub")]).await;
        assert_eq!(controls().await, ["alone"], "also before they are marked");
    })
    .await;
}

#[tokio::test]
async fn a_store_of_the_first_schema_is_brought_up_to_date_wherever_that_was_cut_off() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        put(&store, &fence, vec![show(&fence, &models(), "old", "", 1, "a")]).await;
        let undone = ["drop table instep_cascade", "drop index instep_entity_children", "alter table instep_entity drop column parent"];
        for n in 0..=undone.len() {
            for statement in &undone[..n] {
                crate::store::testing::break_schema(&store, statement).await;
            }
            crate::store::testing::break_schema(&store, "delete from instep_migration where version = 'm0002_parents'").await;
            store.migrate().await.expect("migrated");
        }
        let rows = vec![show(&fence, &models(), "old", "", 2, "b"), show(&fence, &models(), "new", "old", 1, "a")];
        put(&store, &fence, rows).await;
        let parents = "select key || ' ' || coalesce(parent, '-') as v from instep_entity order by key";
        assert_eq!(texts(&store, parents).await, ["new old", "old -"]);
        assert_eq!(texts(&store, "select parent as v from instep_cascade").await, ["old"]);
    })
    .await;
}

#[tokio::test]
async fn a_removed_parent_marks_its_children_and_they_theirs() {
    on_both(|store| async move {
        let fence = tree(&store).await;
        let mut announced = hint("root", Operation::Delete);
        announced.entity = entity(&models(), "root");
        put(&store, &fence, vec![announced]).await;
        put(&store, &fence, vec![gone(&fence, &models(), "root")]).await;
        walk_all(&store, &fence).await;
        assert_eq!(texts(&store, MARKS).await, ["sub cascade announced"], "nothing is removed with its parent");
        put(&store, &fence, vec![gone(&fence, &models(), "sub")]).await;
        walk_all(&store, &fence).await;
        assert_eq!(texts(&store, MARKS).await, ["v1 cascade announced", "v2 cascade announced"]);
        // One has moved meanwhile, and the event that said so was lost.
        put(&store, &fence, vec![show(&fence, &products(), "v1", "other", 2, "b"), gone(&fence, &products(), "v2")]).await;
        assert_eq!(texts(&store, "select key as v from instep_entity where deleted_at is null order by key").await, ["alone", "v1"]);
        let n_removed = store.removals_since(&source(), &products(), Timestamp(0)).await.expect("count");
        assert_eq!(n_removed, 0, "the root's delete event announced it");
    })
    .await;
}

#[tokio::test]
async fn the_absence_below_an_unannounced_removal_spends_the_budget() {
    on_both(|store| async move {
        let fence = tree(&store).await;
        put(&store, &fence, vec![gone(&fence, &models(), "sub")]).await;
        walk_all(&store, &fence).await;
        assert_eq!(texts(&store, MARKS).await, ["v1 cascade", "v2 cascade"]);
        put(&store, &fence, vec![gone(&fence, &products(), "v1")]).await;
        assert_eq!(store.removals_since(&source(), &products(), Timestamp(0)).await.expect("count"), 1);
    })
    .await;
}

#[tokio::test]
async fn a_changed_root_reaches_variants_though_the_sub_model_stays_the_same() {
    on_both(|store| async move {
        let fence = tree(&store).await;
        put(&store, &fence, vec![show(&fence, &models(), "root", "", 2, "b")]).await;
        walk_all(&store, &fence).await;
        assert_eq!(texts(&store, MARKS).await, ["sub parent", "v1 parent", "v2 parent"]);
        let same = ["root", "sub"].map(|key| show(&fence, &models(), key, if key == "sub" { "root" } else { "" }, 2, "b"));
        clear(&store).await;
        put(&store, &fence, vec![same[0].clone()]).await;
        assert_eq!(walk_all(&store, &fence).await, 0, "the same again is no change");
    })
    .await;
}

#[tokio::test]
async fn who_appears_in_one_answer_with_its_children_leaves_no_mark_on_them() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        let page = |version: i64, title: &str| {
            let at = started(&fence);
            let mut rows = vec![
                show(&fence, &models(), "root", "", version, title),
                show(&fence, &models(), "sub", "root", version, title),
                show(&fence, &products(), "v1", "sub", version, title),
            ];
            for row in &mut rows {
                let What::Record { by, started, .. } = &mut row.what else { panic!("they are read") };
                (*by, *started) = (By::List, at);
            }
            rows
        };
        put(&store, &fence, vec![show(&fence, &products(), "early", "root", 1, "a")]).await;
        put(&store, &fence, page(1, "a")).await;
        walk_all(&store, &fence).await;
        assert_eq!(texts(&store, MARKS).await, ["early parent"], "only that one was read before");
        put(&store, &fence, page(2, "b")).await;
        walk_all(&store, &fence).await;
        assert_eq!(texts(&store, MARKS).await, ["early parent", "sub parent", "v1 parent"], "the index may lag behind a change");
    })
    .await;
}

#[tokio::test]
async fn many_children_are_marked_in_bounded_steps_that_a_crash_repeats() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        let keys: Vec<String> = (0..1_050).map(|n| format!("v{n:04}")).collect();
        put(&store, &fence, vec![show(&fence, &models(), "root", "", 1, "a")]).await;
        put(&store, &fence, keys.iter().map(|key| show(&fence, &products(), key, "root", 1, "a")).collect()).await;
        put(&store, &fence, vec![show(&fence, &models(), "root", "", 2, "b")]).await;
        assert_eq!(store.count_cascades(&source(), &products()).await.expect("counted"), 1);
        let first = store.walk_cascades(&fence, &products(), &[]).await.expect("walked");
        assert_eq!((first.marked, first.more), (100, true));
        // The process dies; another owner goes on where the last committed page ended. The parent changes meanwhile, twice.
        let next = store.claim(&source(), "next").await.expect("claimed");
        assert!(store.walk_cascades(&fence, &products(), &[]).await.is_err(), "the former owner marks nothing");
        put(&store, &next, vec![show(&next, &models(), "root", "", 3, "c")]).await;
        put(&store, &next, vec![show(&next, &models(), "root", "", 4, "d")]).await;
        let before = texts(&store, "select max(tick_epoch * 1000000 + tick_counter) as v from instep_mark where key = 'v0000'").await;
        assert_eq!(walk_all(&store, &next).await, 21, "ten pages to the end, and eleven of one more round");
        assert_eq!(texts(&store, "select count(*) as v from instep_mark where reason = 'parent'").await, ["1050"]);
        let after = texts(&store, "select max(tick_epoch * 1000000 + tick_counter) as v from instep_mark where key = 'v0000'").await;
        assert_ne!(before, after, "what was marked before the later change is marked again");
    })
    .await;
}

#[tokio::test]
async fn a_child_that_was_read_before_its_parent_changed_is_looked_at_again() {
    on_both(|store| async move {
        let fence = tree(&store).await;
        // Its page was asked for first and is served last; the cascade has gone by meanwhile.
        let late = |key: &str| show(&fence, &products(), key, "sub", 1, "a");
        let (new, moved, newest) = (late("new"), show(&fence, &products(), "alone", "sub", 2, "b"), late("newest"));
        put(&store, &fence, vec![show(&fence, &models(), "root", "", 2, "b")]).await;
        walk_all(&store, &fence).await;
        put(&store, &fence, vec![new, moved]).await;
        let marked = "select key as v from instep_mark where resource = 'products' order by key";
        assert_eq!(texts(&store, marked).await, ["alone", "new", "v1", "v2"], "the sub model is marked, and does not change");
        put(&store, &fence, vec![show(&fence, &models(), "sub", "root", 1, "a")]).await;
        put(&store, &fence, vec![newest, late("later")]).await;
        assert_eq!(texts(&store, marked).await, ["alone", "new", "newest", "v1", "v2"], "what was read after it is not");
    })
    .await;
}

#[tokio::test]
async fn a_cycle_of_garbage_ends() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        let rows = |version, title| {
            let pairs = [("a", "b"), ("b", "a"), ("self", "self")];
            pairs.map(|(key, parent)| show(&fence, &models(), key, parent, version, title)).to_vec()
        };
        put(&store, &fence, rows(1, "a")).await;
        walk_all(&store, &fence).await;
        put(&store, &fence, rows(2, "b")).await;
        assert!(walk_all(&store, &fence).await < 30);
        assert_eq!(texts(&store, "select count(*) as v from instep_mark").await, ["3"]);
    })
    .await;
}

#[tokio::test]
async fn an_open_mark_keeps_its_hints_and_a_failing_one_its_backoff() {
    on_both(|store| async move {
        let fence = tree(&store).await;
        let mut delete = hint("v1", Operation::Delete);
        delete.entity = entity(&products(), "v1");
        let mut update = hint("v2", Operation::Update);
        update.entity = entity(&products(), "v2");
        put(&store, &fence, vec![delete, update]).await;
        let later = store.now().plus(Duration::from_secs(900));
        store.defer_marks(&fence, &products(), &[entity(&products(), "v2").key], later, "failed").await.expect("deferred");
        put(&store, &fence, vec![show(&fence, &models(), "sub", "root", 2, "b")]).await;
        walk_all(&store, &fence).await;
        assert_eq!(texts(&store, MARKS).await, ["v1 delete announced", "v2 event"]);
        let not_before = texts(&store, "select not_before as v from instep_mark where key = 'v2'").await;
        assert_eq!(not_before, [later.0.to_string()]);
    })
    .await;
}

#[tokio::test]
async fn the_children_of_a_removed_parent_need_two_looks_in_bulk_and_none_by_key() {
    on_both(|store| async move {
        let fence = tree(&store).await;
        let lag = Duration::from_secs(60);
        put(&store, &fence, vec![gone(&fence, &models(), "sub")]).await;
        walk_all(&store, &fence).await;
        let begun = Started { tick: fence.tick(), at: store.now() };
        let missing = Observed { entity: entity(&products(), "v1"), what: What::Missing { started: begun }, delivery: None };
        let lagging = family().into_iter().map(|(name, mut rules)| {
            rules.spans.read_lag = lag;
            (name, rules)
        });
        let page = Batch { rules: lagging.collect(), learned_by: LearnedBy::Mark, ..batch(vec![missing]) };
        store.apply(&fence, &page).await.expect("applied");
        let marks = store.due_marks(&source(), &products(), begun.at.plus(2 * lag), 10).await.expect("marks");
        let mark = marks.iter().find(|mark| mark.key.as_str() == "v1").expect("a mark");
        assert_eq!((mark.cascade, mark.by_key, mark.missing_since), (true, false, Some(begun.at)));
        assert!(mark.not_before >= begun.at.plus(lag), "the second look has to be a lag later");
    })
    .await;
}

#[tokio::test]
async fn the_children_of_a_parent_are_found_by_an_index() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        let keys: Vec<String> = (0..4_000).map(|n| format!("v{n:04}")).collect();
        let below = |n: usize| format!("m{}", n % 400);
        put(&store, &fence, keys.iter().enumerate().map(|(n, key)| show(&fence, &products(), key, &below(n), 1, "a")).collect()).await;
        sea_orm::ConnectionTrait::execute_unprepared(store.writer(), "analyze").await.expect("analyzed");
        let (explain, column) = match store.kind() {
            crate::store::Engine::Sqlite => ("explain query plan", "detail"),
            crate::store::Engine::Postgres => ("explain", "QUERY PLAN"),
        };
        let query = "select key from instep_entity where source = 'pmp' and resource = 'products' and parent = 'm7' \
                     and deleted_at is null and parent is not null and key > 'v0007' order by key limit 100";
        let rows = sea_orm::ConnectionTrait::query_all_raw(&store.reader(), store.raw(format!("{explain} {query}"), [])).await;
        let plan: Vec<String> = rows.expect("a plan").iter().map(|row| row.try_get("", column).expect("a line")).collect();
        assert!(plan.iter().any(|line| line.contains("instep_entity_children")), "{plan:#?}");
    })
    .await;
}

/// A bulk read of the record, with its state in or out of the scope.
fn scoped(fence: &Fence, by: By, tick: i64, version: i64, title: &str, is_in_scope: bool) -> Observed {
    let mut seen = show(fence, &products(), "p", "", version, title);
    if let What::Record { by: how, started, record } = &mut seen.what {
        *how = by;
        started.tick.counter = tick;
        record.in_scope = is_in_scope;
    }
    seen
}

const STANDING: &str = "select case when deleted_at is null then 'live' else deleted_reason end as v from instep_entity";

#[tokio::test]
async fn what_leaves_the_scope_is_removed_without_spending_the_budget_and_returns() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        put(&store, &fence, vec![scoped(&fence, By::List, 1, 1, "a", false)]).await;
        assert!(texts(&store, STANDING).await.is_empty(), "nothing is kept of what never was here");
        put(&store, &fence, vec![scoped(&fence, By::List, 2, 2, "b", true)]).await;
        put(&store, &fence, vec![scoped(&fence, By::Bulk, 3, 3, "c", false)]).await;
        assert_eq!(texts(&store, STANDING).await, ["out of scope"]);
        assert_eq!(store.removals_since(&source(), &products(), Timestamp(0)).await.expect("count"), 0);
        put(&store, &fence, vec![scoped(&fence, By::List, 4, 3, "c", false)]).await;
        assert_eq!(texts(&store, "select count(*) as v from instep_mark").await, ["0"], "every sweep meets it, and nothing follows");
        put(&store, &fence, vec![scoped(&fence, By::List, 5, 4, "d", true)]).await;
        assert_eq!(texts(&store, STANDING).await, ["out of scope"], "only a read by key revives");
        put(&store, &fence, vec![scoped(&fence, By::Key, 6, 4, "d", true)]).await;
        assert_eq!(texts(&store, STANDING).await, ["live"]);
        let operations = texts(&store, "select operation as v from instep_change order by number").await;
        assert_eq!(operations, ["insert", "delete", "revive"]);
    })
    .await;
}

#[tokio::test]
async fn a_late_old_read_neither_removes_nor_revives_by_scope() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        // A page from before the row's state, served late.
        put(&store, &fence, vec![scoped(&fence, By::Key, 5, 2, "b", true), scoped(&fence, By::List, 3, 1, "a", false)]).await;
        assert_eq!(texts(&store, STANDING).await, ["live"]);
        // Two states within one second, and the page was issued first.
        put(&store, &fence, vec![scoped(&fence, By::List, 4, 2, "c", false)]).await;
        assert_eq!(texts(&store, STANDING).await, ["live"]);
        assert_eq!(texts(&store, "select count(*) as v from instep_mark").await, ["1"], "a fresher read has to tell");
        put(&store, &fence, vec![scoped(&fence, By::Key, 8, 3, "d", false)]).await;
        assert_eq!(texts(&store, STANDING).await, ["out of scope"]);
        put(&store, &fence, vec![scoped(&fence, By::Key, 6, 2, "b", true)]).await;
        assert_eq!(texts(&store, STANDING).await, ["out of scope"], "issued before the read that found it outside");
    })
    .await;
}

#[tokio::test]
async fn a_parent_that_is_not_held_still_reaches_its_children() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        put(&store, &fence, vec![show(&fence, &products(), "v1", "outside", 1, "a")]).await;
        let mut outside = show(&fence, &models(), "outside", "", 2, "b");
        if let What::Record { record, .. } = &mut outside.what {
            record.in_scope = false;
        }
        // A page of a pass meets it again and again, and says nothing new.
        let told = |learned_by, seen| Batch { rules: family(), learned_by, ..batch(vec![seen]) };
        store.apply(&fence, &told(LearnedBy::Pass, outside.clone())).await.expect("applied");
        assert_eq!(walk_all(&store, &fence).await, 0);
        store.apply(&fence, &told(LearnedBy::Mark, outside)).await.expect("applied");
        walk_all(&store, &fence).await;
        assert_eq!(texts(&store, MARKS).await, ["v1 parent"], "somebody told of it, and nothing is held to compare it with");
        clear(&store).await;
        store.apply(&fence, &told(LearnedBy::Mark, gone(&fence, &models(), "outside"))).await.expect("applied");
        walk_all(&store, &fence).await;
        assert_eq!(texts(&store, MARKS).await, ["v1 cascade"]);
    })
    .await;
}

#[tokio::test]
async fn a_change_reaches_only_those_that_inherit_and_a_removal_all() {
    on_both(|store| async move {
        let fence = tree(&store).await;
        let mut rules = family();
        rules.get_mut(&products()).expect("its rules").inherits = false;
        for (seen, expected) in
            [(show(&fence, &models(), "sub", "root", 2, "b"), Vec::<&str>::new()), (gone(&fence, &models(), "sub"), vec!["v1", "v2"])]
        {
            store.apply(&fence, &Batch { rules: rules.clone(), ..batch(vec![seen]) }).await.expect("applied");
            walk_all(&store, &fence).await;
            assert_eq!(texts(&store, "select key as v from instep_mark where resource = 'products' order by key").await, expected);
        }
    })
    .await;
}
