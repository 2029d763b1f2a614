//! Privacy masks and other treatments through the whole program: what comes out is decoded and looked at.

use crate::common::decoded::{Pictures, loudness};
use crate::common::fixture::{Fixture, cached};
use crate::common::flv::{self, DATA, Tag, VIDEO};
use crate::common::gateway::Gateway;
use crate::common::healthy::Player;
use crate::common::http::Response;
use crate::common::nginx::Nginx;
use crate::common::process::Process;
use crate::common::proxy::{Mode, Proxy};
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Parts of a picture well inside its left half, and of its right half.
const LEFT: [(f64, f64); 2] = [(0.02, 0.02), (0.47, 0.98)];
const RIGHT: [(f64, f64); 2] = [(0.55, 0.02), (0.98, 0.98)];

fn left_half() -> Value {
    json!({ "masks": [{ "rectangle": { "from": { "x": 0.0, "y": 0.0 }, "to": { "x": 0.5, "y": 1.0 } } }] })
}

fn put_masks(gateway: &Gateway, name: &str, over: &str, masks: &Value) -> Response {
    let headers = [("Content-Type", "application/json"), ("If-Match", over)];
    let path = format!("/api/v1/mountpoints/{name}/masks");
    gateway.request("PUT", &path, &headers, masks.to_string().as_bytes())
}

/// Which pictures have their left half black; panics where a right half is, or where a left half is neither.
fn masked(file: &Path) -> Vec<bool> {
    let pictures = Pictures::of(file);
    (0..pictures.count())
        .map(|at| {
            let [left, right] = [LEFT, RIGHT].map(|[from, to]| pictures.mean(at, from, to));
            assert!(right > 50.0, "picture {at}: the right half is {right}");
            assert!(!(24.0..50.0).contains(&left), "picture {at}: the left half is {left}");
            left < 24.0
        })
        .collect()
}

fn masked_tags(scratch: &Scratch, name: &str, tags: &[Tag]) -> Vec<bool> {
    let file = scratch.join(name);
    flv::write(&file, tags);
    masked(&file)
}

fn film() -> PathBuf {
    Fixture::h264_aac(6).as_matroska()
}

fn is_masked_snapshot(scratch: &Scratch, jpeg: &[u8]) -> bool {
    let file = scratch.join("snapshot.jpg");
    std::fs::write(&file, jpeg).unwrap();
    masked(&file)[0]
}

/// The recorded segments with pictures.
fn recorded(gateway: &Gateway) -> Vec<Value> {
    let answer = gateway.get("/api/v1/mountpoints/cam/recordings?files=true").json();
    let files = answer["files"].as_array().cloned().unwrap_or_default();
    files.into_iter().filter(|file| file["kind"] == "video").collect()
}

/// Which pictures of a recorded segment are masked.
fn recorded_pictures(gateway: &Gateway, scratch: &Scratch, file: &Value) -> Vec<bool> {
    let name = file["name"].as_str().unwrap();
    let init = name.split('-').nth(3).unwrap();
    let answer = gateway.get("/api/v1/mountpoints/cam/recordings?files=true").json();
    let inits = answer["init_files"].as_array().unwrap();
    let init = inits.iter().map(|it| it["name"].as_str().unwrap()).find(|it| it.starts_with(init)).unwrap();
    let get = |name: &str| gateway.get(&format!("/api/v1/mountpoints/cam/recordings/{name}")).body;
    let whole = scratch.join("recorded.mp4");
    std::fs::write(&whole, [get(init), get(name)].concat()).unwrap();
    masked(&whole)
}

/// The newest preview of what is recorded.
fn preview(gateway: &Gateway) -> Option<Vec<u8>> {
    let index = gateway.get("/api/v1/mountpoints/cam/previews?every=1s").json();
    let newest = index["previews"].as_array()?.last()?["picture"].as_str()?.to_owned();
    Some(gateway.get(&newest)).filter(|it| it.status == 200).map(|it| it.body)
}

#[test]
fn nothing_unmasked_leaves_after_the_answer_by_any_way() {
    let (nginx, scratch) = (Nginx::start(), Arc::new(Scratch::new()));
    let far = Gateway::start(json!({
        "kmp": { "listen": ["127.0.0.1:0"], "channels": { "cam": { "mountpoint": "far" } } },
        "mountpoints": { "far": { "source": { "kind": "kmp" } } },
    }));
    let link = Proxy::start(far.kmp.unwrap());
    link.set(Mode::Reset);
    let config = json!({ "mountpoints": { "cam": {
        "source": { "kind": "file", "path": film() }, "truth": { "interval": "1h" }, "grace": "20s",
        "record": { "segment": "1s" },
        "push": [
            { "id": "r", "url": nginx.url("cam") },
            { "id": "k", "url": format!("kmp://{}", link.address), "channel_id": "cam", "backoff_cap": "1s",
              "spool": { "sync": "1s" } },
        ],
    } } });
    let mut gateway = Gateway::start_in(scratch.clone(), config.clone(), |_| {});
    let far_player = Player::start(far.rtmp, "far");
    let player = Player::start(gateway.rtmp, "cam");
    player.wait_for_more(200);
    nginx.wait_for_publisher("cam");
    let spooled = |gateway: &Gateway| {
        let spool = &gateway.status()["mountpoints"]["cam"]["pushes"]["k"]["spool"]["v1"];
        (spool["frames"].as_u64().unwrap_or(0), spool["written_bytes"].as_u64().unwrap_or(0))
    };
    wait::until_true("pictures in the spool", secs(30), || {
        spooled(&gateway).0 > 60 && spooled(&gateway).1 > 0
    });
    let snapshot = || gateway.get("/api/v1/mountpoints/cam/snapshot.jpg");
    let before = wait::until("a snapshot", secs(60), || Some(snapshot()).filter(|it| it.status == 200));
    assert!(!is_masked_snapshot(&scratch, &before.body));
    let unmasked = wait::until("a recording", secs(60), || {
        Some(recorded(&gateway)).filter(|it| preview(&gateway).is_some() && it.len() >= 2)
    });
    assert!(!is_masked_snapshot(&scratch, &preview(&gateway).unwrap()));

    let answer = put_masks(&gateway, "cam", "\"0\"", &left_half());
    assert_eq!(answer.status, 200, "{}", answer.text());
    // What was recorded before is gone with the answer, and so are its pictures.
    assert!(!recorded(&gateway).iter().any(|file| unmasked.contains(file)));
    for file in unmasked {
        let path = format!("/api/v1/mountpoints/cam/recordings/{}", file["name"].as_str().unwrap());
        assert_eq!(gateway.get(&path).status, 404);
    }
    // What was on the wire arrives; what is masked comes after the encoder has begun.
    let mut got = 0;
    wait::until_true("the wire to be empty", secs(10), || {
        std::thread::sleep(Duration::from_millis(200));
        std::mem::replace(&mut got, player.got() as usize) == player.got() as usize
    });
    wait::until_true("what was spooled to be gone", secs(20), || spooled(&gateway).0 < 30);
    // The very first that there is.
    let after = wait::until("a snapshot", secs(60), || Some(snapshot()).filter(|it| it.status == 200));
    assert!(is_masked_snapshot(&scratch, &after.body));
    player.wait_for_more(300);
    let recordings = wait::until("a recording", secs(60), || {
        Some(recorded(&gateway)).filter(|it| preview(&gateway).is_some() && it.len() >= 2)
    });
    assert!(is_masked_snapshot(&scratch, &preview(&gateway).unwrap()));
    for file in recordings {
        assert!(recorded_pictures(&gateway, &scratch, &file).iter().all(|it| *it), "{file}");
    }
    link.set(Mode::Pass);
    far_player.wait_for_more(150);
    let source = gateway.status()["mountpoints"]["cam"]["source"].clone();
    assert!(source["encoder"]["name"].is_string(), "{source:#}");

    // And after a restart.
    assert!(gateway.stop().success());
    let tags = player.tags();
    let unmasked: Vec<bool> = masked_tags(&scratch, "player.flv", &tags).iter().map(|it| !it).collect();
    let seen = unmasked.iter().filter(|it| **it).count();
    assert!(seen > 20 && unmasked.iter().skip(seen).all(|it| !it), "first all, then none: {unmasked:?}");
    let media = |tag: &&Tag| tag.kind == VIDEO && !tag.is_header();
    let counted = |tag: &&Tag| tag.kind != DATA;
    let until_answer = tags.iter().filter(counted).take(got).filter(media).count();
    assert!(seen <= until_answer, "{seen} pictures without masks, {until_answer} came before the answer");
    assert!(unmasked.len() > seen + 40, "it goes on with masks");
    for file in nginx.recordings("cam") {
        let pushed = masked(&file);
        let first = pushed.iter().position(|it| *it).unwrap_or(pushed.len());
        assert!(pushed[first..].iter().all(|it| *it), "the push: first without, then with: {pushed:?}");
    }
    let gateway = Gateway::start_in(scratch.clone(), config, |_| {});
    let player = Player::start(gateway.rtmp, "cam");
    player.wait_for_more(150);
    let answer = gateway.get("/api/v1/mountpoints/cam/masks");
    assert_eq!((answer.json(), answer.header("etag")), (left_half(), Some("\"1\"")));
    assert_eq!(put_masks(&gateway, "cam", "\"0\"", &json!({ "masks": [] })).status, 412, "somebody set them");

    // Relaxed on purpose, it passes again.
    let masked_so_far = player.got() as usize;
    assert_eq!(put_masks(&gateway, "cam", "\"1\"", &json!({ "masks": [] })).status, 200);
    player.wait_for_more(300);
    drop(gateway);
    let tags = player.tags();
    let relaxed = masked_tags(&scratch, "relaxed.flv", &tags);
    let until_put = tags.iter().filter(counted).take(masked_so_far).filter(media).count();
    assert!(relaxed[..until_put].iter().all(|it| *it), "masked after the restart: {relaxed:?}");
    assert!(relaxed.iter().filter(|it| !**it).count() > 40, "unmasked when relaxed: {relaxed:?}");
    // All that the receiver by KMP ever got: it had nothing before the masks were set, and the link came after.
    drop(far);
    let far = masked_tags(&scratch, "far.flv", &far_player.tags());
    let first = far.iter().position(|it| !it).unwrap_or(far.len());
    assert!(first > 40, "the spool gave nothing unmasked away: {far:?}");
}

/// Four seconds of such pictures, and a tone.
fn filmed(name: &str, pictures: &str) -> PathBuf {
    cached(name, |path| {
        let inputs = format!("-nostdin -v error -y -f lavfi -i {pictures} -f lavfi -i sine=r=48000");
        let coded = "-t 4 -c:v libx264 -preset ultrafast -g 15 -pix_fmt yuv420p -c:a aac -f matroska";
        let words: Vec<&str> = inputs.split(' ').chain(coded.split(' ')).collect();
        Process::run("ffmpeg", &[&words[..], &[path.to_str().unwrap()]].concat(), secs(60));
    })
}

fn grey() -> PathBuf {
    filmed("grey.mkv", "color=c=0x808080:s=320x180:r=15")
}

/// What costs an encoder as many bits as it may spend.
fn snow() -> PathBuf {
    filmed("snow.mkv", "testsrc2=s=320x180:r=15,noise=alls=12:allf=t")
}

#[test]
fn overlays_are_written_and_sound_is_changed() {
    let with = |extra: Value| {
        let mut mountpoint =
            json!({ "source": { "kind": "file", "path": grey() }, "truth": { "enabled": false } });
        mountpoint.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        mountpoint
    };
    let gateway = Gateway::with_mountpoints(json!({
        "plain": with(json!({})),
        "named": with(json!({ "video": { "overlay": { "clock": true, "text": "GATE 7" } } })),
        "quiet": with(json!({ "audio": { "mode": "aac", "gain_db": -12 } })),
        "mute": with(json!({ "audio": { "mode": "aac", "mute": true } })),
    }));
    let scratch = Scratch::new();
    let file = |name: &str| scratch.join(&format!("{name}.flv"));
    let players = ["plain", "named", "quiet", "mute"].map(|name| (name, Player::start(gateway.rtmp, name)));
    players.iter().for_each(|(_, player)| player.wait_for_more(200));
    for (name, player) in players {
        flv::write(&file(name), &player.stopped());
    }
    let corner = |name: &str, from, to| {
        let pictures = Pictures::of(&file(name));
        pictures.spread(pictures.count() - 1, from, to)
    };
    let (top, bottom) = (((0.0, 0.0), (0.6, 0.2)), ((0.5, 0.6), (1.0, 1.0)));
    assert!(corner("plain", top.0, top.1) < 10, "nothing is written where nothing was asked for");
    assert!(corner("named", top.0, top.1) > 80, "clock and name are there");
    assert!(corner("named", bottom.0, bottom.1) < 10, "and nowhere else");
    let loud = |name: &str| loudness(&file(name), 0.5).0;
    let (plain, quiet, mute) = (loud("plain"), loud("quiet"), loud("mute"));
    assert!(plain > 500.0 && mute < 2.0, "{plain} {mute}");
    let db = 20.0 * (quiet / plain).log10();
    assert!((-13.5..-10.5).contains(&db), "-12 dB became {db}");
}

/// Bits a second of a stream's pictures by its own time, over six seconds of it.
fn rate(gateway: &Gateway, name: &str) -> u64 {
    let player = Player::start(gateway.rtmp, name);
    player.wait_for_more(6 * (15 + 47));
    let tags = player.stopped();
    let pictures: Vec<&Tag> = tags.iter().filter(|tag| tag.kind == VIDEO && !tag.is_header()).collect();
    let last = pictures.last().expect("pictures");
    let bytes: usize = pictures[..pictures.len() - 1].iter().map(|tag| tag.body.len()).sum();
    bytes as u64 * 8 * 1000 / u64::from(last.ts - pictures[0].ts)
}

#[test]
fn a_new_rate_reaches_the_running_encoder() {
    let gateway = Gateway::with_mountpoints(json!({ "busy": {
        "source": { "kind": "file", "path": snow() }, "truth": { "enabled": false },
        "video": { "mode": "encode", "bitrate": 1_500_000, "keyframe_interval": "1s" },
    } }));
    let source = || gateway.status()["mountpoints"]["busy"]["source"]["activity"]["starts"].clone();
    let since = || gateway.status()["mountpoints"]["busy"]["stream"]["since"].clone();
    rate(&gateway, "busy");
    // The film has begun again at least once by now.
    let (before, starts, began) = (rate(&gateway, "busy"), source(), since());
    assert!((1_000_000..1_900_000).contains(&before), "1.5 Mbit/s were asked for: {before}");
    for wanted in [300_000, 1_000_000] {
        let (mut config, tag) = gateway.config();
        config["mountpoints"]["busy"]["video"]["bitrate"] = wanted.into();
        let answer = gateway.put_config(&config, Some(&tag));
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
        let near = (wanted * 2 / 3)..(wanted * 4 / 3);
        let mut seen = Vec::new();
        wait::until_true("the new rate", secs(60), || {
            seen.push(rate(&gateway, "busy"));
            eprintln!("{wanted}: {seen:?}");
            near.contains(seen.last().unwrap())
        });
    }
    assert_eq!((source(), since()), (starts, began), "the same worker, the same stream");
}
