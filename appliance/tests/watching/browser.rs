//! hls.js and dash.js in a real browser.

use crate::common::fixture::Fixture;
use crate::common::healthy::{End, Publisher};
use crate::common::process::{self, Process};
use crate::common::wait::{self, secs};
use crate::viewer::{gateway, url_of};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

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
    let again = Publisher::start(gateway.rtmp, "yard", &Fixture::other_h264_aac(6), 0, End::Polite);
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
