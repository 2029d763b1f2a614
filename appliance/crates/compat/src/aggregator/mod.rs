//! Media aggregators' HTTP API, as content managers know it, of both generations at once.
//!
//! A content manager registers cameras and says to which streaming engines each is pushed. [`Exchange`] answers one
//! request: it asks its owner for the commands that carry it out and says what became of them. [`Registration`] tells a
//! content manager of this aggregator. [`statistics()`] renders what was once the statistics of an RTMP server.
//!
//! The names on the wire are the other system's. What is done differently on purpose is in `docs/aggregator.md`.

mod access;
mod exchange;
pub mod fuzz;
mod registration;
mod reply;
mod snapshot;
mod state_file;
mod statistics;
mod target;
mod variables;
mod wish;

pub use exchange::{Exchange, Outcome, Refusal, Step};
pub use registration::{Call, Registration};
pub use snapshot::{Client, Rate, Snapshot, Traffic};
pub use state_file::{StateFile, StateFileError};
pub use statistics::statistics;
pub use variables::take_variables;

/// Longest body of a request, in bytes.
pub const BODY_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests;
