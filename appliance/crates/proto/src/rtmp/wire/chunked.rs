//! One unit for one peer: its chunk size, its message stream id, and how much of it is gone already.

use super::STREAM_ID;
use bytes::Bytes;

/// Basic header (1), message header (11), extended timestamp (4).
const HEAD_MAX: usize = 16;

/// The slices of a unit's wire form as one peer gets them. Holds a few bytes of headers; the payload is borrowed.
#[derive(Debug)]
pub struct Chunked<'a> {
    /// The chunk header, with the peer's message stream id; empty if the shared one serves.
    head: [u8; HEAD_MAX],
    head_len: usize,
    /// What follows `head`: all, or all behind the chunk header.
    rest: &'a [u8],
    /// Bytes of `rest` in the first chunk, and in each further one.
    first_len: usize,
    chunk_len: usize,
    continuation: [u8; 5],
    continuation_len: usize,
}

impl<'a> Chunked<'a> {
    /// `wire` is what `Draft::finish` returned after `RtmpWire::unit_head`: one message in one chunk.
    ///
    /// `chunk_len` is what the peer was told; 0 counts as 1.
    pub fn new(wire: &'a Bytes, chunk_len: u32, stream_id: u32) -> Self {
        let chunk_len = (chunk_len as usize).max(1);
        let extended = wire.get(1..4) == Some(&[0xFF; 3]);
        let wire_head_len = if extended { HEAD_MAX } else { HEAD_MAX.saturating_sub(4) };
        let mut chunked = Chunked {
            head: [0; HEAD_MAX],
            head_len: 0,
            rest: wire,
            first_len: chunk_len.saturating_add(wire_head_len),
            chunk_len,
            continuation: [0xC0, 0, 0, 0, 0],
            continuation_len: 1,
        };
        let Some((wire_head, body)) = wire.split_at_checked(wire_head_len) else { return chunked };
        if let (Some(first), [basic, ..]) = (chunked.continuation.first_mut(), wire_head) {
            *first |= basic & 0x3F;
        }
        // The extended timestamp is repeated on every chunk, as the standard says and ffmpeg expects.
        if let (Some(to), Some(from)) = (chunked.continuation.get_mut(1..), wire_head.get(12..16)) {
            to.copy_from_slice(from);
            chunked.continuation_len = 5;
        }
        if stream_id != STREAM_ID {
            if let Some(to) = chunked.head.get_mut(..wire_head_len) {
                to.copy_from_slice(wire_head);
            }
            if let Some(to) = chunked.head.get_mut(8..12) {
                to.copy_from_slice(&stream_id.to_le_bytes());
            }
            chunked.head_len = wire_head_len;
            chunked.rest = body;
            chunked.first_len = chunk_len;
        }
        chunked
    }

    /// Bytes on the peer's wire, continuation headers included.
    pub fn total_len(&self) -> usize {
        let more = self.rest.len().saturating_sub(self.first_len).div_ceil(self.chunk_len);
        let continuations = more.saturating_mul(self.continuation_len);
        self.head_len.saturating_add(self.rest.len()).saturating_add(continuations)
    }

    /// What is to be written after the first `gone` bytes on the wire, in order; no slice is empty.
    pub fn slices(&self, gone: usize) -> Slices<'_> {
        let mut slices = Slices { chunked: self, part: Part::Head, rest: self.rest, gone: 0 };
        // Whole chunks are skipped by arithmetic: a resumed unit of many small chunks costs no walk.
        let first_end = self.head_len.saturating_add(self.first_len);
        if let Some(beyond) = gone.checked_sub(first_end)
            && self.rest.len() > self.first_len
        {
            let stride = self.continuation_len.saturating_add(self.chunk_len);
            let chunks = beyond.checked_div(stride).unwrap_or(0);
            let taken = self.first_len.saturating_add(chunks.saturating_mul(self.chunk_len));
            slices.rest = self.rest.get(taken..).unwrap_or_default();
            slices.part = Part::Continuation;
            slices.gone = beyond.saturating_sub(chunks.saturating_mul(stride));
        } else {
            slices.gone = gone;
        }
        slices
    }
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Head,
    First,
    Continuation,
    Further,
}

/// Iterator over the slices of a [`Chunked`].
#[derive(Clone, Debug)]
pub struct Slices<'a> {
    chunked: &'a Chunked<'a>,
    part: Part,
    rest: &'a [u8],
    /// Wire bytes still to be left out.
    gone: usize,
}

impl<'a> Iterator for Slices<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let chunked = self.chunked;
            let slice = match self.part {
                Part::Head => {
                    self.part = Part::First;
                    chunked.head.get(..chunked.head_len).unwrap_or_default()
                }
                Part::First => {
                    self.part = Part::Continuation;
                    self.cut(chunked.first_len)
                }
                Part::Continuation if self.rest.is_empty() => return None,
                Part::Continuation => {
                    self.part = Part::Further;
                    chunked.continuation.get(..chunked.continuation_len).unwrap_or_default()
                }
                Part::Further => {
                    self.part = Part::Continuation;
                    self.cut(chunked.chunk_len)
                }
            };
            let skip = self.gone.min(slice.len());
            self.gone = self.gone.saturating_sub(skip);
            if let Some(slice) = slice.get(skip..)
                && !slice.is_empty()
            {
                return Some(slice);
            }
        }
    }
}

impl<'a> Slices<'a> {
    fn cut(&mut self, len: usize) -> &'a [u8] {
        let (slice, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        slice
    }
}
