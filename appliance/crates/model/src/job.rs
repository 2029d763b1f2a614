//! What a worker process is told to do and what it answers: the JSON inside the worker link's opaque frames.
//!
//! The gateway writes a [`Job`] as the link's first command, so no secret is ever in an argument or the environment.

mod inspect;
mod treatment;

pub use inspect::{Figures, InspectAnswer, InspectAsk, InspectError, Inspector};
pub use treatment::{
    AudioEncode, AudioTreatment, Overlay, SoundCodec, Transcode, VideoEncode, VideoTreatment,
};

use crate::config::{Network, RtpStream};
use crate::device::DeviceAbilities;
use crate::masks::Masks;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// One worker's whole task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Shown in logs; the mountpoint's name for a camera.
    pub name: String,
    /// What the process may touch; applied before GStreamer is loaded.
    pub sandbox: Sandbox,
    /// What it does.
    pub work: Work,
}

/// What a worker may touch. Everything not named is denied.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sandbox {
    /// Files and folders that it may read beside the system's libraries.
    pub read: Vec<PathBuf>,
    /// Device files that it may read, write and control.
    pub devices: Vec<PathBuf>,
    /// TCP ports that it may connect to; empty also denies internet sockets as a whole, unless `udp`.
    pub tcp_connect: Vec<u16>,
    /// Whether it may use UDP sockets.
    pub udp: bool,
    /// The most private memory that it may allocate, bytes; 0 takes the default.
    pub memory_bytes: u64,
}

/// What a worker does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Work {
    /// A moving picture with a burnt-in clock, and a tone.
    Test(TestCamera),
    /// A local capture device.
    V4l2(V4l2Camera),
    /// A camera by libcamera.
    Csi(CsiCamera),
    /// A network camera; its media passes unchanged.
    Rtsp(RtspCamera),
    /// RTP that somebody sends to us by UDP.
    Rtp(RtpCamera),
    /// A recorded file, played at the speed of life.
    File(FileCamera),
    /// Take a container apart whose bytes the gateway hands over.
    Received(Received),
    /// Decode and encode again the stream that the gateway sends.
    Transcode(Box<Transcode>),
    /// Really encode a few frames with each candidate, of whatever codec, measure those that work, report, end.
    ProbeEncoders(EncoderWish),
    /// Decode single keyframes as they are asked for.
    Inspect(Inspector),
    /// Ask a capture device what it offers, report, end.
    ProbeDevice(PathBuf),
}

/// How pictures are encoded where that is needed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EncoderWish {
    /// What to encode into.
    pub codec: PictureCodec,
    /// The candidate that was proven before; empty: prove them now, best first.
    pub name: String,
    /// Candidates that must not be tried: they hung or crashed a worker before.
    pub skip: Vec<String>,
    /// Bits per second.
    pub bitrate: u32,
    /// Milliseconds from keyframe to keyframe.
    pub gop_ms: u32,
    /// Whether software encoders may be used when no hardware works.
    pub allow_software: bool,
    /// Whether x264 (GPL) may be used; a matter of the build's licence.
    pub allow_x264: bool,
}

impl Default for EncoderWish {
    fn default() -> Self {
        EncoderWish {
            codec: PictureCodec::H264,
            name: String::new(),
            skip: Vec::new(),
            bitrate: 2_500_000,
            gop_ms: 2_000,
            allow_software: true,
            allow_x264: false,
        }
    }
}

/// Settings of the built-in test camera.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TestCamera {
    /// Pixels; even.
    pub width: u32,
    /// Pixels; even.
    pub height: u32,
    /// Pictures per second.
    pub frame_rate: u32,
    /// Whether there is a tone.
    pub sound: bool,
    /// The microphone beside it, as ALSA names it; empty for none.
    #[serde(default)]
    pub microphone: String,
    /// What happens to its pictures, which are raw.
    pub video: VideoTreatment,
    /// What happens to its tone, which is raw.
    pub audio: AudioTreatment,
}

impl Default for TestCamera {
    fn default() -> Self {
        let encode = VideoEncode::new(EncoderWish::default(), Masks::none());
        TestCamera {
            width: 1280,
            height: 720,
            frame_rate: 30,
            sound: true,
            microphone: String::new(),
            video: VideoTreatment::Encode(Box::new(encode)),
            audio: AudioTreatment::Encode(AudioEncode::default()),
        }
    }
}

/// Settings of a local capture device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct V4l2Camera {
    /// The device file.
    pub device: PathBuf,
    /// Wanted pixels; 0 takes what the device offers first.
    #[serde(default)]
    pub width: u32,
    /// Wanted pixels; 0 takes what the device offers first.
    #[serde(default)]
    pub height: u32,
    /// Wanted pictures per second; 0 takes what the device offers first.
    #[serde(default)]
    pub frame_rate: u32,
    /// Which of the device's formats to take.
    #[serde(default)]
    pub format: V4l2Format,
    /// What is set on the device.
    #[serde(default)]
    pub controls: BTreeMap<String, i64>,
    /// The microphone beside it, as ALSA names it; empty for none.
    #[serde(default)]
    pub microphone: String,
    /// What happens to its pictures.
    pub video: VideoTreatment,
    /// What happens to its sound, where it has any.
    pub audio: AudioTreatment,
}

/// Settings of a camera by libcamera.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CsiCamera {
    /// libcamera's name for it; empty takes the first.
    #[serde(default)]
    pub camera: String,
    /// Wanted pixels; even.
    pub width: u32,
    /// Wanted pixels; even.
    pub height: u32,
    /// Wanted pictures per second.
    pub frame_rate: u32,
    /// The microphone beside it, as ALSA names it; empty for none.
    #[serde(default)]
    pub microphone: String,
    /// What happens to its pictures.
    pub video: VideoTreatment,
    /// What happens to its sound, where it has any.
    pub audio: AudioTreatment,
}

/// Formats of a capture device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum V4l2Format {
    /// H.264 if the device has it, then HEVC, then raw, then MJPEG.
    #[default]
    Auto,
    /// H.264, passed on.
    H264,
    /// HEVC, passed on.
    Hevc,
    /// Raw pictures, encoded here.
    Raw,
    /// JPEG pictures, decoded and encoded here.
    Mjpeg,
}

/// Settings of a network camera. Names are resolved by the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RtspCamera {
    /// Where to connect.
    pub address: SocketAddr,
    /// Path and query of the URL, with the leading slash.
    pub path: String,
    /// How media travels.
    #[serde(default)]
    pub transport: RtspTransport,
    /// Empty when none is needed.
    #[serde(default)]
    pub user: String,
    /// Empty when none is needed.
    #[serde(default)]
    pub password: Secret,
    /// How long packets may wait for late ones, milliseconds.
    #[serde(default = "default_latency_ms")]
    pub latency_ms: u32,
    /// What happens to its pictures.
    pub video: VideoTreatment,
    /// What happens to its sound.
    pub audio: AudioTreatment,
}

fn default_latency_ms() -> u32 {
    200
}

/// Settings of a receiver of RTP by UDP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RtpCamera {
    /// One or two, at most one of each kind; each one's RTCP comes to the next port.
    pub streams: Vec<RtpStream>,
    /// Address that is listened on, if no group is joined.
    pub listen: IpAddr,
    /// Multicast group that is joined.
    pub group: Option<IpAddr>,
    /// Number of the network interface for the group; 0 leaves the choice to the system.
    pub interface: u32,
    /// Who may send; empty: this machine alone.
    pub allow: Vec<Network>,
    /// How long packets may wait for late ones, milliseconds.
    pub latency_ms: u32,
    /// What happens to its pictures.
    pub video: VideoTreatment,
    /// What happens to its sound.
    pub audio: AudioTreatment,
}

/// Settings of a file that is played.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileCamera {
    /// The file; the sandbox lets it be read.
    pub path: PathBuf,
    /// Whether it begins anew when it ends.
    pub repeat: bool,
    /// What happens to its pictures.
    pub video: VideoTreatment,
    /// What happens to its sound.
    pub audio: AudioTreatment,
}

/// A container that is received: WebM or Matroska, fragmented MP4, FLV or MPEG-TS. Its bytes are asks of the worker, an
/// empty one is the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Received {
    /// What happens to its pictures.
    pub video: VideoTreatment,
    /// What happens to its sound.
    pub audio: AudioTreatment,
}

/// How RTP travels from a network camera.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RtspTransport {
    /// Inside the RTSP connection: nothing is lost, one port.
    #[default]
    Tcp,
    /// Packets of their own; lost ones stay lost.
    Udp,
}

/// A text that is never shown.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What the gateway may ask of a running worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerCommand {
    /// The task; only as the first command.
    Start(Box<Job>),
    /// End soon, cleanly.
    Stop,
    /// Make the next picture a keyframe, if pictures are encoded here.
    Keyframe,
    /// Change the encoder's rate, bits per second.
    Bitrate(u32),
    /// Set these controls of a capture device; those set before and not named go back to their defaults.
    Controls(BTreeMap<String, i64>),
}

/// What a worker says about itself; each one replaces the last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerStatus {
    /// How far it is.
    pub phase: Phase,
    /// What holds it in, part by part; what could not be applied says why.
    pub sandbox: Vec<Guard>,
    /// Which encoders were tried, best first; the one in use has `chosen`.
    pub encoders: Vec<EncoderTrial>,
    /// Which decoders were tried, best first; empty for work that decodes nothing.
    pub decoders: Vec<EncoderTrial>,
    /// The source in a few words: format, size, server.
    pub source: String,
    /// What a capture device offers, when that was the work.
    pub device: Option<DeviceAbilities>,
    /// Why the last change of controls was refused; what was set before it stays.
    pub refused: Option<String>,
    /// Why the microphone beside the camera is not heard.
    pub microphone: Option<String>,
    /// Packets that were sent to it and not taken, where somebody sends packets to it.
    pub refused_packets: Option<RefusedPackets>,
    /// Why it ended or is about to.
    pub failure: Option<Failure>,
}

/// Packets that were not taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RefusedPackets {
    /// How many, since the source last began anew.
    pub packets: u64,
    /// Whose the last was, and why it was not taken.
    pub last: String,
}

/// How far a worker is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Loading, connecting, proving encoders.
    #[default]
    Starting,
    /// Media flows or is expected to.
    Playing,
    /// It did what it had to do.
    Done,
    /// It cannot go on.
    Failed,
}

/// One part of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// Which.
    pub name: String,
    /// Whether it is in force, fully.
    pub on: bool,
    /// What is missing and why; empty when nothing is.
    pub note: String,
}

/// One encoder that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncoderTrial {
    /// The element's name.
    pub name: String,
    /// Whether it runs on dedicated hardware.
    pub hardware: bool,
    /// It is the one in use.
    pub chosen: bool,
    /// It encoded the frames that it was given.
    pub works: bool,
    /// What was seen, in words.
    pub reason: String,
    /// What it makes and what that takes; where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
}

/// What was measured of an encoder that works.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measured {
    /// What it makes.
    pub codec: PictureCodec,
    /// Profile and level that it wrote into its parameter set: `main 3.1`.
    pub profile_level: String,
    /// Processor time in microseconds for a million pixels.
    pub cpu_us_per_megapixel: u32,
    /// Thousands of pixels a second that it managed; of a hardware encoder all sessions together share this.
    pub kilopixels_per_second: u64,
    /// Sessions that worked side by side, at most those that were tried; 0 for software, which has no such bound.
    pub sessions: u32,
    /// Whether it took another rate while it ran.
    pub changes_bitrate: bool,
}

/// What pictures are encoded into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PictureCodec {
    /// H.264.
    #[default]
    H264,
    /// HEVC.
    Hevc,
}

impl EncoderTrial {
    /// The `reason` of one whose trial has begun and not ended: what a worker that hung or crashed was at.
    pub const UNDER_WAY: &str = "being tried";
}

/// Why a worker cannot go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// In words, without secrets.
    pub cause: String,
    /// Nothing changes until the settings or the installed software do.
    pub permanent: bool,
    /// A camera refused the user name and password: they must not be tried again soon.
    #[serde(default)]
    pub login_refused: bool,
    /// The same with an encoder will do.
    #[serde(default)]
    pub needs_encoder: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_survives_json_and_hides_its_password() {
        let job = Job {
            name: "gate".into(),
            sandbox: Sandbox { tcp_connect: vec![554], ..Sandbox::default() },
            work: Work::Rtsp(RtspCamera {
                address: ([127, 0, 0, 1], 554).into(),
                path: "/main".into(),
                transport: RtspTransport::Udp,
                user: "u".into(),
                password: Secret("hush".into()),
                latency_ms: 100,
                video: VideoTreatment::pass_or(VideoEncode::new(EncoderWish::default(), Masks::none())),
                audio: AudioTreatment::Pass,
            }),
        };
        assert!(!format!("{job:?}").contains("hush"));
        let json = serde_json::to_string(&WorkerCommand::Start(Box::new(job.clone()))).unwrap();
        let back: WorkerCommand = serde_json::from_str(&json).unwrap();
        assert_eq!(back, WorkerCommand::Start(Box::new(job)));
    }

    #[test]
    fn settings_that_are_left_out_have_their_defaults() {
        let job: Job = serde_json::from_str(r#"{"name":"t","sandbox":{},"work":{"test":{}}}"#).unwrap();
        assert_eq!(job.work, Work::Test(TestCamera::default()));
    }
}
