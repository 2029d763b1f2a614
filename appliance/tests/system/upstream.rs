//! Pushes and pulls: what leaves for other servers, and what is fetched from them.

use crate::common::address::own_address;
use crate::common::fixture::Fixture;
use crate::common::gateway::Gateway;
use crate::common::healthy::{Healthy, Player};
use crate::common::nginx::Nginx;
use crate::common::proxy::{Mode, Proxy};
use crate::common::scratch::Scratch;
use crate::common::tools::{Recorder, ffmpeg_publish};
use crate::common::wait::{self, secs};
use serde_json::json;

#[test]
fn push_to_nginx_carries_every_unit() {
    let (nginx, fixture, scratch) = (Nginx::start(), Fixture::h264_aac(6), Scratch::new());
    let gateway = Gateway::with_mountpoints(json!({
        "yard": { "source": { "kind": "publish" }, "grace": "0s", "push": [{ "url": nginx.url("pushed") }] },
    }));
    let viewer = Recorder::ffmpeg(&nginx.url("pushed"), scratch.join("viewer.flv"));
    nginx.wait_for_clients("pushed", 1);
    assert!(ffmpeg_publish(&fixture, &gateway.url("yard")).end_within(secs(30)).success());
    fixture.take().assert_same(&nginx.recorded("pushed"), "nginx's recording");
    fixture.take().assert_same(&viewer.finish(), "ffmpeg behind nginx");
}

#[test]
fn push_to_ffmpegs_listener_carries_every_unit() {
    let (fixture, scratch, address) = (Fixture::h264_aac(6), Scratch::new(), own_address());
    let url = format!("rtmp://{address}/app/stream");
    let mut listener = Recorder::ffmpeg_with(&["-listen", "1"], &url, scratch.join("listener.flv"));
    let gateway = Gateway::with_mountpoints(json!({
        "yard": { "source": { "kind": "publish" }, "grace": "0s", "push": [{ "url": url }] },
    }));
    listener.process().assert_running();
    assert!(ffmpeg_publish(&fixture, &gateway.url("yard")).end_within(secs(30)).success());
    fixture.take().assert_same(&listener.finish(), "ffmpeg's listener");
}

#[test]
fn push_shows_its_key_in_the_query() {
    let fixture = Fixture::h264_aac(6);
    let far = Gateway::with_mountpoints(json!({
        "there": { "source": { "kind": "publish", "key": "live_123-abc" }, "grace": "0s" },
    }));
    let near = Gateway::with_mountpoints(json!({
        "here": { "source": { "kind": "publish" }, "grace": "0s",
                  "push": [{ "url": format!("rtmp://localhost:{}/live/there?x=1&key=live_123-abc", far.rtmp.port()) }] },
    }));
    let player = Player::start(far.rtmp, "there");
    assert!(ffmpeg_publish(&fixture, &near.url("here")).end_within(secs(30)).success());
    fixture.take().assert_same(&player.finish(), "the player at the far gateway");
}

#[test]
fn push_that_comes_late_starts_with_headers_and_a_keyframe() {
    let address = own_address();
    let gateway = Gateway::with_mountpoints(json!({
        "yard": { "source": { "kind": "publish" },
                  "push": [{ "url": format!("rtmp://{address}/live/late"), "backoff_cap": "1s" }] },
    }));
    let healthy = Healthy::start(gateway.rtmp, "yard");
    healthy.wait_for_more(150);
    let nginx = Nginx::at(address);
    nginx.wait_for_publisher("late");
    healthy.wait_for_more(150);
    let sent = healthy.assert_unharmed();
    drop(gateway);
    let late = sent.assert_joined_late(&nginx.recorded("late"), "nginx's recording");
    assert!(late > 0, "it was late");
}

#[test]
fn pull_from_nginx_brings_every_unit() {
    let (nginx, fixture) = (Nginx::start(), Fixture::h264_aac(6));
    let gateway = Gateway::with_mountpoints(json!({
        "far": { "source": { "kind": "pull", "url": nginx.url("origin") }, "grace": "0s" },
    }));
    let player = Player::start(gateway.rtmp, "far");
    nginx.wait_for_clients("origin", 1);
    assert!(ffmpeg_publish(&fixture, &nginx.url("origin")).end_within(secs(30)).success());
    fixture.take().assert_same(&player.finish(), "the player at the gateway");
}

#[test]
fn dead_pushes_delay_no_other() {
    let (nginx, hole) = (Nginx::start(), Proxy::start(own_address()));
    hole.set(Mode::Blackhole);
    let gateway = Gateway::with_mountpoints(json!({
        "yard": { "source": { "kind": "publish" }, "push": [
            { "id": "refused", "url": format!("rtmp://{}/live/a", own_address()) },
            { "id": "hole", "url": format!("rtmp://{}/live/b", hole.address) },
            { "id": "nowhere", "url": "rtmp://name.invalid/live/c" },
            { "id": "good", "url": nginx.url("good") },
        ] },
    }));
    let healthy = Healthy::start(gateway.rtmp, "yard");
    nginx.wait_for_publisher("good");
    healthy.wait_for_more(200);
    let status = gateway.status();
    let pushes = &status["mountpoints"]["yard"]["pushes"];
    assert_eq!(pushes["good"]["state"], "running", "{pushes:#}");
    assert_eq!(pushes["refused"]["state"], "retrying", "{pushes:#}");
    assert!(pushes["refused"]["cause"].is_string(), "{pushes:#}");
    assert!(pushes["refused"]["next_attempt"].is_string(), "{pushes:#}");
    assert_ne!(pushes["nowhere"]["state"], "running", "{pushes:#}");
    assert_ne!(pushes["hole"]["state"], "running", "{pushes:#}");
    wait::until_true("the good push to be live", secs(10), || nginx.is_publishing("good"));
    let sent = healthy.assert_unharmed();
    drop(gateway);
    sent.assert_same(&nginx.recorded("good"), "nginx's recording");
}

#[test]
fn kmp_push_without_a_receiver_says_so_and_hinders_no_other() {
    let nginx = Nginx::start();
    let gateway = Gateway::with_mountpoints(json!({
        "yard": { "source": { "kind": "publish" }, "push": [
            { "id": "kmp", "url": "kmp://127.0.0.1:1", "channel_id": "yard" },
            { "id": "rtmp", "url": nginx.url("yard") },
        ] },
    }));
    let healthy = Healthy::start(gateway.rtmp, "yard");
    nginx.wait_for_publisher("yard");
    wait::until_true("the refusal to be told", secs(20), || {
        let status = gateway.status();
        let kmp = &status["mountpoints"]["yard"]["pushes"]["kmp"];
        kmp["state"] == "starting"
            && kmp["kmp"]["error"].is_string()
            && kmp["kmp"]["unacked_frames"].as_u64() > Some(0)
    });
    healthy.assert_unharmed();
}

#[test]
fn gathering_and_small_chunks_change_nothing_but_the_rhythm() {
    let (nginx, scratch, fixture) = (Nginx::start(), Scratch::new(), Fixture::h264_aac(6));
    let gateway = Gateway::with_mountpoints(json!({
        "yard": { "source": { "kind": "publish" }, "grace": "0s", "play": { "gather": "50ms", "chunk_len": 128 },
                  "push": [{ "url": nginx.url("up"), "gather": "100ms", "chunk_len": 512 }] },
    }));
    let ffmpeg = Recorder::ffmpeg(&gateway.url("yard"), scratch.join("ffmpeg.flv"));
    let own = Player::start(gateway.rtmp, "yard");
    gateway.wait_for_players("yard", 2);
    assert!(ffmpeg_publish(&fixture, &gateway.url("yard")).end_within(secs(30)).success());
    let sent = fixture.take();
    sent.assert_same(&own.finish(), "own player");
    sent.assert_same(&ffmpeg.finish(), "ffmpeg");
    sent.assert_same(&nginx.recorded("up"), "nginx's recording");
}
