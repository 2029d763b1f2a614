//! The fixed list of GStreamer elements that workers use, each with its plugin file and Debian package.
//!
//! Plugins are loaded by file from here and nowhere else: no scan, no registry file, and only the libraries that a
//! job needs are mapped. In a static build the elements are there already and no file is looked for.

use crate::builtin;
use crate::error::WorkError;
use std::path::{Path, PathBuf};

/// One element and where it comes from.
#[derive(Debug, PartialEq, Eq)]
pub struct Element {
    /// Its factory's name.
    pub name: &'static str,
    /// Its plugin: the file is `libgst<plugin>.so`.
    pub plugin: &'static str,
    /// The Debian package that holds it; empty when a vendor ships it.
    pub package: &'static str,
}

const fn element(name: &'static str, plugin: &'static str, package: &'static str) -> Element {
    Element { name, plugin, package }
}

const CORE: &str = "libgstreamer1.0-0";
const BASE: &str = "gstreamer1.0-plugins-base";
const GOOD: &str = "gstreamer1.0-plugins-good";
const BAD: &str = "gstreamer1.0-plugins-bad";
const UGLY: &str = "gstreamer1.0-plugins-ugly";
const LIBAV: &str = "gstreamer1.0-libav";
const ALSA: &str = "gstreamer1.0-alsa";
const VAAPI: &str = "gstreamer1.0-vaapi";
const LIBCAMERA: &str = "gstreamer1.0-libcamera";

/// Comes with a vendor's system image; no Debian package.
const VENDOR: &str = "";

const ALL: &[Element] = &[
    element("capsfilter", "coreelements", CORE),
    element("queue", "coreelements", CORE),
    element("appsink", "app", BASE),
    element("videotestsrc", "videotestsrc", BASE),
    element("audiotestsrc", "audiotestsrc", BASE),
    element("videoconvert", "videoconvertscale", BASE),
    element("audioconvert", "audioconvert", BASE),
    element("audioresample", "audioresample", BASE),
    element("v4l2src", "video4linux2", GOOD),
    element("libcamerasrc", "libcamera", LIBCAMERA),
    element("alsasrc", "alsa", ALSA),
    element("jpegdec", "jpeg", GOOD),
    element("jpegenc", "jpeg", GOOD),
    element("h264parse", "videoparsersbad", BAD),
    element("h265parse", "videoparsersbad", BAD),
    element("aacparse", "audioparsers", GOOD),
    element("opusparse", "opusparse", BAD),
    element("rtspsrc", "rtsp", GOOD),
    element("rtpbin", "rtpmanager", GOOD),
    element("rtpjitterbuffer", "rtpmanager", GOOD),
    element("rtpssrcdemux", "rtpmanager", GOOD),
    element("rtpptdemux", "rtpmanager", GOOD),
    element("udpsrc", "udp", GOOD),
    element("udpsink", "udp", GOOD),
    element("rtph264depay", "rtp", GOOD),
    element("rtph265depay", "rtp", GOOD),
    element("rtpjpegdepay", "rtp", GOOD),
    element("rtpL16depay", "rtp", GOOD),
    element("rtpmp4gdepay", "rtp", GOOD),
    element("rtppcmadepay", "rtp", GOOD),
    element("rtppcmudepay", "rtp", GOOD),
    element("rtpopusdepay", "rtp", GOOD),
    element("v4l2h264enc", "video4linux2", GOOD),
    element("v4l2h265enc", "video4linux2", GOOD),
    element("mpph264enc", "rockchipmpp", VENDOR),
    element("mpph265enc", "rockchipmpp", VENDOR),
    element("nvv4l2h264enc", "nvvideo4linux2", VENDOR),
    element("nvv4l2h265enc", "nvvideo4linux2", VENDOR),
    element("nvvidconv", "nvvidconv", VENDOR),
    element("vpuenc_h264", "vpu", VENDOR),
    element("vpuenc_hevc", "vpu", VENDOR),
    element("vah265enc", "va", BAD),
    element("vah265lpenc", "va", BAD),
    element("vah264enc", "va", BAD),
    element("vah264lpenc", "va", BAD),
    element("vaapih264enc", "vaapi", VAAPI),
    element("openh264enc", "openh264", BAD),
    element("x264enc", "x264", UGLY),
    element("voaacenc", "voaacenc", BAD),
    element("fdkaacenc", "fdkaac", BAD),
    element("avenc_aac", "libav", LIBAV),
    element("filesrc", "coreelements", CORE),
    element("qtdemux", "isomp4", GOOD),
    element("matroskademux", "matroska", GOOD),
    element("flvdemux", "flv", GOOD),
    element("tsdemux", "mpegtsdemux", BAD),
    element("fakesink", "coreelements", CORE),
    element("appsrc", "app", BASE),
    element("videoscale", "videoconvertscale", BASE),
    element("volume", "volume", BASE),
    element("alawdec", "alaw", GOOD),
    element("mulawdec", "mulaw", GOOD),
    element("opusenc", "opus", BASE),
    element("opusdec", "opus", BASE),
    element("avdec_opus", "libav", LIBAV),
    element("avdec_aac", "libav", LIBAV),
    element("fdkaacdec", "fdkaac", BAD),
    element("faad", "faad", BAD),
    element("v4l2h264dec", "video4linux2", GOOD),
    element("v4l2h265dec", "video4linux2", GOOD),
    element("v4l2slh264dec", "v4l2codecs", BAD),
    element("v4l2slh265dec", "v4l2codecs", BAD),
    element("vah264dec", "va", BAD),
    element("vah265dec", "va", BAD),
    element("avdec_h264", "libav", LIBAV),
    element("avdec_h265", "libav", LIBAV),
    element("openh264dec", "openh264", BAD),
    element("libde265dec", "de265", BAD),
    element("clocksync", "coreelements", CORE),
    element("identity", "coreelements", CORE),
];

const FOLDERS: [&str; 8] = [
    "/usr/lib/aarch64-linux-gnu/gstreamer-1.0",
    "/usr/lib/x86_64-linux-gnu/gstreamer-1.0",
    "/usr/lib/arm-linux-gnueabihf/gstreamer-1.0",
    "/usr/lib/riscv64-linux-gnu/gstreamer-1.0",
    "/usr/lib/gstreamer-1.0",
    "/usr/lib64/gstreamer-1.0",
    "/usr/local/lib/gstreamer-1.0",
    "/usr/local/lib64/gstreamer-1.0",
];

/// Makes the named elements usable, or says which are missing and which package has them.
pub(crate) fn require(names: &[&str]) -> Result<(), WorkError> {
    let mut missing: Vec<String> = Vec::new();
    for name in names {
        if !load(name) {
            missing.push(named(name));
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(WorkError::Missing(missing.join(", "))) }
}

/// Makes one element usable; `false` when it is not installed or its plugin does not load.
pub(crate) fn load(name: &str) -> bool {
    let there = || gst::ElementFactory::find(name).is_some();
    if there() {
        return true;
    }
    if builtin::is_static() {
        return false;
    }
    let (Some(element), Some(folder)) = (find(name), folder()) else { return false };
    let file = folder.join(format!("libgst{}.so", element.plugin));
    if gst::Plugin::load_file(&file).is_ok() && there() {
        return true;
    }
    // Before 1.22 conversion and scaling were two plugins, each named after its element.
    element.plugin == "videoconvertscale"
        && gst::Plugin::load_file(folder.join(format!("libgst{name}.so"))).is_ok()
        && there()
}

/// An element's name with where it would come from, for a message that says it is missing.
pub(crate) fn named(name: &str) -> String {
    match find(name).map(|element| element.package) {
        _ if builtin::is_static() => format!("{name} (not in this build)"),
        None | Some(VENDOR) => name.to_owned(),
        Some(package) => format!("{name} (Debian package {package})"),
    }
}

/// Why libcamera's cameras cannot be used by this program on this machine, if so. Looks for a file, loads nothing.
pub fn without_libcamera() -> Option<&'static str> {
    if builtin::is_static() {
        return Some("libcamera is not in this build: it needs one with dynamic GStreamer");
    }
    let there = folder().is_some_and(|folder| folder.join("libgstlibcamera.so").exists());
    (!there).then_some("libcamera's GStreamer element is missing: install gstreamer1.0-libcamera")
}

/// Why an element that works with a device could not be loaded.
pub(crate) fn absence(name: &str) -> String {
    match find(name).map(|element| element.package) {
        _ if builtin::is_static() => "not in this build, or no such device".to_owned(),
        None | Some(VENDOR) => "not installed, or no such device".to_owned(),
        Some(package) => format!("not installed (Debian package {package}), or no such device"),
    }
}

/// The plugins of the list that are not a vendor's; some come more than once.
#[cfg(test)]
pub(crate) fn plugins() -> impl Iterator<Item = &'static str> {
    ALL.iter().filter(|element| element.package != VENDOR).map(|element| element.plugin)
}

fn find(name: &str) -> Option<&'static Element> {
    ALL.iter().find(|element| element.name == name)
}

fn folder() -> Option<PathBuf> {
    FOLDERS
        .iter()
        .map(Path::new)
        .find(|folder| folder.join("libgstcoreelements.so").exists())
        .map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_listed_once() {
        for (at, element) in ALL.iter().enumerate() {
            assert!(!ALL[..at].iter().any(|other| other.name == element.name), "{}", element.name);
        }
    }
}
