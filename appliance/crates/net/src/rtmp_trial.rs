//! Tries an RTMP server as a push would: handshake, publish, and how much the line takes. Sends one grey picture of 64x64
//! again and again, each filled up with H.264 filler data, which every decoder leaves out.
//!
//! The name and the bare connection are the caller's to try first, with [`mod@crate::dial`]: there a failure says more.

use crate::rtmp_client::{ACCEPTANCE, Accepted, RtmpClientError, RtmpEndpoint};
use bytes::BytesMut;
use fieldgate_hub::LocalShard;
use fieldgate_proto::rtmp::wire::VIDEO_CSID;
use fieldgate_proto::rtmp::{ChunkWriter, ClientMode, Limits, kind};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The kernel's send buffer is kept small, so that what was written was also sent; it reserves twice as much.
pub const TRIAL_SEND_BUFFER: usize = 64 << 10;
/// Bytes of one message.
const MESSAGE_LEN: usize = 32 << 10;
/// Most bytes that one trial sends, whatever the line takes.
const MOST_BYTES: u64 = 16 << 20;
/// Time between two pictures as their stamps say.
const PICTURE_MILLIS: u32 = 40;

/// The picture's sequence parameter set, picture parameter set and IDR slice.
const SPS: [u8; 23] = [
    0x67, 0x42, 0xc0, 0x0a, 0xd9, 0x04, 0x26, 0xc0, 0x44, 0x00, 0x00, 0x03, 0x00, 0x04, 0x00, 0x00, 0x03,
    0x00, 0xc8, 0x3c, 0x48, 0x99, 0x20,
];
const PPS: [u8; 5] = [0x68, 0xcb, 0x83, 0xcb, 0x20];
const IDR: [u8; 21] = [
    0x65, 0x88, 0x84, 0x0a, 0xf2, 0x62, 0x80, 0x01, 0x79, 0x39, 0x39, 0x3a, 0xeb, 0xae, 0xba, 0xeb, 0xae,
    0xba, 0xeb, 0xae, 0xbc,
];

/// How far a trial has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtmpTrialStage {
    /// The handshake is done.
    ShookHands,
    /// The server lets us publish.
    Accepted,
}

/// What the line took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throughput {
    /// Bytes that left the machine; what may still wait in the kernel is not counted.
    pub bytes: u64,
    /// In which time.
    pub time: Duration,
}

impl Throughput {
    /// Bits per second.
    pub fn bits_per_second(&self) -> u64 {
        let millis = self.time.as_millis().max(1);
        u64::try_from(u128::from(self.bytes) * 8_000 / millis).unwrap_or(u64::MAX)
    }
}

/// Goes through all of it; `tell` hears of each stage. Sends for `sending`, or until 16 MiB are gone.
///
/// Runs on a shard. The endpoint's send buffer should be [`TRIAL_SEND_BUFFER`].
pub async fn rtmp_trial(
    endpoint: RtmpEndpoint,
    sending: Duration,
    local: Rc<LocalShard>,
    tell: impl Fn(RtmpTrialStage),
) -> Result<Throughput, RtmpClientError> {
    let mut accepted = Accepted::dial(&endpoint, ClientMode::Publish, false, Limits::default()).await?;
    let late = |_| RtmpClientError::NoAcceptance(ACCEPTANCE);
    timeout(ACCEPTANCE, Box::pin(accepted.shake_hands(&local))).await.map_err(late)??;
    tell(RtmpTrialStage::ShookHands);
    timeout(ACCEPTANCE, Box::pin(accepted.reach_acceptance(&local))).await.map_err(late)??;
    tell(RtmpTrialStage::Accepted);
    let began = Instant::now();
    let before = accepted.outbox.written_bytes();
    let sent = timeout(sending, send(&accepted, began)).await;
    let time = began.elapsed();
    if let Ok(result) = sent {
        result?;
    }
    let waiting = 2 * TRIAL_SEND_BUFFER as u64;
    let bytes = accepted.outbox.written_bytes().saturating_sub(before).saturating_sub(waiting);
    accepted.finish().await;
    if bytes == 0 {
        return Err(RtmpClientError::TooSlow(time));
    }
    Ok(Throughput { bytes, time })
}

async fn send(accepted: &Accepted, began: Instant) -> Result<(), RtmpClientError> {
    let writer = ChunkWriter::with_chunk_len(accepted.session.chunk_len());
    let stream_id = accepted.stream_id;
    let put = |timestamp: u32, body: &[u8]| {
        accepted.outbox.answer(|out: &mut BytesMut| {
            writer.write(out, VIDEO_CSID, timestamp, kind::VIDEO, stream_id, body);
        })
    };
    put(0, &header());
    let picture = picture();
    let mut timestamp = 0_u32;
    let before = accepted.outbox.written_bytes();
    while accepted.outbox.written_bytes().saturating_sub(before) < MOST_BYTES {
        put(timestamp, &picture);
        accepted.outbox.drained().await?;
        // Never ahead of the clock by much: servers throw out what comes from the future.
        let elapsed = u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX);
        timestamp = timestamp.saturating_add(PICTURE_MILLIS).min(elapsed.saturating_add(PICTURE_MILLIS));
    }
    Ok(())
}

/// The sequence header in an FLV video tag: ISO/IEC 14496-15, AVCDecoderConfigurationRecord.
fn header() -> Vec<u8> {
    let [_, profile, compatibility, level, ..] = SPS;
    let mut body = vec![0x17, 0, 0, 0, 0, 1, profile, compatibility, level, 0xff, 0xe1];
    body.extend_from_slice(&(SPS.len() as u16).to_be_bytes());
    body.extend_from_slice(&SPS);
    body.push(1);
    body.extend_from_slice(&(PPS.len() as u16).to_be_bytes());
    body.extend_from_slice(&PPS);
    body
}

/// One access unit in an FLV video tag: the picture, then filler data (H.264, 7.3.2.7) up to the message's length.
fn picture() -> Vec<u8> {
    let mut body = Vec::with_capacity(MESSAGE_LEN);
    body.extend_from_slice(&[0x17, 1, 0, 0, 0]);
    body.extend_from_slice(&(IDR.len() as u32).to_be_bytes());
    body.extend_from_slice(&IDR);
    let filler_len = MESSAGE_LEN - body.len() - 4;
    body.extend_from_slice(&(filler_len as u32).to_be_bytes());
    body.push(0x0c);
    body.resize(MESSAGE_LEN - 1, 0xff);
    body.push(0x80);
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_media::h264::AvcConfig;

    #[test]
    fn what_is_sent_is_a_picture_of_64_by_64_and_filler_of_the_right_length() {
        let header = header();
        let config = AvcConfig::parse(&header[5..]).unwrap();
        let shape = config.shape().unwrap();
        assert_eq!((shape.width, shape.height, config.pps), (64, 64, vec![&PPS[..]]));
        let picture = picture();
        assert_eq!(picture.len(), MESSAGE_LEN);
        let filler = &picture[5 + 4 + IDR.len()..];
        let len = u32::from_be_bytes([filler[0], filler[1], filler[2], filler[3]]) as usize;
        assert_eq!((len, filler[4], filler.last()), (filler.len() - 4, 0x0c, Some(&0x80)));
    }

    #[test]
    fn the_rate_is_bits_by_time() {
        let throughput = Throughput { bytes: 500_000, time: Duration::from_secs(4) };
        assert_eq!(throughput.bits_per_second(), 1_000_000);
        assert_eq!(Throughput { bytes: 0, time: Duration::ZERO }.bits_per_second(), 0);
    }
}
