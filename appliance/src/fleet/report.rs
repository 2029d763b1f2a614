//! What is shown of the fleet's side, and what is told to the fleet manager.

use super::Way;
use super::book::{Book, Outcome};
use fieldgate_model::status::{ConfigPhase, State};
use fieldgate_model::{Status, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

/// Troubles that a health message names.
const TROUBLES_MAX: usize = 8;

/// A bundle that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "RefusedBundle")]
pub struct Refused {
    /// One word.
    pub code: String,
    /// Why, in words.
    pub reason: String,
    /// The first half of SHA-256 of its text.
    pub digest: String,
    /// How it came.
    pub way: Way,
    /// When.
    pub at: Timestamp,
}

/// How a call to the fleet manager does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "FleetLink")]
pub struct LinkView {
    /// Whether the last try worked and, of MQTT, the session holds.
    pub connected: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<Timestamp>,
    /// Sessions, or questions that were answered, since the start.
    pub sessions: u64,
    /// Events that found no room while there was no session.
    pub lost_events: u64,
}

/// The bundle with the highest number so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "TakenBundle")]
pub struct BundleView {
    /// Its number.
    pub number: u64,
    /// The key that signed it.
    pub key: String,
    /// The first half of SHA-256 of its text.
    pub digest: String,
    /// How it came.
    pub way: Way,
    /// When.
    pub at: Timestamp,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The fleet's side, as shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FleetView {
    /// The gateway's id.
    pub device: String,
    /// The groups that it is in, beside `all`.
    pub groups: Vec<String>,
    /// The names of the keys that it believes.
    pub keys: Vec<String>,
    /// The bundle that was taken last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleView>,
    /// The last bundle that was refused, since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// The MQTT session, where one is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<LinkView>,
    /// The URL that is asked, where one is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<LinkView>,
}

impl FleetView {
    pub(super) fn follow(&mut self, book: &Book, groups: Vec<String>) {
        self.device.clone_from(&book.device);
        self.groups = groups;
        self.keys = book.keys.names().map(ToOwned::to_owned).collect();
        self.bundle = book.last.as_ref().map(|last| BundleView {
            number: last.taken.number,
            key: last.key.clone(),
            digest: last.taken.digest.to_string(),
            way: last.way,
            at: last.at,
            outcome: last.outcome.clone(),
        });
    }

    /// The reported state: all that a fleet manager compares with what it wished. Without times of its own, so that it is
    /// sent anew only if something differs.
    pub(super) fn reported(&self, status: &Status) -> Value {
        let config = &status.config;
        let mut reported = json!({
            "device": self.device,
            "groups": self.groups,
            "version": status.version,
            "started": status.started,
            "revision": config.revision,
            "changed_by": config.changed_by,
            "phase": phase(config.phase),
            "keys": self.keys,
            "bundle": self.bundle,
            "refused": self.refused,
            "update": status.update,
            "health": health(status),
        });
        if let Some(undone) = &config.rolled_back {
            let causes: Vec<String> =
                undone.causes.iter().take(TROUBLES_MAX).map(ToString::to_string).collect();
            reported["rolled_back"] = json!({"at": undone.at, "by": undone.by, "causes": causes});
        }
        reported
    }
}

fn phase(phase: ConfigPhase) -> Value {
    serde_json::to_value(phase).unwrap_or_default()
}

/// How the gateway does, in few words.
pub(super) fn health(status: &Status) -> Value {
    let mut troubles = Vec::new();
    let (mut live, mut delivering, mut pushes) = (0, 0, 0);
    for (name, mountpoint) in &status.mountpoints {
        live += usize::from(mountpoint.stream.is_some());
        let is_bad = |state: State| matches!(state, State::Retrying | State::Failed | State::Stuck);
        if let Some(source) = mountpoint.source.activity.as_ref().filter(|source| is_bad(source.state)) {
            troubles
                .push(format!("{name}: {}", source.cause.as_deref().unwrap_or("its source does not run")));
        }
        for (id, push) in &mountpoint.pushes {
            pushes += 1;
            delivering += usize::from(push.activity.state == State::Running);
            if is_bad(push.activity.state) {
                let cause = push.activity.cause.as_deref().unwrap_or("it does not run");
                troubles.push(format!("{name}, push {id}: {cause}"));
            }
        }
    }
    let more = troubles.len().saturating_sub(TROUBLES_MAX);
    troubles.truncate(TROUBLES_MAX);
    json!({
        "state": if troubles.is_empty() { "healthy" } else { "degraded" },
        "mountpoints": status.mountpoints.len(),
        "live": live,
        "pushes": pushes,
        "delivering": delivering,
        "troubles": troubles,
        "more_troubles": more,
    })
}

/// What each mountpoint does, in one word, for events.
pub(super) fn states(status: &Status) -> std::collections::BTreeMap<String, (&'static str, Option<String>)> {
    let of = |(name, mountpoint): (&String, &fieldgate_model::status::MountpointStatus)| {
        let word = if mountpoint.stream.is_some() { "live" } else { "silent" };
        let cause = mountpoint.source.activity.as_ref().and_then(|source| source.cause.clone());
        let cause = cause.filter(|_| word == "silent");
        (name.clone(), (word, cause))
    };
    status.mountpoints.iter().map(of).collect()
}
