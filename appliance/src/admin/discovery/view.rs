//! A camera as the API shows it.

use fieldgate_model::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use std::net::IpAddr;
use std::path::PathBuf;

/// One camera. Holds no password, in no URL.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct CameraView {
    /// Stays with the camera: from its endpoint's UUID, its Ethernet address or its serial number.
    pub id: String,
    /// How it was found.
    pub found_by: FoundByView,
    /// Where it is on the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Other addresses under which its id was heard.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_addresses: Vec<IpAddr>,
    /// The interface on which it was heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Its device file, if it is a local camera.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<PathBuf>,
    /// Names it goes by.
    pub names: Vec<String>,
    /// Places that somebody set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub locations: Vec<String>,
    /// The maker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub make: Option<String>,
    /// The model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Version of its firmware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// Its serial number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Ethernet addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<String>,
    /// What became of the credentials.
    pub login: Auth,
    /// Its profiles.
    pub profiles: Vec<ProfileView>,
    /// The stream with the largest picture, proven by a description of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub main: Option<CheckedStream>,
    /// The stream with the smallest, if there is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<CheckedStream>,
    /// Where a JPEG is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_url: Option<String>,
    /// How far its clock is before the gateway's, such as `"-9800s"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_offset: Option<String>,
    /// What is missing or odd, for a person.
    pub missing: Vec<String>,
    /// It said that it goes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
    /// When it was first heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<Timestamp>,
    /// When it was last heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
}

/// How a camera was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FoundByView {
    /// By WS-Discovery.
    pub onvif: bool,
    /// By multicast DNS.
    pub mdns: bool,
    /// Somebody named its address.
    pub named: bool,
    /// It is a local camera (Video4Linux).
    pub v4l2: bool,
}

/// What became of the credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// None were given.
    #[default]
    None,
    /// The camera takes them.
    Accepted,
    /// The camera does not ask for any.
    NotNeeded,
    /// What was found stands, but the camera then refused them.
    Refused,
}

/// One profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ProfileView {
    /// Its name in requests.
    pub profile: String,
    /// Its name for people.
    pub name: String,
    /// Its video.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<EncoderView>,
    /// Its audio codec in the camera's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio: Option<String>,
    /// Where its stream is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// What an encoder does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct EncoderView {
    /// `h264`, `hevc`, `mjpeg`, `mpeg4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec: Option<&'static str>,
    /// Width in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Height in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Pictures per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fps: Option<f32>,
    /// Thousand bits per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitrate_kbps: Option<u32>,
    /// Pictures from one keyframe to the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gop: Option<u32>,
}

/// A stream's address and what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CheckedStream {
    /// Where it is, without user and password.
    pub url: String,
    /// The camera described it just so; else it is only what the camera says elsewhere.
    pub checked: bool,
    /// What is in it, once it was described.
    pub streams: Vec<StreamView>,
}

/// One stream inside a description.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct StreamView {
    /// `video`, `audio`, `application`.
    pub kind: String,
    /// As RTP names it, such as `H264`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
    /// In Hz.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_rate: Option<u32>,
}

/// How the search goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SearchView {
    /// A round is under way.
    pub searching: bool,
    /// When the last round ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_round: Option<Timestamp>,
    /// Where it is looked.
    pub interfaces: Vec<InterfaceView>,
    /// What hindered the last round.
    pub problems: Vec<String>,
    /// Messages that were not taken, since the start.
    pub refused: RefusalsView,
}

/// One interface that is looked on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InterfaceView {
    /// Such as `eth0`.
    pub name: String,
    /// Its address.
    pub address: String,
}

/// Messages that were not taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RefusalsView {
    /// Not what they should be.
    pub malformed: u64,
    /// From addresses that send too many.
    pub too_many: u64,
    /// From addresses that can be no camera's.
    pub not_a_camera: u64,
    /// Answers to what was never asked.
    pub unasked: u64,
    /// Cameras for which there was no room.
    pub no_room: u64,
}
