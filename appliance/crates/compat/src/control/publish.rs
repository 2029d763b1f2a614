//! From a publisher's wish to its end, as a streaming server sees it.

use super::{Action, Note, PublishId, StreamServer, after};
use crate::ExchangeId;
use crate::coordinator::{Message, Refused, is_id};
use crate::key::Key;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// No answer for so long is a no.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Requests that are not answered yet.
const ASKING_MAX: usize = 256;
/// Longest id of a stream, in bytes; the coordinator chooses it.
const STREAM_ID_MAX: usize = 128;
/// Until a camera that was refused or sent away asks again, by how often that was.
const CAMERA_WAITS: [u64; 4] = [10, 20, 40, 60];

/// A channel that is published, or will be.
#[derive(Debug)]
pub(super) struct Publish {
    id: PublishId,
    /// Opens the channel for players, too.
    key: Key,
    /// Who publishes.
    peer: IpAddr,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The coordinator is asked.
    Asking { exchange: Option<ExchangeId>, request: u64, until: Instant },
    /// It is published.
    Live { stream_id: String },
    /// It goes on without a coordinator.
    Held { until: Instant },
    /// The same, and the coordinator is asked again.
    Again { request: u64, answer_by: Instant, until: Instant },
}

impl Publish {
    fn request(&self) -> Option<u64> {
        match self.stage {
            Stage::Asking { request, .. } | Stage::Again { request, .. } => Some(request),
            Stage::Live { .. } | Stage::Held { .. } => None,
        }
    }

    fn is_on_air(&self) -> bool {
        !matches!(self.stage, Stage::Asking { .. })
    }

    fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Asking { until, .. } | Stage::Held { until } => Some(until),
            Stage::Again { answer_by, until, .. } => Some(answer_by.min(until)),
            Stage::Live { .. } => None,
        }
    }
}

/// A camera that is a channel for as long as it has a stream.
#[derive(Debug)]
pub(super) struct Standing {
    key: Key,
    has_stream: bool,
    failures: usize,
    /// Not to be asked for before.
    not_before: Option<Instant>,
}

impl Standing {
    pub(super) fn new(key: &Key) -> Standing {
        Standing { key: key.clone(), has_stream: false, failures: 0, not_before: None }
    }

    fn put_off(&mut self, now: Instant) {
        let last = CAMERA_WAITS.len().saturating_sub(1);
        let seconds = CAMERA_WAITS.get(self.failures.min(last)).copied().unwrap_or(60);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(after(now, Duration::from_secs(seconds)));
    }
}

impl StreamServer {
    /// Somebody wants to publish. Answered by a verdict; [`StreamServer::withdraw`] takes it back.
    pub fn handle_publish(
        &mut self,
        exchange: ExchangeId,
        channel: &str,
        key: &str,
        peer: IpAddr,
        now: Instant,
    ) {
        let asking = self.publishes.values().filter(|publish| !publish.is_on_air());
        let refused = if !self.is_id(channel) || !self.is_id(key) {
            Some(Refused::Syntax)
        } else if self.publishes.contains_key(channel) || self.standing.contains_key(channel) {
            Some(Refused::Busy)
        } else if !self.link.is_up() {
            Some(Refused::NoCoordinator)
        } else if self.publishes.len() >= self.settings.max_streams || asking.count() >= ASKING_MAX {
            Some(Refused::Full)
        } else {
            None
        };
        match refused {
            Some(why) => self.judge(exchange, Err(why)),
            None => self.ask(Some(exchange), channel, &Key::new(key), peer, now),
        }
    }

    fn ask(&mut self, exchange: Option<ExchangeId>, channel: &str, key: &Key, peer: IpAddr, now: Instant) {
        let request = self.request(channel, key, peer);
        let stage = Stage::Asking { exchange, request, until: after(now, ANSWER_WITHIN) };
        let id = PublishId(self.next_publish);
        self.next_publish = self.next_publish.saturating_add(1);
        self.publishes.insert(channel.to_owned(), Publish { id, key: key.clone(), peer, stage });
    }

    /// Sends a request; its number.
    fn request(&mut self, channel: &str, key: &Key, peer: IpAddr) -> u64 {
        let request = self.next_request;
        self.next_request = request.saturating_add(1);
        let message = Message::new("PUBLISH-REQUEST")
            .with("Request-ID", &request.to_string())
            .with("Stream-Channel", channel)
            .with("Stream-Key", key.reveal())
            .with("User-IP", &peer.to_canonical().to_string());
        self.actions.push_back(Action::Send(message));
        request
    }

    /// Whoever asked has left before the answer.
    pub fn withdraw(&mut self, exchange: ExchangeId) {
        self.plays.remove(exchange);
        // A yes that still comes is answered by its end.
        self.publishes.retain(
            |_, publish| !matches!(publish.stage, Stage::Asking { exchange: Some(own), .. } if own == exchange),
        );
    }

    /// A publisher is gone.
    pub fn handle_publish_end(&mut self, channel: &str, id: PublishId, now: Instant) {
        if self.publishes.get(channel).is_some_and(|publish| publish.id == id) {
            self.end(channel, now);
        }
    }

    /// A camera has a stream now, or none any more.
    pub fn handle_camera(&mut self, channel: &str, has_stream: bool, now: Instant) {
        let Some(standing) = self.standing.get_mut(channel) else { return };
        standing.has_stream = has_stream;
        if has_stream {
            self.ask_for_cameras(now);
        } else {
            (standing.failures, standing.not_before) = (0, None);
            self.end(channel, now);
        }
    }

    /// Somebody wants to play. Answered by a verdict; [`StreamServer::withdraw`] takes it back.
    pub fn handle_play(&mut self, exchange: ExchangeId, channel: &str, key: &str, now: Instant) {
        if !self.is_id(channel) || !self.is_id(key) {
            return self.judge(exchange, Err(Refused::Syntax));
        }
        if let Some(verdict) = self.play_verdict(channel, key) {
            return self.judge(exchange, verdict);
        }
        if !self.plays.add(exchange, channel, key, now) {
            self.judge(exchange, Err(Refused::Full));
        }
    }

    /// What a player is told; `None`: its stream may still come.
    fn play_verdict(&self, channel: &str, key: &str) -> Option<Result<PublishId, Refused>> {
        let publish = self.publishes.get(channel)?;
        if !publish.key.matches(key) {
            return Some(Err(Refused::Unknown));
        }
        publish.is_on_air().then_some(Ok(publish.id))
    }

    pub(super) fn on_accept(&mut self, request: &str, channel: &str, stream_id: &str, now: Instant) {
        let asked = request.parse().ok();
        let publish = self.publishes.get_mut(channel);
        let Some(publish) = publish.filter(|publish| asked.is_some() && publish.request() == asked) else {
            self.note(Note::Late(if self.is_id(channel) { channel.to_owned() } else { "?".to_owned() }));
            return self.tell_end(channel, stream_id);
        };
        if !is_id(stream_id, STREAM_ID_MAX) {
            // Its end could not be told.
            return self.on_deny(request, Refused::Denied, now);
        }
        let (stage, id) = (&mut publish.stage, publish.id);
        let before = std::mem::replace(stage, Stage::Live { stream_id: stream_id.to_owned() });
        if let Some(standing) = self.standing.get_mut(channel) {
            standing.not_before = None;
        }
        self.note(Note::Accepted { channel: channel.to_owned(), stream_id: stream_id.to_owned() });
        if let Stage::Asking { exchange: Some(exchange), .. } = before {
            self.judge(exchange, Ok(id));
        }
        let mut plays = std::mem::take(&mut self.plays);
        let settled = plays.settle(channel, now, |key| self.play_verdict(channel, key));
        self.plays = plays;
        settled.into_iter().for_each(|(exchange, verdict)| self.judge(exchange, verdict));
    }

    pub(super) fn on_deny(&mut self, request: &str, why: Refused, now: Instant) {
        let Ok(request) = request.parse() else { return };
        let mut its = self.publishes.iter().filter(|(_, publish)| publish.request() == Some(request));
        let Some(channel) = its.next().map(|(channel, _)| channel.clone()) else { return };
        self.refuse(&channel, why, now);
    }

    /// Nobody may publish this, or not any more.
    fn refuse(&mut self, channel: &str, why: Refused, now: Instant) {
        let Some(Publish { id, stage, .. }) = self.publishes.remove(channel) else { return };
        if let Some(standing) = self.standing.get_mut(channel) {
            standing.put_off(now);
        }
        self.note(Note::Denied { channel: channel.to_owned(), why });
        match stage {
            Stage::Asking { exchange: Some(exchange), .. } => self.judge(exchange, Err(why)),
            Stage::Asking { exchange: None, .. } => {}
            Stage::Live { .. } | Stage::Held { .. } | Stage::Again { .. } => {
                self.actions.push_back(Action::Kill(channel.to_owned(), id));
            }
        }
    }

    pub(super) fn on_kill(&mut self, channel: &str, stream_id: &str, now: Instant) {
        let Some(publish) = self.publishes.get(channel) else { return };
        let is_any = stream_id.is_empty() || stream_id == "*";
        let is_meant = match &publish.stage {
            Stage::Live { stream_id: own } => is_any || stream_id == own,
            Stage::Again { .. } => is_any,
            Stage::Asking { .. } | Stage::Held { .. } => false,
        };
        if !is_meant {
            return;
        }
        let id = publish.id;
        let note = Note::Killed { channel: channel.to_owned(), why: "the coordinator wants it so" };
        self.note(note);
        match self.standing.get_mut(channel) {
            // A camera does not go.
            Some(standing) => {
                standing.put_off(now);
                self.end(channel, now);
            }
            // Its end is told when it is gone.
            None => self.actions.push_back(Action::Kill(channel.to_owned(), id)),
        }
    }

    /// A publication is over; the coordinator hears of it once.
    fn end(&mut self, channel: &str, now: Instant) {
        let Some(Publish { id, stage, .. }) = self.publishes.remove(channel) else { return };
        if self.standing.contains_key(channel) && !matches!(stage, Stage::Asking { .. }) {
            self.actions.push_back(Action::Kill(channel.to_owned(), id));
        }
        match stage {
            Stage::Live { stream_id } => self.tell_end(channel, &stream_id),
            // A yes that still comes is answered by its end.
            Stage::Asking { .. } | Stage::Held { .. } | Stage::Again { .. } => {}
        }
        self.ask_for_cameras(now);
    }

    fn tell_end(&mut self, channel: &str, stream_id: &str) {
        if self.link.is_up() {
            let message =
                Message::new("PUBLISH-END").with("Stream-Channel", channel).with("Stream-ID", stream_id);
            self.actions.push_back(Action::Send(message));
        }
    }

    /// Without the coordinator nobody is let in; who is there stays for as long as may be.
    pub(super) fn coordinator_lost(&mut self, now: Instant) {
        let grace = self.settings.grace;
        let mut gone = Vec::new();
        for (channel, publish) in &mut self.publishes {
            publish.stage = match publish.stage {
                Stage::Live { .. } if !grace.is_zero() => Stage::Held { until: after(now, grace) },
                Stage::Again { until, .. } | Stage::Held { until } => Stage::Held { until },
                Stage::Live { .. } | Stage::Asking { .. } => {
                    gone.push(channel.clone());
                    continue;
                }
            };
        }
        for channel in gone {
            self.refuse(&channel, Refused::NoCoordinator, now);
            if let Some(standing) = self.standing.get_mut(&channel) {
                // That was not the coordinator's word.
                (standing.failures, standing.not_before) = (0, None);
            }
        }
    }

    /// The coordinator is back, and knows nothing of those who stayed.
    pub(super) fn ask_again(&mut self, now: Instant) {
        let held = self.publishes.iter().filter_map(|(channel, publish)| match publish.stage {
            Stage::Held { until } => Some((channel.clone(), publish.key.clone(), publish.peer, until)),
            _ => None,
        });
        let held: Vec<(String, Key, IpAddr, Instant)> = held.collect();
        for (channel, key, peer, until) in held {
            let request = self.request(&channel, &key, peer);
            if let Some(publish) = self.publishes.get_mut(&channel) {
                publish.stage = Stage::Again { request, answer_by: after(now, ANSWER_WITHIN), until };
            }
        }
    }

    /// Cameras that have a stream and are no channel yet.
    pub(super) fn ask_for_cameras(&mut self, now: Instant) {
        if !self.link.is_up() {
            return;
        }
        let free = self.standing.iter().filter(|(channel, standing)| {
            standing.has_stream
                && standing.not_before.is_none_or(|at| at <= now)
                && !self.publishes.contains_key(*channel)
        });
        let free: Vec<(String, Key)> =
            free.map(|(channel, standing)| (channel.clone(), standing.key.clone())).collect();
        for (channel, key) in free {
            self.ask(None, &channel, &key, self.settings.own_address, now);
        }
    }

    pub(super) fn expire_publishes(&mut self, now: Instant) {
        let late = self.publishes.iter().filter(|(_, publish)| publish.due().is_some_and(|due| due <= now));
        let late: Vec<String> = late.map(|(channel, _)| channel.clone()).collect();
        for channel in late {
            self.refuse(&channel, Refused::Unanswered, now);
        }
    }

    pub(super) fn publishes_due(&self) -> Option<Instant> {
        let publishes = self.publishes.values().filter_map(Publish::due);
        let waiting = self.standing.iter().filter(|(channel, standing)| {
            self.link.is_up() && standing.has_stream && !self.publishes.contains_key(*channel)
        });
        publishes.chain(waiting.filter_map(|(_, standing)| standing.not_before)).min()
    }
}
