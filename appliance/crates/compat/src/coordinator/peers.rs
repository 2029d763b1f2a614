//! Streaming servers and encoders: who they are, and that they live.

use super::message::{Message, MessageError};
use super::{Action, Coordinator, Note, SocketId, after, commands, token};
use crate::{Reply, Request};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Between two of our heartbeats.
const BEAT: Duration = Duration::from_secs(20);
/// A socket without messages is closed.
const SILENCE: Duration = Duration::from_secs(60);
/// Between two lines about sockets that are refused.
const QUIET: Duration = Duration::from_secs(10);
/// Longest `Request-ID`, in bytes.
const REQUEST_ID_MAX: usize = 128;

/// A kind of control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rtmp,
    Wss,
    Hls,
}

impl Kind {
    pub(super) fn of_target(target: &str) -> Option<Kind> {
        match target {
            "/ws/control/rtmp" => Some(Kind::Rtmp),
            "/ws/control/wss" => Some(Kind::Wss),
            "/ws/control/hls" => Some(Kind::Hls),
            _ => None,
        }
    }

    fn subject(self) -> &'static str {
        match self {
            Kind::Rtmp => "rtmp-control",
            Kind::Wss => "wss-control",
            Kind::Hls => "hls-control",
        }
    }
}

/// What a peer is here for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Takes publishers.
    Server { port: u16, is_tls: bool, is_ws: bool },
    /// Makes files of streams.
    Encoder {
        /// Negative: any number. None before it has said so: it takes nothing.
        capacity: Option<i64>,
    },
}

/// Somebody who takes part.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) role: Role,
    /// As others reach it.
    pub(super) address: IpAddr,
    /// None: it is the gateway itself.
    pub(super) talk: Option<Talk>,
}

/// What is said over a socket, and when.
#[derive(Debug)]
pub(super) struct Talk {
    /// When it is closed if it says nothing more.
    silent_at: Instant,
    /// When our next heartbeat is due.
    beat_at: Instant,
}

impl Peer {
    pub(super) fn kind(&self) -> &'static str {
        match self.role {
            Role::Server { is_ws: false, .. } => "RTMP server",
            Role::Server { is_ws: true, .. } => "WebSocket server",
            Role::Encoder { .. } => "encoder",
        }
    }
}

impl Coordinator {
    /// Somebody wants to open a control socket. From now on it is open; the error is for the peer.
    pub fn handle_upgrade(&mut self, request: &Request, now: Instant) -> Result<SocketId, Reply> {
        let id = self.next_peer;
        self.next_peer = id.saturating_add(1);
        let kind = Kind::of_target(&request.target).filter(|_| request.method == "GET");
        let kind = kind.ok_or_else(commands::not_found)?;
        if !self.is_let_in(kind, request, now) {
            return Err(commands::text(403, "Invalid authentication token."));
        }
        let sockets = self.peers.values().filter(|peer| peer.talk.is_some()).count();
        if sockets >= self.settings.max_sockets {
            return Err(commands::text(503, "Too many control sockets."));
        }
        let header = |name: &str| {
            request.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.trim())
        };
        let mut address = request.peer.to_canonical();
        let role = match kind {
            Kind::Hls => Role::Encoder { capacity: None },
            Kind::Rtmp | Kind::Wss => {
                if let Some(text) = header("x-external-ip").filter(|text| !text.is_empty()) {
                    match text.parse() {
                        Ok(external) => address = external,
                        Err(_) => self.note(Note::NoAddress(address)),
                    }
                }
                let default = if kind == Kind::Rtmp { 1935 } else { 80 };
                Role::Server {
                    port: header("x-custom-port")
                        .and_then(|port| port.parse().ok())
                        .filter(|port| *port > 0)
                        .unwrap_or(default),
                    is_tls: header("x-ssl-use") == Some("true"),
                    is_ws: kind == Kind::Wss,
                }
            }
        };
        let talk = Some(Talk { silent_at: after(now, SILENCE), beat_at: after(now, BEAT) });
        let peer = Peer { role, address, talk };
        self.note(Note::Joined { kind: peer.kind(), id, address });
        self.peers.insert(id, peer);
        Ok(SocketId(id))
    }

    fn is_let_in(&mut self, kind: Kind, request: &Request, now: Instant) -> bool {
        let Some(secret) = &self.settings.control_secret else {
            let is_near = request.peer.to_canonical().is_loopback();
            if !is_near {
                self.note_refusal(Note::NoSecret(request.peer), now);
            }
            return is_near;
        };
        let mut tokens = request.headers.iter().filter(|(name, _)| name == "x-control-auth-token");
        let token = tokens.next().map_or("", |(_, token)| token.trim());
        let unix_now = i64::try_from(self.since_1970.as_secs()).unwrap_or(i64::MAX);
        match token::check(token, secret, kind.subject(), unix_now) {
            Ok(()) => true,
            Err(why) => {
                self.note_refusal(Note::TokenRefused { peer: request.peer, why }, now);
                false
            }
        }
    }

    fn note_refusal(&mut self, note: Note, now: Instant) {
        if self.quiet_until.is_none_or(|until| until <= now) {
            self.quiet_until = Some(after(now, QUIET));
            self.note(note);
        }
    }

    /// A text message has come.
    pub fn handle_text(&mut self, socket: SocketId, text: &str, now: Instant) {
        self.handle_binary(socket, now);
        let Some(peer) = self.peers.get(&socket.0).filter(|peer| peer.talk.is_some()) else { return };
        let is_encoder = matches!(peer.role, Role::Encoder { .. });
        match Message::parse(text) {
            Err(why) => self.handle_broken(socket, why, now),
            Ok(message) if message.kind() == "ERROR" => {
                let (id, kind) = (socket.0, peer.kind());
                self.note(Note::Reported { kind, id, text: message.error_words() });
            }
            Ok(message) if is_encoder => self.on_encoder(socket.0, &message, now),
            Ok(message) => self.on_server(socket.0, &message, now),
        }
        self.go_on(now);
    }

    /// A binary message has come: nothing is in it, but its sender lives.
    pub fn handle_binary(&mut self, socket: SocketId, now: Instant) {
        if let Some(talk) = self.peers.get_mut(&socket.0).and_then(|peer| peer.talk.as_mut()) {
            talk.silent_at = after(now, SILENCE);
        }
    }

    /// What has come is no message: the socket is told so and closed.
    pub fn handle_broken(&mut self, socket: SocketId, why: MessageError, now: Instant) {
        let Some(peer) = self.peers.get(&socket.0).filter(|peer| peer.talk.is_some()) else { return };
        let note = Note::Broken { kind: peer.kind(), id: socket.0, why };
        self.note(note);
        self.send_error(socket.0, why.code(), &why.to_string());
        self.actions.push_back(Action::Close(socket));
        self.handle_gone(socket, now);
    }

    /// A socket is gone.
    pub fn handle_gone(&mut self, socket: SocketId, now: Instant) {
        if self.peers.get(&socket.0).is_none_or(|peer| peer.talk.is_none()) {
            return;
        }
        let Some(peer) = self.peers.remove(&socket.0) else { return };
        self.note(Note::Left { kind: peer.kind(), id: socket.0 });
        match peer.role {
            Role::Server { .. } => self.server_gone(socket.0, now),
            Role::Encoder { .. } => self.encoder_gone(socket.0, now),
        }
        self.go_on(now);
    }

    fn on_server(&mut self, id: u64, message: &Message, now: Instant) {
        let channel = message.get("Stream-Channel");
        match message.kind() {
            "PUBLISH-REQUEST" => {
                let request_id = message.get("Request-ID");
                if request_id.len() > REQUEST_ID_MAX {
                    return self.send_error(id, "INVALID_REQUEST", "Request-ID is too long");
                }
                // It stands in a header of the call.
                let user_ip: String =
                    message.get("User-IP").parse().map_or(String::new(), |ip: IpAddr| ip.to_string());
                let key = message.get("Stream-Key");
                self.ask_of_server(id, request_id, channel, key, &user_ip, now);
            }
            "PUBLISH-END" => self.end_publish(id, channel, message.get("Stream-ID"), now),
            _ => {}
        }
    }

    fn on_encoder(&mut self, id: u64, message: &Message, now: Instant) {
        let (channel, stream_id) = (message.get("Stream-Channel"), message.get("Stream-ID"));
        match message.kind() {
            "REGISTER" => match message.get("Capacity").parse() {
                Ok(told) => {
                    if let Some(Peer { role: Role::Encoder { capacity }, .. }) = self.peers.get_mut(&id) {
                        *capacity = Some(told);
                    }
                }
                Err(_) => self.send_error(id, "INVALID_CAPACITY", "Capacity must be an integer"),
            },
            "STREAM-AVAILABLE" => self.on_available(id, channel, stream_id, message, now),
            "STREAM-CLOSED" => self.on_closed(id, channel, stream_id, now),
            _ => {}
        }
    }

    fn send_error(&mut self, id: u64, code: &str, text: &str) {
        let message = Message::new("ERROR").with("Error-Code", code).with("Error-Message", text);
        self.send(id, message);
    }

    /// Sends heartbeats and closes who is silent.
    pub(super) fn look_after_peers(&mut self, now: Instant) {
        let mut beats = Vec::new();
        let mut silent = Vec::new();
        for (id, peer) in &mut self.peers {
            let kind = peer.kind();
            let Some(talk) = &mut peer.talk else { continue };
            if talk.silent_at <= now {
                silent.push((*id, kind));
            } else if talk.beat_at <= now {
                talk.beat_at = after(now, BEAT);
                beats.push(*id);
            }
        }
        beats.into_iter().for_each(|id| self.send(id, Message::new("HEARTBEAT")));
        for (id, kind) in silent {
            self.note(Note::Silent { kind, id });
            self.actions.push_back(Action::Close(SocketId(id)));
            self.handle_gone(SocketId(id), now);
        }
    }

    pub(super) fn peers_due(&self) -> Option<Instant> {
        let talks = self.peers.values().filter_map(|peer| peer.talk.as_ref());
        talks.map(|talk| talk.silent_at.min(talk.beat_at)).min()
    }

    /// Whether an encoder is there from this address: it may play what it encodes.
    pub fn is_encoders(&self, address: IpAddr) -> bool {
        let mut encoders = self.peers.values().filter(|peer| matches!(peer.role, Role::Encoder { .. }));
        encoders.any(|peer| peer.address == address.to_canonical())
    }
}
