//! Descriptions of streams (SDP) that are none, or not quite.

use crate::camera::Camera;
use crate::common::gateway::Gateway;
use crate::common::healthy::Player;
use crate::common::wait;
use crate::film::Coding;
use crate::scene::{SOON, Scene, assert_unchanged, mountpoint, wait_for_more};
use crate::script::Script;
use serde_json::{Value, json};
use std::time::Duration;

/// Makes another of a camera's description.
type Description = fn(String) -> Vec<u8>;

/// Before each line that begins so, another.
fn before(sdp: &str, start: &str, line: &str) -> Vec<u8> {
    sdp.replace(&format!("\r\n{start}"), &format!("\r\n{line}\r\n{start}")).into_bytes()
}

#[test]
fn a_description_with_odd_lines_is_read_all_the_same() {
    let odd: [Description; 3] = [
        // Once this ended the reader's thread, and nobody heard of it.
        |sdp| before(&sdp, "a=rtpmap", "a line of another kind"),
        |sdp| before(&sdp, "t=", "s=a second name"),
        |sdp| before(&sdp, "m=", "b=AS:many"),
    ];
    for description in odd {
        let scene = Scene::new(Script { description, ..Script::good() });
        wait_for_more(&scene.player, 60, SOON);
        assert!(scene.described().contains("H264"), "{}", scene.described());
        let (sent, take) = scene.finish_with_sent();
        assert!(assert_unchanged(Coding::H264, &sent, &take) > 30);
    }
}

/// What is no description.
const GARBAGE: [(&str, Description); 7] = [
    ("empty", |_| Vec::new()),
    ("no-media", |sdp| sdp.split("m=").next().unwrap().as_bytes().to_vec()),
    ("binary", |_| (0..4_096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()),
    ("one-line", |_| [&b"v=0\r\ns="[..], &vec![b'x'; 1 << 20]].concat()),
    ("many-lines", |_| [&b"v=0\r\n"[..], &b"a=x:y\r\n".repeat(150_000)].concat()),
    ("many-media", |_| [&b"v=0\r\n"[..], &b"m=video 0 RTP/AVP 96\r\nx\r\n".repeat(40_000)].concat()),
    ("out-of-order", |sdp| {
        let mut lines: Vec<&str> = sdp.lines().collect();
        lines.reverse();
        lines.join("\r\nnothing\r\n").into_bytes()
    }),
];

#[test]
fn descriptions_of_garbage_cost_their_own_camera_alone() {
    let good = Camera::start(Script::good());
    let mut mountpoints = mountpoint(&good.url(), json!({}));
    let mut cameras = Vec::new();
    for (name, description) in GARBAGE {
        for transport in ["tcp", "udp"] {
            let camera = Camera::start(Script { description, ..Script::good() });
            let one = mountpoint(&camera.url(), json!({ "transport": transport }));
            mountpoints[format!("{name}-{transport}")] = one["gate"].clone();
            cameras.push(camera);
        }
    }
    let names: Vec<String> = mountpoints.as_object().unwrap().keys().cloned().collect();
    let gateway = Gateway::with_mountpoints(mountpoints);
    let player = Player::start(gateway.rtmp, "gate");
    wait_for_more(&player, 50, SOON);
    for name in names.iter().filter(|name| *name != "gate") {
        let source = || gateway.status()["mountpoints"][name]["source"].clone();
        let cause = |source: &Value| source["activity"]["cause"].as_str().map(str::to_owned);
        let cause =
            wait::until(&format!("a cause for {name}: {:#}", source()), Duration::from_secs(90), || {
                cause(&source())
            });
        println!("{name}: {cause}");
        assert!(cause.contains("description") || cause.contains("picture"), "{name}: {cause}");
    }
    let before = player.got();
    wait_for_more(&player, 50, SOON);
    assert!(player.got() >= before + 50);
    assert_eq!(good.seen(|seen| &seen.played), 1, "the good camera's session was never touched");
    let (sent, take) = (good.sent(), {
        drop(gateway);
        player.finish()
    });
    assert!(assert_unchanged(Coding::H264, &sent, &take) > 80);
}
