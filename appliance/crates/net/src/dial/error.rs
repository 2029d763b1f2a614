//! Why a server was not reached, in words that say what to do.

use fieldgate_hub::Retry;
use rustls::{CertificateError, InvalidMessage};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The target can be no server's name, whatever the network does.
    #[error("{host:?}, port {port} names no server: {problem}")]
    Malformed {
        /// As configured.
        host: String,
        /// As configured.
        port: u16,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// DNS has no answer.
    #[error("name {host} does not resolve: check the name or the gateway's DNS")]
    Resolve {
        /// The name asked for.
        host: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// DNS answers without an address.
    #[error("name {host} has no address: check its DNS records")]
    NoAddress {
        /// The name asked for.
        host: String,
    },
    /// Every address was tried and failed.
    #[error("cannot connect to {host}, port {port}: {failures}")]
    Unreachable {
        /// As configured.
        host: String,
        /// As configured.
        port: u16,
        /// What each address did.
        failures: Failures,
    },
    /// The time for name, connection and TLS together ran out.
    #[error("{host}, port {port}: {stage} took over {timeout:?}{}{failures}", failures.separator())]
    TimedOut {
        /// As configured.
        host: String,
        /// As configured.
        port: u16,
        /// What was going on.
        stage: Stage,
        /// The limit.
        timeout: Duration,
        /// Addresses that had failed by then.
        failures: Failures,
    },
    /// The certificate is for other names.
    #[error(
        "the certificate of {host} is not valid for this name, only for {presented}: use such a name in the URL, or renew the server's certificate"
    )]
    CertificateName {
        /// As configured.
        host: String,
        /// The names it holds.
        presented: String,
    },
    /// The certificate's time is over.
    #[error("the certificate of {host} has expired{}: renew it at the server, or set the gateway's clock", age(*.days, "ago"))]
    CertificateExpired {
        /// As configured.
        host: String,
        /// Whole days since then by the gateway's clock, where known.
        days: Option<u64>,
    },
    /// The certificate's time has not come.
    #[error("the certificate of {host} is not valid yet{}: set the gateway's clock", age(*.days, "to go"))]
    CertificateNotYetValid {
        /// As configured.
        host: String,
        /// Whole days until then by the gateway's clock, where known.
        days: Option<u64>,
    },
    /// Nobody whom the gateway trusts has signed the certificate.
    #[error(
        "the certificate of {host} is from an unknown issuer: name the issuer's certificate file in `ca`"
    )]
    CertificateIssuer {
        /// As configured.
        host: String,
    },
    /// The certificate is not to be trusted for another reason.
    #[error("the certificate of {host} is not accepted: renew it at the server")]
    Certificate {
        /// As configured.
        host: String,
        /// Which.
        #[source]
        source: rustls::Error,
    },
    /// The server answers, but not with TLS.
    #[error("{host}, port {port} does not speak TLS: check the port, or use the URL without TLS")]
    NotTls {
        /// As configured.
        host: String,
        /// As configured.
        port: u16,
        /// What came instead.
        #[source]
        source: rustls::Error,
    },
    /// The TLS handshake failed otherwise.
    #[error(
        "the TLS handshake with {host}, port {port} failed: check that the port is a TLS port and that the server offers TLS 1.2 or later"
    )]
    Handshake {
        /// As configured.
        host: String,
        /// As configured.
        port: u16,
        /// How.
        #[source]
        source: io::Error,
    },
}

impl DialError {
    /// Everything but a malformed setting may be mended at the far end, or on the way there.
    pub fn retry(&self) -> Retry {
        match self {
            DialError::Malformed { .. } => Retry::Never,
            _ => Retry::Backoff,
        }
    }

    /// The reason in what `tokio_rustls` returned from a client handshake.
    pub(super) fn from_handshake(host: &str, port: u16, error: io::Error) -> Self {
        let host = host.to_owned();
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return DialError::Handshake { host, port, source: error };
        };
        let certificate = match tls {
            rustls::Error::InvalidCertificate(certificate) => certificate,
            rustls::Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::InvalidEmptyPayload,
            ) => return DialError::NotTls { host, port, source: tls.clone() },
            _ => return DialError::Handshake { host, port, source: error },
        };
        match certificate {
            CertificateError::NotValidForNameContext { presented, .. } => {
                DialError::CertificateName { host, presented: names(presented) }
            }
            CertificateError::NotValidForName => {
                DialError::CertificateName { host, presented: "others".to_owned() }
            }
            CertificateError::ExpiredContext { time, not_after } => {
                let days = days(time.as_secs().saturating_sub(not_after.as_secs()));
                DialError::CertificateExpired { host, days: Some(days) }
            }
            CertificateError::Expired => DialError::CertificateExpired { host, days: None },
            CertificateError::NotValidYetContext { time, not_before } => {
                let days = days(not_before.as_secs().saturating_sub(time.as_secs()));
                DialError::CertificateNotYetValid { host, days: Some(days) }
            }
            CertificateError::NotValidYet => DialError::CertificateNotYetValid { host, days: None },
            CertificateError::UnknownIssuer => DialError::CertificateIssuer { host },
            _ => DialError::Certificate { host, source: tls.clone() },
        }
    }
}

/// What the dialler was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Asking DNS.
    Resolve,
    /// Connecting to its addresses.
    Connect,
    /// The TLS handshake.
    Handshake,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Resolve => "resolving the name (check the gateway's DNS)",
            Stage::Connect => "connecting (is the server on, is a firewall in the way?)",
            Stage::Handshake => "the TLS handshake (is it a TLS port?)",
        })
    }
}

/// What each tried address did.
#[derive(Debug, Default)]
pub struct Failures(pub Vec<(SocketAddr, io::Error)>);

impl Failures {
    fn separator(&self) -> &'static str {
        if self.0.is_empty() { "" } else { "; " }
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (address, error)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{} ", address.ip())?;
            match error.kind() {
                io::ErrorKind::ConnectionRefused => {
                    f.write_str("refused (is the server running on this port?)")?
                }
                io::ErrorKind::TimedOut => f.write_str("did not answer")?,
                io::ErrorKind::NetworkUnreachable => f.write_str("has no route from here")?,
                io::ErrorKind::HostUnreachable => f.write_str("is not reachable")?,
                _ => write!(f, "failed: {error}")?,
            }
        }
        Ok(())
    }
}

/// The most names of a certificate that an error lists.
const MAX_NAMES: usize = 4;

fn names(presented: &[String]) -> String {
    if presented.is_empty() {
        return "no name at all".to_owned();
    }
    let mut text = presented.iter().take(MAX_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
    if presented.len() > MAX_NAMES {
        text.push_str(", ...");
    }
    text
}

fn days(seconds: u64) -> u64 {
    seconds / (24 * 60 * 60)
}

fn age(days: Option<u64>, direction: &str) -> String {
    days.map(|days| format!(" ({days} days {direction} by the gateway's clock)")).unwrap_or_default()
}
