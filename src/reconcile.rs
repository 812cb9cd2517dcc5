//! What the reconciler decides, as pure functions: when a pass is due, from where it asks, when it may stop, what is missing after a
//! sweep, and how much of that may be removed.
//!
//! Instants here are either the upstream's (stamps, `Date`) or our wall clock's as rows keep it; neither orders states.

mod budget;
mod cost;
pub mod delay;
mod log;
mod offset;
mod plan;
mod sweep;
mod told;
mod tour;
mod watermark;

pub use budget::{Candidates, Control, Hold, Removal, RemovalBudget, Witness};
pub use cost::{Lists, left};
pub use log::{LogPage, LogPosition, LogProbe, LogShown, LogTurn, LogWalk, floor};
pub use offset::{Estimate, Offset};
pub use plan::{Gap, History, Next, PassKind, PassOutcome, Schedule, closes, next, repairing, sweep_not_before};
pub use sweep::{SAMPLE, SampleVerdict, judge_sample, sample, suspects};
pub use told::{Learned, Statements, Terms, Told};
pub use tour::Tour;
pub use watermark::{FUTURE_TOLERANCE, PassStamps, advance, lower_bound, page_is_older, watermark};

/// How a resource's changes are found by a pass between two sweeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The upstream filters by a stamp: ask for everything since the watermark.
    Watermark,
    /// It only sorts by one: read the newest first until a whole page is older than the lower bound.
    SortAndStop,
    /// Neither: only a sweep finds changes.
    Sweep,
}
