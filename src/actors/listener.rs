//! `listener`, `admin` and `api`: the sockets, each an accept loop that ends when it is told to.
//!
//! The sockets are bound before the tree starts and outlive any incarnation, so a restart loses nobody who waits in the backlog.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use crate::http::hooks::Hooks;
use crate::http::{Routes, edge};
use crate::supervision::{Bug, ChildSpec, Context, Meltdown, Rest, Waker, Work, worker};

/// After the drain, deliveries without a caller get this long to be stored.
const SETTLE: Duration = Duration::from_secs(2);
/// The standard library asks the kernel to queue 128 connections; a burst above that makes callers wait for a second and more, until
/// their system sends its SYN again. The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// The accept loop shows itself every second, and does nothing that could take longer.
const SILENCE: Duration = Duration::from_secs(10);

/// What the actor is made of.
#[derive(Clone)]
pub struct Options {
    /// `listener`, `admin` or `api`.
    pub id: &'static str,
    /// The bound socket.
    pub socket: Arc<TcpListener>,
    /// What it answers.
    pub routes: Routes,
    /// What may still be at work when the socket has drained: deliveries whose callers hung up.
    pub hooks: Option<Hooks>,
    /// Its limits.
    pub edge: edge::Options,
    /// What happens when it fails too often.
    pub meltdown: Meltdown,
}

/// The child spec. The stop deadline covers the drain.
pub fn spec(options: Options) -> ChildSpec {
    let deadline = options.edge.drain_deadline + SETTLE + Duration::from_secs(2);
    worker(options.id, options.meltdown, deadline, Waker::default(), move || Socket { options: options.clone() }).with_step_budget(SILENCE)
}

struct Socket {
    options: Options,
}

impl Work for Socket {
    async fn step(&mut self, cx: &Context) -> Result<Rest, Bug> {
        let socket = self.options.socket.try_clone()?;
        socket.set_nonblocking(true)?;
        // Listening again only changes the length of the queue.
        nix::sys::socket::listen(&socket, nix::sys::socket::Backlog::new(BACKLOG)?)?;
        let socket = tokio::net::TcpListener::from_std(socket)?;
        let life = Arc::clone(&cx.life);
        let sign: edge::Sign = Arc::new(move || life.allow(SILENCE));
        edge::serve(socket, self.options.routes.clone(), self.options.edge.clone(), sign, cx.stopping.clone()).await;
        if let Some(hooks) = &self.options.hooks {
            // Bounded by our own stop deadline; what is not stored by then was not acknowledged.
            let _ = tokio::time::timeout(SETTLE, hooks.settled()).await;
        }
        Ok(Rest::For(Duration::from_secs(60)))
    }
}
