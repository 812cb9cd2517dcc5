//! systemd: readiness, status, watchdog, and sockets that were opened before us. The only user of sd-notify and listenfd.
//!
//! Without systemd (no `NOTIFY_SOCKET`) every message is a no-op. A message that cannot be sent is no reason to fail; it is logged.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

/// The scheme of a listen address that means an inherited socket: `systemd:hooks`.
const INHERITED: &str = "systemd:";

/// Start-up is complete: configuration read, store migrated, tree up, listener accepting.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// One line about the state, shown by `systemctl status`.
pub fn status(status: &str) {
    notify(&[NotifyState::Status(&one_line(status))]);
}

/// The first thing to say after SIGTERM.
pub fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))]);
}

/// A reload begins; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "no monotonic clock for systemd"),
    }
}

/// A sign of life. To be sent every [`watchdog_interval`], and only while what matters is alive.
pub fn watchdog() {
    notify(&[NotifyState::Watchdog]);
}

/// Starting or stopping goes on for at most `span` from now; to be repeated while it does.
pub fn extend_timeout(span: Duration) {
    let micros = u32::try_from(span.as_micros()).unwrap_or(u32::MAX);
    notify(&[NotifyState::ExtendTimeoutUsec(micros)]);
}

/// How often [`watchdog`] is due: a third of `WatchdogSec=`. None when systemd does not wait for it.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|span| span / 3)
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd was not told");
    }
}

/// A line break would begin a new assignment in systemd's protocol.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// The name of the inherited socket that a listen address asks for: `hooks` of `systemd:hooks`.
#[must_use]
pub fn inherited_name(address: &str) -> Option<&str> {
    address.strip_prefix(INHERITED)
}

/// Why an inherited socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum InheritedError {
    /// Nothing was passed under that name; `FileDescriptorName=` of the socket unit gives it.
    #[error("no socket named {0:?} was inherited")]
    Missing(String),
    /// It is not a listening TCP socket, or cannot be used without blocking.
    #[error("inherited socket {name:?}: {error}")]
    Unusable {
        /// The name asked for.
        name: String,
        /// What the system says.
        error: io::Error,
    },
}

/// The sockets that systemd opened for us, by name.
///
/// listenfd turns descriptors into sockets without unsafe code of ours, but knows positions only; `LISTEN_FDNAMES` holds the names
/// in the same order.
pub struct Inherited {
    sockets: ListenFd,
    positions: HashMap<String, usize>,
}

impl Inherited {
    /// Takes what was inherited. To be called once and before any thread is started: listenfd removes the variables from the
    /// environment, so that children do not take the sockets for theirs.
    #[must_use]
    pub fn take() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let sockets = ListenFd::from_env();
        let positions = names.split(':').take(sockets.len()).enumerate().map(|(at, name)| (name.to_owned(), at)).collect();
        Self { sockets, positions }
    }

    /// The listening socket of that name, non-blocking as tokio needs it (a blocking one hangs the graceful stop).
    ///
    /// # Errors
    /// [`InheritedError`] when there is none, it was taken before, or it is no TCP socket.
    pub fn listener(&mut self, name: &str) -> Result<TcpListener, InheritedError> {
        let position = self.positions.remove(name).ok_or_else(|| InheritedError::Missing(name.to_owned()))?;
        let unusable = |error| InheritedError::Unusable { name: name.to_owned(), error };
        let taken = self.sockets.take_tcp_listener(position).map_err(unusable)?;
        let listener = taken.ok_or_else(|| InheritedError::Missing(name.to_owned()))?;
        listener.set_nonblocking(true).map_err(unusable)?;
        Ok(listener)
    }

    /// The names that were inherited and not taken, for a warning.
    #[must_use]
    pub fn untaken(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.positions.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;
    use std::process::{Command, Stdio};

    use super::*;

    /// Set in the process that a test starts: this test binary again, running the same test in the part of the daemon.
    const PART: &str = "INSTEP_TEST_PART";

    fn again(test: &str) -> String {
        let program = std::env::current_exe().expect("a test has a path");
        format!("exec '{}' --exact service::tests::{test} --nocapture", program.display())
    }

    #[test]
    fn systemd_hears_every_message() {
        if std::env::var_os(PART).is_some() {
            assert_eq!(watchdog_interval(), Some(Duration::from_secs(10)));
            ready("in step\nREADY=0");
            watchdog();
            extend_timeout(Duration::from_secs(2));
            reloading();
            stopping("draining");
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let ended = Command::new("sh")
            .args(["-c", &again("systemd_hears_every_message")])
            .env(PART, "1")
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "30000000")
            .env_remove("WATCHDOG_PID")
            .stdout(Stdio::null())
            .status()
            .expect("sh runs");
        assert!(ended.success());
        let hear = || {
            let mut bytes = [0; 512];
            let length = socket.recv(&mut bytes).expect("a message");
            String::from_utf8_lossy(&bytes[..length]).trim_end().to_owned()
        };
        assert_eq!(hear(), "READY=1\nSTATUS=in step READY=0");
        assert_eq!(hear(), "WATCHDOG=1");
        assert_eq!(hear(), "EXTEND_TIMEOUT_USEC=2000000");
        assert!(hear().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert_eq!(hear(), "STOPPING=1\nSTATUS=draining");
    }

    #[test]
    fn an_inherited_socket_is_found_by_its_name() {
        if std::env::var_os(PART).is_some() {
            let mut inherited = Inherited::take();
            assert!(matches!(inherited.listener("admin"), Err(InheritedError::Missing(_))));
            assert_eq!(inherited.untaken(), ["hooks"]);
            let listener = inherited.listener("hooks").expect("inherited");
            assert!(inherited.listener("hooks").is_err(), "taken twice");
            // Non-blocking: the caller is there already, so this accepts at once, and a second time would block.
            let (mut caller, _) = listener.accept().expect("a caller waits");
            caller.write_all(b"hello").expect("written");
            assert_eq!(listener.accept().map(drop).map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut caller = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let script = format!("exec 3<&0; LISTEN_PID=$$; export LISTEN_PID; {}", again("an_inherited_socket_is_found_by_its_name"));
        let ended = Command::new("sh")
            .args(["-c", &script])
            .env(PART, "1")
            .env("LISTEN_FDS", "1")
            .env("LISTEN_FDNAMES", "hooks")
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .status()
            .expect("sh runs");
        assert!(ended.success());
        let mut heard = String::new();
        caller.read_to_string(&mut heard).expect("read");
        assert_eq!(heard, "hello");
    }

    #[test]
    fn an_address_may_name_an_inherited_socket() {
        assert_eq!(inherited_name("systemd:hooks"), Some("hooks"));
        assert_eq!(inherited_name("127.0.0.1:8080"), None);
    }
}
