//! The service manager's ear: what the daemon tells it.

use std::cell::RefCell;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::eventually;

/// A socket for `NOTIFY_SOCKET`, and every line that came.
pub(crate) struct Notify {
    socket: UnixDatagram,
    path: PathBuf,
    heard: RefCell<Vec<String>>,
}

impl Notify {
    /// Listens at a path.
    pub(crate) fn at(path: PathBuf) -> Self {
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        Self { socket, path, heard: RefCell::default() }
    }

    /// Makes a command's process speak here.
    pub(crate) fn hears(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", &self.path).env_remove("WATCHDOG_PID");
    }

    /// Waits for a line that begins so, and answers with it.
    pub(crate) async fn wait(&self, beginning: &str, deadline: Duration) -> String {
        eventually(beginning, deadline, async || {
            let heard = self.heard();
            heard.iter().find(|line| line.starts_with(beginning)).cloned().ok_or_else(|| format!("{heard:?}"))
        })
        .await
    }

    /// Every line so far.
    pub(crate) fn heard(&self) -> Vec<String> {
        let (mut bytes, mut heard) = ([0; 1024], self.heard.borrow_mut());
        while let Ok(length) = self.socket.recv(&mut bytes) {
            heard.extend(String::from_utf8_lossy(&bytes[..length]).lines().map(str::to_owned));
        }
        heard.clone()
    }

    /// Forgets lines, so that the same one can be waited for again.
    pub(crate) fn forget(&self, line: &str) {
        self.heard.borrow_mut().retain(|heard| heard != line);
    }
}
