//! Where listeners find the source of a mountpoint, and what is known of its tracks while there is none.

use super::{Arrival, KmpRefusal};
use fieldgate_media::TrackKind;
use fieldgate_proto::kmp::receiver::{TrackCounters, TrackMemory};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Connections that may wait for a source.
const INBOX: usize = 8;

/// What the status shows of one track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KmpSourceTrack {
    /// Who brings it now.
    pub peer: Option<SocketAddr>,
    /// The next frame id that is wanted, once there was a connection.
    pub next_id: u64,
    /// The last id that the present connection was told.
    pub acked_id: u64,
    /// Frames and what was left out of them, over all connections.
    pub counters: TrackCounters,
    /// Left out: they came too far behind the other track.
    pub late: u64,
}

/// The KMP sources by mountpoint. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct KmpDirectory(Arc<Mutex<BTreeMap<String, Place>>>);

#[derive(Default)]
struct Place {
    inbox: Option<mpsc::Sender<Arrival>>,
    /// Video and audio, while no source has them.
    memories: [TrackMemory; 2],
    views: [KmpSourceTrack; 2],
}

impl KmpDirectory {
    /// What is known of a mountpoint's tracks, video first.
    pub fn tracks(&self, mountpoint: &str) -> [KmpSourceTrack; 2] {
        self.lock().get(mountpoint).map(|place| place.views).unwrap_or_default()
    }

    /// Forgets all mountpoints but these.
    fn retain(&self, is_known: impl Fn(&str) -> bool) {
        self.lock()
            .retain(|name, place| is_known(name) || place.inbox.as_ref().is_some_and(|to| !to.is_closed()));
    }

    /// Begins to take connections for a mountpoint. There may be one place for each; the newest gets them.
    pub fn open(&self, mountpoint: &str) -> KmpPlace {
        let (to, inbox) = mpsc::channel(INBOX);
        let mut places = self.lock();
        let place = places.entry(mountpoint.to_owned()).or_default();
        place.inbox = Some(to);
        let memories = std::mem::take(&mut place.memories);
        KmpPlace { directory: self.clone(), mountpoint: mountpoint.to_owned(), inbox, memories }
    }

    /// Hands a connection to its source, or drops it: the sender tries again.
    pub(super) fn deliver(&self, mountpoint: &str, arrival: Arrival) -> Result<(), KmpRefusal> {
        let inbox = self.lock().get(mountpoint).and_then(|place| place.inbox.clone());
        let not_ready = || KmpRefusal::NotReady(mountpoint.to_owned());
        inbox.ok_or_else(not_ready)?.try_send(arrival).map_err(|_| not_ready())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A mountpoint's place in the directory: connections come to it. When dropped, what is known of the tracks is kept
/// there for the next.
pub struct KmpPlace {
    directory: KmpDirectory,
    mountpoint: String,
    pub(super) inbox: mpsc::Receiver<Arrival>,
    /// Video and audio.
    pub(super) memories: [TrackMemory; 2],
}

impl KmpPlace {
    pub(super) fn views(&self) -> [KmpSourceTrack; 2] {
        self.directory.tracks(&self.mountpoint)
    }

    pub(super) fn show(&self, kind: TrackKind, view: KmpSourceTrack) {
        if let Some(place) = self.directory.lock().get_mut(&self.mountpoint) {
            place.views[super::merge::index(kind)] = view;
        }
    }

    /// Forgets all mountpoints but these and those with a source.
    pub(super) fn retain(&self, is_known: impl Fn(&str) -> bool) {
        self.directory.retain(is_known);
    }
}

impl Drop for KmpPlace {
    fn drop(&mut self) {
        let mut places = self.directory.lock();
        let Some(place) = places.get_mut(&self.mountpoint) else { return };
        self.inbox.close();
        if place.inbox.as_ref().is_some_and(mpsc::Sender::is_closed) {
            place.inbox = None;
            place.memories = std::mem::take(&mut self.memories);
            place.views.iter_mut().for_each(|view| view.peer = None);
        }
    }
}
