//! Faults of the kernel for a running daemon: strace answers its system calls in the disk's place, or holds them up.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Process, eventually};

/// Until strace has attached to every thread, or has let go of it.
const SOON: Duration = Duration::from_secs(10);

/// An attached strace; the daemon runs freely again when it is detached or dropped.
pub(crate) struct Strace(Process);

/// Arguments with which a process and its children wait 10 ms before every sync of a file. The rest runs as ever: their kernel
/// stops them for nothing else, and strace is nobody's parent.
pub(crate) const SLOW_DISK: [&str; 9] =
    ["-D", "-f", "--seccomp-bpf", "-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:delay_enter=10000", "-o", "/dev/null"];

impl Strace {
    /// Whether this machine has one.
    pub(crate) fn is_here() -> bool {
        Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok()
    }

    /// The same command on a slow disk; the process that it starts is the command's own.
    pub(crate) fn slow_disk(command: Command) -> Command {
        let mut slow = Command::new("strace");
        slow.args(SLOW_DISK).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => slow.env(name, value),
                None => slow.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            slow.current_dir(folder);
        }
        slow
    }

    /// Attaches with these arguments to every thread of a process; what strace itself says goes into `log`.
    pub(crate) async fn attach(pid: u32, arguments: &[&str], log: &Path) -> Self {
        let mut command = Command::new("strace");
        command.arg("-f").args(arguments).args(["-p", &pid.to_string()]);
        let before = std::fs::read_to_string(log).map_or(0, |text| text.len());
        let mut strace = Process::start(&mut command, log);
        eventually("strace is attached to every thread", SOON, async || {
            // It says so once it has them all; a process that ends of what it is given may be gone by then.
            let said = strace.said().split_off(before);
            match said.contains("attached") {
                true => Ok(()),
                false if strace.ended().is_some() => panic!("strace: {said}"),
                false => Err(said),
            }
        })
        .await;
        Self(strace)
    }

    /// Lets the process go.
    pub(crate) async fn detach(mut self) {
        if self.0.ended().is_none() {
            self.0.signal("INT");
        }
        eventually("strace lets go", SOON, async || self.0.ended().map(drop).ok_or_else(|| "it is attached".to_owned())).await;
    }
}
