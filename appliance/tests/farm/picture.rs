//! What cameras send as pictures and sound, and what of it is none.

use crate::common::wait;
use crate::film::{Coding, Film};
use crate::rtp::tone;
use crate::scene::{SOON, Scene, assert_carried, assert_unchanged, wait_for_more};
use crate::script::Script;
use serde_json::json;

#[test]
fn parameter_sets_that_stand_only_in_the_stream_are_found_there() {
    for transport in ["tcp", "udp"] {
        let script = Script { sets_in_sdp: false, ..Script::good() };
        let scene = Scene::with(script, json!({ "transport": transport }));
        wait_for_more(&scene.player, 60, SOON);
        let (sent, take) = scene.finish_with_sent();
        assert!(assert_carried(transport, Coding::H264, &sent, &take) > 30);
        assert_eq!(take.video.headers.len(), 1, "{transport}");
    }
}

#[test]
fn new_parameter_sets_are_announced_within_the_session() {
    for transport in ["tcp", "udp"] {
        let script = Script { then: Some((75, Film::small())), ..Script::good() };
        let scene = Scene::with(script, json!({ "transport": transport }));
        wait_for_more(&scene.player, 130, SOON);
        assert_eq!(scene.camera.seen(|seen| &seen.played), 1, "{transport}: no reconnect");
        let (sent, take) = scene.finish_with_sent();
        assert!(assert_carried(transport, Coding::H264, &sent, &take) > 100, "{transport}");
        assert_eq!(take.video.headers.len(), 2, "{transport}: both sizes were announced");
    }
}

#[test]
fn a_codec_that_changes_within_a_session_starts_another_and_is_named() {
    let script = Script { then: Some((75, Film::hevc())), ..Script::good() };
    let scene = Scene::new(script);
    wait_for_more(&scene.player, 40, SOON);
    // Who asks anew is told of the new codec.
    scene.camera.change(|script| {
        script.film = Film::hevc();
        script.then = None;
    });
    scene.wait_for_cause("no longer sends H264", SOON);
    wait::until_true("another session", SOON, || scene.camera.seen(|seen| &seen.played) >= 2);
    wait_for_more(&scene.player, 50, SOON);
    assert!(scene.described().contains("Hevc"), "{}", scene.described());
    let take = scene.finish();
    assert_eq!(take.video.headers.len(), 2, "H.264's and then HEVC's");
}

#[test]
fn garbage_between_pictures_is_left_out_and_pictures_are_not() {
    for transport in ["tcp", "udp"] {
        let script = Script { garbage_every: Some(20), ..Script::good() };
        let scene = Scene::with(script, json!({ "transport": transport }));
        wait_for_more(&scene.player, 150, SOON);
        let played = scene.camera.seen(|seen| &seen.played);
        let (sent, take) = scene.finish_with_sent();
        let count = take.video.frames.len();
        println!("{transport}: {count} pictures, {played} sessions");
        assert_eq!(played, 1, "{transport}");
        let whole: Vec<_> = take
            .video
            .frames
            .iter()
            .map(|frame| crate::camera::without_framing(Coding::H264, &frame.payload))
            .collect();
        let known = whole.iter().filter(|picture| sent.contains(picture)).count();
        assert!(known * 100 >= count * 85, "{transport}: {known} of {count} are as they were sent");
    }
}

#[test]
fn g711_sound_passes_unchanged_where_that_is_asked_for() {
    let scene = Scene::passing_sound(Script::good());
    wait_for_more(&scene.player, 200, SOON);
    let take = scene.finish();
    let sounds: Vec<&[u8]> = take.audio.frames.iter().map(|frame| frame.payload.as_slice()).collect();
    let first = (0..500).find(|n| tone(*n) == sounds[0]).expect("the first sound is one that was sent");
    for (n, sound) in sounds.iter().enumerate() {
        assert!(*sound == tone(first + n as u64), "sound {n}");
    }
    assert!(sounds.len() > 60, "{}", sounds.len());
}

#[test]
fn g711_sound_becomes_aac_beside_pictures_that_pass() {
    let scene = Scene::new(Script { sound: true, ..Script::good() });
    wait_for_more(&scene.player, 200, SOON);
    assert_eq!(scene.camera.seen(|seen| &seen.played), 1, "one session");
    let (sent, take) = scene.finish_with_sent();
    assert!(assert_unchanged(Coding::H264, &sent, &take) > 50);
    assert_eq!(take.audio.headers.len(), 1, "AAC has a header, G.711 has none");
    assert!(take.audio.frames.len() > 60, "{}", take.audio.frames.len());
}

/// Whether such pictures are the truth is another part's question; here they must come through like any other.
#[test]
fn frozen_and_black_pictures_come_through() {
    for film in [Film::frozen(), Film::black()] {
        let scene = Scene::new(Script::of(film));
        wait_for_more(&scene.player, 80, SOON);
        let (sent, take) = scene.finish_with_sent();
        assert!(assert_unchanged(Coding::H264, &sent, &take) > 50);
    }
}
