//! What a local capture device offers: as a worker found it, as the API shows it. Every list is bounded, so that no
//! driver can make it long.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Formats, sizes, rates and controls of one device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DeviceAbilities {
    /// How it can be run, in the driver's order; at most [`DeviceAbilities::MODES_MAX`].
    pub modes: Vec<DeviceMode>,
    /// What can be set on it; at most [`DeviceAbilities::CONTROLS_MAX`].
    pub controls: Vec<DeviceControl>,
    /// What the driver said that was left out, for a person: values that cannot be, lists that are too long.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

impl DeviceAbilities {
    /// Modes that are kept.
    pub const MODES_MAX: usize = 160;
    /// Rates that are kept for each mode.
    pub const RATES_MAX: usize = 16;
    /// Controls that are kept.
    pub const CONTROLS_MAX: usize = 64;
    /// Choices that are kept of a control that is a menu.
    pub const CHOICES_MAX: usize = 24;
    /// Longest name of a control or choice that is kept, in characters.
    pub const NAME_MAX: usize = 32;
}

/// One format at one size, or at a range of sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceMode {
    /// As `source.format` takes it (`raw`, `mjpeg`, `h264`, `hevc`), or GStreamer's name of one that is not taken.
    pub format: String,
    /// How pixels are laid out, such as `YUY2`; only for `raw`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixels: Option<String>,
    /// Width in pixels.
    pub width: Extent,
    /// Height in pixels.
    pub height: Extent,
    /// Pictures per second, as fractions such as `30` or `30000/1001`.
    pub frame_rates: Rates,
}

/// One number, or a range of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Extent {
    /// This one only.
    Exactly(u32),
    /// All from `min` to `max` in steps.
    Between {
        /// The smallest.
        min: u32,
        /// The largest.
        max: u32,
        /// The difference of neighbours.
        step: u32,
    },
}

/// Rates one by one, or a range of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Rates {
    /// These only.
    List(Vec<String>),
    /// All between.
    Between {
        /// The slowest.
        min: String,
        /// The fastest.
        max: String,
    },
}

/// Something that can be set on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceControl {
    /// As `source.controls` takes it: the driver's name in small letters, all else than letters and digits as `_`.
    pub name: String,
    /// The smallest value.
    pub min: i64,
    /// The largest value.
    pub max: i64,
    /// The difference of neighbouring values.
    pub step: i64,
    /// What the driver begins with.
    pub default: i64,
    /// What it is now.
    pub value: i64,
    /// What the values of a menu mean.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<DeviceChoice>,
    /// It cannot be set now: the driver sets it by itself, or another control switches it off.
    #[serde(default)]
    pub inactive: bool,
}

/// One entry of a menu.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceChoice {
    /// The value to set.
    pub value: i64,
    /// What it means.
    pub name: String,
}

impl DeviceControl {
    /// A driver's name of a control as it is written in the config; empty when nothing is left of it.
    pub fn name_of(driver_name: &str) -> String {
        let mut name = String::new();
        for c in driver_name.chars().take(4 * DeviceAbilities::NAME_MAX) {
            match c.is_ascii_alphanumeric() {
                true => name.push(c.to_ascii_lowercase()),
                false if !name.is_empty() && !name.ends_with('_') => name.push('_'),
                false => {}
            }
        }
        name.truncate(DeviceAbilities::NAME_MAX);
        name.truncate(name.trim_end_matches('_').len());
        name
    }

    /// Whether it can be set to this.
    pub fn takes(&self, value: i64) -> bool {
        let is_step = self.step <= 1 || value.wrapping_sub(self.min).rem_euclid(self.step) == 0;
        let is_choice = self.choices.is_empty() || self.choices.iter().any(|choice| choice.value == value);
        (self.min..=self.max).contains(&value) && is_step && is_choice
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Extent::Exactly(value) => write!(f, "{value}"),
            Extent::Between { min, max, .. } => write!(f, "({min} to {max})"),
        }
    }
}

impl fmt::Display for DeviceMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.format)?;
        if let Some(pixels) = &self.pixels {
            write!(f, " {pixels}")?;
        }
        write!(f, " {}x{} at ", self.width, self.height)?;
        match &self.frame_rates {
            Rates::List(rates) => write!(f, "{}/s", rates.join(", ")),
            Rates::Between { min, max } => write!(f, "{min} to {max}/s"),
        }
    }
}

impl fmt::Display for DeviceControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DeviceControl { name, min, max, .. } = self;
        write!(f, "{name} ({min} to {max}")?;
        if self.step > 1 {
            write!(f, " in steps of {}", self.step)?;
        }
        for (nth, choice) in self.choices.iter().enumerate() {
            write!(f, "{}{}: {}", if nth == 0 { "; " } else { ", " }, choice.value, choice.name)?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(min: i64, max: i64, step: i64) -> DeviceControl {
        let name = "gain".into();
        DeviceControl { name, min, max, step, default: 0, value: 0, choices: Vec::new(), inactive: false }
    }

    #[test]
    fn names_of_controls_are_those_that_v4l2_tools_show() {
        for (driver, name) in [
            ("Brightness", "brightness"),
            ("White Balance, Automatic", "white_balance_automatic"),
            ("Exposure Time, Absolute", "exposure_time_absolute"),
            ("  (Pan) ", "pan"),
            ("\u{fffd}\u{fffd}", ""),
            ("Zoom, Continuous and more than a name may have", "zoom_continuous_and_more_than_a"),
        ] {
            assert_eq!(DeviceControl::name_of(driver), name);
        }
    }

    #[test]
    fn a_control_takes_what_lies_in_its_range_and_on_its_steps() {
        assert!(control(-5, 5, 5).takes(0) && !control(-5, 5, 5).takes(1) && !control(-5, 5, 5).takes(10));
        assert!(control(0, 3, 0).takes(3), "a step of nought is one");
        assert!(control(i64::MIN, i64::MAX, 7).takes(i64::MIN));
        assert!(!control(5, -5, 1).takes(0), "a range that is none takes nothing");
        let mut menu = control(0, 3, 1);
        menu.choices = vec![DeviceChoice { value: 3, name: "aperture".into() }];
        assert!(menu.takes(3) && !menu.takes(1));
        assert_eq!(menu.to_string(), "gain (0 to 3; 3: aperture)");
    }

    #[test]
    fn abilities_read_back_as_they_were_written() {
        let mode = DeviceMode {
            format: "raw".into(),
            pixels: Some("YUY2".into()),
            width: Extent::Exactly(640),
            height: Extent::Between { min: 16, max: 480, step: 2 },
            frame_rates: Rates::List(vec!["30000/1001".into(), "15".into()]),
        };
        assert_eq!(mode.to_string(), "raw YUY2 640x(16 to 480) at 30000/1001, 15/s");
        let abilities =
            DeviceAbilities { modes: vec![mode], controls: vec![control(0, 9, 1)], left_out: Vec::new() };
        let json = serde_json::to_string(&abilities).unwrap();
        assert!(json.contains(r#""width":640,"height":{"min":16,"max":480,"step":2}"#), "{json}");
        assert_eq!(serde_json::from_str::<DeviceAbilities>(&json).unwrap(), abilities);
    }
}
