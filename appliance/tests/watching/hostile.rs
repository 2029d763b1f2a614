//! Viewers who mean harm, and those who are merely broken.

use crate::common::fixture::Fixture;
use crate::common::healthy::{End, Healthy, Publisher};
use crate::common::http;
use crate::rules;
use crate::viewer::{Viewer, gateway, listens};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

#[test]
fn wrong_requests_are_answered_in_plain_words() {
    let gateway = gateway(json!({}));
    let healthy = Healthy::start(gateway.rtmp, "yard");
    let address = listens(&gateway, "http");
    let viewer = Viewer::open(&gateway);
    let list = rules::read(&viewer.text("video.m3u8"));
    let next = list.first + list.segments.len() as u64;
    for (path, status) in [
        ("/".to_owned(), 404),
        ("/hls/../../etc/passwd".to_owned(), 404),
        ("/hls/yard/%2e%2e/%2e%2e/etc/passwd".to_owned(), 404),
        (viewer.path("../../../etc/passwd"), 404),
        (viewer.path("v1.m4s"), 404),
        (viewer.path("v-init-99.mp4"), 404),
        (viewer.path("v18446744073709551615.m4s"), 404),
        (viewer.path("vt9223372036854775807.m4s"), 404),
        (viewer.path("vt99999999999999999999.m4s"), 404),
        (viewer.path("18446744073709551615.ts"), 404),
        (viewer.path("master.m3u8"), 404),
        (viewer.path("mpegts.m3u8"), 404),
        ("/hls/yard/video.m3u8".to_owned(), 404),
        (viewer.path("video.m3u8?_HLS_msn=x"), 400),
        (viewer.path("video.m3u8?_HLS_part=1"), 400),
        (viewer.path(&format!("video.m3u8?_HLS_msn={}", next + 50)), 400),
        (viewer.path("video.m3u8?_HLS_msn=18446744073709551615&_HLS_part=18446744073709551615"), 400),
        (viewer.path(&format!("video.m3u8?_HLS_msn={next}&_HLS_part=9999")), 400),
        (format!("/hls/yard/master.m3u8?key={}", "k".repeat(4_000)), 400),
    ] {
        let answer = http::get(address, &path);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.text().len() > 10 && answer.header("content-type").unwrap().starts_with("text/plain"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
    assert_eq!(http::request(address, "DELETE", &viewer.path("video.m3u8"), &[], b"").status, 405);
    assert_eq!(http::request(address, "OPTIONS", &viewer.path("video.m3u8"), &[], b"").status, 204);
    healthy.assert_unharmed();
}

#[test]
fn files_come_in_ranges_with_tags_and_playlists_compressed() {
    let gateway = gateway(json!({}));
    let publisher = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(6), 0, End::Polite);
    publisher.wait_for_more(400);
    let viewer = Viewer::open(&gateway);
    let list = rules::read(&viewer.text("video.m3u8"));
    let uri = &list.segments[0].uri;
    let whole = viewer.get(uri);
    assert_eq!((whole.status, whole.header("accept-ranges")), (200, Some("bytes")));
    let len = whole.body.len();
    for (range, status, from, to) in [
        ("bytes=0-99", 206, 0, 100),
        ("bytes=-10", 206, len - 10, len),
        ("bytes=1000-", 206, 1000, len),
        ("bytes=5-99999999999999999999999999", 206, 5, len),
        ("bytes=99999999999-", 416, 0, 0),
        ("bytes=0-1,2-3", 200, 0, len),
        ("nonsense", 200, 0, len),
    ] {
        let answer = viewer.get_with(uri, &[("Range", range)]);
        assert_eq!(answer.status, status, "{range}");
        assert!(answer.body == whole.body[from..to], "{range}");
    }
    let tag = whole.header("etag").unwrap();
    let known = viewer.get_with(uri, &[("If-None-Match", tag)]);
    assert_eq!((known.status, known.body.len()), (304, 0));
    let other = viewer.get_with(uri, &[("Range", "bytes=0-9"), ("If-Range", "\"other\"")]);
    assert_eq!((other.status, other.body.len()), (200, len));
    let head = http::request(listens(&gateway, "http"), "HEAD", &viewer.path(uri), &[], b"");
    assert_eq!(head.header("content-length"), Some(len.to_string().as_str()));
    assert!(head.body.is_empty());
    let packed = viewer.get_with("video.m3u8", &[("Accept-Encoding", "br, gzip;q=0.5")]);
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert_eq!(packed.body[..2], [0x1f, 0x8b]);
    assert_eq!(
        viewer.get_with("video.m3u8", &[("Accept-Encoding", "gzip;q=0")]).header("content-encoding"),
        None
    );
}

#[test]
fn slow_and_endless_heads_are_ended_and_cost_little() {
    let gateway = crate::common::gateway::Gateway::start(json!({
        "http": { "listen": ["127.0.0.1:0"], "head_timeout": "1s", "max_connections_per_address": 20 },
        "mountpoints": { "yard": { "source": { "kind": "publish" }, "hls": {} } },
    }));
    let address = listens(&gateway, "http");
    let healthy = Healthy::start(gateway.rtmp, "yard");
    let before = gateway.held_bytes();
    let mut half: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"GET /hls/yard/master.m3u8 HTTP/1.1\r\nX: ").unwrap();
            stream
        })
        .collect();
    let mut refused = TcpStream::connect(address).unwrap();
    assert_eq!(refused.read(&mut [0; 1]).unwrap_or(0), 0, "one too many from this address");
    for stream in &mut half {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut said = Vec::new();
        let ended = stream.read_to_end(&mut said);
        assert!(
            ended.is_ok() || said.is_empty(),
            "ended by the gateway, not by this test's patience: {ended:?}"
        );
    }
    let mut endless = TcpStream::connect(address).unwrap();
    endless.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let line = format!("X-Y: {}\r\n", "z".repeat(1_000));
    let sent = (0..10_000).take_while(|_| endless.write_all(line.as_bytes()).is_ok()).count();
    assert!(sent < 10_000, "ten megabytes of headers are not taken");
    assert!(gateway.held_bytes() < before + (8 << 20));
    drop(half);
    healthy.assert_unharmed();
}
