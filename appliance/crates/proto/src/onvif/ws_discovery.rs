//! WS-Discovery as ONVIF uses it: the probe that is sent to all, and what cameras say of themselves.
//!
//! Sources: WS-Discovery (April 2005), ONVIF Core Specification, "Device discovery".

use super::xml::{self, Element, XmlError, escape};
use crate::http_auth::hex;

/// Port and group to which probes are sent: 239.255.255.250.
pub const GROUP: std::net::Ipv4Addr = std::net::Ipv4Addr::new(239, 255, 255, 250);
/// UDP port of the group.
pub const PORT: u16 = 3_702;
/// Longest message that is read, in bytes.
pub const MAX_LEN: usize = 16 << 10;
/// Most cameras in one message.
pub const MAX_MATCHES: usize = 16;
/// Most addresses of one camera.
pub const MAX_XADDRS: usize = 8;
/// Most scopes of one camera that are read.
const MAX_SCOPES: usize = 64;
/// Longest text that is kept, in characters.
const MAX_TEXT: usize = 128;

/// How a camera came to tell of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It answers our probe.
    ProbeMatch,
    /// It has come.
    Hello,
    /// It goes.
    Bye,
}

/// What a camera tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Why it tells.
    pub kind: Kind,
    /// The id that stays with it over all addresses: a UUID in lower case, or whatever it uses instead.
    pub endpoint: String,
    /// Addresses of its device service; a stranger's word, see [`super::ServiceUrl`].
    pub xaddrs: Vec<String>,
    /// Names it was given (scope `name`), its model by itself (`hardware`), and places (`location`).
    pub names: Vec<String>,
    /// Its model.
    pub hardware: Option<String>,
    /// Where it is, as somebody set it.
    pub locations: Vec<String>,
    /// Ethernet address, where a scope tells it.
    pub mac: Option<String>,
    /// Whether anything in it speaks of ONVIF; printers answer such probes as well.
    pub is_onvif: bool,
    /// The id of the probe that it answers, as [`message_id`] writes it.
    pub relates_to: Option<String>,
}

/// Why a message is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// Longer than [`MAX_LEN`].
    #[error("the message has {0} bytes, at most {MAX_LEN} are read")]
    TooLong(usize),
    /// Not XML.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// Nothing that announces a camera: a probe of somebody else's, or another protocol.
    #[error("the message announces nothing")]
    NotAnnouncing,
}

/// What devices a probe asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Cameras and encoders.
    Transmitters,
    /// Any ONVIF device; some cameras answer only to this.
    Devices,
}

/// A random message id.
pub fn message_id(random: [u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, rest @ ..] = random;
    // Version 4, RFC 9562.
    let (g, h) = ((g & 0x0f) | 0x40, h);
    let [i, tail @ ..] = rest;
    let hex = |bytes: &[u8]| hex(bytes);
    let [j, node @ ..] = tail;
    format!(
        "{}-{}-{}-{}-{}",
        hex(&[a, b, c, d]),
        hex(&[e, f]),
        hex(&[g, h]),
        hex(&[(i & 0x3f) | 0x80, j]),
        hex(&node)
    )
}

/// A probe.
pub fn probe(message_id: &str, wanted: Wanted) -> String {
    let types = match wanted {
        Wanted::Transmitters => {
            "<d:Types xmlns:dn=\"http://www.onvif.org/ver10/network/wsdl\">dn:NetworkVideoTransmitter</d:Types>"
        }
        Wanted::Devices => {
            "<d:Types xmlns:tds=\"http://www.onvif.org/ver10/device/wsdl\">tds:Device</d:Types>"
        }
    };
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
         xmlns:a=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" \
         xmlns:d=\"http://schemas.xmlsoap.org/ws/2005/04/discovery\"><s:Header>\
         <a:Action s:mustUnderstand=\"1\">http://schemas.xmlsoap.org/ws/2005/04/discovery/Probe</a:Action>\
         <a:MessageID>urn:uuid:{}</a:MessageID>\
         <a:ReplyTo><a:Address>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address></a:ReplyTo>\
         <a:To s:mustUnderstand=\"1\">urn:schemas-xmlsoap-org:ws:2005:04:discovery</a:To>\
         </s:Header><s:Body><d:Probe>{types}</d:Probe></s:Body></s:Envelope>",
        escape(message_id)
    )
}

/// What a message announces.
pub fn parse(bytes: &[u8]) -> Result<Vec<Announcement>, DiscoveryError> {
    if bytes.len() > MAX_LEN {
        return Err(DiscoveryError::TooLong(bytes.len()));
    }
    let root = xml::parse(bytes)?;
    let relates_to = root.text_at(&["Header", "RelatesTo"]).map(uuid);
    let body = root.child("Body").ok_or(DiscoveryError::NotAnnouncing)?;
    let mut found = Vec::new();
    for element in &body.children {
        match element.name.as_str() {
            "ProbeMatches" => {
                for one in element.all("ProbeMatch").take(MAX_MATCHES) {
                    found.extend(announcement(one, Kind::ProbeMatch, relates_to.clone()));
                }
            }
            "Hello" => found.extend(announcement(element, Kind::Hello, None)),
            "Bye" => found.extend(announcement(element, Kind::Bye, None)),
            _ => {}
        }
    }
    found.truncate(MAX_MATCHES);
    if found.is_empty() { Err(DiscoveryError::NotAnnouncing) } else { Ok(found) }
}

fn announcement(element: &Element, kind: Kind, relates_to: Option<String>) -> Option<Announcement> {
    let endpoint = uuid(element.text_at(&["EndpointReference", "Address"])?);
    let types = element.text_at(&["Types"]).unwrap_or_default();
    let is_type = |name: &str| name == "NetworkVideoTransmitter" || name == "Device";
    let mut announcement = Announcement {
        kind,
        endpoint,
        xaddrs: Vec::new(),
        names: Vec::new(),
        hardware: None,
        locations: Vec::new(),
        mac: None,
        is_onvif: types
            .split_ascii_whitespace()
            .any(|one| is_type(one.rsplit(':').next().unwrap_or_default())),
        relates_to,
    };
    let xaddrs = element.text_at(&["XAddrs"]).unwrap_or_default();
    announcement.xaddrs = xaddrs
        .split_ascii_whitespace()
        .take(MAX_XADDRS)
        .map(|xaddr| cut(xaddr, super::service_url::MAX_LEN))
        .collect();
    let scopes = element.text_at(&["Scopes"]).unwrap_or_default();
    for scope in scopes.split_ascii_whitespace().take(MAX_SCOPES) {
        // Some write the host in capitals, some leave it out.
        let lower = scope.to_ascii_lowercase();
        let Some(at) = lower.find("onvif.org/") else { continue };
        announcement.is_onvif = true;
        let path = scope.get(at.saturating_add("onvif.org/".len())..).unwrap_or_default();
        let Some((what, value)) = path.split_once('/') else { continue };
        let value = cut(&decode(value), MAX_TEXT);
        if value.is_empty() {
            continue;
        }
        match what.to_ascii_lowercase().as_str() {
            "name" if !announcement.names.contains(&value) => announcement.names.push(value),
            "hardware" => announcement.hardware = announcement.hardware.take().or(Some(value)),
            "location" => announcement.locations.push(value),
            "mac" => announcement.mac = mac(&value),
            _ => {}
        }
    }
    Some(announcement)
}

/// `urn:uuid:ABC`, `uuid:ABC` and ` abc` are the same endpoint.
fn uuid(text: &str) -> String {
    let lower = cut(text, MAX_TEXT).to_ascii_lowercase();
    let text = lower.trim();
    let text = text.strip_prefix("urn:").unwrap_or(text);
    text.strip_prefix("uuid:").unwrap_or(text).trim_matches(['{', '}']).to_owned()
}

/// An Ethernet address as `00:11:22:aa:bb:cc`; `None` if it is none, or stands for none.
pub(crate) fn mac(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| !matches!(c, ':' | '-' | '.')).collect();
    if digits.len() != 12 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let lower = digits.to_ascii_lowercase();
    let pairs: Vec<&str> = (0..6)
        .filter_map(|pair: usize| {
            let at = pair.saturating_mul(2);
            lower.get(at..at.saturating_add(2))
        })
        .collect();
    (!matches!(lower.as_str(), "000000000000" | "ffffffffffff")).then(|| pairs.join(":"))
}

/// Percent-decoding; what is not right stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let pair = after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).filter(|_| byte == b'%') {
            Some(decoded) => {
                bytes.push(decoded);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// At most so many characters, without control characters.
pub(crate) fn cut(text: &str, max: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(max).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! fixture {
        ($name:literal) => {
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/onvif/", $name))
        };
    }

    #[test]
    fn a_probe_is_well_formed_and_has_its_id() {
        let id = message_id([0xff; 16]);
        assert_eq!(id, "ffffffff-ffff-4fff-bfff-ffffffffffff");
        for wanted in [Wanted::Transmitters, Wanted::Devices] {
            let probe = probe(&id, wanted);
            let root = xml::parse(probe.as_bytes()).unwrap();
            assert_eq!(
                root.text_at(&["Header", "MessageID"]),
                Some("urn:uuid:ffffffff-ffff-4fff-bfff-ffffffffffff")
            );
            assert!(root.at(&["Body", "Probe", "Types"]).is_some());
            assert_eq!(
                parse(probe.as_bytes()),
                Err(DiscoveryError::NotAnnouncing),
                "ours, or somebody else's"
            );
        }
    }

    #[test]
    fn a_camera_is_known_by_its_answer() {
        let found = parse(fixture!("probe-matches.xml")).unwrap();
        assert_eq!(found.len(), 1);
        let camera = &found[0];
        assert_eq!(camera.kind, Kind::ProbeMatch);
        assert_eq!(camera.endpoint, "4d454930-0000-1000-8000-001122aabbcc");
        assert_eq!(
            camera.xaddrs,
            ["http://10.0.0.7/onvif/device_service", "http://[fe80::7]/onvif/device_service"]
        );
        assert_eq!(
            (camera.names.as_slice(), camera.hardware.as_deref()),
            (&["Gate cam".to_owned()][..], Some("FC-200"))
        );
        assert_eq!(camera.locations, ["Yard/north"]);
        assert_eq!(camera.mac.as_deref(), Some("00:11:22:aa:bb:cc"));
        assert_eq!(camera.relates_to.as_deref(), Some("0a6dc791-2be6-4991-9af1-454778a1917a"));
        assert!(camera.is_onvif);
    }

    #[test]
    fn coming_and_going_are_heard_without_any_namespace() {
        let hello = parse(fixture!("hello-no-namespaces.xml")).unwrap();
        assert_eq!((hello[0].kind, hello[0].endpoint.as_str()), (Kind::Hello, "cam-7"));
        assert!(hello[0].is_onvif && hello[0].relates_to.is_none());
        let bye = parse(b"<Envelope><Body><Bye><EndpointReference><Address>urn:uuid:CAM-7</Address></EndpointReference></Bye></Body></Envelope>").unwrap();
        assert_eq!((bye[0].kind, bye[0].endpoint.as_str(), bye[0].is_onvif), (Kind::Bye, "cam-7", false));
    }

    #[test]
    fn a_flood_in_one_message_is_cut() {
        let one = "<ProbeMatch><EndpointReference><Address>x</Address></EndpointReference><XAddrs>\
                   a a a a a a a a a a a a</XAddrs></ProbeMatch>";
        let many =
            format!("<Envelope><Body><ProbeMatches>{}</ProbeMatches></Body></Envelope>", one.repeat(60));
        let found = parse(many.as_bytes()).unwrap();
        assert_eq!((found.len(), found[0].xaddrs.len()), (MAX_MATCHES, MAX_XADDRS));
        assert!(matches!(parse(&vec![b' '; MAX_LEN + 1]), Err(DiscoveryError::TooLong(_))));
        let name = format!(
            "<Envelope><Body><Hello><EndpointReference><Address>x</Address></EndpointReference><Scopes>\
             onvif://www.onvif.org/name/{}%0a%zz</Scopes></Hello></Body></Envelope>",
            "n".repeat(2_000)
        );
        assert_eq!(parse(name.as_bytes()).unwrap()[0].names[0].len(), MAX_TEXT);
    }

    #[test]
    fn ethernet_addresses_have_one_form() {
        for (text, read) in [
            ("00-11-22-AA-BB-CC", Some("00:11:22:aa:bb:cc")),
            ("001122aabbcc", Some("00:11:22:aa:bb:cc")),
            ("00:00:00:00:00:00", None),
            ("00:11:22:aa:bb", None),
            ("zz:11:22:aa:bb:cc", None),
        ] {
            assert_eq!(mac(text).as_deref(), read, "{text}");
        }
    }
}
