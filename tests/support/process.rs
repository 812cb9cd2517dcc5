//! The binary under test as processes.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use super::canaries::Searcher;
use super::{api, eventually, mls, pim, universe};

/// The binary under test.
pub(crate) const INSTEP: &str = env!("CARGO_BIN_EXE_instep");

/// A process of ours; it is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command; what it writes on standard error is appended to `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("a log");
        let child = command.stdin(Stdio::piped()).stderr(file).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The running child's standard output, if it was piped.
    pub(crate) fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// The running child's standard input, by which fail points are set.
    #[cfg(feature = "failpoints")]
    pub(crate) fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// Ends it without a word, as a power cut would.
    pub(crate) fn kill(&mut self) {
        // One that has ended by itself cannot be killed, and that is what was wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal: `TERM`, `STOP`, …
    pub(crate) fn signal(&self, name: &str) {
        let script = format!("kill -{name} {}", self.pid());
        let sent = Command::new("sh").args(["-c", &script]).status().expect("a shell");
        assert!(sent.success(), "{script}");
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// Waits for its end.
    pub(crate) async fn exit_code(&mut self, deadline: Duration) -> Option<i32> {
        let status = eventually("the process ends", deadline, async || self.ended().ok_or_else(|| "it runs".to_owned())).await;
        status.code()
    }

    /// What it has written on standard error, from all its lives.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// A line of `/proc/<pid>/status` in KiB, such as `VmHWM`.
    pub(crate) fn memory_kib(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process runs");
        let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        value.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_else(|| panic!("no {line}"))
    }

    /// Makes the highest memory so far forget what was before.
    pub(crate) fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").expect("it is our process");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let said = self.said();
        if !std::thread::panicking() {
            // Every test of the suite is a test of this too.
            let productive = [("token", universe::READ_TOKEN), ("signature token", universe::TOKEN)];
            let applications = [("the portal's token", api::PORTAL), ("the reports' token", api::REPORTS)];
            let searcher = Searcher::new(productive.into_iter().chain(applications).chain(pim::SECRETS).chain(mls::SECRETS));
            let found = searcher.find(said.as_bytes());
            assert!(found.is_empty(), "{} holds {found:?}", self.log.display());
        } else {
            let lines: Vec<&str> = said.lines().collect();
            let tail = lines[lines.len().saturating_sub(30)..].join("\n");
            println!("--- {} ended with:\n{tail}", self.log.display());
        }
    }
}

/// Runs the binary to its end.
pub(crate) fn instep(arguments: &[&str], environment: &[(&str, &str)]) -> std::process::Output {
    Command::new(INSTEP).args(arguments).envs(environment.iter().copied()).stdin(Stdio::null()).output().expect("the binary runs")
}

/// A port that nobody uses, below those that the system gives to callers, so that it is still free after a restart.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 1_000) as u16 * 12;
    loop {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
