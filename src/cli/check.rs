//! `instep check`: everything `run` does with the configuration, short of binding and writing.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{EX_CONFIG, EX_UNAVAILABLE, client, complain, prepared};
use crate::config::{Config, Entry, state_directory};

/// sysexits: standard output cannot be written to.
const EX_IOERR: u8 = 74;

/// Arguments of `instep check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  instep check\n  instep check --config /etc/instep/instep.toml --print")]
pub struct Args {
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "INSTEP_CONFIG", default_value = "instep.toml")]
    pub config: PathBuf,
    /// Show every value that holds and where it was written
    #[arg(long)]
    pub print: bool,
    /// Have the running daemon read a page of every resource of every source, within its rate limits
    #[arg(long)]
    pub online: bool,
    /// Answer as JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

/// Checks the file. Exit code 0, or 78 with every mistake listed.
pub fn run(args: &Args) -> ExitCode {
    let checked = check(args, &mut io::stdout().lock(), &mut io::stderr().lock());
    match checked {
        Ok(0) if args.online => probe(args),
        Ok(code) => ExitCode::from(code),
        Err(_) => ExitCode::from(EX_IOERR),
    }
}

/// Every resource of every source, as the upstream shows it to the daemon.
fn probe(args: &Args) -> ExitCode {
    let (config, runtime) = match prepared(&args.config) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    let (mut out, mut all_good) = (io::stdout().lock(), true);
    for source in config.sources.keys() {
        let answer = match runtime.block_on(client::control(&config, "probe", &json!({ "source": source }))) {
            Ok(answer) => answer,
            Err(error) => return complain(EX_UNAVAILABLE, error),
        };
        for (name, found) in answer.get("resources").and_then(Value::as_object).into_iter().flatten() {
            let good = found.get("ok").and_then(Value::as_bool) == Some(true);
            all_good &= good;
            let reasons = ["error", "unreadable", "doubt"];
            let why = reasons.iter().find_map(|reason| found.get(*reason).and_then(Value::as_str)).unwrap_or("ok");
            let written = if args.json {
                writeln!(out, "{}", json!({ "source": source, "resource": name, "found": found }))
            } else {
                writeln!(out, "{source} {name:<22} {why}")
            };
            if written.is_err() {
                return ExitCode::from(EX_IOERR);
            }
        }
    }
    ExitCode::from(u8::from(!all_good))
}

fn check(args: &Args, out: &mut impl Write, complaints: &mut impl Write) -> io::Result<u8> {
    match Config::load(&args.config) {
        Ok(config) if args.json => {
            let values = args.print.then_some(&config.entries);
            let sources: Vec<&String> = config.sources.keys().collect();
            writeln!(out, "{}", json!({ "ok": true, "errors": [], "sources": sources, "values": values }))?;
            Ok(0)
        }
        Ok(config) if args.print => {
            writeln!(out, "# relative files of the store are below {}", state_directory().display())?;
            config.entries.iter().try_for_each(|entry| writeln!(out, "{}", line(entry)))?;
            Ok(0)
        }
        Ok(config) => {
            writeln!(out, "{}: right, {} source(s)", args.config.display(), config.sources.len())?;
            Ok(0)
        }
        Err(error) if args.json => {
            writeln!(out, "{}", json!({ "ok": false, "errors": error }))?;
            Ok(EX_CONFIG)
        }
        Err(error) => {
            writeln!(complaints, "{error}")?;
            Ok(EX_CONFIG)
        }
    }
}

/// One value as TOML with its place behind it, so that the output is a configuration again.
fn line(entry: &Entry) -> String {
    let place = match (&entry.file, entry.line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        _ => "default".to_owned(),
    };
    match &entry.value {
        Some(value) => format!("{} = {value}  # {place}", entry.key),
        None => format!("# {} is not set", entry.key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str, print: bool, json: bool) -> (u8, String, String) {
        let directory = tempfile::tempdir().expect("a directory");
        let config = directory.path().join("instep.toml");
        std::fs::write(&config, text).expect("a file");
        let (mut out, mut complaints) = (Vec::new(), Vec::new());
        let code = check(&Args { config, print, online: false, json }, &mut out, &mut complaints).expect("memory can be written to");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
        (code, text(out), text(complaints))
    }

    const PMP: &str = "[sources.pmp]\nkind = \"productive\"\norganization = 1\ntoken = { env = \"PMP_TOKEN\" }\n";

    #[test]
    fn a_right_file_ends_with_0_and_shows_where_values_come_from() {
        let (code, out, _) = checked(PMP, false, false);
        assert_eq!(code, 0);
        assert!(out.ends_with("instep.toml: right, 1 source(s)\n"), "{out}");
        let (code, out, _) = checked(PMP, true, false);
        assert_eq!(code, 0);
        assert!(out.contains("\nlimits.backlog = 200000  # default\n"), "{out}");
        assert!(out.contains("\n# sources.pmp.manage_token is not set\n"), "{out}");
        let token = out.lines().find(|line| line.starts_with("sources.pmp.token = ")).expect("it is shown");
        assert!(token.starts_with("sources.pmp.token = { env = \"PMP_TOKEN\" }  # ") && token.ends_with("instep.toml:4"), "{token}");
        Config::parse("printed", &out).expect("what is printed is a configuration");
    }

    #[test]
    fn mistakes_end_with_78_and_are_all_listed() {
        let wrong = format!("{PMP}zone = \"UTC\"\n[limits]\ndrain = 5\n");
        let (code, out, complaints) = checked(&wrong, false, false);
        assert_eq!((code, out.as_str()), (78, ""));
        assert_eq!(complaints.lines().count(), 2, "{complaints}");
        assert!(complaints.contains("instep.toml:5:1: sources.pmp.zone: this key belongs to"), "{complaints}");
        let (code, out, _) = checked(&wrong, false, true);
        let answer: serde_json::Value = serde_json::from_str(&out).expect("it is JSON");
        assert_eq!(code, 78);
        assert_eq!(answer["ok"], false);
        assert_eq!(answer["errors"][1]["line"], 7);
        assert_eq!(answer["errors"][1]["key"], "limits.drain");
    }

    #[test]
    fn json_holds_the_values_when_asked() {
        let answer = |print| -> serde_json::Value { serde_json::from_str(&checked(PMP, print, true).1).expect("it is JSON") };
        assert_eq!(answer(false)["sources"][0], "pmp");
        assert!(answer(false)["values"].is_null());
        let values = answer(true)["values"].as_array().cloned().expect("values");
        assert!(values.iter().any(|value| value["key"] == "sources.pmp.organization" && value["line"] == 3), "{values:?}");
    }
}
