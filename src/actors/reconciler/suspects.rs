//! The end of a sweep: live rows that it did not meet.
//!
//! They are counted first. Of many a sample is read first: where most of it is alive, the list is incomplete (a permission, a
//! filter, a page that moved) and none of its silence counts. Else all become marks, which are read in bulk, singly only what is
//! then still missing, and removed within the budget.

use super::Reconciler;
use crate::connectors::ResourceSpec;
use crate::model::ordering::By;
use crate::quota::Class;
use crate::reconcile::{SampleVerdict, judge_sample};
use crate::store::{Error, Fence, LearnedBy, Pass};
use crate::supervision::Context;

/// Fewer suspects than this are simply marked: reading them is no more than the sample would be.
const SAMPLE: u64 = 20;

impl Reconciler {
    /// Marks what the sweep did not meet; says why not, where its silence does not count.
    pub(super) async fn suspect(&mut self, cx: &Context, fence: &Fence, spec: &ResourceSpec, pass: &Pass) -> Result<Option<String>, Error> {
        let source = &self.source;
        let n_suspects = source.store.count_suspects(&source.name, pass).await?;
        if n_suspects > 0 && n_suspects == source.store.live_rows(&source.name, &spec.name).await? {
            return Ok(Some(format!("the list shows none of the {n_suspects} records that there were")));
        }
        if n_suspects > SAMPLE {
            let keys = source.store.sample_suspects(&source.name, pass, SAMPLE).await?;
            let (mut n_alive, mut n_gone) = (0, 0);
            for key in &keys {
                match source.ask_key(cx, fence, Class::Sweep, spec, key).await {
                    Ok((page, started)) => {
                        // A list may well leave out what the source is not to hold.
                        let is_outside = page.records.iter().flatten().any(|record| record.key == *key && !record.in_scope);
                        *(if is_outside { &mut n_gone } else { &mut n_alive }) += 1;
                        let seen = crate::actors::sync::observed(&spec.name, By::Key, page, started);
                        source.apply(fence, LearnedBy::Pass, seen).await?;
                    }
                    Err((super::AskError::Read(super::ReadError::NotFound), _)) => n_gone += 1,
                    Err(_) => {}
                }
            }
            match judge_sample(keys.len(), n_alive, n_gone) {
                SampleVerdict::Proceed => {}
                SampleVerdict::ListIncomplete => {
                    return Ok(Some(format!("the list is incomplete: {n_alive} of {} sampled missing records are alive", keys.len())));
                }
                SampleVerdict::Undecided => return Ok(Some("a sample of the missing records could not be read".to_owned())),
            }
        }
        if n_suspects > 0 {
            source.store.mark_suspects(fence, pass).await?;
            source.wake([&spec.name]);
        }
        Ok(None)
    }
}
