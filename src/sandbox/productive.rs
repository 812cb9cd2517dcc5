//! A fake Productive organisation: documents, paging, filters, limits, feeds and signed webhooks after the vendor's contract.
//!
//! - `/api/v2/…` is what a client sees. It may read, and register webhooks; any other write is counted as a violation.
//! - A request with the header `X-Sandbox-Observer: 1` sees the true state, outside of limits, faults and counts, and may ask for
//!   the linkage of all relations by `include=*`.
//! - `/__sandbox/…` changes the organisation, sets faults and tells what happened: `churn`, `changes`, `faults`, `report`,
//!   `tamper`, `create`, `update`, `delete`, `restore`, `quiesce`.
//!
//! What the contract leaves open is chosen here and marked where it is: verbs of deliveries of deleted records, for example.

mod catalog;
mod changes;
mod churn;
mod control;
mod hooks;
mod limits;
mod list;
mod moment;
mod options;
mod query;
mod registrations;
mod render;
mod seed;
mod server;
mod state;
mod world;

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::net::TcpListener;

pub use self::options::{Faults, Options, OverCap, Plan};
use self::state::State;
use super::{dice, faults, wire};
use crate::clock::Clock;
use crate::sandbox::{Error, Handle};

/// Serves a fake organisation on `listener`. Ends only when dropped; everything it spawned ends with it.
pub async fn serve(options: Options, listener: TcpListener) -> Result<(), Error> {
    let state = State::new(options, Clock::system())?;
    let _stop_when_dropped = state.stop.clone().drop_guard();
    run(state, listener).await;
    Ok(())
}

/// Starts a sandbox on the loopback address and `options.port`, inside the current runtime.
pub async fn start(options: Options) -> Result<Handle, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
    let addr = listener.local_addr()?;
    let state = State::new(options, Clock::system())?;
    state.tasks.spawn(run(Arc::clone(&state), listener));
    Ok(Handle { addr, stop: state.stop.clone(), tasks: state.tasks.clone() })
}

async fn run(state: Arc<State>, listener: TcpListener) {
    state.tasks.spawn(hooks::dispatch(Arc::clone(&state)));
    server::accept(state, listener).await;
}
