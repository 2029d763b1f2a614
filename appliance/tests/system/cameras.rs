//! Cameras in their worker processes.

use crate::common::fixture::Fixture;
use crate::common::flv::{AUDIO, Tag, VIDEO};
use crate::common::gateway::Gateway;
use crate::common::healthy::Player;
use crate::common::nginx::Nginx;
use crate::common::rtmp::Client;
use crate::common::rtsp::{RtspServer, nal_units};
use crate::common::scratch::Scratch;
use crate::common::take::Take;
use crate::common::tools::Recorder;
use crate::common::wait::{self, secs};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Most that a camera's clockwork may stand still on a machine that is busy with other tests: the camera is live, so
/// what it cannot encode in time it leaves out itself.
const BUSY_MS: i64 = 1_500;

/// A camera that costs little.
fn small_camera() -> Value {
    json!({ "source": { "kind": "test", "width": 160, "height": 96, "frame_rate": 15, "bitrate": 100_000 } })
}

/// Panics unless keyframes come as often as set, and pictures and sound go on in order without a pause.
fn assert_steady(take: &Take, who: &str) {
    let video = &take.video.frames;
    assert!(video[0].keyframe, "{who}: starts with a keyframe");
    let keyframes: Vec<_> = video.iter().filter(|frame| frame.keyframe).map(|frame| frame.dts).collect();
    let apart = |times: &[i64]| times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
    assert!(
        keyframes.len() >= 2 && apart(&keyframes) <= 2_100 + BUSY_MS,
        "{who}: keyframes at {keyframes:?}"
    );
    let times: Vec<_> = video.iter().map(|frame| frame.dts).collect();
    assert!(times.is_sorted(), "{who}: pictures in order");
    assert!(apart(&times) <= BUSY_MS, "{who}: a gap of {} ms between pictures", apart(&times));
    if !take.audio.headers.is_empty() {
        let times: Vec<_> = take.audio.frames.iter().map(|frame| frame.dts).collect();
        assert!(times.len() > 20 && times.is_sorted(), "{who}: {} sounds in order", times.len());
        assert!(apart(&times) <= BUSY_MS, "{who}: a gap of {} ms between sounds", apart(&times));
    }
}

#[test]
fn test_camera_plays_with_keyframes_and_sound() {
    let nginx = Nginx::start();
    let gateway = Gateway::with_mountpoints(json!({
        "demo": { "source": { "kind": "test" }, "push": [{ "url": nginx.url("demo") }] },
    }));
    let scratch = Scratch::new();
    let player = Player::start(gateway.rtmp, "demo");
    let mut ffmpeg = Recorder::ffmpeg(&gateway.url("demo"), scratch.join("demo.flv"));
    nginx.wait_for_publisher("demo");
    player.wait_for_more(450);
    ffmpeg.wait_for_media();
    let status = gateway.status();
    let source = &status["mountpoints"]["demo"]["source"];
    assert_eq!(source["kind"], "test");
    assert!(source["encoder"]["name"].as_str().is_some_and(|name| !name.is_empty()), "{source:#}");
    assert!(source["encoder"]["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{source:#}");
    drop(gateway);
    let take = player.finish();
    assert!(!take.audio.headers.is_empty(), "there is sound");
    assert_steady(&take, "own player");
    assert_steady(&ffmpeg.finish(), "ffmpeg");
    let mut pushed = nginx.recorded("demo");
    // A push that was there before the camera gets its first picture first, and then sound that is a little older;
    // nginx writes 0 for times before the first that it got.
    pushed.audio.frames.retain(|frame| frame.dts > 0);
    take.assert_overlaps(&pushed, "the push");
}

/// What a camera sends by RTSP is what a player gets by RTMP.
fn rtsp_camera_passes_unchanged(transport: &str) {
    let fixture = Fixture::h264_aac(6);
    let server = RtspServer::start(&fixture);
    let gateway = Gateway::with_mountpoints(json!({
        "gate": { "source": { "kind": "rtsp", "url": server.url(), "transport": transport } },
    }));
    let player = Player::start(gateway.rtmp, "gate");
    player.wait_for_more(400);
    drop(gateway);
    let (sent, got) = (fixture.take(), player.finish());

    // The player has come within the first group of pictures, so it has them all; the recording's end may be missing,
    // or its beginning come once more, as the camera is asked anew.
    let pictures: Vec<_> = got.video.frames.iter().map(nal_units).collect();
    let count = pictures.len().min(sent.video.frames.len());
    assert!(count >= 120, "only {count} pictures");
    for (index, frame) in sent.video.frames.iter().take(count).enumerate() {
        assert_eq!(nal_units(frame), pictures[index], "picture {index}");
    }
    let from = sent.audio.frames.iter().position(|frame| frame.payload == got.audio.frames[0].payload);
    let from = from.expect("the first sound is one that was sent");
    assert!(from < 100, "sound from the beginning");
    let sounds = got.audio.frames.len().min(sent.audio.frames.len() - from);
    for (index, frame) in sent.audio.frames[from..].iter().take(sounds).enumerate() {
        assert!(frame.payload == got.audio.frames[index].payload, "sound {index}");
    }
    let shown = |take: &Take, at: usize| take.video.frames[at].dts + take.video.frames[at].offset;
    let before = shown(&sent, 60) - sent.audio.frames[from + 60].dts;
    let after = shown(&got, 60) - got.audio.frames[60].dts;
    // Over UDP the packets' arrival corrects their times, which a machine busy with other tests delays.
    let slack = if transport == "udp" { 400 } else { 40 };
    assert!((before - after).abs() <= slack, "sound moved {} ms against the picture", after - before);
    let times: Vec<_> = got.video.frames.iter().map(|frame| frame.dts).collect();
    assert!(
        times[0] < 10_000 && times.is_sorted(),
        "decode times start near zero and go on: {:?}",
        &times[..10]
    );
    // Until the camera's first sender reports have come, sound and picture may move once against each other.
    for at in (31..count).filter(|_| transport == "tcp") {
        let step = shown(&got, at) - shown(&got, at - 1);
        let wanted = shown(&sent, at) - shown(&sent, at - 1);
        assert!(
            (step - wanted).abs() <= 2,
            "picture {at} stands {step} ms after the one before, not {wanted}"
        );
    }
}

#[test]
fn rtsp_camera_over_tcp_passes_unchanged() {
    rtsp_camera_passes_unchanged("tcp");
}

#[test]
fn rtsp_camera_over_udp_passes_unchanged() {
    rtsp_camera_passes_unchanged("udp");
}

#[test]
fn killed_camera_comes_back_and_another_loses_nothing() {
    let gateway = Gateway::with_mountpoints(json!({
        "one": small_camera(),
        "two": small_camera(),
    }));
    let [one, two] = ["one", "two"].map(|name| Player::start(gateway.rtmp, name));
    one.wait_for_more(100);
    two.wait_for_more(100);
    let killed = worker_of(&gateway, "one").expect("camera one has a worker");
    let other = worker_of(&gateway, "two").expect("camera two has a worker");
    kill_process(Pid::from_raw(killed).unwrap(), Signal::KILL).unwrap();
    wait::until_true("another worker for camera one", secs(20), || {
        worker_of(&gateway, "one").is_some_and(|pid| pid != killed)
    });
    let got = one.got();
    wait::until_true("camera one's pictures to go on", secs(20), || one.got() > got + 100);
    assert!(!one.is_closed(), "its player has kept its connection");
    assert_untouched(&gateway, "two", other);
    drop(gateway);
    let tags = one.tags();
    for kind in [AUDIO, VIDEO] {
        let times: Vec<_> = tags.iter().filter(|tag: &&Tag| tag.kind == kind).map(|tag| tag.ts).collect();
        let back = times.windows(2).position(|pair| pair[1] < pair[0]);
        let around = back.map(|at| &times[at.saturating_sub(3)..(at + 5).min(times.len())]);
        assert!(back.is_none(), "camera one's timeline goes back on tags of kind {kind}: {around:?}");
    }
    assert_steady(&two.finish(), "camera two");
}

/// The process of the worker that feeds a mountpoint.
fn worker_of(gateway: &Gateway, name: &str) -> Option<i32> {
    let status = gateway.status();
    let workers = status["workers"].as_object()?;
    let (_, worker) = workers.iter().find(|(key, _)| key.contains(name))?;
    worker["pid"].as_i64().filter(|pid| *pid > 0).map(|pid| pid as i32)
}

/// Its worker is the one it was, and none of its units were dropped.
fn assert_untouched(gateway: &Gateway, name: &str, worker: i32) {
    assert_eq!(worker_of(gateway, name), Some(worker), "camera {name} still has its worker");
    let status = gateway.status();
    let counters = &status["mountpoints"][name]["counters"];
    assert_eq!(
        (&counters["dropped_units"], &counters["malformed_units"]),
        (&json!(0), &json!(0)),
        "{counters}"
    );
}

#[test]
fn hung_camera_is_started_anew_and_another_loses_nothing() {
    let gateway = Gateway::with_mountpoints(json!({
        "one": small_camera(),
        "two": small_camera(),
    }));
    let [one, two] = ["one", "two"].map(|name| Player::start(gateway.rtmp, name));
    one.wait_for_more(60);
    two.wait_for_more(60);
    let hung = worker_of(&gateway, "one").expect("camera one has a worker");
    let other = worker_of(&gateway, "two").expect("camera two has a worker");
    kill_process(Pid::from_raw(hung).unwrap(), Signal::STOP).unwrap();
    wait::until_true("another worker for camera one", secs(60), || {
        worker_of(&gateway, "one").is_some_and(|pid| pid != hung)
    });
    let got = one.got();
    wait::until_true("camera one's pictures to go on", secs(20), || one.got() > got + 60);
    assert_untouched(&gateway, "two", other);
    drop(gateway);
    drop(one);
    assert_steady(&two.finish(), "camera two");
}

#[test]
fn workers_end_with_the_gateway() {
    let mut gateway = Gateway::with_mountpoints(json!({ "one": small_camera() }));
    let player = Player::start(gateway.rtmp, "one");
    player.wait_for_more(30);
    let worker = worker_of(&gateway, "one").expect("the camera has a worker");
    let lives = || std::path::Path::new(&format!("/proc/{worker}/exe")).exists();
    assert!(lives());
    gateway.process().kill();
    wait::until_true("the worker to end", secs(10), || !lives());
}

#[test]
fn camera_that_is_added_and_removed_leaves_the_others_alone() {
    let gateway = Gateway::with_mountpoints(json!({
        "one": small_camera(),
    }));
    let player = Player::start(gateway.rtmp, "one");
    player.wait_for_more(60);
    let (mut config, tag) = gateway.config();
    config["mountpoints"]["two"] = small_camera();
    let answer = gateway.put_config(&config, Some(&tag));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let second = Player::start(gateway.rtmp, "two");
    second.wait_for_more(60);
    let (mut config, tag) = gateway.config();
    config["mountpoints"].as_object_mut().unwrap().remove("two");
    let answer = gateway.put_config(&config, Some(&tag));
    assert_eq!(answer.status, 200, "{}", answer.text());
    wait::until_true("the player of the removed camera to be closed", secs(20), || second.is_closed());
    assert!(Client::playing(gateway.rtmp, "two").is_err(), "it is gone");
    player.wait_for_more(60);
    drop(gateway);
    assert_steady(&player.finish(), "camera one");
}
