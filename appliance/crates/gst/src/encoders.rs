//! Which H.264 encoder works here: each candidate really encodes a few pictures before it is trusted.

use crate::elements;
use crate::error::WorkError;
use crate::pipeline::{appsink, chain, element_error, filter, h264_caps, make};
use fieldgate_model::job::{EncoderTrial, EncoderWish};
use gst::prelude::*;

const TRIAL_PICTURES: u32 = 8;
const TRIAL_DEADLINE: gst::ClockTime = gst::ClockTime::from_seconds(4);

/// One encoder that may be there.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    name: &'static str,
    hardware: bool,
}

/// Best first: dedicated hardware, then graphics, then software.
const CANDIDATES: [Candidate; 6] = [
    Candidate { name: "v4l2h264enc", hardware: true },
    Candidate { name: "vah264lpenc", hardware: true },
    Candidate { name: "vah264enc", hardware: true },
    Candidate { name: "vaapih264enc", hardware: true },
    Candidate { name: "openh264enc", hardware: false },
    Candidate { name: "x264enc", hardware: false },
];

/// The shape of the pictures to be encoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pictures {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) frame_rate: u32,
}

/// Finds the best encoder that works; one that is named was proven before and is not tried again. `tell` gets the list after every trial, so that the gateway knows which one was
/// being tried when a driver takes the whole process down.
pub(crate) fn prove(
    wish: &EncoderWish,
    pictures: Pictures,
    mut tell: impl FnMut(&[EncoderTrial]),
) -> Result<&'static str, WorkError> {
    if let Some(known) = CANDIDATES.iter().find(|known| known.name == wish.name)
        && refusal(known, wish).is_none()
        && elements::load(known.name)
    {
        let (name, hardware) = (known.name.to_owned(), known.hardware);
        tell(&[EncoderTrial {
            name,
            hardware,
            chosen: true,
            works: true,
            reason: "named, not tried again".into(),
        }]);
        return Ok(known.name);
    }
    let mut trials: Vec<EncoderTrial> = Vec::new();
    for candidate in &CANDIDATES {
        let refused = refusal(candidate, wish);
        let (hardware, name) = (candidate.hardware, candidate.name.to_owned());
        let reason = refused.unwrap_or(EncoderTrial::UNDER_WAY).to_owned();
        trials.push(EncoderTrial { name, hardware, chosen: false, works: false, reason });
        if refused.is_some() {
            continue;
        }
        tell(&trials);
        let seen = try_out(candidate.name, wish, pictures);
        let works = seen.is_ok();
        if let Some(trial) = trials.last_mut() {
            trial.works = works;
            trial.chosen = works;
            trial.reason = seen.unwrap_or_else(|reason| reason);
        }
        if works {
            tell(&trials);
            return Ok(candidate.name);
        }
    }
    tell(&trials);
    let reasons: Vec<String> =
        trials.iter().map(|trial| format!("{}: {}", trial.name, trial.reason)).collect();
    Err(WorkError::NoEncoder(reasons.join("; ")))
}

fn refusal(candidate: &Candidate, wish: &EncoderWish) -> Option<&'static str> {
    if !wish.name.is_empty() && wish.name != candidate.name {
        return Some("another one was named");
    }
    if wish.skip.iter().any(|skip| skip == candidate.name) {
        return Some("left out: it took a worker down before");
    }
    if !candidate.hardware && !wish.allow_software {
        return Some("software encoding is not allowed");
    }
    if candidate.name == "x264enc" && !wish.allow_x264 {
        return Some("x264 is not allowed by this build or its settings");
    }
    None
}

/// Encodes a few pictures; what was seen, either way.
fn try_out(name: &'static str, wish: &EncoderWish, pictures: Pictures) -> Result<String, String> {
    if !elements::load(name) {
        return Err(match elements::package(name) {
            "" => "not installed, or no such device".to_owned(),
            package => format!("not installed (Debian package {package}), or no such device"),
        });
    }
    elements::require(&["videotestsrc", "capsfilter", "h264parse", "appsink"]).map_err(|e| e.to_string())?;
    let pipeline = gst::Pipeline::new();
    let outcome = encode_some(&pipeline, name, wish, pictures);
    // Not waited for: if a driver hangs here, so does the pulse, and the gateway knows which one was tried.
    let _ = pipeline.set_state(gst::State::Null);
    outcome.map_err(|error| error.to_string())
}

fn encode_some(
    pipeline: &gst::Pipeline,
    name: &'static str,
    wish: &EncoderWish,
    pictures: Pictures,
) -> Result<String, WorkError> {
    let count = TRIAL_PICTURES.to_string();
    let source = make("videotestsrc", &[("num-buffers", &count), ("pattern", "ball")])?;
    let sink = appsink("trial");
    sink.set_property("max-buffers", TRIAL_PICTURES * 2);
    let mut all = vec![source, filter(raw_caps(pictures))?];
    all.extend(encoder(name, wish, pictures)?);
    all.push(sink.clone().upcast());
    chain(pipeline, &all.iter().collect::<Vec<_>>())?;
    pipeline.set_state(gst::State::Playing)?;
    let bus = pipeline.bus().ok_or(WorkError::Ended)?;
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let stalled = || WorkError::Element {
        element: name.to_owned(),
        text: format!("did not finish {TRIAL_PICTURES} pictures within {} s", TRIAL_DEADLINE.seconds()),
    };
    let message = bus.timed_pop_filtered(TRIAL_DEADLINE, &ends).ok_or_else(stalled)?;
    if let gst::MessageView::Error(error) = message.view() {
        return Err(element_error(error));
    }
    let mut encoded = 0;
    while let Some(sample) = sink.try_pull_sample(gst::ClockTime::ZERO) {
        let has_header =
            sample.caps().is_some_and(|c| c.structure(0).is_some_and(|s| s.has_field("codec_data")));
        encoded += u32::from(has_header && sample.buffer().is_some_and(|buffer| buffer.size() > 0));
    }
    if encoded == 0 {
        return Err(WorkError::Element { element: name.to_owned(), text: "made no usable picture".into() });
    }
    Ok(format!("encoded {encoded} of {TRIAL_PICTURES} pictures"))
}

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
    elements::require(&[name, "h264parse", "capsfilter"])?;
    let frames = gop_frames(wish, pictures).to_string();
    let (bits, kilobits) = (wish.bitrate.to_string(), (wish.bitrate / 1000).max(1).to_string());
    let mut elements = Vec::new();
    match name {
        "v4l2h264enc" => {
            let controls = format!(
                "controls,video_bitrate={bits},h264_i_frame_period={frames},video_gop_size={frames},repeat_sequence_header=1"
            );
            elements.push(make(name, &[("extra-controls", &controls)])?);
            // Without a level some drivers choose one that is too low and stop after one picture.
            let level = level(pictures);
            let caps = gst::Caps::builder("video/x-h264").field("level", level).build();
            elements.push(filter(caps)?);
        }
        "openh264enc" => elements.push(make(
            name,
            &[
                ("bitrate", &bits),
                ("gop-size", &frames),
                ("rate-control", "bitrate"),
                ("complexity", "low"),
                ("usage-type", "camera"),
            ],
        )?),
        "x264enc" => elements.push(make(
            name,
            &[
                ("bitrate", &kilobits),
                ("key-int-max", &frames),
                ("tune", "zerolatency"),
                ("speed-preset", "ultrafast"),
                ("threads", "2"),
            ],
        )?),
        "vaapih264enc" => {
            elements.push(make(
                name,
                &[("bitrate", &kilobits), ("keyframe-period", &frames), ("rate-control", "cbr")],
            )?);
        }
        _ => {
            elements.push(make(name, &[("bitrate", &kilobits), ("key-int-max", &frames), ("b-frames", "0")])?)
        }
    }
    if let Some(encoder) = elements.first() {
        encoder.set_property("name", "encoder");
    }
    elements.push(make("h264parse", &[])?);
    elements.push(filter(h264_caps())?);
    Ok(elements)
}

/// Pictures from keyframe to keyframe, at least one.
fn gop_frames(wish: &EncoderWish, pictures: Pictures) -> u32 {
    let frames = u64::from(wish.gop_ms) * u64::from(pictures.frame_rate.max(1));
    u32::try_from(frames.div_ceil(1_000)).unwrap_or(u32::MAX).max(1)
}

/// Sets a running encoder's rate; `false` when it has no such setting.
pub(crate) fn set_bitrate(encoder: &gst::Element, bits_per_second: u32) -> bool {
    let name = encoder.factory().map(|factory| factory.name().to_string()).unwrap_or_default();
    match name.as_str() {
        "openh264enc" => encoder.set_property("bitrate", bits_per_second),
        "v4l2h264enc" => {
            let controls = format!("controls,video_bitrate={bits_per_second}");
            encoder.set_property_from_str("extra-controls", &controls);
        }
        _ if encoder.find_property("bitrate").is_some() => {
            encoder.set_property("bitrate", (bits_per_second / 1000).max(1));
        }
        _ => return false,
    }
    true
}

/// The lowest H.264 level whose macroblock rate covers these pictures.
fn level(pictures: Pictures) -> &'static str {
    const LEVELS: [(u32, u32, &str); 6] = [
        (1_620, 40_500, "3"),
        (3_600, 108_000, "3.1"),
        (8_192, 245_760, "4"),
        (8_704, 522_240, "4.2"),
        (22_080, 589_824, "5"),
        (36_864, 983_040, "5.1"),
    ];
    let blocks = pictures.width.div_ceil(16) * pictures.height.div_ceil(16);
    let rate = blocks.saturating_mul(pictures.frame_rate.max(1));
    let fits = LEVELS.iter().find(|(size, speed, _)| blocks <= *size && rate <= *speed);
    fits.map_or("5.2", |(_, _, level)| level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_covers_size_and_rate() {
        let level = |width, height, frame_rate| level(Pictures { width, height, frame_rate });
        assert_eq!(level(640, 480, 30), "3");
        assert_eq!(level(1280, 720, 30), "3.1");
        assert_eq!(level(1280, 720, 60), "4");
        assert_eq!(level(1920, 1080, 30), "4");
        assert_eq!(level(1920, 1080, 60), "4.2");
        assert_eq!(level(3840, 2160, 30), "5.1");
        assert_eq!(level(3840, 2160, 60), "5.2");
    }

    #[test]
    fn keyframes_come_as_often_as_wished() {
        let frames = |gop_ms, frame_rate| {
            let wish = EncoderWish { gop_ms, ..EncoderWish::default() };
            gop_frames(&wish, Pictures { width: 640, height: 480, frame_rate })
        };
        assert_eq!((frames(2_000, 30), frames(100, 30), frames(1_500, 25)), (60, 3, 38));
        assert_eq!((frames(100, 1), frames(0, 30), frames(u32::MAX, 240)), (1, 1, 1_030_792_151));
    }

    #[test]
    fn what_may_not_be_used_is_refused_with_its_reason() {
        let x264 = Candidate { name: "x264enc", hardware: false };
        let wish = EncoderWish::default();
        assert!(refusal(&x264, &wish).is_some_and(|reason| reason.contains("x264 is not allowed")));
        assert_eq!(refusal(&x264, &EncoderWish { allow_x264: true, ..wish.clone() }), None);
        let skipped = EncoderWish { skip: vec!["v4l2h264enc".into()], ..wish };
        assert!(refusal(&CANDIDATES[0], &skipped).is_some());
    }
}
