//! Answers probes of WS-Discovery and queries of multicast DNS, from the camera's own address.

use super::Shared;
use socket2::{Domain, InterfaceIndexOrAddress, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

const WSD: (Ipv4Addr, u16) = (Ipv4Addr::new(239, 255, 255, 250), 3_702);
const MDNS: (Ipv4Addr, u16) = (Ipv4Addr::new(224, 0, 0, 251), 5_353);

pub(super) struct Announcer {
    hears: UdpSocket,
    speaks: UdpSocket,
    onvif: bool,
}

impl Announcer {
    /// Hears the group of its protocol on loopback.
    pub(super) fn open(address: Ipv4Addr, onvif: bool) -> Self {
        let (group, port) = if onvif { WSD } else { MDNS };
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.set_multicast_all_v4(false).unwrap();
        socket.bind(&SocketAddr::from((group, port)).into()).unwrap();
        let loopback = InterfaceIndexOrAddress::Address(Ipv4Addr::LOCALHOST);
        socket.join_multicast_v4_n(&group, &loopback).unwrap();
        let hears = UdpSocket::from(socket);
        hears.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Announcer { hears, speaks: UdpSocket::bind((address, 0)).unwrap(), onvif }
    }

    pub(super) fn run(&self, shared: &Arc<Shared>) {
        let mut buffer = [0; 8_192];
        while !shared.is_over() {
            let Ok((len, from)) = self.hears.recv_from(&mut buffer) else { continue };
            let answer = if self.onvif {
                probe_match(&buffer[..len], shared)
            } else {
                services(&buffer[..len], shared)
            };
            if let Some(answer) = answer {
                self.speaks.send_to(&answer, from).unwrap();
            }
        }
    }
}

fn probe_match(message: &[u8], shared: &Shared) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(message);
    let (_, rest) = text.split_once("MessageID>")?;
    let (id, _) = rest.split_once('<')?;
    if !text.contains("NetworkVideoTransmitter") {
        return None;
    }
    let host = shared.settings.announces_host.clone().unwrap_or_else(|| shared.http.to_string());
    let (uuid, name) = (&shared.uuid, shared.settings.name);
    let message = format!(
        "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
         xmlns:a=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" \
         xmlns:d=\"http://schemas.xmlsoap.org/ws/2005/04/discovery\" \
         xmlns:dn=\"http://www.onvif.org/ver10/network/wsdl\"><s:Header><a:RelatesTo>{id}</a:RelatesTo></s:Header>\
         <s:Body><d:ProbeMatches><d:ProbeMatch><a:EndpointReference><a:Address>urn:uuid:{uuid}</a:Address>\
         </a:EndpointReference><d:Types>dn:NetworkVideoTransmitter</d:Types>\
         <d:Scopes>onvif://www.onvif.org/name/{name} onvif://www.onvif.org/hardware/FC-200</d:Scopes>\
         <d:XAddrs>http://{host}/onvif/device_service</d:XAddrs><d:MetadataVersion>1</d:MetadataVersion>\
         </d:ProbeMatch></d:ProbeMatches></s:Body></s:Envelope>"
    );
    Some(message.into_bytes())
}

/// The answer to a query for `_rtsp._tcp.local`: pointer, service, attributes, address; RFC 1035 and 6763 by hand.
fn services(query: &[u8], shared: &Shared) -> Option<Vec<u8>> {
    let kind = name(&["_rtsp", "_tcp", "local"]);
    let asks = query.get(2)? & 0x80 == 0 && query.windows(11).any(|window| window == b"\x05_rtsp\x04_tcp");
    let std::net::IpAddr::V4(address) = shared.rtsp.ip() else { return None };
    let [_, a, b, c] = address.octets();
    let host_label = format!("cam-{a}-{b}-{c}");
    let (instance, host) = (name(&[&host_label, "_rtsp", "_tcp", "local"]), name(&[&host_label, "local"]));
    let mut message = vec![0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 3];
    record(&mut message, &kind, 12, &instance);
    let service = [&[0, 0, 0, 0][..], &shared.rtsp.port().to_be_bytes(), &host].concat();
    record(&mut message, &instance, 33, &service);
    record(&mut message, &instance, 16, b"\x08model=F1");
    record(&mut message, &host, 1, &address.octets());
    asks.then_some(message)
}

fn name(labels: &[&str]) -> Vec<u8> {
    let mut name = Vec::new();
    for label in labels {
        name.push(u8::try_from(label.len()).unwrap());
        name.extend_from_slice(label.as_bytes());
    }
    name.push(0);
    name
}

fn record(message: &mut Vec<u8>, name: &[u8], kind: u16, content: &[u8]) {
    message.extend_from_slice(name);
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&[0, 1, 0, 0, 0, 120]);
    message.extend_from_slice(&u16::try_from(content.len()).unwrap().to_be_bytes());
    message.extend_from_slice(content);
}
