//! What a viewer's request line asks for.
//!
//! `/hls/NAME/FILE` or `/dash/NAME/FILE` opens; `/hls/NAME/TOKEN/FILE`, or
//! `/hls/NAME/TOKEN/RENDITION/FILE`, is asked by who has been let in. The token stands in the path, so that
//! names in playlists are the same for all viewers and no player has to know of it.

use super::names::{self, Name};

/// The longest request target that is looked at, in bytes.
const TARGET_MAX: usize = 2048;
/// Digits of a token: 128 bits.
const TOKEN_DIGITS: usize = 32;

/// A viewer's token. Its `Debug` shows nothing of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(u128);

impl Token {
    /// From random bytes.
    pub fn new(random: [u8; 16]) -> Self {
        Token(u128::from_be_bytes(random))
    }

    /// Reads it as it stands in a path.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let value = u128::from_str_radix(text, 16).ok()?;
        (plain && text.len() == TOKEN_DIGITS).then_some(Token(value))
    }

    /// As it stands in a path.
    pub fn as_text(&self) -> String {
        format!("{:032x}", self.0)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Why a request target is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Longer than any that was given out.
    #[error("the address is longer than {TARGET_MAX} bytes")]
    TooLong,
    /// There is nothing by this name.
    #[error("there is nothing here: streams are at /hls/NAME/master.m3u8 and manifest.mpd")]
    Unknown,
    /// A number of a playlist request.
    #[error("_HLS_msn and _HLS_part are whole numbers, and _HLS_part needs _HLS_msn")]
    Directive,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The stream's name; not checked.
    pub stream: String,
    /// Of a viewer who has been let in.
    pub token: Option<Token>,
    /// Another stream, that is listed with it; not checked.
    pub rendition: Option<String>,
    /// The file.
    pub name: Name,
    /// `key=` or `token=` of the query.
    pub key: Option<String>,
    /// `_HLS_msn`: the playlist must hold this segment.
    pub msn: Option<u64>,
    /// `_HLS_part`: or this part of it.
    pub part: Option<usize>,
    /// `_HLS_skip`: a delta update will do.
    pub skip: bool,
}

impl Target {
    /// Reads path and query as they were sent. Nothing in a path needs to be encoded, so nothing is decoded there.
    pub fn parse(target: &str) -> Result<Target, TargetError> {
        if target.len() > TARGET_MAX {
            return Err(TargetError::TooLong);
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let steps = path.strip_prefix("/hls/").or_else(|| path.strip_prefix("/dash/"));
        let mut steps = steps.ok_or(TargetError::Unknown)?.split('/');
        let (stream, second, third, fourth) = (steps.next(), steps.next(), steps.next(), steps.next());
        let (Some(stream), Some(second), None) = (stream, second, steps.next()) else {
            return Err(TargetError::Unknown);
        };
        let token = || Token::parse(second).ok_or(TargetError::Unknown);
        let (token, rendition, file) = match (third, fourth) {
            (Some(rendition), Some(file)) => (Some(token()?), Some(rendition.to_owned()), file),
            (Some(file), None) => (Some(token()?), None, file),
            (None, _) => (None, None, second),
        };
        let name = names::parse(file).filter(|_| !stream.is_empty()).ok_or(TargetError::Unknown)?;
        let mut target = Target {
            stream: stream.to_owned(),
            token,
            rendition,
            name,
            key: None,
            msn: None,
            part: None,
            skip: false,
        };
        for (field, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let number = || value.parse().map_err(|_| TargetError::Directive);
            match field {
                "key" | "token" => target.key = Some(decoded(value)),
                "_HLS_msn" => target.msn = Some(number()?),
                "_HLS_part" => target.part = Some(usize::try_from(number()?).unwrap_or(usize::MAX)),
                "_HLS_skip" => target.skip = matches!(value, "YES" | "v2"),
                _ => {}
            }
        }
        if target.part.is_some() && target.msn.is_none() {
            return Err(TargetError::Directive);
        }
        Ok(target)
    }
}

/// Percent-encoded bytes; what is no such code stays as it is.
pub(super) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let code = after.first_chunk::<2>().filter(|_| first == b'%').and_then(|code| {
            let digits = std::str::from_utf8(code).ok()?;
            u8::from_str_radix(digits, 16).ok().filter(|_| code.iter().all(u8::is_ascii_hexdigit))
        });
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => bytes.push(first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A fuzz target: any request target is read or refused.
pub fn fuzz(bytes: &[u8]) {
    if let Ok(target) = Target::parse(&String::from_utf8_lossy(bytes)) {
        debug_assert!(!target.stream.contains('/') && !target.stream.is_empty());
        debug_assert!(target.part.is_none() || target.msn.is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_media::TrackKind;

    const TOKEN: &str = "000102030405060708090a0b0c0d0e0f";

    #[test]
    fn what_was_given_out_is_read() {
        let open = Target::parse("/hls/yard/master.m3u8?key=a%2Bb%zz&x=y").unwrap();
        assert_eq!((open.stream.as_str(), open.token, open.name), ("yard", None, Name::Master));
        assert_eq!(open.key.as_deref(), Some("a+b%zz"));
        let other = Target::parse("/dash/yard/manifest.mpd?token=a%2Bb").unwrap();
        assert_eq!((other.stream.as_str(), other.key.as_deref()), ("yard", Some("a+b")));
        let path = format!("/hls/yard/{TOKEN}/video.m3u8?_HLS_msn=7&_HLS_part=2&_HLS_skip=YES");
        let media = Target::parse(&path).unwrap();
        assert_eq!((media.msn, media.part, media.skip), (Some(7), Some(2), true));
        assert_eq!(media.name, Name::Media(TrackKind::Video));
        let other = Target::parse(&format!("/hls/yard/{TOKEN}/low/v7.m4s")).unwrap();
        assert_eq!((other.stream.as_str(), other.rendition.as_deref()), ("yard", Some("low")));
        assert_eq!((other.token, media.rendition), (media.token, None));
        let token = media.token.unwrap();
        assert_eq!((token.as_text().as_str(), format!("{token:?}").as_str()), (TOKEN, "***"));
    }

    #[test]
    fn all_else_is_refused() {
        let path = |rest: &str| format!("/hls/yard/{TOKEN}/{rest}");
        for (target, error) in [
            ("/".to_owned(), TargetError::Unknown),
            ("/hls/../etc/passwd".to_owned(), TargetError::Unknown),
            (path("../../x"), TargetError::Unknown),
            (path("%2e%2e"), TargetError::Unknown),
            (path("low/lower/v7.m4s"), TargetError::Unknown),
            ("/hls/yard/low/x/v7.m4s".to_owned(), TargetError::Unknown),
            ("/hls//master.m3u8".to_owned(), TargetError::Unknown),
            (format!("/hls/yard/{}/v1.m4s", TOKEN.to_uppercase()), TargetError::Unknown),
            (path("video.m3u8?_HLS_msn=-1"), TargetError::Directive),
            (path("video.m3u8?_HLS_msn=99999999999999999999"), TargetError::Directive),
            (path("video.m3u8?_HLS_part=1"), TargetError::Directive),
            (format!("/hls/yard/master.m3u8?{}", "x".repeat(TARGET_MAX)), TargetError::TooLong),
        ] {
            assert_eq!(Target::parse(&target), Err(error), "{target}");
        }
    }

    #[test]
    fn mutated_targets_are_read_or_refused() {
        let seeds = [
            "/hls/yard/master.m3u8?key=a%2Bb".to_owned(),
            format!("/hls/yard/{TOKEN}/video.m3u8?_HLS_msn=7&_HLS_part=2&_HLS_skip=YES"),
            format!("/hls/yard/{TOKEN}/low/a7.3.m4s"),
        ];
        let seeds: Vec<Vec<u8>> = seeds.into_iter().map(String::into_bytes).collect();
        crate::mutation::run(fuzz, &seeds, 3_000, 0x2F31_7D0C_5A44_90E1);
    }
}
