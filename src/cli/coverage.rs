//! `instep coverage`: which way of events told what, and what none of them told.

use std::io::{self, StdoutLock, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::{EX_SOFTWARE, EX_USAGE, asked, complain};
use crate::clock::{Clock, Timestamp};

/// Arguments of `instep coverage`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  instep coverage pim\n  instep coverage pim --since 2026-11-01\n  \
    instep coverage pim --since 7d --json | jq '.rows[] | select(.pass > 0)'\n\n\
    Two ways' statements about the same operation on the same record within one hour are one announcement, told by both. \
    The backfill counts as passes: ask from after it on.")]
pub struct Args {
    /// Which source
    pub source: String,
    /// From when on: a day, an instant, or how long ago
    #[arg(long, value_name = "WHEN", default_value = "30d")]
    pub since: String,
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "INSTEP_CONFIG", default_value = "instep.toml")]
    pub config: PathBuf,
    /// Answer as JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

/// Asks the daemon and shows its answer.
pub fn run(args: &Args) -> ExitCode {
    answered("coverage", &args.source, &args.since, &args.config, args.json, show)
}

/// Has the daemon answer `verb` about what came since then, and shows that.
pub(super) fn answered(
    verb: &str,
    source: &str,
    when: &str,
    config: &Path,
    json: bool,
    show: fn(&mut StdoutLock<'static>, &Value) -> io::Result<()>,
) -> ExitCode {
    let Some(since) = since(when, Clock::system().now()) else {
        return complain(EX_USAGE, format_args!("--since {when}: write a day (2026-11-01), an instant in RFC 3339 or a span (30d)"));
    };
    let request = json!({ "source": source, "since": since.to_string() });
    let answer = match asked(config, verb, &request) {
        Ok(answer) => answer,
        Err(code) => return code,
    };
    let mut out = io::stdout().lock();
    let written = if json { writeln!(out, "{answer}") } else { show(&mut out, &answer) };
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(EX_SOFTWARE) }
}

/// What people write for an instant: a day, an instant in RFC 3339, or how long ago.
pub(super) fn since(text: &str, now: Timestamp) -> Option<Timestamp> {
    let span: Option<Duration> = humantime::parse_duration(text).ok();
    span.map(|span| now.minus(span)).or_else(|| Timestamp::parse(text)).or_else(|| Timestamp::parse(&format!("{text}T00:00:00Z")))
}

fn show(out: &mut impl Write, answer: &Value) -> io::Result<()> {
    let list = |name: &str| answer.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let ways: Vec<String> = list("ways").iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect();
    let since = answer.get("since").and_then(Value::as_str).unwrap_or("-");
    writeln!(out, "{}: what was told since {since}", answer.get("source").and_then(Value::as_str).unwrap_or("-"))?;
    let titles: Vec<String> = ways.iter().map(|way| format!(" {way:>15}")).collect();
    writeln!(out, "{:<24} {:<9}{} {:>9} {:>9}  usually first", "resource", "operation", titles.concat(), "by both", "by a pass")?;
    for row in list("rows") {
        let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
        let number = |pointer: &str| row.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let told: Vec<String> = ways.iter().map(|way| format!(" {:>15}", number(&format!("/told/{way}")))).collect();
        let lead = row.get("lead").filter(|lead| lead.is_object()).map_or_else(String::new, |lead| {
            let seconds = lead.get("seconds").and_then(Value::as_f64).unwrap_or(0.0);
            format!("{} by {seconds:.1} s", lead.get("earlier").and_then(Value::as_str).unwrap_or("-"))
        });
        let (both, pass) = (number("/both"), number("/pass"));
        writeln!(out, "{:<24} {:<9}{} {both:>9} {pass:>9}  {lead}", text("resource"), text("operation"), told.concat())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_day_an_instant_or_a_span() {
        let now = Timestamp::parse("2026-11-27T12:00:00Z").expect("an instant");
        let since = |text| since(text, now).map(|at| at.to_string());
        assert_eq!(since("2026-11-01").as_deref(), Some("2026-11-01T00:00:00.000000Z"));
        assert_eq!(since("2026-11-01T06:00:00+01:00").as_deref(), Some("2026-11-01T05:00:00.000000Z"));
        assert_eq!(since("2d").as_deref(), Some("2026-11-25T12:00:00.000000Z"));
        assert_eq!(since("lately"), None);
    }

    #[test]
    fn a_row_shows_every_way_and_which_is_first() {
        let row = json!({ "resource": "products", "operation": "update", "told": { "events_api": 7 }, "both": 5, "pass": 1,
                          "lead": { "earlier": "events_api", "seconds": 1.25 } });
        let answer = json!({ "source": "pim", "since": "2026-11-01", "ways": ["event_platform", "events_api"], "rows": [row] });
        let mut out = Vec::new();
        show(&mut out, &answer).expect("shown");
        let text = String::from_utf8(out).expect("text");
        let words: Vec<&str> = text.lines().last().unwrap_or_default().split_whitespace().collect();
        assert_eq!(words, ["products", "update", "0", "7", "5", "1", "events_api", "by", "1.2", "s"]);
    }
}
