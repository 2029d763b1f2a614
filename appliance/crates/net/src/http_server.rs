//! A small HTTP/1.1 server for other systems' control APIs: whole requests in, whole answers out.
//!
//! Every peer is bounded: connections in all and per address, bytes of head and body, time for each, time between
//! requests, and a peer that reads no answer is ended by the kernel. Not for streaming and not for the installers' page.

mod socket;

pub use socket::{
    SocketCall, SocketCallError, SocketHandler, SocketMessage, SocketTask, WebSocket, WebSocketError,
};

use crate::accept::Accepting;
use crate::limits::{ConnectionLimits, Permit};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket::{Opened, Wire};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::debug;

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
    tls: Option<TlsAcceptor>,
    sockets: Option<SocketHandler>,
}

impl HttpListener {
    /// Binds. `limits` may be shared by several listeners.
    pub fn bind(
        address: SocketAddr,
        settings: HttpServerSettings,
        limits: ConnectionLimits,
        handler: HttpHandler,
    ) -> io::Result<Self> {
        Ok(HttpListener {
            listener: crate::socket::listen(address)?,
            settings: Arc::new(settings),
            limits,
            handler,
            tls: None,
            sockets: None,
        })
    }

    /// From now on over TLS; a handshake has the time of a request's head.
    #[must_use]
    pub fn with_tls(self, tls: Option<TlsAcceptor>) -> Self {
        HttpListener { tls, ..self }
    }

    /// From now on with WebSockets: whoever asks for one is judged by this handler.
    #[must_use]
    pub fn with_sockets(self, sockets: SocketHandler) -> Self {
        HttpListener { sockets: Some(sockets), ..self }
    }

    /// The address that it has.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `cancel`; requests that are being answered then have a moment to end.
    pub async fn run(self, cancel: CancellationToken) -> io::Result<()> {
        let accepting =
            Accepting { protocol: "HTTP", cancel: cancel.clone(), pulse: None, farewell: LAST_ANSWERS };
        accepting
            .run(self.listener, |stream, peer, connections| {
                let permit = match self.limits.admit(peer.ip()) {
                    Ok(permit) => permit,
                    Err(refusal) => return debug!(%peer, %refusal, "HTTP connection refused"),
                };
                let answering = Answering {
                    peer,
                    settings: self.settings.clone(),
                    handler: self.handler.clone(),
                    sockets: self.sockets.clone(),
                    opened: Opened::default(),
                };
                connections.spawn(serve(stream, self.tls.clone(), permit, answering, cancel.clone()));
            })
            .await
    }
}

/// What one connection's requests are answered with.
#[derive(Clone)]
struct Answering {
    peer: SocketAddr,
    settings: Arc<HttpServerSettings>,
    handler: HttpHandler,
    sockets: Option<SocketHandler>,
    /// Set by the request that makes a WebSocket of the connection.
    opened: Opened,
}

async fn serve(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    permit: Permit,
    answering: Answering,
    cancel: CancellationToken,
) {
    let (peer, settings) = (answering.peer, answering.settings.clone());
    let socket = socket2::SockRef::from(&stream);
    let prepared =
        stream.set_nodelay(true).and_then(|()| socket.set_tcp_user_timeout(Some(settings.write_timeout)));
    if let Err(error) = prepared {
        return debug!(%peer, %error, "HTTP connection lost while accepting");
    }
    let stream: Box<dyn Wire> = match tls {
        None => Box::new(stream),
        Some(tls) => match tokio::time::timeout(settings.head_timeout, tls.accept(stream)).await {
            Ok(Ok(stream)) => Box::new(stream),
            Ok(Err(error)) => return debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => return debug!(%peer, "TLS handshake took too long"),
        },
    };
    let opened = answering.opened.clone();
    let service = hyper::service::service_fn(move |request| {
        let answering = answering.clone();
        async move { Ok::<_, Infallible>(answer(request, &answering).await) }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.head_timeout)
        .max_buf_size(settings.head_bytes.max(8192))
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = cancel.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        debug!(%peer, %error, "HTTP connection ended");
    }
    // The permit lasts as long as the connection, whatever it has become.
    opened.run().await;
    drop(permit);
}

async fn answer(mut request: hyper::Request<Incoming>, answering: &Answering) -> Response<Full<Bytes>> {
    let Answering { peer, settings, handler, sockets, opened } = answering;
    let upgrade =
        sockets.as_ref().and_then(|sockets| socket::asked(&mut request).map(|asked| (sockets, asked)));
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("*", |target| target.as_str()).to_owned();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value)));
    let mut request = HttpRequest {
        method: head.method.as_str().to_owned(),
        target,
        headers: headers.collect(),
        body: Vec::new(),
        peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
    };
    if let Some((sockets, asked)) = upgrade {
        return match asked {
            Ok(asked) => match sockets(request).await {
                Ok(task) => opened.open(asked, task),
                Err(answer) => response(answer),
            },
            Err(answer) => response(answer),
        };
    }
    let body = Limited::new(body, settings.body_bytes).collect();
    request.body = match tokio::time::timeout(settings.body_timeout, body).await {
        Ok(Ok(body)) => body.to_bytes().into(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return last(StatusCode::PAYLOAD_TOO_LARGE),
        Ok(Err(_)) => return last(StatusCode::BAD_REQUEST),
        Err(_) => return last(StatusCode::REQUEST_TIMEOUT),
    };
    response(handler(request).await)
}

fn response(answer: HttpAnswer) -> Response<Full<Bytes>> {
    let HttpAnswer { status, headers, body } = answer;
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
