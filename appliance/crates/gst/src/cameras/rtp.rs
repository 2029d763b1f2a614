//! RTP that somebody sends to us by UDP, to one address or to a multicast group.
//!
//! ```text
//!  socket -> "rtp-PORT" thread: who sends, is it what was agreed -> appsrc ! rtpbin ! depayloader ...
//! ```
//! The sockets are our own, so that a stranger's packet is dropped by its address before anything looks into it.

mod control;
mod gate;
mod socket;

use super::rtsp::{Encoding, Treatments, attach, require_depayloaders};
use super::{Camera, News};
use crate::audio_path;
use crate::elements;
use crate::error::WorkError;
use crate::outlet::Outlet;
use crate::pipeline::make;
use crate::stream::Stream;
use crate::video_path;
use fieldgate_hub::link::LogLevel;
use fieldgate_media::TrackId;
use fieldgate_model::config::{RtpMedia, RtpStream};
use fieldgate_model::job::{EncoderTrial, RtpCamera};
use gate::{Gate, Sender};
use gst::prelude::*;
use socket::{Expected, Receiver};
use std::sync::{Arc, Mutex, PoisonError};

pub(super) fn build(
    settings: &RtpCamera,
    outlet: &Outlet,
    tell: impl FnMut(&[EncoderTrial]),
) -> Result<Camera, WorkError> {
    elements::require(&["appsrc", "rtpbin", "capsfilter", "appsink"])?;
    require_depayloaders()?;
    let treat =
        Treatments { video: video_path::prepared(&settings.video, tell)?, audio: settings.audio.clone() };
    let pipeline = gst::Pipeline::new();
    let bin = make("rtpbin", &[("name", "camera"), ("latency", &settings.latency_ms.to_string())])?;
    if bin.find_property("add-reference-timestamp-meta").is_some() {
        bin.set_property("add-reference-timestamp-meta", true);
    }
    pipeline.add(&bin)?;
    let stream = Stream::new(outlet.clone());
    let news = News::default();
    let gate = Arc::new(Gate::new(settings.allow.clone(), outlet.clone(), news.clone()));
    let mut receivers = Vec::new();
    for (session, described) in settings.streams.iter().enumerate() {
        let caps = caps(described);
        let Some(encoding) = Encoding::of(&caps) else {
            return Err(WorkError::Setting {
                setting: "encoding",
                got: described.encoding.clone(),
                remedy: "H264, H265, JPEG, MPEG4-GENERIC, PCMA, PCMU, OPUS or L16",
            });
        };
        if encoding.track() == TrackId::AUDIO && !audio_path::is_wanted(&treat.audio) {
            continue;
        }
        stream.expect(encoding.track());
        let control = gst::Caps::new_empty_simple("application/x-rtcp");
        let sender = Arc::new(Sender::default());
        let media = Expected::Media { payload_type: described.payload_type };
        for (port, pad, caps, expected) in [
            (described.port, "recv_rtp_sink", caps, media),
            (described.port.saturating_add(1), "recv_rtcp_sink", control, Expected::Control),
        ] {
            let socket = match socket::open(settings, port) {
                // Without sender reports sound and picture are aligned by arrival.
                Err(error) if expected == Expected::Control => {
                    outlet.log(LogLevel::Warn, &format!("no RTCP: {error}"));
                    continue;
                }
                socket => socket?,
            };
            let source = gst_app::AppSrc::builder()
                .caps(&caps)
                .format(gst::Format::Time)
                .is_live(true)
                .do_timestamp(true)
                .max_bytes(socket::WAITING_BYTES)
                .block(true)
                .build();
            pipeline.add(&source)?;
            let sink = bin.request_pad_simple(&format!("{pad}_{session}")).ok_or(WorkError::Ended)?;
            let way = source.static_pad("src").ok_or(WorkError::Ended)?;
            way.link(&sink)
                .map_err(|error| WorkError::Element { element: "camera".into(), text: error.to_string() })?;
            let (gate, sender, outlet) = (gate.clone(), sender.clone(), outlet.clone());
            receivers.push((port, Receiver { socket, source, gate, sender, expected, outlet }));
        }
    }
    take_pads(&pipeline, &bin, treat, stream, outlet);
    for (port, receiver) in receivers {
        receiver.start(port)?;
    }
    let ports: Vec<String> = settings.streams.iter().map(|stream| stream.port.to_string()).collect();
    let to = settings.group.unwrap_or(settings.listen);
    let source = format!("RTP to {to}, port {}", ports.join(" and "));
    Ok(Camera { news, ..Camera::new(pipeline, source) })
}

/// Each session's stream goes on to the gateway; there is one of each kind.
fn take_pads(
    pipeline: &gst::Pipeline,
    bin: &gst::Element,
    treat: Treatments,
    stream: Stream,
    outlet: &Outlet,
) {
    let taken = Mutex::new(Vec::<TrackId>::new());
    let (weak, log) = (pipeline.downgrade(), outlet.clone());
    bin.connect_pad_added(move |_, pad| {
        let Some(pipeline) = weak.upgrade().filter(|_| pad.direction() == gst::PadDirection::Src) else {
            return;
        };
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let Some(encoding) = Encoding::of(&caps) else { return };
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.contains(&encoding.track()) {
            return;
        }
        taken.push(encoding.track());
        if let Err(error) = attach(&pipeline, pad, encoding, &treat, &stream) {
            log.log(LogLevel::Warn, &format!("{caps}: {error}"));
        }
    });
}

/// What SDP would say of it, as caps.
fn caps(stream: &RtpStream) -> gst::Caps {
    let media = match stream.media {
        RtpMedia::Video => "video",
        RtpMedia::Audio => "audio",
    };
    let rate = stream.clock_rate();
    let mut fields = gst::Structure::builder("application/x-rtp")
        .field("media", media)
        .field("payload", i32::from(stream.payload_type))
        .field("clock-rate", i32::try_from(rate).unwrap_or(i32::MAX))
        .field("encoding-name", stream.encoding.to_ascii_uppercase());
    if let Some(channels) = stream.channels {
        fields = fields.field("encoding-params", channels.to_string()).field("channels", i32::from(channels));
    }
    const OWN: [&str; 6] = ["media", "payload", "clock-rate", "encoding-name", "encoding-params", "channels"];
    for (name, value) in stream.parameters.iter().filter(|(name, _)| !OWN.contains(&name.as_str())) {
        fields = fields.field(name.as_str(), value);
    }
    gst::Caps::builder_full().structure(fields.build()).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_becomes_what_its_description_says() {
        gst::init().unwrap();
        let stream = |json: &str| -> RtpStream { serde_json::from_str(json).unwrap() };
        let made = caps(&stream(
            r#"{"media": "video", "port": 5004, "payload_type": 97, "encoding": "h264",
                "parameters": {"sprop-parameter-sets": "Z0IAKeKQ,aM48gA==", "media": "audio"}}"#,
        ));
        let fields = made.structure(0).unwrap();
        assert_eq!(fields.get::<&str>("encoding-name"), Ok("H264"));
        assert_eq!((fields.get::<&str>("media"), fields.get::<i32>("payload")), (Ok("video"), Ok(97)));
        assert_eq!(fields.get::<&str>("sprop-parameter-sets"), Ok("Z0IAKeKQ,aM48gA=="));
        assert!(Encoding::of(&made).is_some());
        let sound =
            caps(&stream(r#"{"media": "audio", "port": 5006, "payload_type": 8, "encoding": "PCMA"}"#));
        assert_eq!(sound.structure(0).unwrap().get::<i32>("clock-rate"), Ok(8_000));
    }
}
