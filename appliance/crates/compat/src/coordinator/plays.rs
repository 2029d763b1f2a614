//! Who plays from the gateway's own RTMP server.

use super::{Action, Coordinator, Refused, Verdict, is_id};
use crate::ExchangeId;
use std::time::Instant;

impl Coordinator {
    /// Somebody wants to play from our own server. Answered by a verdict; [`Coordinator::withdraw`] takes it back.
    pub fn handle_play(&mut self, exchange: ExchangeId, channel: &str, key: &str, now: Instant) {
        let max = self.settings.id_max;
        if !is_id(channel, max) || !is_id(key, max) {
            return self.judge(exchange, Verdict::Deny(Refused::Syntax));
        }
        if let Some(verdict) = self.play_verdict(channel, key) {
            return self.judge(exchange, verdict);
        }
        if !self.plays.add(exchange, channel, key, now) {
            self.judge(exchange, Verdict::Deny(Refused::Full));
        }
    }

    /// What a player is told; `None`: its stream may still come.
    fn play_verdict(&self, channel: &str, key: &str) -> Option<Verdict> {
        let publish = self.channels.get(channel)?;
        if publish.server != self.own || !publish.key.matches(key) {
            return Some(Verdict::Deny(Refused::Unknown));
        }
        publish.live().map(|stream_id| Verdict::Allow { stream_id: stream_id.to_owned() })
    }

    pub(super) fn settle_plays(&mut self, channel: &str, now: Instant) {
        let mut plays = std::mem::take(&mut self.plays);
        let settled = plays.settle(channel, now, |key| self.play_verdict(channel, key));
        self.plays = plays;
        settled.into_iter().for_each(|(exchange, verdict)| self.judge(exchange, verdict));
    }

    pub(super) fn expire_plays(&mut self, now: Instant) {
        for exchange in self.plays.expire(now) {
            self.judge(exchange, Verdict::Deny(Refused::Unknown));
        }
    }

    fn judge(&mut self, exchange: ExchangeId, verdict: Verdict) {
        self.actions.push_back(Action::Verdict(exchange, verdict));
    }
}
