//! What a coordinator's log says.

use super::token::TokenError;
use std::net::IpAddr;

/// One line for the log; its `Display` is the text. Holds no keys and no addresses with keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    /// A socket is open.
    #[error("{kind} {id} at {address} is connected")]
    Joined {
        /// `RTMP server` and so on.
        kind: &'static str,
        /// Its id in the report.
        id: u64,
        /// Where it says that it is.
        address: IpAddr,
    },
    /// A socket is gone.
    #[error("{kind} {id} is gone")]
    Left {
        /// `RTMP server` and so on.
        kind: &'static str,
        /// Its id in the report.
        id: u64,
    },
    /// A token opens nothing.
    #[error("a control socket from {peer} is refused: {why}")]
    TokenRefused {
        /// Who came.
        peer: IpAddr,
        /// Why.
        why: TokenError,
    },
    /// Without a secret only this machine may come.
    #[error(
        "a control socket from {0} is refused: without compat.coordinator.control_secret only this machine is let in"
    )]
    NoSecret(IpAddr),
    /// `x-external-ip` is a name.
    #[error("an RTMP server at {0} gives no address as its external one; the socket's is taken")]
    NoAddress(IpAddr),
    /// It has said nothing for a minute.
    #[error("{kind} {id} has been silent for a minute and is closed")]
    Silent {
        /// `RTMP server` and so on.
        kind: &'static str,
        /// Its id in the report.
        id: u64,
    },
    /// A message that is none.
    #[error("{kind} {id} breaks the protocol and is closed: {why}")]
    Broken {
        /// `RTMP server` and so on.
        kind: &'static str,
        /// Its id in the report.
        id: u64,
        /// Why.
        why: super::message::MessageError,
    },
    /// A peer tells of an error of its own.
    #[error("{kind} {id} reports an error: {text}")]
    Reported {
        /// `RTMP server` and so on.
        kind: &'static str,
        /// Its id in the report.
        id: u64,
        /// In its words.
        text: String,
    },
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
        /// The channel, if it can be one.
        channel: String,
        /// Why.
        why: Refused,
    },
    /// It is over.
    #[error("channel {channel} is over, stream {stream_id}")]
    Over {
        /// The channel.
        channel: String,
        /// The stream.
        stream_id: String,
    },
    /// A publisher is sent away.
    #[error("the publisher of channel {channel} is sent away, stream {stream_id}")]
    Killed {
        /// The channel.
        channel: String,
        /// The stream.
        stream_id: String,
    },
    /// An encoder was told to stop and has not.
    #[error("encoder {id} has not ended stream {stream_id}; it is counted as ended")]
    NotEnded {
        /// Its id in the report.
        id: u64,
        /// The stream.
        stream_id: String,
    },
    /// The application is not told.
    #[error("the application is not told of stream {stream_id} and will be tried again: {cause}")]
    NotTold {
        /// The stream.
        stream_id: String,
        /// Why.
        cause: String,
    },
    /// Too many messages wait.
    #[error("too many messages wait for the application: files of stream {0} are not told")]
    Full(String),
    /// Nobody is told of files that make no sense.
    #[error("encoder {0} names files that make no sense")]
    BadFiles(u64),
}

/// Why nobody may publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Channel or key cannot be one.
    #[error("channel and key are 1 to the set number of A-Z a-z 0-9 _ -")]
    Syntax,
    /// It is being published, or will be.
    #[error("it is being published")]
    Busy,
    /// The application says no, or nothing.
    #[error("its key was not verified")]
    Key,
    /// No encoder can take it.
    #[error("no encoder is free")]
    NoEncoder,
    /// There are as many as there may be.
    #[error("there are too many streams")]
    Full,
    /// The coordinator elsewhere says no.
    #[error("the coordinator says no")]
    Denied,
    /// It has not answered.
    #[error("the coordinator has not answered in time")]
    Unanswered,
    /// It is not there.
    #[error("there is no connection to the coordinator")]
    NoCoordinator,
    /// The play key is wrong, or the channel is elsewhere.
    #[error("there is no such stream for this key")]
    Unknown,
}

impl Refused {
    /// As `Error-Code` says it.
    pub fn code(self) -> &'static str {
        match self {
            Refused::Syntax => "INVALID_NAME",
            Refused::Busy => "CHANNEL_BUSY",
            Refused::Key => "INVALID_KEY",
            Refused::NoEncoder => "NO_ENCODER",
            Refused::Full => "TOO_MANY_STREAMS",
            Refused::Denied => "DENIED",
            Refused::Unanswered => "NO_ANSWER",
            Refused::NoCoordinator => "NO_COORDINATOR",
            Refused::Unknown => "UNKNOWN_STREAM",
        }
    }
}

impl Note {
    /// Whether somebody should look at it.
    pub fn is_warning(&self) -> bool {
        !matches!(
            self,
            Note::Joined { .. }
                | Note::Accepted { .. }
                | Note::Denied { .. }
                | Note::Over { .. }
                | Note::Killed { .. }
        )
    }
}
