//! Commands, metadata and media that no decent peer sends.

use super::{Arena, message};
use crate::common::amf::{self, Amf};
use crate::common::fixture::Fixture;
use crate::common::flv::{AUDIO, DATA, Tag, VIDEO};
use crate::common::healthy::Player;
use crate::common::rtmp::Client;
use crate::common::take::Take;
use crate::common::wait::secs;
use std::time::Duration;

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
