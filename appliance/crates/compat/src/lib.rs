//! Pure translators of other systems' control APIs.
//!
//! Other systems speak to gateways in their own ways. Each way is one module with one [`Translator`], which knows
//! neither sockets nor time: the binary feeds it what arrived and does what it asks for. A module can be deleted
//! without a trace elsewhere.

#![warn(clippy::indexing_slicing)]
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

pub mod aggregator;
pub mod control;
pub mod control_socket;
pub mod coordinator;
pub mod encoder;
pub mod env;
pub mod key;
pub mod kmp_control;
pub mod node;
mod percent;
mod plays;

#[cfg(test)]
#[path = "../../proto/src/mutation.rs"]
mod mutation;

use fieldgate_model::{Command, Status};
use std::net::IpAddr;
use std::time::Instant;

/// Names one exchange between a translator and the binary, for as long as it is open. Chosen by whoever opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(pub u64);

/// One HTTP request, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST` and so on, in capitals.
    pub method: String,
    /// With query, not decoded.
    pub target: String,
    /// In the order of arrival; names in lower case.
    pub headers: Vec<(String, String)>,
    /// Bounded by the binary.
    pub body: Vec<u8>,
    /// Who asks.
    pub peer: IpAddr,
}

/// One HTTP answer, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// May be empty.
    pub body: Vec<u8>,
}

/// One WebSocket message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// UTF-8.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
    /// The socket was closed, or shall be.
    Close,
}

/// What became of an outgoing call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// The peer answered.
    Replied(Reply),
    /// It did not, for this reason.
    Failed(String),
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandOutcome {
    /// Carried out; if durable, it is on flash: only now may a reply promise that.
    Done,
    /// Refused, for this reason.
    Refused(String),
}

/// What a peer on the media plane wants to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Publish (true) or play.
    pub is_publish: bool,
    /// RTMP application.
    pub app: String,
    /// Stream name, with its query.
    pub name: String,
    /// Who asks.
    pub peer: IpAddr,
}

/// What happens on the media plane after a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may, on this mountpoint.
    Allow {
        /// The mountpoint's name.
        mountpoint: String,
    },
    /// It may not; the text is for the peer.
    Deny {
        /// Why.
        text: String,
    },
    /// This translator has no say.
    NotMine,
}

/// What a translator wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer a request.
    Reply(ExchangeId, Reply),
    /// Send on a WebSocket.
    Send(ExchangeId, Frame),
    /// Call somebody; the outcome comes back under this id.
    Call {
        /// Chosen by the translator.
        exchange: ExchangeId,
        /// Scheme, host and port: `https://controller.example:8443`.
        origin: String,
        /// What to send; its `peer` has no meaning.
        request: Request,
    },
    /// Carry out a command; the outcome comes back under this id.
    Command(ExchangeId, Command),
    /// Answer a question.
    Verdict(ExchangeId, Verdict),
}

/// One other system's way to speak to gateways.
///
/// After every call the owner takes actions until there are none, then sleeps until [`Translator::next_timeout`] or the
/// next input. Inputs for exchanges that are not open are ignored: they may cross with their end. No method waits; none
/// panics, whatever the peer sent.
pub trait Translator {
    /// A request came to this system's listener.
    fn handle_request(&mut self, exchange: ExchangeId, request: Request, now: Instant);
    /// A message came on a WebSocket that a request had opened.
    fn handle_frame(&mut self, exchange: ExchangeId, frame: Frame, now: Instant);
    /// A call that [`Action::Call`] asked for has ended.
    fn handle_reply(&mut self, exchange: ExchangeId, outcome: CallOutcome, now: Instant);
    /// A command that [`Action::Command`] asked for has ended.
    fn handle_outcome(&mut self, exchange: ExchangeId, outcome: CommandOutcome, now: Instant);
    /// Somebody wants to publish or play and the config's keys do not decide. No verdict in time is a no.
    fn handle_question(&mut self, exchange: ExchangeId, question: Question, now: Instant);
    /// The gateway's status changed.
    fn handle_status(&mut self, status: &Status, now: Instant);
    /// [`Translator::next_timeout`] has come.
    fn handle_timeout(&mut self, now: Instant);
    /// When [`Translator::handle_timeout`] shall be called; never, if none.
    fn next_timeout(&self) -> Option<Instant>;
    /// The next thing to do, in order.
    fn poll_action(&mut self) -> Option<Action>;
}

#[cfg(test)]
mod tests;
