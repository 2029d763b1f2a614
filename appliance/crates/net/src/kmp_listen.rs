//! Takes KMP in: accepts connections, hears which track each brings, and hands it to the source of its mountpoint.
//!
//! ```text
//!  accept -> address allowed? -> [TLS] -> cnct -> channel and track listed? -> the mountpoint's KmpSource, on its shard
//! ```
//! A refusal is a close: KMP has no words for more. Whoever is refused is counted, and logged with the reason.

mod channel;
mod directory;
mod merge;

pub use channel::{KmpSource, KmpSourceError};
pub use directory::{KmpDirectory, KmpPlace, KmpSourceTrack};

use crate::accept::{self, Accepting};
use crate::limits::{ConnectionLimits, Permit};
use crate::socket::{Detached, Socket};
use bytes::{Buf, BytesMut};
use fieldgate_hub::{Context, LocalShard};
use fieldgate_media::TrackKind;
use fieldgate_model::config::Network;
use fieldgate_proto::kmp::receiver::{Opening, ReceiveError, ReceiverSettings};
use fieldgate_proto::kmp::{Connect, Name};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// How long connections may take to end when the listener does.
const FAREWELL: Duration = Duration::from_secs(2);
/// Bytes between a TLS connection's own task and its protocol.
const TLS_PIPE_BYTES: usize = 64 << 10;

/// Which tracks of a channel are taken, and for which mountpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmpChannelSettings {
    /// The mountpoint that it feeds.
    pub mountpoint: String,
    /// The video track's id.
    pub video: Name,
    /// The audio track's id.
    pub audio: Name,
    /// Who of those that may send at all may send this; empty: all of them.
    pub allow: Vec<Network>,
}

/// How KMP is taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmpReceiverSettings {
    /// From accept until `cnct` is there.
    pub handshake_timeout: Duration,
    /// Without a byte for so long a connection is closed.
    pub read_timeout: Duration,
    /// How long one track's units wait for the other's.
    pub join_wait: Duration,
    /// How many times faster than made a backlog is taken in.
    pub catch_up: u32,
    /// The core's.
    pub receiver: ReceiverSettings,
    /// Who may send, besides loopback.
    pub allow: Vec<Network>,
    /// What is taken in, by channel id.
    pub channels: HashMap<Name, KmpChannelSettings>,
}

/// Why a connection is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KmpRefusal {
    /// Its address is not listed.
    #[error("{0} may not send; add it to kmp.allow")]
    Address(IpAddr),
    /// Its address is not listed for this channel.
    #[error("{peer} may not send channel {channel}; add it to the channel's allow")]
    ChannelAddress {
        /// Who.
        peer: IpAddr,
        /// Which.
        channel: Name,
    },
    /// No such channel.
    #[error("channel {0} is not in kmp.channels")]
    Channel(Name),
    /// No such track.
    #[error("channel {channel} has no track {track}")]
    Track {
        /// Which.
        channel: Name,
        /// As `cnct` said.
        track: Name,
    },
    /// Its mountpoint is not there.
    #[error("mountpoint {0} is not ready; the sender may try again")]
    NotReady(String),
}

impl KmpReceiverSettings {
    fn may_send(&self, peer: IpAddr) -> Result<(), KmpRefusal> {
        let listed = self.allow.iter().any(|network| network.contains(peer));
        if listed || peer.to_canonical().is_loopback() { Ok(()) } else { Err(KmpRefusal::Address(peer)) }
    }

    /// Where a track goes, if this peer may send it.
    fn place_of(&self, peer: IpAddr, channel: Name, track: Name) -> Result<(&str, TrackKind), KmpRefusal> {
        self.may_send(peer)?;
        let found = self.channels.get(&channel).ok_or(KmpRefusal::Channel(channel))?;
        if !found.allow.is_empty() && !found.allow.iter().any(|network| network.contains(peer)) {
            return Err(KmpRefusal::ChannelAddress { peer, channel });
        }
        let kind = match track {
            track if track == found.video => TrackKind::Video,
            track if track == found.audio => TrackKind::Audio,
            track => return Err(KmpRefusal::Track { channel, track }),
        };
        Ok((&found.mountpoint, kind))
    }
}

/// Totals of all KMP listeners.
#[derive(Debug, Default)]
pub struct KmpListenCounters {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections refused by a limit, their address, or as nobody wants their track.
    pub refused: AtomicU64,
    /// Connections ended because the peer broke the protocol or was silent.
    pub failed: AtomicU64,
}

/// Why a connection was ended by us, or by the network.
#[derive(Debug, thiserror::Error)]
pub enum KmpConnectionError {
    /// It broke the protocol, or brings what cannot be carried.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// The network failed.
    #[error("network: {0}")]
    Io(#[from] io::Error),
    /// It did not say which track it brings.
    #[error("no complete 'cnct' within {0:?}")]
    HandshakeTimeout(Duration),
    /// TLS failed.
    #[error("TLS handshake: {0}")]
    Tls(io::Error),
    /// Nothing came.
    #[error("the peer was silent for {0:?}")]
    Silent(Duration),
    /// It may not send this.
    #[error(transparent)]
    Refused(#[from] KmpRefusal),
    /// Another connection brings the track now.
    #[error("another connection brings this track now")]
    Replaced,
    /// The mountpoint was taken away, or an operator sent it away.
    #[error("the mountpoint was removed or its publisher sent away")]
    Kicked,
    /// The listener or the gateway stops.
    #[error("the listener is stopping")]
    Stopping,
}

/// A connection that has said which track it brings, on its way to that track's mountpoint.
pub(crate) struct Arrival {
    kind: TrackKind,
    connect: Connect,
    opening: Opening,
    /// Read behind `cnct`.
    unread: BytesMut,
    socket: Detached,
    peer: SocketAddr,
    permit: Permit,
    /// The listener's: it takes its connections with it.
    stop: CancellationToken,
}

/// One listening address.
pub struct KmpListener {
    listener: std::net::TcpListener,
    context: Context,
    directory: KmpDirectory,
    settings: watch::Receiver<Arc<KmpReceiverSettings>>,
    counters: Arc<KmpListenCounters>,
    limits: ConnectionLimits,
    tls: Option<TlsAcceptor>,
}

/// What one connection needs before it is handed over.
struct Door {
    directory: KmpDirectory,
    settings: Arc<KmpReceiverSettings>,
    counters: Arc<KmpListenCounters>,
    stop: CancellationToken,
    local: Rc<LocalShard>,
}

impl KmpListener {
    /// Binds. With `tls`, every connection must begin with a TLS handshake. New connections go by the newest settings.
    pub fn bind(
        address: SocketAddr,
        context: Context,
        directory: KmpDirectory,
        settings: watch::Receiver<Arc<KmpReceiverSettings>>,
        limits: ConnectionLimits,
        counters: Arc<KmpListenCounters>,
        tls: Option<TlsAcceptor>,
    ) -> io::Result<Self> {
        let listener = crate::socket::listen(address)?;
        Ok(KmpListener { listener, context, directory, settings, counters, limits, tls })
    }

    /// The address that it has.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts until the context is cancelled; its connections end with it. Runs on a shard.
    pub async fn run(self, local: Rc<LocalShard>) -> io::Result<()> {
        let name = format!("kmp-accept {}", self.listener.local_addr()?);
        let accepting = Accepting {
            protocol: "KMP",
            cancel: self.context.cancel.clone(),
            pulse: Some(self.context.pulses.watch(name, accept::MAX_SILENCE)),
            // TLS connections are carried by these tasks; they end when the sources have let go of them.
            farewell: FAREWELL,
        };
        accepting
            .run(self.listener, |stream, peer, connections| {
                let settings = self.settings.borrow().clone();
                let refuse = |error: &dyn std::fmt::Display| {
                    self.counters.refused.fetch_add(1, Ordering::Relaxed);
                    debug!(%peer, %error, "KMP connection refused");
                };
                if let Err(error) = settings.may_send(peer.ip()) {
                    return refuse(&error);
                }
                let permit = match self.limits.admit(peer.ip()) {
                    Ok(permit) => permit,
                    Err(error) => return refuse(&error),
                };
                self.counters.accepted.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = stream.set_nodelay(true) {
                    return debug!(%peer, %error, "KMP connection lost while accepting");
                }
                let door = Door {
                    directory: self.directory.clone(),
                    settings,
                    counters: self.counters.clone(),
                    stop: self.context.cancel.clone(),
                    local: local.clone(),
                };
                match &self.tls {
                    None => connections.spawn_local(door.take(Socket::Plain(stream), peer, permit)),
                    Some(tls) => connections.spawn_local(door.take_tls(tls.accept(stream), peer, permit)),
                };
            })
            .await
    }
}

impl Door {
    async fn take(self, socket: Socket, peer: SocketAddr, permit: Permit) {
        let limit = self.settings.handshake_timeout;
        let opened = tokio::select! {
            opened = tokio::time::timeout(limit, self.open(socket, peer, permit)) => {
                opened.unwrap_or(Err(KmpConnectionError::HandshakeTimeout(limit)))
            }
            () = self.stop.cancelled() => return,
        };
        match opened {
            Ok(()) => {}
            Err(error @ KmpConnectionError::Refused(_)) => {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                info!(%peer, %error, "KMP connection refused");
            }
            Err(error) => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                info!(%peer, %error, "KMP connection ended before it brought a track");
            }
        }
    }

    /// TLS is done by this task, the protocol on the mountpoint's shard; a pipe joins them, since a TLS stream cannot
    /// move.
    async fn take_tls(
        self,
        accept: tokio_rustls::Accept<tokio::net::TcpStream>,
        peer: SocketAddr,
        permit: Permit,
    ) {
        let limit = self.settings.handshake_timeout;
        let failed = |error: KmpConnectionError| {
            self.counters.failed.fetch_add(1, Ordering::Relaxed);
            debug!(%peer, %error, "KMP connection ended before it brought a track");
        };
        let mut tls = match tokio::time::timeout(limit, accept).await {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => return failed(KmpConnectionError::Tls(error)),
            Err(_) => return failed(KmpConnectionError::HandshakeTimeout(limit)),
        };
        let (mut outer, inner) = tokio::io::duplex(TLS_PIPE_BYTES);
        let pump = async {
            // How the pipe ends is told by whoever reads it.
            let _ = tokio::io::copy_bidirectional(&mut tls, &mut outer).await;
            drop(outer);
        };
        tokio::join!(pump, self.take(Socket::wrapped(inner), peer, permit));
    }

    /// Reads up to `cnct` and hands the connection on.
    async fn open(
        &self,
        mut socket: Socket,
        peer: SocketAddr,
        permit: Permit,
    ) -> Result<(), KmpConnectionError> {
        let mut opening = Opening::new(self.settings.receiver);
        let mut unread = BytesMut::new();
        let connect = loop {
            let read = poll_fn(|cx| {
                let mut scratch = self.local.scratch();
                let len = ready!(socket.poll_read(cx, &mut scratch))?;
                unread.extend_from_slice(scratch.get(..len).unwrap_or_default());
                Poll::Ready(io::Result::Ok(len))
            });
            if read.await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let mut input = &unread[..];
            let connect = opening.read(&mut input)?;
            let used = unread.len() - input.len();
            unread.advance(used);
            if let Some(connect) = connect {
                break connect;
            }
        };
        let (mountpoint, kind) = self.settings.place_of(peer.ip(), connect.channel_id, connect.track_id)?;
        let stop = self.stop.clone();
        let socket = socket.rehome()?;
        let arrival = Arrival { kind, connect, opening, unread, socket, peer, permit, stop };
        self.directory.deliver(mountpoint, arrival).map_err(KmpConnectionError::Refused)
    }
}
