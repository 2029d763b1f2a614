//! RTP and RTCP as the cameras of the farm send them: RFC 3550, 6184, 7798 and 3551.

use super::film::{Coding, Film, Picture};

/// Largest payload of one packet.
const PAYLOAD_MAX: usize = 1_400;
/// 1900 to 1970.
const NTP_TO_UNIX: u64 = 2_208_988_800;

/// One stream's packets.
#[derive(Debug)]
pub(crate) struct Sender {
    payload_type: u8,
    ssrc: u32,
    sequence: u16,
    packets: u32,
    bytes: u32,
}

impl Sender {
    pub(crate) fn new(payload_type: u8, ssrc: u32) -> Sender {
        // Near its wrap, so that every test crosses it.
        Sender { payload_type, ssrc, sequence: 65_500, packets: 0, bytes: 0 }
    }

    /// The number of the next packet.
    pub(crate) fn sequence(&self) -> u16 {
        self.sequence
    }

    pub(crate) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// One packet.
    pub(crate) fn packet(&mut self, timestamp: u32, marker: bool, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, self.payload_type | u8::from(marker) << 7];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend_from_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(payload.len() as u32);
        packet
    }

    /// The packets of NAL units that are one access unit.
    pub(crate) fn unit(&mut self, coding: Coding, timestamp: u32, nals: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        for (index, nal) in nals.iter().enumerate() {
            let last_nal = index + 1 == nals.len();
            if nal.len() <= PAYLOAD_MAX {
                packets.push(self.packet(timestamp, last_nal, nal));
                continue;
            }
            let head_len = if coding == Coding::H264 { 1 } else { 2 };
            let (head, body) = nal.split_at(head_len);
            let pieces: Vec<&[u8]> = body.chunks(PAYLOAD_MAX - 3).collect();
            for (at, piece) in pieces.iter().enumerate() {
                let (first, last) = (at == 0, at + 1 == pieces.len());
                let flags = u8::from(first) << 7 | u8::from(last) << 6;
                let mut payload = match coding {
                    // FU-A, RFC 6184 5.8.
                    Coding::H264 => vec![head[0] & 0xe0 | 28, flags | head[0] & 0x1f],
                    // FU, RFC 7798 4.4.3.
                    Coding::Hevc => vec![head[0] & 0x81 | 49 << 1, head[1], flags | head[0] >> 1 & 0x3f],
                };
                payload.extend_from_slice(piece);
                packets.push(self.packet(timestamp, last_nal && last, &payload));
            }
        }
        packets
    }

    /// A sender report: at `unix_micros` the stream was at `timestamp`.
    pub(crate) fn report(&self, unix_micros: u64, timestamp: u32) -> Vec<u8> {
        let seconds = unix_micros / 1_000_000 + NTP_TO_UNIX;
        let fraction = ((unix_micros % 1_000_000) << 32) / 1_000_000;
        let mut report = vec![0x80, 200, 0, 6];
        report.extend(self.ssrc.to_be_bytes());
        report.extend((seconds as u32).to_be_bytes());
        report.extend((fraction as u32).to_be_bytes());
        report.extend(timestamp.to_be_bytes());
        report.extend(self.packets.to_be_bytes());
        report.extend(self.bytes.to_be_bytes());
        report
    }
}

/// The NAL units of a picture as they go out: parameter sets before each keyframe where the camera sends them in band.
pub(crate) fn nals_of<'a>(film: &'a Film, picture: &'a Picture, in_band: bool) -> Vec<&'a [u8]> {
    let sets = film.sets.iter().filter(|_| in_band && picture.keyframe);
    sets.chain(&picture.nals).map(Vec::as_slice).collect()
}

/// 20 ms of a tone in G.711 A-law, different from one packet to the next.
pub(crate) fn tone(number: u64) -> Vec<u8> {
    (0..160).map(|n| (((n + number * 7) % 32) as u8) ^ 0x55).collect()
}
