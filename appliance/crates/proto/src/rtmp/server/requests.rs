//! The peer's commands.

use super::{Connect, Role, ServerSession, Stream, object_text};
use crate::rtmp::amf::{Amf0Value, Field};
use crate::rtmp::chunk_reader::Message;
use crate::rtmp::commands::{Command, split_query, text};
use crate::rtmp::events::{ConnectRequest, Event, PlayRequest, PublishKind, PublishRequest, SessionError};
use fieldgate_media::TrackKind;

/// FourCCs that a `connect` may list.
const FOURCCS: usize = 32;

impl ServerSession {
    pub(super) fn command(&mut self, message: &Message) -> Result<Option<Event>, SessionError> {
        let command = Command::parse(message)?;
        let stream_id = message.stream_id;
        if command.name == "connect" {
            return Ok(self.connect(&command));
        }
        if !matches!(self.connect, Connect::Connected | Connect::Asked { .. }) {
            self.refuse_unconnected(&command, stream_id);
            return Ok(None);
        }
        match command.name.as_str() {
            "createStream" => self.create_stream(&command)?,
            "publish" => return Ok(self.publish(&command, stream_id)),
            "play" => return Ok(self.play(&command, stream_id)),
            "deleteStream" => {
                let id = command.number(0).map_or(stream_id, |id| id as u32);
                return Ok(self.end_stream(id, true));
            }
            "closeStream" => return Ok(self.end_stream(stream_id, false)),
            "FCPublish" => {
                self.answer(&command, Field::Null);
                self.fc_status("onFCPublish", "NetStream.Publish.Start", &command);
            }
            "FCUnpublish" => {
                self.answer(&command, Field::Null);
                self.fc_status("onFCUnpublish", "NetStream.Unpublish.Success", &command);
            }
            "FCSubscribe" => {
                self.answer(&command, Field::Null);
                self.fc_status("onFCSubscribe", "NetStream.Play.Start", &command);
            }
            "getStreamLength" => self.answer(&command, Field::Number(0.0)),
            "releaseStream" | "FCUnsubscribe" | "_checkbw" => self.answer(&command, Field::Null),
            "pause" | "pauseRaw" => return Ok(self.pause(&command, stream_id)),
            "seek" => self.link.status(
                stream_id,
                "error",
                "NetStream.Seek.Failed",
                "This is a live stream; it cannot be sought.",
            ),
            "receiveAudio" | "receiveVideo" => {
                let kind = if command.name == "receiveAudio" { TrackKind::Audio } else { TrackKind::Video };
                let playing =
                    self.stream(stream_id).is_some_and(|stream| matches!(stream.role, Role::Playing));
                let wanted = command.truth(0).unwrap_or(true);
                return Ok(playing.then_some(Event::ReceiveRequested { stream_id, kind, wanted }));
            }
            // Answers to what we never asked, and names that want no answer.
            "_result" | "_error" | "onStatus" => {}
            _ => self.answer_error(&command, "NetConnection.Call.Failed", "Unknown command."),
        }
        Ok(None)
    }

    fn connect(&mut self, command: &Command) -> Option<Event> {
        if self.connect != Connect::Fresh {
            self.answer_error(command, "NetConnection.Connect.Rejected", "Connected already.");
            return None;
        }
        let empty = std::collections::HashMap::new();
        let object = match command.args.first() {
            Some(Amf0Value::Object(object)) => object,
            _ => &empty,
        };
        let object_encoding = match object.get("objectEncoding") {
            Some(Amf0Value::Number(number)) if *number == 3.0 => 3.0,
            _ => 0.0,
        };
        self.connect = Connect::Asked { transaction: command.transaction, object_encoding };
        let app = object_text(object, "app");
        let (app, query) = split_query(&app);
        let mut fourcc: Vec<String> = Vec::new();
        if let Some(Amf0Value::StrictArray(list)) = object.get("fourCcList") {
            fourcc.extend(list.iter().filter_map(text).take(FOURCCS).map(str::to_owned));
        }
        for map in ["videoFourCcInfoMap", "audioFourCcInfoMap"] {
            if let Some(Amf0Value::Object(map)) = object.get(map) {
                fourcc.extend(map.keys().take(FOURCCS).cloned());
            }
        }
        fourcc.sort();
        fourcc.dedup();
        Some(Event::ConnectRequested(ConnectRequest {
            app: app.trim_end_matches('/').to_owned(),
            query: query.to_owned(),
            tc_url: object_text(object, "tcUrl"),
            flash_ver: object_text(object, "flashVer"),
            swf_url: object_text(object, "swfUrl"),
            page_url: object_text(object, "pageUrl"),
            fourcc,
            object_encoding: object_encoding as u8,
        }))
    }

    fn refuse_unconnected(&mut self, command: &Command, stream_id: u32) {
        match command.name.as_str() {
            "publish" => self.link.status(stream_id, "error", "NetStream.Publish.Denied", "Connect first."),
            "play" => self.link.status(stream_id, "error", "NetStream.Play.Failed", "Connect first."),
            _ => self.answer_error(command, "NetConnection.Call.Failed", "Connect first."),
        }
    }

    fn create_stream(&mut self, command: &Command) -> Result<(), SessionError> {
        let max = self.settings.streams;
        if self.streams.len() >= max {
            return Err(SessionError::TooMany { what: "message streams", max });
        }
        let id = (1..).find(|id| self.streams.iter().all(|stream| stream.id != *id)).unwrap_or(1);
        self.streams.push(Stream { id, name: String::new(), role: Role::Idle });
        self.answer(command, Field::Number(f64::from(id)));
        Ok(())
    }

    fn publish(&mut self, command: &Command, stream_id: u32) -> Option<Event> {
        let full = command.text(0).unwrap_or_default().to_owned();
        // `publish(false)` is an old way to end.
        if command.truth(0) == Some(false) {
            return self.end_stream(stream_id, false);
        }
        let Some(stream) = self.stream(stream_id) else {
            let text = "Unknown message stream: createStream first.";
            self.link.status(stream_id, "error", "NetStream.Publish.Denied", text);
            return None;
        };
        let (name, query) = split_query(&full);
        if name.is_empty() || !matches!(stream.role, Role::Idle) {
            let text = if name.is_empty() { "No stream name." } else { "This message stream is in use." };
            self.link.status(stream_id, "error", "NetStream.Publish.BadName", text);
            return None;
        }
        stream.role = Role::AskedPublish;
        stream.name = name.to_owned();
        let kind_word = command.text(1).unwrap_or_default().to_owned();
        let kind = match kind_word.as_str() {
            "record" => PublishKind::Record,
            "append" => PublishKind::Append,
            _ => PublishKind::Live,
        };
        let (name, query) = (name.to_owned(), query.to_owned());
        Some(Event::PublishRequested(PublishRequest { stream_id, name, query, kind, kind_word }))
    }

    fn play(&mut self, command: &Command, stream_id: u32) -> Option<Event> {
        let full = command.text(0).unwrap_or_default().to_owned();
        if command.truth(0) == Some(false) {
            return self.end_stream(stream_id, false);
        }
        let Some(stream) = self.stream(stream_id) else {
            let text = "Unknown message stream: createStream first.";
            self.link.status(stream_id, "error", "NetStream.Play.Failed", text);
            return None;
        };
        let (name, query) = split_query(&full);
        if name.is_empty() || !matches!(stream.role, Role::Idle) {
            let text = if name.is_empty() { "No stream name." } else { "This message stream is in use." };
            self.link.status(stream_id, "error", "NetStream.Play.Failed", text);
            return None;
        }
        let reset = command.truth(3).unwrap_or(true);
        stream.role = Role::AskedPlay { reset };
        stream.name = name.to_owned();
        let (name, query) = (name.to_owned(), query.to_owned());
        let start = command.number(1).unwrap_or(-2.0);
        Some(Event::PlayRequested(PlayRequest { stream_id, name, query, start }))
    }

    fn pause(&mut self, command: &Command, stream_id: u32) -> Option<Event> {
        let pause = command.truth(0).unwrap_or(true);
        let playing = self.stream(stream_id).is_some_and(|stream| matches!(stream.role, Role::Playing));
        if !playing {
            return None;
        }
        let code = if pause { "NetStream.Pause.Notify" } else { "NetStream.Unpause.Notify" };
        self.link.status(stream_id, "status", code, if pause { "Paused." } else { "Going on." });
        Some(Event::PauseRequested { stream_id, pause })
    }

    /// Ends what a message stream does; `delete` also gives up its id.
    fn end_stream(&mut self, stream_id: u32, delete: bool) -> Option<Event> {
        let at = self.streams.iter().position(|stream| stream.id == stream_id)?;
        let role = std::mem::replace(&mut self.streams.get_mut(at)?.role, Role::Idle);
        if delete {
            self.streams.remove(at);
            self.draining = None;
        }
        match role {
            Role::Idle => None,
            Role::AskedPublish => Some(Event::Unpublished { stream_id }),
            Role::Publishing(_) => {
                self.link.status(stream_id, "status", "NetStream.Unpublish.Success", "Stopped publishing.");
                Some(Event::Unpublished { stream_id })
            }
            Role::AskedPlay { .. } => Some(Event::PlayStopped { stream_id }),
            Role::Playing => {
                self.link.status(stream_id, "status", "NetStream.Play.Stop", "Stopped playing.");
                Some(Event::PlayStopped { stream_id })
            }
        }
    }

    /// `_result`, unless the peer wants no answer (transaction 0).
    fn answer(&mut self, command: &Command, value: Field<'_>) {
        if command.transaction != 0.0 {
            let fields = [Field::Text("_result"), Field::Number(command.transaction), Field::Null, value];
            self.link.command(0, &fields);
        }
    }

    fn answer_error(&mut self, command: &Command, code: &str, description: &str) {
        if command.transaction != 0.0 {
            let info = [
                ("level", Field::Text("error")),
                ("code", Field::Text(code)),
                ("description", Field::Text(description)),
            ];
            let fields = [
                Field::Text("_error"),
                Field::Number(command.transaction),
                Field::Null,
                Field::Object(&info),
            ];
            self.link.command(0, &fields);
        }
    }

    /// What FMLE-like encoders wait for after FCPublish.
    fn fc_status(&mut self, name: &str, code: &str, command: &Command) {
        let (stream, _) = split_query(command.text(0).unwrap_or_default());
        let info = [("code", Field::Text(code)), ("description", Field::Text(stream))];
        self.link.command(0, &[Field::Text(name), Field::Number(0.0), Field::Null, Field::Object(&info)]);
    }
}
