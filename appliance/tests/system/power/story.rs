//! What a gateway goes through while its disk's writes are logged, and what it had promised by when.

use super::block::{Clock, Disk, Loop, Mounted, format_data};
use super::far_end::{Came, FarEnd, Got};
use crate::common::address::own_address;
use crate::common::fixture::Fixture;
use crate::common::flv::{Tag, VIDEO};
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Publisher};
use crate::common::rtmp::Client;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

pub(super) const TRACKS: [&str; 2] = ["pictures", "a1"];
/// The smallest spool that may be.
const SPOOL_BYTES: u64 = 8 << 20;
/// Added to each picture, so that the spool is soon full.
const FILLER: usize = 100_000;
/// Of `mountpoints.other.ring.bytes`, which counts the changes.
const RING: u64 = 1 << 20;

/// Something that was begun and answered by these times of the log.
#[derive(Clone, Debug)]
pub(super) struct Promise<T> {
    pub(super) begun: u64,
    pub(super) answered: u64,
    pub(super) of: T,
}

/// All that a state after a cut is held against.
#[derive(Default)]
pub(super) struct Story {
    /// Changes of the config, by number.
    pub(super) changes: Vec<Promise<u64>>,
    /// Tokens that were made.
    pub(super) tokens: Vec<Promise<String>>,
    /// The units that were published, as one noted them who was never away and needs no disk.
    pub(super) sent: Got,
    /// What the receiver had in the end, and since when.
    pub(super) got: Got,
    /// By when how many units of each track are known to be on disk or delivered.
    pub(super) kept: Vec<(u64, [usize; 2])>,
    /// Where the receiver is.
    pub(super) upstream: Option<SocketAddr>,
}

/// The number that a config carries.
pub(super) fn number_of(config: &Value) -> u64 {
    config["mountpoints"]["other"]["ring"]["bytes"].as_u64().expect("it has the mountpoint") - RING
}

fn other(number: u64) -> Value {
    json!({ "source": { "kind": "publish" }, "ring": { "bytes": RING + number } })
}

/// A recording that goes on.
pub(super) struct Stage {
    // In the order in which they end.
    gateway: Gateway,
    far: FarEnd,
    witness: FarEnd,
    clock: Clock,
    story: Story,
    _data: Mounted,
    _device: Loop,
    _disk: Disk,
}

impl Stage {
    pub(super) fn set(scratch: &Arc<Scratch>) -> Stage {
        let disk = Disk::record(scratch, format_data);
        let device = Loop::of(disk.shown(), "data");
        let data = Mounted::at(&device, &scratch.join("state"));
        let clock = disk.clock();
        let (upstream, second) = (own_address(), own_address());
        let far = FarEnd::new(upstream, Some(clock.clone()), Got::default());
        let witness = FarEnd::new(second, Some(clock.clone()), Got::default());
        let push = |id: &str, to: SocketAddr| {
            json!({ "id": id, "url": format!("kmp://{to}"), "channel_id": id, "backoff_cap": "1s",
                    "track_ids": { "video": TRACKS[0], "audio": TRACKS[1] } })
        };
        let mut kept = push("k", upstream);
        kept["spool"] = json!({ "sync": "100ms", "bytes": SPOOL_BYTES, "backlog_percent": 10_000 });
        let config = json!({ "mountpoints": {
            "yard": { "source": { "kind": "publish" }, "grace": "0s", "push": [kept, push("w", second)] },
            "other": other(0),
        }});
        let begun = clock.now();
        let gateway = Gateway::start_in(scratch.clone(), config, |_| {});
        let first = Promise { begun, answered: clock.now(), of: 0 };
        let story = Story { changes: vec![first], upstream: Some(upstream), ..Story::default() };
        Stage { gateway, far, witness, clock, story, _data: data, _device: device, _disk: disk }
    }

    fn promised<T>(&mut self, of: T, ask: impl FnOnce(&Gateway, &T)) -> Promise<T> {
        let begun = self.clock.now();
        ask(&self.gateway, &of);
        Promise { begun, answered: self.clock.now(), of }
    }

    /// A change of the config that disturbs nobody.
    fn change(&mut self) {
        let number = self.story.changes.len() as u64;
        let promise = self.promised(number, |gateway, number| {
            let headers = [("Content-Type", "application/merge-patch+json"), ("If-Match", "*")];
            let body = json!({ "mountpoints": { "other": other(*number) } }).to_string();
            let answer = gateway.request("PATCH", "/api/v1/config", &headers, body.as_bytes());
            assert_eq!(answer.status, 200, "{}", answer.text());
        });
        self.story.changes.push(promise);
    }

    fn token(&mut self) {
        let name = format!("t{}", self.story.tokens.len());
        let promise = self.promised(name, |gateway, name| {
            let body = json!({ "name": name, "role": "viewer" }).to_string();
            let headers = [("Content-Type", "application/json")];
            let answer = gateway.request("POST", "/api/v1/tokens", &headers, body.as_bytes());
            assert_eq!(answer.status, 201, "{}", answer.text());
        });
        self.story.tokens.push(promise);
    }

    fn publish(&self) -> Publisher {
        publish(&self.gateway)
    }

    fn push(&self) -> Value {
        push(&self.gateway)
    }

    /// Waits until the receiver has all that there is.
    fn settled(&self) {
        wait::until_true("all to be acknowledged", secs(60), || self.push()["kmp"]["unacked_frames"] == 0);
    }

    /// Waits until nothing was written for twenty times the spool's `sync`.
    fn quiet(&self) {
        let written = || TRACKS.map(|track| self.push()["spool"][track]["written_bytes"].as_u64());
        let (mut last, mut since) = (written(), Instant::now());
        wait::until_true("the spool to have written all", secs(60), || {
            let now = written();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            since.elapsed() > secs(2)
        });
    }

    /// What was published up to now is kept.
    fn note_kept(&mut self) {
        let counts = TRACKS.map(|track| self.witness.count(track));
        self.story.kept.push((self.clock.now(), counts));
    }

    /// The receiver is away while so many messages are published; then all of them are on disk.
    fn outage(&mut self, messages: usize, per_change: usize) {
        self.settled();
        self.far.go();
        let publisher = self.publish();
        for _ in 0..messages / per_change {
            publisher.wait_for_more(per_change);
            self.change();
        }
        self.end(publisher);
        self.quiet();
        self.note_kept();
    }

    /// The stream ends, and the witness has all of it.
    fn end(&self, publisher: Publisher) {
        publisher.finish();
        wait::until_true("the witness to have all", secs(30), || {
            let push = self.gateway.status()["mountpoints"]["yard"]["pushes"]["w"].clone();
            push["kmp"]["unacked_frames"] == 0 && push["state"] == "waiting"
        });
    }

    /// Spool and config: a receiver that is there, away until the spool overflows, back, and away again.
    pub(super) fn play(mut self) -> Story {
        let publisher = self.publish();
        publisher.wait_for_more(60);
        self.change();
        self.token();
        self.end(publisher);
        self.settled();
        self.note_kept();
        self.outage(300, 50);
        self.far.come();
        let publisher = self.publish();
        publisher.wait_for_more(60);
        self.token();
        self.change();
        self.end(publisher);
        self.settled();
        self.note_kept();
        self.outage(100, 25);
        self.token();
        self.far.come();
        self.settled();
        self.note_kept();
        self.gateway.process().kill();
        self.story.sent = self.witness.got();
        self.story.got = self.far.got();
        self.story
    }
}

/// What the status says of the push that must miss nothing.
pub(super) fn push(gateway: &Gateway) -> Value {
    gateway.status()["mountpoints"]["yard"]["pushes"]["k"].clone()
}

/// Publishes large pictures in real time.
pub(super) fn publish(gateway: &Gateway) -> Publisher {
    let (client, stream) = Client::publishing(gateway.rtmp, "yard").unwrap();
    let mut tags: Vec<Tag> = Fixture::h264_aac(6).tags();
    for tag in tags.iter_mut().filter(|tag| tag.kind == VIDEO && !tag.is_header()) {
        // A NAL unit of filler data.
        tag.body.extend((FILLER as u32).to_be_bytes());
        tag.body.push(12);
        tag.body.extend(std::iter::repeat_n(0xff, FILLER - 1));
    }
    Publisher::with(client, stream, "yard", tags, 0, End::Polite)
}

/// The units of a track in the order in which they were captured.
pub(super) fn in_order(got: &Got, track: &str) -> Vec<Came> {
    let mut all: Vec<Came> = got.get(track).into_iter().flat_map(|track| track.values().copied()).collect();
    all.sort_by_key(|came| came.unit.micros);
    all
}
