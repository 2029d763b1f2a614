//! Our side of a socket to a coordinator elsewhere, whatever we are to it: when it is opened, what keeps it alive, what is
//! read of it and what the log says of it. What its messages mean is not known here.

mod link;

pub(crate) use link::{Due, Link};

use crate::coordinator::{Message, MessageError, token};
use crate::key::Key;
use std::time::{Duration, Instant};

/// How long a token is valid that says so, in seconds.
const TOKEN_VALID: i64 = 3_600;

/// The token for a socket of this subject, such as `rtmp-control`; none without a secret. `unix_now`, in seconds since
/// 1970: it shall say how long it is valid.
pub fn socket_token(secret: Option<&Key>, subject: &str, unix_now: Option<i64>) -> Option<Key> {
    let valid = unix_now.map(|now| (now, now.saturating_add(TOKEN_VALID)));
    secret.map(|secret| Key::new(token::sign(secret, subject, valid)))
}

/// What a text of the coordinator is.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Of no meaning: the socket is not open.
    Nothing,
    /// A message.
    Message(Message),
    /// It tells of an error, in these words.
    Reported(String),
    /// No message.
    Broken(MessageError),
}

impl Link {
    /// A text has come.
    pub(crate) fn hear(&mut self, text: &str, now: Instant) -> Heard {
        if !self.is_up() {
            return Heard::Nothing;
        }
        self.heard(now);
        match Message::parse(text) {
            Ok(message) if message.kind() == "ERROR" => Heard::Reported(message.error_words()),
            Ok(message) => Heard::Message(message),
            Err(why) => Heard::Broken(why),
        }
    }
}

/// The `ERROR` for somebody whose words are no message.
pub(crate) fn complaint(why: MessageError) -> Message {
    Message::new("ERROR").with("Error-Code", why.code()).with("Error-Message", &why.to_string())
}

/// What the log says of the socket. Holds no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    /// It is open.
    #[error("connected to the coordinator")]
    Connected,
    /// It is not, or not any more.
    #[error("the coordinator is not reached: {why}; the next attempt comes in {wait:?}")]
    Lost {
        /// Why.
        why: String,
        /// Until the next attempt.
        wait: Duration,
    },
    /// What has come is no message.
    #[error("the coordinator breaks the protocol: {0}")]
    Broken(MessageError),
    /// It tells of an error.
    #[error("the coordinator reports an error: {0}")]
    Reported(String),
}

impl Note {
    /// Whether somebody should look at it.
    pub fn is_warning(&self) -> bool {
        *self != Note::Connected
    }
}
