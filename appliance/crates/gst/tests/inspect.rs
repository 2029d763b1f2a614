//! Single keyframes, good and hostile, in a real, sandboxed worker process.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test with a main of its own")]

#[allow(dead_code, reason = "shared with tests of streams")]
mod common;

use bytes::Bytes;
use common::spec;
use fieldgate_media::{Draft, Tracks};
use fieldgate_model::job::{InspectAnswer, InspectAsk, Inspector, Sandbox, Work};
use fieldgate_worker::{Deadlines, Deliver, Report, Spawner, WorkerError, WorkerSource};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    common::main(&[
        ("a_keyframe_is_measured_and_made_a_jpeg", a_keyframe_is_measured_and_made_a_jpeg),
        ("noise_black_and_blur_have_their_figures", noise_black_and_blur_have_their_figures),
        ("a_cameras_own_jpeg_is_made_anew", a_cameras_own_jpeg_is_made_anew),
        ("hostile_keyframes_are_answered_with_a_cause", hostile_keyframes_are_answered_with_a_cause),
    ])
}

struct Answers(mpsc::Sender<Bytes>, Report);

impl Deliver for Answers {
    fn tracks(&mut self, _tracks: Tracks, _same: bool) {}
    fn unit(&mut self, _unit: Draft) {}
    fn flush(&mut self) {}
    fn report(&mut self, report: &Report) {
        self.1 = report.clone();
    }
    fn answer(&mut self, answer: Bytes) {
        self.0.try_send(answer).unwrap();
    }
}

/// What was told, and the JPEG.
type Answered = (InspectAnswer, Vec<u8>);

/// Asks one worker all of it, one after the other.
fn ask(asks: Vec<Vec<u8>>) -> (Vec<Answered>, Report, Result<(), WorkerError>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (answered, mut answers) = mpsc::channel(4);
        let (asking, inbox) = mpsc::channel(1);
        let (_commands, commands) = mpsc::channel(1);
        let mut spec = spec(Work::Inspect(Inspector::default()), Sandbox::default());
        spec.deadlines = Deadlines { first_unit: None, ..Deadlines::default() };
        let worker = WorkerSource::new(spec, Spawner::start().unwrap(), commands, CancellationToken::new());
        let mut deliver = Answers(answered, Report::default());
        let running = worker.with_asks(inbox).run(&mut deliver);
        let talk = async {
            let mut all = Vec::new();
            for ask in asks {
                asking.send(ask.into()).await.unwrap();
                let answer = tokio::time::timeout(Duration::from_secs(30), answers.recv()).await;
                let Some(answer) = answer.expect("an answer in time") else { break };
                let (head, jpeg) = InspectAnswer::decode(&answer).unwrap();
                all.push((head, jpeg.to_vec()));
            }
            drop(asking);
            all
        };
        let (ended, all) = tokio::join!(running, talk);
        (all, deliver.1, ended)
    })
}

/// One keyframe of a picture made by ffmpeg: codec header and unit.
fn keyframe(codec: &str, filter: &str) -> (Vec<u8>, Vec<u8>) {
    let encoder = if codec == "hevc" { "libx265" } else { "libx264" };
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", filter, "-frames:v", "1", "-pix_fmt", "yuv420p"])
        .args(["-c:v", encoder, "-x265-params", "log-level=none", "-f", codec, "-"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let nals = nals(&made.stdout);
    let kind = |nal: &&Vec<u8>| if codec == "hevc" { nal[0] >> 1 & 0x3f } else { nal[0] & 0x1f };
    let find = |wanted: u8| nals.iter().find(|nal| kind(nal) == wanted).unwrap().clone();
    let with_len = |nal: &[u8]| [&u16::try_from(nal.len()).unwrap().to_be_bytes()[..], nal].concat();
    let header = if codec == "hevc" {
        let sps = find(33);
        let mut header = vec![1];
        header.extend_from_slice(&sps[3..15]);
        header.extend_from_slice(&[0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0, 0x0f, 3]);
        for wanted in [32, 33, 34] {
            header.extend_from_slice(&[0x80 | wanted, 0, 1]);
            header.extend(with_len(&find(wanted)));
        }
        header
    } else {
        let (sps, pps) = (find(7), find(8));
        let head = [1, sps[1], sps[2], sps[3], 0xff, 0xe1];
        [&head[..], &with_len(&sps), &[1], &with_len(&pps)].concat()
    };
    let slices = nals.iter().filter(|nal| if codec == "hevc" { kind(nal) < 32 } else { kind(nal) == 5 });
    let unit = slices.flat_map(|nal| [&u32::try_from(nal.len()).unwrap().to_be_bytes()[..], nal].concat());
    (header, unit.collect())
}

fn a_cameras_own_jpeg_is_made_anew() {
    let made = Command::new("ffmpeg")
        .args([
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=640x360",
            "-frames:v",
            "1",
            "-f",
            "mjpeg",
            "-",
        ])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let picture = made.stdout;
    let mut huge = picture.clone();
    let frame = huge.windows(2).position(|two| two == [0xff, 0xc0]).unwrap();
    huge[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
    let (cut, noise) = (picture[..40].to_vec(), vec![0x55; 4_096]);
    let asks = [&picture, &huge, &cut, &noise, &picture];
    let asks = asks.iter().zip(1..).map(|(jpeg, id)| wish(id, "jpeg", Some(320)).encode(&[], jpeg)).collect();
    let (answers, _, ended) = ask(asks);
    ended.unwrap();
    assert_eq!(answers.len(), 5, "one worker answers all");
    for at in [0, 4] {
        let (head, jpeg) = &answers[at];
        assert_eq!((head.width, head.height, head.error.clone()), (640, 360, None));
        assert_eq!(fieldgate_media::jpeg::shape(jpeg), Some((320, 180)));
    }
    for (head, jpeg) in &answers[1..4] {
        assert!(head.error.is_some() && jpeg.is_empty(), "{head:?}");
    }
    assert!(answers[1].0.error.as_ref().unwrap().contains("65535x65535"), "{:?}", answers[1].0);
}

fn nals(stream: &[u8]) -> Vec<Vec<u8>> {
    let starts: Vec<usize> =
        (0..stream.len().saturating_sub(2)).filter(|at| stream[*at..*at + 3] == [0, 0, 1]).collect();
    let ends = starts.iter().skip(1).copied().chain([stream.len() + 1]);
    let nal = |(start, end): (&usize, usize)| {
        let mut nal = &stream[start + 3..end.min(stream.len())];
        while let Some((0, rest)) = nal.split_last() {
            nal = rest;
        }
        nal.to_vec()
    };
    starts.iter().zip(ends).map(nal).collect()
}

fn wish(id: u64, codec: &str, jpeg_width: Option<u32>) -> InspectAsk {
    InspectAsk { id, codec: codec.into(), header_len: 0, jpeg_width }
}

fn a_keyframe_is_measured_and_made_a_jpeg() {
    let asks = ["h264", "hevc"].map(|codec| {
        let (header, unit) =
            keyframe(codec, "color=c=red:s=320x240,drawbox=x=160:w=160:h=240:c=white:t=fill");
        wish(5, codec, Some(160)).encode(&header, &unit)
    });
    let (answers, report, ended) = ask(asks.to_vec());
    ended.unwrap();
    assert_eq!(answers.len(), 2);
    for (answer, jpeg) in answers {
        assert_eq!(
            (answer.id, answer.width, answer.height, &answer.error),
            (5, 320, 240, &None),
            "{answer:?}"
        );
        let figures = answer.figures.unwrap();
        // Red is 81 and white 235, half and half.
        assert!((155.0..161.0).contains(&figures.mean), "{figures:?}");
        assert!(figures.sharpness > 0.5 && figures.structure > 50.0, "{figures:?}");
        assert!(jpeg.starts_with(&[0xff, 0xd8]) && jpeg.ends_with(&[0xff, 0xd9]));
    }
    assert!(report.usage.pss_bytes < 100 << 20, "{:?}", report.usage);
}

fn noise_black_and_blur_have_their_figures() {
    let pictures = [
        "mandelbrot=s=640x360:start_scale=0.02",
        "mandelbrot=s=640x360:start_scale=0.02,gblur=sigma=14",
        "color=c=black:s=640x360",
        "color=c=0x0c0c0c:s=640x360,noise=alls=12:allf=t",
        "color=c=gray:s=640x360,noise=alls=4:allf=t",
    ];
    let asks = pictures.map(|picture| {
        let (header, unit) = keyframe("h264", picture);
        wish(1, "h264", None).encode(&header, &unit)
    });
    let (answers, _, ended) = ask(asks.to_vec());
    ended.unwrap();
    let figures: Vec<_> = answers.iter().map(|(answer, _)| answer.figures.unwrap()).collect();
    for (picture, figures) in pictures.iter().zip(&figures) {
        println!("{picture}: {figures:?}");
    }
    assert!(figures[0].sharpness > 0.3 && figures[1].sharpness < 0.22 && figures[1].structure > 10.0);
    assert!(figures[2].black == 1.0 && figures[2].deviation < 0.1);
    assert!(figures[3].structure < 3.0 && figures[3].mean < 40.0);
    assert!(figures[4].structure < 3.0 && figures[4].edges < 0.005 && figures[4].mean > 100.0);
}

fn hostile_keyframes_are_answered_with_a_cause() {
    let (header, unit) = keyframe("h264", "testsrc2=s=320x240");
    let mut asks = vec![
        wish(1, "av1", None).encode(&header, &unit),
        wish(2, "h264", None).encode(&[], &[]),
        wish(3, "h264", None).encode(&header, &[0; 4096]),
        wish(4, "h264", Some(64)).encode(&header, &unit[..40]),
        b"not an ask".to_vec(),
    ];
    // A million pixels a side, as the header says.
    let mut seed = 1_u64;
    for _ in 0..40 {
        let mut damaged = unit.clone();
        for _ in 0..60 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let at = (seed >> 33) as usize % damaged.len();
            damaged[at] = (seed >> 20) as u8;
        }
        asks.push(wish(9, "h264", Some(64)).encode(&header, &damaged));
    }
    asks.push(wish(10, "h264", Some(64)).encode(&header, &unit));
    let count = asks.len();
    let (answers, _, ended) = ask(asks);
    ended.unwrap();
    assert_eq!(answers.len(), count);
    for (answer, jpeg) in &answers[..5] {
        assert!(answer.error.is_some() && jpeg.is_empty(), "{answer:?}");
    }
    let (last, jpeg) = answers.last().unwrap();
    assert!(
        last.id == 10 && last.error.is_none() && !jpeg.is_empty(),
        "a good one after all of these: {last:?}"
    );
}
