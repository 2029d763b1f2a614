//! The built-in test camera: a moving ball, a burnt-in clock, a tone.

use super::Camera;
use crate::audio_path::{self, CodedSound};
use crate::elements;
use crate::encoders::{self, Pictures};
use crate::error::WorkError;
use crate::glyphs;
use crate::microphone;
use crate::outlet::Outlet;
use crate::picture::Painter;
use crate::pipeline::{appsink, chain, filter, make};
use crate::stream::Stream;
use crate::timeline::DecodeTimes;
use crate::video_path::{self, Coded};
use fieldgate_media::TrackId;
use fieldgate_model::job::{AudioTreatment, EncoderTrial, TestCamera};
use gst::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) fn build(
    settings: &TestCamera,
    outlet: &Outlet,
    tell: impl FnMut(&[EncoderTrial]),
) -> Result<Camera, WorkError> {
    check(settings)?;
    elements::require(&["videotestsrc", "capsfilter", "appsink"])?;
    let pictures =
        Pictures { width: settings.width, height: settings.height, frame_rate: settings.frame_rate };
    let pipeline = gst::Pipeline::new();
    let stream = Stream::new(outlet.clone());
    stream.expect(TrackId::VIDEO);

    let source = make("videotestsrc", &[("is-live", "true"), ("pattern", "black")])?;
    paint(&source, settings)?;
    let sink = appsink("video");
    let mut all = vec![source, filter(encoders::raw_caps(pictures))?];
    all.extend(video_path::elements(Coded::Raw, &settings.video, pictures, tell)?);
    all.push(sink.clone().upcast());
    chain(&pipeline, &all.iter().collect::<Vec<_>>())?;
    stream.attach(&sink, TrackId::VIDEO, DecodeTimes::Given);

    let microphone = microphone::add(&pipeline, &stream, &settings.microphone, &settings.audio)?;
    if settings.sound && settings.microphone.is_empty() && audio_path::is_wanted(&settings.audio) {
        stream.expect(TrackId::AUDIO);
        add_tone(&pipeline, &stream, &settings.audio)?;
    }
    let source = format!("test picture {}x{} at {}/s", settings.width, settings.height, settings.frame_rate);
    Ok(Camera { microphone, ..Camera::new(pipeline, source) })
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

fn add_tone(pipeline: &gst::Pipeline, stream: &Stream, treat: &AudioTreatment) -> Result<(), WorkError> {
    elements::require(&["audiotestsrc", "audioconvert"])?;
    let raw = gst::Caps::builder("audio/x-raw").field("rate", 48_000).field("channels", 2).build();
    let sink = appsink("audio");
    // One AAC frame per buffer.
    let tone = make("audiotestsrc", &[("is-live", "true"), ("volume", "0.1"), ("samplesperbuffer", "1024")])?;
    let mut all = vec![tone, make("audioconvert", &[])?, filter(raw)?];
    all.extend(audio_path::elements(CodedSound::Raw, treat)?);
    all.push(sink.clone().upcast());
    chain(pipeline, &all.iter().collect::<Vec<_>>())?;
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
