//! `instep demo`: the main job, proved. A fake organisation in a process of its own, the daemon in another, people at work, and at
//! the end every field upstream against every field of the replica.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{EX_SOFTWARE, EX_USAGE, complain, runtime};
use crate::store::{self, reader};

mod akeneo;
mod all;
mod arm;
mod compare;
mod fake;
mod figures;
mod ground;
mod outcome;
mod plan;
mod process;
mod replica;
mod reso;
mod upstream;

pub use plan::Arm;

use outcome::Outcome;
use plan::Plan;
use process::Directory;

/// Arguments of `instep demo`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  instep demo\n  instep demo --quick\n  instep demo --upstream akeneo\n  instep demo --upstream reso --quick\n  instep demo --upstream all\n  instep demo --arm hooks --tamper 3\n  \
    instep demo --store postgresql://user@127.0.0.1:5432/\n\n\
    Exit code 0: everything held. 1: something did not, or records were tampered with."
)]
pub struct Args {
    /// The same in small, in less than a minute: 10,000 records, all arms at once
    #[arg(long)]
    pub quick: bool,
    /// Which fake upstream
    #[arg(long, value_enum, default_value_t = Kind::Productive)]
    pub upstream: Kind,
    /// One arm alone; of Productive
    #[arg(long, value_enum)]
    pub arm: Option<Arm>,
    /// Change so many records behind everybody's back after the end of the last arm: they must be named
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub tamper: Option<u16>,
    /// A PostgreSQL server on which to make (and drop) a database; without it SQLite in a temporary directory
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Everything invented is a function of this number
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Keep directories and databases, and say where they are
    #[arg(long)]
    pub keep: bool,
    /// Answer as JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

/// The upstreams that there is a demo of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// A Productive.io organisation, in three arms
    Productive,
    /// An Akeneo PIM, through the phases of a move from the Events API to the Event Platform
    Akeneo,
    /// A RESO producer, by each of its three ways, and a first feed of its whole log
    Reso,
    /// All of them as sources of one daemon, at once
    All,
}

/// Why an arm came to no verdict.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The store.
    #[error("the store: {0}")]
    Store(#[from] store::Error),
    /// The sandbox's HTTP.
    #[error("the sandbox does not answer: {0}")]
    Http(#[from] reqwest::Error),
    /// An answer that makes no sense.
    #[error("{0}")]
    Answer(String),
    /// A process of ours.
    #[error("{0}")]
    Process(String),
    /// Something that did not come in time.
    #[error("{what} did not come within {} s", after.as_secs())]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
    },
}

impl Error {
    fn io(path: &std::path::Path, error: &io::Error) -> Self {
        Self::Process(format!("{}: {error}", path.display()))
    }
}

/// Runs the arms. Exit code 0 only if all of it holds.
pub fn run(args: &Args) -> ExitCode {
    if let Some(url) = &args.store
        && !(url.starts_with("postgresql://") || url.starts_with("postgres://"))
    {
        return complain(EX_USAGE, "--store takes the url of a PostgreSQL server; without it SQLite is used");
    }
    if args.upstream != Kind::Productive && args.arm.is_some() {
        return complain(EX_USAGE, "--arm is of the Productive demo; this one has phases, and goes through all of them");
    }
    let runtime = match runtime(2) {
        Ok(runtime) => runtime,
        Err(error) => return complain(EX_SOFTWARE, error),
    };
    runtime.block_on(async {
        let (mut term, mut int) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(term), Ok(int)) => (term, int),
            (Err(error), _) | (_, Err(error)) => return complain(EX_SOFTWARE, error),
        };
        let stop = CancellationToken::new();
        let told = async {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            stop.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            code = prove(args, &stop) => code,
            () = told => ExitCode::from(EX_SOFTWARE),
        }
    })
}

async fn prove(args: &Args, stop: &CancellationToken) -> ExitCode {
    match args.upstream {
        Kind::Productive => prove_arms(args, stop).await,
        Kind::Akeneo => akeneo::prove(args, stop).await,
        Kind::Reso => reso::prove(args, stop).await,
        Kind::All => all::prove(args, stop).await,
    }
}

async fn prove_arms(args: &Args, stop: &CancellationToken) -> ExitCode {
    let arms: Vec<Arm> = Arm::ALL.into_iter().filter(|arm| args.arm.is_none_or(|wanted| wanted == *arm)).collect();
    let last = arms.last().copied();
    let one = |arm: Arm| {
        let tamper = args.tamper.filter(|_| Some(arm) == last).map(usize::from);
        async move {
            let stopped = || Err(Error::Process("stopped".to_owned()));
            if stop.is_cancelled() { (arm, stopped()) } else { (arm, trial(args, arm, tamper, stop).await) }
        }
    };
    let results = if args.quick {
        futures_util::future::join_all(arms.into_iter().map(one)).await
    } else {
        let mut results = Vec::new();
        for arm in arms {
            results.push(one(arm).await);
        }
        results
    };
    match show(args, &results) {
        Ok(()) if results.iter().all(|(_, result)| result.as_ref().is_ok_and(Outcome::holds)) && args.tamper.is_none() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(1),
        Err(error) => complain(EX_SOFTWARE, error),
    }
}

async fn trial(args: &Args, arm: Arm, tamper: Option<usize>, stop: &CancellationToken) -> Result<Outcome, Error> {
    let plan = Plan::new(arm, args.seed, args.quick);
    within(args, arm.word(), stop, async |directory: &Directory, store: &str| arm::run(&plan, directory, store, tamper).await).await
}

/// Runs a trial with a directory and, on PostgreSQL, a database of its own, which end with it however it ends.
async fn within<T>(
    args: &Args,
    word: &str,
    stop: &CancellationToken,
    run: impl AsyncFnOnce(&Directory, &str) -> Result<T, Error>,
) -> Result<T, Error> {
    let directory = Directory::new(word, args.keep)?;
    let database = format!("instep_demo_{}_{word}", uuid::Uuid::now_v7().simple());
    let store = match &args.store {
        None => format!("sqlite://{}/replica.db", directory.path.display()),
        Some(server) => {
            reader::create_database(&database_url(server, "postgres")?, &database).await?;
            database_url(server, &database)?
        }
    };
    let outcome = tokio::select! {
        outcome = run(&directory, &store) => outcome,
        () = stop.cancelled() => Err(Error::Process("stopped".to_owned())),
    };
    if args.keep {
        say(word, format_args!("kept: {} and {store}", directory.path.display()));
    } else if let Some(server) = &args.store {
        reader::drop_database(&database_url(server, "postgres")?, &database).await?;
    }
    outcome
}

fn database_url(server: &str, name: &str) -> Result<String, Error> {
    let mut url = url::Url::parse(server).map_err(|error| Error::Answer(format!("--store: {error}")))?;
    url.set_path(&format!("/{name}"));
    Ok(url.to_string())
}

fn show(args: &Args, results: &[(Arm, Result<Outcome, Error>)]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if args.json {
        let rows: Vec<_> = results
            .iter()
            .map(|(arm, result)| match result {
                Ok(outcome) => json!({ "arm": arm, "ok": outcome.holds(), "outcome": outcome }),
                Err(error) => json!({ "arm": arm, "ok": false, "error": error.to_string() }),
            })
            .collect();
        let ok = rows.iter().all(|row| row["ok"] == true);
        return writeln!(out, "{}", json!({ "ok": ok && args.tamper.is_none(), "arms": rows }));
    }
    for (arm, result) in results {
        match result {
            Ok(outcome) => outcome.show(&mut out)?,
            Err(error) => writeln!(out, "\n{}: DOES NOT HOLD\n  FAILED: {error}", arm.title())?,
        }
    }
    Ok(())
}

/// A line of progress on standard error.
fn say(word: &str, what: std::fmt::Arguments<'_>) {
    // Nobody is left to tell where standard error is closed.
    let _ = writeln!(io::stderr(), "[{word}] {what}");
}
