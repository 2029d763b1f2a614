//! One camera, one gateway, one player, and what is asserted of them.

use crate::camera::{Camera, without_framing};
use crate::common::gateway::Gateway;
use crate::common::healthy::Player;
use crate::common::take::Take;
use crate::common::wait::{self, secs};
use crate::film::Coding;
use crate::script::Script;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A gateway that fetches one camera as `gate`, and who watches.
pub(crate) struct Scene {
    pub(crate) camera: Camera,
    pub(crate) gateway: Gateway,
    pub(crate) player: Player,
    pub(crate) began: Instant,
}

impl Scene {
    pub(crate) fn new(script: Script) -> Scene {
        Scene::with(script, json!({}))
    }

    /// As [`Scene::new`], with further settings of the source.
    pub(crate) fn with(script: Script, settings: Value) -> Scene {
        let camera = Camera::start(script);
        let url = camera.url();
        Scene::at(camera, &url, settings)
    }

    /// As [`Scene::new`], with sound left as the camera sends it.
    pub(crate) fn passing_sound(script: Script) -> Scene {
        let camera = Camera::start(Script { sound: true, ..script });
        let mut settings = mountpoint(&camera.url(), json!({}));
        settings["gate"]["audio"] = json!({ "mode": "pass" });
        Scene::of(camera, settings)
    }

    /// As [`Scene::with`], where the camera is reached at another address.
    pub(crate) fn at(camera: Camera, url: &str, settings: Value) -> Scene {
        Scene::of(camera, mountpoint(url, settings))
    }

    fn of(camera: Camera, mountpoints: Value) -> Scene {
        let began = Instant::now();
        let gateway = Gateway::with_mountpoints(mountpoints);
        let player = Player::start(gateway.rtmp, "gate");
        Scene { camera, gateway, player, began }
    }

    /// `mountpoints.gate` of the status.
    pub(crate) fn status(&self) -> Value {
        self.gateway.status()["mountpoints"]["gate"].clone()
    }

    /// Why the last try failed, as the status says; empty if none did.
    pub(crate) fn cause(&self) -> String {
        self.status()["source"]["activity"]["cause"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the status gives a cause with this in it.
    pub(crate) fn wait_for_cause(&self, text: &str, within: Duration) {
        wait::until_true(&format!("the status to say {text:?}, not {:?}", self.cause()), within, || {
            self.cause().contains(text)
        });
    }

    /// What the status says of the source in words.
    pub(crate) fn described(&self) -> String {
        self.status()["source"]["described"].as_str().unwrap_or_default().to_owned()
    }

    /// Ends it; what the player got.
    pub(crate) fn finish(self) -> Take {
        self.finish_with_sent().1
    }

    /// Ends it; what the camera sent, and what the player got of it.
    pub(crate) fn finish_with_sent(self) -> (Vec<Vec<Vec<u8>>>, Take) {
        let Scene { camera, gateway, player, .. } = self;
        drop(gateway);
        let take = player.finish();
        (camera.sent(), take)
    }
}

/// The part of a config that fetches one camera.
pub(crate) fn mountpoint(url: &str, settings: Value) -> Value {
    let mut source = json!({ "kind": "rtsp", "url": url });
    source.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    json!({ "gate": { "source": source, "grace": "60s" } })
}

/// Panics unless the pictures that came are a run of those that were sent: none changed, none missing in between.
/// Returns how many came.
pub(crate) fn assert_unchanged(coding: Coding, sent: &[Vec<Vec<u8>>], got: &Take) -> usize {
    let got = pictures(coding, got);
    let first = got.first().expect("pictures came");
    let from = sent.iter().position(|sent| sent == first).expect("the first picture is one that was sent");
    for (index, picture) in got.iter().enumerate() {
        assert!(
            sent.get(from + index) == Some(picture),
            "picture {index} is not what was sent as {}, but as {:?}",
            from + index,
            sent.iter().position(|sent| sent == picture)
        );
    }
    got.len()
}

/// Panics unless the pictures came as they were sent: over TCP all of them from the first on, over UDP nine in ten, as
/// the kernel drops what a busy machine reads too late. Returns how many came.
pub(crate) fn assert_carried(transport: &str, coding: Coding, sent: &[Vec<Vec<u8>>], take: &Take) -> usize {
    if transport != "udp" {
        return assert_unchanged(coding, sent, take);
    }
    let got = pictures(coding, take);
    let whole = got.iter().filter(|picture| sent.contains(picture)).count();
    assert!(whole * 10 >= got.len() * 9, "{whole} of {} pictures are as they were sent", got.len());
    got.len()
}

/// Panics unless every picture that came was sent, in that order, whatever is missing in between, and each piece after
/// something missing begins with a keyframe. Returns how many came.
pub(crate) fn assert_pieces(coding: Coding, sent: &[Vec<Vec<u8>>], take: &Take) -> usize {
    let got = pictures(coding, take);
    let mut at = 0;
    for (index, picture) in got.iter().enumerate() {
        let ahead = sent[at..].iter().position(|sent| sent == picture);
        let ahead = ahead.unwrap_or_else(|| panic!("picture {index} was never sent, or before"));
        assert!(ahead == 0 || take.video.frames[index].keyframe, "picture {index} follows a gap of {ahead}");
        at += ahead + 1;
    }
    got.len()
}

fn pictures(coding: Coding, take: &Take) -> Vec<Vec<Vec<u8>>> {
    take.video.frames.iter().map(|frame| without_framing(coding, &frame.payload)).collect()
}

/// Panics unless decode times go on strictly, no step is longer than `longest_ms`, and no picture is decoded after it
/// is shown.
pub(crate) fn assert_clean_clock(take: &Take, longest_ms: i64) {
    for track in [&take.video, &take.audio] {
        let times: Vec<i64> = track.frames.iter().map(|frame| frame.dts).collect();
        for (index, pair) in times.windows(2).enumerate() {
            let step = pair[1] - pair[0];
            assert!(
                (0..=longest_ms).contains(&step),
                "step {index} is {step} ms: {:?}",
                &times[index..index + 2]
            );
        }
        assert!(track.frames.iter().all(|frame| frame.offset >= 0), "decoded after it is shown");
    }
}

/// Milliseconds of pictures between the first and the last.
pub(crate) fn span_ms(take: &Take) -> i64 {
    let times = || take.video.frames.iter().map(|frame| frame.dts);
    times().max().unwrap_or(0) - times().min().unwrap_or(0)
}

/// Waits for so many more messages, at most this long.
pub(crate) fn wait_for_more(player: &Player, count: u32, within: Duration) {
    let from = player.got();
    wait::until_true(&format!("{count} more messages"), within, || player.got() >= from + count);
}

/// Shorthand.
pub(crate) const SOON: Duration = secs(30);
