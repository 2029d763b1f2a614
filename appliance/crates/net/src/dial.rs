//! Connecting to a server by name: DNS afresh each time, both address families, TLS, one deadline over all.
//!
//! Not for waiting and trying again: that is the supervisor's.

mod error;
mod race;
mod stream;
#[cfg(test)]
mod tests;

pub use error::{DialError, Failures, Stage};
pub use stream::Stream;

use crate::tls::ClientTls;
use socket2::{SockRef, TcpKeepalive};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

/// Unanswered keepalive probes after which the kernel closes a connection.
const KEEPALIVE_PROBES: u32 = 3;

/// The kernel counts keepalive times in whole seconds and refuses none.
const KEEPALIVE_MIN: Duration = Duration::from_secs(1);

/// The longest name that DNS can hold, with its final dot.
const MAX_HOST_LEN: usize = 254;

/// A server to connect to.
#[derive(Clone, Debug)]
pub struct Target {
    /// Name or address, an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// TLS, where wanted; the server's name is `host`.
    pub tls: Option<ClientTls>,
}

/// How a connection is made and kept.
#[derive(Clone, Debug)]
pub struct DialOptions {
    /// For name, connection and TLS handshake together.
    pub timeout: Duration,
    /// How long sent bytes may stay unacknowledged before the kernel closes the connection (`TCP_USER_TIMEOUT`).
    pub user_timeout: Duration,
    /// Idle time before the first keepalive probe; further ones follow in a third of it.
    pub keepalive: Duration,
    /// The kernel's send buffer in bytes (it reserves twice as much); `None` leaves its size to the kernel.
    pub send_buffer: Option<usize>,
}

impl Default for DialOptions {
    fn default() -> Self {
        DialOptions {
            timeout: Duration::from_secs(10),
            user_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(15),
            send_buffer: None,
        }
    }
}

/// Connects to `target`. Dropping the future drops every attempt.
///
/// A name is looked up afresh at each call (on tokio's blocking threads, where a lookup under way outlives the
/// deadline until the system's resolver gives up); a literal address needs no lookup.
pub async fn dial(target: &Target, options: &DialOptions) -> Result<Stream, DialError> {
    let deadline = Instant::now() + options.timeout;
    let Target { host, port, tls } = target;
    // Settings that can't work are found before a packet is sent.
    check(host, *port)?;
    let server_name = match tls {
        Some(tls) => Some((
            tls,
            tls.server_name(host)
                .ok_or_else(|| malformed(host, *port, "TLS needs a DNS name or an address"))?,
        )),
        None => None,
    };
    let tcp = connect_host(&System, host, *port, options, deadline).await?;
    let Some((tls, name)) = server_name else {
        return Ok(Stream::Plain(tcp));
    };
    match timeout_at(deadline, tls.connector().connect(name, tcp)).await {
        Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
        Ok(Err(error)) => Err(DialError::from_handshake(host, *port, error)),
        Err(_) => Err(timed_out(host, *port, Stage::Handshake, options, Vec::new())),
    }
}

/// The system calls that tests replace.
trait Net {
    /// A connection.
    type Socket;

    /// Every address of `host`, the preferred first.
    fn resolve(&self, host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;

    /// Connects to one address.
    fn connect(
        &self,
        address: SocketAddr,
        options: &DialOptions,
    ) -> impl Future<Output = io::Result<Self::Socket>> + Send;
}

struct System;

impl Net for System {
    type Socket = TcpStream;

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }

    async fn connect(&self, address: SocketAddr, options: &DialOptions) -> io::Result<TcpStream> {
        let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
        socket.set_nodelay(true)?;
        if let Some(bytes) = options.send_buffer {
            socket.set_send_buffer_size(u32::try_from(bytes).unwrap_or(u32::MAX))?;
        }
        let raw = SockRef::from(&socket);
        raw.set_tcp_user_timeout(Some(options.user_timeout))?;
        raw.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(options.keepalive.max(KEEPALIVE_MIN))
                .with_interval((options.keepalive / KEEPALIVE_PROBES).max(KEEPALIVE_MIN))
                .with_retries(KEEPALIVE_PROBES),
        )?;
        not_itself(socket.connect(address).await?)
    }
}

/// A retry towards a free local port can be given that very port as its source, and TCP then connects the socket to
/// itself: what looks like a server would keep the port from the real one.
fn not_itself(stream: TcpStream) -> io::Result<TcpStream> {
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

async fn connect_host<N: Net>(
    net: &N,
    host: &str,
    port: u16,
    options: &DialOptions,
    deadline: Instant,
) -> Result<N::Socket, DialError> {
    let resolved = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => match timeout_at(deadline, net.resolve(host, port)).await {
            Ok(Ok(resolved)) => resolved,
            Ok(Err(source)) => return Err(DialError::Resolve { host: host.to_owned(), source }),
            Err(_) => return Err(timed_out(host, port, Stage::Resolve, options, Vec::new())),
        },
    };
    if resolved.is_empty() {
        return Err(DialError::NoAddress { host: host.to_owned() });
    }
    let mut failures = Vec::new();
    let connect = |address| net.connect(address, options);
    let outcome = timeout_at(deadline, race::race(race::interleave(resolved), connect, &mut failures)).await;
    match outcome {
        Ok(Some(socket)) => Ok(socket),
        Ok(None) => Err(DialError::Unreachable { host: host.to_owned(), port, failures: Failures(failures) }),
        Err(_) => Err(timed_out(host, port, Stage::Connect, options, failures)),
    }
}

fn check(host: &str, port: u16) -> Result<(), DialError> {
    let problem = if host.is_empty() {
        "the host is empty"
    } else if host.len() > MAX_HOST_LEN {
        "the host is longer than 253 bytes"
    } else if host.chars().any(|c| c.is_whitespace() || c.is_control() || "/@?#[]".contains(c)) {
        "the host holds a character that no name or address has"
    } else if port == 0 {
        "the port must be 1 to 65535"
    } else {
        return Ok(());
    };
    Err(malformed(host, port, problem))
}

fn malformed(host: &str, port: u16, problem: &'static str) -> DialError {
    DialError::Malformed { host: host.to_owned(), port, problem }
}

fn timed_out(
    host: &str,
    port: u16,
    stage: Stage,
    options: &DialOptions,
    failures: Vec<(SocketAddr, io::Error)>,
) -> DialError {
    let failures = Failures(failures);
    DialError::TimedOut { host: host.to_owned(), port, stage, timeout: options.timeout, failures }
}
