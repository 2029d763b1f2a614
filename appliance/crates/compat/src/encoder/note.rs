//! What the log says of an encoder's work.

use super::Unfit;
use crate::coordinator::MessageError;
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
    /// A stream is to be encoded.
    #[error("channel {channel}, stream {stream_id} is to be encoded")]
    Assigned {
        /// The channel.
        channel: String,
        /// The stream.
        stream_id: String,
    },
    /// A stream is not taken.
    #[error("a stream of the coordinator is not encoded: {0}")]
    Declined(Unfit),
}

impl Note {
    /// Whether somebody should look at it.
    pub fn is_warning(&self) -> bool {
        !matches!(self, Note::Connected | Note::Assigned { .. })
    }
}
