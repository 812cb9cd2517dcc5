//! `instep decode`: what a captured delivery says, whether its signature holds, and what it would do to the replica as it stands.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::{EX_NOINPUT, EX_SOFTWARE, client, complain, failed, prepared};

/// Arguments of `instep decode`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  instep decode pmp body.json --route task-updated\n  \
    instep decode pmp body.json --route task-updated --headers headers.txt --json\n\n\
    The running daemon answers; nothing is changed.")]
pub struct Args {
    /// Which source
    pub source: String,
    /// File with the body, byte for byte
    pub body: PathBuf,
    /// Route that carried it: the path below /hooks/<source>/
    #[arg(long)]
    pub route: String,
    /// File with the headers, one `Name: value` a line
    #[arg(long, value_name = "FILE")]
    pub headers: Option<PathBuf>,
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "INSTEP_CONFIG", default_value = "instep.toml")]
    pub config: PathBuf,
    /// Answer as JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

/// Asks the daemon and shows its answer.
pub fn run(args: &Args) -> ExitCode {
    let (config, runtime) = match prepared(&args.config) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    let request = match request(args) {
        Ok(request) => request,
        Err(error) => return complain(EX_NOINPUT, error),
    };
    match runtime.block_on(client::control(&config, "decode", &request)) {
        Ok(answer) => show(args, &answer),
        Err(error) => failed(error),
    }
}

fn request(args: &Args) -> Result<Value, String> {
    let read = |path: &PathBuf| std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
    let body = read(&args.body)?;
    let mut headers = Map::new();
    for line in args.headers.as_ref().map(read).transpose()?.unwrap_or_default().lines() {
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.trim().to_owned(), Value::String(value.trim().to_owned()));
        }
    }
    Ok(json!({ "source": args.source, "route": args.route, "headers": headers, "body": body }))
}

fn show(args: &Args, answer: &Value) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let written = if args.json {
        writeln!(out, "{answer}")
    } else {
        serde_json::to_string_pretty(answer).map_err(std::io::Error::other).and_then(|text| writeln!(out, "{text}"))
    };
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(EX_SOFTWARE) }
}
