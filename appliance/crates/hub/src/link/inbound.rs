//! Bytes from the socket become frames; every bound is checked here.

use super::rate::Rate;
use super::tracks::{TracksError, decode_tracks};
use super::wire::{HEAD_LEN, Head, Health, Kind, LogLevel, Unknown};
use bytes::buf::Limit;
use bytes::{BufMut, Bytes, BytesMut};
use fieldgate_media::{Draft, HEADROOM, Ticks, Tracks};
use std::io;
use std::time::Instant;

/// What a worker may send at most, on average; twice as much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Units per second, all tracks together.
    pub units_per_second: u64,
    /// Bytes of units per second.
    pub unit_bytes_per_second: u64,
    /// Other frames per second.
    pub control_per_second: u64,
}

impl Limits {
    /// Enough for a 4K camera with sound (and the burst of a camera that sends its last GOP first), little enough
    /// that a worker gone wild takes a few per cent of a core until it is stopped.
    pub const CAMERA: Limits =
        Limits { units_per_second: 1000, unit_bytes_per_second: 16 << 20, control_per_second: 50 };
}

/// One frame, checked.
#[derive(Debug)]
pub enum Frame {
    /// An access unit of an announced track; its payload was copied once, by the kernel.
    Unit(Draft),
    /// All tracks from here on.
    Tracks(Tracks),
    /// The worker's pulse.
    Health(Health),
    /// Opaque bytes about what the worker does.
    Status(Bytes),
    /// A line for the log; control characters are replaced.
    Log(LogLevel, String),
    /// Opaque bytes of the worker, to one ask.
    Answer(Bytes),
    /// Opaque bytes for the worker.
    Command(Bytes),
    /// Opaque bytes for the worker that want an answer.
    Ask(Bytes),
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The other end closed the socket or its process ended.
    #[error("link closed{}", if *in_frame { " inside a frame" } else { "" })]
    Closed {
        /// A frame had begun.
        in_frame: bool,
    },
    /// The socket failed.
    #[error("link: {0}")]
    Io(#[from] io::Error),
    /// A head that says more than is allowed.
    #[error("{kind:?} frame of {len} bytes exceeds {max}")]
    TooLong {
        /// Of this kind.
        kind: Kind,
        /// As the head says.
        len: u64,
        /// The limit.
        max: usize,
    },
    /// A head with an unknown kind.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// A head of another version of the link: two different programs.
    #[error("unknown link version {0}")]
    UnknownVersion(u8),
    /// A frame that only the other side may send.
    #[error("{0:?} frame in the wrong direction")]
    WrongWay(Kind),
    /// More than [`Limits`] allows.
    #[error("more than {limit} {what} per second")]
    TooFast {
        /// Units, bytes or control frames.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A unit whose track was not announced.
    #[error("unit of track {0}, which was not announced")]
    UnknownTrack(u8),
    /// A unit whose decode time is before the last one's.
    #[error("unit of track {track} goes back from {last:?} to {dts:?}")]
    Backwards {
        /// Its track.
        track: u8,
        /// The last decode time.
        last: Ticks,
        /// The new one.
        dts: Ticks,
    },
    /// A tracks frame that cannot be used.
    #[error(transparent)]
    Tracks(#[from] TracksError),
}

/// The reading half of a link, without IO: put bytes into `room()`, take frames from `poll_frame()`.
///
/// A unit's body is received into its own buffer behind [`HEADROOM`] free bytes, with room for the next head behind
/// it: one read takes the rest of a body and the next head, and a read that gets only the body is short, which tells
/// tokio that the socket is empty.
#[derive(Debug)]
pub struct Inbound {
    rates: Option<Rates>,
    buf: BytesMut,
    /// Bytes of `buf` before the frame's own (headroom and the head).
    start: usize,
    head: Option<Head>,
    tracks: Tracks,
    last_dts: [Option<Ticks>; Tracks::MAX],
}

#[derive(Debug)]
struct Rates {
    limits: Limits,
    units: Rate,
    bytes: Rate,
    control: Rate,
}

impl Inbound {
    /// For the gateway: takes what workers send, within `limits`.
    pub fn from_worker(limits: Limits) -> Self {
        Self::new(Some(Rates {
            limits,
            units: Rate::new(limits.units_per_second),
            bytes: Rate::new(limits.unit_bytes_per_second),
            control: Rate::new(limits.control_per_second),
        }))
    }

    /// For a worker: takes commands, and the units of a stream that it shall look into. The gateway is trusted with the
    /// rate.
    pub fn from_gateway() -> Self {
        Self::new(None)
    }

    fn new(rates: Option<Rates>) -> Self {
        let buf = BytesMut::with_capacity(HEAD_LEN);
        Inbound { rates, buf, start: 0, head: None, tracks: Tracks::default(), last_dts: Default::default() }
    }

    /// Where to receive into; never empty while `poll_frame` returns `None`.
    pub fn room(&mut self) -> Limit<&mut BytesMut> {
        let whole = match self.head {
            None => self.start + HEAD_LEN,
            Some(head) => self.start + head.body_len() + HEAD_LEN,
        };
        let left = whole.saturating_sub(self.buf.len());
        (&mut self.buf).limit(left)
    }

    /// Whether a frame has begun and not ended.
    pub fn is_inside_frame(&self) -> bool {
        self.head.is_some() || self.buf.len() > self.start
    }

    /// The next whole frame, if there is one. After an error the link must be closed.
    pub fn poll_frame(&mut self, now: Instant) -> Result<Option<Frame>, LinkError> {
        let head = match self.head {
            Some(head) => head,
            None => {
                let Some(bytes) = self.buf.get(self.start..).and_then(|b| b.first_chunk::<HEAD_LEN>()) else {
                    return Ok(None);
                };
                let head = Head::decode(bytes).map_err(|unknown| match unknown {
                    Unknown::Kind(code) => LinkError::UnknownKind(code),
                    Unknown::Version(version) => LinkError::UnknownVersion(version),
                })?;
                self.admit(&head, now)?;
                self.start_body(head);
                head
            }
        };
        let end = self.start + head.body_len();
        if self.buf.len() < end {
            return Ok(None);
        }
        let next = BytesMut::from(self.buf.get(end..).unwrap_or_default());
        self.buf.truncate(end);
        let body = std::mem::take(&mut self.buf);
        let start = std::mem::take(&mut self.start);
        self.head = None;
        self.buf = next;
        self.buf.reserve(HEAD_LEN);
        self.finish(head, body, start).map(Some)
    }

    /// Everything about a head that can be checked before a byte of its body is taken.
    fn admit(&mut self, head: &Head, now: Instant) -> Result<(), LinkError> {
        let kind = head.kind;
        if head.body_len() > kind.max_len() {
            return Err(LinkError::TooLong { kind, len: u64::from(head.len), max: kind.max_len() });
        }
        let Some(rates) = &mut self.rates else {
            return match kind {
                Kind::Command | Kind::Ask | Kind::Tracks => Ok(()),
                Kind::Unit => self.admit_unit(head),
                Kind::Health | Kind::Status | Kind::Log | Kind::Answer => Err(LinkError::WrongWay(kind)),
            };
        };
        let limits = rates.limits;
        match kind {
            Kind::Command | Kind::Ask => return Err(LinkError::WrongWay(kind)),
            Kind::Unit | Kind::Answer => {
                if !rates.units.take(1, now) {
                    return Err(LinkError::TooFast { what: "units", limit: limits.units_per_second });
                }
                if !rates.bytes.take(u64::from(head.len), now) {
                    return Err(LinkError::TooFast {
                        what: "unit bytes",
                        limit: limits.unit_bytes_per_second,
                    });
                }
            }
            Kind::Tracks | Kind::Health | Kind::Status | Kind::Log => {
                if !rates.control.take(1, now) {
                    return Err(LinkError::TooFast {
                        what: "control frames",
                        limit: limits.control_per_second,
                    });
                }
            }
        }
        if kind == Kind::Unit {
            self.admit_unit(head)?;
        }
        Ok(())
    }

    fn admit_unit(&mut self, head: &Head) -> Result<(), LinkError> {
        let dts = head.unit_head().dts;
        let place = self.tracks.iter().position(|track| track.id.0 == head.track);
        let last = place.and_then(|place| self.last_dts.get_mut(place));
        let last = last.ok_or(LinkError::UnknownTrack(head.track))?;
        match *last {
            Some(last) if dts < last => Err(LinkError::Backwards { track: head.track, last, dts }),
            _ => {
                *last = Some(dts);
                Ok(())
            }
        }
    }

    fn start_body(&mut self, head: Head) {
        self.head = Some(head);
        // Only heads are ever read ahead of a body, so nothing is left in the buffer.
        let free = if head.kind == Kind::Unit { HEADROOM } else { 0 };
        self.buf = BytesMut::with_capacity(free + head.body_len() + HEAD_LEN);
        self.buf.resize(free, 0);
        self.start = free;
    }

    fn finish(&mut self, head: Head, body: BytesMut, start: usize) -> Result<Frame, LinkError> {
        Ok(match head.kind {
            Kind::Unit => {
                let draft = Draft::new(head.unit_head(), body, start);
                Frame::Unit(draft.expect("a unit's body is received behind its headroom"))
            }
            Kind::Tracks => {
                let tracks = decode_tracks(&body.freeze())?;
                if !tracks.iter().map(|t| t.id).eq(self.tracks.iter().map(|t| t.id)) {
                    self.keep_times(&tracks);
                }
                self.tracks = tracks.clone();
                Frame::Tracks(tracks)
            }
            Kind::Health => Frame::Health(head.health_counters()),
            Kind::Status => Frame::Status(body.freeze()),
            Kind::Log => Frame::Log(head.log_level(), printable(&body)),
            Kind::Answer => Frame::Answer(body.freeze()),
            Kind::Command => Frame::Command(body.freeze()),
            Kind::Ask => Frame::Ask(body.freeze()),
        })
    }

    /// A track that stays keeps its last time although it may have moved in the list.
    fn keep_times(&mut self, tracks: &Tracks) {
        let mut moved = [None; Tracks::MAX];
        for (place, track) in moved.iter_mut().zip(tracks.iter()) {
            let before = self.tracks.iter().position(|known| known.id == track.id);
            *place = before.and_then(|before| self.last_dts.get(before).copied().flatten());
        }
        self.last_dts = moved;
    }
}

fn printable(line: &[u8]) -> String {
    String::from_utf8_lossy(line).chars().map(|c| if c.is_control() { ' ' } else { c }).take(2000).collect()
}
