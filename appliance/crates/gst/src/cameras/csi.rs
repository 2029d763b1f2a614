//! A camera on the board's own connector, by libcamera's element. What it gives is raw: pictures are encoded here.

use super::Camera;
use crate::elements;
use crate::encoders::Pictures;
use crate::error::WorkError;
use crate::microphone;
use crate::outlet::Outlet;
use crate::pipeline::{appsink, chain, filter, make};
use crate::stream::Stream;
use crate::timeline::DecodeTimes;
use crate::video_path::{self, Coded};
use fieldgate_media::TrackId;
use fieldgate_model::job::{CsiCamera, EncoderTrial};
use gst::prelude::*;

pub(super) fn build(
    settings: &CsiCamera,
    outlet: &Outlet,
    tell: impl FnMut(&[EncoderTrial]),
) -> Result<Camera, WorkError> {
    elements::require(&["libcamerasrc", "capsfilter", "appsink"])?;
    let CsiCamera { width, height, frame_rate, .. } = *settings;
    let source = make("libcamerasrc", &[("name", "camera")])?;
    if !settings.camera.is_empty() {
        source.set_property("camera-name", settings.camera.as_str());
    }
    let pipeline = gst::Pipeline::new();
    let stream = Stream::new(outlet.clone());
    stream.expect(TrackId::VIDEO);
    let sink = appsink("video");
    let pictures = Pictures { width, height, frame_rate };
    let mut all = vec![source, filter(wanted(pictures))?];
    all.extend(video_path::elements(Coded::Raw, &settings.video, pictures, tell)?);
    all.push(sink.clone().upcast());
    chain(&pipeline, &all.iter().collect::<Vec<_>>())?;
    stream.attach(&sink, TrackId::VIDEO, DecodeTimes::Given);
    let microphone = microphone::add(&pipeline, &stream, &settings.microphone, &settings.audio)?;
    let name = if settings.camera.is_empty() { "the first" } else { &settings.camera };
    let described = format!("libcamera {name} {width}x{height} at {frame_rate}/s");
    Ok(Camera { microphone, ..Camera::new(pipeline, described) })
}

/// Of these pictures any layout that the sensor's processor gives: it is converted for the encoder. Libcamera asks for
/// the largest that is accepted here; where the processor cannot make just that, the nearest smaller one comes.
fn wanted(pictures: Pictures) -> gst::Caps {
    let up_to = |value: u32| gst::IntRange::new(1, i32::try_from(value).unwrap_or(i32::MAX).max(2));
    let frame_rate = i32::try_from(pictures.frame_rate).unwrap_or(i32::MAX);
    gst::Caps::builder("video/x-raw")
        .field("width", up_to(pictures.width))
        .field("height", up_to(pictures.height))
        .field("framerate", gst::Fraction::new(frame_rate, 1))
        .build()
}
