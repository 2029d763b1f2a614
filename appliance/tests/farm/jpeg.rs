//! Cameras with JPEG pictures by HTTP: real servers, and all that can be wrong with them.

use crate::common::address::own_address;
use crate::common::gateway::Gateway;
use crate::common::healthy::Player;
use crate::common::process::Process;
use crate::common::wait::{self, secs};
use crate::jpeg_camera::{Asked, JpegCamera, USUAL, demand, head, part, pictures, stream};
use crate::scene::{SOON, assert_clean_clock, span_ms, wait_for_more};
use serde_json::{Value, json};
use std::io::{Error, ErrorKind, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The longest step between two pictures on a machine that is busy with other tests.
const BUSY_MS: i64 = 2_000;

fn gateway(url: &str, settings: Value) -> Gateway {
    let mut source = json!({ "kind": "mjpeg", "url": url, "bitrate": 300_000 });
    source.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    Gateway::with_mountpoints(json!({ "yard": { "source": source, "grace": "60s" } }))
}

fn cause(gateway: &Gateway) -> String {
    let status = gateway.status();
    status["mountpoints"]["yard"]["source"]["activity"]["cause"].as_str().unwrap_or_default().to_owned()
}

fn wait_for_cause(gateway: &Gateway, text: &str) {
    wait::until_true(&format!("the status to say {text:?}"), SOON, || cause(gateway).contains(text));
}

/// Waits until pictures of this width come out.
fn wait_for_width(gateway: &Gateway, width: u32) {
    wait::until_true(&format!("pictures {width} wide"), SOON, || {
        gateway.status()["mountpoints"]["yard"]["stream"]["tracks"][0]["width"] == width
    });
}

#[test]
fn motion_jpeg_of_ffmpeg_becomes_h264_with_even_times() {
    let port = own_address().port();
    let url = format!("http://127.0.0.1:{port}/feed");
    let args = format!(
        "-nostdin -v error -re -f lavfi -i testsrc2=size=320x180:rate=25 -c:v mjpeg -q:v 6 -f mpjpeg \
         -content_type multipart/x-mixed-replace;boundary=ffmpeg -listen 1 {url}"
    );
    let mut ffmpeg = Process::start("ffmpeg", &args.split_whitespace().collect::<Vec<_>>());
    let gateway = gateway(&url, json!({}));
    let player = Player::start(gateway.rtmp, "yard");
    wait_for_more(&player, 150, SOON);
    ffmpeg.assert_running();
    let status = gateway.status()["mountpoints"]["yard"].clone();
    assert_eq!(
        (&status["source"]["kind"], &status["source"]["described"]),
        (&json!("mjpeg"), &json!("Jpeg to H264"))
    );
    let track = &status["stream"]["tracks"][0];
    assert_eq!(
        (&track["codec"], &track["width"], &track["height"]),
        (&json!("h264"), &json!(320), &json!(180))
    );
    let shot = gateway.get("/api/v1/mountpoints/yard/snapshot.jpg");
    assert_eq!(shot.status, 200, "{}", shot.text());
    drop(gateway);
    let take = player.finish();
    assert_clean_clock(&take, BUSY_MS);
    let pictures = take.video.frames.len() as i64;
    let per_second = pictures * 1000 / span_ms(&take).max(1);
    assert!((15..=30).contains(&per_second), "{pictures} pictures in {} ms", span_ms(&take));
}

#[test]
fn streams_that_are_written_oddly_are_read_all_the_same() {
    let [usual, odd] = ["160x120", "161x121"].map(pictures);
    let camera = JpegCamera::start(move |asked, to| match asked.nth {
        // Dashes in the header, no lengths, line feeds alone, garbage and parts that are no pictures in between.
        0 => {
            to.write_all(
                b"HTTP/1.0 200 OK\r\nContent-Type: Multipart/X-Mixed-Replace;boundary=\"--MY-b\"\r\n\r\n\n",
            )?;
            for picture in usual.iter().cycle().take(60) {
                to.write_all(b"--MY-b\nContent-Type: text/plain\n\nno picture\n garbage \xff\xd8\xff\n")?;
                part(to, picture, ("--MY-b\nX: y\n\n", "\n"))?;
            }
            Err(Error::from(ErrorKind::BrokenPipe))
        }
        // And the next time its pictures have odd sides.
        _ => {
            head(to)?;
            stream(to, &odd, USUAL)
        }
    });
    let gateway = gateway(&camera.url(""), json!({}));
    let player = Player::start(gateway.rtmp, "yard");
    wait_for_width(&gateway, 160);
    wait_for_more(&player, 30, SOON);
    wait::until_true("pictures of odd size", SOON, || {
        let width = gateway.status()["mountpoints"]["yard"]["stream"]["tracks"][0]["width"].as_u64();
        width.is_some_and(|width| (160..=162).contains(&width)) && camera.requests() == 2
    });
    wait_for_more(&player, 40, SOON);
    drop(gateway);
    assert_clean_clock(&player.finish(), 20_000);
}

#[test]
fn pictures_that_change_their_size_go_on() {
    let [small, large] = ["160x120", "320x240"].map(pictures);
    let camera = JpegCamera::start(move |_, to| {
        head(to)?;
        for picture in small.iter().cycle().take(60) {
            part(to, picture, USUAL)?;
        }
        stream(to, &large, USUAL)
    });
    let gateway = gateway(&camera.url(""), json!({}));
    let player = Player::start(gateway.rtmp, "yard");
    wait_for_width(&gateway, 160);
    wait_for_width(&gateway, 320);
    wait_for_more(&player, 40, SOON);
    drop(gateway);
    let take = player.finish();
    assert!(take.video.headers.len() >= 2, "a new parameter set: {}", take.video.headers.len());
    assert_clean_clock(&take, 20_000);
}

#[test]
fn single_pictures_are_asked_for_at_the_interval() {
    let shown = pictures("160x120");
    let camera = JpegCamera::start(move |asked, to| {
        let picture = &shown[asked.nth as usize % shown.len()];
        let close = if asked.nth % 3 == 0 { "Connection: close\r\n" } else { "" };
        let len = picture.len();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n{close}Content-Length: {len}\r\n\r\n");
        to.write_all(&[head.as_bytes(), picture].concat())?;
        if close.is_empty() { Ok(()) } else { Err(Error::from(ErrorKind::BrokenPipe)) }
    });
    let gateway = gateway(&camera.url(""), json!({ "interval": "500ms" }));
    let player = Player::start(gateway.rtmp, "yard");
    wait_for_more(&player, 12, SOON);
    drop(gateway);
    let take = player.finish();
    assert_clean_clock(&take, 500 + BUSY_MS);
    let steps: Vec<i64> = take.video.frames.windows(2).map(|pair| pair[1].dts - pair[0].dts).collect();
    let usual = steps.iter().filter(|step| (400..=700).contains(*step)).count();
    assert!(usual * 2 > steps.len(), "half a second apart: {steps:?}");
}

/// The status says this of a camera that answers so.
fn assert_named(
    text: &str,
    settings: Value,
    answer: impl Fn(&Asked, &mut TcpStream) -> Result<()> + Send + Sync + 'static,
) {
    let camera = JpegCamera::start(answer);
    let gateway = gateway(&camera.url(""), settings);
    wait_for_cause(&gateway, text);
    assert_eq!(gateway.status()["workers"], json!({}), "{text}: nothing is decoded");
}

#[test]
fn what_is_no_camera_is_named_and_nothing_of_it_is_decoded() {
    let quick = || json!({ "stall_timeout": "1s" });
    assert_named("text/html", quick(), |_, to| {
        to.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi")
    });
    assert_named("404", quick(), |_, to| to.write_all(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"));
    assert_named("the camera's HTTP server", quick(), |_, to| {
        to.write_all(b"HTTP/1.1 200 OK\r\nX-Endless: ")?;
        loop {
            to.write_all(&[b'x'; 4096])?;
        }
    });
    assert_named("a part's head is longer than 4096 bytes", quick(), |_, to| {
        head(to)?;
        to.write_all(b"--b\r\nX-Endless: ")?;
        loop {
            to.write_all(&[b'x'; 4096])?;
        }
    });
    assert_named("no boundary within 65536 bytes", quick(), |_, to| {
        head(to)?;
        loop {
            to.write_all(&[b'x'; 4096])?;
        }
    });
    assert_named("60000x60000 is larger than", quick(), |_, to| {
        head(to)?;
        let frame = b"\xff\xd8\xff\xc0\x00\x0b\x08\xea\x60\xea\x60\x01\x01\x11\x00\xff\xda";
        part(to, frame, USUAL)
    });
    assert_named("a part is longer than 4194304 bytes", quick(), |_, to| {
        head(to)?;
        to.write_all(b"--b\r\nContent-Length: 99999999\r\n\r\n")
    });
    assert_named("no picture within 1s", quick(), |_, to| head(to));
}

#[test]
fn a_camera_that_falls_silent_is_asked_anew() {
    let shown = pictures("160x120");
    let camera = JpegCamera::start(move |asked, to| {
        head(to)?;
        if asked.nth == 0 {
            for picture in shown.iter().cycle().take(40) {
                part(to, picture, USUAL)?;
            }
            // The connection stays, nothing more comes.
            std::thread::sleep(Duration::from_secs(60));
            return Ok(());
        }
        stream(to, &shown, USUAL)
    });
    let gateway = gateway(&camera.url(""), json!({ "stall_timeout": "1s" }));
    let player = Player::start(gateway.rtmp, "yard");
    wait_for_more(&player, 20, SOON);
    wait::until_true("another request", SOON, || camera.requests() >= 2);
    wait_for_more(&player, 60, SOON);
    assert!(!player.is_closed(), "its player has kept its connection");
}

const DIGEST: &str = r#"Digest realm="cam", nonce="abc", qop="auth", algorithm=SHA-256"#;

#[test]
fn a_wrong_password_is_shown_once_and_a_right_one_is_taken() {
    let shown = pictures("160x120");
    let camera = JpegCamera::start(move |asked, to| {
        // A fake takes whoever says the right name; that the proof is right is tested where it is made.
        let knows = asked.head.contains("username=\"installer\"") && asked.head.contains("nonce=\"abc\"");
        if !knows {
            return demand(to, DIGEST);
        }
        head(to)?;
        stream(to, &shown, USUAL)
    });
    let gateway = gateway(&camera.url("guest:SECRET@"), json!({}));
    wait_for_cause(&gateway, "user name or password refused; next try at ");
    std::thread::sleep(secs(6));
    assert_eq!(camera.requests(), 2, "asked without it, then with it, then not again");
    assert!(!gateway.status().to_string().contains("SECRET"), "never shown");
    let (mut config, tag) = gateway.config();
    config["mountpoints"]["yard"]["source"]["url"] = json!(camera.url("installer:SECRET@"));
    let answer = gateway.put_config(&config, Some(&tag));
    assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
    let player = Player::start(gateway.rtmp, "yard");
    wait_for_more(&player, 40, SOON);
}

#[test]
fn a_password_goes_in_plain_text_only_where_it_may() {
    let shown = pictures("160x120");
    let camera = JpegCamera::start(move |asked, to| {
        // installer:secret
        if !asked.head.contains("authorization: basic aw5zdgfsbgvyonnly3jldA==".to_lowercase().as_str()) {
            return demand(to, r#"Basic realm="cam""#);
        }
        head(to)?;
        stream(to, &shown, USUAL)
    });
    let url = camera.url("installer:secret@");
    let careful = gateway(&url, json!({}));
    wait_for_cause(&careful, "use https, or set `allow_basic` for this camera");
    drop(careful);
    let gateway = gateway(&url, json!({ "allow_basic": true }));
    let player = Player::start(gateway.rtmp, "yard");
    wait_for_more(&player, 40, SOON);
}
