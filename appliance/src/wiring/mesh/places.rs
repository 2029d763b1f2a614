//! Mountpoints of the mesh's streams: made for a publisher, gone some time after it.

use fieldgate_compat::node::PeerKind;
use fieldgate_hub::{Bound, Limits, Mountpoint, Registry};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Until a stream is over after its broadcaster has left.
const BROADCASTER_GRACE: Duration = Duration::ZERO;
/// The same of another node, which may only be changing its key.
const NODE_GRACE: Duration = Duration::from_secs(5);
/// A publisher that has been silent for so long may be replaced.
const SILENT: Duration = Duration::from_secs(5);

/// The mountpoint of a stream; no stream of the config can have such a name.
pub(super) fn mountpoint_of(stream_id: &str) -> String {
    format!("mesh/{stream_id}")
}

/// Why a publisher gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoPlace {
    /// Somebody publishes it.
    #[error("that stream is being published already")]
    Taken,
    /// The node ends, or is too busy.
    #[error("this node is stopping; try again")]
    Stopping,
}

/// One stream's place.
pub(super) struct Place {
    pub(super) mountpoint: Arc<Mountpoint>,
    pub(super) peer: PeerKind,
    pub(super) since_unix: i64,
    registry: Arc<Registry>,
    /// Units, when they were last more, and bytes then and a second before.
    units: u64,
    grown: Instant,
    bytes: [u64; 2],
    seen: Instant,
}

impl Place {
    /// A place for a stream that has none.
    pub(super) fn new(registry: &Arc<Registry>, stream_id: &str, peer: PeerKind) -> Result<Place, NoPlace> {
        let limits = Limits { bound: Bound::default(), grace: grace_of(peer), ..Limits::default() };
        let mountpoint = registry.add(&mountpoint_of(stream_id), limits).map_err(|_| NoPlace::Taken)?;
        let (registry, now) = (registry.clone(), Instant::now());
        Ok(Place {
            mountpoint,
            peer,
            since_unix: 0,
            registry,
            units: 0,
            grown: now,
            bytes: [0; 2],
            seen: now,
        })
    }

    /// Whether another publisher may come: there is none, or it has been silent for too long and is sent away.
    pub(super) fn make_room(&mut self, peer: PeerKind) -> Result<(), NoPlace> {
        if self.mountpoint.publisher().is_some() {
            self.look();
            if self.grown.elapsed() < SILENT {
                return Err(NoPlace::Taken);
            }
            self.mountpoint.kick();
        }
        self.peer = peer;
        self.mountpoint.set_limits(Limits { grace: grace_of(peer), ..self.mountpoint.limits() });
        Ok(())
    }

    /// To be called about once a second.
    pub(super) fn look(&mut self) {
        let (counters, now) = (self.mountpoint.ring().counters(), Instant::now());
        if counters.units != self.units {
            (self.units, self.grown) = (counters.units, now);
        }
        if now.duration_since(self.seen) >= Duration::from_millis(900) {
            let [_, last] = self.bytes;
            (self.bytes, self.seen) = ([last, counters.bytes], now);
        }
    }

    /// The application that its publisher came by.
    pub(super) fn app(&self) -> &'static str {
        if self.peer == PeerKind::Broadcaster { "live" } else { "relay" }
    }

    /// Bits that came in the last second.
    pub(super) fn bits_per_second(&self) -> u64 {
        let [before, now] = self.bytes;
        now.saturating_sub(before).saturating_mul(8)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.registry.remove(self.mountpoint.name());
    }
}

fn grace_of(peer: PeerKind) -> Duration {
    if peer == PeerKind::Broadcaster { BROADCASTER_GRACE } else { NODE_GRACE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wiring::passing::{Moment, watch};
    use tokio::sync::mpsc;

    #[tokio::test(start_paused = true)]
    async fn a_place_goes_when_nobody_comes() {
        let registry = Arc::new(Registry::new(1, Arc::new(())));
        let place = Place::new(&registry, "s1", PeerKind::Relay).unwrap();
        assert!(Place::new(&registry, "s1", PeerKind::Relay).is_err());
        let (moments, mut heard) = mpsc::channel::<(String, Moment)>(4);
        watch(place.mountpoint.clone(), "s1".to_owned(), moments).await;
        assert_eq!(heard.recv().await, Some(("s1".into(), Moment::Over)));
        drop(place);
        assert!(registry.get("mesh/s1").is_none());
    }
}
