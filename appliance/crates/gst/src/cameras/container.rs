//! What is in a container: which demuxer takes it apart, and the way of each track to the gateway.

mod laps;

pub(super) use laps::Laps;

use crate::audio_path::{self, CodedSound};
use crate::encoders::Pictures;
use crate::error::WorkError;
use crate::outlet::Outlet;
use crate::pipeline::{appsink, begin_behind, make};
use crate::stream::Stream;
use crate::timeline::DecodeTimes;
use crate::video_path::{self, Coded};
use fieldgate_hub::link::LogLevel;
use fieldgate_media::TrackId;
use fieldgate_model::job::{AudioTreatment, VideoTreatment};
use gst::prelude::*;
use std::sync::{Mutex, PoisonError};

/// What is read of a container to know it, in bytes.
pub(super) const HEAD: usize = 376;
const TS_PACKET: usize = 188;

/// What happens to the media.
#[derive(Clone)]
pub(super) struct Treatments {
    pub(super) video: VideoTreatment,
    pub(super) audio: AudioTreatment,
}

/// When media goes on behind the demuxer.
#[derive(Clone)]
pub(super) enum Entry {
    /// At once: who sends it keeps the time.
    AsItComes,
    /// At its own time: a file could be read as fast as the disk is. With laps it begins again and again.
    InItsTime(Option<Laps>),
}

/// Of each kind the first track that outputs can carry is taken, as the demuxer finds them.
pub(super) fn take_tracks(
    demuxer: &gst::Element,
    pipeline: &gst::Pipeline,
    outlet: &Outlet,
    stream: Stream,
    treat: Treatments,
    entry: Entry,
) {
    // Matroska has presentation times alone.
    let is_matroska = demuxer.factory().is_some_and(|factory| factory.name() == "matroskademux");
    let times = if is_matroska { DecodeTimes::Made } else { DecodeTimes::Given };
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
        if let Err(error) = attach(&pipeline, pad, (form, times), &treat, &stream, &entry) {
            log.log(LogLevel::Warn, &format!("{caps}: {error}"));
        }
    });
}

/// By what it begins with; names may lie.
pub(super) fn demuxer(head: &[u8]) -> Option<&'static str> {
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
    entry: &Entry,
) -> Result<(), WorkError> {
    let track = form.track();
    let sink = appsink(if track == TrackId::VIDEO { "video" } else { "audio" });
    let mut all = vec![make("queue", &[])?];
    if let Entry::InItsTime(_) = entry {
        // Before it is decoded: what comes after may then drop what it is too slow for, as with a camera.
        all.push(make("clocksync", &[])?);
    }
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
    if let Entry::InItsTime(Some(laps)) = entry {
        laps.follow(pad, pipeline);
    }
    begin_behind(pad, &all)
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
