//! `janitor`: retention, checkpoints, sizes.
//!
//! A run removes at most 5 % of a table, and nothing while the wall clock is more than an hour away from where the machine's uptime
//! says it should be: a clock that leapt a year ahead must not empty the tables, neither now nor after a restart. A wall clock that
//! keeps its new time for a day is believed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::source::Source;
use super::{home, meter};
use crate::clock::{Anchors, Clock};
use crate::report::{ReaderOverlong, ReaderSeconds, Reporter, RowsExpired, SettingRisky, StoreBytes};
use crate::store::{LongReader, RetentionOptions, Store};
use crate::supervision::{Bug, ChildSpec, Context, Meltdown, Rest, Waker, Work, worker};

/// Time between checkpoints: a WAL that grows for longer than this makes the next one long.
const EVERY: Duration = Duration::from_secs(10);
/// Time between measurings of the gauges.
const MEASURE_EVERY: Duration = Duration::from_secs(30);
/// Time between purges.
const PURGE_EVERY: Duration = Duration::from_secs(60);
/// Time between countings of the tables, which read their indexes.
const SIZES_EVERY: Duration = Duration::from_secs(600);
/// A wall clock that was set by more than this is not believed.
const LEAP_MICROS: u64 = 3_600_000_000;
/// A wall clock that was set is believed after this time.
const BELIEVED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// What the actor is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// The store.
    pub store: Store,
    /// Whose gauges are measured.
    pub sources: Vec<Arc<Source>>,
    /// How long and how much is kept.
    pub retention: RetentionOptions,
    /// How long a reader may keep a transaction open before it is told of.
    pub reader_max: Duration,
    /// Where it is told.
    pub overlong: Overlong,
    /// The clock.
    pub clock: Clock,
    /// Where the wall clock's anchors are kept.
    pub anchors: PathBuf,
    /// Where it stands how far the database has come.
    pub reached: PathBuf,
    /// Where removals are reported.
    pub reporter: Reporter,
}

/// For how many seconds a reader has held the store back, once that is longer than allowed.
#[derive(Clone, Debug, Default)]
pub struct Overlong(Arc<AtomicU64>);

impl Overlong {
    /// `None` while no reader does.
    #[must_use]
    pub fn seconds(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|seconds| *seconds > 0)
    }
}

/// The child spec.
pub fn spec(options: Options) -> ChildSpec {
    worker("janitor", Meltdown::Park, Duration::from_secs(3), Waker::default(), move || Janitor {
        options: options.clone(),
        measured_at: None,
        purged_at: None,
        sized_at: None,
        reader: LongReader::default(),
    })
}

struct Janitor {
    options: Options,
    measured_at: Option<Duration>,
    purged_at: Option<Duration>,
    sized_at: Option<Duration>,
    reader: LongReader,
}

impl Work for Janitor {
    async fn step(&mut self, cx: &Context) -> Result<Rest, Bug> {
        cx.life.allow(Duration::from_secs(600));
        let clock = self.options.clock;
        let (now, monotonic) = (clock.now(), clock.monotonic());
        let is_believed = self.is_believed();
        if is_due(&mut self.measured_at, MEASURE_EVERY, monotonic) {
            for source in &self.options.sources {
                meter::measure(source, now).await;
            }
        }
        // A store that is away is the journal's to report; the next run finds the same rows.
        if is_believed
            && is_due(&mut self.purged_at, PURGE_EVERY, monotonic)
            && let Ok(purged) = self.options.store.purge(&self.options.retention, now).await
        {
            for (table, rows) in purged.rows.into_iter().filter(|(_, rows)| *rows > 0) {
                self.options.reporter.emit(RowsExpired { table: table.to_owned(), rows });
            }
        }
        home::note_reached(&self.options.store, &self.options.reached).await;
        // As above.
        let _ = self.options.store.checkpoint().await;
        self.look_at_readers().await;
        self.options.reporter.set(StoreBytes { file: "wal".into() }, self.options.store.wal_bytes() as f64);
        if self.sized_at.is_none()
            && let Ok(risky) = self.options.store.risky_settings().await
        {
            for (setting, risk) in risky {
                self.options.reporter.emit(SettingRisky { setting, risk: risk.to_owned() });
            }
        }
        if is_due(&mut self.sized_at, SIZES_EVERY, monotonic)
            && let Ok(sizes) = self.options.store.sizes().await
        {
            for size in sizes {
                if let Some(bytes) = size.bytes {
                    self.options.reporter.set(StoreBytes { file: size.name }, bytes as f64);
                }
            }
        }
        Ok(Rest::For(EVERY))
    }
}

impl Janitor {
    /// A reader that keeps a transaction open stops checkpoints and vacuum.
    async fn look_at_readers(&mut self) {
        // As for the purge: a store that is away is looked at again in the next run.
        let Ok(held) = self.options.store.held_back().await else { return };
        let span = self.reader.saw(held, self.options.clock.monotonic());
        self.options.reporter.set(ReaderSeconds {}, span.as_secs_f64());
        let seconds = if span > self.options.reader_max { span.as_secs().max(1) } else { 0 };
        if self.options.overlong.0.swap(seconds, Ordering::Relaxed) == 0 && seconds > 0 {
            self.options.reporter.emit(ReaderOverlong { seconds: span.as_secs_f64() });
        }
    }

    /// Whether the wall clock may be believed; notes where it stands. What was believed stays while the clock is elsewhere.
    fn is_believed(&self) -> bool {
        let Some(now) = self.options.clock.anchor() else { return true };
        let kept = Anchors::load(&self.options.anchors).map(|anchors| anchors.believed);
        let kept = kept.filter(|anchor| now.passed_since(anchor).is_some_and(|age| age < BELIEVED_AFTER));
        let set = kept.as_ref().and_then(|anchor| now.set_since(anchor)).unwrap_or(0);
        let believed = kept.filter(|_| set != 0).unwrap_or_else(|| now.clone());
        if let Err(error) = (Anchors { believed, last: now }).store(&self.options.anchors) {
            tracing::debug!(%error, "where the clock stands cannot be written down");
        }
        let is_believed = set.unsigned_abs() <= LEAP_MICROS;
        if !is_believed {
            tracing::warn!(seconds = set / 1_000_000, "the wall clock leapt; nothing is purged until it is back, or a day has passed");
        }
        is_believed
    }
}

/// Whether `every` has passed since `last`, which is then now.
fn is_due(last: &mut Option<Duration>, every: Duration, now: Duration) -> bool {
    let due = last.is_none_or(|at| now.saturating_sub(at) >= every);
    if due {
        *last = Some(now);
    }
    due
}
