//! What the two sessions tell their drivers.

use super::amf::AmfError;
use super::chunk_reader::ChunkError;
use super::flv::{FlvError, StreamMetadata};
use fieldgate_media::{Draft, TrackId, Tracks};
use std::fmt;

/// What a publisher or player asked for, or sent, on a server's connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The peer wants to connect: answer by `accept_connect` or `reject_connect`.
    ConnectRequested(ConnectRequest),
    /// The peer wants to publish: answer by `accept_publish` or `reject_publish`.
    PublishRequested(PublishRequest),
    /// The peer wants to play: answer by `accept_play` or `reject_play`.
    PlayRequested(PlayRequest),
    /// An accepted publisher's tracks, complete; sent at each sequence header.
    Tracks {
        /// The message stream it publishes on.
        stream_id: u32,
        /// All tracks as known now.
        tracks: Tracks,
        /// The header was identical with the one before.
        same: bool,
        /// The track whose header or first unit this is; none if `onMetaData` told more of tracks before their media.
        header_of: Option<TrackId>,
    },
    /// One access unit of an accepted publisher.
    Unit {
        /// The message stream it publishes on.
        stream_id: u32,
        /// The unit; `dts` and `source_dts` are both what the source said.
        draft: Draft,
    },
    /// An accepted publisher's `onMetaData`; its shapes are already in `Tracks`.
    Metadata {
        /// The message stream it publishes on.
        stream_id: u32,
        /// What was understood of it.
        metadata: StreamMetadata,
    },
    /// A publisher, accepted or still waiting for its answer, has ended its stream.
    Unpublished {
        /// The message stream it published on.
        stream_id: u32,
    },
    /// A player, accepted or still waiting for its answer, has ended its play.
    PlayStopped {
        /// The message stream it played on.
        stream_id: u32,
    },
    /// A player wants to pause or go on; already answered.
    PauseRequested {
        /// The message stream it plays on.
        stream_id: u32,
        /// True: pause; false: go on.
        pause: bool,
    },
    /// A player wants one kind of media, or no longer.
    ReceiveRequested {
        /// The message stream it plays on.
        stream_id: u32,
        /// Which kind.
        kind: fieldgate_media::TrackKind,
        /// True: send it.
        wanted: bool,
    },
    /// The peer's running total of bytes received from us (wraps at 2^32).
    PeerAcknowledged {
        /// Bytes.
        total: u32,
    },
    /// The answer to our `ping`.
    PingAnswered {
        /// The time that we sent.
        timestamp: u32,
    },
}

/// A `connect` command. `Debug` hides what may hold keys.
#[derive(Clone, Default, PartialEq)]
pub struct ConnectRequest {
    /// The application, without query: the first part of the path.
    pub app: String,
    /// What followed `?` in the application, if anything (some encoders put keys there).
    pub query: String,
    /// The peer's `tcUrl`, as sent. May hold secrets.
    pub tc_url: String,
    /// The peer's `flashVer`.
    pub flash_ver: String,
    /// The peer's `swfUrl`, as sent.
    pub swf_url: String,
    /// The peer's `pageUrl`, as sent.
    pub page_url: String,
    /// The peer's `fourCcList` and the keys of its FourCC info maps; empty: plain RTMP only.
    pub fourcc: Vec<String>,
    /// 0 or 3.
    pub object_encoding: u8,
}

impl ConnectRequest {
    /// The value of one query parameter of the application, percent-decoded.
    pub fn param(&self, name: &str) -> Option<String> {
        super::url::query_param(&self.query, name)
    }
}

/// A `publish` command. `Debug` hides the query.
#[derive(Clone, PartialEq)]
pub struct PublishRequest {
    /// The message stream to publish on.
    pub stream_id: u32,
    /// The stream name without its query.
    pub name: String,
    /// What followed `?` in the name.
    pub query: String,
    /// What the peer wants done with it.
    pub kind: PublishKind,
    /// The word with which it said so; empty if it said nothing.
    pub kind_word: String,
}

impl PublishRequest {
    /// The value of one query parameter, percent-decoded.
    pub fn param(&self, name: &str) -> Option<String> {
        super::url::query_param(&self.query, name)
    }
}

impl fmt::Debug for ConnectRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ConnectRequest");
        shown.field("app", &self.app).field("flash_ver", &self.flash_ver).field("fourcc", &self.fourcc);
        shown.field("object_encoding", &self.object_encoding).finish_non_exhaustive()
    }
}

impl fmt::Debug for PublishRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("PublishRequest");
        shown.field("stream_id", &self.stream_id).field("name", &self.name).field("kind", &self.kind);
        shown.finish_non_exhaustive()
    }
}

impl fmt::Debug for PlayRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("PlayRequest");
        shown.field("stream_id", &self.stream_id).field("name", &self.name).field("start", &self.start);
        shown.finish_non_exhaustive()
    }
}

/// The third argument of `publish`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishKind {
    /// Only hand on; also the default and for unknown words.
    Live,
    /// Record.
    Record,
    /// Record at the end of an earlier recording.
    Append,
}

/// A `play` command. `Debug` hides the query.
#[derive(Clone, PartialEq)]
pub struct PlayRequest {
    /// The message stream to play on.
    pub stream_id: u32,
    /// The stream name without its query.
    pub name: String,
    /// What followed `?` in the name.
    pub query: String,
    /// The peer's start argument: -2 live or recorded, -1 live, else milliseconds.
    pub start: f64,
}

impl PlayRequest {
    /// The value of one query parameter, percent-decoded.
    pub fn param(&self, name: &str) -> Option<String> {
        super::url::query_param(&self.query, name)
    }
}

/// Why a publish is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishRefusal {
    /// Someone publishes there already, or the name cannot be published: `NetStream.Publish.BadName`.
    BadName,
    /// Not allowed: `NetStream.Publish.Denied`.
    Denied,
}

/// Why a play is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlayRefusal {
    /// No such stream: `NetStream.Play.StreamNotFound`.
    StreamNotFound,
    /// Not allowed, or not possible: `NetStream.Play.Failed`.
    Failed,
}

/// What a client session tells its driver.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientEvent {
    /// The server accepted: media may be sent (publish) or will come (play).
    Ready {
        /// The message stream to send on.
        stream_id: u32,
    },
    /// The server refused.
    Rejected {
        /// Its status code, such as `NetStream.Publish.BadName`.
        code: String,
        /// Its words, at most 256 characters.
        description: String,
    },
    /// The stream's tracks (play).
    Tracks {
        /// All tracks as known now.
        tracks: Tracks,
        /// The header was identical with the one before.
        same: bool,
        /// The track whose header or first unit this is; none if `onMetaData` told more of tracks before their media.
        header_of: Option<TrackId>,
    },
    /// One access unit (play).
    Unit {
        /// The unit; `dts` and `source_dts` are both what the source said.
        draft: Draft,
    },
    /// The stream's `onMetaData` (play).
    Metadata {
        /// What was understood of it.
        metadata: StreamMetadata,
    },
    /// The server ended the stream after `Ready`, such as `NetStream.Play.UnpublishNotify`.
    Ended {
        /// Its status code.
        code: String,
    },
    /// The server's running total of bytes received from us (wraps at 2^32).
    PeerAcknowledged {
        /// Bytes.
        total: u32,
    },
    /// The answer to our `ping`; some servers give none.
    PingAnswered {
        /// The time that we sent.
        timestamp: u32,
    },
}

/// What a client connects for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientMode {
    /// Push to the server.
    Publish,
    /// Pull from the server.
    Play,
}

/// The peer broke the protocol; the connection must be closed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// Below the messages.
    #[error("chunk stream: {0}")]
    Chunk(#[from] ChunkError),
    /// In a command.
    #[error("command: {0}")]
    Amf(#[from] AmfError),
    /// In the media.
    #[error("media: {0}")]
    Flv(#[from] FlvError),
    /// More than `max` requests wait for an answer, or streams are open.
    #[error("peer has more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// The peer asks faster than it reads our answers.
    #[error("{len} bytes of answers wait to be sent, limit {max}")]
    OutputBacklog {
        /// Bytes waiting.
        len: usize,
        /// The limit.
        max: usize,
    },
}
