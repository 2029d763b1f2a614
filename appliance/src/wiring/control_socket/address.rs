//! Where the coordinator's sockets are.

use fieldgate_model::config::{SecretUrl, UrlParts};
use fieldgate_net::{ClientTls, SocketCall, Target};
use std::time::Duration;

/// Name, connection, TLS and answer together.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// Longest message of a control socket, in bytes.
const MESSAGE_BYTES: usize = 64 << 10;

/// The coordinator's address.
#[derive(Clone, Debug)]
pub(in crate::wiring) struct Address {
    server: Target,
    /// Begins and ends with `/`.
    base: String,
}

impl Address {
    /// `None` for an address that no valid config has.
    pub(in crate::wiring) fn new(url: &str, tls: Option<ClientTls>) -> Option<Address> {
        let url = SecretUrl::new(url);
        let UrlParts { scheme, host, port, path, .. } = url.parts().ok()?;
        let is_tls = scheme.eq_ignore_ascii_case("wss");
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = port.unwrap_or(if is_tls { 443 } else { 80 });
        // Some servers put the base before the path, others leave it out: only one that says so is kept.
        let base = if path.ends_with('/') { path } else { "/" };
        Some(Address { server: Target { host, port, tls: tls.filter(|_| is_tls) }, base: base.to_owned() })
    }

    /// How the socket at `path` is opened, such as `ws/control/rtmp`.
    pub(in crate::wiring) fn call(&self, path: &str, headers: Vec<(&'static str, String)>) -> SocketCall {
        let target = format!("{}{path}", self.base);
        SocketCall {
            server: self.server.clone(),
            target,
            headers,
            within: OPEN_WITHIN,
            message_bytes: MESSAGE_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_24_sockets_are_below_the_base() {
        let of = |url: &str| {
            let call =
                Address::new(url, Some(ClientTls::public())).unwrap().call("ws/control/rtmp", Vec::new());
            (call.server.host, call.server.port, call.server.tls.is_some(), call.target)
        };
        let some = |host: &str, port, tls, target: &str| (host.to_owned(), port, tls, target.to_owned());
        assert_eq!(of("wss://c.example"), some("c.example", 443, true, "/ws/control/rtmp"));
        assert_eq!(of("ws://c.example/"), some("c.example", 80, false, "/ws/control/rtmp"));
        assert_eq!(of("WSS://[::1]:8443/base/"), some("::1", 8443, true, "/base/ws/control/rtmp"));
        assert_eq!(of("ws://c:81/other"), some("c", 81, false, "/ws/control/rtmp"));
    }
}
