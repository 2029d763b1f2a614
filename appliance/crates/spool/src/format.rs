//! What a segment file looks like. All numbers are little-endian, all checksums CRC-32.
//!
//! ```text
//!  segment  magic "FGSPOOL1" | batch | batch | ... | footer (once it is full)
//!  batch    head (64 bytes, own checksum) | record | record | ...
//!  record   checksum, lengths, kind, id and time as steps from the batch's (18 bytes) | packet head | packet body
//!  footer   where each batch is (24 bytes each) | length, checksum, magic
//! ```
//!
//! A batch is what one write puts on disk, or a part of it: its ids have no gap. Its head tells where the next one is, so that a segment without a footer is
//! read by its heads alone, and a head that is damaged is passed by looking for the next.

use bytes::Bytes;
use fieldgate_hub::backlog::{Stored, StoredKind};

/// What a segment begins with.
pub(crate) const SEGMENT_MAGIC: &[u8; 8] = b"FGSPOOL1";
const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"FGb1");
const FOOTER_MAGIC: u32 = u32::from_le_bytes(*b"FGf1");
/// Bytes of a batch's head.
pub(crate) const BATCH_HEAD: usize = 64;
/// Bytes of a record before the packet.
pub(crate) const RECORD_HEAD: usize = 18;
/// The end of a footer: length, checksum, magic.
pub(crate) const FOOTER_TAIL: usize = 12;
const FOOTER_ENTRY: usize = 24;
/// The longest footer that is believed.
pub(crate) const MAX_FOOTER: usize = 1 << 20;
/// The longest batch that is believed: one packet at its limits and what else was in its batch.
pub(crate) const MAX_BATCH: usize = 24 << 20;

const HEADER: u8 = 1;
const KEYFRAME: u8 = 2;
const REPEATED: u8 = 4;

/// A batch's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHead {
    /// Bytes of the records behind it.
    pub len: u32,
    /// Records, headers included.
    pub records: u32,
    /// Frames.
    pub frames: u32,
    /// Whether a header is among the records.
    pub has_header: bool,
    /// Of the first packet.
    pub first_id: u64,
    /// One past the newest frame.
    pub end_id: u64,
    /// The first keyframe, if there is one.
    pub first_key: Option<u64>,
    /// Capture time of the first packet.
    pub first_micros: i64,
    /// Capture time of the newest frame.
    pub newest_micros: i64,
    /// Everything below was released when it was written.
    pub floor: u64,
}

fn le<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    le(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    le(bytes, at).map(u64::from_le_bytes)
}

fn i64_at(bytes: &[u8], at: usize) -> Option<i64> {
    le(bytes, at).map(i64::from_le_bytes)
}

impl BatchHead {
    fn write(&self, out: &mut [u8]) {
        let key =
            self.first_key.map_or(u32::MAX, |key| u32::try_from(key - self.first_id).unwrap_or(u32::MAX));
        let mut bytes = Vec::with_capacity(BATCH_HEAD);
        bytes.extend_from_slice(&BATCH_MAGIC.to_le_bytes());
        bytes.extend_from_slice(&self.len.to_le_bytes());
        bytes.extend_from_slice(&(self.records << 1 | u32::from(self.has_header)).to_le_bytes());
        bytes.extend_from_slice(&self.frames.to_le_bytes());
        bytes.extend_from_slice(&self.first_id.to_le_bytes());
        bytes.extend_from_slice(&(self.end_id - self.first_id).min(u64::from(u32::MAX)).to_le_bytes()[..4]);
        bytes.extend_from_slice(&key.to_le_bytes());
        bytes.extend_from_slice(&self.first_micros.to_le_bytes());
        bytes.extend_from_slice(&self.newest_micros.to_le_bytes());
        bytes.extend_from_slice(&self.floor.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        out.copy_from_slice(&bytes);
    }

    /// Reads a head; `None` if it is none or is damaged.
    pub(crate) fn read(bytes: &[u8]) -> Option<BatchHead> {
        let head = bytes.get(..BATCH_HEAD)?;
        let sound = u32_at(head, 0)? == BATCH_MAGIC && u32_at(head, 60)? == crc32fast::hash(head.get(..60)?);
        let (len, records) = (u32_at(head, 4)?, u32_at(head, 8)?);
        if !sound || len as usize > MAX_BATCH {
            return None;
        }
        let first_id = u64_at(head, 16)?;
        let key = u32_at(head, 28)?;
        Some(BatchHead {
            len,
            records: records >> 1,
            frames: u32_at(head, 12)?,
            has_header: records & 1 == 1,
            first_id,
            end_id: first_id.checked_add(u64::from(u32_at(head, 24)?))?,
            first_key: (key != u32::MAX).then(|| first_id.saturating_add(u64::from(key))),
            first_micros: i64_at(head, 32)?,
            newest_micros: i64_at(head, 40)?,
            floor: u64_at(head, 48)?,
        })
    }

    /// Where the next one begins inside these bytes, which are not aligned.
    pub(crate) fn find(bytes: &[u8]) -> Option<usize> {
        let magic = BATCH_MAGIC.to_le_bytes();
        let mut places = bytes.windows(4).enumerate().filter(|(_, window)| *window == magic);
        places.find_map(|(at, _)| BatchHead::read(bytes.get(at..)?).map(|_| at))
    }
}

/// Appends a batch of these packets to `out`, as many as one batch can hold, at least one; returns its head and how many
/// those are. `repeated`: a header that was written before, for readers that start here.
pub(crate) fn write_batch<'a>(
    out: &mut Vec<u8>,
    packets: impl Iterator<Item = &'a Stored> + Clone,
    repeated: Option<&Stored>,
    floor: u64,
    next_id: u64,
) -> (BatchHead, usize) {
    let start = out.len();
    out.resize(start + BATCH_HEAD, 0);
    let first = packets.clone().next();
    let (first_id, first_micros) =
        first.map_or((next_id, 0), |packet| (packet.id, packet.captured_unix_micros));
    let mut head = BatchHead {
        len: 0,
        records: 0,
        frames: 0,
        has_header: false,
        first_id,
        end_id: first_id,
        first_key: None,
        first_micros,
        newest_micros: first_micros,
        floor,
    };
    if let Some(header) = repeated {
        write_record(out, header, HEADER | REPEATED, 0, 0);
        head.records += 1;
        head.has_header = true;
    }
    let mut taken = 0;
    for packet in packets {
        let step = u32::try_from(packet.id - first_id).ok().filter(|step| *step < u32::MAX - 1);
        let time = i32::try_from(packet.captured_unix_micros.saturating_sub(first_micros));
        let (Some(step), Ok(time)) = (step, time) else { break };
        // Ids without a gap: so what is missing of a batch can be named exactly.
        if head.frames > 0 && packet.id != head.end_id {
            break;
        }
        if taken > 0 && out.len() - start + packet.bytes() > MAX_BATCH - (1 << 20) {
            break;
        }
        let mut flags = 0;
        if packet.is_frame() {
            head.frames += 1;
            head.end_id = packet.id + 1;
            head.newest_micros = packet.captured_unix_micros;
            if packet.keyframe {
                flags |= KEYFRAME;
                head.first_key = head.first_key.or(Some(packet.id));
            }
        } else {
            flags |= HEADER;
            head.has_header = true;
        }
        write_record(out, packet, flags, step, time);
        head.records += 1;
        taken += 1;
    }
    head.len = u32::try_from(out.len() - start - BATCH_HEAD).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start..start + BATCH_HEAD) {
        head.write(place);
    }
    (head, taken)
}

fn write_record(out: &mut Vec<u8>, packet: &Stored, flags: u8, step: u32, time: i32) {
    let start = out.len();
    let body_len = u32::try_from(packet.body.len()).unwrap_or(u32::MAX);
    let head_len = u16::try_from(packet.head.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(body_len | u32::from(flags) << 28).to_le_bytes());
    out.extend_from_slice(&head_len.to_le_bytes());
    out.extend_from_slice(&step.to_le_bytes());
    out.extend_from_slice(&time.to_le_bytes());
    out.extend_from_slice(&packet.head);
    out.extend_from_slice(&packet.body);
    let checksum = crc32fast::hash(out.get(start + 4..).unwrap_or_default());
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&checksum.to_le_bytes());
    }
}

/// One record of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The packet; head and body are slices of the batch.
    pub packet: Stored,
    /// A header that was written before.
    pub repeated: bool,
}

/// Reads the records behind a batch's head, those that are sound: what is damaged is left out.
pub(crate) fn read_records(head: &BatchHead, bytes: &Bytes) -> Vec<Record> {
    let mut records = Vec::new();
    let mut at = 0;
    while let Some((record, next)) = read_record(head, bytes, at) {
        records.extend(record);
        at = next;
    }
    records
}

/// The record at this place, none if it is damaged, and where the next begins. `None` at the end.
fn read_record(head: &BatchHead, bytes: &Bytes, at: usize) -> Option<(Option<Record>, usize)> {
    let fixed = bytes.get(at..at.checked_add(RECORD_HEAD)?)?;
    let sizes = u32_at(fixed, 4)?;
    let (body_len, flags) = ((sizes & 0x0fff_ffff) as usize, u8::try_from(sizes >> 28).ok()?);
    let head_len = usize::from(le(fixed, 8).map(u16::from_le_bytes)?);
    let body_at = at + RECORD_HEAD + head_len;
    let end = body_at.checked_add(body_len)?;
    let checked = bytes.get(at + 4..end)?;
    if u32_at(fixed, 0)? != crc32fast::hash(checked) {
        return Some((None, end));
    }
    let step = u32_at(fixed, 10)?;
    let time = le(fixed, 14).map(i32::from_le_bytes)?;
    let packet = Stored {
        id: head.first_id.checked_add(u64::from(step))?,
        kind: if flags & HEADER != 0 { StoredKind::Header } else { StoredKind::Frame },
        keyframe: flags & KEYFRAME != 0,
        captured_unix_micros: head.first_micros.saturating_add(i64::from(time)),
        head: bytes.slice(at + RECORD_HEAD..body_at),
        body: bytes.slice(body_at..end),
    };
    Some((Some(Record { packet, repeated: flags & REPEATED != 0 }), end))
}

/// Where one batch is in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchAt {
    /// Of its head, from the segment's start.
    pub offset: u32,
    /// Frames in it.
    pub frames: u32,
    /// Of the first packet.
    pub first_id: u64,
    /// One past the newest frame.
    pub end_id: u64,
    /// Whether a header is among its records.
    pub has_header: bool,
}

impl BatchAt {
    pub(crate) fn new(offset: u32, head: &BatchHead) -> BatchAt {
        BatchAt {
            offset,
            frames: head.frames,
            first_id: head.first_id,
            end_id: head.end_id,
            has_header: head.has_header,
        }
    }
}

/// What one segment holds in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Frames.
    pub frames: u64,
    /// Of the first packet.
    pub first_id: u64,
    /// One past the newest frame.
    pub end_id: u64,
    /// The first keyframe; `u64::MAX` if there is none.
    pub first_key: u64,
    /// Capture time of the oldest packet.
    pub oldest_micros: i64,
    /// Capture time of the newest frame.
    pub newest_micros: i64,
    /// Everything below was released when it was written.
    pub floor: u64,
}

impl Summary {
    /// Of nothing.
    pub(crate) fn empty() -> Summary {
        Summary { first_key: u64::MAX, ..Summary::default() }
    }

    /// Counts a batch in.
    pub(crate) fn add(&mut self, head: &BatchHead) {
        self.floor = self.floor.max(head.floor);
        if head.frames == 0 {
            return;
        }
        if self.frames == 0 {
            self.first_id = head.first_id;
            self.oldest_micros = head.first_micros;
        }
        self.frames += u64::from(head.frames);
        self.end_id = self.end_id.max(head.end_id);
        self.newest_micros = head.newest_micros;
        self.first_key = self.first_key.min(head.first_key.unwrap_or(u64::MAX));
    }
}

const SUMMARY: usize = 56;

/// A segment's footer.
pub(crate) fn write_footer(out: &mut Vec<u8>, summary: &Summary, batches: &[BatchAt]) {
    let start = out.len();
    for number in [summary.frames, summary.first_id, summary.end_id, summary.first_key, summary.floor] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for number in [summary.oldest_micros, summary.newest_micros] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for batch in batches {
        out.extend_from_slice(&batch.offset.to_le_bytes());
        out.extend_from_slice(&(batch.frames << 1 | u32::from(batch.has_header)).to_le_bytes());
        out.extend_from_slice(&batch.first_id.to_le_bytes());
        out.extend_from_slice(&batch.end_id.to_le_bytes());
    }
    let len = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    let checksum = crc32fast::hash(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&FOOTER_MAGIC.to_le_bytes());
}

/// The length of the footer whose last [`FOOTER_TAIL`] bytes these are, without them.
pub(crate) fn footer_len(tail: &[u8]) -> Option<usize> {
    let len = u32_at(tail, 0)? as usize;
    (u32_at(tail, 8)? == FOOTER_MAGIC && (SUMMARY..=MAX_FOOTER).contains(&len)).then_some(len)
}

/// Reads a footer without its last [`FOOTER_TAIL`] bytes, which are `tail`.
pub(crate) fn read_footer(footer: &[u8], tail: &[u8]) -> Option<(Summary, Vec<BatchAt>)> {
    if u32_at(tail, 4)? != crc32fast::hash(footer) {
        return None;
    }
    let summary = Summary {
        frames: u64_at(footer, 0)?,
        first_id: u64_at(footer, 8)?,
        end_id: u64_at(footer, 16)?,
        first_key: u64_at(footer, 24)?,
        floor: u64_at(footer, 32)?,
        oldest_micros: i64_at(footer, 40)?,
        newest_micros: i64_at(footer, 48)?,
    };
    let entry = |bytes: &[u8]| {
        let frames = u32_at(bytes, 4)?;
        Some(BatchAt {
            offset: u32_at(bytes, 0)?,
            frames: frames >> 1,
            has_header: frames & 1 == 1,
            first_id: u64_at(bytes, 8)?,
            end_id: u64_at(bytes, 16)?,
        })
    };
    let batches: Option<Vec<BatchAt>> =
        footer.get(SUMMARY..)?.chunks_exact(FOOTER_ENTRY).map(entry).collect();
    batches.map(|batches| (summary, batches))
}
