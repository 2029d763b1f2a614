//! Short recordings that the tests publish, made by ffmpeg when first needed.

use super::flv::{self, Tag};
use super::process::Process;
use super::take::Take;
use super::wait::secs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A recording as an FLV file.
#[derive(Clone, Debug)]
pub(crate) struct Fixture {
    /// The file.
    pub(crate) path: PathBuf,
}

/// What ffmpeg draws.
pub(crate) const PICTURE: &str = "testsrc2=size=320x180:rate=30";
const OTHER_PICTURE: &str = "testsrc2=size=240x136:rate=25";
const SOUND: &str = "sine=frequency=440:sample_rate=44100";
const H264: &[&str] = &[
    "-c:v",
    "libx264",
    "-preset",
    "veryfast",
    "-bf",
    "2",
    "-g",
    "60",
    "-keyint_min",
    "60",
    "-sc_threshold",
    "0",
    "-b:v",
    "500k",
    "-pix_fmt",
    "yuv420p",
];

impl Fixture {
    /// H.264 with B-frames and a keyframe every two seconds, AAC, `seconds` long.
    pub(crate) fn h264_aac(seconds: u32) -> Fixture {
        make(&format!("h264-aac-{seconds}.flv"), PICTURE, &["-c:a", "aac", "-b:a", "96k"], SOUND, seconds)
    }

    /// As [`Fixture::h264_aac`], with another picture size and rate.
    pub(crate) fn other_h264_aac(seconds: u32) -> Fixture {
        make(&format!("other-{seconds}.flv"), OTHER_PICTURE, &["-c:a", "aac", "-b:a", "64k"], SOUND, seconds)
    }

    /// As [`Fixture::h264_aac`], with MP3.
    pub(crate) fn h264_mp3(seconds: u32) -> Fixture {
        make(
            &format!("h264-mp3-{seconds}.flv"),
            PICTURE,
            &["-c:a", "libmp3lame", "-b:a", "96k"],
            SOUND,
            seconds,
        )
    }

    /// As [`Fixture::h264_aac`], with G.711 A-law.
    pub(crate) fn h264_alaw(seconds: u32) -> Fixture {
        let sound = "sine=frequency=440:sample_rate=8000";
        make(&format!("h264-alaw-{seconds}.flv"), PICTURE, &["-c:a", "pcm_alaw"], sound, seconds)
    }

    /// The same in a Matroska file.
    #[cfg(feature = "gst")]
    pub(crate) fn as_matroska(&self) -> PathBuf {
        let name = format!("{}.mkv", self.path.file_stem().unwrap().to_str().unwrap());
        cached(&name, |path| {
            let args = ["-nostdin", "-v", "error", "-y", "-i", self.file(), "-c", "copy", "-f", "matroska"];
            Process::run("ffmpeg", &[&args[..], &[path.to_str().unwrap()]].concat(), secs(60));
        })
    }

    /// Its tags.
    pub(crate) fn tags(&self) -> Vec<Tag> {
        flv::read(&self.path)
    }

    /// What a receiver must get of it.
    pub(crate) fn take(&self) -> Take {
        Take::read(&self.path)
    }

    /// Its file name as text.
    pub(crate) fn file(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

/// A raw HEVC stream with parameter sets, `seconds` long, without B-frames.
pub(crate) fn hevc_stream(seconds: u32) -> PathBuf {
    let seconds_text = seconds.to_string();
    cached(&format!("hevc-{seconds}.hevc"), |path| {
        let args = [
            "-nostdin",
            "-v",
            "error",
            "-y",
            "-f",
            "lavfi",
            "-i",
            PICTURE,
            "-t",
            &seconds_text,
            "-c:v",
            "libx265",
            "-preset",
            "ultrafast",
            "-x265-params",
            "bframes=0:keyint=60:min-keyint=60:scenecut=0:log-level=error",
            "-f",
            "hevc",
        ];
        Process::run("ffmpeg", &[&args[..], &[path.to_str().unwrap()]].concat(), secs(120));
    })
}

fn make(name: &str, picture: &str, audio: &[&str], sound: &str, seconds: u32) -> Fixture {
    let seconds = seconds.to_string();
    let path = cached(name, |path| {
        let inputs =
            ["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound];
        let end = ["-t", &seconds, "-f", "flv", path.to_str().unwrap()];
        Process::run("ffmpeg", &[&inputs[..], H264, audio, &end].concat(), secs(120));
    });
    Fixture { path }
}

/// Makes a file once for all tests and runs; a half-made one never gets its name.
pub(crate) fn cached(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join(name);
    if !path.exists() {
        let half = folder.join(format!("half-{}-{name}", std::process::id()));
        make(&half);
        std::fs::rename(&half, &path).unwrap();
    }
    path
}
