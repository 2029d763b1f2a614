//! The 40-byte head before every frame, little endian:
//!
//! ```text
//!  0      1      2      3        4..8      8..16  16..24  24..32      32..40
//!  kind   track  flags  version  body_len  dts    pts     source_dts  captured (unix microseconds)
//! ```
//! Health uses the four 64-bit fields for its counters and has no body; other control frames leave them zero.

use fieldgate_media::{Captured, ClockSource, Ticks, TrackId, UnitHead};

/// Bytes before every body.
pub const HEAD_LEN: usize = 40;
/// The longest payload of a unit.
pub const UNIT_MAX: usize = 4 << 20;
/// The longest body of any other frame but asks and answers.
pub const CONTROL_MAX: usize = 64 << 10;
/// The longest ask or answer: a unit with what belongs to it.
pub const ASK_MAX: usize = UNIT_MAX + 2 * CONTROL_MAX;

const VERSION: u8 = 1;
const KEYFRAME: u8 = 1;
const CAPTURED_ARRIVAL: u8 = 2;
const CAPTURED_CAMERA: u8 = 4;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One access unit: worker to gateway, or what a worker shall look into.
    Unit,
    /// All tracks and their headers, in the direction of the units; before the first unit and whenever they change.
    Tracks,
    /// Worker to gateway: the pulse of its control loop, with counters.
    Health,
    /// Worker to gateway: opaque bytes about what it does.
    Status,
    /// Worker to gateway: one line for the log.
    Log,
    /// Worker to gateway: opaque bytes, to one ask.
    Answer,
    /// Gateway to worker: opaque bytes.
    Command,
    /// Gateway to worker: opaque bytes that want an answer; longer than a command may be.
    Ask,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Kind::Unit => 1,
            Kind::Tracks => 2,
            Kind::Health => 3,
            Kind::Status => 4,
            Kind::Log => 5,
            Kind::Answer => 6,
            Kind::Command => 16,
            Kind::Ask => 17,
        }
    }

    /// The kind with this code on the wire.
    pub fn from_code(code: u8) -> Option<Kind> {
        const ALL: [Kind; 8] = [
            Kind::Unit,
            Kind::Tracks,
            Kind::Health,
            Kind::Status,
            Kind::Log,
            Kind::Answer,
            Kind::Command,
            Kind::Ask,
        ];
        ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The longest body that a frame of this kind may have.
    pub const fn max_len(self) -> usize {
        match self {
            Kind::Unit => UNIT_MAX,
            Kind::Health => 0,
            Kind::Ask | Kind::Answer => ASK_MAX,
            Kind::Tracks | Kind::Status | Kind::Log | Kind::Command => CONTROL_MAX,
        }
    }
}

/// How much a log line of a worker matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Something works worse than it should.
    Warn,
    /// Worth knowing.
    Info,
    /// For whoever looks into a fault.
    Debug,
}

/// The counters that come with a worker's pulse. Totals since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Units handed to the socket.
    pub sent_units: u64,
    /// Units dropped because the gateway took them too slowly.
    pub dropped_units: u64,
    /// Units that came from the source but had no use: without a time, before the first keyframe.
    pub unusable_units: u64,
    /// Bytes that wait to be sent.
    pub queued_bytes: u64,
}

/// A frame's head, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub(crate) kind: Kind,
    pub(crate) track: u8,
    pub(crate) flags: u8,
    pub(crate) len: u32,
    pub(crate) words: [u64; 4],
}

impl Head {
    /// The head of a unit with a payload of `len` bytes; `None` beyond [`UNIT_MAX`].
    pub fn unit(unit: &UnitHead, len: usize) -> Option<Head> {
        let mut flags = if unit.keyframe { KEYFRAME } else { 0 };
        let mut micros = 0;
        if let Some(captured) = unit.captured {
            micros = captured.unix_micros;
            flags |= match captured.by {
                ClockSource::Arrival => CAPTURED_ARRIVAL,
                ClockSource::Camera => CAPTURED_CAMERA,
            };
        }
        Some(Head {
            kind: Kind::Unit,
            track: unit.track.0,
            flags,
            len: bounded(len, UNIT_MAX)?,
            words: [unit.dts.get(), unit.pts.get(), unit.source_dts.get(), micros].map(i64::cast_unsigned),
        })
    }

    /// The head of a pulse.
    pub fn health(health: &Health) -> Head {
        let words = [health.sent_units, health.dropped_units, health.unusable_units, health.queued_bytes];
        Head { kind: Kind::Health, track: 0, flags: 0, len: 0, words }
    }

    /// The head of a control frame with a body of `len` bytes; `None` beyond the kind's limit.
    pub fn control(kind: Kind, len: usize) -> Option<Head> {
        Some(Head { kind, track: 0, flags: 0, len: bounded(len, kind.max_len())?, words: [0; 4] })
    }

    /// The head of a log line of `len` bytes.
    pub fn log(level: LogLevel, len: usize) -> Option<Head> {
        Head::control(Kind::Log, len).map(|head| Head { flags: level as u8, ..head })
    }

    /// What the frame is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How many bytes follow the head.
    pub fn body_len(&self) -> usize {
        self.len as usize
    }

    /// As on the wire.
    pub fn encode(&self) -> [u8; HEAD_LEN] {
        let mut out = [0; HEAD_LEN];
        out[..4].copy_from_slice(&[self.kind.code(), self.track, self.flags, VERSION]);
        out[4..8].copy_from_slice(&self.len.to_le_bytes());
        for (place, word) in out[8..].chunks_exact_mut(8).zip(self.words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// From the wire. `Err` holds the code or version that is not known; the length is not yet checked.
    pub(crate) fn decode(bytes: &[u8; HEAD_LEN]) -> Result<Head, Unknown> {
        let [code, track, flags, version] = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if version != VERSION {
            return Err(Unknown::Version(version));
        }
        let kind = Kind::from_code(code).ok_or(Unknown::Kind(code))?;
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(bytes[8..].chunks_exact(8)) {
            *word = bytes.try_into().map_or(0, u64::from_le_bytes);
        }
        let len = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        Ok(Head { kind, track, flags, len, words })
    }

    pub(crate) fn unit_head(&self) -> UnitHead {
        let [dts, pts, source_dts, micros] = self.words.map(u64::cast_signed);
        let by = match self.flags & (CAPTURED_ARRIVAL | CAPTURED_CAMERA) {
            CAPTURED_ARRIVAL => Some(ClockSource::Arrival),
            CAPTURED_CAMERA => Some(ClockSource::Camera),
            _ => None,
        };
        UnitHead {
            track: TrackId(self.track),
            dts: Ticks::new(dts),
            pts: Ticks::new(pts),
            source_dts: Ticks::new(source_dts),
            // A worker cleans decode times only.
            source_pts: Ticks::new(pts),
            keyframe: self.flags & KEYFRAME != 0,
            captured: by.map(|by| Captured { unix_micros: micros, by }),
        }
    }

    pub(crate) fn health_counters(&self) -> Health {
        let [sent_units, dropped_units, unusable_units, queued_bytes] = self.words;
        Health { sent_units, dropped_units, unusable_units, queued_bytes }
    }

    pub(crate) fn log_level(&self) -> LogLevel {
        [LogLevel::Warn, LogLevel::Info]
            .into_iter()
            .find(|l| *l as u8 == self.flags)
            .unwrap_or(LogLevel::Debug)
    }
}

/// A head that this version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    Kind(u8),
    Version(u8),
}

fn bounded(len: usize, max: usize) -> Option<u32> {
    (len <= max).then(|| u32::try_from(len).ok()).flatten()
}
