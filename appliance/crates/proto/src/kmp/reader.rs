//! Bytes of a connection to packets, however they are cut.

use super::packet::{
    Ack, COMMON_LEN, Connect, FrameHead, MAX_DATA_LEN, MAX_HEADER_LEN, MediaInfo, PacketKind,
};
use bytes::{Bytes, BytesMut};
use fieldgate_media::{Draft, HEADROOM, UnitHead};

/// Room taken at first for data that a peer announces; more only as they come.
const FIRST_ROOM: usize = 64 * 1024;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a sender to a receiver: all packets but `ackf`.
    ToReceiver,
    /// From a receiver to a sender: only `ackf`, 40 bytes and no data, nothing longer.
    ToSender,
}

/// Bounds on what a peer may send; the protocol's own where nothing else is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one header.
    pub header_len: u32,
    /// Bytes of one frame.
    pub frame_len: u32,
    /// Bytes of `connect_data`: a receiver holds them before it knows who is calling.
    pub connect_data_len: u32,
    /// Bytes of a codec header in `minf`.
    pub extra_data_len: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            header_len: MAX_HEADER_LEN,
            frame_len: MAX_DATA_LEN,
            connect_data_len: MAX_DATA_LEN,
            extra_data_len: MAX_DATA_LEN,
        }
    }
}

/// One frame as it came.
#[derive(Debug)]
pub struct Frame {
    /// Its fields.
    pub head: FrameHead,
    /// [`HEADROOM`] unused bytes, then the payload.
    buf: BytesMut,
}

impl Frame {
    /// The payload.
    pub fn payload(&self) -> &[u8] {
        self.buf.get(HEADROOM..).unwrap_or_default()
    }

    /// The frame as a unit for a ring, without a copy.
    pub fn into_draft(self, head: UnitHead) -> Draft {
        Draft::new(head, self.buf, HEADROOM).unwrap_or_else(|| Draft::copied(head, &[]))
    }
}

/// What was read.
#[derive(Debug)]
pub enum Packet {
    /// `cnct`.
    Connect(Connect),
    /// `minf`.
    MediaInfo(MediaInfo),
    /// `fram`.
    Frame(Frame),
    /// `null`.
    Null,
    /// `eost`.
    EndOfStream,
    /// `ackf`.
    Ack(Ack),
}

/// Bytes that are no packet, or none that may come here. The connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The tag of no packet, or of one that never goes this way.
    #[error("packet type '{}' is unknown or not allowed in this direction", .tag.escape_ascii())]
    Kind {
        /// As it came.
        tag: [u8; 4],
    },
    /// A header with fewer bytes than its fields need, or, for a sender, with more.
    #[error("header of '{}' has {len} bytes, needs {needed}", .kind.tag().escape_ascii())]
    HeaderLen {
        /// Of which packet.
        kind: PacketKind,
        /// As announced.
        len: u32,
        /// Least number, for a sender the only one.
        needed: u32,
    },
    /// A header over the limit.
    #[error("header of '{}' has {len} bytes, more than {max}", .kind.tag().escape_ascii())]
    HeaderTooLong {
        /// Of which packet.
        kind: PacketKind,
        /// As announced.
        len: u32,
        /// The limit.
        max: u32,
    },
    /// More data than allowed.
    #[error("'{}' carries {len} bytes of data, more than {max}", .kind.tag().escape_ascii())]
    DataTooLong {
        /// Of which packet.
        kind: PacketKind,
        /// As announced.
        len: u32,
        /// The limit.
        max: u32,
    },
    /// A `cnct` whose first frame has the id that stands for none.
    #[error("initial_frame_id is the invalid one")]
    FrameId,
    /// A `minf` with a timescale of 0.
    #[error("timescale is 0")]
    Timescale,
    /// A `minf` of no known kind of media.
    #[error("media_type is none of video, audio and subtitle")]
    MediaType,
}

/// Cuts one direction of a connection into packets.
///
/// ```text
///   common (16 bytes) -> fields -> unknown rest of the header, skipped -> data -> common ...
/// ```
#[derive(Debug)]
pub struct PacketReader {
    direction: Direction,
    limits: Limits,
    /// The known part of the header, as far as it came.
    header: Vec<u8>,
    /// Once the common part is there.
    started: Option<Started>,
}

/// A packet under way.
#[derive(Debug)]
struct Started {
    kind: PacketKind,
    /// Header bytes behind the known fields, still to come.
    skip: u32,
    /// Data bytes still to come.
    data_left: usize,
    /// The data so far, behind [`HEADROOM`] bytes for frames.
    buf: BytesMut,
}

impl PacketReader {
    /// At the start of a connection.
    pub fn new(direction: Direction, limits: Limits) -> Self {
        PacketReader { direction, limits, header: Vec::new(), started: None }
    }

    /// Takes bytes off `input` up to the end of the next packet; `None` once all are taken. Call until `None`.
    ///
    /// After an error the reader is not to be used again.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Packet>, ReadError> {
        if self.started.is_none() {
            if !fill(&mut self.header, input, COMMON_LEN) {
                return Ok(None);
            }
            self.started = Some(self.start()?);
        }
        let Some(started) = self.started.as_mut() else { return Ok(None) };
        if !fill(&mut self.header, input, started.kind.header_len() as usize) || !started.fill(input) {
            return Ok(None);
        }
        let Some(started) = self.started.take() else { return Ok(None) };
        let packet = finish(&self.header, started);
        self.header.clear();
        packet.map(Some)
    }

    /// Bytes held of a packet that is not complete.
    pub fn held(&self) -> usize {
        let data = self.started.as_ref().map_or(0, |started| started.buf.len());
        self.header.len().saturating_add(data)
    }

    /// The common part is there: which packet comes?
    fn start(&self) -> Result<Started, ReadError> {
        let Some(&[t0, t1, t2, t3, h0, h1, h2, h3, d0, d1, d2, d3]) = self.header.first_chunk() else {
            return Err(ReadError::Kind { tag: [0; 4] });
        };
        let tag = [t0, t1, t2, t3];
        let header_len = u32::from_le_bytes([h0, h1, h2, h3]);
        let data_len = u32::from_le_bytes([d0, d1, d2, d3]);
        let kind = match (PacketKind::from_tag(tag), self.direction) {
            (Some(PacketKind::Ack), Direction::ToSender) => PacketKind::Ack,
            (Some(kind), Direction::ToReceiver) if kind != PacketKind::Ack => kind,
            _ => return Err(ReadError::Kind { tag }),
        };
        let needed = kind.header_len();
        // The reference's sender refuses a longer ack, and a receiver has no reason to write one.
        if header_len < needed || (self.direction == Direction::ToSender && header_len != needed) {
            return Err(ReadError::HeaderLen { kind, len: header_len, needed });
        }
        let max = self.limits.header_len;
        if header_len > max {
            return Err(ReadError::HeaderTooLong { kind, len: header_len, max });
        }
        let max = match kind {
            PacketKind::Connect => self.limits.connect_data_len,
            PacketKind::MediaInfo => self.limits.extra_data_len,
            PacketKind::Frame => self.limits.frame_len,
            PacketKind::Null | PacketKind::EndOfStream => MAX_DATA_LEN,
            PacketKind::Ack => 0,
        };
        if data_len > max {
            return Err(ReadError::DataTooLong { kind, len: data_len, max });
        }
        let mut buf = BytesMut::new();
        if kind == PacketKind::Frame {
            buf.reserve(FIRST_ROOM.min(data_len as usize).saturating_add(HEADROOM));
            buf.resize(HEADROOM, 0);
        }
        let skip = header_len.saturating_sub(needed);
        Ok(Started { kind, skip, data_left: data_len as usize, buf })
    }
}

impl Started {
    /// Takes what follows the known fields; whether all of it is there.
    fn fill(&mut self, input: &mut &[u8]) -> bool {
        let unknown = take(input, self.skip as usize);
        self.skip = self.skip.saturating_sub(unknown.len() as u32);
        if self.skip > 0 {
            return false;
        }
        let data = take(input, self.data_left);
        self.data_left = self.data_left.saturating_sub(data.len());
        if !matches!(self.kind, PacketKind::Null | PacketKind::EndOfStream) {
            self.buf.extend_from_slice(data);
        }
        self.data_left == 0
    }
}

fn finish(header: &[u8], started: Started) -> Result<Packet, ReadError> {
    let kind = started.kind;
    let short = ReadError::HeaderLen { kind, len: header.len() as u32, needed: kind.header_len() };
    match kind {
        PacketKind::Connect => {
            let connect = Connect::decode(header, whole(started.buf)).ok_or(short)?;
            if connect.initial_frame_id == super::packet::NO_FRAME_ID {
                return Err(ReadError::FrameId);
            }
            Ok(Packet::Connect(connect))
        }
        PacketKind::MediaInfo => {
            let info = MediaInfo::decode(header, whole(started.buf)).ok_or(ReadError::MediaType)?;
            if info.timescale == 0 {
                return Err(ReadError::Timescale);
            }
            Ok(Packet::MediaInfo(info))
        }
        PacketKind::Frame => {
            let head = FrameHead::decode(header).ok_or(short)?;
            Ok(Packet::Frame(Frame { head, buf: started.buf }))
        }
        PacketKind::Null => Ok(Packet::Null),
        PacketKind::EndOfStream => Ok(Packet::EndOfStream),
        PacketKind::Ack => Ok(Packet::Ack(Ack::decode(header).ok_or(short)?)),
    }
}

/// Tracks keep these for long: no spare room.
fn whole(buf: BytesMut) -> Bytes {
    Bytes::copy_from_slice(&buf)
}

/// Moves bytes to `header` until it has `len`; whether it has.
fn fill(header: &mut Vec<u8>, input: &mut &[u8], len: usize) -> bool {
    header.extend_from_slice(take(input, len.saturating_sub(header.len())));
    header.len() >= len
}

/// At most `len` bytes off `input`.
fn take<'a>(input: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at_checked(len).unwrap_or((input, &[]));
    *input = rest;
    taken
}

#[cfg(test)]
mod tests;
