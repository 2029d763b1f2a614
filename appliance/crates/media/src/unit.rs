//! Access units: as they travel ([`Unit`]) and as they are handed in ([`Draft`]).

use crate::{Ticks, TrackId};
use bytes::{Bytes, BytesMut};

/// Free bytes that every [`Draft`] has before its payload, so that an output's head can be written in place.
///
/// The longest is RTMP's: a type 0 chunk header with extended timestamp (16) and an Enhanced RTMP video header (8).
pub const HEADROOM: usize = 32;

/// How the wall-clock time of a capture is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockSource {
    /// The moment it arrived here; includes the way from the camera.
    Arrival,
    /// The camera said so (RTCP sender report, ONVIF extension).
    Camera,
}

/// When a picture or sound was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Microseconds since 1970-01-01 UTC.
    pub unix_micros: i64,
    /// How that is known.
    pub by: ClockSource,
}

/// All of an access unit but its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitHead {
    /// The track it belongs to.
    pub track: TrackId,
    /// Decode time on the stream's clean timeline, never backwards within a track.
    pub dts: Ticks,
    /// Presentation time on the same timeline; may be before `dts` only with broken sources.
    pub pts: Ticks,
    /// Decode time as the source said it, unwrapped but not cleaned.
    pub source_dts: Ticks,
    /// Presentation time as the source said it, on the line of `source_dts`; may be before it.
    pub source_pts: Ticks,
    /// Decodable alone. Audio: always true.
    pub keyframe: bool,
    /// Capture wall clock, where known.
    pub captured: Option<Captured>,
}

/// One coded picture or one audio frame, in its final form.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Times, track and kind.
    pub head: UnitHead,
    /// NAL units with 4-byte lengths, or one raw frame (see [`crate::Codec`]).
    pub payload: Bytes,
}

/// A unit being handed in: its payload with at least [`HEADROOM`] bytes before it that nobody reads.
#[derive(Debug)]
pub struct Draft {
    /// Times, track and kind.
    pub head: UnitHead,
    buf: BytesMut,
    payload_at: usize,
}

impl Draft {
    /// Takes a buffer whose bytes from `payload_at` on are the payload, without a copy.
    ///
    /// Returns `None` if less than [`HEADROOM`] bytes stand before it or it lies outside the buffer.
    pub fn new(head: UnitHead, buf: BytesMut, payload_at: usize) -> Option<Draft> {
        (payload_at >= HEADROOM && payload_at <= buf.len()).then_some(Draft { head, buf, payload_at })
    }

    /// Copies a payload into a buffer of its own (for sources that own their memory).
    pub fn copied(head: UnitHead, payload: &[u8]) -> Draft {
        let mut buf = BytesMut::with_capacity(HEADROOM + payload.len());
        buf.resize(HEADROOM, 0);
        buf.extend_from_slice(payload);
        Draft { head, buf, payload_at: HEADROOM }
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        self.buf.get(self.payload_at..).unwrap_or_default()
    }

    /// Finishes the unit. `write_head` gets the [`HEADROOM`] bytes that end where the payload begins and returns how
    /// many of them, counted from their end, it has filled. The second value is head and payload in one piece.
    pub fn finish(mut self, write_head: impl FnOnce(&mut [u8; HEADROOM]) -> usize) -> (Unit, Bytes) {
        let room_at = self.payload_at - HEADROOM;
        let mut filled = 0;
        if let Some(room) = self.buf.get_mut(room_at..self.payload_at).and_then(|room| room.first_chunk_mut())
        {
            filled = write_head(room).min(HEADROOM);
        }
        let whole = self.buf.freeze();
        let wire = whole.slice(self.payload_at - filled..);
        (Unit { head: self.head, payload: whole.slice(self.payload_at..) }, wire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> UnitHead {
        UnitHead {
            track: TrackId::VIDEO,
            dts: Ticks::ZERO,
            pts: Ticks::ZERO,
            source_dts: Ticks::ZERO,
            source_pts: Ticks::ZERO,
            keyframe: true,
            captured: None,
        }
    }

    #[test]
    fn the_head_is_written_just_before_the_payload_without_a_copy() {
        let draft = Draft::copied(head(), b"payload");
        let before = draft.payload().as_ptr();
        let (unit, wire) = draft.finish(|room| {
            room[HEADROOM - 2..].copy_from_slice(b"hd");
            2
        });
        assert_eq!(&wire[..], b"hdpayload");
        assert_eq!(unit.payload.as_ptr(), before);
        assert_eq!(wire[2..].as_ptr(), before);
    }

    #[test]
    fn a_draft_without_headroom_is_refused() {
        assert!(Draft::new(head(), BytesMut::zeroed(HEADROOM + 4), HEADROOM - 1).is_none());
        assert!(Draft::new(head(), BytesMut::zeroed(HEADROOM + 4), HEADROOM + 5).is_none());
        assert!(Draft::new(head(), BytesMut::zeroed(HEADROOM + 4), HEADROOM + 4).is_some());
    }
}
