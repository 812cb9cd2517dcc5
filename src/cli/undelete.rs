//! `instep undelete`: a removed record comes back if the upstream shows it.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::json;

use super::gaps::Common;
use super::{EX_SOFTWARE, asked, field};

/// Arguments of `instep undelete`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  instep undelete pmp tasks 4711\n\n\
    Reads the record once. Exit codes: 0 it is back, 1 the upstream does not show it or there is no tombstone of it.")]
pub struct Args {
    /// Of which source
    pub source: String,
    /// Of which resource
    pub resource: String,
    /// The record's key
    pub key: String,
    /// Configuration and form of the answer
    #[command(flatten)]
    pub common: Common,
}

/// Asks the daemon and shows its answer.
pub fn run(args: &Args) -> ExitCode {
    let request = json!({ "source": args.source, "resource": args.resource, "key": args.key });
    let answer = match asked(&args.common.config, "undelete", &request) {
        Ok(answer) => answer,
        Err(code) => return code,
    };
    let mut out = io::stdout().lock();
    let outcome = field(&answer, "outcome");
    let said = match outcome {
        "revived" => "the upstream shows it, and it is back",
        "not found" => "the upstream does not show it: it stays removed",
        "out of scope" => "the upstream shows it, and it is not to be held: it stays removed",
        _ => "what the upstream shows cannot be read: it is in quarantine",
    };
    let written = if args.common.json { writeln!(out, "{answer}") } else { writeln!(out, "{} {}: {said}", args.resource, args.key) };
    if written.is_err() { ExitCode::from(EX_SOFTWARE) } else { ExitCode::from(u8::from(outcome != "revived")) }
}
