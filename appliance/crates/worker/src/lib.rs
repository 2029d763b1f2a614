//! Worker processes: GStreamer's C code reads hostile bytes and talks to drivers that hang, so it runs in processes of
//! its own that are started, held in and watched from here.
//!
//! ```text
//!  gateway                                   worker (same binary, own process)
//!  WorkerSource::run                         child::enter: reads its job, locks itself in
//!    Spawner (one lasting thread) --exec-->    then the inside (GStreamer) runs
//!    reads the link, checks bounds   <------ units, tracks, pulse, status
//!    pulse stale, bound broken: SIGKILL      ends when the link closes
//! ```
//! Builds without GStreamer; what a worker does inside is not known here.

pub mod child;
mod exit;
mod probe;
pub mod sandbox;
mod source;
mod spawner;
mod usage;

pub use exit::Exit;
pub use probe::{Probed, probe_device, probe_encoders};
pub use source::{Deadlines, Deliver, Report, WorkerError, WorkerSource, WorkerSpec};
pub use spawner::{Abandoned, Program, SpawnError, Spawner};
pub use usage::Usage;
