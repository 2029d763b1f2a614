//! The built-in test camera: a moving ball, a burnt-in clock, a tone.

use super::Camera;
use crate::elements;
use crate::encoders::{self, Pictures};
use crate::error::WorkError;
use crate::glyphs;
use crate::outlet::Outlet;
use crate::picture::Painter;
use crate::pipeline::{appsink, chain, filter, make};
use crate::stream::Stream;
use crate::timeline::DecodeTimes;
use fieldgate_media::TrackId;
use fieldgate_model::job::{EncoderTrial, TestCamera};
use gst::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

const AAC_ENCODERS: [&str; 3] = ["voaacenc", "fdkaacenc", "avenc_aac"];
const AAC_BITRATE: &str = "96000";

pub(super) fn build(
    settings: &TestCamera,
    outlet: &Outlet,
    tell: impl FnMut(&[EncoderTrial]),
) -> Result<Camera, WorkError> {
    check(settings)?;
    elements::require(&["videotestsrc", "queue", "capsfilter", "appsink"])?;
    let pictures =
        Pictures { width: settings.width, height: settings.height, frame_rate: settings.frame_rate };
    let encoder = encoders::prove(&settings.encoder, pictures, tell)?;
    let pipeline = gst::Pipeline::new();
    let stream = Stream::new(outlet.clone());
    stream.expect(TrackId::VIDEO);

    let source = make("videotestsrc", &[("is-live", "true"), ("pattern", "black")])?;
    paint(&source, settings)?;
    let sink = appsink("video");
    let mut all = vec![source, filter(encoders::raw_caps(pictures))?, queue()?];
    all.extend(encoders::encoder(encoder, &settings.encoder, pictures)?);
    all.push(sink.clone().upcast());
    chain(&pipeline, &all.iter().collect::<Vec<_>>())?;
    stream.attach(&sink, TrackId::VIDEO, DecodeTimes::Given);

    if settings.sound {
        stream.expect(TrackId::AUDIO);
        add_tone(&pipeline, &stream)?;
    }
    let source = format!("test picture {}x{} at {}/s", settings.width, settings.height, settings.frame_rate);
    Ok(Camera { pipeline, source })
}

fn check(settings: &TestCamera) -> Result<(), WorkError> {
    let sides = [("width", settings.width), ("height", settings.height)];
    for (setting, got) in sides {
        if !(16..=8192).contains(&got) || got % 2 != 0 {
            return Err(WorkError::Setting { setting, got: got.to_string(), remedy: "even, 16 to 8192" });
        }
    }
    if !(1..=240).contains(&settings.frame_rate) {
        let got = settings.frame_rate.to_string();
        return Err(WorkError::Setting { setting: "frame_rate", got, remedy: "1 to 240" });
    }
    Ok(())
}

/// Between source and encoder, so that a slow encoder does not hold the source's clock; the oldest go.
fn queue() -> Result<gst::Element, WorkError> {
    make(
        "queue",
        &[
            ("max-size-buffers", "4"),
            ("max-size-bytes", "0"),
            ("max-size-time", "0"),
            ("leaky", "downstream"),
        ],
    )
}

fn add_tone(pipeline: &gst::Pipeline, stream: &Stream) -> Result<(), WorkError> {
    elements::require(&["audiotestsrc", "audioconvert", "aacparse"])?;
    let name = AAC_ENCODERS.into_iter().find(|name| elements::load(name));
    let name = name.ok_or_else(|| {
        WorkError::Missing("voaacenc (gstreamer1.0-plugins-bad) or another AAC encoder".into())
    })?;
    let raw = gst::Caps::builder("audio/x-raw").field("rate", 48_000).field("channels", 2).build();
    let aac = gst::Caps::builder("audio/mpeg")
        .field("mpegversion", 4)
        .field("stream-format", "raw")
        .field("framed", true)
        .build();
    let sink = appsink("audio");
    chain(
        pipeline,
        &[
            // One AAC frame per buffer.
            &make("audiotestsrc", &[("is-live", "true"), ("volume", "0.1"), ("samplesperbuffer", "1024")])?,
            &make("audioconvert", &[])?,
            &filter(raw)?,
            &make(name, &[("bitrate", AAC_BITRATE)])?,
            &make("aacparse", &[])?,
            &filter(aac)?,
            sink.upcast_ref(),
        ],
    )?;
    stream.attach(&sink, TrackId::AUDIO, DecodeTimes::Given);
    Ok(())
}

/// Paints every picture, with wall clock and picture number.
fn paint(source: &gst::Element, settings: &TestCamera) -> Result<(), WorkError> {
    let pad = source.static_pad("src").ok_or(WorkError::Ended)?;
    let side = |pixels: u32| usize::try_from(pixels).unwrap_or(0);
    let painter = Painter::new(side(settings.width), side(settings.height));
    let number = AtomicU64::new(0);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
            let number = number.fetch_add(1, Ordering::Relaxed);
            let text = format!("{} #{number:07}", glyphs::clock_text(gst::glib::real_time()));
            if let Ok(mut map) = buffer.make_mut().map_writable() {
                painter.paint(&mut map, number, &text);
            }
        }
        gst::PadProbeReturn::Ok
    });
    Ok(())
}
