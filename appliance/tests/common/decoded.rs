//! Recordings, decoded by ffmpeg: what a viewer would see and hear.

use super::process::Process;
use super::scratch::Scratch;
use super::wait::secs;
use std::path::Path;

/// Decoded pictures, brightness alone.
pub(crate) struct Pictures {
    /// Pixels.
    pub(crate) width: usize,
    /// Pixels.
    pub(crate) height: usize,
    frames: Vec<Vec<u8>>,
}

impl Pictures {
    /// All pictures of a file; panics where ffmpeg finds fault with one.
    pub(crate) fn of(file: &Path) -> Pictures {
        let file = file.to_str().unwrap();
        let ask = ["-v", "error", "-select_streams", "v:0", "-show_entries", "stream=width,height"];
        let size = Process::run("ffprobe", &[&ask[..], &["-of", "csv=p=0", file]].concat(), secs(60));
        let (width, height) = size.trim().split_once(',').unwrap_or_else(|| panic!("{file}: {size:?}"));
        let (width, height) = (width.parse().unwrap(), height.parse().unwrap());
        let scratch = Scratch::new();
        let raw = scratch.join("gray");
        let words =
            ["-nostdin", "-v", "error", "-i", file, "-an", "-vsync", "passthrough", "-pix_fmt", "gray"];
        // Times as they are: in steps of a picture two may become one.
        let times = ["-enc_time_base", "1:1000"];
        let out = ["-f", "rawvideo", raw.to_str().unwrap()];
        let mut ffmpeg = Process::start("ffmpeg", &[&words[..], &times, &out].concat());
        assert!(
            ffmpeg.end_within(secs(120)).success() && ffmpeg.log().is_empty(),
            "{file}: {}",
            ffmpeg.log()
        );
        let raw = std::fs::read(&raw).unwrap();
        Pictures { width, height, frames: raw.chunks_exact(width * height).map(<[u8]>::to_vec).collect() }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.frames.len()
    }

    /// Mean brightness of a part of one picture: from and to, in fractions of width and height.
    pub(crate) fn mean(&self, at: usize, from: (f64, f64), to: (f64, f64)) -> f64 {
        let part = self.part(at, from, to);
        part.iter().map(|dot| f64::from(*dot)).sum::<f64>() / part.len() as f64
    }

    /// From the darkest dot of such a part to the brightest.
    pub(crate) fn spread(&self, at: usize, from: (f64, f64), to: (f64, f64)) -> u8 {
        let part = self.part(at, from, to);
        part.iter().max().unwrap() - part.iter().min().unwrap()
    }

    fn part(&self, at: usize, from: (f64, f64), to: (f64, f64)) -> Vec<u8> {
        let place = |part: f64, whole: usize| (part * whole as f64).round() as usize;
        let columns = place(from.0, self.width)..place(to.0, self.width);
        let rows = place(from.1, self.height)..place(to.1, self.height);
        let row = |row: usize| &self.frames[at][row * self.width..(row + 1) * self.width];
        rows.flat_map(|y| row(y)[columns.clone()].to_vec()).collect()
    }
}

/// Loudness of a file's sound, decoded to 16 bits at 48 kHz: the root mean square from `from_s` on, and its seconds.
pub(crate) fn loudness(file: &Path, from_s: f64) -> (f64, f64) {
    let scratch = Scratch::new();
    let raw = scratch.join("pcm");
    let words = ["-nostdin", "-v", "error", "-i", file.to_str().unwrap(), "-vn", "-ac", "1", "-ar", "48000"];
    let out = ["-f", "s16le", raw.to_str().unwrap()];
    let mut ffmpeg = Process::start("ffmpeg", &[&words[..], &out].concat());
    assert!(ffmpeg.end_within(secs(120)).success() && ffmpeg.log().is_empty(), "{}", ffmpeg.log());
    let raw = std::fs::read(&raw).unwrap();
    let samples = raw.chunks_exact(2).map(|two| f64::from(i16::from_le_bytes([two[0], two[1]])));
    let samples: Vec<f64> = samples.skip((from_s * 48_000.0) as usize).collect();
    let square = samples.iter().map(|sample| sample * sample).sum::<f64>() / samples.len().max(1) as f64;
    (square.sqrt(), samples.len() as f64 / 48_000.0)
}
