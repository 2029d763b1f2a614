//! A camera behind a media controller, as those on a board's own connector are: the kernel's virtual one (`vimc`), taken
//! through libcamera.

use crate::common::gateway::Gateway;
use crate::common::process::Process;
use crate::gateway::{self, change, get, mountpoint};
use crate::machine::{PATIENCE, Parts};
use crate::vivid::{boot, done};
use serde_json::{Value, json};

/// The device files of sensor, processor and media controller for the group of cameras; and what udev notes of each, as
/// libcamera leaves out what udev has not seen.
const PLUG_IN: &str = "insmod /run/modules/vimc.ko && mkdir -p /run/udev/data && touch /run/udev/control && \
    for file in /dev/video* /dev/media* /dev/v4l-subdev*; do chgrp 44 $file && chmod 660 $file && \
    touch /run/udev/data/c$((0x$(stat -c %t $file))):$((0x$(stat -c %T $file))) || exit 1; done";

#[test]
#[ignore = "170 MB of Debian's kernel source; scripts/slow vivid runs it"]
fn a_camera_behind_libcamera_is_encoded_and_pushed() {
    let mut machine = boot(&Parts::prepare("drivers").expect("a guest with vimc"));
    let sink = Gateway::with_mountpoints(json!({"sink": {"source": {"kind": "publish"}}}));
    let upstream = format!("rtmp://10.0.2.2:{}/live/sink", sink.rtmp.port());
    let source = |camera: &str| {
        json!({
            "kind": "csi", "camera": camera, "width": 320, "height": 240, "frame_rate": 10, "bitrate": 300_000,
            "keyframe_interval": "1s",
        })
    };
    let config = json!({
        "rtmp": {"listen": ["127.0.0.1:1935"]}, "admin": {"listen": ["127.0.0.1:8080"]},
        "mountpoints": {
            "cam": {"source": source("platform/vimc.0 Sensor B"), "grace": "120s", "push": [{"url": upstream}]},
        },
    });
    gateway::start(&mut machine, &config);
    let cause = machine.until("the missing camera's name", PATIENCE, |machine| {
        let source = mountpoint(machine, "cam")["source"].clone();
        let cause = source["activity"]["cause"].as_str().unwrap_or_default();
        if cause.contains("Sensor B") { Ok(cause.to_owned()) } else { Err(source.to_string()) }
    });
    println!("        {cause}");
    done(&machine, "a camera that is not there is named");

    machine.must(PLUG_IN);
    let track = machine.until("pictures at the upstream", PATIENCE, |machine| {
        let status = sink.status()["mountpoints"]["sink"].clone();
        let track = status["stream"]["tracks"][0].clone();
        let units = status["counters"]["units"].as_u64().unwrap_or(0);
        if units > 10 { Ok(track) } else { Err(mountpoint(machine, "cam").to_string()) }
    });
    // Its processor makes no width of 320: the nearest smaller one is taken.
    assert_eq!((&track["codec"], &track["height"]), (&json!("h264"), &json!(240)), "{track}");
    assert!(track["width"].as_u64().is_some_and(|width| (300..=320).contains(&width)), "{track}");
    done(&machine, &format!("found, encoded and pushed: {}x{}", track["width"], track["height"]));
    let url = sink.url("sink");
    let decode = ["-nostdin", "-v", "error", "-xerror", "-i", &url, "-frames:v", "10", "-f", "null", "-"];
    Process::run("ffmpeg", &decode, PATIENCE);
    done(&machine, "ffmpeg plays and decodes it from the upstream");
    let status = get(&mut machine, "/api/v1/status");
    let gaps = &status["workers"]["cam"]["sandbox_gaps"];
    assert!(gaps.as_array().is_none_or(Vec::is_empty), "{gaps}");
    done(&machine, "the whole sandbox is in force around libcamera: Landlock, seccomp, limits");

    change(&mut machine, |config| config["mountpoints"]["cam"]["source"] = source("imx708"));
    machine.until("the wrong name", PATIENCE, |machine| {
        let source: Value = mountpoint(machine, "cam")["source"].clone();
        let cause = source["activity"]["cause"].as_str().unwrap_or_default();
        if cause.contains("imx708") { Ok(()) } else { Err(source.to_string()) }
    });
    done(&machine, "another name is named as missing, while the camera is there");
}
