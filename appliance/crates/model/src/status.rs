//! What the gateway shows of itself: one snapshot, without secrets.

mod capacity;
mod pushes;

pub use capacity::{CapacityStatus, ShedStatus};
pub use pushes::{KmpPushStatus, PushStatus, RenditionStatus, SpoolStatus};

use crate::Timestamp;
use crate::config::{Problem, Span};
use crate::job::RefusedPackets;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The gateway at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// When this snapshot was taken.
    pub at: Timestamp,
    /// When the program started.
    pub started: Timestamp,
    /// The config's state.
    pub config: ConfigStatus,
    /// What listens, by kind (`rtmp`, `rtmps`, `admin`).
    pub listeners: BTreeMap<String, ListenerStatus>,
    /// The mountpoints by name, and the streams that exist under templates by theirs.
    pub mountpoints: BTreeMap<String, MountpointStatus>,
    /// The encoder that works on this machine, once a camera has needed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder: Option<EncoderStatus>,
    /// What encoding may take of the machine, what it takes, and what was left out.
    pub capacity: CapacityStatus,
    /// The worker processes by name.
    pub workers: BTreeMap<String, WorkerStatus>,
    /// Connections to coordinators and masters elsewhere, by their part of the config: `control`, `encoder`, `node`.
    pub elsewhere: BTreeMap<String, ElsewhereStatus>,
    /// What became of the last firmware update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update: Option<UpdateStatus>,
    /// What somebody should know and do: a stuck worker, a config file that could not be read.
    pub notices: Vec<Notice>,
}

/// A connection to a coordinator or a master elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ElsewhereStatus {
    /// Whether it is there.
    pub state: ElsewhereState,
    /// Since when.
    pub since: Timestamp,
    /// Why it is not there, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Whether a connection to a coordinator or a master elsewhere is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ElsewhereState {
    /// It is being looked for, for ever.
    Connecting,
    /// It is there.
    Up,
}

/// A firmware update, as it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpdateStatus {
    /// The version of the new firmware; empty where its bundle was not believed.
    pub version: String,
    /// The version that ran before.
    pub from: String,
    /// How far it has come, or how it ended.
    pub phase: UpdatePhase,
    /// Why it was refused or not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who wanted it.
    pub by: String,
    /// Since when it is in this phase.
    pub at: Timestamp,
}

/// How far a firmware update has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpdatePhase {
    /// It is written over the slot that does not run.
    Installing,
    /// It is there, and the machine has still to start it.
    Installed,
    /// It runs, and is judged by whether all delivers again.
    Trial,
    /// It is kept.
    Good,
    /// It was not kept; the firmware before it runs again.
    Failed,
    /// It was not installed.
    Refused,
}

/// Where the config stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ConfigStatus {
    /// Number of the confirmed config; each confirmed change adds one.
    pub revision: u64,
    /// What is going on.
    pub phase: ConfigPhase,
    /// Who made the confirmed config, and when.
    pub changed_by: String,
    /// When it was confirmed.
    pub changed_at: Timestamp,
    /// The change that waits for confirmation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingChange>,
    /// Why the last change was undone, until one succeeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<RolledBack>,
    /// Whether some setting waits for the next start.
    pub needs_restart: bool,
}

/// What the config is going through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConfigPhase {
    /// The confirmed config runs.
    #[default]
    Confirmed,
    /// A change is being carried out.
    Applying,
    /// A change runs and waits for confirmation.
    AwaitingConfirm,
    /// A change is being undone.
    RollingBack,
}

/// A change that runs but is not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PendingChange {
    /// Who sent it.
    pub by: String,
    /// Undone if not confirmed by then.
    pub deadline: Timestamp,
    /// What is not healthy again yet; confirmation waits for it.
    pub unhealthy: Vec<String>,
}

/// A change that was undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RolledBack {
    /// When.
    pub at: Timestamp,
    /// Who had sent it.
    pub by: String,
    /// Why.
    pub causes: Vec<Problem>,
}

/// Something that somebody should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Notice {
    /// Stable name of the kind of notice: `config_unreadable`.
    pub code: String,
    /// What it is and what helps.
    pub text: String,
}

/// What a supervised part is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It begins, not ready yet.
    #[default]
    Starting,
    /// It is ready or at work.
    Running,
    /// It is ready, but there is nothing to do: a push without a stream.
    Waiting,
    /// It failed and will be tried again at `next_attempt`.
    Retrying,
    /// It failed and only other settings can help.
    Failed,
    /// It ended by itself, as it should.
    Ended,
    /// It was told to stop.
    Stopping,
    /// It did not stop when told to; it was left behind.
    Stuck,
}

/// State, cause and next attempt of a supervised part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Activity {
    /// What it is doing.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// Failures in a row, without 60 s of good running between them.
    pub attempts: u32,
    /// Starts since it is in the config.
    pub starts: u64,
    /// Why it is not running; kept after it runs again, until the next change of settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<Timestamp>,
}

/// One kind of listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ListenerStatus {
    /// How it does.
    #[serde(flatten)]
    pub activity: Activity,
    /// The addresses that are bound, ports chosen by the kernel included.
    pub addresses: Vec<std::net::SocketAddr>,
    /// Open connections.
    pub connections: u64,
    /// Connections refused by a limit.
    pub refused: u64,
}

/// One mountpoint, or one stream under a template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MountpointStatus {
    /// The template that it exists under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Its source.
    pub source: SourceStatus,
    /// The stream, while there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamStatus>,
    /// What is said of the picture; absent where none is expected or watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picture: Option<PictureStatus>,
    /// Players by RTMP now.
    pub players: u32,
    /// Viewers by HTTP; absent until there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watching: Option<WatchingStatus>,
    /// What is kept of it on disk; absent where nothing is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recording: Option<RecordingStatus>,
    /// Pushes by id.
    pub pushes: BTreeMap<String, PushStatus>,
    /// Forms of the stream that pushes need and that are made here, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub renditions: BTreeMap<String, RenditionStatus>,
    /// Counters since the mountpoint exists.
    pub counters: Counters,
}

/// Viewers by HTTP, and the segments that are made for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WatchingStatus {
    /// Viewers now.
    pub viewers: u64,
    /// Whether the stream is being cut into segments now: from the first viewer until a while after the last.
    pub is_cut: bool,
    /// Sizes that are made for viewers now, such as `360p`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<String>,
    /// Whole segments kept now, of each track.
    pub segments: u64,
    /// Bytes of segments kept now.
    pub held_bytes: u64,
    /// Playlists and files sent.
    pub answers: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Units that the segmenter missed.
    pub lost_units: u64,
}

/// What is kept of a stream on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RecordingStatus {
    /// How its recorder does.
    #[serde(flatten)]
    pub activity: Activity,
    /// Segments; pictures and sound are one each.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the oldest begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest: Option<Timestamp>,
    /// When the newest ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest: Option<Timestamp>,
    /// Bytes written to disk since the recorder's start: what wears flash out.
    pub written_bytes: u64,
    /// Segments that were not kept, because the disk was too slow or full.
    pub lost_segments: u64,
    /// Unfinished files of before that the start found and removed.
    pub mended_files: u64,
    /// Why the last segment was not kept, until one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Whether the picture is the truth.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PictureStatus {
    /// `ok`, `dead`, `frozen`, `black`, `covered`, `out_of_focus`, `audio_only`, `repeating` or `no_keyframe`.
    pub verdict: String,
    /// Since when, as far as can be told.
    pub since: Timestamp,
    /// When this verdict was first given.
    pub told: Timestamp,
    /// Why, in plain words; absent while it is `ok`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// When a keyframe was last decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<Timestamp>,
    /// Why the last keyframe could not be decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check_error: Option<String>,
    /// Keyframes decoded since the mountpoint exists.
    pub checks: u64,
    /// Keyframes that could not be decoded.
    pub failed_checks: u64,
    /// Mean brightness of the last one, 0 to 255.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brightness: Option<f32>,
    /// How steep its steepest edges are, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sharpness: Option<f32>,
}

/// What was done to bring a camera's picture back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LadderStatus {
    /// The step whose effect is waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Until when it is waited for, or when the next step is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// What a person has to do, once all steps have failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// The last steps with their results, oldest first.
    pub steps: Vec<LadderStep>,
}

/// One step that was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LadderStep {
    /// When.
    pub at: Timestamp,
    /// `setup`, `reconnect`, `transport`, `reboot` or `worker`.
    pub step: String,
    /// What came of it.
    pub result: String,
}

/// Where a mountpoint's stream comes from, and how that goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SourceStatus {
    /// As in the config: `publish`, `rtsp`, `v4l2`, `test`, `pull`, `kmp`.
    pub kind: String,
    /// Its address or device, secrets masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What the source is, in words: transport, codecs, the name of the camera's server. Absent until it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub described: Option<String>,
    /// How it does; absent for `publish`, which waits for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity: Option<Activity>,
    /// The encoder at work, where pictures are encoded here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder: Option<EncoderStatus>,
    /// `v4l2` only: why the last change of `controls` was refused. The stream goes on as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Why the microphone that belongs to it is not heard. Pictures go on without it; it is tried every ten seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub microphone: Option<String>,
    /// `rtp` only: packets that were not taken, of senders that are not in `allow` or that were no RTP of this stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused_packets: Option<RefusedPackets>,
    /// What was done to bring the picture back, once something was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ladder: Option<LadderStatus>,
    /// KMP only: the tracks that came, `video` and `audio`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kmp: BTreeMap<String, KmpTrackStatus>,
}

/// One track that comes by KMP, over all its connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct KmpTrackStatus {
    /// Who sends it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The next frame that is wanted.
    pub next_frame_id: u64,
    /// All frames before this one are acknowledged, as far as the present or last connection was told.
    pub acked_frame_id: u64,
    /// Connections so far.
    pub connections: u64,
    /// Those among them that went on where the last ended.
    pub resumed: u64,
    /// Frames that were not had before.
    pub received_frames: u64,
    /// Keyframes among them; 0 for sound.
    pub received_keyframes: u64,
    /// Their payload bytes.
    pub received_bytes: u64,
    /// Left out: had before a reconnect.
    pub duplicate_frames: u64,
    /// Left out: before any media info.
    pub no_media_info_frames: u64,
    /// Left out: without payload.
    pub empty_frames: u64,
    /// Left out: waited for a keyframe.
    pub no_key_frames: u64,
    /// Left out: too far behind the other track.
    pub late_frames: u64,
}

/// The encoder that was chosen, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EncoderStatus {
    /// Its element's name.
    pub name: String,
    /// Whether hardware encodes.
    pub hardware: bool,
    /// Why this one.
    pub reason: String,
    /// What was tried before it, with the outcome.
    pub tried: Vec<(String, String)>,
}

/// A live stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StreamStatus {
    /// Who publishes: an address with port, or the source's kind.
    pub publisher: String,
    /// Since when.
    pub since: Timestamp,
    /// Its tracks.
    pub tracks: Vec<TrackStatus>,
    /// Bits per second over the last seconds.
    pub bitrate: u64,
    /// Age of the newest unit.
    pub newest_unit_age: Span,
}

/// One track of a live stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TrackStatus {
    /// `video` or `audio`.
    pub kind: String,
    /// Codec's name.
    pub codec: String,
    /// Pixels; 0 where unknown.
    pub width: u32,
    /// Pixels; 0 where unknown.
    pub height: u32,
    /// Pictures per second, measured; 0 where unknown.
    pub frame_rate: f64,
    /// Hertz; 0 where unknown.
    pub sample_rate: u32,
    /// Channels; 0 where unknown.
    pub channels: u8,
}

/// What went through and what was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Counters {
    /// Units taken in (mountpoint) or sent (push).
    pub units: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Units that a subscriber missed because it was too slow.
    pub dropped_units: u64,
    /// Jumps of slow subscribers to the newest keyframe.
    pub jumps: u64,
    /// Units that did not parse and were skipped.
    pub malformed_units: u64,
    /// Subscribers closed because they took nothing.
    pub stalled_subscribers: u64,
    /// Jumps of the source's clock that no output shows; each track counts.
    pub clock_jumps: u64,
}

/// One worker process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WorkerStatus {
    /// Process id; 0 while there is none.
    pub pid: u32,
    /// How it does.
    #[serde(flatten)]
    pub activity: Activity,
    /// Proportional set size in bytes; 0 where unknown.
    pub memory_bytes: u64,
    /// Age of its last sign of life.
    pub pulse_age: Span,
    /// What the kernel could not enforce of its sandbox; empty if all is in place.
    pub sandbox_gaps: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_its_json() {
        let mut status = Status { version: "1".to_owned(), ..Status::default() };
        let mut mountpoint =
            MountpointStatus { stream: Some(StreamStatus::default()), ..MountpointStatus::default() };
        mountpoint
            .pushes
            .insert("p".to_owned(), PushStatus { url: "rtmp://h".to_owned(), ..PushStatus::default() });
        status.mountpoints.insert("yard".to_owned(), mountpoint);
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value.pointer("/mountpoints/yard/pushes/p/state"), Some(&"starting".into()));
    }
}
