//! Lost connections, and what follows: time limits, questions, giving up. Source: the KMP contract, sections 5.2, 5.5
//! and 5.6.

use super::upstream::{Cause, Fate, Link, ResumeFrom, Upstream, UpstreamKey};
use super::window::Window;
use super::{Output, Reason, Reconnect, Sender, State, after};
use std::collections::VecDeque;
use std::time::Instant;

/// Why a connection is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Down {
    /// Closed, failed, timed out, or never came up.
    Lost,
    /// It acknowledged what it was not sent.
    BadAck,
    /// What it should have been sent next is not there any more.
    Jump,
}

impl Upstream {
    /// Tells what became of the frames before `to_id` whose fate is not told.
    pub(super) fn tell(&mut self, to_id: u64, fate: Fate, outputs: &mut VecDeque<Output>) {
        if to_id > self.told_id {
            let (upstream, from_id) = (self.key, self.told_id);
            outputs.push_back(Output::Settled { upstream, from_id, to_id, fate });
            self.told_id = to_id;
        }
    }

    /// Tells that all that is released and not acknowledged is not sent any more.
    pub(super) fn tell_gone(&mut self, cause: Cause, outputs: &mut VecDeque<Output>) {
        self.tell(self.handed_id.min(self.acked_id), Fate::Unconfirmed(cause), outputs);
        self.tell(self.acked_id, Fate::Lost(cause), outputs);
    }

    /// Leaves out what stands before the next place where a receiver can begin; without any all that is there and all
    /// that comes before there is one.
    pub(super) fn go_to_border(&mut self, cause: Cause, window: &Window, outputs: &mut VecDeque<Output>) {
        let border = (self.seq..window.end()).find(|at| window.is_border(*at));
        self.release_to(border.unwrap_or(window.end()), window);
        self.waits = border.is_none().then_some(cause);
        self.tell_gone(cause, outputs);
    }

    /// Asks where to go on.
    pub(super) fn ask(&mut self, now: Instant, outputs: &mut VecDeque<Output>) {
        self.asked_at = Some(now);
        self.link = Link::Asking;
        outputs.push_back(Output::AskRepublish(self.key));
    }

    /// Leaves out all whole frames before `place`.
    pub(super) fn skip(&mut self, place: u64, window: &Window, outputs: &mut VecDeque<Output>) {
        let frames = window.from(self.seq).take_while(|packet| packet.end() <= place);
        let last = frames.filter(|packet| packet.kind == crate::kmp::PacketKind::Frame).last();
        if let Some(id) = last.map(|packet| packet.id.saturating_add(1)) {
            self.release_to_id(id, window);
            self.tell_gone(Cause::Skipped, outputs);
        }
    }
}

impl Sender {
    /// A connection is lost, or has to be closed.
    pub(super) fn down(&mut self, key: UpstreamKey, why: Down, now: Instant) {
        let Sender { upstreams, window, outputs, flushed, .. } = self;
        let Some(upstream) = upstreams.iter_mut().find(|upstream| upstream.key == key) else { return };
        let (connect_sent, unsent, ended, acks, lasted) = match &upstream.link {
            Link::Up(connection) => (
                connection.connect_sent,
                connection.has_pending(window, *flushed),
                connection.ended_at.is_some(),
                connection.acks,
                now.saturating_duration_since(connection.since),
            ),
            Link::Connecting { .. } | Link::Open => (false, true, false, false, std::time::Duration::ZERO),
            _ => return,
        };
        if let Link::Up(connection) = &upstream.link {
            let totals = &mut upstream.totals;
            totals.earlier_bytes = totals.earlier_bytes.saturating_add(connection.sent_bytes);
        }
        outputs.push_back(Output::Close(key));
        upstream.link = Link::Idle;
        self.live.lost(now);
        if upstream.acked_id > upstream.told_id && !self.settings.strict {
            // The memory guard has let go of them, and perhaps of the head of a GOP.
            upstream.go_to_border(Cause::Memory, window, outputs);
        }
        upstream.tell_gone(Cause::Memory, outputs);
        if upstream.spec.resume_from == ResumeFrom::LastWritten && connect_sent {
            upstream.skip(*flushed, window, outputs);
        }
        let all_acked = upstream.acked_id >= self.next_id;
        let attempts = upstream.end_attempts;
        if ended {
            let max = self.settings.end_attempts;
            // One that acknowledges has not had these frames if it says nothing of them.
            let counts = acks || max == 0 || !self.acknowledges;
            if all_acked || (counts && attempts >= max) {
                return self.give_up(key, Cause::Unacknowledged);
            }
            upstream.end_attempts = attempts.saturating_add(u32::from(counts));
        }
        self.rewind(key);
        let is_static = matches!(self.settings.reconnect, Reconnect::Backoff { .. });
        let is_alive = match self.state {
            State::Active => true,
            State::Ending => !self.settings.strict,
            _ => false,
        };
        if !is_alive || (why == Down::BadAck && !is_static) {
            return self.give_up(key, Cause::Abandoned);
        }
        match self.settings.reconnect {
            Reconnect::Never => self.give_up(key, Cause::Abandoned),
            Reconnect::Backoff { first, longest } => {
                let Some(upstream) = self.upstream_mut(key) else { return };
                if lasted >= longest {
                    upstream.pause = None;
                }
                let until = match why {
                    Down::Jump => now,
                    _ => after(now, upstream.next_pause(first, longest)),
                };
                upstream.link = Link::Waiting { until };
            }
            Reconnect::Ask { .. } if self.settings.strict && connect_sent && !unsent => {}
            Reconnect::Ask { .. } => {
                let counts = self.settings.strict || self.state == State::Ending || !connect_sent || unsent;
                self.plan_question(key, counts, now);
            }
        }
    }

    /// Asks now, or when the interval is over; gives up after too many questions in a row.
    fn plan_question(&mut self, key: UpstreamKey, counts: bool, now: Instant) {
        let Reconnect::Ask { interval, max } = self.settings.reconnect else { return };
        let Sender { upstreams, outputs, .. } = self;
        let Some(upstream) = upstreams.iter_mut().find(|upstream| upstream.key == key) else { return };
        let early = upstream.asked_at.filter(|at| now.saturating_duration_since(*at) < interval);
        match early {
            None => {
                upstream.asks = 0;
                upstream.ask(now, outputs);
            }
            Some(_) if counts && upstream.asks >= max => self.give_up(key, Cause::Abandoned),
            Some(at) => {
                upstream.asks = upstream.asks.saturating_add(u32::from(counts));
                upstream.link = Link::Waiting { until: after(at, interval) };
            }
        }
    }

    /// An upstream is gone for good.
    pub(super) fn give_up(&mut self, key: UpstreamKey, cause: Cause) {
        let Some(index) = self.index(key) else { return };
        let upstream = self.upstreams.remove(index);
        let required = upstream.spec.required;
        self.settle_rest(upstream, cause);
        let was_last = self.upstreams.is_empty();
        match self.state {
            State::Ending if was_last => self.finish(),
            State::Active if required || was_last => {
                self.reason.get_or_insert(Reason::UpstreamError);
                if was_last {
                    self.deactivate();
                }
                self.outputs.push_back(Output::DropSession(Reason::UpstreamError));
            }
            _ => {}
        }
    }

    /// Tells the fate of all frames that an upstream has not had.
    pub(super) fn settle_rest(&mut self, mut upstream: Upstream, cause: Cause) {
        upstream.tell_gone(Cause::Memory, &mut self.outputs);
        upstream.acked_id = upstream.acked_id.max(self.next_id);
        upstream.tell_gone(cause, &mut self.outputs);
        self.release();
    }

    /// When [`Sender::handle_timeout`] has to be called next, if at all.
    pub fn next_timeout(&self) -> Option<Instant> {
        let settings = &self.settings;
        let upstreams = self.upstreams.iter().filter_map(|upstream| match &upstream.link {
            Link::Waiting { until } => Some(*until),
            Link::Connecting { since } => Some(after(*since, settings.timeout)),
            Link::Up(connection) => {
                let pending = connection.has_pending(&self.window, self.flushed);
                let stalled = connection.stalled_since.filter(|_| pending);
                let silent = settings.keepalive.filter(|_| connection.is_between_packets() && !pending);
                let silent = silent.filter(|_| connection.ended_at.is_none());
                let acked = settings.ack_silence.filter(|_| connection.acks);
                let due = [
                    stalled.map(|since| after(since, settings.timeout)),
                    silent.map(|silence| after(connection.wrote_at, silence)),
                    connection.ended_at.zip(settings.end_grace).map(|(at, grace)| after(at, grace)),
                    connection.unacked_since.zip(acked).map(|(at, silence)| after(at, silence)),
                ];
                due.into_iter().flatten().min()
            }
            Link::Idle | Link::Asking | Link::Open => None,
        });
        let patience = self.ended_at.filter(|_| self.state == State::Ending).zip(settings.end_patience);
        let patience = patience.map(|(at, patience)| after(at, patience));
        upstreams.chain(self.flush_due).chain(patience).chain(self.gap_due()).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.flush_due.is_some_and(|due| due <= now) {
            self.flush_due = None;
            self.flush_to(self.window.end_at(), now);
        }
        let is_over = |since: Option<Instant>, limit| {
            since.zip(limit).is_some_and(|(since, limit)| after(since, limit) <= now)
        };
        let keys: Vec<UpstreamKey> = self.upstreams.iter().map(|upstream| upstream.key).collect();
        let out_of_patience =
            self.state == State::Ending && is_over(self.ended_at, self.settings.end_patience);
        for key in keys {
            if out_of_patience {
                self.outputs.push_back(Output::Close(key));
                self.give_up(key, Cause::Abandoned);
                continue;
            }
            let settings = self.settings;
            let Sender { upstreams, window, outputs, flushed, .. } = self;
            let Some(upstream) = upstreams.iter_mut().find(|upstream| upstream.key == key) else { continue };
            match &mut upstream.link {
                Link::Waiting { until } if *until <= now => match settings.reconnect {
                    Reconnect::Ask { .. } => upstream.ask(now, outputs),
                    _ => {
                        upstream.link = Link::Connecting { since: now };
                        outputs.push_back(Output::Connect(key));
                    }
                },
                Link::Connecting { since } if after(*since, settings.timeout) <= now => {
                    self.down(key, Down::Lost, now);
                }
                Link::Up(connection) => {
                    let pending = connection.has_pending(window, *flushed);
                    let ack_silence = settings.ack_silence.filter(|_| connection.acks);
                    if is_over(connection.stalled_since.filter(|_| pending), Some(settings.timeout))
                        || is_over(connection.ended_at, settings.end_grace)
                        || is_over(connection.unacked_since, ack_silence)
                    {
                        self.down(key, Down::Lost, now);
                    } else if !pending
                        && connection.ended_at.is_none()
                        && is_over(Some(connection.wrote_at), settings.keepalive)
                    {
                        connection.keep_alive(now);
                    }
                }
                _ => {}
            }
        }
        self.end_gap(now);
        self.fetch();
    }
}
