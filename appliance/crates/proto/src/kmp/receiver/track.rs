//! A track of ours out of `minf`. Source: the KMP contract, section 4.

use super::ReceiveError;
use crate::kmp::media_info::codec_of;
use crate::kmp::packet::{Media, MediaInfo};
use fieldgate_media::{AudioShape, Codec, Declared, Track, TrackId, VideoShape, aac, h264, hevc};

/// The track that `minf` describes; what its codec header says goes before what `minf` declares.
pub(super) fn track_of(id: TrackId, info: &MediaInfo) -> Result<Track, ReceiveError> {
    let codec_id = info.codec_id;
    let codec = codec_of(codec_id).ok_or(ReceiveError::Codec { codec_id })?;
    let header = &info.extra_data;
    let broken = || ReceiveError::Header { codec_id, len: header.len() };
    let nal_lengths = match codec {
        Codec::H264 => h264::AvcConfig::parse(header).ok_or_else(broken)?.length_len,
        Codec::Hevc => hevc::HevcConfig::parse(header).ok_or_else(broken)?.length_len,
        Codec::Aac => {
            aac::AacConfig::parse(header).ok_or_else(broken)?;
            4
        }
        _ => 4,
    };
    if nal_lengths != 4 {
        return Err(ReceiveError::NalLengths { len: nal_lengths });
    }
    let mut track = Track::new(id, codec, header.clone());
    track.declared.bits_per_second = u64::from(info.bitrate);
    match info.media {
        Media::Video(video) => {
            let rate = video.frame_rate;
            let declared = VideoShape {
                width: u32::from(video.width),
                height: u32::from(video.height),
                frame_rate: if rate.denom == 0 { 0.0 } else { f64::from(rate.num) / f64::from(rate.denom) },
            };
            let VideoShape { width, height, frame_rate } = declared;
            track.declared = Declared { width, height, frame_rate, ..track.declared };
            track.video = declared;
            track = track.with_header_shape();
            if track.video.frame_rate == 0.0 {
                track.video.frame_rate = declared.frame_rate;
            }
        }
        Media::Audio(audio) => {
            let channels = u8::try_from(audio.channels).unwrap_or(u8::MAX);
            track.audio = AudioShape { sample_rate: audio.sample_rate, channels };
            track = track.with_header_shape();
        }
        Media::Subtitle => {}
    }
    Ok(track)
}
