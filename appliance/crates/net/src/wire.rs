//! RTMP's form of a unit, made once for all subscribers of a stream.

use fieldgate_hub::WireForm;
use fieldgate_media::{HEADROOM, Track, UnitHead};
use fieldgate_proto::rtmp::RtmpWire;

/// Hands the hub the form that RTMP players and pushes share.
#[derive(Clone, Copy, Debug, Default)]
pub struct RtmpForm;

impl WireForm for RtmpForm {
    fn write_head(
        &self,
        room: &mut [u8; HEADROOM],
        head: &UnitHead,
        track: &Track,
        payload_len: usize,
    ) -> usize {
        RtmpWire::unit_head(room, head, track, payload_len)
    }
}
