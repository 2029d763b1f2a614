//! One UDP port: read by a thread of its own, packet by packet.

use super::control;
use super::gate::{Gate, Heard, Sender};
use crate::cameras::UDP_BUFFER;
use crate::error::WorkError;
use crate::outlet::Outlet;
use fieldgate_model::job::RtpCamera;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// What may wait for the pipeline; more is left in the socket, and lost there.
pub(super) const WAITING_BYTES: u64 = 1 << 20;
/// How often a thread without packets looks whether it is still wanted.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
const PACKET_MAX: usize = 64 << 10;

/// What comes to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// RTP with this payload type.
    Media { payload_type: u8 },
    /// RTCP.
    Control,
}

/// A port that is read.
pub(super) struct Receiver {
    pub(super) socket: UdpSocket,
    pub(super) source: gst_app::AppSrc,
    pub(super) gate: Arc<Gate>,
    /// Of the stream, shared by its two ports.
    pub(super) sender: Arc<Sender>,
    pub(super) expected: Expected,
    pub(super) outlet: Outlet,
}

/// Binds a port, and joins the group where there is one.
pub(super) fn open(settings: &RtpCamera, port: u16) -> Result<UdpSocket, WorkError> {
    let to = settings.group.unwrap_or(settings.listen);
    bind(settings, SocketAddr::new(to, port))
        .map_err(|error| WorkError::Element { element: format!("UDP port {port}"), text: error.to_string() })
}

fn bind(settings: &RtpCamera, to: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(UDP_BUFFER as usize)?;
    // Others may listen to a group as well, but nobody to a port of ours.
    socket.set_reuse_address(settings.group.is_some())?;
    // To the group itself: else packets of other groups that somebody here joined would come, too.
    socket.bind(&to.into())?;
    match settings.group {
        Some(IpAddr::V4(group)) => {
            socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(settings.interface))?;
        }
        Some(IpAddr::V6(group)) => socket.join_multicast_v6(&group, settings.interface)?,
        None => {}
    }
    socket.set_read_timeout(Some(LOOK_AGAIN))?;
    Ok(socket.into())
}

impl Receiver {
    /// Reads until the pipeline takes nothing more or the gateway is gone.
    pub(super) fn start(self, port: u16) -> Result<(), WorkError> {
        let thread = std::thread::Builder::new().name(format!("rtp-{port}")).stack_size(256 << 10);
        thread
            .spawn(move || self.read())
            .map(drop)
            .map_err(|error| WorkError::Element { element: "receiver".into(), text: error.to_string() })
    }

    fn read(self) {
        let mut packet = vec![0; PACKET_MAX];
        while !self.outlet.is_closed() {
            let (len, from) = match self.socket.recv_from(&mut packet) {
                Ok(received) => received,
                Err(error) if is_passing(error.kind()) => continue,
                Err(error) => {
                    let text = format!("the port cannot be read: {error}");
                    return gst::element_error!(self.source, gst::ResourceError::Read, ("{text}"));
                }
            };
            if !self.gate.lets_in(from.ip()) {
                continue;
            }
            let packet = packet.get(..len).unwrap_or_default();
            let taken = match self.expected {
                Expected::Media { payload_type } => match self.media(packet, payload_type) {
                    Ok(packet) => Some(packet),
                    Err(Refusal::Changed) => {
                        // Its old packets will not come again: begin with the new ones from the start.
                        let text = "the sender began anew with another SSRC";
                        return gst::element_error!(self.source, gst::StreamError::Failed, ("{text}"));
                    }
                    Err(Refusal::Because(why)) => {
                        self.gate.refuse(from.ip(), why);
                        None
                    }
                },
                Expected::Control => self.sender.known().and_then(|ssrc| control::reports(packet, ssrc)),
            };
            // It refuses only while the pipeline stops.
            if taken.is_some_and(|taken| self.source.push_buffer(gst::Buffer::from_slice(taken)).is_err()) {
                return;
            }
        }
    }

    fn media(&self, packet: &[u8], payload_type: u8) -> Result<Vec<u8>, Refusal> {
        let [first, second, _, _, _, _, _, _, ssrc @ ..] = packet else {
            return Err(Refusal::Because("too short for RTP"));
        };
        let Some((ssrc, [_, ..])) = ssrc.split_first_chunk() else {
            return Err(Refusal::Because("too short for RTP"));
        };
        if first >> 6 != 2 {
            return Err(Refusal::Because("no RTP of version 2"));
        }
        // Mixers name those whose sound they mix. No camera does, and each name would be kept for a while.
        if first & 0x0f != 0 {
            return Err(Refusal::Because("which names contributing sources"));
        }
        if second & 0x7f != payload_type {
            return Err(Refusal::Because("of another payload type"));
        }
        match self.sender.hear(u32::from_be_bytes(*ssrc), gst::glib::monotonic_time()) {
            Heard::Known => Ok(packet.to_vec()),
            Heard::Another => Err(Refusal::Because("of a second sender (SSRC) at the same time")),
            Heard::Changed => Err(Refusal::Changed),
        }
    }
}

/// Why a packet is not taken.
enum Refusal {
    Because(&'static str),
    Changed,
}

/// Nothing came, a signal, or an answer to something that a stranger's machine said.
fn is_passing(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted | ErrorKind::ConnectionRefused
    )
}
