//! What the load generator holds: where clients connect, what each connection does, and what is counted.

use std::net::{SocketAddr, TcpStream};

use crate::error::BenchError;
use crate::kmp::Receiver;
use crate::media::{Source, Track};
use crate::session::Session;
use crate::verify::Verifier;

/// Where a run's clients connect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// The server's address.
    pub address: SocketAddr,
    /// The floor: a hello instead of RTMP's handshake and commands.
    pub bare: bool,
    /// Chunk size of the publishers.
    pub chunk_size: usize,
    /// Whether streams have sound.
    pub audio: bool,
}

/// What a connection does.
#[derive(Debug)]
pub(crate) enum Role {
    /// Sends its source's frames at their times.
    Publisher {
        /// The media.
        source: Source,
        /// When it begins; `None` until [`crate::engine::Engine::publish`].
        start_ns: Option<u64>,
    },
    /// Plays, or is pushed to (then the verifier comes with the stream's or the track's name).
    Receiver {
        /// What came.
        verifier: Option<Verifier>,
        /// Bytes it reads a second, if it is a slow one.
        slow: Option<u64>,
    },
    /// Plays until its first keyframe.
    Joiner {
        /// When it began to connect.
        began_ns: u64,
        /// What came.
        verifier: Verifier,
    },
    /// Does nothing.
    Idle,
}

/// What a connection speaks.
#[derive(Debug)]
pub(crate) enum Wire {
    /// RTMP, or the floor's bare chunks.
    Rtmp(Session),
    /// KMP, one track.
    Kmp(Receiver),
}

impl Wire {
    /// Whether media may flow, or for an idle RTMP client hands are shaken.
    pub(crate) fn is_running(&self) -> bool {
        match self {
            Self::Rtmp(session) => session.is_running(),
            Self::Kmp(receiver) => receiver.track().is_some(),
        }
    }

    /// Whether the peer has said that nothing will follow.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Kmp(receiver) if receiver.is_over())
    }

    /// Takes received bytes; answers go to `out`, media as FLV tag bodies to `on_media`.
    pub(crate) fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        on_media: &mut dyn FnMut(Track, &[u8]),
    ) -> Result<(), BenchError> {
        match self {
            Self::Rtmp(session) => session.receive(input, out, on_media),
            Self::Kmp(receiver) => receiver.receive(input, out, on_media),
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Non-blocking.
    pub socket: TcpStream,
    /// Its protocol state.
    pub session: Wire,
    /// What it does.
    pub role: Role,
    /// Bytes to be written.
    pub out: Vec<u8>,
    /// Whether the socket took less than was to be written.
    pub blocked: bool,
}

/// What was counted since the last [`crate::engine::Engine::open_window`].
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Bytes that receivers read.
    pub delivered: u64,
    /// Of the receivers that are not slow, in nanoseconds.
    pub latencies: Vec<u64>,
    /// From the start of connecting to the first whole keyframe, in nanoseconds.
    pub joins: Vec<u64>,
    /// The longest that a frame was sent after its time, in nanoseconds.
    pub pacing_late_ns: u64,
}
