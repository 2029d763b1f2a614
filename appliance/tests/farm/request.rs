//! RTSP requests as a camera reads them, and who sends them.

use super::script::Login;
use md5::Md5;
use sha2::{Digest, Sha256};

const USER: &str = "installer";
const REALM: &str = "farm";
const NONCE: &str = "f3b1c9d7e5a2";

/// One request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) uri: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// The first whole request in `input`, taken out of it; interleaved packets of the client (RTCP) are dropped.
    pub(crate) fn take(input: &mut Vec<u8>) -> Option<Request> {
        while input.first() == Some(&b'$') {
            let len = 4 + usize::from(u16::from_be_bytes([*input.get(2)?, *input.get(3)?]));
            if input.len() < len {
                return None;
            }
            input.drain(..len);
        }
        let end = input.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&input[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, uri) = (first.next()?.to_owned(), first.next()?.to_owned());
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let request = Request { method, uri, headers };
        let body: usize = request.header("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
        if input.len() < end + 4 + body {
            return None;
        }
        input.drain(..end + 4 + body);
        Some(request)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What a camera asks for.
pub(crate) fn challenge(login: Login) -> String {
    match login {
        Login::Basic => format!("WWW-Authenticate: Basic realm=\"{REALM}\"\r\n"),
        Login::DigestMd5 => {
            format!("WWW-Authenticate: Digest realm=\"{REALM}\", nonce=\"{NONCE}\"\r\n")
        }
        Login::DigestSha256 => {
            format!(
                "WWW-Authenticate: Digest realm=\"{REALM}\", nonce=\"{NONCE}\", algorithm=SHA-256, qop=\"auth\"\r\n"
            )
        }
    }
}

/// Whether what a request shows is the right user name and password.
pub(crate) fn authorised(login: Login, password: &str, shown: &str, request: &Request) -> bool {
    match login {
        Login::Basic => shown == format!("Basic {}", base64(format!("{USER}:{password}").as_bytes())),
        Login::DigestMd5 | Login::DigestSha256 => {
            let is_sha256 = login == Login::DigestSha256;
            let hash = |text: &str| match is_sha256 {
                true => hex(&Sha256::digest(text.as_bytes())),
                false => hex(&Md5::digest(text.as_bytes())),
            };
            let quoted =
                |name: &str| field(shown, name).map(|value| value.trim_matches('"')).unwrap_or_default();
            let secret = hash(&format!("{USER}:{REALM}:{password}"));
            let what = hash(&format!("{}:{}", request.method, request.uri));
            let (count, own) = (quoted("nc"), quoted("cnonce"));
            // RFC 7616, 3.4.1; RFC 2069, 2.1.2.
            let response = match is_sha256 {
                true => hash(&format!("{secret}:{NONCE}:{count}:{own}:auth:{what}")),
                false => hash(&format!("{secret}:{NONCE}:{what}")),
            };
            let algorithm = quoted("algorithm");
            let is_named = if is_sha256 { algorithm == "SHA-256" } else { matches!(algorithm, "" | "MD5") };
            is_named && quoted("username") == USER && quoted("response") == response
        }
    }
}

/// One field of an `Authorization: Digest` header, as it stands.
fn field<'a>(shown: &'a str, name: &str) -> Option<&'a str> {
    let fields = shown.strip_prefix("Digest ")?.split(',').map(str::trim);
    fields.filter_map(|field| field.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for piece in bytes.chunks(3) {
        let value =
            piece.iter().fold(0_u32, |value, byte| value << 8 | u32::from(*byte)) << (8 * (3 - piece.len()));
        for at in 0..4 {
            let digit = DIGITS[(value >> (18 - 6 * at)) as usize & 63];
            text.push(if at > piece.len() { '=' } else { char::from(digit) });
        }
    }
    text
}
