//! Where viewers connect: plain HTTP/1.1 or TLS, each connection within its bounds.

use super::body::Sending;
use super::plane::Viewers;
use crate::accept::Accepting;
use crate::limits::Permit;
use crate::socket;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// How long answers that are being sent may take when the server stops.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// Bytes of a request line with its headers, and headers of one request.
const HEAD_BYTES: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// Slow viewers are looked for this often while they may be slow.
const LOOKS: u32 = 8;

/// One listening address.
pub struct ViewerListener {
    listener: std::net::TcpListener,
    viewers: Viewers,
    tls: Option<TlsAcceptor>,
}

impl ViewerListener {
    /// Binds. With `tls`, every connection must begin with a TLS handshake.
    pub fn bind(address: SocketAddr, viewers: Viewers, tls: Option<TlsAcceptor>) -> io::Result<Self> {
        Ok(ViewerListener { listener: socket::listen(address)?, viewers, tls })
    }

    /// The address that it has.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `cancel`. Runs where the control side does; the connections are spread over the media threads.
    pub async fn run(self, cancel: CancellationToken) -> io::Result<()> {
        let accepting =
            Accepting { protocol: "HTTP", cancel: cancel.clone(), pulse: None, farewell: LAST_ANSWERS };
        let mut turn = 0_usize;
        accepting
            .run(self.listener, |stream, peer, connections| {
                let permit = match self.viewers.limits().admit(peer.ip()) {
                    Ok(permit) => permit,
                    Err(refusal) => return debug!(%peer, %refusal, "viewer refused"),
                };
                let connection = Connection {
                    viewers: self.viewers.clone(),
                    peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
                    tls: self.tls.clone(),
                    cancel: cancel.clone(),
                };
                let shards = &self.viewers.context().shards;
                turn = turn.wrapping_add(1);
                let Some(shard) = shards.get(turn % shards.len().max(1)).cloned() else { return };
                let Ok(stream) = stream.into_std() else { return };
                connections.spawn(async move {
                    let ended = shard.run(move |_| connection.serve(stream, permit)).await;
                    if let Err(error) = ended {
                        debug!(%peer, %error, "viewer lost");
                    }
                });
            })
            .await
    }
}

struct Connection {
    viewers: Viewers,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    cancel: CancellationToken,
}

impl Connection {
    async fn serve(self, stream: std::net::TcpStream, permit: Permit) {
        let peer = self.peer;
        let config = self.viewers.config();
        let timeout = config.http.head_timeout.get();
        let prepared = TcpStream::from_std(stream).and_then(|stream| {
            stream.set_nodelay(true)?;
            socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(config.http.write_timeout.get()))?;
            Ok(stream)
        });
        let stream = match prepared {
            Ok(stream) => stream,
            Err(error) => return debug!(%peer, %error, "viewer lost while accepting"),
        };
        match self.tls.clone() {
            None => self.speak(stream).await,
            Some(tls) => match tokio::time::timeout(timeout, tls.accept(stream)).await {
                Ok(Ok(stream)) => self.speak(stream).await,
                Ok(Err(error)) => debug!(%peer, %error, "TLS handshake failed"),
                Err(_) => debug!(%peer, "TLS handshake took too long"),
            },
        }
        drop(permit);
    }

    async fn speak(self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
        let (viewers, peer, sending) = (self.viewers, self.peer, Sending::default());
        let settings = viewers.config();
        let (head_timeout, write_timeout) =
            (settings.http.head_timeout.get(), settings.http.write_timeout.get());
        let answered = sending.clone();
        let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let (viewers, sending) = (viewers.clone(), Rc::clone(&answered));
            async move {
                let (head, _) = request.into_parts();
                Ok::<_, Infallible>(viewers.answer(&head, peer.ip(), sending).await)
            }
        });
        let serving = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head_timeout)
            .max_buf_size(HEAD_BYTES)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(serving);
        let slow = async {
            let mut look = tokio::time::interval(write_timeout / LOOKS);
            loop {
                look.tick().await;
                if sending.get().is_some_and(|since| Instant::now() - since > write_timeout) {
                    return;
                }
            }
        };
        let ended = tokio::select! {
            ended = &mut serving => ended,
            () = slow => return debug!(%peer, "viewer took too long to take an answer"),
            () = self.cancel.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            debug!(%peer, %error, "viewer's connection ended");
        }
    }
}
