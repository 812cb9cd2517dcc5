//! `instep status`: how the running daemon stands, what is wrong first.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;

use super::{EX_SOFTWARE, EX_UNAVAILABLE, client, complain, prepared};

/// Arguments of `instep status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  instep status\n  instep status --json | jq .wrong\n\nExit code 0: nothing is wrong; 1: something is.")]
pub struct Args {
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
    let status = match runtime.block_on(client::get(&config, "/status")) {
        Ok(status) => status,
        Err(error) => return complain(EX_UNAVAILABLE, error),
    };
    let mut out = io::stdout().lock();
    let written = if args.json { writeln!(out, "{status}") } else { show(&mut out, &status) };
    let wrong = status.get("wrong").and_then(Value::as_array).is_some_and(|wrong| !wrong.is_empty());
    match written {
        Ok(()) => ExitCode::from(u8::from(wrong)),
        Err(_) => ExitCode::from(EX_SOFTWARE),
    }
}

fn show(out: &mut impl Write, status: &Value) -> io::Result<()> {
    for wrong in status.get("wrong").and_then(Value::as_array).into_iter().flatten() {
        writeln!(out, "WRONG  {}", wrong.as_str().unwrap_or_default())?;
    }
    for (name, source) in status.get("sources").and_then(Value::as_object).into_iter().flatten() {
        let mode = source.pointer("/live/mode").and_then(Value::as_str).unwrap_or("-");
        let number = |pointer: &str| source.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let (pending, quarantined, gaps) = (number("/rows/pending"), number("/rows/quarantined"), number("/rows/open_gaps"));
        writeln!(out, "{name}: {mode}, {pending} pending, {quarantined} quarantined, {gaps} open gap(s)")?;
        for resource in source.pointer("/rows/resources").and_then(Value::as_array).into_iter().flatten() {
            let number = |key: &str| resource.get(key).and_then(Value::as_u64).unwrap_or(0);
            let label = resource.get("resource").and_then(Value::as_str).unwrap_or("-");
            let pass = if resource.get("pass_running").and_then(Value::as_bool) == Some(true) { ", pass running" } else { "" };
            let above = match number("cascades") {
                0 => String::new(),
                n => format!(", {n} whose children are to be marked"),
            };
            writeln!(out, "  {label:<22} {:>9} rows {:>7} marks{above}{pass}", number("rows"), number("marks"))?;
        }
    }
    Ok(())
}
