//! Cameras whose clocks lie. What must hold: decode times that go on in small steps, as many pictures as were sent, and
//! a stream that lasts as long as it took.

use crate::film::{Coding, Film};
use crate::scene::{
    SOON, Scene, assert_carried, assert_clean_clock, assert_unchanged, span_ms, wait_for_more,
};
use crate::script::Script;
use serde_json::json;

/// Longest step between two pictures that a clean clock makes of a fault, in milliseconds.
const STEP_MS: i64 = 1_000;

/// About eight seconds of the camera, the fault in the middle.
fn stays_clean(script: Script, transport: &str) {
    let scene = Scene::with(script, json!({ "transport": transport }));
    wait_for_more(&scene.player, 200, SOON);
    assert_eq!(scene.camera.seen(|seen| &seen.played), 1, "{transport}: one session: {}", scene.cause());
    let (sent, take) = scene.finish_with_sent();
    let count = assert_carried(transport, Coding::H264, &sent, &take);
    assert!(count > 150, "{transport}: {count}");
    assert_clean_clock(&take, STEP_MS);
    let (span, wanted) = (span_ms(&take), count as i64 * 40);
    assert!((span - wanted).abs() < 2_500, "{transport}: {span} ms for {count} pictures");
}

fn with_shift(shift: fn(u64) -> Option<i64>) -> Script {
    Script { shift, ..Script::good() }
}

const fn seconds(seconds: i64) -> i64 {
    seconds * 90_000
}

#[test]
fn a_jump_of_37_600_seconds_ahead() {
    stays_clean(with_shift(|n| Some(if n < 100 { 0 } else { seconds(37_600) })), "tcp");
}

#[test]
fn a_jump_of_9_800_seconds_back() {
    stays_clean(with_shift(|n| Some(if n < 100 { 0 } else { seconds(-9_800) })), "tcp");
}

#[test]
fn a_reset_to_zero() {
    // The first timestamp is 3,000,000,000.
    stays_clean(with_shift(|n| Some(if n < 100 { 0 } else { -3_000_000_000 - 100 * 3_600 })), "tcp");
}

#[test]
fn a_wrap_of_32_bits() {
    stays_clean(Script { first_timestamp: u32::MAX - 90_000 * 4, ..Script::good() }, "tcp");
    stays_clean(Script { first_timestamp: u32::MAX - 90_000 * 4, ..Script::good() }, "udp");
}

#[test]
fn a_wrap_after_13_hours() {
    // 2^32 ticks of 90 kHz are 13 h 15 min; some cameras count them in 32 bits of a signed number and turn at half.
    stays_clean(Script { first_timestamp: (1 << 31) - 90_000 * 4, ..Script::good() }, "tcp");
    let turns = |n| Some(if n < 100 { 0 } else { -(1 << 31) });
    stays_clean(Script { first_timestamp: (1 << 31) - 100 * 3_600, ..with_shift(turns) }, "tcp");
}

#[test]
fn a_wrong_frame_rate_in_the_description() {
    stays_clean(Script { said_rate: Some(5), ..Script::good() }, "tcp");
}

#[test]
fn no_frame_rate_in_the_description() {
    stays_clean(Script { said_rate: None, ..Script::good() }, "tcp");
}

#[test]
fn frames_in_bursts() {
    stays_clean(Script { burst: 25, ..Script::good() }, "tcp");
}

#[test]
fn b_frames() {
    let scene = Scene::new(Script::of(Film::b_frames()));
    wait_for_more(&scene.player, 150, SOON);
    let (sent, take) = scene.finish_with_sent();
    assert!(assert_unchanged(Coding::H264, &sent, &take) > 100);
    assert_clean_clock(&take, STEP_MS);
    let mut shown: Vec<i64> = take.video.frames.iter().map(|frame| frame.dts + frame.offset).collect();
    assert!(!shown.is_sorted(), "there are B-frames");
    shown.sort_unstable();
    let even = shown.windows(2).filter(|pair| (38..=42).contains(&(pair[1] - pair[0]))).count();
    assert!(even + 10 > shown.len(), "shown every 40 ms: {even} of {}", shown.len());
}

#[test]
fn timestamps_that_are_all_equal() {
    let scene = Scene::new(with_shift(|_| None));
    wait_for_more(&scene.player, 120, SOON);
    let take = scene.finish();
    assert_clean_clock(&take, STEP_MS);
    assert!(span_ms(&take) > 2_000, "time goes on: {} ms", span_ms(&take));
}
