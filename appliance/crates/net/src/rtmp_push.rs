//! Sends a mountpoint's stream to an RTMP server.
//!
//! ```text
//!  wait for a stream -> dial, handshake, publish -> follow the ring from the newest keyframe
//!        ^                                            |
//!        +---- stream ended: finish politely ---------+ (any failure: an error, the supervisor tries again)
//! ```

mod told;

use crate::outbox::Framing;
use crate::rtmp_client::{Accepted, RtmpClientError, RtmpEndpoint};
use fieldgate_hub::{Clock, LedgerHandle, LocalShard, Mountpoint, StreamState};
use fieldgate_media::Codec;
use fieldgate_proto::rtmp::wire::MetadataStyle;
use fieldgate_proto::rtmp::{ClientEvent, ClientMode, Limits};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use told::{Progress, Told};

/// How often slow servers are looked for and counters brought up to date.
const LOOK: Duration = Duration::from_millis(500);

/// How long the rest of an ended stream may take.
const LAST_UNITS: Duration = Duration::from_secs(2);

/// What a push does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PushPhase {
    /// Nobody publishes to its mountpoint.
    Waiting = 0,
    /// Connecting to the server.
    Connecting = 1,
    /// The server takes the stream.
    Delivering = 2,
}

/// A push's state and totals, over all its tries; read by the status.
#[derive(Debug, Default)]
pub struct PushReport {
    phase: AtomicU8,
    sent_bytes: AtomicU64,
    sent_units: AtomicU64,
    dropped_units: AtomicU64,
    jumps: AtomicU64,
    connections: AtomicU64,
    told: Mutex<Option<Told>>,
}

impl PushReport {
    /// What it does now.
    pub fn phase(&self) -> PushPhase {
        match self.phase.load(Ordering::Relaxed) {
            2 => PushPhase::Delivering,
            1 => PushPhase::Connecting,
            _ => PushPhase::Waiting,
        }
    }

    /// Bytes written to servers.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Units written whole.
    pub fn sent_units(&self) -> u64 {
        self.sent_units.load(Ordering::Relaxed)
    }

    /// Units that were not sent because the server took them too slowly. What was missed while there was no connection
    /// is not in it.
    pub fn dropped_units(&self) -> u64 {
        self.dropped_units.load(Ordering::Relaxed)
    }

    /// Times that units were left out because the server was too slow.
    pub fn jumps(&self) -> u64 {
        self.jumps.load(Ordering::Relaxed)
    }

    /// Times that a server accepted.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Lets the ledger be told, beginning with what is published now.
    fn tell(&self, published: u64, now: i64, tell: impl FnOnce(&mut Told)) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        tell(told.get_or_insert_with(|| Told::new(published, now)));
    }

    fn enter(&self, phase: PushPhase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }
}

/// One push: one mountpoint, one server.
pub struct RtmpPush {
    /// Where to.
    pub endpoint: RtmpEndpoint,
    /// What to send.
    pub mountpoint: Arc<Mountpoint>,
    /// Write at most this often; zero: at once.
    pub gather: Duration,
    /// A server that takes nothing for so long is given up.
    pub write_timeout: Duration,
    /// Units further behind than this are skipped to the newest keyframe.
    pub max_lag: Duration,
    /// Where state and totals go.
    pub report: Arc<PushReport>,
    /// Where it is written down what was sent and what was lost.
    pub ledger: LedgerHandle,
    /// Time of day.
    pub clock: Clock,
    /// Ends when the push shall stop.
    pub cancel: CancellationToken,
}

impl RtmpPush {
    /// Pushes whenever there is a stream, until cancelled (`Ok`) or something fails. Runs on the mountpoint's shard.
    pub async fn run(self, local: Rc<LocalShard>) -> Result<(), RtmpClientError> {
        let (published, now) = self.published();
        self.report.tell(published, now, |told| told.outage(&self.ledger, published, now));
        let outcome = self.push_streams(&local).await;
        if let Err(error) = &outcome {
            let (published, now) = self.published();
            self.report.tell(published, now, |told| told.failed(error));
        }
        self.report.enter(PushPhase::Waiting);
        outcome
    }

    /// Units that the mountpoint has published, and the time, microseconds since 1970.
    fn published(&self) -> (u64, i64) {
        (self.mountpoint.ring().counters().units, self.clock.unix_micros())
    }

    async fn push_streams(&self, local: &Rc<LocalShard>) -> Result<(), RtmpClientError> {
        let removed = self.mountpoint.closed();
        loop {
            self.report.enter(PushPhase::Waiting);
            tokio::select! {
                () = self.cancel.cancelled() => return Ok(()),
                () = removed.cancelled() => return Ok(()),
                () = self.until_live() => {}
            }
            self.report.enter(PushPhase::Connecting);
            let accepted = tokio::select! {
                () = self.cancel.cancelled() => return Ok(()),
                accepted = self.connect(local) => accepted?,
            };
            self.report.enter(PushPhase::Delivering);
            self.report.connections.fetch_add(1, Ordering::Relaxed);
            self.deliver(accepted, local).await?;
            if self.cancel.is_cancelled() || removed.is_cancelled() {
                return Ok(());
            }
        }
    }

    async fn connect(&self, local: &Rc<LocalShard>) -> Result<Accepted, RtmpClientError> {
        // Servers that know plain RTMP alone are not asked for more than the stream needs.
        let tracks = self.mountpoint.ring().tracks();
        let plain =
            |codec| matches!(codec, Codec::H264 | Codec::Aac | Codec::Mp3 | Codec::PcmA | Codec::PcmU);
        let enhanced = tracks.iter().any(|track| !plain(track.codec));
        Accepted::connect(&self.endpoint, ClientMode::Publish, enhanced, Limits::default(), local).await
    }

    async fn until_live(&self) {
        let mut state = self.mountpoint.state();
        // The sender lives as long as the mountpoint, which we hold.
        let _ = state.wait_for(|state| matches!(state, StreamState::Live(_))).await;
    }

    /// Sends until the stream ends or we are cancelled (`Ok`), or the connection fails.
    async fn deliver(&self, mut accepted: Accepted, local: &Rc<LocalShard>) -> Result<(), RtmpClientError> {
        let outbox = accepted.outbox.clone();
        let framing = Framing {
            chunk_len: accepted.session.chunk_len(),
            stream_id: accepted.stream_id,
            style: MetadataStyle::SetDataFrame,
        };
        outbox.start(
            self.mountpoint.subscribe(Some(self.max_lag)),
            framing,
            local.beat(self.gather),
            Instant::now(),
        );
        outbox.write_now();
        let listed = local.sinks(self.mountpoint.name()).add(outbox.clone());
        let (mut sent, mut units, mut dropped, mut jumps) = (0, 0, 0, 0);
        let (_, connected) = self.published();
        let mut count = || {
            let (sent_now, units_now) = (outbox.written_bytes(), outbox.written_units());
            let (dropped_now, jumps_now) = (outbox.dropped_units(), outbox.jumps());
            self.report.sent_bytes.fetch_add(sent_now - sent, Ordering::Relaxed);
            self.report.sent_units.fetch_add(units_now - units, Ordering::Relaxed);
            self.report.dropped_units.fetch_add(dropped_now - dropped, Ordering::Relaxed);
            self.report.jumps.fetch_add(jumps_now - jumps, Ordering::Relaxed);
            let progress = Progress {
                sent_units: units_now - units,
                sent_bytes: sent_now - sent,
                dropped_units: dropped_now - dropped,
                caught_up: outbox.blocked_since().is_none() && outbox.due().is_none(),
            };
            let (published, now) = self.published();
            self.report.tell(published, now, |told| {
                told.progress(&self.ledger, progress, published, connected, now);
            });
            (sent, units, dropped, jumps) = (sent_now, units_now, dropped_now, jumps_now);
        };
        let outcome = self.follow(&mut accepted, local, &mut count).await;
        if outcome.is_ok() {
            // The stream's end may still be on its way.
            outbox.drain(LAST_UNITS).await;
        }
        count();
        drop(listed);
        if outcome.is_ok() {
            accepted.finish().await;
        }
        outcome
    }

    async fn follow(
        &self,
        accepted: &mut Accepted,
        local: &Rc<LocalShard>,
        count: &mut impl FnMut(),
    ) -> Result<(), RtmpClientError> {
        let outbox = accepted.outbox.clone();
        let mut state = self.mountpoint.state();
        let removed = self.mountpoint.closed();
        let mut look = tokio::time::interval(LOOK);
        let mut batch = Vec::new();
        loop {
            while let Some(event) = accepted.next_event()? {
                match event {
                    ClientEvent::Rejected { code, description } => {
                        return Err(RtmpClientError::Rejected { code, description });
                    }
                    ClientEvent::Ended { code } => return Err(RtmpClientError::Ended(code)),
                    _ => {}
                }
            }
            accepted.send_answers()?;
            let unread = &mut accepted.unread;
            let turn = poll_fn(|cx| {
                // Ready(Ok) means that the time to write what is gathered has changed: the timer is made anew.
                if let Poll::Ready(progress) = outbox.poll_progress(cx, &mut batch) {
                    return Poll::Ready(progress.map(|()| None));
                }
                let mut scratch = local.scratch();
                let len = ready!(outbox.poll_read(cx, &mut scratch))?;
                unread.extend_from_slice(scratch.get(..len).unwrap_or_default());
                Poll::Ready(Ok(Some(len)))
            });
            let due = outbox.due();
            tokio::select! {
                biased;
                turn = turn => if turn? == Some(0) {
                    return Err(RtmpClientError::Closed);
                },
                () = async { tokio::time::sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {
                    outbox.write_gathered(Instant::now());
                }
                ended = state.wait_for(|state| *state == StreamState::Idle) => {
                    drop(ended);
                    return Ok(());
                }
                _ = look.tick() => {
                    count();
                    if outbox.blocked_since().is_some_and(|since| since.elapsed() > self.write_timeout) {
                        self.mountpoint.count_stalled();
                        return Err(RtmpClientError::TooSlow(self.write_timeout));
                    }
                }
                () = self.cancel.cancelled() => return Ok(()),
                () = removed.cancelled() => return Ok(()),
            }
        }
    }
}
