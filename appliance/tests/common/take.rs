//! What was sent or received, per track, and how two such takes compare.

use super::flv::{self, AUDIO, Tag, VIDEO, be24};
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Most that a time may move by rounding, in milliseconds: peers count in their own units.
const ROUNDING_MS: i64 = 1;

/// One access unit.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Decode time in milliseconds.
    pub(crate) dts: i64,
    /// Presentation time minus decode time.
    pub(crate) offset: i64,
    /// Whether it can be decoded alone.
    pub(crate) keyframe: bool,
    /// Its bytes, without the FLV header.
    pub(crate) payload: Vec<u8>,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hasher = DefaultHasher::new();
        self.payload.hash(&mut hasher);
        let (hash, key) = (hasher.finish(), if self.keyframe { " key" } else { "" });
        write!(f, "{}+{} {} bytes {hash:016x}{key}", self.dts, self.offset, self.payload.len())
    }
}

/// One track.
#[derive(Clone, Debug, Default)]
pub(crate) struct Track {
    /// Codec parameters in the order they came; one repeated is kept once.
    pub(crate) headers: Vec<Vec<u8>>,
    /// Access units in the order they came.
    pub(crate) frames: Vec<Frame>,
}

/// A stream as it was sent or received.
#[derive(Clone, Debug, Default)]
pub(crate) struct Take {
    /// The pictures.
    pub(crate) video: Track,
    /// The sound.
    pub(crate) audio: Track,
}

impl Take {
    /// From FLV tags or RTMP media messages.
    pub(crate) fn of<'a>(tags: impl IntoIterator<Item = &'a Tag>) -> Take {
        let mut take = Take::default();
        for tag in tags {
            take.add(tag);
        }
        take
    }

    /// From an FLV file.
    pub(crate) fn read(path: &std::path::Path) -> Take {
        Take::of(&flv::read(path))
    }

    fn add(&mut self, tag: &Tag) {
        let track = match tag.kind {
            VIDEO => &mut self.video,
            AUDIO => &mut self.audio,
            _ => return,
        };
        let body = tag.body.as_slice();
        if body.is_empty() {
            return;
        }
        if tag.is_header() {
            if track.headers.last().is_none_or(|last| last != body) {
                track.headers.push(body.to_vec());
            }
            return;
        }
        let Some((offset, payload)) = split(tag.kind, body) else { return };
        let keyframe = tag.kind == AUDIO || (body[0] >> 4) & 7 == 1;
        track.frames.push(Frame { dts: i64::from(tag.ts), offset, keyframe, payload: payload.to_vec() });
    }

    /// Panics unless `got` is all of this take: none lost, none changed, in order, times and the offset between sound
    /// and picture kept.
    pub(crate) fn assert_same(&self, got: &Take, who: &str) {
        self.assert_same_but_last(got, 0, who);
    }

    /// As [`Take::assert_same`], where the receiver is known to lose up to `most` units at the very end.
    pub(crate) fn assert_same_but_last(&self, got: &Take, most: usize, who: &str) {
        assert!(!self.video.frames.is_empty() || !self.audio.frames.is_empty(), "{who}: nothing was sent");
        for (name, sent, got) in self.pairs(got) {
            let what = format!("{who}: {name}");
            assert_eq!(sent.headers, got.headers, "{what}: headers differ");
            assert_run(&what, &sent.frames, &got.frames);
            assert!(
                (sent.frames.len() - most.min(sent.frames.len())..=sent.frames.len())
                    .contains(&got.frames.len()),
                "{what}: sent {} units, got {}; last sent {:?}, last got {:?}",
                sent.frames.len(),
                got.frames.len(),
                sent.frames.last(),
                got.frames.last(),
            );
        }
        self.assert_offset_kept(got, who);
    }

    /// Panics unless `got` starts with headers and a keyframe of this take and goes on from there to its end without
    /// a gap. Returns how many pictures it came late.
    pub(crate) fn assert_joined_late(&self, got: &Take, who: &str) -> usize {
        let mut late = 0;
        for (name, sent, got) in self.pairs(got) {
            let what = format!("{who}: {name}");
            let first = got.frames.first().unwrap_or_else(|| panic!("{what}: got nothing"));
            assert_eq!(sent.headers, got.headers, "{what}: headers differ");
            assert!(first.keyframe, "{what}: does not start with a keyframe: {first:?}");
            let from = sent
                .frames
                .iter()
                .position(|frame| same_unit(frame, first) && frame.dts >= late_ms(got, sent));
            let from =
                from.unwrap_or_else(|| panic!("{what}: starts with a unit that was never sent: {first:?}"));
            assert_run(&what, &sent.frames[from..], &got.frames);
            assert_eq!(got.frames.len(), sent.frames.len() - from, "{what}: the end is missing");
            if name == "video" {
                late = from;
            }
        }
        self.assert_offset_kept(got, who);
        late
    }

    /// Panics unless `got` is made of pieces of this take in order, each piece of pictures starting with a keyframe.
    pub(crate) fn assert_pieces(&self, got: &Take, who: &str) {
        for (name, sent, got) in self.pairs(got) {
            let mut at = 0;
            for (index, frame) in got.frames.iter().enumerate() {
                if sent.frames.get(at).is_none_or(|next| !same_unit(next, frame)) || index == 0 {
                    let ahead = sent.frames[at..].iter().position(|next| same_unit(next, frame));
                    let ahead = ahead
                        .unwrap_or_else(|| panic!("{who}: {name}: unit {index} was never sent, or before"));
                    assert!(
                        frame.keyframe,
                        "{who}: {name}: goes on after a gap without a keyframe: {frame:?}"
                    );
                    at += ahead;
                }
                at += 1;
            }
        }
    }

    /// Panics unless both hold the same units from the later of their starts to the earlier of their ends.
    #[cfg(feature = "gst")]
    pub(crate) fn assert_overlaps(&self, other: &Take, who: &str) {
        for (name, one, two) in self.pairs(other) {
            let (one, two) = (&one.frames, &two.frames);
            let first =
                |frames: &[Frame], wanted: &Frame| frames.iter().position(|frame| same_unit(frame, wanted));
            let (from_one, from_two) = match (first(one, &two[0]), first(two, &one[0])) {
                (Some(at), _) => (at, 0),
                (_, Some(at)) => (0, at),
                _ => panic!("{who}: {name}: no unit in common"),
            };
            let len = (one.len() - from_one).min(two.len() - from_two);
            assert!(len > 20, "{who}: {name}: only {len} units in common");
            assert_run(
                &format!("{who}: {name}"),
                &one[from_one..from_one + len],
                &two[from_two..from_two + len],
            );
        }
    }

    fn pairs<'a>(&'a self, got: &'a Take) -> [(&'static str, &'a Track, &'a Track); 2] {
        [("video", &self.video, &got.video), ("audio", &self.audio, &got.audio)]
    }

    /// Panics where sound moved against the picture. It may start elsewhere than picture in `got`; so offsets are compared on units that are the same.
    pub(crate) fn assert_offset_kept(&self, got: &Take, who: &str) {
        let shift = |sent: &Track, got: &Track| {
            let last = got.frames.last()?;
            let same = sent.frames.iter().rev().find(|frame| same_unit(frame, last))?;
            Some(last.dts - same.dts)
        };
        if let (Some(video), Some(audio)) = (shift(&self.video, &got.video), shift(&self.audio, &got.audio)) {
            let moved = (video - audio).abs();
            assert!(moved <= ROUNDING_MS, "{who}: sound moved {moved} ms against the picture");
        }
    }
}

/// The earliest time that a late joiner's first unit can have been sent at, told by how many units it got: content
/// that repeats would else be taken for its first appearance.
fn late_ms(got: &Track, sent: &Track) -> i64 {
    let from = sent.frames.len().saturating_sub(got.frames.len());
    sent.frames.get(from).map_or(i64::MIN, |frame| frame.dts)
}

fn same_unit(sent: &Frame, got: &Frame) -> bool {
    sent.payload == got.payload
        && sent.keyframe == got.keyframe
        && (sent.offset - got.offset).abs() <= ROUNDING_MS
}

/// `got` must be the start of `sent`.
fn assert_run(what: &str, sent: &[Frame], got: &[Frame]) {
    let (Some(first_sent), Some(first_got)) = (sent.first(), got.first()) else { return };
    let shift = first_got.dts - first_sent.dts;
    for (index, (s, g)) in sent.iter().zip(got).enumerate() {
        if !same_unit(s, g) || (g.dts - s.dts - shift).abs() > ROUNDING_MS {
            let around = |frames: &[Frame]| {
                let from = index.saturating_sub(2);
                frames[from..frames.len().min(index + 3)]
                    .iter()
                    .map(|f| format!("\n    {f:?}"))
                    .collect::<String>()
            };
            panic!(
                "{what}: unit {index} of {} sent ({} got) differs (times shifted by {shift}):\n  sent{}\n  got{}",
                sent.len(),
                got.len(),
                around(sent),
                around(got),
            );
        }
    }
}

/// Offset and payload of a media tag's body; `None` for end of sequence and metadata.
fn split(kind: u8, body: &[u8]) -> Option<(i64, &[u8])> {
    let first = body[0];
    if kind == AUDIO {
        return if first >> 4 == 10 { Some((0, body.get(2..)?)) } else { Some((0, &body[1..])) };
    }
    if first & 0x80 != 0 {
        return match first & 0x0f {
            1 => Some((signed24(body.get(5..8)?), body.get(8..)?)),
            3 => Some((0, body.get(5..)?)),
            _ => None,
        };
    }
    if first & 0x0f == 7 {
        return if body.get(1) == Some(&1) {
            Some((signed24(body.get(2..5)?), body.get(5..)?))
        } else {
            None
        };
    }
    Some((0, &body[1..]))
}

fn signed24(bytes: &[u8]) -> i64 {
    let value = be24(bytes) as i64;
    if value >= 1 << 23 { value - (1 << 24) } else { value }
}
