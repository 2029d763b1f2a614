//! Picture truth and snapshots, with streams that real encoders make.

use crate::common::gateway::Gateway;
use crate::common::process::Process;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const H264: &str = "-c:v libx264 -preset ultrafast -tune zerolatency -pix_fmt yuv420p -g 20 -crf 28";

/// ffmpeg sends this input, encoded so, in real time. Words are separated by blanks.
fn publish(gateway: &Gateway, name: &str, input: &str, codec: &str) -> Process {
    let url = gateway.url(name);
    let words = format!("-nostdin -hide_banner -v error -re {input} {codec} -f flv {url}");
    Process::start("ffmpeg", &words.split_whitespace().collect::<Vec<_>>())
}

fn drawn(filter: &str) -> String {
    format!("-f lavfi -i {filter}")
}

fn verdict(status: &Value, name: &str) -> String {
    let picture = &status["mountpoints"][name]["picture"];
    picture["verdict"].as_str().unwrap_or("none").to_owned()
}

/// The same picture of a scene, again and again, before any noise.
const STILL: &str = "testsrc2=s=320x180:r=10:d=0.1,loop=loop=-1:size=1:start=0,setpts=N/(10*TB)";

/// Streams with a fault, and the verdict that each must get.
fn faulty(clip: &str) -> Vec<(&'static str, String, String, &'static str)> {
    let encoded = |name, filter: &str, verdict| (name, drawn(filter), H264.to_owned(), verdict);
    vec![
        encoded("still", STILL, "frozen"),
        ("loop", format!("-stream_loop -1 -i {clip}"), "-c copy".to_owned(), "repeating"),
        encoded("black", "color=c=black:s=320x180:r=10", "black"),
        encoded("covered", "color=c=0x909090:s=320x180:r=10,noise=alls=6:allf=t", "covered"),
        encoded("blurred", "testsrc2=s=320x180:r=5,gblur=sigma=12", "out_of_focus"),
        ("sound", drawn("sine=r=44100"), "-c:a aac".to_owned(), "audio_only"),
        ("keyless", drawn("testsrc2=s=320x180:r=10"), format!("{H264} -bsf:v noise=drop=key"), "no_keyframe"),
    ]
}

/// Streams that are as they should be.
fn good() -> Vec<(&'static str, String, String)> {
    let encoded = |name, filter: &str| (name, drawn(filter), H264.to_owned());
    vec![
        encoded("moving", "testsrc2=s=320x180:r=10"),
        encoded("still-noise", &format!("{STILL},noise=alls=5:allf=t")),
        encoded("night", "color=c=0x0c0c0c:s=320x180:r=10,noise=alls=12:allf=t"),
        encoded("slow", "testsrc2=s=320x180:r=10,fps=0.2"),
    ]
}

#[test]
fn every_fault_is_named_and_good_pictures_are_left_alone() {
    let scratch = Scratch::new();
    let clip = scratch.join("clip.flv");
    let clip = clip.to_str().unwrap();
    let words = format!("-nostdin -v error -f lavfi -i testsrc2=s=320x180:r=10:d=4 {H264} {clip}");
    Process::run("ffmpeg", &words.split_whitespace().collect::<Vec<_>>(), secs(60));
    let (faulty, good) = (faulty(clip), good());
    let names = faulty.iter().map(|(name, ..)| *name).chain(good.iter().map(|(name, ..)| *name));
    let mut mountpoints: Value =
        names.map(|name| (name.to_owned(), json!({"source": {"kind": "publish"}}))).collect();
    // A camera that nobody can reach.
    mountpoints["gone"] = json!({"source": {"kind": "rtsp", "url": "rtsp://127.0.0.1:9/main"}});
    let gateway = Gateway::with_mountpoints(mountpoints);
    assert_eq!(verdict(&gateway.status(), "moving"), "none", "nobody publishes, so nothing is said");
    let start = Instant::now();
    let mut publishers: Vec<Process> =
        faulty.iter().map(|(name, input, codec, _)| publish(&gateway, name, input, codec)).collect();
    publishers.extend(good.iter().map(|(name, input, codec)| publish(&gateway, name, input, codec)));

    let mut told: BTreeMap<&str, Duration> = BTreeMap::new();
    let due = || faulty.iter().map(|(name, .., verdict)| (*name, *verdict)).chain([("gone", "dead")]);
    // On a busy machine streams come late; the deadlines themselves are tested on the core, in its own time.
    let within = secs(90);
    while start.elapsed() < within && (told.len() < due().count() || start.elapsed() < secs(45)) {
        let status = gateway.status();
        for (name, expected) in due() {
            let now = verdict(&status, name);
            if now == expected {
                told.entry(name).or_insert(start.elapsed());
            }
            assert!(now == "none" || now == "ok" || now == expected || name == "black", "{name} is {now}");
        }
        for (name, ..) in &good {
            let picture = &status["mountpoints"][*name]["picture"];
            assert!(picture.is_null() || picture["verdict"] == "ok", "{name}: {picture:#}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("told after {told:.1?}");
    let status = gateway.status();
    for (name, verdict) in due() {
        let picture = &status["mountpoints"][name]["picture"];
        assert!(told.contains_key(name), "{name} is not {verdict}: {picture:#}");
        assert!(picture["cause"].as_str().is_some_and(|cause| !cause.is_empty()), "{picture:#}");
    }
    for (name, ..) in &good {
        assert_eq!(verdict(&status, name), "ok", "{name}");
    }
    let checks = status["mountpoints"]["moving"]["picture"]["checks"].as_u64().unwrap();
    // One every eight seconds is the default.
    assert!((2..=start.elapsed().as_secs() / 8 + 1).contains(&checks), "{checks}");
    // A camera that is gone is no reason to start the gateway anew.
    assert_eq!(gateway.get("/healthz").status, 200);
    let advice = wait::until("all steps to have failed", secs(60), || {
        let status = gateway.status();
        status["mountpoints"]["gone"]["source"]["ladder"]["advice"].as_str().map(str::to_owned)
    });
    assert!(advice.starts_with("visit the camera"), "{advice}");
    let metrics = gateway.get("/metrics").text();
    assert!(metrics.contains("fieldgate_picture_ok{mountpoint=\"moving\"} 1"), "{metrics}");
    assert!(
        metrics.contains("fieldgate_picture_fault{mountpoint=\"black\",verdict=\"black\"} 1"),
        "{metrics}"
    );
}

/// Means of a decoded JPEG's left and right half, red, green and blue.
fn halves(jpeg: &[u8], width: usize, height: usize) -> [[u32; 3]; 2] {
    let scratch = Scratch::new();
    let (file, raw) = (scratch.join("a.jpg"), scratch.join("a.rgb"));
    std::fs::write(&file, jpeg).unwrap();
    let words =
        ["-nostdin", "-v", "error", "-i", file.to_str().unwrap(), "-f", "rawvideo", "-pix_fmt", "rgb24"];
    Process::run("ffmpeg", &[&words[..], &[raw.to_str().unwrap()]].concat(), secs(30));
    let raw = std::fs::read(&raw).unwrap();
    assert_eq!(raw.len(), width * height * 3, "a picture of {width}x{height}");
    let mean = |half: usize, colour: usize| {
        let dots = raw.chunks_exact(3).enumerate().filter(|(at, _)| at % width / (width / 2) == half);
        let values: Vec<u32> = dots.map(|(_, dot)| u32::from(dot[colour])).collect();
        values.iter().sum::<u32>() / u32::try_from(values.len()).unwrap()
    };
    [0, 1].map(|half| [0, 1, 2].map(|colour| mean(half, colour)))
}

#[test]
fn a_snapshot_shows_the_newest_keyframe_and_is_made_once() {
    let gateway = Gateway::with_mountpoints(json!({
        "yard": {"source": {"kind": "publish"}, "truth": {"interval": "1h"}},
        "idle": {"source": {"kind": "publish"}},
    }));
    let path = "/api/v1/mountpoints/yard/snapshot.jpg";
    assert_eq!(gateway.get("/api/v1/mountpoints/none/snapshot.jpg").status, 404);
    let idle = gateway.get("/api/v1/mountpoints/idle/snapshot.jpg");
    assert_eq!(idle.status, 503);
    assert!(idle.text().contains("nobody publishes"), "{}", idle.text());
    for query in ["width=0", "width=5000", "width=x", "height=3"] {
        assert_eq!(gateway.get(&format!("{path}?{query}")).status, 400);
    }

    let filter = "color=c=red:s=320x240:r=10,drawbox=x=160:w=160:h=240:c=white:t=fill";
    // One keyframe in the whole test.
    let publisher = publish(&gateway, "yard", &drawn(filter), &H264.replace("-g 20", "-g 100000"));
    let first = wait::until("a snapshot", secs(60), || Some(gateway.get(path)).filter(|it| it.status == 200));
    assert_eq!(first.header("content-type"), Some("image/jpeg"));
    assert!(first.header("age").unwrap().parse::<u64>().unwrap() < 60);
    let [left, right] = halves(&first.body, 320, 240);
    assert!(left[0] > 230 && left[1] < 25 && left[2] < 25, "red is {left:?}");
    assert!(right.iter().all(|value| *value > 245), "white is {right:?}");

    let tag = first.header("etag").unwrap().to_owned();
    let known = gateway.request("GET", path, &[("If-None-Match", &tag)], b"");
    assert_eq!((known.status, known.body.len()), (304, 0));
    let many: Vec<_> = std::thread::scope(|scope| {
        let ask = || scope.spawn(|| gateway.get(&format!("{path}?width=160")));
        let asked: Vec<_> = (0..8).map(|_| ask()).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let bodies: std::collections::BTreeSet<&[u8]> = many.iter().map(|answer| &answer.body[..]).collect();
    assert!(
        many.iter().all(|answer| answer.status == 200),
        "{:?}",
        many.iter().map(|it| it.status).collect::<Vec<_>>()
    );
    assert_eq!(bodies.len(), 1, "all get the same");
    halves(&many[0].body, 160, 120);

    drop(publisher);
    wait::until_true("no snapshot without a stream", secs(30), || gateway.get(path).status == 503);
}

#[test]
fn keyframes_of_garbage_have_no_snapshot_and_harm_nobody() {
    let gateway = Gateway::with_mountpoints(json!({
        "bad": {"source": {"kind": "publish"}, "truth": {"interval": "1s"}},
        "well": {"source": {"kind": "publish"}, "truth": {"interval": "1s"}},
    }));
    let _bad =
        publish(&gateway, "bad", &drawn("testsrc2=s=320x180:r=10"), &format!("{H264} -bsf:v noise=amount=4"));
    let _well = publish(&gateway, "well", &drawn("testsrc2=s=320x180:r=10"), H264);
    wait::until_true("looks at both", secs(60), || {
        let status = gateway.status();
        let count = |name: &str| {
            let picture = &status["mountpoints"][name]["picture"];
            picture["checks"].as_u64().unwrap_or(0) + picture["failed_checks"].as_u64().unwrap_or(0)
        };
        count("bad") >= 3 && count("well") >= 3
    });
    let bad = gateway.get("/api/v1/mountpoints/bad/snapshot.jpg");
    assert!(matches!(bad.status, 200 | 503), "{}", bad.status);
    assert_eq!(gateway.get("/api/v1/mountpoints/well/snapshot.jpg").status, 200);
    assert_eq!(verdict(&gateway.status(), "well"), "ok");
    assert_eq!(gateway.get("/healthz").status, 200);
}

/// In real time, for half an hour: `scripts/slow truth`.
#[test]
#[ignore = "takes half an hour; run by scripts/slow truth"]
fn good_pictures_are_left_alone_for_half_an_hour() {
    let good = good();
    let mountpoints: Value =
        good.iter().map(|(name, ..)| ((*name).to_owned(), json!({"source": {"kind": "publish"}}))).collect();
    let gateway = Gateway::with_mountpoints(mountpoints);
    let mut publishers: Vec<Process> =
        good.iter().map(|(name, input, codec)| publish(&gateway, name, input, codec)).collect();
    let start = Instant::now();
    while start.elapsed() < secs(1800) {
        std::thread::sleep(secs(1));
        publishers.iter_mut().for_each(Process::assert_running);
        let status = gateway.status();
        for (name, ..) in &good {
            let picture = &status["mountpoints"][*name]["picture"];
            assert!(
                picture.is_null() || picture["verdict"] == "ok",
                "{name} after {:?}: {picture:#}",
                start.elapsed()
            );
        }
    }
    let status = gateway.status();
    for (name, ..) in &good {
        let picture = &status["mountpoints"][*name]["picture"];
        println!("{name}: {} keyframes looked at, {} failed", picture["checks"], picture["failed_checks"]);
        // The one of 0.2 pictures a second has a keyframe every 100 s.
        let enough = if *name == "slow" { 10 } else { 100 };
        assert!(picture["checks"].as_u64().unwrap() > enough, "{picture:#}");
    }
}
