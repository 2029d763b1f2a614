//! Segments once more as MPEG-TS, for players that know nothing else: one program, pictures and sound together.
//!
//! Every segment is made from its own units alone and counts its packets from 0 to 15 on every PID, over and over, so that
//! it follows any other without a gap in the counters. Sources: ISO/IEC 13818-1, 13818-7 (ADTS), 14496-10 Annex B.

mod packets;
mod units;

use super::{Sample, Segment};
use bytes::Bytes;
use fieldgate_media::{Codec, Track, TrackKind};
use packets::{Packets, Pid};
use std::iter::Peekable;

/// Added to all times, so that the clock reference ahead of them is none below zero.
const TIME_OFFSET: i64 = 900_000;
/// The clock reference runs ahead of the decode times by this, ticks: what a decoder may need to take a large picture in.
const CLOCK_LEAD: i64 = 45_000;
/// Times have 33 bits.
const TIME_MASK: i64 = 0x1_FFFF_FFFF;
/// Sound is packed together up to this long and large.
const SOUND_TICKS: i64 = 9_000;
const SOUND_BYTES: usize = 16 << 10;
/// Tables are repeated so often in a segment: their packets are counted to 16 too.
const TABLES: i64 = 16;

/// Whether MPEG-TS can carry the track.
pub fn fits(track: &Track) -> bool {
    stream_type(track).is_some()
}

/// Source: ISO/IEC 13818-1, table 2-34.
fn stream_type(track: &Track) -> Option<u8> {
    match track.codec {
        Codec::H264 => units::Pictures::of(track).map(|_| 0x1B),
        Codec::Hevc => units::Pictures::of(track).map(|_| 0x24),
        Codec::Aac => units::adts(track, 0).map(|_| 0x0F),
        _ => None,
    }
}

/// One segment of both lanes as a file; `None` if neither holds anything that MPEG-TS can carry.
pub fn write(video: Option<&Segment>, audio: Option<&Segment>) -> Option<Bytes> {
    let fitting = |segment: Option<&Segment>| segment.is_some_and(|segment| fits(&segment.init.track));
    let video = video.filter(|_| fitting(video));
    let audio = audio.filter(|_| fitting(audio));
    let first = video.or(audio)?;
    let pictures = video.and_then(|segment| units::Pictures::of(&segment.init.track));
    let bytes = [video, audio].into_iter().flatten().fold(0_u64, |sum, of| sum.saturating_add(of.bytes));
    let mut out = Packets::new(usize::try_from(bytes).unwrap_or(0));
    let streams: Vec<(Pid, u8)> = [(Pid::Video, video), (Pid::Audio, audio)]
        .into_iter()
        .filter_map(|(pid, segment)| Some((pid, stream_type(&segment?.init.track)?)))
        .collect();
    let clock = if video.is_some() { Pid::Video } else { Pid::Audio };

    let mut shown = video.into_iter().flat_map(Segment::samples).peekable();
    let mut heard = audio.into_iter().flat_map(Segment::samples).peekable();
    let mut body = Vec::new();
    let mut tables = 0_i64;
    let step = first.duration / TABLES;
    loop {
        let next = match (shown.peek(), heard.peek()) {
            (Some(picture), Some(sound)) if picture.dts <= sound.dts => Some((TrackKind::Video, picture.dts)),
            (_, Some(sound)) => Some((TrackKind::Audio, sound.dts)),
            (Some(picture), None) => Some((TrackKind::Video, picture.dts)),
            (None, None) => None,
        };
        let at = next.map_or(i64::MAX, |(_, dts)| {
            dts.saturating_sub(first.start).max(0).checked_div(step).unwrap_or(0)
        });
        while tables < TABLES && tables <= at {
            out.tables(&streams, clock);
            tables = tables.saturating_add(1);
        }
        let Some((kind, dts)) = next else { break };
        body.clear();
        let (pid, pts, keyframe) = match kind {
            TrackKind::Video => {
                let (Some(picture), Some(pictures)) = (shown.next(), &pictures) else { break };
                pictures.write(&mut body, picture);
                (Pid::Video, dts.saturating_add(picture.offset.into()), picture.keyframe)
            }
            TrackKind::Audio => {
                let Some(track) = audio.map(|segment| &segment.init.track) else { break };
                write_sound(&mut body, track, &mut heard);
                (Pid::Audio, dts, true)
            }
        };
        let is_last = match pid {
            Pid::Video => shown.peek().is_none(),
            Pid::Audio => heard.peek().is_none(),
        };
        let reference = (pid == clock).then(|| wire_time(dts.saturating_sub(CLOCK_LEAD)));
        out.packet(
            &packets::Pes {
                pid,
                pts: wire_time(pts),
                dts: (pid == Pid::Video).then(|| wire_time(dts)),
                reference,
                keyframe,
                is_last,
            },
            &body,
        );
    }
    Some(out.finish())
}

/// The next frames of sound that belong together.
fn write_sound<'a>(
    body: &mut Vec<u8>,
    track: &Track,
    heard: &mut Peekable<impl Iterator<Item = &'a Sample>>,
) {
    let Some(first) = heard.peek().map(|first| first.dts) else { return };
    while let Some(frame) = heard.peek() {
        let is_over = frame.dts.saturating_sub(first) >= SOUND_TICKS
            || body.len().saturating_add(frame.payload.len()) > SOUND_BYTES;
        if is_over && !body.is_empty() {
            return;
        }
        // A frame too long for its header is left out: nothing could read it.
        if let Some(head) = units::adts(track, frame.payload.len()) {
            body.extend_from_slice(&head);
            body.extend_from_slice(&frame.payload);
        }
        heard.next();
    }
}

fn wire_time(ticks: i64) -> i64 {
    ticks.wrapping_add(TIME_OFFSET) & TIME_MASK
}

#[cfg(test)]
mod tests;
