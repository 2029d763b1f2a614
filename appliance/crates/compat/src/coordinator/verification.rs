//! What an application that verified a key wants done with the stream.

use std::fmt::Write;

/// Renditions that one stream may have.
const RESOLUTIONS_MAX: usize = 32;

/// What an encoder shall make of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// As encoders are told: `ORIGINAL` first, then the rest in order.
    pub resolutions: String,
    /// Whether it is kept for later.
    pub record: bool,
    /// `WxH,SECONDS`.
    pub previews: Option<String>,
}

impl Wanted {
    /// Of a stream whose key nobody verifies.
    pub fn unasked() -> Wanted {
        Wanted { resolutions: "ORIGINAL".to_owned(), record: false, previews: None }
    }

    /// From the headers of an answer; names in lower case.
    pub fn read(headers: &[(String, String)]) -> Wanted {
        let header =
            |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.trim());
        Wanted {
            resolutions: header("x-resolutions").map_or_else(|| "ORIGINAL".to_owned(), resolutions),
            record: header("x-record").is_some_and(|value| value.eq_ignore_ascii_case("true")),
            previews: header("x-previews").and_then(previews),
        }
    }
}

fn resolutions(text: &str) -> String {
    if text.is_empty() {
        return "ORIGINAL".to_owned();
    }
    let entries = || text.split(',').map(str::trim);
    let original = entries().any(|entry| entry == "ORIGINAL").then(|| "ORIGINAL".to_owned());
    let others = entries().filter_map(rendition).take(RESOLUTIONS_MAX);
    original.into_iter().chain(others).collect::<Vec<_>>().join(",")
}

/// `WxH[-FPS][~KBPS]`, written anew.
fn rendition(text: &str) -> Option<String> {
    let number = |text: &str| -> Option<u32> {
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| is_plain && *number > 0)
    };
    let (text, kbps) = match text.split_once('~') {
        Some((text, kbps)) => (text, Some(number(kbps)?)),
        None => (text, None),
    };
    let (text, fps) = match text.split_once('-') {
        Some((text, fps)) => (text, Some(number(fps)?)),
        None => (text, None),
    };
    let (width, height) = text.split_once('x')?;
    let mut written = format!("{}x{}", number(width)?, number(height)?);
    if let Some(fps) = fps {
        let _ = write!(written, "-{fps}");
    }
    if let Some(kbps) = kbps {
        let _ = write!(written, "~{kbps}");
    }
    Some(written)
}

fn previews(text: &str) -> Option<String> {
    let (size, seconds) = text.split_once(',')?;
    let size = rendition(size.trim()).filter(|size| !size.contains(['-', '~']))?;
    let seconds: u32 = seconds.trim().parse().ok().filter(|seconds| *seconds >= 1)?;
    Some(format!("{size},{seconds}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&str, &str)]) -> Wanted {
        let headers: Vec<_> = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Wanted::read(&headers)
    }

    #[test]
    fn check_04_headers_become_what_encoders_are_told() {
        let wanted = read(&[
            ("x-resolutions", "1280x720-30~2000, ORIGINAL"),
            ("x-record", "TRUE"),
            ("x-previews", "256x144, 3"),
        ]);
        assert_eq!(wanted.resolutions, "ORIGINAL,1280x720-30~2000");
        assert!(wanted.record);
        assert_eq!(wanted.previews.as_deref(), Some("256x144,3"));
    }

    #[test]
    fn check_04_what_is_wrong_is_left_out() {
        assert_eq!(read(&[]), Wanted::unasked());
        assert_eq!(
            read(&[("x-resolutions", " "), ("x-record", "1"), ("x-previews", "False")]),
            Wanted::unasked()
        );
        let of = |text: &str| read(&[("x-resolutions", text)]).resolutions;
        assert_eq!(of("a,0x1,1x1-,1x1~x,640x360,+1x2,1x2x3, 320x180~500 "), "640x360,320x180~500");
        assert_eq!(of("nothing"), "", "an encoder reads that as the original");
        assert_eq!(of(&"1x1,".repeat(1000)).split(',').count(), RESOLUTIONS_MAX);
        for bad in ["256x144", "256x144,0", "256x144-5,3", "x,3", "256x144,3,3"] {
            assert_eq!(read(&[("x-previews", bad)]).previews, None, "{bad}");
        }
    }
}
