//! `instep reconcile`: passes now instead of at their time, watched until they end; what they would cost, and what they hold back.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::gaps::Common;
use super::{EX_SOFTWARE, EX_TEMPFAIL, chosen, client, complain, failed, field, prepared, rows};
use crate::config::Config;

mod approve;
mod held;
mod plan;

/// Arguments of `instep reconcile`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:\n  instep reconcile pmp\n  instep reconcile pmp tasks --sweep\n  \
    instep reconcile --sweep --detach\n  instep reconcile pmp --timeout 10m\n  instep reconcile plan pmp\n  instep reconcile held\n  instep reconcile approve pmp tasks\n  instep reconcile pmp --json | jq '.resources[] | select(.state != \"completed\")'\n\n\
    Without --sweep it asks for what changed since the last pass; where only sweeps find changes it sweeps. The daemon goes on when \
    this is interrupted, and after a restart. Exit codes: 0 all completed, 1 one was given up, 75 --timeout was over before.")]
pub struct Args {
    /// Something else than asking for passes
    #[command(subcommand)]
    pub what: Option<What>,
    /// Which source; without one all
    pub source: Option<String>,
    /// Which of its resources; without one all
    pub resource: Option<String>,
    /// Read everything, not only what changed
    #[arg(long)]
    pub sweep: bool,
    /// Ask for it and return at once
    #[arg(long)]
    pub detach: bool,
    /// Wait no longer than this; the daemon goes on (default: until all have ended)
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration, conflicts_with = "detach")]
    pub timeout: Option<Duration>,
    /// Configuration and form of the answer
    #[command(flatten)]
    pub common: Common,
}

/// What can be done beside asking for passes.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Say what passes would cost in requests and time
    Plan(Whose),
    /// Show the removals that are held back, and why
    Held(Whose),
    /// Have what the removal budget holds back read once more, and removed if it is not found; tell what becomes of it
    Approve(approve::Args),
    /// Keep what the removal budget holds back
    Reject(One),
}

/// A source, or all.
#[derive(Debug, clap::Args)]
pub struct Whose {
    /// Of this source only
    pub source: Option<String>,
    /// Configuration and form of the answer
    #[command(flatten)]
    pub common: Common,
}

/// A resource.
#[derive(Debug, clap::Args)]
pub struct One {
    /// Of which source
    pub source: String,
    /// Which resource
    pub resource: String,
    /// Configuration and form of the answer
    #[command(flatten)]
    pub common: Common,
}

/// How often the daemon is asked how it goes.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A pass that goes on is told of this seldom.
const TELL_EVERY: u32 = 10;

/// Asks the daemon and watches what comes of it.
pub fn run(args: &Args) -> ExitCode {
    match &args.what {
        Some(What::Plan(whose)) => ask("plan", whose.source.as_deref(), None, &whose.common),
        Some(What::Held(whose)) => ask("held", whose.source.as_deref(), None, &whose.common),
        Some(What::Approve(args)) => approve::run(args),
        Some(What::Reject(one)) => ask("reject", Some(&one.source), Some(&one.resource), &one.common),
        None => passes(args),
    }
}

/// One question to the daemon for each source.
fn ask(action: &str, source: Option<&str>, resource: Option<&str>, common: &Common) -> ExitCode {
    let (config, runtime) = match prepared(&common.config) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    for source in chosen(&config, source) {
        let request = json!({ "action": action, "source": source, "resource": resource });
        let answer = match runtime.block_on(client::control(&config, "reconcile", &request)) {
            Ok(answer) => answer,
            Err(error) => return failed(error),
        };
        let written = print(|out| match (common.json, action) {
            (true, _) => writeln!(out, "{answer}"),
            (false, "plan") => plan::show(out, &answer),
            (false, _) => held::show(out, &answer),
        });
        if written != ExitCode::SUCCESS {
            return written;
        }
    }
    ExitCode::SUCCESS
}

fn passes(args: &Args) -> ExitCode {
    let (config, runtime) = match prepared(&args.common.config) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    let mut asked = Vec::new();
    for source in chosen(&config, args.source.as_deref()) {
        let request = json!({ "action": "ask", "source": source, "resource": args.resource, "sweep": args.sweep });
        match runtime.block_on(client::control(&config, "reconcile", &request)) {
            Ok(answer) => asked.push(answer),
            Err(error) => return failed(error),
        }
    }
    if args.detach {
        return print(|out| {
            asked.iter().try_for_each(|answer| if args.common.json { writeln!(out, "{answer}") } else { promised(out, answer) })
        });
    }
    let mut watch = Watch { args, config: &config, asked: &asked, told: BTreeMap::new(), answers: Vec::new() };
    runtime.block_on(watch.run())
}

/// Waits no longer than that; `None`: it was not over by then.
async fn within<T>(limit: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, work).await.ok(),
        None => Some(work.await),
    }
}

/// Looks at passes until each has ended.
struct Watch<'a> {
    args: &'a Args,
    config: &'a Config,
    asked: &'a [Value],
    /// What was said of each resource last.
    told: BTreeMap<String, Value>,
    /// How they stood last.
    answers: Vec<Value>,
}

impl Watch<'_> {
    async fn run(&mut self) -> ExitCode {
        let limit = self.args.timeout;
        match within(limit, self.end()).await {
            Some(code) => code,
            None => self.over(limit.unwrap_or_default()),
        }
    }

    /// Asks how the passes go until each has ended.
    async fn end(&mut self) -> ExitCode {
        let Self { args, .. } = self;
        for look in 0_u32.. {
            let mut answers = Vec::new();
            for ask in self.asked {
                let request = json!({ "action": "progress", "source": field(ask, "source"), "resource": args.resource, "sweep": args.sweep,
                                      "asked_at": field(ask, "asked_at") });
                match client::control(self.config, "reconcile", &request).await {
                    Ok(answer) => answers.push(answer),
                    Err(error) => return failed(error),
                }
            }
            self.answers = answers;
            let states: Vec<&str> =
                self.answers.iter().flat_map(|answer| rows(answer, "resources")).map(|row| field(row, "state")).collect();
            let is_over = states.iter().all(|state| is_end(state));
            let told = &mut self.told;
            let written = match args.common.json {
                true if is_over => print(|out| self.answers.iter().try_for_each(|answer| writeln!(out, "{answer}"))),
                true => ExitCode::SUCCESS,
                false => print(|out| self.answers.iter().try_for_each(|answer| show(out, answer, look, told))),
            };
            if written != ExitCode::SUCCESS {
                return written;
            }
            if is_over {
                return ExitCode::from(u8::from(states.contains(&"stopped")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        ExitCode::from(EX_SOFTWARE)
    }

    /// Says what has not ended in time.
    fn over(&self, limit: Duration) -> ExitCode {
        if self.args.common.json {
            let written = print(|out| self.answers.iter().try_for_each(|answer| writeln!(out, "{answer}")));
            if written != ExitCode::SUCCESS {
                return written;
            }
        }
        let left = |answer: &Value| {
            let left = rows(answer, "resources").iter().filter(|row| !is_end(field(row, "state")));
            left.map(|row| format!("{} {}", field(answer, "source"), field(row, "resource"))).collect::<Vec<_>>()
        };
        let left: Vec<String> = self.answers.iter().flat_map(left).collect();
        let left = if left.is_empty() { String::new() } else { format!(": {}", left.join(", ")) };
        complain(EX_TEMPFAIL, format_args!("not over after {}{left}; the daemon goes on", humantime::format_duration(limit)))
    }
}

fn is_end(state: &str) -> bool {
    ["completed", "stopped"].contains(&state)
}

fn print(write: impl FnOnce(&mut io::StdoutLock<'_>) -> io::Result<()>) -> ExitCode {
    if write(&mut io::stdout().lock()).is_ok() { ExitCode::SUCCESS } else { ExitCode::from(EX_SOFTWARE) }
}

fn promised(out: &mut impl Write, answer: &Value) -> io::Result<()> {
    let names: Vec<&str> = rows(answer, "resources").iter().filter_map(Value::as_str).collect();
    writeln!(out, "{}: {} asked for: {}", field(answer, "source"), field(answer, "kind"), names.join(", "))
}

/// A line for every resource whose state is new, and now and then for those under way.
fn show(out: &mut impl Write, answer: &Value, look: u32, told: &mut BTreeMap<String, Value>) -> io::Result<()> {
    for row in rows(answer, "resources") {
        let name = format!("{} {}", field(answer, "source"), field(row, "resource"));
        let state = json!([row.get("state"), row.get("kind"), row.get("began_before"), row.get("ails")]);
        let is_news = told.get(&name) != Some(&state);
        let is_under_way = field(row, "state") == "running" && look.is_multiple_of(TELL_EVERY);
        if is_news || is_under_way {
            writeln!(out, "{name}: {}", line(row))?;
        }
        told.insert(name, state);
    }
    Ok(())
}

fn line(row: &Value) -> String {
    let number = |name: &str| row.get(name).and_then(Value::as_u64).unwrap_or(0);
    let (kind, records) = (field(row, "kind"), number("records"));
    let why = row.get("ails").and_then(Value::as_str).map_or_else(String::new, |why| format!(" ({why})"));
    match field(row, "state") {
        "completed" => format!("{kind} completed, {records} records"),
        "stopped" => format!("{kind} given up: {}", field(row, "note")),
        "running" => {
            let of = if kind == "sweep" { format!(" of {}", number("live_rows")) } else { String::new() };
            let before = if row.get("began_before") == Some(&Value::Bool(true)) { ", begun before; the one asked for follows" } else { "" };
            let left = row.get("left_s").and_then(Value::as_u64).map_or_else(String::new, |left| format!(", about {left} s left"));
            format!("{kind} under way, {records}{of} records{left}{before}{why}")
        }
        _ => format!("waits for its turn{why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_a_pass_is_and_why_it_ended() {
        let row = |state: &str, more: Value| {
            let mut row = json!({ "resource": "tasks", "state": state, "kind": "sweep", "records": 400, "live_rows": 860 });
            row.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
            line(&row)
        };
        assert_eq!(row("running", json!({ "left_s": 3 })), "sweep under way, 400 of 860 records, about 3 s left");
        assert_eq!(
            row("running", json!({ "began_before": true })),
            "sweep under way, 400 of 860 records, begun before; the one asked for follows"
        );
        assert_eq!(row("completed", json!({})), "sweep completed, 400 records");
        assert_eq!(row("stopped", json!({ "note": "the list is incomplete" })), "sweep given up: the list is incomplete");
        assert_eq!(row("waiting", json!({ "ails": "the upstream failed" })), "waits for its turn (the upstream failed)");
    }
}
