//! WebSockets, on both sides: text messages with a bound, pings answered, nothing compressed.

use super::{HttpAnswer, HttpRequest};
use crate::dial::{DialError, DialOptions, Target, dial};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// From the answer until the connection is a WebSocket's.
const UPGRADE_WITHIN: Duration = Duration::from_secs(10);
/// A message that the peer does not take in this time has broken the socket.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// Saying goodbye.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// What bytes go over.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// What a WebSocket is used by. Must end by itself; when it ends the socket is closed.
pub type SocketTask = Box<dyn FnOnce(WebSocket) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What judges those who want a WebSocket; the answer is for those who may not have one. If the task is dropped instead
/// of called, the peer has left meanwhile.
pub type SocketHandler = Arc<
    dyn Fn(HttpRequest) -> Pin<Box<dyn Future<Output = Result<SocketTask, HttpAnswer>> + Send>> + Send + Sync,
>;

/// Who is asked for a WebSocket, and how.
#[derive(Clone)]
pub struct SocketCall {
    /// The server.
    pub server: Target,
    /// Path and query, beginning with `/`.
    pub target: String,
    /// Added to what every such request has. The values may be secrets.
    pub headers: Vec<(&'static str, String)>,
    /// For name, connection, TLS and the answer together.
    pub within: Duration,
    /// Longest message that is taken, in bytes.
    pub message_bytes: usize,
}

/// Why there is no WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum SocketCallError {
    /// There is no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The target or a header would break the request apart.
    #[error("the request for a WebSocket cannot be made of its target and headers")]
    Malformed,
    /// The server has answered, but not with a WebSocket.
    #[error("the server answers {status}{words}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it says, as far as that is short and plain.
        words: String,
    },
    /// It speaks something else.
    #[error("the server's answer is no WebSocket's: {0}")]
    Broken(#[source] Box<Error>),
    /// No answer.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// What of a refusal's words is shown, in bytes.
const WORDS_MAX: usize = 100;

impl SocketCall {
    /// Opens the WebSocket. Dropping the future ends the connection.
    pub async fn open(&self) -> Result<WebSocket, SocketCallError> {
        let deadline = Instant::now() + self.within;
        let options = DialOptions { timeout: self.within, ..DialOptions::default() };
        let request = self.request()?;
        let stream: Box<dyn Wire> = Box::new(dial(&self.server, &options).await?);
        let asking = client_async_with_config(request, stream, Some(limits(self.message_bytes)));
        match tokio::time::timeout_at(deadline, asking).await {
            Ok(Ok((socket, _))) => Ok(WebSocket(socket)),
            Ok(Err(Error::Http(answer))) => {
                let body = answer.body().as_deref().unwrap_or_default();
                let words: String = String::from_utf8_lossy(body.get(..WORDS_MAX).unwrap_or(body))
                    .chars()
                    .filter(|c| c.is_ascii_graphic() || *c == ' ')
                    .collect();
                let words = if words.is_empty() { words } else { format!(": {words}") };
                Err(SocketCallError::Refused { status: answer.status().as_u16(), words })
            }
            Ok(Err(error)) => Err(SocketCallError::Broken(Box::new(error))),
            Err(_) => Err(SocketCallError::Timeout(self.within)),
        }
    }

    fn request(&self) -> Result<Request<()>, SocketCallError> {
        let Target { host, port, tls } = &self.server;
        let (scheme, usual) = if tls.is_some() { ("wss", 443) } else { ("ws", 80) };
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let port = if *port == usual { String::new() } else { format!(":{port}") };
        let uri = format!("{scheme}://{host}{port}{}", self.target);
        let malformed = |_| SocketCallError::Malformed;
        let mut request = uri.into_client_request().map_err(malformed)?;
        for (name, value) in &self.headers {
            let value = HeaderValue::try_from(value).map_err(|_| SocketCallError::Malformed)?;
            request.headers_mut().insert(*name, value);
        }
        Ok(request)
    }
}

/// What has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketMessage {
    /// A text.
    Text(String),
    /// Bytes.
    Binary(Bytes),
    /// More bytes than a message may have; nothing more can be read.
    TooLong,
}

/// Why a socket is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum WebSocketError {
    /// The network failed, or the peer breaks the protocol.
    #[error("WebSocket: {0}")]
    Broken(#[source] Box<Error>),
    /// The peer reads nothing.
    #[error("the peer took no message for {WRITE_WITHIN:?}")]
    Stuck,
}

/// One WebSocket.
pub struct WebSocket(WebSocketStream<Box<dyn Wire>>);

impl WebSocket {
    async fn of(stream: Box<dyn Wire>, role: Role, message_bytes: usize) -> WebSocket {
        WebSocket(WebSocketStream::from_raw_socket(stream, role, Some(limits(message_bytes))).await)
    }

    /// The next message; `None`: the peer has closed. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<SocketMessage>, WebSocketError> {
        loop {
            return Ok(Some(match self.0.next().await {
                None | Some(Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::AlreadyClosed)) => {
                    return Ok(None);
                }
                Some(Ok(Message::Text(text))) => SocketMessage::Text(text.as_str().to_owned()),
                Some(Ok(Message::Binary(bytes))) => SocketMessage::Binary(bytes),
                // Pings are answered below.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Err(Error::Capacity(_))) => SocketMessage::TooLong,
                Some(Err(error)) => return Err(WebSocketError::Broken(Box::new(error))),
            }));
        }
    }

    /// Sends a text. After an error, or if the future is dropped, the socket is of no use any more.
    pub async fn send(&mut self, text: String) -> Result<(), WebSocketError> {
        let sending = self.0.send(Message::text(text));
        match tokio::time::timeout(WRITE_WITHIN, sending).await {
            Ok(sent) => sent.map_err(|error| WebSocketError::Broken(Box::new(error))),
            Err(_) => Err(WebSocketError::Stuck),
        }
    }

    /// Says goodbye, as far as the peer takes it.
    pub async fn close(mut self) {
        tokio::time::timeout(CLOSE_WITHIN, self.0.close(None)).await.ok();
    }
}

fn limits(message_bytes: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(message_bytes))
        .max_frame_size(Some(message_bytes))
        .read_buffer_size(8 << 10)
        .write_buffer_size(0)
        .max_write_buffer_size(message_bytes.saturating_mul(4))
}

/// Somebody wants a WebSocket.
pub(super) struct Asked {
    accept: String,
    upgrade: OnUpgrade,
}

/// Whether a request asks for a WebSocket; the answer is for one that asks in a way that cannot be fulfilled.
pub(super) fn asked(request: &mut Request<Incoming>) -> Option<Result<Asked, HttpAnswer>> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let names = |text: Option<&str>, wanted: &str| {
        text.is_some_and(|text| text.split(',').any(|part| part.trim().eq_ignore_ascii_case(wanted)))
    };
    if !names(header("upgrade"), "websocket") {
        return None;
    }
    if header("sec-websocket-version") != Some("13") {
        let headers = vec![("sec-websocket-version".to_owned(), "13".to_owned())];
        return Some(Err(HttpAnswer { headers, ..HttpAnswer::empty(426) }));
    }
    let key = header("sec-websocket-key").filter(|key| key.len() == 24);
    let (Some(key), true) = (key, names(header("connection"), "upgrade")) else {
        return Some(Err(HttpAnswer::empty(400)));
    };
    let accept = derive_accept_key(key.as_bytes());
    Some(Ok(Asked { accept, upgrade: hyper::upgrade::on(request) }))
}

/// What a connection becomes after the answer that says so.
#[derive(Clone, Default)]
pub(super) struct Opened(Arc<Mutex<Option<(OnUpgrade, SocketTask)>>>);

impl Opened {
    /// The answer after which the connection is a WebSocket's.
    pub(super) fn open(&self, asked: Asked, task: SocketTask) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(accept) = HeaderValue::try_from(asked.accept) {
            headers.insert("sec-websocket-accept", accept);
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((asked.upgrade, task));
        response
    }

    /// Uses the WebSocket, if the connection has become one.
    pub(super) async fn run(self) {
        let opened = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((upgrade, task)) = opened else { return };
        if let Ok(Ok(stream)) = tokio::time::timeout(UPGRADE_WITHIN, upgrade).await {
            let stream: Box<dyn Wire> = Box::new(TokioIo::new(stream));
            task(WebSocket::of(stream, Role::Server, MESSAGE_BYTES).await).await;
        }
    }
}

/// Longest message, in bytes.
const MESSAGE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests;
