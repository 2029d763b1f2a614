//! The probe against a server in memory.

use super::*;
use std::net::IpAddr;

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 10.0.0.7\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
    a=fmtp:96 packetization-mode=1\r\nm=audio 0 RTP/AVP 0\r\na=control:track2\r\n";

fn url(path: &str) -> ServiceUrl {
    let camera: IpAddr = "10.0.0.7".parse().unwrap();
    ServiceUrl::stream(&format!("rtsp://10.0.0.7{path}"), camera).unwrap().url
}

fn admin(password: &str) -> Option<Credentials> {
    Some(Credentials { user: "admin".to_owned(), password: password.to_owned() })
}

/// A server that has one path and counts wrong logins.
#[derive(Default)]
struct Server {
    path: &'static str,
    basic: bool,
    open: bool,
    /// Answers 401 for paths that it has not, whatever the login.
    hides: bool,
    bad_logins: u32,
    requests: u32,
}

impl Server {
    fn answer(&mut self, request: &Request) -> Response {
        self.requests += 1;
        let text = String::from_utf8(request.bytes.clone()).unwrap();
        let method = text.split(' ').next().unwrap();
        let challenge =
            if self.basic { "Basic realm=\"cam\"" } else { "Digest realm=\"cam\", nonce=\"n1\"" }.to_owned();
        let denied = Response { status: 401, challenges: vec![challenge.clone()], ..Response::default() };
        if method == "OPTIONS" {
            return Response { status: 200, ..Response::default() };
        }
        let sent = text.lines().find_map(|line| line.strip_prefix("Authorization: "));
        match sent {
            None if !self.open => return denied,
            Some(sent) => {
                let credentials = admin("s3cret").unwrap();
                let right = if self.basic {
                    http_auth::basic(&credentials)
                } else {
                    let Some(Challenge::Digest(digest)) =
                        http_auth::challenges(std::iter::once(challenge.as_str())).pop()
                    else {
                        panic!()
                    };
                    let uri = request.url.to_string();
                    digest.authorization(
                        &credentials,
                        Proof { method: "DESCRIBE", uri: &uri, count: 1, cnonce: "" },
                    )
                };
                if sent != right {
                    self.bad_logins += 1;
                    return denied;
                }
            }
            None => {}
        }
        if request.url.target == self.path {
            Response { status: 200, body: SDP.as_bytes().to_vec(), ..Response::default() }
        } else if self.hides {
            denied
        } else {
            Response { status: 404, ..Response::default() }
        }
    }

    fn probe(&mut self, paths: &[&str], credentials: Option<Credentials>, basic: bool) -> Outcome {
        let mut probe = Probe::new(paths.iter().map(|path| url(path)).collect(), credentials, basic);
        for _ in 0..100 {
            match probe.poll_action([3; 16]) {
                Action::Done => return probe.finish(),
                Action::Send(request) => {
                    let response = self.answer(&request);
                    probe.handle_response(&response);
                }
            }
        }
        panic!("the probe never ends");
    }
}

#[test]
fn a_stream_is_found_with_its_codecs() {
    let mut server = Server { path: "/main", ..Server::default() };
    let outcome = server.probe(&["/main"], admin("s3cret"), false);
    let found = outcome.found.unwrap();
    assert_eq!(found.url.to_string(), "rtsp://10.0.0.7/main");
    let codecs: Vec<_> = found.streams.iter().map(|one| (one.kind.as_str(), one.codec.as_deref())).collect();
    assert_eq!(codecs, [("video", Some("H264")), ("audio", Some("PCMU"))]);
    assert_eq!((outcome.login, outcome.cause, server.bad_logins), (Login::Accepted, None, 0));
}

#[test]
fn patterns_are_tried_with_a_login_that_was_taken() {
    let mut server = Server { path: "/stream1", ..Server::default() };
    let outcome = server.probe(&COMMON_PATHS, admin("s3cret"), false);
    assert_eq!(outcome.found.unwrap().url.target, "/stream1");
    assert_eq!(server.bad_logins, 0);
    let mut server = Server { path: "/nowhere", ..Server::default() };
    let outcome = server.probe(&COMMON_PATHS, admin("s3cret"), false);
    assert_eq!(outcome.cause, Some(Cause::NotFound(COMMON_PATHS.len())));
    let mut open = Server { path: "/live", open: true, ..Server::default() };
    let outcome = open.probe(&COMMON_PATHS, admin("s3cret"), false);
    assert_eq!((outcome.login, outcome.found.is_some()), (Login::Unused, true));
}

#[test]
fn a_refused_password_ends_all_patterns() {
    let mut server = Server { path: "/stream1", ..Server::default() };
    let outcome = server.probe(&COMMON_PATHS, admin("wrong"), false);
    assert_eq!((outcome.login, outcome.cause), (Login::Refused, Some(Cause::LoginRefused)));
    assert_eq!(server.bad_logins, 1, "not once per pattern");
    let mut hiding = Server { path: "/stream1", hides: true, ..Server::default() };
    let outcome = hiding.probe(&["/nowhere", "/stream1"], admin("s3cret"), false);
    assert_eq!(outcome.cause, Some(Cause::LoginRefused), "a 401 cannot be told from a wrong password");
}

#[test]
fn basic_goes_out_only_with_consent() {
    let mut server = Server { path: "/main", basic: true, ..Server::default() };
    let outcome = server.probe(&["/main"], admin("s3cret"), false);
    assert_eq!((outcome.login, outcome.cause), (Login::Unused, Some(Cause::BasicNeedsConsent)));
    let outcome = server.probe(&["/main"], admin("s3cret"), true);
    assert_eq!((outcome.login, outcome.found.is_some()), (Login::Accepted, true));
    let outcome = server.probe(&["/main"], None, true);
    assert_eq!(outcome.cause, Some(Cause::CredentialsWanted));
}

#[test]
fn silence_and_redirects_lead_nowhere() {
    let mut probe = Probe::new(vec![url("/a"), url("/b")], admin("s3cret"), false);
    assert!(matches!(probe.poll_action([0; 16]), Action::Send(_)));
    probe.handle_failure();
    assert_eq!(probe.poll_action([0; 16]), Action::Done);
    assert_eq!(probe.finish().cause, Some(Cause::NoAnswer));
    let mut probe = Probe::new(vec![url("/a")], None, false);
    while let Action::Send(request) = probe.poll_action([0; 16]) {
        assert_eq!(request.url.host, "10.0.0.7".parse::<IpAddr>().unwrap());
        probe.handle_response(&Response { status: 302, ..Response::default() });
    }
    assert_eq!(probe.finish().cause, Some(Cause::NotFound(1)));
}

#[test]
fn responses_come_in_any_pieces_and_have_bounds() {
    let wire = format!(
        "RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: {}\r\n\r\n{SDP}RTSP/1.0 401\r\n\r\n",
        SDP.len()
    );
    for step in [1, 7, 4_096] {
        let mut reader = Reader::default();
        let mut got = Vec::new();
        for piece in wire.as_bytes().chunks(step) {
            reader.push(piece);
            while let Some(response) = reader.take().unwrap() {
                got.push(response);
            }
        }
        assert_eq!((got.len(), got[0].body.as_slice(), got[1].status), (2, SDP.as_bytes(), 401));
    }
    let read = |wire: &[u8]| {
        let mut reader = Reader::default();
        reader.push(wire);
        reader.take()
    };
    assert_eq!(read(&vec![b'x'; MAX_HEAD_LEN + 1]), Err(ReadError::HeadTooLong));
    assert_eq!(read(&vec![b'x'; MAX_HEAD_LEN]), Ok(None));
    let long = format!("RTSP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", MAX_BODY_LEN + 1);
    assert_eq!(read(long.as_bytes()), Err(ReadError::BodyTooLong));
    for wire in
        ["HTTP/1.1 200 OK\r\n\r\n", "RTSP/1.0 99\r\n\r\n", "RTSP/1.0 200\r\nContent-Length: x\r\n\r\n"]
    {
        assert_eq!(read(wire.as_bytes()), Err(ReadError::Malformed), "{wire}");
    }
}

#[test]
fn descriptions_are_read_leniently_and_bounded() {
    let many = "m=video 0 RTP/AVP 26\r\n".repeat(100);
    let streams = parse_sdp(many.as_bytes());
    assert_eq!((streams.len(), streams[0].codec.as_deref()), (16, Some("JPEG")));
    assert_eq!(parse_sdp(b"<html>"), []);
    let odd =
        parse_sdp(b"m=video 0 RTP/AVP 97\na=rtpmap:96 H264/90000\na=rtpmap:97 h265/90000\nm=text 0 x 1\n");
    assert_eq!(
        odd,
        [SdpStream { kind: "video".into(), codec: Some("H265".into()), clock_rate: Some(90_000) }]
    );
}

#[test]
fn what_servers_say_survives_mutation() {
    let mut talk = vec![40_u8];
    talk.extend(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\nRTSP/1.0 401 No\r\nWWW-Authenticate: Digest realm=\"a\", nonce=\"b\"\r\n\r\n");
    talk.extend(format!("RTSP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{SDP}", SDP.len()).into_bytes());
    crate::mutation::run(fuzz, &[talk], 3_000, 0x2545_F491_4F6C_DD1D);
}
