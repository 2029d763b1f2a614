//! Publish and play: what real encoders send is what real players get.

use crate::common::amf::Amf;
use crate::common::fixture::{Fixture, hevc_stream};
use crate::common::flv::{AUDIO, Tag, VIDEO};
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Player, Publisher};
use crate::common::hevc;
use crate::common::rtmp::Client;
use crate::common::scratch::Scratch;
use crate::common::take::Take;
use crate::common::tools::{GST_LOSES_LAST, Recorder, ffmpeg_publish, gst_publish};
use crate::common::wait::secs;
use serde_json::json;

#[test]
fn ffmpeg_publishes_and_every_player_gets_every_unit() {
    let gateway =
        Gateway::with_mountpoints(json!({ "yard": { "source": { "kind": "publish" }, "grace": "0s" } }));
    let (scratch, fixture, url) = (Scratch::new(), Fixture::h264_aac(6), gateway.url("yard"));
    let ffmpeg = Recorder::ffmpeg(&url, scratch.join("ffmpeg.flv"));
    let gst = Recorder::gst(&url, scratch.join("gst.flv"));
    let rtmpdump = Recorder::rtmpdump(&url, scratch.join("rtmpdump.flv"));
    let own = Player::start(gateway.rtmp, "yard");
    gateway.wait_for_players("yard", 4);

    let mut publisher = ffmpeg_publish(&fixture, &url);
    assert!(publisher.end_within(secs(30)).success());

    let sent = fixture.take();
    sent.assert_same(&own.finish(), "own player");
    sent.assert_same(&ffmpeg.finish(), "ffmpeg");
    sent.assert_same(&rtmpdump.finish(), "rtmpdump");
    sent.assert_same_but_last(&gst.finish(), GST_LOSES_LAST, "gst");
}

#[test]
fn gstreamer_publishes_and_every_player_gets_every_unit() {
    let gateway =
        Gateway::with_mountpoints(json!({ "yard": { "source": { "kind": "publish" }, "grace": "0s" } }));
    let (scratch, url) = (Scratch::new(), gateway.url("yard"));
    let ffmpeg = Recorder::ffmpeg(&url, scratch.join("ffmpeg.flv"));
    let own = Player::start(gateway.rtmp, "yard");
    gateway.wait_for_players("yard", 2);

    let sent = scratch.join("sent.flv");
    let mut publisher = gst_publish(5, &url, &sent);
    assert!(publisher.end_within(secs(40)).success());

    let sent = Take::read(&sent);
    assert!(sent.video.frames.len() == 150 && sent.audio.frames.len() > 200, "GStreamer sent a whole stream");
    sent.assert_same(&own.finish(), "own player");
    sent.assert_same(&ffmpeg.finish(), "ffmpeg");
}

#[test]
fn connections_move_to_their_mountpoints_media_thread_and_lose_nothing() {
    // Connections are accepted on one thread; whatever they ask for lives on any of three.
    let names = ["one", "two", "three", "four", "five"];
    let mountpoints =
        names.map(|name| (name.to_owned(), json!({ "source": { "kind": "publish" }, "grace": "0s" })));
    let gateway = Gateway::start(json!({
        "media": { "shards": 3 },
        "mountpoints": serde_json::Map::from_iter(mountpoints),
    }));
    let streams = names.map(|name| {
        let players = [Player::start(gateway.rtmp, name), Player::start(gateway.rtmp, name)];
        gateway.wait_for_players(name, 2);
        (name, players, Publisher::start(gateway.rtmp, name, &Fixture::h264_aac(6), 0, End::Polite))
    });
    for (name, players, publisher) in streams {
        publisher.wait_for_more(60);
        let sent = publisher.finish();
        for player in players {
            sent.assert_same(&player.finish(), name);
        }
    }
}

#[test]
fn mp3_and_g711_sound_passes_unchanged() {
    let gateway = Gateway::with_mountpoints(json!({
        "mp3": { "source": { "kind": "publish" }, "grace": "0s" },
        "alaw": { "source": { "kind": "publish" }, "grace": "0s" },
    }));
    let scratch = Scratch::new();
    let streams = [("mp3", Fixture::h264_mp3(4)), ("alaw", Fixture::h264_alaw(4))].map(|(name, fixture)| {
        let url = gateway.url(name);
        let player = Recorder::ffmpeg(&url, scratch.join(&format!("{name}.flv")));
        gateway.wait_for_players(name, 1);
        (name, ffmpeg_publish(&fixture, &url), player, fixture)
    });
    for (name, mut publisher, player, fixture) in streams {
        assert!(publisher.end_within(secs(30)).success());
        assert!(!fixture.take().audio.frames.is_empty());
        fixture.take().assert_same(&player.finish(), name);
    }
}

#[test]
fn hevc_by_enhanced_rtmp_passes_unchanged() {
    let gateway =
        Gateway::with_mountpoints(json!({ "yard": { "source": { "kind": "publish" }, "grace": "0s" } }));
    let mut tags = hevc::tags(&hevc_stream(4), 1000.0 / 30.0);
    assert_eq!(tags.len(), 1 + 120, "a header and four seconds of pictures");
    tags.extend(Fixture::h264_aac(6).tags().into_iter().filter(|tag| tag.kind == AUDIO && tag.ts < 4_000));
    tags.sort_by_key(|tag| tag.ts);

    let player = Player::start(gateway.rtmp, "yard");
    let (client, stream) = Client::publishing(gateway.rtmp, "yard").unwrap();
    let publisher = Publisher::with(client, stream, "yard", tags, 0, End::Polite);
    publisher.wait_for_more(250);
    let late = Player::start(gateway.rtmp, "yard");
    late.wait_for_more(20);
    let sent = publisher.finish();
    sent.assert_same(&player.finish(), "the player that was there first");
    let missed = sent.assert_joined_late(&late.finish(), "the player that came late");
    assert!(missed > 0, "it was late");
}

#[test]
fn parameters_that_change_arrive_before_what_needs_them() {
    let gateway = Gateway::with_mountpoints(json!({ "yard": { "source": { "kind": "publish" } } }));
    let player = Player::start(gateway.rtmp, "yard");
    let (mut client, stream) = Client::publishing(gateway.rtmp, "yard").unwrap();
    let mut tags = Fixture::h264_aac(6).tags();
    tags.retain(|tag| tag.ts < 2_000);
    let mut later = Fixture::other_h264_aac(4).tags();
    later.retain(|tag| tag.ts < 2_000);
    tags.extend(later.into_iter().map(|mut tag| {
        tag.ts += 2_000;
        tag
    }));
    for tag in &tags {
        client.media(stream, tag).unwrap();
    }
    let got = player.tags();
    Take::of(&tags).assert_same(&Take::of(&got), "across the change");
    let order = |all: &[Tag]| -> Vec<bool> {
        let mut marks: Vec<bool> = Vec::new();
        for tag in all.iter().filter(|tag| tag.kind == VIDEO && tag.body.get(1) != Some(&2)) {
            if !(tag.is_header() && marks.last() == Some(&true)) {
                marks.push(tag.is_header());
            }
        }
        marks
    };
    assert_eq!(order(&tags), order(&got), "headers stand where they stood");
    drop(client);
}

/// Sixty units of a sound codec, after its header where it has one.
fn sound_passes(gateway: &Gateway, name: &str, fourcc: &[u8; 4], header: Option<&[u8]>) {
    let mut tags: Vec<_> = header
        .map(|header| Tag { kind: AUDIO, ts: 0, body: [&[0x90][..], fourcc, header].concat() })
        .into_iter()
        .collect();
    for n in 0..60_u32 {
        // What is in a unit is nobody's business on the way.
        let unit: Vec<u8> = (0..200_u32).map(|i| (i.wrapping_mul(n + 7) >> 3) as u8).collect();
        tags.push(Tag { kind: AUDIO, ts: n * 20, body: [&[0x91][..], fourcc, &unit].concat() });
    }
    passes(gateway, name, &tags);
}

fn passes(gateway: &Gateway, name: &str, tags: &[Tag]) {
    let player = Player::start(gateway.rtmp, name);
    let (mut client, stream) = Client::publishing(gateway.rtmp, name).unwrap();
    for tag in tags {
        client.media(stream, tag).unwrap();
    }
    Take::of(tags).assert_same(&player.finish(), name);
    drop(client);
}

#[test]
fn other_codecs_of_enhanced_rtmp_pass_unchanged() {
    let gateway = Gateway::with_mountpoints(json!({
        "opus": { "source": { "kind": "publish" } },
        "ac3": { "source": { "kind": "publish" } },
        "flac": { "source": { "kind": "publish" } },
        "vp9": { "source": { "kind": "publish" } },
        "av1": { "source": { "kind": "publish" } },
    }));
    let opus_head = [&b"OpusHead"[..], &[1, 2, 0x38, 1, 0x80, 0xbb, 0, 0, 0, 0, 0]].concat();
    sound_passes(&gateway, "opus", b"Opus", Some(&opus_head));
    sound_passes(&gateway, "ac3", b"ac-3", None);
    let stream_info = [
        &b"fLaC"[..],
        &[0x80, 0, 0, 34, 0x10, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x0a, 0xc4, 0x42, 0xf0],
        &[0; 20],
    ]
    .concat();
    sound_passes(&gateway, "flac", b"fLaC", Some(&stream_info));

    // 8 bit 4:2:0 at 320x180, profile 0.
    let vp9_config = [1, 0, 0, 0, 0, 20, 0x82, 2, 2, 2, 0, 0];
    let av1_config = [0x81, 0, 0x0c, 0, 0x0a, 0x0b, 0, 0, 0, 2, 0xaf, 0xff, 0x9b, 0x5f, 0x30, 0x08, 0];
    for (name, fourcc, config) in [("vp9", b"vp09", &vp9_config[..]), ("av1", b"av01", &av1_config[..])] {
        let mut tags = vec![Tag { kind: VIDEO, ts: 0, body: [&[0x90][..], fourcc, config].concat() }];
        for n in 0..60_u32 {
            let first = if n % 30 == 0 { 0x91 } else { 0xa1 };
            // An OBU of type frame, and a VP9 frame marker: enough to be passed on.
            let unit = [&[0x82, 0x49, 0x83, 0x42][..], &[n as u8; 300]].concat();
            tags.push(Tag { kind: VIDEO, ts: n * 33, body: [&[first][..], fourcc, &unit].concat() });
        }
        passes(&gateway, name, &tags);
    }
}

#[test]
fn connect_answer_names_the_codecs() {
    let gateway = Gateway::with_mountpoints(json!({ "yard": { "source": { "kind": "publish" } } }));
    let answer = Client::open(gateway.rtmp).connect_answer("live").unwrap();
    let info = answer.get(3).expect("an information object");
    let Some(Amf::List(list)) = info.get("fourCcList") else { panic!("no fourCcList: {info:?}") };
    for name in ["hvc1", "av01", "vp09", "Opus", "ac-3", "fLaC"] {
        assert!(list.contains(&Amf::text(name)), "{name} is not in {list:?}");
    }
}

#[test]
fn nanosecond_offsets_are_understood() {
    let gateway = Gateway::with_mountpoints(json!({ "yard": { "source": { "kind": "publish" } } }));
    let plain = hevc::tags(&hevc_stream(4), 1000.0 / 30.0);
    let player = Player::start(gateway.rtmp, "yard");
    let (mut client, stream) = Client::publishing(gateway.rtmp, "yard").unwrap();
    for tag in &plain {
        // ModEx: three bytes of TimestampOffsetNano before the packet type proper, then FourCC and payload.
        let (first, rest) = tag.body.split_first().unwrap();
        let packet_type = first & 0x0f;
        let mut body = vec![first & 0xf0 | 7, 2, 0, 0x61, 0xa8, packet_type];
        body.extend(rest);
        client.media(stream, &Tag { body, ..tag.clone() }).unwrap();
    }
    Take::of(&plain).assert_same(&player.finish(), "with nanosecond offsets");
    drop(client);
}
