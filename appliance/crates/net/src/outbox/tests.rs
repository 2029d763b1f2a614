use super::*;
use crate::wire::RtmpForm;
use fieldgate_hub::{Limits, LocalShard, Mountpoint, Publisher, PublisherInfo};
use fieldgate_media::{Codec, Draft, HEADROOM, Ticks, Track, TrackId, Tracks, UnitHead};
use fieldgate_proto::rtmp::{ChunkReader, Message, kind};
use std::future::poll_fn;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, DuplexStream};

const AVCC: &[u8] = &[1, 0x42, 0xC0, 0x1E, 0xFF, 0xE0, 0];

pub(super) fn publisher(shard: &LocalShard, max_lag: Duration) -> (Arc<Mountpoint>, Publisher) {
    let limits = Limits { max_lag, ..Limits::default() };
    let mountpoint = Mountpoint::new("yard".into(), 0, limits, Arc::new(RtmpForm));
    let info = PublisherInfo { kind: "test", from: "here".into(), since_unix_micros: 0, rtmp: None };
    let mut publisher = mountpoint.claim(shard, info).unwrap();
    let video = Track::new(TrackId::VIDEO, Codec::H264, Bytes::from_static(AVCC));
    publisher.announce(Tracks::new(vec![video]));
    (mountpoint, publisher)
}

pub(super) fn publish(publisher: &mut Publisher, index: i64, len: usize) {
    let dts = Ticks::from_millis(index * 40);
    let keyframe = index % 10 == 0;
    let head = UnitHead {
        track: TrackId::VIDEO,
        dts,
        pts: dts,
        source_dts: dts,
        source_pts: dts,
        keyframe,
        captured: None,
    };
    let payload: Vec<u8> = (0..len).map(|at| (at as i64 * 7 + index) as u8).collect();
    assert!(publisher.publish(Draft::copied(head, &payload)));
}

pub(super) fn framing(chunk_len: u32, stream_id: u32) -> Framing {
    Framing { chunk_len, stream_id, style: MetadataStyle::Plain }
}

/// A peer's view: the video messages that have arrived, as (time, payload length, payload is the published one).
struct Peer {
    pipe: DuplexStream,
    reader: ChunkReader,
    stream_id: u32,
}

impl Peer {
    fn new(pipe: DuplexStream, chunk_len: u32, stream_id: u32) -> Self {
        let mut reader = ChunkReader::new(fieldgate_proto::rtmp::Limits::default());
        reader.allow_media(true);
        let mut told = BytesMut::new();
        fieldgate_proto::rtmp::ChunkWriter::new().set_chunk_len(&mut told, chunk_len);
        // The session tells the chunk size; here the peer knows it beforehand.
        let _ = reader.read(&mut &told[..]);
        Peer { pipe, reader, stream_id }
    }

    async fn read(&mut self, max_bytes: usize) -> Vec<(u32, usize, bool)> {
        let mut bytes = vec![0; max_bytes];
        let len = self.pipe.read(&mut bytes).await.unwrap();
        let mut input = &bytes[..len];
        let mut seen = Vec::new();
        while let Some(message) = self.reader.read(&mut input).unwrap() {
            seen.extend(self.unit(&message));
        }
        seen
    }

    fn unit(&self, message: &Message) -> Option<(u32, usize, bool)> {
        let body = &message.buf[HEADROOM..];
        // Codec headers have packet type 0.
        if message.kind != kind::VIDEO || body[1] == 0 {
            return None;
        }
        assert_eq!(message.stream_id, self.stream_id);
        let index = i64::from(message.timestamp) / 40;
        let payload = &body[5..];
        let whole = payload.iter().enumerate().all(|(at, byte)| *byte == (at as i64 * 7 + index) as u8);
        Some((message.timestamp, payload.len(), whole))
    }
}

fn outbox(pipe_bytes: usize) -> (Rc<Outbox>, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(pipe_bytes);
    (Rc::new(Outbox::new(Socket::wrapped(ours))), theirs)
}

#[tokio::test(start_paused = true)]
async fn the_publishers_turn_writes_every_unit_whole_and_in_order() {
    let shard = LocalShard::new(0);
    for (chunk_len, stream_id) in [(1 << 20, 1), (4096, 1), (65_536, 5), (300, 1)] {
        let (mountpoint, mut publisher) = publisher(&shard, Duration::from_secs(4));
        let (outbox, pipe) = outbox(4 << 20);
        let mut peer = Peer::new(pipe, chunk_len, stream_id);
        outbox.start(
            mountpoint.subscribe(None),
            framing(chunk_len, stream_id),
            shard.beat(Duration::ZERO),
            Instant::now(),
        );
        let _listed = shard.sinks("yard").add(outbox.clone());
        let mut seen = Vec::new();
        for index in 0..20 {
            // A fresh budget, as every turn of a publisher has: tokio stops a task that never waits.
            tokio::task::yield_now().await;
            publish(&mut publisher, index, 100 + 9000 * (index as usize % 3));
            publisher.flush();
            seen.extend(peer.read(4 << 20).await);
        }
        let expected: Vec<_> =
            (0..20).map(|index| (index * 40, 100 + 9000 * (index as usize % 3), true)).collect();
        assert_eq!(seen, expected, "chunks of {chunk_len} on stream {stream_id}");
        drop(publisher);
        mountpoint.close();
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_little_at_a_time_gets_whole_units_by_its_own_task() {
    let shard = LocalShard::new(0);
    let (mountpoint, mut publisher) = publisher(&shard, Duration::from_secs(60));
    let (outbox, pipe) = outbox(700);
    let mut peer = Peer::new(pipe, 4096, 1);
    outbox.start(mountpoint.subscribe(None), framing(4096, 1), shard.beat(Duration::ZERO), Instant::now());
    let _listed = shard.sinks("yard").add(outbox.clone());
    for index in 0..30 {
        publish(&mut publisher, index, 10_000);
        publisher.flush();
    }
    assert!(outbox.blocked_since().is_some(), "the pipe holds 700 bytes");
    let mut batch = Vec::new();
    let task = poll_fn(|cx| outbox.poll_progress(cx, &mut batch));
    let reads = async {
        let mut seen = Vec::new();
        while seen.len() < 30 {
            seen.extend(peer.read(333).await);
        }
        seen
    };
    let seen = tokio::select! {
        seen = reads => seen,
        ended = task => panic!("{ended:?}"),
    };
    let expected: Vec<_> = (0..30).map(|index| (index * 40, 10_000, true)).collect();
    assert_eq!(seen, expected);
    assert!(outbox.dropped_units() == 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_peer_skips_whole_units_and_goes_on_at_a_keyframe() {
    let shard = LocalShard::new(0);
    let (mountpoint, mut publisher) = publisher(&shard, Duration::from_secs(1));
    let (outbox, pipe) = outbox(2000);
    let mut peer = Peer::new(pipe, 1 << 20, 1);
    outbox.start(mountpoint.subscribe(None), framing(1 << 20, 1), shard.beat(Duration::ZERO), Instant::now());
    let _listed = shard.sinks("yard").add(outbox.clone());
    for index in 0..100 {
        publish(&mut publisher, index, 50_000);
        publisher.flush();
    }
    let mut batch = Vec::new();
    let task = poll_fn(|cx| outbox.poll_progress(cx, &mut batch));
    let reads = async {
        let mut seen: Vec<(u32, usize, bool)> = Vec::new();
        while seen.last().is_none_or(|(at, ..)| *at < 99 * 40) {
            seen.extend(peer.read(100_000).await);
        }
        seen
    };
    let seen = tokio::select! {
        seen = reads => seen,
        ended = task => panic!("{ended:?}"),
    };
    assert!(seen.iter().all(|(_, len, whole)| *len == 50_000 && *whole), "never half a unit");
    let gap = seen.windows(2).position(|pair| pair[1].0 != pair[0].0 + 40).expect("something was skipped");
    assert_eq!(seen[gap + 1].0 % 400, 0, "after the gap comes a keyframe");
    assert_eq!(outbox.dropped_units() as usize + seen.len(), 100, "every unit is sent or counted");
}

#[tokio::test(start_paused = true)]
async fn gathered_media_goes_out_once_per_interval() {
    let shard = LocalShard::new(0);
    let (mountpoint, mut publisher) = publisher(&shard, Duration::from_secs(4));
    let (outbox, pipe) = outbox(4 << 20);
    let mut peer = Peer::new(pipe, 1 << 20, 1);
    let beat = shard.beat(Duration::from_millis(50));
    tokio::time::sleep_until(beat.after(Instant::now()) + Duration::from_millis(10)).await;
    outbox.start(mountpoint.subscribe(None), framing(1 << 20, 1), beat, Instant::now());
    let _listed = shard.sinks("yard").add(outbox.clone());
    for index in 0..3 {
        publish(&mut publisher, index, 100);
        publisher.flush();
    }
    assert_eq!(outbox.written_bytes(), 0, "not yet");
    let due = outbox.due().expect("a time to write is set");
    assert_eq!(due, Instant::now() + Duration::from_millis(40), "the shard's next moment");
    assert_eq!(publisher.nobody_reads_for(), Duration::from_millis(50));
    tokio::time::sleep_until(due).await;
    outbox.write_gathered(Instant::now());
    assert_eq!(peer.read(1 << 20).await.len(), 3, "all three in one write");

    // A turn that comes after the next moment writes by itself, without a timer.
    tokio::time::sleep(Duration::from_millis(60)).await;
    publish(&mut publisher, 3, 100);
    publisher.flush();
    assert_eq!(outbox.due(), None);
    assert_eq!(peer.read(1 << 20).await.len(), 1);
    let reader = mountpoint.subscribe(None);
    assert_eq!(publisher.nobody_reads_for(), Duration::ZERO, "somebody wants units at once");
    drop(reader);
}

#[tokio::test(start_paused = true)]
async fn answers_go_between_units_never_into_one() {
    let shard = LocalShard::new(0);
    let (mountpoint, mut publisher) = publisher(&shard, Duration::from_secs(4));
    let (outbox, pipe) = outbox(1000);
    let mut peer = Peer::new(pipe, 4096, 1);
    outbox.start(mountpoint.subscribe(None), framing(4096, 1), shard.beat(Duration::ZERO), Instant::now());
    let _listed = shard.sinks("yard").add(outbox.clone());
    publish(&mut publisher, 0, 20_000);
    publisher.flush();
    // Blocked in the middle of the unit: a ping's answer must wait for its end.
    outbox.answer(|out| out.extend_from_slice(&[2, 0, 0, 0, 0, 0, 6, 4, 0, 0, 0, 0, 0, 7, 0, 0, 0, 9]));
    outbox.write_now();
    publish(&mut publisher, 1, 20_000);
    let mut batch = Vec::new();
    let task = poll_fn(|cx| outbox.poll_progress(cx, &mut batch));
    let reads = async {
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(peer.read(900).await);
        }
        seen
    };
    tokio::select! {
        seen = reads => assert_eq!(seen, [(0, 20_000, true), (40, 20_000, true)]),
        ended = task => panic!("{ended:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_no_answers_is_found_out() {
    let (outbox, _pipe) = outbox(10);
    assert!(outbox.answer(|out| out.extend_from_slice(&vec![0; MAX_ANSWER_BYTES])));
    assert!(!outbox.answer(|out| out.extend_from_slice(&[0])));
}
