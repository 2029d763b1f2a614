//! RTMP addresses, as people paste them from YouTube, Twitch and their own servers.

use super::events::ClientMode;
use std::fmt;

/// Longest address taken.
const MAX_BYTES: usize = 4096;

/// `rtmp[s]://[user:pass@]host[:port]/app[/instance]/key[?query]`.
///
/// As ffmpeg splits it: with three path parts or more, the first two are the application. `Display` and `Debug` hide
/// the key and query values.
#[derive(Clone, PartialEq, Eq)]
pub struct RtmpUrl {
    /// `rtmps`.
    pub tls: bool,
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// 1935 by default, 443 for `rtmps`.
    pub port: u16,
    /// Application, with instance and query if it has them.
    pub app: String,
    /// For `connect`: the address up to the application, without user and password.
    pub tc_url: String,
    /// Stream name with query.
    pub stream_key: String,
}

/// Not an RTMP address. Messages never repeat the address: it may hold keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// Longer than 4,096 bytes.
    #[error("address of {len} bytes is longer than {MAX_BYTES}")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// Neither rtmp nor rtmps.
    #[error("scheme must be rtmp or rtmps")]
    Scheme,
    /// Control characters or spaces.
    #[error("address contains spaces or control characters")]
    Characters,
    /// No host, or brackets that do not match.
    #[error("host is missing or malformed")]
    Host,
    /// Not 1 to 65535.
    #[error("port must be 1 to 65535")]
    Port,
    /// No application.
    #[error("application is missing: rtmp://host/app/key")]
    App,
    /// No stream key.
    #[error("stream name is missing: rtmp://host/app/key")]
    Key,
}

impl RtmpUrl {
    /// Parses an address.
    pub fn parse(url: &str) -> Result<RtmpUrl, UrlError> {
        let url = url.trim();
        if url.len() > MAX_BYTES {
            return Err(UrlError::TooLong { len: url.len() });
        }
        if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(UrlError::Characters);
        }
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::Scheme)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "rtmp" => false,
            "rtmps" => true,
            _ => return Err(UrlError::Scheme),
        };
        let (authority, path) = rest.split_once('/').ok_or(UrlError::App)?;
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let default_port = if tls { 443 } else { 1935 };
        let (host, port) = split_authority(authority, default_port)?;
        let (app, stream_key) = split_path(path)?;
        let scheme = if tls { "rtmps" } else { "rtmp" };
        let shown_host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let tc_url = if port == default_port {
            format!("{scheme}://{shown_host}/{app}")
        } else {
            format!("{scheme}://{shown_host}:{port}/{app}")
        };
        Ok(RtmpUrl { tls, host, port, app, tc_url, stream_key })
    }

    /// The address without secrets: a push's stream name is one, a pull's is not; query values always are.
    pub fn redacted(&self, mode: ClientMode) -> impl fmt::Display {
        Redacted { url: self, mode }
    }
}

fn split_authority(authority: &str, default_port: u16) -> Result<(String, u16), UrlError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(UrlError::Host)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| UrlError::Host)?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(UrlError::Host),
            }
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() || (host.contains(':') && !authority.starts_with('[')) {
        return Err(UrlError::Host);
    }
    let port = match port {
        None | Some("") => default_port,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or(UrlError::Port)?,
    };
    Ok((host.to_owned(), port))
}

/// Application and stream key of `app[/instance]/key[?query]`, or of `app?query/key`.
fn split_path(path: &str) -> Result<(String, String), UrlError> {
    let (plain, query) = match path.split_once('?') {
        Some((plain, query)) => (plain, Some(query)),
        None => (path, None),
    };
    let plain = plain.trim_matches('/');
    if plain.is_empty() {
        return Err(UrlError::App);
    }
    let Some((first, rest)) = plain.split_once('/') else {
        // Keys of the application before the stream name: `rtmp://host/app?auth=x/name`.
        let (query, key) = query.and_then(|query| query.rsplit_once('/')).ok_or(UrlError::Key)?;
        if key.is_empty() {
            return Err(UrlError::Key);
        }
        return Ok((format!("{plain}?{query}"), key.to_owned()));
    };
    let (app, key) = match rest.split_once('/') {
        // `mp4:dir/name` is one stream name.
        Some((instance, key)) if !instance.contains(':') => (format!("{first}/{instance}"), key),
        _ => (first.to_owned(), rest),
    };
    let key = key.trim_start_matches('/');
    if key.is_empty() {
        return Err(UrlError::Key);
    }
    Ok((app, query.map_or_else(|| key.to_owned(), |query| format!("{key}?{query}"))))
}

struct Redacted<'a> {
    url: &'a RtmpUrl,
    mode: ClientMode,
}

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (base, query) = self.url.tc_url.split_once('?').unwrap_or((&self.url.tc_url, ""));
        f.write_str(base)?;
        redact_query(f, query)?;
        let (name, query) = self.url.stream_key.split_once('?').unwrap_or((&self.url.stream_key, ""));
        match self.mode {
            ClientMode::Publish => f.write_str("/***")?,
            ClientMode::Play => write!(f, "/{name}")?,
        }
        redact_query(f, query)
    }
}

fn redact_query(f: &mut fmt::Formatter<'_>, query: &str) -> fmt::Result {
    for (index, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        f.write_str(if index == 0 { "?" } else { "&" })?;
        match pair.split_once('=') {
            Some((name, _)) => write!(f, "{name}=***")?,
            None => f.write_str("***")?,
        }
    }
    Ok(())
}

impl fmt::Display for RtmpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Redacted { url: self, mode: ClientMode::Publish }.fmt(f)
    }
}

impl fmt::Debug for RtmpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RtmpUrl({self})")
    }
}

/// The value of `name` in a query string, percent-decoded.
pub(super) fn query_param(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))?.1;
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escaped = match (byte, after) {
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => Some((high << 4 | low, after)),
                _ => None,
            },
            _ => None,
        };
        match escaped {
            Some((byte, after)) => {
                out.push(byte);
                rest = after;
            }
            None => out.push(byte),
        }
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> (bool, String, u16, String, String, String) {
        let url = RtmpUrl::parse(url).unwrap();
        (url.tls, url.host, url.port, url.app, url.tc_url, url.stream_key)
    }

    #[test]
    fn common_addresses_split_as_their_services_expect() {
        let cases = [
            (
                "rtmp://127.0.0.1:2935/live/yard",
                "127.0.0.1",
                2935,
                "live",
                "rtmp://127.0.0.1:2935/live",
                "yard",
            ),
            (
                "rtmp://a.rtmp.youtube.com/live2/abcd-efgh-ijkl",
                "a.rtmp.youtube.com",
                1935,
                "live2",
                "rtmp://a.rtmp.youtube.com/live2",
                "abcd-efgh-ijkl",
            ),
            (
                "rtmps://live.twitch.tv:443/app/live_123?bandwidthtest=true&k=a/b",
                "live.twitch.tv",
                443,
                "app",
                "rtmps://live.twitch.tv/app",
                "live_123?bandwidthtest=true&k=a/b",
            ),
            ("rtmp://h/app/inst/key", "h", 1935, "app/inst", "rtmp://h/app/inst", "key"),
            ("rtmp://h/app/inst/dir/key", "h", 1935, "app/inst", "rtmp://h/app/inst", "dir/key"),
            ("rtmp://h/vod/mp4:dir/film", "h", 1935, "vod", "rtmp://h/vod", "mp4:dir/film"),
            ("rtmp://h/live?auth=s3/key", "h", 1935, "live?auth=s3", "rtmp://h/live?auth=s3", "key"),
            ("rtmp://[fe80::1]:1936/live/x", "fe80::1", 1936, "live", "rtmp://[fe80::1]:1936/live", "x"),
            ("rtmps://[::1]/live/x", "::1", 443, "live", "rtmps://[::1]/live", "x"),
            ("rtmp://user:p@ss@h/live/x", "h", 1935, "live", "rtmp://h/live", "x"),
        ];
        for (url, host, port, app, tc_url, key) in cases {
            let tls = url.starts_with("rtmps");
            let expected = (tls, host.into(), port, app.into(), tc_url.into(), key.into());
            assert_eq!(parts(url), expected, "{url}");
        }
    }

    #[test]
    fn what_is_no_rtmp_address_is_refused_by_name() {
        let cases = [
            ("http://h/live/x", UrlError::Scheme),
            ("h/live/x", UrlError::Scheme),
            ("rtmp://h", UrlError::App),
            ("rtmp://h/", UrlError::App),
            ("rtmp://h/live", UrlError::Key),
            ("rtmp://h/live/", UrlError::Key),
            ("rtmp:///live/x", UrlError::Host),
            ("rtmp://[::1/live/x", UrlError::Host),
            ("rtmp://[h]/live/x", UrlError::Host),
            ("rtmp://h:0/live/x", UrlError::Port),
            ("rtmp://h:65536/live/x", UrlError::Port),
            ("rtmp://h/live/x y", UrlError::Characters),
        ];
        for (url, error) in cases {
            assert_eq!(RtmpUrl::parse(url), Err(error), "{url}");
        }
        let at_limit = format!("rtmp://h/live/{}", "k".repeat(MAX_BYTES - 14));
        assert!(RtmpUrl::parse(&at_limit).is_ok());
        assert_eq!(RtmpUrl::parse(&format!("{at_limit}k")), Err(UrlError::TooLong { len: MAX_BYTES + 1 }));
    }

    #[test]
    fn secrets_do_not_show() {
        let url = RtmpUrl::parse("rtmp://user:pw@h/live/s3cret?key=v1ew&flag").unwrap();
        for shown in [url.to_string(), format!("{url:?}"), url.redacted(ClientMode::Play).to_string()] {
            assert!(!shown.contains("pw") && !shown.contains("v1ew"), "{shown}");
        }
        assert_eq!(url.to_string(), "rtmp://h/live/***?key=***&***");
        assert_eq!(url.redacted(ClientMode::Play).to_string(), "rtmp://h/live/s3cret?key=***&***");
    }

    #[test]
    fn query_values_are_percent_decoded() {
        assert_eq!(query_param("a=1&key=s%33cr%2Ft", "key").as_deref(), Some("s3cr/t"));
        assert_eq!(query_param("key=50%&x", "key").as_deref(), Some("50%"));
        assert_eq!(query_param("keys=1", "key"), None);
    }
}
