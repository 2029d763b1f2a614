//! What the cameras of the farm show: short elementary streams, made once by ffmpeg, taken apart by the letter of
//! H.264 (7.4.1.2.3) and HEVC (7.4.2.4.4), not by the gateway's code.

use crate::common::fixture::cached;
use crate::common::process::Process;
use crate::common::wait::secs;
use std::path::Path;
use std::sync::Arc;

/// How a film is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    H264,
    Hevc,
}

/// One coded picture in decode order.
#[derive(Debug)]
pub(crate) struct Picture {
    /// NAL units without start codes, parameter sets and delimiters.
    pub(crate) nals: Vec<Vec<u8>>,
    /// When it is shown, counted in pictures; not its place in decode order where there are B-frames.
    pub(crate) shown: i64,
    /// Whether it stands alone.
    pub(crate) keyframe: bool,
}

/// A film that is played over and over.
#[derive(Debug)]
pub(crate) struct Film {
    pub(crate) coding: Coding,
    /// SPS and PPS; VPS before them for HEVC.
    pub(crate) sets: Vec<Vec<u8>>,
    pub(crate) pictures: Vec<Picture>,
}

impl Film {
    /// 320x180, a keyframe each second at 25 pictures per second, no B-frames.
    pub(crate) fn plain() -> Arc<Film> {
        h264("plain", "testsrc2=size=320x180:rate=25", "bframes=0", 4)
    }

    /// As [`Film::plain`] with two B-frames between others.
    pub(crate) fn b_frames() -> Arc<Film> {
        h264("b-frames", "testsrc2=size=320x180:rate=25", "bframes=2:b-adapt=0:b-pyramid=none", 4)
    }

    /// Another size: other parameter sets.
    pub(crate) fn small() -> Arc<Film> {
        h264("small", "testsrc2=size=240x136:rate=25", "bframes=0", 4)
    }

    /// The same picture again and again, coded as such.
    pub(crate) fn frozen() -> Arc<Film> {
        let picture =
            "testsrc2=size=320x180:rate=25,select=eq(n\\,0),loop=loop=-1:size=1:start=0,setpts=N/25/TB";
        h264("frozen", picture, "bframes=0", 4)
    }

    /// Nothing but black.
    pub(crate) fn black() -> Arc<Film> {
        h264("black", "color=black:size=320x180:rate=25", "bframes=0", 4)
    }

    /// As [`Film::plain`], so long that no test sees it begin again; `picture` is a source of ffmpeg's.
    pub(crate) fn long(picture: &str) -> Arc<Film> {
        h264(&format!("long-{picture}"), &format!("{picture}=size=320x180:rate=25"), "bframes=0", 180)
    }

    /// As [`Film::plain`], in HEVC.
    pub(crate) fn hevc() -> Arc<Film> {
        let path = cached("farm-hevc.hevc", |path| {
            let params = "bframes=0:keyint=25:min-keyint=25:scenecut=0:log-level=error:info=0";
            let coder = ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", params, "-f", "hevc"];
            encode("testsrc2=size=320x180:rate=25", 4, &coder, path);
        });
        Arc::new(take_apart(Coding::Hevc, &std::fs::read(path).unwrap(), &[]))
    }
}

fn h264(name: &str, picture: &str, params: &str, seconds: u32) -> Arc<Film> {
    let path = cached(&format!("farm-{name}.h264"), |path| {
        let params = format!("{params}:keyint=25:min-keyint=25:scenecut=0:force-cfr=1");
        let coder =
            ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-x264-params", &params];
        encode(picture, seconds, &[&coder[..], &["-f", "h264"]].concat(), path);
    });
    // The order of display is not in the raw stream in plain sight; a decoder knows it.
    let order = cached(&format!("farm-{name}.order"), |order| {
        let film = path.to_str().unwrap();
        let probe = [
            "-v",
            "error",
            "-select_streams",
            "v",
            "-show_entries",
            "frame=coded_picture_number",
            "-of",
            "csv=p=0",
            film,
        ];
        std::fs::write(order, Process::run("ffprobe", &probe, secs(60))).unwrap();
    });
    let text = std::fs::read_to_string(order).unwrap();
    let coded: Vec<i64> =
        text.lines().filter_map(|line| line.trim_end_matches(',').trim().parse().ok()).collect();
    Arc::new(take_apart(Coding::H264, &std::fs::read(path).unwrap(), &coded))
}

fn encode(picture: &str, seconds: u32, coder: &[&str], path: &Path) {
    let seconds = seconds.to_string();
    let input = ["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", picture, "-t", &seconds];
    let args = [&input[..], coder, &[path.to_str().unwrap()]].concat();
    Process::run("ffmpeg", &args, secs(120));
}

/// `coded[n]`: the place in decode order of the picture shown as number `n`; empty where both orders are one.
fn take_apart(coding: Coding, stream: &[u8], coded: &[i64]) -> Film {
    let mut film = Film { coding, sets: Vec::new(), pictures: Vec::new() };
    let mut before: Vec<Vec<u8>> = Vec::new();
    for nal in nal_units(stream) {
        let kind = kind(coding, nal);
        let (is_set, is_delimiter, is_coded) = match coding {
            Coding::H264 => (matches!(kind, 7 | 8), kind == 9, matches!(kind, 1..=5)),
            Coding::Hevc => (matches!(kind, 32..=34), kind == 35, kind < 32),
        };
        if is_set {
            if !film.sets.iter().any(|set| set == nal) {
                film.sets.push(nal.to_vec());
            }
        } else if is_delimiter {
        } else if !is_coded {
            before.push(nal.to_vec());
        } else {
            let first_slice = nal[if coding == Coding::H264 { 1 } else { 2 }] & 0x80 != 0;
            if first_slice {
                let keyframe = match coding {
                    Coding::H264 => kind == 5,
                    Coding::Hevc => (16..=21).contains(&kind),
                };
                let nals = std::mem::take(&mut before);
                let place = film.pictures.len() as i64;
                let shown = coded.iter().position(|coded| *coded == place).map_or(place, |at| at as i64);
                film.pictures.push(Picture { nals, shown, keyframe });
            }
            film.pictures.last_mut().expect("a film begins with a first slice").nals.push(nal.to_vec());
        }
    }
    assert!(
        film.sets.len() >= 2 && film.pictures.len() >= 90 && film.pictures[0].keyframe,
        "{}",
        film.pictures.len()
    );
    film
}

/// The kind of a NAL unit.
pub(crate) fn kind(coding: Coding, nal: &[u8]) -> u8 {
    match coding {
        Coding::H264 => nal[0] & 0x1f,
        Coding::Hevc => nal[0] >> 1 & 0x3f,
    }
}

fn nal_units(stream: &[u8]) -> Vec<&[u8]> {
    let starts: Vec<usize> =
        stream.windows(3).enumerate().filter(|(_, w)| *w == [0, 0, 1]).map(|(at, _)| at + 3).collect();
    let ends = starts.iter().skip(1).map(|start| start - 3).chain([stream.len()]);
    let cut = starts.iter().zip(ends).map(|(start, end)| {
        let nal = &stream[*start..end];
        let zeros = nal.iter().rev().take_while(|byte| **byte == 0).count();
        &nal[..nal.len() - zeros]
    });
    cut.collect()
}
