//! `instep reconcile approve`: removals over the budget, and what becomes of them.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::{LOOK_EVERY, One, TELL_EVERY, print, within};
use crate::cli::{EX_SOFTWARE, EX_TEMPFAIL, client, complain, failed, field, prepared, rows};
use crate::config::Config;

/// Arguments of `instep reconcile approve`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  instep reconcile approve pmp tasks\n  instep reconcile approve pmp tasks --timeout 5m --json | jq .kept_keys\n\n\
    What a read still shows is kept. While the upstream shows nothing that must be there, nothing is removed, and this waits. The daemon \
    goes on when it is interrupted. Exit codes: 0 each is removed or kept, 75 --timeout was over before."
)]
pub struct Args {
    /// Of what
    #[command(flatten)]
    pub one: One,
    /// Return at once, without saying what becomes of them
    #[arg(long)]
    pub no_wait: bool,
    /// Wait no longer than this; the daemon goes on (default: until each is removed or kept)
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration, conflicts_with = "no_wait")]
    pub timeout: Option<Duration>,
}

/// Keys that are asked about at once.
const KEYS_AT_ONCE: usize = 1_000;
/// Kept keys of which so many are named.
const NAMED_MAX: usize = 5;

/// Approves, and tells what becomes of it.
pub(super) fn run(args: &Args) -> ExitCode {
    let (config, runtime) = match prepared(&args.one.common.config) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    runtime.block_on(async {
        match approve(args, &config).await {
            Ok(approved) => approved.told(args, &config).await,
            Err(error) => failed(error),
        }
    })
}

/// Removals that were approved, as they stand.
#[derive(Debug, Default)]
struct Approved {
    n: usize,
    removed: usize,
    kept: Vec<String>,
    waiting: BTreeSet<String>,
    /// Why one of these waits.
    why: Option<String>,
}

async fn ask(args: &Args, config: &Config, action: &str, keys: &[String]) -> Result<Value, client::Error> {
    let One { source, resource, .. } = &args.one;
    client::control(config, "reconcile", &json!({ "action": action, "source": source, "resource": resource, "keys": keys })).await
}

fn keys(answer: &Value, name: &str) -> Vec<String> {
    rows(answer, name).iter().filter_map(|key| Some(key.as_str()?.to_owned())).collect()
}

/// The daemon approves some at a time, so that each answer names them.
async fn approve(args: &Args, config: &Config) -> Result<Approved, client::Error> {
    let mut approved = Approved::default();
    loop {
        let answer = ask(args, config, "approve", &[]).await?;
        approved.waiting.extend(keys(&answer, "keys"));
        if answer.get("more") != Some(&Value::Bool(true)) {
            approved.n = approved.waiting.len();
            return Ok(approved);
        }
    }
}

impl Approved {
    async fn told(mut self, args: &Args, config: &Config) -> ExitCode {
        let One { source, resource, common } = &args.one;
        if !common.json {
            let n = self.n;
            let asked = print(|out| {
                writeln!(out, "{source} {resource}: {n} removal(s) approved; each record is read once more, and goes if it is not found")
            });
            if asked != ExitCode::SUCCESS || args.no_wait {
                return asked;
            }
        } else if args.no_wait {
            return print(|out| writeln!(out, "{}", json!({ "source": source, "resource": resource, "approved": self.n })));
        }
        let waited = within(args.timeout, self.wait(args, config)).await;
        if let Some(Err(code)) = waited {
            return code;
        }
        let written = print(|out| if common.json { writeln!(out, "{}", self.json(args)) } else { self.show(out, args) });
        match (waited, args.timeout) {
            (None, Some(limit)) if written == ExitCode::SUCCESS => {
                let (limit, left) = (humantime::format_duration(limit), self.waiting.len());
                complain(EX_TEMPFAIL, format_args!("not over after {limit}: {left} removal(s) wait; the daemon goes on"))
            }
            _ => written,
        }
    }

    /// Until each is removed or kept.
    async fn wait(&mut self, args: &Args, config: &Config) -> Result<(), ExitCode> {
        for look in 1_u32.. {
            self.look(args, config).await.map_err(failed)?;
            if self.waiting.is_empty() {
                return Ok(());
            }
            if look.is_multiple_of(TELL_EVERY) && !args.one.common.json {
                let written = print(|out| self.show(out, args));
                if written != ExitCode::SUCCESS {
                    return Err(written);
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(ExitCode::from(EX_SOFTWARE))
    }

    /// Asks once what has become of those that wait. Whoever stops it between two answers finds none of them forgotten.
    async fn look(&mut self, args: &Args, config: &Config) -> Result<(), client::Error> {
        let asked: Vec<String> = self.waiting.iter().cloned().collect();
        let mut why = None;
        for part in asked.chunks(KEYS_AT_ONCE) {
            let answer = ask(args, config, "fates", part).await?;
            let (removed, kept) = (keys(&answer, "removed"), keys(&answer, "kept"));
            for key in removed.iter().chain(&kept) {
                self.waiting.remove(key);
            }
            self.removed += removed.len();
            self.kept.extend(kept);
            why = why.or_else(|| Some(answer.get("why")?.as_str()?.to_owned()));
        }
        self.why = why;
        Ok(())
    }

    fn json(&self, args: &Args) -> Value {
        let (removed, kept, waiting) = (self.removed, self.kept.len(), self.waiting.len());
        json!({
            "source": args.one.source, "resource": args.one.resource, "approved": self.n, "removed": removed, "kept": kept,
            "kept_keys": self.kept, "waiting": waiting, "why": self.why,
        })
    }

    fn show(&self, out: &mut impl Write, args: &Args) -> io::Result<()> {
        let json = self.json(args);
        write!(out, "{} {}: {} removed", field(&json, "source"), field(&json, "resource"), self.removed)?;
        if !self.kept.is_empty() {
            let named = self.kept.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if self.kept.len() > NAMED_MAX { ", …" } else { "" };
            write!(out, ", {} kept, for a read has shown them: {named}{more}", self.kept.len())?;
        }
        if !self.waiting.is_empty() {
            let why = self.why.as_deref().map_or_else(String::new, |why| format!(" ({why})"));
            write!(out, ", {} wait{why}", self.waiting.len())?;
        }
        writeln!(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::gaps::Common;

    #[test]
    fn what_became_of_an_approval_is_told_with_the_keys_that_stay() {
        let common = Common { config: "instep.toml".into(), json: false };
        let args = Args { one: One { source: "pmp".into(), resource: "tasks".into(), common }, no_wait: false, timeout: None };
        let told = |approved: &Approved| {
            let mut out = Vec::new();
            approved.show(&mut out, &args).expect("shown");
            String::from_utf8(out).expect("text")
        };
        let keys = |n: usize| (0..n).map(|key| key.to_string()).collect::<Vec<_>>();
        let mut approved = Approved { n: 9, removed: 9, ..Approved::default() };
        assert_eq!(told(&approved), "pmp tasks: 9 removed\n");
        approved = Approved {
            removed: 1,
            kept: keys(6),
            waiting: keys(2).into_iter().collect(),
            why: Some("the upstream failed".into()),
            ..approved
        };
        let text = "pmp tasks: 1 removed, 6 kept, for a read has shown them: 0, 1, 2, 3, 4, …, 2 wait (the upstream failed)\n";
        assert_eq!(told(&approved), text);
    }
}
