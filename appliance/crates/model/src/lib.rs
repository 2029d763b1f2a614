//! The gateway as data: its config with validation and diff, the commands it takes, the status it shows.
//!
//! Pure: no IO, no clock, no task. What a setting means is in its doc comment, which is also its description in the
//! served JSON Schema.

pub mod config;

pub use config::Config;
