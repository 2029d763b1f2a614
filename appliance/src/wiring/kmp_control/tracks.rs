//! The KMP tracks of all sessions, as the API numbers them.

use fieldgate_compat::kmp_control::{MediaKind, Publication};
use fieldgate_net::KmpTrackReport;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One track.
#[derive(Clone)]
pub(super) struct TrackEntry {
    /// Whose it is.
    pub(super) publication: Arc<Publication>,
    /// What it carries.
    pub(super) kind: MediaKind,
    /// Its RTMP connection.
    pub(super) connection: u64,
    /// What its sender shows.
    pub(super) report: KmpTrackReport,
    /// Reaches its sender.
    pub(super) commands: super::session::Commands,
    /// Whether upstreams are limited to what the connector takes.
    pub(super) strict: bool,
    /// Bytes that its frames may take.
    pub(super) mem_limit: u64,
    /// The publication goes on.
    pub(super) is_live: bool,
}

/// All tracks by number.
#[derive(Default)]
pub(super) struct Tracks {
    last: AtomicU64,
    live: Mutex<BTreeMap<u64, TrackEntry>>,
}

impl Tracks {
    /// A track has begun; its number.
    pub(super) fn add(&self, entry: TrackEntry) -> u64 {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.lock().insert(number, entry);
        number
    }

    /// Its publication is over; it waits for its receivers.
    pub(super) fn ended(&self, number: u64) {
        if let Some(entry) = self.lock().get_mut(&number) {
            entry.is_live = false;
        }
    }

    /// It is over.
    pub(super) fn remove(&self, number: u64) {
        self.lock().remove(&number);
    }

    /// All that there are.
    pub(super) fn all(&self) -> BTreeMap<u64, TrackEntry> {
        self.lock().clone()
    }

    /// One of them.
    pub(super) fn get(&self, number: u64) -> Option<TrackEntry> {
        self.lock().get(&number).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, TrackEntry>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
