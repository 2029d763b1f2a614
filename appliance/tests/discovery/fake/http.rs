//! The camera's HTTP server: one request, one answer, the oddities of both.

use super::{Auth, Shared, auth, onvif, read_until};
use std::io::Write as _;
use std::net::TcpStream;

/// An answer before it is HTTP.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

pub(super) fn serve(mut stream: TcpStream, shared: &Shared) {
    let mut bytes = Vec::new();
    let head_len = |bytes: &[u8]| bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    if !read_until(&mut stream, &mut bytes, shared, |bytes| head_len(bytes).is_some()) {
        return;
    }
    let head_len = head_len(&bytes).unwrap();
    let head = String::from_utf8(bytes[..head_len].to_vec()).unwrap();
    let header = |name: &str| {
        let found = head
            .lines()
            .find_map(|line| line.split_once(':').filter(|(known, _)| known.eq_ignore_ascii_case(name)));
        found.map(|(_, value)| value.trim().to_owned())
    };
    if head.starts_with("GET ") {
        return picture(&mut stream, shared, &head, header("authorization"));
    }
    let body_len: usize = header("content-length").unwrap().parse().unwrap();
    if !read_until(&mut stream, &mut bytes, shared, |bytes| bytes.len() >= head_len + body_len) {
        return;
    }
    let message = String::from_utf8(bytes[head_len..].to_vec()).unwrap();
    let action = onvif::action(&message);
    shared.state().requests.push(action.clone());
    shared.state().saw_password |= message.contains(shared.settings.password);
    if let Some(to) = &shared.settings.redirects_to {
        let _ = write!(stream, "HTTP/1.1 307 Moved\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
        return;
    }
    if shared.settings.endless {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/soap+xml\r\n\r\n<a>");
        while !shared.is_over() && stream.write_all(&[b'x'; 65_536]).is_ok() {}
        return;
    }
    let answer = match judge(shared, &action, &message, header("authorization")) {
        Ok(()) => onvif::answer(shared, &action, &message),
        Err(answer) => answer,
    };
    write(&mut stream, shared, &answer);
}

/// The one picture that it has.
fn picture(stream: &mut TcpStream, shared: &Shared, head: &str, sent: Option<String>) {
    let target = head.split(' ').nth(1).unwrap();
    shared.state().requests.push(format!("GET {target}"));
    let verdict = sent.and_then(|sent| auth::header_is_right(shared, &sent, "GET"));
    let may = shared.settings.open || verdict.is_some_and(|right| shared.state().judge(right));
    let found = shared.settings.picture.as_ref().filter(|_| target == "/snapshot.jpg");
    let none = Vec::new();
    let (first, body) = match (may, found) {
        (false, _) => {
            let challenge = auth::challenge(shared, false).unwrap();
            (format!("401 Unauthorized\r\nWWW-Authenticate: {challenge}"), &none)
        }
        (true, Some(picture)) => ("200 OK\r\nContent-Type: image/jpeg".to_owned(), &**picture),
        (true, None) => ("404 Not Found".to_owned(), &none),
    };
    let head = format!("HTTP/1.1 {first}\r\nContent-Length: {}\r\n\r\n", body.len());
    let _ = stream.write_all(&[head.as_bytes(), body].concat());
}

/// Whether the request may be answered; else the refusal.
fn judge(shared: &Shared, action: &str, message: &str, header: Option<String>) -> Result<(), Answer> {
    let is_open = matches!(action, "GetSystemDateAndTime" | "GetServices" | "GetCapabilities")
        || (shared.settings.open && action.starts_with("Get"));
    if is_open {
        return Ok(());
    }
    let verdict = match shared.settings.auth {
        Auth::Token => auth::token_is_right(shared, message),
        _ => header.and_then(|sent| auth::header_is_right(shared, &sent, "POST")),
    };
    match verdict {
        Some(right) if shared.state().judge(right) => return Ok(()),
        None if shared.settings.plain_400 => return Err(Answer { status: 400, body: String::new() }),
        _ => {}
    }
    Err(match shared.settings.auth {
        Auth::Token => onvif::fault(400, "NotAuthorized"),
        _ => Answer { status: 401, body: String::new() },
    })
}

fn write(stream: &mut TcpStream, shared: &Shared, answer: &Answer) {
    let mut body = answer.body.clone();
    if shared.settings.no_namespaces {
        for prefix in ["s:", "tds:", "trt:", "tr2:", "tt:", "ter:"] {
            body = body.replace(&format!("<{prefix}"), "<").replace(&format!("</{prefix}"), "</");
        }
    }
    let mut head = format!("HTTP/1.1 {} X\r\nContent-Type: application/soap+xml\r\n", answer.status);
    if answer.status == 401
        && let Some(challenge) = auth::challenge(shared, false)
    {
        head.push_str(&format!("WWW-Authenticate: {challenge}\r\n"));
    }
    // The client may have gone; that is its right.
    let _ = if shared.settings.chunked {
        let mut wire = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
        for piece in body.as_bytes().chunks(100) {
            wire.push_str(&format!("{:x}\r\n{}\r\n", piece.len(), std::str::from_utf8(piece).unwrap()));
        }
        stream.write_all(format!("{wire}0\r\n\r\n").as_bytes())
    } else {
        stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
    };
}
