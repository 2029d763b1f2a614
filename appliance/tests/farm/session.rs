//! Sessions that fall silent, end, or were never what they should be.

use crate::camera::{Camera, Seen};
use crate::common::gateway::{Gateway, program};
use crate::common::healthy::Player;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use crate::film::{Coding, Film};
use crate::scene::{SOON, Scene, assert_pieces, assert_unchanged, mountpoint, wait_for_more};
use crate::script::Script;
use serde_json::json;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn a_good_camera_passes_unchanged_with_its_sound_and_is_described() {
    let scene = Scene::passing_sound(Script::good());
    wait_for_more(&scene.player, 200, SOON);
    let described = scene.described();
    assert!(described.starts_with("RTSP over TCP from 127.0.0.1:"), "{described}");
    assert!(described.contains("H264, PcmA") && described.contains("server Farm Camera 1.0"), "{described}");
    assert_eq!(scene.camera.seen(|seen| &seen.connections), 1);
    let (sent, take) = scene.finish_with_sent();
    assert!(assert_unchanged(Coding::H264, &sent, &take) > 50);
    assert!(take.audio.frames.len() > 50, "{} sounds", take.audio.frames.len());
}

#[test]
fn hevc_passes_unchanged() {
    let scene = Scene::new(Script::of(Film::hevc()));
    wait_for_more(&scene.player, 80, SOON);
    let (sent, take) = scene.finish_with_sent();
    assert!(assert_unchanged(Coding::Hevc, &sent, &take) > 60);
}

#[test]
fn a_camera_that_is_silent_after_play_is_named_and_asked_anew() {
    let script = Script { silent_after: Some(0), ..Script::good() };
    let scene = Scene::with(script, json!({ "stall_timeout": "2s" }));
    scene.wait_for_cause("no picture or sound", secs(60));
    scene.camera.change(|script| script.silent_after = None);
    wait_for_more(&scene.player, 50, SOON);
    assert!(scene.camera.seen(|seen| &seen.played) >= 2);
}

#[test]
fn a_camera_that_falls_silent_in_the_middle_is_asked_anew_after_its_time() {
    let script = Script { silent_after: Some(50), ..Script::good() };
    let scene = Scene::with(script, json!({ "stall_timeout": "2s" }));
    scene.wait_for_cause("no picture or sound for 2s", SOON);
    scene.camera.change(|script| script.silent_after = None);
    wait_for_more(&scene.player, 60, SOON);
    assert!(!scene.player.is_closed(), "its player has kept its connection");
}

#[test]
fn a_session_closed_without_a_word_is_back_within_seconds() {
    let script = Script { close_after: Some(40), ..Script::good() };
    let scene = Scene::new(script);
    wait::until_true("three sessions", SOON, || scene.camera.seen(|seen| &seen.played) >= 3);
    assert!(scene.cause().contains("ended"), "{}", scene.cause());
    let (sent, take) = scene.finish_with_sent();
    assert!(assert_pieces(Coding::H264, &sent, &take) >= 80);
}

#[test]
fn a_camera_that_says_goodbye_and_stays_is_asked_anew_at_once() {
    let script = Script { goodbye_after: Some(40), ..Script::good() };
    // So long that it is not this that ends the session.
    let scene = Scene::with(script, json!({ "stall_timeout": "60s" }));
    wait::until_true("three sessions", SOON, || scene.camera.seen(|seen| &seen.played) >= 3);
    assert!(scene.cause().contains("ended"), "{}", scene.cause());
    let (sent, take) = scene.finish_with_sent();
    assert!(assert_pieces(Coding::H264, &sent, &take) >= 80);
}

#[test]
fn a_camera_that_reboots_is_back_soon_after() {
    let scene = Scene::new(Script::good());
    wait_for_more(&scene.player, 50, SOON);
    scene.camera.power_off();
    std::thread::sleep(secs(5));
    assert!(scene.cause().contains("connect") || scene.cause().contains("ended"), "{}", scene.cause());
    scene.camera.power_on();
    wait_for_more(&scene.player, 50, SOON);
}

#[test]
fn a_camera_that_allows_one_connection_is_never_asked_for_two() {
    let script = Script { one_connection: true, close_after: Some(30), sound: true, ..Script::good() };
    let scene = Scene::new(script);
    wait::until_true("three sessions", SOON, || scene.camera.seen(|seen| &seen.played) >= 3);
    assert_eq!(scene.camera.seen(|seen| &seen.turned_away), 0);
}

#[test]
fn a_session_that_is_let_go_is_torn_down() {
    let scene = Scene::new(Script::good());
    wait_for_more(&scene.player, 30, SOON);
    let Scene { camera, gateway, player, .. } = scene;
    let (mut config, tag) = gateway.config();
    config["mountpoints"].as_object_mut().unwrap().remove("gate");
    assert_eq!(gateway.put_config(&config, Some(&tag)).status, 200);
    wait::until_true("the camera to be told", secs(10), || camera.seen(|seen| &seen.teardowns) == 1);
    drop(player);
}

#[test]
fn a_camera_that_wants_to_be_kept_alive_is() {
    let script = Script { session_timeout: Some(secs(4)), ..Script::good() };
    let scene = Scene::new(script);
    wait_for_more(&scene.player, 25 * 9, SOON);
    assert!(scene.camera.seen(|seen| &seen.keep_alives) >= 3);
    assert_eq!((scene.camera.seen(|seen| &seen.expired), scene.camera.seen(|seen| &seen.played)), (0, 1));
}

#[test]
fn a_camera_over_udp_that_wants_to_be_kept_alive_is() {
    let script = Script { session_timeout: Some(secs(8)), ..Script::good() };
    let scene = Scene::with(script, json!({ "transport": "udp" }));
    wait_for_more(&scene.player, 25 * 14, secs(60));
    assert!(scene.camera.seen(|seen| &seen.keep_alives) >= 1);
    assert_eq!(scene.camera.seen(|seen| &seen.expired), 0);
}

#[test]
fn sessions_without_sender_reports_play_as_well() {
    for transport in ["tcp", "udp"] {
        let script = Script { reports: false, sound: true, ..Script::good() };
        let scene = Scene::with(script, json!({ "transport": transport }));
        wait_for_more(&scene.player, 150, SOON);
        let take = scene.finish();
        assert!(take.video.frames.len() > 30 && take.audio.frames.len() > 30, "{transport}");
    }
}

#[test]
fn a_stall_shorter_than_its_time_is_sat_out() {
    let script = Script { stall: Some((50, secs(10))), ..Script::good() };
    let scene = Scene::with(script, json!({ "stall_timeout": "15s" }));
    wait_for_more(&scene.player, 120, secs(60));
    assert_eq!(scene.camera.seen(|seen| &seen.played), 1, "one session all along");
    let (sent, take) = scene.finish_with_sent();
    assert!(assert_pieces(Coding::H264, &sent, &take) > 100);
}

#[test]
fn a_name_that_moves_to_another_address_is_followed() {
    // In a namespace of its own, where the names are ours.
    let allowed = Command::new("unshare").args(["-rm", "true"]).stderr(Stdio::null()).status();
    if !allowed.is_ok_and(|status| status.success()) {
        return println!("skipped: no user namespaces here");
    }
    let scratch = Arc::new(Scratch::new());
    let hosts = scratch.join("hosts");
    let name = |address: Ipv4Addr| {
        std::fs::write(&hosts, format!("127.0.0.1 localhost\n{address} camera.test\n")).unwrap();
    };
    let before = Camera::start_at(Ipv4Addr::new(127, 0, 0, 2), Script::good());
    name(Ipv4Addr::new(127, 0, 0, 2));
    let port = before.address().port();
    let url = format!("rtsp://camera.test:{port}/main");
    let (file, folder) = (scratch.join("config.json"), scratch.join("state"));
    let config = json!({ "mountpoints": mountpoint(&url, json!({})) });
    let gateway = Gateway::start_in(scratch.clone(), config, |command| {
        let script = format!(
            "mount --bind {} /etc/hosts && exec {} run --state {} --config {}",
            hosts.display(),
            program(),
            folder.display(),
            file.display()
        );
        *command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "unshare", "-rm", "--", "sh", "-c", &script]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    });
    let player = Player::start(gateway.rtmp, "gate");
    wait_for_more(&player, 40, SOON);
    let after = Camera::start_on((Ipv4Addr::new(127, 0, 0, 3), port).into(), Script::good());
    name(Ipv4Addr::new(127, 0, 0, 3));
    before.power_off();
    wait_for_more(&player, 60, SOON);
    assert!(after.seen(|seen: &Seen| &seen.played) >= 1);
}

#[test]
fn auto_goes_over_to_tcp_where_udp_brings_nothing() {
    // As behind a router that lets no packets in.
    let script = Script { lose_every: Some(1), ..Script::good() };
    let scene = Scene::with(script, json!({ "transport": "auto" }));
    wait_for_more(&scene.player, 50, secs(60));
    assert!(scene.described().contains("over TCP"), "{}", scene.described());
    assert!(scene.began.elapsed() < Duration::from_secs(60));
}
