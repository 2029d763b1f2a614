//! One receiver of a track: how far it is, and how it is reached.

use super::connection::Connection;
use super::window::Window;
use crate::kmp::packet::{Ack, Connect, Name, PacketKind, Wire};
use bytes::{Bytes, BytesMut};
use std::time::{Duration, Instant};

/// Names an upstream within its track's sender; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamKey(pub u32);

/// From where a lost connection goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResumeFrom {
    /// The first frame that was not acknowledged.
    #[default]
    LastAcked,
    /// The first packet that was not wholly written to the socket. Acks are ignored.
    LastSent,
    /// As `LastSent` while connected; what comes while disconnected is left out. Acks are ignored.
    LastWritten,
}

/// An upstream as the controller or the config describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSpec {
    /// The controller's name for it; may be empty.
    pub id: String,
    /// Where it is; opaque to the sender.
    pub url: String,
    /// Whether the track ends when this upstream is given up.
    pub required: bool,
    /// From where a lost connection goes on.
    pub resume_from: ResumeFrom,
    /// Data of `cnct`.
    pub connect_data: Bytes,
}

impl UpstreamSpec {
    /// An upstream with the protocol's defaults.
    pub fn new(url: impl Into<String>) -> Self {
        UpstreamSpec {
            id: String::new(),
            url: url.into(),
            required: true,
            resume_from: ResumeFrom::LastAcked,
            connect_data: Bytes::new(),
        }
    }
}

/// What became of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// The receiver has acknowledged them.
    Acknowledged,
    /// They were handed to the socket, and this upstream counts that as delivered.
    Sent,
    /// They were handed to a socket, whole, and will not be sent again; the receiver has not acknowledged them. It may
    /// have them.
    Unconfirmed(Cause),
    /// None of them was ever handed to a socket whole, and none will be: the receiver does not have them.
    Lost(Cause),
}

/// Why frames are not sent any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// All was sent with `eost`, and the peer closed without acknowledging them.
    Unacknowledged,
    /// Let go to keep within the memory limit.
    Memory,
    /// Let go by the backlog to keep within its budget, or damaged there.
    Backlog,
    /// What the backlog has let go of stands before them, and with it the keyframe that they need.
    Headless,
    /// They came while there was no connection, and this upstream skips what it missed.
    Skipped,
    /// The upstream was given up or removed.
    Abandoned,
}

/// How an upstream is reached now.
#[derive(Debug)]
pub(super) enum Link {
    /// Nothing is planned before new data.
    Idle,
    /// A question or a connection is due then.
    Waiting { until: Instant },
    /// The controller was asked.
    Asking,
    /// Connecting since then.
    Connecting { since: Instant },
    /// Up, with nothing to begin with: a keyframe has to come first.
    Open,
    /// Up.
    Up(Box<Connection>),
}

/// Totals of one upstream over all its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Frames released by acks, by writing, or by the sender itself.
    pub acked_frames: u64,
    /// Bytes of their packets.
    pub acked_bytes: u64,
    /// Those that the sender released for want of memory.
    pub auto_acked_frames: u64,
    /// Bytes written on earlier connections.
    pub earlier_bytes: u64,
    /// Connections that came up.
    pub connections: u64,
    /// Acks that were ignored, because of `resume_from`.
    pub ignored_acks: u64,
}

#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) key: UpstreamKey,
    pub(super) spec: UpstreamSpec,
    /// The first packet that is not released.
    pub(super) seq: u64,
    /// Where the GOP begins in whose middle that is, its header included.
    pub(super) head_seq: u64,
    /// Id of the first frame that is not released.
    pub(super) acked_id: u64,
    /// Id up to which the fate of frames has been told.
    pub(super) told_id: u64,
    /// From the told position up to this id frames were handed to a socket whole.
    pub(super) handed_id: u64,
    /// What it has next does not begin with a keyframe: that is left out, for this cause, until one comes.
    pub(super) waits: Option<Cause>,
    /// The last header before the released position.
    pub(super) info: Option<Wire>,
    upstream_frame_id: u64,
    offset: u32,
    pub(super) link: Link,
    pub(super) asked_at: Option<Instant>,
    pub(super) asks: u32,
    pub(super) pause: Option<Duration>,
    /// Connections since the track's end that brought no ack.
    pub(super) end_attempts: u32,
    pub(super) totals: Totals,
}

impl Upstream {
    pub(super) fn new(key: UpstreamKey, spec: UpstreamSpec, seq: u64, id: u64, now: Instant) -> Self {
        Upstream {
            key,
            spec,
            seq,
            head_seq: seq,
            acked_id: id,
            told_id: id,
            handed_id: id,
            waits: None,
            info: None,
            upstream_frame_id: 0,
            offset: 0,
            link: Link::Connecting { since: now },
            asked_at: None,
            asks: 0,
            pause: None,
            end_attempts: 0,
            totals: Totals::default(),
        }
    }

    pub(super) fn connection(&self) -> Option<&Connection> {
        match &self.link {
            Link::Up(connection) => Some(connection),
            _ => None,
        }
    }

    pub(super) fn connection_mut(&mut self) -> Option<&mut Connection> {
        match &mut self.link {
            Link::Up(connection) => Some(connection),
            _ => None,
        }
    }

    /// The connection is there: says who we are and from where we go on.
    pub(super) fn open(&mut self, channel_id: Name, track_id: Name, now: Instant) {
        let mut connect = BytesMut::new();
        Connect {
            channel_id,
            track_id,
            initial_frame_id: self.acked_id,
            initial_upstream_frame_id: self.upstream_frame_id,
            initial_offset: self.offset,
            consistent: true,
            data: self.spec.connect_data.clone(),
        }
        .encode(&mut connect);
        self.totals.connections = self.totals.connections.saturating_add(1);
        let connection = Connection::new(connect.freeze(), self.info.as_ref(), self.seq, now);
        self.link = Link::Up(Box::new(connection));
    }

    /// Stores what the next `cnct` gives back.
    pub(super) fn note(&mut self, ack: &Ack) {
        self.upstream_frame_id = ack.upstream_frame_id;
        self.offset = ack.offset;
    }

    /// Id of the first frame that was not wholly sent on this connection.
    pub(super) fn sent_id(&self, window: &Window) -> u64 {
        self.connection().map_or(self.acked_id, |connection| window.id_at(connection.seq))
    }

    /// Releases one packet; whether there was one.
    pub(super) fn release_one(&mut self, window: &Window) -> bool {
        let Some(packet) = window.get(self.seq) else { return false };
        if packet.keyframe {
            let before = self.seq.checked_sub(1).and_then(|before| window.get(before));
            let header = before.is_some_and(|before| before.kind == PacketKind::MediaInfo);
            self.head_seq = self.seq.saturating_sub(u64::from(header));
        }
        self.seq = self.seq.saturating_add(1);
        self.totals.acked_bytes = self.totals.acked_bytes.saturating_add(packet.len());
        match packet.kind {
            PacketKind::MediaInfo => self.info = Some(packet.wire.clone()),
            PacketKind::Frame => self.advance(packet.id.saturating_add(1)),
            _ => {}
        }
        true
    }

    /// Releases all frames before `id` with the headers between them; a header just before `id` stays.
    pub(super) fn release_to_id(&mut self, id: u64, window: &Window) {
        if let Some((seq, info)) = window.evicted_info(self.seq, id) {
            self.seq = seq.saturating_add(1);
            self.info = Some(info.clone());
        }
        if id >= window.id_at(window.base()) {
            // What was let out of the window can be released as well.
            self.seq = self.seq.max(window.base());
        }
        while window.get(self.seq).is_some_and(|packet| packet.id < id) {
            self.release_one(window);
        }
        self.advance(id);
    }

    /// All frames before `id` are released.
    pub(super) fn advance(&mut self, id: u64) {
        let more = id.saturating_sub(self.acked_id);
        self.totals.acked_frames = self.totals.acked_frames.saturating_add(more);
        self.acked_id = self.acked_id.saturating_add(more);
    }

    /// Releases all packets before `seq`.
    pub(super) fn release_to(&mut self, seq: u64, window: &Window) {
        while self.seq < seq && self.release_one(window) {}
    }

    /// How long to wait before the next connection.
    pub(super) fn next_pause(&mut self, first: Duration, longest: Duration) -> Duration {
        let pause = self.pause.unwrap_or(first).min(longest);
        self.pause = Some(pause.saturating_mul(2));
        pause
    }
}
