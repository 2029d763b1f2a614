//! The KMP receiver over real sockets: recorded senders, lost connections, hostile peers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod certificates;

use bytes::{Bytes, BytesMut};
use certificates::{Authority, NOW, folder, write_pair};
use fieldgate_hub::{
    Admit, Bound, Clock, Context, Item, Limits, Mountpoint, Pulses, Registry, Request, Shard, StreamState,
    Verdict,
};
use fieldgate_media::{TrackId, TrackKind};
use fieldgate_net::{
    ClientTls, ConnectionLimits, DialOptions, KmpChannelSettings, KmpDirectory, KmpListenCounters,
    KmpListener, KmpReceiverSettings, KmpSource, RtmpForm, ServerCertificates, Target, dial,
};
use fieldgate_proto::kmp::receiver::ReceiverSettings;
use fieldgate_proto::kmp::{Connect, Direction, FrameHead, Limits as ReadLimits, Name, Packet, PacketReader};
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Far more than anything here takes.
const SOON: Duration = Duration::from_secs(30);

struct Nobody;

impl Admit for Nobody {
    fn knows_application(&self, _: &str) -> bool {
        false
    }

    fn admit(&self, _: Request) -> Pin<Box<dyn Future<Output = Verdict> + Send + '_>> {
        Box::pin(std::future::ready(Verdict::UnknownName))
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn settings() -> KmpReceiverSettings {
    let channel = KmpChannelSettings {
        mountpoint: "in".to_owned(),
        video: name("v1"),
        audio: name("a1"),
        allow: Vec::new(),
    };
    let elsewhere = KmpChannelSettings { allow: vec!["10.0.0.0/8".parse().unwrap()], ..channel.clone() };
    KmpReceiverSettings {
        handshake_timeout: SOON,
        read_timeout: SOON,
        join_wait: Duration::from_secs(2),
        catch_up: 1_000,
        receiver: ReceiverSettings::default(),
        allow: Vec::new(),
        channels: HashMap::from([(name("ch1"), channel), (name("far"), elsewhere)]),
    }
}

struct Bench {
    address: SocketAddr,
    mountpoint: Arc<Mountpoint>,
    directory: KmpDirectory,
    counters: Arc<KmpListenCounters>,
    settings: watch::Sender<Arc<KmpReceiverSettings>>,
    shards: Arc<[Shard]>,
    cancel: CancellationToken,
    /// Ends the present source alone.
    source: CancellationToken,
    tasks: JoinSet<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Bench {
    fn with(
        settings: KmpReceiverSettings,
        limits: ConnectionLimits,
        tls: Option<&ServerCertificates>,
    ) -> Bench {
        let (cancel, pulses) = (CancellationToken::new(), Pulses::default());
        let shards: Vec<Shard> = (0..2).map(|n| Shard::start(n, &pulses, cancel.clone()).unwrap()).collect();
        let shards: Arc<[Shard]> = shards.into();
        let registry = Arc::new(Registry::new(2, Arc::new(RtmpForm)));
        let bound = Bound { bytes: 256 << 20, age: Duration::from_secs(36_000) };
        let limits_of_stream = Limits { bound, grace: SOON, max_lag: Duration::from_secs(36_000) };
        let mountpoint = registry.add("in", limits_of_stream).unwrap();
        let context = Context {
            registry,
            shards: shards.clone(),
            admit: Arc::new(Nobody),
            clock: Clock::new(1_700_000_000_000_000),
            pulses,
            cancel: cancel.clone(),
        };
        let (settings, follow) = watch::channel(Arc::new(settings));
        let (directory, counters) = (KmpDirectory::default(), Arc::new(KmpListenCounters::default()));
        let listener = KmpListener::bind(
            "127.0.0.1:0".parse().unwrap(),
            context,
            directory.clone(),
            follow,
            limits,
            counters.clone(),
            tls.map(ServerCertificates::acceptor),
        )
        .unwrap();
        let address = listener.local_addr().unwrap();
        // Not the mountpoint's own shard, so that every connection moves.
        let shard = shards[1 - mountpoint.shard()].clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { shard.run(move |local| listener.run(local)).await.unwrap().unwrap() });
        let mut bench = Bench {
            address,
            mountpoint,
            directory,
            counters,
            settings,
            shards,
            source: cancel.child_token(),
            cancel,
            tasks,
        };
        bench.start_source();
        bench
    }

    fn new() -> Bench {
        Bench::with(settings(), ConnectionLimits::new(16, 16), None)
    }

    fn start_source(&mut self) {
        let cancel = self.cancel.child_token();
        self.source = cancel.clone();
        let source = KmpSource {
            mountpoint: self.mountpoint.clone(),
            place: self.directory.open("in"),
            settings: self.settings.subscribe(),
            counters: self.counters.clone(),
            clock: Clock::new(1_700_000_000_000_000),
            cancel,
        };
        let shard = self.shards[self.mountpoint.shard()].clone();
        self.tasks.spawn(async move {
            // A bench that is gone takes its shards with it.
            let _ = shard.run(move |local| source.run(local)).await;
        });
    }

    fn watch(&self) -> Watcher {
        Watcher { subscriber: self.mountpoint.subscribe(None), units: Vec::new() }
    }

    async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn track(&self, kind: TrackKind) -> fieldgate_net::KmpSourceTrack {
        self.directory.tracks("in")[usize::from(kind == TrackKind::Audio)]
    }
}

struct Watcher {
    subscriber: fieldgate_hub::Subscriber,
    units: Vec<(TrackId, i64, Bytes)>,
}

impl Watcher {
    /// Until so many units of each track were seen.
    async fn see(&mut self, video: usize, audio: usize) {
        let outcome = tokio::time::timeout(SOON, async {
            while self.count(TrackId::VIDEO) < video || self.count(TrackId::AUDIO) < audio {
                self.subscriber.changed().await;
                self.take();
            }
        });
        let outcome = outcome.await;
        let seen = (self.count(TrackId::VIDEO), self.count(TrackId::AUDIO));
        assert!(outcome.is_ok(), "{seen:?} of {:?}; {:?}", (video, audio), self.subscriber.ring());
        assert_eq!(seen, (video, audio));
    }

    fn take(&mut self) {
        let mut entries = Vec::new();
        while self.subscriber.take(&mut entries, 100, 1 << 20).more {}
        for entry in entries {
            if let Item::Unit { unit, .. } = &entry.item {
                self.units.push((unit.head.track, unit.head.source_dts.get(), unit.payload.clone()));
            }
        }
    }

    fn count(&self, track: TrackId) -> usize {
        self.units.iter().filter(|(of, ..)| *of == track).count()
    }

    fn payloads(&self, track: TrackId) -> Vec<Bytes> {
        self.units.iter().filter(|(of, ..)| *of == track).map(|(.., payload)| payload.clone()).collect()
    }
}

/// What the receiver does after it has closed a connection comes a moment later.
async fn until(is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("it comes true");
}

fn recording(file: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/kmp").join(file);
    std::fs::read(path).unwrap()
}

fn packets(wire: &[u8]) -> Vec<Packet> {
    let mut reader = PacketReader::new(Direction::ToReceiver, ReadLimits::default());
    let mut input = wire;
    std::iter::from_fn(|| reader.read(&mut input).unwrap()).collect()
}

fn payloads(wire: &[u8]) -> Vec<Bytes> {
    let frame = |packet: Packet| match packet {
        Packet::Frame(frame) => Some(Bytes::copy_from_slice(frame.payload())),
        _ => None,
    };
    packets(wire).into_iter().filter_map(frame).collect()
}

fn first_id(wire: &[u8]) -> u64 {
    match packets(wire).first() {
        Some(Packet::Connect(connect)) => connect.initial_frame_id,
        other => panic!("{other:?}"),
    }
}

/// The recording's frames with these numbers, over a connection of their own.
fn part(wire: &[u8], frames: std::ops::Range<usize>) -> Vec<u8> {
    let mut out = BytesMut::new();
    let mut index = 0;
    for packet in packets(wire) {
        match packet {
            Packet::Connect(connect) => {
                let initial_frame_id = connect.initial_frame_id + frames.start as u64;
                Connect { initial_frame_id, ..connect }.encode(&mut out);
            }
            Packet::MediaInfo(info) => {
                let wire = info.encode();
                out.extend_from_slice(&wire.head);
                out.extend_from_slice(&wire.body);
            }
            Packet::Frame(frame) => {
                if frames.contains(&index) {
                    let wire = FrameHead { ..frame.head }.encode(Bytes::copy_from_slice(frame.payload()));
                    out.extend_from_slice(&wire.head);
                    out.extend_from_slice(&wire.body);
                }
                index += 1;
            }
            _ => {}
        }
    }
    out.to_vec()
}

/// Reads acks until the receiver closes; the last id.
async fn acks_to_the_end(stream: &mut (impl AsyncRead + Unpin)) -> Option<u64> {
    let mut reader = PacketReader::new(Direction::ToSender, ReadLimits::default());
    let mut last: Option<u64> = None;
    let mut buf = [0; 4096];
    loop {
        let len = match tokio::time::timeout(SOON, stream.read(&mut buf)).await.expect("it is closed in time")
        {
            Ok(0) | Err(_) => return last,
            Ok(len) => len,
        };
        let mut input = &buf[..len];
        while let Some(packet) = reader.read(&mut input).unwrap() {
            let Packet::Ack(ack) = packet else { panic!("{packet:?}") };
            assert!(last.is_none_or(|last| last < ack.frame_id), "acks only grow");
            last = Some(ack.frame_id);
        }
    }
}

/// Sends all, hears all acks until the receiver closes.
async fn send(stream: impl AsyncRead + AsyncWrite + Unpin, wire: Vec<u8>) -> Option<u64> {
    let (mut read, mut write) = tokio::io::split(stream);
    let (sent, acked) = tokio::join!(write.write_all(&wire), acks_to_the_end(&mut read));
    // A receiver that closes early makes the rest of the write fail.
    sent.ok();
    acked
}

/// That the receiver closes without a word.
async fn assert_closed(mut stream: TcpStream) {
    assert_eq!(acks_to_the_end(&mut stream).await, None);
}

#[tokio::test]
async fn recorded_senders_come_out_whole_acknowledged_and_closed_at_their_end() {
    for case in [
        "01_h264_aac_ffmpeg_defaults",
        "02_h264_bframes_mono_aac",
        "06_header_change_eos_tag",
        "08_timestamp_rollover",
        "25_timescale_1000",
        "29_long_for_receiver",
    ] {
        let bench = Bench::new();
        let mut watcher = bench.watch();
        let video = recording(&format!("{case}/v1.main.1.kmp"));
        let audio = recording(&format!("{case}/a1.main.1.kmp"));
        let (of_video, of_audio) = (payloads(&video), payloads(&audio));
        let (last_video, last_audio) =
            (first_id(&video) + of_video.len() as u64, first_id(&audio) + of_audio.len() as u64);
        let (a, b) = (bench.connect().await, bench.connect().await);
        let (acked_video, acked_audio) = tokio::join!(send(a, video), send(b, audio));
        watcher.see(of_video.len(), of_audio.len()).await;
        assert!(watcher.payloads(TrackId::VIDEO) == of_video, "{case}");
        assert!(watcher.payloads(TrackId::AUDIO) == of_audio, "{case}");
        assert_eq!((acked_video, acked_audio), (Some(last_video), Some(last_audio)), "{case}");
        // In one order by time, as far as the bound for slow tracks permits.
        let mut newest = i64::MIN;
        for (.., dts, _) in &watcher.units {
            assert!(*dts >= newest.saturating_sub(45_000), "{case}: {dts} after {newest}");
            newest = newest.max(*dts);
        }
        let mut state = bench.mountpoint.state();
        tokio::time::timeout(SOON, state.wait_for(|state| matches!(state, StreamState::Interrupted(_))))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(bench.mountpoint.ring().counters().units, (of_video.len() + of_audio.len()) as u64);
        assert_eq!(bench.counters.failed.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test]
async fn a_track_alone_is_a_stream() {
    for (file, track) in [
        ("05_hevc_enhanced_rtmp/v1.main.1.kmp", TrackId::VIDEO),
        ("09_mp3_audio_only/a1.main.1.kmp", TrackId::AUDIO),
    ] {
        let bench = Bench::new();
        let mut watcher = bench.watch();
        let wire = recording(file);
        let expected = payloads(&wire);
        let stream = bench.connect().await;
        send(stream, wire).await;
        let count = |of| if of == track { expected.len() } else { 0 };
        watcher.see(count(TrackId::VIDEO), count(TrackId::AUDIO)).await;
        assert!(watcher.payloads(track) == expected);
    }
}

#[tokio::test]
async fn connections_that_are_lost_again_and_again_give_every_frame_once() {
    let bench = Bench::new();
    let mut watcher = bench.watch();
    let video = recording("29_long_for_receiver/v1.main.1.kmp");
    let audio = recording("29_long_for_receiver/a1.main.1.kmp");
    let (of_video, of_audio) = (payloads(&video), payloads(&audio));
    // Each connection ends anywhere in a packet; the next begins with frames that came already.
    for (from, to) in [(0.0, 0.3), (0.2, 0.55), (0.5, 0.9), (0.6, 1.0)] {
        let cut = |wire: &[u8], count: usize| {
            let at = |share: f64| (count as f64 * share) as usize;
            let mut bytes = part(wire, at(from)..at(to));
            if to < 1.0 {
                bytes.truncate(bytes.len() - 7);
            }
            bytes
        };
        let (mut a, mut b) = (bench.connect().await, bench.connect().await);
        let (cut_video, cut_audio) = (cut(&video, of_video.len()), cut(&audio, of_audio.len()));
        let (x, y) = tokio::join!(a.write_all(&cut_video), b.write_all(&cut_audio));
        x.unwrap();
        y.unwrap();
        a.shutdown().await.unwrap();
        b.shutdown().await.unwrap();
        tokio::join!(acks_to_the_end(&mut a), acks_to_the_end(&mut b));
    }
    watcher.see(of_video.len(), of_audio.len()).await;
    assert!(watcher.payloads(TrackId::VIDEO) == of_video);
    assert!(watcher.payloads(TrackId::AUDIO) == of_audio);
    let counters = bench.track(TrackKind::Video).counters;
    assert_eq!((counters.connections, counters.resumed), (4, 3));
    assert!(counters.duplicate > 0);
    assert_eq!(bench.track(TrackKind::Video).late + bench.track(TrackKind::Audio).late, 0);
}

#[tokio::test]
async fn a_source_that_starts_anew_knows_what_it_had() {
    let mut bench = Bench::new();
    let mut watcher = bench.watch();
    let audio = recording("29_long_for_receiver/a1.main.1.kmp");
    let expected = payloads(&audio);
    let mut first = bench.connect().await;
    first.write_all(&part(&audio, 0..500)).await.unwrap();
    watcher.see(0, 500).await;
    bench.source.cancel();
    acks_to_the_end(&mut first).await;
    bench.start_source();
    let mut second = bench.connect().await;
    second.write_all(&part(&audio, 400..expected.len())).await.unwrap();
    watcher.see(0, expected.len()).await;
    assert!(watcher.payloads(TrackId::AUDIO) == expected);
}

/// Reads acks up to one of at least this id; that one.
async fn acked_at_least(stream: &mut TcpStream, frame_id: u64) -> u64 {
    let mut reader = PacketReader::new(Direction::ToSender, ReadLimits::default());
    let mut unread = BytesMut::new();
    loop {
        let mut input = &unread[..];
        while let Some(packet) = reader.read(&mut input).unwrap() {
            match packet {
                Packet::Ack(ack) if ack.frame_id >= frame_id => return ack.frame_id,
                Packet::Ack(_) => {}
                other => panic!("{other:?}"),
            }
        }
        let used = unread.len() - input.len();
        drop(unread.split_to(used));
        let read = tokio::time::timeout(SOON, stream.read_buf(&mut unread)).await.expect("an ack comes");
        assert!(read.unwrap() > 0, "the receiver closed");
    }
}

#[tokio::test]
async fn a_receiver_that_forgot_everything_publishes_again_only_what_it_was_not_heard_to_acknowledge() {
    let audio = recording("29_long_for_receiver/a1.main.1.kmp");
    let (expected, first_id) = (payloads(&audio), first_id(&audio));
    // By number: everything before `heard` is acknowledged, everything before `published` was in some ring.
    let (mut heard, mut published, mut doubled) = (0, 0, 0);
    for sent in [200, 450, 451, 700, 900] {
        // A new process: nothing is left of the old one's memory.
        let bench = Bench::new();
        let mut watcher = bench.watch();
        let mut sender = bench.connect().await;
        sender.write_all(&part(&audio, heard..sent)).await.unwrap();
        let some = heard + (sent - heard) / 2;
        let acked = acked_at_least(&mut sender, first_id + some as u64).await;
        drop(sender);
        drop(bench);
        watcher.take();
        let came = watcher.payloads(TrackId::AUDIO);
        assert!(came == expected[heard..heard + came.len()], "from the first unacknowledged one, in order");
        doubled += published - heard;
        (heard, published) = ((acked - first_id) as usize, heard + came.len());
        assert!(heard <= published, "what is acknowledged was published");
        assert!(published <= sent);
    }
    let bench = Bench::new();
    let mut watcher = bench.watch();
    let mut sender = bench.connect().await;
    sender.write_all(&part(&audio, heard..expected.len())).await.unwrap();
    watcher.see(0, expected.len() - heard).await;
    assert!(watcher.payloads(TrackId::AUDIO) == expected[heard..]);
    println!("{} frames, {doubled} of them twice", expected.len());
}

#[tokio::test]
async fn a_new_connection_takes_the_place_of_the_old_one_of_its_track() {
    let bench = Bench::new();
    let mut watcher = bench.watch();
    let video = recording("29_long_for_receiver/v1.main.1.kmp");
    let mut old = bench.connect().await;
    old.write_all(&part(&video, 0..100)).await.unwrap();
    watcher.see(100, 0).await;
    let mut new = bench.connect().await;
    new.write_all(&part(&video, 50..200)).await.unwrap();
    watcher.see(200, 0).await;
    acks_to_the_end(&mut old).await;
    assert!(watcher.payloads(TrackId::VIDEO) == payloads(&video)[..200]);
}

#[tokio::test]
async fn what_is_not_listed_is_refused_without_a_word() {
    let bench = Bench::new();
    for (channel, track) in [("ch2", "v1"), ("ch1", "v2"), ("far", "v1"), ("", "")] {
        let mut connect = BytesMut::new();
        Connect {
            channel_id: name(channel),
            track_id: name(track),
            initial_frame_id: 1,
            initial_upstream_frame_id: 0,
            initial_offset: 0,
            consistent: true,
            data: Bytes::new(),
        }
        .encode(&mut connect);
        let mut stream = bench.connect().await;
        stream.write_all(&connect).await.unwrap();
        assert_closed(stream).await;
    }
    until(|| bench.counters.refused.load(Ordering::Relaxed) == 4).await;
    assert_eq!(*bench.mountpoint.state().borrow(), StreamState::Idle);
}

#[tokio::test]
async fn peers_that_break_the_protocol_are_closed_and_hold_up_nobody() {
    let bench = Bench::new();
    let mut watcher = bench.watch();
    let video = recording("29_long_for_receiver/v1.main.1.kmp");
    let begun = &video[..104];
    let header = |tag: &[u8; 4], header_len: u32, data_len: u32| {
        [&tag[..], &header_len.to_le_bytes(), &data_len.to_le_bytes(), &[0; 4]].concat()
    };
    let endless_connect = header(b"cnct", 104, 65_537);
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n".to_vec(),
        vec![0; 200],
        video[104..].to_vec(),
        endless_connect,
        header(b"cnct", 65_537, 0),
        [begun, &header(b"fram", 39, 0)].concat(),
        [begun, &header(b"fram", 40, 16_777_217)].concat(),
        [begun, &header(b"what", 40, 0)].concat(),
        [begun, begun].concat(),
    ] {
        let mut stream = bench.connect().await;
        stream.write_all(&bytes).await.ok();
        assert_closed(stream).await;
    }
    // One that announces the longest frame and never sends it.
    let mut slow = bench.connect().await;
    slow.write_all(&[begun, &header(b"fram", 40, 16_777_216)].concat()).await.unwrap();
    let sound = recording("29_long_for_receiver/a1.main.1.kmp");
    let mut good = bench.connect().await;
    good.write_all(&sound).await.unwrap();
    watcher.see(0, payloads(&sound).len()).await;
    until(|| bench.counters.failed.load(Ordering::Relaxed) >= 9).await;
}

#[tokio::test]
async fn who_says_nothing_is_closed_and_a_sign_of_life_is_enough() {
    let quick = Duration::from_millis(300);
    let timeouts = KmpReceiverSettings { handshake_timeout: quick, read_timeout: quick, ..settings() };
    // Without the wait for a second track, which is longer than the timeout.
    let timeouts = KmpReceiverSettings { join_wait: Duration::ZERO, ..timeouts };
    let bench = Bench::with(timeouts, ConnectionLimits::new(16, 16), None);
    assert_closed(bench.connect().await).await;
    let video = recording("29_long_for_receiver/v1.main.1.kmp");
    let mut trickling = bench.connect().await;
    trickling.write_all(&video[..50]).await.unwrap();
    assert_closed(trickling).await;
    let mut silent = bench.connect().await;
    silent.write_all(&video[..104]).await.unwrap();
    assert_closed(silent).await;
    let mut alive = bench.connect().await;
    alive.write_all(&video[..104]).await.unwrap();
    for _ in 0..10 {
        // Real time: that is what the timeout counts in.
        tokio::time::sleep(quick / 3).await;
        alive.write_all(b"null\x10\0\0\0\0\0\0\0\0\0\0\0").await.unwrap();
    }
    alive.write_all(&video[104..]).await.unwrap();
    assert!(acks_to_the_end(&mut alive).await.is_some());
}

#[tokio::test]
async fn connections_over_the_limits_are_refused() {
    let bench = Bench::with(settings(), ConnectionLimits::new(8, 2), None);
    let video = recording("29_long_for_receiver/v1.main.1.kmp");
    let mut watcher = bench.watch();
    let mut first = bench.connect().await;
    first.write_all(&part(&video, 0..10)).await.unwrap();
    watcher.see(10, 0).await;
    let second = bench.connect().await;
    assert_closed(bench.connect().await).await;
    drop(second);
    drop(first);
    let mut state = bench.mountpoint.state();
    tokio::time::timeout(SOON, state.wait_for(|state| matches!(state, StreamState::Interrupted(_))))
        .await
        .unwrap()
        .unwrap();
    let mut again = bench.connect().await;
    again.write_all(&part(&video, 10..20)).await.unwrap();
    watcher.see(20, 0).await;
}

#[tokio::test]
async fn who_is_taken_off_the_list_is_sent_away() {
    let bench = Bench::new();
    let mut watcher = bench.watch();
    let video = recording("29_long_for_receiver/v1.main.1.kmp");
    let mut stream = bench.connect().await;
    stream.write_all(&part(&video, 0..10)).await.unwrap();
    watcher.see(10, 0).await;
    bench.settings.send_replace(Arc::new(settings()));
    stream.write_all(&part(&video, 10..20)[104..]).await.unwrap();
    watcher.see(20, 0).await;
    bench.settings.send_replace(Arc::new(KmpReceiverSettings { channels: HashMap::new(), ..settings() }));
    acks_to_the_end(&mut stream).await;
}

#[tokio::test]
async fn a_publisher_that_is_kicked_may_come_again() {
    let bench = Bench::new();
    let mut watcher = bench.watch();
    let video = recording("29_long_for_receiver/v1.main.1.kmp");
    let mut stream = bench.connect().await;
    stream.write_all(&part(&video, 0..10)).await.unwrap();
    watcher.see(10, 0).await;
    bench.mountpoint.kick();
    acks_to_the_end(&mut stream).await;
    let mut again = bench.connect().await;
    again.write_all(&part(&video, 5..20)).await.unwrap();
    watcher.see(20, 0).await;
}

#[tokio::test]
async fn tracks_come_over_tls_and_plain_peers_do_not_get_in() {
    let folder = folder("kmp-listen-tls");
    let authority = Authority::new("Test CA", &folder.join("ca.pem"));
    let (cert, key) = write_pair(&folder, &authority.sign("localhost", NOW));
    let certificates = ServerCertificates::load(cert, key).unwrap();
    let quick = KmpReceiverSettings { handshake_timeout: Duration::from_secs(2), ..settings() };
    let bench = Bench::with(quick, ConnectionLimits::new(16, 16), Some(&certificates));
    let mut watcher = bench.watch();
    let video = recording("29_long_for_receiver/v1.main.1.kmp");
    let expected = payloads(&video);
    let mut plain = bench.connect().await;
    plain.write_all(&video[..104]).await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(SOON, plain.read_to_end(&mut rest)).await.unwrap().ok();
    let tls = ClientTls::with_ca_file(&folder.join("ca.pem")).unwrap();
    let target = Target { host: "localhost".to_owned(), port: bench.address.port(), tls: Some(tls) };
    let stream = dial(&target, &DialOptions::default()).await.unwrap();
    let last = first_id(&video) + expected.len() as u64;
    assert_eq!(send(stream, video).await, Some(last));
    watcher.see(expected.len(), 0).await;
    assert!(watcher.payloads(TrackId::VIDEO) == expected);
}
