//! Decodes and encodes again the stream that the gateway sends.
//!
//! ```text
//!  intake -> "feed" thread -> appsrc ! decode ! encode ! appsink -> Output: the times of what came in -> outlet
//! ```
//! What comes out has the times of what went in, so that tracks that pass beside the worker stay in step with it. The
//! gateway starts another worker when a track comes, goes or changes its codec.

mod output;

use crate::audio_path::{self, CodedSound};
use crate::cameras::Camera;
use crate::elements;
use crate::encoders::Pictures;
use crate::error::WorkError;
use crate::intake::{Fed, Intake};
use crate::outlet::Outlet;
use crate::pipeline::{appsink, chain};
use crate::video_path::{self, Coded};
use bytes::Bytes;
use fieldgate_media::{Codec, Track, TrackKind, Tracks, UnitHead};
use fieldgate_model::job::{AudioTreatment, EncoderTrial, Transcode};
use gst::prelude::*;
use output::{Output, to_clock_time};
use std::time::Duration;

/// The gateway starts this worker when it has a stream for it.
const WAIT_FOR_TRACKS: Duration = Duration::from_secs(10);
const WAIT_STEP: Duration = Duration::from_millis(200);
/// What an appsrc holds before the thread that feeds it waits; more waits in the intake.
const SOURCE_BYTES: u64 = 1 << 20;

/// One track's way in.
struct Way {
    source: gst_app::AppSrc,
    track: Track,
}

pub(crate) fn build(
    settings: &Transcode,
    outlet: &Outlet,
    intake: &Intake,
    mut tell: impl FnMut(&[EncoderTrial]),
) -> Result<Camera, WorkError> {
    elements::require(&["appsrc", "appsink"])?;
    let tracks = first_tracks(outlet, intake)?;
    let pipeline = gst::Pipeline::new();
    let output = Output::new(outlet.clone());
    let mut ways = Vec::new();
    let mut described = Vec::new();
    if let (Some(track), Some(encode)) = (tracks.first(TrackKind::Video), &settings.video) {
        let elements =
            video_path::elements_that_wait(coded(track.codec)?, encode, pictures(track), &mut tell)?;
        ways.push(way(&pipeline, track, elements, &output)?);
        described.push(format!("{:?} to H264", track.codec));
    }
    if let (Some(track), Some(encode)) = (tracks.first(TrackKind::Audio), &settings.audio) {
        let elements =
            audio_path::elements(coded_sound(track.codec)?, &AudioTreatment::Encode(encode.clone()))?;
        ways.push(way(&pipeline, track, elements, &output)?);
        described.push(format!("{:?} to {:?}", track.codec, encode.codec));
    }
    if ways.is_empty() {
        return Err(WorkError::Setting {
            setting: "transcode",
            got: "a stream with no track to encode".into(),
            remedy: "send the tracks that the settings name",
        });
    }
    let (intake, bus) = (intake.clone(), pipeline.bus().ok_or(WorkError::Ended)?);
    let thread = std::thread::Builder::new().name("feed".into()).stack_size(256 << 10);
    let feeding = thread.spawn(move || {
        if let Err(text) = feed(&intake, ways, &output) {
            let _ = bus.post(gst::message::Error::new(gst::CoreError::Failed, text));
        }
    });
    feeding.map_err(|error| WorkError::Element { element: "feed".into(), text: error.to_string() })?;
    Ok(Camera::new(pipeline, described.join(", ")))
}

fn first_tracks(outlet: &Outlet, intake: &Intake) -> Result<Tracks, WorkError> {
    let steps = WAIT_FOR_TRACKS.as_millis() / WAIT_STEP.as_millis();
    for _ in 0..steps {
        outlet.pulse();
        if let Some(Fed::Tracks(tracks)) = intake.next(WAIT_STEP) {
            return Ok(tracks);
        }
        if intake.is_over() {
            break;
        }
    }
    Err(WorkError::Ended)
}

fn way(
    pipeline: &gst::Pipeline,
    track: &Track,
    elements: Vec<gst::Element>,
    output: &Output,
) -> Result<Way, WorkError> {
    let source = gst_app::AppSrc::builder()
        .caps(&caps(track))
        .format(gst::Format::Time)
        .is_live(true)
        .block(true)
        .max_bytes(SOURCE_BYTES)
        .build();
    let sink = appsink(if track.kind() == TrackKind::Video { "video" } else { "audio" });
    let mut all: Vec<gst::Element> = vec![source.clone().upcast()];
    all.extend(elements);
    all.push(sink.clone().upcast());
    chain(pipeline, &all.iter().collect::<Vec<_>>())?;
    output.attach(&sink, track.id);
    Ok(Way { source, track: track.clone() })
}

/// Feeds until nothing more comes, or the pipeline takes nothing more.
fn feed(intake: &Intake, mut ways: Vec<Way>, output: &Output) -> Result<(), &'static str> {
    while !intake.is_over() {
        match intake.next(WAIT_STEP) {
            None => {}
            Some(Fed::Tracks(tracks)) => {
                for way in &mut ways {
                    let Some(track) = tracks.get(way.track.id).filter(|t| t.codec == way.track.codec) else {
                        return Err("the stream's tracks changed");
                    };
                    if track.header != way.track.header || track.audio != way.track.audio {
                        way.source.set_caps(Some(&caps(track)));
                    }
                    way.track = track.clone();
                }
            }
            Some(Fed::Unit(head, payload)) => {
                let Some(way) = ways.iter().find(|way| way.track.id == head.track) else { continue };
                output.came_in(&head);
                // It refuses only while the pipeline stops.
                if way.source.push_buffer(buffer(&head, payload)).is_err() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

fn buffer(head: &UnitHead, payload: Bytes) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_slice(payload);
    if let Some(buffer) = buffer.get_mut() {
        buffer.set_pts(to_clock_time(head.pts));
        buffer.set_dts(to_clock_time(head.dts));
        if !head.keyframe {
            buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
        }
    }
    buffer
}

fn coded(codec: Codec) -> Result<Coded, WorkError> {
    match codec {
        Codec::H264 => Ok(Coded::H264),
        Codec::Hevc => Ok(Coded::Hevc),
        Codec::Jpeg => Ok(Coded::Jpeg),
        other => Err(not_decoded("video", other)),
    }
}

fn coded_sound(codec: Codec) -> Result<CodedSound, WorkError> {
    match codec {
        Codec::Aac => Ok(CodedSound::Aac),
        Codec::PcmA => Ok(CodedSound::PcmA),
        Codec::PcmU => Ok(CodedSound::PcmU),
        Codec::Opus => Ok(CodedSound::Opus),
        other => Err(not_decoded("audio", other)),
    }
}

fn not_decoded(setting: &'static str, codec: Codec) -> WorkError {
    let remedy = "have the source send H.264, HEVC or JPEG with AAC, G.711 or Opus";
    WorkError::Setting { setting, got: format!("{codec:?}"), remedy }
}

/// The shape as its header tells it; the rate is left open, sources are often wrong about it.
fn pictures(track: &Track) -> Pictures {
    Pictures { width: track.video.width, height: track.video.height, frame_rate: 0 }
}

/// What a track's units are, for the parser behind an appsrc.
fn caps(track: &Track) -> gst::Caps {
    let signed = |value: u32| i32::try_from(value).unwrap_or(0);
    let rate = |usual: u32| if track.audio.sample_rate > 0 { track.audio.sample_rate } else { usual };
    let channels = i32::from(track.audio.channels.max(1));
    let header = || gst::Buffer::from_slice(track.header.clone());
    match track.codec {
        Codec::H264 => gst::Caps::builder("video/x-h264")
            .field("stream-format", "avc")
            .field("alignment", "au")
            .field("codec_data", header())
            .build(),
        Codec::Hevc => gst::Caps::builder("video/x-h265")
            .field("stream-format", "hvc1")
            .field("alignment", "au")
            .field("codec_data", header())
            .build(),
        Codec::Jpeg => gst::Caps::new_empty_simple("image/jpeg"),
        Codec::Aac => gst::Caps::builder("audio/mpeg")
            .field("mpegversion", 4)
            .field("stream-format", "raw")
            .field("framed", true)
            .field("rate", signed(rate(48_000)))
            .field("channels", channels)
            .field("codec_data", header())
            .build(),
        Codec::Opus => gst::Caps::builder("audio/x-opus")
            .field("channel-mapping-family", 0)
            .field("channels", channels)
            .field("rate", 48_000)
            .build(),
        codec => {
            let media = if codec == Codec::PcmA { "audio/x-alaw" } else { "audio/x-mulaw" };
            gst::Caps::builder(media).field("rate", signed(rate(8_000))).field("channels", channels).build()
        }
    }
}
