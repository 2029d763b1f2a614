//! Publish and play: what real encoders send is what real players get.

use crate::common::fixture::{Fixture, hevc_stream};
use crate::common::flv::AUDIO;
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
    let order = |all: &[crate::common::flv::Tag]| -> Vec<bool> {
        let mut marks: Vec<bool> = Vec::new();
        for tag in
            all.iter().filter(|tag| tag.kind == crate::common::flv::VIDEO && tag.body.get(1) != Some(&2))
        {
            if !(tag.is_header() && marks.last() == Some(&true)) {
                marks.push(tag.is_header());
            }
        }
        marks
    };
    assert_eq!(order(&tags), order(&got), "headers stand where they stood");
    drop(client);
}
