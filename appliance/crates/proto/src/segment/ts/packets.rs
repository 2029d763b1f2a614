//! Packets of 188 bytes: tables, and access units cut into them.

use bytes::Bytes;

const PACKET: usize = 188;
const ROOM: usize = PACKET - 4;
/// Counters have four bits.
const COUNTS: usize = 16;
const PAT: u16 = 0;
const PMT: u16 = 0x1000;
/// Nothing but an adaptation field's length and flags.
const BARE_FIELD: usize = 2;
const REFERENCE: usize = 6;

/// Which elementary stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pid {
    Video,
    Audio,
}

impl Pid {
    fn number(self) -> u16 {
        match self {
            Pid::Video => 0x100,
            Pid::Audio => 0x101,
        }
    }
}

/// What is told about one access unit, or several of sound. Times are as on the wire.
pub(super) struct Pes {
    pub(super) pid: Pid,
    pub(super) pts: i64,
    pub(super) dts: Option<i64>,
    /// The clock reference.
    pub(super) reference: Option<i64>,
    pub(super) keyframe: bool,
    /// The last of its stream in this file: it is cut so that the counter ends where it began.
    pub(super) is_last: bool,
}

/// A file in the making.
pub(super) struct Packets {
    out: Vec<u8>,
    /// PAT, PMT, pictures, sound.
    counters: [usize; 4],
}

impl Packets {
    /// `bytes` of payload are about to come.
    pub(super) fn new(bytes: usize) -> Self {
        Packets { out: Vec::with_capacity(bytes.saturating_add(bytes / 16)), counters: [0; 4] }
    }

    pub(super) fn finish(self) -> Bytes {
        Bytes::from(self.out)
    }

    /// PAT and PMT. Source: ISO/IEC 13818-1 2.4.4.
    pub(super) fn tables(&mut self, streams: &[(Pid, u8)], clock: Pid) {
        let [p0, p1] = (0xE000 | PMT).to_be_bytes();
        self.table(PAT, 0, 0x00, &[0, 1, p0, p1]);
        let [c0, c1] = (0xE000 | clock.number()).to_be_bytes();
        let mut body = vec![c0, c1, 0xF0, 0];
        for (pid, stream_type) in streams {
            let [p0, p1] = (0xE000 | pid.number()).to_be_bytes();
            body.extend_from_slice(&[*stream_type, p0, p1, 0xF0, 0]);
        }
        self.table(PMT, 1, 0x02, &body);
    }

    fn table(&mut self, pid: u16, counter: usize, id: u8, body: &[u8]) {
        // Five bytes follow the length, and the check sum.
        let len = u8::try_from(body.len().saturating_add(9)).unwrap_or(u8::MAX);
        let mut section = vec![id, 0xB0, len, 0, 1, 0xC1, 0, 0];
        section.extend_from_slice(body);
        section.extend_from_slice(&crc(&section).to_be_bytes());
        let count = self.count(counter);
        let [p0, p1] = (0x4000 | pid).to_be_bytes();
        self.out.extend_from_slice(&[0x47, p0, p1, 0x10 | count, 0]);
        self.out.extend_from_slice(&section);
        let fill = PACKET.saturating_sub(section.len().saturating_add(5));
        self.out.resize(self.out.len().saturating_add(fill), 0xFF);
    }

    /// An access unit. Source: ISO/IEC 13818-1 2.4.3.
    pub(super) fn packet(&mut self, pes: &Pes, body: &[u8]) {
        let head = pes_head(pes, body.len());
        let first_field = field(pes);
        let (pid, counter) = match pes.pid {
            Pid::Video => (pes.pid.number(), 2),
            Pid::Audio => (pes.pid.number(), 3),
        };
        let total = head.len().saturating_add(body.len());
        let first_room = ROOM.saturating_sub(first_field.len());
        let mut packets = 1_usize.saturating_add(total.saturating_sub(first_room).div_ceil(ROOM));
        if pes.is_last {
            let counted = self.counters.get(counter).copied().unwrap_or(0).saturating_add(packets);
            packets = packets.saturating_add(counted.next_multiple_of(COUNTS).saturating_sub(counted));
        }
        let mut bytes = head.iter().chain(body).copied();
        let mut left = total;
        for index in 0..packets {
            let more = packets.saturating_sub(index).saturating_sub(1);
            let field = if index == 0 { first_field.as_slice() } else { &[] };
            let room = ROOM.saturating_sub(field.len());
            // Every packet still to come carries at least a byte.
            let take = room.min(left.saturating_sub(more));
            left = left.saturating_sub(take);
            let count = self.count(counter);
            let [p0, p1] = (pid | if index == 0 { 0x4000 } else { 0 }).to_be_bytes();
            let control = if take == ROOM { 0x10 } else { 0x30 };
            self.out.extend_from_slice(&[0x47, p0, p1, control | count]);
            self.stuffed(field, room.saturating_sub(take));
            self.out.extend(bytes.by_ref().take(take));
        }
    }

    /// An adaptation field with `more` bytes of stuffing.
    fn stuffed(&mut self, field: &[u8], more: usize) {
        let len = field.len().saturating_add(more);
        let Some(told) = len.checked_sub(1) else { return };
        self.out.push(u8::try_from(told).unwrap_or(0));
        match field.get(1..).filter(|rest| !rest.is_empty()) {
            Some(rest) => self.out.extend_from_slice(rest),
            // A field of one byte is its length alone.
            None if told > 0 => self.out.push(0),
            None => return,
        }
        let fill = len.saturating_sub(field.len().max(BARE_FIELD));
        self.out.resize(self.out.len().saturating_add(fill), 0xFF);
    }

    fn count(&mut self, counter: usize) -> u8 {
        let Some(counter) = self.counters.get_mut(counter) else { return 0 };
        let count = u8::try_from(*counter & 0x0F).unwrap_or(0);
        *counter = counter.wrapping_add(1);
        count
    }
}

/// The adaptation field of the first packet, or nothing; its length is set when it is written.
fn field(pes: &Pes) -> Vec<u8> {
    let flags = if pes.keyframe { 0x40 } else { 0 } | if pes.reference.is_some() { 0x10 } else { 0 };
    if flags == 0 {
        return Vec::new();
    }
    let mut field = Vec::with_capacity(BARE_FIELD.saturating_add(REFERENCE));
    field.extend_from_slice(&[0, flags]);
    if let Some(reference) = pes.reference {
        // 33 bits of 90 kHz, six reserved, nine of 27 MHz.
        let bits = reference << 15 | 0x7E00;
        field.extend_from_slice(bits.to_be_bytes().get(2..).unwrap_or_default());
    }
    field
}

/// Source: ISO/IEC 13818-1 2.4.3.6.
fn pes_head(pes: &Pes, body: usize) -> Vec<u8> {
    let (id, flags, times) = match (pes.pid, pes.dts) {
        (Pid::Video, Some(_)) => (0xE0, 0xC0, 10_u8),
        (Pid::Video, None) => (0xE0, 0x80, 5),
        (Pid::Audio, _) => (0xC0, 0x80, 5),
    };
    // Pictures may be longer than the field can tell, and then 0 stands there.
    let len = match pes.pid {
        Pid::Video => 0,
        Pid::Audio => u16::try_from(body.saturating_add(3).saturating_add(times.into())).unwrap_or(0),
    };
    let [l0, l1] = len.to_be_bytes();
    let mut head = vec![0, 0, 1, id, l0, l1, 0x84, flags, times];
    head.extend_from_slice(&time(if times == 10 { 3 } else { 2 }, pes.pts));
    if let Some(dts) = pes.dts.filter(|_| times == 10) {
        head.extend_from_slice(&time(1, dts));
    }
    head
}

/// 33 bits in five bytes, with marks between them.
fn time(mark: u8, ticks: i64) -> [u8; 5] {
    let byte = |value: i64| u8::try_from(value & 0xFF).unwrap_or(0);
    [
        mark << 4 | byte(ticks >> 30 & 7) << 1 | 1,
        byte(ticks >> 22),
        byte(ticks >> 15 & 0x7F) << 1 | 1,
        byte(ticks >> 7),
        byte(ticks & 0x7F) << 1 | 1,
    ]
}

/// Source: ISO/IEC 13818-1, Annex A.
fn crc(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            if crc & 0x8000_0000 != 0 { crc << 1 ^ 0x04C1_1DB7 } else { crc << 1 }
        })
    })
}
