//! What happened, in plain words: for the flight recorder, the API's event stream, webhooks, the page.

use crate::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest text of an event, in bytes; what strangers send is cut.
const TEXT_MAX: usize = 400;

/// One thing that happened. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Its number. Rises, also over restarts, so that who missed some knows it.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// What kind of thing.
    #[serde(rename = "event")]
    pub kind: EventKind,
    /// The mountpoint that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mountpoint: Option<String>,
    /// The id of the push that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// What happened, in plain words.
    pub text: String,
    /// Seconds that were lost by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_seconds: Option<u64>,
    /// What it is put down to, as far as can be told from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

impl Event {
    /// With neither number nor time, which the recorder gives. `text` is cut after 400 bytes.
    pub fn new(kind: EventKind, text: impl Into<String>) -> Self {
        let mut text: String = text.into();
        if text.len() > TEXT_MAX {
            text.truncate(text.floor_char_boundary(TEXT_MAX));
            text.push('\u{2026}');
        }
        Event {
            id: 0,
            at: Timestamp::default(),
            kind,
            mountpoint: None,
            upstream: None,
            text,
            lost_seconds: None,
            cause: None,
        }
    }

    /// About this mountpoint.
    #[must_use]
    pub fn of(self, mountpoint: &str) -> Self {
        Event { mountpoint: Some(mountpoint.to_owned()), ..self }
    }

    /// About this push.
    #[must_use]
    pub fn to(self, upstream: &str) -> Self {
        Event { upstream: Some(upstream.to_owned()), ..self }
    }

    /// By which so many seconds were lost.
    #[must_use]
    pub fn lost(self, seconds: u64) -> Self {
        Event { lost_seconds: Some(seconds), ..self }
    }

    /// Put down to this.
    #[must_use]
    pub fn because(self, cause: Cause) -> Self {
        Event { cause: Some(cause), ..self }
    }
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The program started; the text says how it had ended.
    Started,
    /// The program was told to stop.
    Stopped,
    /// Somebody made the gateway his.
    Claimed,
    /// A mountpoint's stream came for the first time, or anew without having been missed.
    StreamBegan,
    /// A mountpoint's stream ended, or is silent.
    StreamLost,
    /// It is there again.
    StreamBack,
    /// Why a stream does not come.
    SourceTrouble,
    /// What was found when the source of a lost stream was looked for in the network.
    SourceProbed,
    /// A step was taken to bring a picture back.
    Mending,
    /// The picture is not the truth any more: frozen, black, covered.
    PictureBad,
    /// It is again.
    PictureGood,
    /// A push does not deliver any more.
    UpstreamLost,
    /// It does again.
    UpstreamBack,
    /// Why a push does not deliver.
    UpstreamTrouble,
    /// A change of the config runs and waits for its confirmation.
    ConfigTried,
    /// A config was confirmed.
    ConfigConfirmed,
    /// A change of the config was undone.
    ConfigUndone,
    /// Something is left out, for want of capacity, for heat or load.
    LoadShed,
    /// What was left out is done again.
    LoadTakenBack,
    /// The gateway does not listen any more where it should.
    ListenerLost,
    /// It does again.
    ListenerBack,
    /// Something that somebody should know and do.
    Notice,
    /// A webhook is not taken.
    WebhookTrouble,
    /// It is again.
    WebhookBack,
    /// The survey of the site came to its end.
    Acceptance,
}

/// What something is put down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "EventCause")]
pub enum Cause {
    /// The camera or other source itself: it is there, and does not send.
    Camera,
    /// The camera or other source does not answer at all: power, cable, network on the way.
    Unreachable,
    /// The gateway's own network has no link.
    Link,
    /// A password or key that is not taken.
    Password,
    /// Whoever publishes has ended it.
    Publisher,
    /// The upstream's server, or the way to it.
    Upstream,
    /// A setting that was changed, or that cannot work.
    Settings,
    /// The machine has not the room.
    Capacity,
    /// The gateway itself.
    Gateway,
    /// It cannot be told.
    Unknown,
}

impl Cause {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Camera => "camera",
            Cause::Unreachable => "unreachable",
            Cause::Link => "link",
            Cause::Password => "password",
            Cause::Publisher => "publisher",
            Cause::Upstream => "upstream",
            Cause::Settings => "settings",
            Cause::Capacity => "capacity",
            Cause::Gateway => "gateway",
            Cause::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_as_it_is_told() {
        let event = Event::new(EventKind::StreamBack, "delivers again").of("gate-2").lost(41);
        let event = Event { id: 7, ..event.because(Cause::Camera) };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(
            text,
            r#"{"id":7,"at":"1970-01-01T00:00:00.000Z","event":"stream_back","mountpoint":"gate-2","text":"delivers again","lost_seconds":41,"cause":"camera"}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let event = Event::new(EventKind::Notice, "\u{e4}".repeat(5_000));
        assert!(event.text.len() <= TEXT_MAX + 3 && event.text.ends_with('\u{2026}'));
    }

    #[test]
    fn every_cause_has_the_name_that_it_is_written_with() {
        for cause in [Cause::Camera, Cause::Unreachable, Cause::Link, Cause::Password, Cause::Unknown] {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.name());
        }
    }
}
