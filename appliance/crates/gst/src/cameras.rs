//! One pipeline per kind of camera.

mod file;
pub(crate) mod rtsp;
mod test;
mod v4l2;

pub(crate) use v4l2::{Controls, probe as probe_device};

use crate::error::WorkError;
use crate::intake::Intake;
use crate::outlet::Outlet;
use crate::transcode;
use fieldgate_model::job::{EncoderTrial, Work};

/// A pipeline that is ready to start, and what to tell about it.
pub(crate) struct Camera {
    pub(crate) pipeline: gst::Pipeline,
    /// In a few words, for the status.
    pub(crate) source: String,
}

/// Builds the pipeline for this work, with the session beside it where there is one; `tell` gets the encoder trials as
/// they go. `None` for work without a stream.
pub(crate) fn build(
    work: &Work,
    outlet: &Outlet,
    intake: &Intake,
    tell: impl FnMut(&[EncoderTrial]),
) -> Result<Option<(Camera, Option<rtsp::Session>)>, WorkError> {
    let alone = |camera| Some((camera, None));
    match work {
        Work::File(settings) => file::build(settings, outlet, tell).map(alone),
        Work::Test(settings) => test::build(settings, outlet, tell).map(alone),
        Work::ProbeEncoders(wish) => {
            crate::encoders::measure(wish, tell)?;
            Ok(None)
        }
        // Has no pipeline of its own: the main thread answers as it is asked.
        Work::Inspect(_) => Ok(None),
        Work::Transcode(settings) => transcode::build(settings, outlet, intake, tell).map(alone),
        // Its answer is no stream.
        Work::ProbeDevice(_) => Ok(None),
        Work::V4l2(settings) => v4l2::build(settings, outlet, tell).map(alone),
        Work::Rtsp(settings) => {
            rtsp::build(settings, outlet, tell).map(|(camera, session)| Some((camera, Some(session))))
        }
    }
}
