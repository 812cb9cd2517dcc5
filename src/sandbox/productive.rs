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

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;

pub use self::options::{Faults, Options, OverCap, Plan};
use self::state::State;
use super::{dice, faults, wire};
use crate::clock::Clock;

/// Why a sandbox could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port is taken or may not be used.
    #[error("cannot listen: {0}")]
    Listen(#[from] std::io::Error),
    /// The client for deliveries could not be made.
    #[error("cannot make the client for deliveries: {0}")]
    Client(#[from] reqwest::Error),
}

/// Serves a fake organisation on `listener`. Ends only when dropped; everything it spawned ends with it.
pub async fn serve(options: Options, listener: TcpListener) -> Result<(), Error> {
    let state = State::new(options, Clock::system())?;
    let _stop_when_dropped = state.stop.clone().drop_guard();
    run(state, listener).await;
    Ok(())
}

/// A running sandbox; it ends when this is dropped.
#[derive(Debug)]
pub struct Handle {
    /// Where it listens: the root of `/api/v2/` and `/__sandbox/`.
    pub addr: SocketAddr,
    state: Arc<State>,
}

impl Handle {
    /// Ends the sandbox and waits until its tasks are gone.
    pub async fn stop(self) {
        self.state.stop.cancel();
        self.state.tasks.close();
        self.state.tasks.wait().await;
    }

    /// `http://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.state.stop.cancel();
    }
}

/// Starts a sandbox on the loopback address and `options.port`, inside the current runtime.
pub async fn start(options: Options) -> Result<Handle, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
    let addr = listener.local_addr()?;
    let state = State::new(options, Clock::system())?;
    state.tasks.spawn(run(Arc::clone(&state), listener));
    Ok(Handle { addr, state })
}

async fn run(state: Arc<State>, listener: TcpListener) {
    state.tasks.spawn(hooks::dispatch(Arc::clone(&state)));
    server::accept(state, listener).await;
}
