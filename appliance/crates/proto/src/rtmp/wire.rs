//! The one wire form of a unit that serves all RTMP subscribers.
use bytes::{Bytes, BytesMut};
use fieldgate_media::{HEADROOM, Ticks, Track, Tracks, UnitHead};

/// The message stream id that the shared wire form carries.
pub const STREAM_ID: u32 = 1;

/// How metadata is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataStyle {
    /// `onMetaData`: towards players.
    Plain,
    /// `@setDataFrame`, `onMetaData`: towards servers that we push to.
    SetDataFrame,
}

/// Writes the shared wire form. Stateless.
#[derive(Clone, Copy, Debug, Default)]
pub struct RtmpWire;

impl RtmpWire {
    /// Writes chunk header (type 0) and FLV tag header right-aligned into `room`; returns how many bytes.
    /// 0: the unit is longer than a message can be.
    pub fn unit_head(
        _room: &mut [u8; HEADROOM],
        _unit: &UnitHead,
        _track: &Track,
        _payload_len: usize,
    ) -> usize {
        0
    }
    /// Appends metadata and all codec headers as messages, chunked at `chunk_len`.
    pub fn tracks(
        _out: &mut BytesMut,
        _tracks: &Tracks,
        _at: Ticks,
        _chunk_len: u32,
        _stream_id: u32,
        _style: MetadataStyle,
    ) {
    }
}

/// One unit's wire form as the chunks of one peer: its chunk size, its message stream id.
#[derive(Debug)]
pub struct Chunked<'a> {
    wire: &'a Bytes,
}

impl<'a> Chunked<'a> {
    /// `wire` is what `Draft::finish` returned after `RtmpWire::unit_head`.
    pub fn new(wire: &'a Bytes, _chunk_len: u32, _stream_id: u32) -> Self {
        Chunked { wire }
    }
    /// Bytes on the wire, continuation headers included.
    pub fn total_len(&self) -> usize {
        self.wire.len()
    }
    /// What is to be written after the first `gone` wire bytes, in order.
    pub fn slices(&self, gone: usize) -> impl Iterator<Item = &[u8]> {
        self.wire.get(gone..).into_iter()
    }
}
