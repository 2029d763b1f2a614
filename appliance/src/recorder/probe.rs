//! Looks for a source in the network when it is silent: has the gateway a link, does the camera's port answer?

use fieldgate_model::Cause;
use fieldgate_model::config::{SecretUrl, Source};
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer is waited for.
const WITHIN: Duration = Duration::from_secs(3);
/// Network interfaces that are looked at.
const INTERFACES: usize = 64;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// Whether some network interface, loopback aside, has a link.
    pub(super) has_link: bool,
    /// The address that was asked, and whether anything there answered, a refusal included; none where there is none.
    pub(super) answers: Option<(String, bool)>,
}

impl Reach {
    /// In plain words.
    pub(super) fn text(&self) -> String {
        let link = if self.has_link { "link up" } else { "no link on any network port" };
        match &self.answers {
            Some((address, true)) => format!("{link}; {address} answers"),
            Some((address, false)) => format!("{link}; {address} does not answer"),
            None => link.to_owned(),
        }
    }

    /// What this alone gives away.
    pub(super) fn cause(&self) -> Option<Cause> {
        match &self.answers {
            Some((_, true)) => Some(Cause::Camera),
            Some((_, false)) if self.has_link => Some(Cause::Unreachable),
            Some((_, false)) => Some(Cause::Link),
            None => None,
        }
    }
}

/// Where a source is asked; none for those that have no address, or come to us.
pub(super) fn address_of(source: &Source) -> Option<(String, u16)> {
    let of = |url: &SecretUrl| {
        let parts = url.parts().ok()?;
        let port = match parts.scheme.to_ascii_lowercase().as_str() {
            "rtsp" => 554,
            "rtsps" => 322,
            "http" => 80,
            "https" | "rtmps" => 443,
            "rtmp" => 1935,
            _ => return None,
        };
        Some((parts.host.to_owned(), parts.port.unwrap_or(port)))
    };
    match source {
        Source::Rtsp(rtsp) => of(&rtsp.url),
        Source::Mjpeg(mjpeg) => of(&mjpeg.url),
        Source::Pull(pull) => of(&pull.url),
        _ => None,
    }
}

/// Looks; ends within a few seconds.
pub(super) async fn look(address: (String, u16)) -> Reach {
    let (host, port) = address;
    let shown = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let connected = timeout(WITHIN, TcpStream::connect((host.as_str(), port))).await;
    let answers = match connected {
        Ok(Ok(_)) => true,
        // Somebody is there, who does not listen on that port.
        Ok(Err(error)) => error.kind() == io::ErrorKind::ConnectionRefused,
        Err(_) => false,
    };
    let has_link = tokio::task::spawn_blocking(has_link).await.unwrap_or(true);
    Reach { has_link, answers: Some((shown, answers)) }
}

/// Whether an interface has a carrier. Where the kernel tells of none at all (a container), there is no telling: yes.
fn has_link() -> bool {
    let Ok(entries) = std::fs::read_dir("/sys/class/net") else { return true };
    let names = entries.flatten().take(INTERFACES).filter(|entry| entry.file_name() != "lo");
    // What is switched off cannot be read.
    let carriers: Vec<bool> = names
        .map(|entry| {
            std::fs::read_to_string(entry.path().join("carrier")).is_ok_and(|text| text.trim() == "1")
        })
        .collect();
    carriers.is_empty() || carriers.contains(&true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_told_and_says_whose_fault_it_may_be() {
        let reach =
            |has_link, answers| Reach { has_link, answers: Some(("10.0.0.7:554".to_owned(), answers)) };
        assert_eq!(reach(true, true).text(), "link up; 10.0.0.7:554 answers");
        assert_eq!(reach(true, true).cause(), Some(Cause::Camera));
        assert_eq!(reach(true, false).cause(), Some(Cause::Unreachable));
        assert_eq!(reach(false, false).cause(), Some(Cause::Link));
    }

    #[tokio::test]
    async fn a_port_that_refuses_is_somebody_who_is_there() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = || (address.ip().to_string(), address.port());
        assert!(
            look(asked())
                .await
                .answers
                .is_some_and(|(shown, answers)| answers && shown == address.to_string())
        );
        drop(listener);
        assert!(look(asked()).await.answers.is_some_and(|(_, answers)| answers));
    }
}
