//! Against gst-rtsp-server: what a camera sends is what arrives.

use crate::common::{Taken, run, spec};
use fieldgate_media::{Codec, TrackId, TrackKind};
use fieldgate_model::job::{
    AudioTreatment, RtspCamera, RtspTransport, Sandbox, Secret, VideoTreatment, Work,
};
use fieldgate_model::masks::Masks;
use fieldgate_worker::{WorkerError, WorkerSpec};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PICTURES: usize = 75;

/// A server in its own process; ends with this value.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    /// `None` (and says so) where there is no gst-rtsp-server with its Python bindings.
    fn start(args: &[&str]) -> Option<Server> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/peers/rtsp_server.py");
        let mut process = Command::new("/usr/bin/python3")
            .arg(script)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        match line.trim().strip_prefix("port ").and_then(|port| port.parse().ok()) {
            Some(port) => Some(Server { process, port }),
            None => {
                println!("skipped: no gst-rtsp-server here (python3-gi, gir1.2-gst-rtsp-server-1.0)");
                let _ = process.wait();
                None
            }
        }
    }

    fn spec(&self, change: impl FnOnce(&mut RtspCamera)) -> WorkerSpec {
        let mut camera = RtspCamera {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)),
            path: "/main".into(),
            transport: RtspTransport::Tcp,
            user: String::new(),
            password: Secret::default(),
            latency_ms: 100,
            video: VideoTreatment::Pass(Masks::none().unmasked().unwrap()),
            audio: AudioTreatment::Pass,
        };
        change(&mut camera);
        let udp = camera.transport == RtspTransport::Udp;
        spec(Work::Rtsp(camera), Sandbox { tcp_connect: vec![self.port], udp, ..Sandbox::default() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A film with B-frames and its elementary streams, made once; `None` without an ffmpeg that can.
fn film(name: &str, encoder: &[&str]) -> Option<PathBuf> {
    let film = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.mkv", std::process::id()));
    let seconds = (PICTURES / 25).to_string();
    let made = Command::new("ffmpeg")
        .args(["-hide_banner", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25"])
        .args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-t", &seconds])
        .args(encoder)
        .args(["-c:a", "aac", "-b:a", "64k"])
        .arg(&film)
        .status();
    match made {
        Ok(status) if status.success() => Some(film),
        _ => {
            println!("skipped: no ffmpeg here that makes {name}");
            None
        }
    }
}

/// The coded pictures of a film as lists of NAL units, without those that only frame them.
fn sent_pictures(film: &Path, format: &str, codec: Codec) -> Vec<Vec<Vec<u8>>> {
    let filter = format!("{format}_mp4toannexb");
    let output = Command::new("ffmpeg")
        .args(["-hide_banner", "-v", "error", "-i"])
        .arg(film)
        .args(["-map", "0:v", "-c", "copy", "-bsf:v", &filter, "-f", format, "-"])
        .output()
        .unwrap();
    let nals = annex_b_nals(&output.stdout);
    let mut pictures: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut prefix: Vec<Vec<u8>> = Vec::new();
    for nal in nals.into_iter().filter(|nal| !is_framing(codec, nal)) {
        let coded = is_coded(codec, &nal);
        let first_slice = match codec {
            Codec::H264 => nal[1] & 0x80 != 0,
            _ => nal[2] & 0x80 != 0,
        };
        match (coded, first_slice) {
            (false, _) => prefix.push(nal),
            (true, true) => {
                prefix.push(nal);
                pictures.push(std::mem::take(&mut prefix));
            }
            (true, false) => pictures.last_mut().unwrap().push(nal),
        }
    }
    pictures
}

fn annex_b_nals(stream: &[u8]) -> Vec<Vec<u8>> {
    let starts: Vec<usize> =
        stream.windows(3).enumerate().filter(|(_, w)| *w == [0, 0, 1]).map(|(at, _)| at).collect();
    let ends = starts.iter().skip(1).copied().chain([stream.len()]);
    let cut = starts.iter().zip(ends).map(|(start, end)| {
        let nal = &stream[start + 3..end];
        let zeros = nal.iter().rev().take_while(|byte| **byte == 0).count();
        nal[..nal.len() - zeros].to_vec()
    });
    cut.collect()
}

fn received_nals(codec: Codec, payload: &[u8]) -> Vec<Vec<u8>> {
    let mut nals = Vec::new();
    let mut rest = payload;
    while !rest.is_empty() {
        let (len, after) = rest.split_at(4);
        let (nal, after) = after.split_at(u32::from_be_bytes(len.try_into().unwrap()) as usize);
        nals.push(nal.to_vec());
        rest = after;
    }
    nals.retain(|nal| !is_framing(codec, nal));
    nals
}

/// Delimiters and parameter sets: they may move into the track's header. (ffmpeg itself adds the
/// encoder's SEI of an HEVC header before every keyframe.)
fn is_framing(codec: Codec, nal: &[u8]) -> bool {
    match codec {
        Codec::H264 => matches!(nal[0] & 0x1f, 7..=9),
        _ => matches!(nal[0] >> 1 & 0x3f, 32..=35 | 39),
    }
}

fn is_coded(codec: Codec, nal: &[u8]) -> bool {
    match codec {
        Codec::H264 => matches!(nal[0] & 0x1f, 1..=5),
        _ => nal[0] >> 1 & 0x3f < 32,
    }
}

/// The whole film is taken; the server says when it ends.
fn take_film(spec: WorkerSpec) -> Taken {
    let (taken, outcome) = run(spec, |_| false);
    match outcome {
        Err(WorkerError::Failed { cause, permanent: false }) if cause.contains("ended") => taken,
        other => panic!("{other:?}"),
    }
}

/// The kernel drops what a busy machine reads too late: nine in ten come, as they were sent and in that order.
fn assert_most_pictures(taken: &Taken, film: &Path, format: &str, codec: Codec) {
    let sent = sent_pictures(film, format, codec);
    let (mut next, mut whole) = (0, 0);
    for (head, payload) in taken.of(TrackId::VIDEO) {
        let received = received_nals(codec, payload);
        if let Some(at) = sent.iter().position(|sent| *sent == received) {
            assert!(at >= next, "picture {at} comes twice or too late: {head:?}");
            (next, whole) = (at + 1, whole + 1);
        }
    }
    assert!(whole * 10 >= sent.len() * 9, "{whole} of {} pictures came as they were sent", sent.len());
    let heads: Vec<_> = taken.of(TrackId::VIDEO).map(|(head, _)| *head).collect();
    assert!(heads[0].keyframe);
    assert!(heads.windows(2).all(|pair| pair[0].dts < pair[1].dts));
    let span = heads[heads.len() - 1].pts.as_millis() - heads[0].pts.as_millis();
    let film = i64::try_from(PICTURES).unwrap() * 40;
    assert!((film * 8 / 10..=film * 11 / 10).contains(&span), "{span} ms of a film of {film} ms");
}

fn assert_pictures(taken: &Taken, film: &Path, format: &str, codec: Codec) {
    let sent = sent_pictures(film, format, codec);
    assert_eq!(sent.len(), PICTURES);
    let received: Vec<_> =
        taken.of(TrackId::VIDEO).map(|(_, payload)| received_nals(codec, payload)).collect();
    assert_eq!(received.len(), sent.len(), "none lost, none more");
    for (at, (received, sent)) in received.iter().zip(&sent).enumerate() {
        assert_eq!(received, sent, "picture {at}");
    }
    let heads: Vec<_> = taken.of(TrackId::VIDEO).map(|(head, _)| *head).collect();
    assert!(heads[0].keyframe);
    assert!(heads.windows(2).all(|pair| pair[0].dts <= pair[1].dts));
    // The film's presentation times, whatever the order: one picture every 40 ms.
    // Only the very first ones come before the server's report, which aligns them with the sound.
    let mut presented: Vec<i64> = heads.iter().skip(10).map(|head| head.pts.get()).collect();
    presented.sort_unstable();
    for pair in presented.windows(2).skip(3) {
        let step = pair[1] - pair[0];
        assert!((3400..=3800).contains(&step), "{step} ticks between two pictures");
    }
    let late = heads.iter().filter(|head| head.dts > head.pts).count();
    assert_eq!(late, 0, "decoded after it is shown");
}

pub(crate) fn tcp_passes_every_picture_and_sound_unchanged() {
    let encoder = ["-c:v", "libx264", "-bf", "2", "-g", "25", "-preset", "veryfast"];
    let Some(film) = film("h264", &encoder) else { return };
    let Some(server) = Server::start(&["--file", film.to_str().unwrap(), "--audio"]) else { return };
    let taken = take_film(server.spec(|_| ()));
    assert_eq!(taken.tracks.len(), 1);
    assert_eq!(taken.tracks[0].first(TrackKind::Video).unwrap().codec, Codec::H264);
    let audio = taken.tracks[0].first(TrackKind::Audio).unwrap();
    assert_eq!((audio.codec, audio.audio.sample_rate), (Codec::Aac, 48_000));
    assert_pictures(&taken, &film, "h264", Codec::H264);
    assert!(
        taken.of(TrackId::VIDEO).any(|(head, _)| head.pts > head.dts),
        "B-frames need decode times of their own"
    );

    let film_starts = |stream: &str| -> f64 {
        let mut ffprobe = Command::new("ffprobe");
        ffprobe.args([
            "-v",
            "error",
            "-select_streams",
            stream,
            "-show_entries",
            "packet=pts_time",
            "-of",
            "csv=p=0",
        ]);
        let output = ffprobe.arg(&film).output().unwrap().stdout;
        let times = String::from_utf8(output).unwrap();
        times.lines().map(|time| time.trim_end_matches(',').parse().unwrap()).fold(f64::MAX, f64::min)
    };
    let mut pictures: Vec<i64> = taken.of(TrackId::VIDEO).map(|(head, _)| head.pts.as_millis()).collect();
    pictures.sort_unstable();
    let sound = taken.of(TrackId::AUDIO).next().unwrap().0.pts.as_millis();
    let sent_offset = (film_starts("v") - film_starts("a")) * 1000.0 + 40.0 * 50.0;
    let received_offset = i32::try_from(pictures[50] - sound).unwrap();
    assert!(
        (f64::from(received_offset) - sent_offset).abs() < 5.0,
        "{received_offset} ms for {sent_offset} ms"
    );

    let adts = Command::new("ffmpeg")
        .args(["-hide_banner", "-v", "error", "-i"])
        .arg(&film)
        .args(["-map", "0:a", "-c", "copy", "-f", "adts", "-"])
        .output()
        .unwrap();
    let mut rest = &adts.stdout[..];
    let mut sent = Vec::new();
    while rest.len() >= 7 {
        let len = usize::from(rest[3] & 3) << 11 | usize::from(rest[4]) << 3 | usize::from(rest[5] >> 5);
        sent.push(rest[7..len].to_vec());
        rest = &rest[len..];
    }
    let received: Vec<_> = taken.of(TrackId::AUDIO).map(|(_, payload)| payload.clone()).collect();
    assert_eq!(received, sent, "sound");
    let report = &taken.report;
    println!("  first unit after {:?}, {:?}", report.first_unit_after.unwrap(), report.usage);
    assert!(report.status.sandbox.iter().all(|guard| guard.on || !guard.note.is_empty()));
    std::fs::remove_file(film).unwrap();
}

pub(crate) fn udp_passes_pictures_unchanged() {
    let encoder = ["-c:v", "libx264", "-bf", "0", "-g", "25", "-preset", "veryfast"];
    let Some(film) = film("h264-udp", &encoder) else { return };
    let Some(server) = Server::start(&["--file", film.to_str().unwrap()]) else { return };
    let taken = take_film(server.spec(|camera| camera.transport = RtspTransport::Udp));
    assert_most_pictures(&taken, &film, "h264", Codec::H264);
    assert!(taken.of(TrackId::VIDEO).all(|(head, _)| head.pts == head.dts));
    println!("  {:?}", taken.report.usage);
    std::fs::remove_file(film).unwrap();
}

pub(crate) fn hevc_passes_unchanged() {
    let encoder = ["-c:v", "libx265", "-x265-params", "log-level=error:keyint=25", "-preset", "ultrafast"];
    let Some(film) = film("hevc", &encoder) else { return };
    let Some(server) = Server::start(&["--file", film.to_str().unwrap(), "--codec", "h265"]) else { return };
    let taken = take_film(server.spec(|_| ()));
    let video = taken.tracks[0].first(TrackKind::Video).unwrap();
    assert_eq!((video.codec, video.header[0]), (Codec::Hevc, 1));
    assert_pictures(&taken, &film, "hevc", Codec::Hevc);
    std::fs::remove_file(film).unwrap();
}

const LIVE: &str = "( videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=15/1 ! openh264enc gop-size=15 \
     ! h264parse ! rtph264pay name=pay0 config-interval=-1 \
     audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay1 )";

pub(crate) fn refusals_are_named() {
    let args = ["--launch", LIVE, "--user", "installer", "--password", "right"];
    let Some(server) = Server::start(&args) else { return };
    let login = |password: &'static str| {
        server.spec(move |camera| {
            camera.user = "installer".into();
            camera.password = Secret(password.into());
        })
    };
    let cause = |spec| match run(spec, |_| false).1 {
        Err(WorkerError::Failed { cause, permanent: false }) => cause,
        other => panic!("{other:?}"),
    };
    let wrong = cause(login("wrong"));
    println!("  wrong password: {wrong}");
    assert!(wrong.contains("password"), "{wrong}");
    let (taken, outcome) = run(login("right"), |taken| taken.of(TrackId::VIDEO).count() > 20);
    outcome.unwrap();
    let sound = taken.tracks[0].first(TrackKind::Audio).unwrap();
    assert_eq!((sound.codec, sound.audio.sample_rate), (Codec::PcmA, 8000));
    let nowhere = cause(server.spec(|camera| {
        camera.path = "/elsewhere".into();
        camera.user = "installer".into();
        camera.password = Secret("right".into());
    }));
    println!("  wrong path: {nowhere}");
    let mut closed = server.spec(|_| ());
    drop(server);
    closed.deadlines.first_unit = Some(Duration::from_secs(15));
    let refused = cause(closed);
    println!("  no server: {refused}");
    assert!(refused.contains("connect"), "{refused}");
}

/// GStreamer's own timeouts do not cover an established session that sends nothing more.
pub(crate) fn session_that_goes_silent_is_noticed() {
    let Some(server) = Server::start(&["--launch", LIVE]) else { return };
    let pid = server.process.id().to_string();
    let mut spec = server.spec(|_| ());
    spec.deadlines.between_units = Duration::from_secs(2);
    let (taken, outcome) = run(spec, move |taken| {
        if taken.of(TrackId::VIDEO).count() == 10 {
            Command::new("kill").args(["-STOP", &pid]).status().unwrap();
        }
        false
    });
    assert!(matches!(outcome, Err(WorkerError::Silent { .. })), "{outcome:?}");
    assert!(taken.of(TrackId::VIDEO).count() >= 10);
}
