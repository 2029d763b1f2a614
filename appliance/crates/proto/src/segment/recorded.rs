//! What a viewer of recordings asks for: `/rec/NAME/master.m3u8` opens, `/rec/NAME/TOKEN/FILE` is asked by who has been
//! let in.

use super::target::{Token, decoded};

/// The longest request target that is looked at, in bytes.
const TARGET_MAX: usize = 2048;
/// The list that opens a recording.
pub const MASTER: &str = "master.m3u8";
/// The lists of the tracks.
pub const VIDEO: &str = "video.m3u8";
/// As [`VIDEO`].
pub const AUDIO: &str = "audio.m3u8";

/// What is asked for. Nothing of it is checked but its shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedTarget {
    /// The stream's name.
    pub stream: String,
    /// Of a viewer who has been let in.
    pub token: Option<Token>,
    /// The file's name.
    pub file: String,
    /// `key=` of the query.
    pub key: Option<String>,
    /// `from=` of the query: a time.
    pub from: Option<String>,
    /// `to=` of the query: a time.
    pub to: Option<String>,
    /// `first=` of the query: the number of a segment.
    pub first: Option<u64>,
    /// `last=` of the query: likewise.
    pub last: Option<u64>,
}

impl RecordedTarget {
    /// Reads path and query as they were sent; `None` for what is no such target.
    pub fn parse(target: &str) -> Option<RecordedTarget> {
        if target.len() > TARGET_MAX {
            return None;
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut steps = path.strip_prefix("/rec/")?.split('/');
        let (stream, second, third) = (steps.next()?, steps.next()?, steps.next());
        if stream.is_empty() || steps.next().is_some() {
            return None;
        }
        let (token, file) = match third {
            Some(file) => (Some(Token::parse(second)?), file),
            None => (None, second),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if file.is_empty() || !file.bytes().all(plain) {
            return None;
        }
        let mut found = RecordedTarget {
            stream: stream.to_owned(),
            token,
            file: file.to_owned(),
            ..RecordedTarget::default()
        };
        for (field, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match field {
                "key" => found.key = Some(decoded(value)),
                "from" => found.from = Some(decoded(value)),
                "to" => found.to = Some(decoded(value)),
                "first" => found.first = Some(value.parse().ok()?),
                "last" => found.last = Some(value.parse().ok()?),
                _ => {}
            }
        }
        Some(found)
    }
}

/// A fuzz target: any request target is read or refused.
pub fn fuzz(bytes: &[u8]) {
    if let Some(target) = RecordedTarget::parse(&String::from_utf8_lossy(bytes)) {
        debug_assert!(!target.stream.contains('/') && !target.stream.is_empty());
        debug_assert!(!target.file.contains('/') && !target.file.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "000102030405060708090a0b0c0d0e0f";

    #[test]
    fn what_was_given_out_is_read_and_all_else_refused() {
        let open =
            RecordedTarget::parse("/rec/yard/master.m3u8?key=a%2Bb&from=2026-11-21T18%3A00%3A00Z").unwrap();
        assert_eq!((open.stream.as_str(), open.token, open.file.as_str()), ("yard", None, MASTER));
        assert_eq!((open.key.as_deref(), open.from.as_deref()), (Some("a+b"), Some("2026-11-21T18:00:00Z")));
        let list = RecordedTarget::parse(&format!("/rec/yard/{TOKEN}/video.m3u8?first=7&last=9")).unwrap();
        assert_eq!((list.first, list.last, list.token.is_some()), (Some(7), Some(9), true));
        for wrong in [
            "/".to_owned(),
            "/rec/".to_owned(),
            "/rec//master.m3u8".to_owned(),
            "/rec/yard".to_owned(),
            "/rec/yard/".to_owned(),
            "/rec/yard/../x".to_owned(),
            "/hls/yard/master.m3u8".to_owned(),
            format!("/rec/yard/{TOKEN}/a/b"),
            format!("/rec/yard/{TOKEN}/%2e%2e"),
            format!("/rec/yard/{TOKEN}/video.m3u8?first=x"),
            format!("/rec/yard/{TOKEN}/video.m3u8?first=-1"),
            format!("/rec/yard/master.m3u8?{}", "x".repeat(TARGET_MAX)),
        ] {
            assert_eq!(RecordedTarget::parse(&wrong), None, "{wrong}");
        }
        let seeds = [
            "/rec/yard/master.m3u8?from=1&to=2".to_owned(),
            format!("/rec/yard/{TOKEN}/x.m4s?first=7&last=9"),
        ];
        let seeds: Vec<Vec<u8>> = seeds.into_iter().map(String::into_bytes).collect();
        crate::mutation::run(fuzz, &seeds, 3_000, 0x6A09_E667_F3BC_C908);
    }
}
