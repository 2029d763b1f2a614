//! Real players.

use crate::common::fixture::Fixture;
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Publisher};
use crate::common::process::Process;
use crate::common::rtsp::nal_units;
use crate::common::scratch::Scratch;
use crate::common::take::Take;
use crate::common::tools::Recorder;
use crate::common::wait::{self, secs};
use crate::rules;
use crate::viewer::{Viewer, gateway, url_of};
use serde_json::json;
use std::path::PathBuf;

/// ffmpeg plays `file`, `ahead` units after somebody else began; what it got is what was published, once `same` has made
/// both comparable.
fn ffmpeg_plays(gateway: &Gateway, file: &str, ahead: usize, options: &[&str], same: fn(&mut Take)) {
    let scratch = Scratch::new();
    let publisher = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(6), 0, End::Polite);
    publisher.wait_for_more(30);
    Viewer::open(gateway);
    publisher.wait_for_more(ahead);
    let mut player = Recorder::ffmpeg_with(options, &url_of(gateway, file), scratch.join("got.flv"));
    player.wait_for_media();
    publisher.wait_for_more(800);
    // It ends first: at a stream's end ffmpeg reads the last segment by DASH again and again.
    player.process().finish(secs(1));
    let (mut sent, mut got) = (publisher.finish(), player.finish());
    same(&mut sent);
    same(&mut got);
    sent.assert_pieces(&got, file);
    sent.assert_offset_kept(&got, file);
    assert!(got.video.frames.len() > 180, "{} pictures", got.video.frames.len());
    assert!(got.audio.frames.len() > 240, "{} sounds", got.audio.frames.len());
}

#[test]
fn ffmpeg_plays_what_was_published() {
    let gateway = gateway(json!({ "idle": "5s" }));
    ffmpeg_plays(&gateway, "master.m3u8", 0, &["-live_start_index", "0"], |_| ());
    wait::until_true("the end of watching", secs(90), || {
        !gateway.status()["mountpoints"]["yard"]["watching"]["is_cut"].as_bool().unwrap()
    });
}

#[test]
fn ffmpeg_plays_dash_by_numbers() {
    // It counts wrongly while a stream is younger than its window.
    ffmpeg_plays(&gateway(json!({ "window": "6s" })), "number.mpd", 600, &[], |_| ());
}

#[test]
fn ffmpeg_plays_mpeg_ts() {
    // Delimiters and parameter sets are put in, as MPEG-TS wants them.
    let slices_alone = |take: &mut Take| {
        for frame in &mut take.video.frames {
            let nals = nal_units(frame).into_iter().filter(|nal| matches!(nal[0] & 0x1f, 1..=5));
            frame.payload = nals.flat_map(<[u8]>::to_vec).collect();
        }
    };
    ffmpeg_plays(&gateway(json!({})), "mpegts.m3u8", 0, &["-live_start_index", "0"], slices_alone);
}

/// GStreamer plays by this demuxer of HLS or DASH, and keeps the pictures.
fn gst_recorder(demuxer: &str, url: &str, file: PathBuf) -> Recorder {
    let args = format!(
        "-q -e souphttpsrc location={url} ! {demuxer} name=in in. ! parsebin ! h264parse \
         ! video/x-h264,stream-format=avc,alignment=au ! flvmux streamable=true \
         ! filesink async=false buffer-mode=unbuffered location={}",
        file.display(),
    );
    Recorder::of(Process::start("gst-launch-1.0", &args.split_whitespace().collect::<Vec<_>>()), file)
}

#[test]
fn gstreamer_plays_what_was_published() {
    gstreamer_plays("hlsdemux", "master.m3u8", |_| ());
}

// ffmpeg 5.1 loses its place in a timeline that grows: it reads segments twice.
#[test]
fn gstreamer_plays_dash_by_times() {
    // Its FLV muxer has no times before the period's beginning, where the first picture is decoded.
    let without_offsets = |take: &mut Take| {
        for frame in &mut take.video.frames {
            frame.offset = 0;
        }
    };
    gstreamer_plays("dashdemux", "manifest.mpd", without_offsets);
}

fn gstreamer_plays(demuxer: &str, file: &str, same: fn(&mut Take)) {
    let (gateway, scratch) = (gateway(json!({})), Scratch::new());
    let publisher = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(6), 0, End::Polite);
    publisher.wait_for_more(30);
    let mut player = gst_recorder(demuxer, &url_of(&gateway, file), scratch.join("got.flv"));
    player.wait_for_media();
    publisher.wait_for_more(600);
    let (mut sent, mut got) = (publisher.finish(), player.finish());
    same(&mut sent);
    same(&mut got);
    sent.assert_pieces(&got, demuxer);
    assert!(got.video.frames.len() >= 120, "{} pictures", got.video.frames.len());
}

#[test]
fn playlists_keep_the_rules_from_one_reload_to_the_next() {
    let gateway = gateway(json!({ "window": "6s" }));
    let publisher = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(6), 0, End::Polite);
    publisher.wait_for_more(10);
    let viewer = Viewer::open(&gateway);
    for line in ["CODECS=\"avc1.", "mp4a.40.2\"", "RESOLUTION=320x180", "FRAME-RATE=30.000", "TYPE=AUDIO"] {
        assert!(viewer.master.contains(line), "{line} in {}", viewer.master);
    }
    for file in ["video.m3u8", "audio.m3u8"] {
        let mut before = rules::read(&viewer.text(file));
        let (mut msn, mut part) = (before.first + before.segments.len() as u64, before.growing.len());
        for _ in 0..14 {
            // The next part is waited for by the gateway.
            let after = rules::read(&viewer.text(&format!("{file}?_HLS_msn={msn}&_HLS_part={part}")));
            rules::check_update(&before, &after);
            let newest = after.first + after.segments.len() as u64;
            assert!(
                (newest, after.growing.len()) > (msn, part) || newest == msn && after.growing.len() > part
            );
            assert_eq!(after.reports.len(), 1, "bis 4.4.5.4: where the other rendition stands");
            (msn, part) = (newest, after.growing.len());
            before = after;
        }
        let last = before.segments.last().unwrap();
        let whole = viewer.get(&last.uri).body;
        let parts: Vec<u8> = last.parts.iter().flat_map(|part| viewer.get(&part.uri).body).collect();
        assert!(!whole.is_empty() && whole == parts, "parts are the segment");
        let hinted = viewer.get(before.hint.as_ref().unwrap());
        assert_eq!(hinted.status, 200, "a part that is announced is waited for");
    }
}
