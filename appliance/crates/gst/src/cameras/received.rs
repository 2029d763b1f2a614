//! A container whose bytes the gateway hands over: pieces come as asks, and each is answered when the pipeline has taken
//! it, so that nothing is lost and nobody sends faster than it is taken apart.

use super::Camera;
use super::container::{self, Entry, HEAD, Treatments};
use crate::elements;
use crate::error::WorkError;
use crate::outlet::Outlet;
use crate::pipeline::chain;
use crate::stream::Stream;
use crate::video_path;
use bytes::Bytes;
use fieldgate_model::job::{EncoderTrial, Received};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// The gateway starts this worker when it has the first bytes.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
const WAIT_STEP: Duration = Duration::from_millis(200);
/// What waits inside before a piece is answered.
const SOURCE_BYTES: u64 = 1 << 20;

pub(super) fn build(
    settings: &Received,
    outlet: &Outlet,
    asks: Receiver<Bytes>,
    tell: impl FnMut(&[EncoderTrial]),
) -> Result<Camera, WorkError> {
    let head = head(outlet, &asks)?;
    let demuxer_name = container::demuxer(&head).ok_or(WorkError::Setting {
        setting: "source",
        got: "no container that is known here".into(),
        remedy: "have its publisher send WebM or Matroska, fragmented MP4, FLV or MPEG-TS",
    })?;
    elements::require(&["appsrc", "queue", "appsink", demuxer_name])?;
    let treat =
        Treatments { video: video_path::prepared(&settings.video, tell)?, audio: settings.audio.clone() };
    let pipeline = gst::Pipeline::new();
    let source = gst_app::AppSrc::builder()
        .name("camera")
        .format(gst::Format::Bytes)
        .stream_type(gst_app::AppStreamType::Stream)
        .block(true)
        .max_bytes(SOURCE_BYTES)
        .build();
    let demuxer = crate::pipeline::make(demuxer_name, &[])?;
    chain(&pipeline, &[source.as_ref(), &demuxer])?;
    container::take_tracks(&demuxer, &pipeline, outlet, Stream::new(outlet.clone()), treat, Entry::AsItComes);
    let outlet = outlet.clone();
    let feed = move || {
        let mut pieces = std::iter::once(head).chain(asks.iter());
        // An empty piece is the end. It refuses only while the pipeline stops.
        while let Some(piece) = pieces.next().filter(|piece| !piece.is_empty()) {
            if source.push_buffer(gst::Buffer::from_slice(piece)).is_err() {
                return;
            }
            outlet.answer(Vec::new());
        }
        source.end_of_stream().ok();
    };
    let thread = std::thread::Builder::new().name("feed".into()).stack_size(256 << 10).spawn(feed);
    thread.map_err(|error| WorkError::Element { element: "feed".into(), text: error.to_string() })?;
    Ok(Camera::new(pipeline, format!("{demuxer_name} of what is received")))
}

/// The beginning, long enough to know the container; its last piece is still to be answered.
fn head(outlet: &Outlet, asks: &Receiver<Bytes>) -> Result<Bytes, WorkError> {
    let mut head = Vec::new();
    for _ in 0..HEAD_WITHIN.as_millis() / WAIT_STEP.as_millis() {
        outlet.pulse();
        match asks.recv_timeout(WAIT_STEP) {
            Ok(piece) if piece.is_empty() => break,
            Ok(piece) => {
                head.extend_from_slice(&piece);
                if head.len() >= HEAD {
                    return Ok(head.into());
                }
                outlet.answer(Vec::new());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Err(WorkError::Ended)
}
