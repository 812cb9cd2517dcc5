//! `instep check`: everything `run` does with the configuration, short of binding and writing.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use crate::config::{Config, Entry, state_directory};

/// sysexits: the configuration is wrong. systemd does not restart on it.
const EX_CONFIG: u8 = 78;
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
    /// Answer as JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

/// Checks the file. Exit code 0, or 78 with every mistake listed.
pub fn run(args: &Args) -> ExitCode {
    match check(args, &mut io::stdout().lock(), &mut io::stderr().lock()) {
        Ok(code) => ExitCode::from(code),
        Err(_) => ExitCode::from(EX_IOERR),
    }
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
        let code = check(&Args { config, print, json }, &mut out, &mut complaints).expect("memory can be written to");
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
