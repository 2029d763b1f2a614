//! Which of a device's modes is taken.

use super::abilities;
use crate::encoders::Pictures;
use crate::error::WorkError;
use fieldgate_model::job::{V4l2Camera, V4l2Format, VideoTreatment};

/// What is asked for where the settings leave it open.
const USUAL: Pictures = Pictures { width: 1280, height: 720, frame_rate: 30 };
/// Modes that a refusal names.
const TOLD_MODES: usize = 12;

/// One way to run the device.
#[derive(Debug)]
pub(super) struct Mode {
    pub(super) format: V4l2Format,
    pub(super) caps: gst::Caps,
    pub(super) pictures: Pictures,
}

impl Mode {
    /// In a few words, for the status.
    pub(super) fn describe(&self, settings: &V4l2Camera) -> String {
        let Pictures { width, height, frame_rate } = self.pictures;
        let format = format!("{:?}", self.format).to_lowercase();
        format!("{} {format} {width}x{height} at {frame_rate}/s", settings.device.display())
    }
}

/// What was asked for, and what there is instead.
pub(super) fn refusal(offered: &gst::CapsRef, settings: &V4l2Camera) -> WorkError {
    let V4l2Camera { width, height, frame_rate, format, .. } = settings;
    let any = |value: &u32| if *value == 0 { "any".to_owned() } else { value.to_string() };
    let wish = format!("{format:?} {}x{} at {}/s", any(width), any(height), any(frame_rate)).to_lowercase();
    let (modes, _) = abilities::modes(offered);
    let mut all: Vec<String> = modes.iter().take(TOLD_MODES).map(ToString::to_string).collect();
    if modes.len() > TOLD_MODES {
        all.push(format!("and {} more that `fieldgate devices` lists", modes.len() - TOLD_MODES));
    }
    WorkError::Mode { wish, offered: if all.is_empty() { "none".to_owned() } else { all.join("; ") } }
}

/// The best mode: what the device encodes itself, then raw pictures, then JPEG. Raw pictures only if they come as
/// large and as often as wanted: over USB they often do not, and then JPEG does.
pub(super) fn choose(offered: &gst::Caps, settings: &V4l2Camera) -> Option<Mode> {
    let order: &[V4l2Format] = match settings.format {
        // What is encoded here in any case need not be decoded first.
        V4l2Format::Auto if matches!(settings.video, VideoTreatment::Encode(_)) => {
            &[V4l2Format::Raw, V4l2Format::Mjpeg, V4l2Format::H264, V4l2Format::Hevc]
        }
        V4l2Format::Auto => &[V4l2Format::H264, V4l2Format::Hevc, V4l2Format::Raw, V4l2Format::Mjpeg],
        V4l2Format::H264 => &[V4l2Format::H264],
        V4l2Format::Hevc => &[V4l2Format::Hevc],
        V4l2Format::Raw => &[V4l2Format::Raw],
        V4l2Format::Mjpeg => &[V4l2Format::Mjpeg],
    };
    let wanted = Pictures {
        width: non_zero(settings.width, USUAL.width),
        height: non_zero(settings.height, USUAL.height),
        frame_rate: non_zero(settings.frame_rate, USUAL.frame_rate),
    };
    let exact = order.iter().find_map(|format| mode(offered, *format, wanted, true));
    // What was asked for in so many words is not replaced by something else.
    let asked = settings.width > 0 || settings.height > 0 || settings.frame_rate > 0;
    if exact.is_some() || asked {
        return exact;
    }
    order.iter().find_map(|format| mode(offered, *format, wanted, false))
}

fn non_zero(value: u32, otherwise: u32) -> u32 {
    if value == 0 { otherwise } else { value }
}

fn mode(offered: &gst::Caps, format: V4l2Format, wanted: Pictures, exactly: bool) -> Option<Mode> {
    let media = match format {
        V4l2Format::H264 => "video/x-h264",
        V4l2Format::Hevc => "video/x-h265",
        V4l2Format::Mjpeg => "image/jpeg",
        V4l2Format::Raw | V4l2Format::Auto => "video/x-raw",
    };
    let signed = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let mut filter = gst::Caps::builder(media);
    if exactly {
        filter = filter
            .field("width", signed(wanted.width))
            .field("height", signed(wanted.height))
            .field("framerate", gst::Fraction::new(signed(wanted.frame_rate), 1));
    }
    let fitting = offered.intersect(&filter.build());
    // The nearest size of all, not of the first that the driver names.
    let distance = |fields: &gst::StructureRef| {
        let sides = [("width", wanted.width), ("height", wanted.height)];
        let off = sides.map(|(name, side)| {
            nearest(fields, name, signed(side)).map(|found| found.abs_diff(signed(side)))
        });
        off[0].zip(off[1]).map(|(width, height)| u64::from(width) + u64::from(height))
    };
    let best = fitting
        .iter()
        .filter(|fields| is_possible(fields))
        .min_by_key(|fields| distance(fields).unwrap_or(u64::MAX))?;
    let mut caps = gst::Caps::builder_full().structure(best.to_owned()).build();
    let fields = caps.make_mut().structure_mut(0)?;
    fields.fixate_field_nearest_int("width", signed(wanted.width));
    fields.fixate_field_nearest_int("height", signed(wanted.height));
    fields.fixate_field_nearest_fraction("framerate", gst::Fraction::new(signed(wanted.frame_rate), 1));
    caps.fixate();
    let fields = caps.structure(0)?;
    let side = |name| fields.get::<i32>(name).ok().and_then(|value| u32::try_from(value).ok());
    let rate = fields.get::<gst::Fraction>("framerate").ok()?;
    let frame_rate = u32::try_from(rate.numer()).ok()?.div_ceil(u32::try_from(rate.denom()).ok()?.max(1));
    let pictures = Pictures { width: side("width")?, height: side("height")?, frame_rate };
    Some(Mode { format, caps, pictures })
}

/// Whether a camera can have such pictures: some drivers say 0x0, or no rate.
fn is_possible(fields: &gst::StructureRef) -> bool {
    abilities::mode(fields).is_ok()
}

/// The nearest value that a side may have.
fn nearest(fields: &gst::StructureRef, name: &str, wanted: i32) -> Option<i32> {
    let mut fields = fields.to_owned();
    fields.fixate_field_nearest_int(name, wanted);
    fields.get(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_model::job::{AudioTreatment, EncoderWish, VideoEncode};
    use fieldgate_model::masks::Masks;
    use std::collections::BTreeMap;

    /// As a USB camera offers them: raw 720p only at 10 pictures per second.
    const WEBCAM: &str = "video/x-raw,format=YUY2,width=1280,height=720,framerate=10/1; \
         video/x-raw,format=YUY2,width=640,height=480,framerate={30/1,15/1}; \
         image/jpeg,width=1280,height=720,framerate=30/1; image/jpeg,width=1920,height=1080,framerate=30/1";

    fn encode() -> VideoEncode {
        VideoEncode::new(EncoderWish::default(), Masks::none())
    }

    fn settings() -> V4l2Camera {
        V4l2Camera {
            device: "/dev/video0".into(),
            width: 0,
            height: 0,
            frame_rate: 0,
            format: V4l2Format::Auto,
            controls: BTreeMap::new(),
            microphone: String::new(),
            video: VideoTreatment::pass_or(encode()),
            audio: AudioTreatment::Off,
        }
    }

    fn chosen(offered: &str, change: impl FnOnce(&mut V4l2Camera)) -> Option<(V4l2Format, u32, u32, u32)> {
        gst::init().unwrap();
        let mut settings = settings();
        change(&mut settings);
        let mode = choose(&offered.parse().unwrap(), &settings)?;
        assert!(mode.caps.is_fixed());
        Some((mode.format, mode.pictures.width, mode.pictures.height, mode.pictures.frame_rate))
    }

    #[test]
    fn jpeg_is_taken_where_raw_pictures_come_too_slowly() {
        assert_eq!(chosen(WEBCAM, |_| ()), Some((V4l2Format::Mjpeg, 1280, 720, 30)));
    }

    #[test]
    fn raw_pictures_are_taken_where_they_come_as_wanted() {
        let vga = |settings: &mut V4l2Camera| (settings.width, settings.height) = (640, 480);
        assert_eq!(chosen(WEBCAM, vga), Some((V4l2Format::Raw, 640, 480, 30)));
    }

    #[test]
    fn what_the_device_encodes_itself_is_taken_first() {
        let offered = format!("{WEBCAM}; video/x-h264,width=1280,height=720,framerate=30/1");
        assert_eq!(chosen(&offered, |_| ()), Some((V4l2Format::H264, 1280, 720, 30)));
    }

    #[test]
    fn what_was_asked_for_is_never_replaced() {
        assert_eq!(chosen(WEBCAM, |settings| settings.format = V4l2Format::H264), None);
        assert_eq!(chosen(WEBCAM, |settings| settings.frame_rate = 60), None);
        let raw = |settings: &mut V4l2Camera| settings.format = V4l2Format::Raw;
        assert_eq!(chosen(WEBCAM, raw), Some((V4l2Format::Raw, 1280, 720, 10)));
    }

    #[test]
    fn what_must_be_encoded_here_is_taken_raw_where_it_comes_as_wanted() {
        let offered = format!("{WEBCAM}; video/x-h264,width=1280,height=720,framerate=30/1");
        let masked = |settings: &mut V4l2Camera| settings.video = VideoTreatment::Encode(Box::new(encode()));
        assert_eq!(chosen(&offered, masked), Some((V4l2Format::Mjpeg, 1280, 720, 30)));
        let small = |settings: &mut V4l2Camera| {
            masked(settings);
            (settings.width, settings.height) = (640, 480);
        };
        assert_eq!(chosen(&offered, small), Some((V4l2Format::Raw, 640, 480, 30)));
    }

    #[test]
    fn hevc_is_taken_before_what_must_be_encoded_here() {
        let offered = format!("{WEBCAM}; video/x-h265,width=1280,height=720,framerate=30/1");
        assert_eq!(chosen(&offered, |_| ()), Some((V4l2Format::Hevc, 1280, 720, 30)));
    }

    #[test]
    fn without_a_wish_the_nearest_size_of_all_is_taken() {
        let offered = "video/x-raw,format=YUY2,width=160,height=120,framerate=30/1; \
             video/x-raw,format=YUY2,width=800,height=600,framerate=30/1; \
             video/x-raw,format=YUY2,width=640,height=480,framerate=30/1";
        assert_eq!(chosen(offered, |_| ()), Some((V4l2Format::Raw, 800, 600, 30)));
    }

    #[test]
    fn what_no_camera_can_have_is_never_taken() {
        let offered = "video/x-raw,format=YUY2,width=0,height=0,framerate=30/1; \
             video/x-raw,format=YUY2,width=1280,height=720,framerate=0/1; \
             image/jpeg,width=[0,0],height=720,framerate=30/1";
        assert_eq!(chosen(offered, |_| ()), None);
        let usable = format!("{offered}; image/jpeg,width=320,height=240,framerate={{0/1,15/1}}");
        assert_eq!(chosen(&usable, |_| ()), Some((V4l2Format::Mjpeg, 320, 240, 15)));
    }

    #[test]
    fn a_refusal_names_the_wish_and_what_there_is() {
        gst::init().unwrap();
        let mut settings = settings();
        (settings.format, settings.width) = (V4l2Format::H264, 640);
        let offered: gst::Caps = WEBCAM.parse().unwrap();
        assert_eq!(
            refusal(&offered, &settings).to_string(),
            "format is h264 640xany at any/s: the device has no such mode; it has raw YUY2 1280x720 at 10/s; \
             raw YUY2 640x480 at 30, 15/s; mjpeg 1280x720 at 30/s; mjpeg 1920x1080 at 30/s"
        );
        assert!(refusal(&gst::Caps::new_empty(), &settings).to_string().ends_with("it has none"));
    }

    #[test]
    fn a_device_with_ranges_gets_the_usual_size() {
        let ranges = "video/x-raw,format=NV12,width=[32,4096],height=[32,4096],framerate=[1/1,120/1]";
        assert_eq!(chosen(ranges, |_| ()), Some((V4l2Format::Raw, 1280, 720, 30)));
    }
}
