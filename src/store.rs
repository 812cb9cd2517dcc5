//! The one room that talks to the database: SQLite or PostgreSQL, the same code.
//!
//! Every write is one transaction that either holds as a whole or left nothing behind. Whatever belongs to a source's subtree
//! begins with the row lock on the source ([`Fence`]): that lock is fence, number allocator, serialiser and commit order.
//! The journal goes first: it has its own connection on PostgreSQL and precedence at the writer on SQLite.
//!
//! Architecture invariant: only this room imports sea-orm. Internal tables (`instep_*`) are no interface; the views are.

mod answers;
mod apply;
mod cascade;
mod connect;
mod coverage;
mod deliveries;
mod error;
mod feeds;
mod fence;
mod files;
mod gaps;
mod held;
mod history;
mod homes;
mod invitations;
mod logs;
mod marks;
mod passes;
mod permits;
mod quarantine;
pub mod reader;
mod readers;
mod reads;
mod registrations;
mod removals;
mod retention;
mod rows;
mod sql;
mod status;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod told;
mod trust;
mod views;
mod wishes;

pub use answers::AnswerCount;
pub use apply::{Applied, Batch, Conflict, DeliveryEnd, LearnedBy, Observed, ResourceRules, What};
#[cfg(test)]
pub(crate) use cascade::CHILDREN_A_STEP;
pub use cascade::Walked;
pub use connect::{Engine, Options, Store};
pub use coverage::{Coverage, Covered, Lead};
pub use deliveries::{Backlog, Journaled, PendingDelivery};
pub use error::{Error, Kind};
pub use feeds::{FeedCursor, FeedStep};
pub use fence::Fence;
pub use gaps::{DISCARDED, Gap, OPERATOR, OPERATOR_SWEEP};
pub use held::{Fates, Held};
pub use history::{Changed, Entry, Happened, History, OpenMark, StoredRow, Told};
pub use homes::{Arrival, RESTORED, Reached};
pub use invitations::{INVITATIONS_MAX, Invited, StoredInvitation};
pub use logs::{FEED_BEGAN_LATE, LOG_RESTARTED, LogLoss, LogStep, SEQUENCE_CONFLICT};
pub use marks::{DueMark, MarkReason};
pub use passes::{NewPass, Pass, PassEnd, PassKind, PassPosition, PassStep, Progress};
pub use quarantine::{QuarantineKind, Quarantined, QuarantinedBody};
pub use readers::{HeldBack, LongReader};
pub use registrations::StoredRegistration;
pub use retention::{Purged, RetentionOptions, TableSize};
pub use status::{Replica, ResourceStatus, SourceStatus};
pub use told::Change;
pub use wishes::{PassNews, Wish};
