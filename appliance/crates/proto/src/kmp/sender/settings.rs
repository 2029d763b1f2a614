//! How a track is sent.

use std::time::Duration;

/// Memory for one track's packets, and when the sender lets go of unacknowledged ones. Percent are of `limit_bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The most that may be held.
    pub limit_bytes: u64,
    /// Above this much the oldest go...
    pub high_percent: u8,
    /// ... until no more than this is held.
    pub low_percent: u8,
}

impl Memory {
    /// The reference's watermarks with a limit of its own.
    pub const fn of(limit_bytes: u64) -> Memory {
        Memory { limit_bytes, high_percent: 75, low_percent: 50 }
    }

    pub(super) fn high(&self) -> u64 {
        percent(self.limit_bytes, self.high_percent)
    }

    pub(super) fn low(&self) -> u64 {
        percent(self.limit_bytes, self.low_percent)
    }
}

fn percent(bytes: u64, percent: u8) -> u64 {
    bytes.saturating_mul(u64::from(percent)) / 100
}

/// Where the packets that are not acknowledged live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// In the sender alone; beyond the watermarks the oldest are lost.
    Memory(Memory),
    /// Everything is also kept by the owner and can be fetched again; the sender holds about so many bytes. For tracks
    /// with one upstream.
    Backlog {
        /// Bytes of packets in memory.
        window_bytes: u64,
    },
}

/// What happens when a connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// The controller is asked where to go on.
    Ask {
        /// Least time between two questions.
        interval: Duration,
        /// Questions in a row, after the first, before the upstream is given up.
        max: u32,
    },
    /// The same address again, after a pause that doubles.
    Backoff {
        /// The first pause.
        first: Duration,
        /// The longest.
        longest: Duration,
    },
    /// The upstream is given up (a controller without republish URL).
    Never,
}

/// How a track is sent; see [`Settings::strict`] and [`Settings::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Does what the reference does, also where that is a defect: packets leave in blocks, an idle upstream is asked for
    /// only with new data and then without any limit, memory is let go in mid-GOP.
    pub strict: bool,
    /// Packets wait for at most so long to be sent together; zero: not at all.
    pub flush_timeout: Duration,
    /// Bytes that are sent at once when they have come together.
    pub block_bytes: u64,
    /// For connecting, and for each period in which a peer takes nothing.
    pub timeout: Duration,
    /// Where packets are kept.
    pub keep: Keep,
    /// What is live goes first: a connection that comes after a longer outage, or that falls behind by more, begins with the
    /// newest keyframe, and what stands before it is left to the owner ([`super::Output::Left`]). Only with
    /// [`Keep::Backlog`]. `None`: the oldest goes first.
    pub live_within: Option<Duration>,
    /// What happens when a connection is lost.
    pub reconnect: Reconnect,
    /// A `null` is sent on a connection on which nothing was sent for so long.
    pub keepalive: Option<Duration>,
    /// After `eost` the peer has so long to close.
    pub end_grace: Option<Duration>,
    /// After the end of the track everything must be delivered within so long; then the rest is given up.
    pub end_patience: Option<Duration>,
    /// A peer that has acknowledged frames and stops doing so, while it is sent more, is given up after so long.
    pub ack_silence: Option<Duration>,
    /// Connections that are made anew after the end of the track, until all is acknowledged: so many in a row that
    /// bring no new ack. Of a peer that has acknowledged anything, those alone count on which it acknowledged something. 0: what
    /// the peer had not acknowledged when it closed stays so.
    pub end_attempts: u32,
}

impl Settings {
    /// Bytes of one block that the reference uses for its own bookkeeping.
    const BLOCK_OVERHEAD: u64 = 8;

    /// As the reference with its default settings, for video.
    pub fn strict() -> Settings {
        Settings {
            strict: true,
            flush_timeout: Duration::from_secs(1),
            block_bytes: 64 << 10,
            timeout: Duration::from_secs(10),
            keep: Keep::Memory(Memory::of(48 << 20)),
            live_within: None,
            reconnect: Reconnect::Ask { interval: Duration::from_secs(1), max: 15 },
            keepalive: None,
            end_grace: None,
            end_patience: None,
            ack_silence: None,
            end_attempts: 0,
        }
    }

    /// What we do unless asked otherwise: at once, never silent, never waiting for ever.
    pub fn new() -> Settings {
        Settings {
            strict: false,
            flush_timeout: Duration::ZERO,
            keepalive: Some(Duration::from_secs(5)),
            end_grace: Some(Duration::from_secs(10)),
            end_patience: Some(Duration::from_secs(60)),
            ack_silence: Some(Duration::from_secs(60)),
            ..Settings::strict()
        }
    }

    /// How many blocks are full when so many bytes were appended.
    pub(super) fn full_blocks(&self, bytes: u64) -> u64 {
        bytes.checked_div(self.block()).unwrap_or(0)
    }

    /// Bytes of packets in one block.
    pub(super) fn block(&self) -> u64 {
        self.block_bytes.saturating_sub(Self::BLOCK_OVERHEAD).max(1)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings::new()
    }
}
