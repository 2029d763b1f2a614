//! Peers that break the protocol, by accident or on purpose. Beside each runs a healthy stream that must lose nothing;
//! the process must live and its memory stay bounded.

use crate::common::amf::{self, Amf};
use crate::common::chunks::{Message, basic, cut, head};
use crate::common::fixture::Fixture;
use crate::common::flv::{AUDIO, DATA, Tag, VIDEO};
use crate::common::gateway::Gateway;
use crate::common::healthy::{Healthy, Player};
use crate::common::http;
use crate::common::nginx::Nginx;
use crate::common::process::Process;
use crate::common::rtmp::{Client, Silence};
use crate::common::take::Take;
use crate::common::wait::secs;
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Most memory that the process may ever hold in these tests, in bytes: program, one ring, and what a stranger can
/// make it hold.
const MEMORY_BOUND: u64 = 48 << 20;

/// A gateway with a healthy stream on `yard`, and `spare` for the others.
struct Arena {
    gateway: Gateway,
    healthy: Healthy,
}

impl Arena {
    fn new() -> Arena {
        Arena::with(json!({}))
    }

    fn with(rtmp: serde_json::Value) -> Arena {
        let gateway = Gateway::start(json!({
            "rtmp": rtmp,
            "mountpoints": { "yard": { "source": { "kind": "publish" } },
                             "spare": { "source": { "kind": "publish" }, "grace": "0s" } },
        }));
        let healthy = Healthy::start(gateway.rtmp, "yard");
        Arena { gateway, healthy }
    }

    fn address(&self) -> SocketAddr {
        self.gateway.rtmp
    }

    /// The process lives, still takes a publisher, held no more than it may, and the healthy stream lost nothing.
    fn assert_unharmed(mut self) {
        self.gateway.assert_running();
        let end = Instant::now() + secs(20);
        while let Err(refusal) = Client::publishing(self.address(), "spare") {
            assert!(Instant::now() < end, "no publisher is taken any more: {refusal:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        self.healthy.assert_unharmed();
        self.gateway.assert_running();
        let peak = self.gateway.peak_bytes();
        println!("peak {} MiB", peak >> 20);
        assert!(peak <= MEMORY_BOUND, "held {} MiB at its peak", peak >> 20);
    }
}

fn message(kind: u8, stream: u32, body: Vec<u8>) -> Message {
    Message { kind, ts: 0, stream, body }
}

/// `depth` objects, one in the other.
fn nested(depth: usize) -> Vec<u8> {
    let mut body = amf::encode(&[Amf::text("connect"), Amf::Number(1.0)]);
    for _ in 0..depth {
        body.extend([3, 0, 1, b'a']);
    }
    body
}

#[test]
fn deeply_nested_amf0_ends_only_its_sender() {
    let arena = Arena::new();
    for (depth, kind) in [(100_000, 20), (15_000, 20), (1_000, 20), (100, 20), (15_000, 18), (15_000, 17)] {
        let mut client = Client::open(arena.address());
        let mut body = nested(depth);
        if kind == 17 {
            body.insert(0, 0);
        }
        // The gateway may close while this is still on its way.
        drop(client.set_chunk_len(65_536));
        drop(client.send(3, &message(kind, 0, body)));
        assert!(
            client.is_closed_within(secs(20)) || depth <= 100,
            "depth {depth} of type {kind} is not refused"
        );
    }
    // Arrays in arrays, too, and while publishing.
    let (mut client, stream) = Client::publishing(arena.address(), "spare").unwrap();
    let mut body = amf::encode(&[Amf::text("@setDataFrame"), Amf::text("onMetaData")]);
    for _ in 0..10_000 {
        body.extend([10, 0, 0, 0, 1]);
    }
    drop(client.send(5, &message(DATA, stream, body)));
    drop(client);
    arena.assert_unharmed();
}

#[test]
fn commands_with_too_few_values_are_survived() {
    let arena = Arena::new();
    let commands =
        [vec![], vec![Amf::text("connect")], vec![Amf::text("connect"), Amf::Number(1.0)], vec![Amf::Null]];
    for kind in [20, 17] {
        for values in &commands {
            let mut body = amf::encode(values);
            if kind == 17 {
                body.insert(0, 0);
            }
            let mut client = Client::open(arena.address());
            drop(client.send(3, &message(kind, 0, body.clone())));
            let mut client = Client::connected(arena.address(), "live");
            drop(client.send(3, &message(kind, 0, body)));
            drop(client.command(0, &[Amf::text("createStream"), Amf::Number(7.0), Amf::Null]));
        }
    }
    for name in
        ["publish", "play", "deleteStream", "releaseStream", "FCPublish", "createStream", "pause", "nonsense"]
    {
        let mut client = Client::connected(arena.address(), "live");
        let stream = client.create_stream();
        for values in [
            vec![Amf::text(name)],
            vec![Amf::text(name), Amf::Number(2.0)],
            vec![Amf::text(name), Amf::text("no number"), Amf::object([]), Amf::Null],
        ] {
            drop(client.command(stream, &values));
        }
        let (mut client, stream) = Client::publishing(arena.address(), "spare").unwrap();
        drop(client.send(5, &message(DATA, stream, amf::encode(&[Amf::text("@setDataFrame")]))));
        drop(client.send(5, &message(DATA, stream, Vec::new())));
        drop(client.unpublish(stream, "spare"));
        client.is_closed_within(Duration::from_millis(200));
    }
    arena.assert_unharmed();
}

#[test]
fn interleaved_chunk_streams_are_put_together() {
    let arena = Arena::new();
    let player = Player::start(arena.address(), "spare");
    let (mut client, stream) = Client::publishing(arena.address(), "spare").unwrap();
    let tags: Vec<_> =
        Fixture::h264_aac(6).tags().into_iter().filter(|tag| tag.kind != DATA && tag.ts < 2_000).collect();
    let chunk_len = 600;
    client.set_chunk_len(chunk_len as u32).unwrap();
    let (mut video, mut audio): (Vec<&Tag>, Vec<&Tag>) = tags.iter().partition(|tag| tag.kind == VIDEO);
    video.reverse();
    audio.reverse();
    let whole = |tag: &Tag| Message { kind: tag.kind, ts: tag.ts, stream, body: tag.body.clone() };
    // A sound message stands between the chunks of every picture that has more than one.
    let mut split = 0;
    while let Some(picture) = video.pop() {
        let bytes = cut(6, &whole(picture), chunk_len);
        let first = (12 + chunk_len).min(bytes.len());
        client.raw(&bytes[..first]).unwrap();
        while audio.last().is_some_and(|tag| tag.ts <= picture.ts + 30) {
            split += usize::from(first < bytes.len());
            client.raw(&cut(4, &whole(audio.pop().unwrap()), chunk_len)).unwrap();
        }
        client.raw(&bytes[first..]).unwrap();
    }
    assert!(split > 0, "some pictures were split");
    Take::of(&tags).assert_same(&player.finish(), "interleaved");
    drop(client);
    arena.assert_unharmed();
}

/// The whole start of a stream at a time around the extended timestamp's beginning, as real peers write it.
fn extended_timestamps_arrive(repeat_on_continuation: bool) {
    let arena = Arena::new();
    let player = Player::start(arena.address(), "spare");
    let (mut client, stream) = Client::publishing(arena.address(), "spare").unwrap();
    client.set_chunk_len(1_000).unwrap();
    let mut tags = Fixture::h264_aac(6).tags();
    tags.retain(|tag| tag.kind != DATA && tag.ts < 3_000);
    for tag in &mut tags {
        tag.ts += 0xff_ffff - 1_500;
    }
    for tag in &tags {
        let csid = if tag.kind == VIDEO { 6 } else { 4 };
        let mut bytes = head(csid, tag.ts, tag.body.len(), tag.kind, stream);
        for (index, piece) in tag.body.chunks(1_000).enumerate() {
            if index > 0 {
                bytes.extend(basic(3, csid));
                if repeat_on_continuation && tag.ts >= 0xff_ffff {
                    bytes.extend(tag.ts.to_be_bytes());
                }
            }
            bytes.extend(piece);
        }
        client.raw(&bytes).unwrap();
    }
    Take::of(&tags).assert_same(&player.finish(), "across the extended timestamp's beginning");
    drop(client);
    arena.assert_unharmed();
}

#[test]
fn extended_timestamps_repeated_on_continuation_chunks_arrive() {
    extended_timestamps_arrive(true);
}

#[test]
fn extended_timestamps_left_out_of_continuation_chunks_arrive() {
    extended_timestamps_arrive(false);
}

#[test]
fn extended_timestamp_that_is_small_is_survived() {
    let arena = Arena::new();
    let (mut client, stream) = Client::publishing(arena.address(), "spare").unwrap();
    let body = vec![0xaf, 1, 1, 2, 3];
    let mut bytes = head(4, 5, body.len(), AUDIO, stream);
    bytes.extend(&body);
    for format in [1, 2] {
        bytes.extend(basic(format, 4));
        bytes.extend([0xff, 0xff, 0xff]);
        if format == 1 {
            bytes.extend([0, 0, body.len() as u8, AUDIO]);
        }
        bytes.extend(7_u32.to_be_bytes());
        bytes.extend(&body);
    }
    // A type 3 first of all on a chunk stream, a type 1 and 2 likewise.
    for format in [3, 2, 1] {
        bytes.extend(basic(format, 40 + u32::from(format)));
        bytes.extend([0; 40]);
    }
    drop(client.raw(&bytes));
    client.is_closed_within(secs(1));
    arena.assert_unharmed();
}

#[test]
fn sixteen_mebibyte_messages_do_not_fill_memory() {
    let arena = Arena::new();
    let before = arena.gateway.resident_bytes();
    let (mut clients, len) = (Vec::new(), 0xff_ffff);
    // Twenty strangers, each with a length near 16 MiB and eight mebibytes sent, before and after `connect`.
    for round in 0..20 {
        let mut client = if round % 2 == 0 {
            Client::open(arena.address())
        } else {
            Client::connected(arena.address(), "live")
        };
        drop(client.set_chunk_len(0xff_ffff));
        let kind = [20, 9, 18, 17][round % 4];
        drop(client.raw(&head(3, 0, len, kind, 0)));
        for _ in 0..128 {
            if client.raw(&[0; 65_536]).is_err() {
                break;
            }
        }
        clients.push(client);
    }
    let grown = arena.gateway.resident_bytes().saturating_sub(before);
    println!("grown by {} KiB", grown >> 10);
    assert!(grown < 24 << 20, "twenty strangers made it hold {} MiB more", grown >> 20);
    drop(clients);
    arena.assert_unharmed();
}

#[test]
fn unfinished_messages_on_many_chunk_streams_are_bounded() {
    let arena = Arena::new();
    let (mut client, stream) = Client::publishing(arena.address(), "spare").unwrap();
    let before = arena.gateway.resident_bytes();
    let mut refused = false;
    for csid in 3..2_000 {
        let mut bytes = head(csid, 0, 4_000_000, VIDEO, stream);
        bytes.extend([0x27; 4_096]);
        if client.raw(&bytes).is_err() {
            refused = true;
            break;
        }
    }
    refused |= client.is_closed_within(secs(10));
    assert!(refused, "two thousand unfinished messages are taken");
    let grown = arena.gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 40 << 20, "held {} MiB more", grown >> 20);
    arena.assert_unharmed();
}

#[test]
fn endless_chunk_size_changes_harm_nobody() {
    let arena = Arena::new();
    let mut client = Client::connected(arena.address(), "live");
    let end = Instant::now() + secs(3);
    let mut size = 1_u32;
    let mut count = 0;
    while Instant::now() < end {
        let mut bytes = Vec::new();
        for _ in 0..200 {
            size = size % 60_000 + 1;
            bytes.extend(cut(2, &message(1, 0, size.to_be_bytes().to_vec()), 4));
            count += 1;
        }
        // It may well close somebody like that.
        if client.raw(&bytes).is_err() {
            break;
        }
    }
    println!("{count} changes");
    arena.assert_unharmed();
}

#[test]
fn impossible_chunk_sizes_are_refused() {
    let arena = Arena::new();
    for size in [0_u32, 0x8000_0000, 0xffff_ffff] {
        let mut client = Client::connected(arena.address(), "live");
        drop(client.control(1, &size.to_be_bytes()));
        drop(client.send(3, &message(20, 0, vec![0; 4_000])));
        drop(client.raw(&[0; 20_000]));
        assert!(client.is_closed_within(secs(20)), "chunk size {size} is taken");
    }
    for body in [vec![], vec![0], vec![0, 0, 1]] {
        let mut client = Client::connected(arena.address(), "live");
        for kind in 1..=6 {
            drop(client.control(kind, &body));
        }
    }
    arena.assert_unharmed();
}

#[test]
fn slow_handshake_is_closed_by_its_deadline() {
    let arena = Arena::with(json!({ "handshake_timeout": "3s" }));
    let address = arena.address();
    let slow: Vec<_> = (0..20)
        .map(|_| {
            std::thread::spawn(move || {
                let mut socket = TcpStream::connect(address).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                let start = Instant::now();
                let mut byte = [3];
                while start.elapsed() < secs(20) {
                    if socket.write_all(&byte).is_err() {
                        return Some(start.elapsed());
                    }
                    byte = [0];
                    match socket.read(&mut [0; 4_096]) {
                        Ok(0) => return Some(start.elapsed()),
                        Err(e)
                            if !matches!(
                                e.kind(),
                                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                            ) =>
                        {
                            return Some(start.elapsed());
                        }
                        _ => {}
                    }
                }
                None
            })
        })
        .collect();
    // One that shakes hands and never says `connect` has the same deadline.
    let mut silent = Client::open(address);
    for thread in slow {
        let took = thread.join().unwrap().expect("a slow handshake is closed");
        assert!(took < secs(15), "closed only after {took:?}");
    }
    assert!(silent.is_closed_within(secs(15)), "who never says connect is closed");
    arena.assert_unharmed();
}

#[test]
fn five_hundred_idle_connections_cost_little() {
    let arena = Arena::with(
        json!({ "max_connections": 1000, "max_connections_per_address": 600, "idle_timeout": "20s",
                                    "handshake_timeout": "60s" }),
    );
    let before = arena.gateway.resident_bytes();
    let idle: Vec<_> = (0..500)
        .map(|n| {
            if n % 2 == 0 {
                return (Some(TcpStream::connect(arena.address()).unwrap()), None);
            }
            (None, Some(Client::connected(arena.address(), "live")))
        })
        .collect();
    let grown = arena.gateway.resident_bytes().saturating_sub(before);
    println!("500 idle connections: {} bytes each", grown / 500);
    assert!(grown < 500 * 16 * 1_024, "{} KiB each", grown / 500 / 1_024);
    arena.healthy.wait_for_more(40);
    drop(idle);
    arena.assert_unharmed();
}

#[test]
fn connections_over_the_limit_are_refused_and_places_come_back() {
    let arena = Arena::with(json!({ "max_connections_per_address": 10 }));
    let open: Vec<_> = (0..40).map(|_| TcpStream::connect(arena.address()).unwrap()).collect();
    let closed = open
        .iter()
        .filter(|socket| {
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            !matches!((&mut &**socket).read(&mut [0; 1]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
        })
        .count();
    assert!((30..=33).contains(&closed), "{closed} of 40 were refused beside 2 that were there");
    drop(open);
    arena.assert_unharmed();
}

#[test]
fn idle_connections_and_silent_publishers_are_closed() {
    let arena = Arena::with(json!({ "idle_timeout": "2s" }));
    let mut idle = Client::connected(arena.address(), "live");
    let (mut publisher, _) = Client::publishing(arena.address(), "spare").unwrap();
    let told = publisher.status("NetStream.Never").unwrap_err();
    assert!(told.code.starts_with("NetStream.Publish."), "the publisher is told why: {told:?}");
    assert!(!told.description.is_empty(), "the publisher is told why: {told:?}");
    assert!(publisher.is_closed_within(secs(15)), "a publisher that sends nothing is closed");
    assert!(idle.is_closed_within(secs(15)), "who neither publishes nor plays is closed");
    arena.assert_unharmed();
}

#[test]
fn duplicate_publish_is_refused_and_harms_neither() {
    let arena = Arena::new();
    for _ in 0..50 {
        let refusal =
            Client::publishing(arena.address(), "yard").err().expect("a second publisher is refused");
        assert_eq!(refusal.code, "NetStream.Publish.BadName");
    }
    // Twice on one connection, on the same and on another message stream.
    let (mut client, stream) = Client::publishing(arena.address(), "spare").unwrap();
    let again = [Amf::text("publish"), Amf::Number(0.0), Amf::Null, Amf::text("spare"), Amf::text("live")];
    drop(client.command(stream, &again));
    if let Ok(()) = client.command(0, &[Amf::text("createStream"), Amf::Number(99.0), Amf::Null]) {
        drop(client.command(stream + 1, &again));
    }
    client.is_closed_within(secs(1));
    drop(client);
    arena.assert_unharmed();
}

#[test]
fn publish_and_media_before_connect_are_not_taken() {
    let arena = Arena::new();
    let player = Player::start(arena.address(), "spare");
    let tags = Fixture::h264_aac(6).tags();
    let mut client = Client::open(arena.address());
    let publish = [Amf::text("publish"), Amf::Number(0.0), Amf::Null, Amf::text("spare"), Amf::text("live")];
    drop(client.command(1, &publish));
    for tag in tags.iter().take(50) {
        drop(client.media(1, tag));
    }
    let mut client = Client::connected(arena.address(), "live");
    drop(client.command(1, &publish));
    for tag in tags.iter().take(50) {
        drop(client.media(1, tag));
    }
    client.is_closed_within(secs(1));
    assert_eq!(player.got(), 0, "nothing of it went out");
    drop((client, player));
    arena.assert_unharmed();
}

#[test]
fn message_that_never_ends_is_closed_in_time() {
    let arena = Arena::with(json!({ "idle_timeout": "3s", "handshake_timeout": "3s" }));
    let (mut publisher, stream) = Client::publishing(arena.address(), "spare").unwrap();
    publisher.raw(&head(6, 0, 4_000_000, VIDEO, stream)).unwrap();
    let mut stranger = Client::open(arena.address());
    stranger.raw(&head(3, 0, 60_000, 20, 0)).unwrap();
    let mut connected = Client::connected(arena.address(), "live");
    connected.raw(&head(3, 0, 60_000, 20, 0)).unwrap();
    let mut chatty = Client::connected(arena.address(), "live");
    let ping = cut(2, &message(4, 0, vec![0, 6, 0, 0, 0, 1]), 128);
    // A drop now and then keeps no door open: no message comes whole, or none that is a reason to stay.
    let mut peers: Vec<(&str, &mut Client, &[u8])> = vec![
        ("a publisher's endless message", &mut publisher, &[0]),
        ("a stranger's endless command before connect", &mut stranger, &[0]),
        ("an endless command after connect", &mut connected, &[0]),
        ("one that only pings", &mut chatty, &ping),
    ];
    let start = Instant::now();
    while start.elapsed() < secs(30) && !peers.is_empty() {
        peers.retain_mut(|(_, client, drop)| {
            client.raw(drop).is_ok() && !client.is_closed_within(Duration::from_millis(50))
        });
        std::thread::sleep(Duration::from_millis(200));
    }
    let open: Vec<_> = peers.iter().map(|(what, ..)| *what).collect();
    assert!(open.is_empty(), "still open after {:?}: {open:?}", start.elapsed());
    arena.assert_unharmed();
}

#[test]
fn short_connections_leave_nothing_behind() {
    let arena = Arena::new();
    let tags: Vec<_> = Fixture::h264_aac(6).tags().into_iter().take(20).collect();
    let cycle = |count: u32| {
        for _ in 0..count {
            let (mut client, stream) = crate::common::wait::until("the place to be free", secs(10), || {
                Client::publishing(arena.address(), "spare").ok()
            });
            for tag in &tags {
                client.media(stream, tag).unwrap();
            }
            drop(Client::playing(arena.address(), "spare"));
            drop(TcpStream::connect(arena.address()));
        }
        std::thread::sleep(secs(1));
        (arena.gateway.open_files(), arena.gateway.resident_bytes())
    };
    let (files, memory) = cycle(50);
    let (files_after, memory_after) = cycle(250);
    println!("files {files} to {files_after}, memory {} to {} KiB", memory >> 10, memory_after >> 10);
    assert!(files_after <= files + 3, "open files went from {files} to {files_after}");
    assert!(memory_after <= memory + (4 << 20), "memory went from {memory} to {memory_after}");
    arena.assert_unharmed();
}

#[test]
fn running_out_of_files_passes() {
    let arena = Arena::new();
    let pid = arena.gateway.pid().to_string();
    let limit = arena.gateway.open_files() + 30;
    Process::run("prlimit", &["--pid", &pid, &format!("--nofile={limit}:{limit}")], secs(10));
    let rtmp: Vec<_> = (0..120).map(|_| TcpStream::connect(arena.address())).collect();
    let admin: Vec<_> = (0..40).map(|_| TcpStream::connect(arena.gateway.admin)).collect();
    arena.healthy.wait_for_more(150);
    drop((rtmp, admin));
    crate::common::wait::until_true("the API to answer again", secs(30), || {
        http::try_get(arena.gateway.admin, "/healthz").is_some_and(|answer| answer.status == 200)
    });
    arena.assert_unharmed();
}

#[test]
fn unknown_messages_and_user_control_events_are_passed_over() {
    let arena = Arena::new();
    let player = Player::start(arena.address(), "spare");
    let (mut client, stream) = Client::publishing(arena.address(), "spare").unwrap();
    let tags: Vec<_> = Fixture::h264_aac(6).tags().into_iter().take(60).collect();
    for (index, tag) in tags.iter().enumerate() {
        let event = [&(index as u16 % 40 + 8).to_be_bytes()[..], &[0; 8]].concat();
        client.control(4, &event).unwrap();
        client.send(7, &message([7, 10, 13, 16, 19, 23, 99, 255][index % 8], stream, vec![1, 2, 3])).unwrap();
        client
            .command(stream, &[Amf::text("whatever"), Amf::Number(0.0), Amf::Null, Amf::text("x")])
            .unwrap();
        client.media(stream, tag).unwrap();
    }
    Take::of(&tags).assert_same(&player.finish(), "between the unknown");
    drop(client);
    arena.assert_unharmed();
}

#[test]
fn strange_metadata_does_not_end_a_publication() {
    let arena = Arena::new();
    let player = Player::start(arena.address(), "spare");
    let (mut client, stream) = Client::publishing(arena.address(), "spare").unwrap();
    let start = amf::encode(&[Amf::text("@setDataFrame"), Amf::text("onMetaData")]);
    // Date, long string, typed object, reference, undefined, unsupported, XML, AMF3 switch, cut short, unknown marker.
    let strange: [&[u8]; 10] = [
        &[11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[12, 0, 0, 0, 2, b'h', b'i'],
        &[16, 0, 1, b'T', 0, 1, b'a', 5, 0, 0, 9],
        &[7, 0, 1],
        &[6],
        &[13],
        &[15, 0, 0, 0, 1, b'x'],
        &[17, 1],
        &[2, 0xff, 0xff, b'x'],
        &[0x42, 1, 2],
    ];
    let tags: Vec<_> =
        Fixture::h264_aac(6).tags().into_iter().filter(|tag| tag.kind != DATA).take(60).collect();
    for (index, tag) in tags.iter().enumerate() {
        let mut body = start.clone();
        body.extend([8, 0, 0, 0, 1, 0, 4]);
        body.extend(b"date");
        body.extend(strange[index % strange.len()]);
        client.send(5, &message(DATA, stream, body)).unwrap();
        client.media(stream, tag).unwrap();
    }
    Take::of(&tags).assert_same(&player.finish(), "between strange metadata");
    drop(client);
    arena.assert_unharmed();
}

#[test]
fn aggregate_messages_are_taken_apart() {
    let arena = Arena::new();
    let player = Player::start(arena.address(), "spare");
    let (mut client, stream) = Client::publishing(arena.address(), "spare").unwrap();
    let tags: Vec<_> =
        Fixture::h264_aac(6).tags().into_iter().filter(|tag| tag.kind != DATA).take(90).collect();
    for group in tags.chunks(6) {
        let mut body = Vec::new();
        for tag in group {
            // The parts' times count from the first part's; the aggregate's own is added.
            body.push(tag.kind);
            body.extend(&(tag.body.len() as u32).to_be_bytes()[1..]);
            body.extend(&tag.ts.to_be_bytes()[1..]);
            body.extend([0; 4]);
            body.extend(&tag.body);
            body.extend((tag.body.len() as u32 + 11).to_be_bytes());
        }
        client.send(6, &Message { kind: 22, ts: group[0].ts, stream, body }).unwrap();
    }
    Take::of(&tags).assert_same(&player.finish(), "from aggregates");
    // Lengths that lie.
    drop(client.send(6, &message(22, stream, vec![9, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 2])));
    drop(client.send(6, &message(22, stream, vec![22; 400])));
    client.is_closed_within(Duration::from_millis(300));
    drop(client);
    arena.assert_unharmed();
}

#[test]
fn acknowledgement_and_ping_floods_harm_nobody() {
    let arena = Arena::new();
    let mut clients =
        [Client::connected(arena.address(), "live"), Client::playing(arena.address(), "yard").unwrap()];
    let mut bytes = Vec::new();
    for n in 0..2_000_u32 {
        bytes.extend(cut(2, &message(3, 0, (n * 77).to_be_bytes().to_vec()), 128));
        bytes.extend(cut(2, &message(5, 0, (n % 3).to_be_bytes().to_vec()), 128));
        bytes.extend(cut(2, &message(4, 0, vec![0, 6, 0, 0, 0, 1]), 128));
    }
    // The answers to the pings are not read: what waits for this peer must be bounded.
    for client in &mut clients {
        for _ in 0..100 {
            if client.raw(&bytes).is_err() {
                break;
            }
        }
    }
    drop(clients);
    arena.assert_unharmed();
}

#[test]
fn requests_without_end_are_bounded() {
    let arena = Arena::new();
    let mut client = Client::connected(arena.address(), "live");
    for transaction in 0..20_000 {
        let values = [Amf::text("createStream"), Amf::Number(f64::from(transaction)), Amf::Null];
        if client.command(0, &values).is_err() {
            break;
        }
    }
    let mut client = Client::connected(arena.address(), "live");
    for _ in 0..2_000 {
        let values =
            [Amf::text("play"), Amf::Number(0.0), Amf::Null, Amf::text("spare"), Amf::Number(-2000.0)];
        if client.command(1, &values).is_err() {
            break;
        }
    }
    arena.assert_unharmed();
}

#[test]
fn malformed_media_is_skipped_and_the_stream_beside_it_goes_on() {
    let arena = Arena::new();
    let player = Player::start(arena.address(), "spare");
    let (mut client, stream) = Client::publishing(arena.address(), "spare").unwrap();
    let tag = |kind, body: &[u8]| Tag { kind, ts: 0, body: body.to_vec() };
    let broken = [
        tag(VIDEO, &[]),
        tag(AUDIO, &[]),
        tag(VIDEO, &[0x17]),
        tag(VIDEO, &[0x17, 0]),
        tag(VIDEO, &[0x17, 0, 0, 0, 0]),
        tag(VIDEO, &[0x17, 0, 0, 0, 0, 1, 100, 0, 20, 0xff, 0xff, 0xff, 0xff]),
        tag(VIDEO, &[0x17, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
        tag(VIDEO, &[0x27, 1, 0, 0, 0, 0, 0, 0, 0]),
        tag(VIDEO, &[0x90]),
        tag(VIDEO, b"\x90hvc1"),
        tag(VIDEO, b"\x90hvc1\x01\xff\xff"),
        tag(VIDEO, b"\x96av01\0\0\0"),
        tag(VIDEO, &[0x97, 0xff, 0xff, 0xff, 0xff]),
        tag(VIDEO, &[0x12, 0, 1, 2]),
        tag(AUDIO, &[0xaf]),
        tag(AUDIO, &[0xaf, 0]),
        tag(AUDIO, &[0xaf, 0, 0xff]),
        tag(AUDIO, &[0x9f, 0xff]),
        tag(AUDIO, b"\x95Opus"),
    ];
    for tag in &broken {
        if client.media(stream, tag).is_err() {
            break;
        }
    }
    client.is_closed_within(Duration::from_millis(500));
    drop((client, player));
    arena.assert_unharmed();
}

#[test]
fn slow_player_is_jumped_forward_and_the_others_lose_nothing() {
    let arena = Arena::with(json!({ "write_timeout": "3s" }));
    let mut stuck = Client::playing(arena.address(), "yard").unwrap();
    assert!(stuck.tag(secs(10)).is_ok());
    // It takes nothing more; its socket holds what the kernel lets it, the gateway only the ring.
    arena.healthy.wait_for_more(200);
    drop(stuck);
    arena.assert_unharmed();
}

#[test]
fn random_bytes_are_survived() {
    let arena = Arena::new();
    // A fixed seed: what fails once fails again.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..60 {
        let noise: Vec<u8> = (0..8_192).map(|_| random() as u8).collect();
        match round % 4 {
            0 => {
                let mut socket = TcpStream::connect(arena.address()).unwrap();
                drop(socket.write_all(&noise));
                drop(socket.shutdown(std::net::Shutdown::Write));
                socket.set_read_timeout(Some(secs(2))).unwrap();
                drop(socket.read(&mut [0; 4_096]));
            }
            1 => drop(Client::open(arena.address()).raw(&noise)),
            2 => drop(Client::connected(arena.address(), "live").raw(&noise)),
            _ => {
                // Noise in the bodies of well-formed messages.
                let mut client = Client::connected(arena.address(), "live");
                let stream = client.create_stream();
                for _ in 0..20 {
                    let kind = random() as u8 % 24;
                    let len = random() as usize % 200;
                    let from = random() as usize % (noise.len() - len);
                    let body = noise[from..from + len].to_vec();
                    if kind == 1
                        || client.send(3 + random() as u32 % 5, &message(kind, stream, body)).is_err()
                    {
                        break;
                    }
                }
            }
        }
    }
    arena.assert_unharmed();
}

#[test]
fn half_open_players_do_not_pile_up() {
    let arena = Arena::new();
    for _ in 0..30 {
        let mut client = Client::playing(arena.address(), "yard").unwrap();
        assert_ne!(client.tag(secs(10)).err(), Some(Silence::TimedOut));
    }
    crate::common::wait::until_true("players to be forgotten", secs(20), || {
        arena.gateway.players("yard") <= 1
    });
    arena.assert_unharmed();
}

#[test]
fn header_inside_an_unfinished_message_is_survived() {
    let arena = Arena::new();
    for format in 0..3 {
        let (mut client, stream) = Client::publishing(arena.address(), "spare").unwrap();
        let mut bytes = head(6, 0, 10_000, VIDEO, stream);
        bytes.extend([0x27; 4_096]);
        bytes.extend(basic(format, 6));
        bytes.extend(&head(6, 0, 10_000, VIDEO, stream)[1..][..[11, 7, 3][usize::from(format)]]);
        bytes.extend([0x27; 4_096]);
        drop(client.raw(&bytes));
        client.is_closed_within(Duration::from_millis(300));
        drop(client);
        std::thread::sleep(Duration::from_millis(100));
    }
    // An abort is the polite way; what comes after it arrives.
    let player = Player::start(arena.address(), "spare");
    let (mut client, stream) = Client::publishing(arena.address(), "spare").unwrap();
    let mut bytes = head(6, 0, 10_000, VIDEO, stream);
    bytes.extend([0x27; 4_096]);
    client.raw(&bytes).unwrap();
    client.control(2, &6_u32.to_be_bytes()).unwrap();
    let tags: Vec<_> =
        Fixture::h264_aac(6).tags().into_iter().filter(|tag| tag.kind != DATA).take(60).collect();
    for tag in &tags {
        client.media(stream, tag).unwrap();
    }
    Take::of(&tags).assert_same(&player.finish(), "after an aborted message");
    drop(client);
    arena.assert_unharmed();
}

#[test]
fn timestamps_that_step_back_reach_players_in_order() {
    let arena = Arena::new();
    let player = Player::start(arena.address(), "spare");
    let (mut client, stream) = Client::publishing(arena.address(), "spare").unwrap();
    let mut tags: Vec<_> =
        Fixture::h264_aac(6).tags().into_iter().filter(|tag| tag.kind != DATA).take(200).collect();
    for (index, tag) in tags.iter_mut().enumerate() {
        tag.ts += if index < 100 { 3_600_000 } else { 0 };
        client.media(stream, tag).unwrap();
    }
    let got = player.tags();
    for kind in [AUDIO, VIDEO] {
        let times: Vec<_> = got.iter().filter(|tag| tag.kind == kind).map(|tag| tag.ts).collect();
        assert!(times.is_sorted(), "{times:?}");
        assert!(
            times.windows(2).all(|pair| pair[1] - pair[0] < 60_000),
            "no jump to the far end of time: {times:?}"
        );
    }
    let payloads =
        |take: &Take| take.video.frames.iter().map(|frame| frame.payload.clone()).collect::<Vec<_>>();
    assert!(payloads(&Take::of(&tags)) == payloads(&Take::of(&got)), "every picture has come");
    drop(client);
    arena.assert_unharmed();
}

#[test]
fn acknowledgements_carry_the_running_total() {
    let arena = Arena::new();
    let (mut client, stream) = Client::publishing(arena.address(), "spare").unwrap();
    // A window so small that several acknowledgements come.
    client.control(5, &20_000_u32.to_be_bytes()).unwrap();
    let tags = Fixture::h264_aac(6).tags();
    for tag in &tags {
        client.media(stream, tag).unwrap();
    }
    let mut totals = Vec::new();
    while let Ok(message) = client.message(secs(1)) {
        if message.kind == 3 {
            totals.push(u32::from_be_bytes(message.body[..4].try_into().unwrap()));
        }
    }
    println!("{totals:?}");
    assert!(totals.is_sorted(), "{totals:?}");
    let sent: usize = tags.iter().map(|tag| tag.body.len()).sum();
    assert!(totals.last().is_some_and(|last| *last as usize > sent / 2), "{totals:?} of more than {sent}");
    drop(client);
    arena.assert_unharmed();
}

/// A server that shakes hands and then sends what `say` gives; lasts as long as the listener.
fn hostile_server(say: impl Fn(u32, &mut TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (count, socket) in listener.incoming().enumerate() {
            let Ok(mut socket) = socket else { return };
            socket.set_read_timeout(Some(secs(2))).unwrap();
            let mut hello = vec![0; 1 + 1_536];
            if socket.read_exact(&mut hello).is_err() {
                continue;
            }
            let answer = [&[3][..], &[0; 1_536], &hello[1..]].concat();
            if socket.write_all(&answer).is_ok() && socket.read_exact(&mut hello[1..]).is_ok() {
                say(count as u32, &mut socket);
                drop(socket.read(&mut [0; 4_096]));
            }
        }
    });
    address
}

#[test]
fn hostile_upstreams_harm_neither_the_gateway_nor_other_pushes() {
    let nested_answer = |socket: &mut TcpStream| {
        let mut body = amf::encode(&[Amf::text("_result"), Amf::Number(1.0)]);
        body.extend((0..50_000).flat_map(|_| [3, 0, 1, b'a']));
        drop(socket.write_all(&cut(3, &message(20, 0, body), 128)));
    };
    let servers = [
        hostile_server(move |_, socket| nested_answer(socket)),
        hostile_server(|_, socket| {
            drop(socket.write_all(&cut(3, &message(20, 0, amf::encode(&[Amf::text("_result")])), 128)))
        }),
        hostile_server(|_, socket| drop(socket.write_all(&cut(2, &message(1, 0, vec![0; 4]), 128)))),
        hostile_server(|count, socket| {
            let noise: Vec<u8> =
                (0..20_000_u32).map(|i| ((i ^ count).wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            drop(socket.write_all(&noise));
        }),
        hostile_server(|_, socket| {
            drop(socket.write_all(&head(3, 0, 0xff_ffff, 20, 0)));
            while socket.write_all(&[0xc3; 4_096]).is_ok() {}
        }),
        hostile_server(|_, socket| drop(socket.shutdown(std::net::Shutdown::Both))),
        // Shakes hands and says nothing, or only pings.
        hostile_server(|_, socket| {
            while socket.write_all(&cut(2, &message(4, 0, vec![0, 6, 0, 0, 0, 1]), 128)).is_ok() {}
        }),
    ];
    let nginx = Nginx::start();
    let mut pushes: Vec<_> = servers
        .iter()
        .map(|address| json!({ "url": format!("rtmp://{address}/live/x"), "backoff_cap": "1s" }))
        .collect();
    pushes.push(json!({ "url": nginx.url("good") }));
    let mut mountpoints = json!({ "yard": { "source": { "kind": "publish" }, "push": pushes } });
    for (index, address) in servers.iter().enumerate() {
        let url = format!("rtmp://{address}/live/x");
        mountpoints[format!("pull{index}")] =
            json!({ "source": { "kind": "pull", "url": url, "backoff_cap": "1s" } });
    }
    let mut gateway = Gateway::with_mountpoints(mountpoints);
    let healthy = Healthy::start(gateway.rtmp, "yard");
    healthy.wait_for_more(400);
    gateway.assert_running();
    let peak = gateway.peak_bytes();
    assert!(peak <= MEMORY_BOUND, "held {} MiB at its peak", peak >> 20);
    let sent = healthy.assert_unharmed();
    drop(gateway);
    sent.assert_same(&nginx.recorded("good"), "the push beside them");
}
