//! Trials: does an encoder encode, what does it write into its parameter set, what does it cost, how many of it can
//! work at once.

use super::settings::{encoder, is_level_too_low, raw_caps, set_bitrate};
use super::{Candidate, Pictures};
use crate::elements;
use crate::error::WorkError;
use crate::pipeline::{appsink, chain, element_error, filter, make};
use fieldgate_media::{h264, hevc};
use fieldgate_model::job::{EncoderWish, Measured, PictureCodec};
use gst::prelude::*;
use rustix::time::{ClockId, clock_gettime};

const PICTURES: u32 = 16;
/// After this many the rate is changed.
const CHANGE_AFTER: u32 = 8;
/// For hardware: a driver that takes longer hangs.
const DEADLINE: gst::ClockTime = gst::ClockTime::from_seconds(4);
/// For software: what takes longer is only short of processor time, and no other would do better.
const DEADLINE_IN_SOFTWARE: gst::ClockTime = gst::ClockTime::from_seconds(60);
/// How often somebody hears that it still goes on.
const BEAT: gst::ClockTime = gst::ClockTime::from_seconds(1);
/// More sessions than this are not looked for.
const SESSIONS_MAX: usize = 8;

/// What an encoder did.
pub(super) struct Seen {
    encoded: u32,
    profile_level: String,
    changes_bitrate: bool,
    /// Processor time and time for all pictures, microseconds.
    cpu_us: u64,
    wall_us: u64,
    pixels: u64,
}

impl Seen {
    /// In words.
    pub(super) fn text(&self) -> String {
        let bitrate = if self.changes_bitrate { "" } else { ", its rate cannot be changed while it runs" };
        format!("encoded {} of {PICTURES} pictures, {}{bitrate}", self.encoded, self.profile_level)
    }

    /// With how many of them worked at once.
    pub(super) fn measured(&self, codec: PictureCodec, sessions: u32) -> Measured {
        let megapixels = |us: u64| us.saturating_mul(1_000_000) / self.pixels.max(1);
        Measured {
            codec,
            profile_level: self.profile_level.clone(),
            cpu_us_per_megapixel: u32::try_from(megapixels(self.cpu_us)).unwrap_or(u32::MAX),
            kilopixels_per_second: self.pixels.saturating_mul(1_000) / self.wall_us.max(1),
            sessions,
            changes_bitrate: self.changes_bitrate,
        }
    }
}

/// Encodes a few pictures; what was seen, either way. What it costs is not told. `beat` is called while software takes
/// its time.
pub(super) fn encode(
    candidate: &Candidate,
    wish: &EncoderWish,
    pictures: Pictures,
    beat: &mut dyn FnMut(),
) -> Result<Seen, String> {
    elements::require(&["videotestsrc", "capsfilter", "appsink"]).map_err(|error| error.to_string())?;
    let wish = EncoderWish { codec: candidate.codec, ..wish.clone() };
    let seen = Run::start(Some(candidate), &wish, pictures).and_then(|run| run.finish(pictures, beat));
    seen.map_err(|error| error.to_string())
}

/// Like [`encode`], with what it costs.
pub(super) fn measure(
    candidate: &Candidate,
    wish: &EncoderWish,
    pictures: Pictures,
    beat: &mut dyn FnMut(),
) -> Result<Seen, String> {
    let mut seen = encode(candidate, wish, pictures, beat)?;
    let pictures_alone = Run::start(None, wish, pictures).and_then(|run| run.finish(pictures, beat));
    seen.cpu_us = seen.cpu_us.saturating_sub(pictures_alone.map_or(0, |seen| seen.cpu_us));
    Ok(seen)
}

/// How many of it work at once, each at this size.
pub(super) fn sessions(candidate: &Candidate, wish: &EncoderWish, pictures: Pictures) -> u32 {
    let wish = EncoderWish { codec: candidate.codec, ..wish.clone() };
    let mut open: Vec<Run> = Vec::new();
    while open.len() < SESSIONS_MAX {
        let Ok(run) = Run::start(Some(candidate), &wish, pictures) else { break };
        // One picture is proof enough: sessions that are too many are refused when they begin. The rest of the
        // pictures waits in the sink's queue, so it stays open.
        if run.sink.try_pull_sample(DEADLINE).is_none() {
            break;
        }
        open.push(run);
    }
    u32::try_from(open.len()).unwrap_or(u32::MAX)
}

/// A pipeline that makes pictures and encodes them; ended when dropped.
struct Run {
    pipeline: gst::Pipeline,
    sink: gst_app::AppSink,
    name: &'static str,
    bitrate: u32,
    codec: PictureCodec,
    deadline: gst::ClockTime,
    begun: (u64, u64),
}

impl Run {
    /// Without an encoder the pictures alone are made.
    fn start(
        candidate: Option<&Candidate>,
        wish: &EncoderWish,
        pictures: Pictures,
    ) -> Result<Run, WorkError> {
        // Every pixel moves: what a camera shows costs less.
        let source = make(
            "videotestsrc",
            &[
                ("num-buffers", &PICTURES.to_string()),
                ("pattern", "zone-plate"),
                ("kx2", "20"),
                ("ky2", "20"),
                ("kt", "9"),
            ],
        )?;
        let sink = appsink("trial");
        // So that the encoder is still at work when its rate is changed.
        sink.set_property("max-buffers", 1_u32);
        let mut all = vec![source, filter(raw_caps(pictures))?];
        if let Some(candidate) = candidate {
            all.extend(encoder(candidate.name, wish, pictures)?);
        }
        all.push(sink.clone().upcast());
        let pipeline = gst::Pipeline::new();
        let (bitrate, codec) = (wish.bitrate, wish.codec);
        let name = candidate.map_or("", |candidate| candidate.name);
        let is_hardware = candidate.is_some_and(|candidate| candidate.hardware);
        let deadline = if is_hardware { DEADLINE } else { DEADLINE_IN_SOFTWARE };
        let run = Run { pipeline, sink, name, bitrate, codec, deadline, begun: clocks() };
        chain(&run.pipeline, &all.iter().collect::<Vec<_>>())?;
        run.pipeline.set_state(gst::State::Playing)?;
        Ok(run)
    }

    fn failed(&self, text: impl Into<String>) -> WorkError {
        WorkError::Element { element: self.name.to_owned(), text: text.into() }
    }

    fn finish(self, pictures: Pictures, beat: &mut dyn FnMut()) -> Result<Seen, WorkError> {
        let mut seen = Seen {
            encoded: 0,
            profile_level: String::new(),
            changes_bitrate: false,
            cpu_us: 0,
            wall_us: 0,
            pixels: u64::from(pictures.width) * u64::from(pictures.height) * u64::from(PICTURES),
        };
        let deadline = self.begun.1 + self.deadline.useconds();
        while let Some(sample) = self.next(deadline, beat)? {
            beat();
            if self.name.is_empty() {
                continue;
            }
            let caps = sample.caps().and_then(|caps| caps.structure(0));
            let header = caps.and_then(|fields| fields.get::<gst::Buffer>("codec_data").ok());
            let is_whole = header.is_some() && sample.buffer().is_some_and(|buffer| buffer.size() > 0);
            seen.encoded += u32::from(is_whole);
            if let Some(header) = header.filter(|_| seen.profile_level.is_empty()) {
                let header = header.map_readable().map_err(|_| self.failed("its header cannot be read"))?;
                seen.profile_level = self.checked_header(&header, pictures)?;
            }
            if seen.encoded == CHANGE_AFTER {
                seen.changes_bitrate =
                    self.pipeline.by_name("encoder").is_some_and(|it| set_bitrate(&it, self.bitrate / 2));
            }
        }
        if seen.encoded == 0 && !self.name.is_empty() {
            return Err(self.failed("made no usable picture"));
        }
        // One that ends after another rate was set did not take it.
        seen.changes_bitrate &= seen.encoded > CHANGE_AFTER;
        let (cpu, wall) = clocks();
        seen.cpu_us = cpu.saturating_sub(self.begun.0);
        seen.wall_us = wall.saturating_sub(self.begun.1);
        Ok(seen)
    }

    /// The next picture; none at the end.
    fn next(&self, deadline: u64, beat: &mut dyn FnMut()) -> Result<Option<gst::Sample>, WorkError> {
        loop {
            let left = gst::ClockTime::from_useconds(deadline.saturating_sub(clocks().1));
            if let Some(sample) = self.sink.try_pull_sample(left.min(BEAT)) {
                return Ok(Some(sample));
            }
            let bus = self.pipeline.bus().ok_or(WorkError::Ended)?;
            let error = bus.pop_filtered(&[gst::MessageType::Error]);
            match error.as_ref().map(|message| message.view()) {
                Some(gst::MessageView::Error(error)) => return Err(element_error(error)),
                _ if self.sink.is_eos() => return Ok(None),
                _ if left > BEAT => beat(),
                _ => {
                    let within = self.deadline.seconds();
                    return Err(self.failed(format!("did not finish {PICTURES} pictures within {within} s")));
                }
            }
        }
    }

    /// Profile and level out of the header that the encoder made, which must fit the pictures.
    fn checked_header(&self, header: &[u8], pictures: Pictures) -> Result<String, WorkError> {
        let shape = match self.codec {
            PictureCodec::H264 => h264::AvcConfig::parse(header).and_then(|config| config.shape()),
            PictureCodec::Hevc => hevc::HevcConfig::parse(header).and_then(|config| config.shape()),
        };
        let shape = shape.ok_or_else(|| self.failed("its parameter set cannot be read"))?;
        if (shape.width, shape.height) != (pictures.width, pictures.height) {
            return Err(self.failed(format!(
                "its parameter set says {}x{}, the pictures are {}x{}",
                shape.width, shape.height, pictures.width, pictures.height
            )));
        }
        match self.codec {
            PictureCodec::H264 => {
                let config =
                    h264::AvcConfig::parse(header).ok_or_else(|| self.failed("its header cannot be read"))?;
                let (profile, level) = (h264_profile(config.profile, config.compatibility), config.level);
                let shown = format!("{profile} {}.{}", level / 10, level % 10);
                if is_level_too_low(level, pictures) {
                    return Err(self.failed(format!(
                        "its parameter set says {shown}, too low for {}x{} at {}/s",
                        pictures.width, pictures.height, pictures.frame_rate
                    )));
                }
                Ok(shown)
            }
            PictureCodec::Hevc => {
                let config = hevc::HevcConfig::parse(header)
                    .ok_or_else(|| self.failed("its header cannot be read"))?;
                let [profile, .., level] = config.profile_tier_level;
                let profile = if profile & 0x1F == 1 { "main" } else { "other than main" };
                Ok(format!("{profile} {}.{}", level / 30, level % 30 / 3))
            }
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Not waited for: if a driver hangs here, so does the pulse, and the gateway knows which one was tried.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Processor time of this process, and monotonic time, microseconds.
fn clocks() -> (u64, u64) {
    let of = |id| {
        let time = clock_gettime(id);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        seconds.saturating_mul(1_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000)
    };
    (of(ClockId::ProcessCPUTime), of(ClockId::Monotonic))
}

fn h264_profile(profile: u8, compatibility: u8) -> &'static str {
    match (profile, compatibility & 0x40 != 0) {
        (66, true) => "constrained baseline",
        (66, false) => "baseline",
        (77, _) => "main",
        (100, _) => "high",
        _ => "another profile",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Pictures = Pictures { width: 320, height: 240, frame_rate: 30 };
    const OPENH264: Candidate =
        Candidate { name: "openh264enc", codec: PictureCodec::H264, hardware: false, vendor: false };

    #[test]
    fn the_software_encoder_writes_what_was_asked_and_its_cost_is_measured() {
        gst::init().unwrap();
        if !elements::load(OPENH264.name) {
            println!("skipped: no openh264enc here");
            return;
        }
        let seen = measure(&OPENH264, &EncoderWish::default(), SMALL, &mut || {}).unwrap();
        assert_eq!((seen.encoded, seen.changes_bitrate), (PICTURES, true), "{}", seen.text());
        assert!(seen.profile_level.starts_with("constrained baseline "), "{}", seen.profile_level);
        let measured = seen.measured(PictureCodec::H264, 0);
        assert!(measured.cpu_us_per_megapixel > 100 && measured.kilopixels_per_second > 100, "{measured:?}");
        // There is no bound but the processor's.
        assert_eq!(sessions(&OPENH264, &EncoderWish::default(), SMALL) as usize, SESSIONS_MAX);
    }

    #[test]
    fn an_encoder_that_cannot_start_says_so() {
        gst::init().unwrap();
        let none = Candidate { name: "v4l2h264enc", ..OPENH264 };
        if elements::load(none.name) {
            println!("skipped: there is a hardware encoder here");
            return;
        }
        let reason = encode(&none, &EncoderWish::default(), SMALL, &mut || {}).err().unwrap();
        assert!(reason.contains("v4l2h264enc"), "{reason}");
    }
}
