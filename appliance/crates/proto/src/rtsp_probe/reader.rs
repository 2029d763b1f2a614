//! RTSP responses out of a byte stream.

/// Longest status line and headers together, in bytes.
pub const MAX_HEAD_LEN: usize = 16 << 10;
/// Longest body, in bytes.
pub const MAX_BODY_LEN: usize = 64 << 10;
/// Most headers.
const MAX_HEADERS: usize = 64;
/// Most `WWW-Authenticate` headers that are kept.
const MAX_CHALLENGES: usize = 8;

/// One response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The status, 100 to 999.
    pub status: u16,
    /// Values of all `WWW-Authenticate` headers.
    pub challenges: Vec<String>,
    /// The body.
    pub body: Vec<u8>,
    /// The server closes the connection after it.
    pub closes: bool,
}

/// Why the bytes are no responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Not RTSP.
    #[error("the answer is not RTSP")]
    Malformed,
    /// The head is longer than [`MAX_HEAD_LEN`].
    #[error("the answer's head is longer than {MAX_HEAD_LEN} bytes")]
    HeadTooLong,
    /// The body is longer than [`MAX_BODY_LEN`].
    #[error("the answer's body is longer than {MAX_BODY_LEN} bytes")]
    BodyTooLong,
}

/// Bytes that have come and are not read yet; bounded, as long as [`Reader::take`] is called between pushes.
#[derive(Default)]
pub struct Reader {
    bytes: Vec<u8>,
}

impl Reader {
    /// More bytes, at most 64 KiB at a time.
    pub fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    /// The next response, once all of it has come.
    pub fn take(&mut self) -> Result<Option<Response>, ReadError> {
        let Some(head_len) = self.bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return if self.bytes.len() > MAX_HEAD_LEN { Err(ReadError::HeadTooLong) } else { Ok(None) };
        };
        let head_len = head_len.saturating_add(4);
        if head_len > MAX_HEAD_LEN {
            return Err(ReadError::HeadTooLong);
        }
        let head = self.bytes.get(..head_len).unwrap_or_default();
        let line_len = head.windows(2).position(|two| two == b"\r\n").unwrap_or(0);
        let (line, rest) = head.split_at_checked(line_len).ok_or(ReadError::Malformed)?;
        let status = status(line).ok_or(ReadError::Malformed)?;
        // RTSP's headers are HTTP's.
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let rest = rest.strip_prefix(b"\r\n").ok_or(ReadError::Malformed)?;
        let Ok(httparse::Status::Complete((_, headers))) = httparse::parse_headers(rest, &mut headers) else {
            return Err(ReadError::Malformed);
        };
        let values = |name: &'static str| {
            let named = headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
            named.map(|header| String::from_utf8_lossy(header.value).trim().to_owned())
        };
        let body_len = match values("content-length").next() {
            None => 0,
            Some(text) => text.parse::<usize>().map_err(|_| ReadError::Malformed)?,
        };
        if body_len > MAX_BODY_LEN {
            return Err(ReadError::BodyTooLong);
        }
        let all_len = head_len.saturating_add(body_len);
        let Some(body) = self.bytes.get(head_len..all_len) else { return Ok(None) };
        let response = Response {
            status,
            challenges: values("www-authenticate").take(MAX_CHALLENGES).collect(),
            body: body.to_vec(),
            closes: values("connection").any(|value| value.eq_ignore_ascii_case("close")),
        };
        self.bytes.drain(..all_len);
        Ok(Some(response))
    }
}

/// `RTSP/1.0 200 OK`; the words are often missing.
fn status(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line.get(..line.len().min(64))?).ok()?;
    let mut words = line.split(' ');
    words.next().filter(|version| version.starts_with("RTSP/"))?;
    words.next()?.parse().ok().filter(|status| (100..1_000).contains(status))
}
