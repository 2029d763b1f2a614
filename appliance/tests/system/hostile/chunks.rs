//! Chunks and control messages that are legal but rare, or broken.

use super::{Arena, message};
use crate::common::chunks::{Message, basic, cut, head};
use crate::common::fixture::Fixture;
use crate::common::flv::{AUDIO, DATA, Tag, VIDEO};
use crate::common::healthy::Player;
use crate::common::rtmp::Client;
use crate::common::take::Take;
use crate::common::wait::secs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

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
fn sixteen_mebibyte_messages_do_not_fill_memory() {
    let arena = Arena::new();
    let before = arena.gateway.held_bytes();
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
    let grown = arena.gateway.held_bytes().saturating_sub(before);
    println!("grown by {} KiB", grown >> 10);
    assert!(grown < 24 << 20, "twenty strangers made it hold {} MiB more", grown >> 20);
    drop(clients);
    arena.assert_unharmed();
}

#[test]
fn unfinished_messages_on_many_chunk_streams_are_bounded() {
    let arena = Arena::new();
    let (mut client, stream) = Client::publishing(arena.address(), "spare").unwrap();
    let before = arena.gateway.held_bytes();
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
    let grown = arena.gateway.held_bytes().saturating_sub(before);
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
