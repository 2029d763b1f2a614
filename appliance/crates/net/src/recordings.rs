//! Recordings: streams kept as fMP4 segments on disk, within a budget of bytes and age.
//!
//! ```text
//!  mountpoint --> Recorder (shard) --whole segments--> Shelf (blocking) --> FOLDER/NAME/*.m4s
//!                                                       ^-- viewers' plane, API
//! ```
//! A segment is on disk whole or not at all: a cut leaves at most the one that was being written, and the next start
//! removes and counts it.

mod entry;
mod recorder;
mod shelf;

pub use entry::{Entry as RecordedSegment, InitFile};
pub use recorder::Recorder;
pub use shelf::{Budget as RecordBudget, Excerpt, Shelf, ShelfReport};

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The recordings of all mountpoints that are being recorded. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Recordings(Arc<Mutex<BTreeMap<String, Arc<Shelf>>>>);

impl Recordings {
    /// Shows a mountpoint's recordings from now on.
    pub fn show(&self, mountpoint: &str, shelf: Arc<Shelf>) {
        self.lock().insert(mountpoint.to_owned(), shelf);
    }

    /// Shows them no longer.
    pub fn hide(&self, mountpoint: &str) {
        self.lock().remove(mountpoint);
    }

    /// A mountpoint's recordings.
    pub fn of(&self, mountpoint: &str) -> Option<Arc<Shelf>> {
        self.lock().get(mountpoint).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Shelf>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
