//! What a capture device offers, told in the words of the config.

use super::controls;
use crate::elements;
use crate::error::WorkError;
use crate::pipeline::make;
use fieldgate_model::device::{DeviceAbilities, DeviceMode, Extent, Rates};
use gst::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Pixels of a side beyond which nothing is taken.
const SIDE_MAX: i32 = 8192;
/// Pictures per second beyond which nothing is taken.
const RATE_MAX: i32 = 1000;
/// The link to the gateway carries 64 KiB at once; names and numbers around it need some.
const JSON_MAX: usize = 48 << 10;

/// Opens the device and asks for its modes and controls.
pub(crate) fn probe(device: &Path) -> Result<DeviceAbilities, WorkError> {
    elements::require(&["v4l2src"])?;
    let source = make("v4l2src", &[])?;
    source.set_property("device", device.to_string_lossy().as_ref());
    let offered = super::offered(&source);
    let _ = source.set_state(gst::State::Null);
    let offered = offered?;
    let (modes, mut left_out) = modes(&offered);
    let controls = match controls::list(device) {
        Ok((controls, others)) => {
            left_out.extend(others);
            controls
        }
        Err(error) => {
            left_out.push(format!("controls: {error}"));
            Vec::new()
        }
    };
    Ok(fit(DeviceAbilities { modes, controls, left_out }))
}

/// As much as one message holds.
fn fit(mut abilities: DeviceAbilities) -> DeviceAbilities {
    let len =
        |abilities: &DeviceAbilities| serde_json::to_vec(abilities).map_or(usize::MAX, |json| json.len());
    if len(&abilities) <= JSON_MAX {
        return abilities;
    }
    abilities.left_out.truncate(8);
    abilities.left_out.push("the names of menus, as the list is too long".to_owned());
    abilities.controls.iter_mut().for_each(|control| control.choices.clear());
    while len(&abilities) > JSON_MAX && !abilities.modes.is_empty() {
        abilities.modes.truncate(abilities.modes.len() * 3 / 4);
    }
    abilities
}

/// What can be negotiated, mode by mode, and what was left out.
pub(super) fn modes(offered: &gst::CapsRef) -> (Vec<DeviceMode>, Vec<String>) {
    let (mut modes, mut left_out) = (Vec::new(), Vec::new());
    for structure in offered.iter() {
        if modes.len() == DeviceAbilities::MODES_MAX {
            left_out.push(format!("modes beyond the first {}", DeviceAbilities::MODES_MAX));
            break;
        }
        match mode(structure) {
            Ok(mode) if !modes.contains(&mode) => modes.push(mode),
            Ok(_) => {}
            Err(what) if left_out.len() < 8 => left_out.push(what),
            Err(_) => {}
        }
    }
    (modes, left_out)
}

pub(super) fn mode(structure: &gst::StructureRef) -> Result<DeviceMode, String> {
    let media = structure.name().as_str();
    let format = match media {
        "video/x-raw" => "raw",
        "image/jpeg" => "mjpeg",
        "video/x-h264" => "h264",
        "video/x-h265" => "hevc",
        other => other,
    };
    let pixels = (format == "raw").then(|| text_of(structure, "format")).flatten();
    let side =
        |name| side(structure, name).ok_or_else(|| format!("a {format} mode with an impossible {name}"));
    let (width, height) = (side("width")?, side("height")?);
    let frame_rates =
        rates(structure).ok_or_else(|| format!("{format} {width}x{height} with no possible rate"))?;
    Ok(DeviceMode { format: format.chars().take(64).collect(), pixels, width, height, frame_rates })
}

/// A text, or several with `/` between.
fn text_of(structure: &gst::StructureRef, name: &str) -> Option<String> {
    if let Ok(text) = structure.get::<String>(name) {
        return Some(text);
    }
    let list = structure.get::<gst::List>(name).ok()?;
    let texts = list.iter().filter_map(|value| value.get::<String>().ok());
    Some(texts.take(16).collect::<Vec<_>>().join("/"))
}

fn side(structure: &gst::StructureRef, name: &str) -> Option<Extent> {
    if let Ok(value) = structure.get::<i32>(name) {
        return (1..=SIDE_MAX).contains(&value).then(|| Extent::Exactly(value.unsigned_abs()));
    }
    let range = unless_impossible(|| structure.get::<gst::IntRange<i32>>(name).ok())?;
    let (min, max) = (range.min().max(1), range.max().min(SIDE_MAX));
    let step = range.step().max(1);
    (min <= max).then(|| Extent::Between {
        min: min.unsigned_abs(),
        max: max.unsigned_abs(),
        step: step.unsigned_abs(),
    })
}

fn rates(structure: &gst::StructureRef) -> Option<Rates> {
    if let Some(range) = unless_impossible(|| structure.get::<gst::FractionRange>("framerate").ok()) {
        let max = usable_rate(range.max()).unwrap_or_else(|| RATE_MAX.to_string());
        // A range begins at 0/1 where a driver names no slowest rate.
        let min = usable_rate(range.min()).unwrap_or_else(|| "1".to_owned());
        return (range.max().numer() > 0 && range.max().denom() > 0).then_some(Rates::Between { min, max });
    }
    let all: Vec<gst::Fraction> = match structure.get::<gst::Fraction>("framerate") {
        Ok(one) => vec![one],
        Err(_) => {
            let list = structure.get::<gst::List>("framerate").ok()?;
            list.iter().filter_map(|value| value.get().ok()).collect()
        }
    };
    let usable: Vec<String> =
        all.into_iter().filter_map(usable_rate).take(DeviceAbilities::RATES_MAX).collect();
    (!usable.is_empty()).then_some(Rates::List(usable))
}

/// The bindings panic at a range whose ends are equal or the wrong way round.
fn unless_impossible<T>(get: impl FnOnce() -> Option<T>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(get)).ok().flatten()
}

/// A rate as it is written; `None` for one that no camera can have.
fn usable_rate(rate: gst::Fraction) -> Option<String> {
    let (numer, denom) = (rate.numer(), rate.denom());
    if numer <= 0 || denom <= 0 || numer / denom > RATE_MAX {
        return None;
    }
    Some(if denom == 1 { numer.to_string() } else { format!("{numer}/{denom}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_model::device::{DeviceChoice, DeviceControl};

    fn told(offered: &str) -> (Vec<String>, Vec<String>) {
        gst::init().unwrap();
        let (modes, left_out) = modes(&offered.parse::<gst::Caps>().unwrap());
        (modes.iter().map(ToString::to_string).collect(), left_out)
    }

    #[test]
    fn modes_are_told_in_the_words_of_the_config() {
        let (modes, left_out) = told(
            "video/x-raw,format=YUY2,width=640,height=480,framerate={30/1,30000/1001}; \
             image/jpeg,width=1280,height=720,framerate=30/1; \
             video/x-h264,width=[16,1920,2],height=[16,1080],framerate=[0/1,60/1]; \
             video/x-h265,width=64,height=64,framerate=5/1; \
             video/x-bayer,format=rggb,width=64,height=64,framerate=5/1",
        );
        assert_eq!(
            modes,
            [
                "raw YUY2 640x480 at 30, 30000/1001/s",
                "mjpeg 1280x720 at 30/s",
                "h264 (16 to 1920)x(16 to 1080) at 1 to 60/s",
                "hevc 64x64 at 5/s",
                "video/x-bayer 64x64 at 5/s",
            ]
        );
        assert!(left_out.is_empty());
    }

    #[test]
    fn what_no_camera_can_have_is_left_out_and_said() {
        let (modes, left_out) = told(
            "video/x-raw,format=NV12,width=0,height=480,framerate=30/1; \
             video/x-raw,format=NV12,width=640,height=[-5,-1],framerate=30/1; \
             video/x-raw,format=NV12,width=100000,height=480,framerate=30/1; \
             video/x-raw,format=NV12,width=640,height=480,framerate=0/1; \
             video/x-raw,format=NV12,width=640,height=480,framerate={0/1,2147483647/1}; \
             video/x-raw,format=NV12,width=640,height=480; \
             video/x-raw,format=NV12,width=640,height=480,framerate={0/1,25/1}",
        );
        assert_eq!(modes, ["raw NV12 640x480 at 25/s"]);
        assert_eq!(left_out.len(), 6);
        assert_eq!(left_out[0], "a raw mode with an impossible width");
        assert_eq!(left_out[3], "raw 640x480 with no possible rate");
    }

    #[test]
    fn long_lists_are_cut_to_what_one_message_holds() {
        let one = |n: u32| format!("video/x-raw,format=NV12,width={},height=480,framerate=30/1", n + 1);
        let all: Vec<String> = (0..5000).map(one).collect();
        let (modes, left_out) = told(&all.join(";"));
        assert_eq!((modes.len(), left_out.len()), (DeviceAbilities::MODES_MAX, 1));

        let name = "n".repeat(DeviceAbilities::NAME_MAX);
        let choices = vec![DeviceChoice { value: 1, name: name.clone() }; DeviceAbilities::CHOICES_MAX];
        let control = DeviceControl {
            name,
            min: i64::MIN,
            max: i64::MAX,
            step: 1,
            default: 0,
            value: 0,
            choices,
            inactive: false,
        };
        let rates = Rates::List(vec!["2147483647/2147483647".to_owned(); DeviceAbilities::RATES_MAX]);
        let mode = DeviceMode {
            format: "f".repeat(64),
            pixels: Some("YUY2".into()),
            width: Extent::Exactly(1),
            height: Extent::Exactly(1),
            frame_rates: rates,
        };
        let large = DeviceAbilities {
            modes: vec![mode; DeviceAbilities::MODES_MAX],
            controls: vec![control; DeviceAbilities::CONTROLS_MAX],
            left_out: Vec::new(),
        };
        let fitted = fit(large);
        assert!(serde_json::to_vec(&fitted).unwrap().len() <= JSON_MAX);
        assert!(fitted.modes.len() > 10 && fitted.controls.len() == DeviceAbilities::CONTROLS_MAX);
    }
}
