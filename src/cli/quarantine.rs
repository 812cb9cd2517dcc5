//! `instep quarantine`: what could not be processed, and what becomes of it.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::gaps::Common;
use super::{EX_SOFTWARE, EX_USAGE, chosen, client, complain, failed, field, prepared, rows};

/// Arguments of `instep quarantine`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  instep quarantine list\n  instep quarantine show pmp 17\n  instep quarantine replay pmp 17\n  \
    instep quarantine replay pmp --all\n  instep quarantine discard pmp 17\n\n\
    A delivery that is replayed is taken by the intake as if it had just come; of a record the key is read again. What a discarded \
    delivery said stays unknown, so that a gap opens, which passes close.")]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub what: What,
}

/// What can be done with quarantined things.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Show them, the newest first
    List {
        /// Of this source only
        source: Option<String>,
        /// Configuration and form of the answer
        #[command(flatten)]
        common: Common,
    },
    /// Show one with what it holds
    Show(One),
    /// Try one again, or all
    Replay {
        /// Of which source
        source: String,
        /// Its number
        #[arg(required_unless_present = "all")]
        id: Option<i64>,
        /// All of the source
        #[arg(long, conflicts_with = "id")]
        all: bool,
        /// Configuration and form of the answer
        #[command(flatten)]
        common: Common,
    },
    /// Give one up
    Discard(One),
}

/// One quarantined thing.
#[derive(Debug, clap::Args)]
pub struct One {
    /// Of which source
    pub source: String,
    /// Its number
    pub id: i64,
    /// Configuration and form of the answer
    #[command(flatten)]
    pub common: Common,
}

/// Asks the daemon and shows its answer.
pub fn run(args: &Args) -> ExitCode {
    let (action, named, id, common) = match &args.what {
        What::List { source, common } => ("list", source.as_deref(), None, common),
        What::Show(one) => ("show", Some(one.source.as_str()), Some(one.id), &one.common),
        What::Replay { source, id, all: _, common } => ("replay", Some(source.as_str()), *id, common),
        What::Discard(one) => ("discard", Some(one.source.as_str()), Some(one.id), &one.common),
    };
    if id.is_some_and(|id| id < 0) {
        return complain(EX_USAGE, "a number is not negative");
    }
    let (config, runtime) = match prepared(&common.config) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    let (mut out, mut kept) = (io::stdout().lock(), 0);
    for source in chosen(&config, named) {
        let request = json!({ "action": action, "source": source, "id": id });
        let answer = match runtime.block_on(client::control(&config, "quarantine", &request)) {
            Ok(answer) => answer,
            Err(error) => return failed(error),
        };
        kept += rows(&answer, "kept").len();
        let written = if common.json { writeln!(out, "{answer}") } else { show(&mut out, &answer) };
        if written.is_err() {
            return ExitCode::from(EX_SOFTWARE);
        }
    }
    ExitCode::from(u8::from(kept > 0))
}

fn show(out: &mut impl Write, answer: &Value) -> io::Result<()> {
    let (source, number) = (field(answer, "source"), |row: &Value, name: &str| row.get(name).and_then(Value::as_i64).unwrap_or(0));
    if answer.get("quarantine").is_some() {
        for row in rows(answer, "quarantine") {
            let of = match (field(row, "resource"), field(row, "key")) {
                ("-", _) => field(row, "delivery").to_owned(),
                (resource, key) => format!("{resource} {key}"),
            };
            writeln!(
                out,
                "{source} {:>6}  {}  {:<8} {of:<36}  {}",
                number(row, "id"),
                field(row, "at"),
                field(row, "kind"),
                field(row, "reason")
            )?;
        }
        writeln!(out, "{source}: {} in quarantine", rows(answer, "quarantine").len())
    } else if answer.get("replayed").is_some() {
        for row in rows(answer, "kept") {
            writeln!(out, "{source} {:>6} stays: {}", number(row, "id"), field(row, "why"))?;
        }
        writeln!(out, "{source}: {} to be tried again", number(answer, "replayed"))
    } else if answer.get("discarded").is_some() {
        let gap = if field(answer, "gap") == "-" { "" } else { "; what it said is unknown, so a gap is open until passes have compared" };
        writeln!(out, "{source}: {} is discarded{gap}", number(answer, "discarded"))
    } else {
        for name in ["kind", "at", "resource", "key", "delivery", "route", "reason"] {
            writeln!(out, "{name:<9} {}", field(answer, name))?;
        }
        writeln!(out, "\n{}", answer.get("body").and_then(Value::as_str).unwrap_or("(nothing is kept of it)"))
    }
}
