//! Synthetic media that proves itself: valid FLV bodies (AVC and AAC) whose payload says which stream,
//! which frame and when it was sent, under a checksum.

/// Milliseconds between keyframes.
pub(crate) const GOP_MS: u64 = 2000;
const FPS: u64 = 30;
const GOP_FRAMES: u64 = FPS * GOP_MS / 1000;
const KEYFRAME_WEIGHT: u64 = 8;
const AAC_RATE: u64 = 48_000;
const AAC_FRAME: u64 = 1024;
const AUDIO_BITRATE: u64 = 64_000;

const SPS: [u8; 26] = [
    0x67, 0x64, 0x00, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10,
    0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x83, 0x19, 0x60,
];
const PPS: [u8; 6] = [0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0];
/// The AAC sequence header: LC, 48 kHz, stereo.
pub(crate) const AUDIO_HEADER: [u8; 4] = [0xAF, 0x00, 0x11, 0x90];

/// The AVC sequence header, 1280x720 High.
pub(crate) fn video_header() -> Vec<u8> {
    let mut out = vec![0x17, 0, 0, 0, 0, 1, SPS[1], SPS[2], SPS[3], 0xFF, 0xE1];
    out.extend_from_slice(&(SPS.len() as u16).to_be_bytes());
    out.extend_from_slice(&SPS);
    out.push(1);
    out.extend_from_slice(&(PPS.len() as u16).to_be_bytes());
    out.extend_from_slice(&PPS);
    out
}

/// Which of a stream's two tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Track {
    /// AVC pictures.
    Video = 0,
    /// AAC frames.
    Audio = 1,
}

/// What a frame's payload says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label {
    /// The stream's number.
    pub stream: u16,
    /// The track.
    pub track: Track,
    /// Counts the track's frames from 0.
    pub sequence: u32,
    /// When it was handed to the socket, nanoseconds of the monotonic clock.
    pub sent_ns: u64,
}

const LABEL_LEN: usize = 23;
/// One byte becomes two, each with a nibble, so that no zero byte and no start code can appear.
const LABEL_WIRE: usize = LABEL_LEN * 2;
const VIDEO_PREFIX: usize = 5 + 4 + 3;
const AUDIO_PREFIX: usize = 2;

impl Label {
    fn bytes(self, checksum: u64) -> [u8; LABEL_LEN] {
        let mut out = [0; LABEL_LEN];
        out[..2].copy_from_slice(&self.stream.to_be_bytes());
        out[2] = self.track as u8;
        out[3..7].copy_from_slice(&self.sequence.to_be_bytes());
        out[7..15].copy_from_slice(&self.sent_ns.to_be_bytes());
        out[15..].copy_from_slice(&checksum.to_be_bytes());
        out
    }
}

fn checksum(label: Label, prefix: &[u8], body: &[u8]) -> u64 {
    const K: u64 = 0x9E37_79B9_7F4A_7C15;
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(K).rotate_left(29);
    // Four lanes, so that the multiplications overlap: the generator shares its machine with the server.
    let mut lanes = [body.len() as u64, 1, 2, 3];
    let mut blocks = body.chunks_exact(32);
    for block in &mut blocks {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(8)) {
            *lane = mix(*lane, u64::from_le_bytes(word.try_into().expect("chunks of 8 bytes")));
        }
    }
    let mut sum = lanes.into_iter().fold(0, mix);
    for &byte in label.bytes(0).iter().chain(prefix).chain(blocks.remainder()) {
        sum = mix(sum, u64::from(byte));
    }
    sum
}

/// Makes one stream's frames.
#[derive(Debug)]
pub(crate) struct Source {
    stream: u16,
    bitrate: u64,
    gop_phase: u64,
    next: [u32; 2],
    noise: Vec<u8>,
}

impl Source {
    /// A stream of `bitrate` bits a second of video, and 64 kbit/s of sound.
    ///
    /// Its second keyframe comes the share `gop_phase` of a GOP early, so that the keyframes of many
    /// streams do not all fall together.
    pub(crate) fn new(stream: u16, bitrate: u64, gop_phase: f64) -> Self {
        let mut state = 0x1234_5678_9ABC_DEF1 ^ (u64::from(stream) << 40);
        let largest = Self::p_frame(bitrate) * KEYFRAME_WEIGHT * 5 / 4 + 8192;
        let mut noise = Vec::with_capacity(largest as usize);
        while noise.len() < largest as usize {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            noise.extend(state.to_le_bytes().map(|byte| byte | 4));
        }
        let gop_phase = (gop_phase * GOP_FRAMES as f64) as u64;
        Self { stream, bitrate, gop_phase, next: [0; 2], noise }
    }

    fn p_frame(bitrate: u64) -> u64 {
        bitrate * GOP_MS / 8000 / (GOP_FRAMES - 1 + KEYFRAME_WEIGHT)
    }

    /// The sequence number that the track's next frame will have.
    pub(crate) fn next_sequence(&self, track: Track) -> u32 {
        self.next[track as usize]
    }

    /// How far into a frame's time its frames fall, beside those of other streams: the golden ratio spreads any number
    /// of them evenly.
    pub(crate) fn frame_phase_ns(&self) -> u64 {
        let frame = 1_000_000_000 / FPS;
        u64::from(self.stream) * (frame * 618 / 1000) % frame
    }

    /// When the track's next frame is due, in nanoseconds of the stream's own time.
    pub(crate) fn due_ns(&self, track: Track) -> u64 {
        let index = u64::from(self.next[track as usize]);
        match track {
            Track::Video => index * 1_000_000_000 / FPS,
            Track::Audio => index * AAC_FRAME * 1_000_000_000 / AAC_RATE,
        }
    }

    /// Writes the track's next frame, an FLV tag body, over `out`.
    pub(crate) fn write_frame(&mut self, track: Track, sent_ns: u64, out: &mut Vec<u8>) {
        let sequence = self.next[track as usize];
        self.next[track as usize] += 1;
        let index = u64::from(sequence);
        // Between 80 and 120 % of the mean, the same in each run.
        let vary = |mean: u64| mean * (80 + (index * 7919 + u64::from(self.stream) * 13) % 41) / 100;
        out.clear();
        let body_len = match track {
            Track::Video => {
                let keyframe = index == 0 || (index + self.gop_phase).is_multiple_of(GOP_FRAMES);
                let mean = Self::p_frame(self.bitrate) * if keyframe { KEYFRAME_WEIGHT } else { 1 };
                let body_len = (vary(mean) as usize).saturating_sub(LABEL_WIRE).max(32);
                let nal_len = (3 + LABEL_WIRE + body_len) as u32;
                out.extend_from_slice(&[if keyframe { 0x17 } else { 0x27 }, 1, 0, 0, 0]);
                out.extend_from_slice(&nal_len.to_be_bytes());
                // A slice header as far as first macroblock, slice type and parameter set.
                out.extend_from_slice(if keyframe { &[0x65, 0x88, 0x84] } else { &[0x41, 0x9A, 0x24] });
                body_len
            }
            Track::Audio => {
                out.extend_from_slice(&[0xAF, 1]);
                let mean = AUDIO_BITRATE * AAC_FRAME / AAC_RATE / 8;
                (vary(mean) as usize).saturating_sub(LABEL_WIRE)
            }
        };
        let at = (index as usize * 61) % 4096;
        let body = &self.noise[at..at + body_len];
        let label = Label { stream: self.stream, track, sequence, sent_ns };
        let sum = checksum(label, out, body);
        for byte in label.bytes(sum) {
            out.extend_from_slice(&[0x40 | (byte >> 4), 0x40 | (byte & 15)]);
        }
        out.extend_from_slice(body);
    }
}

/// What an FLV tag body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame {
    /// One of ours, whole and unchanged.
    Good(Label, IsKeyframe),
    /// A sequence header, unchanged.
    Header,
    /// An end-of-sequence mark, which carries no media.
    End,
    /// Changed on the way, or never ours.
    Changed,
}

/// Whether a picture can be decoded alone.
pub(crate) type IsKeyframe = bool;

/// Reads and proves one audio (type 8) or video (type 9) message.
pub(crate) fn read_frame(track: Track, body: &[u8]) -> Frame {
    let prefix = match (track, body) {
        (Track::Video, [_, 0, ..]) if body == video_header() => return Frame::Header,
        (Track::Audio, [_, 0, ..]) if body == AUDIO_HEADER => return Frame::Header,
        (Track::Video, [_, 2, ..]) => return Frame::End,
        (Track::Video, _) => VIDEO_PREFIX,
        (Track::Audio, _) => AUDIO_PREFIX,
    };
    prove(track, prefix, body)
        .map_or(Frame::Changed, |label| Frame::Good(label, track == Track::Video && body[0] == 0x17))
}

fn prove(track: Track, prefix: usize, body: &[u8]) -> Option<Label> {
    let (prefix, rest) = body.split_at_checked(prefix)?;
    let (wire, rest) = rest.split_at_checked(LABEL_WIRE)?;
    let mut bytes = [0; LABEL_LEN];
    for (byte, pair) in bytes.iter_mut().zip(wire.chunks_exact(2)) {
        if pair.iter().any(|byte| byte & 0xF0 != 0x40) {
            return None;
        }
        *byte = (pair[0] << 4) | (pair[1] & 15);
    }
    let label = Label {
        stream: u16::from_be_bytes([bytes[0], bytes[1]]),
        track,
        sequence: u32::from_be_bytes(bytes[3..7].try_into().ok()?),
        sent_ns: u64::from_be_bytes(bytes[7..15].try_into().ok()?),
    };
    let good = label.bytes(checksum(label, prefix, rest)) == bytes;
    good.then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_proves_itself() {
        let mut source = Source::new(7, 4_000_000, 0.0);
        let mut body = Vec::new();
        for sequence in 0..120 {
            source.write_frame(Track::Video, 1_000 + u64::from(sequence), &mut body);
            let label =
                Label { stream: 7, track: Track::Video, sequence, sent_ns: 1_000 + u64::from(sequence) };
            assert_eq!(read_frame(Track::Video, &body), Frame::Good(label, sequence % 60 == 0));
            let nal_len = u32::from_be_bytes(body[5..9].try_into().unwrap()) as usize;
            assert_eq!(nal_len, body.len() - 9);
            assert!(!body[9..].windows(2).any(|pair| pair == [0, 0]), "no start code can appear");
        }
    }

    #[test]
    fn any_changed_bit_cut_or_growth_is_seen() {
        let mut source = Source::new(3, 300_000, 0.0);
        let mut body = Vec::new();
        for track in [Track::Video, Track::Audio] {
            source.write_frame(track, 5, &mut body);
            source.write_frame(track, 6, &mut body);
            assert!(matches!(read_frame(track, &body), Frame::Good(..)));
            for bit in 0..body.len() * 8 {
                let mut changed = body.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(read_frame(track, &changed), Frame::Changed, "bit {bit}");
            }
            assert_eq!(read_frame(track, &body[..body.len() - 1]), Frame::Changed);
            body.push(4);
            assert_eq!(read_frame(track, &body), Frame::Changed);
        }
    }

    #[test]
    fn the_rate_is_what_was_asked_for() {
        let mut source = Source::new(0, 4_000_000, 0.0);
        let (mut body, mut total) = (Vec::new(), 0);
        for _ in 0..600 {
            source.write_frame(Track::Video, 0, &mut body);
            total += body.len() * 8;
        }
        let rate = total as f64 / 20.0;
        assert!((3.8e6..4.2e6).contains(&rate), "{rate}");
        assert_eq!(source.due_ns(Track::Video), 20_000_000_000);
    }

    #[test]
    fn changed_sequence_headers_are_seen() {
        let mut header = video_header();
        assert_eq!(read_frame(Track::Video, &header), Frame::Header);
        assert_eq!(read_frame(Track::Audio, &AUDIO_HEADER), Frame::Header);
        header[20] ^= 1;
        assert_eq!(read_frame(Track::Video, &header), Frame::Changed);
    }
}
