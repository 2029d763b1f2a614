//! A file that is played at the speed of life, again and again.

use super::Camera;
use super::container::{self, Entry, HEAD, Laps, Treatments};
use crate::elements;
use crate::error::WorkError;
use crate::outlet::Outlet;
use crate::pipeline::{chain, make};
use crate::stream::Stream;
use crate::video_path;
use fieldgate_model::job::{EncoderTrial, FileCamera};
use gst::prelude::*;
use std::io::Read;

pub(super) fn build(
    settings: &FileCamera,
    outlet: &Outlet,
    tell: impl FnMut(&[EncoderTrial]),
) -> Result<Camera, WorkError> {
    let unreadable =
        |remedy| WorkError::Setting { setting: "path", got: settings.path.display().to_string(), remedy };
    let mut head = Vec::new();
    std::fs::File::open(&settings.path)
        .and_then(|file| file.take(HEAD as u64).read_to_end(&mut head))
        .map_err(|_| unreadable("a file that the gateway may read"))?;
    let demuxer_name =
        container::demuxer(&head).ok_or_else(|| unreadable("an MP4, Matroska, FLV or MPEG-TS file"))?;
    elements::require(&["filesrc", "queue", "clocksync", "appsink", demuxer_name])?;
    let treat =
        Treatments { video: video_path::prepared(&settings.video, tell)?, audio: settings.audio.clone() };

    let pipeline = gst::Pipeline::new();
    let source = make("filesrc", &[("name", "camera")])?;
    source.set_property("location", settings.path.to_string_lossy().as_ref());
    let demuxer = make(demuxer_name, &[])?;
    chain(&pipeline, &[&source, &demuxer])?;
    let laps = settings.repeat.then(Laps::default);
    let stream = Stream::new(outlet.clone());
    container::take_tracks(&demuxer, &pipeline, outlet, stream, treat, Entry::InItsTime(laps));
    let source = format!("file {}", settings.path.display());
    Ok(Camera::new(pipeline, source))
}
