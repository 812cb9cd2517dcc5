//! A sandbox that runs inside the current process.

use std::net::SocketAddr;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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

/// A running sandbox; it ends when this is dropped.
#[derive(Debug)]
pub struct Handle {
    /// Where it listens: the root of its API and of `/__sandbox/`.
    pub addr: SocketAddr,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Handle {
    /// Ends the sandbox and waits until its tasks are gone.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// `http://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        root(self.addr)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The root of what listens there.
pub(super) fn root(addr: SocketAddr) -> String {
    format!("http://{addr}")
}
