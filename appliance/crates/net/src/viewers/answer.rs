//! Answers: what every one of them carries, ranges, tags, compression, plain words for what can't be had.

use super::body::{File, FileBody, Owner, Sending};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode};
use std::io::Write;

/// Shorter texts are not worth compressing.
const GZIP_FROM: usize = 600;

/// What a request says besides its target.
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    pub(super) sending: Sending,
}

impl Asked<'_> {
    pub(super) fn text(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn has_tag(&self, tag: &str) -> bool {
        let known = self.text(header::IF_NONE_MATCH).unwrap_or_default();
        known.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == tag)
    }

    /// Whether it takes gzip, which it must name.
    pub(super) fn takes_gzip(&self) -> bool {
        let accepted = self.text(header::ACCEPT_ENCODING).unwrap_or_default();
        accepted.split(',').any(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
            name.trim().eq_ignore_ascii_case("gzip")
                && !matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
        })
    }
}

/// What is sent and how it may be kept.
pub(super) struct Content {
    pub(super) file: File,
    pub(super) media_type: &'static str,
    /// Changes with the content; with its quotes.
    pub(super) tag: String,
    /// The content of this address never changes.
    pub(super) is_fixed: bool,
    pub(super) is_gzip: bool,
}

/// A text once more, compressed.
pub(super) fn gzip(text: &[u8]) -> Option<Bytes> {
    if text.len() < GZIP_FROM {
        return None;
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 4), Compression::fast());
    encoder.write_all(text).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

/// The content, or the range of it that was asked for.
pub(super) fn content(asked: &Asked<'_>, content: Content, owner: Option<Owner>) -> Response<FileBody> {
    let len = content.file.len();
    let is_current = asked.has_tag(&content.tag);
    let unchanged_since = asked.text(header::IF_RANGE).is_none_or(|tag| tag == content.tag);
    let range = asked.text(header::RANGE).filter(|_| content.is_fixed && unchanged_since);
    let (status, from, part) = match range.map_or(Range::Whole, |range| Range::parse(range, len)) {
        _ if is_current => (StatusCode::NOT_MODIFIED, 0, 0),
        Range::Whole => (StatusCode::OK, 0, len),
        Range::Part { from, len } => (StatusCode::PARTIAL_CONTENT, from, len),
        Range::None => (StatusCode::RANGE_NOT_SATISFIABLE, 0, 0),
    };
    let body = match asked.method {
        &Method::HEAD => empty(asked.sending.clone()),
        _ => FileBody::new(content.file, from, part, owner, asked.sending.clone()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    set(headers, header::CONTENT_TYPE, content.media_type);
    set(headers, header::ETAG, &content.tag);
    set(headers, header::VARY, "Accept-Encoding");
    let cache = if content.is_fixed { "private, max-age=3600, immutable" } else { "no-cache" };
    set(headers, header::CACHE_CONTROL, cache);
    if content.is_fixed {
        set(headers, header::ACCEPT_RANGES, "bytes");
    }
    if content.is_gzip {
        set(headers, header::CONTENT_ENCODING, "gzip");
    }
    match status {
        StatusCode::PARTIAL_CONTENT => {
            let range = format!("bytes {from}-{}/{len}", from + part - 1);
            set(headers, header::CONTENT_RANGE, &range);
        }
        StatusCode::RANGE_NOT_SATISFIABLE => set(headers, header::CONTENT_RANGE, &format!("bytes */{len}")),
        _ => {}
    }
    if status != StatusCode::NOT_MODIFIED {
        set(headers, header::CONTENT_LENGTH, &part.to_string());
    }
    for_all(headers);
    response
}

/// Plain words, one line.
pub(super) fn words(asked: &Asked<'_>, status: StatusCode, text: &str) -> Response<FileBody> {
    let text = Bytes::from(format!("{text}\n"));
    let len = text.len() as u64;
    let body = match asked.method {
        &Method::HEAD => empty(asked.sending.clone()),
        _ => FileBody::new(File::Whole(text), 0, len, None, asked.sending.clone()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    set(headers, header::CONTENT_TYPE, "text/plain; charset=utf-8");
    set(headers, header::CONTENT_LENGTH, &len.to_string());
    set(headers, header::CACHE_CONTROL, "no-store");
    match status {
        StatusCode::SERVICE_UNAVAILABLE => set(headers, header::RETRY_AFTER, "2"),
        StatusCode::METHOD_NOT_ALLOWED => set(headers, header::ALLOW, "GET, HEAD, OPTIONS"),
        _ => {}
    }
    for_all(headers);
    response
}

/// What a browser asks before it asks.
pub(super) fn preflight(sending: Sending) -> Response<FileBody> {
    let mut response = Response::new(empty(sending));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    set(headers, header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, OPTIONS");
    set(headers, header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Range");
    set(headers, header::ACCESS_CONTROL_MAX_AGE, "86400");
    for_all(headers);
    response
}

fn empty(sending: Sending) -> FileBody {
    FileBody::new(File::Whole(Bytes::new()), 0, 0, None, sending)
}

/// Pages from anywhere may play: what lets in is the token, never a cookie or the page's origin.
fn for_all(headers: &mut HeaderMap) {
    set(headers, header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    set(headers, header::ACCESS_CONTROL_EXPOSE_HEADERS, "Content-Length, Content-Range, ETag");
    set(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(headers, header::REFERRER_POLICY, "no-referrer");
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // All values are made here, of printable characters.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// What a `Range` header comes to. Source: RFC 9110, 14.
#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// None that is known, or several: all of it is sent, which is always allowed.
    Whole,
    Part {
        from: u64,
        /// At least 1.
        len: u64,
    },
    /// It lies outside.
    None,
}

impl Range {
    fn parse(text: &str, len: u64) -> Range {
        let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
            return Range::Whole;
        };
        // Numbers beyond what 64 bits hold mean "to the end", and lie outside as a start.
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
        };
        let (from, to) = match (first, number(first), last, number(last)) {
            ("", _, _, Some(suffix)) => match suffix {
                0 => return Range::None,
                suffix => (len.saturating_sub(suffix), len),
            },
            (_, Some(from), "", _) => (from, len),
            (_, Some(from), _, Some(last)) if last >= from => (from, last.saturating_add(1).min(len)),
            _ => return Range::Whole,
        };
        match to.checked_sub(from) {
            Some(part @ 1..) => Range::Part { from, len: part },
            _ => Range::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_says() {
        let part = |from, len| Range::Part { from, len };
        for (text, range) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=2-5", part(2, 4)),
            ("bytes=5-", part(5, 5)),
            ("bytes=-3", part(7, 3)),
            ("bytes=-99", part(0, 10)),
            ("bytes=0-18446744073709551615", part(0, 10)),
            ("bytes=0-99999999999999999999999", part(0, 10)),
            ("bytes=10-", Range::None),
            ("bytes=99999999999999999999999-", Range::None),
            ("bytes=-0", Range::None),
            ("bytes=5-2", Range::Whole),
            ("bytes=0-1,3-4", Range::Whole),
            ("bytes=a-", Range::Whole),
            ("lines=0-1", Range::Whole),
        ] {
            assert_eq!(Range::parse(text, 10), range, "{text}");
        }
        assert_eq!(Range::parse("bytes=0-", 0), Range::None);
    }

    #[test]
    fn a_compressed_text_is_the_text() {
        use std::io::Read;
        let text = "#EXTINF:2.000000,\n".repeat(100);
        let packed = gzip(text.as_bytes()).unwrap();
        assert!(packed.len() < text.len() / 5);
        let mut back = String::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut back).unwrap();
        assert_eq!(back, text);
        assert!(gzip(b"short").is_none());
    }
}
