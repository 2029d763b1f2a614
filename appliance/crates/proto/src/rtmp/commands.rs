//! What both sessions write and read alike: control messages, commands, acknowledgements.

use super::amf::{self, Amf0Value, Field};
use super::chunk_reader::{Message, kind};
use super::chunk_writer::ChunkWriter;
use super::events::SessionError;
use bytes::BytesMut;

/// Chunk stream of protocol control messages.
pub(super) const CONTROL_CSID: u32 = 2;
/// Chunk stream of commands.
pub(super) const COMMAND_CSID: u32 = 3;
/// Answers that may wait to be sent before a peer that does not read is given up.
pub(super) const OUTPUT_MAX: usize = 256 << 10;

/// User control event types.
pub(super) mod control {
    pub(in crate::rtmp) const STREAM_BEGIN: u16 = 0;
    pub(in crate::rtmp) const STREAM_EOF: u16 = 1;
    pub(in crate::rtmp) const PING_REQUEST: u16 = 6;
    pub(in crate::rtmp) const PING_RESPONSE: u16 = 7;
}

/// The writing half of a session: what waits to be sent, and what was received and is to be acknowledged.
#[derive(Debug)]
pub(super) struct Link {
    out: BytesMut,
    writer: ChunkWriter,
    /// Bytes received, wrapping, as acknowledgements count them.
    received: u32,
    acknowledged: u32,
    /// The peer's window: it wants word after so many bytes.
    window: u32,
    scratch: BytesMut,
}

impl Link {
    pub(super) fn new(window: u32) -> Self {
        Link {
            out: BytesMut::new(),
            writer: ChunkWriter::new(),
            received: 0,
            acknowledged: 0,
            window: window.max(1),
            scratch: BytesMut::new(),
        }
    }

    pub(super) fn poll_output(&mut self, out: &mut BytesMut) {
        if out.is_empty() {
            *out = self.out.split();
        } else {
            out.extend_from_slice(&self.out);
            self.out.clear();
        }
    }

    pub(super) fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    pub(super) fn chunk_len(&self) -> u32 {
        self.writer.chunk_len()
    }

    pub(super) fn set_chunk_len(&mut self, chunk_len: u32) {
        self.writer.set_chunk_len(&mut self.out, chunk_len);
    }

    /// Fails when the peer makes us answer without reading.
    pub(super) fn check_backlog(&self) -> Result<(), SessionError> {
        let (len, max) = (self.out.len(), OUTPUT_MAX);
        if len > max { Err(SessionError::OutputBacklog { len, max }) } else { Ok(()) }
    }

    /// Counts received bytes; acknowledges the running total when half a window is full.
    pub(super) fn count_input(&mut self, bytes: usize) {
        self.received = self.received.wrapping_add(bytes as u32);
        if self.received.wrapping_sub(self.acknowledged) >= (self.window / 2).max(1) {
            self.acknowledged = self.received;
            self.control(kind::ACKNOWLEDGEMENT, &self.received.to_be_bytes());
        }
    }

    /// The peer's Window Acknowledgement Size. Tiny windows would make us answer every read: 1,024 at least.
    pub(super) fn set_window(&mut self, window: u32) {
        self.window = window.max(1024);
    }

    pub(super) fn control(&mut self, kind: u8, body: &[u8]) {
        self.writer.write(&mut self.out, CONTROL_CSID, 0, kind, 0, body);
    }

    pub(super) fn user_control(&mut self, event: u16, value: u32) {
        let [a, b] = event.to_be_bytes();
        let [c, d, e, f] = value.to_be_bytes();
        self.control(kind::USER_CONTROL, &[a, b, c, d, e, f]);
    }

    /// How much a player buffers; servers use it to decide how far they run ahead.
    pub(super) fn set_buffer_length(&mut self, stream_id: u32, millis: u32) {
        let mut body = [0, 3, 0, 0, 0, 0, 0, 0, 0, 0];
        let values = [stream_id.to_be_bytes(), millis.to_be_bytes()];
        for (to, from) in body.iter_mut().skip(2).zip(values.as_flattened()) {
            *to = *from;
        }
        self.control(kind::USER_CONTROL, &body);
    }

    pub(super) fn window_ack_size(&mut self, window: u32) {
        self.control(kind::WINDOW_ACK_SIZE, &window.to_be_bytes());
    }

    pub(super) fn set_peer_bandwidth(&mut self, window: u32) {
        let [a, b, c, d] = window.to_be_bytes();
        // Limit type 2: dynamic.
        self.control(kind::SET_PEER_BANDWIDTH, &[a, b, c, d, 2]);
    }

    pub(super) fn command(&mut self, stream_id: u32, fields: &[Field<'_>]) {
        self.values(kind::COMMAND, stream_id, fields);
    }

    pub(super) fn data(&mut self, stream_id: u32, fields: &[Field<'_>]) {
        self.values(kind::DATA, stream_id, fields);
    }

    fn values(&mut self, kind: u8, stream_id: u32, fields: &[Field<'_>]) {
        self.scratch.clear();
        for &field in fields {
            amf::put(&mut self.scratch, field);
        }
        self.writer.write(&mut self.out, COMMAND_CSID, 0, kind, stream_id, &self.scratch);
    }

    /// `onStatus` with the usual three properties.
    pub(super) fn status(&mut self, stream_id: u32, level: &str, code: &str, description: &str) {
        let info = [
            ("level", Field::Text(level)),
            ("code", Field::Text(code)),
            ("description", Field::Text(description)),
        ];
        let fields = [Field::Text("onStatus"), Field::Number(0.0), Field::Null, Field::Object(&info)];
        self.command(stream_id, &fields);
    }

    /// The control messages that both sides take alike; false if `message` is none of them.
    pub(super) fn take_control(&mut self, message: &Message) -> Taken {
        let body = message.body();
        let value =
            |at: usize| body.get(at..).and_then(|rest| rest.first_chunk()).map(|&b| u32::from_be_bytes(b));
        match message.kind {
            kind::ACKNOWLEDGEMENT => value(0).map_or(Taken::Done, Taken::Acknowledged),
            kind::WINDOW_ACK_SIZE => {
                if let Some(window) = value(0) {
                    self.set_window(window);
                }
                Taken::Done
            }
            kind::SET_PEER_BANDWIDTH => Taken::Done,
            kind::USER_CONTROL => {
                let event = body.first_chunk().map(|&b| u16::from_be_bytes(b));
                match (event, value(2)) {
                    (Some(control::PING_REQUEST), Some(time)) => {
                        self.user_control(control::PING_RESPONSE, time);
                        Taken::Done
                    }
                    (Some(control::PING_RESPONSE), Some(time)) => Taken::Pong(time),
                    (Some(control::STREAM_EOF), _) => Taken::StreamEof,
                    // Unknown events are nobody's loss; peers send buffer lengths, recorded flags and more.
                    _ => Taken::Done,
                }
            }
            _ => Taken::Not,
        }
    }
}

/// What `take_control` found.
pub(super) enum Taken {
    Not,
    Done,
    Acknowledged(u32),
    Pong(u32),
    StreamEof,
}

/// A command's values, screened.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) name: String,
    pub(super) transaction: f64,
    pub(super) args: Vec<Amf0Value>,
}

impl Command {
    pub(super) fn parse(message: &Message) -> Result<Command, amf::AmfError> {
        let values = amf::decode(message.body(), message.kind)?;
        let mut values = values.into_iter();
        let Some(Amf0Value::Utf8String(name)) = values.next() else { return Err(amf::AmfError::NoName) };
        let transaction = match values.next() {
            Some(Amf0Value::Number(number)) if number.is_finite() => number,
            _ => 0.0,
        };
        Ok(Command { name, transaction, args: values.collect() })
    }

    /// The argument behind the command object, counted from 0.
    pub(super) fn arg(&self, index: usize) -> Option<&Amf0Value> {
        self.args.get(index.saturating_add(1))
    }

    pub(super) fn text(&self, index: usize) -> Option<&str> {
        text(self.arg(index)?)
    }

    pub(super) fn number(&self, index: usize) -> Option<f64> {
        match self.arg(index)? {
            Amf0Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn truth(&self, index: usize) -> Option<bool> {
        match self.arg(index)? {
            Amf0Value::Boolean(truth) => Some(*truth),
            _ => None,
        }
    }

    /// A property of the first object among command object and arguments that has it as text.
    pub(super) fn property(&self, name: &str) -> Option<&str> {
        self.args.iter().find_map(|value| match value {
            Amf0Value::Object(object) => text(object.get(name)?),
            _ => None,
        })
    }
}

pub(super) fn text(value: &Amf0Value) -> Option<&str> {
    match value {
        Amf0Value::Utf8String(text) => Some(text),
        _ => None,
    }
}

/// `name?query` in two.
pub(super) fn split_query(name: &str) -> (&str, &str) {
    name.split_once('?').unwrap_or((name, ""))
}

/// `capsEx` of Enhanced RTMP v2: ModEx (4), timestamp nanos (8). Neither reconnect (1) nor multitrack (2).
pub(super) const CAPS_EX: f64 = 12.0;
/// What a FourCC map says of each codec: can forward.
const CAN_FORWARD: f64 = 4.0;

/// The FourCCs of one kind as properties.
pub(super) fn fourcc_map(names: &[String]) -> Vec<(&str, Field<'_>)> {
    names.iter().map(|name| (name.as_str(), Field::Number(CAN_FORWARD))).collect()
}

/// The names of all FourCCs of one kind.
pub(super) fn fourcc_names(kind: fieldgate_media::TrackKind) -> Vec<String> {
    super::flv::FOURCC_CODECS
        .into_iter()
        .filter(|codec| codec.kind() == kind)
        .filter_map(super::flv::fourcc)
        .map(|code| String::from_utf8_lossy(&code).into_owned())
        .collect()
}
