//! Who may call.

use super::reply::Refused;
use crate::Request;
use fieldgate_model::config::Aggregator;
use std::hint::black_box;
use std::net::{IpAddr, Ipv6Addr};

/// Whether this caller may ask anything at all.
pub(super) fn check(request: &Request, settings: &Aggregator) -> Result<(), Refused> {
    let peer = request.peer.to_canonical();
    let is_listed = settings.allow.iter().any(|network| network.contains(peer));
    let is_near = match (settings.allow.is_empty(), &settings.token) {
        (false, _) => is_listed,
        (true, Some(_)) => true,
        (true, None) => is_private(peer),
    };
    if !is_near {
        return Err(Refused::new(403, "your address may not call this API; ask for it to be added to allow"));
    }
    if let Some(token) = &settings.token {
        let shown = header(request, "authorization").and_then(bearer);
        if !shown.is_some_and(|shown| is_same(shown.as_bytes(), token.reveal().as_bytes())) {
            return Err(Refused::new(401, "the token is missing or wrong; send Authorization: Bearer TOKEN"));
        }
        return Ok(());
    }
    // Without a token a web page could call through the browser of somebody who may. No client of this API is one.
    let is_of_a_page = header(request, "origin").is_some()
        || header(request, "sec-fetch-site").is_some_and(|site| site != "none");
    if is_of_a_page {
        return Err(Refused::new(403, "web pages may call this API only with a token"));
    }
    Ok(())
}

/// The first header of that name.
pub(super) fn header<'r>(request: &'r Request, name: &str) -> Option<&'r str> {
    request.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Takes as long wherever they differ.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0_u8, |all, (a, b)| black_box(all | (a ^ b)));
    one.len() == other.len() && differences == 0
}

fn is_private(peer: IpAddr) -> bool {
    match peer {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6 == Ipv6Addr::LOCALHOST || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ask(settings: serde_json::Value, peer: &str, headers: &[(&str, &str)]) -> u16 {
        let settings: Aggregator = serde_json::from_value(settings).unwrap();
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let request = Request {
            method: "GET".into(),
            target: "/stats".into(),
            headers: headers.collect(),
            body: Vec::new(),
            peer: peer.parse().unwrap(),
        };
        check(&request, &settings).err().map_or(200, |refused| refused.status)
    }

    #[test]
    fn without_a_token_only_near_networks_may_call() {
        for (peer, status) in [
            ("127.0.0.1", 200),
            ("10.1.2.3", 200),
            ("172.31.0.1", 200),
            ("192.168.7.7", 200),
            ("fd00::1", 200),
            ("::1", 200),
            ("::ffff:10.0.0.1", 200),
            ("172.32.0.1", 403),
            ("8.8.8.8", 403),
            ("2001:db8::1", 403),
        ] {
            assert_eq!(ask(json!({}), peer, &[]), status, "{peer}");
        }
        let allow = json!({"allow": ["8.8.8.0/24"]});
        assert_eq!(ask(allow.clone(), "8.8.8.8", &[]), 200);
        assert_eq!(ask(allow, "10.1.2.3", &[]), 403, "a list stands for itself");
    }

    #[test]
    fn a_token_is_asked_for_from_everywhere() {
        let token = json!({"token": "s3cret"});
        for (value, status) in [
            ("Bearer s3cret", 200),
            ("bearer s3cret", 200),
            ("Bearer s3cre", 401),
            ("Bearer s3crets", 401),
            ("Bearer ", 401),
            ("Basic s3cret", 401),
            ("s3cret", 401),
        ] {
            assert_eq!(ask(token.clone(), "8.8.8.8", &[("authorization", value)]), status, "{value}");
        }
        assert_eq!(ask(token.clone(), "127.0.0.1", &[]), 401);
        let both = json!({"token": "s3cret", "allow": ["10.0.0.0/8"]});
        assert_eq!(ask(both, "8.8.8.8", &[("authorization", "Bearer s3cret")]), 403);
    }

    #[test]
    fn a_web_page_needs_a_token() {
        let page = [("origin", "http://evil.example")];
        assert_eq!(ask(json!({}), "127.0.0.1", &page), 403);
        assert_eq!(ask(json!({}), "127.0.0.1", &[("sec-fetch-site", "cross-site")]), 403);
        assert_eq!(ask(json!({}), "127.0.0.1", &[("sec-fetch-site", "none")]), 200, "typed by hand");
        let with_token = [("origin", "http://cms.example"), ("authorization", "Bearer t")];
        assert_eq!(ask(json!({"token": "t"}), "127.0.0.1", &with_token), 200);
    }
}
