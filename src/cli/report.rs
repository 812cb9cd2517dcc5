//! `instep report`: figures about a source out of what is stored.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;

use super::coverage::answered;

/// Stamps that are cut to as many seconds or more are worth a word.
const COARSE: f64 = 0.01;

/// What is reported.
#[derive(Debug, clap::Subcommand)]
pub enum Report {
    /// How late webhooks, feeds, passes and reads told of changes, and which they never told
    Delay(Args),
}

/// Arguments of `instep report delay`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  instep report delay pmp\n  instep report delay pmp --since 24h --json | jq .delays.ways.hook\n\n\
    A delay is the time from the upstream's own stamp of a change to our having been told of it. The distance of the two clocks is \
    estimated from the `Date` of the upstream's answers and taken into account. `error` says how far any figure of its line may be from the \
    truth: by how much it may be too long, for clocks and for stamps that are cut, such as to whole seconds, and by how much too short. \
    Changes whose stamp is older than --since are left out: ask from after the backfill on.")]
pub struct Args {
    /// Which source
    pub source: String,
    /// From when on: a day, an instant, or how long ago
    #[arg(long, value_name = "WHEN", default_value = "7d")]
    pub since: String,
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "INSTEP_CONFIG", default_value = "instep.toml")]
    pub config: PathBuf,
    /// Answer as JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

/// Asks the daemon and shows its answer.
pub fn run(report: &Report) -> ExitCode {
    let Report::Delay(args) = report;
    answered("delay", &args.source, &args.since, &args.config, args.json, show)
}

fn show(out: &mut impl Write, answer: &Value) -> io::Result<()> {
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or("-");
    let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let delays = &answer["delays"];
    writeln!(
        out,
        "{}: {} changes since {}, {} of them without a stamp",
        text("source"),
        delays["changes"],
        text("since"),
        delays["unstamped"]
    )?;
    match answer.get("clock").filter(|clock| clock.is_object()) {
        Some(clock) => {
            let (ahead, error) = (number(clock, "ahead_seconds"), number(clock, "error_seconds"));
            let shown = if number(clock, "corrected_seconds") == 0.0 {
                "both may be one, so nothing is put right"
            } else {
                "that is taken into account"
            };
            writeln!(out, "The upstream's clock is {ahead:.3} s ahead of ours, give or take {error:.3} s; {shown}.")?;
        }
        None => writeln!(out, "The distance of the clocks is not known: the upstream has not said what time it is.")?,
    }
    writeln!(
        out,
        "{:<16} {:>9} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9}  error",
        "way", "told", "first", "never", "n", "p50", "p90", "p99", "max"
    )?;
    let ways = delays["ways"].as_object().cloned().unwrap_or_default();
    for (name, way) in &ways {
        let seconds = |name: &str| format!("{:.3} s", number(way, name));
        writeln!(
            out,
            "{name:<16} {:>9} {:>6.2} % {:>6.2} % {:>9} {:>9} {:>9} {:>9} {:>9}  {}",
            way["told"],
            number(way, "first_percent"),
            number(way, "never_percent"),
            way["n"],
            seconds("p50"),
            seconds("p90"),
            seconds("p99"),
            seconds("max"),
            error(way),
        )?;
    }
    for (name, way) in ways.iter().filter(|(_, way)| number(way, "stamp_seconds") >= COARSE) {
        let stamps = number(way, "stamp_seconds");
        let stamps = if stamps == 1.0 { "whole seconds".to_owned() } else { format!("cut to {stamps} s") };
        writeln!(out, "{name}: its stamps are {stamps}, so that what it says may be too long by as much.")?;
    }
    for (name, way) in ways.iter().filter(|(_, way)| way["few"] == true) {
        writeln!(out, "{name}: {} samples are fewer than 100 and say little of a tail.", way["n"])?;
    }
    Ok(())
}

/// Where the truth lies around any figure of a way: so much below it, so much above.
fn error(way: &Value) -> String {
    let bound = |name: &str| way.get(name).and_then(Value::as_f64);
    match (bound("too_long_seconds"), bound("too_short_seconds")) {
        (Some(too_long), Some(too_short)) => format!("-{too_long:.3} +{too_short:.3} s"),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn few_samples_and_the_error_of_the_clocks_are_told() {
        let way = json!({ "told": 7, "first_percent": 70.0, "never_percent": 30.0, "n": 7, "few": true, "p50": 0.25, "p90": 1.0, "p99": 2.0, "max": 2.0,
                          "stamp_seconds": 1.0, "too_long_seconds": 1.012, "too_short_seconds": 0.012 });
        let clock = json!({ "ahead_seconds": -0.5, "error_seconds": 0.012, "corrected_seconds": -0.5 });
        let answer = json!({ "source": "pmp", "since": "2026-11-01", "clock": clock,
                             "delays": { "changes": 10, "unstamped": 1, "ways": { "hook": way } } });
        let mut out = Vec::new();
        show(&mut out, &answer).expect("shown");
        let text = String::from_utf8(out).expect("text");
        let ahead = "-0.500 s ahead of ours, give or take 0.012 s; that is taken into account";
        for part in ["10 changes", "1 of them", ahead, "hook: its stamps are whole seconds", "7 samples are fewer", "-1.012 +0.012 s"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let row: Vec<&str> = text.lines().find(|line| line.starts_with("hook ")).expect("a row").split_whitespace().collect();
        assert_eq!(row[..8], ["hook", "7", "70.00", "%", "30.00", "%", "7", "0.250"]);
    }
}
