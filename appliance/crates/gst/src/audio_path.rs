//! From a source's sound to the form that outputs carry: passed as it is, or decoded, amplified and encoded.

use crate::elements;
use crate::error::WorkError;
use crate::pipeline::{filter, make};
use fieldgate_model::job::{AudioEncode, AudioTreatment, SoundCodec};
use gst::prelude::*;

/// In what form sound comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CodedSound {
    Aac,
    PcmA,
    PcmU,
    Opus,
    Raw,
}

/// The rate of all sound that is encoded here.
const SAMPLE_RATE: i32 = 48_000;
/// What an encoder may be off from its source's times before it follows them: one frame of sound.
const TOLERANCE_NS: i64 = 20_000_000;

struct Encoder {
    name: &'static str,
    /// Samples of silence that come out before the sound that was put in first.
    priming: u64,
}

/// Best first.
const AAC_ENCODERS: [Encoder; 3] = [
    Encoder { name: "voaacenc", priming: 1600 },
    Encoder { name: "fdkaacenc", priming: 2048 },
    Encoder { name: "avenc_aac", priming: 1024 },
];
const OPUS_ENCODERS: [Encoder; 1] = [Encoder { name: "opusenc", priming: 312 }];

/// Whether sound is taken at all.
pub(crate) fn is_wanted(treat: &AudioTreatment) -> bool {
    *treat != AudioTreatment::Off
}

/// Whether sound in this form leaves as it came.
pub(crate) fn passes(from: CodedSound, treat: &AudioTreatment) -> bool {
    match treat {
        AudioTreatment::Encode(encode) | AudioTreatment::Silence(encode) => is_there(from, encode),
        AudioTreatment::Pass => from != CodedSound::Raw,
        AudioTreatment::Off => false,
    }
}

fn is_there(from: CodedSound, encode: &AudioEncode) -> bool {
    let is_same = matches!(
        (from, encode.codec),
        (CodedSound::Aac, SoundCodec::Aac) | (CodedSound::Opus, SoundCodec::Opus)
    );
    is_same && encode.gain_db == 0.0 && !encode.mute
}

/// The elements between a source and the sink, to be linked in this order.
pub(crate) fn elements(from: CodedSound, treat: &AudioTreatment) -> Result<Vec<gst::Element>, WorkError> {
    match treat {
        // What is in that form already passes.
        AudioTreatment::Encode(encode) | AudioTreatment::Silence(encode) => self::encode(from, encode),
        AudioTreatment::Pass if from != CodedSound::Raw => pass(from),
        AudioTreatment::Pass | AudioTreatment::Off => Err(WorkError::Setting {
            setting: "audio",
            got: format!("{treat:?}").to_lowercase(),
            remedy: "let sound be encoded, or leave the source's sound out",
        }),
    }
}

fn pass(from: CodedSound) -> Result<Vec<gst::Element>, WorkError> {
    let (parser, caps) = form(from);
    elements::require(&["capsfilter"])?;
    let mut all = Vec::new();
    if let Some(parser) = parser {
        elements::require(&[parser])?;
        all.push(make(parser, &[])?);
    }
    all.push(filter(caps.parse()?)?);
    Ok(all)
}

/// The parser, where there is one, and the form in which units carry it.
fn form(of: CodedSound) -> (Option<&'static str>, &'static str) {
    match of {
        CodedSound::Aac => (Some("aacparse"), "audio/mpeg,mpegversion=4,stream-format=raw,framed=true"),
        CodedSound::Opus => (Some("opusparse"), "audio/x-opus"),
        CodedSound::PcmA => (None, "audio/x-alaw"),
        CodedSound::PcmU => (None, "audio/x-mulaw"),
        CodedSound::Raw => (None, "audio/x-raw"),
    }
}

fn encode(from: CodedSound, encode: &AudioEncode) -> Result<Vec<gst::Element>, WorkError> {
    if is_there(from, encode) {
        return pass(from);
    }
    if !(-60.0..=30.0).contains(&encode.gain_db) {
        let got = encode.gain_db.to_string();
        return Err(WorkError::Setting { setting: "gain_db", got, remedy: "-60 to 30" });
    }
    elements::require(&["audioconvert", "audioresample", "capsfilter", "queue"])?;
    let mut all = decoder(from)?;
    all.push(make("audioconvert", &[])?);
    all.push(make("audioresample", &[])?);
    let raw = gst::Caps::builder("audio/x-raw")
        .field("rate", SAMPLE_RATE)
        .field("channels", gst::IntRange::new(1, 2))
        .build();
    all.push(filter(raw)?);
    if encode.gain_db != 0.0 || encode.mute {
        elements::require(&["volume"])?;
        let volume = make("volume", &[])?;
        volume.set_property("volume", 10_f64.powf(f64::from(encode.gain_db) / 20.0));
        volume.set_property("mute", encode.mute);
        all.push(volume);
    }
    let (encoders, coded) = match encode.codec {
        SoundCodec::Aac => (&AAC_ENCODERS[..], CodedSound::Aac),
        SoundCodec::Opus => (&OPUS_ENCODERS[..], CodedSound::Opus),
    };
    let found = encoders.iter().find(|encoder| elements::load(encoder.name)).ok_or_else(|| {
        let name = encoders.first().map_or("", |encoder| encoder.name);
        WorkError::Missing(elements::named(name))
    })?;
    let bitrate = encode.bitrate.to_string();
    let encoder = make(found.name, &[("bitrate", &bitrate), ("name", "sound-encoder")])?;
    if encoder.find_property("tolerance").is_some() {
        encoder.set_property("tolerance", TOLERANCE_NS);
    }
    account_for_priming(&encoder, found);
    all.push(encoder);
    if coded == CodedSound::Opus {
        // Whole frames already, and its parser would count their times anew.
        all.push(filter(form(coded).1.parse()?)?);
    } else {
        all.extend(pass(coded)?);
    }
    Ok(all)
}

fn decoder(from: CodedSound) -> Result<Vec<gst::Element>, WorkError> {
    let first = |names: &[&'static str]| {
        names.iter().copied().find(|name| elements::load(name)).ok_or_else(|| {
            let named: Vec<String> = names.iter().map(|name| elements::named(name)).collect();
            WorkError::Missing(named.join(" or "))
        })
    };
    let (parser, name) = match from {
        CodedSound::Raw => return Ok(Vec::new()),
        CodedSound::PcmA => (None, first(&["alawdec"])?),
        CodedSound::PcmU => (None, first(&["mulawdec"])?),
        CodedSound::Opus => (Some("opusparse"), first(&["opusdec", "avdec_opus"])?),
        CodedSound::Aac => (Some("aacparse"), first(&["avdec_aac", "fdkaacdec", "faad"])?),
    };
    let mut all = Vec::new();
    if let Some(parser) = parser {
        elements::require(&[parser])?;
        all.push(make(parser, &[])?);
    }
    all.push(make(name, &[])?);
    Ok(all)
}

/// The encoder names a frame after the sound that went in; what comes out first is what it had to begin with. A player
/// that does not know of that would hear all sound late.
fn account_for_priming(encoder: &gst::Element, found: &Encoder) {
    let Some(pad) = encoder.static_pad("src") else { return };
    let early = found.priming * 1_000_000_000 / u64::from(SAMPLE_RATE.unsigned_abs());
    if found.name != "opusenc" {
        pad.set_offset(-i64::try_from(early).unwrap_or(0));
        // What would come before the stream's own beginning is nothing but that silence.
        let beginning = gst::ClockTime::from_nseconds(early);
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let pts = info.buffer().and_then(|buffer| buffer.pts());
            if pts.is_some_and(|pts| pts < beginning) {
                gst::PadProbeReturn::Drop
            } else {
                gst::PadProbeReturn::Ok
            }
        });
        return;
    }
    // It moves all frames but the first, which it marks for clipping instead.
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
            let pts = buffer.pts().map(|pts| pts.saturating_sub(gst::ClockTime::from_nseconds(early)));
            buffer.make_mut().set_pts(pts);
        }
        gst::PadProbeReturn::Remove
    });
}
