//! `instep verify`: whether the replica says what the upstream says, and where not.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{self, Error};
use super::{EX_SOFTWARE, EX_TEMPFAIL, EX_UNAVAILABLE, EX_USAGE, complain, prepared};
use crate::clock::Clock;
use crate::config::Config;
use doubts::Finding;
use show::{Outcome, Progress};
use walk::Walk;

mod doubts;
mod show;
mod walk;

/// Rows that are compared where nothing is said.
const SAMPLE: u64 = 100;
/// Rows of one sample.
const SAMPLE_MAX: u64 = 5_000;

/// Arguments of `instep verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  instep verify                          a sample of every source\n  \
    instep verify pmp tasks --all          every record of a resource, both ways\n  \
    instep verify pmp --all --repair       and put right what differs\n  \
    instep verify --sample 500 --json | jq '.resources[] | select(.n_differences > 0)'\n\n\
    The running daemon reads within its rate limits, after everything else that has to be read. A difference counts once a later read \
    of that record by its key shows the same one. `changed`: other content; `missing`: no row; `extra`: a row too much; `stale`, \
    `ahead`: the row's version is older, newer than the upstream's.\n\n\
    Exit code 0: nothing differs, or everything was repaired; 1: something differs; 75: something could not be read.")]
pub struct Args {
    /// Which source; without it all of them
    pub source: Option<String>,
    /// Which resource; without it all of the source
    pub resource: Option<String>,
    /// Compare so many rows of the replica, chosen at random (the default: 100); finds what changed, what is too much, what is old
    #[arg(long, value_name = "N", conflicts_with = "all", value_parser = clap::value_parser!(u64).range(1..=SAMPLE_MAX))]
    pub sample: Option<u64>,
    /// Walk the whole list upstream; finds missing rows too
    #[arg(long)]
    pub all: bool,
    /// Have what differs read again, and wait until it agrees
    #[arg(long)]
    pub repair: bool,
    /// For how long a difference has to stand before it counts (default: the resource's lag, and 10 s for a delivery)
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    pub settle: Option<Duration>,
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "INSTEP_CONFIG", default_value = "instep.toml")]
    pub config: PathBuf,
    /// Answer as JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

/// Why it ended before its end.
pub(super) enum Stop {
    /// No daemon answers.
    Absent(Error),
    /// There is no such thing.
    Usage(String),
    /// It does not do that.
    Refused(String),
    /// Not now.
    Later(String),
}

/// A resource that is to be compared, as the daemon describes it.
struct Planned {
    source: String,
    resource: String,
    rows: u64,
    settle: Duration,
    keys_a_look: usize,
}

/// Compares and shows.
pub fn run(args: &Args) -> ExitCode {
    let (config, runtime) = match prepared(&args.config) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    if let Some(unknown) = args.source.as_ref().filter(|name| !config.sources.contains_key(*name)) {
        return complain(EX_USAGE, format_args!("there is no source `{unknown}`"));
    }
    let outcomes = match runtime.block_on(verify(args, &config)) {
        Ok(outcomes) => outcomes,
        Err(Stop::Usage(reason)) => return complain(EX_USAGE, reason),
        Err(Stop::Refused(reason)) => return complain(1, reason),
        Err(Stop::Absent(error)) => return complain(EX_UNAVAILABLE, error),
        Err(Stop::Later(why)) => return complain(EX_TEMPFAIL, format_args!("not everything could be read: {why}")),
    };
    let shown = match args.json {
        true => writeln!(io::stdout().lock(), "{}", show::json(&outcomes)),
        false => Ok(()),
    };
    match shown {
        Err(_) => ExitCode::from(EX_SOFTWARE),
        Ok(()) if !outcomes.iter().all(Outcome::is_right) => ExitCode::from(1),
        Ok(()) if outcomes.iter().any(|one| one.unread.n > 0) => ExitCode::from(EX_TEMPFAIL),
        Ok(()) => ExitCode::SUCCESS,
    }
}

async fn verify(args: &Args, config: &Config) -> Result<Vec<Outcome>, Stop> {
    let clock = Clock::system();
    let planned = plan(args, config).await?;
    let n_rows: u64 = planned.iter().map(|one| one.rows).sum();
    let (mut outcomes, mut progress) = (Vec::new(), Progress::new(clock));
    for one in planned {
        let outcome = Outcome { source: one.source.clone(), resource: one.resource.clone(), ..Outcome::default() };
        let is_json = args.json;
        let mut tell = move |outcome: &Outcome, found: &Finding| {
            if !is_json {
                // Whoever closed standard output has the exit code.
                let _ = show::line(&mut io::stdout().lock(), outcome, found);
            }
        };
        progress.restart();
        let settle = args.settle.unwrap_or(one.settle);
        let walk = Walk::new(config, clock, args, (settle, one.rows), outcome, &mut progress, &mut tell);
        let walked = match args.all {
            true => walk.all().await,
            // Every resource has its part of the sample, by its rows.
            false => {
                let n = args.sample.unwrap_or(SAMPLE) * one.rows;
                walk.sample(n.div_ceil(n_rows.max(1)).min(one.rows), one.keys_a_look).await
            }
        };
        let outcome = match walked {
            Ok(outcome) => outcome,
            // The others may be compared all the same.
            Err(Stop::Refused(reason)) => {
                Outcome { source: one.source, resource: one.resource, refused: Some(reason), ..Outcome::default() }
            }
            Err(stop) => return Err(stop),
        };
        if !is_json {
            let _ = show::summary(&mut io::stdout().lock(), &outcome);
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

async fn plan(args: &Args, config: &Config) -> Result<Vec<Planned>, Stop> {
    let mut planned = Vec::new();
    let chosen = config.sources.keys().filter(|name| args.source.as_ref().is_none_or(|source| source == *name));
    for source in chosen {
        let request = json!({ "source": source, "do": "plan", "resource": args.resource.as_deref().unwrap_or_default() });
        let answer = client::control(config, "verify", &request).await.map_err(|error| match error {
            error if error.may_pass() => Stop::Absent(error),
            Error::Refused(reason) => Stop::Usage(reason),
            error => Stop::Absent(error),
        })?;
        for one in answer["resources"].as_array().into_iter().flatten() {
            let number = |name: &str| one.get(name).and_then(Value::as_u64).unwrap_or(0);
            planned.push(Planned {
                source: source.clone(),
                resource: one["resource"].as_str().unwrap_or_default().to_owned(),
                rows: number("rows"),
                settle: Duration::from_millis(number("settle_ms")),
                keys_a_look: usize::try_from(number("keys_a_look")).unwrap_or(1).max(1),
            });
        }
    }
    Ok(planned)
}
