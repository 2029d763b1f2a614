//! `fieldgate`: reads what the environment says, then does what the command line says.

use fieldgate::cli::{self, Surroundings};
use std::process::ExitCode;

fn main() -> ExitCode {
    let is_set = |name| std::env::var_os(name).is_some();
    cli::main(Surroundings {
        journald: is_set("JOURNAL_STREAM"),
        // Set by systemd for each start of a service.
        supervised: is_set("INVOCATION_ID"),
        worker: worker(),
    })
}

#[cfg(not(feature = "gst"))]
fn worker() -> Option<fn() -> ExitCode> {
    None
}

/// The inside of a worker process: locks itself in while it has one thread, then becomes GStreamer.
#[cfg(feature = "gst")]
fn worker() -> Option<fn() -> ExitCode> {
    use fieldgate_worker::child::{Entered, enter};
    use std::io::Write;

    #[allow(clippy::disallowed_methods, reason = "a main knows the time")]
    fn now() -> std::time::Instant {
        std::time::Instant::now()
    }

    Some(|| match enter(now()) {
        Ok(Entered { link, commands, job, guards }) => {
            fieldgate_gst::main(link, commands, &job, guards, now())
        }
        Err(error) => {
            // Read by the gateway, which logs it; nothing is left to tell it to if that is gone.
            writeln!(std::io::stderr(), "{error}").ok();
            ExitCode::FAILURE
        }
    })
}
