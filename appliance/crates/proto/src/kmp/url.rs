//! Addresses of receivers.

use std::fmt;

/// Longest address taken.
const MAX_BYTES: usize = 1024;

/// `kmp://host:port` or `kmps://host:port`; the first scheme may be left out, as controllers do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmpUrl {
    /// `kmps`: the same over TLS, between gateways.
    pub tls: bool,
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// TCP port; there is none by default.
    pub port: u16,
}

/// Not a receiver's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KmpUrlError {
    /// Longer than 1,024 bytes.
    #[error("address of {len} bytes is longer than {MAX_BYTES}")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// Neither kmp nor kmps.
    #[error("scheme must be kmp or kmps")]
    Scheme,
    /// No host, spaces, or brackets that do not match.
    #[error("host is missing or malformed: kmp://host:port")]
    Host,
    /// Missing or not 1 to 65535.
    #[error("port must be 1 to 65535: kmp://host:port")]
    Port,
    /// Something behind the port.
    #[error("a KMP address has nothing behind its port; channel and tracks have settings of their own")]
    Path,
}

impl KmpUrl {
    /// Parses an address.
    pub fn parse(url: &str) -> Result<KmpUrl, KmpUrlError> {
        if url.len() > MAX_BYTES {
            return Err(KmpUrlError::TooLong { len: url.len() });
        }
        let (tls, rest) = match url.split_once("://") {
            None => (false, url),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("kmp") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("kmps") => (true, rest),
            Some(_) => return Err(KmpUrlError::Scheme),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '@']) {
            return Err(KmpUrlError::Path);
        }
        let (host, port) = authority.rsplit_once(':').ok_or(KmpUrlError::Port)?;
        let host = match host.strip_prefix('[') {
            Some(host) => {
                host.strip_suffix(']').filter(|host| host.contains(':')).ok_or(KmpUrlError::Host)?
            }
            None if host.contains(':') => return Err(KmpUrlError::Host),
            None => host,
        };
        if host.is_empty() || host.chars().any(|c| c.is_control() || c.is_whitespace() || c == ']') {
            return Err(KmpUrlError::Host);
        }
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port > 0).ok_or(KmpUrlError::Port)?;
        Ok(KmpUrl { tls, host: host.to_owned(), port })
    }
}

impl fmt::Display for KmpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "kmps" } else { "kmp" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_controllers_write_them() {
        let show = |url: &str| KmpUrl::parse(url).map(|url| url.to_string());
        assert_eq!(show("127.0.0.1:6543").as_deref(), Ok("kmp://127.0.0.1:6543"));
        assert_eq!(show("KMP://up.example:1/").as_deref(), Ok("kmp://up.example:1"));
        assert_eq!(show("kmps://[::1]:443").as_deref(), Ok("kmps://[::1]:443"));
        for (url, error) in [
            ("rtmp://h:1", KmpUrlError::Scheme),
            ("kmp://h", KmpUrlError::Port),
            ("kmp://h:0", KmpUrlError::Port),
            ("kmp://h:65536", KmpUrlError::Port),
            ("kmp://h:+1", KmpUrlError::Port),
            ("kmp://:1", KmpUrlError::Host),
            ("kmp://::1:1", KmpUrlError::Host),
            ("kmp://[::1:1", KmpUrlError::Host),
            ("kmp://h h:1", KmpUrlError::Host),
            ("kmp://h:1/channel", KmpUrlError::Path),
            ("kmp://user@h:1", KmpUrlError::Path),
        ] {
            assert_eq!(show(url), Err(error), "{url}");
        }
        assert!(matches!(KmpUrl::parse(&"x".repeat(2000)), Err(KmpUrlError::TooLong { len: 2000 })));
    }
}
