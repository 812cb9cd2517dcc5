//! Where a trial takes place: one store and one daemon, which may be started again with another configuration.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::fake::Fake;
use super::process::{DAEMON_LOG, Directory, Running, free_ports, own_program, run_verb, tail};
use super::replica::Replica;
use super::{Args, EX_SOFTWARE, Error, complain};
use crate::clock::Clock;

/// Longest wait for registrations upstream.
const REGISTER_DEADLINE: Duration = Duration::from_secs(90);

/// The place of one trial.
pub(super) struct Ground<'a> {
    pub(super) directory: &'a Directory,
    store: &'a str,
    /// Where the daemon takes hooks, and where it shows its state.
    pub(super) ports: [u16; 2],
    pub(super) clock: Clock,
}

impl<'a> Ground<'a> {
    pub(super) fn new(directory: &'a Directory, store: &'a str) -> Result<Self, Error> {
        Ok(Self { directory, store, ports: free_ports()?, clock: Clock::system() })
    }

    /// What stands above the sources in a configuration; `limits` are lines.
    pub(super) fn head(&self, limits: &str) -> String {
        let (store, [hooks, admin]) = (self.store, self.ports);
        format!(
            "[store]\nurl = \"{store}\"\n[listen]\nhooks = \"127.0.0.1:{hooks}\"\nadmin = \"127.0.0.1:{admin}\"\n\
             [limits]\n{limits}\n[log]\nlevel = \"info\"\nformat = \"human\"\n"
        )
    }

    /// Runs the daemon with a configuration for as long as `work` takes.
    pub(super) async fn run<T>(
        &self,
        config: &str,
        work: impl AsyncFnOnce(&Replica, &mut Running) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let config = self.directory.write("instep.toml", config)?.display().to_string();
        let mut daemon = Running::start(own_program(&["run", "--config", &config], &self.directory.path, DAEMON_LOG)?)?;
        let replica = Replica::open(self.clock, self.store, self.ports[1], &mut daemon, self.directory).await?;
        let ran = work(&replica, &mut daemon).await;
        let ended = daemon.ended();
        daemon.end().await;
        match (ran, ended) {
            (Err(error), Some(status)) => {
                let log = tail(&self.directory.path.join(DAEMON_LOG));
                Err(Error::Process(format!("{error}; the daemon had ended ({status}):\n{log}")))
            }
            (ran, _) => ran,
        }
    }

    /// `instep hooks create`, as a person would type it.
    pub(super) async fn register(&self, source: &str) -> Result<(), Error> {
        let config = self.directory.path.join("instep.toml").display().to_string();
        let arguments = ["hooks", "create", source, "--config", &config];
        if run_verb(&arguments, &self.directory.path, "hooks.log", REGISTER_DEADLINE).await? {
            return Ok(());
        }
        Err(Error::Process(format!("`instep hooks create` failed: {}", tail(&self.directory.path.join("hooks.log")))))
    }

    /// After the end of the daemon, changes records of an upstream that nobody hears of; the comparison must name exactly those.
    pub(super) async fn tamper(&self, fake: &Fake, records: usize) -> Result<Vec<String>, Error> {
        let replica = Replica::closed(self.store).await?;
        let tampering = fake.tamper(&replica, records).await?;
        match tampering.is_found {
            true => Ok(tampering.named),
            false => Err(Error::Answer(format!("{records} records were tampered with, and the comparison named {:?}", tampering.named))),
        }
    }

    /// Seconds since a moment.
    pub(super) fn since(&self, begin: Duration) -> f64 {
        self.clock.monotonic().saturating_sub(begin).as_secs_f64()
    }
}

/// What one part of a trial showed.
pub(super) trait Part: serde::Serialize {
    /// Whether everything held.
    fn holds(&self) -> bool;

    /// The table.
    ///
    /// # Errors
    /// What the writer says.
    fn show(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// What a trial of several parts came to.
pub(super) struct Parts<P> {
    pub(super) parts: Vec<P>,
    /// The records that were tampered with and named.
    pub(super) tampered: Option<Vec<String>>,
}

/// Shows all parts, under `name` in JSON. Exit code 0 only if all of it held and nothing was tampered with.
pub(super) fn conclude<P: Part>(args: &Args, name: &str, result: Result<Parts<P>, Error>) -> ExitCode {
    let shown = match &result {
        Ok(found) => show(args, name, found).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match (shown, result) {
        (Ok(()), Ok(found)) if found.tampered.is_none() && found.parts.iter().all(Part::holds) => ExitCode::SUCCESS,
        (Ok(()), _) => ExitCode::from(1),
        (Err(error), _) => complain(EX_SOFTWARE, error),
    }
}

fn show<P: Part>(args: &Args, name: &str, found: &Parts<P>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Parts { parts, tampered } = found;
    if args.json {
        let ok = parts.iter().all(Part::holds) && tampered.is_none();
        return writeln!(out, "{}", json!({ "ok": ok, name: parts, "tampered": tampered }));
    }
    for part in parts {
        part.show(&mut out)?;
    }
    match tampered {
        Some(named) => writeln!(out, "  TAMPERED WITH after the end, and named by the comparison: {}", named.join(", ")),
        None => Ok(()),
    }
}
