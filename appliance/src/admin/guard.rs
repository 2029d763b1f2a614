//! Refuses what another web site makes a browser send.
//!
//! A page on the internet can make the installer's browser talk to loopback and to the local network. The name in
//! `Host` gives away a name that was rebound to our address; `Origin` and `Sec-Fetch-Site` give away a foreign page.
//! Source: RFC 9110 section 7.2; Fetch Metadata.

use super::head::RequestHead;
use crate::local_name::LocalName;
use std::net::IpAddr;

/// Who this gateway answers as.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    names: Vec<String>,
    local_name: LocalName,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum GuardError {
    /// Not one of our names.
    #[error("this gateway is not called {0:?}; use its address or localhost")]
    Host(String),
    /// From a page of another site.
    #[error("a page of another site may not ask this gateway")]
    CrossSite,
}

impl GuardError {
    /// The HTTP status that says so.
    pub(super) fn status(&self) -> u16 {
        match self {
            GuardError::Host(_) => 421,
            GuardError::CrossSite => 403,
        }
    }
}

impl Guard {
    /// Answers as the address that was reached, as loopback, and as these host names (any case, without port), and as
    /// the gateway's name in the local networks, which may change.
    pub(super) fn new(names: &[String], local_name: LocalName) -> Self {
        let mut known = vec!["localhost".to_owned()];
        known.extend(names.iter().map(|name| name.to_ascii_lowercase()));
        Guard { names: known, local_name }
    }

    /// Looks at who is asked, and which page asks. `local` is the address that the connection has reached.
    pub(super) fn check(&self, head: &RequestHead, local: IpAddr) -> Result<(), GuardError> {
        if !self.is_ours(&head.host, local) {
            return Err(GuardError::Host(head.host.clone()));
        }
        if let Some(origin) = &head.origin {
            let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            if !authority.is_some_and(|authority| authority.eq_ignore_ascii_case(&head.host)) {
                return Err(GuardError::CrossSite);
            }
        }
        match head.fetch_site.as_deref() {
            None | Some("same-origin" | "none") => Ok(()),
            // A link on another page may open the status page; it may not read it, and it may do nothing else.
            Some(_) if head.method.is_safe() && head.origin.is_none() && head.path() == "/" => Ok(()),
            Some(_) => Err(GuardError::CrossSite),
        }
    }

    /// The port is not looked at: a tunnel comes in over another one, and a rebound name is told by its name.
    fn is_ours(&self, host: &str, local: IpAddr) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((address, port)) if is_port(port) => address,
                _ => return false,
            },
            None => match host.find(':') {
                Some(at) if is_port(host.get(at..).unwrap_or_default()) => host.get(..at).unwrap_or_default(),
                Some(_) => return false,
                None => host,
            },
        };
        match name.parse::<IpAddr>() {
            Ok(address) => address.is_loopback() || address.to_canonical() == local.to_canonical(),
            Err(_) => {
                self.names.iter().any(|known| name.eq_ignore_ascii_case(known)) || self.local_name.is(name)
            }
        }
    }
}

fn is_port(text: &str) -> bool {
    let is_number =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    text.is_empty() || text.strip_prefix(':').is_some_and(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn guard() -> Guard {
        Guard::new(&["Gate-7.local".to_owned()], LocalName::new("fg-7f3a"))
    }

    fn head(method: &str, target: &str, headers: &str) -> RequestHead {
        RequestHead::parse(format!("{method} {target} HTTP/1.1\r\n{headers}\r\n").as_bytes()).unwrap()
    }

    #[test]
    fn only_our_own_names_are_answered_to() {
        for host in [
            "127.0.0.1:8080",
            "127.0.0.1",
            "localhost:9",
            "LOCALHOST",
            "[::1]:80",
            "gate-7.local:8080",
            "FieldGate-7f3a.local",
        ] {
            let head = head("GET", "/healthz", &format!("Host: {host}\r\n"));
            assert_eq!(guard().check(&head, LOCAL), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:8080",
            "127.0.0.1.nip.example",
            "10.0.0.1:8080",
            "localhost:80:80",
            "localhost:99999",
            "localhost:+80",
            "user@localhost",
            "[::1",
            "[::1]x",
            ":8080",
        ] {
            let head = head("GET", "/healthz", &format!("Host: {host}\r\n"));
            assert_eq!(guard().check(&head, LOCAL), Err(GuardError::Host(host.to_owned())), "{host}");
        }
    }

    #[test]
    fn the_address_that_was_reached_is_ours_and_no_other() {
        let head = head("GET", "/healthz", "Host: 10.0.0.1:8443\r\n");
        let reached = |local: &str| guard().check(&head, local.parse().unwrap());
        assert_eq!(reached("10.0.0.1"), Ok(()));
        assert_eq!(reached("::ffff:10.0.0.1"), Ok(()), "by a listener for both families");
        assert!(reached("10.0.0.2").is_err());
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let check = |method, target, extra: &str| {
            guard().check(&head(method, target, &format!("Host: localhost:8080\r\n{extra}")), LOCAL)
        };
        assert_eq!(check("PUT", "/api/v1/config", "Origin: http://localhost:8080\r\n"), Ok(()));
        for origin in
            ["http://evil.example", "null", "http://localhost", "http://localhost:8081", "localhost:8080"]
        {
            let said = check("GET", "/api/v1/status", &format!("Origin: {origin}\r\n"));
            assert_eq!(said, Err(GuardError::CrossSite), "{origin}");
        }
        for site in ["cross-site", "same-site", "odd"] {
            let site = format!("Sec-Fetch-Site: {site}\r\n");
            assert_eq!(check("POST", "/api/v1/config/confirm", &site), Err(GuardError::CrossSite));
            assert_eq!(check("GET", "/api/v1/config", &site), Err(GuardError::CrossSite));
            assert_eq!(check("GET", "/", &site), Ok(()), "a link to the page works");
        }
        assert_eq!(check("PUT", "/api/v1/config", "Sec-Fetch-Site: same-origin\r\n"), Ok(()));
    }
}
