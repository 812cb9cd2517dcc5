//! What cannot be read is set aside alone, and nothing waits for it.

use std::time::Duration;

use futures_util::StreamExt as _;

use crate::support::universe::about_task;
use crate::support::{Database, Setup, Universe, on_both};

on_both!(one_poison_among_a_thousand_is_quarantined_alone);

async fn one_poison_among_a_thousand_is_quarantined_alone(database: Database) {
    const SENT: usize = 1_000;
    const POISON: usize = 500;
    let mut universe = Universe::started(database, &Setup::default()).await;
    let keys = universe.sandbox.keys("tasks").await;
    let body = |number: usize| match number {
        // Deep enough to exhaust the stack of whoever reads it by recursion.
        POISON => "[".repeat(500_000),
        _ => about_task(&keys[number % keys.len()], &format!("delivery {number}")),
    };
    let sent = futures_util::stream::iter(0..SENT).map(|number| {
        let (universe, body) = (&universe, body(number));
        async move { universe.deliver("task-updated", &body).await }
    });
    let answers: Vec<_> = sent.buffer_unordered(16).collect().await;
    assert!(answers.iter().all(|answer| *answer == Ok(200)), "each is acknowledged");
    universe.idle(Duration::from_secs(60)).await;
    let states = universe.database.rows("select state, count(*) as n from instep_delivery group by state", &["state", "n"]).await;
    let mut states: Vec<(String, String)> =
        states.into_iter().map(|row| (row[0].clone().unwrap_or_default(), row[1].clone().unwrap_or_default())).collect();
    states.sort();
    println!("poison {:?}: {states:?}", universe.database.engine);
    assert_eq!(states, [("done".to_owned(), "999".to_owned()), ("quarantined".to_owned(), "1".to_owned())]);
    assert_eq!(universe.database.number("select count(*) as n from instep_quarantine").await, 1);
    assert!(universe.daemon().ended().is_none(), "the daemon lives");
}
