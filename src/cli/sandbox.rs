//! `instep sandbox`: a fake upstream over real HTTP, a process of its own.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Subcommand;

use super::{EX_SOFTWARE, EX_UNAVAILABLE, complain, runtime};
use crate::sandbox::{akeneo, productive, reso};

/// Arguments of `instep sandbox`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  instep sandbox productive --port 8720 --entities 5000\n  instep sandbox akeneo --port 8721 --zone-offset-minutes 60\n  instep sandbox reso --port 8722 --profile mlsgrid\n  curl http://127.0.0.1:8720/__sandbox/report"
)]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// A Productive.io organisation
    Productive(Box<productive::Options>),
    /// An Akeneo PIM with both of its event systems
    Akeneo(Box<akeneo::Options>),
    /// A RESO producer: OData, EntityEvents and their push
    Reso(Box<reso::Options>),
}

/// Serves until it is killed.
pub fn run(args: &Args) -> ExitCode {
    let serve = async {
        match &args.kind {
            Kind::Productive(options) => {
                let listener = listen(options.port, "api/v2/").await?;
                productive::serve((**options).clone(), listener).await.map_err(std::io::Error::other)
            }
            Kind::Akeneo(options) => {
                let listener = listen(options.port, "").await?;
                akeneo::serve((**options).clone(), listener).await.map_err(std::io::Error::other)
            }
            Kind::Reso(options) => {
                let listener = listen(options.port, "odata/").await?;
                reso::serve((**options).clone(), listener).await.map_err(std::io::Error::other)
            }
        }
    };
    match runtime(2).map(|runtime| runtime.block_on(serve)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => complain(EX_UNAVAILABLE, error),
        Err(error) => complain(EX_SOFTWARE, error),
    }
}

/// Listens on the loopback address and says where, with the path that a client begins at.
async fn listen(port: u16, path: &str) -> std::io::Result<tokio::net::TcpListener> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    // Whoever started us reads the port from here.
    writeln!(std::io::stdout(), "http://{}/{path}", listener.local_addr()?)?;
    Ok(listener)
}
