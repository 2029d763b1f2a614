//! How an RTSP camera is asked next. With `transport: auto`: UDP first, TCP if nothing arrives, and so on in turn. Where
//! its name has several addresses, and the one that was asked sent nothing: the next.

use fieldgate_model::config::RtspTransport as Wanted;
use fieldgate_model::job::RtspTransport;
use fieldgate_worker::WorkerError;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tracing::info;

/// What is remembered of each source, by mountpoint.
#[derive(Debug, Default)]
pub struct Transports {
    next: Mutex<BTreeMap<String, Next>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Next {
    transport: Option<RtspTransport>,
    /// Addresses that sent nothing so far.
    silent_addresses: usize,
    needs_encoder: bool,
}

impl Transports {
    /// How to ask now.
    pub fn next(&self, mountpoint: &str, wanted: Wanted) -> RtspTransport {
        match wanted {
            Wanted::Tcp => RtspTransport::Tcp,
            Wanted::Udp => RtspTransport::Udp,
            Wanted::Auto => self.remembered(mountpoint).transport.unwrap_or(RtspTransport::Udp),
        }
    }

    /// Whom to ask now, of the addresses that the camera's name has at present.
    pub fn address(&self, mountpoint: &str, found: &[SocketAddr]) -> Option<SocketAddr> {
        let nth = self.remembered(mountpoint).silent_addresses;
        found.get(nth.checked_rem(found.len())?).copied()
    }

    /// A camera that was asked in this way has gone, having sent this many units. One that sent nothing, or fell
    /// silent, is asked in the other way next; one that ended otherwise in the same way.
    pub fn note_end(&self, mountpoint: &str, used: RtspTransport, units: u64, error: &WorkerError) {
        let is_silent = units == 0 || matches!(error, WorkerError::Silent { .. });
        let next = if is_silent { other(used) } else { used };
        if next != used {
            info!(mountpoint, ?used, ?next, "nothing arrived; the camera is asked in the other way next");
        }
        self.lock().entry(mountpoint.to_owned()).or_default().transport = Some(next);
    }

    /// The address that was asked sent nothing at all.
    pub fn note_silent_address(&self, mountpoint: &str) {
        let mut next = self.lock();
        let next = next.entry(mountpoint.to_owned()).or_default();
        next.silent_addresses = next.silent_addresses.wrapping_add(1);
    }

    /// It sends what no output carries.
    pub fn note_needs_encoder(&self, mountpoint: &str) {
        self.lock().entry(mountpoint.to_owned()).or_default().needs_encoder = true;
    }

    /// Whether it was seen to send what no output carries.
    pub fn needs_encoder(&self, mountpoint: &str) -> bool {
        self.remembered(mountpoint).needs_encoder
    }

    /// Asks it in this way next, whatever came of the last.
    pub fn set(&self, mountpoint: &str, next: RtspTransport) {
        self.lock().entry(mountpoint.to_owned()).or_default().transport = Some(next);
    }

    /// The source is gone, or has other settings.
    pub fn forget(&self, mountpoint: &str) {
        self.lock().remove(mountpoint);
    }

    fn remembered(&self, mountpoint: &str) -> Next {
        self.lock().get(mountpoint).copied().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Next>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The other way.
pub(super) fn other(transport: RtspTransport) -> RtspTransport {
    match transport {
        RtspTransport::Udp => RtspTransport::Tcp,
        RtspTransport::Tcp => RtspTransport::Udp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn udp_comes_first_and_whatever_works_is_kept() {
        let transports = Transports::default();
        let next = || transports.next("gate", Wanted::Auto);
        let limit = Duration::from_secs(10);
        let failed = || WorkerError::Failed { cause: "cannot connect".into(), permanent: false };
        assert_eq!(next(), RtspTransport::Udp);
        transports.note_end("gate", RtspTransport::Udp, 0, &WorkerError::NoFirstUnit { limit });
        assert_eq!(next(), RtspTransport::Tcp, "nothing arrived");
        transports.note_end("gate", RtspTransport::Tcp, 900, &failed());
        assert_eq!(next(), RtspTransport::Tcp, "it worked, so the way is not to blame");
        transports.note_end("gate", RtspTransport::Tcp, 900, &WorkerError::Silent { limit });
        assert_eq!(next(), RtspTransport::Udp, "it fell silent");
        transports.note_end("gate", RtspTransport::Udp, 0, &failed());
        assert_eq!(next(), RtspTransport::Tcp);
        assert_eq!(transports.next("yard", Wanted::Auto), RtspTransport::Udp, "each on its own");
        transports.forget("gate");
        assert_eq!(next(), RtspTransport::Udp);
    }

    #[test]
    fn a_way_that_was_chosen_is_never_changed() {
        let transports = Transports::default();
        let limit = Duration::from_secs(10);
        transports.note_end("gate", RtspTransport::Tcp, 0, &WorkerError::Silent { limit });
        assert_eq!(transports.next("gate", Wanted::Tcp), RtspTransport::Tcp);
        transports.note_end("gate", RtspTransport::Udp, 0, &WorkerError::Silent { limit });
        assert_eq!(transports.next("gate", Wanted::Udp), RtspTransport::Udp);
    }

    #[test]
    fn addresses_take_turns_only_while_they_send_nothing() {
        let transports = Transports::default();
        let found: Vec<SocketAddr> = ["[::1]:554", "10.0.0.7:554"].map(|at| at.parse().unwrap()).to_vec();
        assert_eq!(transports.address("gate", &found), Some(found[0]));
        transports.note_silent_address("gate");
        assert_eq!(transports.address("gate", &found), Some(found[1]));
        assert_eq!(transports.address("gate", &found), Some(found[1]), "it is kept while it works");
        assert_eq!(transports.address("gate", &found[..1]), Some(found[0]), "the name has changed");
        transports.note_silent_address("gate");
        assert_eq!(transports.address("gate", &found), Some(found[0]));
        assert_eq!(transports.address("gate", &[]), None);
    }
}
