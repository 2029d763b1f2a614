//! Ports that the kernel has free for a test's RTP.

use std::net::UdpSocket;

/// An even port that is free, and so are the three after it.
pub(crate) fn port() -> u16 {
    loop {
        let one = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = one.local_addr().unwrap().port();
        let is_free = |port: u16| UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if port.is_multiple_of(2) && port < 65_000 && (port + 1..port + 4).all(is_free) {
            return port;
        }
    }
}
