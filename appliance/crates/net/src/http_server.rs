//! A small HTTP/1.1 server for other systems' control APIs: whole requests in, whole answers out.
//!
//! Every peer is bounded: connections in all and per address, bytes of head and body, time for each, time between
//! requests, and a peer that reads no answer is ended by the kernel. Not for streaming and not for the installers' page.

use crate::limits::{ConnectionLimits, Permit};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long requests that are being answered may take when the server stops.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Headers of one request.
const HEADERS_MAX: usize = 64;

/// One request, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// `GET`, `POST` and so on.
    pub method: String,
    /// Path and query as sent, not decoded.
    pub target: String,
    /// In the order of arrival; names in lower case, bytes that are no UTF-8 replaced.
    pub headers: Vec<(String, String)>,
    /// Without framing.
    pub body: Vec<u8>,
    /// Who asks.
    pub peer: SocketAddr,
}

/// One answer, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// HTTP status.
    pub status: u16,
    /// Without `Content-Length`, which is added. What HTTP does not permit is left out.
    pub headers: Vec<(String, String)>,
    /// May be empty.
    pub body: Vec<u8>,
}

impl HttpAnswer {
    /// Without headers and body.
    pub fn empty(status: u16) -> Self {
        HttpAnswer { status, headers: Vec::new(), body: Vec::new() }
    }
}

/// What answers requests. Must end by itself; dropped when the peer leaves.
pub type HttpHandler =
    Arc<dyn Fn(HttpRequest) -> Pin<Box<dyn Future<Output = HttpAnswer> + Send>> + Send + Sync>;

/// What one peer may cost.
#[derive(Clone, Debug)]
pub struct HttpServerSettings {
    /// Bytes of a request line with its headers; at least 8,192, which is what the parser needs.
    pub head_bytes: usize,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// For a request's head, and between two requests.
    pub head_timeout: Duration,
    /// For a request's body.
    pub body_timeout: Duration,
    /// How long the kernel keeps an answer that the peer does not take.
    pub write_timeout: Duration,
}

impl Default for HttpServerSettings {
    fn default() -> Self {
        HttpServerSettings {
            head_bytes: 16 << 10,
            body_bytes: 256 << 10,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
        }
    }
}

/// One listening address.
pub struct HttpListener {
    listener: std::net::TcpListener,
    settings: Arc<HttpServerSettings>,
    limits: ConnectionLimits,
    handler: HttpHandler,
}

impl HttpListener {
    /// Binds. `limits` may be shared by several listeners.
    pub fn bind(
        address: SocketAddr,
        settings: HttpServerSettings,
        limits: ConnectionLimits,
        handler: HttpHandler,
    ) -> io::Result<Self> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(128)?;
        socket.set_nonblocking(true)?;
        Ok(HttpListener { listener: socket.into(), settings: Arc::new(settings), limits, handler })
    }

    /// The address that it has.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `cancel`; requests that are being answered then have a moment to end.
    pub async fn run(self, cancel: CancellationToken) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = cancel.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "HTTP accept failed; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let permit = match self.limits.admit(peer.ip()) {
                Ok(permit) => permit,
                Err(refusal) => {
                    debug!(%peer, %refusal, "HTTP connection refused");
                    continue;
                }
            };
            let (settings, handler) = (self.settings.clone(), self.handler.clone());
            connections.spawn(serve(stream, peer, permit, settings, handler, cancel.clone()));
        }
        drop(listener);
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_ANSWERS, ended).await.is_err() {
            connections.shutdown().await;
        }
        Ok(())
    }
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    permit: Permit,
    settings: Arc<HttpServerSettings>,
    handler: HttpHandler,
    cancel: CancellationToken,
) {
    let socket = socket2::SockRef::from(&stream);
    let prepared =
        stream.set_nodelay(true).and_then(|()| socket.set_tcp_user_timeout(Some(settings.write_timeout)));
    if let Err(error) = prepared {
        return debug!(%peer, %error, "HTTP connection lost while accepting");
    }
    let service = hyper::service::service_fn({
        let settings = settings.clone();
        move |request| {
            let (settings, handler) = (settings.clone(), handler.clone());
            async move { Ok::<_, Infallible>(answer(request, peer, &settings, &handler).await) }
        }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.head_timeout)
        .max_buf_size(settings.head_bytes.max(8192))
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = cancel.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    drop(permit);
    if let Err(error) = ended {
        debug!(%peer, %error, "HTTP connection ended");
    }
}

async fn answer(
    request: hyper::Request<Incoming>,
    peer: SocketAddr,
    settings: &HttpServerSettings,
    handler: &HttpHandler,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, settings.body_bytes).collect();
    let body = match tokio::time::timeout(settings.body_timeout, body).await {
        Ok(Ok(body)) => body.to_bytes().into(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return last(StatusCode::PAYLOAD_TOO_LARGE),
        Ok(Err(_)) => return last(StatusCode::BAD_REQUEST),
        Err(_) => return last(StatusCode::REQUEST_TIMEOUT),
    };
    let target = head.uri.path_and_query().map_or("*", |target| target.as_str()).to_owned();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value)));
    let request = HttpRequest {
        method: head.method.as_str().to_owned(),
        target,
        headers: headers.collect(),
        body,
        peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
    };
    let HttpAnswer { status, headers, body } = handler(request).await;
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value))
            && name != CONTENT_LENGTH
        {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// An answer after which the connection can't go on: the rest of the request was not read.
fn last(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response.headers_mut().insert(hyper::header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests;
