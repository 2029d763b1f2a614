//! An uplink that goes and comes back.

use crate::common::fixture::Fixture;
use crate::common::flv::{self, VIDEO};
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Player, Publisher};
use crate::common::nginx::Nginx;
use crate::common::proxy::{Mode, Proxy};
use crate::common::take::Take;
use crate::common::wait::{self, secs};
use serde_json::json;
use std::time::Instant;

/// The promise: so long after the link's return the push carries live pictures again.
const LIVE_AGAIN_SECONDS: u64 = 5;

fn push_returns_after(mode: Mode) {
    let nginx = Nginx::start();
    let uplink = Proxy::start(nginx.rtmp);
    let gateway = Gateway::with_mountpoints(json!({
        "yard": { "source": { "kind": "publish" },
                  "push": [{ "url": format!("rtmp://{}/live/up", uplink.address), "backoff_cap": "2s" }] },
    }));
    let player = Player::start(gateway.rtmp, "yard");
    // Long enough never to repeat: a picture then tells when it was sent.
    let publisher = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(40), 0, End::Polite);
    nginx.wait_for_publisher("up");
    publisher.wait_for_more(150);

    uplink.set(mode);
    std::thread::sleep(secs(8));
    let before = publisher.count();
    uplink.set(Mode::Pass);
    let returned = Instant::now();
    wait::until_true("live pictures behind the uplink", secs(60), || {
        let fresh: Vec<_> = publisher.sent().split_off(before);
        let newest = nginx.recordings("up").pop().map(|path| flv::read(&path)).unwrap_or_default();
        newest
            .iter()
            .rev()
            .take(20)
            .any(|tag| tag.kind == VIDEO && fresh.iter().any(|sent| sent.body == tag.body))
    });
    let took = returned.elapsed();
    println!("{mode:?}: live again after {took:?}");
    assert!(took <= secs(LIVE_AGAIN_SECONDS), "live again only {took:?} after the link's return");

    publisher.wait_for_more(100);
    let sent = publisher.finish();
    sent.assert_same(&player.finish(), "the local player");
    drop(gateway);
    for recording in nginx.recordings("up") {
        let tags = flv::read(&recording);
        if tags.iter().any(|tag| tag.kind == VIDEO) {
            let take = Take::of(&tags);
            assert_eq!(sent.video.headers, take.video.headers, "{}", recording.display());
            sent.assert_pieces(&take, &recording.display().to_string());
        }
    }
}

#[test]
fn push_is_live_again_within_five_seconds_of_a_stall() {
    push_returns_after(Mode::Stall);
}

#[test]
fn push_is_live_again_within_five_seconds_of_a_reset() {
    push_returns_after(Mode::Reset);
}

#[test]
fn push_is_live_again_within_five_seconds_of_a_blackhole() {
    push_returns_after(Mode::Blackhole);
}

#[test]
fn narrow_uplink_jumps_to_keyframes_and_harms_nobody() {
    let nginx = Nginx::start();
    let uplink = Proxy::start(nginx.rtmp);
    let gateway = Gateway::with_mountpoints(json!({
        "yard": { "source": { "kind": "publish" }, "max_lag": "1s",
                  "push": [{ "id": "up", "url": format!("rtmp://{}/live/up", uplink.address) }] },
    }));
    let player = Player::start(gateway.rtmp, "yard");
    let (client, stream) = crate::common::rtmp::Client::publishing(gateway.rtmp, "yard").unwrap();
    // Pictures forty times their size, so that buffers in the kernel do not hide the narrow link.
    let mut tags = Fixture::h264_aac(40).tags();
    for (index, tag) in tags.iter_mut().enumerate().filter(|(_, tag)| tag.kind == VIDEO && !tag.is_header()) {
        let mut filler = vec![0x0c];
        filler.extend(
            (0..60_000_u32)
                .map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(index as u32) >> 24) as u8 | 1),
        );
        tag.body.extend((filler.len() as u32).to_be_bytes());
        tag.body.extend(filler);
    }
    uplink.set(Mode::Limited(200_000));
    let publisher = Publisher::with(client, stream, "yard", tags, 0, End::Polite);
    wait::until_true("the push to jump", secs(60), || {
        let status = gateway.status();
        let yard = &status["mountpoints"]["yard"];
        let dropped = yard["pushes"]["up"]["counters"]["dropped_units"].as_u64();
        yard["counters"]["jumps"].as_u64() > Some(0) && dropped > Some(0)
    });
    let sent = publisher.finish();
    sent.assert_same(&player.finish(), "the local player");
    drop(gateway);
    for recording in nginx.recordings("up") {
        sent.assert_pieces(&Take::read(&recording), "nginx's recording");
    }
}
