//! Peers that take too much of something: time, connections, files.

use super::{Arena, message};
use crate::common::chunks::{cut, head};
use crate::common::fixture::Fixture;
use crate::common::flv::VIDEO;
use crate::common::http;
use crate::common::process::Process;
use crate::common::rtmp::{Client, Silence};
use crate::common::wait::{self, secs};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

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
    let before = arena.gateway.held_bytes();
    let idle: Vec<_> = (0..500)
        .map(|n| {
            if n % 2 == 0 {
                return (Some(TcpStream::connect(arena.address()).unwrap()), None);
            }
            (None, Some(Client::connected(arena.address(), "live")))
        })
        .collect();
    let grown = arena.gateway.held_bytes().saturating_sub(before);
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
            let (mut client, stream) = wait::until("the place to be free", secs(10), || {
                Client::publishing(arena.address(), "spare").ok()
            });
            for tag in &tags {
                client.media(stream, tag).unwrap();
            }
            drop(Client::playing(arena.address(), "spare"));
            drop(TcpStream::connect(arena.address()));
        }
        std::thread::sleep(secs(1));
        (arena.gateway.open_files(), arena.gateway.held_bytes())
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
    wait::until_true("the API to answer again", secs(30), || {
        http::try_get(arena.gateway.admin, "/healthz").is_some_and(|answer| answer.status == 200)
    });
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
fn half_open_players_do_not_pile_up() {
    let arena = Arena::new();
    for _ in 0..30 {
        let mut client = Client::playing(arena.address(), "yard").unwrap();
        assert_ne!(client.tag(secs(10)).err(), Some(Silence::TimedOut));
    }
    wait::until_true("players to be forgotten", secs(20), || arena.gateway.players("yard") <= 1);
    arena.assert_unharmed();
}
