//! Addresses that a test keeps while nobody listens there.

use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

/// Bound and never listened on: the kernel gives their ports to nobody who asks for any port.
static KEPT: Mutex<Vec<Socket>> = Mutex::new(Vec::new());

/// An address of 127.0.0.1 that is this process's until it ends. Whoever connects is refused until a server listens
/// there, which must set `SO_REUSEADDR`, as servers do.
pub(crate) fn own_address() -> SocketAddr {
    own_address_of(Ipv4Addr::LOCALHOST)
}

/// The same of another address of this machine.
pub(crate) fn own_address_of(host: Ipv4Addr) -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((host, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
    address
}
