//! One sender with its connections: what is between the pure core and the sockets.

use crate::dial::{DialError, DialOptions, Stream, Target, dial};
use crate::socket::Socket;
use crate::tls::ClientTls;
use fieldgate_hub::LocalShard;
use fieldgate_proto::kmp::sender::{Sender, UpstreamKey};
use fieldgate_proto::kmp::{Direction, KmpUrl, KmpUrlError, Limits, Packet, PacketReader, ReadError};
use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::time::Instant;

/// Slices per vectored write.
const SLICES: usize = 64;
/// Writes to one connection before the others have their turn.
const WRITES_PER_TURN: usize = 16;

/// How connections are made. Cheap to clone; clones number their connections together.
#[derive(Clone, Debug, Default)]
pub struct KmpDialer {
    /// Deadlines and buffers.
    pub options: DialOptions,
    /// Whom `kmps://` receivers must be; without it there are none.
    pub tls: Option<ClientTls>,
    /// The last number given to a connection.
    pub serial: Arc<AtomicU64>,
}

/// Why a connection to a receiver failed or ended.
#[derive(Debug, thiserror::Error)]
pub enum KmpLinkError {
    /// The address is none.
    #[error(transparent)]
    Url(#[from] KmpUrlError),
    /// `kmps://` without a certificate authority.
    #[error("kmps:// receivers cannot be checked here")]
    NoTls,
    /// There is no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The network failed.
    #[error("network: {0}")]
    Io(#[from] io::Error),
    /// It sent what is no ack.
    #[error("the receiver sent what is no ack: {0}")]
    Read(#[from] ReadError),
    /// It closed.
    #[error("the receiver closed the connection")]
    Closed,
    /// It was given up by us.
    #[error("the receiver took nothing, acknowledged nothing, or acknowledged what it was not sent")]
    GivenUp,
}

/// A connection's addresses and number, for the status.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkView {
    pub(super) local: Option<SocketAddr>,
    pub(super) remote: Option<SocketAddr>,
    pub(super) connection: u64,
}

type Dialling = Pin<Box<dyn Future<Output = Result<Stream, KmpLinkError>> + Send>>;

enum Link {
    Dialling(Dialling),
    Up(Up),
}

struct Up {
    socket: Socket,
    reader: PacketReader,
    view: LinkView,
}

/// See the module.
pub(super) struct Lane {
    pub(super) sender: Sender,
    links: BTreeMap<UpstreamKey, Link>,
    /// What went wrong since it was last asked.
    pub(super) error: Option<KmpLinkError>,
    /// Bytes written since they were last asked for.
    pub(super) written: u64,
    /// Connections that came up since they were last asked for.
    pub(super) came_up: u64,
}

impl Lane {
    pub(super) fn new(sender: Sender) -> Self {
        Lane { sender, links: BTreeMap::new(), error: None, written: 0, came_up: 0 }
    }

    /// Begins to connect.
    pub(super) fn connect(&mut self, key: UpstreamKey, dialer: &KmpDialer) {
        let target = self.sender.url(key).map_or(Err(KmpUrlError::Host), KmpUrl::parse);
        let dialer = dialer.clone();
        let dialling: Dialling = Box::pin(async move {
            let url = target?;
            let tls = match url.tls {
                true => Some(dialer.tls.ok_or(KmpLinkError::NoTls)?),
                false => None,
            };
            let target = Target { host: url.host, port: url.port, tls };
            Ok(dial(&target, &dialer.options).await?)
        });
        self.links.insert(key, Link::Dialling(dialling));
    }

    /// Closes a connection, or stops connecting.
    pub(super) fn close(&mut self, key: UpstreamKey) {
        if self.links.remove(&key).is_some() {
            self.error.get_or_insert(KmpLinkError::GivenUp);
        }
    }

    /// The connection of an upstream, if it is up.
    pub(super) fn view(&self, key: UpstreamKey) -> Option<LinkView> {
        match self.links.get(&key) {
            Some(Link::Up(up)) => Some(up.view),
            _ => None,
        }
    }

    /// Connects, reads and writes what is possible now. Ready when the sender may want something.
    pub(super) fn poll_io(
        &mut self,
        cx: &mut Context<'_>,
        local: &LocalShard,
        dialer: &KmpDialer,
    ) -> Poll<()> {
        let Lane { sender, links, error, written, came_up } = self;
        let mut progress = false;
        links.retain(|key, link| {
            let outcome = match link {
                Link::Dialling(dialling) => match dialling.as_mut().poll(cx) {
                    Poll::Pending => Ok(false),
                    Poll::Ready(Ok(stream)) => {
                        let connection = dialer.serial.fetch_add(1, Ordering::Relaxed) + 1;
                        *link = Link::Up(Up::new(stream, connection));
                        *came_up += 1;
                        sender.connected(*key, now());
                        Ok(true)
                    }
                    Poll::Ready(Err(error)) => Err(error),
                },
                Link::Up(up) => match up.poll(cx, local, *key, sender) {
                    Ok(bytes) => {
                        *written += bytes.unwrap_or(0);
                        Ok(bytes.is_some())
                    }
                    Err(error) => Err(error),
                },
            };
            match outcome {
                Ok(something) => {
                    progress |= something;
                    true
                }
                Err(why) => {
                    match &why {
                        KmpLinkError::Read(_) => sender.malformed(*key, now()),
                        _ => sender.disconnected(*key, now()),
                    }
                    *error = Some(why);
                    progress = true;
                    false
                }
            }
        });
        if progress { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Up {
    fn new(stream: Stream, connection: u64) -> Self {
        let view = LinkView { local: stream.local_addr().ok(), remote: stream.peer_addr().ok(), connection };
        let socket = match stream {
            Stream::Plain(tcp) => Socket::Plain(tcp),
            tls => Socket::wrapped(tls),
        };
        Up { socket, reader: PacketReader::new(Direction::ToSender, Limits::default()), view }
    }

    /// One read and some writes; the bytes written, `None` if nothing happened.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        local: &LocalShard,
        key: UpstreamKey,
        sender: &mut Sender,
    ) -> Result<Option<u64>, KmpLinkError> {
        let mut happened = None;
        {
            let mut scratch = local.scratch();
            if let Poll::Ready(len) = self.socket.poll_read(cx, &mut scratch) {
                let len = len?;
                if len == 0 {
                    return Err(KmpLinkError::Closed);
                }
                let mut input = scratch.get(..len).unwrap_or_default();
                while let Some(packet) = self.reader.read(&mut input)? {
                    if let Packet::Ack(ack) = packet {
                        sender.acked(key, &ack, now());
                    }
                }
                happened = Some(0);
            }
        }
        for _ in 0..WRITES_PER_TURN {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let used = sender.slices(key, &mut slices);
            if used == 0 {
                break;
            }
            match self.socket.poll_write(cx, slices.get(..used).unwrap_or_default()) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Ready(Ok(0)) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Poll::Ready(Ok(len)) => {
                    sender.written(key, len, now());
                    happened = Some(happened.unwrap_or(0) + len as u64);
                }
            }
        }
        match self.socket.poll_flush(cx) {
            Poll::Ready(Err(error)) => Err(error.into()),
            _ => Ok(happened),
        }
    }
}

/// The time, as the cores take it.
pub(super) fn now() -> std::time::Instant {
    Instant::now().into_std()
}
