//! `instep sandbox`: a fake upstream over real HTTP, a process of its own.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Subcommand;

use super::{EX_SOFTWARE, EX_UNAVAILABLE, complain, runtime};
use crate::sandbox::productive;

/// Arguments of `instep sandbox`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  instep sandbox productive --port 8720 --entities 5000\n  curl http://127.0.0.1:8720/__sandbox/report")]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// A Productive.io organisation
    Productive(Box<productive::Options>),
}

/// Serves until it is killed.
pub fn run(args: &Args) -> ExitCode {
    let Kind::Productive(options) = &args.kind;
    let serve = async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", options.port)).await?;
        // Whoever started us reads the port from here.
        writeln!(std::io::stdout(), "http://{}/api/v2/", listener.local_addr()?)?;
        productive::serve((**options).clone(), listener).await.map_err(std::io::Error::other)
    };
    match runtime(2).map(|runtime| runtime.block_on(serve)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => complain(EX_UNAVAILABLE, error),
        Err(error) => complain(EX_SOFTWARE, error),
    }
}
