//! What one more RTMP subscriber costs on the way from the publisher's turn to the socket: no copy of a payload and no
//! allocation.

#![allow(unsafe_code, reason = "a counting allocator cannot be written without it")]

use super::tests::{framing, publish, publisher};
use super::*;
use fieldgate_hub::LocalShard;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::rc::Rc;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: hands everything on to the system's allocator; the counter is this thread's own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Publishes 300 units to that many players over real sockets; returns the allocations of the publisher's turns.
async fn allocations(players: usize) -> u64 {
    let shard = LocalShard::new(0);
    let (mountpoint, mut publisher) = publisher(&shard, Duration::from_secs(4));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut listed = Vec::new();
    let mut readers = Vec::new();
    for _ in 0..players {
        readers.push(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let outbox = Rc::new(Outbox::new(Socket::Plain(listener.accept().await.unwrap().0)));
        outbox.start(
            mountpoint.subscribe(None),
            framing(1 << 20, 1),
            shard.beat(Duration::ZERO),
            Instant::now(),
        );
        listed.push((shard.sinks("yard").add(outbox.clone()), outbox));
    }
    let mut spent = 0;
    let mut drain = vec![0; 64 << 10];
    for index in 0..500 {
        let before = ALLOCATIONS.with(Cell::get);
        publish(&mut publisher, index, 1500);
        publisher.flush();
        // Joining and the growth of buffers that are used again is not what is counted.
        if index >= 200 {
            spent += ALLOCATIONS.with(Cell::get) - before;
        }
        for reader in &mut readers {
            let len = reader.read(&mut drain).await.unwrap();
            assert!(len > 1500, "one unit is written whole, at once");
        }
    }
    assert!(listed.iter().all(|(_, outbox)| outbox.dropped_units() == 0 && outbox.written_units() == 500));
    spent
}

#[tokio::test]
async fn one_more_player_allocates_nothing() {
    let (one, fifty) = (allocations(1).await, allocations(50).await);
    assert_eq!(one, fifty, "allocations for 300 units with 1 and with 50 players");
}
