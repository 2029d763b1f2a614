//! Addresses that cameras tell of their services and streams, held against the camera's own address.
//!
//! What a camera says of itself is a stranger's word: only port and path of it are used, the host is always the one
//! that answered. So no answer can send a request, or a password, to another machine, and no name is ever looked up.

use std::fmt;
use std::net::IpAddr;

/// Longest address taken, in bytes.
pub(super) const MAX_LEN: usize = 1_024;

/// What a service address is for; it decides about schemes and default ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`, port 80.
    Http,
    /// `https`, port 443.
    Https,
    /// `rtsp`, port 554.
    Rtsp,
    /// `rtsps`, port 322.
    Rtsps,
}

impl Scheme {
    /// As it stands in an address.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Rtsp => "rtsp",
            Scheme::Rtsps => "rtsps",
        }
    }

    /// The port when none is said.
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
            Scheme::Rtsp => 554,
            Scheme::Rtsps => 322,
        }
    }

    /// Whether it is encrypted.
    pub fn is_tls(self) -> bool {
        matches!(self, Scheme::Https | Scheme::Rtsps)
    }

    fn is_stream(self) -> bool {
        matches!(self, Scheme::Rtsp | Scheme::Rtsps)
    }
}

/// Where a service or stream of a camera is. Never holds user or password.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceUrl {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// The camera.
    pub host: IpAddr,
    /// TCP port.
    pub port: u16,
    /// Path and query, from the first `/` on.
    pub target: String,
}

/// Why an address is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceUrlError {
    /// No address at all, or with characters that none has.
    #[error("the camera gives an address that is none")]
    Malformed,
    /// Longer than [`MAX_LEN`].
    #[error("the camera gives an address of {0} bytes, at most {MAX_LEN} are taken")]
    TooLong(usize),
    /// Not http or https, or for a stream not rtsp or rtsps.
    #[error("the camera gives an address of a scheme that is not used here")]
    Scheme,
}

/// An address as a camera told it, taken as its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchored {
    /// Where to go.
    pub url: ServiceUrl,
    /// The host that the camera told, where it is not the camera; it is not used.
    pub foreign_host: Option<String>,
}

impl ServiceUrl {
    /// The device service where cameras have it unless they say otherwise.
    pub fn device_service(host: IpAddr, port: u16) -> Self {
        ServiceUrl { scheme: Scheme::Http, host, port, target: "/onvif/device_service".to_owned() }
    }

    /// Takes `told` as the address of a service (http, https) of the camera that was reached at `known`.
    ///
    /// Another host than the camera's is replaced by it, then with the port of `known`, under which the camera was
    /// reached: behind port forwarding the camera's own port number means nothing to us.
    pub fn service(told: &str, known: &ServiceUrl) -> Result<Anchored, ServiceUrlError> {
        Self::anchor(told, known.host, false, Some(known))
    }

    /// Takes `told` as the address of a stream (rtsp, rtsps) of the camera at `camera`.
    pub fn stream(told: &str, camera: IpAddr) -> Result<Anchored, ServiceUrlError> {
        Self::anchor(told, camera, true, None)
    }

    fn anchor(
        told: &str,
        camera: IpAddr,
        stream: bool,
        known: Option<&ServiceUrl>,
    ) -> Result<Anchored, ServiceUrlError> {
        if told.len() > MAX_LEN {
            return Err(ServiceUrlError::TooLong(told.len()));
        }
        if told.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(ServiceUrlError::Malformed);
        }
        let (scheme, rest) = told.split_once("://").ok_or(ServiceUrlError::Malformed)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "rtsp" => Scheme::Rtsp,
            "rtsps" => Scheme::Rtsps,
            _ => return Err(ServiceUrlError::Scheme),
        };
        if scheme.is_stream() != stream {
            return Err(ServiceUrlError::Scheme);
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let target = target.split('#').next().unwrap_or_default();
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        // A password may stand before the last `@`; it is not ours to keep.
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let (host, port) = split_port(authority)?;
        let port = port.unwrap_or(scheme.default_port());
        // `fe80::1%eth0`: the zone is a name on the camera's side.
        let plain = host.split('%').next().unwrap_or_default();
        let is_camera =
            plain.parse::<IpAddr>().is_ok_and(|address| address.to_canonical() == camera.to_canonical());
        let url = match known {
            Some(known) if !is_camera => {
                ServiceUrl { scheme: known.scheme, host: camera, port: known.port, target }
            }
            _ => ServiceUrl { scheme, host: camera, port, target },
        };
        Ok(Anchored { url, foreign_host: (!is_camera).then(|| host.to_owned()) })
    }

    /// What a `Host` header says.
    pub fn authority(&self) -> String {
        let host = match self.host {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        if self.port == self.scheme.default_port() { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority(), self.target)
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), ServiceUrlError> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(inner) => inner.split_once(']').ok_or(ServiceUrlError::Malformed)?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    if host.is_empty() {
        return Err(ServiceUrlError::Malformed);
    }
    match rest.strip_prefix(':') {
        // `rtsp://host:/path` is seen in the wild.
        Some("") => Ok((host, None)),
        Some(port) => match port.parse() {
            Ok(port) if port > 0 => Ok((host, Some(port))),
            _ => Err(ServiceUrlError::Malformed),
        },
        None if rest.is_empty() => Ok((host, None)),
        None => Err(ServiceUrlError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera() -> ServiceUrl {
        ServiceUrl::device_service("10.0.0.7".parse().unwrap(), 8080)
    }

    #[test]
    fn the_cameras_own_address_is_taken_as_it_is() {
        for (told, taken) in [
            ("http://10.0.0.7/onvif/media", "http://10.0.0.7/onvif/media"),
            ("HTTP://10.0.0.7:8000/m?a=b#c", "http://10.0.0.7:8000/m?a=b"),
            ("https://10.0.0.7", "https://10.0.0.7/"),
            ("http://10.0.0.7:/x", "http://10.0.0.7/x"),
            ("http://[::ffff:10.0.0.7]/x", "http://10.0.0.7/x"),
        ] {
            let anchored = ServiceUrl::service(told, &camera()).unwrap();
            assert_eq!((anchored.url.to_string().as_str(), &anchored.foreign_host), (taken, &None), "{told}");
        }
    }

    #[test]
    fn no_answer_leads_to_another_machine() {
        for told in [
            "http://127.0.0.1/onvif/media",
            "http://169.254.169.254/latest/meta-data",
            "https://localhost:1/x",
            "http://rebind.example/x",
            "http://10.0.0.8:22/x",
            "http://[::1]:99/x",
            "http://10.0.0.7@10.0.0.8/x",
            "http://0x0a000007/x",
            "http://10.0.0.7.example/x",
        ] {
            let anchored = ServiceUrl::service(told, &camera()).unwrap();
            assert_eq!(
                (anchored.url.host, anchored.url.port, anchored.url.scheme),
                (camera().host, 8080, Scheme::Http),
                "{told}"
            );
            assert!(anchored.foreign_host.is_some(), "{told}");
        }
        let anchored = ServiceUrl::stream("rtsp://192.168.1.10:5554/h264?x=1", camera().host).unwrap();
        assert_eq!(anchored.url.to_string(), "rtsp://10.0.0.7:5554/h264?x=1");
        assert_eq!(anchored.foreign_host.as_deref(), Some("192.168.1.10"));
    }

    #[test]
    fn passwords_in_addresses_are_dropped() {
        let anchored = ServiceUrl::stream("rtsp://admin:s3cret@10.0.0.7/main", camera().host).unwrap();
        assert_eq!(anchored.url.to_string(), "rtsp://10.0.0.7/main");
        assert_eq!(anchored.foreign_host, None);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("http://10.0.0.7/{}", "x".repeat(MAX_LEN));
        for told in [
            "",
            "10.0.0.7/x",
            "ftp://10.0.0.7/",
            "rtsp://10.0.0.7/",
            "http:///x",
            "http://10.0.0.7:0/",
            "http://10.0.0.7:99999/",
            "http://[::1/",
            "http://10.0.0.7/a b",
            "http://10.0.0.7/\r\nX: y",
            &long,
        ] {
            assert!(ServiceUrl::service(told, &camera()).is_err(), "{told}");
        }
        assert!(ServiceUrl::stream("http://10.0.0.7/", camera().host).is_err());
        assert_eq!(
            ServiceUrl::device_service("2001:db8::7".parse().unwrap(), 80).to_string(),
            "http://[2001:db8::7]/onvif/device_service"
        );
    }
}
