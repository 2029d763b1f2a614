//! Fuzz targets over what cameras and strangers send: any bytes, and nothing panics or grows without bound.
//!
//! Plain functions: `cargo test` runs them over fixtures and a fixed seed of mutations; a fuzzer may call them too.

use super::{Action, Client, Moment, Reply, ServiceUrl, Wish, soap, ws_discovery, xml};
use super::{EncoderWish, VideoCodec};
use crate::http_auth::{self, Challenge, Credentials, Proof};
use std::net::{IpAddr, Ipv4Addr};

const CAMERA: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));

/// A datagram on the discovery port.
pub fn announcement(data: &[u8]) {
    if let Ok(found) = ws_discovery::parse(data) {
        assert!((1..=ws_discovery::MAX_MATCHES).contains(&found.len()));
        for one in found {
            assert!(one.xaddrs.len() <= ws_discovery::MAX_XADDRS);
            for xaddr in &one.xaddrs {
                service_url(xaddr.as_bytes());
            }
        }
    }
}

/// XML: what reads is a tree within its bounds.
pub fn document(data: &[u8]) {
    if let Ok(root) = xml::parse(data) {
        assert!(depth(&root) <= xml::MAX_DEPTH);
        drop(soap::answer(data));
    }
}

fn depth(element: &xml::Element) -> usize {
    element.children.iter().map(depth).max().unwrap_or(0).saturating_add(1)
}

/// An address that a camera tells: only ever the camera itself comes out.
pub fn service_url(data: &[u8]) {
    let told = String::from_utf8_lossy(data);
    let known = ServiceUrl::device_service(CAMERA, 8_080);
    for anchored in
        [ServiceUrl::service(&told, &known), ServiceUrl::stream(&told, CAMERA)].into_iter().flatten()
    {
        assert_eq!(anchored.url.host, CAMERA);
        assert!(anchored.url.port > 0 && anchored.url.target.starts_with('/'));
        assert!(!anchored.url.target.chars().any(|c| c.is_control() || c.is_whitespace()));
    }
}

/// One answer to every call of every wish; the first byte chooses status and wish.
pub fn answers(data: &[u8]) {
    let Some((&first, body)) = data.split_first() else { return };
    let status = [200, 200, 400, 401, 500, 302].get(usize::from(first % 6)).copied().unwrap_or(200);
    let challenges = ["Digest realm=\"r\", nonce=\"n\", qop=\"auth\"".to_owned()];
    let encoder =
        EncoderWish { profile: "main".to_owned(), codec: Some(VideoCodec::H264), ..EncoderWish::default() };
    let wishes = [Wish::Survey, Wish::SetEncoder(encoder), Wish::Reboot, Wish::SetClock];
    for wish in wishes {
        let credentials = Credentials { user: "u".to_owned(), password: "p".to_owned() };
        let device = ServiceUrl::device_service(CAMERA, 80);
        let mut client = Client::new(device, Some(credentials), false, wish);
        let mut calls = 0_u32;
        while let Action::Call(call) = client.poll_action(Moment { unix_millis: 0, random: [7; 16] }) {
            assert_eq!(call.url.host, CAMERA);
            calls = calls.saturating_add(1);
            assert!(calls <= 64, "it ends");
            client.handle_reply(Reply { status, challenges: &challenges, body }, 0);
        }
        drop(client.finish());
    }
}

/// A `WWW-Authenticate` header: what can be answered is answered in one line.
pub fn challenge(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let credentials = Credentials { user: "u\"\r\n".to_owned(), password: "p".to_owned() };
    for challenge in http_auth::challenges(std::iter::once(text.as_ref())) {
        if let Challenge::Digest(digest) = challenge {
            let proof = Proof { method: "POST", uri: "/x", count: 1, cnonce: "c" };
            let header = digest.authorization(&credentials, proof);
            assert!(!header.contains(['\r', '\n', '\0']));
        }
    }
}

/// A function that takes any bytes and must return.
pub type Target = fn(&[u8]);

/// All targets by name, for runners.
pub const TARGETS: [(&str, Target); 5] = [
    ("announcement", announcement),
    ("document", document),
    ("service_url", service_url),
    ("answers", answers),
    ("challenge", challenge),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::run;

    macro_rules! fixture {
        ($name:literal) => {
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/onvif/", $name)).to_vec()
        };
    }

    #[test]
    fn what_cameras_say_survives_mutation() {
        let spoken = [fixture!("probe-matches.xml"), fixture!("hello-no-namespaces.xml")];
        run(announcement, &spoken, 400, 0x9E37_79B9_7F4A_7C15);
        let answered = [fixture!("media1-profiles.xml"), fixture!("media2-profiles.xml")];
        run(document, &answered, 200, 0xD1B5_4A32_D192_ED03);
        let answered = answered.map(|body| [vec![0], body].concat());
        run(answers, &answered, 60, 0x2545_F491_4F6C_DD1D);
    }

    #[test]
    fn addresses_and_challenges_survive_mutation() {
        let urls = ["http://10.0.0.7:80/onvif/media?a=b", "rtsp://u:p@[fe80::1%25eth0]:554/x"];
        run(service_url, &urls.map(|url| url.as_bytes().to_vec()), 2_000, 0x1234_5678_9ABC_DEF1);
        let headers = [
            "Digest realm=\"a\\\"b\", nonce=\"x\", qop=\"auth,auth-int\", algorithm=SHA-256, stale=true",
            "Basic realm=\"x\", Digest nonce=n",
        ];
        run(challenge, &headers.map(|header| header.as_bytes().to_vec()), 2_000, 0x0F0F_1234_5678_9ABC);
    }
}
