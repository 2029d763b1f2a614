//! Recordings: what was published is what is played, also after the program was killed.

use crate::common::decoded::Pictures;
use crate::common::fixture::Fixture;
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Player, Publisher};
use crate::common::http::{self, Response};
use crate::common::scratch::Scratch;
use crate::common::take::Take;
use crate::common::tools::{Recorder, ffmpeg_publish};
use crate::common::wait::{self, secs};
use crate::viewer::listens;
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::sync::Arc;

fn config() -> Value {
    json!({
        "http": {"listen": ["127.0.0.1:0"]},
        "mountpoints": {"yard": {"source": {"kind": "publish"}, "grace": "0s", "record": {"segment": "1s"}}},
    })
}

fn recording(gateway: &Gateway) -> Value {
    gateway.status()["mountpoints"]["yard"]["recording"].clone()
}

fn segments(gateway: &Gateway) -> u64 {
    recording(gateway)["segments"].as_u64().unwrap()
}

fn get(gateway: &Gateway, path: &str) -> Response {
    http::get(listens(gateway, "http"), path)
}

/// The playlist of pictures, and the folder of its files.
fn playlist(gateway: &Gateway, query: &str) -> (String, String) {
    let master = get(gateway, &format!("/rec/yard/master.m3u8{query}"));
    assert_eq!(master.status, 200, "{}", master.text());
    let master = master.text();
    let media = master.lines().last().unwrap();
    let folder = format!("/rec/yard/{}/", media.split_once('/').unwrap().0);
    (get(gateway, &format!("/rec/yard/{media}")).text(), folder)
}

/// All of a recording, as ffmpeg plays it.
fn played(gateway: &Gateway) -> Take {
    let scratch = Scratch::new();
    let url = format!("http://{}/rec/yard/master.m3u8", listens(gateway, "http"));
    let mut player = Recorder::ffmpeg(&url, scratch.join("got.flv"));
    assert!(player.process().end_within(secs(60)).success());
    player.finish()
}

#[test]
fn ffmpeg_plays_all_that_was_recorded() {
    let gateway = Gateway::start(config());
    wait::until_true("the recorder", secs(20), || recording(&gateway)["state"] == "running");
    assert_eq!(get(&gateway, "/rec/yard/master.m3u8").status, 404, "nothing yet");
    assert_eq!(get(&gateway, "/rec/gate/master.m3u8").status, 404);
    let fixture = Fixture::h264_aac(6);
    let mut publisher = ffmpeg_publish(&fixture, &gateway.url("yard"));
    wait::until_true("segments", secs(30), || segments(&gateway) >= 4);
    // While it is being recorded the list is open at its end.
    let (list, _) = playlist(&gateway, "");
    assert!(list.contains("PLAYLIST-TYPE:EVENT") && !list.contains("ENDLIST"), "{list}");
    assert!(publisher.end_within(secs(30)).success());
    wait::until_true("the end", secs(20), || {
        gateway.status()["mountpoints"]["yard"]["stream"].is_null()
            && playlist(&gateway, "").0.contains("ENDLIST")
    });
    let mut before = 0;
    wait::until_true("the last segment", secs(20), || {
        std::thread::sleep(std::time::Duration::from_millis(500));
        std::mem::replace(&mut before, segments(&gateway)) == before
    });
    let (sent, got) = (fixture.take(), played(&gateway));
    sent.assert_pieces(&got, "the recording");
    sent.assert_offset_kept(&got, "the recording");
    assert_eq!(got.video.frames.len(), sent.video.frames.len(), "every picture");
    // Sound from before the first picture is not cut.
    assert!(got.audio.frames.len() + 4 >= sent.audio.frames.len(), "{} sounds", got.audio.frames.len());

    // Files by range, times, and what was never given out.
    let (list, folder) = playlist(&gateway, "");
    let file = list.lines().find(|line| line.ends_with(".m4s")).unwrap();
    let whole = get(&gateway, &format!("{folder}{file}")).body;
    let headers = [("Range", "bytes=10-19")];
    let part = http::request(listens(&gateway, "http"), "GET", &format!("{folder}{file}"), &headers, b"");
    assert_eq!((part.status, part.body.as_slice()), (206, &whole[10..20]));
    for wrong in ["masks", "x.m4s", ".tmp-x", "v1.m4s"] {
        assert_eq!(get(&gateway, &format!("{folder}{wrong}")).status, 404, "{wrong}");
    }
    // The same by the API, for who may see it.
    let answer = gateway.get("/api/v1/mountpoints/yard/recordings?files=true").json();
    assert_eq!(answer["spans"].as_array().unwrap().len(), 1, "{answer}");
    assert_eq!(answer["files"].as_array().unwrap().len() as u64, segments(&gateway));
    let path = format!("/api/v1/mountpoints/yard/recordings/{file}");
    assert_eq!(gateway.get(&path).body, whole);
    let part = gateway.request("GET", &path, &headers, b"");
    assert_eq!((part.status, part.body.as_slice()), (206, &whole[10..20]));
    assert_eq!(
        gateway.get("/api/v1/mountpoints/yard/recordings?from=2031-01-01T00:00:00Z").json()["spans"],
        json!([])
    );
    assert_eq!(gateway.get("/api/v1/mountpoints/yard/recordings/masks").status, 404);
    assert_eq!(gateway.get("/api/v1/mountpoints/gate/recordings").status, 404);
    assert_eq!(http::get(gateway.admin, &path).status, 403);
    previews(&gateway);
    assert_eq!(get(&gateway, "/rec/yard/master.m3u8?from=2031-01-01T00:00:00Z").status, 404);
    assert_eq!(get(&gateway, "/rec/yard/master.m3u8?from=yesterday").status, 400);
}

/// Pictures of what was recorded, at an interval, and each as large as asked for.
fn previews(gateway: &Gateway) {
    let index = |query: &str| gateway.get(&format!("/api/v1/mountpoints/yard/previews{query}"));
    let all = index("?every=1s").json();
    let listed = all["previews"].as_array().unwrap();
    // Segments last two seconds, as far as the keyframes are apart.
    assert!(listed.len() >= 2 && all["complete"] == true, "{all}");
    assert_eq!(
        index("?every=4s").json()["previews"].as_array().unwrap().len(),
        listed.len().div_ceil(2),
        "{all}"
    );
    assert_eq!(index("?from=2031-01-01T00:00:00Z").json()["previews"], json!([]));
    for wrong in ["?every=1ms", "?every=x", "?from=yesterday", "?x=1"] {
        assert_eq!(index(wrong).status, 400, "{wrong}");
    }
    let scratch = Scratch::new();
    let (path, file) = (listed[1]["picture"].as_str().unwrap(), scratch.join("preview.jpg"));
    let jpeg = wait::until("a preview", secs(60), || Some(gateway.get(path)).filter(|it| it.status == 200));
    assert_eq!(jpeg.header("content-type"), Some("image/jpeg"));
    std::fs::write(&file, &jpeg.body).unwrap();
    let pictures = Pictures::of(&file);
    assert_eq!((pictures.width, pictures.height, pictures.count()), (320, 180, 1));
    let bright = pictures.mean(0, (0.0, 0.0), (1.0, 1.0));
    assert!((60.0..200.0).contains(&bright), "the test picture: {bright}");
    let known = gateway.request("GET", path, &[("If-None-Match", jpeg.header("etag").unwrap())], b"");
    assert_eq!(known.status, 304);
    let small = gateway.get(&format!("{path}?width=160"));
    assert!(small.status == 200 && small.body.len() < jpeg.body.len(), "{}", small.status);
    assert_eq!(gateway.get(&format!("{path}?width=9")).status, 400);
    for missing in ["yard/previews/7.jpg", "yard/previews/x.jpg", "gate/previews", "gate/previews/7.jpg"] {
        assert_eq!(gateway.get(&format!("/api/v1/mountpoints/{missing}")).status, 404, "{missing}");
    }
    assert_eq!(http::get(gateway.admin, path).status, 403, "not for strangers");
}

#[test]
fn a_killed_gateway_loses_the_last_segment_at_most() {
    let scratch = Arc::new(Scratch::new());
    let mut gateway = Gateway::start_in(scratch.clone(), config(), |_| {});
    let fixture = Fixture::h264_aac(40);
    let publisher = Publisher::start(gateway.rtmp, "yard", &fixture, 0, End::Abrupt);
    wait::until_true("segments", secs(40), || segments(&gateway) >= 8);
    let known = segments(&gateway);
    gateway.process().kill();
    let sent = publisher.sent().len();
    drop((publisher, gateway));
    // What a cut in the middle of a file leaves.
    let folder = scratch.join("state/recordings/yard");
    std::fs::write(folder.join(".tmp-000000000009v-1-1-0000000000000000-c.m4s"), b"half").unwrap();
    let gateway = Gateway::start_in(scratch, config(), |_| {});
    wait::until_true("the recorder", secs(20), || recording(&gateway)["state"] == "running");
    assert!(segments(&gateway) >= known, "what was told is there still");
    assert!(recording(&gateway)["mended_files"].as_u64().unwrap() >= 1);
    let got = played(&gateway);
    let take = fixture.take();
    take.assert_pieces(&got, "what was recorded before the kill");
    assert!(got.video.frames.len() >= 60 && sent > got.video.frames.len(), "{}", got.video.frames.len());
    // And on it goes, behind a discontinuity.
    let publisher = Publisher::start(gateway.rtmp, "yard", &fixture, 0, End::Polite);
    let before = segments(&gateway);
    wait::until_true("more segments", secs(40), || segments(&gateway) >= before + 4);
    drop(publisher);
    assert_eq!(playlist(&gateway, "").0.matches("#EXT-X-DISCONTINUITY\n").count(), 1);
}

/// A disk that is full after some seconds: recording goes on with less, the stream with everything.
#[test]
fn a_full_disk_costs_old_segments_and_never_the_stream() {
    let flags = if rustix::process::geteuid().is_root() { "-m" } else { "-Urm" };
    let may = Command::new("unshare").args([flags, "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        println!("skipped: no mounts of our own here");
        return;
    }
    let scratch = Arc::new(Scratch::new());
    let recordings = scratch.join("state/recordings");
    std::fs::create_dir_all(&recordings).unwrap();
    let script = "mount -t tmpfs -o size=512k none \"$1\"; shift; exec \"$@\"";
    let gateway = Gateway::start_in(scratch.clone(), config(), |command| {
        let mut inner = Command::new("unshare");
        inner.args([flags, "sh", "-euc", script, "sh"]).arg(&recordings);
        inner.arg(command.get_program()).args(command.get_args());
        inner.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC");
        inner.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        *command = inner;
    });
    let fixture = Fixture::h264_aac(6);
    let publisher = Publisher::start(gateway.rtmp, "yard", &fixture, 0, End::Polite);
    let player = Player::start(gateway.rtmp, "yard");
    let newest = || recording(&gateway)["newest"].clone();
    // What was recorded first has to go for what comes; each time something can be played.
    wait::until_true("the disk to be full", secs(120), || {
        recording(&gateway)["written_bytes"].as_u64().unwrap_or(0) > 700 << 10
    });
    let before = newest();
    wait::until_true("the recording to go on", secs(60), || newest() != before);
    let status = recording(&gateway);
    assert!(status["bytes"].as_u64().unwrap() < 512 << 10, "{status}");
    assert_eq!(status["state"], "running", "{status}");
    let (list, folder) = playlist(&gateway, "");
    let file = list.lines().rfind(|line| line.ends_with(".m4s")).unwrap();
    assert_eq!(get(&gateway, &format!("{folder}{file}")).status, 200, "{list}");
    publisher.finish().assert_pieces(&player.finish(), "who plays meanwhile");
}
