//! Networks that lose packets and change their order, and cameras behind TLS.

use crate::film::Coding;
use crate::scene::{SOON, Scene, assert_clean_clock, assert_unchanged, wait_for_more};
use crate::script::Script;
use serde_json::json;

#[test]
fn five_per_cent_of_packets_lost_leave_only_whole_pictures() {
    let script = Script { lose_every: Some(20), sound: true, ..Script::good() };
    let scene = Scene::with(script, json!({ "transport": "udp" }));
    wait_for_more(&scene.player, 250, SOON);
    assert_eq!(scene.camera.seen(|seen| &seen.played), 1, "one session");
    let (sent, take) = scene.finish_with_sent();
    let whole = take
        .video
        .frames
        .iter()
        .filter(|frame| sent.contains(&crate::camera::without_framing(Coding::H264, &frame.payload)));
    let (whole, all) = (whole.count(), take.video.frames.len());
    println!("{whole} of {all} pictures are as they were sent");
    assert!(all > 50 && whole * 10 >= all * 9, "{whole} of {all}");
    assert_clean_clock(&take, 1_500);
}

#[test]
fn packets_in_another_order_are_put_right() {
    let script = Script { swap_every: Some(10), ..Script::good() };
    let scene = Scene::with(script, json!({ "transport": "udp" }));
    wait_for_more(&scene.player, 150, SOON);
    let (sent, take) = scene.finish_with_sent();
    assert!(assert_unchanged(Coding::H264, &sent, &take) > 100);
    assert_clean_clock(&take, 1_000);
}
