//! `owner`: claims the source's row and holds it.
//!
//! A claim raises the epoch: whoever wrote under the old one is fenced. The actors of the source wait until there is an owner.
//! When a write comes back fenced the source is given up; the owner claims it again only after a while, so that two processes
//! that were started on one database by mistake do not throw each other out at every write.

use std::sync::Arc;
use std::time::Duration;

use super::source::Source;
use crate::report::SourceFenced;
use crate::supervision::{Bug, ChildSpec, Context, Meltdown, Rest, Waker, Work, worker};

/// The claim is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After the store failed.
const RETRY: Duration = Duration::from_secs(1);
/// After somebody else took the source.
const FENCED_PAUSE: Duration = Duration::from_secs(30);

/// One claim, a transaction of the store, which ends within 15 s.
const STEP_BUDGET: Duration = Duration::from_secs(20);

/// The child spec. `owner` names this process for people.
pub fn spec(source: Arc<Source>, owner: String) -> ChildSpec {
    worker("owner", Meltdown::Park, Duration::from_secs(2), Waker::default(), move || Owner {
        source: Arc::clone(&source),
        owner: owner.clone(),
        had: false,
    })
    .with_step_budget(STEP_BUDGET)
}

struct Owner {
    source: Arc<Source>,
    owner: String,
    had: bool,
}

impl Work for Owner {
    async fn step(&mut self, _: &Context) -> Result<Rest, Bug> {
        if self.source.fence_now().is_some() {
            return Ok(Rest::For(LOOK_EVERY));
        }
        if self.had {
            self.had = false;
            self.source.reporter.emit(SourceFenced { source: self.source.name.to_string() });
            return Ok(Rest::For(FENCED_PAUSE));
        }
        match self.source.store.claim(&self.source.name, &self.owner).await {
            Ok(fence) => {
                self.had = true;
                self.source.own(Some(fence));
                Ok(Rest::For(LOOK_EVERY))
            }
            // The store's state is reported by the journal; here it is only waited for.
            Err(_) => Ok(Rest::For(RETRY)),
        }
    }
}
