//! A local capture device: what it encodes itself may pass, everything else is encoded here.

mod abilities;
mod controls;
mod mode;

pub(crate) use abilities::probe;

use super::Camera;
use crate::elements;
use crate::error::WorkError;
use crate::microphone;
use crate::outlet::Outlet;
use crate::pipeline::{appsink, chain, filter, make};
use crate::stream::Stream;
use crate::timeline::DecodeTimes;
use crate::video_path::{self, Coded};
use fieldgate_media::TrackId;
use fieldgate_model::job::{EncoderTrial, V4l2Camera, V4l2Format, Work};
use gst::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

pub(super) fn build(
    settings: &V4l2Camera,
    outlet: &Outlet,
    tell: impl FnMut(&[EncoderTrial]),
) -> Result<Camera, WorkError> {
    elements::require(&["v4l2src", "capsfilter", "appsink"])?;
    let source = make("v4l2src", &[("name", "camera")])?;
    source.set_property("device", settings.device.to_string_lossy().as_ref());
    let offered = offered(&source)?;
    let mode = mode::choose(&offered, settings).ok_or_else(|| mode::refusal(&offered, settings))?;
    controls::apply(&settings.device, &settings.controls, &BTreeSet::new())?;

    let pipeline = gst::Pipeline::new();
    let stream = Stream::new(outlet.clone());
    stream.expect(TrackId::VIDEO);
    let sink = appsink("video");
    let described = mode.describe(settings);
    let mut all = vec![source, filter(mode.caps)?];
    let coded = match mode.format {
        V4l2Format::H264 => Coded::H264,
        V4l2Format::Hevc => Coded::Hevc,
        V4l2Format::Mjpeg => Coded::Jpeg,
        V4l2Format::Raw | V4l2Format::Auto => Coded::Raw,
    };
    all.extend(video_path::elements(coded, &settings.video, mode.pictures, tell)?);
    all.push(sink.clone().upcast());
    chain(&pipeline, &all.iter().collect::<Vec<_>>())?;
    stream.attach(&sink, TrackId::VIDEO, DecodeTimes::Given);
    let microphone = microphone::add(&pipeline, &stream, &settings.microphone, &settings.audio)?;
    Ok(Camera { microphone, ..Camera::new(pipeline, described) })
}

/// Opens the device and asks what it can do.
fn offered(source: &gst::Element) -> Result<gst::Caps, WorkError> {
    let bus = gst::Bus::new();
    source.set_bus(Some(&bus));
    let ready = source.set_state(gst::State::Ready);
    let caps = source.static_pad("src").map(|pad| pad.query_caps(None));
    let error = bus.pop_filtered(&[gst::MessageType::Error]);
    source.set_bus(None);
    if let Some(gst::MessageView::Error(error)) = error.as_ref().map(|message| message.view()) {
        let _ = source.set_state(gst::State::Null);
        return Err(crate::pipeline::element_error(error));
    }
    ready?;
    caps.ok_or(WorkError::Ended)
}

/// What was set on a device that runs.
#[derive(Debug)]
pub(crate) struct Controls {
    device: PathBuf,
    names: BTreeSet<String>,
}

impl Controls {
    /// As this work sets them at its start.
    pub(crate) fn of(work: &Work) -> Option<Controls> {
        let Work::V4l2(settings) = work else { return None };
        Some(Controls { device: settings.device.clone(), names: settings.controls.keys().cloned().collect() })
    }

    /// Sets these instead. Where one is refused nothing is changed.
    pub(crate) fn change(&mut self, wishes: &BTreeMap<String, i64>) -> Result<(), WorkError> {
        controls::apply(&self.device, wishes, &self.names)?;
        self.names = wishes.keys().cloned().collect();
        Ok(())
    }
}
