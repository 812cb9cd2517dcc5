//! Faithful fake upstreams over real HTTP, with faults, for `instep demo`, tests and benchmarks.
//!
//! A sandbox is judged against the vendor's contract, never against our reading of it: it imports nothing of this crate but
//! [`crate::clock`], so that a mistake made in `quota`, `connectors` or `reconcile` cannot repeat itself here.

mod control;
mod dice;
mod faults;
mod handle;
mod wire;

#[cfg(test)]
mod testing;

pub mod akeneo;
pub mod productive;
pub mod reso;

pub use handle::{Error, Handle};

/// Microseconds of milliseconds, saturating.
fn micros(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX / 1000).saturating_mul(1000)
}
