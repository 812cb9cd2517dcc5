//! A fake RESO producer: OData over the Data Dictionary, the log of EntityEvents, and its push (RCP-28), after the standard.
//!
//! - `/odata/…` is what a client sees: `$metadata`, collections, single records, `EntityEvent`. It may only read.
//! - `/oauth2/token` hands out tokens by client credentials; `POST /resume` resumes a push that has stopped.
//! - A request with the header `X-Sandbox-Observer: 1` sees the true state, outside of tokens, limits, faults and counts.
//! - `/__sandbox/…` changes the records, sets faults and tells what happened: `churn`, `changes`, `faults`, `report`, `tamper`,
//!   `create`, `update`, `delete`, `restore`, `push`, `tokens`, `compact`, `quiesce`.
//!
//! What the standard leaves open is chosen here and marked where it is: the path of the resumption, for example.

mod changes;
mod churn;
mod control;
mod events;
mod filter;
mod limits;
mod list;
mod metadata;
mod oauth;
mod options;
mod push;
mod query;
mod resource;
mod retry_after;
mod seed;
mod server;
mod state;
mod world;

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::net::TcpListener;

pub use self::options::{Faults, NextLinks, Options, Profile};
use self::state::State;
use crate::clock::Clock;
use crate::sandbox::handle::root;
use crate::sandbox::{Error, Handle};

/// Serves a fake producer on `listener`. Ends only when dropped; everything it spawned ends with it.
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
    state.tasks.spawn(push::dispatch(Arc::clone(&state)));
    state.tasks.spawn(events::compact_now_and_then(Arc::clone(&state)));
    server::accept(state, listener).await;
}
