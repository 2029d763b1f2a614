//! KMP pushes against receivers that acknowledge in part, refuse, hang and speak TLS. Real sockets, real time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]
#![allow(clippy::disallowed_methods, reason = "real sockets run in real time")]
#![allow(clippy::large_futures, reason = "a track lies in its test's future; there is one of each")]

#[allow(dead_code, reason = "other tests use all of it")]
mod certificates;

use bytes::{Bytes, BytesMut};
use fieldgate_hub::backlog::Budget;
use fieldgate_hub::ledger::{Fate, LedgerKey, Stretch, Why};
use fieldgate_hub::{
    Backlog, Bound, Clock, LedgerKeeper, Limits, LocalShard, Mountpoint, Publisher, PublisherInfo, RamBacklog,
};
use fieldgate_media::{Codec, Draft, Ticks, Track, TrackId, TrackKind, Tracks, UnitHead};
use fieldgate_net::{
    ClientTls, DialOptions, KmpBacklog, KmpDialer, KmpShared, KmpTrack, KmpTrackReport, KmpTrackSettings,
    RtmpForm, TrackAsk, TrackCommand,
};
use fieldgate_proto::kmp::sender::{Keep, Reason, Reconnect, Settings, UpstreamSpec};
use fieldgate_proto::kmp::{
    Ack, Connect, Direction, Limits as ReadLimits, MapSettings, Name, Packet, PacketReader,
};
use futures_util::StreamExt;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const AVCC: &[u8] = &[1, 0x42, 0xC0, 0x1E, 0xFF, 0xE0, 0];
/// No step of a test takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Counts what the ledger was told.
#[derive(Default)]
struct Told(Mutex<Vec<(String, Fate, Stretch)>>);

impl LedgerKeeper for Told {
    fn settle(&self, key: &LedgerKey, fate: Fate, stretch: Stretch) {
        self.0.lock().unwrap().push((key.upstream.clone(), fate, stretch));
    }
    fn pending(&self, _: &LedgerKey, _: Option<Stretch>) {}
    fn resume(&self, _: &LedgerKey, _: Option<Stretch>) {}
}

impl Told {
    fn frames(&self, fate: Fate) -> u64 {
        self.0.lock().unwrap().iter().filter(|told| told.1 == fate).map(|told| told.2.frames).sum()
    }
}

/// A mountpoint with a publisher, and a receiver's door.
struct Bench {
    local: Rc<LocalShard>,
    mountpoint: Arc<Mountpoint>,
    door: TcpListener,
    told: Arc<Told>,
    cancel: CancellationToken,
}

impl Bench {
    async fn new() -> Bench {
        let limits = Limits { grace: Duration::from_millis(10), ..Limits::default() };
        Bench {
            local: LocalShard::new(0),
            mountpoint: Mountpoint::new("yard".into(), 0, limits, Arc::new(RtmpForm)),
            door: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            told: Arc::default(),
            cancel: CancellationToken::new(),
        }
    }

    fn publisher(&self) -> Camera {
        let info = PublisherInfo { kind: "test", from: "here".into(), since_unix_micros: 0, rtmp: None };
        let mut publisher = self.mountpoint.claim(&self.local, info).unwrap();
        publisher.announce(Tracks::new(vec![Track::new(
            TrackId::VIDEO,
            Codec::H264,
            Bytes::from_static(AVCC),
        )]));
        Camera { publisher, index: 0 }
    }

    fn shared(&self) -> KmpShared {
        KmpShared {
            mountpoint: self.mountpoint.clone(),
            dialer: KmpDialer { options: DialOptions::default(), ..KmpDialer::default() },
            clock: Clock::new(1_700_000_000_000_000),
            ledger: self.told.clone(),
            cancel: self.cancel.clone(),
        }
    }

    fn url(&self) -> String {
        format!("kmp://{}", self.door.local_addr().unwrap())
    }

    fn spec(&self) -> UpstreamSpec {
        UpstreamSpec { id: "up".into(), ..UpstreamSpec::new(self.url()) }
    }

    fn track(&self, settings: KmpTrackSettings, backlog: Option<KmpBacklog>) -> (KmpTrack, KmpTrackReport) {
        let (channel, track_id) = ((Name::new("yard").unwrap(), None), Name::new("v1").unwrap());
        let track = KmpTrack::fixed(self.shared(), settings, channel, track_id, self.spec(), backlog);
        let report = track.report();
        (track, report)
    }

    async fn receiver(&self) -> Receiver<TcpStream> {
        let (stream, _) = tokio::time::timeout(PATIENCE, self.door.accept()).await.unwrap().unwrap();
        Receiver::new(stream)
    }
}

/// Publishes numbered pictures.
struct Camera {
    publisher: Publisher,
    index: u32,
}

impl Camera {
    fn shoot(&mut self, count: u32, len: usize) {
        for _ in 0..count {
            let dts = Ticks::from_millis(i64::from(self.index) * 40);
            let head = UnitHead {
                track: TrackId::VIDEO,
                dts,
                pts: dts,
                source_dts: dts,
                source_pts: dts,
                keyframe: self.index.is_multiple_of(10),
                captured: None,
            };
            let mut payload = self.index.to_be_bytes().to_vec();
            payload.resize(len.max(4), 0);
            assert!(self.publisher.publish(Draft::copied(head, &payload)));
            self.index += 1;
        }
        self.publisher.flush();
    }
}

fn settings() -> KmpTrackSettings {
    let reconnect =
        Reconnect::Backoff { first: Duration::from_millis(10), longest: Duration::from_millis(200) };
    KmpTrackSettings {
        kind: TrackKind::Video,
        map: MapSettings::default(),
        sender: Settings { reconnect, ..Settings::new() },
    }
}

/// The receiving end of one connection.
struct Receiver<S> {
    stream: S,
    reader: PacketReader,
    unread: BytesMut,
    connect: Option<Connect>,
    headers: u32,
    /// Numbers of the pictures.
    pictures: Vec<u32>,
    end: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Receiver<S> {
    fn new(stream: S) -> Self {
        let reader = PacketReader::new(Direction::ToReceiver, ReadLimits::default());
        let unread = BytesMut::new();
        Receiver { stream, reader, unread, connect: None, headers: 0, pictures: Vec::new(), end: false }
    }

    /// Reads until so many pictures are there, the end, or the connection's end (false).
    async fn read(&mut self, pictures: usize) -> bool {
        tokio::time::timeout(PATIENCE, self.read_on(pictures)).await.unwrap()
    }

    async fn read_on(&mut self, pictures: usize) -> bool {
        loop {
            let mut input = &self.unread[..];
            while self.pictures.len() < pictures && !self.end {
                let Some(packet) = self.reader.read(&mut input).unwrap() else { break };
                match packet {
                    Packet::Connect(connect) => self.connect = Some(connect),
                    Packet::MediaInfo(_) => self.headers += 1,
                    Packet::Frame(frame) => {
                        self.pictures.push(u32::from_be_bytes(frame.payload()[..4].try_into().unwrap()));
                    }
                    Packet::EndOfStream => self.end = true,
                    _ => {}
                }
            }
            let used = self.unread.len() - input.len();
            drop(self.unread.split_to(used));
            if self.pictures.len() >= pictures || self.end {
                return true;
            }
            if self.stream.read_buf(&mut self.unread).await.unwrap_or(0) == 0 {
                return false;
            }
        }
    }

    /// Reads up to `eost`.
    async fn read_all(&mut self) {
        self.read(usize::MAX).await;
        assert!(self.end);
    }

    fn first_id(&self) -> u64 {
        self.connect.as_ref().unwrap().initial_frame_id
    }

    /// Acknowledges the first so many pictures of this connection.
    async fn ack(&mut self, pictures: usize) {
        let mut out = BytesMut::new();
        let frame_id = self.first_id() + pictures as u64;
        Ack { frame_id, upstream_frame_id: 3, offset: 4 }.encode(&mut out);
        // The sender may have gone.
        let _ = self.stream.write_all(&out).await;
    }

    async fn ack_all(&mut self) {
        self.ack(self.pictures.len()).await;
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

/// Runs `script` beside `track`.
async fn beside(track: KmpTrack, local: &Rc<LocalShard>, script: impl Future<Output = ()>) {
    // The track first: it joins a stream at a keyframe, and here it shall have all of it.
    tokio::select! {
        biased;
        () = async { track.run(local.clone()).await; std::future::pending().await } => {}
        () = script => {}
    }
}

#[tokio::test]
async fn a_push_goes_on_at_the_first_picture_that_was_not_acknowledged() {
    let bench = Bench::new().await;
    let (track, report) = bench.track(settings(), None);
    beside(track, &bench.local, async {
        let mut camera = bench.publisher();
        camera.shoot(20, 100);
        let mut first = bench.receiver().await;
        first.read(20).await;
        first.ack(10).await;
        until("the ack to be heard", || report.totals().acked_frames == 10).await;
        drop(first);
        camera.shoot(5, 100);
        let mut second = bench.receiver().await;
        second.read(15).await;
        let connect = second.connect.clone().unwrap();
        assert_eq!((connect.initial_upstream_frame_id, connect.initial_offset), (3, 4));
        assert_eq!((second.pictures.clone(), second.headers), ((10..25).collect(), 1));
        second.ack_all().await;
        drop(camera);
        bench.mountpoint.close();
        second.read_all().await;
        drop(second);
        until("all to be acknowledged", || report.totals().acked_frames == 25).await;
    })
    .await;
    assert_eq!(bench.told.frames(Fate::Delivered), 25);
    assert_eq!((report.totals().connections, report.totals().lost_frames), (2, 0));
}

#[tokio::test]
async fn refusals_lose_nothing() {
    let bench = Bench::new().await;
    let (track, report) = bench.track(settings(), None);
    beside(track, &bench.local, async {
        let mut camera = bench.publisher();
        for _ in 0..5 {
            camera.shoot(3, 100);
            drop(bench.receiver().await);
        }
        let mut receiver = bench.receiver().await;
        receiver.read(15).await;
        assert_eq!(receiver.pictures, (0..15).collect::<Vec<_>>());
        until("the report", || report.view().is_some_and(|view| view.upstreams[0].unacked_frames == 15))
            .await;
    })
    .await;
}

#[tokio::test]
async fn what_the_ring_gives_up_unread_is_in_the_ledger_as_lost() {
    let mut bench = Bench::new().await;
    let bound = Bound { bytes: 120_000, age: Duration::from_secs(10) };
    let limits = Limits { bound, ..Limits::default() };
    bench.mountpoint = Mountpoint::new("yard".into(), 0, limits, Arc::new(RtmpForm));
    let (track, report) = bench.track(settings(), None);
    beside(track, &bench.local, async {
        let mut camera = bench.publisher();
        camera.shoot(1, 100);
        let mut receiver = bench.receiver().await;
        receiver.read(1).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        // Nobody reads meanwhile, and the ring holds a third of it.
        camera.shoot(31, 10_000);
        receiver.read(3).await;
        assert_eq!(receiver.pictures, [0, 30, 31]);
        receiver.ack_all().await;
        until("the acks", || report.totals().acked_frames == 3).await;
    })
    .await;
    assert_eq!((report.totals().left_out_units, bench.told.frames(Fate::Delivered)), (29, 3));
    let told = bench.told.0.lock().unwrap();
    let lost: Vec<_> = told.iter().filter(|told| told.1 == Fate::Lost(Why::TooSlow)).collect();
    let [(upstream, _, stretch)] = lost[..] else { panic!("{told:?}") };
    assert_eq!((upstream.as_str(), stretch.frames), ("up", 29));
    let begin = 1_700_000_000_000_000;
    assert!(stretch.from_unix_micros >= begin, "{stretch:?}");
    assert!(stretch.to_unix_micros >= stretch.from_unix_micros + 20_000, "{stretch:?}");
}

#[tokio::test]
async fn a_peer_that_hangs_is_replaced() {
    let bench = Bench::new().await;
    let mut settings = settings();
    settings.sender.ack_silence = Some(Duration::from_millis(500));
    settings.sender.timeout = Duration::from_millis(600);
    let (track, _) = bench.track(settings, None);
    beside(track, &bench.local, async {
        let mut camera = bench.publisher();
        camera.shoot(5, 100);
        // Acknowledges, and then no more.
        let mut silent = bench.receiver().await;
        silent.read(5).await;
        silent.ack(4).await;
        camera.shoot(5, 100);
        let mut deaf = bench.receiver().await;
        deaf.read(1).await;
        assert_eq!(deaf.pictures, [4]);
        // Reads no more, until the buffers on the way are full.
        for _ in 0..60 {
            camera.shoot(1, 200_000);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut good = bench.receiver().await;
        for count in 1..=66 {
            good.read(count).await;
            good.ack_all().await;
        }
        assert_eq!(good.pictures, (4..70).collect::<Vec<_>>());
        drop((silent, deaf));
    })
    .await;
}

#[tokio::test]
async fn tls_receivers_are_checked() {
    let bench = Bench::new().await;
    let folder = certificates::folder("kmps");
    let ca = folder.join("ca.pem");
    let authority = certificates::Authority::new("test authority", &ca);
    let (cert, key) = authority.sign("localhost", certificates::NOW);
    let pem = |text: &str| {
        let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        base64(&body)
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![rustls_pki_types::CertificateDer::from(pem(&cert))],
            rustls_pki_types::PrivateKeyDer::try_from(pem(&key)).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let port = bench.door.local_addr().unwrap().port();
    let mut shared = bench.shared();
    shared.dialer.tls = Some(ClientTls::with_ca_file(&ca).unwrap());
    let (channel, track_id) = ((Name::new("yard").unwrap(), None), Name::new("v1").unwrap());
    let spec = UpstreamSpec::new(format!("kmps://localhost:{port}"));
    let track = KmpTrack::fixed(shared, settings(), channel, track_id, spec, None);
    beside(track, &bench.local, async {
        let mut camera = bench.publisher();
        camera.shoot(20, 10_000);
        let (stream, _) = bench.door.accept().await.unwrap();
        let mut receiver = Receiver::new(acceptor.accept(stream).await.unwrap());
        receiver.read(20).await;
        receiver.ack_all().await;
        until("the ack", || bench.told.frames(Fate::Delivered) == 20).await;
    })
    .await;
    let track = KmpTrack::fixed(
        bench.shared(),
        settings(),
        channel,
        track_id,
        UpstreamSpec::new(format!("kmps://localhost:{port}")),
        None,
    );
    let report = track.report();
    beside(track, &bench.local, async {
        let mut camera = bench.publisher();
        camera.shoot(1, 100);
        until("the refusal", || report.error().is_some_and(|error| error.contains("kmps"))).await;
    })
    .await;
}

/// Base64 to bytes.
fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter_map(|byte| ALPHABET.iter().position(|known| *known == byte));
    let (mut bits, mut count, mut out) = (0_usize, 0, Vec::new());
    for digit in digits {
        (bits, count) = (bits << 6 | digit, count + 6);
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    out
}

#[tokio::test]
async fn a_stream_ends_with_eost_and_the_next_one_has_higher_ids() {
    let bench = Bench::new().await;
    let (track, _) = bench.track(settings(), None);
    let keep = bench.mountpoint.clone();
    let script = async {
        let mut camera = bench.publisher();
        camera.shoot(10, 100);
        let mut first = bench.receiver().await;
        first.read(10).await;
        drop(camera);
        first.read_all().await;
        // The next stream waits until the first is delivered.
        let mut camera = bench.publisher();
        camera.shoot(5, 100);
        first.ack_all().await;
        let first_id = first.first_id();
        until("the acks", || bench.told.frames(Fate::Delivered) == 10).await;
        drop(first);
        let mut second = bench.receiver().await;
        second.read(5).await;
        assert!(second.first_id() >= first_id + 10);
        assert_eq!((second.pictures.clone(), second.headers), ((0..5).collect(), 1));
    };
    tokio::select! {
        () = beside(track, &bench.local, script) => {}
        () = keep.keep() => {}
    }
}

#[tokio::test]
async fn a_stream_is_not_given_up_to_a_router_that_only_lets_us_connect() {
    let bench = Bench::new().await;
    let mut settings = settings();
    settings.sender.end_attempts = 3;
    settings.sender.end_patience = None;
    let (track, _) = bench.track(settings, None);
    let keep = bench.mountpoint.clone();
    let script = async {
        let mut camera = bench.publisher();
        camera.shoot(10, 100);
        let mut receiver = bench.receiver().await;
        receiver.read(10).await;
        receiver.ack(6).await;
        until("the acks", || bench.told.frames(Fate::Delivered) == 6).await;
        drop(camera);
        receiver.read_all().await;
        drop(receiver);
        // The next stream's receiver is the same one: what this says of it holds from the start.
        let mut camera = bench.publisher();
        camera.shoot(5, 100);
        drop(camera);
        let swallow = async |pictures: u32| {
            for _ in 0..8 {
                let mut router = bench.receiver().await;
                router.read_all().await;
                assert_eq!(router.pictures.len(), pictures as usize);
            }
            let mut receiver = bench.receiver().await;
            receiver.read_all().await;
            receiver.ack_all().await;
        };
        swallow(4).await;
        until("the rest", || bench.told.frames(Fate::Delivered) == 10).await;
        swallow(5).await;
        until("the next stream", || bench.told.frames(Fate::Delivered) == 15).await;
    };
    tokio::select! {
        () = beside(track, &bench.local, script) => {}
        () = keep.keep() => {}
    }
}

#[tokio::test]
async fn what_a_backlog_keeps_outlives_the_push() {
    let mut bench = Bench::new().await;
    let budget = Budget { bytes: 64 << 20, age: Duration::from_secs(3600) };
    let backlog: Arc<dyn Backlog> = Arc::new(RamBacklog::new(budget));
    let mut settings = settings();
    settings.sender.keep = Keep::Backlog { window_bytes: 5_000 };
    settings.sender.end_patience = None;
    let (track, _) = bench
        .track(settings, Some(KmpBacklog { frames: backlog.clone(), percent: Some(300), outlives: true }));
    let mut camera = bench.publisher();
    let mut last = 0;
    beside(track, &bench.local, async {
        camera.shoot(200, 1000);
        let mut receiver = bench.receiver().await;
        receiver.read(100).await;
        receiver.ack(50).await;
        until("the ack", || bench.told.frames(Fate::Delivered) == 50).await;
        last = receiver.first_id();
        // Away; what comes now is kept alone.
        drop(receiver);
        let gone = bench.receiver().await;
        drop(gone);
        camera.shoot(200, 1000);
        tokio::time::sleep(Duration::from_millis(100)).await;
    })
    .await;
    assert_eq!(backlog.held().frames, 350);
    drop(camera);
    // As after a restart: the ring has nothing of all that.
    bench.mountpoint = Mountpoint::new("yard".into(), 0, Limits::default(), Arc::new(RtmpForm));
    let (track, report) = bench
        .track(settings, Some(KmpBacklog { frames: backlog.clone(), percent: Some(300), outlives: true }));
    beside(track, &bench.local, async {
        let mut receiver = bench.receiver().await;
        while receiver.connect.is_none() || !receiver.read(350).await {
            receiver = bench.receiver().await;
            receiver.read(1).await;
        }
        assert_eq!(receiver.first_id(), last + 50);
        assert_eq!(receiver.pictures, (50..400).collect::<Vec<_>>());
        assert!(receiver.headers >= 1);
        receiver.ack_all().await;
        until("the acks", || report.totals().acked_frames == 350).await;
    })
    .await;
    assert_eq!((backlog.held().frames, bench.told.frames(Fate::Delivered)), (0, 400));
}

#[tokio::test]
async fn a_track_asks_its_controller() {
    let bench = Bench::new().await;
    let mut settings = settings();
    settings.sender = Settings { flush_timeout: Duration::from_millis(20), ..Settings::strict() };
    let (track, mut handle) = KmpTrack::asked(bench.shared(), settings);
    let script = async {
        let mut camera = bench.publisher();
        camera.shoot(10, 100);
        let Some(TrackAsk::Publish { media_info }) = handle.asks.recv().await else { panic!() };
        assert_eq!(media_info.codec_id, 7);
        let (channel_id, track_id) = (Name::new("c").unwrap(), Name::new("t").unwrap());
        let upstreams = vec![bench.spec()];
        handle.commands.send(TrackCommand::Published { channel_id, track_id, upstreams }).await.unwrap();
        let mut first = bench.receiver().await;
        first.read(10).await;
        assert_eq!(first.connect.as_ref().map(|connect| connect.channel_id), Some(channel_id));
        drop(first);
        camera.shoot(1, 100);
        let Some(TrackAsk::Republish { upstream, id, .. }) = handle.asks.recv().await else { panic!() };
        assert_eq!(id, "up");
        let command = TrackCommand::Republished { upstream, url: bench.url(), connect_data: None };
        handle.commands.send(command).await.unwrap();
        let mut second = bench.receiver().await;
        second.read(11).await;
        camera.shoot(1, 100);
        handle.commands.send(TrackCommand::End(Reason::Close)).await.unwrap();
        second.read_all().await;
        assert_eq!(second.pictures, (0..12).collect::<Vec<_>>());
        drop(second);
        assert!(matches!(handle.asks.recv().await, Some(TrackAsk::Unpublish { reason: Reason::Close })));
        assert!(handle.asks.recv().await.is_none(), "it is over");
    };
    let run = async { tokio::join!(track.run(bench.local.clone()), script) };
    tokio::time::timeout(PATIENCE, run).await.unwrap();
    assert_eq!(bench.told.frames(Fate::Unconfirmed(Why::Unacknowledged)), 12);
}

/// Small, seeded, ours.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[tokio::test]
async fn whatever_receivers_do_every_picture_arrives_once_in_order() {
    let runs = futures_util::stream::iter(0..200).map(|seed| Box::pin(whatever(seed)));
    runs.buffer_unordered(20).collect::<()>().await;
}

async fn whatever(seed: u64) {
    let bench = Bench::new().await;
    let mut dice = Dice(seed);
    let mut settings = settings();
    let mut backlog = None;
    if seed % 2 == 1 {
        settings.sender.keep = Keep::Backlog { window_bytes: 1000 + dice.below(20_000) };
        let frames = RamBacklog::new(Budget { bytes: 64 << 20, age: Duration::from_secs(3600) });
        backlog = Some(KmpBacklog { frames: Arc::new(frames), percent: None, outlives: false });
    }
    settings.sender.end_patience = None;
    settings.sender.reconnect =
        Reconnect::Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(5) };
    let (track, report) = bench.track(settings, backlog);
    let pictures = 20 + dice.below(100) as u32;
    let mut had: Vec<u32> = Vec::new();
    let mut base = None;
    beside(track, &bench.local, async {
        let mut camera = bench.publisher();
        while had.len() < pictures as usize {
            camera.shoot(
                (1 + dice.below(30) as u32).min(pictures - camera.index),
                200 + dice.below(3000) as usize,
            );
            let mut receiver = bench.receiver().await;
            if dice.below(4) == 0 {
                continue;
            }
            let most = pictures as usize - had.len();
            let is_last = camera.index == pictures && dice.below(3) == 0;
            let count = if is_last { most } else { dice.below(20) as usize };
            let until_then = tokio::time::timeout(Duration::from_millis(30), receiver.read_on(count)).await;
            if receiver.connect.is_none() {
                continue;
            }
            let first = *base.get_or_insert(receiver.first_id());
            let skip = (first + had.len() as u64).checked_sub(receiver.first_id()).unwrap() as usize;
            had.extend(receiver.pictures.iter().skip(skip));
            if dice.below(3) > 0 {
                // Never what it has not received.
                let some = dice.below(receiver.pictures.len() as u64 + 1) as usize;
                receiver.ack(if is_last { receiver.pictures.len() } else { some }).await;
            }
            let _ = until_then;
        }
        // Whoever comes last has all and says so.
        while report.totals().acked_frames < u64::from(pictures) {
            let mut receiver = bench.receiver().await;
            let left = first_unacked(&mut receiver, base.unwrap(), pictures).await;
            receiver.read(left).await;
            receiver.ack_all().await;
            let acked = async {
                while report.totals().acked_frames < u64::from(pictures) {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            let _ = tokio::time::timeout(Duration::from_millis(200), acked).await;
        }
    })
    .await;
    assert_eq!(had, (0..pictures).collect::<Vec<_>>(), "seed {seed}");
    assert_eq!(bench.told.frames(Fate::Delivered), u64::from(pictures), "seed {seed}");
    assert_eq!(report.totals().lost_frames, 0, "seed {seed}");
}

/// How many pictures this connection will bring.
async fn first_unacked(receiver: &mut Receiver<TcpStream>, base: u64, pictures: u32) -> usize {
    receiver.read(0).await;
    while receiver.connect.is_none() {
        if receiver.stream.read_buf(&mut receiver.unread).await.unwrap() == 0 {
            return 0;
        }
        let mut input = &receiver.unread[..];
        if let Some(Packet::Connect(connect)) = receiver.reader.read(&mut input).unwrap() {
            receiver.connect = Some(connect);
        }
        let used = receiver.unread.len() - input.len();
        drop(receiver.unread.split_to(used));
    }
    (base + u64::from(pictures) - receiver.first_id()) as usize
}
