//! ffmpeg, GStreamer and rtmpdump as publishers and players.

use super::fixture::Fixture;
use super::process::Process;
use super::take::Take;
use super::wait::{self, secs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// ffmpeg sends a recording in real time.
pub(crate) fn ffmpeg_publish(fixture: &Fixture, url: &str) -> Process {
    let args = [
        "-nostdin",
        "-hide_banner",
        "-v",
        "warning",
        "-re",
        "-i",
        fixture.file(),
        "-c",
        "copy",
        "-f",
        "flv",
        url,
    ];
    Process::start("ffmpeg", &args)
}

/// GStreamer encodes a moving picture and a tone, sends them in real time, and keeps what it sent in `sent`.
///
/// It does not send a recording: its FLV muxer moves times of streams with B-frames, so only its own file tells what
/// went out.
pub(crate) fn gst_publish(seconds: u32, url: &str, sent: &Path) -> Process {
    let (pictures, sounds) = (seconds * 30, seconds * 43);
    let args = format!(
        "-q videotestsrc is-live=true pattern=ball num-buffers={pictures} \
         ! video/x-raw,width=320,height=180,framerate=30/1 \
         ! x264enc speed-preset=ultrafast tune=zerolatency key-int-max=60 bitrate=500 ! h264parse ! queue ! out.video \
         audiotestsrc is-live=true num-buffers={sounds} samplesperbuffer=1024 ! audio/x-raw,rate=44100,channels=1 \
         ! audioconvert ! voaacenc ! aacparse ! queue ! out.audio \
         flvmux name=out streamable=true ! tee name=both \
         both. ! queue ! rtmp2sink location={url} \
         both. ! queue ! filesink location={}",
        sent.display(),
    );
    Process::start("gst-launch-1.0", &args.split_whitespace().collect::<Vec<_>>())
}

/// Units that `rtmp2src` may lose at the end: it drops the message it holds when the end of the stream follows at once.
pub(crate) const GST_LOSES_LAST: usize = 1;

/// A player that writes what it gets to a file.
pub(crate) struct Recorder {
    process: Process,
    file: PathBuf,
    /// Whether the tracks' payloads lie beside the file.
    taken_apart: bool,
}

impl Recorder {
    /// ffmpeg plays.
    pub(crate) fn ffmpeg(url: &str, file: PathBuf) -> Recorder {
        Recorder::ffmpeg_with(&[], url, file)
    }

    /// ffmpeg plays with further input options, such as `-listen 1`.
    pub(crate) fn ffmpeg_with(options: &[&str], url: &str, file: PathBuf) -> Recorder {
        let start = ["-nostdin", "-hide_banner", "-v", "warning", "-copyts"];
        let end = ["-i", url, "-c", "copy", "-copypriorss", "1", "-flush_packets", "1", "-f", "flv", "-y"];
        let args = [&start[..], options, &end, &[file.to_str().unwrap()]].concat();
        Recorder::of(Process::start("ffmpeg", &args), file)
    }

    /// GStreamer plays: what comes off the wire is kept, and taken apart.
    pub(crate) fn gst(url: &str, file: PathBuf) -> Recorder {
        let [video, audio] = tracks_of(&file);
        let args = format!(
            "-q -e rtmp2src location={url} ! tee name=both both. ! queue ! filesink async=false buffer-mode=unbuffered location={} \
             both. ! queue ! flvdemux name=in \
             in.video ! queue ! filesink async=false location={} in.audio ! queue ! filesink async=false location={}",
            file.display(),
            video.display(),
            audio.display(),
        );
        let process = Process::start("gst-launch-1.0", &args.split_whitespace().collect::<Vec<_>>());
        Recorder { process, file, taken_apart: true }
    }

    /// rtmpdump plays.
    pub(crate) fn rtmpdump(url: &str, file: PathBuf) -> Recorder {
        let args = ["-q", "--live", "-r", url, "-o", file.to_str().unwrap()];
        Recorder::of(Process::start("rtmpdump", &args), file)
    }

    /// A process that writes what it plays to `file`, as FLV.
    pub(crate) fn of(process: Process, file: PathBuf) -> Recorder {
        Recorder { process, file, taken_apart: false }
    }

    /// Its process.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Bytes written so far.
    pub(crate) fn len(&self) -> u64 {
        std::fs::metadata(&self.file).map_or(0, |about| about.len())
    }

    /// Waits for the first media in the file.
    pub(crate) fn wait_for_media(&mut self) {
        wait::until_true("the player's first bytes", secs(30), || {
            self.process.assert_running();
            self.len() > 4_096
        });
    }

    /// Ends it once nothing new came for a second (or it has ended by itself) and gives what it got.
    pub(crate) fn finish(mut self) -> Take {
        let mut last = self.len();
        let mut since = std::time::Instant::now();
        while self.process.ended().is_none() && since.elapsed() < Duration::from_millis(1_500) {
            std::thread::sleep(Duration::from_millis(50));
            let now = self.len();
            if now != last {
                (last, since) = (now, std::time::Instant::now());
            }
        }
        self.process.finish(Duration::ZERO);
        let take = Take::read(&self.file);
        if self.taken_apart {
            for (file, track) in tracks_of(&self.file).iter().zip([&take.video, &take.audio]) {
                let apart = std::fs::read(file).unwrap();
                let whole: Vec<u8> =
                    track.frames.iter().flat_map(|frame| frame.payload.iter().copied()).collect();
                assert!(apart == whole, "{}: {} bytes, not {}", file.display(), apart.len(), whole.len());
            }
        }
        take
    }
}

fn tracks_of(file: &Path) -> [PathBuf; 2] {
    ["video", "audio"].map(|name| file.with_extension(name))
}
