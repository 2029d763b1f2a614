//! Microphones of ALSA's test driver (`snd-dummy`, which gives silence in time): missing, plugged in, in use.

use crate::gateway::{self, hand_over, mountpoint};
use crate::machine::{Machine, PATIENCE, Parts};
use crate::vivid::{PLUG, boot, done};
use serde_json::{Value, json};

/// A card with one microphone that one program may use.
const PLUG_IN: &str = "insmod /run/modules/snd-dummy.ko pcm_devs=1 pcm_substreams=1 && \
    for file in /dev/snd/*; do chgrp 29 $file && chmod 660 $file || exit 1; done";

#[test]
#[ignore = "two minutes; scripts/slow vivid runs it"]
fn a_microphone_beside_a_camera_comes_late_and_serves_one() {
    let mut machine = boot(&Parts::prepare("kernel").expect("a guest"));
    machine.must(PLUG);
    hand_over(&mut machine);
    let camera = |device: &str| {
        json!({
            "kind": "v4l2", "device": device, "width": 320, "height": 180, "frame_rate": 5, "bitrate": 200_000,
            "microphone": "plughw:CARD=Dummy",
        })
    };
    let config = json!({
        "rtmp": {"listen": ["127.0.0.1:1935"]}, "admin": {"listen": ["127.0.0.1:8080"]},
        "mountpoints": {
            "cam": {"source": camera("/dev/video0"), "grace": "120s"},
        },
    });
    gateway::start(&mut machine, &config);
    codecs(&mut machine, &["h264"]);
    let cause = microphone(&mut machine, "cam");
    assert!(cause.starts_with("microphone plughw:CARD=Dummy: cannot be opened: "), "{cause}");
    done(&machine, "without its microphone the camera sends pictures, and the status says why");

    machine.must(PLUG_IN);
    codecs(&mut machine, &["h264", "aac"]);
    assert!(mountpoint(&mut machine, "cam")["source"]["microphone"].is_null());
    let status = gateway::get(&mut machine, "/api/v1/status");
    let gaps = &status["workers"]["cam"]["sandbox_gaps"];
    assert!(gaps.as_array().is_none_or(Vec::is_empty), "{gaps}");
    done(&machine, "plugged in, it is heard as AAC, the whole sandbox in force");

    gateway::change(&mut machine, |config| {
        config["mountpoints"]["other"] = json!({ "source": camera("/dev/video1") });
    });
    let cause = machine.until("the refusal", PATIENCE, |machine| {
        let source = mountpoint(machine, "other")["source"].clone();
        source["microphone"].as_str().map(str::to_owned).ok_or(source.to_string())
    });
    assert_eq!(cause, "microphone plughw:CARD=Dummy: in use by another program");
    done(&machine, "a second camera is told that the microphone is in use");
}

/// Waits until the camera's stream has these, in any order.
fn codecs(machine: &mut Machine, wanted: &[&str]) {
    machine.until(&format!("{wanted:?}"), PATIENCE, |machine| {
        let now = mountpoint(machine, "cam");
        let tracks: Vec<&Value> = now["stream"]["tracks"].as_array().into_iter().flatten().collect();
        let has = |codec: &&str| tracks.iter().any(|track| track["codec"] == *codec);
        if tracks.len() == wanted.len() && wanted.iter().all(has) { Ok(()) } else { Err(now.to_string()) }
    });
}

fn microphone(machine: &mut Machine, name: &str) -> String {
    let source: Value = mountpoint(machine, name)["source"].clone();
    source["microphone"].as_str().unwrap_or_else(|| panic!("no cause: {source}")).to_owned()
}
