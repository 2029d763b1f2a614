//! Reads one HTTP/1.x request head, strictly, and writes it anew.
//!
//! Pure. What two readers of HTTP could understand differently is refused here, and only what was understood is
//! written for the server behind the front: nothing that a stranger wrote reaches it byte by byte.

use std::fmt::Write as _;

/// Longest request line and headers together, in bytes.
pub const MAX_HEAD_LEN: usize = 16 << 10;
/// Longest request target, in bytes.
pub const MAX_TARGET_LEN: usize = 2 << 10;
/// Most header lines.
pub const MAX_HEADERS: usize = 64;

/// The headers that handlers see; all others are read, judged and dropped.
const PASSED_ON: [&str; 9] = [
    "accept",
    "authorization",
    "content-type",
    "cookie",
    "if-match",
    "if-none-match",
    "last-event-id",
    "range",
    "x-csrf-token",
];

/// What a request wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Read.
    Get,
    /// Read, without the body.
    Head,
    /// Replace.
    Put,
    /// Act.
    Post,
    /// Change in part.
    Patch,
    /// Remove.
    Delete,
    /// Ask what may be done.
    Options,
}

impl Method {
    /// As it stands in a request line.
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Put => "PUT",
            Method::Post => "POST",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
        }
    }

    /// From a request line; case matters, as in RFC 9110.
    pub fn from_name(name: &str) -> Option<Self> {
        use Method::{Delete, Get, Head, Options, Patch, Post, Put};
        [Get, Head, Put, Post, Patch, Delete, Options].into_iter().find(|method| method.name() == name)
    }

    /// Whether it only reads.
    pub fn is_safe(self) -> bool {
        matches!(self, Method::Get | Method::Head | Method::Options)
    }
}

/// A request head that has one meaning only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// What is wanted.
    pub method: Method,
    /// Path and query, printable ASCII, starts with `/`; or `*`.
    pub target: String,
    /// The `Host` header.
    pub host: String,
    /// The `Origin` header, which browsers send.
    pub origin: Option<String>,
    /// The `Sec-Fetch-Site` header, which browsers send.
    pub fetch_site: Option<String>,
    /// Bytes of the body.
    pub content_len: u64,
    /// The client waits for a go-ahead before it sends the body.
    pub expects_continue: bool,
    /// Headers for the handler: lower-case name, value of printable ASCII. No name twice.
    pub passed_on: Vec<(String, String)>,
}

/// Why a request is not even looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Line ends other than CR LF, control characters, or no HTTP at all.
    #[error("the request is not well-formed HTTP/1.1: {0}")]
    Malformed(&'static str),
    /// A line or the whole is too long.
    #[error("request line and headers may take {MAX_HEAD_LEN} bytes in {MAX_HEADERS} lines")]
    TooLong,
    /// The target is too long.
    #[error("the request target may take {MAX_TARGET_LEN} bytes")]
    TargetTooLong,
    /// A header that may stand once stands twice.
    #[error("the header {0} stands twice")]
    Twice(&'static str),
    /// No `Host`.
    #[error("the header Host is missing")]
    NoHost,
    /// A body without a length told ahead.
    #[error("bodies come with Content-Length; Transfer-Encoding is not taken")]
    LengthRequired,
    /// A verb that nothing here knows.
    #[error("no resource here knows this method")]
    UnknownMethod,
    /// `Expect` other than `100-continue`.
    #[error("the only expectation met here is 100-continue")]
    Expectation,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken here")]
    Version,
}

impl HeadError {
    /// The HTTP status that says so.
    pub fn status(&self) -> u16 {
        match self {
            HeadError::Malformed(_) | HeadError::Twice(_) | HeadError::NoHost => 400,
            HeadError::LengthRequired => 411,
            HeadError::TargetTooLong => 414,
            HeadError::Expectation => 417,
            HeadError::TooLong => 431,
            HeadError::UnknownMethod => 501,
            HeadError::Version => 505,
        }
    }
}

/// Where the head ends in `buf`, its empty line included; `None` when it has not ended yet.
///
/// A bare LF ends a head for some readers: it counts as an end here, so that [`RequestHead::parse`] can refuse it
/// at once rather than wait for more.
pub fn head_len(buf: &[u8]) -> Option<usize> {
    let mut line_len = 0_usize;
    for (at, &byte) in buf.iter().enumerate() {
        match byte {
            b'\n' if line_len == 0 && at > 1 => return Some(at + 1),
            b'\n' => line_len = 0,
            b'\r' => {}
            _ => line_len += 1,
        }
    }
    None
}

impl RequestHead {
    /// Reads a whole head, empty line included and nothing after it.
    pub fn parse(head: &[u8]) -> Result<Self, HeadError> {
        if head.len() > MAX_HEAD_LEN {
            return Err(HeadError::TooLong);
        }
        check_bytes(head)?;
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(head) {
            Ok(httparse::Status::Complete(len)) if len == head.len() => {}
            Ok(_) => return Err(HeadError::Malformed("it does not end where its empty line is")),
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLong),
            Err(httparse::Error::Version) => return Err(HeadError::Version),
            Err(_) => return Err(HeadError::Malformed("a line cannot be read")),
        }
        let method = parsed.method.and_then(Method::from_name).ok_or(HeadError::UnknownMethod)?;
        let target = parsed.path.unwrap_or_default();
        check_target(method, target)?;
        let mut read = RequestHead {
            method,
            target: target.to_owned(),
            host: String::new(),
            origin: None,
            fetch_site: None,
            content_len: 0,
            expects_continue: false,
            passed_on: Vec::new(),
        };
        read.take_headers(parsed.headers)?;
        Ok(read)
    }

    fn take_headers(&mut self, headers: &[httparse::Header<'_>]) -> Result<(), HeadError> {
        let (mut host, mut content_len, mut expect) = (None, None, None);
        for header in headers {
            let value = printable(header.value)?;
            let name = header.name.to_ascii_lowercase();
            match name.as_str() {
                "host" => once(&mut host, value.to_owned(), "Host")?,
                "origin" => once(&mut self.origin, value.to_owned(), "Origin")?,
                "sec-fetch-site" => once(&mut self.fetch_site, value.to_owned(), "Sec-Fetch-Site")?,
                "content-length" => once(&mut content_len, read_len(value)?, "Content-Length")?,
                "expect" => once(&mut expect, value.to_owned(), "Expect")?,
                "transfer-encoding" => return Err(HeadError::LengthRequired),
                passed if PASSED_ON.contains(&passed) => {
                    if self.passed_on.iter().any(|(known, _)| *known == name) {
                        return Err(HeadError::Twice("that is passed on"));
                    }
                    self.passed_on.push((name, value.to_owned()));
                }
                _ => {}
            }
        }
        self.host = host.filter(|host| !host.is_empty()).ok_or(HeadError::NoHost)?;
        self.content_len = content_len.unwrap_or(0);
        self.expects_continue = match expect {
            None => false,
            Some(expect) if expect.eq_ignore_ascii_case("100-continue") => self.content_len > 0,
            Some(_) => return Err(HeadError::Expectation),
        };
        Ok(())
    }

    /// The target up to its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Writes the head anew: only what was understood, one request per connection. `added` are headers that a
    /// client cannot set, as their names are not among those passed on.
    pub fn write(&self, added: &[(&str, &str)]) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method.name(), self.target);
        let mut line = |name: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{name}: {value}\r\n");
        };
        line("host", &self.host);
        line("connection", "close");
        line("content-length", &self.content_len.to_string());
        for (name, value) in &self.passed_on {
            line(name, value);
        }
        for (name, value) in added {
            line(name, value);
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// Every LF after a CR and every CR before an LF, no other control characters but the tab.
fn check_bytes(head: &[u8]) -> Result<(), HeadError> {
    let mut previous = 0_u8;
    for &byte in head {
        if (byte == b'\n') != (previous == b'\r') {
            return Err(HeadError::Malformed("lines end with CR LF"));
        }
        if byte == 0x7f || (byte < 0x20 && !matches!(byte, b'\r' | b'\n' | b'\t')) {
            return Err(HeadError::Malformed("it holds a control character"));
        }
        previous = byte;
    }
    if previous == b'\n' { Ok(()) } else { Err(HeadError::Malformed("lines end with CR LF")) }
}

fn check_target(method: Method, target: &str) -> Result<(), HeadError> {
    if target.len() > MAX_TARGET_LEN {
        return Err(HeadError::TargetTooLong);
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(HeadError::Malformed("the target must be printable ASCII, the rest percent-encoded"));
    }
    match target {
        "*" if method == Method::Options => Ok(()),
        path if path.starts_with('/') && !path.contains('#') => Ok(()),
        _ => Err(HeadError::Malformed("the target must be a path")),
    }
}

fn printable(value: &[u8]) -> Result<&str, HeadError> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.is_ascii());
    let text = text.ok_or(HeadError::Malformed("header values must be ASCII"))?;
    Ok(text.trim_matches([' ', '\t']))
}

fn read_len(value: &str) -> Result<u64, HeadError> {
    let digits_only = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let len = digits_only.then(|| value.parse().ok()).flatten();
    len.ok_or(HeadError::Malformed("Content-Length must be one whole number"))
}

fn once<T>(slot: &mut Option<T>, value: T, name: &'static str) -> Result<(), HeadError> {
    if slot.replace(value).is_some() { Err(HeadError::Twice(name)) } else { Ok(()) }
}

/// What must hold for any bytes: no panic, and what was read and written anew reads as the same request.
///
/// A plain function, for tests and fuzzing.
pub fn fuzz(bytes: &[u8]) {
    let Some(len) = head_len(bytes) else { return };
    let (head, _) = bytes.split_at(len);
    let Ok(read) = RequestHead::parse(head) else { return };
    let written = read.write(&[]);
    assert_eq!(head_len(&written), Some(written.len()), "a written head ends where it should");
    let again = RequestHead::parse(&written).expect("what was understood can be read again");
    let expected = RequestHead { origin: None, fetch_site: None, expects_continue: false, ..read };
    assert_eq!(again, expected);
}

#[cfg(test)]
mod tests;
