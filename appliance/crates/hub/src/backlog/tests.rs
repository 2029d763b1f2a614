use super::*;

const SECOND: i64 = 1_000_000;

fn frame(id: u64, keyframe: bool, len: usize) -> Stored {
    Stored {
        id,
        kind: StoredKind::Frame,
        keyframe,
        captured_unix_micros: id as i64 * SECOND,
        head: Bytes::from_static(b"head"),
        body: Bytes::from(vec![id as u8; len - 4]),
    }
}

fn header(id: u64) -> Stored {
    Stored {
        id,
        kind: StoredKind::Header,
        keyframe: false,
        captured_unix_micros: id as i64 * SECOND,
        head: Bytes::from(vec![0x11; 10]),
        body: Bytes::new(),
    }
}

/// Frames of 100 bytes, a keyframe every fifth.
fn fill(backlog: &RamBacklog, ids: Range<u64>) {
    for id in ids {
        backlog.append(frame(id, id % 5 == 0, 100)).unwrap();
    }
}

fn backlog(bytes: u64, seconds: u64) -> RamBacklog {
    RamBacklog::new(Budget { bytes, age: Duration::from_secs(seconds) })
}

fn ids(batch: &Batch) -> Vec<u64> {
    batch.packets.iter().map(|packet| packet.id).collect()
}

fn read(backlog: &RamBacklog, from: u64) -> Batch {
    backlog.read_memory(from, usize::MAX).unwrap()
}

#[test]
fn over_the_byte_budget_the_oldest_go_up_to_a_keyframe_and_are_named() {
    let backlog = backlog(1_000, 3_600);
    fill(&backlog, 0..10);
    assert_eq!(backlog.take_losses(), []);
    fill(&backlog, 10..11);
    let lost = Lost {
        ids: 0..5,
        frames: Some(5),
        from_unix_micros: 0,
        to_unix_micros: 4 * SECOND,
        cause: LossCause::Bytes,
    };
    assert_eq!(backlog.take_losses(), [lost]);
    assert_eq!(backlog.take_losses(), []);
    let held = backlog.held();
    assert_eq!((held.ids, held.frames, held.bytes, held.next_id), (5..11, 6, 600, 11));
    assert_eq!((held.oldest_unix_micros, held.newest_unix_micros), (5 * SECOND, 10 * SECOND));
    assert_eq!(ids(&read(&backlog, 0)), (5..11).collect::<Vec<_>>());
}

#[test]
fn over_the_age_budget_whole_gops_go_but_never_the_one_being_written() {
    let backlog = backlog(1 << 20, 7);
    fill(&backlog, 0..8);
    assert_eq!(backlog.take_losses(), []);
    fill(&backlog, 8..9);
    let lost = backlog.take_losses();
    assert_eq!((lost.len(), lost[0].ids.clone(), lost[0].cause), (1, 0..5, LossCause::Age));
    for id in 9..40 {
        backlog.append(frame(id, false, 100)).unwrap();
    }
    assert_eq!(backlog.take_losses(), []);
    assert_eq!(backlog.held().ids, 5..40);
}

#[test]
fn a_clock_that_is_set_forward_does_not_empty_the_backlog() {
    let backlog = backlog(1 << 20, 600);
    fill(&backlog, 0..6);
    let mut later = frame(10, true, 100);
    later.captured_unix_micros = 1_795_226_400 * SECOND;
    backlog.append(later).unwrap();
    let mut back = frame(11, true, 100);
    back.captured_unix_micros = 5 * SECOND;
    backlog.append(back).unwrap();
    assert_eq!(backlog.take_losses(), []);
    assert_eq!(backlog.held().frames, 8);
}

#[test]
fn a_gop_over_the_budget_goes_whole_and_its_rest_is_named_too() {
    let backlog = backlog(1_000, 3_600);
    backlog.append(frame(0, true, 900)).unwrap();
    backlog.append(frame(1, false, 200)).unwrap();
    backlog.append(frame(2, false, 10)).unwrap();
    assert_eq!(backlog.held().frames, 0);
    backlog.append(frame(3, true, 10)).unwrap();
    let lost = backlog.take_losses();
    assert_eq!((lost.len(), lost[0].ids.clone(), lost[0].frames), (1, 0..3, Some(3)));
    assert_eq!(ids(&read(&backlog, 0)), [3]);
}

#[test]
fn the_header_before_the_position_is_known_after_release_and_after_a_drop() {
    let backlog = backlog(1_000, 3_600);
    backlog.append(header(0)).unwrap();
    fill(&backlog, 0..6);
    assert_eq!(read(&backlog, 3).header, Some(header(0)));
    backlog.release(3);
    assert_eq!(read(&backlog, 3).header, Some(header(0)));
    backlog.append(header(6)).unwrap();
    backlog.append(frame(6, true, 100)).unwrap();
    // The header directly behind the position comes with the packets, the one before it is told as well.
    let batch = read(&backlog, 6);
    assert_eq!(
        (batch.header.clone(), ids(&batch), batch.packets[0].kind),
        (Some(header(0)), vec![6, 6], StoredKind::Header)
    );
    backlog.append(frame(7, false, 690)).unwrap();
    // The keyframe's own header stays with it.
    assert_eq!(backlog.take_losses()[0].ids, 3..5);
    let batch = read(&backlog, 0);
    assert_eq!((batch.header.clone(), ids(&batch)), (Some(header(0)), vec![5, 6, 6, 7]));
}

#[test]
fn reading_takes_at_least_one_packet_and_about_so_many_bytes() {
    let backlog = backlog(1 << 20, 3_600);
    fill(&backlog, 0..10);
    assert_eq!(ids(&backlog.read_memory(2, 1).unwrap()), [2]);
    assert_eq!(ids(&backlog.read_memory(2, 299).unwrap()), [2, 3]);
    assert_eq!(ids(&backlog.read_memory(9, 1_000).unwrap()), [9]);
    assert!(backlog.read_memory(10, 1_000).unwrap().packets.is_empty());
    // A header comes with its frame or not at all.
    backlog.append(header(10)).unwrap();
    assert_eq!(ids(&backlog.read_memory(9, 1_000).unwrap()), [9]);
    backlog.append(frame(10, true, 100)).unwrap();
    assert_eq!(ids(&backlog.read_memory(10, 1).unwrap()), [10, 10]);
}

#[test]
fn ids_go_up_may_jump_and_are_never_given_twice() {
    let backlog = backlog(1 << 20, 3_600);
    fill(&backlog, 5..6);
    assert_eq!(backlog.append(frame(5, true, 10)), Err(BacklogError::Order { id: 5, next_id: 6 }));
    backlog.append(frame(1_000, true, 10)).unwrap();
    backlog.release(2_000);
    assert_eq!((backlog.held().ids, backlog.held().next_id), (1_001..1_001, 1_001));
    backlog.append(frame(1_500, false, 10)).unwrap();
    assert_eq!((backlog.held().frames, backlog.take_losses()), (0, vec![]));
}

#[test]
fn a_packet_over_the_limits_is_refused_and_one_at_them_is_not() {
    let backlog = backlog(64 << 20, 3_600);
    let mut packet = frame(0, true, 100);
    packet.head = Bytes::from(vec![0; Stored::MAX_HEAD_BYTES + 1]);
    assert!(matches!(backlog.append(packet.clone()), Err(BacklogError::TooLong { id: 0, .. })));
    packet.head.truncate(Stored::MAX_HEAD_BYTES);
    packet.body = Bytes::from(vec![0; Stored::MAX_BODY_BYTES + 1]);
    assert!(matches!(backlog.append(packet.clone()), Err(BacklogError::TooLong { id: 0, .. })));
    packet.body.truncate(Stored::MAX_BODY_BYTES);
    backlog.append(packet).unwrap();
}

#[test]
fn losses_that_nobody_takes_are_bounded_and_none_is_left_out() {
    let mut losses = Losses::default();
    for id in 0..5_000 {
        losses.frame(id * 2, id as i64, LossCause::Bytes);
    }
    let taken = losses.take();
    assert_eq!(taken.len(), Losses::MAX);
    assert_eq!(taken.iter().filter_map(|lost| lost.frames).sum::<u64>(), 5_000);
    assert_eq!((taken[0].ids.clone(), taken[Losses::MAX - 1].ids.end), (0..1, 9_999));
}

#[tokio::test]
async fn a_read_from_memory_is_there_at_once() {
    let backlog = backlog(1 << 20, 3_600);
    fill(&backlog, 0..3);
    assert_eq!(ids(&backlog.read(1, 1 << 20).await.unwrap()), [1, 2]);
    assert_eq!(backlog.keeping(), Keeping::Memory);
}

#[test]
fn what_is_being_written_is_not_dropped() {
    let mut queue = PacketQueue::new(Budget { bytes: 1_000, age: Duration::from_secs(3_600) }, 0);
    for id in 0..10 {
        queue.push(frame(id, id % 5 == 0, 100), LossCause::DiskSlow).unwrap();
    }
    queue.pin(3);
    for id in 10..12 {
        queue.push(frame(id, id % 5 == 0, 100), LossCause::DiskSlow).unwrap();
    }
    let lost = queue.losses().take();
    assert_eq!((lost.len(), lost[0].ids.clone(), lost[0].cause), (1, 3..5, LossCause::DiskSlow));
    assert_eq!(queue.read(0, usize::MAX).packets.len(), 10);
    queue.pin(100);
    queue.push(frame(12, false, 2_000), LossCause::DiskSlow).unwrap();
    assert_eq!(queue.losses().take(), []);
    queue.pin(0);
    queue.push(frame(13, false, 10), LossCause::DiskSlow).unwrap();
    queue.forget_through(13);
    assert_eq!((queue.held().frames, queue.bytes()), (0, 0));
}
