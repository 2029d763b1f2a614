//! Pushes by KMP to a receiver that cuts connections.

use crate::common::address::own_address;
use crate::common::fixture::Fixture;
use crate::common::flv::{AUDIO, VIDEO};
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Publisher};
use crate::common::scratch::Scratch;
use crate::common::take::Take;
use crate::common::wait::{self, secs};
use fieldgate_proto::kmp::{Ack, Direction, Limits, Packet, PacketReader};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tokio_util::bytes::BytesMut;

/// What a receiver has of one track.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    /// Id of the first frame of the stream, and of the one that it wants next.
    first: Option<u64>,
    wanted: u64,
    pub(super) payloads: Vec<Vec<u8>>,
    connections: usize,
    pub(super) ends: usize,
    /// Frames before which others are missing.
    pub(super) gaps: Vec<usize>,
}

/// A receiver of any channel and track. It closes the first connections of each track somewhere.
pub(super) struct Receiver {
    address: SocketAddr,
    tracks: Arc<Mutex<BTreeMap<String, Track>>>,
    closed: Arc<AtomicBool>,
    door: Option<JoinHandle<()>>,
}

impl Receiver {
    /// `cuts`: after how many frames of each connection of a track it closes; then it closes no more.
    fn start(cuts: &'static [usize]) -> Receiver {
        Receiver::at(own_address(), cuts)
    }

    pub(super) fn at(address: SocketAddr, cuts: &'static [usize]) -> Receiver {
        let door = TcpListener::bind(address).unwrap();
        let address = door.local_addr().unwrap();
        let (tracks, closed): (Arc<Mutex<BTreeMap<String, Track>>>, Arc<AtomicBool>) = Default::default();
        let (tracks_there, closed_there) = (tracks.clone(), closed.clone());
        let door = std::thread::spawn(move || {
            for stream in door.incoming() {
                if closed_there.load(Ordering::Relaxed) {
                    return;
                }
                let tracks = tracks_there.clone();
                // Ends with the sender's process.
                std::thread::spawn(move || take(stream.unwrap(), &tracks, cuts));
            }
        });
        Receiver { address, tracks, closed, door: Some(door) }
    }

    pub(super) fn track(&self, name: &str) -> Track {
        self.tracks.lock().unwrap().get(name).cloned().unwrap_or_default()
    }
}

impl Drop for Receiver {
    /// Gives the address back.
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
        self.door.take().map(JoinHandle::join);
    }
}

/// One connection.
fn take(mut stream: TcpStream, tracks: &Mutex<BTreeMap<String, Track>>, cuts: &[usize]) {
    let mut reader = PacketReader::new(Direction::ToReceiver, Limits::default());
    let (mut name, mut next_id, mut frames, mut cut) = (String::new(), 0, 0, usize::MAX);
    let mut bytes = vec![0; 64 << 10];
    while let Ok(len @ 1..) = stream.read(&mut bytes) {
        let mut input = &bytes[..len];
        while let Some(packet) = reader.read(&mut input).unwrap() {
            let mut tracks = tracks.lock().unwrap();
            match packet {
                Packet::Connect(connect) => {
                    name = format!("{}/{}", connect.channel_id, connect.track_id);
                    next_id = connect.initial_frame_id;
                    let track = tracks.entry(name.clone()).or_default();
                    cut = cuts.get(track.connections).copied().unwrap_or(usize::MAX);
                    track.connections += 1;
                    if track.first.is_none() {
                        (track.first, track.wanted) = (Some(next_id), next_id);
                    }
                    if next_id > track.wanted {
                        track.wanted = next_id;
                        track.gaps.push(track.payloads.len());
                    }
                }
                Packet::Frame(frame) => {
                    let track = tracks.get_mut(&name).unwrap();
                    if next_id == track.wanted {
                        track.payloads.push(frame.payload().to_vec());
                        track.wanted += 1;
                    }
                    next_id += 1;
                    frames += 1;
                    if frames >= cut {
                        return;
                    }
                    // Not every frame, and not at once.
                    if frames % 7 == 0 {
                        let mut ack = BytesMut::new();
                        Ack { frame_id: next_id - 3, upstream_frame_id: 0, offset: 0 }.encode(&mut ack);
                        if stream.write_all(&ack).is_err() {
                            return;
                        }
                    }
                }
                Packet::EndOfStream => {
                    let track = tracks.get_mut(&name).unwrap();
                    track.ends += 1;
                    track.first = None;
                    let mut ack = BytesMut::new();
                    Ack { frame_id: next_id, upstream_frame_id: 0, offset: 0 }.encode(&mut ack);
                    // The sender may have gone.
                    let _ = stream.write_all(&ack);
                    return;
                }
                _ => {}
            }
        }
    }
}

pub(super) fn assert_all(sent: &Take, receiver: &Receiver) {
    for (name, sent) in [("yard/pictures", &sent.video), ("yard/a1", &sent.audio)] {
        let got = receiver.track(name);
        let sent: Vec<&Vec<u8>> = sent.frames.iter().map(|frame| &frame.payload).collect();
        assert!(!sent.is_empty());
        assert_eq!(got.gaps, Vec::<usize>::new(), "{name}");
        assert_eq!(sent.len(), got.payloads.len(), "{name}: {} connections", got.connections);
        assert!(sent.into_iter().eq(&got.payloads), "{name}: all frames once, in order");
    }
}

#[test]
fn kmp_push_loses_nothing_over_cut_connections() {
    let receiver = Receiver::start(&[3, 40, 1, 60, 25]);
    let gateway = Gateway::with_mountpoints(json!({
        "yard": { "source": { "kind": "publish" }, "grace": "0s", "push": [
            { "id": "k", "url": format!("kmp://{}", receiver.address), "channel_id": "yard",
              "track_ids": { "video": "pictures", "audio": "a1" }, "backoff_cap": "1s" }] },
    }));
    let status = || gateway.status()["mountpoints"]["yard"]["pushes"]["k"].clone();
    wait::until_true("the push to wait", secs(20), || status()["state"] == "waiting");
    assert_eq!(gateway.players("yard"), 0);
    let publisher = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(20), 0, End::Polite);
    let connections = |name: &str| receiver.track(name).connections;
    wait::until_true("all cuts", secs(60), || {
        connections("yard/pictures") >= 6 && connections("yard/a1") >= 6
    });
    wait::until_true("the push to run", secs(20), || status()["state"] == "running");
    assert_eq!(gateway.players("yard"), 0);
    publisher.wait_for_more(100);
    assert!(
        publisher.sent().iter().any(|tag| tag.kind == VIDEO)
            && publisher.sent().iter().any(|tag| tag.kind == AUDIO)
    );
    let sent = publisher.finish();
    wait::until_true("the end", secs(20), || {
        ["yard/pictures", "yard/a1"].iter().all(|name| receiver.track(name).ends == 1)
    });
    assert_all(&sent, &receiver);
    let frames = (sent.video.frames.len() + sent.audio.frames.len()) as u64;
    // The status follows within a second.
    wait::until_true("the last acks", secs(20), || {
        let push = status();
        let kmp = &push["kmp"];
        push["state"] == "waiting"
            && (kmp["acked_frames"].as_u64(), kmp["unacked_frames"].as_u64()) == (Some(frames), Some(0))
    });
    let kmp = status();
    assert_eq!(kmp["kmp"]["lost_frames"].as_u64(), Some(0), "{kmp:#}");
    assert!(kmp["kmp"]["connections"].as_u64() >= Some(12), "{kmp:#}");
}

#[test]
fn what_the_spool_keeps_survives_an_outage_and_a_kill() {
    let address = own_address();
    let scratch = Arc::new(Scratch::new());
    let config = json!({ "mountpoints": {
        "yard": { "source": { "kind": "publish" }, "grace": "0s", "push": [
            { "id": "k", "url": format!("kmp://{address}"), "channel_id": "yard", "backoff_cap": "1s",
              "track_ids": { "video": "pictures", "audio": "a1" }, "spool": { "sync": "100ms" } }] },
    }});
    let mut gateway = Gateway::start_in(scratch.clone(), config.clone(), |_| {});
    let status = |gateway: &Gateway| gateway.status()["mountpoints"]["yard"]["pushes"]["k"].clone();
    wait::until_true("the push to wait", secs(20), || status(&gateway)["state"] == "waiting");
    // Nobody is there.
    let publisher = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(20), 0, End::Polite);
    publisher.wait_for_more(200);
    let first = publisher.finish();
    let frames = (first.video.frames.len() + first.audio.frames.len()) as u64;
    wait::until_true("all to be kept", secs(20), || {
        status(&gateway)["kmp"]["unacked_frames"].as_u64() == Some(frames)
    });
    // Longer than frames wait to be written together.
    std::thread::sleep(secs(2));
    gateway.process().kill();

    let receiver = Receiver::at(address, &[50, 30]);
    let gateway = Gateway::start_in(scratch, config, |_| {});
    let count = |name: &str| receiver.track(name).payloads.len();
    wait::until_true("what was kept", secs(60), || {
        count("yard/pictures") == first.video.frames.len() && count("yard/a1") == first.audio.frames.len()
    });
    assert_all(&first, &receiver);
    let publisher = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(20), 0, End::Polite);
    publisher.wait_for_more(100);
    let mut sent = publisher.finish();
    wait::until_true("the end", secs(30), || {
        ["yard/pictures", "yard/a1"].iter().all(|name| receiver.track(name).ends == 2)
    });
    sent.video.frames.splice(0..0, first.video.frames);
    sent.audio.frames.splice(0..0, first.audio.frames);
    assert_all(&sent, &receiver);
    wait::until_true("the last acks", secs(20), || {
        status(&gateway)["kmp"]["unacked_frames"].as_u64() == Some(0)
    });
    assert_eq!(status(&gateway)["kmp"]["lost_frames"].as_u64(), Some(0));
}

#[test]
fn the_spool_of_a_push_that_is_removed_is_named_in_the_ledger_and_deleted() {
    let nobody = own_address();
    let push = |id: &str| {
        json!({ "id": id, "url": format!("kmp://{nobody}"), "channel_id": "yard", "spool": { "sync": "100ms" },
                "track_ids": { "video": "v1", "audio": "a1" } })
    };
    let scratch = Arc::new(Scratch::new());
    let config = json!({ "mountpoints": {
        "yard": { "source": { "kind": "publish" }, "grace": "0s", "push": [push("gone"), push("kept")] },
    }});
    let gateway = Gateway::start_in(scratch.clone(), config, |_| {});
    let unacked =
        |id: &str| gateway.status()["mountpoints"]["yard"]["pushes"][id]["kmp"]["unacked_frames"].as_u64();
    let publisher = Publisher::start(gateway.rtmp, "yard", &Fixture::h264_aac(20), 0, End::Polite);
    publisher.wait_for_more(200);
    let sent = publisher.finish();
    let frames = (sent.video.frames.len() + sent.audio.frames.len()) as u64;
    wait::until_true("all to be kept", secs(20), || {
        ["gone", "kept"].iter().all(|id| unacked(id) == Some(frames))
    });
    let folder =
        |id: &str, track: &str| scratch.join("state").join("spool").join(format!("yard~{id}~{track}"));
    let exist = |id: &str| ["v1", "a1"].map(|track| folder(id, track).exists());
    assert_eq!((exist("gone"), exist("kept")), ([true; 2], [true; 2]));

    let (mut config, tag) = gateway.config();
    config["mountpoints"]["yard"]["push"].as_array_mut().unwrap().retain(|push| push["id"] == "kept");
    let answer = gateway.put_config(&config, Some(&tag));
    assert_eq!(answer.status, 200, "{}", answer.json());
    wait::until_true("the folders to go", secs(20), || exist("gone") == [false; 2]);
    assert_eq!(exist("kept"), [true; 2]);
    let entries = gateway.get("/api/v1/ledger?mountpoint=yard&limit=100").json()["entries"].take();
    for (track, frames) in [("v1", sent.video.frames.len()), ("a1", sent.audio.frames.len())] {
        let of = |upstream: &str, state: &str| {
            let entries = entries.as_array().unwrap().iter();
            let of = |entry: &&serde_json::Value| {
                entry["upstream"] == upstream && entry["track"] == track && entry["state"] == state
            };
            entries.filter(of).map(|entry| entry["frames"].as_u64().unwrap()).sum::<u64>()
        };
        assert_eq!((of("gone", "lost"), of("gone", "pending")), (frames as u64, 0), "{entries:#}");
        assert_eq!((of("kept", "lost"), of("kept", "pending")), (0, frames as u64), "{entries:#}");
    }
    assert!(entries.to_string().contains("\"abandoned\""), "{entries:#}");
}
