//! Sources other than RTSP and local cameras: files.

use crate::common::fixture::Fixture;
use crate::common::gateway::Gateway;
use crate::common::healthy::Player;
use crate::common::process::Process;
use crate::common::rtsp::nal_units;
use crate::common::scratch::Scratch;
use crate::common::take::Take;
use crate::common::wait::{self, secs};
use serde_json::json;
use std::path::Path;

/// The same recording in another container.
fn as_mp4(fixture: &Fixture, to: &Path) {
    let args = ["-nostdin", "-v", "error", "-y", "-i", fixture.file(), "-c", "copy", to.to_str().unwrap()];
    Process::run("ffmpeg", &args, secs(60));
}

/// Panics unless the recording came unchanged, again and again, in even time.
fn assert_loops(sent: &Take, got: &Take, who: &str) {
    let length = sent.video.frames.len();
    let pictures: Vec<_> = got.video.frames.iter().map(nal_units).collect();
    assert!(pictures.len() > length * 2, "{who}: {} pictures", pictures.len());
    let first = sent.video.frames.iter().position(|frame| nal_units(frame) == pictures[0]);
    let first = first.expect("the first picture is one of the file's");
    for (at, picture) in pictures.iter().enumerate() {
        let wanted = nal_units(&sent.video.frames[(first + at) % length]);
        assert!(*picture == wanted, "{who}: picture {at} is not that of the file");
    }
    // By the players' clock: decode times go on as in the file, through the end and the beginning.
    let times: Vec<i64> = got.video.frames.iter().map(|frame| frame.dts).collect();
    for (at, pair) in times.windows(2).enumerate() {
        // RTMP has no times below zero, where a film's first pictures are decoded.
        let least = i64::from(at > 3);
        assert!((least..=150).contains(&(pair[1] - pair[0])), "{who}: {pair:?} at picture {at} of {times:?}");
    }
    let sounds: Vec<i64> = got.audio.frames.iter().map(|frame| frame.dts).collect();
    assert!(sounds.len() > 150, "{who}: {} sounds", sounds.len());
    assert!(
        sounds.windows(2).all(|pair| (1..=150).contains(&(pair[1] - pair[0]))),
        "{who}: sound pauses or goes back: {sounds:?}"
    );
}

#[test]
fn a_file_is_played_again_and_again_as_one_clean_stream() {
    let (fixture, scratch) = (Fixture::h264_aac(3), Scratch::new());
    let (mp4, link) = (scratch.join("film.mp4"), scratch.join("link.mp4"));
    as_mp4(&fixture, &mp4);
    std::os::unix::fs::symlink(&mp4, &link).unwrap();
    let gateway = Gateway::with_mountpoints(json!({
        "mp4": { "source": { "kind": "file", "path": link } },
        "mkv": { "source": { "kind": "file", "path": fixture.as_matroska(), "loop": true } },
    }));
    let players = ["mp4", "mkv"].map(|name| (name, Player::start(gateway.rtmp, name)));
    for (_, player) in &players {
        player.wait_for_more(500);
    }
    let status = gateway.status();
    assert_eq!(status["mountpoints"]["mp4"]["source"]["kind"], "file");
    drop(gateway);
    for (name, player) in players {
        assert_loops(&fixture.take(), &player.finish(), name);
    }
}

#[test]
fn a_file_that_cannot_be_played_says_why_and_one_without_loop_ends() {
    let (fixture, scratch) = (Fixture::h264_aac(3), Scratch::new());
    let text = scratch.join("notes.mp4");
    std::fs::write(&text, "no film").unwrap();
    let zero = scratch.join("zero.mp4");
    std::os::unix::fs::symlink("/dev/zero", &zero).unwrap();
    let gateway = Gateway::with_mountpoints(json!({
        "none": { "source": { "kind": "file", "path": scratch.join("none.mp4") } },
        "text": { "source": { "kind": "file", "path": text } },
        "zero": { "source": { "kind": "file", "path": zero } },
        "once": { "source": { "kind": "file", "path": fixture.as_matroska(), "loop": false } },
    }));
    let expected = [
        ("none", "cannot be opened"),
        ("text", "an MP4, Matroska, FLV or MPEG-TS file"),
        ("zero", "leads to /dev/zero, which is no file of recordings"),
        ("once", "the file was played to its end; set loop to true"),
    ];
    for (name, text) in expected {
        wait::until_true(&format!("{name} to say why: {text}"), secs(60), || {
            gateway.status()["mountpoints"][name]["source"]["activity"].to_string().contains(text)
        });
    }
}
