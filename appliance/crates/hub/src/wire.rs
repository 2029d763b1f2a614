//! The bytes that all RTMP subscribers of a stream share.

use fieldgate_media::{HEADROOM, Track, UnitHead};

/// How a unit looks on the wire of the subscribers that share one form.
///
/// Fulfilled by `net` for RTMP. It is called once per unit, when it enters, never per subscriber.
pub trait WireForm: Send + Sync {
    /// Writes what precedes the payload, ending at the end of `room`, and returns its length.
    fn write_head(
        &self,
        room: &mut [u8; HEADROOM],
        head: &UnitHead,
        track: &Track,
        payload_len: usize,
    ) -> usize;
}

/// The form of streams that nobody reads by RTMP: the payload alone.
impl WireForm for () {
    fn write_head(&self, _: &mut [u8; HEADROOM], _: &UnitHead, _: &Track, _: usize) -> usize {
        0
    }
}
