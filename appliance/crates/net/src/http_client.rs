//! Calls to controllers and masters: one POST of JSON, or one question for a document, one reply, one connection.
//!
//! The request's head is written by hand, not by an HTTP library: controllers were written against one sender whose
//! head is fixed to the byte (HTTP/1.0, these headers in this order, `Host` without its port), and a library would add,
//! reorder or capitalise. The reply's head is parsed by `httparse`; the body ends where the reply says, or, for those
//! who want it as the old sender had it, where the controller closes.
//!
//! Not for retries or for what a reply means: that is the caller's.

use crate::dial::{DialError, DialOptions, Stream, Target, dial};
use crate::tls::ClientTls;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

/// Headers that a reply may have.
const HEADERS_MAX: usize = 64;
/// Longest tag of a document that is remembered, in bytes.
const ETAG_MAX: usize = 256;
/// Most bytes of a chunk's size line, extensions included.
const CHUNK_LINE_MAX: usize = 256;

/// One call.
#[derive(Clone, Debug)]
pub struct HttpCall {
    /// `POST`, `GET`, `PUT` or `DELETE`.
    pub method: &'static str,
    /// Name or address, an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// TLS, for https.
    pub tls: Option<ClientTls>,
    /// Path and query, beginning with `/`.
    pub target: String,
    /// Added behind ours, in this order. Neither names nor values may hold line breaks. A `Content-Type` replaces ours.
    pub headers: Vec<(String, String)>,
    /// JSON, if no header says otherwise.
    pub body: Vec<u8>,
    /// For name, connection, TLS and sending together.
    pub send_timeout: Duration,
    /// For the reply, from when all is sent.
    pub read_timeout: Duration,
    /// Bytes that head and body of the reply may take together; one more fails.
    pub reply_max_bytes: usize,
    /// The reply is complete only when the peer closes, whatever its head says; chunks are not taken apart.
    pub until_close: bool,
}

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpReply {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`, if it has one.
    pub content_type: Option<String>,
    /// In the order of arrival; names in lower case, bytes that are no UTF-8 replaced.
    pub headers: Vec<(String, String)>,
    /// Without chunk framing.
    pub body: Vec<u8>,
}

/// A document that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpDocument {
    /// The reply; with status 304 it has no body.
    pub reply: HttpReply,
    /// `ETag`, if it has one that can be sent back.
    pub etag: Option<String>,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum HttpCallError {
    /// A header or the target would break the request apart.
    #[error("the request's {0} holds a character that no request may have")]
    Malformed(&'static str),
    /// There is no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The network failed.
    #[error("network: {0}")]
    Io(#[from] io::Error),
    /// Not sent in time.
    #[error("the request was not sent within {0:?}")]
    SendTimeout(Duration),
    /// Not answered in time.
    #[error("no complete reply within {0:?}")]
    ReadTimeout(Duration),
    /// Closed too early.
    #[error("the connection ended in the middle of the reply")]
    Truncated,
    /// Not HTTP.
    #[error("the reply is not HTTP: {0}")]
    NotHttp(#[from] httparse::Error),
    /// Its length or chunks make no sense.
    #[error("the reply's framing is wrong: {0}")]
    Framing(&'static str),
    /// Too long.
    #[error("the reply is longer than {0} bytes")]
    TooLong(usize),
}

impl HttpCall {
    /// The request's bytes.
    fn request(&self) -> Result<Vec<u8>, HttpCallError> {
        let breaks = |text: &str| text.bytes().any(|byte| byte < b' ' || byte == 0x7f);
        if !self.target.starts_with('/') || breaks(&self.target) || self.target.contains(' ') {
            return Err(HttpCallError::Malformed("target"));
        }
        if breaks(&self.host) {
            return Err(HttpCallError::Malformed("host"));
        }
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let has_type = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let ours = if has_type { "" } else { "Content-Type: application/json\r\n" };
        let mut head = format!(
            "{} {} HTTP/1.0\r\nHost: {host}\r\n{ours}Connection: Close\r\nContent-Length: {}\r\n",
            self.method,
            self.target,
            self.body.len()
        );
        for (name, value) in &self.headers {
            let is_bad_name = name.is_empty() || breaks(name) || name.contains([' ', ':']);
            if is_bad_name || value.contains(['\r', '\n', '\0']) {
                return Err(HttpCallError::Malformed("header"));
            }
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut request = head.into_bytes();
        request.extend_from_slice(&self.body);
        Ok(request)
    }

    /// Makes the call. Dropping the future ends the connection.
    pub async fn send(&self) -> Result<HttpReply, HttpCallError> {
        self.fetch().await.map(|document| document.reply)
    }

    /// The same for a document that may be remembered by its tag. Dropping the future ends the connection.
    pub async fn fetch(&self) -> Result<HttpDocument, HttpCallError> {
        let request = self.request()?;
        let deadline = Instant::now() + self.send_timeout;
        let target = Target { host: self.host.clone(), port: self.port, tls: self.tls.clone() };
        let options = DialOptions {
            timeout: self.send_timeout,
            user_timeout: self.send_timeout.max(self.read_timeout),
            ..DialOptions::default()
        };
        let mut stream = dial(&target, &options).await?;
        let sending = async {
            stream.write_all(&request).await?;
            stream.flush().await
        };
        timeout_at(deadline, sending).await.map_err(|_| HttpCallError::SendTimeout(self.send_timeout))??;
        let deadline = Instant::now() + self.read_timeout;
        timeout_at(deadline, self.read(&mut stream))
            .await
            .map_err(|_| HttpCallError::ReadTimeout(self.read_timeout))?
    }

    async fn read(&self, stream: &mut Stream) -> Result<HttpDocument, HttpCallError> {
        let mut bytes = Vec::new();
        loop {
            let closed = !self.read_more(stream, &mut bytes).await?;
            if let Some(reply) = self.take(&bytes, closed)? {
                return Ok(reply);
            }
            if closed {
                return Err(HttpCallError::Truncated);
            }
        }
    }

    /// One read; false at the peer's end.
    async fn read_more(&self, stream: &mut Stream, bytes: &mut Vec<u8>) -> Result<bool, HttpCallError> {
        let mut piece = [0; 2048];
        let read = match stream.read(&mut piece).await {
            // Over TLS many servers close without saying goodbye.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            other => other?,
        };
        bytes.extend_from_slice(piece.get(..read).unwrap_or_default());
        if bytes.len() > self.reply_max_bytes {
            return Err(HttpCallError::TooLong(self.reply_max_bytes));
        }
        Ok(read > 0)
    }

    /// The reply, if `bytes` hold all of it. `closed`: no more will come.
    fn take(&self, bytes: &[u8], closed: bool) -> Result<Option<HttpDocument>, HttpCallError> {
        if self.until_close && !closed {
            return Ok(None);
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head_len) = response.parse(bytes)? else { return Ok(None) };
        let rest = bytes.get(head_len..).unwrap_or_default();
        let header = |name: &str| {
            let mut found = response.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            found.next().map(|header| String::from_utf8_lossy(header.value).trim().to_owned())
        };
        let is_chunked =
            header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        let length = match header("content-length") {
            Some(text) => Some(text.parse::<usize>().map_err(|_| HttpCallError::Framing("Content-Length"))?),
            None => None,
        };
        let status = response.code.ok_or(HttpCallError::Framing("no status"))?;
        let body = if status == 304 {
            // It may tell the length that the document has.
            Some(Vec::new())
        } else if self.until_close {
            Some(rest.to_vec())
        } else if is_chunked {
            unchunk(rest)?
        } else if let Some(length) = length {
            if head_len.saturating_add(length) > self.reply_max_bytes {
                return Err(HttpCallError::TooLong(self.reply_max_bytes));
            }
            rest.get(..length).map(<[u8]>::to_vec)
        } else {
            closed.then(|| rest.to_vec())
        };
        let etag = header("etag")
            .filter(|tag| tag.len() <= ETAG_MAX && tag.bytes().all(|byte| byte.is_ascii_graphic()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let headers = response.headers.iter();
        let headers = headers.map(|header| (header.name.to_ascii_lowercase(), text(header.value)));
        let reply = |body| HttpReply {
            status,
            content_type: header("content-type"),
            headers: headers.collect(),
            body,
        };
        Ok(body.map(|body| HttpDocument { reply: reply(body), etag: etag.clone() }))
    }
}

/// The body behind chunk framing; `None` if it is not complete yet.
fn unchunk(mut rest: &[u8]) -> Result<Option<Vec<u8>>, HttpCallError> {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
            let is_endless = rest.len() > CHUNK_LINE_MAX;
            return if is_endless { Err(HttpCallError::Framing("chunk size")) } else { Ok(None) };
        };
        let line = rest.get(..end).unwrap_or_default();
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let digits = std::str::from_utf8(digits).ok().filter(|digits| (1..=8).contains(&digits.len()));
        let len = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let len = len.ok_or(HttpCallError::Framing("chunk size"))?;
        if len == 0 {
            return Ok(Some(body));
        }
        let after = rest.get(end + 2..).unwrap_or_default();
        let Some(chunk) = after.get(..len) else { return Ok(None) };
        body.extend_from_slice(chunk);
        rest = match after.get(len..).unwrap_or_default() {
            [b'\r', b'\n', rest @ ..] => rest,
            [] | [b'\r'] => return Ok(None),
            _ => return Err(HttpCallError::Framing("chunk end")),
        };
    }
}

#[cfg(test)]
mod tests;
