//! Renditions: receivers that do not take what the source gives get a form of it that is made for them.

use crate::common::decoded::{Pictures, loudness};
use crate::common::fixture::{Fixture, hevc_stream};
use crate::common::flv::{AUDIO, Tag, VIDEO};
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Player, Publisher};
use crate::common::hevc;
use crate::common::nginx::Nginx;
use crate::common::rtmp::Client;
use crate::common::take::Take;
use crate::common::wait::{self, secs};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// HEVC with AAC, four seconds.
fn hevc_aac() -> Vec<Tag> {
    let mut tags = hevc::tags(&hevc_stream(4), 1000.0 / 30.0);
    tags.extend(Fixture::h264_aac(6).tags().into_iter().filter(|tag| tag.kind == AUDIO && tag.ts < 4_000));
    tags.sort_by_key(|tag| tag.ts);
    tags
}

fn publish(gateway: &Gateway, name: &str, tags: Vec<Tag>) -> Publisher {
    let (client, stream) = Client::publishing(gateway.rtmp, name).unwrap();
    Publisher::with(client, stream, name, tags, 0, End::Polite)
}

/// The process that makes a rendition.
fn worker(status: &Value, rendition: &str) -> Option<i32> {
    let pid = status["workers"][rendition]["pid"].as_i64()?;
    i32::try_from(pid).ok().filter(|pid| *pid > 0)
}

fn is_gone(pid: i32) -> bool {
    !std::path::Path::new(&format!("/proc/{pid}")).exists()
}

fn sent_units(gateway: &Gateway, name: &str, push: &str) -> u64 {
    gateway.status()["mountpoints"][name]["pushes"][push]["counters"]["units"].as_u64().unwrap_or(0)
}

/// Every sound of `got` is one of `sent`, byte for byte and in order.
fn assert_sound_passed(sent: &Take, got: &Take) {
    let mut sent = sent.audio.frames.iter();
    for (at, frame) in got.audio.frames.iter().enumerate() {
        assert!(
            sent.any(|one| one.payload == frame.payload),
            "sound {at} was not sent, or not in this order"
        );
    }
    assert!(got.audio.frames.len() > 100, "{} sounds", got.audio.frames.len());
}

#[test]
fn two_receivers_of_h264_share_what_is_made_of_hevc_and_the_original_passes_untouched() {
    let nginx = Nginx::start();
    let push =
        |id: &str| json!({"url": nginx.url(id), "id": id, "accepts": {"video": ["h264"], "audio": ["aac"]}});
    let gateway = Gateway::with_mountpoints(json!({ "yard": {
        "source": {"kind": "publish"}, "grace": "6s", "video": {"keyframe_interval": "1s"},
        "push": [push("one"), push("two")],
    } }));
    let player = Player::start(gateway.rtmp, "yard");
    let publisher = publish(&gateway, "yard", hevc_aac());
    ["one", "two"].iter().for_each(|name| nginx.wait_for_publisher(name));
    let pid = wait::until("its worker", secs(60), || worker(&gateway.status(), "yard~h264"));
    wait::until_true("both to be served", secs(60), || {
        ["one", "two"].iter().all(|push| sent_units(&gateway, "yard", push) > 100)
    });
    let status = gateway.status();
    let made: Vec<&String> = status["workers"].as_object().unwrap().keys().collect();
    assert_eq!(made, ["yard~h264"], "one worker serves both");
    let yard = &status["mountpoints"]["yard"];
    let rendition = &yard["renditions"]["h264"];
    assert_eq!(yard["pushes"]["one"]["rendition"], "h264", "{yard:#}");
    assert_eq!((&rendition["state"], &yard["players"]), (&json!("running"), &json!(1)), "{yard:#}");
    assert!(rendition["reason"].as_str().unwrap().contains("does not take hevc"), "{rendition:#}");
    assert!(rendition["encoder"]["name"].is_string(), "{rendition:#}");
    assert!(status["mountpoints"]["yard~h264"].is_null(), "it is no mountpoint of the config");
    assert!(Client::playing(gateway.rtmp, "yard~h264").is_err(), "nobody plays it by its name");
    assert!(Client::publishing(gateway.rtmp, "yard~h264").is_err(), "nor publishes to it");

    // Its worker is killed: another goes on, and the receivers keep their connections.
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    wait::until_true("another worker", secs(60), || {
        worker(&gateway.status(), "yard~h264").is_some_and(|now| now != pid)
    });
    let before = sent_units(&gateway, "yard", "one");
    wait::until_true("it to go on", secs(60), || sent_units(&gateway, "yard", "one") > before + 150);
    assert_eq!(gateway.status()["mountpoints"]["yard"]["pushes"]["one"]["starts"], 1);

    let last = worker(&gateway.status(), "yard~h264").unwrap();
    let sent = publisher.finish();
    wait::until_true("its worker to end with the source", secs(30), || {
        worker(&gateway.status(), "yard~h264").is_none() && is_gone(last)
    });
    let rendition = gateway.status()["mountpoints"]["yard"]["renditions"]["h264"].clone();
    assert_eq!(rendition["state"], "waiting", "{rendition:#}");
    sent.assert_same(&player.finish(), "who plays the original");
    for name in ["one", "two"] {
        let got = nginx.recorded(name);
        assert_sound_passed(&sent, &got);
        let times: Vec<i64> = got.video.frames.iter().map(|frame| frame.dts).collect();
        assert!(times.is_sorted(), "{name}: pictures in order");
        let pictures = Pictures::of(&nginx.recordings(name)[0]);
        assert_eq!((pictures.width, pictures.height), (320, 180));
        assert!(pictures.count() > 90, "{name}: {} pictures", pictures.count());
        let (first, last) = (0, pictures.count() - 1);
        let bright = [first, last].map(|at| pictures.mean(at, (0.0, 0.0), (1.0, 1.0)));
        assert!(
            bright.iter().all(|mean| (60.0..200.0).contains(mean)),
            "{name}: the test picture, {bright:?}"
        );
    }
}

#[test]
fn sound_is_made_for_those_who_need_it() {
    let nginx = Nginx::start();
    let gateway = Gateway::with_mountpoints(json!({
        "alaw": { "source": {"kind": "publish"}, "grace": "1s",
                  "push": [{"url": nginx.url("alaw"), "id": "p", "accepts": {"audio": ["aac"]}}] },
        "mute": { "source": {"kind": "publish"}, "grace": "1s",
                  "push": [{"url": nginx.url("mute"), "id": "p", "accepts": {"needs_audio": true}}] },
        "deaf": { "source": {"kind": "publish"}, "grace": "1s",
                  "push": [{"url": nginx.url("deaf"), "id": "p", "accepts": {"audio": []}}] },
    }));
    let only_video = |tags: Vec<Tag>| tags.into_iter().filter(|tag| tag.kind == VIDEO).collect();
    let alaw = publish(&gateway, "alaw", Fixture::h264_alaw(6).tags());
    let mute = publish(&gateway, "mute", only_video(Fixture::h264_aac(6).tags()));
    let deaf = publish(&gateway, "deaf", Fixture::h264_aac(6).tags());
    wait::until_true("all to be served", secs(90), || {
        ["alaw", "mute", "deaf"].iter().all(|name| sent_units(&gateway, name, "p") > 150)
    });
    let status = gateway.status();
    let made: Vec<&String> = status["workers"].as_object().unwrap().keys().collect();
    assert_eq!(made, ["alaw~aac"], "silence and leaving out need no worker");
    assert_eq!(status["mountpoints"]["mute"]["pushes"]["p"]["rendition"], "silence");
    let [alaw, mute, deaf] = [alaw, mute, deaf].map(Publisher::finish);

    let got = nginx.recorded("alaw");
    let payloads = |take: &Take| take.video.frames.iter().map(|it| it.payload.clone()).collect::<Vec<_>>();
    let pictures = payloads(&got);
    let at = payloads(&alaw).iter().position(|sent| *sent == pictures[0]).expect("a picture that was sent");
    assert_eq!(pictures, payloads(&alaw)[at..at + pictures.len()], "pictures pass as they are");
    assert!(!got.audio.headers.is_empty(), "AAC has a header");
    let (loud, seconds) = loudness(&nginx.recordings("alaw")[0], 0.5);
    assert!(loud > 1_000.0 && seconds > 1.5, "a tone: {loud} for {seconds} s");

    let got = nginx.recorded("mute");
    assert!(
        !got.audio.headers.is_empty() && got.audio.frames.len() > 80,
        "{} sounds",
        got.audio.frames.len()
    );
    let (loud, _) = loudness(&nginx.recordings("mute")[0], 0.0);
    assert!(loud < 1.0, "silence: {loud}");
    assert!(got.video.frames.len() > 100 && mute.video.frames.len() >= got.video.frames.len());

    let got = nginx.recorded("deaf");
    assert!(got.audio.frames.is_empty() && !deaf.audio.frames.is_empty(), "no sound for who takes none");
    assert!(got.video.frames.len() > 100);
}
