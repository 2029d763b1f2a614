//! What a session description promises: the streams and their codecs.
//!
//! Reads three kinds of lines and forgives all others: cameras leave out what the standard demands, and a strict
//! reader would call their streams missing.

/// Most streams that are kept.
const MAX_STREAMS: usize = 16;
/// Longest line that is read, in bytes.
const MAX_LINE_LEN: usize = 1_024;

/// One stream of a description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SdpStream {
    /// `video`, `audio`, `application`.
    pub kind: String,
    /// The codec in capitals as RTP names it, such as `H264` or `PCMU`.
    pub codec: Option<String>,
    /// Clock rate in Hz.
    pub clock_rate: Option<u32>,
}

/// The streams in a description; none if it is none.
pub fn parse(bytes: &[u8]) -> Vec<SdpStream> {
    let text = String::from_utf8_lossy(bytes);
    let mut streams: Vec<(String, SdpStream)> = Vec::new();
    for line in text.split(['\r', '\n']).filter(|line| line.len() <= MAX_LINE_LEN) {
        if let Some(media) = line.strip_prefix("m=") {
            if streams.len() >= MAX_STREAMS {
                break;
            }
            let mut words = media.split_ascii_whitespace();
            let kind = words.next().unwrap_or_default().to_ascii_lowercase();
            let format = words.nth(2).unwrap_or_default().to_owned();
            if !matches!(kind.as_str(), "video" | "audio" | "application") {
                continue;
            }
            let (codec, clock_rate) = static_format(&format);
            streams.push((format, SdpStream { kind, codec: codec.map(str::to_owned), clock_rate }));
        } else if let (Some(map), Some((format, stream))) =
            (line.strip_prefix("a=rtpmap:"), streams.last_mut())
        {
            let Some((number, encoding)) = map.trim().split_once(' ') else { continue };
            if number != format {
                continue;
            }
            let mut parts = encoding.trim().split('/');
            let codec = parts.next().unwrap_or_default();
            let is_name =
                !codec.is_empty() && codec.len() <= 32 && codec.bytes().all(|byte| byte.is_ascii_graphic());
            stream.codec = is_name.then(|| codec.to_ascii_uppercase());
            stream.clock_rate = parts.next().and_then(|rate| rate.trim().parse().ok());
        }
    }
    streams.into_iter().map(|(_, stream)| stream).collect()
}

/// Formats that need no map. Source: RFC 3551, tables 4 and 5.
fn static_format(format: &str) -> (Option<&'static str>, Option<u32>) {
    match format {
        "0" => (Some("PCMU"), Some(8_000)),
        "8" => (Some("PCMA"), Some(8_000)),
        "9" => (Some("G722"), Some(8_000)),
        "10" | "11" => (Some("L16"), Some(44_100)),
        "14" => (Some("MPA"), Some(90_000)),
        "26" => (Some("JPEG"), Some(90_000)),
        "32" => (Some("MPV"), Some(90_000)),
        "33" => (Some("MP2T"), Some(90_000)),
        _ => (None, None),
    }
}
