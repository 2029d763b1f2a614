//! Where a mountpoint's stream is looked at as it passes: the watch over its picture, and its newest keyframe.

use super::{Finding, Look, Settings, Truth};
use fieldgate_media::{Track, TrackKind, Tracks, Unit};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// A keyframe that can be decoded alone, with its codec header.
#[derive(Clone, Debug)]
pub struct Keyframe {
    /// Which publication of the mountpoint it is from, counted from 1.
    pub publication: u64,
    /// Which keyframe of that publication, counted from 1.
    pub number: u64,
    /// Its track.
    pub track: Track,
    /// The unit; its payload is shared with the ring.
    pub unit: Unit,
    /// When it came.
    pub at: Instant,
}

/// One mountpoint's tap. The publisher's turn feeds it; everybody else asks. No call waits for more than a few lines.
#[derive(Debug)]
pub struct Tap {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    truth: Truth,
    tracks: Tracks,
    publication: u64,
    keyframes: u64,
    newest: Option<Keyframe>,
}

impl Tap {
    pub(crate) fn new(now: Instant) -> Self {
        let truth = Truth::new(Settings::default(), now);
        let inner = Inner { truth, tracks: Tracks::default(), publication: 0, keyframes: 0, newest: None };
        Tap { inner: Mutex::new(inner) }
    }

    pub(crate) fn begin(&self, now: Instant) {
        let mut inner = self.lock();
        inner.publication += 1;
        inner.keyframes = 0;
        inner.newest = None;
        inner.truth.begin(now);
    }

    /// The picture goes with the publication: what was shown then is shown no more, in a snapshot neither.
    pub(crate) fn end(&self) {
        let mut inner = self.lock();
        inner.newest = None;
        inner.truth.end();
    }

    pub(crate) fn tracks(&self, tracks: &Tracks) {
        let mut inner = self.lock();
        inner.tracks = tracks.clone();
        inner.truth.on_tracks(tracks);
    }

    pub(crate) fn unit(&self, unit: &Unit, now: Instant) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(track) = inner.tracks.get(unit.head.track) else { return };
        inner.truth.on_unit(&unit.head, track.codec, &unit.payload, now);
        if unit.head.keyframe && track.kind() == TrackKind::Video {
            inner.keyframes += 1;
            inner.newest = Some(Keyframe {
                publication: inner.publication,
                number: inner.keyframes,
                track: track.clone(),
                unit: unit.clone(),
                at: now,
            });
        }
    }

    /// How its picture is watched; see [`Truth::set`].
    pub fn set(&self, settings: Settings, is_expected: bool, now: Instant) {
        self.lock().truth.set(settings, is_expected, now);
    }

    /// What is to be said of the picture now; nothing where none is expected. True with it: another verdict than when
    /// this was last asked, so one alone should ask.
    pub fn assess(&self, now: Instant) -> (Option<Finding>, bool) {
        let mut inner = self.lock();
        let (finding, changed) = inner.truth.assess(now);
        (finding.cloned(), changed)
    }

    /// The newest keyframe of the present publication, if it has sent one.
    pub fn newest_keyframe(&self) -> Option<Keyframe> {
        self.lock().newest.clone()
    }

    /// The publication that `keyframe` is from still goes on.
    pub fn is_present(&self, keyframe: &Keyframe) -> bool {
        let inner = self.lock();
        inner.newest.as_ref().is_some_and(|newest| newest.publication == keyframe.publication)
    }

    /// The keyframe that should be decoded now, if one should. It counts as under way from here on.
    pub fn keyframe_to_look_at(&self, now: Instant) -> Option<Keyframe> {
        let mut inner = self.lock();
        let due = inner.newest.clone().filter(|_| inner.truth.wants_look(now))?;
        inner.truth.look_begins(now);
        Some(due)
    }

    /// What a decoded keyframe looks like; nothing happens if its publication is over.
    pub fn on_look(&self, keyframe: &Keyframe, look: &Look, now: Instant) {
        let mut inner = self.lock();
        if inner.publication == keyframe.publication {
            inner.truth.on_look(look, now);
        }
    }

    /// The figures of the newest decoded picture, and when it was looked at.
    pub fn newest_look(&self) -> Option<(Look, Instant)> {
        self.lock().truth.newest_look()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
