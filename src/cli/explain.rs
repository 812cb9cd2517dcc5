//! `instep explain`: the life of one record, and what the replica holds of it now and why.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{EX_SOFTWARE, asked};

/// Arguments of `instep explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  instep explain pmp tasks 4711\n  instep explain pim products 'shoe 12/red' --limit 20\n  \
    instep explain pmp tasks 4711 --json | jq '.entries[] | select(.what == \"change\")'\n\n\
    What retention has removed is not shown.")]
pub struct Args {
    /// Which source
    pub source: String,
    /// Which of its resources
    pub resource: String,
    /// The record's key, as the upstream writes it
    #[arg(allow_hyphen_values = true)]
    pub key: String,
    /// So many of its newest entries
    #[arg(long, value_name = "N", default_value = "200")]
    pub limit: String,
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "INSTEP_CONFIG", default_value = "instep.toml")]
    pub config: PathBuf,
    /// Answer as JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

/// Asks the daemon and shows its answer.
pub fn run(args: &Args) -> ExitCode {
    let request = json!({ "source": args.source, "resource": args.resource, "key": args.key, "limit": args.limit });
    let answer = match asked(&args.config, "explain", &request) {
        Ok(answer) => answer,
        Err(code) => return code,
    };
    let mut out = io::stdout().lock();
    let written = if args.json { writeln!(out, "{answer}") } else { show(&mut out, &answer) };
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(EX_SOFTWARE) }
}

fn show(out: &mut impl Write, answer: &Value) -> io::Result<()> {
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
    let named = |value: &Value, name: &str| text(value, name).unwrap_or_else(|| "-".to_owned());
    writeln!(out, "{} {} {}", named(answer, "source"), named(answer, "resource"), named(answer, "key"))?;
    if answer.get("more") == Some(&Value::Bool(true)) {
        writeln!(out, "(older entries are left out: --limit)")?;
    }
    for entry in answer.get("entries").and_then(Value::as_array).into_iter().flatten() {
        let reason = text(entry, "reason").map_or_else(String::new, |reason| format!(": {reason}"));
        let told = match entry.get("what").and_then(Value::as_str) {
            Some("event") => {
                let of = text(entry, "delivery").map_or_else(String::new, |delivery| {
                    let at = text(entry, "received_at").map_or_else(String::new, |at| format!(", received {at}"));
                    format!(" (delivery {delivery}{at})")
                });
                format!("{} by {}{of}: {}{reason}", named(entry, "operation"), named(entry, "via"), named(entry, "outcome"))
            }
            Some("change") => {
                let number = entry.get("number").and_then(Value::as_i64).unwrap_or_default();
                let version = text(entry, "version").map_or_else(String::new, |version| format!(" to version {version}"));
                let fields = entry.get("changed").and_then(Value::as_array).map_or(0, Vec::len);
                let fields = if fields == 0 { String::new() } else { format!(", {fields} fields") };
                format!("change {number}: {}{version}, learned by {}{fields}", named(entry, "operation"), named(entry, "learned_by"))
            }
            _ => format!("{}{reason}", named(entry, "what")),
        };
        writeln!(out, "{}  {told}", named(entry, "at"))?;
    }
    writeln!(out, "{}", named(answer, "holds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_is_told_line_by_line() {
        let event = json!({ "at": "T1", "what": "event", "via": "hook", "operation": "update", "outcome": "marked",
                            "reason": "a read tells the state", "delivery": "d1", "received_at": "T0" });
        let change = json!({ "at": "T2", "what": "change", "number": 7, "operation": "update", "version": "V",
                             "learned_by": "mark", "changed": ["title"] });
        let aside = json!({ "at": "T3", "what": "quarantined", "reason": "a number is none" });
        let answer = json!({ "source": "pmp", "resource": "tasks", "key": "1", "holds": "Version V is held.", "more": true,
                             "entries": [event, change, aside] });
        let mut out = Vec::new();
        show(&mut out, &answer).expect("shown");
        let lines = [
            "pmp tasks 1",
            "(older entries are left out: --limit)",
            "T1  update by hook (delivery d1, received T0): marked: a read tells the state",
            "T2  change 7: update to version V, learned by mark, 1 fields",
            "T3  quarantined: a number is none",
            "Version V is held.",
        ];
        assert_eq!(String::from_utf8(out).expect("text"), lines.join("\n") + "\n");
    }
}
