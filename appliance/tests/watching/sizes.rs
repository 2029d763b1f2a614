//! Sizes that the gateway makes for viewers.

use crate::common::fixture::Fixture;
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Publisher};
use crate::common::http;
use crate::common::process::Process;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use crate::viewer::{Viewer, gateway, listens, url_of};
use crate::{manifest, rules};
use serde_json::{Value, json};

/// The workers that transcode.
fn workers(gateway: &Gateway) -> Vec<String> {
    let status = gateway.status();
    let workers = status["workers"].as_object().unwrap();
    workers.keys().filter(|name| name.contains('~')).cloned().collect()
}

/// Waits for a list, as a player does.
fn list_of(viewer: &Viewer, file: &str) -> rules::Playlist {
    rules::read(&viewer.text(file))
}

#[test]
fn a_size_is_made_once_for_all_viewers_and_gone_after_the_last() {
    let sizes = json!([{ "height": 90, "bitrate": 200_000 }, { "height": 1080 }]);
    let gateway = gateway(json!({ "segment": "1s", "idle": "5s", "sizes": sizes }));
    let publisher = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(6), 0, End::Polite);
    publisher.wait_for_more(30);
    let viewers = [Viewer::open(&gateway), Viewer::open(&gateway)];
    for viewer in &viewers {
        let streams: Vec<&str> = viewer.master.lines().filter(|line| line.contains("STREAM-INF")).collect();
        assert_eq!(streams.len(), 2, "its own and the smaller one, no larger one: {}", viewer.master);
        assert!(streams[1].contains("RESOLUTION=160x90"), "{}", viewer.master);
        assert!(streams[1].contains("CODECS=\"avc1.4D401E,mp4a.40.2\""), "{}", viewer.master);
        assert!(viewer.master.ends_with("/~90p/video.m3u8\n"), "{}", viewer.master);
    }
    assert_eq!(workers(&gateway), Vec::<String>::new(), "what nobody watches is not made");
    for wrong in ["~90p/v1.m4s", "~1080p/v1.m4s", "~91p/video.m3u8", "90p/video.m3u8", "~/video.m3u8"] {
        assert_eq!(viewers[0].get(wrong).status, 404, "{wrong}");
    }
    let larger = viewers[0].get("~1080p/video.m3u8");
    assert_eq!((larger.status, larger.header("retry-after")), (503, Some("2")));
    assert!(larger.text().contains("not larger"), "{}", larger.text());
    assert_eq!(workers(&gateway), Vec::<String>::new());

    let lists = std::thread::scope(|scope| {
        let asked = viewers.each_ref().map(|viewer| scope.spawn(|| list_of(viewer, "~90p/video.m3u8")));
        asked.map(|list| list.join().unwrap())
    });
    assert_eq!(lists[0].first, lists[1].first, "one stream for both");
    assert_eq!(workers(&gateway), ["yard~90p"]);
    let status = gateway.status();
    assert_eq!(status["mountpoints"]["yard"]["watching"]["sizes"], json!(["90p"]));
    assert_eq!(status["mountpoints"]["yard"]["players"], 0, "what makes it is no player");
    let list = &lists[0];
    let mut file = viewers[0].get(&format!("~90p/{}", list.segments[0].map)).body;
    file.extend(viewers[1].get(&format!("~90p/{}", list.segments[0].uri)).body);
    let scratch = Scratch::new();
    let place = scratch.path().join("small.mp4");
    std::fs::write(&place, file).unwrap();
    let fields = "stream=codec_name,width,height";
    let probe = ["-v", "error", "-show_entries", fields, "-of", "json", place.to_str().unwrap()];
    let probed: Value = serde_json::from_str(&Process::run("ffprobe", &probe, secs(30))).unwrap();
    let expected = json!({ "codec_name": "h264", "width": 160, "height": 90 });
    assert_eq!(probed["streams"][0], expected, "{probed}");
    assert!(viewers[0].text("~90p/audio.m3u8").contains("#EXTINF"), "with the stream's own sound");

    wait::until_true("the worker to go after the last viewer", secs(60), || workers(&gateway).is_empty());
    assert_eq!(viewers[0].get(&format!("~90p/{}", list.segments[0].uri)).status, 404);
    let again = Viewer::open(&gateway);
    assert!(list_of(&again, "~90p/video.m3u8").first > list.first, "made anew for who comes later");
    assert_eq!(workers(&gateway), ["yard~90p"]);
}

#[test]
fn a_size_without_room_in_the_plan_is_refused_in_words() {
    let source = json!({ "kind": "test", "width": 160, "height": 96, "frame_rate": 15, "bitrate": 100_000 });
    let hls = json!({ "segment": "1s", "sizes": [{ "height": 64 }] });
    // So little that the camera alone is too much, which is the most important of all.
    let gateway = Gateway::start(json!({
        "limits": { "cpu_percent": 1 },
        "http": { "listen": ["127.0.0.1:0"] },
        "mountpoints": { "yard": { "source": source, "hls": hls } },
    }));
    wait::until_true("the camera", secs(60), || {
        gateway.status()["mountpoints"]["yard"]["stream"].is_object()
    });
    let viewer = Viewer::open(&gateway);
    let refused = viewer.get("~64p/video.m3u8");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("2")));
    let text = refused.text();
    assert!(text.contains("this size is not made: there is no room for it on this machine: "), "{text}");
    assert!(text.contains("% of a core"), "in the plan's own words: {text}");
    assert_eq!(
        http::get(listens(&gateway, "http"), &viewer.path("video.m3u8")).status,
        200,
        "the rest goes on"
    );
}

/// A camera's second stream and a size that is made, beside each other in one set of pictures.
#[test]
fn dash_has_all_streams_of_a_scene_as_representations() {
    let hls =
        json!({ "segment": "1s", "renditions": ["low"], "sizes": [{ "height": 90, "bitrate": 200_000 }] });
    let gateway = Gateway::start(json!({
        "http": { "listen": ["127.0.0.1:0"] },
        "mountpoints": {
            "yard": { "source": { "kind": "publish" }, "hls": hls },
            "low": { "source": { "kind": "publish" }, "hls": { "segment": "1s" } },
        },
    }));
    // First there, so that its times are not those of the other.
    let low = Publisher::start(gateway.rtmp, "low", &Fixture::other_h264_aac(6), 0, End::Polite);
    low.wait_for_more(90);
    let high = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(6), 0, End::Polite);
    high.wait_for_more(30);
    wait::until_true("encoders to be known", secs(60), || {
        gateway.status()["capacity"]["measured"].as_bool().unwrap()
    });
    let address = listens(&gateway, "http");
    for (file, variable) in [("manifest.mpd", "$Time$"), ("number.mpd", "$Number$")] {
        let opened = http::get(address, &format!("/hls/yard/{file}"));
        assert_eq!(opened.status, 200, "{}", opened.text());
        let opened = manifest::read(&opened.text());
        let folder = format!("/hls/yard/{}", opened.one("BaseURL").text);
        let again = http::get(address, &format!("{folder}{file}")).text();
        let mpd = manifest::read(&again);
        let period = mpd.all("Period").last().unwrap();
        let sets: Vec<&str> = period.all("AdaptationSet").map(|set| set.get("contentType")).collect();
        assert_eq!(sets, ["video", "audio"], "{again}");
        let pictures: Vec<_> = period.one("AdaptationSet").all("Representation").collect();
        let sizes: Vec<_> = pictures.iter().map(|of| (of.get("width"), of.get("height"))).collect();
        assert_eq!(sizes, [("320", "180"), ("240", "136"), ("160", "90")], "{again}");
        let ids: Vec<&str> = pictures.iter().map(|of| of.get("id")).collect();
        let before = opened.all("Period").last().unwrap().one("AdaptationSet");
        let before: Vec<&str> = before.all("Representation").map(|of| of.get("id")).collect();
        assert_eq!(before, ids, "the same from the first manifest on");
        let offset = |of: &manifest::Element| of.one("SegmentTemplate").number("presentationTimeOffset");
        assert_eq!(
            offset(pictures[0]),
            offset(pictures[2]),
            "what is made has the times of what it is made of"
        );
        assert_ne!(offset(pictures[0]), offset(pictures[1]), "another stream has its own");
        let ends = pictures[1..].iter().map(|of| {
            let last = of.one("SegmentTemplate").one("SegmentTimeline").all("S").last().unwrap();
            (last.number("t") + last.number("d") - offset(of)) as f64 / 90_000.0
        });
        let ends: Vec<f64> = ends.collect();
        assert!((ends[0] - ends[1]).abs() < 4.0, "all are live: {ends:?}");
        for of in &pictures[1..] {
            assert!(of.one("SegmentTemplate").get("media").contains(variable), "{again}");
            for file in manifest::files(of).iter().take(3) {
                assert_eq!(http::get(address, &format!("{folder}{file}")).status, 200, "{file} of {again}");
            }
        }
    }
    let url = url_of(&gateway, "number.mpd");
    let probe = ["-v", "error", "-show_entries", "stream=width,height", "-of", "json", &url];
    let probed: Value = serde_json::from_str(&Process::run("ffprobe", &probe, secs(60))).unwrap();
    let heights: Vec<i64> =
        probed["streams"].as_array().unwrap().iter().filter_map(|it| it["height"].as_i64()).collect();
    assert_eq!(heights, [180, 136, 90], "{probed}");
}
