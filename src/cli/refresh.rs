//! `instep refresh`: has the running daemon read one record now, within the share of the quota that refreshes have.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{EX_SOFTWARE, EX_TEMPFAIL, asked, complain};

/// Arguments of `instep refresh`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  instep refresh pmp tasks 4711\n  instep refresh pim products 'shoe 12/red' | jq .payload\n\n\
    A record that was compared within the last second is not read again. Exits with 75 when it could not be read now.")]
pub struct Args {
    /// Which source
    pub source: String,
    /// Which of its resources
    pub resource: String,
    /// The record's key, as the upstream writes it
    #[arg(allow_hyphen_values = true)]
    pub key: String,
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "INSTEP_CONFIG", default_value = "instep.toml")]
    pub config: PathBuf,
}

/// Asks the daemon and shows its answer as JSON.
pub fn run(args: &Args) -> ExitCode {
    let request = json!({ "source": args.source, "resource": args.resource, "key": args.key });
    let answer = match asked(&args.config, "refresh", &request) {
        Ok(answer) => answer,
        Err(code) => return code,
    };
    if writeln!(io::stdout().lock(), "{}", answer["row"]).is_err() {
        return ExitCode::from(EX_SOFTWARE);
    }
    match (answer["status"].as_u64(), answer["retry_after_s"].as_f64()) {
        (Some(200 | 404 | 410), _) => ExitCode::SUCCESS,
        (_, Some(seconds)) => complain(EX_TEMPFAIL, format_args!("refreshes have had their share of the quota; again in {seconds:.1} s")),
        _ => complain(EX_TEMPFAIL, answer.pointer("/row/why").and_then(Value::as_str).unwrap_or("it could not be read now")),
    }
}
