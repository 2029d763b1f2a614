//! How an RTSP camera with `transport: auto` is asked next: UDP first, TCP if nothing arrives, and so on in turn.

use fieldgate_model::config::RtspTransport as Wanted;
use fieldgate_model::job::RtspTransport;
use fieldgate_worker::WorkerError;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tracing::info;

/// What is remembered of each source, by mountpoint.
#[derive(Debug, Default)]
pub struct Transports {
    next: Mutex<BTreeMap<String, RtspTransport>>,
}

impl Transports {
    /// How to ask now.
    pub fn next(&self, mountpoint: &str, wanted: Wanted) -> RtspTransport {
        match wanted {
            Wanted::Tcp => RtspTransport::Tcp,
            Wanted::Udp => RtspTransport::Udp,
            Wanted::Auto => self.lock().get(mountpoint).copied().unwrap_or(RtspTransport::Udp),
        }
    }

    /// A camera that was asked in this way has gone, having sent this many units. One that sent nothing, or fell
    /// silent, is asked in the other way next; one that ended otherwise in the same way.
    pub fn note_end(&self, mountpoint: &str, used: RtspTransport, units: u64, error: &WorkerError) {
        let is_silent = units == 0 || matches!(error, WorkerError::Silent { .. });
        let next = match (is_silent, used) {
            (false, used) => used,
            (true, RtspTransport::Udp) => RtspTransport::Tcp,
            (true, RtspTransport::Tcp) => RtspTransport::Udp,
        };
        if next != used {
            info!(mountpoint, ?used, ?next, "nothing arrived; the camera is asked in the other way next");
        }
        self.lock().insert(mountpoint.to_owned(), next);
    }

    /// The source is gone, or has other settings.
    pub fn forget(&self, mountpoint: &str) {
        self.lock().remove(mountpoint);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, RtspTransport>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
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
}
