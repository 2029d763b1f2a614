//! Chunks to messages: one copy, one buffer per message, reassembly per chunk stream.
//!
//! Peers interleave chunk streams in the middle of messages, repeat the extended timestamp on continuation chunks or
//! leave it out, and change the chunk size when they like: all of it is legal or common, and accepted. What a peer
//! chooses is bounded by [`Limits`].
//!
//! A new header (types 0 to 2) inside an unfinished message of the same chunk stream discards the unfinished message
//! and starts the new one, as ffmpeg and nginx-rtmp do; more than [`Limits::discards`] in a row is an error.

use bytes::{BufMut, BytesMut};
use fieldgate_media::HEADROOM;

/// Message type ids.
pub mod kind {
    /// Set Chunk Size; handled by the reader, never returned.
    pub const SET_CHUNK_SIZE: u8 = 1;
    /// Abort Message; handled by the reader, never returned.
    pub const ABORT: u8 = 2;
    /// Acknowledgement.
    pub const ACKNOWLEDGEMENT: u8 = 3;
    /// User Control.
    pub const USER_CONTROL: u8 = 4;
    /// Window Acknowledgement Size.
    pub const WINDOW_ACK_SIZE: u8 = 5;
    /// Set Peer Bandwidth.
    pub const SET_PEER_BANDWIDTH: u8 = 6;
    /// Audio.
    pub const AUDIO: u8 = 8;
    /// Video.
    pub const VIDEO: u8 = 9;
    /// Data, AMF3 framing.
    pub const DATA_AMF3: u8 = 15;
    /// Command, AMF3 framing.
    pub const COMMAND_AMF3: u8 = 17;
    /// Data.
    pub const DATA: u8 = 18;
    /// Command.
    pub const COMMAND: u8 = 20;
    /// Aggregate of audio, video and data messages.
    pub const AGGREGATE: u8 = 22;
}

/// Bytes that may be reserved for a message before as many have arrived.
const AHEAD: usize = 256 << 10;
/// The longest chunk header: 3 bytes basic, 11 message, 4 extended timestamp.
const HEAD_MAX: usize = 18;
/// Larger chunk sizes than a message can be long mean the same as this.
const CHUNK_LEN_MAX: u32 = 0xFF_FFFF;
/// What both sides start with.
const CHUNK_LEN_START: u32 = 128;

/// What a peer may make us hold.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest message that is not media, and any message while media is not allowed; bytes.
    pub message_bytes: u32,
    /// Longest audio, video or aggregate message once media is allowed; bytes.
    pub media_bytes: u32,
    /// Received bytes of all unfinished messages together.
    pub unfinished_bytes: usize,
    /// Chunk streams in use over the connection's life.
    pub chunk_streams: usize,
    /// Set Chunk Size messages between two media messages.
    pub chunk_len_changes: u32,
    /// Unfinished messages discarded between two finished ones.
    pub discards: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            message_bytes: 64 << 10,
            media_bytes: 4 << 20,
            unfinished_bytes: 6 << 20,
            chunk_streams: 8,
            chunk_len_changes: 64,
            discards: 16,
        }
    }
}

/// One RTMP message. `buf` is [`HEADROOM`] free bytes, then the body.
#[derive(Debug)]
pub struct Message {
    /// The message type id, see [`kind`].
    pub kind: u8,
    /// Absolute time in milliseconds, wrapping at 2^32.
    pub timestamp: u32,
    /// The message stream id.
    pub stream_id: u32,
    /// The chunk stream that it came on.
    pub csid: u32,
    /// [`HEADROOM`] free bytes, then the body.
    pub buf: BytesMut,
}

impl Message {
    /// A message with a copy of `body`.
    pub fn copied(kind: u8, timestamp: u32, stream_id: u32, csid: u32, body: &[u8]) -> Message {
        let mut buf = BytesMut::with_capacity(HEADROOM.saturating_add(body.len()));
        buf.put_bytes(0, HEADROOM);
        buf.extend_from_slice(body);
        Message { kind, timestamp, stream_id, csid, buf }
    }

    /// The message body.
    pub fn body(&self) -> &[u8] {
        self.buf.get(HEADROOM..).unwrap_or_default()
    }
}

/// The peer's chunks break the protocol or a limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// Declared longer than allowed for its type and the connection's state.
    #[error("message of {len} bytes (type {kind}) on chunk stream {csid} exceeds {max}")]
    MessageTooLong {
        /// The chunk stream.
        csid: u32,
        /// The message type id.
        kind: u8,
        /// Declared length in bytes.
        len: u32,
        /// The limit.
        max: u32,
    },
    /// Too many bytes of messages that never end.
    #[error("{bytes} bytes in unfinished messages exceed {max}")]
    TooMuchUnfinished {
        /// Bytes held.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// One chunk stream more than allowed.
    #[error("chunk stream {csid} would be number {count}, limit {max}")]
    TooManyChunkStreams {
        /// The chunk stream.
        csid: u32,
        /// How many there would be.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// A compressed header without one before that it refers to.
    #[error("header type {format} on chunk stream {csid} has none before it to refer to")]
    NoHeaderBefore {
        /// The chunk stream.
        csid: u32,
        /// Header type, 2 or 3.
        format: u8,
    },
    /// Chunk size 0 or with its top bit set.
    #[error("chunk size {len:#x} is not in 1..=0x7fffffff")]
    ChunkLen {
        /// As sent.
        len: u32,
    },
    /// Nothing but chunk size changes.
    #[error("more than {max} chunk size changes without media between them")]
    TooManyChunkLenChanges {
        /// The limit.
        max: u32,
    },
    /// Nothing but messages that are given up half way.
    #[error("more than {max} messages discarded half way")]
    TooManyDiscards {
        /// The limit.
        max: u32,
    },
    /// A control message of the wrong length.
    #[error("control message type {kind} with {len} bytes")]
    ControlLen {
        /// The message type id.
        kind: u8,
        /// Its length.
        len: usize,
    },
}

/// One chunk stream: the header that compressed ones refer to, and the unfinished message.
#[derive(Debug)]
struct Stream {
    csid: u32,
    kind: u8,
    len: u32,
    stream_id: u32,
    timestamp: u32,
    /// Added by a type 3 header that begins a message.
    delta: u32,
    /// The extended field as last sent, if the last type 0-2 header had one.
    extended: Option<u32>,
    /// `Some` while a message is unfinished.
    buf: Option<BytesMut>,
}

/// Where the reader is.
#[derive(Clone, Copy, Debug)]
enum At {
    /// Before or inside a chunk header.
    Head,
    /// Inside a chunk of `streams[slot]`, `left` bytes of it to come.
    Body { slot: usize, left: usize },
}

/// A parsed chunk header.
struct Head {
    format: u8,
    csid: u32,
    slot: Option<usize>,
    /// Bytes it took.
    used: usize,
    /// The timestamp field or its extension (types 0-2).
    time: u32,
    extended: Option<u32>,
    /// Of a type 3 header after an extended timestamp: whether that came again.
    repeats_extended: Option<bool>,
    kind: u8,
    len: u32,
    stream_id: u32,
}

/// Turns a byte stream of chunks into messages.
#[derive(Debug)]
pub struct ChunkReader {
    limits: Limits,
    media: bool,
    chunk_len: u32,
    chunk_len_changes: u32,
    discards: u32,
    unfinished: usize,
    streams: Vec<Stream>,
    at: At,
    repeats_extended: Option<bool>,
    /// The beginning of a chunk header that was cut by the end of the input.
    staged: [u8; HEAD_MAX],
    staged_len: usize,
}

impl ChunkReader {
    /// A reader at the start of the chunk data, with chunk size 128 and media not yet allowed.
    pub fn new(limits: Limits) -> Self {
        ChunkReader {
            limits,
            media: false,
            chunk_len: CHUNK_LEN_START,
            chunk_len_changes: 0,
            discards: 0,
            unfinished: 0,
            streams: Vec::new(),
            at: At::Head,
            repeats_extended: None,
            staged: [0; HEAD_MAX],
            staged_len: 0,
        }
    }

    /// Whether audio, video and aggregate messages may be longer than the others.
    pub fn allow_media(&mut self, allowed: bool) {
        self.media = allowed;
    }

    /// Whether the peer repeats extended timestamps on continuation chunks, as the last such chunk told.
    pub fn repeats_extended_timestamps(&self) -> Option<bool> {
        self.repeats_extended
    }

    /// The peer's chunk size now.
    pub fn chunk_len(&self) -> u32 {
        self.chunk_len
    }

    /// Takes bytes off `input` until a message is complete, and returns it, or the input is used up (`None`).
    ///
    /// Never reads behind the message that it returns. After an error the reader is of no more use.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Message>, ChunkError> {
        loop {
            let (slot, left) = match self.at {
                At::Body { slot, left } => (slot, left),
                At::Head => match self.head(input)? {
                    Some(at) => at,
                    None => return Ok(None),
                },
            };
            let Some((take, rest)) = input.split_at_checked(left.min(input.len())) else { return Ok(None) };
            *input = rest;
            let left = left.saturating_sub(take.len());
            self.at = At::Body { slot, left };
            let whole = self.append(slot, take)?;
            if left > 0 {
                return Ok(None);
            }
            self.at = At::Head;
            if whole
                && let Some(message) = self.complete(slot)
                && let Some(message) = self.control(message)?
            {
                return Ok(Some(message));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
    }

    /// Reads one chunk header; `None` if the input ends inside it.
    fn head(&mut self, input: &mut &[u8]) -> Result<Option<(usize, usize)>, ChunkError> {
        let head = if self.staged_len == 0 {
            match self.parse(input) {
                Some(head) => {
                    *input = input.get(head.used..).unwrap_or_default();
                    head
                }
                None => {
                    self.stage(input);
                    return Ok(None);
                }
            }
        } else {
            let before = self.staged_len;
            let (at_stage, took) = (before, self.stage(input));
            let staged = self.staged;
            match self.parse(staged.get(..self.staged_len).unwrap_or_default()) {
                Some(head) => {
                    // Give back what was staged beyond the header.
                    let used = head.used.saturating_sub(at_stage).min(took.len());
                    *input = took.get(used..).unwrap_or_default();
                    self.staged_len = 0;
                    head
                }
                None => return Ok(None),
            }
        };
        self.begin(head).map(Some)
    }

    /// Moves bytes of a cut header to the stage; returns the input as it was.
    fn stage<'a>(&mut self, input: &mut &'a [u8]) -> &'a [u8] {
        let whole = *input;
        let count = whole.len().min(HEAD_MAX.saturating_sub(self.staged_len));
        let end = self.staged_len.saturating_add(count);
        if let (Some(to), Some((from, rest))) =
            (self.staged.get_mut(self.staged_len..end), whole.split_at_checked(count))
        {
            to.copy_from_slice(from);
            self.staged_len = end;
            *input = rest;
        }
        whole
    }

    /// Parses a header if `bytes` hold all of it.
    fn parse(&self, bytes: &[u8]) -> Option<Head> {
        let (&first, mut rest) = bytes.split_first()?;
        let format = first >> 6;
        let csid = match first & 0x3F {
            0 => {
                let (&a, after) = rest.split_first()?;
                rest = after;
                u32::from(a).saturating_add(64)
            }
            1 => {
                let (&[a, b], after) = rest.split_first_chunk()?;
                rest = after;
                u32::from(u16::from_le_bytes([a, b])).saturating_add(64)
            }
            low => u32::from(low),
        };
        let slot = self.streams.iter().position(|stream| stream.csid == csid);
        let mut head = Head {
            format,
            csid,
            slot,
            used: 0,
            time: 0,
            extended: None,
            repeats_extended: None,
            kind: 0,
            len: 0,
            stream_id: 0,
        };
        match format {
            0 => {
                let (&[t0, t1, t2, l0, l1, l2, kind, s0, s1, s2, s3], after) = rest.split_first_chunk()?;
                rest = after;
                head.time = u32::from_be_bytes([0, t0, t1, t2]);
                head.len = u32::from_be_bytes([0, l0, l1, l2]);
                head.kind = kind;
                head.stream_id = u32::from_le_bytes([s0, s1, s2, s3]);
            }
            1 => {
                let (&[t0, t1, t2, l0, l1, l2, kind], after) = rest.split_first_chunk()?;
                rest = after;
                head.time = u32::from_be_bytes([0, t0, t1, t2]);
                head.len = u32::from_be_bytes([0, l0, l1, l2]);
                head.kind = kind;
            }
            2 => {
                let (&[t0, t1, t2], after) = rest.split_first_chunk()?;
                rest = after;
                head.time = u32::from_be_bytes([0, t0, t1, t2]);
            }
            _ => {
                // Some encoders repeat the extended timestamp on type 3 chunks, some (librtmp, OBS before 2024) do
                // not; only a comparison tells. With fewer than four bytes at hand a mismatch decides early, so that
                // the short end of a message is not held back.
                if let Some(extended) = slot.and_then(|slot| self.streams.get(slot)).and_then(|s| s.extended)
                {
                    let expected = extended.to_be_bytes();
                    let at_hand = rest.get(..4).unwrap_or(rest);
                    let repeats = expected.starts_with(at_hand);
                    if repeats {
                        rest = rest.split_first_chunk::<4>()?.1;
                    }
                    head.repeats_extended = Some(repeats);
                }
            }
        }
        if format < 3 && head.time == 0xFF_FFFF {
            let (&extended, after) = rest.split_first_chunk()?;
            rest = after;
            head.time = u32::from_be_bytes(extended);
            head.extended = Some(head.time);
        }
        head.used = bytes.len().saturating_sub(rest.len());
        Some(head)
    }

    /// Applies a header to its chunk stream; returns the slot and the length of the chunk's body.
    fn begin(&mut self, head: Head) -> Result<(usize, usize), ChunkError> {
        let csid = head.csid;
        self.repeats_extended = head.repeats_extended.or(self.repeats_extended);
        let slot = match head.slot {
            Some(slot) => slot,
            None => self.open(csid, head.format)?,
        };
        let (media, limits) = (self.media, &self.limits);
        let Some(stream) = self.streams.get_mut(slot) else { return Ok((slot, 0)) };
        if head.format < 3
            && let Some(buf) = stream.buf.take()
        {
            self.unfinished = self.unfinished.saturating_sub(buf.len());
            self.discards = self.discards.saturating_add(1);
            if self.discards > limits.discards {
                return Err(ChunkError::TooManyDiscards { max: limits.discards });
            }
        }
        match head.format {
            0 => {
                stream.timestamp = head.time;
                // A type 3 header that begins a message after this one repeats the time as a delta (5.3.1.2.4).
                stream.delta = head.time;
                stream.stream_id = head.stream_id;
            }
            1 | 2 => {
                stream.timestamp = stream.timestamp.wrapping_add(head.time);
                stream.delta = head.time;
            }
            _ if stream.buf.is_none() => stream.timestamp = stream.timestamp.wrapping_add(stream.delta),
            _ => {}
        }
        if head.format < 3 {
            stream.extended = head.extended;
        }
        if head.format < 2 {
            (stream.kind, stream.len) = (head.kind, head.len);
        }
        let (kind, len) = (stream.kind, stream.len);
        if stream.buf.is_none() {
            let max = match kind {
                kind::AUDIO | kind::VIDEO | kind::AGGREGATE if media => limits.media_bytes,
                _ => limits.message_bytes,
            };
            if len > max {
                return Err(ChunkError::MessageTooLong { csid, kind, len, max });
            }
            let room = usize::try_from(len).unwrap_or(AHEAD).min(AHEAD).saturating_add(HEADROOM);
            let mut buf = BytesMut::with_capacity(room);
            buf.put_bytes(0, HEADROOM);
            self.unfinished = self.unfinished.saturating_add(HEADROOM);
            stream.buf = Some(buf);
        }
        let have = stream.buf.as_ref().map_or(0, |buf| buf.len().saturating_sub(HEADROOM));
        let left = (len as usize).saturating_sub(have).min(self.chunk_len as usize);
        Ok((slot, left))
    }

    fn open(&mut self, csid: u32, format: u8) -> Result<usize, ChunkError> {
        // Type 1 as the first header is librtmp's habit on the control stream; its message stream id is then 0.
        if format > 1 {
            return Err(ChunkError::NoHeaderBefore { csid, format });
        }
        let slot = self.streams.len();
        let count = slot.saturating_add(1);
        if count > self.limits.chunk_streams {
            return Err(ChunkError::TooManyChunkStreams { csid, count, max: self.limits.chunk_streams });
        }
        self.streams.push(Stream {
            csid,
            kind: 0,
            len: 0,
            stream_id: 0,
            timestamp: 0,
            delta: 0,
            extended: None,
            buf: None,
        });
        Ok(slot)
    }

    /// Adds body bytes; true when the message is whole.
    fn append(&mut self, slot: usize, bytes: &[u8]) -> Result<bool, ChunkError> {
        let Some(stream) = self.streams.get_mut(slot) else { return Ok(false) };
        let Some(buf) = stream.buf.as_mut() else { return Ok(false) };
        let whole = (stream.len as usize).saturating_add(HEADROOM);
        if buf.capacity().saturating_sub(buf.len()) < bytes.len() {
            // Doubling, so that growing copies each byte once on average; never beyond the message.
            let missing = whole.saturating_sub(buf.len());
            buf.reserve(missing.min(buf.len().max(AHEAD)).max(bytes.len()));
        }
        buf.extend_from_slice(bytes);
        let done = buf.len() >= whole;
        self.unfinished = self.unfinished.saturating_add(bytes.len());
        if self.unfinished > self.limits.unfinished_bytes && !done {
            let (bytes, max) = (self.unfinished, self.limits.unfinished_bytes);
            return Err(ChunkError::TooMuchUnfinished { bytes, max });
        }
        Ok(done)
    }

    fn complete(&mut self, slot: usize) -> Option<Message> {
        let stream = self.streams.get_mut(slot)?;
        let buf = stream.buf.take()?;
        self.unfinished = self.unfinished.saturating_sub(buf.len());
        self.discards = 0;
        let (kind, timestamp) = (stream.kind, stream.timestamp);
        if matches!(kind, kind::AUDIO | kind::VIDEO | kind::AGGREGATE) {
            self.chunk_len_changes = 0;
        }
        Some(Message { kind, timestamp, stream_id: stream.stream_id, csid: stream.csid, buf })
    }

    /// Keeps the messages that are for the chunk layer itself.
    fn control(&mut self, message: Message) -> Result<Option<Message>, ChunkError> {
        let kind = message.kind;
        if kind != kind::SET_CHUNK_SIZE && kind != kind::ABORT {
            return Ok(Some(message));
        }
        let body = message.body();
        let Some(&value) = body.first_chunk() else {
            return Err(ChunkError::ControlLen { kind, len: body.len() });
        };
        let value = u32::from_be_bytes(value);
        if kind == kind::ABORT {
            if let Some(stream) = self.streams.iter_mut().find(|stream| stream.csid == value)
                && let Some(buf) = stream.buf.take()
            {
                self.unfinished = self.unfinished.saturating_sub(buf.len());
            }
            return Ok(None);
        }
        if value == 0 || value > 0x7FFF_FFFF {
            return Err(ChunkError::ChunkLen { len: value });
        }
        self.chunk_len_changes = self.chunk_len_changes.saturating_add(1);
        if self.chunk_len_changes > self.limits.chunk_len_changes {
            return Err(ChunkError::TooManyChunkLenChanges { max: self.limits.chunk_len_changes });
        }
        self.chunk_len = value.min(CHUNK_LEN_MAX);
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
