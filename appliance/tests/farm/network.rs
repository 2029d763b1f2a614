//! Networks that lose packets and change their order, and cameras behind TLS.

use crate::film::Coding;
use crate::scene::{SOON, Scene, assert_carried, assert_clean_clock, wait_for_more};
use crate::script::Script;
use serde_json::json;

#[test]
fn five_per_cent_of_packets_lost_leave_only_whole_pictures() {
    let script = Script { lose_every: Some(20), sound: true, ..Script::good() };
    let scene = Scene::with(script, json!({ "transport": "udp" }));
    wait_for_more(&scene.player, 250, SOON);
    assert_eq!(scene.camera.seen(|seen| &seen.played), 1, "one session");
    let (sent, take) = scene.finish_with_sent();
    assert!(assert_carried("udp", Coding::H264, &sent, &take) > 50);
    assert_clean_clock(&take, 1_500);
}

#[test]
fn packets_in_another_order_are_put_right() {
    let script = Script { swap_every: Some(10), ..Script::good() };
    let scene = Scene::with(script, json!({ "transport": "udp" }));
    wait_for_more(&scene.player, 150, SOON);
    let (sent, take) = scene.finish_with_sent();
    assert!(assert_carried("udp", Coding::H264, &sent, &take) > 100);
    assert_clean_clock(&take, 1_000);
}
