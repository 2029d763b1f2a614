//! The connecting side: pushes and pulls, after the handshake.
//!
//! ```text
//! connect --_result--> [releaseStream, FCPublish] createStream --_result--> publish | play --onStatus--> Ready --> Ended
//!     \------------------------ _error, onStatus error ------------------------> Rejected
//! ```
//! Servers differ: answers to releaseStream and FCPublish may be missing or errors, `onBWDone` and `_checkbw` may come
//! at any time, a player's first media may come instead of Play.Start. Only connect, createStream and publish must be
//! answered; the driver's deadline covers silence.

use super::amf::{Amf0Value, AmfError, Field, cut};
use super::chunk_reader::{ChunkReader, Limits, Message, kind};
use super::commands::{CAPS_EX, Command, Link, Taken, control, fourcc_map, fourcc_names, split_query};
use super::events::{ClientEvent, ClientMode, SessionError};
use super::flv::{Demuxer, Item};
use bytes::BytesMut;
use fieldgate_media::TrackKind;

/// Transaction numbers.
const CONNECT: f64 = 1.0;
const RELEASE_STREAM: f64 = 2.0;
const FC_PUBLISH: f64 = 3.0;
const CREATE_STREAM: f64 = 4.0;
const MEDIA: f64 = 5.0;
const CHECK_BANDWIDTH: f64 = 6.0;
const FC_UNPUBLISH: f64 = 7.0;
const DELETE_STREAM: f64 = 8.0;
/// Longest words of a server that are handed on.
const DESCRIPTION_MAX: usize = 256;

/// What to connect for. `Debug` hides keys and query values.
#[derive(Clone)]
pub struct ClientSettings {
    /// Application.
    pub app: String,
    /// For `connect`.
    pub tc_url: String,
    /// Stream name, with query.
    pub stream_key: String,
    /// Push or pull.
    pub mode: ClientMode,
    /// For `connect`.
    pub flash_ver: String,
    /// Our chunk size.
    pub chunk_len: u32,
    /// What the server may make us hold.
    pub limits: Limits,
    /// Whether `connect` offers Enhanced RTMP. Leave it out where plain codecs are pushed: fewer surprises.
    pub enhanced: bool,
}

impl std::fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let app = split_query(&self.app).0;
        f.debug_struct("ClientSettings").field("app", &app).field("mode", &self.mode).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    CreatingStream,
    Asked,
    Ready,
    /// Rejected, ended or finished.
    Over,
}

/// One connection's protocol state.
#[derive(Debug)]
pub struct ClientSession {
    settings: ClientSettings,
    reader: ChunkReader,
    link: Link,
    state: State,
    stream_id: u32,
    demuxer: Box<Demuxer>,
    draining: bool,
    checked_bandwidth: bool,
}

impl ClientSession {
    /// Right after the handshake; the first command is in `poll_output` at once.
    pub fn new(settings: ClientSettings) -> Self {
        let mut session = ClientSession {
            reader: ChunkReader::new(settings.limits.clone()),
            link: Link::new(2_500_000),
            settings,
            state: State::Connecting,
            stream_id: 1,
            demuxer: Box::default(),
            draining: false,
            checked_bandwidth: false,
        };
        session.send_connect();
        session
    }

    /// Takes bytes off `input` until something happened; call until it returns `None`, which it does only when
    /// `input` is used up. After an error the connection must be closed.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<ClientEvent>, SessionError> {
        loop {
            if let Some(event) = self.drain()? {
                return Ok(Some(event));
            }
            let before = input.len();
            let message = self.reader.read(input);
            self.link.count_input(before.saturating_sub(input.len()));
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

    /// Our chunk size; media must be cut by it.
    pub fn chunk_len(&self) -> u32 {
        self.link.chunk_len()
    }

    /// Sends a ping. Some servers ignore it.
    pub fn ping(&mut self, now_ms: u32) {
        self.link.user_control(control::PING_REQUEST, now_ms);
    }

    /// Units left out because no codec header had come before them (play).
    pub fn skipped(&self) -> u64 {
        self.demuxer.skipped()
    }

    /// Media messages that did not parse (play).
    pub fn unparsable(&self) -> u64 {
        self.demuxer.unparsable()
    }

    /// Ends the stream politely (FCUnpublish, deleteStream); close after sending.
    pub fn finish(&mut self) {
        if matches!(self.state, State::Asked | State::Ready) {
            if self.settings.mode == ClientMode::Publish {
                self.call("FCUnpublish", FC_UNPUBLISH);
            }
            let id = Field::Number(f64::from(self.stream_id));
            let fields = [Field::Text("deleteStream"), Field::Number(DELETE_STREAM), Field::Null, id];
            self.link.command(0, &fields);
        }
        self.state = State::Over;
    }

    fn send_connect(&mut self) {
        let (video, audio) = (fourcc_names(TrackKind::Video), fourcc_names(TrackKind::Audio));
        let (video_map, audio_map) = (fourcc_map(&video), fourcc_map(&audio));
        let list: Vec<Field<'_>> = video.iter().chain(&audio).map(|name| Field::Text(name)).collect();
        let mut object = vec![
            ("app", Field::Text(&self.settings.app)),
            ("type", Field::Text("nonprivate")),
            ("flashVer", Field::Text(&self.settings.flash_ver)),
            ("tcUrl", Field::Text(&self.settings.tc_url)),
        ];
        if self.settings.mode == ClientMode::Play {
            object.extend([
                ("fpad", Field::Bool(false)),
                ("capabilities", Field::Number(15.0)),
                ("audioCodecs", Field::Number(4071.0)),
                ("videoCodecs", Field::Number(252.0)),
                ("videoFunction", Field::Number(1.0)),
            ]);
        }
        if self.settings.enhanced {
            object.extend([
                ("fourCcList", Field::Array(&list)),
                ("capsEx", Field::Number(CAPS_EX)),
                ("videoFourCcInfoMap", Field::Object(&video_map)),
                ("audioFourCcInfoMap", Field::Object(&audio_map)),
            ]);
        }
        self.link.command(0, &[Field::Text("connect"), Field::Number(CONNECT), Field::Object(&object)]);
    }

    /// A command whose only argument is the stream key.
    fn call(&mut self, name: &str, transaction: f64) {
        let key = Field::Text(&self.settings.stream_key);
        self.link.command(0, &[Field::Text(name), Field::Number(transaction), Field::Null, key]);
    }

    fn connected(&mut self) {
        self.state = State::CreatingStream;
        self.link.window_ack_size(2_500_000);
        self.link.set_chunk_len(self.settings.chunk_len);
        if self.settings.mode == ClientMode::Publish {
            self.call("releaseStream", RELEASE_STREAM);
            self.call("FCPublish", FC_PUBLISH);
        }
        self.link.command(0, &[Field::Text("createStream"), Field::Number(CREATE_STREAM), Field::Null]);
    }

    fn created(&mut self, stream_id: u32) {
        self.state = State::Asked;
        self.stream_id = stream_id;
        let key = Field::Text(&self.settings.stream_key);
        match self.settings.mode {
            ClientMode::Publish => {
                let fields =
                    [Field::Text("publish"), Field::Number(MEDIA), Field::Null, key, Field::Text("live")];
                self.link.command(stream_id, &fields);
            }
            ClientMode::Play => {
                // -2 seconds: live, else recorded; sent in milliseconds as librtmp and ffmpeg do.
                let start = Field::Number(-2000.0);
                let fields = [Field::Text("play"), Field::Number(MEDIA), Field::Null, key, start];
                self.link.command(stream_id, &fields);
                self.link.set_buffer_length(stream_id, 3000);
                self.reader.allow_media(true);
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<Option<ClientEvent>, SessionError> {
        match message.kind {
            kind::AUDIO | kind::VIDEO | kind::AGGREGATE | kind::DATA | kind::DATA_AMF3 => {
                if self.settings.mode != ClientMode::Play {
                    return Ok(None);
                }
                let media = matches!(message.kind, kind::AUDIO | kind::VIDEO | kind::AGGREGATE);
                if media && self.state == State::Asked {
                    self.state = State::Ready;
                    self.demuxer.push(message);
                    self.draining = true;
                    return Ok(Some(ClientEvent::Ready { stream_id: self.stream_id }));
                }
                // Metadata may come before Play.Start.
                if matches!(self.state, State::Asked | State::Ready) {
                    self.demuxer.push(message);
                    self.draining = true;
                }
                self.drain()
            }
            kind::COMMAND | kind::COMMAND_AMF3 => match Command::parse(&message) {
                Ok(command) => Ok(self.command(&command)),
                // Some servers send bare notices such as `onBWDone` without the null behind them.
                Err(AmfError::TooFewValues { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            },
            _ => Ok(match self.link.take_control(&message) {
                Taken::Acknowledged(total) => Some(ClientEvent::PeerAcknowledged { total }),
                Taken::StreamEof if self.state == State::Ready && self.settings.mode == ClientMode::Play => {
                    self.end("StreamEOF")
                }
                Taken::Pong(timestamp) => Some(ClientEvent::PingAnswered { timestamp }),
                Taken::Not | Taken::Done | Taken::StreamEof => None,
            }),
        }
    }

    fn drain(&mut self) -> Result<Option<ClientEvent>, SessionError> {
        if self.draining {
            while let Some(item) = self.demuxer.poll()? {
                return Ok(Some(match item {
                    Item::Tracks { tracks, same, header_of } => {
                        ClientEvent::Tracks { tracks, same, header_of }
                    }
                    Item::Unit(draft) => ClientEvent::Unit { draft },
                    Item::Metadata(metadata) => ClientEvent::Metadata { metadata },
                    Item::EndOfSequence(_) => continue,
                }));
            }
            self.draining = false;
        }
        Ok(None)
    }

    fn command(&mut self, command: &Command) -> Option<ClientEvent> {
        let transaction = command.transaction;
        match command.name.as_str() {
            "_result" if self.state == State::Connecting && transaction == CONNECT => {
                self.connected();
                None
            }
            "_result" if self.state == State::CreatingStream && transaction == CREATE_STREAM => {
                match command.number(0) {
                    Some(id) if (0.0..=f64::from(u32::MAX)).contains(&id) => {
                        self.created(id as u32);
                        None
                    }
                    _ => self.reject(command),
                }
            }
            "_error" => {
                let fatal = match self.state {
                    State::Connecting => transaction == CONNECT,
                    State::CreatingStream => transaction == CREATE_STREAM,
                    State::Asked => transaction == MEDIA,
                    _ => false,
                };
                if fatal { self.reject(command) } else { None }
            }
            "onStatus" => self.status(command),
            "onBWDone" if !self.checked_bandwidth => {
                self.checked_bandwidth = true;
                let fields = [Field::Text("_checkbw"), Field::Number(CHECK_BANDWIDTH), Field::Null];
                self.link.command(0, &fields);
                None
            }
            "_onbwcheck" | "_checkbw" if transaction != 0.0 => {
                let answer = [Field::Text("_result"), Field::Number(transaction), Field::Null, Field::Null];
                self.link.command(0, &answer);
                None
            }
            "close" => match self.state {
                State::Over => None,
                State::Ready => self.end("close"),
                _ => self.reject(command),
            },
            // `onFCPublish`, `onBWDone` again and all that we do not know.
            _ => None,
        }
    }

    fn status(&mut self, command: &Command) -> Option<ClientEvent> {
        let code = command.property("code").unwrap_or_default();
        let error = command.property("level") == Some("error");
        match (self.state, self.settings.mode, code) {
            (State::Over, ..) => None,
            (State::Asked, ClientMode::Publish, "NetStream.Publish.Start")
            | (State::Asked, ClientMode::Play, "NetStream.Play.Start") => {
                self.state = State::Ready;
                Some(ClientEvent::Ready { stream_id: self.stream_id })
            }
            (State::Ready, ..) if error || is_end(code) => self.end(code),
            _ if error || is_end(code) => self.reject(command),
            _ => None,
        }
    }

    fn end(&mut self, code: &str) -> Option<ClientEvent> {
        self.state = State::Over;
        Some(ClientEvent::Ended { code: cut(code, DESCRIPTION_MAX).to_owned() })
    }

    fn reject(&mut self, command: &Command) -> Option<ClientEvent> {
        self.state = State::Over;
        let text = |name| cut(command.property(name).unwrap_or_default(), DESCRIPTION_MAX).to_owned();
        let mut code = text("code");
        if code.is_empty() {
            code = cut(&command.name, DESCRIPTION_MAX).to_owned();
        }
        let mut description = text("description");
        if description.is_empty()
            && let Some(Amf0Value::Utf8String(words)) = command.arg(0)
        {
            description = cut(words, DESCRIPTION_MAX).to_owned();
        }
        Some(ClientEvent::Rejected { code, description })
    }
}

/// Codes after which no media flows, whatever their level says.
fn is_end(code: &str) -> bool {
    matches!(
        code,
        "NetStream.Play.UnpublishNotify"
            | "NetStream.Play.Stop"
            | "NetStream.Play.Complete"
            | "NetStream.Play.StreamNotFound"
            | "NetStream.Play.Failed"
            | "NetStream.Publish.BadName"
            | "NetStream.Publish.Denied"
            | "NetStream.Publish.Failed"
            | "NetStream.Unpublish.Success"
            | "NetConnection.Connect.Closed"
            | "NetConnection.Connect.Rejected"
            | "NetConnection.Connect.Failed"
    )
}

#[cfg(test)]
mod tests;
