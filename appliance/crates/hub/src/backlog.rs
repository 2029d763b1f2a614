//! What an upstream has not acknowledged yet: kept in memory ([`RamBacklog`]) or on disk (the crate `fieldgate-spool`).
//!
//! ```text
//!  append --> [ released | oldest ... newest ] <-- append
//!                         ^                         release(id): everything below is safe at the far end
//!                         dropped first when over budget, up to a keyframe, each loss named
//! ```
//!
//! Packets are opaque: a protocol's head bytes and the payload behind them. The backlog knows their ids, kinds and
//! capture times, and never blocks a media shard.

mod losses;
mod queue;
mod ram;
#[cfg(test)]
mod tests;

pub use losses::Losses;
pub use queue::PacketQueue;
pub use ram::RamBacklog;

use bytes::Bytes;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::time::Duration;

/// What a stored packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredKind {
    /// Describes the frames that follow; carries the id of the first of them and uses up none.
    Header,
    /// One frame; uses up one id.
    Frame,
}

/// One packet as it goes to the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The frame's id; a header's is that of the frame that follows it.
    pub id: u64,
    /// What it is.
    pub kind: StoredKind,
    /// Decodable alone. Audio and subtitles: always true. Headers: false.
    pub keyframe: bool,
    /// When it was captured, microseconds since 1970-01-01 UTC.
    pub captured_unix_micros: i64,
    /// The packet's head, at most 65,535 bytes.
    pub head: Bytes,
    /// What follows the head, at most 16 MiB.
    pub body: Bytes,
}

impl Stored {
    /// The longest head.
    pub const MAX_HEAD_BYTES: usize = 65_535;
    /// The longest body.
    pub const MAX_BODY_BYTES: usize = 16 << 20;

    /// Bytes of head and body.
    pub fn bytes(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Whether it is a frame.
    pub fn is_frame(&self) -> bool {
        self.kind == StoredKind::Frame
    }
}

/// How much may be kept at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of heads and bodies.
    pub bytes: u64,
    /// Span of capture time between the oldest and the newest frame. A jump of the clock counts for a minute at most.
    pub age: Duration,
}

/// Why frames will not be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LossCause {
    /// The byte budget was full; the oldest went.
    Bytes,
    /// They were older than the age budget.
    Age,
    /// The disk was full and so was the memory that stood in for it.
    DiskFull,
    /// The disk could not be written and the memory that stood in for it was full.
    DiskFailed,
    /// The disk took too long and the memory before it was full.
    DiskSlow,
    /// What the disk gave back was not what had been written.
    Damaged,
    /// The last write before a power cut did not reach the disk whole.
    Torn,
    /// They were in memory alone when the gateway stopped. Some may have been delivered: nothing written says so.
    Restart,
    /// Nobody wants them any more: the upstream was removed or replaced.
    Abandoned,
}

impl LossCause {
    /// Its name in the API and in files.
    pub fn as_str(self) -> &'static str {
        match self {
            LossCause::Bytes => "byte_budget",
            LossCause::Age => "age_budget",
            LossCause::DiskFull => "disk_full",
            LossCause::DiskFailed => "disk_failed",
            LossCause::DiskSlow => "disk_slow",
            LossCause::Damaged => "damaged",
            LossCause::Torn => "torn",
            LossCause::Restart => "restart",
            LossCause::Abandoned => "abandoned",
        }
    }
}

impl fmt::Display for LossCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Frames that will not be delivered from this backlog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Their ids. After [`LossCause::Restart`] ids that were never used may be among them.
    pub ids: Range<u64>,
    /// How many they are, where that is known.
    pub frames: Option<u64>,
    /// Capture time of the first, microseconds since 1970-01-01 UTC.
    pub from_unix_micros: i64,
    /// Capture time of the last.
    pub to_unix_micros: i64,
    /// Why.
    pub cause: LossCause,
}

/// What a backlog holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Ids from the oldest frame held to one past the newest. Empty when no frame is held.
    pub ids: Range<u64>,
    /// How many frames; less than the ids if some are lost or were never used.
    pub frames: u64,
    /// Bytes of heads and bodies.
    pub bytes: u64,
    /// Capture time of the oldest frame, microseconds since 1970-01-01 UTC. 0 when no frame is held.
    pub oldest_unix_micros: i64,
    /// Capture time of the newest frame. 0 when no frame is held.
    pub newest_unix_micros: i64,
    /// The lowest id that a new numbering may start with: no frame that was ever appended here had a higher one.
    pub next_id: u64,
}

/// Packets that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The newest header before the position asked for, if one is known.
    pub header: Option<Stored>,
    /// From the position asked for on, in order; the last is a frame, so that reading goes on behind its id. Ids may jump where frames were lost or a new numbering began: the one
    /// who sends them must then say so to the upstream. Empty: nothing is held from there on.
    pub packets: Vec<Stored>,
}

impl Batch {
    /// Leaves out headers whose frame is not in it.
    pub fn end_with_frame(&mut self) {
        let frames = self.packets.iter().rposition(Stored::is_frame).map_or(0, |last| last + 1);
        self.packets.truncate(frames);
    }
}

/// Where new packets are kept now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// In memory, as the config asks.
    Memory,
    /// On disk.
    Disk,
    /// In memory, because the disk can't take them now.
    MemoryInstead(LossCause),
}

/// Why a backlog can't do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BacklogError {
    /// Ids must go up.
    #[error("packet {id} comes after {next_id} was expected; ids must go up")]
    Order {
        /// The packet's.
        id: u64,
        /// The lowest that would do.
        next_id: u64,
    },
    /// The packet is too long to be kept.
    #[error(
        "packet {id} has a head of {head} and a body of {body} bytes; the limits are 65,535 and 16,777,216"
    )]
    TooLong {
        /// Its id.
        id: u64,
        /// Bytes of its head.
        head: usize,
        /// Bytes of its body.
        body: usize,
    },
    /// Too many reads wait for the disk; try again in a moment.
    #[error("too many reads wait for the disk")]
    Busy,
    /// The gateway stops.
    #[error("the backlog is closed")]
    Closed,
    /// The disk does not answer reads.
    #[error("the disk cannot be read: {0}")]
    Unreadable(String),
}

/// The future of a read.
pub type Reading = Pin<Box<dyn Future<Output = Result<Batch, BacklogError>> + Send>>;

/// One upstream's unacknowledged packets of one track.
///
/// One writer; reads and releases may come from anywhere. No call but the future of [`Backlog::read`] waits for a disk.
pub trait Backlog: Send + Sync {
    /// Takes a packet. When the budget is full the oldest go, up to a keyframe, and are named in
    /// [`Backlog::take_losses`]. A frame that itself must go (its keyframe was lost) is named there too.
    fn append(&self, packet: Stored) -> Result<(), BacklogError>;

    /// Everything with an id below is safe at the far end and may be forgotten. Never goes back.
    fn release(&self, before_id: u64);

    /// Packets from this id on, oldest first, up to about `max_bytes` but at least one. At once if memory holds them.
    fn read(&self, from_id: u64, max_bytes: usize) -> Reading;

    /// Like [`Backlog::read`] from memory alone; `None` if the disk must be asked.
    fn read_memory(&self, from_id: u64, max_bytes: usize) -> Option<Batch>;

    /// What is held.
    fn held(&self) -> Held;

    /// What was lost since the last call, oldest first.
    fn take_losses(&self) -> Vec<Lost>;

    /// Where new packets are kept now.
    fn keeping(&self) -> Keeping;

    /// Remembers a few bytes for whoever opens this backlog next, instead of those before; soon, and when it is closed. At
    /// most 64 KiB.
    fn keep_note(&self, _note: Bytes) {}

    /// What was remembered last, and whether the backlog was closed in order after that.
    fn note(&self) -> (Bytes, bool) {
        (Bytes::new(), false)
    }
}
