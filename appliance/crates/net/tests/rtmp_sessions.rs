//! RTMP connections as controllers see them: asked about at connect, numbered, counted, ended by number.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use bytes::{Buf, BytesMut};
use fieldgate_hub::{
    Admit, Clock, ConnectTerms, ConnectVerdict, Context, Limits, Mountpoint, Pulses, Registry, Request,
    RtmpClient, RtmpEnd, Shard, StreamState, Terms, Verdict,
};
use fieldgate_net::{
    ConnectionLimits, RtmpConnections, RtmpForm, RtmpListener, RtmpServerCounters, RtmpServerSettings,
};
use fieldgate_proto::rtmp::{
    ClientEvent, ClientHandshake, ClientMode, ClientSession, ClientSettings, Limits as ReadLimits,
};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Answers `connect` as told, and lets everybody publish on `yard`.
struct Scripted {
    verdict: ConnectVerdict,
    delay: Duration,
    asked: Arc<Mutex<Vec<Arc<RtmpClient>>>>,
}

impl Admit for Scripted {
    fn knows_application(&self, app: &str) -> bool {
        app == "live"
    }

    fn connect(&self, client: Arc<RtmpClient>) -> Pin<Box<dyn Future<Output = ConnectVerdict> + Send + '_>> {
        self.asked.lock().unwrap().push(client);
        Box::pin(async {
            tokio::time::sleep(self.delay).await;
            self.verdict.clone()
        })
    }

    fn admit(&self, _: Request) -> Pin<Box<dyn Future<Output = Verdict> + Send + '_>> {
        let verdict = Verdict::Allow { mountpoint: "yard".to_owned(), terms: Terms::default() };
        Box::pin(std::future::ready(verdict))
    }
}

struct Bench {
    address: SocketAddr,
    connections: RtmpConnections,
    asked: Arc<Mutex<Vec<Arc<RtmpClient>>>>,
    yard: Arc<Mountpoint>,
    cancel: CancellationToken,
    _listening: JoinSet<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn bench(verdict: ConnectVerdict, delay: Duration, settings: RtmpServerSettings) -> Bench {
    let (cancel, pulses) = (CancellationToken::new(), Pulses::default());
    let shard = Shard::start(0, &pulses, cancel.clone()).unwrap();
    let registry = Arc::new(Registry::new(1, Arc::new(RtmpForm)));
    let yard = registry.add("yard", Limits::default()).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let context = Context {
        registry,
        shards: vec![shard.clone()].into(),
        admit: Arc::new(Scripted { verdict, delay, asked: asked.clone() }),
        clock: Clock::new(1_700_000_000_000_000),
        pulses,
        cancel: cancel.clone(),
    };
    let counters = Arc::new(RtmpServerCounters::default());
    let connections = counters.connections.clone();
    let (_, settings) = watch::channel(Arc::new(settings));
    let limits = ConnectionLimits::new(16, 16);
    let listener =
        RtmpListener::bind("127.0.0.1:0".parse().unwrap(), context, settings, limits, counters, None)
            .unwrap();
    let address = listener.local_addr().unwrap();
    let mut listening = JoinSet::new();
    listening.spawn(async move {
        shard.run(move |local| listener.run(local)).await.unwrap().unwrap();
    });
    Bench { address, connections, asked, yard, cancel, _listening: listening }
}

/// A publisher.
struct Peer {
    stream: TcpStream,
    session: ClientSession,
    unread: BytesMut,
}

impl Peer {
    async fn open(bench: &Bench, app: &str) -> Peer {
        let mut stream = TcpStream::connect(bench.address).await.unwrap();
        let (mut handshake, mut unread) = (ClientHandshake::new(), BytesMut::new());
        loop {
            let (mut input, mut out) = (&unread[..], BytesMut::new());
            let done = handshake.handle_input(&mut input, &mut out).unwrap();
            let used = unread.len() - input.len();
            unread.advance(used);
            stream.write_all(&out).await.unwrap();
            if done {
                break;
            }
            assert!(stream.read_buf(&mut unread).await.unwrap() > 0);
        }
        let session = ClientSession::new(ClientSettings {
            app: app.to_owned(),
            tc_url: format!("rtmp://gateway/{app}"),
            stream_key: "cam 1?user=x".to_owned(),
            mode: ClientMode::Publish,
            flash_ver: "F".repeat(200),
            chunk_len: 4096,
            limits: ReadLimits::default(),
            enhanced: false,
        });
        let mut peer = Peer { stream, session, unread };
        peer.flush().await;
        peer
    }

    async fn flush(&mut self) {
        let mut out = BytesMut::new();
        self.session.poll_output(&mut out);
        self.stream.write_all(&out).await.unwrap();
    }

    /// The next event; `None` when the server closes.
    async fn event(&mut self) -> Option<ClientEvent> {
        loop {
            let mut input = &self.unread[..];
            let event = self.session.read(&mut input).unwrap();
            let used = self.unread.len() - input.len();
            self.unread.advance(used);
            self.flush().await;
            if event.is_some() {
                return event;
            }
            let read = tokio::time::timeout(Duration::from_secs(20), self.stream.read_buf(&mut self.unread));
            if read.await.expect("the server says something").unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    async fn until_ready(&mut self) {
        loop {
            match self.event().await {
                Some(ClientEvent::Ready { .. }) => return,
                Some(ClientEvent::Rejected { code, .. }) => panic!("{code}"),
                Some(_) => {}
                None => panic!("closed"),
            }
        }
    }

    async fn closed(&mut self) {
        while self.event().await.is_some() {}
    }
}

fn accept() -> ConnectVerdict {
    ConnectVerdict::Accept(ConnectTerms::default())
}

async fn until(what: &str, mut seen: impl FnMut() -> bool) {
    let waiting = async {
        while !seen() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn whoever_decides_is_told_all_about_a_connection() {
    let bench = bench(accept(), Duration::from_millis(50), RtmpServerSettings::default());
    let mut peer = Peer::open(&bench, "fast/_definst_?key=s3cret").await;
    peer.until_ready().await;
    let asked = bench.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1);
    let client = &asked[0];
    assert_eq!((client.connection, client.app.as_str()), (1, "fast"));
    assert_eq!(client.peer, peer.stream.local_addr().unwrap());
    assert_eq!(client.flash_ver.len(), 127, "cut at the limit");
    assert!(client.tc_url.ends_with("?key=s3cret"), "as sent");

    until("the publication", || bench.yard.publisher().is_some()).await;
    let session = bench.yard.publisher().unwrap().rtmp.unwrap();
    assert_eq!(
        (session.name.as_str(), session.args.as_str(), session.kind.as_str()),
        ("cam 1", "user=x", "live")
    );
    assert_eq!((session.client.connection, session.ended()), (1, None));
    peer.session.finish();
    peer.flush().await;
    until("the end", || bench.yard.publisher().is_none()).await;
    assert_eq!(session.ended(), Some(RtmpEnd::Closed));
}

#[tokio::test]
async fn a_lost_connection_is_told_from_an_ended_stream() {
    let bench = bench(accept(), Duration::ZERO, RtmpServerSettings::default());
    let mut peer = Peer::open(&bench, "live").await;
    peer.until_ready().await;
    until("the publication", || bench.yard.publisher().is_some()).await;
    let session = bench.yard.publisher().unwrap().rtmp.unwrap();
    drop(peer);
    until("the end", || matches!(*bench.yard.state().borrow(), StreamState::Interrupted(_))).await;
    assert_eq!(session.ended(), Some(RtmpEnd::Disconnected));
}

#[tokio::test]
async fn a_connection_is_ended_by_its_number_and_counted_until_then() {
    let bench = bench(accept(), Duration::ZERO, RtmpServerSettings::default());
    let mut peer = Peer::open(&bench, "live").await;
    peer.until_ready().await;
    until("the count", || bench.connections.get(1).is_some_and(|view| view.stream.is_some())).await;
    let view = bench.connections.get(1).unwrap();
    assert!(view.bytes_in > 100 && view.bytes_out > 100, "{view:?}");
    assert!(!bench.connections.drop_connection(2));
    assert!(bench.connections.drop_connection(1));
    peer.closed().await;
    until("its leaving", || bench.connections.all().is_empty()).await;
    assert!(bench.connections.totals().bytes_in >= view.bytes_in);
    assert!(bench.yard.publisher().is_none());
}

#[tokio::test]
async fn a_refused_connect_is_answered_in_the_controllers_words_and_closed() {
    let refuse = ConnectVerdict::Refuse {
        text: "bad key".to_owned(),
        keep_open: false,
        terms: ConnectTerms::default(),
    };
    let bench = bench(refuse, Duration::ZERO, RtmpServerSettings::default());
    let mut peer = Peer::open(&bench, "fast").await;
    let Some(ClientEvent::Rejected { code, description }) = peer.event().await else { panic!() };
    assert_eq!((code.as_str(), description.as_str()), ("NetStream.Play.Failed", "bad key"));
    peer.closed().await;
}

#[tokio::test]
async fn a_refused_connection_that_stays_open_ends_by_its_idle_timeout() {
    let terms = ConnectTerms { idle_timeout: Some(Duration::from_millis(300)), ..ConnectTerms::default() };
    let refuse = ConnectVerdict::Refuse { text: String::new(), keep_open: true, terms };
    let bench = bench(refuse, Duration::ZERO, RtmpServerSettings::default());
    let mut peer = Peer::open(&bench, "fast").await;
    assert!(matches!(peer.event().await, Some(ClientEvent::Rejected { .. })));
    let at = tokio::time::Instant::now();
    peer.closed().await;
    assert!(at.elapsed() >= Duration::from_millis(150), "not at once");
}

#[tokio::test]
async fn an_unknown_application_is_refused_as_ever() {
    let bench = bench(ConnectVerdict::UnknownApplication, Duration::ZERO, RtmpServerSettings::default());
    let mut peer = Peer::open(&bench, "nope").await;
    let Some(ClientEvent::Rejected { code, description }) = peer.event().await else { panic!() };
    assert_eq!(code, "NetConnection.Connect.Rejected");
    assert!(description.contains("nope"), "{description}");
    peer.closed().await;
}

#[tokio::test]
async fn a_controller_may_take_longer_than_a_handshake_and_a_peer_that_leaves_is_not_waited_for() {
    let settings =
        RtmpServerSettings { handshake_timeout: Duration::from_millis(200), ..RtmpServerSettings::default() };
    let slow = bench(accept(), Duration::from_millis(500), settings.clone());
    Peer::open(&slow, "fast").await.until_ready().await;
    let endless = bench(accept(), Duration::from_secs(3600), settings);
    let peer = Peer::open(&endless, "fast").await;
    until("the question", || !endless.asked.lock().unwrap().is_empty()).await;
    drop(peer);
    until("its leaving", || endless.connections.all().is_empty()).await;
}

#[tokio::test]
async fn a_connection_idle_for_its_own_time_is_ended() {
    let terms = ConnectTerms { idle_timeout: Some(Duration::from_millis(200)), ..ConnectTerms::default() };
    let bench = bench(ConnectVerdict::Accept(terms), Duration::ZERO, RtmpServerSettings::default());
    let mut peer = Peer::open(&bench, "fast").await;
    peer.until_ready().await;
    until("the publication", || bench.yard.publisher().is_some()).await;
    let session = bench.yard.publisher().unwrap().rtmp.unwrap();
    peer.closed().await;
    assert_eq!(session.ended(), Some(RtmpEnd::Disconnected));
}
