//! `instep hooks`: the webhook registrations of a source, by way of the running daemon, so that its rate limits hold.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::client::{self, Error};
use super::{EX_SOFTWARE, EX_UNAVAILABLE, complain, prepared};

/// Arguments of `instep hooks`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  instep hooks create pmp\n  instep hooks list pmp --json\n\n\
    Needs public_url and manage_token of the source. Without the right to register webhooks the source stays poll-only.")]
pub struct Args {
    /// What to do
    #[arg(value_enum)]
    pub action: Action,
    /// Which source
    pub source: String,
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "INSTEP_CONFIG", default_value = "instep.toml")]
    pub config: PathBuf,
    /// Answer as JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

/// What can be done with registrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Action {
    /// Register what is missing, replace what is switched off
    Create,
    /// Show ours as they stand upstream
    #[value(alias = "show")]
    List,
    /// Remove ours
    Delete,
}

/// Asks the daemon and shows its answer.
pub fn run(args: &Args) -> ExitCode {
    let (config, runtime) = match prepared(&args.config) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    let action = match args.action {
        Action::Create => "create",
        Action::List => "list",
        Action::Delete => "delete",
    };
    let request = json!({ "action": action, "source": args.source });
    match runtime.block_on(client::control(&config, "hooks", &request)) {
        Ok(answer) => show(args, &answer),
        Err(error @ Error::Refused(_)) => complain(1, error),
        Err(error) => complain(EX_UNAVAILABLE, error),
    }
}

fn show(args: &Args, answer: &Value) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let text = |row: &Value, name: &str| row.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    let written = if args.json {
        writeln!(out, "{answer}")
    } else if let Some(rows) = answer.get("registrations").and_then(Value::as_array) {
        let mut line = |row: &Value| writeln!(out, "{:<24} {:<12} {}", text(row, "route"), text(row, "state"), text(row, "id"));
        rows.iter().try_for_each(&mut line).and_then(|()| writeln!(out, "{} registration(s)", rows.len()))
    } else {
        writeln!(out, "{} registration(s) removed", answer.get("deleted").unwrap_or(&Value::Null))
    };
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(EX_SOFTWARE) }
}
