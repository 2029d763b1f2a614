//! Players that come before their stream: encoders are told of a stream before its publisher may begin.

use crate::ExchangeId;
use crate::key::Key;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a player may wait for its stream.
const WAIT: Duration = Duration::from_secs(20);
/// Players that wait at once.
const WAITING_MAX: usize = 256;

/// Players that wait.
#[derive(Debug, Default)]
pub(crate) struct Plays(BTreeMap<ExchangeId, Play>);

#[derive(Debug)]
struct Play {
    channel: String,
    key: Key,
    until: Instant,
}

impl Plays {
    /// Lets one wait; false: there are too many.
    pub(crate) fn add(&mut self, exchange: ExchangeId, channel: &str, key: &str, now: Instant) -> bool {
        let until = now.checked_add(WAIT).unwrap_or(now);
        let play = Play { channel: channel.to_owned(), key: Key::new(key), until };
        self.0.len() < WAITING_MAX && self.0.insert(exchange, play).is_none()
    }

    /// Takes those of a channel out that have a verdict by their key now.
    pub(crate) fn settle<V>(
        &mut self,
        channel: &str,
        now: Instant,
        verdict: impl Fn(&str) -> Option<V>,
    ) -> Vec<(ExchangeId, V)> {
        let waiting = self.0.iter().filter(|(_, play)| play.channel == channel && play.until > now);
        let settled: Vec<(ExchangeId, V)> =
            waiting.filter_map(|(exchange, play)| Some((*exchange, verdict(play.key.reveal())?))).collect();
        settled.iter().for_each(|(exchange, _)| self.remove(*exchange));
        settled
    }

    /// Takes those out that have waited for too long.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<ExchangeId> {
        let late = self.0.iter().filter(|(_, play)| play.until <= now);
        let late: Vec<ExchangeId> = late.map(|(exchange, _)| *exchange).collect();
        late.iter().for_each(|exchange| self.remove(*exchange));
        late
    }

    /// It has left.
    pub(crate) fn remove(&mut self, exchange: ExchangeId) {
        self.0.remove(&exchange);
    }

    /// When [`Plays::expire`] has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.0.values().map(|play| play.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "only differences matter")]
    fn players_wait_for_so_long_and_so_many_at_once() {
        let now = Instant::now();
        let mut plays = Plays::default();
        for number in 0..256 {
            assert!(plays.add(ExchangeId(number), "c1", "k", now));
        }
        assert!(!plays.add(ExchangeId(256), "c1", "k", now), "one too many");
        assert_eq!(plays.settle("c2", now, |_| Some(())), []);
        assert_eq!(plays.settle("c1", now, |key| (key == "other").then_some(())), []);
        plays.remove(ExchangeId(0));
        assert_eq!(plays.due(), Some(now + WAIT));
        assert_eq!(plays.settle("c1", now + WAIT, |_| Some(())), [], "too late");
        assert_eq!(plays.expire(now + WAIT).len(), 255);
        assert_eq!(plays.due(), None);
    }
}
