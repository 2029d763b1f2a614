//! How a mountpoint's picture is watched, and what is done when it is not the truth.

use super::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether the picture is the truth: noticed by what flows and by decoding a keyframe now and then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Truth {
    /// Whether the picture is watched at all. Default true.
    pub enabled: bool,
    /// The least time between two decoded keyframes. Black, covered and unfocused pictures are told after two of them,
    /// so with the default within 30 s. `"1s"` to `"1h"`. Default `"8s"`.
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "1h"))]
    pub interval: Span,
    /// Silence after which the picture is `dead`; for a camera with a slow rhythm three of its own pictures, if that is
    /// longer. `"5s"` to `"10m"`. Default `"15s"`.
    #[schemars(extend("minSpan" = "5s", "maxSpan" = "10m"))]
    pub dead_after: Span,
    /// Time over which equal pictures count as `frozen` or `repeating`; twice the camera's own longest standstill, if
    /// that is longer. `"2s"` to `"10m"`. Default `"8s"`.
    #[schemars(extend("minSpan" = "2s", "maxSpan" = "10m"))]
    pub still_after: Span,
    /// Time without a keyframe after which it is `no_keyframe`; three of the camera's own intervals, if that is longer.
    /// `"5s"` to `"10m"`. Default `"20s"`.
    #[schemars(extend("minSpan" = "5s", "maxSpan" = "10m"))]
    pub keyframe_after: Span,
    /// What is never said of this picture: `["frozen", "repeating"]` for a test pattern, `["audio_only"]` for a stream
    /// that is meant to be sound alone. At most 8. Default: none.
    #[schemars(length(max = 8))]
    pub ignore: Vec<PictureFault>,
    /// What is done about it.
    pub mend: Mend,
}

impl Default for Truth {
    fn default() -> Self {
        Truth {
            enabled: true,
            interval: Span::from_secs(8),
            dead_after: Span::from_secs(15),
            still_after: Span::from_secs(8),
            keyframe_after: Span::from_secs(20),
            ignore: Vec::new(),
            mend: Mend::default(),
        }
    }
}

/// What may be wrong with a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PictureFault {
    /// Nothing comes.
    Dead,
    /// The picture stands still.
    Frozen,
    /// No light, and no noise of a sensor in the dark.
    Black,
    /// Light, but nothing to be seen.
    Covered,
    /// No sharp edge anywhere.
    OutOfFocus,
    /// Sound without pictures.
    AudioOnly,
    /// The same moving pictures again and again.
    Repeating,
    /// Nothing that could be decoded alone.
    NoKeyframe,
}

impl PictureFault {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            PictureFault::Dead => "dead",
            PictureFault::Frozen => "frozen",
            PictureFault::Black => "black",
            PictureFault::Covered => "covered",
            PictureFault::OutOfFocus => "out_of_focus",
            PictureFault::AudioOnly => "audio_only",
            PictureFault::Repeating => "repeating",
            PictureFault::NoKeyframe => "no_keyframe",
        }
    }
}

/// What is done about a camera of ours whose picture is dead, frozen, repeating, without keyframes or without pictures:
/// one step after the other until the picture is back. Publishers are not ours to mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mend {
    /// Whether anything is done. Default true.
    pub enabled: bool,
    /// Whether the camera may be rebooted by ONVIF when nothing else helped. Only for RTSP cameras with user and
    /// password in their URL. Default false.
    pub reboot: bool,
    /// The most steps within an hour. 1 to 60. Default 6.
    #[schemars(range(min = 1, max = 60))]
    pub steps_per_hour: u32,
    /// How long the effect of a step is waited for, and a quarter of a minute longer where the step begins with a pause.
    /// A fault that is there again must show within it. `"5s"` to `"10m"`. Default `"45s"`.
    #[schemars(extend("minSpan" = "5s", "maxSpan" = "10m"))]
    pub wait: Span,
    /// The same for a reboot: as long as the camera takes to be back. `"5s"` to `"30m"`. Default `"4m"`.
    #[schemars(extend("minSpan" = "5s", "maxSpan" = "30m"))]
    pub reboot_wait: Span,
}

impl Default for Mend {
    fn default() -> Self {
        Mend {
            enabled: true,
            reboot: false,
            steps_per_hour: 6,
            wait: Span::from_secs(45),
            reboot_wait: Span::from_secs(240),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default_and_names_are_as_in_the_status() {
        let truth: Truth = serde_json::from_str(
            r#"{"interval": "30s", "ignore": ["out_of_focus"], "mend": {"reboot": true}}"#,
        )
        .unwrap();
        assert_eq!(truth.interval, Span::from_secs(30));
        assert!(truth.enabled && truth.mend.enabled && truth.mend.reboot);
        assert_eq!(truth.ignore, [PictureFault::OutOfFocus]);
        let written = serde_json::to_value(&truth).unwrap();
        assert_eq!(written["ignore"][0], PictureFault::OutOfFocus.name());
    }
}
