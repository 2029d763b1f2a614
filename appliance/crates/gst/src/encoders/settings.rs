//! How each encoder is told its rate, its keyframes, its profile and its level.

use super::Pictures;
use crate::elements;
use crate::error::WorkError;
use crate::pipeline::{filter, h264_caps, make};
use fieldgate_model::job::{EncoderWish, PictureCodec};
use gst::prelude::*;

/// Raw pictures of that shape as software and most drivers take them.
pub(crate) fn raw_caps(pictures: Pictures) -> gst::Caps {
    let signed = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let mut caps = gst::Caps::builder("video/x-raw").field("format", "I420");
    if pictures.width > 0 && pictures.height > 0 {
        caps = caps.field("width", signed(pictures.width)).field("height", signed(pictures.height));
    }
    if pictures.frame_rate > 0 {
        caps = caps.field("framerate", gst::Fraction::new(signed(pictures.frame_rate), 1));
    }
    caps.build()
}

/// The encoder with its settings, its parser and the output form, to be linked in this order.
pub(crate) fn encoder(
    name: &'static str,
    wish: &EncoderWish,
    pictures: Pictures,
) -> Result<Vec<gst::Element>, WorkError> {
    let parser = match wish.codec {
        PictureCodec::H264 => "h264parse",
        PictureCodec::Hevc => "h265parse",
    };
    elements::require(&[name, parser, "capsfilter"])?;
    let mut elements = before(name)?;
    let coder = make(name, &properties(name, wish, pictures).as_text())?;
    coder.set_property("name", "encoder");
    elements.push(coder);
    if let Some(caps) = profile(name, wish, pictures) {
        elements.push(filter(caps)?);
    }
    elements.push(make(parser, &[])?);
    elements.push(filter(match wish.codec {
        PictureCodec::H264 => h264_caps(),
        PictureCodec::Hevc => {
            gst::Caps::builder("video/x-h265").field("stream-format", "hvc1").field("alignment", "au").build()
        }
    })?);
    Ok(elements)
}

/// What some encoders need in front of them.
fn before(name: &str) -> Result<Vec<gst::Element>, WorkError> {
    match name {
        // Jetson's encoder takes pictures from its own memory alone.
        "nvv4l2h264enc" | "nvv4l2h265enc" => {
            elements::require(&["nvvidconv"])?;
            let caps = gst::Caps::builder("video/x-raw").features(["memory:NVMM"]).field("format", "NV12");
            Ok(vec![make("nvvidconv", &[])?, filter(caps.build())?])
        }
        // The `va` elements take what their driver takes, most often NV12 alone.
        _ if name.starts_with("va") && !name.starts_with("vaapi") => {
            elements::require(&["videoconvert"])?;
            Ok(vec![make("videoconvert", &[])?])
        }
        _ => Ok(Vec::new()),
    }
}

struct Properties(Vec<(&'static str, String)>);

impl Properties {
    fn as_text(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }
}

fn properties(name: &str, wish: &EncoderWish, pictures: Pictures) -> Properties {
    let frames = gop_frames(wish, pictures).to_string();
    let (bits, kilobits) = (wish.bitrate.to_string(), (wish.bitrate / 1000).max(1).to_string());
    let text = str::to_owned;
    Properties(match name {
        "v4l2h264enc" => vec![(
            "extra-controls",
            format!(
                "controls,video_bitrate={bits},h264_i_frame_period={frames},video_gop_size={frames},repeat_sequence_header=1"
            ),
        )],
        "v4l2h265enc" => vec![(
            "extra-controls",
            format!("controls,video_bitrate={bits},video_gop_size={frames},repeat_sequence_header=1"),
        )],
        "openh264enc" => vec![
            ("bitrate", bits),
            ("gop-size", frames),
            ("rate-control", text("bitrate")),
            ("complexity", text("low")),
            ("usage-type", text("camera")),
        ],
        "x264enc" => vec![
            ("bitrate", kilobits),
            ("key-int-max", frames),
            ("tune", text("zerolatency")),
            ("speed-preset", text("ultrafast")),
            ("threads", text("2")),
        ],
        "mpph264enc" | "mpph265enc" => vec![("bps", bits), ("gop", frames), ("rc-mode", text("cbr"))],
        "nvv4l2h264enc" | "nvv4l2h265enc" => vec![
            ("bitrate", bits),
            ("iframeinterval", frames.clone()),
            ("idrinterval", frames),
            ("insert-sps-pps", text("true")),
            ("control-rate", text("1")),
        ],
        "vpuenc_h264" | "vpuenc_hevc" => vec![("bitrate", kilobits), ("gop-size", frames)],
        "vaapih264enc" => {
            vec![("bitrate", kilobits), ("keyframe-period", frames), ("rate-control", text("cbr"))]
        }
        // `va`: their rate control differs by driver, what all have is the bitrate.
        _ => vec![("bitrate", kilobits), ("key-int-max", frames), ("b-frames", text("0"))],
    })
}

/// Profile and level that are asked for. Without a level some drivers choose one that is too low, and stop after one
/// picture or write what stricter decoders refuse.
fn profile(name: &str, wish: &EncoderWish, pictures: Pictures) -> Option<gst::Caps> {
    let caps = match wish.codec {
        PictureCodec::H264 => gst::Caps::builder("video/x-h264"),
        PictureCodec::Hevc => gst::Caps::builder("video/x-h265"),
    };
    match name {
        // Boards differ in the profiles that they write: their best is taken, the level is ours.
        "v4l2h264enc" => Some(caps.field("level", level(pictures)).build()),
        "v4l2h265enc" => None,
        // What receivers without high profile take as well; the level follows from size and rate.
        "openh264enc" => Some(caps.field("profile", "constrained-baseline").build()),
        "x264enc" | "vah264enc" | "vah264lpenc" | "vaapih264enc" => {
            Some(caps.field("profile", gst::List::new(["main", "constrained-baseline"])).build())
        }
        "vah265enc" | "vah265lpenc" => Some(caps.field("profile", "main").build()),
        _ => None,
    }
}

/// Pictures from keyframe to keyframe, at least one.
fn gop_frames(wish: &EncoderWish, pictures: Pictures) -> u32 {
    let frames = u64::from(wish.gop_ms) * u64::from(pictures.frame_rate.max(1));
    u32::try_from(frames.div_ceil(1_000)).unwrap_or(u32::MAX).max(1)
}

/// Sets a running encoder's rate; `false` when it has no such setting.
pub(crate) fn set_bitrate(encoder: &gst::Element, bits_per_second: u32) -> bool {
    let name = encoder.factory().map(|factory| factory.name().to_string()).unwrap_or_default();
    let kilobits = (bits_per_second / 1000).max(1);
    match name.as_str() {
        "openh264enc" | "nvv4l2h264enc" | "nvv4l2h265enc" => encoder.set_property("bitrate", bits_per_second),
        "mpph264enc" | "mpph265enc" => encoder.set_property("bps", bits_per_second),
        "v4l2h264enc" | "v4l2h265enc" => {
            let controls = format!("controls,video_bitrate={bits_per_second}");
            encoder.set_property_from_str("extra-controls", &controls);
        }
        _ if encoder.find_property("bitrate").is_some() => {
            encoder.set_property_from_str("bitrate", &kilobits.to_string());
        }
        _ => return false,
    }
    true
}

/// H.264 levels: macroblocks of a picture, macroblocks a second, name, `level_idc`. Source: H.264 table A-1.
const LEVELS: [(u32, u32, &str, u8); 7] = [
    (1_620, 40_500, "3", 30),
    (3_600, 108_000, "3.1", 31),
    (8_192, 245_760, "4", 40),
    (8_704, 522_240, "4.2", 42),
    (22_080, 589_824, "5", 50),
    (36_864, 983_040, "5.1", 51),
    (36_864, 2_073_600, "5.2", 52),
];

/// The lowest of our levels that covers these pictures.
fn level(pictures: Pictures) -> &'static str {
    let (blocks, rate) = macroblocks(pictures);
    let fits = LEVELS.iter().find(|(size, speed, ..)| blocks <= *size && rate <= *speed);
    fits.map_or("5.2", |(_, _, level, _)| level)
}

/// Whether a `level_idc` that an encoder wrote is too low for these pictures.
pub(super) fn is_level_too_low(level_idc: u8, pictures: Pictures) -> bool {
    // Levels below 3, and those between ours, by their own bounds. Source: as above.
    const OTHERS: [(u32, u32, u8); 10] = [
        (99, 1_485, 10),
        (396, 3_000, 11),
        (396, 6_000, 12),
        (396, 11_880, 13),
        (396, 11_880, 20),
        (792, 19_800, 21),
        (1_620, 20_250, 22),
        (5_120, 216_000, 32),
        (8_192, 245_760, 41),
        (36_864, 2_073_600, 60),
    ];
    let (blocks, rate) = macroblocks(pictures);
    let ours = LEVELS.iter().map(|(size, speed, _, idc)| (*size, *speed, *idc));
    let known = ours.chain(OTHERS).find(|(.., idc)| *idc == level_idc);
    known.is_some_and(|(size, speed, _)| blocks > size || rate > speed)
}

fn macroblocks(pictures: Pictures) -> (u32, u32) {
    let blocks = pictures.width.div_ceil(16) * pictures.height.div_ceil(16);
    (blocks, blocks.saturating_mul(pictures.frame_rate.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn pictures(width: u32, height: u32, frame_rate: u32) -> Pictures {
        Pictures { width, height, frame_rate }
    }

    #[test]
    fn the_level_covers_size_and_rate() {
        let level = |width, height, frame_rate| level(pictures(width, height, frame_rate));
        assert_eq!(level(640, 480, 30), "3");
        assert_eq!(level(1280, 720, 30), "3.1");
        assert_eq!(level(1280, 720, 60), "4");
        assert_eq!(level(1920, 1080, 30), "4");
        assert_eq!(level(1920, 1080, 60), "4.2");
        assert_eq!(level(3840, 2160, 30), "5.1");
        assert_eq!(level(3840, 2160, 60), "5.2");
    }

    #[test]
    fn a_level_that_does_not_cover_the_pictures_is_seen() {
        let hd = pictures(1280, 720, 30);
        assert!(is_level_too_low(30, hd) && is_level_too_low(11, hd) && is_level_too_low(22, hd));
        assert!(!is_level_too_low(31, hd) && !is_level_too_low(32, hd) && !is_level_too_low(51, hd));
        // What is not in the table is not judged.
        assert!(!is_level_too_low(9, hd));
    }

    #[test]
    fn keyframes_come_as_often_as_wished() {
        let frames = |gop_ms, frame_rate| {
            let wish = EncoderWish { gop_ms, ..EncoderWish::default() };
            gop_frames(&wish, pictures(640, 480, frame_rate))
        };
        assert_eq!((frames(2_000, 30), frames(100, 30), frames(1_500, 25)), (60, 3, 38));
        assert_eq!((frames(100, 1), frames(0, 30), frames(u32::MAX, 240)), (1, 1, 1_030_792_151));
    }

    #[test]
    fn every_encoder_is_told_rate_and_keyframes() {
        let wish = EncoderWish { bitrate: 1_234_000, gop_ms: 1_000, ..EncoderWish::default() };
        let names = ["v4l2h264enc", "v4l2h265enc", "openh264enc", "x264enc", "mpph264enc", "nvv4l2h264enc"];
        for name in names.into_iter().chain(["vpuenc_h264", "vaapih264enc", "vah264enc", "vah265enc"]) {
            let properties = properties(name, &wish, pictures(640, 480, 30));
            let all: String =
                properties.as_text().iter().map(|(name, value)| format!("{name}={value};")).collect();
            assert!(all.contains("1234") && all.contains("30"), "{name}: {all}");
        }
    }
}
