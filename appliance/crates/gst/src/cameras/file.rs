//! A file that is played at the speed of life, again and again.

mod laps;

use self::laps::Laps;
use super::Camera;
use crate::audio_path::{self, CodedSound};
use crate::elements;
use crate::encoders::Pictures;
use crate::error::WorkError;
use crate::outlet::Outlet;
use crate::pipeline::{appsink, chain, make};
use crate::stream::Stream;
use crate::timeline::DecodeTimes;
use crate::video_path::{self, Coded};
use fieldgate_hub::link::LogLevel;
use fieldgate_media::TrackId;
use fieldgate_model::job::{AudioTreatment, EncoderTrial, FileCamera, VideoTreatment};
use gst::prelude::*;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

/// What is read of a file to know its container.
const HEAD: u64 = 376;
const TS_PACKET: usize = 188;

/// What happens to the file's media.
#[derive(Clone)]
struct Treatments {
    video: VideoTreatment,
    audio: AudioTreatment,
}

pub(super) fn build(
    settings: &FileCamera,
    outlet: &Outlet,
    tell: impl FnMut(&[EncoderTrial]),
) -> Result<Camera, WorkError> {
    let unreadable =
        |remedy| WorkError::Setting { setting: "path", got: settings.path.display().to_string(), remedy };
    let mut head = Vec::new();
    std::fs::File::open(&settings.path)
        .and_then(|file| file.take(HEAD).read_to_end(&mut head))
        .map_err(|_| unreadable("a file that the gateway may read"))?;
    let demuxer_name = demuxer(&head).ok_or_else(|| unreadable("an MP4, Matroska, FLV or MPEG-TS file"))?;
    elements::require(&["filesrc", "queue", "clocksync", "appsink", demuxer_name])?;
    let treat =
        Treatments { video: video_path::prepared(&settings.video, tell)?, audio: settings.audio.clone() };

    let pipeline = gst::Pipeline::new();
    let source = make("filesrc", &[("name", "camera")])?;
    source.set_property("location", settings.path.to_string_lossy().as_ref());
    let demuxer = make(demuxer_name, &[])?;
    // Matroska has presentation times alone.
    let times = if demuxer_name == "matroskademux" { DecodeTimes::Made } else { DecodeTimes::Given };
    chain(&pipeline, &[&source, &demuxer])?;
    let stream = Stream::new(outlet.clone());
    let laps = settings.repeat.then(Laps::default);
    let taken = Mutex::new(Vec::<TrackId>::new());
    let (weak, log) = (pipeline.downgrade(), outlet.clone());
    demuxer.connect_pad_added(move |_, pad| {
        let Some(pipeline) = weak.upgrade() else { return };
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let Some(form) = Form::of(&caps).filter(|form| {
            let sound_off = matches!(form, Form::Sound(_)) && !audio_path::is_wanted(&treat.audio);
            let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
            let take = !sound_off && !taken.contains(&form.track());
            taken.extend(take.then(|| form.track()));
            take
        }) else {
            return log.log(LogLevel::Info, &format!("left out: {caps}"));
        };
        if let Err(error) = attach(&pipeline, pad, (form, times), &treat, &stream, laps.as_ref()) {
            log.log(LogLevel::Warn, &format!("{caps}: {error}"));
        }
    });
    let source = format!("file {}", settings.path.display());
    Ok(Camera::new(pipeline, source))
}

/// By what the file begins with; names may lie.
fn demuxer(head: &[u8]) -> Option<&'static str> {
    let at = |from: usize, what: &[u8]| head.get(from..).is_some_and(|rest| rest.starts_with(what));
    if at(4, b"ftyp") || at(4, b"moov") || at(4, b"mdat") {
        Some("qtdemux")
    } else if at(0, &[0x1a, 0x45, 0xdf, 0xa3]) {
        Some("matroskademux")
    } else if at(0, b"FLV") {
        Some("flvdemux")
    } else if at(0, b"G") && at(TS_PACKET, b"G") {
        Some("tsdemux")
    } else {
        None
    }
}

/// In what form a demuxer hands a track over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Picture(Coded),
    Sound(CodedSound),
}

impl Form {
    fn of(caps: &gst::CapsRef) -> Option<Form> {
        let fields = caps.structure(0)?;
        Some(match fields.name().as_str() {
            "video/x-h264" => Form::Picture(Coded::H264),
            "video/x-h265" => Form::Picture(Coded::Hevc),
            "image/jpeg" => Form::Picture(Coded::Jpeg),
            "audio/mpeg" if fields.get::<i32>("mpegversion").is_ok_and(|version| version != 1) => {
                Form::Sound(CodedSound::Aac)
            }
            "audio/x-opus" => Form::Sound(CodedSound::Opus),
            "audio/x-alaw" => Form::Sound(CodedSound::PcmA),
            "audio/x-mulaw" => Form::Sound(CodedSound::PcmU),
            _ => return None,
        })
    }

    fn track(self) -> TrackId {
        match self {
            Form::Picture(_) => TrackId::VIDEO,
            Form::Sound(_) => TrackId::AUDIO,
        }
    }
}

fn attach(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    (form, times): (Form, DecodeTimes),
    treat: &Treatments,
    stream: &Stream,
    laps: Option<&Laps>,
) -> Result<(), WorkError> {
    let track = form.track();
    let sink = appsink(if track == TrackId::VIDEO { "video" } else { "audio" });
    // A file could be read as fast as the disk is. Its media waits for its time before it is decoded: what comes after
    // may then drop what it is too slow for, as with a camera.
    let mut all = vec![make("queue", &[])?, make("clocksync", &[])?];
    match form {
        Form::Picture(coded) => {
            let unknown = Pictures { width: 0, height: 0, frame_rate: 0 };
            all.extend(video_path::elements(coded, &treat.video, unknown, |_| ())?);
        }
        Form::Sound(coded) => all.extend(audio_path::elements(coded, &treat.audio)?),
    }
    all.push(sink.clone().upcast());
    pipeline.add_many(&all)?;
    gst::Element::link_many(&all)?;
    stream.attach(&sink, track, times);
    if let Some(laps) = laps {
        laps.follow(pad, pipeline);
    }
    for element in all.iter().rev() {
        element.sync_state_with_parent()?;
    }
    let entry = all.first().and_then(|first| first.static_pad("sink")).ok_or(WorkError::Ended)?;
    pad.link(&entry)
        .map_err(|error| WorkError::Element { element: "camera".into(), text: error.to_string() })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_known_by_their_beginning() {
        assert_eq!(demuxer(b"\0\0\0\x18ftypisom"), Some("qtdemux"));
        assert_eq!(demuxer(&[0x1a, 0x45, 0xdf, 0xa3, 1]), Some("matroskademux"));
        assert_eq!(demuxer(b"FLV\x01"), Some("flvdemux"));
        let mut ts = vec![0; TS_PACKET + 1];
        (ts[0], ts[TS_PACKET]) = (b'G', b'G');
        assert_eq!(demuxer(&ts), Some("tsdemux"));
        assert_eq!((demuxer(b"GIF89a"), demuxer(b""), demuxer(b"\0\0\0\x18ft")), (None, None, None));
    }

    #[test]
    fn tracks_that_outputs_can_carry_are_taken() {
        gst::init().unwrap();
        let form = |caps: &str| Form::of(&caps.parse::<gst::Caps>().unwrap());
        assert_eq!(form("video/x-h265,stream-format=hvc1"), Some(Form::Picture(Coded::Hevc)));
        assert_eq!(form("audio/mpeg,mpegversion=4"), Some(Form::Sound(CodedSound::Aac)));
        assert_eq!((form("audio/mpeg,mpegversion=1"), form("text/x-raw")), (None, None));
    }
}
