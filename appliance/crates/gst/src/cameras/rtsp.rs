//! A network camera. Its media passes as it is where that will do.
//!
//! There are two ways in. Over TCP, where nothing has to be decoded, a session of our own in safe Rust costs a quarter
//! of what GStreamer's elements do. Over UDP, and for what is encoded here, it is GStreamer's `rtspsrc`.

mod direct;
mod element;
mod notice;

pub(crate) use direct::Running;
pub(super) use element::{Encoding, Treatments, attach, require_depayloaders};
pub(crate) use notice::Notice;

use super::Camera;
use crate::error::WorkError;
use crate::outlet::Outlet;
use crate::stream::Stream;
use crate::video_path;
use fieldgate_model::job::{EncoderTrial, RtspCamera, RtspTransport, VideoTreatment};
use notice::Teller;
use std::sync::mpsc::Receiver;

/// An RTSP camera's session beside its pipeline.
pub(crate) struct Session {
    /// What it has to say.
    pub(crate) notices: Receiver<Notice>,
    /// Ends with it; `None` where the pipeline has the session.
    direct: Option<Running>,
    settings: RtspCamera,
    treat: Treatments,
    outlet: Outlet,
    teller: Teller,
}

pub(super) fn build(
    settings: &RtspCamera,
    outlet: &Outlet,
    tell: impl FnMut(&[EncoderTrial]),
) -> Result<(Camera, Session), WorkError> {
    check(settings)?;
    let treat =
        Treatments { video: video_path::prepared(&settings.video, tell)?, audio: settings.audio.clone() };
    let pipeline = gst::Pipeline::new();
    let (teller, notices) = Teller::new();
    let mut session =
        Session { notices, direct: None, settings: settings.clone(), treat, outlet: outlet.clone(), teller };
    if passes(settings) {
        let (stream, outlet, teller) = (Stream::new(outlet.clone()), outlet.clone(), session.teller.clone());
        session.direct = Some(direct::start(settings, stream, outlet, teller)?);
    } else {
        session.use_elements(&pipeline)?;
    }
    let source = format!("RTSP from {}", settings.address);
    Ok((Camera::new(pipeline, source), session))
}

impl Session {
    /// Goes on with GStreamer's elements, in a connection of their own.
    pub(crate) fn use_elements(&mut self, pipeline: &gst::Pipeline) -> Result<(), WorkError> {
        self.direct = None;
        let (stream, treat) = (Stream::new(self.outlet.clone()), self.treat.clone());
        element::add(pipeline, &self.settings, &self.outlet, treat, stream, &self.teller)
    }
}

/// Whether what comes over one connection may pass as it is; whether its sound does shows when it is described.
fn passes(settings: &RtspCamera) -> bool {
    settings.transport == RtspTransport::Tcp
        && matches!(settings.video, VideoTreatment::Pass(_) | VideoTreatment::PassOr(..))
}

fn check(settings: &RtspCamera) -> Result<(), WorkError> {
    let got = settings.latency_ms;
    if got > 10_000 {
        return Err(WorkError::Setting { setting: "latency_ms", got: got.to_string(), remedy: "0 to 10000" });
    }
    if !settings.path.starts_with('/') || settings.path.chars().any(char::is_control) {
        return Err(WorkError::Setting {
            setting: "path",
            got: "something else".into(),
            remedy: "begin with a slash, without control characters",
        });
    }
    Ok(())
}
