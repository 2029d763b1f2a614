//! A local capture device: H.264 passes, everything else is encoded here.

use super::Camera;
use crate::elements;
use crate::encoders::Pictures;
use crate::error::WorkError;
use crate::outlet::Outlet;
use crate::pipeline::{appsink, chain, filter, make};
use crate::stream::Stream;
use crate::timeline::DecodeTimes;
use crate::video_path::{self, Coded};
use fieldgate_media::TrackId;
use fieldgate_model::job::{EncoderTrial, V4l2Camera, V4l2Format};
use gst::prelude::*;

/// What is asked for where the settings leave it open.
const USUAL: Pictures = Pictures { width: 1280, height: 720, frame_rate: 30 };

pub(super) fn build(
    settings: &V4l2Camera,
    outlet: &Outlet,
    tell: impl FnMut(&[EncoderTrial]),
) -> Result<Camera, WorkError> {
    elements::require(&["v4l2src", "capsfilter", "appsink"])?;
    let source = make("v4l2src", &[("name", "camera")])?;
    source.set_property("device", settings.device.to_string_lossy().as_ref());
    let offered = offered(&source)?;
    let mode = choose(&offered, settings).ok_or_else(|| WorkError::Setting {
        setting: "format",
        got: wish_text(settings),
        remedy: "one that the device offers",
    })?;

    let pipeline = gst::Pipeline::new();
    let stream = Stream::new(outlet.clone());
    stream.expect(TrackId::VIDEO);
    let sink = appsink("video");
    let described = mode.describe(settings);
    let mut all = vec![source, filter(mode.caps)?];
    let coded = match mode.format {
        V4l2Format::H264 => Coded::H264,
        V4l2Format::Mjpeg => Coded::Jpeg,
        V4l2Format::Raw | V4l2Format::Auto => Coded::Raw,
    };
    all.extend(video_path::elements(coded, &settings.video, mode.pictures, tell)?);
    all.push(sink.clone().upcast());
    chain(&pipeline, &all.iter().collect::<Vec<_>>())?;
    stream.attach(&sink, TrackId::VIDEO, DecodeTimes::Given);
    Ok(Camera { pipeline, source: described })
}

/// Opens the device and asks what it can do.
fn offered(source: &gst::Element) -> Result<gst::Caps, WorkError> {
    let bus = gst::Bus::new();
    source.set_bus(Some(&bus));
    let ready = source.set_state(gst::State::Ready);
    let caps = source.static_pad("src").map(|pad| pad.query_caps(None));
    let error = bus.pop_filtered(&[gst::MessageType::Error]);
    source.set_bus(None);
    if let Some(gst::MessageView::Error(error)) = error.as_ref().map(|message| message.view()) {
        let _ = source.set_state(gst::State::Null);
        return Err(crate::pipeline::element_error(error));
    }
    ready?;
    caps.ok_or(WorkError::Ended)
}

/// One way to run the device.
#[derive(Debug)]
struct Mode {
    format: V4l2Format,
    caps: gst::Caps,
    pictures: Pictures,
}

impl Mode {
    fn describe(&self, settings: &V4l2Camera) -> String {
        let Pictures { width, height, frame_rate } = self.pictures;
        let format = format!("{:?}", self.format).to_lowercase();
        format!("{} {format} {width}x{height} at {frame_rate}/s", settings.device.display())
    }
}

fn wish_text(settings: &V4l2Camera) -> String {
    let V4l2Camera { width, height, frame_rate, format, .. } = settings;
    format!("{format:?} {width}x{height} at {frame_rate}/s").to_lowercase()
}

/// The best mode: what the device encodes itself, then raw pictures, then JPEG. Raw pictures only if they come as
/// large and as often as wanted: over USB they often do not, and then JPEG does.
fn choose(offered: &gst::Caps, settings: &V4l2Camera) -> Option<Mode> {
    let order: &[V4l2Format] = match settings.format {
        V4l2Format::Auto => &[V4l2Format::H264, V4l2Format::Raw, V4l2Format::Mjpeg],
        V4l2Format::H264 => &[V4l2Format::H264],
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
    let mut caps = offered.intersect(&filter.build());
    caps.truncate();
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

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_model::job::{AudioTreatment, EncoderWish, VideoEncode, VideoTreatment};
    use fieldgate_model::masks::Masks;

    /// As a USB camera offers them: raw 720p only at 10 pictures per second.
    const WEBCAM: &str = "video/x-raw,format=YUY2,width=1280,height=720,framerate=10/1; \
         video/x-raw,format=YUY2,width=640,height=480,framerate={30/1,15/1}; \
         image/jpeg,width=1280,height=720,framerate=30/1; image/jpeg,width=1920,height=1080,framerate=30/1";

    fn chosen(offered: &str, change: impl FnOnce(&mut V4l2Camera)) -> Option<(V4l2Format, u32, u32, u32)> {
        gst::init().unwrap();
        let encode = VideoEncode::new(EncoderWish::default(), Masks::none());
        let mut settings: V4l2Camera = serde_json::from_value(serde_json::json!({
            "device": "/dev/video0", "video": VideoTreatment::pass_or(encode), "audio": AudioTreatment::Off,
        }))
        .unwrap();
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
    fn a_device_with_ranges_gets_the_usual_size() {
        let ranges = "video/x-raw,format=NV12,width=[32,4096],height=[32,4096],framerate=[1/1,120/1]";
        assert_eq!(chosen(ranges, |_| ()), Some((V4l2Format::Raw, 1280, 720, 30)));
    }
}
