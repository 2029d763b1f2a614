//! Which encoder works here: each candidate really encodes a few pictures before it is trusted.

mod settings;
mod trial;

pub(crate) use settings::{encoder, raw_caps, set_bitrate};

use crate::builtin;
use crate::decoders::{self, Picture};
use crate::elements;
use crate::error::WorkError;
use fieldgate_model::job::{EncoderTrial, EncoderWish, PictureCodec};

/// One encoder that may be there.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    name: &'static str,
    codec: PictureCodec,
    hardware: bool,
    /// Its maker ships it with a system image; a static build cannot have it.
    vendor: bool,
}

const fn hardware(name: &'static str, codec: PictureCodec) -> Candidate {
    Candidate { name, codec, hardware: true, vendor: false }
}

const fn vendor(name: &'static str, codec: PictureCodec) -> Candidate {
    Candidate { name, codec, hardware: true, vendor: true }
}

const fn software(name: &'static str, codec: PictureCodec) -> Candidate {
    Candidate { name, codec, hardware: false, vendor: false }
}

/// Best first: dedicated hardware, then graphics, then software. Software makes H.264 alone: HEVC would take more of
/// a processor than gateways have.
const CANDIDATES: [Candidate; 16] = [
    hardware("v4l2h264enc", PictureCodec::H264),
    vendor("mpph264enc", PictureCodec::H264),
    vendor("nvv4l2h264enc", PictureCodec::H264),
    vendor("vpuenc_h264", PictureCodec::H264),
    hardware("vah264lpenc", PictureCodec::H264),
    hardware("vah264enc", PictureCodec::H264),
    hardware("vaapih264enc", PictureCodec::H264),
    software("openh264enc", PictureCodec::H264),
    software("x264enc", PictureCodec::H264),
    hardware("v4l2h265enc", PictureCodec::Hevc),
    vendor("mpph265enc", PictureCodec::Hevc),
    vendor("nvv4l2h265enc", PictureCodec::Hevc),
    vendor("vpuenc_hevc", PictureCodec::Hevc),
    hardware("vah265lpenc", PictureCodec::Hevc),
    hardware("vah265enc", PictureCodec::Hevc),
    // Named so that a wish for HEVC without hardware is answered in words.
    software("x265enc", PictureCodec::Hevc),
];

/// The shape of the pictures to be encoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pictures {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) frame_rate: u32,
}

/// What all candidates are measured with: the commonest size of cameras that need encoding.
const MEASURED_WITH: Pictures = Pictures { width: 1_280, height: 720, frame_rate: 30 };

/// Finds the best encoder that works; one that is named was proven before and is not tried again. `tell` gets the
/// list after every trial, so that the gateway knows which one was being tried when a driver takes the whole process
/// down.
pub(crate) fn prove(
    wish: &EncoderWish,
    pictures: Pictures,
    mut tell: impl FnMut(&[EncoderTrial]),
) -> Result<&'static str, WorkError> {
    let mut of_codec = CANDIDATES.iter().filter(|candidate| candidate.codec == wish.codec);
    if let Some(known) = of_codec.clone().find(|known| known.name == wish.name)
        && refusal(known, wish).is_none()
        && elements::load(known.name)
    {
        let (name, hardware) = (known.name.to_owned(), known.hardware);
        let reason = "named, not tried again".into();
        tell(&[EncoderTrial { name, hardware, chosen: true, works: true, reason, measured: None }]);
        return Ok(known.name);
    }
    let mut trials = Trials::default();
    let works = of_codec.find(|candidate| {
        trials.add(candidate, wish, true, &mut tell, |candidate, beat| {
            trial::encode(candidate, wish, pictures, beat).map(|seen| (seen.text(), None))
        })
    });
    tell(&trials.0);
    works.map(|candidate| candidate.name).ok_or_else(|| WorkError::NoEncoder(trials.reasons()))
}

/// Tries candidates of all codecs and measures those that work: the best of each codec, and the best in software too,
/// for when the hardware has no session left. The best for the wish is the one chosen.
pub(crate) fn measure(wish: &EncoderWish, mut tell: impl FnMut(&[EncoderTrial])) -> Result<(), WorkError> {
    let mut trials = Trials::default();
    let mut has: Vec<(PictureCodec, bool)> = Vec::new();
    let mut is_chosen = false;
    for candidate in &CANDIDATES {
        let is_better_known =
            has.iter().any(|(codec, hardware)| *codec == candidate.codec && *hardware == candidate.hardware);
        if is_better_known {
            continue;
        }
        let chooses = !is_chosen && candidate.codec == wish.codec;
        let measured = |candidate: &Candidate, beat: &mut dyn FnMut()| {
            let seen = trial::measure(candidate, wish, MEASURED_WITH, beat)?;
            let sessions =
                if candidate.hardware { trial::sessions(candidate, wish, MEASURED_WITH) } else { 0 };
            Ok((seen.text(), Some(seen.measured(candidate.codec, sessions))))
        };
        if trials.add(candidate, wish, chooses, &mut tell, measured) {
            has.push((candidate.codec, candidate.hardware));
            is_chosen |= chooses;
        }
    }
    tell(&trials.0);
    let mut decoders: Vec<EncoderTrial> = Vec::new();
    for codec in [Picture::H264, Picture::Hevc] {
        let before = decoders.clone();
        // That none works is told by the trials.
        let _ = decoders::prove(codec, &wish.skip, |trials| {
            decoders = before.iter().chain(trials).cloned().collect();
            tell(&decoders);
        });
    }
    if is_chosen { Ok(()) } else { Err(WorkError::NoEncoder(trials.reasons())) }
}

#[derive(Default)]
struct Trials(Vec<EncoderTrial>);

type Seen = (String, Option<fieldgate_model::job::Measured>);

impl Trials {
    /// Tries one, unless it may not be used; whether it works.
    fn add(
        &mut self,
        candidate: &Candidate,
        wish: &EncoderWish,
        chooses: bool,
        tell: &mut impl FnMut(&[EncoderTrial]),
        try_out: impl FnOnce(&Candidate, &mut dyn FnMut()) -> Result<Seen, String>,
    ) -> bool {
        let refused = refusal(candidate, wish);
        let (hardware, name) = (candidate.hardware, candidate.name.to_owned());
        let reason = refused.unwrap_or(EncoderTrial::UNDER_WAY).to_owned();
        self.0.push(EncoderTrial { name, hardware, chosen: false, works: false, reason, measured: None });
        if refused.is_some() {
            return false;
        }
        tell(&self.0);
        let seen = available(candidate).and_then(|()| try_out(candidate, &mut || tell(&self.0)));
        let works = seen.is_ok();
        if let Some(trial) = self.0.last_mut() {
            trial.works = works;
            trial.chosen = works && chooses;
            (trial.reason, trial.measured) = seen.unwrap_or_else(|reason| (reason, None));
        }
        if works {
            tell(&self.0);
        }
        works
    }

    fn reasons(&self) -> String {
        let reasons: Vec<String> =
            self.0.iter().map(|trial| format!("{}: {}", trial.name, trial.reason)).collect();
        reasons.join("; ")
    }
}

fn refusal(candidate: &Candidate, wish: &EncoderWish) -> Option<&'static str> {
    if !wish.name.is_empty() && wish.name != candidate.name {
        return Some("another one was named");
    }
    if wish.skip.iter().any(|skip| skip == candidate.name) {
        return Some("left out: it took a worker down before");
    }
    if !candidate.hardware && !wish.allow_software {
        return Some("software encoding is not allowed");
    }
    match candidate.name {
        "x264enc" if !wish.allow_x264 => Some("x264 is not allowed by this build or its settings"),
        "x265enc" => Some("HEVC is encoded by hardware alone"),
        _ => None,
    }
}

/// Whether it is there at all.
fn available(candidate: &Candidate) -> Result<(), String> {
    if candidate.vendor && builtin::is_static() {
        return Err(
            "not in this build: a maker's own elements need a build with the system's GStreamer".into()
        );
    }
    if elements::load(candidate.name) {
        return Ok(());
    }
    Err(if candidate.vendor {
        "not installed: it comes with its maker's system image".to_owned()
    } else {
        elements::absence(candidate.name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_be_used_is_refused_with_its_reason() {
        let of = |name| CANDIDATES.iter().find(|candidate| candidate.name == name).unwrap();
        let wish = EncoderWish::default();
        assert!(refusal(of("x264enc"), &wish).is_some_and(|reason| reason.contains("x264 is not allowed")));
        assert_eq!(refusal(of("x264enc"), &EncoderWish { allow_x264: true, ..wish.clone() }), None);
        let skipped = EncoderWish { skip: vec!["v4l2h264enc".into()], ..wish.clone() };
        assert!(refusal(of("v4l2h264enc"), &skipped).is_some());
        let none = EncoderWish { allow_software: false, ..wish };
        assert!(refusal(of("openh264enc"), &none).is_some() && refusal(of("vah264enc"), &none).is_none());
    }

    #[test]
    fn hardware_comes_before_software_and_each_is_there_once() {
        for codec in [PictureCodec::H264, PictureCodec::Hevc] {
            let of_codec = CANDIDATES.iter().filter(|candidate| candidate.codec == codec);
            let software = of_codec.clone().skip_while(|candidate| candidate.hardware);
            assert!(software.clone().all(|candidate| !candidate.hardware), "{codec:?}");
            assert!(software.count() > 0 && of_codec.count() > 4);
        }
        for (at, candidate) in CANDIDATES.iter().enumerate() {
            assert!(!CANDIDATES[..at].iter().any(|other| other.name == candidate.name), "{}", candidate.name);
        }
    }

    #[test]
    fn a_maker_s_element_that_is_missing_says_where_it_comes_from() {
        let candidate = CANDIDATES.iter().find(|candidate| candidate.name == "mpph264enc").unwrap();
        gst::init().unwrap();
        let reason = available(candidate).unwrap_err();
        assert!(reason.contains("maker"), "{reason}");
    }
}
