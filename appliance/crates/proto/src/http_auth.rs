//! Logging in over HTTP and RTSP: Digest (RFC 7616, with MD5 and SHA-256, and as RFC 2069 had it) and Basic (RFC 7617).
//!
//! Own code, as the libraries draw their nonces from the system, and read one challenge where cameras send several.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use sha2::{Digest as _, Sha256};
use std::fmt;

/// Longest header with challenges that is read, in bytes.
pub const MAX_CHALLENGE_LEN: usize = 4_096;
/// Most challenges that are read.
pub const MAX_CHALLENGES: usize = 8;
/// Most parameters of one challenge.
const MAX_PARAMETERS: usize = 16;

/// Who logs in. Shows nothing of the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The account.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).field("password", &"***").finish()
    }
}

/// One way in which a server lets one log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// The password is proven, not sent.
    Digest(DigestChallenge),
    /// The password is sent.
    Basic,
}

/// The hash of a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// MD5, what almost every camera has.
    Md5,
    /// MD5, with a session's nonces in the first hash.
    Md5Sess,
    /// SHA-256.
    Sha256,
    /// SHA-256, with a session's nonces in the first hash.
    Sha256Sess,
}

impl Algorithm {
    fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "MD5" => Some(Algorithm::Md5),
            "MD5-SESS" => Some(Algorithm::Md5Sess),
            "SHA-256" => Some(Algorithm::Sha256),
            "SHA-256-SESS" => Some(Algorithm::Sha256Sess),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Md5Sess => "MD5-sess",
            Algorithm::Sha256 => "SHA-256",
            Algorithm::Sha256Sess => "SHA-256-sess",
        }
    }

    fn hash(self, text: &str) -> String {
        match self {
            Algorithm::Md5 | Algorithm::Md5Sess => hex(&Md5::digest(text)),
            Algorithm::Sha256 | Algorithm::Sha256Sess => hex(&Sha256::digest(text)),
        }
    }
}

/// What a digest is made over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestChallenge {
    /// What the password is for.
    pub realm: String,
    /// The server's nonce.
    pub nonce: String,
    /// To be sent back as it came.
    pub opaque: Option<String>,
    /// The hash.
    pub algorithm: Algorithm,
    /// The server named an algorithm; then it is told ours.
    names_algorithm: bool,
    /// `qop=auth` is offered; without it the older form is used.
    pub qop_auth: bool,
    /// The login was right, only the nonce too old.
    pub stale: bool,
}

/// One request that is to be proven.
#[derive(Clone, Copy, Debug)]
pub struct Proof<'a> {
    /// Such as `POST`.
    pub method: &'a str,
    /// The request's target as it is sent.
    pub uri: &'a str,
    /// How often this nonce has been used, this time included; from 1.
    pub count: u32,
    /// Random text of the client's.
    pub cnonce: &'a str,
}

impl DigestChallenge {
    /// The value of the `Authorization` header.
    pub fn authorization(&self, credentials: &Credentials, proof: Proof<'_>) -> String {
        let Credentials { user, password } = credentials;
        let Proof { method, uri, count, cnonce } = proof;
        let hash = |text: &str| self.algorithm.hash(text);
        let mut secret = hash(&format!("{user}:{}:{password}", self.realm));
        let is_session = matches!(self.algorithm, Algorithm::Md5Sess | Algorithm::Sha256Sess);
        if is_session {
            secret = hash(&format!("{secret}:{}:{cnonce}", self.nonce));
        }
        let request = hash(&format!("{method}:{uri}"));
        let response = if self.qop_auth {
            hash(&format!("{secret}:{}:{count:08x}:{cnonce}:auth:{request}", self.nonce))
        } else {
            hash(&format!("{secret}:{}:{request}", self.nonce))
        };
        let mut header = format!(
            "Digest username={}, realm={}, nonce={}, uri={}, response=\"{response}\"",
            quoted(user),
            quoted(&self.realm),
            quoted(&self.nonce),
            quoted(uri)
        );
        if self.names_algorithm {
            header.push_str(&format!(", algorithm={}", self.algorithm.as_str()));
        }
        if let Some(opaque) = &self.opaque {
            header.push_str(&format!(", opaque={}", quoted(opaque)));
        }
        if self.qop_auth {
            header.push_str(&format!(", qop=auth, nc={count:08x}, cnonce={}", quoted(cnonce)));
        } else if is_session {
            header.push_str(&format!(", cnonce={}", quoted(cnonce)));
        }
        header
    }
}

/// The value of the `Authorization` header for Basic.
pub fn basic(credentials: &Credentials) -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{}", credentials.user, credentials.password)))
}

/// The challenges in the values of all `WWW-Authenticate` headers, best first: SHA-256, MD5, Basic. Those that cannot
/// be answered are left out.
pub fn challenges<'a>(headers: impl Iterator<Item = &'a str>) -> Vec<Challenge> {
    let mut found = Vec::new();
    for header in headers.filter(|header| header.len() <= MAX_CHALLENGE_LEN).take(MAX_CHALLENGES) {
        for (scheme, parameters) in split(header) {
            if scheme.eq_ignore_ascii_case("basic") {
                found.push(Challenge::Basic);
            } else if scheme.eq_ignore_ascii_case("digest") {
                found.extend(digest(&parameters).map(Challenge::Digest));
            }
        }
    }
    found.truncate(MAX_CHALLENGES);
    found.sort_by_key(|challenge| match challenge {
        Challenge::Digest(digest) => std::cmp::Reverse(Some(digest.algorithm)),
        Challenge::Basic => std::cmp::Reverse(None),
    });
    found
}

fn digest(parameters: &[(String, String)]) -> Option<DigestChallenge> {
    let value = |name: &str| {
        let found = parameters.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    };
    let algorithm = value("algorithm");
    let qop = value("qop").map(|qop| qop.split(',').any(|one| one.trim().eq_ignore_ascii_case("auth")));
    if qop == Some(false) {
        // Only auth-int, or nothing that is known.
        return None;
    }
    Some(DigestChallenge {
        realm: value("realm").unwrap_or_default().to_owned(),
        nonce: value("nonce")?.to_owned(),
        opaque: value("opaque").map(str::to_owned),
        algorithm: algorithm.map_or(Some(Algorithm::Md5), Algorithm::from_name)?,
        names_algorithm: algorithm.is_some(),
        qop_auth: qop.is_some(),
        stale: value("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
    })
}

type Parameters = Vec<(String, String)>;

/// Cuts `Digest a=b, c="d", Basic realm="x"` into schemes with their parameters.
fn split(header: &str) -> Vec<(String, Parameters)> {
    let mut found: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=', '"']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            // The end, or what no challenge looks like.
            return found;
        }
        match after.trim_start_matches([' ', '\t']).strip_prefix('=') {
            Some(after) => {
                let (value, after) = value(after.trim_start_matches([' ', '\t']));
                let is_clean = !value.chars().any(char::is_control);
                if let Some((_, parameters)) = found.last_mut()
                    && parameters.len() < MAX_PARAMETERS
                    && is_clean
                {
                    parameters.push((word.to_owned(), value));
                }
                rest = after;
            }
            None => {
                if found.len() >= MAX_CHALLENGES {
                    return found;
                }
                found.push((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
    }
}

/// A token or quoted text, and what follows.
fn value(text: &str) -> (String, &str) {
    let Some(inner) = text.strip_prefix('"') else {
        let (token, rest) = text.split_at(text.find([',', ' ', '\t']).unwrap_or(text.len()));
        return (token.to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = inner.char_indices();
    while let Some((at, character)) = chars.next() {
        match character {
            '"' => return (value, inner.split_at(at).1.strip_prefix('"').unwrap_or_default()),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars().filter(|character| !character.is_control()) {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

/// Bytes as lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(user: &str, password: &str) -> Credentials {
        Credentials { user: user.to_owned(), password: password.to_owned() }
    }

    fn first(header: &str) -> DigestChallenge {
        match challenges(std::iter::once(header)).into_iter().next() {
            Some(Challenge::Digest(digest)) => digest,
            other => panic!("{other:?}"),
        }
    }

    /// RFC 7616, 3.9.1.
    #[test]
    fn the_examples_of_rfc_7616_come_out() {
        let both = [
            "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm=MD5, \
             nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"",
            "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm=SHA-256, \
             nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"",
        ];
        let found = challenges(both.into_iter());
        let mufasa = credentials("Mufasa", "Circle of Life");
        let proof = Proof {
            method: "GET",
            uri: "/dir/index.html",
            count: 1,
            cnonce: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
        };
        let [Challenge::Digest(sha), Challenge::Digest(md5)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((sha.algorithm, md5.algorithm), (Algorithm::Sha256, Algorithm::Md5), "the better first");
        let sha = sha.authorization(&mufasa, proof);
        assert!(sha.contains("753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"), "{sha}");
        let md5 = md5.authorization(&mufasa, proof);
        assert!(md5.contains("response=\"8ca523f5e9506fed4657c9700eebdbec\""), "{md5}");
        assert!(
            md5.contains("qop=auth, nc=00000001, cnonce=\"f2/wE4q74E6z") && md5.contains("opaque=\"FQhe")
        );
    }

    /// RFC 2069 as cameras' RTSP servers do it to this day: no qop, no algorithm.
    #[test]
    fn the_old_form_has_neither_qop_nor_cnonce() {
        let challenge = first("Digest realm=\"cam\", nonce=\"abc\"");
        let header = challenge.authorization(
            &credentials("u", "p"),
            Proof { method: "DESCRIBE", uri: "rtsp://h/1", count: 1, cnonce: "x" },
        );
        let expected = Algorithm::Md5.hash(&format!(
            "{}:abc:{}",
            Algorithm::Md5.hash("u:cam:p"),
            Algorithm::Md5.hash("DESCRIBE:rtsp://h/1")
        ));
        assert!(header.ends_with(&format!("response=\"{expected}\"")), "{header}");
    }

    #[test]
    fn several_challenges_in_one_header_are_told_apart() {
        let found = challenges(std::iter::once(
            "Basic realm=\"a, b\" ,digest Realm = \"q\\\"uote\\\\d\" , nonce=n, stale=TRUE, qop=auth",
        ));
        let [Challenge::Digest(digest), Challenge::Basic] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((digest.realm.as_str(), digest.nonce.as_str(), digest.stale), ("q\"uote\\d", "n", true));
        let header = digest.authorization(
            &credentials("a\"b", "p"),
            Proof { method: "GET", uri: "/", count: 255, cnonce: "c" },
        );
        assert!(header.contains("username=\"a\\\"b\", realm=\"q\\\"uote\\\\d\""), "{header}");
        assert!(header.contains("nc=000000ff"));
    }

    #[test]
    fn what_cannot_be_answered_is_left_out() {
        for header in [
            "",
            "Negotiate abc",
            "Digest realm=\"x\"",
            "Digest nonce=n, algorithm=SHA-512-256",
            "Digest nonce=n, qop=\"auth-int\"",
            "Digest nonce=\"a\u{7}b\"",
            "=\"",
        ] {
            assert_eq!(challenges(std::iter::once(header)), [], "{header}");
        }
        let long = format!("Basic realm=\"{}\"", "x".repeat(MAX_CHALLENGE_LEN));
        assert_eq!(challenges(std::iter::once(long.as_str())), []);
        let many = "Basic, ".repeat(100);
        assert_eq!(challenges(std::iter::once(many.as_str())).len(), MAX_CHALLENGES);
    }

    #[test]
    fn basic_is_user_and_password_and_debug_shows_neither_secret() {
        let aladdin = credentials("Aladdin", "open sesame");
        assert_eq!(basic(&aladdin), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "RFC 7617");
        assert!(!format!("{aladdin:?}").contains("sesame"));
    }
}
