//! What must happen to one stream. Which encoder does it, and whether there is room, is decided later, over all.

use super::protocol::{Protocol, is_enhanced};
use super::wishes::{self, AudioWish, VideoWish};
use super::{Action, Cost, Form, Known, Leg, MountpointPlan, Output, Rendition, Seen, Step, Treatment, Work};
use crate::config::{AudioCodec, Mountpoint, Push, Rtp, RtpMedia, Source, V4l2Format, VideoCodec};
use fieldgate_media::Codec;

/// Processor time of an AAC or Opus encoder with what is around it, per cent of a core.
const SOUND_PERCENT: u32 = 2;
/// Pictures of a camera that was not seen yet.
const ASSUMED: (u32, u32, u32) = (1_920, 1_080, 25);

pub(super) fn mountpoint(name: &str, settings: &Mountpoint, known: &Known) -> MountpointPlan {
    let nothing = Seen::default();
    let seen = known.streams.get(name).unwrap_or(&nothing);
    let stream = Stream { settings, seen, protocol: Protocol::of_source(&settings.source) };
    let source = stream.source();
    let mut renditions: Vec<Rendition> = Vec::new();
    let players = Output::Players;
    let outputs = settings.push.iter().map(|push| (push_output(name, push), Some(push)));
    let legs = std::iter::once((players, None))
        .chain(outputs)
        .map(|(output, push)| stream.leg(&source, output, push, known, &mut renditions))
        .collect();
    MountpointPlan { priority: settings.priority, source, renditions, legs }
}

/// What the description of a sender says of it.
fn described(rtp: &Rtp, media: RtpMedia) -> Form {
    let encoding = rtp.session().ok().and_then(|session| session.encoding(media));
    match encoding.as_deref() {
        None => Form::Absent,
        Some("H264") => Form::Coded(Codec::H264),
        Some("H265") => Form::Coded(Codec::Hevc),
        Some("JPEG") => Form::Jpeg,
        Some("MPEG4-GENERIC") => Form::Coded(Codec::Aac),
        Some("OPUS") => Form::Coded(Codec::Opus),
        Some("PCMA") => Form::Coded(Codec::PcmA),
        Some("PCMU") => Form::Coded(Codec::PcmU),
        Some("L16") => Form::Raw,
        Some(_) => Form::Unknown,
    }
}

fn push_output(name: &str, push: &Push) -> Output {
    let url = push.url.redacted();
    let url = if name.ends_with('*') { url } else { url.replace("{name}", name) };
    Output::Push { id: push.effective_id(), url, enabled: push.enabled }
}

impl Step {
    fn new(action: Action, from: Form, to: Form, reason: impl Into<String>) -> Step {
        Step {
            action,
            from,
            to,
            reason: reason.into(),
            encoder: None,
            cost: Cost::default(),
            remedy: None,
            work: None,
        }
    }

    fn remedy(self, remedy: impl Into<String>) -> Step {
        Step { remedy: Some(remedy.into()), ..self }
    }

    fn work(self, work: Work) -> Step {
        Step { work: Some(work), ..self }
    }

    fn costs(self, cpu_percent: u32) -> Step {
        Step { cost: Cost { sessions: 0, cpu_percent }, ..self }
    }
}

struct Stream<'a> {
    settings: &'a Mountpoint,
    seen: &'a Seen,
    protocol: Protocol,
}

/// What an output takes.
struct Takes {
    video: Vec<Codec>,
    audio: Vec<Codec>,
    needs_audio: bool,
    protocol: Protocol,
    /// `accepts` says so, not the protocol alone.
    named_video: bool,
    named_audio: bool,
}

impl Takes {
    fn of(push: Option<&Push>) -> Takes {
        let protocol = push.map_or(Protocol::Rtmp, Protocol::of_push);
        let accepts = push.map(|push| push.accepts.clone()).unwrap_or_default();
        let carried = |codec: &Codec, by: &[Codec]| by.contains(codec);
        let video = accepts.video.as_ref().map(|list| {
            let codecs = list.iter().copied().map(VideoCodec::codec);
            codecs.filter(|codec| carried(codec, protocol.video())).collect()
        });
        let audio = accepts.audio.as_ref().map(|list| {
            let codecs = list.iter().copied().map(AudioCodec::codec);
            codecs.filter(|codec| carried(codec, protocol.audio())).collect()
        });
        Takes {
            named_video: video.is_some(),
            named_audio: audio.is_some(),
            video: video.unwrap_or_else(|| protocol.video().to_vec()),
            audio: audio.unwrap_or_else(|| protocol.audio().to_vec()),
            needs_audio: accepts.needs_audio,
            protocol,
        }
    }

    /// Who does not take something, in words.
    fn refuses(&self, named: bool) -> String {
        if named { "the receiver".to_owned() } else { self.protocol.name().to_owned() }
    }
}

impl Stream<'_> {
    fn is_camera(&self) -> bool {
        self.protocol == Protocol::Camera
    }

    fn source(&self) -> Treatment {
        Treatment { video: self.source_video(), audio: self.source_audio() }
    }

    /// What comes from the source itself, before anything is done.
    fn video_form(&self) -> Form {
        let seen = match self.seen.video {
            Some(video) if video.encoded_here => Form::Unknown,
            Some(video) => Form::Coded(video.codec),
            None if self.seen.is_whole => Form::Absent,
            None => Form::Unknown,
        };
        match &self.settings.source {
            Source::Test(_) | Source::Csi(_) => Form::Raw,
            Source::Mjpeg(_) => Form::Jpeg,
            Source::Rtp(rtp) => described(rtp, RtpMedia::Video),
            Source::V4l2(v4l2) => match v4l2.format {
                V4l2Format::H264 => Form::Coded(Codec::H264),
                V4l2Format::Hevc => Form::Coded(Codec::Hevc),
                V4l2Format::Mjpeg => Form::Jpeg,
                V4l2Format::Raw => Form::Raw,
                V4l2Format::Auto => seen,
            },
            _ => seen,
        }
    }

    fn audio_form(&self) -> Form {
        match &self.settings.source {
            source if source.microphone().is_some() => Form::Raw,
            Source::Test(test) if test.audio => Form::Raw,
            Source::Test(_) | Source::V4l2(_) | Source::Csi(_) | Source::Mjpeg(_) => Form::Absent,
            Source::Rtp(rtp) => described(rtp, RtpMedia::Audio),
            _ => match self.seen.audio {
                Some(audio) if audio.encoded_here => Form::Unknown,
                Some(audio) => Form::Coded(audio.codec),
                None if self.seen.is_whole => Form::Absent,
                None => Form::Unknown,
            },
        }
    }

    /// Width, height, rate as they come.
    fn shape(&self) -> (u32, u32, u32) {
        let seen = self.seen.video.unwrap_or(super::SeenVideo {
            codec: Codec::H264,
            encoded_here: false,
            width: 0,
            height: 0,
            frame_rate: 0,
        });
        let (width, height, rate) = match &self.settings.source {
            Source::Test(test) => return (test.width, test.height, test.frame_rate),
            Source::Csi(csi) => (csi.width, csi.height, csi.frame_rate),
            Source::V4l2(v4l2) => {
                (v4l2.width.unwrap_or(1_280), v4l2.height.unwrap_or(720), v4l2.frame_rate.unwrap_or(30))
            }
            _ => ASSUMED,
        };
        let or = |seen: u32, else_: u32| if seen > 0 { seen } else { else_ };
        (or(seen.width, width), or(seen.height, height), or(seen.frame_rate, rate))
    }

    fn work(&self, from: Form, to: Codec, wish: &VideoWish) -> Work {
        let (width, height, frame_rate) = self.shape();
        let bounded = |value: u32, max: Option<u32>| max.map_or(value, |max| value.min(max));
        // A picture that is made smaller keeps its shape, so the tighter of both bounds decides.
        let (mut out_width, mut out_height) = (bounded(width, wish.max_width), height);
        out_height = u32::try_from(u64::from(out_height) * u64::from(out_width) / u64::from(width.max(1)))
            .unwrap_or(out_height);
        if let Some(max) = wish.max_height.filter(|max| *max < out_height) {
            out_width = u32::try_from(u64::from(out_width) * u64::from(max) / u64::from(out_height.max(1)))
                .unwrap_or(out_width);
            out_height = max;
        }
        let paints = self.seen.masks > 0 || wish.has_overlay;
        let frame_rate = bounded(frame_rate, wish.max_frame_rate);
        Work { from, to, width: out_width, height: out_height, frame_rate, paints }
    }

    fn source_video(&self) -> Step {
        let (form, wish) = (self.video_form(), wishes::video(self.settings));
        let h264 = Form::Coded(Codec::H264);
        if form == Form::Absent {
            return Step::new(Action::Absent, form, form, "the source has no pictures");
        }
        if !self.is_camera() {
            if self.seen.masks > 0 {
                return Step::new(
                    Action::Unable,
                    form,
                    Form::Absent,
                    "only a camera's pictures can be masked",
                )
                .remedy("remove the masks, or take the camera in by itself");
            }
            return Step::new(Action::Pass, form, form, "handed on as it is published");
        }
        let encode = |reason: String| {
            Step::new(Action::Transcode, form, h264, reason).work(self.work(form, Codec::H264, &wish))
        };
        if self.seen.masks > 0 {
            return encode("privacy masks are burnt in; without an encoder the camera is off".to_owned())
                .remedy("remove the masks, or let the camera itself mask its picture");
        }
        if wish.has_overlay {
            return encode("clock or name is written into the picture".to_owned())
                .remedy("turn the overlay off, or let the camera itself write it");
        }
        if let Some(reason) = wish.encode {
            return encode(reason.to_owned()).remedy("set video.mode to \"auto\"");
        }
        if let Some(step) = self.too_large(&wish, &encode) {
            return step;
        }
        match form {
            Form::Raw if matches!(self.settings.source, Source::Test(_)) => {
                encode("the test picture is drawn here".to_owned())
            }
            Form::Raw => encode("raw pictures are too large to send".to_owned())
                .remedy("a camera that gives H.264 itself"),
            Form::Jpeg => encode("Motion JPEG is no format for an upstream".to_owned()).remedy(
                self.other_profile().unwrap_or_else(|| "a camera that gives H.264 itself".to_owned()),
            ),
            Form::Coded(codec) => {
                let reason = format!("the camera gives {}", codec.name());
                Step::new(Action::PassOrTranscode, form, form, reason)
            }
            _ if self.seen.video.is_some_and(|video| video.encoded_here) => {
                let form = match &self.settings.source {
                    Source::V4l2(_) => Form::Raw,
                    _ => Form::Jpeg,
                };
                Step::new(
                    Action::PassOrTranscode,
                    Form::Unknown,
                    h264,
                    "the camera gives neither H.264 nor HEVC",
                )
                .work(self.work(form, Codec::H264, &wish))
                .remedy(self.other_profile().unwrap_or_else(|| "a camera that gives H.264 itself".to_owned()))
            }
            _ => Step::new(
                Action::PassOrTranscode,
                form,
                Form::Unknown,
                "H.264 and HEVC pass, anything else is encoded",
            ),
        }
    }

    /// Pictures beyond the bounds that the settings name.
    fn too_large(&self, wish: &VideoWish, encode: &impl Fn(String) -> Step) -> Option<Step> {
        if wish.max_width.is_none() && wish.max_height.is_none() && wish.max_frame_rate.is_none() {
            return None;
        }
        let (width, height, rate) = self.shape();
        let is_over = |value: u32, max: Option<u32>| max.is_some_and(|max| value > max);
        let is_over = is_over(width, wish.max_width)
            || is_over(height, wish.max_height)
            || is_over(rate, wish.max_frame_rate);
        // Before the camera was seen its size is a guess; the bounds hold in any case.
        (is_over || self.seen.video.is_none()).then(|| {
            let fits = self.profile(|profile| {
                wish.max_width.is_none_or(|max| profile.width <= max)
                    && wish.max_height.is_none_or(|max| profile.height <= max)
            });
            encode(format!("{width}x{height} at {rate}/s is more than video.max_* lets through")).remedy(
                fits.unwrap_or_else(|| "let the camera itself send smaller or fewer pictures".to_owned()),
            )
        })
    }

    fn source_audio(&self) -> Step {
        let form = self.audio_form();
        let (wish, changes) = wishes::audio(self.settings);
        let aac = Form::Coded(Codec::Aac);
        if wish == AudioWish::Off {
            return Step::new(Action::Off, form, Form::Absent, "turned off");
        }
        if form == Form::Absent {
            let needed = self.settings.push.iter().any(|push| push.enabled && push.accepts.needs_audio);
            if needed && self.is_camera() {
                return Step::new(
                    Action::Silence,
                    form,
                    aac,
                    "a receiver insists on sound, the source has none",
                )
                .costs(SOUND_PERCENT)
                .remedy("a camera with a microphone, or a receiver that takes pictures alone");
            }
            return Step::new(Action::Absent, form, form, "the source has no sound");
        }
        if !self.is_camera() {
            // Changed on the way to the outputs, by renditions.
            return Step::new(Action::Pass, form, form, "handed on as it is published");
        }
        let to = match wish {
            AudioWish::To(codec) => codec,
            _ => Codec::Aac,
        };
        let encode =
            |reason: &str| Step::new(Action::Transcode, form, Form::Coded(to), reason).costs(SOUND_PERCENT);
        match (form, wish) {
            (Form::Raw, _) => encode("raw sound is too large to send"),
            (_, _) if changes => {
                encode("gain or mute changes the sound").remedy("set gain_db to 0 and mute to false")
            }
            (_, AudioWish::Pass) => Step::new(Action::Pass, form, form, "audio.mode is \"pass\""),
            (Form::Coded(codec), _) if codec == to => {
                Step::new(Action::PassOrTranscode, form, form, format!("the camera gives {}", codec.name()))
            }
            (Form::Coded(codec), _) => {
                let reason = format!("{} is made {}, which receivers take", codec.name(), to.name());
                Step::new(Action::PassOrTranscode, form, Form::Coded(to), reason)
                    .costs(SOUND_PERCENT)
                    .remedy(format!("set the camera's sound to {}", to.name()))
            }
            _ => Step::new(
                Action::PassOrTranscode,
                form,
                Form::Coded(to),
                format!("{} passes, anything else is encoded", to.name()),
            ),
        }
    }

    /// The way to one output, with the rendition that it needs added to `renditions` or found there.
    fn leg(
        &self,
        source: &Treatment,
        output: Output,
        push: Option<&Push>,
        known: &Known,
        renditions: &mut Vec<Rendition>,
    ) -> Leg {
        let takes = Takes::of(push);
        let (video, audio) = (self.leg_video(source, &takes, known), self.leg_audio(source, &takes));
        // What the source treatment does is done for all; only what is left needs a rendition.
        let by_rendition = |step: &Step, done: &Step| {
            let makes = matches!(step.action, Action::Transcode | Action::Silence);
            makes && !matches!(done.action, Action::Transcode | Action::Silence) && done.to != step.to
        };
        let drops_audio = audio.action == Action::Off && !matches!(source.audio.to, Form::Absent);
        let makes_video = by_rendition(&video, &source.video);
        let makes_audio = drops_audio || by_rendition(&audio, &source.audio);
        let wanted = push.is_some_and(|push| push.enabled);
        let is_possible = video.action != Action::Unable;
        let rendition = ((makes_video || makes_audio) && wanted && is_possible).then(|| {
            let mut name = Vec::new();
            name.extend(makes_video.then(|| video.to.to_string()));
            name.extend(makes_audio.then(|| match audio.action {
                Action::Silence => "silence".to_owned(),
                Action::Off => "no-sound".to_owned(),
                _ => audio.to.to_string(),
            }));
            let name = name.join("-");
            if !renditions.iter().any(|known| known.name == name) {
                let of = |makes: bool, step: &Step, done: &Step| {
                    if makes {
                        step.clone()
                    } else {
                        Step::new(Action::Pass, done.to, done.to, "handed over as it is")
                    }
                };
                renditions.push(Rendition {
                    name: name.clone(),
                    video: of(makes_video, &video, &source.video),
                    audio: of(makes_audio, &audio, &source.audio),
                });
            }
            name
        });
        Leg { output, rendition, video, audio }
    }

    fn carried(&self, form: Form, takes: &Takes, enhanced: bool) -> Step {
        if takes.protocol == self.protocol {
            return Step::new(Action::Pass, form, form, "as it came");
        }
        let mut reason =
            format!("from {} to {}, the coded data stays", self.protocol.name(), takes.protocol.name());
        if takes.protocol == Protocol::Rtmp && enhanced {
            reason.push_str("; needs a receiver that knows Enhanced RTMP");
        }
        Step::new(Action::Repackage, form, form, reason)
    }

    fn leg_video(&self, source: &Treatment, takes: &Takes, known: &Known) -> Step {
        let done = &source.video;
        let (wish, form) = (wishes::video(self.settings), done.to);
        match (done.action, form) {
            (Action::Unable, _) => return done.clone(),
            (Action::Absent, _) => {
                return Step::new(Action::Absent, form, form, "the source has no pictures");
            }
            (_, Form::Unknown) if !takes.named_video || takes.video.contains(&Codec::H264) => {
                let reason = if takes.named_video {
                    format!("{} passes, anything else is encoded", listed(&takes.video))
                } else {
                    format!("whatever {} carries passes", takes.protocol.name())
                };
                let action = if takes.named_video { Action::PassOrTranscode } else { Action::Pass };
                return Step::new(action, form, form, reason);
            }
            _ => {}
        }
        let forced = wish.encode.filter(|_| !self.is_camera());
        if let (Form::Coded(codec), None) = (form, forced)
            && takes.video.contains(&codec)
        {
            // End to end: what the source treatment encodes is encoded on every leg.
            if done.work.is_some() {
                let reason = format!("encoded once for all outputs: {}", done.reason);
                return Step { reason, work: None, ..done.clone() };
            }
            return self.carried(form, takes, is_enhanced(codec));
        }
        let makes = |codec: &Codec| match known.is_measured {
            true => known.encoders.iter().any(|encoder| encoder.codec == *codec),
            false => matches!(codec, Codec::H264 | Codec::Hevc),
        };
        let Some(to) = takes.video.iter().copied().find(makes) else {
            return Step::new(
                Action::Unable,
                form,
                Form::Absent,
                format!(
                    "{} takes {} alone, which no encoder here makes",
                    takes.refuses(takes.named_video),
                    listed(&takes.video)
                ),
            )
            .remedy(self.camera_remedy(&takes.video));
        };
        let reason = match forced {
            Some(reason) => reason.to_owned(),
            None => format!("{} does not take {form}", takes.refuses(takes.named_video)),
        };
        let remedy = match forced {
            Some(_) => "set video.mode to \"auto\"".to_owned(),
            None => self.camera_remedy(&takes.video),
        };
        Step::new(Action::Transcode, form, Form::Coded(to), reason)
            .work(self.work(form, to, &wish))
            .remedy(remedy)
    }

    fn leg_audio(&self, source: &Treatment, takes: &Takes) -> Step {
        let done = &source.audio;
        let form = done.to;
        let (wish, changes) = wishes::audio(self.settings);
        if takes.audio.is_empty() {
            return Step::new(Action::Off, form, Form::Absent, "the receiver takes no sound");
        }
        let makes = |codec: &Codec| matches!(codec, Codec::Aac | Codec::Opus);
        if form == Form::Absent {
            if takes.needs_audio && done.action != Action::Silence {
                let to = takes.audio.iter().copied().find(makes).unwrap_or(Codec::Aac);
                return Step::new(
                    Action::Silence,
                    form,
                    Form::Coded(to),
                    "the receiver insists on sound, the source has none",
                )
                .costs(SOUND_PERCENT);
            }
            return Step::new(done.action, form, form, done.reason.clone());
        }
        let forced = match wish {
            AudioWish::To(codec) if !self.is_camera() && form != Form::Coded(codec) => {
                Some((codec, "audio.mode asks for it"))
            }
            _ if changes && !self.is_camera() => Some((
                takes.audio.iter().copied().find(makes).unwrap_or(Codec::Aac),
                "gain or mute changes the sound",
            )),
            _ => None,
        };
        match (form, forced) {
            (Form::Unknown, None) if !takes.named_audio && !takes.needs_audio => {
                return Step::new(
                    Action::Pass,
                    form,
                    form,
                    format!("whatever {} carries passes", takes.protocol.name()),
                );
            }
            (Form::Coded(codec), None) if takes.audio.contains(&codec) => {
                if matches!(done.action, Action::Transcode | Action::Silence) || done.from != done.to {
                    return Step { work: None, ..done.clone() };
                }
                return self.carried(form, takes, is_enhanced(codec));
            }
            (Form::Unknown, None) => {
                let else_ = if takes.needs_audio { "encoded, nothing is made silence" } else { "encoded" };
                let reason = format!("{} passes, anything else is {else_}", listed(&takes.audio));
                return Step::new(Action::PassOrTranscode, form, form, reason);
            }
            _ => {}
        }
        let to = forced.map(|(codec, _)| codec).or_else(|| takes.audio.iter().copied().find(makes));
        let Some(to) = to else {
            let reason = format!(
                "the receiver takes {} alone, which is not made here; sound is left out",
                listed(&takes.audio)
            );
            return Step::new(Action::Off, form, Form::Absent, reason).remedy("a receiver that takes aac");
        };
        let reason = match forced {
            Some((_, reason)) => reason.to_owned(),
            None => format!("{} does not take {form}", takes.refuses(takes.named_audio)),
        };
        Step::new(Action::Transcode, form, Form::Coded(to), reason)
            .costs(SOUND_PERCENT)
            .remedy(format!("let the source send {}", listed(&takes.audio)))
    }

    /// What the camera, or who publishes, could do so that nothing needs encoding.
    fn camera_remedy(&self, takes: &[Codec]) -> String {
        let profile = self.profile(|profile| profile.codec.is_some_and(|codec| takes.contains(&codec)));
        profile.unwrap_or_else(|| match &self.settings.source {
            Source::Publish(_) | Source::Pull(_) | Source::Kmp(_) => {
                format!("let the source send {}", listed(takes))
            }
            Source::File(_) => format!("convert the file to {}", listed(takes)),
            _ => format!("set the camera to {}, or ask its second profile for it", listed(takes)),
        })
    }

    fn other_profile(&self) -> Option<String> {
        self.profile(|profile| matches!(profile.codec, Some(Codec::H264 | Codec::Hevc)))
    }

    /// Words that name the first of the camera's profiles that fits.
    fn profile(&self, fits: impl Fn(&super::Profile) -> bool) -> Option<String> {
        let profile = self.seen.profiles.iter().find(|profile| fits(profile))?;
        let codec = profile.codec.map_or("jpeg", Codec::name);
        let (name, width, height) = (&profile.name, profile.width, profile.height);
        Some(format!("ask the camera's profile {name} for it: {codec}, {width}x{height}"))
    }
}

fn listed(codecs: &[Codec]) -> String {
    match codecs.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.name().to_owned(),
        Some((last, rest)) => {
            let rest: Vec<&str> = rest.iter().map(|codec| codec.name()).collect();
            format!("{} or {}", rest.join(", "), last.name())
        }
    }
}
