//! `instep gaps`: the periods in which deliveries may have been lost, and those that an operator adds to them.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{EX_SOFTWARE, EX_USAGE, chosen, client, complain, coverage, failed, field, prepared, rows};
use crate::clock::{Clock, Timestamp};

/// Arguments of `instep gaps`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  instep gaps list\n  instep gaps list pmp --all --json\n  \
    instep gaps open pmp --from 2026-11-01 --to 2026-11-03\n  instep gaps open pmp --from 6h --sweep\n\n\
    A gap closes when every resource was compared by a pass that began after it. Where deletes are learned by an event feed an \
    incremental pass is enough, which then asks from before the gap on; else, and with --sweep, only a sweep is.")]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub what: What,
}

/// What can be done with gaps.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Show the open ones, and which resources each still waits for
    List {
        /// Of this source only
        source: Option<String>,
        /// The repaired ones too
        #[arg(long)]
        all: bool,
        /// Configuration and form of the answer
        #[command(flatten)]
        common: Common,
    },
    /// Say that deliveries may have been lost, so that passes compare again
    Open {
        /// Of which source
        source: String,
        /// From when on: a day, an instant, or how long ago; without it until now
        #[arg(long, value_name = "WHEN")]
        from: Option<String>,
        /// Until when; without it until now
        #[arg(long, value_name = "WHEN")]
        to: Option<String>,
        /// Only a sweep repairs it
        #[arg(long)]
        sweep: bool,
        /// Configuration and form of the answer
        #[command(flatten)]
        common: Common,
    },
}

/// What every verb takes that asks the daemon.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "INSTEP_CONFIG", default_value = "instep.toml")]
    pub config: PathBuf,
    /// Answer as JSON, one object for each source
    #[arg(long)]
    pub json: bool,
}

/// Asks the daemon and shows its answer.
pub fn run(args: &Args) -> ExitCode {
    let now = Clock::system().now();
    let (named, common, request) = match &args.what {
        What::List { source, all, common } => (source.as_deref(), common, json!({ "action": "list", "all": all })),
        What::Open { source, from, to, sweep, common } => {
            let [from, to] = match [("--from", from), ("--to", to)].map(|(name, text)| instant(name, text.as_deref(), now)) {
                [Ok(from), Ok(to)] => [from, to],
                [Err(why), _] | [_, Err(why)] => return complain(EX_USAGE, why),
            };
            (Some(source.as_str()), common, json!({ "action": "open", "from": from, "to": to, "sweep": sweep }))
        }
    };
    let (config, runtime) = match prepared(&common.config) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    let mut out = io::stdout().lock();
    for source in chosen(&config, named) {
        let mut request = request.clone();
        request["source"] = source.into();
        let answer = match runtime.block_on(client::control(&config, "gaps", &request)) {
            Ok(answer) => answer,
            Err(error) => return failed(error),
        };
        let written = if common.json { writeln!(out, "{answer}") } else { show(&mut out, &answer) };
        if written.is_err() {
            return ExitCode::from(EX_SOFTWARE);
        }
    }
    ExitCode::SUCCESS
}

fn instant(name: &str, text: Option<&str>, now: Timestamp) -> Result<Option<String>, String> {
    let Some(text) = text else { return Ok(None) };
    let at = coverage::since(text, now);
    at.map(|at| Some(at.to_string()))
        .ok_or_else(|| format!("{name} {text}: write a day (2026-11-01), an instant in RFC 3339 or a span (6h)"))
}

fn show(out: &mut impl Write, answer: &Value) -> io::Result<()> {
    let source = field(answer, "source");
    if answer.get("gaps").is_none() {
        let (cause, began, ended) = (field(answer, "cause"), field(answer, "began_at"), field(answer, "ended_at"));
        return writeln!(out, "{source}: gap `{cause}` from {began} to {ended} is open; passes that begin from now on close it");
    }
    for gap in rows(answer, "gaps") {
        let waits_for: Vec<&str> = rows(gap, "waits_for").iter().filter_map(Value::as_str).collect();
        let waits_for = if waits_for.is_empty() { String::new() } else { format!("  waits for {}", waits_for.join(", ")) };
        let (cause, state, began, ended) = (field(gap, "cause"), field(gap, "state"), field(gap, "began_at"), field(gap, "ended_at"));
        writeln!(out, "{source}  {cause:<18} {state:<8} {began}  {ended:<27}{waits_for}")?;
    }
    writeln!(out, "{source}: {} gap(s)", rows(answer, "gaps").len())
}
