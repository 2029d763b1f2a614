//! Two gateways chained by KMP: what is published to the first comes out of the second, whatever the link does.

use crate::common::fixture::Fixture;
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Player, Publisher};
use crate::common::proxy::{Mode, Proxy};
use crate::common::take::{Frame, Take};
use crate::common::wait::{self, secs};
use serde_json::{Value, json};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The gateway at the far end, with one channel.
fn receiver() -> Gateway {
    Gateway::start(json!({
        "kmp": { "listen": ["127.0.0.1:0"], "join_wait": "20s", "channels": { "yard-1": { "mountpoint": "far" } } },
        "mountpoints": { "far": {
            "source": { "kind": "kmp" }, "grace": "60s",
            "ring": { "age": "60s", "bytes": 33_554_432 }, "max_lag": "30s",
        } },
    }))
}

/// The gateway beside the camera, pushing through the link.
fn sender(link: &Proxy) -> Gateway {
    Gateway::with_mountpoints(json!({
        "yard": { "source": { "kind": "publish" }, "grace": "0s", "push": [{
            "id": "k", "url": format!("kmp://{}", link.address), "channel_id": "yard-1",
            "backoff_cap": "1s", "write_timeout": "2s",
        }] },
    }))
}

fn acked(near: &Gateway) -> u64 {
    near.status()["mountpoints"]["yard"]["pushes"]["k"]["kmp"]["acked_frames"].as_u64().unwrap_or(0)
}

fn tracks(far: &Gateway) -> Value {
    far.status()["mountpoints"]["far"]["source"]["kmp"].clone()
}

fn sum(tracks: &Value, field: &str) -> u64 {
    ["video", "audio"].iter().map(|track| tracks[track][field].as_u64().unwrap_or(0)).sum()
}

fn count(take: &Take) -> u64 {
    (take.video.frames.len() + take.audio.frames.len()) as u64
}

#[test]
fn a_chain_of_two_gateways_loses_nothing_over_a_link_that_drops() {
    let far = receiver();
    let link = Proxy::start(far.kmp.expect("listens for KMP"));
    let near = sender(&link);
    let player = Player::start(far.rtmp, "far");
    let publisher = Publisher::start(near.rtmp, "yard", &Fixture::h264_aac(6), 0, End::Polite);
    player.wait_for_more(100);
    for (mode, millis) in [
        (Mode::Reset, 300),
        (Mode::Blackhole, 1_500),
        (Mode::Stall, 1_000),
        (Mode::Reset, 3_000),
        (Mode::Limited(20_000), 2_000),
        (Mode::Reset, 50),
    ] {
        link.set(mode);
        // As long as an outage lasts in real time.
        sleep(Duration::from_millis(millis));
        link.set(Mode::Pass);
        player.wait_for_more(100);
    }
    let sent = publisher.finish();
    wait::until_true("all frames to be acknowledged", secs(60), || acked(&near) == count(&sent));
    let seen = tracks(&far);
    sent.assert_same(&player.finish(), "the far player");
    assert_eq!(sum(&seen, "received_frames"), count(&sent), "{seen:#}");
    assert_eq!(sum(&seen, "late_frames") + sum(&seen, "no_key_frames"), 0, "{seen:#}");
    assert!(sum(&seen, "resumed") >= 6, "{seen:#}");
    let status = far.status();
    assert_eq!(status["mountpoints"]["far"]["counters"]["dropped_units"], 0, "{status:#}");
    assert_eq!(status["listeners"]["kmp"]["state"], "running", "{status:#}");
}

#[test]
fn a_far_gateway_that_is_killed_and_started_anew_goes_on_with_the_stream() {
    let mut far = receiver();
    let link = Proxy::start(far.kmp.expect("listens for KMP"));
    let near = sender(&link);
    let publisher = Publisher::start(near.rtmp, "yard", &Fixture::h264_aac(6), 0, End::Polite);
    wait::until_true("the chain to work", secs(30), || acked(&near) > 100);
    far.process().kill();
    publisher.wait_for_more(100);
    let far = receiver();
    // Another address: the link leads there from now on.
    link.lead_to(far.kmp.expect("listens for KMP"));
    let player = Player::start(far.rtmp, "far");
    player.wait_for_more(200);
    let sent = publisher.finish();
    wait::until_true("all frames to be acknowledged", secs(60), || acked(&near) == count(&sent));
    sent.assert_joined_late(&player.finish(), "the far player");
}

#[test]
fn what_the_far_gateway_does_not_list_is_not_taken() {
    let far = Gateway::start(json!({
        "kmp": { "listen": ["127.0.0.1:0"], "channels": { "other": { "mountpoint": "far" } } },
        "mountpoints": { "far": { "source": { "kind": "kmp" } } },
    }));
    let link = Proxy::start(far.kmp.expect("listens for KMP"));
    let near = sender(&link);
    let publisher = Publisher::start(near.rtmp, "yard", &Fixture::h264_aac(6), 0, End::Polite);
    wait::until_true("refusals", secs(30), || {
        far.status()["listeners"]["kmp"]["refused"].as_u64() >= Some(3)
    });
    assert_eq!(acked(&near), 0);
    assert!(far.status()["mountpoints"]["far"]["stream"].is_null());
    publisher.finish();
}

#[test]
fn live_goes_on_at_once_and_what_an_outage_held_up_comes_on_a_second_mountpoint() {
    let source = json!({ "kind": "kmp" });
    let ring = json!({ "age": "60s", "bytes": 33_554_432 });
    let mountpoint = json!({ "source": source, "grace": "60s", "ring": ring, "max_lag": "30s" });
    let far = Gateway::start(json!({
        "kmp": { "listen": ["127.0.0.1:0"], "join_wait": "20s", "channels": {
            "yard-1": { "mountpoint": "far" }, "yard-1-late": { "mountpoint": "late" } } },
        "mountpoints": { "far": mountpoint, "late": mountpoint },
    }));
    let link = Proxy::start(far.kmp.expect("listens for KMP"));
    let near = Gateway::with_mountpoints(json!({
        "yard": { "source": { "kind": "publish" }, "grace": "0s", "push": [{
            "id": "k", "url": format!("kmp://{}", link.address), "channel_id": "yard-1",
            "order": "live_first", "backlog_channel_id": "yard-1-late", "backoff_cap": "1s", "write_timeout": "2s",
        }] },
    }));
    let (live, late) = (Player::start(far.rtmp, "far"), Player::start(far.rtmp, "late"));
    let publisher = Publisher::start(near.rtmp, "yard", &Fixture::h264_aac(60), 0, End::Polite);
    live.wait_for_more(100);
    link.set(Mode::Reset);
    // Longer than what is caught up with in order.
    sleep(secs(5));
    link.set(Mode::Pass);
    live.wait_for_more(200);
    let sent = publisher.finish();
    let deadline = Instant::now() + secs(60);
    while acked(&near) != count(&sent) {
        let push = || near.status()["mountpoints"]["yard"]["pushes"]["k"].clone();
        assert!(Instant::now() < deadline, "{} of {} acknowledged: {:#}", acked(&near), count(&sent), push());
        sleep(Duration::from_millis(50));
    }
    let late_tracks = || far.status()["mountpoints"]["late"]["source"]["kmp"].clone();
    let received = sum(&late_tracks(), "received_frames");
    assert!(received > 100, "{:#}", late_tracks());
    assert_eq!(sum(&tracks(&far), "no_key_frames") + sum(&late_tracks(), "no_key_frames"), 0);
    let (live, late) = (live.finish(), late.finish());
    // Sounds may be alike, pictures are not.
    let sounds = live.audio.frames.len() + late.audio.frames.len();
    assert!(sounds >= sent.audio.frames.len(), "{sounds} of {} sounds", sent.audio.frames.len());
    let places = |frames: &[Frame]| -> Vec<usize> {
        let position =
            |frame: &Frame| sent.video.frames.iter().position(|sent| sent.payload == frame.payload);
        frames.iter().filter_map(position).collect()
    };
    let (live, late) = (places(&live.video.frames), places(&late.video.frames));
    assert!(live.is_sorted(), "live in order: {live:?}");
    assert!(late.is_sorted(), "late in order: {late:?}");
    let total = sent.video.frames.len();
    let missing: Vec<usize> = (0..total).filter(|at| !live.contains(at) && !late.contains(at)).collect();
    assert!(missing.is_empty(), "{missing:?} of {total}: {} live, {} late", live.len(), late.len());
    assert!(live.windows(2).any(|pair| pair[1] > pair[0] + 25), "live did not go on at once: {live:?}");
    let status = near.status()["mountpoints"]["yard"]["pushes"]["k"]["kmp"].clone();
    assert_eq!((status["lost_frames"].as_u64(), status["unconfirmed_frames"].as_u64()), (Some(0), Some(0)));
}
