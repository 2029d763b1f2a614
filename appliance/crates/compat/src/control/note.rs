//! What the log says of a coordinator elsewhere.

use crate::control_socket;
use crate::coordinator::Refused;

/// One line for the log; its `Display` is the text. Holds no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    /// Of the socket.
    #[error(transparent)]
    Socket(#[from] control_socket::Note),
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
        match self {
            Note::Socket(note) => note.is_warning(),
            Note::Late(_) => true,
            Note::Accepted { .. } | Note::Denied { .. } | Note::Killed { .. } => false,
        }
    }
}
