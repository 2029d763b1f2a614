//! Sends what an RTSP probe wants sent: small, bounded, no `SETUP`.

use crate::dial::{DialOptions, Stream, Target, dial};
use crate::tls::ClientTls;
use fieldgate_proto::rtsp_probe::{Action, Probe, Reader, Request, Response};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

/// For connection and TLS together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// For one request and its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection and what has come over it.
struct Connection {
    stream: Stream,
    reader: Reader,
    to: (u16, bool),
}

/// Runs a probe to its end, or to the deadline; then what it knows stands.
pub(super) async fn run(
    probe: &mut Probe,
    tls: &ClientTls,
    deadline: Instant,
    mut random: impl FnMut() -> [u8; 16],
) {
    let mut connection: Option<Connection> = None;
    while Instant::now() < deadline {
        let Action::Send(request) = probe.poll_action(random()) else { return };
        let until = deadline.min(Instant::now() + REQUEST_TIMEOUT);
        match ask(&mut connection, &request, tls, until).await {
            Some(response) => {
                if response.closes {
                    connection = None;
                }
                probe.handle_response(&response);
            }
            None => {
                connection = None;
                probe.handle_failure();
            }
        }
    }
}

async fn ask(
    connection: &mut Option<Connection>,
    request: &Request,
    tls: &ClientTls,
    until: Instant,
) -> Option<Response> {
    let to = (request.url.port, request.url.scheme.is_tls());
    if connection.as_ref().is_some_and(|connection| connection.to != to) {
        *connection = None;
    }
    let was_open = connection.is_some();
    if let Some(response) = exchange(connection, request, tls, until).await {
        return Some(response);
    }
    // Some close after each answer without saying so. A request without a login may be repeated; one with it may not:
    // who knows whether it was read.
    if was_open && !request.with_login {
        *connection = None;
        return exchange(connection, request, tls, until).await;
    }
    None
}

async fn exchange(
    connection: &mut Option<Connection>,
    request: &Request,
    tls: &ClientTls,
    until: Instant,
) -> Option<Response> {
    if connection.is_none() {
        let target = Target {
            host: request.url.host.to_string(),
            port: request.url.port,
            tls: request.url.scheme.is_tls().then(|| tls.clone()),
        };
        let timeout = DIAL_TIMEOUT.min(until.saturating_duration_since(Instant::now()));
        let stream = dial(&target, &DialOptions { timeout, ..DialOptions::default() }).await.ok()?;
        let to = (request.url.port, request.url.scheme.is_tls());
        *connection = Some(Connection { stream, reader: Reader::default(), to });
    }
    let Connection { stream, reader, .. } = connection.as_mut()?;
    let talk = async {
        stream.write_all(&request.bytes).await.ok()?;
        stream.flush().await.ok()?;
        let mut piece = [0; 4_096];
        loop {
            if let Some(response) = reader.take().ok()? {
                return Some(response);
            }
            let len = stream.read(&mut piece).await.ok().filter(|len| *len > 0)?;
            reader.push(piece.get(..len)?);
        }
    };
    timeout_at(until, talk).await.ok()?
}
