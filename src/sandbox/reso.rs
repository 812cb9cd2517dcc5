//! A fake RESO producer: OData over the Data Dictionary, the log of EntityEvents, and its push (RCP-28), after the standard.
//!
//! - `/odata/…` is what a client sees: `$metadata`, collections, single records, `EntityEvent`. It may only read.
//! - `/oauth2/token` hands out tokens by client credentials; `POST /resume` resumes a push that has stopped.
//! - A request with the header `X-Sandbox-Observer: 1` sees the true state, outside of tokens, limits, faults and counts.
//! - `/__sandbox/…` changes the records, sets faults and tells what happened: `churn`, `changes`, `faults`, `report`, `tamper`,
//!   `create`, `update`, `delete`, `restore`, `push`, `compact`, `quiesce`.
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

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;

pub use self::options::{Faults, NextLinks, Options, Profile};
use self::state::State;
use crate::clock::Clock;

/// Why a sandbox could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port is taken or may not be used.
    #[error("cannot listen: {0}")]
    Listen(#[from] std::io::Error),
    /// The client for pushes could not be made.
    #[error("cannot make the client for pushes: {0}")]
    Client(#[from] reqwest::Error),
}

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

/// A running sandbox; it ends when this is dropped.
#[derive(Debug)]
pub struct Handle {
    /// Where it listens: the root of `/odata/`, `/oauth2/` and `/__sandbox/`.
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
        root(self.addr)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.state.stop.cancel();
    }
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
    Ok(Handle { addr, state })
}

fn root(addr: SocketAddr) -> String {
    format!("http://{addr}")
}

async fn run(state: Arc<State>, listener: TcpListener) {
    state.tasks.spawn(push::dispatch(Arc::clone(&state)));
    state.tasks.spawn(events::compact_now_and_then(Arc::clone(&state)));
    server::accept(state, listener).await;
}
