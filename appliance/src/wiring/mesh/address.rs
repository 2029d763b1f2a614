//! Where the master is, and how it is called.

use fieldgate_compat::node::Call;
use fieldgate_compat::{CallOutcome, Reply};
use fieldgate_model::config::{SecretUrl, UrlParts};
use fieldgate_net::{ClientTls, HttpCall};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use tokio::net::UdpSocket;

/// For connecting and sending, and then for the reply: ten seconds together.
const HALF: Duration = Duration::from_secs(5);
/// Bytes of a reply: tables and their head.
const REPLY_MAX: usize = (1 << 20) + (16 << 10);

/// The master, as it is called.
#[derive(Clone, Debug)]
pub(super) struct Address {
    host: String,
    port: u16,
    tls: Option<ClientTls>,
    /// Endpoints are put behind it.
    base: String,
}

impl Address {
    /// `None` for an address that no valid config has.
    pub(super) fn new(url: &str, tls: Option<ClientTls>) -> Option<Address> {
        let url = SecretUrl::new(url);
        let UrlParts { scheme, host, port, path, .. } = url.parts().ok()?;
        let is_tls = scheme.eq_ignore_ascii_case("https");
        Some(Address {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: port.unwrap_or(if is_tls { 443 } else { 80 }),
            tls: tls.filter(|_| is_tls),
            base: path.trim_end_matches('/').to_owned(),
        })
    }

    /// Makes a call; it ends by itself.
    pub(super) async fn call(self, call: Call) -> CallOutcome {
        let request = HttpCall {
            method: call.method,
            host: self.host,
            port: self.port,
            tls: self.tls,
            target: format!("{}{}", self.base, call.path),
            headers: call
                .headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.reveal().to_owned()))
                .collect(),
            body: call.body,
            send_timeout: HALF,
            read_timeout: HALF,
            reply_max_bytes: REPLY_MAX,
            until_close: false,
        };
        match request.send().await {
            Ok(reply) => {
                CallOutcome::Replied(Reply { status: reply.status, headers: Vec::new(), body: reply.body })
            }
            Err(error) => CallOutcome::Failed(crate::steward::chain(&error)),
        }
    }

    /// The address that we reach the master from; nothing is sent.
    pub(super) async fn own(self) -> Option<Ipv4Addr> {
        let finding = async {
            let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await.ok()?;
            let target = found.into_iter().find(|address| address.is_ipv4())?;
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok()?;
            socket.connect(target).await.ok()?;
            match socket.local_addr().ok()?.ip() {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            }
        };
        tokio::time::timeout(HALF, finding).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_stand_behind_the_masters_address_as_they_are() {
        let parts = |url| {
            Address::new(url, Some(ClientTls::public()))
                .map(|at| (at.host, at.port, at.tls.is_some(), at.base))
        };
        let some = |host: &str, port, tls, base: &str| Some((host.to_owned(), port, tls, base.to_owned()));
        assert_eq!(parts("https://m.example"), some("m.example", 443, true, ""));
        assert_eq!(parts("https://m.example:8443/api/"), some("m.example", 8443, true, "/api"));
        assert_eq!(parts("http://[::1]:80/"), some("::1", 80, false, ""));
        assert_eq!(parts("nothing"), None);
    }

    #[tokio::test]
    async fn the_own_address_is_the_one_that_the_master_sees() {
        let at = Address::new("http://127.0.0.1:9", None).unwrap();
        assert_eq!(at.own().await, Some(Ipv4Addr::LOCALHOST));
    }
}
