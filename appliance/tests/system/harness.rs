//! The harness proves itself: real peers through nginx-rtmp, where the gateway has no part.

use crate::common::fixture::Fixture;
use crate::common::healthy::{End, Player, Publisher};
use crate::common::nginx::Nginx;
use crate::common::proxy::{Mode, Proxy};
use crate::common::scratch::Scratch;
use crate::common::take::Take;
use crate::common::tools::{GST_LOSES_LAST, Recorder, ffmpeg_publish, gst_publish};
use crate::common::wait::{self, secs};

#[test]
fn what_ffmpeg_sends_through_nginx_compares_equal() {
    let (nginx, scratch, fixture) = (Nginx::start(), Scratch::new(), Fixture::h264_aac(6));
    let ffmpeg = Recorder::ffmpeg(&nginx.url("a"), scratch.join("ffmpeg.flv"));
    let gst = Recorder::gst(&nginx.url("a"), scratch.join("gst.flv"));
    let rtmpdump = Recorder::rtmpdump(&nginx.url("a"), scratch.join("rtmpdump.flv"));
    nginx.wait_for_clients("a", 3);
    let own = Player::start(nginx.rtmp, "a");
    let mut publisher = ffmpeg_publish(&fixture, &nginx.url("a"));
    assert!(publisher.end_within(secs(30)).success());
    let sent = fixture.take();
    sent.assert_same(&nginx.recorded("a"), "nginx's recording");
    sent.assert_same(&own.finish(), "own player");
    sent.assert_same(&ffmpeg.finish(), "ffmpeg");
    sent.assert_same_but_last(&gst.finish(), GST_LOSES_LAST, "gst");
    sent.assert_same(&rtmpdump.finish(), "rtmpdump");
}

#[test]
fn own_publisher_through_nginx_compares_equal() {
    let (nginx, fixture) = (Nginx::start(), Fixture::h264_aac(6));
    let player = Player::start(nginx.rtmp, "a");
    let publisher = Publisher::start(nginx.rtmp, "a", &fixture, 0, End::Polite);
    player.wait_for_more(100);
    let sent = publisher.finish();
    sent.assert_same(&player.finish(), "own player");
}

#[test]
fn what_gstreamer_sends_through_nginx_compares_equal() {
    let (nginx, scratch) = (Nginx::start(), Scratch::new());
    let own = Player::start(nginx.rtmp, "a");
    let sent = scratch.join("sent.flv");
    let mut publisher = gst_publish(5, &nginx.url("a"), &sent);
    assert!(publisher.end_within(secs(40)).success());
    let sent = Take::read(&sent);
    assert!(sent.video.frames.len() == 150 && sent.audio.frames.len() > 200);
    sent.assert_same(&own.finish(), "own player");
}

#[test]
fn proxy_stalls_without_loss_and_resets() {
    let nginx = Nginx::start();
    let uplink = Proxy::start(nginx.rtmp);
    let player = Player::start(uplink.address, "a");
    let publisher = Publisher::start(nginx.rtmp, "a", &Fixture::h264_aac(6), 0, End::Polite);
    player.wait_for_more(100);
    uplink.set(Mode::Stall);
    std::thread::sleep(secs(1));
    let got = player.got();
    std::thread::sleep(secs(1));
    assert_eq!(player.got(), got, "nothing comes while it stalls");
    uplink.set(Mode::Pass);
    player.wait_for_more(150);
    let reset = Player::start(uplink.address, "a");
    let sent = publisher.finish();
    sent.assert_same(&player.finish(), "across the stall");
    uplink.set(Mode::Reset);
    wait::until_true("the reset", secs(5), || reset.is_closed());
}
