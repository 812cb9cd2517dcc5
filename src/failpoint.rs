//! Places where a test may end the process, fail a step or hold it up. Nothing of it is in an ordinary build.
//!
//! The feature `failpoints` compiles them in; `tests/failpoints` uses them. A point is named `step::moment`: every transaction of
//! the store has `begun`, `before_commit` and `after_commit` by the name it is begun with, so that no durable step can be without
//! points (`tests/it/tidy/durable.rs`); what is durable elsewhere names its own. Every actor has the points `actor:<path>::start`
//! and `actor:<path>::step`, where `<path>` is its path in the tree.
//!
//! What a point does is told by `INSTEP_FAILPOINTS` (`point=actions;point=actions`) before the start, and by lines `point=actions`
//! on standard input while the daemon runs, each answered on standard output by a line `set point`. Actions are those of the crate
//! `fail` (`off`, `panic`, `sleep(ms)`, which blocks the thread, counted and chained: `3*off->panic`) and of `return`:
//! `return(abort)` ends the process like a power cut, `return(error)` fails the step, `return(hang)` never comes back. What a point
//! was told is written on standard error when it is reached, so that a test knows that it was.
//!
//! `clock=<seconds>` is no point: it sets the wall clock so much ahead of the machine's (or behind it) from then on, as somebody who
//! sets the machine's clock would; monotonic time and uptime go on undisturbed, as they do then.

/// A point told the step to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fail point was told to fail this step")]
pub struct Told;

#[cfg(not(feature = "failpoints"))]
mod absent {
    /// A point that is not there.
    ///
    /// # Errors
    /// Never.
    pub async fn reach(_step: &str, _moment: &str) -> Result<(), super::Told> {
        Ok(())
    }

    /// A point that is not there, in code that cannot wait.
    ///
    /// # Errors
    /// Never.
    pub fn reach_now(_step: &str, _moment: &str) -> Result<(), super::Told> {
        Ok(())
    }

    /// An actor's point that is not there.
    ///
    /// # Errors
    /// Never.
    pub async fn reach_actor(_path: &str, _moment: &str) -> Result<(), super::Told> {
        Ok(())
    }

    /// A wall clock that nobody moves, in microseconds.
    #[must_use]
    pub const fn clock_moved_by() -> i64 {
        0
    }

    /// Nothing to tell.
    pub fn listen() {}
}

#[cfg(not(feature = "failpoints"))]
pub use absent::{clock_moved_by, listen, reach, reach_actor, reach_now};

#[cfg(feature = "failpoints")]
mod present {
    use std::io::{BufRead as _, Write as _};
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::Told;

    static CLOCK_MOVED_BY: AtomicI64 = AtomicI64::new(0);

    /// How far the wall clock is ahead of the machine's, in microseconds.
    #[must_use]
    pub fn clock_moved_by() -> i64 {
        CLOCK_MOVED_BY.load(Ordering::Relaxed)
    }

    /// The point `step::moment` is reached.
    ///
    /// # Errors
    /// [`Told`], if the point was told so.
    pub async fn reach(step: &str, moment: &str) -> Result<(), Told> {
        match told(&format!("{step}::{moment}")).as_deref() {
            None => Ok(()),
            Some("abort") => std::process::abort(),
            Some("hang") => std::future::pending().await,
            Some(_) => Err(Told),
        }
    }

    /// As [`reach`], in code that cannot wait: `return(hang)` blocks the thread.
    ///
    /// # Errors
    /// [`Told`], if the point was told so.
    pub fn reach_now(step: &str, moment: &str) -> Result<(), Told> {
        match told(&format!("{step}::{moment}")).as_deref() {
            None => Ok(()),
            Some("abort") => std::process::abort(),
            Some("hang") => loop {
                std::thread::park();
            },
            Some(_) => Err(Told),
        }
    }

    /// The point `actor:<path>::moment` is reached.
    ///
    /// # Errors
    /// [`Told`], if the point was told so.
    pub async fn reach_actor(path: &str, moment: &str) -> Result<(), Told> {
        reach(&format!("actor:{path}"), moment).await
    }

    fn told(name: &str) -> Option<String> {
        fail::fail_point!(name, |what| {
            let what = what.unwrap_or_default();
            // In one piece, or a line of the log may come between.
            let line = format!("fail point {name}: {what}\n");
            eprint!("{line}");
            Some(what)
        });
        None
    }

    /// Reads the environment, and from then on standard input.
    ///
    /// # Panics
    /// Where a line is no point with actions: a test has a mistake.
    pub fn listen() {
        for line in std::env::var("INSTEP_FAILPOINTS").unwrap_or_default().split(';').filter(|line| !line.is_empty()) {
            set(line);
        }
        std::thread::spawn(|| {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                let point = set(&line);
                let mut out = std::io::stdout().lock();
                // A test that no longer listens needs no answer.
                let _ = writeln!(out, "set {point}").and_then(|()| out.flush());
            }
        });
    }

    fn set(line: &str) -> &str {
        let (point, actions) = line.split_once('=').unwrap_or_else(|| panic!("{line:?} is no point=actions"));
        if point == "clock" {
            let seconds: i64 = actions.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
            CLOCK_MOVED_BY.store(seconds.saturating_mul(1_000_000), Ordering::Relaxed);
            return point;
        }
        fail::cfg(point, actions).unwrap_or_else(|error| panic!("{line}: {error}"));
        point
    }
}

#[cfg(feature = "failpoints")]
pub use present::{clock_moved_by, listen, reach, reach_actor, reach_now};
