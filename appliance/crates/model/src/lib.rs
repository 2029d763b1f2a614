//! The gateway as data: its config with validation and diff, the commands it takes, the status it shows.
//!
//! Pure: no IO, no clock, no task. What a setting means is in its doc comment, which is also its description in the
//! served JSON Schema.

pub mod command;
pub mod config;
pub mod device;
pub mod event;
pub mod job;
pub mod masks;
pub mod plan;
pub mod status;
mod time;

pub use command::{Command, CommandError};
pub use config::Config;
pub use event::{Cause, Event, EventKind};
pub use status::Status;
pub use time::{Timestamp, TimestampError};
