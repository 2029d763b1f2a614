//! A network camera. Its media passes as it is, depacketised and never decoded, unless its treatment says otherwise.

use super::Camera;
use crate::audio_path::{self, CodedSound};
use crate::elements;
use crate::encoders::Pictures;
use crate::error::WorkError;
use crate::outlet::Outlet;
use crate::pipeline::{appsink, make};
use crate::stream::Stream;
use crate::timeline::DecodeTimes;
use crate::video_path::{self, Coded};
use fieldgate_hub::link::LogLevel;
use fieldgate_media::TrackId;
use fieldgate_model::job::{AudioTreatment, EncoderTrial, RtspCamera, RtspTransport, VideoTreatment};
use gst::prelude::*;
use std::sync::{Mutex, PoisonError};

/// Microseconds without an answer on the RTSP connection.
const TCP_TIMEOUT_US: u64 = 10_000_000;

/// One RTP encoding that the gateway carries, and how it becomes units.
#[derive(Debug, PartialEq, Eq)]
struct Encoding {
    media: &'static str,
    name: &'static str,
    depayloader: &'static str,
    form: Form,
}

/// In what form its units come out of the depayloader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Picture(Coded),
    Sound(CodedSound),
}

/// What happens to the camera's media.
#[derive(Clone)]
struct Treatments {
    video: VideoTreatment,
    audio: AudioTreatment,
}

const fn encoding(name: &'static str, depayloader: &'static str, form: Form) -> Encoding {
    let media = match form {
        Form::Picture(_) => "video",
        Form::Sound(_) => "audio",
    };
    Encoding { media, name, depayloader, form }
}

const ENCODINGS: [Encoding; 6] = [
    encoding("H264", "rtph264depay", Form::Picture(Coded::H264)),
    encoding("H265", "rtph265depay", Form::Picture(Coded::Hevc)),
    encoding("MPEG4-GENERIC", "rtpmp4gdepay", Form::Sound(CodedSound::Aac)),
    encoding("PCMA", "rtppcmadepay", Form::Sound(CodedSound::PcmA)),
    encoding("PCMU", "rtppcmudepay", Form::Sound(CodedSound::PcmU)),
    encoding("OPUS", "rtpopusdepay", Form::Sound(CodedSound::Opus)),
];

impl Encoding {
    /// The encoding of a stream as its SDP describes it.
    fn of(caps: &gst::CapsRef) -> Option<&'static Encoding> {
        let fields = caps.structure(0)?;
        let media = fields.get::<String>("media").ok()?;
        // Static payload types may come without a name.
        let name = fields.get::<String>("encoding-name").ok().or_else(|| {
            let known = match fields.get::<i32>("payload").ok()? {
                0 => "PCMU",
                8 => "PCMA",
                _ => return None,
            };
            Some(known.to_owned())
        })?;
        ENCODINGS.iter().find(|known| known.media == media && known.name.eq_ignore_ascii_case(&name))
    }

    fn track(&self) -> TrackId {
        if self.media == "video" { TrackId::VIDEO } else { TrackId::AUDIO }
    }
}

pub(super) fn build(
    settings: &RtspCamera,
    outlet: &Outlet,
    tell: impl FnMut(&[EncoderTrial]),
) -> Result<Camera, WorkError> {
    check(settings)?;
    require(settings.transport)?;
    let video = video_path::prepared(&settings.video, tell)?;
    let treat = Treatments { video, audio: settings.audio.clone() };
    let pipeline = gst::Pipeline::new();
    let stream = Stream::new(outlet.clone());
    let source = source(settings)?;
    pipeline.add(&source)?;

    let taken = Mutex::new(Vec::<TrackId>::new());
    let (promised, log, sound) = (stream.clone(), outlet.clone(), audio_path::is_wanted(&settings.audio));
    source.connect("select-stream", false, move |args| {
        let caps = args.get(2).and_then(|value| value.get::<gst::Caps>().ok());
        let encoding = caps.as_ref().and_then(|caps| Encoding::of(caps));
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        // The first of each kind; others (a second video, ONVIF metadata) are left out.
        let track = encoding.map(Encoding::track).filter(|track| sound || *track != TrackId::AUDIO);
        let take = track.is_some_and(|track| !taken.contains(&track));
        match track.filter(|_| take) {
            Some(track) => {
                taken.push(track);
                promised.expect(track);
            }
            None => log.log(LogLevel::Info, &format!("left out: {}", describe(caps.as_deref()))),
        }
        Some(take.to_value())
    });

    let (weak, log) = (pipeline.downgrade(), outlet.clone());
    source.connect_pad_added(move |_, pad| {
        let Some(pipeline) = weak.upgrade() else { return };
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let attached = Encoding::of(&caps).map(|encoding| attach(&pipeline, pad, encoding, &treat, &stream));
        if let Some(Err(error)) = attached {
            log.log(LogLevel::Warn, &format!("{}: {error}", describe(Some(&caps))));
        }
    });
    let transport = match settings.transport {
        RtspTransport::Tcp => "TCP",
        RtspTransport::Udp => "UDP",
    };
    Ok(Camera { pipeline, source: format!("RTSP over {transport} from {}", settings.address) })
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

/// All at once and before connecting, so that nothing is missing in the middle of a stream.
fn require(transport: RtspTransport) -> Result<(), WorkError> {
    let mut names = vec!["rtspsrc", "rtpbin", "capsfilter", "appsink"];
    if transport == RtspTransport::Udp {
        names.extend(["udpsrc", "udpsink"]);
    }
    for encoding in &ENCODINGS {
        names.push(encoding.depayloader);
    }
    // rtspsrc makes fakesinks for streams that are not taken.
    names.push("fakesink");
    elements::require(&names)
}

fn source(settings: &RtspCamera) -> Result<gst::Element, WorkError> {
    let protocols = match settings.transport {
        RtspTransport::Tcp => "tcp",
        RtspTransport::Udp => "udp",
    };
    let source = make("rtspsrc", &[("name", "camera"), ("protocols", protocols)])?;
    source.set_property("location", format!("rtsp://{}{}", settings.address, settings.path));
    source.set_property("latency", settings.latency_ms);
    if settings.transport == RtspTransport::Tcp {
        // The camera's own timestamps as they are. The usual correction towards our clock takes the order of B-frames
        // for drift and bends them by milliseconds. Over UDP it is needed: how long to wait for a packet depends on it.
        source.set_property_from_str("buffer-mode", "none");
    }
    source.set_property("tcp-timeout", TCP_TIMEOUT_US);
    if !settings.user.is_empty() {
        source.set_property("user-id", &settings.user);
        source.set_property("user-pw", &settings.password.0);
    }
    // The camera's own wall clock, where its sender reports tell it; from 1.22 on.
    if source.find_property("add-reference-timestamp-meta").is_some() {
        source.set_property("add-reference-timestamp-meta", true);
    }
    Ok(source)
}

fn attach(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    encoding: &'static Encoding,
    treat: &Treatments,
    stream: &Stream,
) -> Result<(), WorkError> {
    let sink = appsink(encoding.media);
    let mut all = vec![make(encoding.depayloader, &[])?];
    let mut times = DecodeTimes::Made;
    match encoding.form {
        Form::Picture(coded) => {
            let unknown = Pictures { width: 0, height: 0, frame_rate: 0 };
            all.extend(video_path::elements(coded, &treat.video, unknown, |_| ())?);
            if video_path::encodes(coded, &treat.video) {
                times = DecodeTimes::Given;
            }
        }
        Form::Sound(coded) => all.extend(audio_path::elements(coded, &treat.audio)?),
    }
    all.push(sink.clone().upcast());
    pipeline.add_many(&all)?;
    gst::Element::link_many(&all)?;
    stream.attach(&sink, encoding.track(), times);
    for element in all.iter().rev() {
        element.sync_state_with_parent()?;
    }
    let entry = all.first().and_then(|first| first.static_pad("sink")).ok_or(WorkError::Ended)?;
    pad.link(&entry)
        .map_err(|error| WorkError::Element { element: "camera".into(), text: error.to_string() })?;
    Ok(())
}

fn describe(caps: Option<&gst::CapsRef>) -> String {
    let fields = caps.and_then(|caps| caps.structure(0));
    let text = |name| fields.and_then(|fields| fields.get::<String>(name).ok()).unwrap_or_default();
    format!("{} {}", text("media"), text("encoding-name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoding(caps: &str) -> Option<&'static str> {
        gst::init().unwrap();
        Encoding::of(&caps.parse::<gst::Caps>().unwrap()).map(|encoding| encoding.name)
    }

    #[test]
    fn streams_are_known_by_name_or_static_payload_type() {
        assert_eq!(encoding("application/x-rtp,media=video,encoding-name=H264,payload=96"), Some("H264"));
        assert_eq!(
            encoding("application/x-rtp,media=audio,encoding-name=mpeg4-generic"),
            Some("MPEG4-GENERIC")
        );
        assert_eq!(encoding("application/x-rtp,media=audio,payload=8"), Some("PCMA"));
        assert_eq!(encoding("application/x-rtp,media=audio,payload=0"), Some("PCMU"));
        assert_eq!(encoding("application/x-rtp,media=application,encoding-name=VND.ONVIF.METADATA"), None);
        assert_eq!(encoding("application/x-rtp,media=video,encoding-name=JPEG"), None);
    }
}
