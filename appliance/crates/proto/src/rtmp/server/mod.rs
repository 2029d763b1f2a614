//! The serving side of a connection, after the handshake.
//!
//! ```text
//! Fresh --connect--> Asked --accept_connect--> Connected
//!                      \--reject_connect--> (driver closes)
//! per message stream:  Idle --publish--> AskedPublish --accept--> Publishing --deleteStream, closeStream--> Idle
//!                      Idle --play-----> AskedPlay ----accept--> Playing ----deleteStream, closeStream--> Idle
//! ```
//! The driver hands in bytes by [`ServerSession::read`] until it returns `None`, answers requests whenever it knows
//! the answer, and sends what [`ServerSession::poll_output`] gives. Media towards players is not written here but by
//! [`super::wire`], after the bytes of `poll_output`.

mod answers;
mod requests;

use super::amf::Amf0Value;
use super::chunk_reader::{ChunkReader, Limits, Message, kind};
use super::commands::{Link, Taken, control};
use super::events::{Event, SessionError};
use super::flv::{Demuxer, Item};
use bytes::BytesMut;

/// How a server session behaves.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// What the peer may make us hold.
    pub limits: Limits,
    /// Our chunk size, told to the peer with the answer to `connect`.
    pub chunk_len: u32,
    /// Bytes after which the peer shall acknowledge.
    pub window_ack: u32,
    /// Message streams per connection.
    pub streams: usize,
}

impl Default for ServerSettings {
    fn default() -> Self {
        ServerSettings { limits: Limits::default(), chunk_len: 1 << 20, window_ack: 2_500_000, streams: 8 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Connect {
    Fresh,
    Asked { transaction: f64, object_encoding: f64 },
    Connected,
    Rejected,
}

#[derive(Debug)]
enum Role {
    Idle,
    AskedPublish,
    Publishing(Box<Demuxer>),
    AskedPlay { reset: bool },
    Playing,
}

#[derive(Debug)]
struct Stream {
    id: u32,
    name: String,
    role: Role,
}

/// One connection's protocol state.
#[derive(Debug)]
pub struct ServerSession {
    settings: ServerSettings,
    reader: ChunkReader,
    link: Link,
    connect: Connect,
    streams: Vec<Stream>,
    /// Index of the publishing stream whose demuxer still has items.
    draining: Option<usize>,
    received: Received,
}

/// What has come in on a connection, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// In all, without the handshake.
    pub bytes: u64,
    /// Bodies of audio messages to accepted publications.
    pub audio_bytes: u64,
    /// Bodies of video messages to accepted publications.
    pub video_bytes: u64,
}

impl ServerSession {
    /// Right after the handshake.
    pub fn new(settings: ServerSettings) -> Self {
        ServerSession {
            reader: ChunkReader::new(settings.limits.clone()),
            link: Link::new(settings.window_ack),
            settings,
            connect: Connect::Fresh,
            streams: Vec::new(),
            draining: None,
            received: Received::default(),
        }
    }

    /// Takes bytes off `input` until something happened; call until it returns `None`, which it does only when
    /// `input` is used up. After an error the connection must be closed.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Event>, SessionError> {
        loop {
            if let Some(event) = self.drain()? {
                return Ok(Some(event));
            }
            let before = input.len();
            let message = self.reader.read(input);
            let taken = before.saturating_sub(input.len());
            self.link.count_input(taken);
            self.received.bytes = self.received.bytes.saturating_add(taken as u64);
            let Some(message) = message? else {
                return self.link.check_backlog().map(|()| None);
            };
            if let Some(event) = self.take(message)? {
                return Ok(Some(event));
            }
            self.link.check_backlog()?;
        }
    }

    /// Moves what is to be sent to the end of `out`.
    pub fn poll_output(&mut self, out: &mut BytesMut) {
        self.link.poll_output(out);
    }

    /// Whether `poll_output` would give anything.
    pub fn has_output(&self) -> bool {
        self.link.has_output()
    }

    /// The chunk size that the peer was told; media must be cut by it.
    pub fn chunk_len(&self) -> u32 {
        self.link.chunk_len()
    }

    /// Tells the peer another chunk size, for what is sent after `poll_output`'s bytes.
    pub fn set_chunk_len(&mut self, chunk_len: u32) {
        self.link.set_chunk_len(chunk_len);
    }

    /// Sends a ping; `now_ms` comes back in [`Event::PingAnswered`].
    pub fn ping(&mut self, now_ms: u32) {
        self.link.user_control(control::PING_REQUEST, now_ms);
    }

    /// What has come in so far.
    pub fn received(&self) -> Received {
        self.received
    }

    /// Whether the peer repeats extended timestamps on continuation chunks; unknown while it sent none that tell.
    pub fn repeats_extended_timestamps(&self) -> Option<bool> {
        self.reader.repeats_extended_timestamps()
    }

    /// Units of that publisher left out because no codec header had come before them.
    pub fn skipped(&self, stream_id: u32) -> u64 {
        self.demuxer(stream_id).map_or(0, Demuxer::skipped)
    }

    /// Messages of that publisher that did not parse.
    pub fn unparsable(&self, stream_id: u32) -> u64 {
        self.demuxer(stream_id).map_or(0, Demuxer::unparsable)
    }

    fn demuxer(&self, stream_id: u32) -> Option<&Demuxer> {
        self.streams.iter().find_map(|stream| match &stream.role {
            Role::Publishing(demuxer) if stream.id == stream_id => Some(&**demuxer),
            _ => None,
        })
    }

    fn stream(&mut self, stream_id: u32) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.id == stream_id)
    }

    fn take(&mut self, message: Message) -> Result<Option<Event>, SessionError> {
        match message.kind {
            kind::AUDIO | kind::VIDEO | kind::AGGREGATE | kind::DATA | kind::DATA_AMF3 => {
                // Some encoders send media with another message stream id than they publish on.
                let only = self.streams.len() == 1;
                let publishing =
                    self.streams.iter_mut().enumerate().find_map(|(at, stream)| match &mut stream.role {
                        Role::Publishing(demuxer) if only || stream.id == message.stream_id => {
                            Some((at, demuxer))
                        }
                        _ => None,
                    });
                // What comes for a stream that was not accepted, or is over, is dropped.
                if let Some((at, demuxer)) = publishing {
                    let len = message.body().len() as u64;
                    let count = match message.kind {
                        kind::AUDIO => Some(&mut self.received.audio_bytes),
                        kind::VIDEO => Some(&mut self.received.video_bytes),
                        _ => None,
                    };
                    if let Some(count) = count {
                        *count = count.saturating_add(len);
                    }
                    demuxer.push(message);
                    self.draining = Some(at);
                }
                self.drain()
            }
            kind::COMMAND | kind::COMMAND_AMF3 => self.command(&message),
            _ => Ok(match self.link.take_control(&message) {
                Taken::Acknowledged(total) => Some(Event::PeerAcknowledged { total }),
                Taken::Pong(timestamp) => Some(Event::PingAnswered { timestamp }),
                Taken::Not | Taken::Done | Taken::StreamEof => None,
            }),
        }
    }

    fn drain(&mut self) -> Result<Option<Event>, SessionError> {
        let Some(at) = self.draining else { return Ok(None) };
        if let Some(Stream { id, role: Role::Publishing(demuxer), .. }) = self.streams.get_mut(at) {
            let stream_id = *id;
            while let Some(item) = demuxer.poll()? {
                return Ok(Some(match item {
                    Item::Tracks { tracks, same, header_of } => {
                        Event::Tracks { stream_id, tracks, same, header_of }
                    }
                    Item::Unit(draft) => Event::Unit { stream_id, draft },
                    Item::Metadata(metadata) => Event::Metadata { stream_id, metadata },
                    Item::EndOfSequence(_) => continue,
                }));
            }
        }
        self.draining = None;
        Ok(None)
    }
}

fn object_text(object: &std::collections::HashMap<String, Amf0Value>, name: &str) -> String {
    object.get(name).and_then(super::commands::text).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
