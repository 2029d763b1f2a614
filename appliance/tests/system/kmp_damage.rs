//! A gateway that was killed finds its spool damaged, its disk full or read-only: it starts, delivers what there is, and
//! says what is missing.

use super::disk::{FULL, READ_ONLY, in_a_namespace, may};
use super::kmp::{Receiver, assert_all};
use crate::common::address::own_address;
use crate::common::fixture::Fixture;
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Publisher};
use crate::common::scratch::Scratch;
use crate::common::take::{Take, Track};
use crate::common::wait::{self, secs};
use serde_json::{Value, json};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Starts take a fraction of it; other tests may run beside.
const START: Duration = secs(20);
const TRACKS: [&str; 2] = ["pictures", "a1"];

/// What a gateway left that was killed while nobody took its stream.
struct Left {
    scratch: Arc<Scratch>,
    config: Value,
    receiver: SocketAddr,
    sent: Take,
}

fn left_by_one_that_was_killed() -> Left {
    let (receiver, scratch) = (own_address(), Arc::new(Scratch::new()));
    let config = json!({ "mountpoints": {
        "yard": { "source": { "kind": "publish" }, "grace": "0s", "push": [
            { "id": "k", "url": format!("kmp://{receiver}"), "channel_id": "yard", "backoff_cap": "1s",
              "track_ids": { "video": TRACKS[0], "audio": TRACKS[1] }, "spool": { "sync": "100ms" } }] },
    }});
    let mut gateway = Gateway::start_in(scratch.clone(), config.clone(), |_| {});
    let sent = publish(&gateway);
    // Longer than frames wait to be written together.
    std::thread::sleep(secs(1));
    gateway.process().kill();
    Left { scratch, config, receiver, sent }
}

fn push(gateway: &Gateway) -> Value {
    gateway.status()["mountpoints"]["yard"]["pushes"]["k"].clone()
}

/// Whether it holds of both tracks' spools.
fn spool_of(gateway: &Gateway, holds: impl Fn(&Value) -> bool) -> bool {
    let push = push(gateway);
    TRACKS.iter().all(|track| holds(&push["spool"][track]))
}

/// Publishes for a few seconds; what was sent, once the push has it.
fn publish(gateway: &Gateway) -> Take {
    let before = push(gateway)["counters"]["units"].as_u64().unwrap_or(0);
    let publisher = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(20), 0, End::Polite);
    publisher.wait_for_more(250);
    let sent = publisher.finish();
    let frames = before + (sent.video.frames.len() + sent.audio.frames.len()) as u64;
    wait::until_true("the push to have all", secs(20), || push(gateway)["counters"]["units"] == frames);
    sent
}

impl Left {
    /// The next life, and how long its start took.
    fn go_on(&self, adapt: impl FnOnce(&mut Command)) -> Gateway {
        let began = Instant::now();
        let gateway = Gateway::start_in(self.scratch.clone(), self.config.clone(), adapt);
        let took = began.elapsed();
        println!("started in {took:?}");
        assert!(took < START, "{took:?}");
        gateway
    }

    fn spool(&self) -> PathBuf {
        self.scratch.join("state").join("spool")
    }

    /// The files of a track, oldest first.
    fn segments(&self, track: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.spool().join(format!("yard~k~{track}"))).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> =
            paths.filter(|path| path.extension().is_some_and(|e| e == "seg")).collect();
        files.sort();
        assert!(!files.is_empty());
        files
    }
}

/// What the ledger says of a track: frames by state and cause.
fn ledger(gateway: &Gateway, track: &str) -> Vec<(String, String, u64)> {
    let entries = gateway.get("/api/v1/ledger?mountpoint=yard&limit=1000").json()["entries"].take();
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or("").to_owned();
    let of = entries.as_array().unwrap().iter().filter(|entry| entry["track"] == track);
    of.map(|entry| (text(entry, "state"), text(entry, "cause"), entry["frames"].as_u64().unwrap())).collect()
}

fn sum(ledger: &[(String, String, u64)], of: impl Fn(&str, &str) -> bool) -> u64 {
    ledger.iter().filter(|(state, cause, _)| of(state, cause)).map(|(_, _, frames)| frames).sum()
}

/// Waits until nothing is to be delivered any more.
fn settled(gateway: &Gateway) {
    wait::until_true("all to be settled", secs(60), || push(gateway)["kmp"]["unacked_frames"] == 0);
    wait::until_true("the ledger to say so", secs(20), || {
        TRACKS.iter().all(|track| sum(&ledger(gateway, track), |state, _| state == "pending") == 0)
    });
}

/// Checks that what is missing of a track is one row, and that the ledger names it with this cause, with at most a few more
/// that came and whose ack was not heard before; where the row begins.
fn assert_named(gateway: &Gateway, track: &str, sent: &Track, got: &[Vec<u8>], cause: &str) -> usize {
    let missing = sent.frames.len() - got.len();
    assert!((1..=12).contains(&missing), "{track}: {missing} are missing");
    let same = sent.frames.iter().zip(got).take_while(|(sent, got)| sent.payload == **got).count();
    let rest = sent.frames[same + missing..].iter().map(|frame| &frame.payload);
    assert!(rest.eq(&got[same..]), "{track}: all but one row of {missing} frames from {same} on, in order");
    let told = ledger(gateway, track);
    let gone = sum(&told, |state, why| (state == "lost" || state == "unconfirmed") && why == cause);
    assert!((missing..=missing + 12).contains(&(gone as usize)), "{track}: {missing} are missing: {told:?}");
    let delivered = sum(&told, |state, _| state == "delivered");
    assert_eq!(delivered + gone, sent.frames.len() as u64, "{track}: {told:?}");
    assert_eq!(sum(&told, |_, _| true), sent.frames.len() as u64, "{track}: {told:?}");
    same
}

#[test]
fn a_flipped_bit_and_a_torn_end_are_named_in_the_ledger_and_the_rest_is_delivered() {
    let left = left_by_one_that_was_killed();
    let files = left.segments(TRACKS[0]);
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(&files[0]).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.write_all(&[byte[0] ^ 0x10]).unwrap();
    drop(file);
    let files = left.segments(TRACKS[1]);
    let file = std::fs::OpenOptions::new().write(true).open(files.last().unwrap()).unwrap();
    file.set_len(file.metadata().unwrap().len() - 100).unwrap();
    drop(file);

    let receiver = Receiver::at(left.receiver, &[]);
    let gateway = left.go_on(|_| {});
    settled(&gateway);
    let (video, audio) = (&left.sent.video, &left.sent.audio);
    let got = |track: &str| receiver.track(&format!("yard/{track}"));
    let flipped = assert_named(&gateway, TRACKS[0], video, &got(TRACKS[0]).payloads, "damaged");
    assert!(flipped > 0 && flipped + 1 < video.frames.len());
    assert_eq!(got(TRACKS[0]).gaps, [flipped]);
    let torn = assert_named(&gateway, TRACKS[1], audio, &got(TRACKS[1]).payloads, "torn");
    assert_eq!(torn, got(TRACKS[1]).payloads.len(), "the end is missing");
}

/// A gateway goes on whose spool is on a disk that takes nothing: what is there is delivered, and what comes waits in
/// memory.
fn goes_on_with_a_disk_that(prepare: &str, trouble: &str) {
    if !may(prepare) {
        return;
    }
    let mut left = left_by_one_that_was_killed();
    let folder = left.spool();
    let gateway = left.go_on(|command| in_a_namespace(command, &folder, prepare));
    // Before anything is published: a disk that is full may later find room for a small packet, and is well again then.
    wait::until_true("the status to say so", secs(30), || {
        spool_of(&gateway, |spool| spool["trouble"] == trouble)
    });
    // Nobody is there yet.
    let live = publish(&gateway);
    let receiver = Receiver::at(left.receiver, &[]);
    settled(&gateway);
    left.sent.video.frames.extend(live.video.frames);
    left.sent.audio.frames.extend(live.audio.frames);
    assert_all(&left.sent, &receiver);
    for (track, sent) in TRACKS.into_iter().zip([&left.sent.video, &left.sent.audio]) {
        let told = ledger(&gateway, track);
        assert_eq!(
            sum(&told, |state, _| state == "delivered"),
            sent.frames.len() as u64,
            "{track}: {told:?}"
        );
        assert_eq!(sum(&told, |_, _| true), sent.frames.len() as u64, "{track}: {told:?}");
    }
}

#[test]
fn a_gateway_whose_disk_is_read_only_starts_and_delivers_all() {
    goes_on_with_a_disk_that(READ_ONLY, "disk_failed");
}

#[test]
fn a_gateway_whose_disk_is_full_starts_and_delivers_all() {
    goes_on_with_a_disk_that(FULL, "disk_full");
}
