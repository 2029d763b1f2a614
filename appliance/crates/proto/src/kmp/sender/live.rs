//! What is live first: what is older is left to the owner, who sends it elsewhere.

use super::arrears::Owed;
use super::link::Down;
use super::report::Kept;
use super::upstream::{Cause, Link};
use super::{Output, Sender, Settings, State};
use crate::kmp::packet::{PacketKind, Wire};
use std::time::{Duration, Instant};

/// Where what is live begins, and since when it is out of reach.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// The newest frame with which a receiver can begin.
    keyframe_id: Option<u64>,
    /// Since when there is no connection on which anything was acknowledged.
    down_since: Option<Instant>,
    /// Since when the connection has not caught up.
    behind_since: Option<Instant>,
    /// Nothing may be left behind.
    stays: bool,
}

impl Live {
    /// There is no connection.
    pub(super) fn lost(&mut self, now: Instant) {
        self.down_since.get_or_insert(now);
    }

    /// The receiver is there: it acknowledges. One that only lets us connect may be a router's doing.
    pub(super) fn heard(&mut self) {
        self.down_since = None;
    }

    fn is_late(&self, within: Duration, now: Instant) -> bool {
        let late =
            |since: Option<Instant>| since.is_some_and(|since| now.saturating_duration_since(since) > within);
        late(self.down_since) || late(self.behind_since)
    }
}

/// How the first upstream of a stretch that is owed begins.
#[derive(Debug)]
pub(super) struct Begin {
    told_id: u64,
    handed_id: u64,
    info: Option<Wire>,
}

impl Sender {
    /// Sends a stretch that was left behind; the owner has kept it.
    pub fn owing(settings: Settings, owed: Owed) -> Self {
        let frames = owed.head.iter().filter(|packet| packet.kind == PacketKind::Frame).count() as u64;
        let mut sender = Sender::new(settings, owed.from_id.saturating_sub(frames));
        for Kept { kind, keyframe, wire } in owed.head {
            sender.window.push(kind, keyframe, wire);
        }
        sender.flushed = sender.window.end_at();
        sender.pinned_id = owed.from_id;
        sender.next_id = owed.end_id.max(owed.from_id);
        sender.begins = Some(Begin { told_id: owed.from_id, handed_id: owed.handed_id, info: owed.info });
        sender.ask_publish();
        sender
    }

    /// What of the stretch is not settled, as it is to be noted.
    pub fn still_owed(&self) -> Option<Owed> {
        let (told_id, handed_id) = match (self.upstreams.first(), &self.begins) {
            (Some(upstream), _) => (upstream.told_id, upstream.handed_id),
            (None, Some(begin)) => (begin.told_id, begin.handed_id),
            (None, None) if matches!(self.state, State::Empty | State::Asking) => {
                let first_id = self.window.id_at(self.window.base());
                (first_id, first_id)
            }
            (None, None) => return None,
        };
        (told_id < self.next_id).then(|| Owed::new(told_id..self.next_id, handed_id))
    }

    /// Whether anything may be left behind from now on; where not, the connection goes on with the oldest. It may unless said
    /// otherwise.
    pub fn may_leave(&mut self, may: bool) {
        self.live.stays = !may;
    }

    /// The first upstream is there.
    pub(super) fn begin(&mut self) {
        if let (Some(begin), Some(upstream)) = (self.begins.take(), self.upstreams.first_mut()) {
            (upstream.told_id, upstream.handed_id) = (begin.told_id, begin.handed_id);
            upstream.info = begin.info;
        }
    }

    /// After a frame was appended: a connection that has been behind for too long begins anew with what is live.
    pub(super) fn keep_live(&mut self, id: u64, keyframe: bool, now: Instant) {
        let Some(within) = self.settings.live_within else { return };
        if keyframe {
            self.live.keyframe_id = Some(id);
        }
        let Some(upstream) = self.upstreams.first() else { return self.live.lost(now) };
        if upstream.connection().is_none() || self.window.end_id() == self.next_id {
            self.live.behind_since = None;
            return;
        }
        self.live.behind_since.get_or_insert(now);
        if keyframe && !self.live.stays && self.live.is_late(within, now) {
            let key = upstream.key;
            self.down(key, Down::Jump, now);
            // What is live does not wait for the usual time.
            self.live.down_since = now.checked_sub(within.saturating_mul(2)).or(self.live.down_since);
        }
    }

    /// A connection is there: after a long outage what stands before the newest keyframe is left behind.
    pub(super) fn leave_behind(&mut self, now: Instant) {
        let Some(within) = self.settings.live_within else { return };
        let is_late = self.live.is_late(within, now) && !self.live.stays;
        self.live.behind_since = None;
        let Sender { upstreams, window, outputs, live, state, end_due, .. } = self;
        let Some(upstream) = upstreams.first_mut().filter(|upstream| matches!(upstream.link, Link::Open))
        else {
            return;
        };
        let Some(live_id) = live.keyframe_id.filter(|id| is_late && *id > upstream.acked_id) else { return };
        live.down_since = None;
        let in_gop = upstream.head_seq >= window.base() && !window.is_border(upstream.seq);
        let head: Vec<Kept> = match in_gop && window.id_at(upstream.seq) == upstream.acked_id {
            true => window
                .from(upstream.head_seq)
                .take(usize::try_from(upstream.seq.saturating_sub(upstream.head_seq)).unwrap_or(0))
                .map(|packet| Kept {
                    kind: packet.kind,
                    keyframe: packet.keyframe,
                    wire: packet.wire.clone(),
                })
                .collect(),
            false => Vec::new(),
        };
        let has_header = head.first().is_some_and(|first| first.kind == PacketKind::MediaInfo);
        let info = upstream.info.take().filter(|_| !has_header);
        let handed_id = upstream.handed_id.clamp(upstream.told_id, live_id);
        outputs.push_back(Output::Left(Owed {
            from_id: upstream.told_id,
            handed_id,
            end_id: live_id,
            info,
            head,
        }));
        (upstream.acked_id, upstream.told_id, upstream.handed_id) = (live_id, live_id, live_id);
        window.restart(live_id);
        (upstream.seq, upstream.head_seq) = (window.base(), window.base());
        upstream.waits = Some(Cause::Headless);
        *end_due = *state == State::Ending;
    }
}
