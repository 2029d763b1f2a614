//! What one connection has been given and still has to be.

use super::window::Window;
use crate::kmp::packet::{NULL, PacketKind, Wire};
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Instant;

/// A connection that is up.
#[derive(Debug)]
pub(super) struct Connection {
    /// Packets that are not in the queue: `cnct`, the header in force, `null`.
    prelude: VecDeque<Bytes>,
    /// All of `cnct` is written.
    pub(super) connect_sent: bool,
    /// The packet to be written next, and how many of its bytes are.
    pub(super) seq: u64,
    gone: u64,
    /// Bytes written.
    pub(super) sent_bytes: u64,
    /// Since when the peer has taken nothing although bytes waited.
    pub(super) stalled_since: Option<Instant>,
    /// The last time that something was written.
    pub(super) wrote_at: Instant,
    /// Since when `eost` and all before it are written.
    pub(super) ended_at: Option<Instant>,
    /// An ack came on this connection.
    pub(super) acks: bool,
    /// Since when frames that were sent are not acknowledged, with no progress in that.
    pub(super) unacked_since: Option<Instant>,
    /// When it came up.
    pub(super) since: Instant,
}

impl Connection {
    /// Begins with `connect`, then `info`, then the queue from `seq`.
    pub(super) fn new(connect: Bytes, info: Option<&Wire>, seq: u64, now: Instant) -> Self {
        let mut connection = Connection {
            prelude: VecDeque::from([connect]),
            connect_sent: false,
            seq,
            gone: 0,
            sent_bytes: 0,
            stalled_since: Some(now),
            wrote_at: now,
            ended_at: None,
            acks: false,
            unacked_since: None,
            since: now,
        };
        info.into_iter().for_each(|info| connection.insert(info));
        connection
    }

    /// Puts a packet before the rest of the queue. Only between two packets of the queue.
    pub(super) fn insert(&mut self, wire: &Wire) {
        self.prelude.push_back(wire.head.clone());
        if !wire.body.is_empty() {
            self.prelude.push_back(wire.body.clone());
        }
    }

    /// Adds a sign of life, if nothing else waits.
    pub(super) fn keep_alive(&mut self, now: Instant) {
        if self.is_between_packets() {
            self.prelude.push_back(Bytes::from_static(&NULL));
            self.stalled_since = Some(now);
        }
    }

    /// Whether no packet is partly written.
    pub(super) fn is_between_packets(&self) -> bool {
        self.prelude.is_empty() && self.gone == 0
    }

    /// Whether something may be written, `flushed` being the place up to which the queue is handed out.
    pub(super) fn has_pending(&self, window: &Window, flushed: u64) -> bool {
        !self.prelude.is_empty() || self.position(window) < flushed.min(window.end_at())
    }

    /// Place in the queue up to which everything is written.
    pub(super) fn position(&self, window: &Window) -> u64 {
        window.at(self.seq).saturating_add(self.gone)
    }

    /// The bytes to be written next, as they lie in memory; how many of `out` are used.
    pub(super) fn slices<'a>(&'a self, window: &'a Window, flushed: u64, out: &mut [IoSlice<'a>]) -> usize {
        let mut room = out.iter_mut();
        let mut used: usize = 0;
        for piece in &self.prelude {
            let Some(slot) = room.next() else { return used };
            *slot = IoSlice::new(piece);
            used = used.saturating_add(1);
        }
        let mut gone = self.gone;
        for packet in window.from(self.seq) {
            let mut left = flushed.saturating_sub(packet.at);
            for piece in [&packet.wire.head, &packet.wire.body] {
                let skip = gone.min(piece.len() as u64);
                let take = left.min(piece.len() as u64);
                let part = piece.get(skip as usize..take as usize).unwrap_or_default();
                gone = gone.saturating_sub(skip);
                left = left.saturating_sub(take);
                if part.is_empty() {
                    continue;
                }
                let Some(slot) = room.next() else { return used };
                *slot = IoSlice::new(part);
                used = used.saturating_add(1);
            }
            if left == 0 && packet.end() >= flushed {
                break;
            }
        }
        used
    }

    /// Notes that `len` more bytes were written.
    pub(super) fn written(&mut self, len: u64, window: &Window, now: Instant) {
        self.sent_bytes = self.sent_bytes.saturating_add(len);
        self.wrote_at = now;
        let mut left = len;
        while let Some(piece) = self.prelude.front_mut().filter(|_| left > 0) {
            let taken = left.min(piece.len() as u64);
            piece.advance(taken as usize);
            left = left.saturating_sub(taken);
            if piece.is_empty() {
                self.prelude.pop_front();
                self.connect_sent = true;
            }
        }
        self.gone = self.gone.saturating_add(left);
        while let Some(packet) = window.get(self.seq).filter(|packet| packet.len() <= self.gone) {
            self.gone = self.gone.saturating_sub(packet.len());
            self.seq = self.seq.saturating_add(1);
            if packet.kind == PacketKind::EndOfStream {
                self.ended_at = Some(now);
            }
        }
    }
}
