//! The codecs that a mountpoint can carry.

/// Picture or sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TrackKind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

/// How a track's units are coded. The doc of each says what its payload and its header (`Track::header`) are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Codec {
    /// NAL units with 4-byte lengths; header: AVCDecoderConfigurationRecord.
    H264,
    /// NAL units with 4-byte lengths; header: HEVCDecoderConfigurationRecord.
    Hevc,
    /// Low-overhead OBUs of one temporal unit; header: AV1CodecConfigurationRecord.
    Av1,
    /// One VP9 (super)frame; header: VPCodecConfigurationRecord.
    Vp9,
    /// One VP8 frame; header: VPCodecConfigurationRecord.
    Vp8,
    /// One JPEG picture; no header. Only on its way to a decoder of ours: no output carries it.
    Jpeg,
    /// One raw AAC frame without ADTS; header: AudioSpecificConfig.
    Aac,
    /// One MPEG-1/2 layer III frame; no header.
    Mp3,
    /// G.711 A-law bytes; no header.
    PcmA,
    /// G.711 mu-law bytes; no header.
    PcmU,
    /// One Opus packet; header: the OpusHead of RFC 7845.
    Opus,
    /// One AC-3 syncframe; no header.
    Ac3,
    /// One E-AC-3 syncframe; no header.
    Eac3,
    /// One FLAC frame; header: `fLaC` and its metadata blocks.
    Flac,
}

impl Codec {
    /// Whether it codes pictures or sound.
    pub const fn kind(self) -> TrackKind {
        match self {
            Codec::H264 | Codec::Hevc | Codec::Av1 | Codec::Vp9 | Codec::Vp8 | Codec::Jpeg => {
                TrackKind::Video
            }
            _ => TrackKind::Audio,
        }
    }

    /// The name used in config, status and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::H264 => "h264",
            Codec::Hevc => "hevc",
            Codec::Av1 => "av1",
            Codec::Vp9 => "vp9",
            Codec::Vp8 => "vp8",
            Codec::Jpeg => "jpeg",
            Codec::Aac => "aac",
            Codec::Mp3 => "mp3",
            Codec::PcmA => "pcma",
            Codec::PcmU => "pcmu",
            Codec::Opus => "opus",
            Codec::Ac3 => "ac3",
            Codec::Eac3 => "eac3",
            Codec::Flac => "flac",
        }
    }

    /// The codec with this `name()`.
    pub fn from_name(name: &str) -> Option<Codec> {
        const ALL: [Codec; 14] = [
            Codec::H264,
            Codec::Hevc,
            Codec::Av1,
            Codec::Vp9,
            Codec::Vp8,
            Codec::Jpeg,
            Codec::Aac,
            Codec::Mp3,
            Codec::PcmA,
            Codec::PcmU,
            Codec::Opus,
            Codec::Ac3,
            Codec::Eac3,
            Codec::Flac,
        ];
        ALL.into_iter().find(|codec| codec.name() == name)
    }
}
