//! What goes on across a publisher's return, a killed process and a stop.

use crate::common::address::own_address;
use crate::common::fixture::Fixture;
use crate::common::flv::{AUDIO, VIDEO};
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Player, Publisher};
use crate::common::nginx::Nginx;
use crate::common::rtmp::Client;
use crate::common::scratch::Scratch;
use crate::common::take::Take;
use crate::common::wait::{self, secs};
use serde_json::{Value, json};
use std::sync::Arc;

#[test]
fn player_and_push_stay_while_the_publisher_reconnects() {
    let nginx = Nginx::start();
    let gateway = Gateway::with_mountpoints(json!({
        "yard": { "source": { "kind": "publish" }, "grace": "20s", "push": [{ "url": nginx.url("up") }] },
    }));
    let (player, fixture) = (Player::start(gateway.rtmp, "yard"), Fixture::h264_aac(6));
    let first = Publisher::start(gateway.rtmp, "yard", &fixture, 90_000, End::Abrupt);
    first.wait_for_more(150);
    let first = first.finish();
    let (client, stream) =
        wait::until("the place to be free", secs(10), || Client::publishing(gateway.rtmp, "yard").ok());
    assert!(!player.is_closed(), "the player keeps its connection");
    // The second one's clock starts anew, far before the first one's.
    let second = Publisher::with(client, stream, "yard", fixture.tags(), 0, End::Abrupt);
    second.wait_for_more(150);
    let second = second.finish();
    assert!(!player.is_closed(), "the player keeps its connection");
    let tags = player.tags();
    assert_continued(&first, &second, &Take::of(&tags), "player");
    drop(gateway);
    assert_continued(&first, &second, &nginx.recorded("up"), "push");
    for kind in [AUDIO, VIDEO] {
        let times: Vec<_> = tags.iter().filter(|tag| tag.kind == kind).map(|tag| tag.ts).collect();
        assert!(times.is_sorted(), "times go on");
    }
}

/// Every unit of the first, then every unit of the second, on one timeline.
fn assert_continued(first: &Take, second: &Take, got: &Take, who: &str) {
    for (name, one, two, got) in [
        ("video", &first.video, &second.video, &got.video),
        ("audio", &first.audio, &second.audio, &got.audio),
    ] {
        let sent: Vec<_> = one.frames.iter().chain(&two.frames).map(|frame| &frame.payload).collect();
        let came: Vec<_> = got.frames.iter().map(|frame| &frame.payload).collect();
        assert_eq!(sent.len(), came.len(), "{who}: {name}: number of units");
        assert!(sent == came, "{who}: {name}: other units than sent");
        let seam = one.frames.len();
        let step = got.frames[seam].dts - got.frames[seam - 1].dts;
        assert!((0..20_000).contains(&step), "{who}: {name}: the seam is {step} ms wide");
    }
}

#[test]
fn kill_and_restart_bring_the_same_config_and_streams_back() {
    let (nginx, scratch, fixture) = (Nginx::start(), Arc::new(Scratch::new()), Fixture::h264_aac(6));
    let (rtmp, admin) = (own_address(), own_address());
    let base = json!({
        "rtmp": { "listen": [rtmp.to_string()] },
        "admin": { "listen": [admin.to_string()] },
        "mountpoints": { "yard": { "source": { "kind": "publish" }, "push": [{ "url": nginx.url("yard") }] } },
    });
    let mut gateway = Gateway::start_in(scratch.clone(), base.clone(), |_| {});
    let mut wanted = base.clone();
    wanted["mountpoints"]["added"] =
        json!({ "source": { "kind": "publish" }, "push": [{ "url": nginx.url("added") }] });
    let (_, tag) = gateway.config();
    let answer = gateway.put_config(&wanted, Some(&tag));
    assert_eq!(answer.status, 200, "{}", answer.text());
    for round in 1..=3 {
        let (before, revision) = gateway.config();
        let publishers = ["yard", "added"].map(|name| Publisher::start(rtmp, name, &fixture, 0, End::Abrupt));
        let player = Player::start(rtmp, "yard");
        for name in ["yard", "added"] {
            nginx.wait_for_publisher(name);
        }
        player.wait_for_more(100);
        gateway.process().kill();
        drop(publishers);
        wait::until_true("nginx to see it", secs(20), || {
            !nginx.is_publishing("yard") && !nginx.is_publishing("added")
        });
        // The file given at start is the first config only; what was confirmed since stands.
        gateway = Gateway::start_in(scratch.clone(), base.clone(), |_| {});
        assert_eq!(gateway.config(), (before, revision), "the same config after kill {round}");
    }
    let player = Player::start(rtmp, "added");
    let publisher = Publisher::start(rtmp, "added", &fixture, 0, End::Polite);
    nginx.wait_for_publisher("added");
    player.wait_for_more(100);
    publisher.finish().assert_same(&player.finish(), "after the last restart");
}

#[test]
fn replace_makes_the_file_the_config() {
    let scratch = Arc::new(Scratch::new());
    let one = json!({ "mountpoints": { "one": { "source": { "kind": "publish" } } } });
    let two = json!({ "mountpoints": { "two": { "source": { "kind": "publish" } } } });
    let names = |gateway: &Gateway| -> Vec<String> {
        let (config, _) = gateway.config();
        config["mountpoints"].as_object().unwrap().keys().cloned().collect()
    };
    let mut gateway = Gateway::start_in(scratch.clone(), one, |_| {});
    assert_eq!(names(&gateway), ["one"]);
    gateway.stop();
    let mut gateway = Gateway::start_in(scratch.clone(), two.clone(), |_| {});
    assert_eq!(names(&gateway), ["one"], "without --replace the stored one stands");
    gateway.stop();
    let gateway = Gateway::start_in(scratch, two, |command| {
        command.arg("--replace");
    });
    assert_eq!(names(&gateway), ["two"]);
}

#[test]
fn sigterm_stops_cleanly() {
    let nginx = Nginx::start();
    let mut gateway = Gateway::with_mountpoints(json!({
        "yard": { "source": { "kind": "publish" }, "push": [{ "url": nginx.url("up") }] },
    }));
    let (mut client, stream) = Client::publishing(gateway.rtmp, "yard").unwrap();
    let tags = Fixture::h264_aac(6).tags();
    for tag in tags.iter().take_while(|tag| tag.ts < 1_500) {
        client.media(stream, tag).unwrap();
    }
    let player = Player::start(gateway.rtmp, "yard");
    wait::until_true("the player to play", secs(20), || player.got() >= 20);
    nginx.wait_for_publisher("up");
    let status = gateway.stop();
    assert_eq!(status.code(), Some(0), "{}", gateway.process().log());
    wait::until_true("the player to be closed", secs(5), || player.is_closed());
    assert!(client.is_closed_within(secs(5)), "the publisher is closed");
    wait::until_true("the push to end", secs(5), || !nginx.is_publishing("up"));
}

#[test]
fn broken_config_file_never_becomes_defaults() {
    let scratch = Arc::new(Scratch::new());
    let config = json!({ "mountpoints": { "precious": { "source": { "kind": "publish" } } } });
    let mut gateway = Gateway::start_in(scratch.clone(), config.clone(), |_| {});
    // A second revision, so that there is a previous confirmed one.
    let (mut wanted, tag) = gateway.config();
    wanted["mountpoints"]["second"] = json!({ "source": { "kind": "publish" } });
    assert_eq!(gateway.put_config(&wanted, Some(&tag)).status, 200);
    gateway.stop();
    let confirmed = scratch.join("state").join("confirmed.json");
    assert!(
        confirmed.exists(),
        "{:?}",
        std::fs::read_dir(scratch.join("state")).unwrap().collect::<Vec<_>>()
    );
    std::fs::write(&confirmed, b"{ \"mountpoints\": {").unwrap();
    let gateway = Gateway::start_in(scratch, json!({ "mountpoints": {} }), |_| {});
    let (now, _) = gateway.config();
    assert!(now["mountpoints"]["precious"].is_object(), "the previous config serves: {now:#}");
    let status = gateway.status();
    let notices = status["notices"].as_array().unwrap();
    let told = |notice: &Value| notice["code"] == "config_unreadable";
    assert!(notices.iter().any(told), "{status:#}");
}
