//! The processes and files of a trial. All of them end with the value that holds them.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::Error;

/// Name of the daemon's log in a trial's directory.
pub(super) const DAEMON_LOG: &str = "daemon.log";
/// A process that says its address does so as soon as it listens.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A directory of a trial's own, removed when dropped unless it is to be kept.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    keep: bool,
}

impl Directory {
    /// Makes one in the system's place for temporary files.
    pub(super) fn new(name: &str, keep: bool) -> Result<Self, Error> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = std::env::temp_dir().join(format!("instep-demo-{}-{name}", uuid::Uuid::now_v7().simple()));
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| Error::io(&path, &error))?;
        Ok(Self { path, keep })
    }

    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.path.join(name);
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| Error::io(&path, &error))?;
        Ok(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed stays for the system's own cleaning.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Two ports of the loopback address that are free now.
pub(super) fn free_ports() -> Result<[u16; 2], Error> {
    let failed = |error: std::io::Error| Error::Process(format!("no free port: {error}"));
    let sockets = [TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?, TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?];
    let ports = sockets.iter().map(|socket| socket.local_addr().map(|address| address.port())).collect::<Result<Vec<_>, _>>();
    let ports = ports.map_err(failed)?;
    Ok([ports[0], ports[1]])
}

/// This program again; killed when dropped.
pub(super) fn own_program(arguments: &[&str], directory: &Path, log: &str) -> Result<Command, Error> {
    let program = std::env::current_exe().map_err(|error| Error::Process(format!("this program cannot be found: {error}")))?;
    let log = directory.join(log);
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).map_err(|error| Error::io(&log, &error))?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).kill_on_drop(true);
    // Secrets and settings of whoever runs the demo are none of its business.
    command.env_remove("INSTEP_CONFIG").env_remove("NOTIFY_SOCKET").env_remove("LISTEN_FDS").env_remove("LISTEN_PID");
    command.env("STATE_DIRECTORY", directory);
    Ok(command)
}

/// A running child. Its output is held open: whoever writes to a closed one fails.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    _output: Option<BufReader<ChildStdout>>,
}

impl Running {
    pub(super) fn start(mut command: Command) -> Result<Self, Error> {
        let child = command.spawn().map_err(|error| Error::Process(format!("cannot start a process: {error}")))?;
        Ok(Self { child, _output: None })
    }

    /// Starts a process and reads the first line that it says.
    pub(super) async fn start_and_listen(mut command: Command) -> Result<(Self, String), Error> {
        command.stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| Error::Process(format!("cannot start a process: {error}")))?;
        let output = child.stdout.take().ok_or_else(|| Error::Process("a process has no output".to_owned()))?;
        let mut output = BufReader::new(output);
        let mut line = String::new();
        let read = tokio::time::timeout(START_TIMEOUT, output.read_line(&mut line)).await;
        match read {
            Ok(Ok(length)) if length > 0 => Ok((Self { child, _output: Some(output) }, line.trim().to_owned())),
            Ok(_) => Err(Error::Process("the sandbox ended before it listened".to_owned())),
            Err(_) => Err(Error::Late { what: "the sandbox's address".to_owned(), after: START_TIMEOUT }),
        }
    }

    /// The exit status, if it has ended.
    pub(super) fn ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }

    /// The most memory that it ever had, in KiB, as the kernel counts it.
    pub(super) fn high_water_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().trim_end_matches("kB").trim().parse().ok()
    }

    /// Ends it and waits until it is gone.
    pub(super) async fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill().await;
    }
}

/// Runs one verb of this program to its end; its exit code.
pub(super) async fn run_verb(arguments: &[&str], directory: &Path, log: &str, deadline: Duration) -> Result<bool, Error> {
    let mut command = own_program(arguments, directory, log)?;
    let ran = tokio::time::timeout(deadline, command.status()).await;
    let status = ran.map_err(|_| Error::Late { what: format!("the end of `{}`", arguments.join(" ")), after: deadline })?;
    Ok(status.map_err(|error| Error::Process(error.to_string()))?.success())
}

/// The last lines of a log, for the one who asks why.
pub(super) fn tail(path: &Path) -> String {
    const LINES: usize = 5;
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
