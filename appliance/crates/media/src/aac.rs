//! AAC's AudioSpecificConfig. Source: ISO/IEC 14496-3, 1.6.2.1.

use crate::AudioShape;
use crate::bits::Bits;

const RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// What an AudioSpecificConfig says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AacConfig {
    /// Audio object type: 2 is LC, 5 SBR, 29 SBR with parametric stereo.
    pub object_type: u8,
    /// Hertz, after SBR where it is signalled.
    pub sample_rate: u32,
    /// Channels; 0 if defined in the stream.
    pub channels: u8,
    /// Samples that one frame holds at `sample_rate`: 1024 or 960, twice that with signalled SBR.
    pub frame_samples: u32,
}

impl AacConfig {
    /// Parses it; `None` if it is cut off or uses a reserved rate.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let mut bits = Bits::new(header);
        let object_type = object_type(&mut bits)?;
        let core_rate = rate(&mut bits)?;
        let mut sample_rate = core_rate;
        let channels = match bits.take(4)? {
            7 => 8,
            count => u8::try_from(count).ok()?,
        };
        if object_type == 5 || object_type == 29 {
            sample_rate = rate(&mut bits)?;
            self::object_type(&mut bits);
        }
        // GASpecificConfig's first bit; some encoders cut the config before it.
        let short = bits.bit().unwrap_or(false);
        let frame_samples = if short { 960 } else { 1024 };
        let frame_samples = if sample_rate > core_rate { frame_samples * 2 } else { frame_samples };
        let channels = if object_type == 29 && channels == 1 { 2 } else { channels };
        Some(AacConfig { object_type, sample_rate, channels, frame_samples })
    }

    /// Its shape.
    pub fn shape(&self) -> AudioShape {
        AudioShape { sample_rate: self.sample_rate, channels: self.channels }
    }
}

fn object_type(bits: &mut Bits<'_>) -> Option<u8> {
    let value = bits.take(5)?;
    let value = if value == 31 { bits.take(6)?.checked_add(32)? } else { value };
    u8::try_from(value).ok()
}

fn rate(bits: &mut Bits<'_>) -> Option<u32> {
    match bits.take(4)? {
        15 => bits.take(24),
        index => RATES.get(index as usize).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_configs_are_read() {
        let lc = AacConfig::parse(&[0x12, 0x10]).unwrap();
        assert_eq!(lc, AacConfig { object_type: 2, sample_rate: 44_100, channels: 2, frame_samples: 1024 });
        let mono = AacConfig::parse(&[0x11, 0x88, 0x56, 0xe5, 0x00]).unwrap();
        assert_eq!(mono, AacConfig { object_type: 2, sample_rate: 48_000, channels: 1, frame_samples: 1024 });
        let sbr = AacConfig::parse(&[0x2b, 0x11, 0x88, 0x00]).unwrap();
        assert_eq!((sbr.object_type, sbr.sample_rate, sbr.channels), (5, 48_000, 2));
        assert_eq!(sbr.frame_samples, 2048);
        assert_eq!(AacConfig::parse(&[0x12, 0x14]).unwrap().frame_samples, 960);
        assert_eq!(AacConfig::parse(&[0x12]), None);
        assert_eq!(AacConfig::parse(&[0x17, 0x00]), None);
    }
}
