//! The HTTP server behind the front: tiny_http on a private Unix socket, four named threads.
//!
//! tiny_http has no limits and no deadlines, and its accept thread ends for ever at the first error. Here it sees
//! only whole, re-serialised requests from the front, and is built anew when it no longer answers ([`super::keeper`]).

use super::api::AdminApi;
use super::gate::{self, Way};
use super::head::Method;
use super::reply::Reply;
use super::routes::{self, Request};
use crate::access::Access;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

/// Threads that answer requests.
pub(super) const HANDLER_THREADS: usize = 4;
/// How long an idle thread waits; whoever retires it wakes it.
const LOOK_UP: Duration = Duration::from_secs(60);
/// The front admits less; this guards against its mistakes.
const MAX_BODY_LEN: u64 = 8 << 20;

/// The header that proves that a request came through the front of this process.
pub(super) const FRONT_HEADER: &str = "x-fieldgate-front";
/// The header that tells who asks.
pub(super) const PEER_HEADER: &str = "x-fieldgate-peer";
/// The header that tells whether it came over TLS and from a page of ours, `secure`, `same-origin`, both or none.
pub(super) const WAY_HEADER: &str = "x-fieldgate-way";
/// The header that tells when the asking connection was opened, in nanoseconds since [`Handlers::epoch`].
pub(super) const OPENED_HEADER: &str = "x-fieldgate-opened";

/// What the threads need to answer.
pub(super) struct Handlers {
    pub(super) api: Arc<dyn AdminApi>,
    pub(super) access: Arc<Access>,
    /// Known to the front and the threads only.
    pub(super) front_token: String,
    /// What the times in requests are counted from.
    pub(super) epoch: Instant,
    /// Told when the server stopped taking connections.
    pub(super) broken: Arc<Notify>,
}

/// One generation of the server. Retired when dropped; its threads end once they are free.
pub(super) struct Backend {
    path: PathBuf,
    /// Gone with the last of its threads.
    server: Weak<tiny_http::Server>,
    retired: Arc<AtomicBool>,
    alive: Arc<AtomicUsize>,
}

impl Backend {
    /// Listens on `path`, which must not exist, and starts the threads.
    pub(super) fn start(path: PathBuf, generation: u64, handlers: &Arc<Handlers>) -> io::Result<Self> {
        let listener = UnixListener::bind(&path)?;
        let server = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
        let server = Arc::new(server);
        let backend = Backend {
            path,
            server: Arc::downgrade(&server),
            retired: Arc::new(AtomicBool::new(false)),
            alive: Arc::new(AtomicUsize::new(0)),
        };
        for number in 0..HANDLER_THREADS {
            let handlers = handlers.clone();
            let server = server.clone();
            let retired = backend.retired.clone();
            let alive = Alive::new(backend.alive.clone());
            thread::Builder::new().name(format!("admin-{generation}-{number}")).spawn(move || {
                serve(&server, &retired, &handlers);
                drop(server);
                drop(alive);
            })?;
        }
        Ok(backend)
    }

    /// Where it listens.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells its threads to end when they are free.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        if let Some(server) = self.server.upgrade() {
            // Each wakes one thread, now or when it comes back.
            (0..HANDLER_THREADS).for_each(|_| server.unblock());
        }
    }

    /// Threads that have not ended.
    pub(super) fn threads(&self) -> usize {
        self.alive.load(Ordering::Relaxed)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.retire();
    }
}

/// Counts a thread for as long as it runs, however it ends.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Alive(count)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve(server: &tiny_http::Server, retired: &AtomicBool, handlers: &Handlers) {
    while !retired.load(Ordering::Relaxed) {
        match server.recv_timeout(LOOK_UP) {
            Ok(None) => {}
            Ok(Some(request)) => handle(request, handlers),
            Err(error) => {
                // Its accept thread has ended and will not come back.
                warn!(%error, "the admin HTTP server stopped accepting");
                handlers.broken.notify_one();
            }
        }
    }
}

fn handle(mut raw: tiny_http::Request, handlers: &Handlers) {
    let reply = match read(&mut raw, handlers) {
        Ok(request) => answer(&request, handlers),
        Err(Unread(reply)) => reply,
    };
    if let Err(error) = raw.respond(into_tiny(reply)) {
        debug!(%error, "the front did not wait for an answer");
    }
}

fn answer(request: &Request, handlers: &Handlers) -> Reply {
    let (method, target, peer) = (request.method.name(), &request.target, &request.peer);
    let respond = || routes::respond(request, handlers.api.as_ref(), &handlers.access);
    let reply = catch_unwind(AssertUnwindSafe(respond)).unwrap_or_else(|_| {
        error!(method, target, "a request's handler panicked");
        Reply::problem(500, "this request met a fault of the gateway; it is in the log", &[])
    });
    if !request.method.is_safe() {
        info!(method, target, %peer, who = request.who(), status = reply.status, "admin request");
        // Who claims or logs in is noted by name where that is done.
        if request.principal.is_some() {
            let result =
                if reply.status < 400 { "done".to_owned() } else { format!("refused: {}", reply.status) };
            handlers.access.note(&request.who(), &request.from(), &format!("{method} {target}"), &result);
        }
    }
    reply
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("this request did not come through the front")]
    NotFromFront,
    #[error("the front sent a request that cannot be read")]
    Unreadable,
    #[error("the body could not be read")]
    Body(#[source] io::Error),
}

/// The request, or what is to be answered at once: between the front and here somebody may have been removed.
fn read(raw: &mut tiny_http::Request, handlers: &Handlers) -> Result<Request, Unread> {
    let header = |name: &'static str| {
        let found = raw.headers().iter().find(|header| header.field.equiv(name));
        found.map(|header| header.value.as_str().to_owned())
    };
    if header(FRONT_HEADER).as_deref() != Some(handlers.front_token.as_str()) {
        return Err(ReadError::NotFromFront.into());
    }
    let unreadable = || ReadError::Unreadable;
    let peer: SocketAddr = header(PEER_HEADER).and_then(|text| text.parse().ok()).ok_or_else(unreadable)?;
    let nanos = header(OPENED_HEADER).and_then(|text| text.parse().ok()).ok_or_else(unreadable)?;
    let way = Way::from_text(&header(WAY_HEADER).ok_or_else(unreadable)?);
    let method = Method::from_name(raw.method().as_str()).ok_or_else(unreadable)?;
    let headers: Vec<(String, String)> = raw
        .headers()
        .iter()
        .map(|header| (header.field.as_str().as_str().to_ascii_lowercase(), header.value.as_str().to_owned()))
        .collect();
    let target = raw.url().to_owned();
    let asking = gate::Asking { method, target: &target, headers: &headers, peer, way };
    let principal =
        gate::judge(&handlers.access, &asking, Instant::now()).map_err(|refused| refused.reply)?;
    let mut body = Vec::new();
    raw.as_reader().take(MAX_BODY_LEN).read_to_end(&mut body).map_err(ReadError::Body)?;
    let opened = handlers.epoch + Duration::from_nanos(nanos);
    let is_secure = way.is_secure;
    Ok(Request { method, target, headers, principal, peer, is_secure, opened, body })
}

/// What is answered instead.
struct Unread(Reply);

impl From<ReadError> for Unread {
    fn from(error: ReadError) -> Self {
        Unread(Reply::problem(400, &error.to_string(), &[]))
    }
}

impl From<Reply> for Unread {
    fn from(reply: Reply) -> Self {
        Unread(reply)
    }
}

fn into_tiny(reply: Reply) -> tiny_http::Response<io::Cursor<Vec<u8>>> {
    let mut response = tiny_http::Response::from_data(reply.body)
        .with_status_code(reply.status)
        // The front wants to know the length ahead.
        .with_chunked_threshold(usize::MAX);
    let named = reply.headers.iter().map(|(name, value)| (*name, value.as_str()));
    let typed = (!reply.content_type.is_empty()).then_some(("content-type", reply.content_type));
    for (name, value) in named.chain(typed) {
        match tiny_http::Header::from_bytes(name, value) {
            Ok(header) => response.add_header(header),
            Err(()) => warn!(name, "an answer's header is not ASCII and was left out"),
        }
    }
    response
}
