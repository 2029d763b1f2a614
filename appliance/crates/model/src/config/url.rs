//! URLs, whose passwords are secrets.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// What stands for a secret inside a shown URL; sending it back keeps the secret.
const MASK: &str = "***";

/// Query parameters whose values are masked.
const SECRET_PARAMETERS: [&str; 12] = [
    "key",
    "token",
    "password",
    "pass",
    "secret",
    "auth",
    "sig",
    "signature",
    // Cheap cameras' own.
    "pwd",
    "passwd",
    "psw",
    "loginpas",
];

/// A URL as it was written. Shows and serialises with its password, and the values of query parameters such as
/// `key` and `token`, as `***`.
#[derive(Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

/// Why a text is no URL that the gateway can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No `scheme://`.
    #[error("must start with a scheme such as rtmp://")]
    NoScheme,
    /// Nothing where the host should be.
    #[error("names no host")]
    NoHost,
    /// The port is no number from 1 to 65,535.
    #[error("port must be 1 to 65535")]
    Port,
    /// `[` without `]`, or text between `]` and `:`.
    #[error("an IPv6 address must stand in [ ]")]
    Brackets,
    /// Blanks, control characters or others that must be percent-encoded.
    #[error("holds a blank or control character; write it percent-encoded")]
    Character,
    /// Longer than [`SecretUrl::MAX_LEN`].
    #[error("must be at most {} bytes", SecretUrl::MAX_LEN)]
    TooLong,
}

/// The parts of a URL; none is percent-decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UrlParts<'a> {
    /// Before `://`.
    pub scheme: &'a str,
    /// Before `:` or `@` of the authority.
    pub user: Option<&'a str>,
    /// Between `:` and `@`.
    pub password: Option<&'a str>,
    /// Name or address, an IPv6 address without its brackets.
    pub host: &'a str,
    /// Where one is given.
    pub port: Option<u16>,
    /// From the first `/` after the authority, that included, up to `?`; empty where there is none.
    pub path: &'a str,
    /// After `?`.
    pub query: Option<&'a str>,
}

impl SecretUrl {
    /// The longest URL, in bytes.
    pub const MAX_LEN: usize = 2_048;

    /// From its text, unchecked; see [`SecretUrl::parts`].
    pub fn new(text: impl Into<String>) -> Self {
        SecretUrl(text.into())
    }

    /// The URL with its secrets, to be used and never shown.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The URL as it may be shown.
    pub fn redacted(&self) -> String {
        let pieces = Pieces::of(&self.0);
        let mut shown = String::with_capacity(self.0.len());
        shown.push_str(pieces.scheme);
        if let Some(user_info) = pieces.user_info {
            match user_info.split_once(':') {
                Some((user, _)) => shown.extend([user, ":", MASK, "@"]),
                None => shown.extend([user_info, "@"]),
            }
        }
        shown.push_str(pieces.host_and_path);
        if let Some(query) = pieces.query {
            for (index, pair) in query.split('&').enumerate() {
                shown.push(if index == 0 { '?' } else { '&' });
                match pair.split_once('=') {
                    Some((name, _)) if is_secret_parameter(name) => shown.extend([name, "=", MASK]),
                    _ => shown.push_str(pair),
                }
            }
        }
        shown
    }

    /// Its password and the values of its secret parameters.
    pub fn secret_parts(&self) -> Vec<&str> {
        let pieces = Pieces::of(&self.0);
        let password = pieces.user_info.and_then(|user_info| user_info.split_once(':')).map(|(_, it)| it);
        let pairs = pieces.query.into_iter().flat_map(|query| query.split('&'));
        let values =
            pairs.filter_map(|pair| pair.split_once('=')).filter(|(name, _)| is_secret_parameter(name));
        password.into_iter().chain(values.map(|(_, value)| value)).collect()
    }

    /// Whether some secret in it stands for "as it was" (`***`); no validated config holds such.
    pub fn is_kept(&self) -> bool {
        let pieces = Pieces::of(&self.0);
        let password = pieces.user_info.and_then(|user_info| user_info.split_once(':'));
        password.is_some_and(|(_, password)| password == MASK)
            || pieces.query.is_some_and(|query| {
                query.split('&').filter_map(|pair| pair.split_once('=')).any(|(_, value)| value == MASK)
            })
    }

    /// This URL with each mask replaced by the secret that `old` has in the same place; `None` if one is missing.
    pub(super) fn unmasked_from(&self, old: &SecretUrl) -> Option<SecretUrl> {
        let (new, old) = (Pieces::of(&self.0), Pieces::of(&old.0));
        let mut whole = String::from(new.scheme);
        if let Some(user_info) = new.user_info {
            match user_info.split_once(':') {
                Some((user, MASK)) => whole.extend([user, ":", old.user_info?.split_once(':')?.1, "@"]),
                _ => whole.extend([user_info, "@"]),
            }
        }
        whole.push_str(new.host_and_path);
        for (index, pair) in new.query.into_iter().flat_map(|query| query.split('&')).enumerate() {
            whole.push(if index == 0 { '?' } else { '&' });
            match pair.split_once('=') {
                Some((name, MASK)) => {
                    let mut pairs = old.query?.split('&').filter_map(|pair| pair.split_once('='));
                    whole.extend([name, "=", pairs.find(|(old_name, _)| *old_name == name)?.1]);
                }
                _ => whole.push_str(pair),
            }
        }
        Some(SecretUrl(whole))
    }

    /// Its parts, or why it has none.
    pub fn parts(&self) -> Result<UrlParts<'_>, UrlError> {
        let text = self.0.as_str();
        if text.len() > Self::MAX_LEN {
            return Err(UrlError::TooLong);
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(UrlError::Character);
        }
        let (scheme, _) = text.split_once("://").ok_or(UrlError::NoScheme)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        if scheme.is_empty() || !scheme.chars().all(plain) {
            return Err(UrlError::NoScheme);
        }
        let pieces = Pieces::of(text);
        let (user, password) = match pieces.user_info.map(|info| info.split_once(':').ok_or(info)) {
            Some(Ok((user, password))) => (Some(user), Some(password)),
            Some(Err(user)) => (Some(user), None),
            None => (None, None),
        };
        let path_at = pieces.host_and_path.find('/').unwrap_or(pieces.host_and_path.len());
        let (authority, path) = pieces.host_and_path.split_at(path_at);
        let (host, port) = split_port(authority)?;
        if host.is_empty() {
            return Err(UrlError::NoHost);
        }
        Ok(UrlParts { scheme, user, password, host, port, path, query: pieces.query })
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), UrlError> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(inner) => inner.split_once(']').ok_or(UrlError::Brackets)?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    match rest.strip_prefix(':') {
        Some(port) => match port.parse() {
            Ok(port) if port > 0 => Ok((host, Some(port))),
            _ => Err(UrlError::Port),
        },
        None if rest.is_empty() => Ok((host, None)),
        None => Err(UrlError::Brackets),
    }
}

fn is_secret_parameter(name: &str) -> bool {
    SECRET_PARAMETERS.iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

/// A URL cut where its secrets are; works on any text, also on what is no URL.
struct Pieces<'a> {
    /// With `://`.
    scheme: &'a str,
    user_info: Option<&'a str>,
    host_and_path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Pieces<'a> {
    fn of(text: &'a str) -> Self {
        let (scheme, rest) = text.split_at(text.find("://").map_or(0, |at| at + 3));
        let (before_query, query) = match rest.split_once('?') {
            Some((before, query)) => (before, Some(query)),
            None => (rest, None),
        };
        // Up to the last `@` before the path, so that an `@` left unencoded in a password does not spill the rest of it.
        let authority = before_query.split('/').next().unwrap_or_default();
        match authority.rfind('@') {
            Some(at) => Pieces {
                scheme,
                user_info: before_query.get(..at),
                host_and_path: before_query.get(at + 1..).unwrap_or_default(),
                query,
            },
            None => Pieces { scheme, user_info: None, host_and_path: before_query, query },
        }
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.redacted())
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.redacted())
    }
}

impl fmt::Debug for UrlParts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UrlParts")
            .field("scheme", &self.scheme)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl JsonSchema for SecretUrl {
    fn schema_name() -> Cow<'static, str> {
        "SecretUrl".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "fieldgate-url",
            "maxLength": Self::MAX_LEN,
            "description": "A URL. Its password and key parameters read back as ***, and sending that keeps them.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_keys_never_show() {
        for (url, shown) in [
            ("rtsp://user:pass@10.0.0.7:8554/main", "rtsp://user:***@10.0.0.7:8554/main"),
            ("rtsp://user:p@ss@10.0.0.7/main", "rtsp://user:***@10.0.0.7/main"),
            ("rtmp://h/live/a?x=1&key=abc&Token=def", "rtmp://h/live/a?x=1&key=***&Token=***"),
            ("rtmp://h/live/a", "rtmp://h/live/a"),
            ("user:pass@h/no-scheme", "user:***@h/no-scheme"),
        ] {
            let url = SecretUrl::new(url);
            assert_eq!(url.redacted(), shown);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("{shown:?}"));
            assert_eq!(serde_json::to_string(&url).unwrap(), format!("{shown:?}"));
            assert_eq!(SecretUrl::new(shown).redacted(), shown, "masking twice changes nothing");
            assert_eq!(SecretUrl::new(shown).is_kept(), shown.contains("***"));
            assert!(!url.is_kept());
        }
    }

    #[test]
    fn parts_are_found() {
        let url = SecretUrl::new("rtmps://u:p@[2001:db8::1]:443/app/name/x?a=b?c");
        let parts = url.parts().unwrap();
        assert_eq!((parts.scheme, parts.user, parts.password), ("rtmps", Some("u"), Some("p")));
        assert_eq!((parts.host, parts.port, parts.path), ("2001:db8::1", Some(443), "/app/name/x"));
        assert_eq!(parts.query, Some("a=b?c"));
        let url = SecretUrl::new("kmp://receiver");
        let parts = url.parts().unwrap();
        assert_eq!((parts.host, parts.port, parts.path, parts.query), ("receiver", None, "", None));
    }

    #[test]
    fn what_is_no_url_says_why() {
        for (text, error) in [
            ("", UrlError::NoScheme),
            ("127.0.0.1/live", UrlError::NoScheme),
            ("rtmp:///live", UrlError::NoHost),
            ("rtmp://h:0/", UrlError::Port),
            ("rtmp://h:99999/", UrlError::Port),
            ("rtmp://[::1/", UrlError::Brackets),
            ("rtmp://h/a b", UrlError::Character),
        ] {
            assert_eq!(SecretUrl::new(text).parts(), Err(error), "{text:?}");
        }
        let long = format!("rtmp://h/{}", "a".repeat(SecretUrl::MAX_LEN));
        assert_eq!(SecretUrl::new(long).parts(), Err(UrlError::TooLong));
    }
}
