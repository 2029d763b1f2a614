//! Real players of what is neither H.264 nor AAC.

use crate::av1::av1_opus;
use crate::common::fixture::{Fixture, hevc_stream};
use crate::common::flv::{AUDIO, Tag};
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Publisher};
use crate::common::process::Process;
use crate::common::rtmp::Client;
use crate::common::wait::{self, secs};
use crate::common::{hevc, http};
use crate::manifest;
use crate::viewer::{Viewer, gateway, listens, url_of};
use serde_json::{Value, json};

/// HEVC with AAC, four seconds.
fn hevc_aac() -> Vec<Tag> {
    let mut tags = hevc::tags(&hevc_stream(4), 1000.0 / 30.0);
    tags.extend(Fixture::h264_aac(6).tags().into_iter().filter(|tag| tag.kind == AUDIO && tag.ts < 4_000));
    tags.sort_by_key(|tag| tag.ts);
    tags
}

pub(crate) fn publish(gateway: &Gateway, tags: Vec<Tag>) -> Publisher {
    let (client, stream) = Client::publishing(gateway.rtmp, "yard").unwrap();
    let publisher = Publisher::with(client, stream, "yard", tags, 0, End::Polite);
    publisher.wait_for_more(60);
    publisher
}

/// ffmpeg and GStreamer decode it, by HLS and by DASH, without a word of complaint.
fn players_decode(tags: Vec<Tag>, codecs: &str, names: [&str; 2]) {
    let gateway = gateway(json!({ "segment": "1s" }));
    let publisher = publish(&gateway, tags);
    let viewer = Viewer::open(&gateway);
    assert!(viewer.master.contains(codecs), "{codecs} in {}", viewer.master);
    manifest::read(&http::get(listens(&gateway, "http"), "/hls/yard/number.mpd").text());
    for file in ["master.m3u8", "number.mpd"] {
        let url = url_of(&gateway, file);
        let probe = ["-v", "error", "-show_entries", "stream=codec_name", "-of", "json", &url];
        let probed: Value = serde_json::from_str(&Process::run("ffprobe", &probe, secs(60))).unwrap();
        let mut found: Vec<&str> = probed["streams"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["codec_name"].as_str().unwrap())
            .collect();
        found.sort_unstable();
        assert_eq!(found, names, "{file}");
    }
    let url = url_of(&gateway, "master.m3u8");
    let sums = Process::run(
        "ffmpeg",
        &["-nostdin", "-v", "error", "-xerror", "-i", &url, "-t", "3", "-f", "framehash", "-"],
        secs(90),
    );
    let of = |track: &str| sums.lines().filter(|line| line.starts_with(track)).count();
    assert!(of("0,") >= 60 && of("1,") >= 60, "pictures and sounds: {} {}", of("0,"), of("1,"));
    // Converters take raw pictures and sound alone, so both were decoded.
    let both = [("videoconvert", "pictures"), ("audioconvert", "sounds")]
        .map(|(taker, name)| format!("in. ! queue ! {taker} ! fakesink name={name} silent=false sync=false"));
    let pipeline = format!("-v uridecodebin uri={url} name=in {}", both.join(" "));
    let mut player = Process::start("gst-launch-1.0", &pipeline.split_whitespace().collect::<Vec<_>>());
    wait::until_true("60 pictures and 60 sounds", secs(60), || {
        let told = player.output();
        ["pictures", "sounds"]
            .iter()
            .all(|name| told.matches(&format!("chain   ******* ({name}:sink)")).count() >= 60)
    });
    player.finish(secs(1));
    drop(publisher);
}

#[test]
fn players_decode_hevc() {
    players_decode(hevc_aac(), "CODECS=\"hvc1.1.", ["aac", "hevc"]);
}

#[test]
fn players_decode_av1_and_opus() {
    players_decode(av1_opus(4), "CODECS=\"av01.0.", ["av1", "opus"]);
}
