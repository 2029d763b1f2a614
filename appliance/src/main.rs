//! `fieldgate`: reads what the environment says, then does what the command line says.

use fieldgate::cli::{self, Surroundings};
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(Surroundings {
        journald: std::env::var_os("JOURNAL_STREAM").is_some(),
        worker: None,
    })
}
