//! Motion JPEG over HTTP: the parts of a `multipart/x-mixed-replace` body (RFC 2046), as cameras write it.
//!
//! Cameras differ: the boundary comes with or without its dashes, lines end in CR LF or LF, a part may lack its length
//! or lie about its type. What makes a picture is therefore the JPEG itself: a part with a length is taken by it, one
//! without ends at the next boundary.

use bytes::{Buf, Bytes, BytesMut};
use std::fmt;

/// Longest boundary, RFC 2046 says 70; cameras add dashes.
const BOUNDARY_MAX: usize = 128;
/// Bytes before a part's end of head.
const HEAD_MAX: usize = 4 << 10;
/// Bytes of lines between two parts that are skipped.
const SKIP_MAX: usize = 64 << 10;

/// Why a body cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MultipartError {
    /// The response is no stream of pictures.
    #[error(
        "Content-Type {got:?} is no multipart/x-mixed-replace with a boundary of 1 to {BOUNDARY_MAX} characters"
    )]
    ContentType {
        /// As the camera said, cut to 100 characters.
        got: String,
    },
    /// A part's head does not end.
    #[error("a part's head is longer than {HEAD_MAX} bytes")]
    Head,
    /// A part is too long.
    #[error("a part is longer than {max} bytes")]
    TooLong {
        /// The limit.
        max: usize,
    },
    /// No boundary for too long.
    #[error("no boundary within {SKIP_MAX} bytes: not the stream that its Content-Type promised")]
    NoBoundary,
}

/// Takes a body apart.
pub struct MultipartReader {
    /// `--boundary`.
    delimiter: Vec<u8>,
    part_max: usize,
    buf: BytesMut,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Before the next delimiter.
    Between {
        /// Bytes left out so far.
        skipped: usize,
    },
    /// In a part's head.
    Head,
    /// In a body of known length.
    Sized(usize),
    /// In a body that ends at the delimiter; so many bytes are known to hold none.
    Open(usize),
}

impl MultipartReader {
    /// For a response with this `Content-Type`; no part may be longer than `part_max` bytes.
    pub fn new(content_type: &str, part_max: usize) -> Result<MultipartReader, MultipartError> {
        let wrong = || MultipartError::ContentType { got: content_type.chars().take(100).collect() };
        let mut fields = content_type.split(';').map(str::trim);
        let kind = fields.next().unwrap_or_default();
        if !kind.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("multipart/")) {
            return Err(wrong());
        }
        let boundary = fields.find_map(|field| {
            let (name, value) = field.split_once('=')?;
            name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"'))
        });
        // Some cameras write the dashes of the delimiter into the header already.
        let boundary = boundary.map(|boundary| boundary.strip_prefix("--").unwrap_or(boundary));
        let boundary = boundary.filter(|text| (1..=BOUNDARY_MAX).contains(&text.len())).ok_or_else(wrong)?;
        let delimiter = [b"--", boundary.as_bytes()].concat();
        Ok(MultipartReader {
            delimiter,
            part_max,
            buf: BytesMut::new(),
            state: State::Between { skipped: 0 },
        })
    }

    /// Adds bytes of the body. To be followed by [`MultipartReader::next_part`] until it has no more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// The next part's body, once it is complete. An error ends the stream.
    pub fn next_part(&mut self) -> Result<Option<Bytes>, MultipartError> {
        loop {
            match self.state {
                State::Between { skipped } => {
                    let Some(at) = find(&self.buf, &self.delimiter, 0) else {
                        let rest = self.buf.len().saturating_sub(self.delimiter.len());
                        let skipped = skipped.saturating_add(rest);
                        self.buf.advance(rest);
                        self.state = State::Between { skipped };
                        return if skipped > SKIP_MAX { Err(MultipartError::NoBoundary) } else { Ok(None) };
                    };
                    self.buf.advance(at.saturating_add(self.delimiter.len()));
                    self.state = State::Head;
                }
                State::Head => {
                    let Some(end) = head_end(&self.buf) else {
                        return if self.buf.len() >= HEAD_MAX { Err(MultipartError::Head) } else { Ok(None) };
                    };
                    let head = self.buf.split_to(end);
                    self.state = match content_length(&head) {
                        Some(len) if len > self.part_max => return Err(self.too_long()),
                        Some(len) => State::Sized(len),
                        None => State::Open(0),
                    };
                }
                State::Sized(len) => {
                    if self.buf.len() < len {
                        return Ok(None);
                    }
                    let body = self.buf.split_to(len).freeze();
                    self.state = State::Between { skipped: 0 };
                    return Ok(Some(body));
                }
                State::Open(seen) => {
                    let Some(at) = find(&self.buf, &self.delimiter, seen) else {
                        self.state = State::Open(self.buf.len().saturating_sub(self.delimiter.len()));
                        return if self.buf.len() > self.part_max { Err(self.too_long()) } else { Ok(None) };
                    };
                    if at > self.part_max {
                        return Err(self.too_long());
                    }
                    let mut body = self.buf.split_to(at);
                    // The line break before a delimiter belongs to it.
                    for end in [b'\n', b'\r'] {
                        if body.last() == Some(&end) {
                            body.truncate(body.len().saturating_sub(1));
                        }
                    }
                    self.state = State::Between { skipped: 0 };
                    return Ok(Some(body.freeze()));
                }
            }
        }
    }

    fn too_long(&self) -> MultipartError {
        MultipartError::TooLong { max: self.part_max }
    }
}

impl fmt::Debug for MultipartReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MultipartReader").field("state", &self.state).field("held", &self.buf.len()).finish()
    }
}

fn find(bytes: &[u8], what: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(what.len()).position(|window| window == what).map(|at| at.saturating_add(from))
}

/// Where a head ends that begins behind its delimiter: after the first empty line.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let mut line_at = 0;
    for (at, byte) in bytes.iter().enumerate().take(HEAD_MAX) {
        if *byte != b'\n' {
            continue;
        }
        let line = bytes.get(line_at..at)?.trim_ascii();
        // What stands behind the delimiter in its own line is no header.
        if line.is_empty() && line_at > 0 {
            return Some(at.saturating_add(1));
        }
        line_at = at.saturating_add(1);
    }
    None
}

fn content_length(head: &[u8]) -> Option<usize> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })
}

/// For fuzzing: reads `data` as a body in pieces whose sizes its first bytes tell.
pub fn fuzz_multipart(data: &[u8]) {
    let Ok(mut reader) = MultipartReader::new("multipart/x-mixed-replace;boundary=b", 1 << 12) else {
        return;
    };
    let (sizes, mut rest) = data.split_at(data.len().min(8));
    for size in sizes.iter().cycle().take(4096) {
        let (piece, after) = rest.split_at(rest.len().min(usize::from(*size).saturating_add(1)));
        reader.push(piece);
        while let Ok(Some(part)) = reader.next_part() {
            assert!(part.len() <= 1 << 12);
        }
        if after.is_empty() || reader.next_part().is_err() {
            return;
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(content_type: &str, body: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, MultipartError> {
        let mut reader = MultipartReader::new(content_type, 1000)?;
        let mut parts = Vec::new();
        for piece in body.chunks(piece) {
            reader.push(piece);
            while let Some(part) = reader.next_part()? {
                parts.push(part.to_vec());
            }
        }
        Ok(parts)
    }

    const TYPE: &str = "multipart/x-mixed-replace; boundary=frame";

    #[test]
    fn pictures_come_out_whatever_the_camera_writes_around_them() {
        let bodies: [(&str, &str, &[u8]); 5] = [
            ("as the RFC has it", TYPE, b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 3\r\n\r\nabc\r\n--frame\r\nContent-Length: 5\r\n\r\nde\r\nf\r\n--frame\r\n"),
            ("without lengths", TYPE, b"--frame\r\nContent-Type: image/jpeg\r\n\r\nabc\r\n--frame\r\n\r\nde\r\nf\r\n--frame--\r\n"),
            ("dashes in the header", "multipart/x-mixed-replace;boundary=--frame", b"--frame\r\ncontent-length:3\r\n\r\nabc\r\n--frame\r\nContent-Length: 5\r\n\r\nde\r\nf"),
            ("quoted, line feeds alone", "Multipart/x-mixed-replace; x=y; Boundary=\"frame\"", b"\n\n--frame\nContent-Length: 3\n\nabc\n--frame\n\nde\r\nf\n--frame\n"),
            ("a preamble", TYPE, b"hello\r\n--frame\r\nContent-Length: 3\r\n\r\nabc--frame\r\nContent-Length: 5\r\n\r\nde\r\nf"),
        ];
        for (name, content_type, body) in bodies {
            for piece in [1, 2, 7, body.len()] {
                let got = parts(content_type, body, piece).unwrap();
                assert_eq!(got, [b"abc".to_vec(), b"de\r\nf".to_vec()], "{name} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn other_types_are_refused_by_name() {
        for wrong in
            ["", "image/jpeg", "multipart/x-mixed-replace", "multipart/x-mixed-replace; boundary=", "multi"]
        {
            let error = MultipartReader::new(wrong, 1).unwrap_err();
            assert!(error.to_string().contains(&format!("{wrong:?}")), "{error}");
        }
        assert!(MultipartReader::new(&format!("{TYPE}{}", "x".repeat(200)), 1).is_err());
    }

    #[test]
    fn what_never_ends_is_ended() {
        let endless = |head: &[u8]| {
            let mut body = head.to_vec();
            body.resize(head.len() + (1 << 17), b'x');
            parts(TYPE, &body, 4096).unwrap_err()
        };
        assert_eq!(endless(b""), MultipartError::NoBoundary);
        assert_eq!(endless(b"--frame\r\nA: "), MultipartError::Head);
        assert_eq!(endless(b"--frame\r\n\r\n"), MultipartError::TooLong { max: 1000 });
        assert_eq!(
            endless(b"--frame\r\nContent-Length: 1001\r\n\r\n"),
            MultipartError::TooLong { max: 1000 }
        );
    }

    #[test]
    fn hostile_bodies_are_survived() {
        let seed = b"\x03\x09--b\r\nContent-Length: 3\r\n\r\nabc\r\n--b\r\n\r\ndef\r\n--b--".to_vec();
        crate::mutation::run(fuzz_multipart, &[seed], 3_000, 7);
    }
}
