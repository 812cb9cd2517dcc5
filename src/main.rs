//! The `instep` binary: arguments in, exit code out. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    instep::cli::main(std::env::args_os())
}
