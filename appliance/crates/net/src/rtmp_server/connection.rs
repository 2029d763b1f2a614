//! One RTMP connection from its handshake to its end.

use super::registry::Metered;
use super::{RtmpConnectionError as Error, Server};
use crate::outbox::Outbox;
use crate::socket::Socket;
use bytes::{Buf, BytesMut};
use fieldgate_hub::rtmp::{FLASH_VER_BYTES, TEXT_BYTES, application, cut};
use fieldgate_hub::{
    Action, ConnectTerms, ConnectVerdict, LocalShard, Mountpoint, Request, RtmpClient, RtmpSession,
    StreamState, Terms, Verdict,
};
use fieldgate_proto::rtmp::{
    ConnectRequest, Event, PlayRefusal, PlayRequest, PublishRefusal, PublishRequest, ServerHandshake,
    ServerSession, ServerSettings,
};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// Chunk size until a player has told which mountpoint it wants.
const FIRST_CHUNK_LEN: u32 = 4096;
/// Times that one connection may change to a mountpoint of another shard.
const MAX_MOVES: u8 = 16;
/// Bytes that a peer may send ahead while a controller is asked about it.
const AHEAD_BYTES: usize = 64 << 10;
/// A longer name of letters and digits alone is most likely a token.
const LONGEST_PLAIN_NAME: usize = 32;
/// How long a refused or dismissed peer has to read why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a peer was admitted to.
pub(super) enum Role {
    /// Feed a mountpoint.
    Publish { session: Arc<RtmpSession>, mountpoint: Arc<Mountpoint> },
    /// Follow a mountpoint.
    Play { stream_id: u32, mountpoint: Arc<Mountpoint>, terms: Terms },
}

impl Role {
    fn mountpoint(&self) -> &Arc<Mountpoint> {
        match self {
            Role::Publish { mountpoint, .. } | Role::Play { mountpoint, .. } => mountpoint,
        }
    }

    fn shard(&self) -> usize {
        self.mountpoint().shard()
    }
}

/// A connection's protocol state. Can move to another shard together with its socket.
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    pub(super) server: Arc<Server>,
    pub(super) session: ServerSession,
    /// Its place among the live ones.
    pub(super) meter: Metered,
    /// Bytes that were read and not yet looked at.
    pub(super) unread: BytesMut,
    /// Without media, or without a wish, for so long it is ended; zero: never.
    pub(super) idle_timeout: Duration,
    /// Media that does not parse ends it.
    pub(super) end_on_bad_media: bool,
    /// Bytes written by the present outbox that are counted already.
    counted_out: u64,
    app: String,
    /// Some encoders can put the key only behind the application.
    app_key: Option<String>,
    /// Cancelled when what it was last admitted to is taken back.
    revoked: Arc<CancellationToken>,
    moves: u8,
}

impl Connection {
    /// Serves a peer until it or we end it.
    pub(super) async fn serve(
        socket: Socket,
        peer: SocketAddr,
        server: Arc<Server>,
        local: Rc<LocalShard>,
    ) -> Result<(), Error> {
        let outbox = Rc::new(Outbox::new(socket));
        let limit = server.settings.handshake_timeout;
        // Boxed: a quiet connection shall not keep the handshake's memory.
        let begin = Box::pin(Self::begin(peer, server, &outbox, &local));
        let begun = tokio::time::timeout(limit, begin).await;
        let Some((mut connection, request)) = begun.map_err(|_| Error::HandshakeTimeout(limit))?? else {
            return Ok(());
        };
        if !Box::pin(connection.consider_connect(request, &outbox, &local)).await? {
            return Ok(());
        }
        connection.go_on(outbox, local).await
    }

    /// The handshake, until the peer asks to connect. `None`: it left.
    async fn begin(
        peer: SocketAddr,
        server: Arc<Server>,
        outbox: &Outbox,
        local: &LocalShard,
    ) -> Result<Option<(Connection, ConnectRequest)>, Error> {
        let cancel = server.context.cancel.clone();
        let meter = server.counters.connections.enter(peer);
        let dropped = meter.dropped();
        let mut connection = Connection {
            peer,
            session: ServerSession::new(ServerSettings {
                limits: server.settings.limits.clone(),
                chunk_len: FIRST_CHUNK_LEN,
                ..ServerSettings::default()
            }),
            meter,
            unread: BytesMut::new(),
            idle_timeout: server.settings.idle_timeout,
            end_on_bad_media: false,
            server,
            counted_out: 0,
            app: String::new(),
            app_key: None,
            revoked: Arc::default(),
            moves: 0,
        };
        let work = async {
            let mut handshake = Box::new(ServerHandshake::new());
            loop {
                if !connection.read_more(outbox, local).await? {
                    return Ok(None);
                }
                let mut input = &connection.unread[..];
                let mut answer = BytesMut::new();
                let done = handshake.handle_input(&mut input, &mut answer)?;
                let used = connection.unread.len() - input.len();
                connection.unread.advance(used);
                outbox.answer(|out| out.unsplit(answer));
                outbox.write_now();
                if done {
                    break;
                }
            }
            drop(handshake);
            loop {
                while let Some(event) = connection.next_event()? {
                    if let Event::ConnectRequested(request) = event {
                        return Ok(Some(request));
                    }
                }
                connection.send_answers(outbox)?;
                if !connection.read_more(outbox, local).await? {
                    return Ok(None);
                }
            }
        };
        let outcome: Result<Option<ConnectRequest>, Error> = tokio::select! {
            outcome = work => outcome,
            () = cancel.cancelled() => Err(Error::Stopping),
            () = dropped.cancelled() => Err(Error::Dropped),
        };
        Ok(outcome?.map(|request| (connection, request)))
    }

    /// Answers `connect`. False: the peer left, or was refused.
    async fn consider_connect(
        &mut self,
        request: ConnectRequest,
        outbox: &Outbox,
        local: &LocalShard,
    ) -> Result<bool, Error> {
        self.app_key = request.param("key");
        let client = Arc::new(RtmpClient {
            connection: self.meter.number(),
            app: cut(application(&request.app), TEXT_BYTES),
            flash_ver: cut(&request.flash_ver, FLASH_VER_BYTES),
            swf_url: cut(&request.swf_url, TEXT_BYTES),
            tc_url: cut(&request.tc_url, TEXT_BYTES),
            page_url: cut(&request.page_url, TEXT_BYTES),
            peer: SocketAddr::new(self.peer.ip().to_canonical(), self.peer.port()),
        });
        self.meter.identify(client.clone());
        self.app.clone_from(&client.app);
        let Some(verdict) = self.ask_connect(client, outbox, local).await? else { return Ok(false) };
        let (text, keep_open) = match verdict {
            ConnectVerdict::Accept(terms) => {
                self.agree(terms);
                self.session.accept_connect();
                self.send_answers(outbox)?;
                return Ok(true);
            }
            ConnectVerdict::UnknownApplication => {
                let text = format!("application {:?} is not served here; use \"live\"", self.app);
                debug!(peer = %self.peer, app = self.app, "RTMP connect refused: unknown application");
                self.session.reject_connect(&text);
                (text, false)
            }
            ConnectVerdict::Refuse { text, keep_open, terms } => {
                self.agree(terms);
                self.session.refuse_connect(&text);
                (text, keep_open)
            }
        };
        info!(peer = %self.peer, app = self.app, reason = text, "RTMP connect refused");
        if keep_open {
            self.outlast(outbox, local).await?;
        }
        self.say_last_words(outbox).await;
        Ok(false)
    }

    fn agree(&mut self, terms: ConnectTerms) {
        self.idle_timeout = terms.idle_timeout.unwrap_or(self.idle_timeout);
        self.end_on_bad_media = terms.end_on_bad_media;
    }

    /// What whoever decides says to `connect`; meanwhile the peer may leave (`None`) or send a little ahead.
    async fn ask_connect(
        &mut self,
        client: Arc<RtmpClient>,
        outbox: &Outbox,
        local: &LocalShard,
    ) -> Result<Option<ConnectVerdict>, Error> {
        let (cancel, dropped) = (self.server.context.cancel.clone(), self.meter.dropped());
        let admit = self.server.context.admit.clone();
        let mut asking = admit.connect(client);
        loop {
            let has_room = self.unread.len() < AHEAD_BYTES;
            tokio::select! {
                verdict = &mut asking => return Ok(Some(verdict)),
                more = self.read_more(outbox, local), if has_room => if !more? {
                    return Ok(None);
                },
                () = cancel.cancelled() => return Err(Error::Stopping),
                () = dropped.cancelled() => return Err(Error::Dropped),
            }
        }
    }

    /// Stays with a refused peer until it leaves or has been idle for too long.
    async fn outlast(&mut self, outbox: &Outbox, local: &LocalShard) -> Result<(), Error> {
        let (cancel, dropped) = (self.server.context.cancel.clone(), self.meter.dropped());
        let idle = idle(self.idle_timeout);
        tokio::pin!(idle);
        loop {
            while self.next_event()?.is_some() {}
            self.send_answers(outbox)?;
            tokio::select! {
                more = self.read_more(outbox, local) => if !more? {
                    return Ok(());
                },
                () = &mut idle => return Ok(()),
                () = cancel.cancelled() => return Err(Error::Stopping),
                () = dropped.cancelled() => return Err(Error::Dropped),
            }
        }
    }

    /// From after `connect`, and again after each move, until the end.
    fn go_on(
        mut self,
        outbox: Rc<Outbox>,
        local: Rc<LocalShard>,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>>>> {
        Box::pin(async move {
            loop {
                let Some(role) = Box::pin(self.negotiate(&outbox, &local)).await? else { return Ok(()) };
                if role.shard() != local.index() {
                    return self.move_to(role, outbox).await;
                }
                if !self.play_role(role, &outbox, &local).await? {
                    return Ok(());
                }
            }
        })
    }

    /// True: the peer has ended its stream and may begin another.
    async fn play_role(
        &mut self,
        role: Role,
        outbox: &Rc<Outbox>,
        local: &Rc<LocalShard>,
    ) -> Result<bool, Error> {
        let outcome = match role {
            Role::Publish { session, mountpoint } => {
                super::publish::run(self, outbox, local, session, mountpoint).await
            }
            Role::Play { stream_id, mountpoint, terms } => {
                super::play::run(self, outbox, local, stream_id, mountpoint, terms).await
            }
        };
        self.note_traffic(outbox);
        self.meter.end_stream();
        outcome
    }

    /// Ends when the peer shall go: what it was admitted to is taken back, or somebody wants the connection dropped.
    pub(super) fn dismissed(&self, mountpoint: &str) -> impl Future<Output = Error> + use<> {
        let (revoked, dropped, name) = (self.revoked.clone(), self.meter.dropped(), mountpoint.to_owned());
        async move {
            tokio::select! {
                () = revoked.cancelled() => Error::Revoked(name),
                () = dropped.cancelled() => Error::Dropped,
            }
        }
    }

    /// Goes on with the role on the mountpoint's shard.
    async fn move_to(mut self, role: Role, outbox: Rc<Outbox>) -> Result<(), Error> {
        self.moves += 1;
        if self.moves > MAX_MOVES {
            return Err(Error::Restless(MAX_MOVES));
        }
        let shard = self.server.context.shards.get(role.shard()).cloned();
        let (Some(shard), Ok(outbox)) = (shard, Rc::try_unwrap(outbox)) else { return Err(Error::Stopping) };
        self.note_traffic(&outbox);
        self.counted_out = 0;
        let socket = outbox.into_socket().rehome()?;
        let moved = shard.run(move |local| async move {
            let outbox = Rc::new(Outbox::new(socket.attach()?));
            if self.play_role(role, &outbox, &local).await? {
                self.go_on(outbox, local).await
            } else {
                Ok(())
            }
        });
        moved.await?
    }

    /// Reads and answers until the peer is admitted to something. `None`: it left, or was refused for good.
    async fn negotiate(&mut self, outbox: &Outbox, local: &LocalShard) -> Result<Option<Role>, Error> {
        let (cancel, dropped) = (self.server.context.cancel.clone(), self.meter.dropped());
        // One deadline for all of it: a byte now and then keeps no place.
        let deadline = idle(self.idle_timeout);
        tokio::pin!(deadline);
        loop {
            while let Some(event) = self.next_event()? {
                let role = match event {
                    Event::PublishRequested(request) => self.consider_publish(request).await,
                    Event::PlayRequested(request) => self.consider_play(request).await,
                    _ => None,
                };
                self.send_answers(outbox)?;
                if role.is_some() {
                    return Ok(role);
                }
            }
            self.send_answers(outbox)?;
            self.note_traffic(outbox);
            tokio::select! {
                more = self.read_more(outbox, local) => if !more? {
                    return Ok(None);
                },
                () = &mut deadline => {
                    self.session.close("idle for too long");
                    self.say_last_words(outbox).await;
                    return Err(Error::Idle(self.idle_timeout));
                }
                () = cancel.cancelled() => return Err(Error::Stopping),
                () = dropped.cancelled() => return Err(Error::Dropped),
            }
        }
    }

    async fn consider_publish(&mut self, request: PublishRequest) -> Option<Role> {
        let stream_id = request.stream_id;
        let key = request.param("key").or_else(|| request.param("token"));
        let (refusal, text) = match self.ask(Action::Publish, &request.name, key).await {
            Verdict::Allow { mountpoint, .. } => match self.server.context.registry.get(&mountpoint) {
                Some(mountpoint) => {
                    let (name, args, kind) = (&request.name, &request.query, &request.kind_word);
                    let session = RtmpSession::new(self.meter.client(), stream_id, name, args, kind);
                    return Some(Role::Publish { session: Arc::new(session), mountpoint });
                }
                None => (PublishRefusal::BadName, format!("mountpoint {mountpoint} has just been removed")),
            },
            Verdict::UnknownApplication | Verdict::UnknownName => {
                (PublishRefusal::BadName, format!("no mountpoint takes the name {:?}", request.name))
            }
            Verdict::Deny { text } => (PublishRefusal::Denied, text),
        };
        self.tell_refused("publish", &request.name, &text);
        self.session.reject_publish(stream_id, refusal, &text);
        None
    }

    async fn consider_play(&mut self, request: PlayRequest) -> Option<Role> {
        let stream_id = request.stream_id;
        let key = request.param("key").or_else(|| request.param("token"));
        let (refusal, text) = match self.ask(Action::Play, &request.name, key).await {
            Verdict::Allow { mountpoint, terms } => match self.server.context.registry.get(&mountpoint) {
                Some(mountpoint) => {
                    let idle = *mountpoint.state().borrow() == StreamState::Idle;
                    if terms.wait_for_publisher || !idle {
                        return Some(Role::Play { stream_id, mountpoint, terms });
                    }
                    (PlayRefusal::StreamNotFound, format!("nobody is publishing {}", request.name))
                }
                None => {
                    (PlayRefusal::StreamNotFound, format!("mountpoint {mountpoint} has just been removed"))
                }
            },
            Verdict::UnknownApplication | Verdict::UnknownName => {
                (PlayRefusal::StreamNotFound, format!("there is no mountpoint {:?}", request.name))
            }
            Verdict::Deny { text } => (PlayRefusal::Failed, text),
        };
        self.tell_refused("play", &request.name, &text);
        self.session.reject_play(stream_id, refusal, &text);
        None
    }

    /// Some systems' names are keys: of these the log shows the end.
    fn tell_refused(&self, what: &str, name: &str, reason: &str) {
        let is_token =
            name.len() > LONGEST_PLAIN_NAME && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let shown = match is_token || self.server.context.admit.names_are_keys(&self.app) {
            true => format!(
                "***{}",
                name.get(name.len().saturating_sub(4)..).filter(|_| name.len() >= 16).unwrap_or("")
            ),
            false => name.to_owned(),
        };
        let reason = if name.is_empty() { reason.to_owned() } else { reason.replace(name, &shown) };
        info!(peer = %self.peer, name = shown, reason, "{what} refused");
    }

    async fn ask(&mut self, action: Action, name: &str, key: Option<String>) -> Verdict {
        // Of its own: what was admitted before has ended.
        self.revoked = Arc::default();
        let request = Request {
            action,
            peer: self.peer.ip().to_canonical(),
            app: self.app.clone(),
            name: name.to_owned(),
            key: key.or_else(|| self.app_key.clone()),
            client: Some(self.meter.client()),
            revoked: self.revoked.clone(),
        };
        self.server.context.admit.admit(request).await
    }

    /// The next event of what has been read.
    pub(super) fn next_event(&mut self) -> Result<Option<Event>, Error> {
        let mut input = &self.unread[..];
        let event = self.session.read(&mut input);
        let used = self.unread.len() - input.len();
        self.unread.advance(used);
        if self.unread.is_empty() {
            // A quiet connection keeps no buffer.
            self.unread = BytesMut::new();
        }
        Ok(event?)
    }

    /// Reads once into `unread`; false at the peer's end.
    async fn read_more(&mut self, outbox: &Outbox, local: &LocalShard) -> Result<bool, Error> {
        Ok(outbox.read_more(local, &mut self.unread).await? > 0)
    }

    /// Counts what has come in and gone out.
    pub(super) fn note_traffic(&mut self, outbox: &Outbox) {
        let written = outbox.written_bytes();
        if written != self.counted_out {
            self.meter.add_out(written.saturating_sub(self.counted_out));
            self.counted_out = written;
        }
        self.meter.set_in(self.session.received().bytes);
        self.meter.set_extended(self.session.repeats_extended_timestamps());
    }

    /// Hands the session's answers to the socket.
    pub(super) fn send_answers(&mut self, outbox: &Outbox) -> Result<(), Error> {
        if self.session.has_output() {
            if !outbox.answer(|out| self.session.poll_output(out)) {
                return Err(Error::AnswersUnread);
            }
            outbox.write_now();
        }
        Ok(())
    }

    /// Sends what is left to say and closes our side, giving the peer a moment to read it.
    pub(super) async fn say_last_words(&mut self, outbox: &Outbox) {
        if self.session.has_output() {
            outbox.answer(|out| self.session.poll_output(out));
        }
        outbox.close(LAST_WORDS).await;
    }
}

/// Ends after `timeout`; never, if that is zero.
async fn idle(timeout: Duration) {
    match timeout.is_zero() {
        true => std::future::pending().await,
        false => tokio::time::sleep(timeout).await,
    }
}
