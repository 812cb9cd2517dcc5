//! `instep metadata`: saves what an upstream says of its resources. Keys and columns then follow the file, until it is saved anew.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use super::{EX_UNAVAILABLE, EX_USAGE, complain, prepared};
use crate::config::Connector;
use crate::daemon;

/// sysexits: the file cannot be made.
const EX_CANTCREAT: u8 = 73;

/// Arguments of `instep metadata`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  instep metadata mls --output /etc/instep/mls.xml\n  instep metadata mls\n\n\
    Without --output it goes to the file that metadata of the source names. The daemon reads that at its start.\n\
    One request, or two where a token is asked for, outside the limits that the daemon keeps.")]
pub struct Args {
    /// Which source
    pub source: String,
    /// File to write
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "INSTEP_CONFIG", default_value = "instep.toml")]
    pub config: PathBuf,
}

/// Asks and saves. Exit code 0; 64 where it is not known what to ask or where to save; 69 where there is no usable answer.
pub fn run(args: &Args) -> ExitCode {
    let (config, runtime) = match prepared(&args.config) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    let Some(source) = config.sources.get(&args.source) else {
        return complain(EX_USAGE, format_args!("there is no source {}", args.source));
    };
    let configured = match &source.connector {
        Connector::Reso(settings, _) => settings.metadata.as_ref().map(PathBuf::from),
        Connector::Akeneo(..) | Connector::Productive(_) => None,
    };
    let Some(path) = args.output.clone().or(configured) else {
        return complain(EX_USAGE, "give --output, or set metadata of the source");
    };
    let text = match runtime.block_on(daemon::description(&config, source)) {
        Ok(text) => text,
        Err(error) => return complain(EX_UNAVAILABLE, error),
    };
    // Whole or not at all: the daemon does not start with half a file.
    let new = path.with_extension("new");
    if let Err(error) = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &path)) {
        return complain(EX_CANTCREAT, format_args!("{} cannot be written: {error}", path.display()));
    }
    // Nobody is left to tell where standard output is closed.
    let _ = writeln!(std::io::stdout(), "{} is written; the daemon reads it at its next start", path.display());
    ExitCode::SUCCESS
}
