//! Hands one whole request to the server behind the front, and takes its whole answer.
//!
//! The answer is taken in at once, so that a slow client holds memory (within a budget) and never a handler's thread.

use super::reply::head_to_wire;
use std::io;
use std::path::Path;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Longest head of an answer.
const MAX_HEAD_LEN: usize = 8 << 10;
/// Longest answer, in bytes.
const MAX_ANSWER_LEN: usize = 8 << 20;
/// Headers of the server behind that are its own matter.
const DROPPED: [&str; 4] = ["server", "connection", "content-length", "transfer-encoding"];

/// An answer, ready for the client. Holds its share of the memory budget.
pub(super) struct Answer<'a> {
    /// Head and body as they are sent.
    pub(super) wire: Vec<u8>,
    _share: SemaphorePermit<'a>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum RelayError {
    /// Nobody listens.
    #[error("the server behind the front cannot be reached: {0}")]
    Connect(#[source] io::Error),
    /// It hung up in the middle.
    #[error("the server behind the front hung up: {0}")]
    Io(#[from] io::Error),
    /// It answered what cannot be passed on.
    #[error("the server behind the front sent no usable answer")]
    Answer,
}

impl RelayError {
    /// Whether the server is surely gone: nobody takes connections on its socket any more.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, RelayError::Connect(error)
            if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound))
    }
}

/// Sends `head` and `body`, waits for the answer. `budget` is in KiB of memory for answers.
pub(super) async fn ask<'a>(
    path: &Path,
    head: &[u8],
    body: &[u8],
    without_body: bool,
    budget: &'a Semaphore,
) -> Result<Answer<'a>, RelayError> {
    let mut stream = UnixStream::connect(path).await.map_err(RelayError::Connect)?;
    stream.write_all(head).await?;
    stream.write_all(body).await?;
    let mut taken = Vec::with_capacity(1 << 10);
    let head_len = loop {
        if let Some(at) = taken.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if taken.len() > MAX_HEAD_LEN || stream.read_buf(&mut taken).await? == 0 {
            return Err(RelayError::Answer);
        }
    };
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Response::new(&mut headers);
    let (head, rest) = taken.split_at(head_len);
    if !parsed.parse(head).is_ok_and(|status| status.is_complete()) {
        return Err(RelayError::Answer);
    }
    let status = parsed.code.ok_or(RelayError::Answer)?;
    let mut passed = Vec::with_capacity(parsed.headers.len());
    let mut len = 0_usize;
    for header in parsed.headers.iter() {
        let value = std::str::from_utf8(header.value).map_err(|_| RelayError::Answer)?;
        if header.name.eq_ignore_ascii_case("content-length") {
            len = value.parse().map_err(|_| RelayError::Answer)?;
        } else if !DROPPED.iter().any(|dropped| header.name.eq_ignore_ascii_case(dropped)) {
            passed.push((header.name, value));
        }
    }
    if len > MAX_ANSWER_LEN {
        return Err(RelayError::Answer);
    }
    let body_len = if without_body || matches!(status, 204 | 304) { 0 } else { len };
    let kib = u32::try_from(body_len / 1024 + 8).map_err(|_| RelayError::Answer)?;
    let share = budget.acquire_many(kib).await.map_err(|_| RelayError::Answer)?;
    let mut wire = head_to_wire(status, &passed, len);
    let end = wire.len() + body_len;
    wire.reserve_exact(body_len);
    wire.extend(rest.iter().take(body_len));
    while wire.len() < end {
        let missing = end - wire.len();
        if (&mut stream).take(missing as u64).read_buf(&mut wire).await? == 0 {
            return Err(RelayError::Answer);
        }
    }
    Ok(Answer { wire, _share: share })
}
