//! `instep run`: the daemon in the foreground.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{EX_CONFIG, EX_SOFTWARE, EX_TEMPFAIL, EX_UNAVAILABLE, complain, runtime};
use crate::clock::Clock;
use crate::config::{Config, Listener, LogFormat, state_directory};
use crate::daemon::{Daemon, Outcome, Sockets, StartError};
use crate::failpoint;
use crate::service::{self, Inherited};
use crate::store::Kind;
use crate::telemetry;

/// Arguments of `instep run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  instep run\n  instep run --config /etc/instep/instep.toml\n\n\
    SIGTERM and SIGINT stop it in order; a second one ends it at once.")]
pub struct Args {
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "INSTEP_CONFIG", default_value = "instep.toml")]
    pub config: PathBuf,
}

/// Threads of the runtime: the daemon waits for network and disk, not for the processor.
const WORKERS: usize = 2;

/// How long nobody may look at timers and sockets because a thread is blocked.
const NUDGE_EVERY: Duration = Duration::from_millis(500);

/// Runs the daemon until it is told to stop.
pub fn run(args: &Args) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => return complain(EX_CONFIG, format_args!("the configuration is wrong:\n{error}")),
    };
    let format = match config.log.format {
        LogFormat::Auto => telemetry::Format::Auto,
        LogFormat::Human => telemetry::Format::Human,
        LogFormat::Json => telemetry::Format::Json,
    };
    if let Err(error) = telemetry::init(config.log.level.word(), format) {
        return complain(EX_CONFIG, error);
    }
    telemetry::panics();
    failpoint::listen();
    let sockets = match sockets(&config) {
        Ok(sockets) => sockets,
        Err(error) => return complain(EX_UNAVAILABLE, error),
    };
    let runtime = match runtime(WORKERS) {
        Ok(runtime) => runtime,
        Err(error) => return complain(EX_SOFTWARE, error),
    };
    nudge(runtime.handle().clone());
    let code = runtime.block_on(serve(&config, sockets));
    // A thread that is blocked would be waited for without end.
    runtime.shutdown_background();
    code
}

/// Wakes a resting worker from outside again and again. A worker that was woken by a timer or a socket and then blocks its thread
/// leaves nobody to look at timers and sockets, until something that is neither wakes the other one.
fn nudge(handle: tokio::runtime::Handle) {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(NUDGE_EVERY);
            handle.spawn(async {});
        }
    });
}

/// Bound before anything else, so that what arrives while we start waits in the kernel's queue.
fn sockets(config: &Config) -> Result<Sockets, String> {
    let mut inherited = Inherited::take();
    let mut socket = |listener: &Listener| match listener {
        Listener::Tcp(address) => TcpListener::bind(address).map_err(|error| format!("{address} cannot be bound: {error}")),
        Listener::Systemd(name) => inherited.listener(name).map_err(|error| error.to_string()),
    };
    let api = config.listen.api.as_ref().map(|api| socket(&api.address)).transpose()?;
    Ok(Sockets { hooks: socket(&config.listen.hooks)?, admin: socket(&config.listen.admin.address)?, api })
}

async fn serve(config: &Config, sockets: Sockets) -> ExitCode {
    let stop = CancellationToken::new();
    let (mut term, mut int) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(term), Ok(int)) => (term, int),
        (Err(error), _) | (_, Err(error)) => return complain(EX_SOFTWARE, error),
    };
    let mut told = async || tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} };
    let state = state_directory();
    let starting = Daemon::start(config, &state, sockets, Clock::system(), stop.clone());
    let started = tokio::select! {
        started = starting => started,
        () = told() => return ExitCode::SUCCESS,
    };
    let mut daemon = match started {
        Ok(daemon) => daemon,
        Err(error) => return complain(exit_code(&error), error),
    };
    service::ready(&format!("{} source(s)", daemon.sources.len()));
    tracing::info!(hooks = %daemon.hooks, admin = %daemon.admin, sources = daemon.sources.len(), "ready");
    let failed = tokio::select! {
        outcome = daemon.ended() => outcome == Outcome::Failed,
        () = told() => false,
    };
    service::stopping("stopping");
    tracing::info!("stopping");
    let outcome = tokio::select! {
        outcome = daemon.stop() => outcome,
        // Whoever asks twice does not want to wait: rows hold everything, so ending at once loses nothing that was acknowledged.
        () = told() => return ExitCode::from(EX_SOFTWARE),
    };
    if failed || outcome == Outcome::Failed { ExitCode::from(EX_SOFTWARE) } else { ExitCode::SUCCESS }
}

fn exit_code(error: &StartError) -> u8 {
    match error {
        StartError::Secret(_) | StartError::Token(_) | StartError::Source { .. } => EX_CONFIG,
        StartError::Store(error) if matches!(error.kind(), Kind::Locked | Kind::Schema) => EX_CONFIG,
        StartError::Store(_) => EX_TEMPFAIL,
        StartError::Socket(_) => EX_UNAVAILABLE,
        StartError::Tree(_) => EX_SOFTWARE,
        StartError::Stopped => 0,
    }
}
