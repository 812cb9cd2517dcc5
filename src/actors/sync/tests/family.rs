//! Records below one that was removed or has changed.

use std::collections::HashMap;

use super::*;
use crate::store::ResourceRules;
use crate::store::testing::{gone, rules};

const CHILDREN: u32 = 1_000;
/// The one that stands below another record, and the control.
const STRANGER: u32 = 5_000;

fn projects() -> ResourceName {
    ResourceName::new("projects").expect("a name")
}

fn of_project(mut seen: Observed, key: &str) -> Observed {
    seen.entity = Entity { resource: projects(), key: Key::new(key).expect("a key") };
    seen
}

fn child(fence: &Fence, key: u32, parent: &str) -> Observed {
    let mut seen = read(fence, &key.to_string(), 1, "before");
    if let What::Record { record, .. } = &mut seen.what {
        record.parent = Key::new(parent).ok();
    }
    seen
}

/// Tasks below a project; `then` happens to the project before the actor starts.
async fn start(store: &Store, answers: Answer, then: impl Fn(&Fence) -> Vec<Observed>) -> Running {
    let fake = Fake::start(move |head| reply(head, answers)).await;
    let connector = productive(&fake).stand_below(&tasks(), &projects());
    let source = Arc::new(source_of(store, &fake, LOOSE, connector));
    let fence = store.claim(&name(), "test").await.expect("claimed");
    let common = rules(Duration::ZERO).into_values().next().expect("of tasks");
    let below = ResourceRules { parent: Some(projects()), inherits: true, ..common.clone() };
    let rules = HashMap::from([(projects(), common), (tasks(), below)]);
    let mut rows: Vec<Observed> = (1..=CHILDREN).map(|key| child(&fence, key, "p")).collect();
    rows.push(child(&fence, STRANGER, "q"));
    rows.push(of_project(read(&fence, "p", 1, "before"), "p"));
    for part in rows.chunks(200) {
        store.apply(&fence, &Batch { rules: rules.clone(), ..batch(part.to_vec()) }).await.expect("applied");
    }
    crate::store::testing::break_schema(store, "delete from instep_cascade").await;
    for seen in then(&fence) {
        store.apply(&fence, &Batch { rules: rules.clone(), ..batch(vec![seen]) }).await.expect("applied");
    }
    source.own(Some(fence));
    let (stopping, root) = run(&source);
    Running { source, store: store.clone(), fake, stopping, root }
}

/// The heads of reads of one key alone, without the control's.
fn alone(running: &Running) -> usize {
    let is_alone = |head: &&String| !head.contains("filter%5Bid%5D") && !head.contains(&format!("/{STRANGER}?"));
    running.fake.asked().iter().filter(is_alone).count()
}

fn in_bulk(running: &Running) -> usize {
    running.fake.asked().iter().filter(|head| head.contains("filter%5Bid%5D")).count()
}

/// Children are marked a portion at a time, and on a slow machine each portion is read before the next one is marked.
fn portions() -> usize {
    (CHILDREN as usize).div_ceil(crate::store::CHILDREN_A_STEP)
}

#[tokio::test]
async fn a_thousand_children_of_a_removed_parent_are_read_in_bulk_alone() {
    on_both(|store| async move {
        let gone_with_it: Answer = |by, keys| match by {
            "key" if keys != [STRANGER] => answer(404, "{}"),
            _ => records(by, &keys.iter().copied().filter(|key| *key == STRANGER).collect::<Vec<_>>()),
        };
        let removed = |fence: &Fence| {
            let announced = of_project(hint("p", Operation::Delete), "p");
            vec![announced, of_project(gone(fence.tick(), "p"), "p")]
        };
        let running = start(&store, gone_with_it, removed).await;
        let deleted = "select count(*) as v from instep_change where resource = 'tasks' and operation = 'delete'";
        running.until("all of them are removed", deleted, "1000").await;
        running.until("no mark is left", "select count(*) as v from instep_mark where resource = 'tasks'", "0").await;
        assert_eq!(alone(&running), 0, "{:#?}", running.fake.asked());
        assert!(in_bulk(&running) <= 2 * portions() + 6, "{} bulk reads for {CHILDREN} children", in_bulk(&running));
        let unannounced = store.removals_since(&name(), &tasks(), Timestamp(0)).await.expect("count");
        assert_eq!(unannounced, 0, "the parent's delete was announced");
        running.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_children_of_a_parent_that_vanished_spend_the_budget() {
    on_both(|store| async move {
        let gone_with_it: Answer = |by, keys| match by {
            "key" if keys != [STRANGER] => answer(404, "{}"),
            _ => records(by, &keys.iter().copied().filter(|key| *key == STRANGER).collect::<Vec<_>>()),
        };
        let running = start(&store, gone_with_it, |fence| vec![of_project(gone(fence.tick(), "p"), "p")]).await;
        // A fifth of the 1,001 rows that there were before.
        running.until("the rest is held", "select count(*) as v from instep_mark where resource = 'tasks' and held", "800").await;
        assert_eq!(alone(&running), 0, "{:#?}", running.fake.asked());
        running.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_thousand_children_of_a_changed_parent_are_read_in_bulk_once() {
    on_both(|store| async move {
        let running = start(&store, records, |fence| vec![of_project(read(fence, "p", 2, "after"), "p")]).await;
        let updated = "select count(*) as v from instep_change where resource = 'tasks' and operation = 'update'";
        running.until("all of them are read", updated, "1000").await;
        running.until("no mark is left", "select count(*) as v from instep_mark", "0").await;
        assert_eq!(alone(&running), 0, "{:#?}", running.fake.asked());
        assert!(in_bulk(&running) <= portions() + 6, "{} bulk reads", in_bulk(&running));
        running.stop().await;
    })
    .await;
}
