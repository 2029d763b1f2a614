//! What the status and the API show of tracks.

use super::lane::Lane;
use fieldgate_proto::kmp::sender::{Phase, ResumeFrom, State, UpstreamKey};
use fieldgate_proto::kmp::{MediaInfo, Name};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// One upstream of a track.
#[derive(Clone, Debug)]
pub struct KmpSentUpstream {
    /// Names it in commands.
    pub key: UpstreamKey,
    /// The controller's name for it.
    pub id: String,
    /// Its address as it was given.
    pub url: String,
    /// What it does.
    pub phase: Phase,
    /// The receiver's address while connected.
    pub remote_addr: Option<SocketAddr>,
    /// Our address while connected.
    pub local_addr: Option<SocketAddr>,
    /// The connection's number, 0 while disconnected.
    pub connection: u64,
    /// Whether the track ends with it.
    pub required: bool,
    /// From where a lost connection goes on.
    pub resume_from: ResumeFrom,
    /// Bytes written on this connection.
    pub sent_bytes: u64,
    /// Place in the track's queue up to which bytes were written.
    pub position: u64,
    /// Frames released.
    pub acked_frames: u64,
    /// Their bytes.
    pub acked_bytes: u64,
    /// Those that we released for want of memory.
    pub auto_acked_frames: u64,
    /// Frames that wait to be acknowledged.
    pub unacked_frames: u64,
}

/// One track as it was a moment ago.
#[derive(Clone, Debug)]
pub struct KmpSentTrack {
    /// Where it stands.
    pub state: State,
    /// As the receivers know it; empty before they were named.
    pub channel_id: Name,
    /// As the receivers know it.
    pub track_id: Name,
    /// Bytes of memory for packets that are free, where there is a limit.
    pub free_bytes: Option<u64>,
    /// Bytes of packets in memory.
    pub held_bytes: u64,
    /// Frames put in the queue.
    pub frames: u64,
    /// Keyframes among them; none in sound.
    pub keyframes: u64,
    /// Bytes put in the queue.
    pub queued_bytes: u64,
    /// `dts` of the newest frame, in ticks of the track.
    pub last_dts: i64,
    /// `created` of the newest frame, in ticks of the track.
    pub last_created: i64,
    /// What describes the track, once it is known.
    pub media_info: Option<MediaInfo>,
    /// Frames that were left behind for the second channel and are not settled.
    pub owed_frames: u64,
    /// Its upstreams.
    pub upstreams: Vec<KmpSentUpstream>,
}

/// Totals of one track over all its streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KmpTotals {
    /// Bytes written to sockets.
    pub sent_bytes: u64,
    /// Connections that came up.
    pub connections: u64,
    /// Frames put in the queue.
    pub frames: u64,
    /// Frames that receivers acknowledged, summed over upstreams.
    pub acked_frames: u64,
    /// Frames that were sent and can't be acknowledged any more, or are not to be.
    pub sent_frames: u64,
    /// Frames that will not be delivered.
    pub lost_frames: u64,
    /// Units that this track could not carry.
    pub left_out_units: u64,
}

#[derive(Debug, Default)]
struct Notes {
    view: Option<KmpSentTrack>,
    totals: KmpTotals,
    error: Option<String>,
}

/// A track's state and totals; read by the status and the API. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct KmpTrackReport {
    notes: Arc<Mutex<Notes>>,
}

impl KmpTrackReport {
    /// The track as it was at most half a second ago; `None` before its first frame.
    pub fn view(&self) -> Option<KmpSentTrack> {
        self.with(|notes| notes.view.clone())
    }

    /// Totals.
    pub fn totals(&self) -> KmpTotals {
        self.with(|notes| notes.totals)
    }

    /// Why there is no connection now, if so.
    pub fn error(&self) -> Option<String> {
        self.with(|notes| notes.error.clone())
    }

    /// Frames that wait to be acknowledged by the upstream furthest behind.
    pub fn unacked_frames(&self) -> u64 {
        self.with(|notes| {
            let upstreams = notes.view.iter().flat_map(|view| &view.upstreams);
            let unacked = upstreams.map(|upstream| upstream.unacked_frames).max().unwrap_or(0);
            unacked + notes.view.as_ref().map_or(0, |view| view.owed_frames)
        })
    }

    pub(super) fn set_error(&self, error: Option<String>) {
        self.with(|notes| notes.error = error);
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut KmpTotals)) {
        self.with(|notes| count(&mut notes.totals));
    }

    pub(super) fn set_view(&self, view: Option<KmpSentTrack>) {
        self.with(|notes| notes.view = view);
    }

    fn with<T>(&self, work: impl FnOnce(&mut Notes) -> T) -> T {
        work(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// All upstreams of a lane.
pub(super) fn upstreams(lane: &Lane) -> Vec<KmpSentUpstream> {
    let next_id = lane.sender.next_id();
    let views = lane.sender.upstreams().map(|view| {
        let link = lane.view(view.key);
        KmpSentUpstream {
            key: view.key,
            id: view.spec.id.clone(),
            url: view.spec.url.clone(),
            phase: view.phase,
            remote_addr: link.and_then(|link| link.remote),
            local_addr: link.and_then(|link| link.local),
            connection: link.map_or(0, |link| link.connection),
            required: view.spec.required,
            resume_from: view.spec.resume_from,
            sent_bytes: view.sent_bytes,
            position: view.position,
            acked_frames: view.totals.acked_frames,
            acked_bytes: view.totals.acked_bytes,
            auto_acked_frames: view.totals.auto_acked_frames,
            unacked_frames: next_id.saturating_sub(view.acked_id),
        }
    });
    views.collect()
}
