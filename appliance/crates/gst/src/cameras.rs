//! One pipeline per kind of camera.

mod container;
mod csi;
mod file;
mod received;
mod rtp;
pub(crate) mod rtsp;
mod test;
mod v4l2;

pub(crate) use v4l2::{Controls, probe as probe_device};

use crate::error::WorkError;
use crate::intake::Intake;
use crate::microphone::Absent;
use crate::outlet::Outlet;
use crate::transcode;
use bytes::Bytes;
use fieldgate_model::job::{EncoderTrial, RefusedPackets, Work};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

/// Asked of the kernel for each UDP port, in bytes: the packets of a keyframe come at once. It gives no more than its
/// `net.core.rmem_max`, which `systemd/fieldgate.sysctl.conf` raises to this.
const UDP_BUFFER: u32 = 2 << 20;

/// A pipeline that is ready to start, and what to tell about it.
pub(crate) struct Camera {
    pub(crate) pipeline: gst::Pipeline,
    /// In a few words, for the status.
    pub(crate) source: String,
    /// What it has to tell while it plays.
    pub(crate) news: News,
    /// The microphone beside it, when it is not heard.
    pub(crate) microphone: Option<Absent>,
}

impl Camera {
    pub(crate) fn new(pipeline: gst::Pipeline, source: String) -> Camera {
        Camera { pipeline, source, news: News::default(), microphone: None }
    }
}

/// The newest that a camera has to tell. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct News(Arc<Mutex<Option<RefusedPackets>>>);

impl News {
    fn tell(&self, refused: RefusedPackets) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(refused);
    }

    /// What was told since it was last asked.
    pub(crate) fn take(&self) -> Option<RefusedPackets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Builds the pipeline for this work, with the session beside it where there is one; `asks` are for work that is handed
/// bytes, `tell` gets the encoder trials as they go. `None` for work without a stream.
pub(crate) fn build(
    work: &Work,
    outlet: &Outlet,
    intake: &Intake,
    asks: Option<Receiver<Bytes>>,
    tell: impl FnMut(&[EncoderTrial]),
) -> Result<Option<(Camera, Option<rtsp::Session>)>, WorkError> {
    let alone = |camera| Some((camera, None));
    match work {
        Work::Rtp(settings) => rtp::build(settings, outlet, tell).map(alone),
        Work::Csi(settings) => csi::build(settings, outlet, tell).map(alone),
        Work::File(settings) => file::build(settings, outlet, tell).map(alone),
        Work::Received(settings) => {
            received::build(settings, outlet, asks.ok_or(WorkError::Ended)?, tell).map(alone)
        }
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
