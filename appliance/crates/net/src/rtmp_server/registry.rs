//! All live RTMP connections by number: who they are, what went through them, and a way to end one.
//!
//! The connections count in plain relaxed atomics of their own, once per turn; only who asks for a view pays for it.

use fieldgate_hub::{RtmpClient, RtmpSession};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// All RTMP connections of the gateway. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct RtmpConnections(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last: AtomicU64,
    /// Bytes of connections that have ended.
    ended_in: AtomicU64,
    ended_out: AtomicU64,
    live: Mutex<BTreeMap<u64, Arc<Meter>>>,
}

/// One connection as it is now.
#[derive(Clone, Debug)]
pub struct RtmpConnectionView {
    /// Who it is.
    pub client: Arc<RtmpClient>,
    /// Since its accept.
    pub uptime: Duration,
    /// Received, without the handshake.
    pub bytes_in: u64,
    /// Sent.
    pub bytes_out: u64,
    /// Whether it repeats extended timestamps on continuation chunks, once that showed.
    pub repeats_extended_timestamps: Option<bool>,
    /// Its publication.
    pub stream: Option<RtmpStreamView>,
}

/// One publication as it is now.
#[derive(Clone, Debug)]
pub struct RtmpStreamView {
    /// What it is.
    pub session: Arc<RtmpSession>,
    /// Since it was accepted.
    pub uptime: Duration,
    /// Bodies of its audio messages.
    pub audio_bytes: u64,
    /// Bodies of its video messages.
    pub video_bytes: u64,
}

/// Totals over all connections since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RtmpTotals {
    /// Connections that have been numbered.
    pub connections: u64,
    /// Received.
    pub bytes_in: u64,
    /// Sent.
    pub bytes_out: u64,
}

impl RtmpConnections {
    /// A new connection from `peer`. It leaves when what this returns is dropped.
    pub(super) fn enter(&self, peer: SocketAddr) -> Metered {
        let number = self.0.last.fetch_add(1, Ordering::Relaxed) + 1;
        let meter = Arc::new(Meter {
            number,
            since: Instant::now(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            extended: AtomicU8::new(0),
            who: Mutex::new(Who { client: Arc::new(RtmpClient::new(number, peer)), stream: None }),
            dropped: CancellationToken::new(),
            gone: CancellationToken::new(),
        });
        self.lock().insert(number, meter.clone());
        Metered { meter, connections: self.clone() }
    }

    /// Ends the connection of that number; false if there is none.
    pub fn drop_connection(&self, number: u64) -> bool {
        let Some(meter) = self.lock().get(&number).cloned() else { return false };
        meter.dropped.cancel();
        true
    }

    /// Cancelled when the connection of that number has ended; at once if there is none.
    pub fn gone(&self, number: u64) -> CancellationToken {
        match self.lock().get(&number) {
            Some(meter) => meter.gone.clone(),
            None => {
                let gone = CancellationToken::new();
                gone.cancel();
                gone
            }
        }
    }

    /// One connection as it is now.
    pub fn get(&self, number: u64) -> Option<RtmpConnectionView> {
        let meter = self.lock().get(&number).cloned()?;
        Some(meter.view())
    }

    /// All connections that are open, by number.
    pub fn all(&self) -> Vec<RtmpConnectionView> {
        let live: Vec<Arc<Meter>> = self.lock().values().cloned().collect();
        live.iter().map(|meter| meter.view()).collect()
    }

    /// Totals, those that have ended included.
    pub fn totals(&self) -> RtmpTotals {
        let inner = &self.0;
        let live = self.lock();
        let sum = |of: fn(&Meter) -> &AtomicU64, ended: &AtomicU64| {
            live.values().fold(ended.load(Ordering::Relaxed), |sum, meter| {
                sum.saturating_add(of(meter).load(Ordering::Relaxed))
            })
        };
        RtmpTotals {
            connections: inner.last.load(Ordering::Relaxed),
            bytes_in: sum(|meter| &meter.bytes_in, &inner.ended_in),
            bytes_out: sum(|meter| &meter.bytes_out, &inner.ended_out),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Meter>>> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's counters.
#[derive(Debug)]
pub(super) struct Meter {
    number: u64,
    since: Instant,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// 0 unknown, 1 no, 2 yes.
    extended: AtomicU8,
    who: Mutex<Who>,
    /// Cancelled by whoever wants it gone.
    dropped: CancellationToken,
    /// Cancelled when it is.
    gone: CancellationToken,
}

#[derive(Debug)]
struct Who {
    client: Arc<RtmpClient>,
    stream: Option<Arc<StreamMeter>>,
}

/// One publication's counters.
#[derive(Debug)]
pub(super) struct StreamMeter {
    session: Arc<RtmpSession>,
    since: Instant,
    audio_bytes: AtomicU64,
    video_bytes: AtomicU64,
}

impl StreamMeter {
    /// Notes what has come in so far.
    pub(super) fn set(&self, audio_bytes: u64, video_bytes: u64) {
        self.audio_bytes.store(audio_bytes, Ordering::Relaxed);
        self.video_bytes.store(video_bytes, Ordering::Relaxed);
    }
}

impl Meter {
    /// Cancelled when somebody wants this connection gone.
    pub(super) fn dropped(&self) -> CancellationToken {
        self.dropped.clone()
    }

    /// Its number.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// It has said who it is.
    pub(super) fn identify(&self, client: Arc<RtmpClient>) {
        self.who().client = client;
    }

    /// Who it is.
    pub(super) fn client(&self) -> Arc<RtmpClient> {
        self.who().client.clone()
    }

    /// It publishes from now on.
    pub(super) fn begin_stream(&self, session: Arc<RtmpSession>) -> Arc<StreamMeter> {
        let stream = Arc::new(StreamMeter {
            session,
            since: Instant::now(),
            audio_bytes: AtomicU64::new(0),
            video_bytes: AtomicU64::new(0),
        });
        self.who().stream = Some(stream.clone());
        stream
    }

    /// It publishes no longer.
    pub(super) fn end_stream(&self) {
        self.who().stream = None;
    }

    /// Notes what has come in so far.
    pub(super) fn set_in(&self, bytes: u64) {
        self.bytes_in.store(bytes, Ordering::Relaxed);
    }

    /// Notes what has gone out since the last time.
    pub(super) fn add_out(&self, bytes: u64) {
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes how it repeats extended timestamps.
    pub(super) fn set_extended(&self, repeats: Option<bool>) {
        self.extended.store(repeats.map_or(0, |repeats| 1 + u8::from(repeats)), Ordering::Relaxed);
    }

    fn view(&self) -> RtmpConnectionView {
        let (client, stream) = {
            let who = self.who();
            (who.client.clone(), who.stream.clone())
        };
        RtmpConnectionView {
            client,
            uptime: self.since.elapsed(),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            repeats_extended_timestamps: match self.extended.load(Ordering::Relaxed) {
                0 => None,
                code => Some(code == 2),
            },
            stream: stream.map(|stream| RtmpStreamView {
                session: stream.session.clone(),
                uptime: stream.since.elapsed(),
                audio_bytes: stream.audio_bytes.load(Ordering::Relaxed),
                video_bytes: stream.video_bytes.load(Ordering::Relaxed),
            }),
        }
    }

    fn who(&self) -> MutexGuard<'_, Who> {
        self.who.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place among the live ones.
pub(super) struct Metered {
    meter: Arc<Meter>,
    connections: RtmpConnections,
}

impl std::ops::Deref for Metered {
    type Target = Meter;

    fn deref(&self) -> &Meter {
        &self.meter
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        let inner = &self.connections.0;
        let mut live = self.connections.lock();
        live.remove(&self.meter.number);
        self.meter.gone.cancel();
        // Under the lock, so that totals never count it twice or not at all.
        inner.ended_in.fetch_add(self.meter.bytes_in.load(Ordering::Relaxed), Ordering::Relaxed);
        inner.ended_out.fetch_add(self.meter.bytes_out.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> SocketAddr {
        "192.0.2.7:40001".parse().unwrap()
    }

    #[tokio::test]
    async fn numbers_are_never_given_twice_and_leave_with_their_connection() {
        let connections = RtmpConnections::default();
        let first = connections.enter(peer());
        let second = connections.enter(peer());
        assert_eq!((first.number(), second.number()), (1, 2));
        drop(first);
        let third = connections.enter(peer());
        assert_eq!(third.number(), 3);
        let numbers: Vec<u64> = connections.all().iter().map(|view| view.client.connection).collect();
        assert_eq!(numbers, [2, 3]);
        assert!(connections.get(1).is_none());
        assert_eq!(connections.totals().connections, 3);
    }

    #[tokio::test]
    async fn a_connection_is_ended_by_its_number_alone() {
        let connections = RtmpConnections::default();
        let (one, two) = (connections.enter(peer()), connections.enter(peer()));
        let gone = connections.gone(two.number());
        assert!(connections.drop_connection(two.number()));
        assert!(two.dropped().is_cancelled() && !one.dropped().is_cancelled());
        assert!(!connections.drop_connection(99));
        assert!(!gone.is_cancelled());
        drop(two);
        assert!(gone.is_cancelled() && connections.gone(2).is_cancelled());
        assert!(!connections.drop_connection(2));
    }

    #[tokio::test]
    async fn a_view_tells_what_went_through_and_totals_keep_what_has_left() {
        let connections = RtmpConnections::default();
        let one = connections.enter(peer());
        one.set_in(100);
        one.add_out(30);
        one.add_out(3);
        one.set_extended(Some(true));
        let session = RtmpSession::new(one.client(), 1, "yard", "", "live");
        let stream = one.begin_stream(Arc::new(session));
        stream.set(20, 70);
        let view = connections.get(1).unwrap();
        assert_eq!((view.bytes_in, view.bytes_out), (100, 33));
        assert_eq!(view.repeats_extended_timestamps, Some(true));
        let seen = view.stream.unwrap();
        assert_eq!((seen.session.name.as_str(), seen.audio_bytes, seen.video_bytes), ("yard", 20, 70));
        one.end_stream();
        assert!(connections.get(1).unwrap().stream.is_none());
        drop(one);
        assert_eq!(connections.totals(), RtmpTotals { connections: 1, bytes_in: 100, bytes_out: 33 });
    }
}
