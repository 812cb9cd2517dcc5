//! A fake Akeneo PIM: its REST API, the Events API and the Event Platform, after the vendor's contract.
//!
//! - `/api/…` is what a client sees: tokens, lists, single reads. It may only read; any other write is counted as a violation.
//! - `/event-platform/api/v1/…` manages subscribers and subscriptions of the Event Platform.
//! - A request with the header `X-Sandbox-Observer: 1` sees the true state, outside of tokens, limits, faults and counts.
//! - `/__sandbox/…` changes the PIM, sets faults and tells what happened: `churn`, `changes`, `faults`, `report`, `tamper`,
//!   `create`, `update`, `delete`, `restore`, `subscription`, `revoke`, `quiesce`.
//!
//! What the contract leaves open is chosen here and marked where it is: answers of the management API, for example.

mod acks;
mod changes;
mod churn;
mod cloud_event;
mod control;
mod couriers;
mod coverage;
mod events_api;
mod invent;
mod limits;
mod list;
mod management;
mod moment;
mod oauth;
mod options;
mod platform;
mod query;
mod render;
mod resource;
mod route;
mod seed;
mod server;
mod signature;
mod state;
mod subscribe;
mod world;

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::net::TcpListener;

pub use self::options::{Faults, Options};
use self::state::State;
use crate::clock::Clock;
use crate::sandbox::handle::root;
use crate::sandbox::{Error, Handle};

/// Serves a fake PIM on `listener`. Ends only when dropped; everything it spawned ends with it.
///
/// # Errors
/// When the listener has no address or no client can be made.
pub async fn serve(options: Options, listener: TcpListener) -> Result<(), Error> {
    let state = State::new(options, Clock::system(), root(listener.local_addr()?))?;
    let _stop_when_dropped = state.stop.clone().drop_guard();
    run(state, listener).await;
    Ok(())
}

/// Starts a sandbox on the loopback address and `options.port`, inside the current runtime.
///
/// # Errors
/// When the port is taken or no client can be made.
pub async fn start(options: Options) -> Result<Handle, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
    let addr = listener.local_addr()?;
    let state = State::new(options, Clock::system(), root(addr))?;
    state.tasks.spawn(run(Arc::clone(&state), listener));
    Ok(Handle { addr, stop: state.stop.clone(), tasks: state.tasks.clone() })
}

async fn run(state: Arc<State>, listener: TcpListener) {
    state.tasks.spawn(events_api::dispatch(Arc::clone(&state)));
    state.tasks.spawn(couriers::dispatch(Arc::clone(&state)));
    server::accept(state, listener).await;
}
