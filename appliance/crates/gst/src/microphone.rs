//! An ALSA microphone beside a camera. Without it the camera goes on: pictures never wait for sound.

use crate::audio_path::{self, CodedSound};
use crate::elements;
use crate::error::WorkError;
use crate::pipeline::{appsink, chain, make};
use crate::stream::Stream;
use crate::timeline::DecodeTimes;
use fieldgate_media::TrackId;
use fieldgate_model::job::AudioTreatment;
use gst::prelude::*;

/// One that is not heard.
#[derive(Debug)]
pub(crate) struct Absent {
    device: String,
    /// Why.
    pub(crate) cause: String,
}

/// Adds the microphone to a camera's pipeline. Returns it when it cannot be heard.
pub(crate) fn add(
    pipeline: &gst::Pipeline,
    stream: &Stream,
    device: &str,
    treat: &AudioTreatment,
) -> Result<Option<Absent>, WorkError> {
    if device.is_empty() || !audio_path::is_wanted(treat) {
        return Ok(None);
    }
    let source = match open(device) {
        Ok(source) => source,
        Err(error) => {
            let cause = format!("microphone {device}: {error}");
            return Ok(Some(Absent { device: device.to_owned(), cause }));
        }
    };
    stream.expect(TrackId::AUDIO);
    let sink = appsink("audio");
    let mut all = vec![source];
    all.extend(audio_path::elements(CodedSound::Raw, treat)?);
    all.push(sink.clone().upcast());
    chain(pipeline, &all.iter().collect::<Vec<_>>())?;
    stream.attach(&sink, TrackId::AUDIO, DecodeTimes::Given);
    Ok(None)
}

impl Absent {
    /// Whether it can be opened now.
    pub(crate) fn is_back(&self) -> bool {
        open(&self.device).is_ok_and(|source| source.set_state(gst::State::Null).is_ok())
    }

    /// What its coming means for the pipeline without it.
    pub(crate) fn ending(&self) -> WorkError {
        WorkError::Camera(format!("microphone {} is there now: beginning anew with it", self.device))
    }
}

/// Why a microphone is not heard.
#[derive(Debug, thiserror::Error)]
enum MicrophoneError {
    #[error("{0}")]
    Build(#[from] WorkError),
    #[error("in use by another program")]
    Busy,
    #[error("cannot be opened: {0}; `arecord -L` lists the microphones")]
    Open(String),
}

/// The element with the device open.
fn open(device: &str) -> Result<gst::Element, MicrophoneError> {
    elements::require(&["alsasrc"])?;
    let source = make("alsasrc", &[("name", "microphone"), ("device", device)])?;
    // The pictures' clock is the pipeline's: it must not change with what is plugged in beside the camera.
    source.set_property("provide-clock", false);
    let bus = gst::Bus::new();
    source.set_bus(Some(&bus));
    let ready = source.set_state(gst::State::Ready);
    let said = bus.pop_filtered(&[gst::MessageType::Error]);
    source.set_bus(None);
    if ready.is_ok() {
        return Ok(source);
    }
    let _ = source.set_state(gst::State::Null);
    Err(match said.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Error(error)) if error.error().matches(gst::ResourceError::Busy) => {
            MicrophoneError::Busy
        }
        Some(gst::MessageView::Error(error)) => {
            // The system's word for it stands at the end, behind the device.
            let (debug, text) = (error.debug().unwrap_or_default(), error.error());
            let tail = debug.rsplit_once("': ").map(|(_, tail)| tail.trim());
            MicrophoneError::Open(tail.unwrap_or(text.message()).to_owned())
        }
        _ => MicrophoneError::Open("it does not say why".to_owned()),
    })
}
