//! Who may send to us, and which of them is listened to.

use crate::cameras::News;
use crate::outlet::Outlet;
use fieldgate_hub::link::LogLevel;
use fieldgate_model::config::Network;
use fieldgate_model::job::RefusedPackets;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// For all sockets of a source.
pub(super) struct Gate {
    allow: Vec<Network>,
    refused: AtomicU64,
    log: Outlet,
    news: News,
}

impl Gate {
    /// An empty list lets in this machine alone.
    pub(super) fn new(allow: Vec<Network>, log: Outlet, news: News) -> Gate {
        Gate { allow, refused: AtomicU64::new(0), log, news }
    }

    pub(super) fn lets_in(&self, from: IpAddr) -> bool {
        let known = is_known(&self.allow, from);
        if !known {
            self.refuse(from, "which is not in `allow`");
        }
        known
    }

    /// Counts a packet that is not taken; the log has the first, and then each time that their number has doubled.
    pub(super) fn refuse(&self, from: IpAddr, why: &str) {
        let packets = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        self.log.count_unusable();
        let last = format!("from {}, {why}", from.to_canonical());
        if packets.is_power_of_two() {
            self.log.log(LogLevel::Warn, &format!("{packets} packets refused, the last {last}"));
        }
        self.news.tell(RefusedPackets { packets, last });
    }
}

fn is_known(allow: &[Network], from: IpAddr) -> bool {
    match allow {
        [] => from.to_canonical().is_loopback(),
        allow => allow.iter().any(|network| network.contains(from)),
    }
}

/// The one sender of a stream, and when it was last heard: another is listened to only when this one has fallen silent.
#[derive(Debug, Default)]
pub(super) struct Sender(Mutex<Option<(u32, i64)>>);

/// What a packet's SSRC means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Known,
    /// A second one at the same time.
    Another,
    /// The known one has begun anew, or somebody else in its place.
    Changed,
}

/// Silence after which another SSRC is a new beginning, microseconds.
const GIVEN_UP_US: i64 = 1_000_000;

impl Sender {
    pub(super) fn hear(&self, ssrc: u32, now_us: i64) -> Heard {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *heard {
            Some((known, last)) if known != ssrc && now_us - last < GIVEN_UP_US => Heard::Another,
            Some((known, _)) if known != ssrc => Heard::Changed,
            _ => {
                *heard = Some((ssrc, now_us));
                Heard::Known
            }
        }
    }

    /// Its SSRC, once it was heard.
    pub(super) fn known(&self) -> Option<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|(ssrc, _)| ssrc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_named_is_let_in() {
        let of = |text: &str| -> IpAddr { text.parse().unwrap() };
        let allow: Vec<Network> = ["10.0.0.7", "fd00::/8"].iter().map(|text| text.parse().unwrap()).collect();
        for known in ["10.0.0.7", "::ffff:10.0.0.7", "fd00::1"] {
            assert!(is_known(&allow, of(known)), "{known}");
        }
        for stranger in ["10.0.0.8", "127.0.0.1", "::1"] {
            assert!(!is_known(&allow, of(stranger)), "{stranger}");
        }
        assert!(is_known(&[], of("127.0.0.1")) && is_known(&[], of("::ffff:127.0.0.1")));
        assert!(!is_known(&[], of("192.0.2.1")));
    }

    #[test]
    fn a_second_sender_is_heard_when_the_first_is_gone() {
        let sender = Sender::default();
        assert_eq!(sender.known(), None);
        assert_eq!(sender.hear(7, 0), Heard::Known);
        assert_eq!(sender.hear(8, 100_000), Heard::Another);
        assert_eq!(sender.hear(7, 150_000), Heard::Known);
        assert_eq!(sender.hear(8, 1_149_999), Heard::Another);
        assert_eq!(sender.hear(8, 1_150_000), Heard::Changed);
        assert_eq!(sender.known(), Some(7));
    }
}
