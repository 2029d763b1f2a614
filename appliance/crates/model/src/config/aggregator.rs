//! The HTTP control API of media aggregators, of both generations.

use super::{Network, Secret, listen};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Cameras that a content manager registers and pushes to streaming engines, as it did with a media aggregator. See
/// `docs/aggregator.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Aggregator {
    /// Addresses with port to listen on for the control API, such as `"10.0.0.2:5000"`; port 0 lets the kernel choose.
    /// At most 16. Default: none, the API is off. Registered cameras stay what they are without it.
    #[schemars(with = "Vec<listen::Address>", length(max = 16))]
    pub listen: Vec<SocketAddr>,
    /// Addresses with port to listen on for the statistics in XML (`GET /stat`). At most 16. Default: none, off.
    #[schemars(with = "Vec<listen::Address>", length(max = 16))]
    pub stat_listen: Vec<SocketAddr>,
    /// Key that callers must show as `Authorization: Bearer KEY`, 1 to 256 printable characters. Default: none; then only
    /// `allow` decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// Networks that may call the API and read the statistics. At most 64. Default: with a token any, without one the
    /// private ranges and loopback.
    #[schemars(length(max = 64))]
    pub allow: Vec<Network>,
    /// Networks from which registered cameras may be published. At most 64. Default: none, so nothing can be published;
    /// `fieldgate check` says so.
    #[schemars(length(max = 64))]
    pub publish_allow: Vec<Network>,
    /// Own `host` or `host:port` in the addresses that callers are told, up to 255 characters. Default: the host that the
    /// caller asked, with the port of the RTMP listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub address: Option<String>,
    /// Name of this aggregator in the statistics, up to 255 characters. Default: the host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub resource_id: Option<String>,
    /// Whether a push to a camera that is not registered is refused (404) instead of registering it. Default false.
    pub strict: bool,
    /// Whether `/getStream` for an unknown camera is answered 200 with the error in its text, as one revision did,
    /// instead of 404. Default false.
    pub legacy_unknown_ok: bool,
    /// Whether answers claim to be `text/html`, as they once did, instead of JSON. Default false.
    pub legacy_content_type: bool,
    /// `host` or `host:port` to which `/getStream` pushes whatever engine is named; that engine is only told to the
    /// caller. Default: none, the engine itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub transcoder: Option<String>,
    /// `host` or `host:port` of the streaming engine for `/getStream` calls that name none. Default: none; they are
    /// refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub engine: Option<String>,
    /// Cameras that may be registered. 1 to 1,024. Default 64.
    #[schemars(range(min = 1, max = 1024))]
    pub max_cameras: u32,
    /// Pushes that one camera may have. 1 to 32. Default 16.
    #[schemars(range(min = 1, max = 32))]
    pub max_pushes: u32,
    /// The content manager that is told of this aggregator. Default: none is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cms: Option<AggregatorCms>,
    /// The registered cameras by name; each has the mountpoint of that name. Filled by the API. Default: none.
    #[schemars(extend("maxProperties" = 1024))]
    pub cameras: BTreeMap<String, AggregatorCamera>,
}

impl Default for Aggregator {
    fn default() -> Self {
        Aggregator {
            listen: Vec::new(),
            stat_listen: Vec::new(),
            token: None,
            allow: Vec::new(),
            publish_allow: Vec::new(),
            address: None,
            resource_id: None,
            strict: false,
            legacy_unknown_ok: false,
            legacy_content_type: false,
            transcoder: None,
            engine: None,
            max_cameras: 64,
            max_pushes: 16,
            cms: None,
            cameras: BTreeMap::new(),
        }
    }
}

/// The content manager at which this aggregator registers itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AggregatorCms {
    /// Its `host` or `host:port`; the port is 50000 where none is named.
    #[schemars(length(min = 1, max = 255))]
    pub address: String,
    /// The name to register under, up to 255 characters. Default: the host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub name: Option<String>,
    /// Where this aggregator stands, up to 255 characters. Default `"default"`.
    #[serde(default = "default_location")]
    #[schemars(length(min = 1, max = 255))]
    pub location: String,
    /// `host` or `host:port` of our API, as the manager shall call it; the port is 5000 where none is named. Required.
    #[schemars(length(min = 1, max = 255))]
    pub own_address: String,
}

fn default_location() -> String {
    "default".to_owned()
}

/// A registered camera. It publishes to `rtmp://HOST/NAME/NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AggregatorCamera {
    /// What it films, and so the application at streaming engines that it is pushed to. Default `"live"`.
    #[serde(rename = "type")]
    pub kind: CameraType,
    /// Key that its publisher must show as `?key=KEY`, 1 to 256 printable characters. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
}

/// What a camera films, as content managers tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CameraType {
    /// Nobody said.
    #[default]
    #[serde(rename = "live")]
    Live,
    /// All around.
    #[serde(rename = "360")]
    Round,
    /// A plain picture.
    #[serde(rename = "plane")]
    Plane,
}

impl CameraType {
    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            CameraType::Live => "live",
            CameraType::Round => "360",
            CameraType::Plane => "plane",
        }
    }

    /// From the wire.
    pub fn parse(text: &str) -> Option<Self> {
        [CameraType::Live, CameraType::Round, CameraType::Plane]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// Applications of the RTMP port that no camera may have: those of mountpoints and of other gateways.
pub const RESERVED_APPLICATIONS: [&str; 2] = ["live", "relay"];

/// A `host` or `host:port`, cut; an IPv6 address loses its brackets. `None` for what is neither an address nor a name as
/// of RFC 1123.
pub fn host_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(inner) => {
            let (host, rest) = inner.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        // A bare IPv6 address has no port.
        None if text.parse::<std::net::Ipv6Addr>().is_ok() => (text, None),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(digits) if digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse::<u16>().ok().filter(|port| *port > 0)?)
        }
        Some(_) => return None,
        None => None,
    };
    is_host(host).then_some((host, port))
}

fn is_host(host: &str) -> bool {
    if host.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // What ends in a number is an address or a mistake.
    let is_number =
        host.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    host.len() <= 253 && !is_number && host.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_addresses_or_names_and_nothing_else() {
        for (text, host, port) in [
            ("10.0.0.5", "10.0.0.5", None),
            ("10.0.0.5:5000", "10.0.0.5", Some(5000)),
            ("mse-1.example.org:1936", "mse-1.example.org", Some(1936)),
            ("[2001:db8::7]:1935", "2001:db8::7", Some(1935)),
            ("[::1]", "::1", None),
            ("::1", "::1", None),
        ] {
            assert_eq!(host_port(text), Some((host, port)), "{text}");
        }
        let long = format!("{}.x", "a".repeat(64));
        for text in [
            "",
            ":",
            "a b",
            "a/b",
            "a;b",
            "-a",
            "a-",
            "a..b",
            "10.0.0.256",
            "1.2.3",
            "h:0",
            "h:65536",
            "h:x",
            "h:",
            "h:+5",
            "h:1:2",
            "[::1",
            "[::1]x",
            "[h]",
            "[::1]:",
            "user@h",
            "h\n",
            "höst",
            &long,
        ] {
            assert_eq!(host_port(text), None, "{text:?}");
        }
    }
}
