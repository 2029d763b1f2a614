//! What one more subscriber costs: no copy of a payload, no allocation per unit.

#![allow(unsafe_code, reason = "a counting allocator cannot be written without it")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use bytes::Bytes;
use fieldgate_hub::{Entry, Item, Limits, LocalShard, Mountpoint, PublisherInfo, Sink, Subscriber};
use fieldgate_media::{Codec, Draft, Ticks, Track, TrackId, Tracks, UnitHead};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

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

/// A subscriber that looks at every payload's address.
struct Reader {
    subscriber: RefCell<Subscriber>,
    units: Cell<u64>,
    last_payload: Cell<*const u8>,
}

impl Sink for Reader {
    fn flush(&self, turn: &[Arc<Entry>], batch: &mut Vec<Arc<Entry>>) {
        let mut subscriber = self.subscriber.borrow_mut();
        let new = if subscriber.follow(turn) {
            turn
        } else {
            while subscriber.take(batch, 64, 1 << 20).more {}
            batch.as_slice()
        };
        for entry in new {
            if let Item::Unit { unit, .. } = &entry.item {
                self.units.set(self.units.get() + 1);
                self.last_payload.set(unit.payload.as_ptr());
            }
        }
    }

    fn gathers_for(&self) -> Duration {
        Duration::ZERO
    }
}

/// Publishes `units` to `readers` subscribers; returns the allocations made meanwhile.
fn allocations(readers: usize, units: i64) -> u64 {
    let shard = LocalShard::new(0);
    let mountpoint = Mountpoint::new("yard".into(), 0, Limits::default(), Arc::new(()));
    let info = PublisherInfo { kind: "test", from: "here".into(), since_unix_micros: 0, rtmp: None };
    let mut publisher = mountpoint.claim(&shard, info).unwrap();
    publisher.announce(Tracks::new(vec![Track::new(
        TrackId::VIDEO,
        Codec::H264,
        Bytes::from_static(b"avcC"),
    )]));
    let sinks = shard.sinks("yard");
    let listed: Vec<_> = (0..readers)
        .map(|_| {
            let reader = Rc::new(Reader {
                subscriber: RefCell::new(mountpoint.subscribe(None)),
                units: Cell::new(0),
                last_payload: Cell::new(std::ptr::null()),
            });
            (sinks.add(reader.clone()), reader)
        })
        .collect();
    let mut publish = |index: i64| {
        let dts = Ticks::from_millis(index * 40);
        let keyframe = index % 50 == 0;
        let head = UnitHead {
            track: TrackId::VIDEO,
            dts,
            pts: dts,
            source_dts: dts,
            source_pts: dts,
            keyframe,
            captured: None,
        };
        let draft = Draft::copied(head, &[1; 1000]);
        let payload = draft.payload().as_ptr();
        assert!(publisher.publish(draft));
        publisher.flush();
        payload
    };
    // Joining and the growth of reused buffers is not what is counted.
    for index in 0..200 {
        publish(index);
    }
    let before = ALLOCATIONS.with(Cell::get);
    for index in 200..200 + units {
        let payload = publish(index);
        for (_, reader) in &listed {
            assert_eq!(reader.last_payload.get(), payload, "every subscriber sees the publisher's own bytes");
        }
    }
    let spent = ALLOCATIONS.with(Cell::get) - before;
    for (_, reader) in &listed {
        assert_eq!(reader.units.get(), 200 + units as u64);
    }
    spent
}

#[tokio::test]
async fn one_more_subscriber_allocates_nothing() {
    let one = allocations(1, 500);
    let hundred = allocations(100, 500);
    assert_eq!(one, hundred, "allocations for 500 units with 1 and with 100 subscribers");
    assert!(
        one <= 500 * 4,
        "{one} allocations for 500 units: buffer, its owner, the ring's entry, and no more"
    );
}
