//! Owns the admin plane's TCP side: takes connections within limits, reads one whole request from each within
//! deadlines, judges it, and relays it.
//!
//! ```text
//! accept -> slot? -> head (deadline, size) -> meaning, Host, Origin -> who may -> body (budget, deadline)
//!        -> server behind (deadline) -> answer (deadline) -> close
//! ```
//!
//! One request per connection: nothing can hide behind a first one, and every confirmation comes over a connection
//! whose age is known.

use super::api::AdminApi;
use super::backend::{FRONT_HEADER, OPENED_HEADER, PEER_HEADER, WAY_HEADER};
use super::feed::{self, Feed, Feeds};
use super::gate::{self, Asking, Way};
use super::guard::Guard;
use super::head::{HeadError, MAX_HEAD_LEN, Method, RequestHead, head_len};
use super::relay::{self, RelayError};
use super::reply::Reply;
use super::routes;
use super::slots::{Load, Slot, Slots};
use crate::access::{Access, Principal};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// How much a stranger may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections in all.
    pub(super) connections: usize,
    /// Connections from one address.
    pub(super) per_address: usize,
    /// From the connection to the end of the head.
    pub(super) head: Duration,
    /// From the head to the end of the body.
    pub(super) body: Duration,
    /// Until the server behind has answered. A config change waits up to 10 s for its children, and as long to
    /// go back.
    pub(super) answer: Duration,
    /// Until the client has taken the answer.
    pub(super) write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 64,
            per_address: 32,
            head: Duration::from_secs(10),
            body: Duration::from_secs(20),
            answer: Duration::from_secs(30),
            write: Duration::from_secs(30),
        }
    }
}

/// Memory for bodies of all requests together, in KiB.
const BODY_BUDGET_KIB: u32 = 8 << 10;
/// Memory for answers of all requests together, in KiB.
const ANSWER_BUDGET_KIB: usize = 16 << 10;
/// Requests that may wait for the steward at once; the other threads keep answering reads.
const WAITING: usize = 2;
/// How long a request that hashes a password waits for those before it.
const HASH_WITHIN: Duration = Duration::from_secs(15);
/// How long a request for a picture waits for those before it.
const LOOK_WITHIN: Duration = Duration::from_secs(10);
/// What is still read after a refusal, so that the client gets to see it.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_LEN: u64 = 8 << 20;

/// What all connections share.
pub(super) struct Shared {
    guard: Guard,
    api: Arc<dyn AdminApi>,
    feeds: Feeds,
    access: Arc<Access>,
    limits: Limits,
    front_token: String,
    epoch: Instant,
    backend: watch::Receiver<PathBuf>,
    broken: Arc<Notify>,
    slots: Arc<Slots>,
    bodies: Semaphore,
    answers: Semaphore,
    waiting: Semaphore,
    looking: Semaphore,
    hashing: Semaphore,
}

impl Shared {
    #[allow(clippy::too_many_arguments, reason = "each is one thing that all connections share")]
    pub(super) fn new(
        guard: Guard,
        api: Arc<dyn AdminApi>,
        access: Arc<Access>,
        limits: Limits,
        front_token: String,
        epoch: Instant,
        backend: watch::Receiver<PathBuf>,
        broken: Arc<Notify>,
    ) -> Self {
        Shared {
            guard,
            api,
            feeds: Feeds::default(),
            access,
            limits,
            front_token,
            epoch,
            backend,
            broken,
            slots: Slots::new(limits.connections, limits.per_address),
            bodies: Semaphore::new(BODY_BUDGET_KIB as usize),
            answers: Semaphore::new(ANSWER_BUDGET_KIB),
            waiting: Semaphore::new(WAITING),
            looking: Semaphore::new(1),
            hashing: Semaphore::new(1),
        }
    }

    /// Connections now, without our own probes, and those refused since the start.
    pub(super) fn load(&self) -> Load {
        self.slots.load()
    }

    /// Ends all streams when it is cancelled.
    pub(super) fn closing(&self) -> &CancellationToken {
        &self.feeds.closing
    }

    /// Keeps a slot for a connection from this address.
    pub(super) fn reserve(&self, from: SocketAddr) -> Slot {
        self.slots.reserve(from)
    }
}

/// Takes connections until cancelled; returns the ones that still run.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    cancel: CancellationToken,
) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    let mut refusing = false;
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let opened = Instant::now();
                // Taken before a task exists: a flood costs no task per connection.
                let slot = shared.slots.admit(peer);
                if slot.is_none() && !refusing {
                    warn!(%peer, "the admin plane is full and refuses connections");
                }
                refusing = slot.is_none();
                match slot {
                    Some(slot) => {
                        connections.spawn(serve(stream, tls.clone(), peer, opened, shared.clone(), slot));
                    }
                    // To say why would take a handshake, which is what there is no room for.
                    None if tls.is_some() => {}
                    None => {
                        let full = Reply::problem(503, "too many connections; close some or wait", &[]);
                        let _ = stream.try_write(&full.with("retry-after", "5").to_wire(false));
                    }
                }
            }
            Err(error) => {
                // Out of descriptors, or a client that was gone before it was taken: neither may end this loop, and
                // the first would come back at once.
                warn!(%error, "the admin plane could not take a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    connections
}

/// How a connection came.
#[derive(Clone, Copy)]
struct Arrival<'a> {
    peer: SocketAddr,
    /// The address that it has reached.
    local: IpAddr,
    opened: Instant,
    is_secure: bool,
    slot: &'a Slot,
}

async fn serve(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    peer: SocketAddr,
    opened: Instant,
    shared: Arc<Shared>,
    slot: Slot,
) {
    let Ok(local) = stream.local_addr() else { return };
    let arrival = Arrival { peer, local: local.ip(), opened, is_secure: tls.is_some(), slot: &slot };
    tokio::select! {
        () = slot.evicted() => debug!(%peer, "an idle connection gave way to somebody else's"),
        () = shake_hands(stream, tls, arrival, &shared) => {}
    }
}

async fn shake_hands(stream: TcpStream, tls: Option<TlsAcceptor>, arrival: Arrival<'_>, shared: &Shared) {
    let Some(tls) = tls else { return converse(stream, arrival, shared).await };
    let peer = arrival.peer;
    match timeout(shared.limits.head, tls.accept(stream)).await {
        Ok(Ok(stream)) => Box::pin(converse(stream, arrival, shared)).await,
        // A scanner, HTTP without TLS, or a browser that does not trust us: TLS has told it what can be told.
        Ok(Err(error)) => debug!(%peer, %error, "no TLS on the admin plane"),
        Err(_) => debug!(%peer, "a TLS handshake on the admin plane did not end in time"),
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, arrival: Arrival<'_>, shared: &Shared) {
    match exchange(&mut stream, arrival, shared).await {
        Ok(()) => {}
        Err(Ended::Gone) => return,
        Err(Ended::Refused(reply)) => {
            debug!(peer = %arrival.peer, status = reply.status, "an admin request was refused");
            // Small enough for any send buffer: it cannot be stalled.
            if stream.write_all(&reply.to_wire(false)).await.is_err() {
                return;
            }
        }
    }
    linger(stream).await;
}

/// Closing while bytes are still unread makes the kernel drop the answer on its way.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let drain = async {
        stream.shutdown().await?;
        let mut rest = (&mut stream).take(LINGER_LEN);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    let _ = timeout(LINGER, drain).await;
}

enum Ended {
    /// The client is gone; there is nobody to tell.
    Gone,
    Refused(Reply),
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Ended::Gone
    }
}

fn refuse(status: u16, detail: &str) -> Ended {
    Ended::Refused(Reply::problem(status, detail, &[]))
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    Arrival { peer, local, opened, is_secure, slot }: Arrival<'_>,
    shared: &Shared,
) -> Result<(), Ended> {
    let limits = &shared.limits;
    let read = timeout(limits.head, read_head(stream)).await;
    let (head, mut body) = read.map_err(|_| refuse(408, "the request did not arrive in time"))??;
    slot.keep();
    shared.guard.check(&head, local).map_err(|error| refuse(error.status(), &error.to_string()))?;
    let way = Way::of(&head, is_secure);
    let principal = admit(&head, peer, way, shared)?;
    if let (Method::Get, Some(feed), Some(principal)) = (head.method, Feed::at(head.path()), &principal) {
        let (method, target, headers) = (head.method, &head.target, &head.passed_on);
        let asking = Asking { method, target, headers, peer, way };
        let source = feed::Source::new(feed, &shared.api);
        let served = feed::serve(stream, &source, &asking, principal, &shared.feeds, &shared.access);
        return Box::pin(served).await.map_err(Ended::Refused);
    }
    let admission = routes::admission(head.method, head.path());
    if head.content_len > admission.max_body_len {
        let detail = format!("the body may take {} bytes here", admission.max_body_len);
        return Err(refuse(413, &detail));
    }
    let body_len = usize::try_from(head.content_len).map_err(|_| refuse(413, "the body is too long"))?;
    let kib = u32::try_from(body_len.div_ceil(1024)).unwrap_or(BODY_BUDGET_KIB);
    let taking = async {
        let share = shared.bodies.acquire_many(kib).await;
        if head.expects_continue && body.is_empty() {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        read_body(stream, &mut body, body_len).await?;
        Ok::<_, io::Error>(share)
    };
    let taken = timeout(limits.body, taking).await;
    let _share = taken.map_err(|_| refuse(408, "the body did not arrive in time"))??;
    let _turn = match admission.waits.then(|| shared.waiting.try_acquire()) {
        Some(Err(_)) => {
            let busy = Reply::problem(503, "other changes are under way; try again in a moment", &[]);
            return Err(Ended::Refused(busy.with("retry-after", "1")));
        }
        turn => turn,
    };
    // Pictures are made one after the other, so that a slow one holds one thread; most are ready and take no time.
    let looking = async {
        match admission.looks {
            true => Some(shared.looking.acquire().await),
            false => None,
        }
    };
    let Ok(_look) = timeout(LOOK_WITHIN, looking).await else {
        let busy = Reply::problem(503, "many pictures are being asked for; try again in a moment", &[]);
        return Err(Ended::Refused(busy.with("retry-after", "1")));
    };
    // Guesses wait for each other, and leave the other threads alone.
    let hashing = async {
        match admission.hashes {
            true => Some(shared.hashing.acquire().await),
            false => None,
        }
    };
    let Ok(_hash) = timeout(HASH_WITHIN, hashing).await else {
        let busy = Reply::problem(503, "many are logging in; try again in a moment", &[]);
        return Err(Ended::Refused(busy.with("retry-after", "5")));
    };
    let nanos = opened.saturating_duration_since(shared.epoch).as_nanos().to_string();
    let wire = head.write(&[
        (FRONT_HEADER, &shared.front_token),
        (PEER_HEADER, &peer.to_string()),
        (WAY_HEADER, way.to_text()),
        (OPENED_HEADER, &nanos),
    ]);
    let path = shared.backend.borrow().clone();
    let asked = relay::ask(&path, &wire, &body, head.method == Method::Head, &shared.answers);
    let answer = match timeout(limits.answer, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(unanswered(&error, shared)),
        Err(_) => {
            return Err(refuse(504, "the gateway did not answer in time; its page server may be rebuilt"));
        }
    };
    drop(body);
    let write = async {
        stream.write_all(&answer.wire).await?;
        stream.flush().await
    };
    let written = timeout(limits.write, write).await;
    written.map_err(|_| Ended::Gone)?.map_err(Ended::from)
}

/// Before a byte of the body is taken in: a stranger gets no memory.
fn admit(
    head: &RequestHead,
    peer: SocketAddr,
    way: Way,
    shared: &Shared,
) -> Result<Option<Principal>, Ended> {
    let (method, target, headers) = (head.method, &head.target, &head.passed_on);
    let asking = Asking { method, target, headers, peer, way };
    let refused = match gate::judge(&shared.access, &asking, Instant::now()) {
        Ok(principal) => return Ok(principal),
        Err(refused) => refused,
    };
    if let Some(who) = refused.who {
        let (access, what) = (shared.access.clone(), format!("{} {}", method.name(), head.path()));
        let result = format!("refused: {}", refused.reply.status);
        // The log is on disk.
        tokio::task::spawn_blocking(move || {
            access.note_refusal(&who.to_string(), peer.ip(), &what, &result, Instant::now());
        });
    }
    Err(Ended::Refused(refused.reply))
}

fn unanswered(error: &RelayError, shared: &Shared) -> Ended {
    warn!(%error, "an admin request was not answered");
    if error.is_gone() {
        shared.broken.notify_one();
    }
    let down = Reply::problem(502, "the gateway's page server is being rebuilt; try again in a moment", &[]);
    Ended::Refused(down.with("retry-after", "1"))
}

/// The head, and what came with it of the body.
async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(RequestHead, Vec<u8>), Ended> {
    let mut taken = Vec::with_capacity(1 << 10);
    loop {
        if let Some(len) = head_len(&taken) {
            let rest = taken.split_off(len);
            let head = RequestHead::parse(&taken);
            let head = head.map_err(|error| refuse(error.status(), &error.to_string()))?;
            return Ok((head, rest));
        }
        let room = MAX_HEAD_LEN.saturating_sub(taken.len());
        if room == 0 {
            let error = HeadError::TooLong;
            return Err(refuse(error.status(), &error.to_string()));
        }
        if (&mut *stream).take(room as u64).read_buf(&mut taken).await? == 0 {
            return Err(Ended::Gone);
        }
    }
}

/// Exactly the body: what a client sends after it is not looked at.
async fn read_body<S: AsyncRead + Unpin>(stream: &mut S, body: &mut Vec<u8>, len: usize) -> io::Result<()> {
    body.truncate(len);
    body.reserve_exact(len - body.len());
    while body.len() < len {
        let missing = len - body.len();
        if (&mut *stream).take(missing as u64).read_buf(body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}
