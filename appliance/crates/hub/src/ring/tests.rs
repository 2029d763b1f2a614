use super::*;
use fieldgate_media::{Codec, Track, TrackId, UnitHead};

const SECOND: i64 = 1000;
const LAG: Duration = Duration::from_secs(4);

fn tracks() -> Tracks {
    let video = Track::new(TrackId::VIDEO, Codec::H264, Bytes::from_static(b"avcC"));
    let audio = Track::new(TrackId::AUDIO, Codec::Aac, Bytes::from_static(b"asc"));
    Tracks::new(vec![video, audio])
}

fn draft(track: TrackId, millis: i64, keyframe: bool, len: usize) -> Draft {
    let dts = Ticks::from_millis(millis);
    let head = UnitHead { track, dts, pts: dts, source_dts: dts, source_pts: dts, keyframe, captured: None };
    Draft::copied(head, &vec![7; len])
}

fn ring(bytes: usize) -> Arc<Ring> {
    let ring = Ring::new(Bound { bytes, age: Duration::from_secs(10) }, Arc::new(()));
    ring.announce(tracks(), None);
    Arc::new(ring)
}

/// One GOP: a keyframe at `start_millis`, then a picture every 100 ms.
fn publish_gop(ring: &Ring, start_millis: i64, pictures: i64) {
    for index in 0..pictures {
        assert!(ring.publish(draft(TrackId::VIDEO, start_millis + index * 100, index == 0, 1000)).is_some());
    }
}

fn times(entries: &[Arc<Entry>]) -> Vec<i64> {
    let units = entries.iter().filter(|entry| matches!(entry.item, Item::Unit { .. }));
    units.map(|entry| entry.dts().as_millis()).collect()
}

fn take_all(subscriber: &mut Subscriber) -> (Vec<Arc<Entry>>, u64) {
    let (mut out, mut dropped) = (Vec::new(), 0);
    loop {
        let taken = subscriber.take(&mut out, 16, 1 << 20);
        dropped += taken.dropped_units;
        if !taken.more {
            return (out, dropped);
        }
    }
}

#[test]
fn late_subscriber_starts_at_newest_keyframe_with_its_tracks() {
    let ring = ring(1 << 20);
    publish_gop(&ring, 0, 10);
    publish_gop(&ring, SECOND, 5);
    let (entries, dropped) = take_all(&mut ring.subscribe(Start::Keyframe, LAG));
    assert!(matches!(&entries[0].item, Item::Tracks { tracks: told, .. } if *told == tracks()));
    assert_eq!(times(&entries), [1000, 1100, 1200, 1300, 1400]);
    assert_eq!(dropped, 0);
}

#[test]
fn who_waited_for_the_stream_gets_it_from_its_first_unit() {
    let ring = ring(1 << 20);
    let mut early = ring.subscribe(Start::Keyframe, LAG);
    assert!(!early.has_more());
    assert!(take_all(&mut early).0.is_empty());
    ring.publish(draft(TrackId::AUDIO, 480, true, 10));
    publish_gop(&ring, 500, 2);
    let (entries, dropped) = take_all(&mut early);
    assert!(matches!(&entries[0].item, Item::Tracks { tracks: told, .. } if *told == tracks()));
    assert_eq!(
        (times(&entries), dropped),
        (vec![480, 500, 600], 0),
        "also the sound before the first picture"
    );
}

#[test]
fn who_came_before_the_first_keyframe_waits_for_it_and_loses_nothing_by_that() {
    let ring = ring(1 << 20);
    ring.publish(draft(TrackId::AUDIO, 0, true, 10));
    let mut late = ring.subscribe(Start::Keyframe, LAG);
    ring.publish(draft(TrackId::AUDIO, 20, true, 10));
    assert!(!late.has_more());
    publish_gop(&ring, 500, 2);
    let (entries, dropped) = take_all(&mut late);
    assert_eq!((times(&entries), dropped), (vec![500, 600], 0));
}

#[test]
fn the_end_of_a_stream_can_still_be_read_but_not_joined() {
    let ring = ring(1 << 20);
    let mut reader = ring.subscribe(Start::Keyframe, LAG);
    publish_gop(&ring, 0, 5);
    ring.end();
    assert!(!ring.subscribe(Start::Keyframe, LAG).has_more());
    assert_eq!(times(&take_all(&mut reader).0), [0, 100, 200, 300, 400]);
    ring.announce(tracks(), None);
    publish_gop(&ring, 0, 2);
    assert_eq!(times(&take_all(&mut reader).0), [0, 100], "and the next stream from its start");
    assert_eq!(reader.dropped_units(), 0);
    assert_eq!(ring.counters().held_units, 3, "tracks and two pictures: the old stream is gone");
}

#[test]
fn every_subscriber_gets_the_same_payload_and_no_copy() {
    let ring = ring(1 << 20);
    let published = draft(TrackId::VIDEO, 0, true, 5000);
    let pointer = published.payload().as_ptr();
    ring.publish(published);
    for _ in 0..50 {
        let (entries, _) = take_all(&mut ring.subscribe(Start::Keyframe, LAG));
        let Item::Unit { unit, wire } = &entries[1].item else { panic!("a unit follows the tracks") };
        assert_eq!(unit.payload.as_ptr(), pointer);
        assert_eq!(wire.as_ptr(), pointer, "no head with this wire form");
    }
}

#[test]
fn a_slow_subscriber_jumps_to_the_newest_keyframe_and_is_told_what_it_missed() {
    let ring = ring(1 << 20);
    publish_gop(&ring, 0, 10);
    let mut slow = ring.subscribe(Start::Keyframe, Duration::from_secs(2));
    let mut out = Vec::new();
    slow.take(&mut out, 3, 1 << 20);
    assert_eq!(times(&out), [0, 100]);
    for gop in 1..4 {
        publish_gop(&ring, gop * SECOND, 10);
    }
    let (entries, dropped) = take_all(&mut slow);
    // 40 published, 2 taken, the GOP at 3 s taken: 28 missed.
    assert_eq!(dropped, 28);
    assert_eq!((times(&entries)[0], times(&entries).len()), (3000, 10));
    assert!(matches!(entries[0].item, Item::Tracks { .. }));
    assert_eq!((slow.dropped_units(), ring.counters().dropped_units), (28, 28));
}

#[test]
fn who_is_too_slow_within_the_newest_gop_waits_for_the_next() {
    let ring = ring(1 << 20);
    publish_gop(&ring, 0, 50);
    let mut slow = ring.subscribe(Start::Keyframe, Duration::from_secs(2));
    let (entries, dropped) = take_all(&mut slow);
    assert!(entries.is_empty(), "the newest keyframe is older than its lag allows");
    assert_eq!(dropped, 0, "it had not joined yet");
    publish_gop(&ring, 5 * SECOND, 3);
    assert_eq!(times(&take_all(&mut slow).0), [5000, 5100, 5200]);
}

#[test]
fn a_slow_reader_changes_nothing_for_a_healthy_one() {
    let ring = ring(64 << 10);
    let mut healthy = ring.subscribe(Start::Keyframe, LAG);
    let slow = ring.subscribe(Start::Keyframe, LAG);
    let mut seen = Vec::new();
    for gop in 0..20 {
        for index in 0..10 {
            ring.publish(draft(TrackId::VIDEO, gop * SECOND + index * 100, index == 0, 1000));
            seen.extend(times(&take_all(&mut healthy).0));
        }
        assert!(ring.counters().held_bytes <= 64 << 10);
    }
    assert_eq!(seen, (0..200).map(|index| index * 100).collect::<Vec<_>>());
    assert_eq!(healthy.dropped_units(), 0);
    drop(slow);
}

#[test]
fn a_ring_that_nobody_lags_in_holds_one_gop() {
    let ring = ring(1 << 20);
    let mut reader = ring.subscribe(Start::Keyframe, LAG);
    for gop in 0..5 {
        publish_gop(&ring, gop * SECOND, 10);
        take_all(&mut reader);
    }
    ring.publish(draft(TrackId::VIDEO, 5 * SECOND, true, 1000));
    take_all(&mut reader);
    ring.publish(draft(TrackId::VIDEO, 5 * SECOND + 100, false, 1000));
    assert_eq!(ring.counters().held_units, 2);
}

#[test]
fn a_gop_over_the_bound_cannot_be_joined_until_the_next_keyframe_and_is_counted_once() {
    let ring = ring(5_000);
    publish_gop(&ring, 0, 9);
    assert_eq!(ring.counters().oversized_gops, 1);
    let mut late = ring.subscribe(Start::Keyframe, LAG);
    assert!(take_all(&mut late).0.is_empty());
    publish_gop(&ring, SECOND, 2);
    assert_eq!(times(&take_all(&mut late).0), [1000, 1100]);
}

#[test]
fn repeated_headers_stay_in_order_and_are_marked() {
    let ring = ring(1 << 20);
    let mut reader = ring.subscribe(Start::Keyframe, LAG);
    publish_gop(&ring, 0, 1);
    ring.announce(tracks(), None);
    let changed = tracks().with(Track::new(TrackId::VIDEO, Codec::H264, Bytes::from_static(b"new")));
    ring.announce(changed.clone(), Some(TrackId::VIDEO));
    publish_gop(&ring, SECOND, 1);
    let (entries, _) = take_all(&mut reader);
    let kinds: Vec<&str> = entries
        .iter()
        .map(|entry| match &entry.item {
            Item::Unit { .. } => "unit",
            Item::Tracks { same: true, header_of: None, .. } => "same",
            Item::Tracks { same: false, header_of: Some(TrackId::VIDEO), .. } => "header",
            Item::Tracks { .. } => "tracks",
        })
        .collect();
    assert_eq!(kinds, ["tracks", "unit", "same", "header", "unit"]);
    assert_eq!(ring.tracks(), changed);
}

#[test]
fn audio_alone_can_be_joined_at_any_unit() {
    let ring = Ring::new(Bound::default(), Arc::new(()));
    ring.announce(Tracks::new(vec![Track::new(TrackId::AUDIO, Codec::Aac, Bytes::new())]), None);
    let ring = Arc::new(ring);
    for index in 0..10 {
        ring.publish(draft(TrackId::AUDIO, index * 20, true, 100));
    }
    assert_eq!(times(&take_all(&mut ring.subscribe(Start::Keyframe, LAG)).0), [180]);
}

#[test]
fn units_of_unannounced_tracks_are_refused() {
    let ring = ring(1 << 20);
    assert!(ring.publish(draft(TrackId(7), 0, true, 10)).is_none());
    assert_eq!(ring.counters().units, 0);
}

#[test]
fn who_has_had_everything_follows_the_turn_and_others_do_not() {
    let ring = ring(1 << 20);
    publish_gop(&ring, 0, 3);
    let mut reader = ring.subscribe(Start::Keyframe, LAG);
    let mut late = ring.subscribe(Start::Keyframe, LAG);
    let turn = |millis| vec![ring.publish(draft(TrackId::VIDEO, millis, false, 10)).unwrap()];
    assert!(!reader.follow(&turn(300)), "it has not been told the tracks yet");
    assert_eq!(times(&take_all(&mut reader).0), [0, 100, 200, 300]);
    let next = turn(400);
    assert!(reader.follow(&next));
    assert!(!reader.follow(&next), "once only");
    assert!(!reader.has_more());
    let old = turn(500);
    let newest = turn(600);
    assert!(!reader.follow(&newest) && !reader.follow(&old), "something lies between, or came after");
    assert_eq!(times(&take_all(&mut reader).0), [500, 600]);
    assert_eq!(times(&take_all(&mut late).0).len(), 7);
    assert_eq!((reader.dropped_units(), late.dropped_units()), (0, 0));
}

#[tokio::test]
async fn a_waiting_subscriber_is_woken_by_a_publish() {
    let ring = ring(1 << 20);
    let reader = ring.subscribe(Start::Keyframe, LAG);
    let publish = async {
        tokio::task::yield_now().await;
        publish_gop(&ring, 0, 1);
        ring.wake();
    };
    tokio::join!(reader.changed(), publish);
    assert!(reader.has_more());
}

#[test]
fn missed_sound_is_counted_apart() {
    let ring = ring(1 << 20);
    publish_gop(&ring, 0, 10);
    let mut slow = ring.subscribe(Start::Keyframe, Duration::from_secs(2));
    let mut out = Vec::new();
    slow.take(&mut out, 3, 1 << 20);
    for millis in (1000..3000).step_by(200) {
        assert!(ring.publish(draft(TrackId::AUDIO, millis, false, 100)).is_some());
    }
    publish_gop(&ring, 3 * SECOND, 10);
    let taken = slow.take(&mut out, 1, 1 << 20);
    // 8 pictures and 10 sounds lie between.
    assert_eq!((taken.dropped_units, taken.dropped_audio), (18, 10));
    assert_eq!(slow.take(&mut out, 1, 1 << 20).dropped_units, 0);
}

#[test]
fn after_a_cut_nothing_of_before_can_be_had() {
    let ring = ring(1 << 20);
    publish_gop(&ring, 0, 10);
    let (mut slow, mut quick) = (ring.subscribe(Start::Keyframe, LAG), ring.subscribe(Start::Keyframe, LAG));
    assert_eq!(times(&take_all(&mut quick).0).len(), 10);
    let before = ring.epoch();
    ring.cut();
    let mut late = ring.subscribe(Start::Keyframe, LAG);
    for reader in [&mut slow, &mut quick, &mut late] {
        assert!(times(&take_all(reader).0).is_empty());
    }
    assert!(ring.publish_in(before, draft(TrackId::VIDEO, 1000, true, 10)).is_none());
    assert!(ring.publish(draft(TrackId::VIDEO, 1100, false, 10)).is_some(), "is no start for anybody");
    publish_gop(&ring, 2 * SECOND, 2);
    for reader in [&mut slow, &mut quick, &mut late] {
        assert_eq!(times(&take_all(reader).0), [2000, 2100]);
    }
}

/// However a publisher, readers and cuts meet: what a reader gets after a cut was published in the epoch that it began.
#[test]
fn no_unit_slips_through_a_cut() {
    for round in 0..200 {
        let ring = ring(1 << 20);
        let writer = ring.clone();
        let epoch = ring.epoch();
        let old = std::thread::spawn(move || {
            let mut at = 0;
            // Ends when it is refused.
            while writer.publish_in(epoch, draft(TrackId::VIDEO, at, true, 10)).is_some() {
                at += 1;
            }
            at
        });
        let mut early = ring.subscribe(Start::Keyframe, LAG);
        while ring.counters().units < 1 + round % 7 {
            std::thread::yield_now();
        }
        ring.cut();
        let mut late = ring.subscribe(Start::Keyframe, LAG);
        for reader in [&mut early, &mut late] {
            assert!(times(&take_all(reader).0).is_empty(), "round {round}");
        }
        assert!(old.join().unwrap() > 0);
        assert!(times(&take_all(&mut late).0).is_empty());
    }
}
