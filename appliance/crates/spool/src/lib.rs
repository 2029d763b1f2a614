//! Packets kept on disk for upstreams that must miss nothing, and the ledger of what became of them.
//!
//! ```text
//!  media shards                    one thread for all disks
//!  SpoolBacklog --append--> tail --batch is due--> segments --> flash
//!       ^------- read: from memory, else asked of the thread ---+
//!  LedgerHandle --settle--> Ledger --now and then--> ledger.log
//! ```
//!
//! A shard never waits for a disk. What was acknowledged before its batch is due is never written. Packets are opaque
//! here: what they mean is known to those who write them.

#![warn(clippy::indexing_slicing)]

mod abandon;
mod backlog;
mod core;
mod disk;
mod format;
mod fs;
pub mod fuzz;
mod ledger;
mod meta;
mod note;
mod segments;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
mod wear;

pub use crate::core::Settings;
pub use backlog::{SpoolBacklog, SpoolKey, SpoolReport};
pub use disk::{Spool, SpoolError};
pub use ledger::{Answer, Cursor, CursorError, Ledger, Line, Query, State};
pub use wear::Wear;
