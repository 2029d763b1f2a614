//! JPEGs of the newest keyframes: decoded once for all who ask, kept until the next keyframe.
//!
//! Nothing is shown of a publication that has ended: what may be shown (masks) may have changed since.

use super::inspector::{InspectError, Inspector};
use bytes::Bytes;
use fieldgate_hub::truth::Keyframe;
use fieldgate_hub::{Mountpoint, Registry, StreamState};
use fieldgate_media::{Ticks, TrackKind, Unit, UnitHead};
use fieldgate_net::Shelf;
use fieldgate_proto::segment::first_picture;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The least time between two JPEGs of one mountpoint and size, also when keyframes come faster.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// JPEGs that are kept; the oldest go.
const KEPT: usize = 64;
/// Width of a snapshot when none is asked for.
pub const DEFAULT_WIDTH: u32 = 640;
/// Widths that may be asked for.
pub const WIDTHS: std::ops::RangeInclusive<u32> = 16..=4096;

/// A picture of what a mountpoint shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The JPEG.
    pub jpeg: Bytes,
    /// Names this picture in this size.
    pub etag: String,
    /// When its keyframe came.
    pub at: Instant,
}

/// Why there is no picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// There is none of that name.
    #[error("there is no mountpoint {0}")]
    Unknown(String),
    /// Nobody feeds it.
    #[error("nobody publishes to {0} now")]
    NoStream(String),
    /// It shows nothing that could be decoded.
    #[error("{0} has sent no keyframe yet")]
    NoKeyframe(String),
    /// It was recorded and is gone, or never was, or has no picture that can be shown alone.
    #[error("no picture of this is kept any more, or ever was")]
    NotKept,
    /// Its keyframe was not decoded.
    #[error("the newest keyframe cannot be decoded: {0}")]
    Undecoded(InspectError),
}

type Key = (String, u32);
type RecordedKey = (String, u64, u32);
type Kept = (Keyframe, Instant, Result<Snapshot, SnapshotError>);

/// All snapshots.
pub struct Snapshots {
    registry: Arc<Registry>,
    inspector: Inspector,
    kept: Mutex<BTreeMap<Key, Kept>>,
    /// Held while one is made, so that all who ask for it share the decoding.
    making: Mutex<BTreeMap<Key, Arc<tokio::sync::Mutex<()>>>>,
    /// Pictures of recordings, by mountpoint, segment and width; the oldest first.
    recorded: Mutex<VecDeque<(RecordedKey, Snapshot)>>,
}

impl Snapshots {
    /// None yet.
    pub fn new(registry: Arc<Registry>, inspector: Inspector) -> Self {
        let (kept, making, recorded) = (Mutex::default(), Mutex::default(), Mutex::default());
        Snapshots { registry, inspector, kept, making, recorded }
    }

    /// The newest picture of a mountpoint, `width` pixels wide unless it is smaller itself.
    pub async fn get(&self, name: &str, width: u32) -> Result<Snapshot, SnapshotError> {
        let width = width.clamp(*WIDTHS.start(), *WIDTHS.end());
        let mountpoint = self.registry.get(name).ok_or_else(|| SnapshotError::Unknown(name.to_owned()))?;
        let key = (name.to_owned(), width);
        let making = lock(&self.making).entry(key.clone()).or_default().clone();
        let turn = making.lock().await;
        let made = self.make(&mountpoint, &key).await;
        drop(turn);
        // The last who asked clears up.
        let mut all = lock(&self.making);
        if Arc::strong_count(&making) <= 2 {
            all.remove(&key);
        }
        made
    }

    async fn make(&self, mountpoint: &Mountpoint, key: &Key) -> Result<Snapshot, SnapshotError> {
        let (name, width) = (&key.0, key.1);
        let keyframe = newest(mountpoint, name)?;
        let now = Instant::now();
        if let Some((of, made, result)) = lock(&self.kept).get(key)
            && of.publication == keyframe.publication
            && (of.number == keyframe.number || now.saturating_duration_since(*made) < MIN_INTERVAL)
        {
            return result.clone();
        }
        let seen = self.inspector.look(name, keyframe.clone(), Some(width)).await;
        let now = Instant::now();
        let result = match seen {
            Ok(seen) => {
                mountpoint.tap().on_look(&keyframe, &seen.look, now);
                let etag = format!(
                    "\"{}-{}-{width}-{:x}\"",
                    keyframe.publication, keyframe.number, seen.look.fingerprint
                );
                Ok(Snapshot { jpeg: seen.jpeg, etag, at: keyframe.at })
            }
            Err(error @ InspectError::Undecodable(_)) => Err(SnapshotError::Undecoded(error)),
            // Says nothing lasting about the keyframe.
            Err(error) => return Err(SnapshotError::Undecoded(error)),
        };
        if !mountpoint.tap().is_present(&keyframe) {
            return Err(SnapshotError::NoStream(name.clone()));
        }
        let mut kept = lock(&self.kept);
        if kept.len() >= KEPT && !kept.contains_key(key) {
            let oldest = kept.iter().min_by_key(|(_, (_, made, _))| *made).map(|(key, _)| key.clone());
            oldest.map(|oldest| kept.remove(&oldest));
        }
        kept.insert(key.clone(), (keyframe, now, result.clone()));
        result
    }

    /// The first picture of a recorded segment. Reads the disk, so it is not for the media plane's threads.
    pub async fn of_recording(
        &self,
        name: &str,
        shelf: &Shelf,
        number: u64,
        width: u32,
    ) -> Result<Snapshot, SnapshotError> {
        let width = width.clamp(*WIDTHS.start(), *WIDTHS.end());
        let key = (name.to_owned(), number, width);
        // What is not kept any more is not shown, whatever is remembered of it.
        let excerpt = shelf.numbered(number, number);
        let entry = excerpt.entries.iter().find(|entry| entry.kind == TrackKind::Video);
        let entry = entry.ok_or(SnapshotError::NotKept)?;
        let etag = format!("\"{number}-{}-{:x}-{width}\"", entry.unix_micros, entry.init);
        let known = lock(&self.recorded).iter().find(|(known, _)| *known == key).map(|(_, it)| it.clone());
        if let Some(known) = known.filter(|known| known.etag == etag) {
            return Ok(known);
        }
        let init = excerpt.inits.iter().find(|init| init.kind == TrackKind::Video);
        let read = |file: String| shelf.read(&file).ok().flatten().ok_or(SnapshotError::NotKept);
        let (init, segment) = (read(init.ok_or(SnapshotError::NotKept)?.name())?, read(entry.name())?);
        let (track, payload) = first_picture(&init, &segment).ok_or(SnapshotError::NotKept)?;
        let at = Instant::now();
        let head = UnitHead {
            track: track.id,
            dts: Ticks::ZERO,
            pts: Ticks::ZERO,
            source_dts: Ticks::ZERO,
            source_pts: Ticks::ZERO,
            keyframe: true,
            captured: None,
        };
        let keyframe = Keyframe { publication: 0, number, track, unit: Unit { head, payload }, at };
        let seen =
            self.inspector.look(name, keyframe, Some(width)).await.map_err(SnapshotError::Undecoded)?;
        let made = Snapshot { jpeg: seen.jpeg, etag, at };
        let mut recorded = lock(&self.recorded);
        recorded.retain(|(known, _)| *known != key);
        if recorded.len() >= KEPT {
            recorded.pop_front();
        }
        recorded.push_back((key, made.clone()));
        Ok(made)
    }

    /// Lets go of pictures of publications that have ended.
    pub fn forget_ended(&self) {
        lock(&self.kept).retain(|(name, _), (keyframe, ..)| {
            self.registry.get(name).is_some_and(|mountpoint| mountpoint.tap().is_present(keyframe))
        });
    }
}

fn newest(mountpoint: &Mountpoint, name: &str) -> Result<Keyframe, SnapshotError> {
    mountpoint.tap().newest_keyframe().ok_or_else(|| {
        let is_live = matches!(*mountpoint.state().borrow(), StreamState::Live(_));
        let error = if is_live { SnapshotError::NoKeyframe } else { SnapshotError::NoStream };
        error(name.to_owned())
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
