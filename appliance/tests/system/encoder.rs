//! The running program as an encoder of a coordinator elsewhere: the contract's check 25, and the files that come of it.
//! The rules of renditions, lists and ends are held by the core (`fieldgate-compat`, `encoder`); `docs/coordinator.md`
//! lists all.

use crate::common::fixture::Fixture;
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Publisher};
use crate::common::process::Process;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use crate::coordinator::peers::{Fake, SECRET, field};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;

/// What ffprobe says of a list and of its pictures.
fn probed(list: &Path) -> (u64, u64, u64) {
    let told = Process::run(
        "ffprobe",
        &[
            "-v",
            "error",
            "-count_packets",
            "-select_streams",
            "v:0",
            "-show_entries",
            "stream=width,height,nb_read_packets",
            "-of",
            "json",
            list.to_str().unwrap(),
        ],
        secs(60),
    );
    let told: Value = serde_json::from_str(&told).unwrap();
    let stream = &told["streams"][0];
    let packets = stream["nb_read_packets"].as_str().unwrap().parse().unwrap();
    (stream["width"].as_u64().unwrap(), stream["height"].as_u64().unwrap(), packets)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn check_25_a_good_source_becomes_files_and_a_dead_one_an_end() {
    let (fake, scratch) = (Fake::start(), Scratch::new());
    let mut gateway = Gateway::start(json!({
        "mountpoints": {"gate": {"source": {"kind": "publish"}, "grace": "0s"}},
        "compat": {"encoder": {
            "enabled": true, "url": format!("ws://{}/", fake.address), "secret": SECRET, "capacity": 2, "segment": "1s",
            "folder": scratch.path(),
        }},
    }));
    let mut coordinator = fake.peer(0);
    assert_eq!(fake.upgrades()[0].line, "/ws/control/hls");
    assert_eq!(coordinator.expect(""), "REGISTER\nCapacity:2", "before any other message");
    // Nobody listens there.
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    coordinator.say(&format!(
        "ENCODE-START\nStream-Channel:c0\nStream-ID:id-0\nStream-Source-Type:RTMP\n\
         Stream-Source-URI:rtmp://{dead}/c0/channel-key-0000\nResolutions:ORIGINAL\nRecord:False\nPreviews:False"
    ));
    coordinator.expect("STREAM-CLOSED\nStream-Channel:c0\nStream-ID:id-0\nError-Code:ENCODE_FAILED");
    coordinator.expect("REGISTER\nCapacity:2");
    assert_eq!(coordinator.count("STREAM-AVAILABLE"), 0, "there is nothing to be watched");
    let publisher = Publisher::start(gateway.rtmp, "gate", &Fixture::h264_aac(6), 0, End::Polite);
    coordinator.say(&format!(
        "ENCODE-START\nStream-Channel:c1\nStream-ID:id-1\nStream-Source-Type:RTMP\n\
         Stream-Source-URI:rtmp://{}/live/gate?key=channel-key-0001\nResolutions:ORIGINAL,161x91-15~300\nRecord:True\n\
         Previews:64x64,1",
        gateway.rtmp
    ));
    let mut told = BTreeMap::new();
    for _ in 0..5 {
        let message = coordinator.expect("STREAM-AVAILABLE\nStream-Channel:c1\nStream-ID:id-1\n");
        let index = field(&message, "Index-file");
        assert!(scratch.join(&index).exists(), "{index} is told of before it is there");
        assert!(!message.contains("Start-Time"), "{message}");
        told.insert(index, (field(&message, "Stream-Type"), field(&message, "Resolution")));
    }
    let some = |kind: &str, resolution: &str| (kind.to_owned(), resolution.to_owned());
    let (original, made) = ("hls/c1/id-1/320x180-30", "hls/c1/id-1/162x92-15~300");
    for (index, what) in [
        (format!("{original}/live.m3u8"), some("HLS-LIVE", "320x180-30")),
        (format!("{original}/vod-0.m3u8"), some("HLS-VOD", "320x180-30")),
        (format!("{made}/live.m3u8"), some("HLS-LIVE", "162x92-15~300")),
        (format!("{made}/vod-0.m3u8"), some("HLS-VOD", "162x92-15~300")),
        ("img-preview/c1/id-1/64x64-1/index.json".to_owned(), some("IMG-PREVIEW", "64x64-1")),
    ] {
        assert_eq!(told.get(&index), Some(&what), "{told:#?}");
    }
    // A duplicate is none, and what is there is live.
    assert!(!read(&scratch.join(&format!("{made}/live.m3u8"))).contains("ENDLIST"));
    // A keyframe comes every two seconds; what is made has more.
    let third = scratch.join(&format!("{original}/2.ts"));
    wait::until_true("three segments", secs(60), || third.exists());
    coordinator.say("ENCODE-STOP\nStream-Channel:c1\nStream-ID:another");
    publisher.wait_for_more(20);
    publisher.finish();
    coordinator.expect("STREAM-CLOSED\nStream-Channel:c1\nStream-ID:id-1");
    coordinator.expect("REGISTER\nCapacity:2");
    assert_eq!((coordinator.count("STREAM-CLOSED"), coordinator.count("STREAM-AVAILABLE")), (0, 0), "once");
    // All of it is there, and players take it.
    for (folder, width, height, rate) in [(original, 320, 180, 30.0), (made, 162, 92, 15.0)] {
        let live = read(&scratch.join(&format!("{folder}/live.m3u8")));
        assert!(live.ends_with("#EXT-X-ENDLIST\n"), "{live}");
        let list = scratch.join(&format!("{folder}/vod-0.m3u8"));
        let vod = read(&list);
        assert!(vod.contains("#EXT-X-PLAYLIST-TYPE:VOD\n") && vod.contains("\n2.ts\n"), "{vod}");
        let (is_width, is_height, pictures) = probed(&list);
        assert_eq!((is_width, is_height), (width, height), "{folder}");
        let seconds: f64 = vod
            .lines()
            .filter_map(|line| line.strip_prefix("#EXTINF:")?.strip_suffix(',')?.parse::<f64>().ok())
            .sum();
        assert!(
            (pictures as f64 - seconds * rate).abs() <= 6.0,
            "{pictures} pictures in {seconds} s of {folder}"
        );
        let mut ffmpeg = Process::start(
            "ffmpeg",
            &["-nostdin", "-v", "error", "-i", list.to_str().unwrap(), "-f", "null", "-"],
        );
        assert!(ffmpeg.end_within(secs(60)).success() && ffmpeg.log().is_empty(), "{}", ffmpeg.log());
    }
    let previews = scratch.join("img-preview/c1/id-1/64x64-1");
    let index: Value = serde_json::from_str(&read(&previews.join("index.json"))).unwrap();
    let count = index["count"].as_u64().unwrap();
    assert_eq!(index, json!({"index_start": 0, "count": count, "pattern": "%d.jpg"}));
    let first = std::fs::read(previews.join("0.jpg")).unwrap();
    assert!(first.starts_with(&[0xff, 0xd8]) && previews.join(format!("{}.jpg", count - 1)).exists());
    let log = gateway.process().log();
    for secret in ["channel-key-0000", "channel-key-0001", SECRET] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
