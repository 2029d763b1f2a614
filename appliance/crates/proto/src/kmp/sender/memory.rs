//! Keeping within memory: letting go of the oldest, or fetching again what the owner has kept. Source: the KMP
//! contract, section 5.4, "memory guard".

use super::link::Down;
use super::upstream::{Cause, Link, UpstreamKey};
use super::{Keep, Kept, Memory, Output, Reason, Sender, State};
use crate::kmp::packet::{PacketKind, Wire};
use std::time::Instant;

/// A gap in what is kept: what stands before it is to be acknowledged first, since a connection cannot go on behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gap {
    /// The first frame that is missing.
    at: u64,
    /// How long acks are waited for.
    until: Instant,
    /// No longer.
    over: bool,
}

impl Sender {
    /// Bytes that count against the limit: all that the slowest upstream has not released, in whole blocks where the
    /// reference is followed.
    fn used_bytes(&self) -> u64 {
        let slowest = self.upstreams.iter().map(|upstream| upstream.seq).min().unwrap_or(self.window.base());
        if !self.settings.strict {
            return self.window.bytes_from(slowest);
        }
        self.block_bytes_from(slowest)
    }

    /// Bytes of the blocks in which the packets from `seq` on lie, and of the one that is being filled.
    fn block_bytes_from(&self, seq: u64) -> u64 {
        let first = self.settings.full_blocks(self.window.at(seq));
        let last = self.settings.full_blocks(self.window.end_at());
        last.saturating_sub(first).saturating_add(1).saturating_mul(self.settings.block_bytes)
    }

    /// Bytes of the limit that are free; `None` where there is no limit.
    pub fn free_bytes(&self) -> Option<u64> {
        match self.settings.keep {
            Keep::Memory(memory) => Some(memory.limit_bytes.saturating_sub(self.used_bytes())),
            Keep::Backlog { .. } => None,
        }
    }

    /// Lets go of the oldest packets if too many are held.
    pub(super) fn guard_memory(&mut self, now: Instant) {
        let Keep::Memory(memory) = self.settings.keep else { return };
        if self.used_bytes() <= memory.high() {
            return;
        }
        while self.used_bytes() > memory.low() {
            let Some(key) = self.furthest_behind() else { break };
            if !self.let_go_of_sent(key, memory) && !self.let_go_of_unsent(key, memory, now) {
                break;
            }
            self.release();
        }
        if self.used_bytes() > memory.limit_bytes {
            self.fail(Reason::NoMemory);
        }
    }

    fn furthest_behind(&self) -> Option<UpstreamKey> {
        self.upstreams.iter().min_by_key(|upstream| upstream.seq).map(|upstream| upstream.key)
    }

    /// Where to stop letting go, from `from` on and at `limit` at the latest: as soon as little enough is held; unless
    /// strict at the next place where a receiver can begin, if there is one.
    fn enough(&self, from: u64, limit: u64, memory: Memory) -> u64 {
        let held = |seq: u64| match self.settings.strict {
            false => self.window.bytes_from(seq),
            true => self.block_bytes_from(seq),
        };
        let mut seq = from;
        while seq < limit && held(seq) > memory.low() {
            seq = seq.saturating_add(1);
        }
        if self.settings.strict {
            return seq;
        }
        (seq..limit.saturating_add(1)).find(|at| self.window.is_border(*at)).unwrap_or(seq)
    }

    /// Acknowledges for the upstream what was sent to it; false if there is nothing.
    fn let_go_of_sent(&mut self, key: UpstreamKey, memory: Memory) -> bool {
        let Some(upstream) = self.upstream(key) else { return false };
        let Some(sent) = upstream.connection().map(|connection| connection.seq) else { return false };
        let from = upstream.seq;
        let to = self.enough(from, sent, memory);
        let Sender { upstreams, window, .. } = self;
        let Some(upstream) = upstreams.iter_mut().find(|upstream| upstream.key == key) else { return false };
        let acked = upstream.acked_id;
        upstream.release_to(to, window);
        let more = upstream.acked_id.saturating_sub(acked);
        upstream.totals.auto_acked_frames = upstream.totals.auto_acked_frames.saturating_add(more);
        to > from
    }

    /// Gives up what was not sent. Frames are counted, so that the connection cannot go on behind the gap.
    fn let_go_of_unsent(&mut self, key: UpstreamKey, memory: Memory, now: Instant) -> bool {
        self.down(key, Down::Jump, now);
        let Some(upstream) = self.upstream(key) else { return true };
        let from = upstream.seq;
        let end = self.window.end();
        let to = match self.settings.strict {
            true => end,
            false => self.enough(from, end, memory),
        };
        let strict = self.settings.strict;
        let Sender { upstreams, window, outputs, .. } = self;
        let Some(upstream) = upstreams.iter_mut().find(|upstream| upstream.key == key) else { return true };
        let acked = upstream.acked_id;
        upstream.release_to(to, window);
        match strict {
            true => upstream.tell_gone(Cause::Memory, outputs),
            false => upstream.go_to_border(Cause::Memory, window, outputs),
        }
        let more = upstream.acked_id.saturating_sub(acked);
        upstream.totals.auto_acked_frames = upstream.totals.auto_acked_frames.saturating_add(more);
        to > from
    }

    /// Whether the next packets go into the window; makes room by dropping what is sent and kept elsewhere.
    pub(super) fn has_room(&mut self, info: Option<&Wire>, frame: &Wire) -> bool {
        let Keep::Backlog { window_bytes } = self.settings.keep else { return true };
        if self.window.end_id() != self.next_id {
            return false;
        }
        let len = info.map_or(0, Wire::len).saturating_add(frame.len()) as u64;
        self.make_room(len, window_bytes);
        let held = self.window.bytes();
        held == 0 || held.saturating_add(len) <= window_bytes
    }

    /// Drops packets that are sent until `len` more bytes fit.
    fn make_room(&mut self, len: u64, window_bytes: u64) {
        let sent = self.upstreams.first().and_then(|upstream| upstream.connection());
        let sent = sent.map_or(0, |connection| connection.seq);
        while self.window.bytes().saturating_add(len) > window_bytes
            && self.window.base() < sent
            && self.window.id_at(self.window.base()) >= self.pinned_id
        {
            self.window.evict();
        }
    }

    /// Before a new connection: if packets it must begin with are not in the window, the window begins anew with them.
    pub(super) fn rewind(&mut self, key: UpstreamKey) {
        let Keep::Backlog { .. } = self.settings.keep else { return };
        let Sender { upstreams, window, state, end_due, .. } = self;
        let Some(upstream) = upstreams.iter_mut().find(|upstream| upstream.key == key) else { return };
        if let Some((_, info)) = window.evicted_info(upstream.seq, upstream.acked_id) {
            upstream.info = Some(info.clone());
        }
        if upstream.acked_id < window.id_at(window.base()) {
            window.restart(upstream.acked_id);
            upstream.seq = window.base();
            *end_due = *state == State::Ending;
        } else {
            upstream.seq = upstream.seq.max(window.base());
        }
    }

    /// Asks for kept packets when the connection runs out of those in the window.
    pub(super) fn fetch(&mut self) {
        let Keep::Backlog { window_bytes } = self.settings.keep else { return };
        let from_id = self.window.end_id();
        if self.fetching.is_some() || from_id >= self.next_id {
            return;
        }
        let Some(upstream) = self.upstreams.first() else { return };
        let unsent = match &upstream.link {
            Link::Up(connection) => self.window.end_at().saturating_sub(connection.position(&self.window)),
            Link::Open => self.window.bytes(),
            _ => return,
        };
        if self.gap.is_some_and(|gap| gap.at == from_id && !gap.over && upstream.acked_id < gap.at) {
            return;
        }
        if unsent < window_bytes / 2 {
            self.fetching = Some((from_id, self.next_id));
            self.outputs.push_back(Output::Fetch { from_id });
        }
    }

    /// The answer to [`Output::Fetch`]: `packets` in order, the first frame among them with the id `start_id`.
    ///
    /// A `start_id` higher than asked for says that the frames between are lost; no packets at all, that all up to
    /// `start_id` are, or else to the newest when they were asked for. `header` is the last one before the first packet,
    /// if known.
    pub fn loaded(
        &mut self,
        from_id: u64,
        start_id: u64,
        header: Option<Wire>,
        packets: Vec<Kept>,
        now: Instant,
    ) {
        let Some((_, asked_end)) = self.fetching.filter(|(asked, _)| *asked == from_id) else { return };
        self.fetching = None;
        if self.window.end_id() == from_id && from_id < self.next_id {
            let waits = self.upstreams.first().is_some_and(|upstream| upstream.waits.is_some());
            let is_empty = packets.iter().all(|packet| packet.kind != PacketKind::Frame);
            if is_empty || start_id > from_id {
                let unacked = self.upstreams.first().is_some_and(|upstream| upstream.acked_id < from_id);
                let over = self.gap.is_some_and(|gap| gap.at == from_id && gap.over);
                if unacked && !over {
                    let until = super::after(now, self.settings.timeout);
                    self.gap = Some(Gap { at: from_id, until, over });
                    return;
                }
                let to_id = if start_id > from_id { start_id.min(self.next_id) } else { asked_end };
                self.jump(to_id, header, now);
            } else if waits {
                self.begin_with(header, packets, now);
            } else {
                self.append_kept(header, packets, now);
            }
        }
        self.push_end(now);
        self.fetch();
    }

    /// When acks before a gap are waited for no longer.
    pub(super) fn gap_due(&self) -> Option<Instant> {
        self.gap.filter(|gap| !gap.over && gap.at == self.window.end_id()).map(|gap| gap.until)
    }

    /// A receiver that acknowledges nothing more does not keep what follows a gap waiting for ever.
    pub(super) fn end_gap(&mut self, now: Instant) {
        let (timeout, due) = (self.settings.timeout, self.gap_due());
        let all_sent = self.upstreams.first().is_some_and(|upstream| {
            upstream.connection().is_some() && upstream.sent_id(&self.window) >= self.window.end_id()
        });
        if let Some(gap) = self.gap.as_mut().filter(|_| due.is_some_and(|due| due <= now)) {
            gap.over = all_sent;
            gap.until = super::after(now, timeout);
        }
    }

    fn append_kept(&mut self, header: Option<Wire>, packets: Vec<Kept>, now: Instant) {
        let Keep::Backlog { window_bytes } = self.settings.keep else { return };
        let len = packets.iter().map(|packet| packet.wire.len() as u64).sum();
        self.make_room(len, window_bytes);
        let known = self.window.newest_info();
        let known = known.or(self.upstreams.first().and_then(|upstream| upstream.info.as_ref()));
        if let Some(header) = header.filter(|header| known != Some(header)) {
            // After a restart, or when a header was dropped and its frame was not.
            self.window.push(PacketKind::MediaInfo, false, header);
        }
        for packet in packets {
            if self.window.end_id() >= self.next_id {
                break;
            }
            self.window.push(packet.kind, packet.keyframe, packet.wire);
        }
        self.appended(now);
    }

    /// After a gap: begins with the first of these packets. Whoever keeps frames to a budget gives them up to a keyframe; what
    /// follows a damaged frame is still sent.
    fn begin_with(&mut self, header: Option<Wire>, packets: Vec<Kept>, now: Instant) {
        if let Some(upstream) = self.upstreams.first_mut() {
            upstream.waits = None;
            upstream.info = header.or(upstream.info.take());
        }
        self.append_kept(None, packets, now);
        self.open_ready(now);
    }

    /// Frames before `before_id` are not kept any more. While connected they may still come from memory.
    pub fn dropped(&mut self, before_id: u64, header: Option<Wire>, now: Instant) {
        let Some(upstream) = self.upstreams.first() else { return };
        if upstream.connection().is_none() && upstream.acked_id < before_id {
            self.jump(before_id.min(self.next_id), header, now);
            self.push_end(now);
        }
    }

    /// Goes on with what is kept from `id` on, on a connection on which nothing was sent; if nothing is, with a keyframe.
    fn jump(&mut self, id: u64, header: Option<Wire>, now: Instant) {
        let Some(upstream) = self.upstreams.first() else { return };
        let (key, waits) = (upstream.key, upstream.waits.is_some());
        self.gap = None;
        if !waits {
            self.down(key, Down::Jump, now);
        }
        let Sender { upstreams, window, outputs, state, end_due, .. } = self;
        let Some(upstream) = upstreams.iter_mut().find(|upstream| upstream.key == key) else { return };
        window.restart(id);
        *end_due = *state == State::Ending;
        upstream.seq = window.base();
        upstream.advance(id);
        upstream.info = header.or(upstream.info.take());
        upstream.waits = Some(Cause::Headless);
        upstream.tell_gone(Cause::Backlog, outputs);
    }
}
