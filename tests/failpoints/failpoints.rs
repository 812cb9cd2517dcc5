//! What the daemon does when it is broken from within: `cargo test --release --features failpoints --test it failpoints`.
//!
//! The points are those of `instep::failpoint`. [`Points`] sets them in a running daemon; a test that needs them from the first
//! moment on puts them into the environment ([`with_points`]).

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use crate::support::Process;

mod aborts;
mod actors;
mod backlog;
mod cascades;
mod clock;
mod limiter;
mod panics;
mod producer;
mod story;
mod unknown_outcomes;

/// The fail points of a running daemon.
pub(crate) struct Points {
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Points {
    /// Those of a daemon that was started by a command of [`with_points`].
    pub(crate) fn of(process: &mut Process) -> Self {
        let stdin = process.stdin().expect("standard input is piped");
        Self { stdin, stdout: BufReader::new(process.stdout().expect("standard output is piped")) }
    }

    /// Sets a point that may end the process before it can answer.
    pub(crate) fn set_deadly(&mut self, point: &str, actions: &str) {
        writeln!(self.stdin, "{point}={actions}").expect("the daemon listens");
        // It may be dead by now, which is what was wanted.
        let _ = self.stdout.read_line(&mut String::new());
    }

    /// Sets a point and waits until it holds.
    pub(crate) fn set(&mut self, point: &str, actions: &str) {
        writeln!(self.stdin, "{point}={actions}").expect("the daemon listens");
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).expect("the daemon answers");
        assert_eq!(answer.trim(), format!("set {point}"));
    }
}

/// The command with these points set from its start, `point=actions;point=actions`, and its standard output kept for [`Points`].
pub(crate) fn with_points(mut command: Command, points: &str) -> Command {
    command.env("INSTEP_FAILPOINTS", points).stdout(Stdio::piped());
    command
}
