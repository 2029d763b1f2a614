//! A camera's session over one TCP connection, without GStreamer: RTSP, RTP and the codecs' packets are read in safe
//! Rust, and pictures and sound pass as they are.
//!
//! ```text
//!  connect, DESCRIBE --all carried here--> SETUP, PLAY --> units ... --> ended, refused or lost
//!       \--- something else in it (MJPEG, Opus, ...) ---> Notice::UseElements: rtspsrc takes over
//! ```

mod clock;
mod refusal;
mod sanity;

use super::notice::{Notice, Teller};
use crate::audio_path::{self, CodedSound};
use crate::error::WorkError;
use crate::outlet::{Outlet, Payload};
use crate::stream::{Feed, Stream, Timed};
use crate::timeline::DecodeTimes;
use clock::Clock;
use fieldgate_hub::link::LogLevel;
use fieldgate_media::{AudioShape, Codec, Track, TrackId, VideoShape};
use fieldgate_model::job::{AudioTreatment, RtspCamera};
use futures_util::{FutureExt, StreamExt};
use retina::client::{
    Credentials, Demuxed, Described, InitialTimestampPolicy, PlayOptions, Session, SessionGroup,
    SessionIdPolicy, SessionOptions, SetupOptions, TcpTransportOptions, Transport,
    UnassignedChannelDataPolicy,
};
use retina::codec::{CodecItem, FrameFormat, ParametersRef, VideoParameters};
use retina::rtcp::ReceivedCompoundPacket;
use sanity::{Sanity, Verdict};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// For each request's answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// For the polite end of a session.
const TEARDOWN_WITHIN: Duration = Duration::from_millis(500);
/// Faults in a row, without one usable unit between them, after which the session is given up.
const FAULTS_MAX: u32 = 50;

/// A session in a thread of its own; ends with this value.
pub(crate) struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts the session.
pub(super) fn start(
    settings: &RtspCamera,
    stream: Stream,
    outlet: Outlet,
    tell: Teller,
) -> Result<Running, WorkError> {
    let (stop, stopped) = oneshot::channel();
    let intake = Intake { settings: settings.clone(), stream, outlet, tell };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| WorkError::Camera(format!("no thread for the session: {error}")))?;
    let thread = std::thread::Builder::new().name("rtsp".into()).spawn(move || {
        runtime.block_on(intake.run(stopped));
    });
    let thread = thread.map_err(|error| WorkError::Camera(format!("no thread for the session: {error}")))?;
    Ok(Running { stop: Some(stop), thread: Some(thread) })
}

struct Intake {
    settings: RtspCamera,
    stream: Stream,
    outlet: Outlet,
    tell: Teller,
}

/// A stream of the session that is taken.
struct Taken {
    index: usize,
    codec: Codec,
    feed: Feed,
    sanity: Sanity,
}

impl Intake {
    async fn run(self, stopped: oneshot::Receiver<()>) {
        let group = Arc::new(SessionGroup::default());
        // A panic would end this thread alone, and nobody would hear of it.
        let session = AssertUnwindSafe(self.session(group.clone())).catch_unwind();
        tokio::select! {
            ended = session => self.tell.tell(ended.unwrap_or_else(|_| {
                let text = "what the camera sends cannot be read: its reader gave up";
                Notice::Failed(WorkError::Camera(text.into()))
            })),
            _ = stopped => {}
        }
        // The session was dropped just now; a camera that allows one at a time wants to hear of it.
        let _ = timeout(TEARDOWN_WITHIN, group.await_teardown()).await;
    }

    async fn session(&self, group: Arc<SessionGroup>) -> Notice {
        let (session, taken) = match self.describe(group).await {
            Ok(Some(described)) => described,
            Ok(None) => return Notice::UseElements,
            Err(error) => return Notice::Failed(error),
        };
        let played = match self.play(session, &taken).await {
            Ok(played) => played,
            Err(error) => return Notice::Failed(error),
        };
        Notice::Failed(self.units(played, taken).await)
    }

    /// What the camera has, and which of it is taken; `None` where GStreamer has to take it.
    async fn describe(
        &self,
        group: Arc<SessionGroup>,
    ) -> Result<Option<(Session<Described>, Vec<Taken>)>, WorkError> {
        let settings = &self.settings;
        let url = format!("rtsp://{}{}", settings.address, settings.path);
        let url = url::Url::parse(&url).map_err(|_| WorkError::Setting {
            setting: "path",
            got: "something else".into(),
            remedy: "write it as in a URL",
        })?;
        let login = (!settings.user.is_empty())
            .then(|| Credentials { username: settings.user.clone(), password: settings.password.0.clone() });
        let has_login = login.is_some();
        let options = SessionOptions::default()
            .creds(login)
            .user_agent("fieldgate".to_owned())
            .session_group(group)
            // Some cameras change it from one SETUP to the next, or send what nobody asked for.
            .session_id(SessionIdPolicy::UseFirst)
            .unassigned_channel_data(UnassignedChannelDataPolicy::Ignore);
        // The library's reader of descriptions panics where a line without `=` stands before another kind of line.
        let session = AssertUnwindSafe(Session::describe(url, options)).catch_unwind();
        let session = match within("DESCRIBE", session).await? {
            Ok(Ok(session)) => session,
            Ok(Err(error)) if !refusal::is_of_description(&error) => {
                return Err(refusal::of("DESCRIBE", &error, has_login));
            }
            // GStreamer leaves out what it cannot read; with nothing left it says so.
            _ => {
                let text =
                    "the camera's description of its streams (SDP) breaks its standard: GStreamer reads it";
                self.outlet.log(LogLevel::Warn, text);
                return Ok(None);
            }
        };
        let mut taken: Vec<Taken> = Vec::new();
        let sound = &settings.audio;
        for (index, stream) in session.streams().iter().enumerate() {
            let (media, name) = (stream.media(), stream.encoding_name());
            let offer = offer(media, name, sound)
                .filter(|offer| audio_path::is_wanted(sound) || offer.id() != TrackId::AUDIO);
            // The first of each kind; others (a second video, ONVIF metadata) are left out.
            let offer = offer.filter(|offer| taken.iter().all(|other| other.feed.id() != offer.id()));
            match offer {
                None => self.outlet.log(LogLevel::Info, &format!("left out: {media} {name}")),
                Some(Offer::Elements(_)) => return Ok(None),
                Some(Offer::Direct(codec)) => {
                    let feed = Feed::new(id_of(codec), DecodeTimes::Made);
                    taken.push(Taken { index, codec, feed, sanity: Sanity::new(codec) });
                }
            }
        }
        if taken.is_empty() {
            return Err(WorkError::Camera(
                "the camera offers no picture and no sound that is carried here".into(),
            ));
        }
        let codecs: Vec<String> = taken.iter().map(|taken| format!("{:?}", taken.codec)).collect();
        let tool = session.tool().map(|tool| tool.to_string()).unwrap_or_default();
        self.tell.source(&self.settings, "TCP", &codecs, &tool);
        Ok(Some((session, taken)))
    }

    async fn play(&self, mut session: Session<Described>, taken: &[Taken]) -> Result<Demuxed, WorkError> {
        for taken in taken {
            let options = SetupOptions::default()
                .transport(Transport::Tcp(TcpTransportOptions::default()))
                .frame_format(FrameFormat::MP4);
            let setup = within("SETUP", session.setup(taken.index, options)).await?;
            setup.map_err(|error| refusal::of("SETUP", &error, true))?;
            self.stream.expect(taken.feed.id());
        }
        let options = PlayOptions::default().initial_timestamp(InitialTimestampPolicy::Permissive);
        let playing = within("PLAY", session.play(options)).await?;
        let playing = playing.map_err(|error| refusal::of("PLAY", &error, true))?;
        playing.demuxed().map_err(|error| refusal::of("PLAY", &error, true))
    }

    /// Hands units on until the session ends; why it did.
    async fn units(&self, mut session: Demuxed, mut taken: Vec<Taken>) -> WorkError {
        let mut clock = Clock::new(&session, taken.iter().map(|taken| (taken.index, taken.feed.id())));
        let (mut faults, mut ended) = (0_u32, Vec::new());
        for taken in &taken {
            self.describe_track(&session, taken, false);
        }
        while let Some(item) = session.next().await {
            let index = match &item {
                Ok(CodecItem::VideoFrame(frame)) => frame.stream_id(),
                Ok(CodecItem::AudioFrame(frame)) => frame.stream_id(),
                Ok(CodecItem::Rtcp(report)) => {
                    clock.report(report);
                    if says_goodbye(report) && !ended.contains(&report.stream_id()) {
                        ended.push(report.stream_id());
                    }
                    if taken.iter().all(|taken| ended.contains(&taken.index)) {
                        return WorkError::Ended;
                    }
                    continue;
                }
                Ok(_) => continue,
                Err(error) => {
                    faults += 1;
                    if !refusal::is_of_one_packet(error) || faults > FAULTS_MAX {
                        return refusal::of_stream(error);
                    }
                    self.outlet.count_unusable();
                    continue;
                }
            };
            let Some(taken) = taken.iter_mut().find(|taken| taken.index == index) else { continue };
            let (time, payload) = match item {
                Ok(CodecItem::VideoFrame(frame)) => {
                    let verdict = taken.sanity.judge(frame.data());
                    if let Verdict::OtherCodec = verdict {
                        return WorkError::OtherCodec { was: format!("{:?}", taken.codec) };
                    }
                    if frame.has_new_parameters() {
                        self.describe_track(&session, taken, true);
                    }
                    if verdict == Verdict::Unusable || !is_described(&session, taken.index) {
                        self.outlet.count_unusable();
                        continue;
                    }
                    (frame.timestamp(), frame.into_data().into())
                }
                Ok(CodecItem::AudioFrame(frame)) => {
                    (frame.timestamp(), bytes::Bytes::copy_from_slice(frame.data()))
                }
                _ => continue,
            };
            faults = 0;
            let (pts, captured) = clock.place(index, time);
            let payload = Payload::Owned(payload);
            let timed = Timed {
                pts: Some(pts),
                dts: None,
                captured: Some(captured),
                parser_says_keyframe: true,
                payload,
            };
            self.stream.take(&mut taken.feed, timed);
        }
        WorkError::Ended
    }

    /// Announces a track as its parameters are now; those of a picture may come with the first one.
    fn describe_track(&self, session: &Demuxed, taken: &Taken, changed: bool) {
        let Some(stream) = session.streams().get(taken.index) else { return };
        let track = match stream.parameters() {
            Some(ParametersRef::Video(video)) => video_track(taken.codec, video, stream.framerate()),
            Some(ParametersRef::Audio(audio)) => {
                let header = if taken.codec == Codec::Aac { audio.extra_data().to_vec() } else { Vec::new() };
                let mut track = Track::new(TrackId::AUDIO, taken.codec, header.into());
                let channels = u8::try_from(audio.channels().get()).unwrap_or(u8::MAX);
                track.audio = AudioShape { sample_rate: audio.clock_rate(), channels };
                track
            }
            _ => return,
        };
        if changed {
            let shape = track.video;
            let text = format!("the camera's picture has new parameters: {}x{}", shape.width, shape.height);
            self.outlet.log(LogLevel::Info, &text);
        }
        self.stream.describe(track);
    }
}

fn video_track(codec: Codec, video: &VideoParameters, sdp_rate: Option<f32>) -> Track {
    let mut track = Track::new(TrackId::VIDEO, codec, video.extra_data().to_vec().into());
    let (width, height) = video.pixel_dimensions();
    // Seconds per picture as a fraction. What the SDP says is a claim of another part of the camera; it comes second.
    let frame_rate = match video.frame_rate() {
        Some((duration, timescale)) if duration > 0 => f64::from(timescale) / f64::from(duration),
        _ => sdp_rate.map_or(0.0, f64::from),
    };
    let frame_rate =
        if frame_rate.is_finite() && (0.0..=1_000.0).contains(&frame_rate) { frame_rate } else { 0.0 };
    track.video = VideoShape { width, height, frame_rate };
    track
}

/// Whether a picture can be decoded: parameter sets came with the description or before it.
fn is_described(session: &Demuxed, index: usize) -> bool {
    session.streams().get(index).is_some_and(|stream| stream.parameters().is_some())
}

/// Whether a stream has ended (RFC 3550, 6.6); some cameras then keep the connection, and send nothing more.
fn says_goodbye(report: &ReceivedCompoundPacket) -> bool {
    const BYE: u8 = 203;
    report.pkts().any(|packet| packet.payload_type() == BYE)
}

async fn within<T>(what: &'static str, work: impl Future<Output = T>) -> Result<T, WorkError> {
    let late = |_| WorkError::Camera(format!("no answer to {what} within {} s", ANSWER_WITHIN.as_secs()));
    timeout(ANSWER_WITHIN, work).await.map_err(late)
}

/// What can be done with a stream of a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    Direct(Codec),
    /// By GStreamer's elements.
    Elements(TrackId),
}

impl Offer {
    fn id(self) -> TrackId {
        match self {
            Offer::Direct(codec) => id_of(codec),
            Offer::Elements(id) => id,
        }
    }
}

fn id_of(codec: Codec) -> TrackId {
    if matches!(codec, Codec::H264 | Codec::Hevc) { TrackId::VIDEO } else { TrackId::AUDIO }
}

fn offer(media: &str, encoding: &str, treat: &AudioTreatment) -> Option<Offer> {
    let sound = |codec, from| match audio_path::passes(from, treat) {
        true => Offer::Direct(codec),
        false => Offer::Elements(TrackId::AUDIO),
    };
    Some(match (media, encoding) {
        ("video", "h264") => Offer::Direct(Codec::H264),
        ("video", "h265") => Offer::Direct(Codec::Hevc),
        ("audio", "mpeg4-generic") => sound(Codec::Aac, CodedSound::Aac),
        ("audio", "pcma") => sound(Codec::PcmA, CodedSound::PcmA),
        ("audio", "pcmu") => sound(Codec::PcmU, CodedSound::PcmU),
        ("video", "jpeg") => Offer::Elements(TrackId::VIDEO),
        ("audio", "opus") => Offer::Elements(TrackId::AUDIO),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_model::job::AudioEncode;

    #[test]
    fn only_what_is_carried_as_it_is_goes_past_gstreamer() {
        let offered = |media, encoding| offer(media, encoding, &AudioTreatment::Pass);
        assert_eq!(offered("video", "h264"), Some(Offer::Direct(Codec::H264)));
        assert_eq!(offered("audio", "opus").map(Offer::id), Some(TrackId::AUDIO));
        assert_eq!(offered("video", "jpeg"), Some(Offer::Elements(TrackId::VIDEO)));
        assert_eq!(offered("application", "vnd.onvif.metadata"), None);
        assert_eq!(offered("audio", "h264"), None);
    }

    #[test]
    fn sound_that_is_to_be_another_goes_through_elements() {
        let aac = AudioTreatment::Encode(AudioEncode::default());
        let louder = AudioTreatment::Encode(AudioEncode { gain_db: 6.0, ..AudioEncode::default() });
        let (direct, elements) = (Offer::Direct(Codec::Aac), Offer::Elements(TrackId::AUDIO));
        assert_eq!(offer("audio", "mpeg4-generic", &aac), Some(direct));
        assert_eq!(offer("audio", "mpeg4-generic", &louder), Some(elements));
        assert_eq!(offer("audio", "pcma", &aac), Some(elements));
        assert_eq!(offer("audio", "pcma", &AudioTreatment::Pass), Some(Offer::Direct(Codec::PcmA)));
    }
}
