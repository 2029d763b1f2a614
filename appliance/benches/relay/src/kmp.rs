//! The receiving end of one KMP track without its socket, written from the protocol's description alone, so
//! that a fault in fieldgate's own KMP cannot hide behind the same fault here.
//! Source: Kaltura's media-framework, `kmp-format`: little-endian packets, one track a TCP connection.
//!
//! ```text
//! cnct -> minf -> fram ... -> eost, `null` anywhere; back go only `ackf`
//! ```

use crate::error::BenchError;
use crate::media::{AUDIO_HEADER, Track, video_header};

const COMMON: usize = 16;
const MAX_HEADER: usize = 65_536;
const MAX_DATA: usize = 16 << 20;
const TIMESCALE: u32 = 90_000;
const TICKS_PER_MS: i32 = 90;
/// How far a time may be from the frame's own: RTMP's whole milliseconds, and 2 ms of smoothing.
const TIME_MARGIN: i64 = 300;

/// When the receiver says what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acks {
    /// After so many frames, and at the end.
    Every(u32),
    /// Never.
    Never,
}

/// One track's connection.
#[derive(Debug)]
pub(crate) struct Receiver {
    acks: Acks,
    head: Vec<u8>,
    /// The packet's data; a frame's as the FLV tag body that it was made from.
    body: Vec<u8>,
    /// Data still to come, once the header is whole.
    missing: Option<usize>,
    track: Option<(u16, Track)>,
    has_media_info: bool,
    next_id: u64,
    unacknowledged: u32,
    first_dts: Option<i64>,
    last_dts: i64,
    media_bytes: u64,
    odd: u64,
    over: bool,
}

impl Receiver {
    /// The server side of a connection that was accepted.
    pub(crate) fn new(acks: Acks) -> Self {
        Self {
            acks,
            head: Vec::new(),
            body: Vec::new(),
            missing: None,
            track: None,
            has_media_info: false,
            next_id: 0,
            unacknowledged: 0,
            first_dts: None,
            last_dts: 0,
            media_bytes: 0,
            odd: 0,
            over: false,
        }
    }

    /// The stream's number and the track, once the peer has named them.
    pub(crate) fn track(&self) -> Option<(u16, Track)> {
        self.track
    }

    /// Whether `eost` came.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Bytes of frames, without their headers.
    pub(crate) fn media_bytes(&self) -> u64 {
        self.media_bytes
    }

    /// Frames and media infos with other times or values than were published.
    pub(crate) fn odd(&self) -> u64 {
        self.odd
    }

    /// Takes bytes until the track is named; returns what follows.
    pub(crate) fn open<'a>(&mut self, input: &'a [u8]) -> Result<&'a [u8], BenchError> {
        let Some(rest) = self.fill(input)? else { return Ok(&[]) };
        self.connect()?;
        self.next_packet();
        Ok(rest)
    }

    /// Takes received bytes; acknowledgements go to `out`, frames as FLV tag bodies to `on_media`.
    pub(crate) fn receive(
        &mut self,
        mut input: &[u8],
        out: &mut Vec<u8>,
        on_media: &mut dyn FnMut(Track, &[u8]),
    ) -> Result<(), BenchError> {
        while let Some(rest) = self.fill(input)? {
            input = rest;
            if self.over {
                return Err(BenchError::Protocol("a KMP packet after eost"));
            }
            match (self.track, &self.head[..4]) {
                (None, _) => self.connect()?,
                (Some((_, track)), b"minf") => self.media_info(track)?,
                (Some((_, track)), b"fram") => self.frame(track, out, on_media)?,
                (Some(_), b"eost") => {
                    self.over = true;
                    self.acknowledge(out);
                }
                (Some(_), b"null") => {}
                (Some(_), _) => return Err(BenchError::Protocol("an unknown KMP packet")),
            }
            self.next_packet();
        }
        Ok(())
    }

    fn next_packet(&mut self) {
        self.head.clear();
        self.body.clear();
        self.missing = None;
    }

    /// Takes bytes of one packet; returns what follows it once it is whole.
    fn fill<'a>(&mut self, mut input: &'a [u8]) -> Result<Option<&'a [u8]>, BenchError> {
        let missing = match self.missing {
            Some(missing) => missing,
            None => {
                let whole =
                    self.fill_head(&mut input, COMMON) && self.fill_head(&mut input, header_len(&self.head)?);
                if !whole {
                    return Ok(None);
                }
                self.begin_data()
            }
        };
        let take = missing.min(input.len());
        self.body.extend_from_slice(&input[..take]);
        self.missing = Some(missing - take);
        Ok((take == missing).then_some(&input[take..]))
    }

    /// Takes bytes until the header has `len`; says whether it has.
    fn fill_head(&mut self, input: &mut &[u8], len: usize) -> bool {
        let (head, rest) = input.split_at(len.saturating_sub(self.head.len()).min(input.len()));
        self.head.extend_from_slice(head);
        *input = rest;
        self.head.len() >= len
    }

    /// Begins the data of a whole header, a frame's with what FLV has before it; returns the data's length.
    fn begin_data(&mut self) -> usize {
        if &self.head[..4] == b"fram" {
            let (is_key, delay) = (u32_at(&self.head, 32) & 1 == 1, u32_at(&self.head, 36) as i32);
            match self.track {
                Some((_, Track::Video)) => {
                    let [_, composition @ ..] = (delay / TICKS_PER_MS).to_be_bytes();
                    self.body.extend_from_slice(&[if is_key { 0x17 } else { 0x27 }, 1]);
                    self.body.extend_from_slice(&composition);
                    self.odd += u64::from(delay % TICKS_PER_MS != 0);
                }
                _ => {
                    self.body.extend_from_slice(&[AUDIO_HEADER[0], 1]);
                    self.odd += u64::from(is_key || delay != 0);
                }
            }
        }
        u32_at(&self.head, 8) as usize
    }

    fn connect(&mut self) -> Result<(), BenchError> {
        if &self.head[..4] != b"cnct" {
            return Err(BenchError::Protocol("the first KMP packet is not cnct"));
        }
        let channel = name_at(&self.head, 16);
        let stream = channel.strip_prefix('s').and_then(|number| number.parse().ok());
        let track = match name_at(&self.head, 48) {
            "v1" => Some(Track::Video),
            "a1" => Some(Track::Audio),
            _ => None,
        };
        self.track = stream.zip(track);
        if self.track.is_none() {
            return Err(BenchError::Protocol("KMP of another channel or track than was configured"));
        }
        self.next_id = u64_at(&self.head, 80);
        if self.next_id == u64::MAX {
            return Err(BenchError::Protocol("the initial frame id is invalid"));
        }
        Ok(())
    }

    fn media_info(&mut self, track: Track) -> Result<(), BenchError> {
        let numbers = [16, 20, 24].map(|at| u32_at(&self.head, at));
        let (numbers_sent, config) = match track {
            Track::Video => ([0, 7, TIMESCALE], &video_header()[5..]),
            Track::Audio => ([1, 1010, TIMESCALE], &AUDIO_HEADER[2..]),
        };
        if numbers != numbers_sent {
            return Err(BenchError::Protocol("the KMP media info is not H.264 or AAC in 90 kHz"));
        }
        // Width and height, or channels; and the rate.
        let shape = match track {
            Track::Video => u32_at(&self.head, 32) == 1280 | 720 << 16,
            Track::Audio => u32_at(&self.head, 32) & 0xFFFF == 2 && u32_at(&self.head, 36) == 48_000,
        };
        self.odd += u64::from(!shape || self.body != config);
        self.has_media_info = true;
        Ok(())
    }

    fn frame(
        &mut self,
        track: Track,
        out: &mut Vec<u8>,
        on_media: &mut dyn FnMut(Track, &[u8]),
    ) -> Result<(), BenchError> {
        if !self.has_media_info {
            return Err(BenchError::Protocol("a KMP frame before any media info"));
        }
        let (created, dts) = (u64_at(&self.head, 16) as i64, u64_at(&self.head, 24) as i64);
        let period = i64::from(TIMESCALE) * if track == Track::Video { 1000 } else { 1024 }
            / if track == Track::Video { 30_000 } else { 48_000 };
        let first = *self.first_dts.get_or_insert(dts);
        let off = (dts - first).rem_euclid(period);
        let steps_back = dts <= self.last_dts && self.media_bytes > 0;
        self.odd += u64::from(created <= 0 || steps_back || off.min(period - off) > TIME_MARGIN);
        self.last_dts = dts;
        self.media_bytes += u64::from(u32_at(&self.head, 8));
        on_media(track, &self.body);
        self.next_id += 1;
        self.unacknowledged += 1;
        if matches!(self.acks, Acks::Every(frames) if self.unacknowledged >= frames) {
            self.acknowledge(out);
        }
        Ok(())
    }

    fn acknowledge(&mut self, out: &mut Vec<u8>) {
        if self.acks == Acks::Never || self.unacknowledged == 0 {
            return;
        }
        self.unacknowledged = 0;
        out.extend_from_slice(b"ackf");
        for word in [40u32, 0, 0] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.next_id.to_le_bytes());
        // Nothing of ours is to be echoed at the next connection.
        out.extend_from_slice(&[0; 16]);
    }
}

/// The length of the header that begins with `common`, checked.
fn header_len(common: &[u8]) -> Result<usize, BenchError> {
    let (header, data) = (u32_at(common, 4) as usize, u32_at(common, 8) as usize);
    let known = match &common[..4] {
        b"cnct" => 104,
        b"minf" => 48,
        b"fram" => 40,
        _ => COMMON,
    };
    if (known..=MAX_HEADER).contains(&header) && data <= MAX_DATA {
        Ok(header)
    } else {
        Err(BenchError::Protocol("a KMP packet's sizes are out of limits"))
    }
}

fn u32_at(head: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(head: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"))
}

/// A name of up to 32 bytes, padded with zeros; empty where it is no text.
fn name_at(head: &[u8], at: usize) -> &str {
    let name = head[at..at + 32].split(|&byte| byte == 0).next().unwrap_or_default();
    std::str::from_utf8(name).unwrap_or_default()
}

#[cfg(test)]
mod tests;
