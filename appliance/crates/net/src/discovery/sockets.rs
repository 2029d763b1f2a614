//! The UDP sockets of discovery: one per interface and protocol to ask with, one to hear who comes and goes.

use super::interfaces::Interface;
use fieldgate_proto::onvif::ws_discovery;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use tokio::net::UdpSocket;

/// Kernel buffer for answers, in bytes: a site's cameras all answer within half a second.
const RECEIVE_BYTES: usize = 256 << 10;

/// A socket that asks on one interface, and whose answers come to it alone.
pub(super) fn asking(interface: &Interface, ttl: u32) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_multicast_if_v4(&interface.address)?;
    socket.set_multicast_ttl_v4(ttl)?;
    socket.set_multicast_loop_v4(interface.address.is_loopback())?;
    socket.set_recv_buffer_size(RECEIVE_BYTES)?;
    socket.bind(&SocketAddr::from((interface.address, 0)).into())?;
    UdpSocket::from_std(socket.into())
}

/// A socket that hears what cameras tell everybody, on these interfaces. Shares its port with other programs.
pub(super) fn hearing(interfaces: &[Interface], port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    // Only the interfaces that were joined here, not those that other programs joined.
    socket.set_multicast_all_v4(false)?;
    socket.set_recv_buffer_size(RECEIVE_BYTES)?;
    socket.bind(&SocketAddr::V4(SocketAddrV4::new(ws_discovery::GROUP, port)).into())?;
    for interface in interfaces {
        join(&socket, interface.address)?;
    }
    UdpSocket::from_std(socket.into())
}

fn join(socket: &Socket, interface: Ipv4Addr) -> io::Result<()> {
    let address = InterfaceIndexOrAddress::Address(interface);
    match socket.join_multicast_v4_n(&ws_discovery::GROUP, &address) {
        // A second address of an interface that was joined already.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
        joined => joined,
    }
}
