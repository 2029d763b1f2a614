//! A network camera by GStreamer's elements: over UDP, where late and disordered packets have to be waited for, and
//! wherever something is decoded.

use super::notice::{Notice, Teller};
use crate::audio_path::{self, CodedSound};
use crate::cameras::UDP_BUFFER;
use crate::elements;
use crate::encoders::Pictures;
use crate::error::WorkError;
use crate::outlet::Outlet;
use crate::pipeline::{appsink, begin_behind, make};
use crate::stream::Stream;
use crate::timeline::DecodeTimes;
use crate::video_path::{self, Coded};
use fieldgate_hub::link::LogLevel;
use fieldgate_media::TrackId;
use fieldgate_model::job::{AudioTreatment, RtspCamera, RtspTransport, VideoTreatment};
use gst::prelude::*;
use std::sync::{Mutex, PoisonError};

/// Microseconds without an answer on the RTSP connection.
const TCP_TIMEOUT_US: u64 = 10_000_000;

/// One RTP encoding that the gateway carries, and how it becomes units.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cameras) struct Encoding {
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
pub(in crate::cameras) struct Treatments {
    pub(in crate::cameras) video: VideoTreatment,
    pub(in crate::cameras) audio: AudioTreatment,
}

const fn encoding(name: &'static str, depayloader: &'static str, form: Form) -> Encoding {
    let media = match form {
        Form::Picture(_) => "video",
        Form::Sound(_) => "audio",
    };
    Encoding { media, name, depayloader, form }
}

const ENCODINGS: [Encoding; 8] = [
    encoding("H264", "rtph264depay", Form::Picture(Coded::H264)),
    encoding("H265", "rtph265depay", Form::Picture(Coded::Hevc)),
    encoding("JPEG", "rtpjpegdepay", Form::Picture(Coded::Jpeg)),
    encoding("MPEG4-GENERIC", "rtpmp4gdepay", Form::Sound(CodedSound::Aac)),
    encoding("PCMA", "rtppcmadepay", Form::Sound(CodedSound::PcmA)),
    encoding("PCMU", "rtppcmudepay", Form::Sound(CodedSound::PcmU)),
    encoding("OPUS", "rtpopusdepay", Form::Sound(CodedSound::Opus)),
    encoding("L16", "rtpL16depay", Form::Sound(CodedSound::Raw)),
];

impl Encoding {
    /// The encoding of a stream as its SDP describes it.
    pub(in crate::cameras) fn of(caps: &gst::CapsRef) -> Option<&'static Encoding> {
        let fields = caps.structure(0)?;
        let media = fields.get::<String>("media").ok()?;
        // Static payload types may come without a name.
        let name = fields.get::<String>("encoding-name").ok().or_else(|| {
            let known = match fields.get::<i32>("payload").ok()? {
                0 => "PCMU",
                8 => "PCMA",
                10 | 11 => "L16",
                26 => "JPEG",
                _ => return None,
            };
            Some(known.to_owned())
        })?;
        ENCODINGS.iter().find(|known| known.media == media && known.name.eq_ignore_ascii_case(&name))
    }

    pub(in crate::cameras) fn track(&self) -> TrackId {
        if self.media == "video" { TrackId::VIDEO } else { TrackId::AUDIO }
    }
}

/// Adds the camera to a pipeline.
pub(super) fn add(
    pipeline: &gst::Pipeline,
    settings: &RtspCamera,
    outlet: &Outlet,
    treat: Treatments,
    stream: Stream,
    tell: &Teller,
) -> Result<(), WorkError> {
    require(settings.transport)?;
    let source = source(settings)?;
    pipeline.add(&source)?;

    let taken = Mutex::new(Vec::<(TrackId, &'static Encoding)>::new());
    let (promised, log, audio) = (stream.clone(), outlet.clone(), treat.audio.clone());
    // Raw sound is carried nowhere: it is taken only to be encoded.
    let sound = move |encoding: &Encoding| match &audio {
        AudioTreatment::Pass => encoding.form != Form::Sound(CodedSound::Raw),
        audio => audio_path::is_wanted(audio),
    };
    let (teller, camera) = (tell.clone(), settings.clone());
    source.connect("select-stream", false, move |args| {
        let caps = args.get(2).and_then(|value| value.get::<gst::Caps>().ok());
        let encoding = caps.as_ref().and_then(|caps| Encoding::of(caps));
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        // The first of each kind; others (a second video, ONVIF metadata) are left out.
        let encoding = encoding.filter(|encoding| sound(encoding) || encoding.track() != TrackId::AUDIO);
        let is_new = |encoding: &&Encoding| taken.iter().all(|(track, _)| *track != encoding.track());
        let take = encoding.filter(is_new);
        match take {
            Some(encoding) => {
                taken.push((encoding.track(), encoding));
                promised.expect(encoding.track());
                let codecs: Vec<String> =
                    taken.iter().map(|(_, encoding)| encoding.name.to_owned()).collect();
                teller.source(
                    &camera,
                    transport_name(camera.transport),
                    &codecs,
                    &text(caps.as_deref(), "a-tool"),
                );
            }
            None => log.log(LogLevel::Info, &format!("left out: {}", describe(caps.as_deref()))),
        }
        Some(take.is_some().to_value())
    });

    let (weak, log, teller) = (pipeline.downgrade(), outlet.clone(), tell.clone());
    let attached = Mutex::new(Vec::<&'static Encoding>::new());
    source.connect_pad_added(move |_, pad| {
        let Some(pipeline) = weak.upgrade() else { return };
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let Some(encoding) = Encoding::of(&caps) else { return };
        let mut attached = attached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(was) = attached.iter().find(|was| was.track() == encoding.track()) {
            let was = was.name.to_owned();
            return teller.tell(Notice::Failed(WorkError::OtherCodec { was }));
        }
        attached.push(encoding);
        if encoding.form == Form::Picture(Coded::Jpeg) && matches!(treat.video, VideoTreatment::Pass(_)) {
            return teller.tell(Notice::Failed(WorkError::NeedsEncoder));
        }
        if let Err(error) = attach(&pipeline, pad, encoding, &treat, &stream) {
            log.log(LogLevel::Warn, &format!("{}: {error}", describe(Some(&caps))));
        }
    });
    source.sync_state_with_parent()?;
    Ok(())
}

fn transport_name(transport: RtspTransport) -> &'static str {
    match transport {
        RtspTransport::Tcp => "TCP",
        RtspTransport::Udp => "UDP",
    }
}

/// All at once and before connecting, so that nothing is missing in the middle of a stream.
fn require(transport: RtspTransport) -> Result<(), WorkError> {
    let mut names = vec!["rtspsrc", "rtpbin", "capsfilter", "appsink"];
    if transport == RtspTransport::Udp {
        names.extend(["udpsrc", "udpsink"]);
    }
    // rtspsrc makes fakesinks for streams that are not taken.
    names.push("fakesink");
    elements::require(&names)?;
    require_depayloaders()
}

/// What every kind of RTP may need.
pub(in crate::cameras) fn require_depayloaders() -> Result<(), WorkError> {
    let names: Vec<&str> = ENCODINGS.iter().map(|encoding| encoding.depayloader).collect();
    elements::require(&names)
}

fn source(settings: &RtspCamera) -> Result<gst::Element, WorkError> {
    let protocols = match settings.transport {
        RtspTransport::Tcp => "tcp",
        RtspTransport::Udp => "udp",
    };
    let source = make("rtspsrc", &[("name", "camera"), ("protocols", protocols)])?;
    source
        .set_property("location", format!("rtsp://{}{}{}", login(settings), settings.address, settings.path));
    source.set_property("latency", settings.latency_ms);
    if settings.transport == RtspTransport::Tcp {
        // The camera's own timestamps as they are. The usual correction towards our clock takes the order of B-frames
        // for drift and bends them by milliseconds. Over UDP it is needed: how long to wait for a packet depends on it.
        source.set_property_from_str("buffer-mode", "none");
    }
    source.set_property("udp-buffer-size", UDP_BUFFER as i32);
    source.set_property("tcp-timeout", TCP_TIMEOUT_US);
    // The camera's own wall clock, where its sender reports tell it; from 1.22 on.
    if source.find_property("add-reference-timestamp-meta").is_some() {
        source.set_property("add-reference-timestamp-meta", true);
    }
    Ok(source)
}

/// What stands before the address. A refused login that is given by the element's properties is tried eight times
/// before it gives up, one in the URL once.
fn login(settings: &RtspCamera) -> String {
    if settings.user.is_empty() {
        return String::new();
    }
    let encoded = |text: &str| -> String {
        let encode = |byte: u8| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        };
        text.bytes().map(encode).collect()
    };
    format!("{}:{}@", encoded(&settings.user), encoded(&settings.password.0))
}

pub(in crate::cameras) fn attach(
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
    begin_behind(pad, &all)
}

fn describe(caps: Option<&gst::CapsRef>) -> String {
    format!("{} {}", text(caps, "media"), text(caps, "encoding-name"))
}

fn text(caps: Option<&gst::CapsRef>, name: &str) -> String {
    let fields = caps.and_then(|caps| caps.structure(0));
    fields.and_then(|fields| fields.get::<String>(name).ok()).unwrap_or_default()
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
        assert_eq!(encoding("application/x-rtp,media=video,payload=26"), Some("JPEG"));
        assert_eq!(encoding("application/x-rtp,media=audio,payload=11"), Some("L16"));
    }
}
