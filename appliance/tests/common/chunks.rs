//! RTMP chunks, written and read from the specification alone, so that the gateway is not checked against itself.

use super::flv::be24;
use std::collections::HashMap;

/// One RTMP message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Message type id.
    pub(crate) kind: u8,
    /// Timestamp in milliseconds.
    pub(crate) ts: u32,
    /// Message stream id.
    pub(crate) stream: u32,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// The basic header: format and chunk stream id.
pub(crate) fn basic(format: u8, csid: u32) -> Vec<u8> {
    let top = format << 6;
    match csid {
        2..=63 => vec![top | csid as u8],
        64..=319 => vec![top, (csid - 64) as u8],
        _ => vec![top | 1, ((csid - 64) & 0xff) as u8, ((csid - 64) >> 8) as u8],
    }
}

/// A whole type 0 header, extended timestamp included where it is needed.
pub(crate) fn head(csid: u32, ts: u32, len: usize, kind: u8, stream: u32) -> Vec<u8> {
    let mut out = basic(0, csid);
    out.extend(&ts.min(0xff_ffff).to_be_bytes()[1..]);
    out.extend(&(len as u32).to_be_bytes()[1..]);
    out.push(kind);
    out.extend(stream.to_le_bytes());
    if ts >= 0xff_ffff {
        out.extend(ts.to_be_bytes());
    }
    out
}

/// A message cut into chunks: type 0, then type 3.
pub(crate) fn cut(csid: u32, message: &Message, chunk_len: usize) -> Vec<u8> {
    let Message { kind, ts, stream, body } = message;
    let mut out = head(csid, *ts, body.len(), *kind, *stream);
    for (index, piece) in body.chunks(chunk_len).enumerate() {
        if index > 0 {
            out.extend(basic(3, csid));
            if *ts >= 0xff_ffff {
                out.extend(ts.to_be_bytes());
            }
        }
        out.extend(piece);
    }
    out
}

#[derive(Default)]
struct Lane {
    ts: u32,
    delta: u32,
    extended: bool,
    len: usize,
    kind: u8,
    stream: u32,
    body: Vec<u8>,
}

/// Puts messages together from bytes.
pub(crate) struct ChunkReader {
    bytes: Vec<u8>,
    chunk_len: usize,
    lanes: HashMap<u32, Lane>,
}

impl ChunkReader {
    pub(crate) fn new() -> Self {
        ChunkReader { bytes: Vec::new(), chunk_len: 128, lanes: HashMap::new() }
    }

    /// Adds what came off the wire.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// The next whole message; takes note of chunk sizes.
    pub(crate) fn next(&mut self) -> Option<Message> {
        loop {
            let mut at = 0;
            let done = self.chunk(&mut at)?;
            self.bytes.drain(..at);
            if let Some(message) = done {
                if message.kind == 1 && message.body.len() >= 4 {
                    self.chunk_len = u32::from_be_bytes(message.body[..4].try_into().unwrap()) as usize;
                }
                return Some(message);
            }
        }
    }

    /// Reads one chunk; `None` where bytes are missing.
    fn chunk(&mut self, at: &mut usize) -> Option<Option<Message>> {
        let bytes = &self.bytes;
        let mut take = |n: usize| {
            let piece = bytes.get(*at..*at + n)?;
            *at += n;
            Some(piece)
        };
        let first = take(1)?[0];
        let csid = match first & 0x3f {
            0 => 64 + u32::from(take(1)?[0]),
            1 => {
                let more = take(2)?;
                64 + u32::from(more[0]) + 256 * u32::from(more[1])
            }
            id => u32::from(id),
        };
        let format = first >> 6;
        let head = take([11, 7, 3, 0][usize::from(format)])?.to_vec();
        let lane = self.lanes.entry(csid).or_default();
        let field = if format < 3 { be24(&head) as u32 } else { 0 };
        let extended = if format < 3 { field == 0xff_ffff } else { lane.extended };
        let time = if extended { u32::from_be_bytes(take(4)?.try_into().unwrap()) } else { field };
        let len = if format < 2 { be24(&head[3..]) } else { lane.len };
        assert!(
            format == 3 || lane.body.is_empty(),
            "a header inside an unfinished message on chunk stream {csid}"
        );
        let piece = take((len - lane.body.len()).min(self.chunk_len))?;
        if lane.body.is_empty() {
            match format {
                0 => (lane.ts, lane.delta) = (time, 0),
                1 | 2 => {
                    lane.delta = time;
                    lane.ts = lane.ts.wrapping_add(time);
                }
                _ => lane.ts = lane.ts.wrapping_add(lane.delta),
            }
            lane.extended = extended;
            lane.len = len;
            if format < 2 {
                lane.kind = head[6];
            }
            if format == 0 {
                lane.stream = u32::from_le_bytes(head[7..11].try_into().unwrap());
            }
        }
        lane.body.extend(piece);
        if lane.body.len() < len {
            return Some(None);
        }
        let body = std::mem::take(&mut lane.body);
        Some(Some(Message { kind: lane.kind, ts: lane.ts, stream: lane.stream, body }))
    }
}
