//! A stream that is being cut, and those who wait for what comes next.

use fieldgate_hub::Mountpoint;
use fieldgate_proto::segment::Package;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Totals of one mountpoint's viewers since it is watched.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// Answers with media or a playlist.
    pub(super) answers: AtomicU64,
    /// Bytes of their bodies.
    pub(super) bytes: AtomicU64,
    /// Units that the segmenter missed.
    pub(super) lost_units: AtomicU64,
}

impl Totals {
    pub(super) fn add(place: &AtomicU64, count: u64) {
        place.fetch_add(count, Ordering::Relaxed);
    }
}

/// One stream while it is cut.
pub(super) struct Watched {
    pub(super) mountpoint: Arc<Mountpoint>,
    /// The ring's epoch that all of it is from.
    epoch: u64,
    /// Tells it apart from all others, in the tags of its files.
    pub(super) id: u64,
    package: Mutex<Package>,
    version: watch::Sender<u64>,
    asked: Mutex<Instant>,
    pub(super) totals: Arc<Totals>,
    /// Nothing of it is given out any more.
    pub(super) gone: CancellationToken,
}

impl Watched {
    pub(super) fn new(mountpoint: Arc<Mountpoint>, id: u64, package: Package, totals: Arc<Totals>) -> Self {
        Watched {
            epoch: mountpoint.epoch(),
            mountpoint,
            id,
            package: Mutex::new(package),
            version: watch::Sender::new(0),
            asked: Mutex::new(Instant::now()),
            totals,
            gone: CancellationToken::new(),
        }
    }

    /// Whether it may still be shown: it is cut on, and the stream was not cut off (masks changed) since it began.
    pub(super) fn is_valid(&self) -> bool {
        !self.gone.is_cancelled() && self.mountpoint.epoch() == self.epoch
    }

    /// Looks at the package.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Package) -> T) -> T {
        look(&self.package.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the package and wakes whoever waits, if there is something new.
    pub(super) fn change(&self, change: impl FnOnce(&mut Package)) {
        let mut package = self.package.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut package);
        let version = package.version();
        drop(package);
        self.version.send_if_modified(|known| std::mem::replace(known, version) != version);
    }

    /// Somebody asks for it.
    pub(super) fn touch(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// When it was last asked for.
    pub(super) fn asked(&self) -> Instant {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `look` finds what it wants; `None` if it does not within `within`, or the stream is gone.
    pub(super) async fn wait<T>(
        &self,
        within: Duration,
        mut look: impl FnMut(&Package) -> Option<T>,
    ) -> Option<T> {
        let mut version = self.version.subscribe();
        let deadline = Instant::now() + within;
        loop {
            version.borrow_and_update();
            if let Some(found) = self.read(&mut look) {
                return Some(found);
            }
            tokio::select! {
                () = self.gone.cancelled() => return None,
                () = tokio::time::sleep_until(deadline) => return None,
                changed = version.changed() => changed.ok()?,
            }
            self.touch();
        }
    }
}
