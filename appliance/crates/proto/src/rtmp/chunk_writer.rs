//! Messages to chunks: always a full (type 0) header, then type 3 continuations.
//!
//! Full headers cost 11 bytes a message and spare all state: any message may be left out without breaking the next,
//! and times that step back are no delta near 2^32.

use super::chunk_reader::kind;
use bytes::{BufMut, BytesMut};

/// Writes messages as chunks of the size last announced.
#[derive(Debug)]
pub struct ChunkWriter {
    chunk_len: u32,
}

impl Default for ChunkWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkWriter {
    /// A writer at the start of a connection: chunk size 128.
    pub fn new() -> Self {
        ChunkWriter { chunk_len: 128 }
    }

    /// A writer for a peer that was told `chunk_len` before. 0 counts as 1.
    pub fn with_chunk_len(chunk_len: u32) -> Self {
        ChunkWriter { chunk_len: chunk_len.max(1) }
    }

    /// The chunk size that the peer was told.
    pub fn chunk_len(&self) -> u32 {
        self.chunk_len
    }

    /// Tells the peer a new chunk size and uses it from the next message on. 0 counts as 1.
    pub fn set_chunk_len(&mut self, out: &mut BytesMut, chunk_len: u32) {
        let chunk_len = chunk_len.clamp(1, 0xFF_FFFF);
        self.write(out, 2, 0, kind::SET_CHUNK_SIZE, 0, &chunk_len.to_be_bytes());
        self.chunk_len = chunk_len;
    }

    /// Appends one message. `csid` is in 2..=65599, `body` shorter than 16 MiB, else nothing is written.
    pub fn write(
        &self,
        out: &mut BytesMut,
        csid: u32,
        timestamp: u32,
        kind: u8,
        stream_id: u32,
        body: &[u8],
    ) {
        let len = match u32::try_from(body.len()) {
            Ok(len) if len <= 0xFF_FFFF => len,
            _ => return,
        };
        if !(2..=65_599).contains(&csid) {
            return;
        }
        put_basic(out, 0, csid);
        let extended = timestamp >= 0xFF_FFFF;
        out.put_uint(u64::from(timestamp.min(0xFF_FFFF)), 3);
        out.put_uint(u64::from(len), 3);
        out.put_u8(kind);
        out.put_u32_le(stream_id);
        if extended {
            out.put_u32(timestamp);
        }
        let mut chunks = body.chunks((self.chunk_len as usize).max(1));
        out.extend_from_slice(chunks.next().unwrap_or_default());
        for chunk in chunks {
            put_basic(out, 3, csid);
            if extended {
                out.put_u32(timestamp);
            }
            out.extend_from_slice(chunk);
        }
    }
}

fn put_basic(out: &mut BytesMut, format: u8, csid: u32) {
    let format = format << 6;
    let above = csid.saturating_sub(64);
    match u8::try_from(above) {
        _ if csid < 64 => out.put_u8(format | (csid & 0x3F) as u8),
        Ok(above) => out.put_slice(&[format, above]),
        Err(_) => {
            let [low, high, ..] = above.to_le_bytes();
            out.put_slice(&[format | 1, low, high]);
        }
    }
}
