//! The command line: one file a verb. Exit codes are those of sysexits: 0 done, 64 usage, 69 the daemon or upstream is not there,
//! 70 the daemon failed, 75 try again, 78 configuration.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;

mod client;

pub mod adopt;
pub mod check;
pub mod coverage;
pub mod decode;
pub mod demo;
pub mod explain;
pub mod gaps;
pub mod hooks;
pub mod init;
pub mod metadata;
pub mod migrate;
pub mod quarantine;
pub mod reconcile;
pub mod refresh;
pub mod report;
pub mod run;
pub mod sandbox;
pub mod status;
pub mod undelete;
pub mod verify;

/// sysexits: what was asked for makes no sense.
pub const EX_USAGE: u8 = 64;
/// sysexits: an input file cannot be read.
pub const EX_NOINPUT: u8 = 66;
/// sysexits: something that is needed is not there.
pub const EX_UNAVAILABLE: u8 = 69;
/// sysexits: an internal error.
pub const EX_SOFTWARE: u8 = 70;
/// sysexits: it may work later.
pub const EX_TEMPFAIL: u8 = 75;
/// sysexits: the configuration is wrong; systemd does not restart on it.
pub const EX_CONFIG: u8 = 78;

/// Keeps a local SQL database in step with the SaaS systems a team depends on.
#[derive(Debug, Parser)]
#[command(name = "instep", version, about, max_term_width = 100)]
#[command(after_help = "Examples:\n  instep init productive            write a commented configuration\n  \
    instep check                      say everything that is wrong with it\n  \
    instep run                        keep the replica in step\n  \
    instep status                     what is wrong, what is behind\n  \
    instep hooks create pmp           make a source live")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the daemon in the foreground
    Run(run::Args),
    /// Check the configuration without running
    Check(check::Args),
    /// Write a commented configuration for a kind of upstream
    Init(init::Args),
    /// Create, list or delete the webhook registrations of a source
    Hooks(hooks::Args),
    /// Manage the webhooks of a source from here, after its database came from elsewhere
    Adopt(adopt::Args),
    /// Save what an upstream says of its resources, for typed views
    Metadata(metadata::Args),
    /// Show what a captured delivery would do
    Decode(decode::Args),
    /// Show how the running daemon stands, what is wrong first
    Status(status::Args),
    /// Show which way of events told what, and what only passes found
    Coverage(coverage::Args),
    /// Show the periods in which deliveries may have been lost, or open one
    Gaps(gaps::Args),
    /// Compare with the upstream now instead of at its time, and watch how it goes
    Reconcile(reconcile::Args),
    /// Take a removed record back if the upstream shows it
    Undelete(undelete::Args),
    /// Show what could not be processed, try it again or give it up
    Quarantine(quarantine::Args),
    /// Tell the life of one record, and what is held of it now and why
    Explain(explain::Args),
    /// Have one record read upstream now, and show what is held of it
    Refresh(refresh::Args),
    /// Show how late and how lossy the ways are by which changes are learned
    #[command(subcommand)]
    Report(report::Report),
    /// Compare the replica with the upstream, and put right what differs
    Verify(verify::Args),
    /// Bring the store's schema up to date without running
    Migrate(migrate::Args),
    /// Prove the main job on a fake organisation: hooks only, passes only, both with faults
    Demo(demo::Args),
    /// Run a fake upstream over real HTTP, for trials and tests
    Sandbox(sandbox::Args),
}

/// Parses the arguments and does what they say.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(message) => {
            // `--help` and `--version` come this way too, and are no mistake. Nothing can be done where printing fails.
            let _ = message.print();
            return if message.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match cli.verb {
        Verb::Check(args) => check::run(&args),
        Verb::Init(args) => init::run(&args),
        Verb::Run(args) => run::run(&args),
        Verb::Hooks(args) => hooks::run(&args),
        Verb::Adopt(args) => adopt::run(&args),
        Verb::Metadata(args) => metadata::run(&args),
        Verb::Decode(args) => decode::run(&args),
        Verb::Status(args) => status::run(&args),
        Verb::Coverage(args) => coverage::run(&args),
        Verb::Gaps(args) => gaps::run(&args),
        Verb::Reconcile(args) => reconcile::run(&args),
        Verb::Undelete(args) => undelete::run(&args),
        Verb::Quarantine(args) => quarantine::run(&args),
        Verb::Explain(args) => explain::run(&args),
        Verb::Refresh(args) => refresh::run(&args),
        Verb::Report(report) => report::run(&report),
        Verb::Verify(args) => verify::run(&args),
        Verb::Migrate(args) => migrate::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Sandbox(args) => sandbox::run(&args),
    }
}

/// Says what went wrong on standard error.
fn complain(code: u8, what: impl std::fmt::Display) -> ExitCode {
    use std::io::Write as _;
    // Nobody is left to tell where standard error is closed.
    let _ = writeln!(std::io::stderr(), "instep: {what}");
    ExitCode::from(code)
}

/// What a verb needs that asks the running daemon: where it listens, and a runtime to ask with.
fn prepared(path: &Path) -> Result<(Config, tokio::runtime::Runtime), ExitCode> {
    let config = Config::load(path).map_err(|error| complain(EX_CONFIG, error))?;
    let runtime = runtime(1).map_err(|error| complain(EX_SOFTWARE, error))?;
    Ok((config, runtime))
}

/// Has the running daemon do one thing, for a verb that needs nothing else of the configuration.
fn asked(path: &Path, verb: &str, request: &serde_json::Value) -> Result<serde_json::Value, ExitCode> {
    let (config, runtime) = prepared(path)?;
    runtime.block_on(client::control(&config, verb, request)).map_err(failed)
}

/// The sources that a verb is about: the one that was named, or all of the configuration.
fn chosen(config: &Config, named: Option<&str>) -> Vec<String> {
    named.map_or_else(|| config.sources.keys().cloned().collect(), |name| vec![name.to_owned()])
}

/// Says why the daemon did not do it: 1 where it refused, 69 where it did not answer.
fn failed(error: client::Error) -> ExitCode {
    let code = if matches!(error, client::Error::Refused(_)) { 1 } else { EX_UNAVAILABLE };
    complain(code, error)
}

/// The text of a field of an answer; `-` where there is none.
fn field<'a>(row: &'a serde_json::Value, name: &str) -> &'a str {
    row.get(name).and_then(serde_json::Value::as_str).unwrap_or("-")
}

/// The list of an answer's field; empty where there is none.
fn rows<'a>(answer: &'a serde_json::Value, name: &str) -> &'a [serde_json::Value] {
    answer.get(name).and_then(serde_json::Value::as_array).map_or(&[], Vec::as_slice)
}

/// A runtime for a verb; `workers` threads.
fn runtime(workers: usize) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()
}
