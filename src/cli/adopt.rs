//! `instep adopt`: webhooks of a source are managed from here, after its database came from elsewhere.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::asked;

/// Arguments of `instep adopt`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  instep adopt pmp\n\n\
    A daemon whose public_url or host is another than when the webhooks of a source were made changes none of them: its database may be\n\
    a copy, and the original at work. This says that it is not, or that the webhooks shall come here.")]
pub struct Args {
    /// Which source
    pub source: String,
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "INSTEP_CONFIG", default_value = "instep.toml")]
    pub config: PathBuf,
}

/// Asks the daemon.
pub fn run(args: &Args) -> ExitCode {
    asked(&args.config, "adopt", &json!({ "source": args.source })).err().unwrap_or(ExitCode::SUCCESS)
}
