//! Which decoder works: each candidate really decodes a small picture before it is trusted.
//!
//! Only for workers that look into pictures (masks, overlays, another codec or size); what passes is never decoded.

use crate::elements;
use crate::error::WorkError;
use crate::pipeline::{appsink, chain, element_error, make};
use fieldgate_model::job::EncoderTrial;
use gst::prelude::*;

const TRIAL_DEADLINE: gst::ClockTime = gst::ClockTime::from_seconds(4);

/// A codec of pictures that can be decoded here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Picture {
    H264,
    Hevc,
}

struct Candidate {
    name: &'static str,
    codec: Picture,
    hardware: bool,
}

const fn candidate(name: &'static str, codec: Picture, hardware: bool) -> Candidate {
    Candidate { name, codec, hardware }
}

/// Best first, as for encoders.
const CANDIDATES: [Candidate; 10] = [
    candidate("v4l2h264dec", Picture::H264, true),
    candidate("v4l2slh264dec", Picture::H264, true),
    candidate("vah264dec", Picture::H264, true),
    candidate("avdec_h264", Picture::H264, false),
    candidate("openh264dec", Picture::H264, false),
    candidate("v4l2h265dec", Picture::Hevc, true),
    candidate("v4l2slh265dec", Picture::Hevc, true),
    candidate("vah265dec", Picture::Hevc, true),
    candidate("avdec_h265", Picture::Hevc, false),
    candidate("libde265dec", Picture::Hevc, false),
];

impl Picture {
    /// A grey picture of 64x64 as an encoder wrote it: parameter sets and a keyframe, with start codes.
    fn sample(self) -> &'static [u8] {
        match self {
            Picture::H264 => include_bytes!("../testdata/grey-64x64.h264"),
            Picture::Hevc => include_bytes!("../testdata/grey-64x64.h265"),
        }
    }

    pub(crate) fn parser(self) -> &'static str {
        match self {
            Picture::H264 => "h264parse",
            Picture::Hevc => "h265parse",
        }
    }

    fn caps(self) -> gst::Caps {
        let media = match self {
            Picture::H264 => "video/x-h264",
            Picture::Hevc => "video/x-h265",
        };
        gst::Caps::builder(media).field("stream-format", "byte-stream").build()
    }
}

/// Whether this trial is one of a decoder.
pub(crate) fn is_decoder(name: &str) -> bool {
    CANDIDATES.iter().any(|candidate| candidate.name == name)
}

/// Finds the best decoder that works; `skip` names those that took a worker down before. `tell` gets the list after
/// every trial, so that the gateway knows which one was being tried when a driver takes the whole process down.
pub(crate) fn prove(
    codec: Picture,
    skip: &[String],
    mut tell: impl FnMut(&[EncoderTrial]),
) -> Result<&'static str, WorkError> {
    let mut trials: Vec<EncoderTrial> = Vec::new();
    for candidate in CANDIDATES.iter().filter(|candidate| candidate.codec == codec) {
        let (hardware, name) = (candidate.hardware, candidate.name.to_owned());
        let skipped = skip.contains(&name);
        let reason = if skipped { "left out: it took a worker down before" } else { EncoderTrial::UNDER_WAY };
        let reason = reason.to_owned();
        trials.push(EncoderTrial { name, hardware, chosen: false, works: false, reason, measured: None });
        if skipped {
            continue;
        }
        tell(&trials);
        let seen = try_out(candidate.name, codec);
        if let Some(trial) = trials.last_mut() {
            trial.works = seen.is_ok();
            trial.chosen = seen.is_ok();
            trial.reason = match &seen {
                Ok(()) => "decoded a picture".to_owned(),
                Err(reason) => reason.clone(),
            };
        }
        if seen.is_ok() {
            tell(&trials);
            return Ok(candidate.name);
        }
    }
    tell(&trials);
    let reasons: Vec<String> =
        trials.iter().map(|trial| format!("{}: {}", trial.name, trial.reason)).collect();
    Err(WorkError::NoDecoder(reasons.join("; ")))
}

/// The parser and the decoder, to be linked in this order.
pub(crate) fn decoder(codec: Picture, name: &'static str) -> Result<Vec<gst::Element>, WorkError> {
    elements::require(&[name, codec.parser()])?;
    let decoder = make(name, &[])?;
    if name.starts_with("avdec_") {
        // Whole pictures at once on several threads would come as many pictures late.
        decoder.set_property_from_str("thread-type", "slice");
        decoder.set_property("max-threads", 2_i32);
    }
    Ok(vec![make(codec.parser(), &[])?, decoder])
}

fn try_out(name: &'static str, codec: Picture) -> Result<(), String> {
    if !elements::load(name) {
        return Err(elements::absence(name));
    }
    elements::require(&["appsrc", "appsink", "capsfilter"]).map_err(|error| error.to_string())?;
    let pipeline = gst::Pipeline::new();
    let outcome = decode_one(&pipeline, name, codec);
    // Not waited for: if a driver hangs here, so does the pulse, and the gateway knows which one was tried.
    let _ = pipeline.set_state(gst::State::Null);
    outcome.map_err(|error| error.to_string())
}

fn decode_one(pipeline: &gst::Pipeline, name: &'static str, codec: Picture) -> Result<(), WorkError> {
    let source = gst_app::AppSrc::builder().caps(&codec.caps()).format(gst::Format::Time).build();
    let sink = appsink("trial");
    let mut all: Vec<gst::Element> = vec![source.clone().upcast()];
    all.extend(decoder(codec, name)?);
    all.push(sink.clone().upcast());
    chain(pipeline, &all.iter().collect::<Vec<_>>())?;
    pipeline.set_state(gst::State::Playing)?;
    let mut buffer = gst::Buffer::from_slice(codec.sample());
    if let Some(buffer) = buffer.get_mut() {
        buffer.set_pts(gst::ClockTime::ZERO);
    }
    let failed = |text: &str| WorkError::Element { element: name.to_owned(), text: text.to_owned() };
    source.push_buffer(buffer).map_err(|_| failed("takes no picture"))?;
    let _ = source.end_of_stream();
    let bus = pipeline.bus().ok_or(WorkError::Ended)?;
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = bus.timed_pop_filtered(TRIAL_DEADLINE, &ends);
    match message.as_ref().map(|message| message.view()) {
        None => return Err(failed("did not finish one picture within 4 s")),
        Some(gst::MessageView::Error(error)) => return Err(element_error(error)),
        Some(_) => {}
    }
    let sample = sink.try_pull_sample(gst::ClockTime::ZERO).ok_or_else(|| failed("made no picture"))?;
    let size = sample
        .caps()
        .and_then(|caps| caps.structure(0))
        .map(|fields| (fields.get::<i32>("width").unwrap_or(0), fields.get::<i32>("height").unwrap_or(0)));
    if size == Some((64, 64)) { Ok(()) } else { Err(failed("made a picture of another size")) }
}
