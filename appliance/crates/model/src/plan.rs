//! What happens to each stream on its way from its source to each of its outputs, and what that costs.
//!
//! ```text
//!  source --treatment--> mountpoint --+-- leg: pass, repackage ------------------> push, players
//!                                     +-- rendition (decode, encode) --> leg ----> push
//! ```
//!
//! Re-encoding is the exception: it happens where a receiver cannot take what the source gives, or where the picture
//! itself must change. Whoever needs the same shares one rendition. Pure: what is known of the machine and of the
//! streams is handed in as [`Known`]; [`plan`] never guesses better than that and says what it assumed.

mod decide;
mod fit;
mod known;
mod protocol;
mod shedding;
#[cfg(test)]
mod tests;
mod text;
mod wishes;

pub use fit::{admit, plan};
pub use known::{Guest, Known, KnownDecoder, KnownEncoder, Profile, Seen, SeenAudio, SeenVideo};
pub use shedding::{Cause, Readings, Shed, Shedder, Turn};
pub use text::Summary;

use fieldgate_media::Codec;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// The whole gateway's plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Plan {
    /// By name: the config's mountpoints, templates among them, and the streams that exist under templates.
    pub mountpoints: BTreeMap<String, MountpointPlan>,
    /// What all of it costs, against what there is.
    pub load: Load,
    /// What does not fit on this machine, the least important first; empty when all does.
    pub over: Vec<Overload>,
    /// The encoder of each guest, or why there is none; what the config says goes first.
    #[serde(skip)]
    pub guests: BTreeMap<u64, Result<String, String>>,
}

impl Plan {
    /// Whether pictures are encoded anywhere.
    pub fn encodes(&self) -> bool {
        !self.guests.is_empty()
            || self.mountpoints.values().any(|mountpoint| {
                let renditions = mountpoint.renditions.iter().map(|rendition| &rendition.video);
                std::iter::once(&mountpoint.source.video).chain(renditions).any(Step::encodes)
            })
    }
}

/// One mountpoint.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct MountpointPlan {
    /// As in the config.
    pub priority: u8,
    /// What is done to the stream where it enters, once for all outputs.
    pub source: Treatment,
    /// Further forms of the stream that some outputs need.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub renditions: Vec<Rendition>,
    /// What happens on the way to each output, from the source on.
    pub legs: Vec<Leg>,
}

/// Pictures and sound.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Treatment {
    /// What happens to pictures.
    pub video: Step,
    /// What happens to sound.
    pub audio: Step,
}

/// A form of a stream that is made from it: a mountpoint of its own, [`Rendition::mountpoint`].
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Rendition {
    /// Names it within its mountpoint: `h264`, `aac`, `h264-aac`.
    pub name: String,
    /// Its pictures; those that pass are handed over without a worker.
    pub video: Step,
    /// Its sound.
    pub audio: Step,
}

impl Rendition {
    /// The name of the mountpoint that carries it. No stream from outside can have one with `~`.
    pub fn mountpoint(&self, of: &str) -> String {
        format!("{of}~{}", self.name)
    }

    /// What making it costs.
    pub fn cost(&self) -> Cost {
        self.video.cost.plus(self.audio.cost)
    }
}

/// The way to one output.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Leg {
    /// Which output.
    #[serde(flatten)]
    pub output: Output,
    /// The rendition that it takes; none: the mountpoint's own stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rendition: Option<String>,
    /// What happens to pictures. Its cost is shared by all that take the same rendition or source treatment.
    pub video: Step,
    /// What happens to sound.
    pub audio: Step,
}

/// One output of a mountpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "output", rename_all = "snake_case")]
pub enum Output {
    /// Those who play it by RTMP.
    Players,
    /// One upstream.
    Push {
        /// Its effective id.
        id: String,
        /// Its URL, secrets masked.
        url: String,
        /// Whether it would run.
        enabled: bool,
    },
}

/// What happens to pictures or sound at one place.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Step {
    /// What.
    pub action: Action,
    /// What comes.
    pub from: Form,
    /// What goes.
    pub to: Form,
    /// Why.
    pub reason: String,
    /// The encoder at work, where one is and is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder: Option<String>,
    /// What it costs.
    #[serde(skip_serializing_if = "Cost::is_none")]
    pub cost: Cost,
    /// What would make the encoding needless, or possible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// What is to be encoded; for choosing the encoder.
    #[serde(skip)]
    work: Option<Work>,
}

impl Step {
    /// Whether pictures are encoded at this place.
    pub fn encodes(&self) -> bool {
        self.work.is_some()
    }
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing: it goes as it came.
    Pass,
    /// The coded data stays as it is, only what is around it changes.
    Repackage,
    /// What can be carried as it is goes as it came, anything else is encoded; which of both shows when it comes.
    PassOrTranscode,
    /// It is decoded, if need be, and encoded.
    Transcode,
    /// There is none; silence is put in its place.
    Silence,
    /// It is left out.
    Off,
    /// There is none.
    Absent,
    /// It cannot be made into what is needed; the output, or all of it, gets nothing.
    Unable,
}

impl Action {
    /// As it is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Action::Pass => "pass",
            Action::Repackage => "repackage",
            Action::PassOrTranscode => "pass or transcode",
            Action::Transcode => "transcode",
            Action::Silence => "silence",
            Action::Off => "off",
            Action::Absent => "none",
            Action::Unable => "unable",
        }
    }
}

/// The form of pictures or sound at one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Not known before the stream is there.
    #[default]
    Unknown,
    /// There is none.
    Absent,
    /// Raw pictures or sound.
    Raw,
    /// JPEG pictures.
    Jpeg,
    /// Coded.
    Coded(Codec),
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Form::Unknown => "unknown",
            Form::Absent => "none",
            Form::Raw => "raw",
            Form::Jpeg => "jpeg",
            Form::Coded(codec) => codec.name(),
        })
    }
}

impl JsonSchema for Form {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Form".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A codec, or `unknown`, `none`, `raw`, `jpeg`.",
        })
    }
}

impl Serialize for Form {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What decoding and encoding take of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Cost {
    /// Sessions ("slots") of a hardware encoder.
    pub sessions: u32,
    /// Processor time, per cent of one core.
    pub cpu_percent: u32,
}

impl Cost {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Cost) -> Cost {
        Cost {
            sessions: self.sessions.saturating_add(other.sessions),
            cpu_percent: self.cpu_percent.saturating_add(other.cpu_percent),
        }
    }

    /// Whether it costs nothing that counts.
    pub fn is_none(&self) -> bool {
        *self == Cost::default()
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sessions {
            0 => {}
            1 => f.write_str("1 encoder session, ")?,
            sessions => write!(f, "{sessions} encoder sessions, ")?,
        }
        write!(f, "{} % of a core", self.cpu_percent)
    }
}

/// The costs of all, and what there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Load {
    /// What fits and is used.
    pub used: Cost,
    /// What may be used.
    pub limit: Cost,
    /// Whether `limit` was measured; an unknown machine refuses nothing.
    pub measured: bool,
}

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Overload {
    /// The mountpoint.
    pub mountpoint: String,
    /// The rendition of it; none: what its source needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rendition: Option<String>,
    /// The mountpoint's.
    pub priority: u8,
    /// What it would take.
    pub cost: Cost,
    /// Why it does not fit.
    pub reason: String,
}

/// What is to be decoded and encoded, with the shape that is known or assumed.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Work {
    /// Raw needs no decoder.
    from: Form,
    to: Codec,
    width: u32,
    height: u32,
    frame_rate: u32,
    /// Whether the picture itself is changed.
    paints: bool,
}

impl Work {
    /// Thousands of pixels a second.
    fn kilopixels_per_second(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height) * u64::from(self.frame_rate) / 1_000
    }
}
