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

use super::backend::{FRONT_HEADER, OPENED_HEADER, PEER_HEADER, WAY_HEADER};
use super::gate::{self, Asking, Way};
use super::guard::Guard;
use super::head::{HeadError, MAX_HEAD_LEN, Method, RequestHead, head_len};
use super::relay::{self, RelayError};
use super::reply::Reply;
use super::routes;
use crate::access::Access;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
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
    access: Arc<Access>,
    limits: Limits,
    front_token: String,
    epoch: Instant,
    backend: watch::Receiver<PathBuf>,
    broken: Arc<Notify>,
    slots: Mutex<Slots>,
    refused: AtomicU64,
    bodies: Semaphore,
    answers: Semaphore,
    waiting: Semaphore,
    looking: Semaphore,
    hashing: Semaphore,
}

/// How busy the admin plane is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Open connections.
    pub connections: usize,
    /// Connections refused because there were too many.
    pub refused: u64,
}

#[derive(Default)]
struct Slots {
    by_address: HashMap<IpAddr, usize>,
    total: usize,
    /// Our own probes, by their port: they get in when nobody else does.
    reserved: HashSet<SocketAddr>,
}

/// Frees what it stands for when it goes.
pub(super) struct Slot {
    shared: Arc<Shared>,
    kind: SlotKind,
}

enum SlotKind {
    Client(IpAddr),
    Reservation(SocketAddr),
    Probe,
}

impl Shared {
    pub(super) fn new(
        guard: Guard,
        access: Arc<Access>,
        limits: Limits,
        front_token: String,
        epoch: Instant,
        backend: watch::Receiver<PathBuf>,
        broken: Arc<Notify>,
    ) -> Self {
        Shared {
            guard,
            access,
            limits,
            front_token,
            epoch,
            backend,
            broken,
            slots: Mutex::default(),
            refused: AtomicU64::new(0),
            bodies: Semaphore::new(BODY_BUDGET_KIB as usize),
            answers: Semaphore::new(ANSWER_BUDGET_KIB),
            waiting: Semaphore::new(WAITING),
            looking: Semaphore::new(1),
            hashing: Semaphore::new(1),
        }
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections now, without our own probes, and those refused since the start.
    pub(super) fn load(&self) -> Load {
        let connections = self.slots().total;
        Load { connections, refused: self.refused.load(Ordering::Relaxed) }
    }

    /// Keeps a slot for a connection from this address.
    pub(super) fn reserve(self: &Arc<Self>, from: SocketAddr) -> Slot {
        self.slots().reserved.insert(from);
        Slot { shared: self.clone(), kind: SlotKind::Reservation(from) }
    }

    fn admit(self: &Arc<Self>, peer: SocketAddr) -> Option<Slot> {
        let mut slots = self.slots();
        if slots.reserved.contains(&peer) {
            return Some(Slot { shared: self.clone(), kind: SlotKind::Probe });
        }
        let address = peer.ip().to_canonical();
        let of_address = slots.by_address.get(&address).copied().unwrap_or(0);
        if slots.total >= self.limits.connections || of_address >= self.limits.per_address {
            return None;
        }
        slots.by_address.insert(address, of_address + 1);
        slots.total += 1;
        Some(Slot { shared: self.clone(), kind: SlotKind::Client(address) })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut slots = self.shared.slots();
        match self.kind {
            SlotKind::Probe => {}
            SlotKind::Reservation(from) => {
                slots.reserved.remove(&from);
            }
            SlotKind::Client(address) => {
                slots.total -= 1;
                if let Some(count) = slots.by_address.get_mut(&address) {
                    *count -= 1;
                    if *count == 0 {
                        slots.by_address.remove(&address);
                    }
                }
            }
        }
    }
}

/// Takes connections until cancelled; then lets the ones that run finish for a moment.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>, cancel: CancellationToken) {
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
                let slot = shared.admit(peer);
                if slot.is_none() && !refusing {
                    warn!(%peer, "the admin plane is full and refuses connections");
                }
                refusing = slot.is_none();
                match slot {
                    Some(slot) => {
                        connections.spawn(serve(stream, peer, opened, slot));
                    }
                    None => {
                        shared.refused.fetch_add(1, Ordering::Relaxed);
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
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    if timeout(Duration::from_secs(1), finish).await.is_err() {
        connections.shutdown().await;
    }
}

async fn serve(mut stream: TcpStream, peer: SocketAddr, opened: Instant, slot: Slot) {
    match exchange(&mut stream, peer, opened, &slot.shared).await {
        Ok(()) => {}
        Err(Ended::Gone) => return,
        Err(Ended::Refused(reply)) => {
            debug!(%peer, status = reply.status, "an admin request was refused");
            // Small enough for any send buffer: it cannot be stalled.
            if stream.write_all(&reply.to_wire(false)).await.is_err() {
                return;
            }
        }
    }
    linger(stream).await;
}

/// Closing while bytes are still unread makes the kernel drop the answer on its way.
async fn linger(mut stream: TcpStream) {
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

async fn exchange(
    stream: &mut TcpStream,
    peer: SocketAddr,
    opened: Instant,
    shared: &Shared,
) -> Result<(), Ended> {
    let limits = &shared.limits;
    let read = timeout(limits.head, read_head(stream)).await;
    let (head, mut body) = read.map_err(|_| refuse(408, "the request did not arrive in time"))??;
    shared.guard.check(&head).map_err(|error| refuse(error.status(), &error.to_string()))?;
    let way = Way::of(&head, false);
    admit(&head, peer, way, shared)?;
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
    let written = timeout(limits.write, stream.write_all(&answer.wire)).await;
    written.map_err(|_| Ended::Gone)?.map_err(Ended::from)
}

/// Before a byte of the body is taken in: a stranger gets no memory.
fn admit(head: &RequestHead, peer: SocketAddr, way: Way, shared: &Shared) -> Result<(), Ended> {
    let (method, target, headers) = (head.method, &head.target, &head.passed_on);
    let asking = Asking { method, target, headers, peer, way };
    let Err(refused) = gate::judge(&shared.access, &asking, Instant::now()) else { return Ok(()) };
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
async fn read_head(stream: &mut TcpStream) -> Result<(RequestHead, Vec<u8>), Ended> {
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
async fn read_body(stream: &mut TcpStream, body: &mut Vec<u8>, len: usize) -> io::Result<()> {
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
