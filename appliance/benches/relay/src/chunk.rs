//! RTMP chunk streams: a reader that copes with any chunk size and with interleaving, and a writer.
//! Source: "Adobe's Real Time Messaging Protocol", section 5.3.

use crate::error::BenchError;

const DEFAULT_CHUNK_SIZE: usize = 128;
const MAX_MESSAGE: usize = 8 << 20;
const MAX_CHUNK_STREAMS: usize = 64;
const EXTENDED: u32 = 0x00FF_FFFF;

/// What a message's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    /// Milliseconds on the peer's timeline.
    pub timestamp: u32,
    /// Message type: 8 audio, 9 video, 20 AMF0 command...
    pub kind: u8,
    /// Message stream id.
    pub stream_id: u32,
}

#[derive(Debug, Default)]
struct ChunkStream {
    csid: u32,
    head: Head,
    delta: u32,
    extended: Option<u32>,
    len: usize,
    payload: Vec<u8>,
    unfinished: bool,
}

/// Puts messages together from any division of the bytes into reads.
#[derive(Debug)]
pub(crate) struct ChunkReader {
    chunk_size: usize,
    streams: Vec<ChunkStream>,
    carry: Vec<u8>,
    /// The chunk being read: index of its stream and the bytes still to come.
    current: Option<(usize, usize)>,
}

type OnMessage<'a> = &'a mut dyn FnMut(Head, &[u8]) -> Result<(), BenchError>;

struct ChunkHead {
    format: u8,
    csid: u32,
    timestamp: u32,
    len: usize,
    kind: u8,
    stream_id: u32,
    used: usize,
    extended: Option<u32>,
}

impl ChunkReader {
    /// A reader as it is at the start of a connection.
    pub(crate) fn new() -> Self {
        Self::with_chunk_size(DEFAULT_CHUNK_SIZE)
    }

    /// A reader of a peer whose chunk size was agreed beforehand.
    pub(crate) fn with_chunk_size(chunk_size: usize) -> Self {
        Self { chunk_size, streams: Vec::new(), carry: Vec::new(), current: None }
    }

    /// Reads `input` and hands each whole message to `on_message`.
    ///
    /// Set Chunk Size and Abort take effect here and are handed on as well.
    pub(crate) fn feed<F>(&mut self, input: &[u8], mut on_message: F) -> Result<(), BenchError>
    where
        F: FnMut(Head, &[u8]) -> Result<(), BenchError>,
    {
        self.read(input, &mut on_message)
    }

    fn read(&mut self, mut input: &[u8], on_message: OnMessage<'_>) -> Result<(), BenchError> {
        loop {
            if let Some((index, left)) = self.current {
                let stream = &mut self.streams[index];
                let take = left.min(input.len());
                stream.payload.extend_from_slice(&input[..take]);
                input = &input[take..];
                if take < left {
                    self.current = Some((index, left - take));
                    return Ok(());
                }
                self.current = None;
                if stream.payload.len() == stream.len {
                    self.finish(index, on_message)?;
                }
                continue;
            }
            if input.is_empty() {
                return Ok(());
            }
            let parsed = if self.carry.is_empty() {
                let parsed = self.parse_head(input)?;
                match &parsed {
                    Some(head) => input = &input[head.used..],
                    None => {
                        self.carry.extend_from_slice(input);
                        return Ok(());
                    }
                }
                parsed
            } else {
                self.carry.push(input[0]);
                input = &input[1..];
                let carry = std::mem::take(&mut self.carry);
                let parsed = self.parse_head(&carry)?;
                match &parsed {
                    // A type 3 chunk without the repeated extended timestamp looks 4 bytes further
                    // than its header; what it looked at goes back as payload.
                    Some(head) if head.used < carry.len() => {
                        let rest = carry[head.used..].to_vec();
                        self.start_chunk(head)?;
                        self.read(&rest, on_message)?;
                        continue;
                    }
                    Some(_) => {}
                    None => self.carry = carry,
                }
                parsed
            };
            if let Some(head) = parsed {
                self.start_chunk(&head)?;
            }
        }
    }

    fn finish(&mut self, index: usize, on_message: OnMessage<'_>) -> Result<(), BenchError> {
        let stream = &mut self.streams[index];
        stream.unfinished = false;
        let head = stream.head;
        let payload = std::mem::take(&mut stream.payload);
        if let (1 | 2, Some(value)) = (head.kind, payload.first_chunk::<4>()) {
            let value = u32::from_be_bytes(*value);
            if head.kind == 1 {
                self.chunk_size = (value & 0x7FFF_FFFF) as usize;
                if self.chunk_size == 0 {
                    return Err(BenchError::Protocol("the peer set its chunk size to 0"));
                }
            } else if let Some(aborted) = self.streams.iter_mut().find(|s| s.csid == value) {
                aborted.unfinished = false;
                aborted.payload.clear();
            }
        }
        let result = on_message(head, &payload);
        let stream = &mut self.streams[index];
        stream.payload = payload;
        stream.payload.clear();
        result
    }

    fn start_chunk(&mut self, head: &ChunkHead) -> Result<(), BenchError> {
        let index = match self.streams.iter().position(|s| s.csid == head.csid) {
            Some(index) => index,
            None if head.format != 0 => {
                return Err(BenchError::Protocol("a chunk stream began without a full header"));
            }
            None if self.streams.len() == MAX_CHUNK_STREAMS => {
                return Err(BenchError::Protocol("too many chunk streams"));
            }
            None => {
                self.streams.push(ChunkStream { csid: head.csid, ..ChunkStream::default() });
                self.streams.len() - 1
            }
        };
        let stream = &mut self.streams[index];
        if stream.unfinished && head.format != 3 {
            return Err(BenchError::Protocol("a new message began inside an unfinished one"));
        }
        match head.format {
            0 => {
                stream.head = Head { timestamp: head.timestamp, kind: head.kind, stream_id: head.stream_id };
                stream.len = head.len;
                stream.delta = head.timestamp;
            }
            1 => {
                stream.head.timestamp = stream.head.timestamp.wrapping_add(head.timestamp);
                stream.head.kind = head.kind;
                stream.len = head.len;
                stream.delta = head.timestamp;
            }
            2 => {
                stream.head.timestamp = stream.head.timestamp.wrapping_add(head.timestamp);
                stream.delta = head.timestamp;
            }
            _ if !stream.unfinished => {
                stream.head.timestamp = stream.head.timestamp.wrapping_add(stream.delta);
            }
            _ => {}
        }
        if head.format != 3 {
            stream.extended = head.extended;
        }
        if stream.len > MAX_MESSAGE {
            return Err(BenchError::Protocol("a message is longer than 8 MiB"));
        }
        stream.unfinished = true;
        let left = (stream.len - stream.payload.len()).min(self.chunk_size);
        self.current = Some((index, left));
        Ok(())
    }

    /// Parses one chunk's header; `None` if more bytes are needed.
    fn parse_head(&self, bytes: &[u8]) -> Result<Option<ChunkHead>, BenchError> {
        let format = bytes[0] >> 6;
        let (csid, mut at) = match bytes[0] & 0x3F {
            0 if bytes.len() < 2 => return Ok(None),
            0 => (u32::from(bytes[1]) + 64, 2),
            1 if bytes.len() < 3 => return Ok(None),
            1 => (u32::from(bytes[2]) * 256 + u32::from(bytes[1]) + 64, 3),
            csid => (u32::from(csid), 1),
        };
        let fixed = [11, 7, 3, 0][usize::from(format)];
        if bytes.len() < at + fixed {
            return Ok(None);
        }
        let be24 = |p: usize| u32::from_be_bytes([0, bytes[p], bytes[p + 1], bytes[p + 2]]);
        let mut head =
            ChunkHead { format, csid, timestamp: 0, len: 0, kind: 0, stream_id: 0, used: 0, extended: None };
        if fixed >= 3 {
            head.timestamp = be24(at);
        }
        if fixed >= 7 {
            head.len = be24(at + 3) as usize;
            head.kind = bytes[at + 6];
        }
        if fixed == 11 {
            head.stream_id =
                u32::from_le_bytes([bytes[at + 7], bytes[at + 8], bytes[at + 9], bytes[at + 10]]);
        }
        at += fixed;
        let last = self.streams.iter().find(|s| s.csid == csid).and_then(|s| s.extended);
        if head.timestamp == EXTENDED || (format == 3 && last.is_some()) {
            let Some(value) = bytes.get(at..at + 4) else { return Ok(None) };
            let value = u32::from_be_bytes([value[0], value[1], value[2], value[3]]);
            // Some peers repeat the extended timestamp on continuation chunks, some do not.
            if format != 3 || last == Some(value) {
                at += 4;
            }
            if format != 3 {
                head.timestamp = value;
                head.extended = Some(value);
            }
        }
        head.used = at;
        Ok(Some(head))
    }
}

/// Appends one message to `out`: a full header, then type 3 chunks of at most `chunk_size`.
pub(crate) fn write_message(out: &mut Vec<u8>, chunk_size: usize, csid: u8, head: Head, payload: &[u8]) {
    debug_assert!((2..64).contains(&csid));
    let extended = head.timestamp >= EXTENDED;
    let short = head.timestamp.min(EXTENDED).to_be_bytes();
    out.push(csid);
    out.extend_from_slice(&short[1..]);
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.push(head.kind);
    out.extend_from_slice(&head.stream_id.to_le_bytes());
    if extended {
        out.extend_from_slice(&head.timestamp.to_be_bytes());
    }
    for (index, chunk) in payload.chunks(chunk_size).enumerate() {
        if index > 0 {
            out.push(0xC0 | csid);
            if extended {
                out.extend_from_slice(&head.timestamp.to_be_bytes());
            }
        }
        out.extend_from_slice(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(reader: &mut ChunkReader, bytes: &[u8], step: usize) -> Vec<(Head, Vec<u8>)> {
        let mut messages = Vec::new();
        for part in bytes.chunks(step) {
            reader
                .feed(part, |head, payload| {
                    messages.push((head, payload.to_vec()));
                    Ok(())
                })
                .unwrap();
        }
        messages
    }

    fn head(timestamp: u32, kind: u8) -> Head {
        Head { timestamp, kind, stream_id: 1 }
    }

    #[test]
    fn what_is_written_is_read_whatever_the_chunk_size_and_reads() {
        for chunk_size in [1, 127, 128, 4096, 1 << 20] {
            for timestamp in [0, 33, 0xFF_FFFE, 0xFF_FFFF, 0x0100_0000] {
                let payload: Vec<u8> = (0..9000u32).map(|i| i as u8).collect();
                let mut bytes = Vec::new();
                write_message(&mut bytes, chunk_size, 6, head(timestamp, 9), &payload);
                write_message(&mut bytes, chunk_size, 4, head(timestamp, 8), &payload[..77]);
                for step in [1, 2, 13, 1000, bytes.len()] {
                    let mut reader = ChunkReader::with_chunk_size(chunk_size);
                    let messages = read_all(&mut reader, &bytes, step);
                    assert_eq!(messages.len(), 2, "chunk size {chunk_size}, step {step}");
                    assert_eq!(messages[0], (head(timestamp, 9), payload.clone()));
                    assert_eq!(messages[1], (head(timestamp, 8), payload[..77].to_vec()));
                }
            }
        }
    }

    #[test]
    fn interleaved_chunk_streams_are_kept_apart() {
        let video = vec![7u8; 300];
        let mut whole = Vec::new();
        write_message(&mut whole, 128, 6, head(5, 9), &video);
        let mut audio = Vec::new();
        write_message(&mut audio, 128, 4, head(6, 8), &[9; 50]);
        let first_chunk = 12 + 128;
        let mut bytes = whole[..first_chunk].to_vec();
        bytes.extend_from_slice(&audio);
        bytes.extend_from_slice(&whole[first_chunk..]);
        for step in [1, bytes.len()] {
            let messages = read_all(&mut ChunkReader::new(), &bytes, step);
            assert_eq!(messages, vec![(head(6, 8), vec![9; 50]), (head(5, 9), video.clone())]);
        }
    }

    #[test]
    fn a_new_chunk_size_counts_from_the_next_chunk() {
        let mut bytes = Vec::new();
        let control = Head { timestamp: 0, kind: 1, stream_id: 0 };
        write_message(&mut bytes, 128, 2, control, &4096u32.to_be_bytes());
        write_message(&mut bytes, 4096, 6, head(1, 9), &[1; 5000]);
        let messages = read_all(&mut ChunkReader::new(), &bytes, 100);
        assert_eq!(messages[1], (head(1, 9), vec![1; 5000]));
    }

    #[test]
    fn compressed_headers_carry_on_from_the_last_message() {
        let mut bytes = Vec::new();
        write_message(&mut bytes, 128, 6, head(100, 9), &[1; 4]);
        bytes.extend_from_slice(&[0x46, 0, 0, 40, 0, 0, 2, 9, 5, 5]); // type 1: +40 ms, 2 bytes
        bytes.extend_from_slice(&[0x86, 0, 0, 20, 6, 6]); // type 2: +20 ms
        bytes.extend_from_slice(&[0xC6, 7, 7]); // type 3: +20 ms again
        let messages = read_all(&mut ChunkReader::new(), &bytes, 1);
        let times: Vec<u32> = messages.iter().map(|m| m.0.timestamp).collect();
        assert_eq!(times, [100, 140, 160, 180]);
        assert_eq!(messages[3].1, [7, 7]);
    }

    #[test]
    fn continuation_chunks_without_the_extended_timestamp_are_read() {
        let payload: Vec<u8> = (0..300u32).map(|i| (i % 251) as u8).collect();
        let mut with = Vec::new();
        write_message(&mut with, 128, 6, head(0x0200_0000, 9), &payload);
        let mut bytes = with[..16 + 128].to_vec();
        for chunk in payload[128..].chunks(128) {
            bytes.push(0xC6);
            bytes.extend_from_slice(chunk);
        }
        for step in [1, 3, bytes.len()] {
            let messages = read_all(&mut ChunkReader::new(), &bytes, step);
            assert_eq!(messages, vec![(head(0x0200_0000, 9), payload.clone())]);
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        let mut reader = ChunkReader::new();
        assert!(reader.feed(&[0xC6, 1, 2, 3], |_, _| Ok(())).is_err());
        let mut zero = Vec::new();
        write_message(&mut zero, 128, 2, Head { timestamp: 0, kind: 1, stream_id: 0 }, &[0; 4]);
        assert!(ChunkReader::new().feed(&zero, |_, _| Ok(())).is_err());
    }
}
