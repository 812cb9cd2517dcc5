//! `instep migrate`: brings the schema up to date while no daemon runs.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{EX_CONFIG, EX_SOFTWARE, EX_TEMPFAIL, complain, runtime};
use crate::clock::Clock;
use crate::config::{Config, state_directory};
use crate::store::{Options, Store};

/// Arguments of `instep migrate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  instep migrate\n\n`instep run` does the same at its start; on SQLite stop the daemon first.")]
pub struct Args {
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "INSTEP_CONFIG", default_value = "instep.toml")]
    pub config: PathBuf,
}

/// Migrates.
pub fn run(args: &Args) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => return complain(EX_CONFIG, error),
    };
    let url = match config.store.connection_url(&state_directory()) {
        Ok(url) => url,
        Err(error) => return complain(EX_CONFIG, error),
    };
    let options = Options {
        url: url.expose().to_owned(),
        read_group: config.store.read_group.clone(),
        grant: config.store.grant.clone(),
        connections: config.store.connections,
        clock: Clock::system(),
    };
    let migrate = async {
        let store = Store::open(options).await?;
        store.migrate().await?;
        store.close().await
    };
    match runtime(1).map(|runtime| runtime.block_on(migrate)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => complain(EX_TEMPFAIL, error),
        Err(error) => complain(EX_SOFTWARE, error),
    }
}
