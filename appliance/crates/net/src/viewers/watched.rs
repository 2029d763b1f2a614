//! A stream that is being cut, and those who wait for what comes next.

use super::answer;
use bytes::Bytes;
use fieldgate_hub::Mountpoint;
use fieldgate_media::TrackKind;
use fieldgate_proto::segment::{Package, Segment, hls, ts};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
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

/// A playlist at one version, made once for all who ask for it.
pub(super) struct Text {
    pub(super) version: u64,
    pub(super) plain: Bytes,
    packed: OnceLock<Option<Bytes>>,
}

impl Text {
    /// The same, compressed for the first who takes that; none: it is too short for that.
    pub(super) fn packed(&self) -> Option<Bytes> {
        self.packed.get_or_init(|| answer::gzip(&self.plain)).clone()
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
    /// The newest playlists, whole and as delta updates, by track.
    texts: Mutex<HashMap<(TrackKind, bool), Arc<Text>>>,
    /// Segments as MPEG-TS by number, as far as anybody asked for them.
    ts: Mutex<BTreeMap<u64, Bytes>>,
    /// Bytes that these may take; the oldest go.
    ts_max: u64,
    version: watch::Sender<u64>,
    asked: Mutex<Instant>,
    pub(super) totals: Arc<Totals>,
    /// Nothing of it is given out any more.
    pub(super) gone: CancellationToken,
}

impl Watched {
    pub(super) fn new(
        mountpoint: Arc<Mountpoint>,
        id: u64,
        package: Package,
        ts_max: u64,
        totals: Arc<Totals>,
    ) -> Self {
        Watched {
            epoch: mountpoint.epoch(),
            mountpoint,
            id,
            package: Mutex::new(package),
            texts: Mutex::default(),
            ts: Mutex::default(),
            ts_max,
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

    /// The playlist of a track as it is now.
    pub(super) fn playlist(&self, kind: TrackKind, skip: bool) -> Option<Arc<Text>> {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        self.read(|package| {
            let version = package.version();
            if let Some(known) = texts.get(&(kind, skip)).filter(|known| known.version == version) {
                return Some(known.clone());
            }
            let plain = Bytes::from(hls::media(package, package.lane(kind)?, skip));
            let made = Arc::new(Text { version, plain, packed: OnceLock::new() });
            texts.insert((kind, skip), made.clone());
            Some(made)
        })
    }

    /// Changes the package and wakes whoever waits, if there is something new.
    pub(super) fn change(&self, change: impl FnOnce(&mut Package)) {
        let mut package = self.package.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut package);
        let version = package.version();
        drop(package);
        self.version.send_if_modified(|known| std::mem::replace(known, version) != version);
    }

    /// The segment as MPEG-TS; `None` if that can carry nothing of it. Made once, however many ask at the same time.
    pub(super) fn ts(&self, number: u64, lanes: &[Option<Arc<Segment>>; 2]) -> Option<Bytes> {
        let oldest = self.read(|package| {
            package.lanes().filter_map(|lane| lane.segments().next().map(|segment| segment.number)).min()
        });
        let mut all = self.ts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(&number) {
            return Some(known.clone());
        }
        let [video, audio] = lanes;
        let made = ts::write(video.as_deref(), audio.as_deref())?;
        all.insert(number, made.clone());
        let mut bytes: u64 = all.values().map(|file| file.len() as u64).sum();
        while let Some(first) = all.first_entry()
            && (bytes > self.ts_max || oldest.is_some_and(|oldest| *first.key() < oldest))
        {
            bytes -= first.remove().len() as u64;
        }
        Some(made)
    }

    /// Bytes of segments as MPEG-TS.
    pub(super) fn ts_bytes(&self) -> u64 {
        let all = self.ts.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().map(|file| file.len() as u64).sum()
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
