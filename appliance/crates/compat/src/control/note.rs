//! What the log says of a coordinator elsewhere.

use crate::coordinator::{MessageError, Refused};
use std::time::Duration;

/// One line for the log; its `Display` is the text. Holds no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    /// The socket is open.
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
    /// Somebody may publish.
    #[error("channel {channel} is published, stream {stream_id}")]
    Accepted {
        /// The channel.
        channel: String,
        /// The stream.
        stream_id: String,
    },
    /// Somebody may not.
    #[error("channel {channel} is refused: {why}")]
    Denied {
        /// The channel.
        channel: String,
        /// Why.
        why: Refused,
    },
    /// A publisher is sent away.
    #[error("the publisher of channel {channel} is sent away: {why}")]
    Killed {
        /// The channel.
        channel: String,
        /// Why.
        why: &'static str,
    },
    /// A yes that comes too late.
    #[error(
        "the coordinator's answer for channel {0} comes when nobody waits for it; it is told that it is over"
    )]
    Late(String),
}

impl Note {
    /// Whether somebody should look at it.
    pub fn is_warning(&self) -> bool {
        !matches!(self, Note::Connected | Note::Accepted { .. } | Note::Denied { .. } | Note::Killed { .. })
    }
}
