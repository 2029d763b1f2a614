//! DNS service discovery over multicast (RFC 6762, RFC 6763), the asking side: one query, the answers to it.
//!
//! Queries go out from a port of their own, so that answers come back to it alone ("one-shot", RFC 6762, 5.1): no port
//! 5353 to share, nothing to listen to all day. Not for announcing anything: that is
//! [`crate::mdns_host`].

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE};
use std::net::IpAddr;

/// The group that is asked.
pub const GROUP: std::net::Ipv4Addr = std::net::Ipv4Addr::new(224, 0, 0, 251);
/// UDP port of the group.
pub const PORT: u16 = 5_353;
/// Longest message that is read, in bytes.
pub const MAX_LEN: usize = 9_000;
/// Most questions and records of one message.
pub const MAX_RECORDS: usize = 128;
/// Most services that are taken from one message.
pub const MAX_SERVICES: usize = 16;
/// Most addresses of one service.
const MAX_ADDRESSES: usize = 8;
/// Longest text that is kept, in characters.
const MAX_TEXT: usize = 128;

/// What cameras announce.
pub const CAMERA_SERVICES: [&str; 4] =
    ["_rtsp._tcp.local", "_onvif._tcp.local", "_axis-video._tcp.local", "_psia._tcp.local"];

/// One service that somebody offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name for people.
    pub instance: String,
    /// Its kind, such as `_rtsp._tcp`.
    pub kind: String,
    /// TCP port.
    pub port: u16,
    /// Addresses that the message gives for it; a stranger's word.
    pub addresses: Vec<IpAddr>,
    /// `path` among its attributes.
    pub path: Option<String>,
    /// Ethernet address among its attributes, as `00:11:22:aa:bb:cc`.
    pub mac: Option<String>,
}

/// Why a message is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsSdError {
    /// Longer than [`MAX_LEN`].
    #[error("the message has {0} bytes, at most {MAX_LEN} are read")]
    TooLong(usize),
    /// More than [`MAX_RECORDS`].
    #[error("the message has {0} records, at most {MAX_RECORDS} are read")]
    TooMany(usize),
    /// No DNS.
    #[error("the message is no DNS: {0}")]
    Malformed(String),
    /// A question, or an error.
    #[error("the message is no answer")]
    NoAnswer,
}

/// One query for all services that cameras announce.
pub fn query(id: u16) -> Vec<u8> {
    let mut packet = Packet::new_query(id);
    for service in CAMERA_SERVICES {
        let name = Name::new_unchecked(service);
        packet.questions.push(Question::new(name, QTYPE::TYPE(TYPE::PTR), QCLASS::CLASS(CLASS::IN), true));
    }
    // The names are constants, so writing them cannot fail; an empty message would find nothing and harm nobody.
    packet.build_bytes_vec_compressed().unwrap_or_default()
}

/// The services of cameras in an answer.
pub fn parse(bytes: &[u8]) -> Result<Vec<Service>, DnsSdError> {
    checked(bytes)?;
    let packet = Packet::parse(bytes).map_err(|error| DnsSdError::Malformed(error.to_string()))?;
    if !packet.has_flags(PacketFlag::RESPONSE) {
        return Err(DnsSdError::NoAnswer);
    }
    let records = || packet.answers.iter().chain(&packet.additional_records);
    let mut found: Vec<Service> = Vec::new();
    for record in records() {
        let RData::PTR(instance) = &record.rdata else { continue };
        let (kind, instance) = (&record.name, &instance.0);
        let kind_text = kind.to_string();
        if !CAMERA_SERVICES.iter().any(|known| known.eq_ignore_ascii_case(&kind_text)) {
            continue;
        }
        let mut service = Service {
            instance: instance.get_labels().first().map(|label| text(label.as_ref())).unwrap_or_default(),
            kind: kind_text.trim_end_matches(".local").to_ascii_lowercase(),
            port: 0,
            addresses: Vec::new(),
            path: None,
            mac: None,
        };
        let mut host = None;
        for record in records().filter(|record| record.name == *instance) {
            match &record.rdata {
                RData::SRV(srv) => {
                    service.port = srv.port;
                    host = Some(&srv.target);
                }
                RData::TXT(txt) => attributes(&mut service, txt.iter_raw()),
                _ => {}
            }
        }
        for record in records().filter(|record| Some(&record.name) == host) {
            let address = match &record.rdata {
                RData::A(a) => IpAddr::V4(a.address.into()),
                RData::AAAA(aaaa) => IpAddr::V6(aaaa.address.into()),
                _ => continue,
            };
            if service.addresses.len() < MAX_ADDRESSES && !service.addresses.contains(&address) {
                service.addresses.push(address);
            }
        }
        if !found.contains(&service) {
            found.push(service);
        }
        if found.len() >= MAX_SERVICES {
            break;
        }
    }
    if found.is_empty() { Err(DnsSdError::NoAnswer) } else { Ok(found) }
}

/// Whether a message is short enough to be parsed.
pub(crate) fn checked(bytes: &[u8]) -> Result<(), DnsSdError> {
    if bytes.len() > MAX_LEN {
        return Err(DnsSdError::TooLong(bytes.len()));
    }
    // The library reserves room for as many records as the head promises.
    let promised = bytes.get(4..12).ok_or_else(|| DnsSdError::Malformed("too short".to_owned()))?;
    let promised: usize = promised
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => usize::from(u16::from_be_bytes([*high, *low])),
            _ => 0,
        })
        .sum();
    if promised > MAX_RECORDS {
        return Err(DnsSdError::TooMany(promised));
    }
    Ok(())
}

fn attributes<'a>(service: &mut Service, all: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) {
    for (name, value) in all.take(MAX_RECORDS) {
        let (name, value) = (text(name).to_ascii_lowercase(), text(value.unwrap_or_default()));
        match name.as_str() {
            "path" if !value.is_empty() => service.path = Some(value),
            "mac" | "macaddress" => service.mac = crate::onvif::ws_discovery::mac(&value),
            _ => {}
        }
    }
}

fn text(bytes: &[u8]) -> String {
    crate::onvif::ws_discovery::cut(&String::from_utf8_lossy(bytes), MAX_TEXT)
}

/// A fuzz target: any bytes.
pub fn fuzz(data: &[u8]) {
    if let Ok(found) = parse(data) {
        assert!((1..=MAX_SERVICES).contains(&found.len()));
        assert!(found.iter().all(|service| service.addresses.len() <= MAX_ADDRESSES));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, PTR, SRV, TXT};

    fn answer(kind: &'static str) -> Vec<u8> {
        let mut packet = Packet::new_reply(7);
        let instance = Name::new_with_labels(
            &[&b"Gate.cam"[..], b"_rtsp", b"_tcp", b"local"].map(simple_dns::Label::new_unchecked),
        );
        let host = Name::new_unchecked("gate.local");
        let record = |name: &Name<'static>, rdata| ResourceRecord::new(name.clone(), CLASS::IN, 120, rdata);
        packet.answers.push(record(&Name::new_unchecked(kind), RData::PTR(PTR(instance.clone()))));
        let srv = SRV { priority: 0, weight: 0, port: 8_554, target: host.clone() };
        packet.additional_records.push(record(&instance, RData::SRV(srv)));
        let txt = TXT::new()
            .with_string("path=/live/main")
            .and_then(|txt| txt.with_string("macaddress=001122AABBCC"))
            .unwrap();
        packet.additional_records.push(record(&instance, RData::TXT(txt)));
        packet.additional_records.push(record(&host, RData::A(A { address: 0x0a00_0007 })));
        packet.build_bytes_vec_compressed().unwrap()
    }

    #[test]
    fn one_query_asks_for_all_services_of_cameras() {
        let wire = query(9);
        let packet = Packet::parse(&wire).unwrap();
        assert_eq!((packet.id(), packet.questions.len()), (9, CAMERA_SERVICES.len()));
        assert!(packet.questions.iter().all(|question| question.unicast_response));
        assert_eq!(parse(&wire), Err(DnsSdError::NoAnswer), "a question is no answer");
    }

    #[test]
    fn a_camera_is_known_by_its_answer() {
        let found = parse(&answer("_rtsp._tcp.local")).unwrap();
        assert_eq!(
            found,
            [Service {
                instance: "Gate.cam".to_owned(),
                kind: "_rtsp._tcp".to_owned(),
                port: 8_554,
                addresses: vec!["10.0.0.7".parse().unwrap()],
                path: Some("/live/main".to_owned()),
                mac: Some("00:11:22:aa:bb:cc".to_owned()),
            }]
        );
        assert_eq!(parse(&answer("_ipp._tcp.local")), Err(DnsSdError::NoAnswer), "a printer");
    }

    #[test]
    fn a_head_that_promises_too_much_is_refused_before_it_is_believed() {
        let mut wire = answer("_rtsp._tcp.local");
        wire[6..8].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(parse(&wire), Err(DnsSdError::TooMany(65_535 + 3)));
        assert!(matches!(parse(&[0; 11]), Err(DnsSdError::Malformed(_))));
        assert_eq!(parse(&vec![0; MAX_LEN + 1]), Err(DnsSdError::TooLong(MAX_LEN + 1)));
        let mut looped = vec![0, 7, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        looped.extend([0xc0, 12, 0, 12, 0, 1, 0, 0, 0, 1, 0, 2, 0xc0, 12]);
        assert!(matches!(parse(&looped), Err(DnsSdError::Malformed(_))), "a name that points at itself");
    }

    #[test]
    fn any_bytes_are_survived() {
        crate::mutation::run(fuzz, &[answer("_rtsp._tcp.local"), query(1)], 3_000, 0x9E37_79B9_7F4A_7C15);
    }
}
