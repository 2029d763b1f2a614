//! hls.js and dash.js in a real browser.

use crate::av1::av1_opus;
use crate::codecs::publish;
use crate::common::fixture::Fixture;
use crate::common::flv::AUDIO;
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Publisher};
use crate::common::http;
use crate::common::process::{self, Process};
use crate::common::rtmp::Client;
use crate::common::wait::{self, secs};
use crate::viewer::{gateway, listens, url_of};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser");

/// A page that plays.
struct Page(Process);

impl Page {
    fn open(player: &str, url: &str) -> Page {
        let script = format!("{FOLDER}/play.mjs");
        Page(Process::start("node", &[&script, player, url]))
    }

    /// What it said last.
    fn state(&mut self) -> Option<Value> {
        self.0.assert_running();
        let output = self.0.output();
        // The last line may be half written.
        output.lines().rev().find_map(|line| serde_json::from_str(line).ok())
    }

    /// Pictures decoded so far.
    fn pictures(&mut self) -> u64 {
        self.state().and_then(|state| state["pictures"].as_u64()).unwrap_or(0)
    }

    fn wait_for_more(&mut self, pictures: u64) {
        let from = self.pictures();
        wait::until_true(&format!("{pictures} more pictures"), secs(60), || {
            self.pictures() >= from + pictures
        });
    }
}

/// Another source, of which each sound comes well after the pictures that it belongs to: what players are told first of a
/// stream that begins anew must not be pictures alone.
fn publish_again(gateway: &Gateway) -> Publisher {
    let mut tags = Fixture::other_h264_aac(6).tags();
    tags.sort_by_key(|tag| tag.ts + if tag.kind == AUDIO && !tag.is_header() { 900 } else { 0 });
    let (client, stream) = Client::publishing(gateway.rtmp, "yard").unwrap();
    Publisher::with(client, stream, "yard", tags, 0, End::Abrupt)
}

/// Plays for some seconds, and again after the source has come back.
fn plays_and_recovers(player: &str, file: &str) {
    if !Path::new(FOLDER).join("node_modules").exists() {
        // scripts/setup puts them there.
        eprintln!("skipped: {player} in a browser: run scripts/setup test");
        return;
    }
    process::find("node");
    process::find("chromium");
    let gateway = gateway(json!({ "segment": "1s" }));
    let publisher = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(6), 0, End::Abrupt);
    publisher.wait_for_more(30);
    let mut page = Page::open(player, &url_of(&gateway, file));
    page.wait_for_more(180);
    let before = page.state().unwrap();
    eprintln!("{player}: {before}");
    assert!(before["errors"].as_array().unwrap().iter().all(|error| error["fatal"] == false), "{before}");
    publisher.finish();
    let again = publish_again(&gateway);
    // What the player holds already is played first.
    std::thread::sleep(Duration::from_secs(4));
    page.wait_for_more(120);
    let after = page.state().unwrap();
    eprintln!("{player}: {after}");
    assert!(after["errors"].as_array().unwrap().iter().all(|error| error["fatal"] == false), "{after}");
    page.0.finish(Duration::ZERO);
    drop(again);
}

#[test]
fn hls_js_plays_live_and_recovers_from_a_restart_of_the_source() {
    plays_and_recovers("hls", "master.m3u8");
}

#[test]
fn dash_js_plays_live_and_recovers_from_a_restart_of_the_source() {
    plays_and_recovers("dash", "manifest.mpd");
}

/// Two streams of one scene in one list: the player goes from one to the other and back.
#[test]
fn hls_js_switches_between_renditions() {
    if !Path::new(FOLDER).join("node_modules").exists() {
        eprintln!("skipped: hls.js in a browser: run scripts/setup test");
        return;
    }
    let gateway = Gateway::start(json!({
        "http": { "listen": ["127.0.0.1:0"] },
        "mountpoints": {
            "yard": { "source": { "kind": "publish" }, "hls": { "segment": "1s", "renditions": ["low", "away"] },
                      "play": { "key": "v1ew" } },
            "low": { "source": { "kind": "publish" }, "hls": { "segment": "1s" }, "play": { "key": "other" } },
            "away": { "source": { "kind": "publish" }, "hls": {} },
        },
    }));
    let high = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(6), 0, End::Polite);
    let low = Publisher::start(gateway.rtmp, "low", &Fixture::other_h264_aac(6), 0, End::Polite);
    [&high, &low].iter().for_each(|publisher| publisher.wait_for_more(30));
    let url = url_of(&gateway, "master.m3u8?key=v1ew");
    let master = http::get(listens(&gateway, "http"), "/hls/yard/master.m3u8?key=v1ew").text();
    let sizes: Vec<&str> =
        master.split("RESOLUTION=").skip(1).map(|rest| rest.split(',').next().unwrap()).collect();
    assert!(sizes.len() == 2 && sizes[0] != sizes[1], "what is not fed is left out: {master}");
    let low_list = master.lines().last().unwrap();
    assert!(low_list.ends_with("/low/video.m3u8"), "{master}");
    let status = |path: &str| http::get(listens(&gateway, "http"), &format!("/hls/yard/{path}")).status;
    assert_eq!(status(low_list), 200, "who may watch one may watch the other through it");
    for wrong in ["shut", "away", "yard"] {
        assert_eq!(status(&low_list.replace("/low/", &format!("/{wrong}/"))), 404, "{wrong}");
    }
    let probe = ["-v", "error", "-show_entries", "stream=width,height", "-of", "json", &url];
    let probed: Value = serde_json::from_str(&Process::run("ffprobe", &probe, secs(60))).unwrap();
    let pictures = probed["streams"].as_array().unwrap().iter().filter(|it| it["height"].is_u64());
    assert_eq!(pictures.count(), 2, "{probed}");
    let mut page = Page::open("levels", &url);
    let heights =
        |page: &mut Page| page.state().map_or(0, |state| state["heights"].as_array().unwrap().len());
    wait::until_true("one size, the other, and the first again", secs(90), || heights(&mut page) >= 3);
    page.wait_for_more(60);
    let state = page.state().unwrap();
    eprintln!("hls.js, switching: {state}");
    assert!(state["errors"].as_array().unwrap().iter().all(|error| error["fatal"] == false), "{state}");
    page.0.finish(Duration::ZERO);
}

#[test]
#[ignore = "a quarter of a minute; scripts/slow watching"]
fn browsers_play_av1_and_opus() {
    for (player, file) in [("hls", "master.m3u8"), ("dash", "manifest.mpd")] {
        let gateway = gateway(json!({ "segment": "1s" }));
        let publisher = publish(&gateway, av1_opus(4));
        let mut page = Page::open(player, &url_of(&gateway, file));
        page.wait_for_more(120);
        let state = page.state().unwrap();
        eprintln!("{player}, AV1 and Opus: {state}");
        assert!(state["errors"].as_array().unwrap().iter().all(|error| error["fatal"] == false), "{state}");
        page.0.finish(Duration::ZERO);
        drop(publisher);
    }
}

#[test]
#[ignore = "half a minute; scripts/slow watching"]
fn dash_js_switches_between_sizes() {
    let gateway = gateway(json!({ "segment": "1s", "sizes": [{ "height": 90, "bitrate": 200_000 }] }));
    let publisher = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(6), 0, End::Polite);
    publisher.wait_for_more(30);
    wait::until_true("encoders to be known", secs(60), || {
        gateway.status()["capacity"]["measured"].as_bool().unwrap()
    });
    let mut page = Page::open("sizes", &url_of(&gateway, "manifest.mpd"));
    let heights =
        |page: &mut Page| page.state().map_or(0, |state| state["heights"].as_array().unwrap().len());
    wait::until_true("one size, the other, and the first again", secs(90), || heights(&mut page) >= 3);
    page.wait_for_more(60);
    let state = page.state().unwrap();
    eprintln!("dash.js, switching: {state}");
    assert!(state["errors"].as_array().unwrap().iter().all(|error| error["fatal"] == false), "{state}");
    page.0.finish(Duration::ZERO);
}

/// The source goes away for ever longer, and each time a player goes on once it is back.
fn plays_on_after_outages(player: &str, file: &str) {
    for outage in [0, 1, 2, 3, 5, 8] {
        let gateway = gateway(json!({ "segment": "1s" }));
        let publisher = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(6), 0, End::Abrupt);
        publisher.wait_for_more(30);
        let mut page = Page::open(player, &url_of(&gateway, file));
        page.wait_for_more(180);
        publisher.finish();
        std::thread::sleep(secs(outage));
        let again = publish_again(&gateway);
        // What the player holds already is played first.
        std::thread::sleep(secs(4));
        page.wait_for_more(150);
        let after = page.state().unwrap();
        eprintln!("{player}, away for {outage} s: {after}");
        assert!(after["errors"].as_array().unwrap().iter().all(|error| error["fatal"] == false), "{after}");
        page.0.finish(Duration::ZERO);
        drop(again);
    }
}

#[test]
#[ignore = "two minutes; scripts/slow watching"]
fn hls_js_comes_back_after_outages_of_the_source() {
    plays_on_after_outages("hls", "master.m3u8");
}

#[test]
#[ignore = "two minutes; scripts/slow watching"]
fn dash_js_comes_back_after_outages_of_the_source() {
    plays_on_after_outages("dash", "manifest.mpd");
}

/// Plays for two minutes: no stall and no error after the start. The seconds behind the source, once for each half second of the
/// second half.
fn plays_on(player: &str, file: &str, hls: Value) -> Vec<f64> {
    let gateway = gateway(hls);
    // Longer than the run: a short one that is sent again and again lacks some sound at each seam, until a player that is a
    // second behind has none left.
    let publisher = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(150), 0, End::Polite);
    publisher.wait_for_more(60);
    let mut page = Page::open(player, &url_of(&gateway, file));
    // Cutting begins with the first viewer, so that at first there is less than players like to hold.
    page.wait_for_more(600);
    let start = page.state().unwrap();
    let mut behind = Vec::new();
    let until = Instant::now() + Duration::from_secs(120);
    let second_half = Instant::now() + Duration::from_secs(60);
    while Instant::now() < until {
        page.wait_for_more(10);
        let state = page.state().unwrap();
        assert_eq!(state["stalls"], start["stalls"], "{player} stalled: {state}");
        assert_eq!(state["errors"], start["errors"], "{player}: {state}");
        if Instant::now() > second_half {
            behind.extend(state["latency"].as_f64());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    behind.sort_unstable_by(f64::total_cmp);
    let (median, worst) = (behind[behind.len() / 2], behind[behind.len() - 1]);
    let pictures = page.pictures();
    eprintln!(
        "{player} {file}: {pictures} pictures, no stall in two minutes; {median:.2} s behind the source (at worst {worst:.2})"
    );
    page.0.finish(Duration::ZERO);
    behind
}

#[test]
#[ignore = "two minutes; scripts/slow watching"]
fn hls_js_stays_within_two_seconds_with_parts_and_never_stalls() {
    let behind = plays_on("near", "master.m3u8", json!({ "segment": "1s", "part": "250ms" }));
    assert!(behind[behind.len() / 2] < 2.0, "{behind:?}");
}

#[test]
#[ignore = "two minutes; scripts/slow watching"]
fn hls_js_stays_within_three_segments_without_parts_and_never_stalls() {
    let behind = plays_on("hls", "master.m3u8", json!({ "segment": "2s", "part": "0ms" }));
    assert!(behind[behind.len() / 2] < 3.0 * 2.0, "{behind:?}");
}

#[test]
#[ignore = "two minutes; scripts/slow watching"]
fn dash_js_plays_for_two_minutes_and_never_stalls() {
    plays_on("dash", "manifest.mpd", json!({ "segment": "1s" }));
}
