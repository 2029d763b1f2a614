//! An upstream, as a controller or an operator describes it.

use super::base64;
use super::json::Json;
use super::reply::Fields;
use bytes::Bytes;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// From where a lost connection goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResumeFrom {
    /// The first frame that was not acknowledged.
    #[default]
    LastAcked,
    /// The first packet that was not wholly sent.
    LastSent,
    /// As `LastSent`, leaving out what came while disconnected.
    LastWritten,
}

impl ResumeFrom {
    /// As it stands in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            ResumeFrom::LastAcked => "last_acked",
            ResumeFrom::LastSent => "last_sent",
            ResumeFrom::LastWritten => "last_written",
        }
    }

    fn from_name(name: &str) -> Option<ResumeFrom> {
        [ResumeFrom::LastAcked, ResumeFrom::LastSent, ResumeFrom::LastWritten]
            .into_iter()
            .find(|it| it.name() == name)
    }
}

/// Where an upstream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamUrl {
    /// Over TLS (`kmps://`).
    pub tls: bool,
    /// Name or address, an IPv6 address without its brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

impl UpstreamUrl {
    /// The longest name of a host.
    const HOST_MAX: usize = 253;

    /// `host:port`, perhaps after `kmp://` or `kmps://`. The connector itself takes neither names of hosts nor TLS:
    /// `strict` refuses them, too.
    pub fn parse(text: &str, strict: bool) -> Result<UpstreamUrl, UpstreamError> {
        let bad = || UpstreamError::Url { url: text.chars().take(80).collect(), strict };
        let after = |prefix: &str| {
            let (start, rest) = text.split_at_checked(prefix.len())?;
            start.eq_ignore_ascii_case(prefix).then_some(rest)
        };
        let (tls, rest) = match (after("kmps://"), after("kmp://")) {
            (Some(_), _) if strict => return Err(bad()),
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => (false, text),
        };
        let (host, port) = rest.rsplit_once(':').ok_or_else(bad)?;
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| *port > 0 && is_number).ok_or_else(bad)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match bracketed {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => host.parse::<Ipv4Addr>().is_ok() || (!strict && is_host_name(host)),
        };
        if !is_host {
            return Err(bad());
        }
        Ok(UpstreamUrl { tls, host: bracketed.unwrap_or(host).to_owned(), port })
    }

    /// Its address, if it names no host.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // What looks like an address is one, or a slip of the pen.
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= UpstreamUrl::HOST_MAX
        && host.split('.').all(is_label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "kmps" } else { "kmp" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

/// One upstream of a track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The controller's name for it; may be empty.
    pub id: String,
    /// Where it is.
    pub url: UpstreamUrl,
    /// Whether the track fails when this upstream does.
    pub required: bool,
    /// From where a lost connection goes on.
    pub resume_from: ResumeFrom,
    /// Data of the connect packet, if it was said.
    pub connect_data: Option<Bytes>,
}

/// Why an upstream cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// A field that is known came twice.
    #[error("the upstream's field {0} comes twice")]
    Twice(&'static str),
    /// No `url`, or one that is no text.
    #[error("the upstream has no url")]
    NoUrl,
    /// A `url` that names no place.
    #[error("the upstream's url \"{url}\" is no {}", if *.strict { "ADDRESS:PORT (names of hosts and kmps:// need strict off)" } else { "HOST:PORT, with kmp:// or kmps:// before it or not" })]
    Url {
        /// What stood there, shortened.
        url: String,
        /// Whether only addresses are taken.
        strict: bool,
    },
    /// A word that `resume_from` does not know.
    #[error("the upstream's resume_from is no last_acked, last_sent or last_written")]
    ResumeFrom,
    /// `connect_data` that is no base64.
    #[error("the upstream's connect_data is no base64")]
    ConnectData,
}

impl Upstream {
    /// From the fields of a JSON object. Values of other types than wanted count as absent.
    pub fn from_fields(fields: &[(String, Json)], strict: bool) -> Result<Upstream, UpstreamError> {
        let fields = Fields(fields);
        let twice = |key| UpstreamError::Twice(key);
        let id = fields.text("id").map_err(twice)?;
        let url = fields.text("url").map_err(twice)?.ok_or(UpstreamError::NoUrl)?;
        let required = fields.truth("required").map_err(twice)?;
        let resume_from = fields.text("resume_from").map_err(twice)?;
        let connect_data = fields.text("connect_data").map_err(twice)?;
        Ok(Upstream {
            id: id.unwrap_or_default().to_owned(),
            url: UpstreamUrl::parse(url, strict)?,
            required: required.unwrap_or(true),
            resume_from: match resume_from {
                Some(name) => ResumeFrom::from_name(name).ok_or(UpstreamError::ResumeFrom)?,
                None => ResumeFrom::default(),
            },
            connect_data: match connect_data {
                Some(text) => Some(base64::decode(text).ok_or(UpstreamError::ConnectData)?.into()),
                None => None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, strict: bool) -> Option<String> {
        UpstreamUrl::parse(text, strict).ok().map(|url| url.to_string())
    }

    #[test]
    fn addresses_are_taken_in_both_modes() {
        for (text, url) in [
            ("kmp://127.0.0.1:27001", "kmp://127.0.0.1:27001"),
            ("KMP://127.0.0.1:1", "kmp://127.0.0.1:1"),
            ("127.0.0.1:27002", "kmp://127.0.0.1:27002"),
            ("[::1]:27002", "kmp://[::1]:27002"),
            ("kmp://[2001:db8::7]:65535", "kmp://[2001:db8::7]:65535"),
        ] {
            assert_eq!(shown(text, true).as_deref(), Some(url));
            assert_eq!(shown(text, false).as_deref(), Some(url));
        }
    }

    #[test]
    fn names_and_tls_are_ours_alone() {
        for (text, url) in [
            ("kmp://some.host.name:27001", "kmp://some.host.name:27001"),
            ("kmps://10.0.0.1:1", "kmps://10.0.0.1:1"),
            ("KMPS://[::1]:1", "kmps://[::1]:1"),
            ("node_7:27001", "kmp://node_7:27001"),
        ] {
            assert_eq!(shown(text, true), None, "{text}");
            assert_eq!(shown(text, false).as_deref(), Some(url));
        }
    }

    #[test]
    fn what_names_no_place_is_refused() {
        let long = format!("{}:1", "a".repeat(64));
        for text in [
            "",
            ":1",
            "kmp://",
            "kmp://:1",
            "10.0.0.1",
            "10.0.0.1:0",
            "10.0.0.1:65536",
            "10.0.0.1:+1",
            "10.0.0.1:x",
            "10.0.0.256:1",
            "10.0.0.1.2:1",
            "::1:1",
            "[::1:1",
            "[10.0.0.1]:1",
            "rtmp://10.0.0.1:1",
            "a b:1",
            "a..b:1",
            "-a:1",
            "10.0.0.1:1/x",
            "unix:/run/x",
            "é:1",
            &long,
        ] {
            assert_eq!(shown(text, false), None, "{text}");
            assert_eq!(shown(text, true), None, "{text}");
        }
    }
}
