//! Cameras of the `vivid` driver: found, captured, encoded, pushed, set, unplugged and plugged in again.

use crate::common::gateway::Gateway;
use crate::common::process::Process;
use crate::gateway::{self, change, command, get, hand_over, mountpoint};
use crate::m2m;
use crate::machine::{Machine, PATIENCE, Parts};
use serde_json::{Value, json};

/// Two cameras in the manner of USB webcams.
pub(crate) const PLUG: &str =
    "insmod /run/modules/vivid.ko n_devs=2 node_types=0x1,0x1 num_inputs=1,1 input_types=0x0,0x0";
const DRIVER: &str = "/sys/bus/platform/drivers/vivid";

/// Tells each step with the time since the boot began.
pub(crate) fn done(machine: &Machine, step: &str) {
    println!("{:>4} s  ok  {step}", machine.started.elapsed().as_secs());
}

#[test]
fn cameras_of_a_real_driver_are_found_captured_and_survive_being_unplugged() {
    let parts = match Parts::prepare("kernel") {
        Ok(parts) => parts,
        Err(why) => return println!("skipped: no guest can be booted here: {why}"),
    };
    let mut machine = boot(&parts);
    let sink = plug_in(&mut machine);
    capture_and_push(&mut machine, &sink);
    unplug_and_replug(&mut machine, &sink, 200);
}

#[test]
#[ignore = "four minutes; scripts/slow vivid runs it"]
fn controls_are_set_as_it_runs_and_what_the_device_has_not_is_refused() {
    let mut machine = boot(&Parts::prepare("kernel").expect("a guest"));
    let sink = plug_in(&mut machine);
    capture_and_push(&mut machine, &sink);
    found_pictures(&mut machine);
    set_controls(&mut machine);
    wrong_wishes_are_refused(&mut machine);
    unplug_and_replug(&mut machine, &sink, 140);
}

#[test]
#[ignore = "170 MB of Debian's kernel source; scripts/slow vivid runs it"]
fn codecs_behind_v4l2_work_in_a_workers_sandbox() {
    let program = std::env::var("M2M_PROGRAM").expect("M2M_PROGRAM is the test binary m2m of fieldgate-gst");
    let mut machine = boot(&Parts::prepare("drivers").expect("a guest with vicodec"));
    m2m::codecs_work_in_the_sandbox(&mut machine, &program);
}

pub(crate) fn boot(parts: &Parts) -> Machine {
    let mut machine = Machine::boot(parts);
    println!("guest: Linux {}, QEMU by emulation", machine.must("uname -r").trim());
    assert_eq!(machine.must("uname -r").trim(), parts.release);
    done(&machine, "a guest with Debian's kernel obeys");
    machine
}

/// Two cameras, and the upstream that they are pushed to.
fn plug_in(machine: &mut Machine) -> Gateway {
    assert_eq!(command(machine, "devices").text.trim(), "no cameras: there is no /dev/videoN");
    machine.must(PLUG);
    hand_over(machine);
    enumerate(machine);
    Gateway::with_mountpoints(json!({"sink": {"source": {"kind": "publish"}}}))
}

fn enumerate(machine: &mut Machine) {
    let devices = devices(machine);
    assert_eq!(devices.len(), 2, "{devices:?}");
    let camera = &devices[0];
    assert_eq!((&camera["device"], &camera["index"]), (&json!("/dev/video0"), &json!(0)));
    let modes = camera["modes"].as_array().unwrap();
    let has = |pixels: &str, width: u32, height: u32| {
        modes.iter().any(|mode| {
            (&mode["format"], &mode["pixels"]) == (&json!("raw"), &json!(pixels))
                && (&mode["width"], &mode["height"]) == (&json!(width), &json!(height))
                && mode["frame_rates"].as_array().is_some_and(|rates| rates.contains(&json!("10")))
        })
    };
    assert!(has("YUY2", 320, 180) && has("YUY2", 640, 360), "{modes:#?}");
    let brightness = control(camera, "brightness");
    let (min, max) = (&brightness["min"], &brightness["max"]);
    assert_eq!((min, max, &brightness["default"]), (&json!(0), &json!(255), &json!(128)));
    let left_out = camera["left_out"].as_array().map_or(0, Vec::len);
    println!(
        "        {}: {} modes, {} controls, {left_out} things left out",
        camera["name"].as_str().unwrap(),
        modes.len(),
        camera["controls"].as_array().unwrap().len()
    );
    done(machine, "both cameras are listed with formats, sizes, rates and controls");
}

/// Asks the devices anew, in workers.
fn devices(machine: &mut Machine) -> Vec<Value> {
    let answer = command(machine, "devices --json");
    assert_eq!(answer.code, 0, "{}", answer.text);
    serde_json::from_str(&answer.text).unwrap_or_else(|error| panic!("{error}: {}", answer.text))
}

fn control<'a>(camera: &'a Value, name: &str) -> &'a Value {
    let controls = camera["controls"].as_array().expect("a list of controls");
    controls.iter().find(|control| control["name"] == name).expect("the control")
}

fn brightness(machine: &mut Machine) -> Value {
    control(&devices(machine)[0], "brightness")["value"].clone()
}

fn capture_and_push(machine: &mut Machine, sink: &Gateway) {
    let source = json!({
        "kind": "v4l2", "device": "/dev/video0", "width": 320, "height": 180, "frame_rate": 10,
        "bitrate": 300_000, "keyframe_interval": "1s", "controls": {"brightness": 200},
    });
    let upstream = format!("rtmp://10.0.2.2:{}/live/sink", sink.rtmp.port());
    let config = json!({
        "rtmp": {"listen": ["127.0.0.1:1935"]}, "admin": {"listen": ["127.0.0.1:8080"]},
        "mountpoints": {"cam": {"source": source, "grace": "120s", "push": [{"url": upstream, "id": "out"}]}},
    });
    gateway::start(machine, &config);
    done(machine, "the gateway runs without privileges");
    let stream = machine.until("pictures at the upstream", PATIENCE, |machine| {
        let stream = sink.status()["mountpoints"]["sink"]["stream"].clone();
        let bytes = sink.status()["mountpoints"]["sink"]["counters"]["units"].as_u64().unwrap_or(0);
        if stream["tracks"][0]["width"] == 320 && bytes > 10 {
            return Ok(stream);
        }
        Err(mountpoint(machine, "cam").to_string())
    });
    assert_eq!(
        (&stream["tracks"][0]["codec"], &stream["tracks"][0]["height"]),
        (&json!("h264"), &json!(180))
    );
    done(machine, "raw pictures are captured, encoded by openh264 and pushed by RTMP");
    let url = sink.url("sink");
    let decode = ["-nostdin", "-v", "error", "-xerror", "-i", &url, "-frames:v", "20", "-f", "null", "-"];
    Process::run("ffmpeg", &decode, PATIENCE);
    done(machine, "ffmpeg plays and decodes them from the upstream");

    let status = get(machine, "/api/v1/status");
    let gaps = &status["workers"]["cam"]["sandbox_gaps"];
    assert!(gaps.as_array().is_none_or(Vec::is_empty), "{gaps}");
    assert_eq!(status["mountpoints"]["cam"]["source"]["encoder"]["name"], "openh264enc");
    done(machine, "the whole sandbox is in force around the driver's worker: Landlock, seccomp, limits");
    assert_eq!(brightness(machine), 200);
    done(machine, "controls of the config are set, and the device can be asked while it is in use");
    let listed = machine.until("the API to list the devices", PATIENCE, |machine| {
        let listed = get(machine, "/api/v1/devices")["devices"].clone();
        if listed[1]["modes"].is_array() { Ok(listed) } else { Err(listed.to_string()) }
    });
    assert_eq!((&listed[0]["used_by"], &listed[1]["used_by"]), (&json!(["cam"]), &json!([])));
    done(machine, "the API lists the devices and who uses them");
}

/// Of the camera that nobody has added; the other is left alone.
fn found_pictures(machine: &mut Machine) {
    let found = get(machine, "/api/v1/discovery")["cameras"].clone();
    let [used, free] = [0, 1].map(|at| found[at]["id"].as_str().expect("two local cameras").to_owned());
    let refused =
        machine.until("who uses the first camera", PATIENCE, |machine| picture(machine, &used, "409"));
    assert!(refused.contains("mountpoint cam has this camera"), "{refused}");
    let shown =
        machine.until("a picture of the other camera", PATIENCE, |machine| picture(machine, &free, "200"));
    assert_eq!(shown.trim(), "ffd8ff", "a JPEG");
    done(machine, "the camera that is not added shows a picture, the other says whose it is");
}

/// What comes of asking for the picture of a found camera: the cause, or how it begins.
fn picture(machine: &mut Machine, id: &str, wanted: &str) -> Result<String, String> {
    let path = format!("/api/v1/discovery/{id}/snapshot");
    match gateway::fetch(machine, &path, "/run/picture") {
        200 if wanted == "200" => Ok(machine.must("head -c 3 /run/picture | od -An -tx1 | tr -d ' '")),
        code if code.to_string() == wanted => Ok(machine.must("cat /run/picture")),
        code => Err(format!("{code}: {}", machine.run("head -c 400 /run/picture | tr -cd '[:print:]'").text)),
    }
}

fn units(sink: &Gateway) -> u64 {
    sink.status()["mountpoints"]["sink"]["counters"]["units"].as_u64().unwrap_or(0)
}

fn worker(machine: &mut Machine) -> Value {
    get(machine, "/api/v1/status")["workers"]["cam"]["pid"].clone()
}

fn set_controls(machine: &mut Machine) {
    let pid = worker(machine);
    assert!(pid.is_u64());
    change(machine, |config| {
        config["mountpoints"]["cam"]["source"]["controls"] = json!({"contrast": 90});
    });
    machine.until("the controls to be changed", PATIENCE, |machine| {
        let camera = devices(machine)[0].clone();
        let now =
            (control(&camera, "brightness")["value"].clone(), control(&camera, "contrast")["value"].clone());
        if now == (json!(128), json!(90)) { Ok(()) } else { Err(format!("{now:?}")) }
    });
    assert_eq!(worker(machine), pid, "the worker was not restarted");
    done(
        machine,
        "a changed control is set in the running camera; one no longer named goes back to its default",
    );
    change(machine, |config| {
        config["mountpoints"]["cam"]["source"]["controls"] = json!({"brightnes": 1});
    });
    let refused = machine.until("the refusal", PATIENCE, |machine| {
        let source = mountpoint(machine, "cam")["source"].clone();
        source["refused"].as_str().map(str::to_owned).ok_or(source.to_string())
    });
    assert!(refused.starts_with("controls.brightnes is 1: the device has no such control"), "{refused}");
    assert!(refused.contains("brightness (0 to 255)"), "{refused}");
    assert_eq!(worker(machine), pid, "the stream goes on");
    change(machine, |config| {
        config["mountpoints"]["cam"]["source"]["controls"] = json!({"brightness": 140});
    });
    machine.until("the right control", PATIENCE, |machine| {
        let source = mountpoint(machine, "cam")["source"].clone();
        if source["refused"].is_null() { Ok(()) } else { Err(source.to_string()) }
    });
    done(machine, "a wrong control is refused with what there is, and the stream goes on");
}

fn wrong_wishes_are_refused(machine: &mut Machine) {
    for (wish, seen) in [
        (json!({"format": "mjpeg"}), "mjpeg"),
        (json!({"width": 322, "height": 180}), "322x180"),
        (json!({"controls": {"gamma": 99999}}), "controls.gamma is 99999"),
    ] {
        // So little that an emulated machine has room for it beside the camera that runs.
        let mut source =
            json!({"kind": "v4l2", "device": "/dev/video1", "width": 320, "height": 180, "frame_rate": 5});
        source.as_object_mut().unwrap().extend(wish.as_object().unwrap().clone());
        let code = change(machine, |config| {
            config["mountpoints"]["bad"] = json!({"source": source});
        });
        assert!([200, 202].contains(&code), "{code}: {}", machine.must("cat /run/body"));
        let cause = machine.until("the refusal", PATIENCE, |machine| {
            let source = mountpoint(machine, "bad")["source"].clone();
            let cause = source["activity"]["cause"].as_str().unwrap_or_default().to_owned();
            if source["activity"]["state"] == "failed" { Ok(cause) } else { Err(source.to_string()) }
        });
        assert!(cause.contains(seen), "{cause}");
        println!("        {cause:.160}");
        change(machine, |config| {
            config["mountpoints"].as_object_mut().unwrap().remove("bad");
        });
    }
    done(machine, "formats, sizes and controls that the device has not are refused, never replaced");
}

fn unplug_and_replug(machine: &mut Machine, sink: &Gateway, set: u32) {
    let before = sink.status()["mountpoints"]["sink"]["stream"]["since"].clone();
    let pid = worker(machine);
    machine.must(&format!("echo vivid.0 >{DRIVER}/unbind"));
    let cause = machine.until("the camera to be missed", PATIENCE, |machine| {
        let source = mountpoint(machine, "cam")["source"].clone();
        let cause = source["activity"]["cause"].as_str().unwrap_or_default().to_owned();
        let waits = source["activity"]["state"] == "waiting";
        if waits && cause.contains("unplugged") { Ok(cause) } else { Err(source.to_string()) }
    });
    assert_eq!(cause, "/dev/video0 is unplugged");
    assert!(worker(machine).is_null(), "its worker has ended");
    assert_eq!(get(machine, "/api/v1/devices")["devices"], json!([]));
    done(machine, "an unplugged camera is said to be unplugged, its worker ends");

    let units_before = units(sink);
    machine.must(&format!("echo vivid.0 >{DRIVER}/bind"));
    hand_over(machine);
    machine.until("the stream to go on", PATIENCE, |machine| {
        if units(sink) > units_before + 10 { Ok(()) } else { Err(mountpoint(machine, "cam").to_string()) }
    });
    let after = sink.status()["mountpoints"]["sink"]["stream"]["since"].clone();
    assert_eq!(before, after, "the upstream sees one stream all along");
    assert_ne!(worker(machine), pid);
    assert_eq!(brightness(machine), set, "its controls are set again");
    done(machine, "plugged in again it goes on in the same stream, its controls set");
}
