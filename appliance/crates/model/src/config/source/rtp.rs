//! RTP that somebody sends to us by UDP.

use super::default_stall;
use super::rtsp::default_latency;
use crate::config::{Network, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// Longest session description.
const SDP_MAX: usize = 16 << 10;
/// Parameters that one stream may have.
const PARAMETERS_MAX: usize = 32;

/// What an RTP stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RtpMedia {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

/// One RTP stream, as a session description tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RtpStream {
    /// What it carries.
    pub media: RtpMedia,
    /// UDP port that it is sent to, 1 to 65,534; its RTCP comes to the next.
    #[schemars(range(min = 1, max = 65534))]
    pub port: u16,
    /// RTP payload type, 0 to 127. Default 96.
    #[serde(default = "default_payload_type")]
    #[schemars(range(min = 0, max = 127))]
    pub payload_type: u8,
    /// Encoding as SDP names it: `H264`, `H265`, `JPEG`, `MPEG4-GENERIC`, `PCMA`, `PCMU`, `OPUS`, `L16`.
    #[schemars(length(min = 1, max = 32))]
    pub encoding: String,
    /// Ticks per second of its timestamps, 1 to 1,000,000. Default: 90,000 for video, 48,000 for Opus, 8,000 for other
    /// audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub clock_rate: Option<u32>,
    /// Audio channels, 1 to 8. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8))]
    pub channels: Option<u8>,
    /// Parameters of the encoding, as in SDP's `fmtp`, such as `sprop-parameter-sets`. At most 32. Default: none.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 32))]
    pub parameters: BTreeMap<String, String>,
}

/// Takes RTP that a camera or encoder sends to the gateway by UDP, to one address or to a multicast group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rtp {
    /// A session description (RFC 8866), at most 16,384 bytes: ports, encodings and, if it is sent to one, the multicast
    /// group. Default: none; then `streams` tells them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub sdp: Option<String>,
    /// The streams, where there is no `sdp`: one of video, one of audio, or one of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub streams: Vec<RtpStream>,
    /// Address of ours that it is sent to. Default `"0.0.0.0"`: any.
    #[serde(default = "default_listen")]
    #[schemars(with = "String")]
    pub listen: IpAddr,
    /// Multicast group that is joined. Default: the one that the `sdp` names, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub group: Option<IpAddr>,
    /// Network interface on which the group is joined, 1 to 15 characters. Default: the system's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub interface: Option<String>,
    /// Networks that may send, such as `"10.0.0.7"` or `"10.0.0.0/24"`; packets of others are dropped unread. At most
    /// 64. Default: this machine alone.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub allow: Vec<Network>,
    /// Time given to late and disordered packets. `"0ms"` to `"10s"`. Default `"200ms"`.
    #[serde(default = "default_latency")]
    #[schemars(extend("minSpan" = "0ms", "maxSpan" = "10s"))]
    pub latency: Span,
    /// Silence after which the ports are opened anew. `"1s"` to `"10m"`. Default `"10s"`.
    #[serde(default = "default_stall")]
    #[schemars(extend("minSpan" = "1s", "maxSpan" = "10m"))]
    pub stall_timeout: Span,
}

fn default_payload_type() -> u8 {
    96
}

fn default_listen() -> IpAddr {
    IpAddr::V4(Ipv4Addr::UNSPECIFIED)
}

/// Where RTP comes in, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtpSession {
    /// One or two.
    pub streams: Vec<RtpStream>,
    /// Joined, if there is one.
    pub group: Option<IpAddr>,
}

/// Why an RTP source cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RtpError {
    /// Both or none.
    #[error("either an `sdp` or `streams`, not {0}: they tell the same")]
    Which(&'static str),
    /// Not an SDP.
    #[error("the session description cannot be read: {0}")]
    Sdp(String),
    /// Nothing to take.
    #[error("the session description has no video or audio by RTP/AVP with a port and an rtpmap")]
    Nothing,
    /// Two of a kind, or one port for both.
    #[error("{0}: one video and one audio at most, each with an even port of its own or one two away")]
    Twice(&'static str),
    /// Nothing here reads it.
    #[error(
        "encoding {0:?} is none of H264, H265, JPEG for video, MPEG4-GENERIC, PCMA, PCMU, OPUS, L16 for audio"
    )]
    Encoding(String),
    /// Its parameters cannot be.
    #[error("the parameters have {0}")]
    Parameters(&'static str),
    /// It is no interface's name.
    #[error("interface {0:?} is no name of a network interface")]
    Interface(String),
    /// It is no multicast address.
    #[error("group {0} is no multicast address (224.0.0.0/4 or ff00::/8)")]
    NotMulticast(IpAddr),
}

impl Rtp {
    /// Whether both cannot have the same port: unless each joins a group.
    pub fn shares_address_with(&self, other: &Rtp) -> bool {
        let group = |rtp: &Rtp| rtp.session().ok().and_then(|session| session.group);
        match (group(self), group(other)) {
            (Some(_), Some(_)) => false,
            (None, None) => {
                let any = self.listen.is_unspecified() || other.listen.is_unspecified();
                any || self.listen == other.listen
            }
            // A group is an address of its own, but one that listens on any address has it, too.
            (None, Some(_)) => self.listen.is_unspecified(),
            (Some(_), None) => other.listen.is_unspecified(),
        }
    }

    /// What it comes to: the `sdp` read, or `streams` as they are.
    pub fn session(&self) -> Result<RtpSession, RtpError> {
        let mut session = match (&self.sdp, self.streams.is_empty()) {
            (Some(_), false) => return Err(RtpError::Which("both")),
            (None, true) => return Err(RtpError::Which("none")),
            (None, false) => RtpSession { streams: self.streams.clone(), group: None },
            (Some(sdp), true) => read(sdp)?,
        };
        session.group = self.group.or(session.group);
        if let Some(group) = session.group.filter(|group| !group.is_multicast()) {
            return Err(RtpError::NotMulticast(group));
        }
        let is_name = |text: &&String| {
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_@".contains(&byte))
                && !text.starts_with('.')
        };
        if let Some(interface) = self.interface.as_ref().filter(|name| !is_name(name)) {
            return Err(RtpError::Interface(interface.clone()));
        }
        session.streams.iter().try_for_each(RtpStream::check)?;
        if session.streams.len() > 2 {
            return Err(RtpError::Twice("more than two streams"));
        }
        if let [one, other] = session.streams.as_slice() {
            if one.media == other.media {
                return Err(RtpError::Twice("two streams of one kind"));
            }
            if one.port.abs_diff(other.port) < 2 {
                return Err(RtpError::Twice("ports that overlap"));
            }
        }
        Ok(session)
    }
}

impl RtpSession {
    /// The encoding of its pictures or its sound, in capital letters; `None` when it has none.
    pub fn encoding(&self, media: RtpMedia) -> Option<String> {
        let stream = self.streams.iter().find(|stream| stream.media == media)?;
        Some(stream.encoding.to_ascii_uppercase())
    }

    /// Whether its pictures are JPEG, which no output carries.
    pub fn has_jpeg(&self) -> bool {
        self.encoding(RtpMedia::Video).as_deref() == Some("JPEG")
    }
}

impl fmt::Display for RtpSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RTP to ")?;
        match self.group {
            Some(group) => write!(f, "{group}")?,
            None => f.write_str("us")?,
        }
        let streams = self.streams.iter().map(|stream| format!("{} ({})", stream.port, stream.encoding));
        write!(f, ", port {}", streams.collect::<Vec<_>>().join(" and "))
    }
}

/// What a worker can take out of its packets, as SDP names it.
const ENCODINGS: [(RtpMedia, &str); 8] = [
    (RtpMedia::Video, "H264"),
    (RtpMedia::Video, "H265"),
    (RtpMedia::Video, "JPEG"),
    (RtpMedia::Audio, "MPEG4-GENERIC"),
    (RtpMedia::Audio, "PCMA"),
    (RtpMedia::Audio, "PCMU"),
    (RtpMedia::Audio, "OPUS"),
    (RtpMedia::Audio, "L16"),
];

impl RtpStream {
    /// Ticks per second of its timestamps.
    pub fn clock_rate(&self) -> u32 {
        self.clock_rate.unwrap_or(match self.media {
            RtpMedia::Video => 90_000,
            RtpMedia::Audio if self.encoding.eq_ignore_ascii_case("OPUS") => 48_000,
            RtpMedia::Audio => 8_000,
        })
    }

    fn check(&self) -> Result<(), RtpError> {
        let is_known = |(media, name): &(RtpMedia, &str)| {
            *media == self.media && name.eq_ignore_ascii_case(&self.encoding)
        };
        let is_word = |text: &str| {
            text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        if !ENCODINGS.iter().any(is_known) {
            return Err(RtpError::Encoding(self.encoding.clone()));
        }
        if self.parameters.len() > PARAMETERS_MAX {
            return Err(RtpError::Parameters("more than 32"));
        }
        let starts_well = |name: &str| name.starts_with(|first: char| first.is_ascii_alphabetic());
        if !self.parameters.keys().all(|name| is_word(name) && starts_well(name)) {
            return Err(RtpError::Parameters("a name that is none"));
        }
        if self
            .parameters
            .values()
            .any(|value| value.len() > 4096 || !value.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(RtpError::Parameters("a value that is too long or not printable"));
        }
        Ok(())
    }
}

/// The first video and the first audio of a session description.
///
/// Read here line by line: the crate for it panics when lines come out of order.
fn read(sdp: &str) -> Result<RtpSession, RtpError> {
    if sdp.len() > SDP_MAX {
        return Err(RtpError::Sdp(format!("it is longer than {SDP_MAX} bytes")));
    }
    let mut lines = sdp.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
    if lines.peek() != Some(&"v=0") {
        return Err(RtpError::Sdp("it does not begin with v=0".to_owned()));
    }
    let (mut general, mut medias) = (Section::default(), Vec::<Section<'_>>::new());
    for line in lines {
        let Some((kind, value)) = line.split_once('=').filter(|(kind, _)| kind.len() == 1) else {
            return Err(RtpError::Sdp(format!("{:?} is no line of it", cut(line))));
        };
        let section = medias.last_mut().unwrap_or(&mut general);
        match kind {
            "m" => medias.push(Section { media: value, ..Section::default() }),
            "c" => section.connection = section.connection.or(Some(value)),
            "a" => section.attributes.push(value),
            _ => {}
        }
    }
    let mut session = RtpSession { streams: Vec::new(), group: None };
    for media in &medias {
        let Some(stream) = media.stream() else { continue };
        if session.streams.iter().any(|known| known.media == stream.media) {
            continue;
        }
        session.group = session.group.or(media.connection.or(general.connection).and_then(group));
        session.streams.push(stream);
    }
    if session.streams.is_empty() { Err(RtpError::Nothing) } else { Ok(session) }
}

fn cut(line: &str) -> String {
    line.chars().take(40).collect()
}

/// The multicast group of a line such as `IN IP4 239.1.2.3/16`.
fn group(connection: &str) -> Option<IpAddr> {
    let address = connection.split_whitespace().nth(2)?.split('/').next()?;
    address.parse().ok().filter(IpAddr::is_multicast)
}

/// The lines about the whole session or about one medium.
#[derive(Default)]
struct Section<'a> {
    media: &'a str,
    connection: Option<&'a str>,
    attributes: Vec<&'a str>,
}

impl Section<'_> {
    fn stream(&self) -> Option<RtpStream> {
        let mut words = self.media.split_whitespace();
        let media = match words.next()? {
            "video" => RtpMedia::Video,
            "audio" => RtpMedia::Audio,
            _ => return None,
        };
        let port = words.next()?.parse().ok().filter(|port| (1..=65_534).contains(port))?;
        if !words.next()?.starts_with("RTP/AVP") {
            return None;
        }
        let payload_type: u8 = words.next()?.parse().ok().filter(|number| *number < 128)?;
        // Static payload types may come without a map (RFC 3551).
        let map = self.of_type("rtpmap", payload_type).or(match payload_type {
            0 => Some("PCMU/8000"),
            8 => Some("PCMA/8000"),
            10 => Some("L16/44100/2"),
            11 => Some("L16/44100/1"),
            26 => Some("JPEG/90000"),
            _ => None,
        })?;
        let mut map = map.split('/');
        let encoding = map.next()?.chars().take(32).collect();
        let clock_rate =
            map.next().and_then(|rate| rate.parse().ok()).filter(|rate| (1..=1_000_000).contains(rate));
        let channels =
            map.next().and_then(|count| count.parse().ok()).filter(|count| (1..=8).contains(count));
        let parameters = self.of_type("fmtp", payload_type).unwrap_or_default();
        let parameters = parameters.split(';').filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        });
        let parameters = parameters.take(PARAMETERS_MAX).collect();
        Some(RtpStream { media, port, payload_type, encoding, clock_rate, channels, parameters })
    }

    /// The value of an attribute such as `rtpmap:96 H264/90000`, of this payload type.
    fn of_type(&self, name: &str, payload_type: u8) -> Option<&str> {
        self.attributes.iter().find_map(|attribute| {
            let (number, rest) = attribute.strip_prefix(name)?.strip_prefix(':')?.trim().split_once(' ')?;
            (number.parse() == Ok(payload_type)).then_some(rest.trim())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(json: serde_json::Value) -> Result<RtpSession, RtpError> {
        serde_json::from_value::<Rtp>(json).unwrap().session()
    }

    const SDP: &str = "v=0\r\no=- 1 1 IN IP4 10.0.0.7\r\ns=gate\r\nc=IN IP4 239.1.2.3/16\r\nt=0 0\r\n\
        m=video 5004 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
        a=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z0IAKeKQ,aM48gA==\r\n\
        m=audio 5006 RTP/AVP 8\r\nm=application 5008 RTP/AVP 107\r\na=rtpmap:107 vnd.onvif.metadata/90000\r\n";

    #[test]
    fn a_session_description_tells_streams_and_group() {
        let session = input(serde_json::json!({ "sdp": SDP })).unwrap();
        assert_eq!(session.group, Some("239.1.2.3".parse().unwrap()));
        let [video, audio] = session.streams.as_slice() else { panic!("{session:?}") };
        assert_eq!((video.port, video.payload_type, video.encoding.as_str()), (5004, 96, "H264"));
        assert_eq!(video.clock_rate, Some(90_000));
        assert_eq!(video.parameters["sprop-parameter-sets"], "Z0IAKeKQ,aM48gA==");
        assert_eq!((audio.port, audio.payload_type, audio.encoding.as_str()), (5006, 8, "PCMA"));
    }

    #[test]
    fn what_cannot_be_taken_is_told() {
        let video = serde_json::json!({"media": "video", "port": 5004, "encoding": "H264"});
        let error = |json| input(json).unwrap_err().to_string();
        assert!(error(serde_json::json!({})).contains("either an `sdp` or `streams`, not none"));
        assert!(error(serde_json::json!({"sdp": SDP, "streams": [video]})).contains("not both"));
        assert!(error(serde_json::json!({"sdp": "hello"})).contains("does not begin with v=0"));
        assert!(error(serde_json::json!({"sdp": "v=0\nhello"})).contains("\"hello\" is no line of it"));
        assert!(
            error(serde_json::json!({"sdp": "v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\ns=x\r\nt=0 0\r\n"}))
                .contains("no video")
        );
        assert!(error(serde_json::json!({"streams": [video, video]})).contains("one video"));
        let audio = serde_json::json!({"media": "audio", "port": 5005, "encoding": "PCMA"});
        assert!(error(serde_json::json!({"streams": [video, audio]})).contains("overlap"));
        let dots = serde_json::json!({"streams": [video], "interface": "../lo"});
        assert!(error(dots).contains("no name of a network interface"));
        let text = serde_json::json!({"media": "video", "port": 5004, "encoding": "theora"});
        assert!(error(serde_json::json!({"streams": [text]})).contains("\"theora\" is none of"));
        let caps = serde_json::json!({"media": "video", "port": 5004, "encoding": "H264", "parameters": {"a b": ""}});
        assert!(error(serde_json::json!({"streams": [caps]})).contains("a name that is none"));
        let group = serde_json::json!({"streams": [video], "group": "10.0.0.1"});
        assert!(error(group).contains("10.0.0.1 is no multicast address"));
    }

    #[test]
    fn hostile_descriptions_are_survived() {
        for at in 0..SDP.len() {
            for byte in [b'\0', b'\n', b'=', b'9', b' '] {
                let mut bytes = SDP.as_bytes().to_vec();
                bytes[at] = byte;
                let _ = read(&String::from_utf8_lossy(&bytes));
                let _ = read(&String::from_utf8_lossy(&bytes[..at]));
            }
        }
        assert!(read(&SDP.repeat(100)).is_err());
    }
}
