//! `janitor`: retention, checkpoints, sizes.
//!
//! A run removes at most 5 % of a table. It stops while the wall clock and the monotonic one disagree by more than an hour:
//! a clock that leapt a year ahead must not empty the tables.

use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::report::{Reporter, RowsExpired, StoreBytes};
use crate::store::{RetentionOptions, Store};
use crate::supervision::{Bug, ChildSpec, Context, Meltdown, Rest, Waker, Work, worker};

/// Time between runs.
const EVERY: Duration = Duration::from_secs(60);
/// A wall clock that moved by more than this against the monotonic one since the last run is not believed.
const LEAP: Duration = Duration::from_secs(3600);

/// What the actor is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// The store.
    pub store: Store,
    /// How long and how much is kept.
    pub retention: RetentionOptions,
    /// The clock.
    pub clock: Clock,
    /// Where removals are reported.
    pub reporter: Reporter,
}

/// The child spec.
pub fn spec(options: Options) -> ChildSpec {
    worker("janitor", Meltdown::Park, Duration::from_secs(3), Waker::default(), move || Janitor { options: options.clone(), last: None })
}

struct Janitor {
    options: Options,
    /// Wall and monotonic time of the last run.
    last: Option<(Timestamp, Duration)>,
}

impl Work for Janitor {
    async fn step(&mut self, cx: &Context) -> Result<Rest, Bug> {
        cx.life.allow(Duration::from_secs(600));
        let clock = self.options.clock;
        let (now, monotonic) = (clock.now(), clock.monotonic());
        let before = self.last.replace((now, monotonic));
        let leapt = before.is_some_and(|(wall, at)| {
            let expected = wall.plus(monotonic.saturating_sub(at));
            now.since(expected).max(expected.since(now)) > LEAP
        });
        if leapt {
            tracing::warn!("the wall clock leapt; nothing is purged in this run");
            return Ok(Rest::For(EVERY));
        }
        // A store that is away is the journal's to report; the next run finds the same rows.
        if let Ok(purged) = self.options.store.purge(&self.options.retention, now).await {
            for (table, rows) in purged.rows {
                self.options.reporter.emit(RowsExpired { table: table.to_owned(), rows });
            }
        }
        // As above.
        let _ = self.options.store.checkpoint().await;
        if let Ok(sizes) = self.options.store.sizes().await {
            for size in sizes {
                if let Some(bytes) = size.bytes {
                    self.options.reporter.set(StoreBytes { file: size.name }, bytes as f64);
                }
            }
        }
        Ok(Rest::For(EVERY))
    }
}
