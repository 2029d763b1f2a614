//! A streaming server of a coordinator elsewhere.
//!
//! ```text
//!            +------------- no, or 20 s without an answer: refused
//!  publish --+-> asking --yes--> live --kill, publisher gone--> over (PUBLISH-END, once)
//!                                 |  ^
//!                          socket lost |
//!                                 v  | yes
//!               over <--no grace-- held --socket back--> asked again --no--> over
//! ```
//! [`StreamServer`] knows neither sockets nor time: it says when to connect, what to send and whom to send away. Cameras
//! are publishers that come again by themselves. Not for media, and not for the coordinator's own side, which is
//! [`crate::coordinator`].

pub mod fuzz;
mod note;
mod publish;
#[cfg(test)]
mod tests;
mod variables;

pub use note::Note;
pub use variables::take_variables;

use crate::ExchangeId;
use crate::control_socket::{self, Due, Heard, Link, complaint};
use crate::coordinator::{Message, MessageError, Refused, is_id};
use crate::key::Key;
use crate::plays::Plays;
use publish::{Publish, Standing};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// `now` so much later.
fn after(now: Instant, span: Duration) -> Instant {
    now.checked_add(span).unwrap_or(now)
}

/// What a streaming server goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Longest channel or key, in bytes.
    pub id_max: usize,
    /// Channels at once.
    pub max_streams: usize,
    /// A coordinator that says nothing for so long is lost.
    pub silence: Duration,
    /// How long publishers may stay without a coordinator.
    pub grace: Duration,
    /// Keys of the channels that cameras are, by channel.
    pub cameras: BTreeMap<String, Key>,
    /// Whom the coordinator is told of as a camera's publisher.
    pub own_address: IpAddr,
    /// For waits that differ between gateways.
    pub seed: u64,
}

/// One publication, never two with one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishId(pub u64);

/// What a streaming server wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect, then call [`StreamServer::handle_connected`] or [`StreamServer::handle_lost`].
    Connect,
    /// Send a message; if it cannot be sent, close the socket and call [`StreamServer::handle_lost`].
    Send(Message),
    /// Close the socket.
    Close,
    /// Answer somebody who wants to publish or play.
    Verdict(ExchangeId, Result<PublishId, Refused>),
    /// Send the publisher of a channel away; of a camera's channel: those who play it.
    Kill(String, PublishId),
    /// For the log.
    Note(Note),
}

/// A streaming server.
///
/// After every call the owner takes actions until there are none, then sleeps until [`StreamServer::next_timeout`] or the
/// next input.
#[derive(Debug)]
pub struct StreamServer {
    settings: Settings,
    link: Link,
    /// By channel.
    publishes: BTreeMap<String, Publish>,
    /// Cameras, by channel.
    standing: BTreeMap<String, Standing>,
    plays: Plays,
    next_request: u64,
    next_publish: u64,
    actions: VecDeque<Action>,
}

impl StreamServer {
    /// One that begins now.
    pub fn new(settings: Settings, now: Instant) -> StreamServer {
        let standing = settings.cameras.iter().map(|(channel, key)| (channel.clone(), Standing::new(key)));
        StreamServer {
            link: Link::new(settings.silence, settings.seed, now),
            standing: standing.collect(),
            settings,
            publishes: BTreeMap::new(),
            plays: Plays::default(),
            next_request: 1,
            next_publish: 1,
            actions: VecDeque::new(),
        }
    }

    /// The socket is open.
    pub fn handle_connected(&mut self, now: Instant) {
        self.link.connected(now);
        self.note(control_socket::Note::Connected);
        self.ask_again(now);
        self.ask_for_cameras(now);
    }

    /// The socket is gone, or could not be opened.
    pub fn handle_lost(&mut self, why: &str, now: Instant) {
        let wait = self.link.lost(now);
        self.note(control_socket::Note::Lost { why: why.to_owned(), wait });
        self.coordinator_lost(now);
    }

    /// A text message has come.
    pub fn handle_text(&mut self, text: &str, now: Instant) {
        let message = match self.link.hear(text, now) {
            Heard::Message(message) => message,
            Heard::Nothing => return,
            Heard::Reported(words) => return self.note(control_socket::Note::Reported(words)),
            Heard::Broken(why) => return self.handle_broken(why, now),
        };
        let (channel, stream_id) = (message.get("Stream-Channel"), message.get("Stream-ID"));
        match message.kind() {
            "PUBLISH-ACCEPT" => self.on_accept(message.get("Request-ID"), channel, stream_id, now),
            "PUBLISH-DENY" => self.on_deny(message.get("Request-ID"), Refused::Denied, now),
            "STREAM-KILL" => self.on_kill(channel, stream_id, now),
            _ => {}
        }
    }

    /// A binary message has come: nothing is in it, but the coordinator lives.
    pub fn handle_binary(&mut self, now: Instant) {
        self.link.heard(now);
    }

    /// What has come is no message: the coordinator is told so, and the socket closed.
    pub fn handle_broken(&mut self, why: MessageError, now: Instant) {
        if !self.link.is_up() {
            return;
        }
        self.actions.push_back(Action::Send(complaint(why)));
        self.note(control_socket::Note::Broken(why));
        self.hang_up("it breaks the protocol", now);
    }

    /// [`StreamServer::next_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.link.poll(now) {
            match due {
                Due::Connect => self.actions.push_back(Action::Connect),
                Due::Beat => self.actions.push_back(Action::Send(Message::new("HEARTBEAT"))),
                Due::Silent => {
                    let why = format!("it has been silent for {:?}", self.settings.silence);
                    self.hang_up(&why, now);
                }
            }
        }
        self.expire_publishes(now);
        for exchange in self.plays.expire(now) {
            self.judge(exchange, Err(Refused::Unknown));
        }
        self.ask_for_cameras(now);
    }

    /// When [`StreamServer::handle_timeout`] shall be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        [self.link.due(), self.publishes_due(), self.plays.due()].into_iter().flatten().min()
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn hang_up(&mut self, why: &str, now: Instant) {
        self.actions.push_back(Action::Close);
        self.handle_lost(why, now);
    }

    fn judge(&mut self, exchange: ExchangeId, verdict: Result<PublishId, Refused>) {
        self.actions.push_back(Action::Verdict(exchange, verdict));
    }

    fn note(&mut self, note: impl Into<Note>) {
        self.actions.push_back(Action::Note(note.into()));
    }

    fn is_id(&self, text: &str) -> bool {
        is_id(text, self.settings.id_max)
    }
}
