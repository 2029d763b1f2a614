//! A network camera. Its media passes as it is: depacketised, never decoded.

use super::Camera;
use crate::elements;
use crate::error::WorkError;
use crate::outlet::Outlet;
use crate::pipeline::{appsink, filter, h264_caps, make};
use crate::stream::Stream;
use crate::timeline::DecodeTimes;
use fieldgate_hub::link::LogLevel;
use fieldgate_media::TrackId;
use fieldgate_model::job::{RtspCamera, RtspTransport};
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
    parser: Option<&'static str>,
    caps: &'static str,
}

const ENCODINGS: [Encoding; 6] = [
    Encoding {
        media: "video",
        name: "H264",
        depayloader: "rtph264depay",
        parser: Some("h264parse"),
        caps: "video/x-h264,stream-format=avc,alignment=au",
    },
    Encoding {
        media: "video",
        name: "H265",
        depayloader: "rtph265depay",
        parser: Some("h265parse"),
        caps: "video/x-h265,stream-format=hvc1,alignment=au",
    },
    Encoding {
        media: "audio",
        name: "MPEG4-GENERIC",
        depayloader: "rtpmp4gdepay",
        parser: Some("aacparse"),
        caps: "audio/mpeg,mpegversion=4,stream-format=raw,framed=true",
    },
    Encoding {
        media: "audio",
        name: "PCMA",
        depayloader: "rtppcmadepay",
        parser: None,
        caps: "audio/x-alaw",
    },
    Encoding {
        media: "audio",
        name: "PCMU",
        depayloader: "rtppcmudepay",
        parser: None,
        caps: "audio/x-mulaw",
    },
    Encoding {
        media: "audio",
        name: "OPUS",
        depayloader: "rtpopusdepay",
        parser: Some("opusparse"),
        caps: "audio/x-opus",
    },
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

pub(super) fn build(settings: &RtspCamera, outlet: &Outlet) -> Result<Camera, WorkError> {
    check(settings)?;
    require(settings.transport)?;
    let pipeline = gst::Pipeline::new();
    let stream = Stream::new(outlet.clone());
    let source = source(settings)?;
    pipeline.add(&source)?;

    let taken = Mutex::new(Vec::<TrackId>::new());
    let (promised, log, sound) = (stream.clone(), outlet.clone(), settings.sound);
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
        let attached = Encoding::of(&caps).map(|encoding| attach(&pipeline, pad, encoding, &stream));
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
        names.extend(encoding.parser);
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
    stream: &Stream,
) -> Result<(), WorkError> {
    let sink = appsink(encoding.media);
    let mut all = vec![make(encoding.depayloader, &[])?];
    if let Some(parser) = encoding.parser {
        all.push(make(parser, &[])?);
    }
    let caps = if encoding.name == "H264" { h264_caps() } else { encoding.caps.parse::<gst::Caps>()? };
    all.push(filter(caps)?);
    all.push(sink.clone().upcast());
    pipeline.add_many(&all)?;
    gst::Element::link_many(&all)?;
    stream.attach(&sink, encoding.track(), DecodeTimes::Made);
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
