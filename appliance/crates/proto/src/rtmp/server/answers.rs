//! Our answers to requests, and what we tell of our own accord.

use super::{Connect, Role, ServerSession};
use crate::rtmp::amf::Field;
use crate::rtmp::commands::{CAPS_EX, control, fourcc_map, fourcc_names};
use crate::rtmp::events::{PlayRefusal, PublishRefusal};
use crate::rtmp::flv::Demuxer;
use fieldgate_media::TrackKind;

impl ServerSession {
    /// Accepts the waiting `connect`: window sizes, our chunk size, the answer with our codecs. One write.
    pub fn accept_connect(&mut self) {
        let Connect::Asked { transaction, object_encoding } = self.connect else { return };
        self.connect = Connect::Connected;
        self.link.window_ack_size(self.settings.window_ack);
        self.link.set_peer_bandwidth(self.settings.window_ack);
        self.link.set_chunk_len(self.settings.chunk_len);
        // Enhanced RTMP v1 knows the list, v2 the maps.
        let (video, audio) = (fourcc_names(TrackKind::Video), fourcc_names(TrackKind::Audio));
        let (video_map, audio_map) = (fourcc_map(&video), fourcc_map(&audio));
        let list: Vec<Field<'_>> = video.iter().chain(&audio).map(|name| Field::Text(name)).collect();
        let properties = [
            // Some encoders offer less to servers that do not look like this one.
            ("fmsVer", Field::Text("FMS/3,5,7,7009")),
            ("capabilities", Field::Number(31.0)),
            ("mode", Field::Number(1.0)),
        ];
        let info = [
            ("level", Field::Text("status")),
            ("code", Field::Text("NetConnection.Connect.Success")),
            ("description", Field::Text("Connection succeeded.")),
            ("objectEncoding", Field::Number(object_encoding)),
            ("fourCcList", Field::Array(&list)),
            ("capsEx", Field::Number(CAPS_EX)),
            ("videoFourCcInfoMap", Field::Object(&video_map)),
            ("audioFourCcInfoMap", Field::Object(&audio_map)),
        ];
        let fields = [
            Field::Text("_result"),
            Field::Number(transaction),
            Field::Object(&properties),
            Field::Object(&info),
        ];
        self.link.command(0, &fields);
    }

    /// Refuses the waiting `connect`; close after sending.
    pub fn reject_connect(&mut self, text: &str) {
        let Connect::Asked { transaction, .. } = self.connect else { return };
        self.connect = Connect::Rejected;
        let info = [
            ("level", Field::Text("error")),
            ("code", Field::Text("NetConnection.Connect.Rejected")),
            ("description", Field::Text(text)),
        ];
        let fields = [Field::Text("_error"), Field::Number(transaction), Field::Null, Field::Object(&info)];
        self.link.command(0, &fields);
    }

    /// Refuses the waiting `connect` as servers do whose controller refused: Stream Begin, the controller's words as an
    /// `onStatus`, then the error of `connect` with a fixed text. The connection may stay open; what the peer asks for
    /// on it is refused.
    ///
    /// Source: recorded from an RTMP server with such a controller.
    pub fn refuse_connect(&mut self, text: &str) {
        if !matches!(self.connect, Connect::Asked { .. }) {
            return;
        }
        self.link.user_control(control::STREAM_BEGIN, 0);
        self.link.status(0, "error", "NetStream.Play.Failed", text);
        self.reject_connect("Connection failed: Application rejected connection.");
    }

    /// Accepts a waiting publish: its media comes as events from now on. Nothing happens if none waits there.
    pub fn accept_publish(&mut self, stream_id: u32) {
        let Some(stream) = self.stream(stream_id) else { return };
        if !matches!(stream.role, Role::AskedPublish) {
            return;
        }
        stream.role = Role::Publishing(Box::new(Demuxer::new()));
        let text = format!("Publishing {}.", stream.name);
        self.reader.allow_media(true);
        self.link.user_control(control::STREAM_BEGIN, stream_id);
        self.link.status(stream_id, "status", "NetStream.Publish.Start", &text);
    }

    /// Refuses a waiting publish, or ends an accepted one.
    pub fn reject_publish(&mut self, stream_id: u32, why: PublishRefusal, text: &str) {
        let Some(stream) = self.stream(stream_id) else { return };
        if !matches!(stream.role, Role::AskedPublish | Role::Publishing(_)) {
            return;
        }
        stream.role = Role::Idle;
        let code = match why {
            PublishRefusal::BadName => "NetStream.Publish.BadName",
            PublishRefusal::Denied => "NetStream.Publish.Denied",
        };
        self.link.status(stream_id, "error", code, text);
    }

    /// Accepts a waiting play: Stream Begin, Reset, Start. Media may follow after `poll_output`'s bytes.
    pub fn accept_play(&mut self, stream_id: u32) {
        let Some(stream) = self.stream(stream_id) else { return };
        let Role::AskedPlay { reset } = stream.role else { return };
        stream.role = Role::Playing;
        let text = format!("Playing {}.", stream.name);
        self.link.user_control(control::STREAM_BEGIN, stream_id);
        if reset {
            self.link.status(stream_id, "status", "NetStream.Play.Reset", &text);
        }
        self.link.status(stream_id, "status", "NetStream.Play.Start", &text);
        self.link.data(stream_id, &[Field::Text("|RtmpSampleAccess"), Field::Bool(true), Field::Bool(true)]);
        let info = [("code", Field::Text("NetStream.Data.Start"))];
        self.link.data(stream_id, &[Field::Text("onStatus"), Field::Object(&info)]);
    }

    /// Refuses a waiting play, or ends an accepted one.
    pub fn reject_play(&mut self, stream_id: u32, why: PlayRefusal, text: &str) {
        let Some(stream) = self.stream(stream_id) else { return };
        if !matches!(stream.role, Role::AskedPlay { .. } | Role::Playing) {
            return;
        }
        stream.role = Role::Idle;
        let code = match why {
            PlayRefusal::StreamNotFound => "NetStream.Play.StreamNotFound",
            PlayRefusal::Failed => "NetStream.Play.Failed",
        };
        self.link.status(stream_id, "error", code, text);
    }

    /// Tells an accepted player that its publisher has come back.
    pub fn notify_publish(&mut self, stream_id: u32) {
        if self.is_playing(stream_id) {
            self.link.user_control(control::STREAM_BEGIN, stream_id);
            self.link.status(stream_id, "status", "NetStream.Play.PublishNotify", "The publisher is back.");
        }
    }

    /// Tells an accepted player that its publisher has gone: UnpublishNotify, Stream EOF. It stays a player.
    pub fn notify_unpublish(&mut self, stream_id: u32) {
        if self.is_playing(stream_id) {
            let text = "The publisher has gone.";
            self.link.status(stream_id, "status", "NetStream.Play.UnpublishNotify", text);
            self.link.user_control(control::STREAM_EOF, stream_id);
        }
    }

    /// Tells the peer why, on every stream in use, before the driver closes the connection.
    pub fn close(&mut self, text: &str) {
        for stream in &mut self.streams {
            let (level, code) = match std::mem::replace(&mut stream.role, Role::Idle) {
                Role::Idle => continue,
                Role::AskedPublish => ("error", "NetStream.Publish.Denied"),
                Role::Publishing(_) => ("error", "NetStream.Publish.Failed"),
                Role::AskedPlay { .. } => ("error", "NetStream.Play.Failed"),
                Role::Playing => ("status", "NetStream.Play.Stop"),
            };
            self.link.status(stream.id, level, code, text);
        }
        if self.connect == Connect::Connected {
            let info = [
                ("level", Field::Text("status")),
                ("code", Field::Text("NetConnection.Connect.Closed")),
                ("description", Field::Text(text)),
            ];
            let fields = [Field::Text("onStatus"), Field::Number(0.0), Field::Null, Field::Object(&info)];
            self.link.command(0, &fields);
        }
    }

    fn is_playing(&mut self, stream_id: u32) -> bool {
        self.stream(stream_id).is_some_and(|stream| matches!(stream.role, Role::Playing))
    }
}
