//! The camera's RTSP server, as far as a description goes.

use super::{Shared, auth, read_until};
use std::io::Write as _;
use std::net::TcpStream;

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
    a=control:track1\r\nm=audio 0 RTP/AVP 8\r\na=control:track2\r\n";

pub(super) fn serve(mut stream: TcpStream, shared: &Shared) {
    let mut bytes = Vec::new();
    let head_len = |bytes: &[u8]| bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    while read_until(&mut stream, &mut bytes, shared, |bytes| head_len(bytes).is_some()) {
        let head: Vec<u8> = bytes.drain(..head_len(&bytes).unwrap()).collect();
        let answer = answer(&String::from_utf8(head).unwrap(), shared);
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(head: &str, shared: &Shared) -> String {
    let mut words = head.split(' ');
    let (method, url) = (words.next().unwrap(), words.next().unwrap());
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let sequence = header("CSeq:").unwrap();
    shared.state().requests.push(format!("{method} {url}"));
    let reply = |status: &str, more: &str, body: &str| {
        let len = body.len();
        format!("RTSP/1.0 {status}\r\nCSeq: {sequence}\r\n{more}Content-Length: {len}\r\n\r\n{body}")
    };
    if method == "OPTIONS" {
        return reply("200 OK", "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n", "");
    }
    let sent = header("Authorization:");
    let verdict = sent.and_then(|sent| auth::header_is_right(shared, sent, method));
    let may = shared.settings.open || verdict.is_some_and(|right| shared.state().judge(right));
    if !may {
        let challenge = auth::challenge(shared, true).unwrap();
        return reply("401 Unauthorized", &format!("WWW-Authenticate: {challenge}\r\n"), "");
    }
    let (_, path) = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).unwrap();
    let is_there = format!("/{path}") == shared.settings.rtsp_path
        || (shared.settings.onvif && matches!(path, "main" | "sub"));
    if is_there {
        reply("200 OK", "Content-Type: application/sdp\r\n", SDP)
    } else {
        reply("404 Not Found", "", "")
    }
}
