//! A local camera.

use super::{default_bitrate, default_keyframe_interval};
use crate::config::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What to ask a local camera for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum V4l2Format {
    /// H.264 if the device has it, else HEVC, else MJPEG or raw, whichever gives the wanted size and rate.
    #[default]
    Auto,
    /// The device's own H.264, passed on as it is.
    H264,
    /// The device's own HEVC, passed on as it is.
    Hevc,
    /// Motion JPEG, decoded and encoded here.
    Mjpeg,
    /// Raw pictures, encoded here.
    Raw,
}

/// A local camera or capture card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct V4l2 {
    /// Which: `serial:SERIAL` (this camera in whatever socket), `usb:BUS-PORT` (whatever camera is in this USB socket),
    /// a name under `/dev/v4l/by-id/` or `/dev/v4l/by-path/`, or a device file such as `/dev/video0`, whose number may
    /// be another camera's after a restart. `fieldgate devices` lists the names of all.
    #[schemars(length(min = 1, max = 4096))]
    pub device: PathBuf,
    /// Picture width in pixels, 16 to 8,192. Default: 1,280 or the device's nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 8192))]
    pub width: Option<u32>,
    /// Picture height in pixels, 16 to 8,192. Default: 720 or the device's nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 8192))]
    pub height: Option<u32>,
    /// Pictures per second, 1 to 240. Default: 30 or the device's nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 240))]
    pub frame_rate: Option<u32>,
    /// Bits per second when encoded here, 10,000 to 200,000,000. Default 2,000,000.
    #[serde(default = "default_bitrate")]
    #[schemars(range(min = 10000, max = 200000000))]
    pub bitrate: u32,
    /// What to ask the device for. Default `"auto"`.
    #[serde(default)]
    pub format: V4l2Format,
    /// What to set on the device, by the names that `fieldgate devices` lists: `{"brightness": 140}`. At most 64. Set
    /// when the camera starts and, without interrupting it, when they change; one that is named no longer goes back to
    /// the driver's default. What the device does not have is refused. Default: nothing is set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub controls: BTreeMap<String, i64>,
    /// A microphone that belongs to it, as ALSA names it: `hw:CARD=C920` or, for other rates and channels than it has by
    /// itself, `plughw:CARD=C920`; `arecord -L` lists them. `null` is silence. Default: none, so no sound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 71))]
    pub microphone: Option<String>,
    /// Time between keyframes when encoded here. `"100ms"` to `"60s"`. Default `"2s"`.
    #[serde(default = "default_keyframe_interval")]
    #[schemars(extend("minSpan" = "100ms", "maxSpan" = "60s"))]
    pub keyframe_interval: Span,
}

impl V4l2 {
    /// Controls that may be set on one device.
    pub const CONTROLS_MAX: usize = 64;

    /// Whether `device` has one of the forms of a device's name.
    pub fn has_device_name(&self) -> bool {
        let plain = |text: &str, also: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || also.contains(c))
        };
        let text = self.device.to_string_lossy();
        match text.split_once(':') {
            Some(("serial", serial)) => {
                !serial.is_empty() && serial.len() <= 128 && !serial.chars().any(char::is_control)
            }
            Some(("usb", place)) => {
                place.len() <= 64
                    && place.split_once('-').is_some_and(|(bus, port)| plain(bus, "") && plain(port, ".:"))
            }
            _ => {
                self.device.starts_with("/dev")
                    && !self.device.components().any(|part| part == std::path::Component::ParentDir)
            }
        }
    }

    /// Whether a control may be called so.
    pub fn is_control_name(name: &str) -> bool {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        (1..=32).contains(&name.len()) && name.chars().all(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(device: &str) -> V4l2 {
        serde_json::from_value(serde_json::json!({ "device": device })).unwrap()
    }

    #[test]
    fn a_device_is_named_by_file_serial_number_or_usb_socket() {
        for name in [
            "/dev/video0",
            "/dev/v4l/by-id/usb-046d_C270:1.0-video-index0",
            "serial:SN 42:7",
            "usb:1-1.4",
            "usb:12-3:1.0",
        ] {
            assert!(named(name).has_device_name(), "{name}");
        }
        let long = format!("serial:{}", "x".repeat(129));
        for name in [
            "video0",
            "/etc/passwd",
            "/dev/../etc/passwd",
            "serial:",
            "serial:a\nb",
            &long,
            "usb:",
            "usb:1",
            "usb:-1",
            "usb:1-",
            "usb:a-1",
            "usb:1-1/..",
            "pci:1",
        ] {
            assert!(!named(name).has_device_name(), "{name}");
        }
    }

    #[test]
    fn controls_are_named_as_the_list_of_devices_names_them() {
        assert!(V4l2::is_control_name("white_balance_automatic"));
        for name in ["", "Brightness", "a b", "gain;", &"x".repeat(33)] {
            assert!(!V4l2::is_control_name(name), "{name}");
        }
    }
}
