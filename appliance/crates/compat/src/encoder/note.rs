//! What the log says of an encoder's work.

use super::Unfit;
use crate::control_socket;

/// One line for the log; its `Display` is the text. Holds no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    /// Of the socket.
    #[error(transparent)]
    Socket(#[from] control_socket::Note),
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
        match self {
            Note::Socket(note) => note.is_warning(),
            Note::Declined(_) => true,
            Note::Assigned { .. } => false,
        }
    }
}
