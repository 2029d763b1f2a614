//! Who may publish and play what, and what the others are told.

use crate::common::fixture::Fixture;
use crate::common::flv::{AUDIO, VIDEO};
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Healthy, Player, Publisher};
use crate::common::rtmp::Client;
use crate::common::scratch::Scratch;
use crate::common::tools::{Recorder, ffmpeg_publish};
use crate::common::wait::secs;
use serde_json::json;
use std::net::{SocketAddr, UdpSocket};

fn code<T>(outcome: Result<T, crate::common::rtmp::Refusal>) -> String {
    match outcome {
        Ok(_) => "allowed".to_owned(),
        Err(refusal) => refusal.code,
    }
}

#[test]
fn late_player_starts_with_headers_and_a_keyframe_and_misses_nothing_after() {
    let gateway =
        Gateway::with_mountpoints(json!({ "yard": { "source": { "kind": "publish" }, "grace": "0s" } }));
    let publisher = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(6), 0, End::Polite);
    publisher.wait_for_more(260);
    let scratch = Scratch::new();
    let mut ffmpeg = Recorder::ffmpeg(&gateway.url("yard"), scratch.join("late.flv"));
    let own = Player::start(gateway.rtmp, "yard");
    own.wait_for_more(150);
    ffmpeg.wait_for_media();
    let sent = publisher.finish();

    let tags = own.tags();
    let first =
        |kind, header| tags.iter().position(|tag| tag.kind == kind && tag.is_header() == header).unwrap();
    assert!(first(VIDEO, true) < first(VIDEO, false), "the picture's header comes before any picture");
    assert!(first(AUDIO, true) < first(AUDIO, false), "the sound's header comes before any sound");
    let late = sent.assert_joined_late(&crate::common::take::Take::of(&tags), "own player");
    assert!(late > 0, "it was late");
    sent.assert_joined_late(&ffmpeg.finish(), "ffmpeg");
}

#[test]
fn second_publisher_is_told_bad_name_and_the_first_goes_on() {
    let gateway = Gateway::with_mountpoints(json!({ "yard": { "source": { "kind": "publish" } } }));
    let healthy = Healthy::start(gateway.rtmp, "yard");
    for _ in 0..3 {
        assert_eq!(code(Client::publishing(gateway.rtmp, "yard")), "NetStream.Publish.BadName");
    }
    let mut second = ffmpeg_publish(&Fixture::h264_aac(6), &gateway.url("yard"));
    assert!(!second.end_within(secs(20)).success(), "ffmpeg is refused too");
    healthy.assert_unharmed();
}

#[test]
fn unknown_application_is_rejected() {
    let gateway = Gateway::with_mountpoints(json!({ "yard": { "source": { "kind": "publish" } } }));
    for app in ["nonsense", "", "LIVE", "live2"] {
        let refusal = Client::open(gateway.rtmp).connect(app).unwrap_err();
        assert_eq!(refusal.code, "NetConnection.Connect.Rejected", "{app:?}");
    }
}

#[test]
fn unknown_names_are_refused() {
    let gateway = Gateway::with_mountpoints(json!({ "yard": { "source": { "kind": "publish" } } }));
    for name in ["nonsense", "yard2", "YARD", "../yard", "yard/more"] {
        let refusal =
            Client::publishing(gateway.rtmp, name).err().unwrap_or_else(|| panic!("{name} may publish"));
        assert!(refusal.code.starts_with("NetStream.Publish."), "{name}: {refusal:?}");
        assert_eq!(code(Client::playing(gateway.rtmp, name)), "NetStream.Play.StreamNotFound", "{name}");
    }
}

#[test]
fn player_before_the_publisher_waits_or_is_refused_as_set() {
    let gateway = Gateway::with_mountpoints(json!({
        "waits": { "source": { "kind": "publish" }, "grace": "0s" },
        "refuses": { "source": { "kind": "publish" }, "play": { "when_absent": "refuse" }, "grace": "0s" },
    }));
    assert_eq!(code(Client::playing(gateway.rtmp, "refuses")), "NetStream.Play.StreamNotFound");
    let waiting = Player::start(gateway.rtmp, "waits");
    let fixture = Fixture::h264_aac(6);
    let publishers =
        ["waits", "refuses"].map(|name| Publisher::start(gateway.rtmp, name, &fixture, 0, End::Polite));
    waiting.wait_for_more(20);
    let mut late = Client::playing(gateway.rtmp, "refuses").expect("there is a stream now");
    assert!(late.tag(secs(10)).is_ok());
    let [first, second] = publishers.map(Publisher::finish);
    first.assert_same(&waiting.finish(), "the one that waited");
    drop(second);
}

#[test]
fn keys_open_and_wrong_or_missing_ones_do_not() {
    let gateway = Gateway::with_mountpoints(json!({
        "yard": { "source": { "kind": "publish", "key": "s3cret" }, "play": { "key": "v1ew" } },
    }));
    for name in ["yard", "yard?key=", "yard?key=wrong", "yard?key=s3cre", "yard?key=s3cret2", "yard?key=v1ew"]
    {
        assert_ne!(code(Client::publishing(gateway.rtmp, name)), "allowed", "publish {name}");
    }
    let fixture = Fixture::h264_aac(6);
    let publisher = Publisher::start(gateway.rtmp, "yard?key=s3cret", &fixture, 0, End::Polite);
    for name in ["yard", "yard?key=", "yard?key=wrong", "yard?key=v1e", "yard?key=s3cret"] {
        assert_ne!(code(Client::playing(gateway.rtmp, name)), "allowed", "play {name}");
    }
    let player = Player::start(gateway.rtmp, "yard?key=v1ew");
    player.wait_for_more(20);
    let shown =
        gateway.status().to_string() + &gateway.config().0.to_string() + &gateway.get("/metrics").text();
    assert!(!shown.contains("s3cret") && !shown.contains("v1ew"), "keys are never shown");
    let sent = publisher.finish();
    sent.assert_joined_late(&player.finish(), "the player with the key");
}

#[test]
fn real_encoders_and_players_show_their_keys() {
    let gateway = Gateway::with_mountpoints(json!({
        "yard": { "source": { "kind": "publish", "key": "s3cret" }, "play": { "key": "v1ew" }, "grace": "0s" },
    }));
    let (scratch, fixture) = (Scratch::new(), Fixture::h264_aac(6));
    let url = |key: &str| gateway.url(&format!("yard?key={key}"));
    let ffmpeg = Recorder::ffmpeg(&url("v1ew"), scratch.join("ffmpeg.flv"));
    let rtmpdump = Recorder::rtmpdump(&url("v1ew"), scratch.join("rtmpdump.flv"));
    gateway.wait_for_players("yard", 2);
    let mut refused = ffmpeg_publish(&fixture, &url("wrong"));
    assert!(!refused.end_within(secs(20)).success());
    assert!(ffmpeg_publish(&fixture, &url("s3cret")).end_within(secs(30)).success());
    fixture.take().assert_same(&ffmpeg.finish(), "ffmpeg");
    fixture.take().assert_same(&rtmpdump.finish(), "rtmpdump");
}

#[test]
fn allow_lists_and_keys_both_must_fit_for_who_comes_from_elsewhere() {
    // The address that this machine would reach others from; nothing is sent.
    let own = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    let Some(own) = own.ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback()) else {
        println!("skipped: this machine has no address but loopback");
        return;
    };
    let gateway = Gateway::start(json!({
        "rtmp": { "listen": ["0.0.0.0:0"] },
        "mountpoints": {
            "closed": { "source": { "kind": "publish" } },
            "listed": { "source": { "kind": "publish", "allow": [own.to_string()] } },
            "keyed": { "source": { "kind": "publish", "key": "k" } },
            "other": { "source": { "kind": "publish", "key": "k", "allow": ["198.51.100.0/24"] },
                       "play": { "key": "k", "allow": ["198.51.100.0/24"] } },
            "both": { "source": { "kind": "publish", "key": "k", "allow": [own.to_string()] } },
        },
    }));
    let address = SocketAddr::new(own, gateway.rtmp.port());
    assert_ne!(code(Client::publishing(address, "closed")), "allowed", "neither key nor list: loopback only");
    assert_ne!(code(Client::playing(address, "closed")), "allowed", "likewise to play");
    assert_eq!(code(Client::publishing(address, "listed")), "allowed");
    assert_eq!(code(Client::publishing(address, "keyed?key=k")), "allowed");
    assert_ne!(code(Client::publishing(address, "other?key=k")), "allowed", "the key alone");
    assert_ne!(code(Client::playing(address, "other?key=k")), "allowed", "the key alone");
    assert_ne!(code(Client::publishing(address, "both")), "allowed", "the address alone");
    assert_eq!(code(Client::publishing(address, "both?key=k")), "allowed");
}

#[test]
fn template_makes_streams_up_to_its_limit() {
    let gateway = Gateway::with_mountpoints(json!({
        "s*": { "source": { "kind": "publish" }, "max": 2 },
        "special": { "source": { "kind": "publish", "key": "k" } },
    }));
    let fixture = Fixture::h264_aac(6);
    assert_eq!(
        code(Client::playing(gateway.rtmp, "s1")),
        "NetStream.Play.StreamNotFound",
        "nobody publishes it yet"
    );
    let streams = ["s1", "s2"].map(|name| {
        let publisher = Publisher::start(gateway.rtmp, name, &fixture, 0, End::Polite);
        let player = Player::start(gateway.rtmp, name);
        player.wait_for_more(20);
        (publisher, player)
    });
    assert_ne!(code(Client::publishing(gateway.rtmp, "s3")), "allowed", "two are the limit");
    assert_ne!(code(Client::publishing(gateway.rtmp, "t1")), "allowed", "it does not start with s");
    assert_ne!(
        code(Client::publishing(gateway.rtmp, "special")),
        "allowed",
        "an exact name wins over the template"
    );
    assert_eq!(code(Client::publishing(gateway.rtmp, "special?key=k")), "allowed");
    for (publisher, player) in streams {
        player.wait_for_more(50);
        publisher.finish().assert_joined_late(&player.finish(), "a stream of the template");
    }
}
