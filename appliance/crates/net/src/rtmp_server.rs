//! The RTMP listener: accepts, handshakes, asks who may do what, and serves publishers and players.
//!
//! ```text
//!  accept -> [TLS] -> handshake -> negotiate --publish--> feed a mountpoint --+
//!                                     ^  \---play------> follow a mountpoint -+
//!                                     +-------- deleteStream, closeStream ----+
//! ```
//! A connection moves to the mountpoint's shard before it feeds or follows it.

mod connection;
mod play;
mod publish;
mod registry;

use crate::accept::{self, Accepting};
use crate::limits::{ConnectionLimits, Permit};
use crate::socket::Socket;
use connection::Connection;
use fieldgate_hub::{Context, LocalShard};
use fieldgate_proto::rtmp::{HandshakeError, Limits, SessionError};
pub use registry::{RtmpConnectionView, RtmpConnections, RtmpStreamView, RtmpTotals};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info};

/// How long connections may take to end when the listener does.
const FAREWELL: Duration = Duration::from_secs(2);
/// Bytes between a TLS connection's own task and its protocol.
const TLS_PIPE_BYTES: usize = 64 << 10;

/// How RTMP peers are served.
#[derive(Clone, Debug)]
pub struct RtmpServerSettings {
    /// From accept until `connect` is answered.
    pub handshake_timeout: Duration,
    /// Without a byte from a peer that neither feeds nor follows, or without media from one that feeds.
    pub idle_timeout: Duration,
    /// A player that takes nothing for so long is closed.
    pub write_timeout: Duration,
    /// The kernel's send buffer per player; more than this a slow player cannot hold. `None`: the system's choice.
    pub send_buffer_bytes: Option<usize>,
    /// What one peer may make us hold.
    pub limits: Limits,
}

impl Default for RtmpServerSettings {
    fn default() -> Self {
        RtmpServerSettings {
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(10),
            send_buffer_bytes: Some(1 << 20),
            limits: Limits::default(),
        }
    }
}

/// Totals of all RTMP listeners.
#[derive(Debug, Default)]
pub struct RtmpServerCounters {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections refused by a limit.
    pub refused: AtomicU64,
    /// Connections ended because the peer broke the protocol or was too slow.
    pub failed: AtomicU64,
    /// Bytes sent to players.
    pub sent_bytes: AtomicU64,
    /// Units that slow players missed.
    pub dropped_units: AtomicU64,
    /// The connections that are open.
    pub connections: RtmpConnections,
}

/// Why a connection was ended by us, or by the network.
#[derive(Debug, thiserror::Error)]
pub enum RtmpConnectionError {
    /// The peer's handshake is wrong.
    #[error("handshake: {0}")]
    Handshake(#[from] HandshakeError),
    /// It took too long to say what it wants.
    #[error("no complete handshake and connect within {0:?}")]
    HandshakeTimeout(Duration),
    /// It broke the protocol.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The network failed.
    #[error("network: {0}")]
    Io(#[from] io::Error),
    /// Nothing came.
    #[error("the peer was silent for {0:?}")]
    Idle(Duration),
    /// It publishes, but no media came.
    #[error("the publisher sent no media for {0:?}")]
    Stalled(Duration),
    /// It publishes what is no media, on terms that do not bear that.
    #[error("the publisher sent media that does not parse")]
    BadMedia,
    /// It takes nothing.
    #[error("the peer took nothing for {0:?}")]
    TooSlow(Duration),
    /// It reads no answers.
    #[error("the peer asks without reading the answers")]
    AnswersUnread,
    /// It goes from mountpoint to mountpoint.
    #[error("more than {0} changes of mountpoint on one connection")]
    Restless(u8),
    /// The mountpoint was taken away from it.
    #[error("mountpoint {0} was removed, changed or taken over")]
    Removed(String),
    /// Keys or address lists were changed and do not fit it any more.
    #[error("it may no longer use {0}: its key or address list was changed")]
    Revoked(String),
    /// Somebody wanted this very connection gone.
    #[error("the connection was ended on request")]
    Dropped,
    /// The gateway stops.
    #[error("the gateway is stopping")]
    Stopping,
    /// Its media thread is gone.
    #[error(transparent)]
    Shard(#[from] fieldgate_hub::ShardError),
}

/// What all connections of a listener share.
pub(crate) struct Server {
    pub(crate) context: Context,
    /// As they were when the connection was accepted.
    pub(crate) settings: Arc<RtmpServerSettings>,
    pub(crate) counters: Arc<RtmpServerCounters>,
}

/// One listening address.
pub struct RtmpListener {
    listener: std::net::TcpListener,
    context: Context,
    settings: watch::Receiver<Arc<RtmpServerSettings>>,
    counters: Arc<RtmpServerCounters>,
    limits: ConnectionLimits,
    tls: Option<TlsAcceptor>,
}

impl RtmpListener {
    /// Binds. With `tls`, every connection must begin with a TLS handshake. New connections go by the newest settings.
    pub fn bind(
        address: SocketAddr,
        context: Context,
        settings: watch::Receiver<Arc<RtmpServerSettings>>,
        limits: ConnectionLimits,
        counters: Arc<RtmpServerCounters>,
        tls: Option<TlsAcceptor>,
    ) -> io::Result<Self> {
        let listener = crate::socket::listen(address)?;
        Ok(RtmpListener { listener, context, settings, counters, limits, tls })
    }

    /// The address that it has.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts until the context is cancelled. Runs on a shard; connections that neither feed nor follow stay there.
    pub async fn run(self, local: Rc<LocalShard>) -> io::Result<()> {
        let name = format!("rtmp-accept {}", self.listener.local_addr()?);
        let accepting = Accepting {
            protocol: "RTMP",
            cancel: self.context.cancel.clone(),
            pulse: Some(self.context.pulses.watch(name, accept::MAX_SILENCE)),
            // Connections have a moment to say to their peers that it ends.
            farewell: FAREWELL,
        };
        accepting
            .run(self.listener, |stream, peer, connections| {
                let Ok(permit) = self.limits.admit(peer.ip()) else {
                    self.counters.refused.fetch_add(1, Ordering::Relaxed);
                    debug!(%peer, "RTMP connection refused: too many connections in all or from this address");
                    return;
                };
                self.counters.accepted.fetch_add(1, Ordering::Relaxed);
                let server = Arc::new(Server {
                    context: self.context.clone(),
                    settings: self.settings.borrow().clone(),
                    counters: self.counters.clone(),
                });
                if let Err(error) = prepare(&stream, &server.settings) {
                    return debug!(%peer, %error, "RTMP connection lost while accepting");
                }
                let local = local.clone();
                match &self.tls {
                    None => connections.spawn_local(serve(Socket::Plain(stream), peer, permit, server, local)),
                    Some(tls) => {
                        connections.spawn_local(serve_tls(tls.accept(stream), peer, permit, server, local))
                    }
                };
            })
            .await
    }
}

fn prepare(stream: &tokio::net::TcpStream, settings: &RtmpServerSettings) -> io::Result<()> {
    // With Nagle, media waits up to 38 ms for the acknowledgement of what went before.
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(20))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    if let Some(bytes) = settings.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    Ok(())
}

async fn serve(socket: Socket, peer: SocketAddr, permit: Permit, server: Arc<Server>, local: Rc<LocalShard>) {
    let outcome = Connection::serve(socket, peer, server.clone(), local).await;
    drop(permit);
    match outcome {
        Ok(()) => debug!(%peer, "RTMP connection closed by the peer"),
        Err(RtmpConnectionError::Stopping) => {
            debug!(%peer, "RTMP connection closed: the gateway is stopping")
        }
        Err(error) => {
            server.counters.failed.fetch_add(1, Ordering::Relaxed);
            info!(%peer, %error, "RTMP connection ended");
        }
    }
}

/// TLS is done by this task, the protocol on the mountpoint's shard; a pipe joins them, since a TLS stream cannot move.
async fn serve_tls(
    accept: tokio_rustls::Accept<tokio::net::TcpStream>,
    peer: SocketAddr,
    permit: Permit,
    server: Arc<Server>,
    local: Rc<LocalShard>,
) {
    let mut tls = match tokio::time::timeout(server.settings.handshake_timeout, accept).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            server.counters.failed.fetch_add(1, Ordering::Relaxed);
            return debug!(%peer, %error, "TLS handshake failed");
        }
        Err(_) => {
            server.counters.failed.fetch_add(1, Ordering::Relaxed);
            return debug!(%peer, "TLS handshake took too long");
        }
    };
    let (mut outer, inner) = tokio::io::duplex(TLS_PIPE_BYTES);
    let pump = async {
        // How the pipe ends is told by the connection that reads it.
        let _ = tokio::io::copy_bidirectional(&mut tls, &mut outer).await;
        drop(outer);
    };
    tokio::join!(pump, serve(Socket::wrapped(inner), peer, permit, server, local));
}
