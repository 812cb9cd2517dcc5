//! How long a healthy source takes from hook to row.

use std::time::Duration;

use serde_json::json;

use super::universe::about_task;
use super::{Universe, eventually, monotonic};

/// How long changes of tasks take from hook to row, in seconds, one after the other for so long; `word` makes them unlike others.
/// `next` is carried from call to call: who goes on where the last one stopped asks for no record again while it rests.
pub(crate) async fn latencies(universe: &Universe, span: Duration, word: &str, next: &mut usize) -> Vec<f64> {
    let (begun, keys, mut found) = (monotonic(), universe.sandbox.keys("tasks").await, Vec::new());
    while monotonic() < begun + span {
        let number = *next;
        *next += 1;
        let key = &keys[number % keys.len()];
        let title = format!("{word} {number}");
        universe.sandbox.change_silently("tasks", key, json!({ "title": title })).await;
        let sent = monotonic();
        universe.deliver_surely("task-updated", &about_task(key, &title)).await;
        let sql = format!("select count(*) as n from pmp_tasks where key = '{key}' and title = '{title}'");
        eventually("the change shows", Duration::from_secs(60), async || match universe.database.try_number(&sql).await? {
            1 => Ok(()),
            _ => Err(title.clone()),
        })
        .await;
        found.push((monotonic() - sent).as_secs_f64());
    }
    found
}

/// The sample that so large a share is not above.
pub(crate) fn percentile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1]
}
