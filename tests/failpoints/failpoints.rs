//! What the daemon does when it is broken from within: `cargo test --release --features failpoints --test it failpoints`.
//!
//! The points are those of `instep::failpoint`. [`Points`] sets them in a running daemon; a test that needs them from the first
//! moment on puts them into the environment ([`with_points`]).

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::failpoints_table::{By, STEPS, Step};
use crate::support::{Process, Universe, eventually, is_long};

mod aborts;
mod actors;
mod backlog;
mod cascades;
mod clock;
mod limiter;
mod operators;
mod panics;
mod producer;
mod story;
mod unknown_outcomes;

/// SIGABRT.
const ABORTED: i32 = 6;
/// Each death costs a part of the rate limit for a minute, as it must; nobody dies so often but here, so it is forgiven.
const FORGIVE: &str = "delete from instep_permit_block";
/// A point that was not reached by then is not reached.
const REACHED: Duration = Duration::from_secs(60);

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

/// The points of the table that this makes the daemon pass, each with its step, in the long form three times.
fn points(by: By) -> Vec<(&'static Step, String)> {
    let steps = STEPS.iter().filter(|step| step.by == by);
    let points: Vec<_> = steps.flat_map(|step| step.moments.iter().map(move |moment| (step, format!("{}::{moment}", step.name)))).collect();
    assert!(!points.is_empty(), "{by:?} stands in the table");
    std::iter::repeat_n(points, if is_long() { 3 } else { 1 }).flatten().collect()
}

/// Starts the daemon and waits until it is ready; no point is set.
async fn launch(universe: &mut Universe) -> Points {
    universe.launch(&mut with_points(universe.command(), ""));
    let points = Points::of(universe.daemon());
    universe.ready().await;
    points
}

/// Waits for the death at a point.
async fn dies(universe: &mut Universe, point: &str) {
    let daemon = universe.daemon();
    let status = eventually(&format!("{point} is reached"), REACHED, async || daemon.ended().ok_or_else(|| "it lives".to_owned())).await;
    assert_eq!(status.signal(), Some(ABORTED), "{point}: {status}");
    universe.kill();
}
