//! Rate limits that cannot be exceeded: limits, permits and what is durable of them. Pure: time is a parameter of every call.
//!
//! # The proof
//! A server stamps a request at some instant between our send and our receive. A permit is taken before the send and comes back one
//! window after the response arrived. Take any window of the server, sliding, fixed or aligned, and the last request in it that we
//! sent: when its permit was granted, the permit of every other request stamped in that window was still held, because none of them
//! had its response a whole window ago. So their number was at most what one window allows. A request without a verdict (timeout,
//! reset, kill) may lie in the server's queue; its permit comes back [`Limits::max_server_queue`] later than that.
//!
//! # What survives a kill
//! Permits are booked in **blocks** of at most 5 % of a limit, written to the database *before* a permit of theirs is used
//! ([`Limiter::bookings`], [`Limiter::booked`]). The budget itself is counted exactly, in memory; a block is the durable upper bound
//! of what was used. At a start every block found counts as spent in full ([`Limiter::restore`]): a finished one until one window
//! after its last response, an unfinished one as if its last request was lost at that start. A kill can therefore never lead to more
//! than the limit. What it wastes of it, how a process that is killed again and again keeps that small, and what part of a share can
//! be had at all is said and proved in `src/quota/blocks.rs`.
//!
//! # How an actor uses it
//! ```text
//! acquire ─ Granted(id) ─ send the request ─┬─ response: settle(id, outcome); 429: also refused(…); 503: also unavailable(…)
//!    │                                      ├─ no verdict: lost(id)
//!    │                                      └─ never sent: unused(id)
//!    ├─ NeedsBlock ─ bookings → one transaction → booked ─ acquire again
//!    └─ Wait { until } ─ acquire again at `until`, and after every settle
//! after every end, when news_due(): bookings → one transaction → booked
//! at an ordered end: close() → one transaction → booked
//! ```

mod account;
mod blocks;
mod breaker;
pub mod headers;
mod limiter;
mod limits;
mod refresh;
#[cfg(test)]
mod simulation;
mod span;
#[cfg(test)]
mod tests;

pub use blocks::{BlockId, BlockRequest, Bookings, FinishedBlock, StoredBlock};
pub use breaker::{Breaker, BreakerOptions, Gate, State};
pub use limiter::{Decision, LimitState, Limiter, Outcome, PermitId, Reason, Snapshot};
pub use limits::{Class, Concurrency, Expected, InvalidLimits, Limit, Limits, QuotaShare, Shape, Unit};
pub use refresh::RefreshShare;
