//! Real pipelines in real, sandboxed worker processes.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test with a main of its own")]

mod common;
#[path = "cameras/file.rs"]
mod file;
#[path = "cameras/rtp.rs"]
mod rtp;
#[path = "../../../tests/common/rtp_ports.rs"]
mod rtp_ports;
#[path = "cameras/rtsp.rs"]
mod rtsp;
#[path = "cameras/transcode.rs"]
mod transcode;

use common::{Taken, run, run_with, spec};
use fieldgate_media::{Codec, TrackId, TrackKind, UnitHead};
use fieldgate_model::job::{
    EncoderWish, Sandbox, TestCamera, VideoEncode, VideoTreatment, Work, WorkerCommand,
};
use fieldgate_model::masks::Masks;
use fieldgate_worker::{Deadlines, Program, Spawner, probe_encoders};
use std::io::Write;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    common::main(&[
        (
            "the_test_camera_delivers_decodable_pictures_and_sound",
            the_test_camera_delivers_decodable_pictures_and_sound,
        ),
        (
            "encoders_are_proven_by_encoding_and_every_refusal_says_why",
            encoders_are_proven_by_encoding_and_every_refusal_says_why,
        ),
        (
            "settings_that_cannot_work_are_named_and_never_retried",
            settings_that_cannot_work_are_named_and_never_retried,
        ),
        (
            "rtsp_over_tcp_passes_every_picture_and_sound_unchanged",
            rtsp::tcp_passes_every_picture_and_sound_unchanged,
        ),
        ("rtsp_over_udp_passes_pictures_unchanged", rtsp::udp_passes_pictures_unchanged),
        ("rtsp_hevc_passes_unchanged", rtsp::hevc_passes_unchanged),
        ("rtsp_refusals_are_named", rtsp::refusals_are_named),
        ("rtsp_session_that_goes_silent_is_noticed", rtsp::session_that_goes_silent_is_noticed),
        ("a_microphone_that_is_missing_is_named", a_microphone_that_is_missing_is_named),
        ("rtp_picture_and_sound_come_by_udp", rtp::picture_and_sound_come_by_udp),
        ("rtp_what_is_sent_by_strangers_is_dropped", rtp::what_is_sent_by_strangers_is_dropped),
        ("rtp_hostile_packets_do_no_harm", rtp::hostile_packets_do_no_harm),
        ("rtp_a_multicast_group_is_joined", rtp::a_multicast_group_is_joined),
        ("rtp_every_encoding_of_rtsp_is_taken", rtp::every_encoding_of_rtsp_is_taken),
        (
            "every_container_is_played_at_the_speed_of_life",
            file::every_container_is_played_at_the_speed_of_life,
        ),
        ("a_file_that_repeats_is_one_stream", file::a_file_that_repeats_is_one_stream),
        ("code_made_at_run_time_is_refused", code_made_at_run_time_is_refused),
        ("a_keyframe_comes_when_asked_for", a_keyframe_comes_when_asked_for),
        ("transcode_hevc_becomes_h264_with_the_same_times", transcode::hevc_becomes_h264_with_the_same_times),
        ("transcode_g711_becomes_aac_and_opus_in_step", transcode::g711_becomes_aac_and_opus_in_step),
        ("transcode_no_picture_leaves_without_its_masks", transcode::no_picture_leaves_without_its_masks),
        ("measure_the_test_camera", measure_the_test_camera),
        ("a_missing_capture_device_is_named", a_missing_capture_device_is_named),
        ("a_missing_libcamera_or_its_camera_is_named", a_missing_libcamera_or_its_camera_is_named),
    ])
}

fn encoded(encoder: EncoderWish) -> VideoTreatment {
    VideoTreatment::Encode(Box::new(VideoEncode::new(encoder, Masks::none())))
}

/// Pictures at 30 a second. A machine that is too busy costs some before the encoder, whole ones and few.
fn assert_steady(pictures: &[&(UnitHead, Vec<u8>)]) {
    let steps = pictures.windows(2).map(|pair| (pair[1].0.dts - pair[0].0.dts).get());
    let missing: i64 = steps
        .map(|step| {
            assert!(step >= 2999 && (step + 1) % 3000 <= 2, "{step} ticks are no whole number of pictures");
            (step + 1) / 3000 - 1
        })
        .sum();
    assert!(missing as usize <= pictures.len() / 4, "{missing} pictures missing beside {}", pictures.len());
}

/// As a decoder reads it from a file: start codes instead of lengths, parameter sets first.
fn annex_b(header: &[u8], units: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |nal: &[u8]| {
        out.extend_from_slice(&[0, 0, 0, 1]);
        out.extend_from_slice(nal);
    };
    let sps_len = usize::from(u16::from_be_bytes([header[6], header[7]]));
    put(&header[8..8 + sps_len]);
    let pps = &header[8 + sps_len + 1..];
    let pps_len = usize::from(u16::from_be_bytes([pps[0], pps[1]]));
    put(&pps[2..2 + pps_len]);
    for unit in units {
        let mut rest = *unit;
        while !rest.is_empty() {
            let (len, after) = rest.split_at(4);
            let (nal, after) = after.split_at(u32::from_be_bytes(len.try_into().unwrap()) as usize);
            put(nal);
            rest = after;
        }
    }
    out
}

/// How many pictures ffmpeg decodes; `None` when there is no ffmpeg.
fn decoded_pictures(stream: &[u8]) -> Option<usize> {
    let mut ffmpeg = Command::new("ffmpeg")
        .args(["-hide_banner", "-v", "error", "-f", "h264", "-i", "-", "-f", "framemd5", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut stdin = ffmpeg.stdin.take().unwrap();
    let stream = stream.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&stream));
    let output = ffmpeg.wait_with_output().unwrap();
    feeder.join().unwrap().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).lines().filter(|line| !line.starts_with('#')).count())
}

fn the_test_camera_delivers_decodable_pictures_and_sound() {
    // Two keyframes and the rest of the second GOP's beginning.
    let enough = |taken: &Taken| taken.of(TrackId::VIDEO).filter(|(head, _)| head.keyframe).count() >= 2;
    let (taken, outcome) = run(spec(Work::Test(TestCamera::default()), Sandbox::default()), enough);
    outcome.unwrap();

    assert_eq!(taken.tracks.len(), 1, "one announcement, complete from the start");
    let video = taken.tracks[0].first(TrackKind::Video).unwrap();
    let audio = taken.tracks[0].first(TrackKind::Audio).unwrap();
    assert_eq!((video.codec, audio.codec), (Codec::H264, Codec::Aac));
    assert_eq!((video.video.width, video.video.height, video.video.frame_rate), (1280, 720, 30.0));
    assert_eq!((audio.audio.sample_rate, audio.audio.channels), (48_000, 2));
    assert_eq!(video.header[0], 1, "an AVCDecoderConfigurationRecord");
    assert_eq!(video.header[4] & 3, 3, "lengths of four bytes");
    assert_eq!(audio.header.len(), 2, "an AudioSpecificConfig");

    let pictures: Vec<_> = taken.of(TrackId::VIDEO).collect();
    assert!(pictures[0].0.keyframe);
    let keyframes: Vec<usize> =
        pictures.iter().enumerate().filter(|(_, (head, _))| head.keyframe).map(|(at, _)| at).collect();
    assert_eq!(keyframes[1] - keyframes[0], 60, "a keyframe every two seconds");
    assert_steady(&pictures);
    assert!(pictures.iter().all(|(head, _)| head.pts >= head.dts));
    let sounds: Vec<_> = taken.of(TrackId::AUDIO).collect();
    assert!(sounds.len() > 80, "{} frames of sound", sounds.len());
    for pair in sounds.windows(2) {
        let step = (pair[1].0.dts - pair[0].0.dts).get();
        assert!((1919..=1921).contains(&step), "a frame of sound is missing: {step} ticks");
    }
    let offset = (pictures[0].0.pts - sounds[0].0.pts).as_millis().abs();
    assert!(offset < 200, "sound and picture begin {offset} ms apart");
    assert!(
        pictures
            .iter()
            .all(|(head, _)| head.captured.is_some_and(|at| at.unix_micros > 1_600_000_000_000_000))
    );

    let payloads: Vec<&[u8]> = pictures.iter().map(|(_, payload)| &payload[..]).collect();
    match decoded_pictures(&annex_b(&video.header, &payloads)) {
        Some(count) => assert_eq!(count, pictures.len()),
        None => println!("skipped: decoding, no ffmpeg here"),
    }

    let report = &taken.report;
    assert!(report.status.encoders.iter().any(|trial| trial.chosen && trial.works), "{:?}", report.status);
    assert_eq!((report.health.dropped_units, report.health.unusable_units), (0, 0));
    for guard in &report.status.sandbox {
        println!("  {}: {}", guard.name, if guard.on { "on" } else { &guard.note });
    }
    println!(
        "  first unit after {:?}, {:?}, encoder {}",
        report.first_unit_after.unwrap(),
        report.usage,
        report.status.encoders.iter().find(|trial| trial.chosen).unwrap().name
    );
}

fn encoders_are_proven_by_encoding_and_every_refusal_says_why() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let probed = runtime.block_on(async {
        let spawner = Spawner::start().unwrap();
        let (program, cancel) = (Program::this_binary(), CancellationToken::new());
        let wish = EncoderWish::default();
        probe_encoders(&spawner, program, wish, Vec::new(), Deadlines::default(), cancel).await
    });
    assert!(probed.error.is_none(), "{:?}", probed.error);
    for trial in &probed.trials {
        println!("  {}: {}", trial.name, trial.reason);
        assert!(!trial.reason.is_empty());
    }
    let chosen = probed.trials.iter().find(|trial| trial.chosen).unwrap();
    assert!(chosen.reason.starts_with("encoded "), "{chosen:?}");
    assert_eq!(probed.wish.unwrap().name, chosen.name);
}

/// The sandbox forbids memory that is writable and executable; Orc's own code generator is what would ask for it.
fn code_made_at_run_time_is_refused() {
    let mut spec = spec(Work::Test(TestCamera::default()), Sandbox::default());
    spec.program.env.retain(|(name, _)| name != "ORC_CODE");
    let (taken, outcome) = run(spec, |taken| taken.of(TrackId::VIDEO).count() > 10);
    let guarded = taken.report.status.sandbox.iter().any(|guard| guard.name == "system calls" && guard.on);
    match outcome {
        Err(error) => println!("  {error}"),
        Ok(()) if guarded => panic!("Orc made code inside the sandbox"),
        Ok(()) => println!("skipped: no system call filter here"),
    }
}

fn settings_that_cannot_work_are_named_and_never_retried() {
    let odd = TestCamera { width: 641, ..TestCamera::default() };
    let (_, outcome) = run(spec(Work::Test(odd), Sandbox::default()), |_| false);
    let error = outcome.unwrap_err();
    assert_eq!(error.retry(), fieldgate_hub::Retry::Never);
    assert!(error.to_string().contains("width is 641"), "{error}");

    let wish = EncoderWish { allow_software: false, ..EncoderWish::default() };
    let no_software = TestCamera { video: encoded(wish), ..TestCamera::default() };
    let mut spec = spec(Work::Test(no_software), Sandbox::default());
    spec.deadlines.first_unit = Some(Duration::from_secs(30));
    if let (_, Err(error)) = run(spec, |taken| !taken.units.is_empty()) {
        assert!(error.to_string().contains("software encoding is not allowed"), "{error}");
    } else {
        println!("skipped: this machine has a hardware encoder");
    }
}

fn a_missing_libcamera_or_its_camera_is_named() {
    for camera in ["", "imx708"] {
        let video = encoded(EncoderWish::default());
        let settings = serde_json::json!({
            "camera": camera, "width": 640, "height": 480, "frame_rate": 15, "video": video, "audio": "off",
        });
        let work = Work::Csi(serde_json::from_value(settings).unwrap());
        let (_, outcome) = run(spec(work, Sandbox::default()), |_| false);
        let error = outcome.unwrap_err();
        println!("  {error}");
        if fieldgate_gst::without_libcamera().is_some() {
            assert!(error.to_string().contains("gstreamer1.0-libcamera"), "{error}");
            assert_eq!(error.retry(), fieldgate_hub::Retry::Never);
        } else {
            assert!(error.to_string().contains("Could not find a"), "{error}");
            assert_eq!(error.retry(), fieldgate_hub::Retry::Backoff, "it may be plugged in");
        }
    }
}

fn a_missing_capture_device_is_named() {
    let device = "/dev/video250";
    let video = encoded(EncoderWish::default());
    let settings = serde_json::json!({ "device": device, "video": video, "audio": "off" });
    let settings = serde_json::from_value(settings).unwrap();
    let sandbox = Sandbox { devices: vec![device.into()], ..Sandbox::default() };
    let (_, outcome) = run(spec(Work::V4l2(settings), sandbox), |_| false);
    let error = outcome.unwrap_err();
    assert!(error.to_string().contains(device), "{error}");
    assert_eq!(error.retry(), fieldgate_hub::Retry::Backoff);
    println!("  {error}");
}

fn a_keyframe_comes_when_asked_for() {
    // By itself there would be none for a minute.
    let encoder = EncoderWish { gop_ms: 60_000, name: "openh264enc".into(), ..EncoderWish::default() };
    let camera = TestCamera { width: 320, height: 240, video: encoded(encoder), ..TestCamera::default() };
    let (commands, inbox) = std::sync::mpsc::sync_channel(1);
    let asked = std::cell::Cell::new(false);
    let enough = move |taken: &Taken| {
        if taken.of(TrackId::VIDEO).count() > 20 && !asked.replace(true) {
            let commands: tokio::sync::mpsc::Sender<WorkerCommand> = inbox.recv().unwrap();
            commands.try_send(WorkerCommand::Bitrate(300_000)).unwrap();
            commands.try_send(WorkerCommand::Keyframe).unwrap();
        }
        taken.of(TrackId::VIDEO).filter(|(head, _)| head.keyframe).count() >= 2
    };
    let work = spec(Work::Test(camera), Sandbox::default());
    let (taken, outcome) = run_with(work, enough, |sender| commands.send(sender).unwrap());
    outcome.unwrap();
    let pictures: Vec<_> = taken.of(TrackId::VIDEO).collect();
    // More may come before the worker has stopped.
    assert!(pictures.iter().skip(20).any(|(head, _)| head.keyframe));
    assert_steady(&pictures);
}

/// Ten seconds of the test camera; with one processor's time in milliseconds per second of stream.
fn measure_the_test_camera() {
    let encoder = EncoderWish { name: "openh264enc".into(), ..EncoderWish::default() };
    let camera = TestCamera { video: encoded(encoder), ..TestCamera::default() };
    let (taken, outcome) =
        run(spec(Work::Test(camera), Sandbox::default()), |taken| taken.of(TrackId::VIDEO).count() >= 400);
    outcome.unwrap();
    let report = &taken.report;
    let seconds = report.uptime.as_secs_f64();
    println!(
        "  first unit after {:?}; rss {} MB, pss {} MB, {} threads; {:.0} ms/s, {} units",
        report.first_unit_after.unwrap(),
        report.usage.rss_bytes >> 20,
        report.usage.pss_bytes >> 20,
        report.usage.threads,
        report.usage.cpu.as_secs_f64() * 1000.0 / seconds,
        report.units,
    );
}

/// A small camera with a microphone, as the gateway starts it.
fn beside(microphone: &str) -> fieldgate_worker::WorkerSpec {
    let (width, height) = (320, 180);
    let video = encoded(EncoderWish::default());
    let camera = TestCamera { width, height, microphone: microphone.into(), video, ..TestCamera::default() };
    let read = ["/usr/share/alsa", "/etc/alsa", "/etc/asound.conf"].map(Into::into).to_vec();
    spec(Work::Test(camera), Sandbox { devices: vec!["/dev/snd".into()], read, ..Sandbox::default() })
}

fn a_microphone_that_is_missing_is_named() {
    let seen = |taken: &Taken| taken.of(TrackId::VIDEO).count() >= 30;
    let (taken, ended) = run(beside("hw:31"), seen);
    assert!(seen(&taken), "pictures go on: {ended:?} {:?}", taken.report);
    assert_eq!(taken.of(TrackId::AUDIO).count(), 0);
    let cause = taken.report.status.microphone.unwrap();
    assert!(cause.starts_with("microphone hw:31: cannot be opened: "), "{cause}");
    println!("  {cause}");
}
