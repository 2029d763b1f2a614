//! From a publisher's wish to its end, and what encoders do meanwhile.

use super::events::{Available, NotTold};
use super::message::Message;
use super::peers::{Peer, Role};
use super::verification::Wanted;
use super::{
    Action, CALL_WITHIN, Call, CallAuth, Coordinator, Note, Purpose, Refused, SocketId, Verdict, after, is_id,
};
use crate::key::Key;
use crate::{CallOutcome, ExchangeId};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Longest channel that a denied server is told again, in bytes.
const ECHO_MAX: usize = 1_024;
/// Keys of one server that are verified at once.
const VERIFYING_MAX: usize = 256;
/// An encoder that was told to stop has ended by then.
const STOP_WITHIN: Duration = Duration::from_secs(600);

/// A channel that is published, or will be.
#[derive(Debug)]
pub(super) struct Publish {
    pub(super) server: u64,
    /// Opens the channel for players, too.
    pub(super) key: Key,
    pub(super) stage: Stage,
}

/// How far it is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Its key is verified.
    Verifying(Asker),
    /// An encoder is told.
    Starting { asker: Asker, stream_id: String },
    /// It is published.
    Live { stream_id: String },
}

/// Who waits for the answer.
#[derive(Clone, Debug)]
pub(super) enum Asker {
    /// A server, under its own id.
    Server { request_id: String },
    /// Our own.
    Own(ExchangeId),
}

/// What an encoder does.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) channel: String,
    pub(super) encoder: u64,
    /// It was told to stop, and counts as ended then.
    pub(super) stop_by: Option<Instant>,
}

impl Publish {
    /// Its stream, if it is published.
    pub(super) fn live(&self) -> Option<&str> {
        match &self.stage {
            Stage::Live { stream_id } => Some(stream_id),
            Stage::Verifying(_) | Stage::Starting { .. } => None,
        }
    }
}

/// An empty id means whatever there is.
fn is_meant(told: &str, own: &str) -> bool {
    told.is_empty() || told == own
}

impl Coordinator {
    /// Somebody wants to publish to our own server. Answered by a verdict; [`Coordinator::withdraw`] takes it back.
    pub fn handle_publish(
        &mut self,
        exchange: ExchangeId,
        channel: &str,
        key: &str,
        peer: IpAddr,
        now: Instant,
    ) {
        let user_ip = peer.to_canonical().to_string();
        self.ask(self.own, Asker::Own(exchange), channel, key, &user_ip, now);
        self.go_on(now);
    }

    /// Whoever asked has left before the answer.
    pub fn withdraw(&mut self, exchange: ExchangeId, now: Instant) {
        self.plays.remove(exchange);
        let is_its = |publish: &Publish| match &publish.stage {
            Stage::Verifying(Asker::Own(own)) | Stage::Starting { asker: Asker::Own(own), .. } => {
                *own == exchange
            }
            _ => false,
        };
        let channel =
            self.channels.iter().find(|(_, publish)| is_its(publish)).map(|(channel, _)| channel.clone());
        if let Some(channel) = channel {
            self.release(&channel, now);
        }
    }

    /// A publisher of our own server is gone.
    pub fn handle_publish_end(&mut self, channel: &str, stream_id: &str, now: Instant) {
        self.end_publish(self.own, channel, stream_id, now);
        self.go_on(now);
    }

    pub(super) fn ask_of_server(
        &mut self,
        server: u64,
        request_id: &str,
        channel: &str,
        key: &str,
        user_ip: &str,
        now: Instant,
    ) {
        let asker = Asker::Server { request_id: request_id.to_owned() };
        self.ask(server, asker, channel, key, user_ip, now);
    }

    fn ask(&mut self, server: u64, asker: Asker, channel: &str, key: &str, user_ip: &str, now: Instant) {
        let max = self.settings.id_max;
        if !is_id(channel, max) || !is_id(key, max) {
            return self.deny(server, &asker, channel, Refused::Syntax);
        }
        if self.channels.contains_key(channel) {
            return self.deny(server, &asker, channel, Refused::Busy);
        }
        let same =
            self.channels.values().filter(|publish| publish.server == server && publish.live().is_none());
        if same.count() >= VERIFYING_MAX
            || self.channels.len().max(self.tasks.len()) >= self.settings.max_streams
        {
            return self.deny(server, &asker, channel, Refused::Full);
        }
        let publish = Publish { server, key: Key::new(key), stage: Stage::Verifying(asker) };
        // The channel is taken from now on: of two who ask at once one is denied.
        self.channels.insert(channel.to_owned(), publish);
        let Some(auth) = self.settings.verification.as_ref().map(CallAuth::header) else {
            return self.accept(channel, &Wanted::unasked(), now);
        };
        let mut headers = vec![
            ("x-streaming-channel", Key::new(channel)),
            ("x-streaming-key", Key::new(key)),
            ("x-user-ip", Key::new(user_ip)),
        ];
        headers.extend(auth.map(|auth| ("authorization", auth)));
        let exchange = self.call(Call { purpose: Purpose::Verification, headers });
        self.verifying.insert(exchange, (channel.to_owned(), after(now, CALL_WITHIN)));
    }

    pub(super) fn on_verified(&mut self, channel: &str, outcome: &CallOutcome, now: Instant) {
        match outcome {
            CallOutcome::Replied(reply) if reply.status == 200 => {
                self.accept(channel, &Wanted::read(&reply.headers), now);
            }
            CallOutcome::Replied(_) | CallOutcome::Failed(_) => self.refuse(channel, Refused::Key),
        }
    }

    /// The key is good.
    fn accept(&mut self, channel: &str, wanted: &Wanted, now: Instant) {
        let Some(publish) = self.channels.get_mut(channel) else { return };
        let Stage::Verifying(asker) = &publish.stage else { return };
        let (asker, server, key) = (asker.clone(), publish.server, publish.key.clone());
        let stream_id = self.ids.next(self.since_1970);
        let Some(encoder) = self.free_encoder(server) else {
            if self.settings.require_encoder {
                return self.refuse(channel, Refused::NoEncoder);
            }
            return self.begin(channel, &asker, stream_id, now);
        };
        if self.own_encoder == Some(encoder) {
            let task = Task { channel: channel.to_owned(), encoder, stop_by: None };
            self.tasks.insert(stream_id.clone(), task);
            return self.begin(channel, &asker, stream_id, now);
        }
        let message = self.encode_start(channel, &key, &stream_id, server, encoder, wanted);
        if let Some(publish) = self.channels.get_mut(channel) {
            publish.stage = Stage::Starting { asker, stream_id: stream_id.clone() };
        }
        self.tasks.insert(stream_id, Task { channel: channel.to_owned(), encoder, stop_by: None });
        let exchange = ExchangeId(self.next_call);
        self.next_call = self.next_call.saturating_add(1);
        self.starting.insert(exchange, channel.to_owned());
        self.actions.push_back(Action::Start(exchange, SocketId(encoder), message));
    }

    /// Whether an encoder could be told of a stream.
    pub fn handle_started(&mut self, exchange: ExchangeId, is_sent: bool, now: Instant) {
        let Some(channel) = self.starting.remove(&exchange) else { return };
        let stage = self.channels.get(&channel).map(|publish| &publish.stage);
        let Some(Stage::Starting { asker, stream_id }) = stage else { return };
        let (asker, stream_id) = (asker.clone(), stream_id.clone());
        if is_sent && self.tasks.contains_key(&stream_id) {
            self.begin(&channel, &asker, stream_id, now);
        } else {
            self.tasks.remove(&stream_id);
            self.refuse(&channel, Refused::NoEncoder);
        }
        self.go_on(now);
    }

    fn begin(&mut self, channel: &str, asker: &Asker, stream_id: String, now: Instant) {
        let Some(publish) = self.channels.get_mut(channel) else { return };
        publish.stage = Stage::Live { stream_id: stream_id.clone() };
        let server = publish.server;
        self.note(Note::Accepted { channel: channel.to_owned(), stream_id: stream_id.clone() });
        match asker {
            Asker::Server { request_id } => {
                let message = Message::new("PUBLISH-ACCEPT")
                    .with("Request-ID", request_id)
                    .with("Stream-Channel", channel)
                    .with("Stream-ID", &stream_id);
                self.send(server, message);
            }
            Asker::Own(exchange) => {
                self.actions.push_back(Action::Verdict(*exchange, Verdict::Allow { stream_id }));
            }
        }
        self.settle_plays(channel, now);
    }

    /// Gives a channel that was not published yet free, and says no.
    fn refuse(&mut self, channel: &str, why: Refused) {
        let Some(publish) = self.channels.remove(channel) else { return };
        match &publish.stage {
            Stage::Verifying(asker) | Stage::Starting { asker, .. } => {
                self.deny(publish.server, asker, channel, why);
            }
            Stage::Live { .. } => {}
        }
    }

    fn deny(&mut self, server: u64, asker: &Asker, channel: &str, why: Refused) {
        let shown = if is_id(channel, self.settings.id_max) { channel } else { "?" };
        self.note(Note::Denied { channel: shown.to_owned(), why });
        match asker {
            Asker::Server { request_id } => {
                let echoed = if channel.len() <= ECHO_MAX { channel } else { "" };
                let message = Message::new("PUBLISH-DENY")
                    .with("Request-ID", request_id)
                    .with("Stream-Channel", echoed)
                    .with("Error-Code", why.code());
                self.send(server, message);
            }
            Asker::Own(exchange) => self.actions.push_back(Action::Verdict(*exchange, Verdict::Deny(why))),
        }
    }

    /// Gives a channel free whose asker is gone: nobody is answered.
    fn release(&mut self, channel: &str, now: Instant) {
        self.verifying.retain(|_, (verifying, _)| verifying != channel);
        self.starting.retain(|_, starting| starting != channel);
        let Some(publish) = self.channels.remove(channel) else { return };
        if let Stage::Starting { stream_id, .. } | Stage::Live { stream_id } = publish.stage {
            self.stop_encoding(channel, &stream_id, now);
        }
    }

    pub(super) fn end_publish(&mut self, server: u64, channel: &str, stream_id: &str, now: Instant) {
        let Some(publish) = self.channels.get(channel).filter(|publish| publish.server == server) else {
            return;
        };
        match publish.live() {
            Some(live) if is_meant(stream_id, live) => {
                let note = Note::Over { channel: channel.to_owned(), stream_id: live.to_owned() };
                self.note(note);
                self.release(channel, now);
            }
            Some(_) => {}
            // It has left before the answer, which is due all the same.
            None if stream_id.is_empty() => {
                let asker = match &publish.stage {
                    Stage::Verifying(asker) | Stage::Starting { asker, .. } => Some(asker.clone()),
                    Stage::Live { .. } => None,
                };
                self.release(channel, now);
                if let Some(asker) = asker {
                    self.deny(server, &asker, channel, Refused::Key);
                }
            }
            None => {}
        }
    }

    fn stop_encoding(&mut self, channel: &str, stream_id: &str, now: Instant) {
        let Some(task) = self.tasks.get_mut(stream_id) else { return };
        if self.own_encoder == Some(task.encoder) {
            self.tasks.remove(stream_id);
            return self.events.closed(stream_id, now);
        }
        task.stop_by = Some(after(now, STOP_WITHIN));
        let encoder = task.encoder;
        let message =
            Message::new("ENCODE-STOP").with("Stream-Channel", channel).with("Stream-ID", stream_id);
        self.send(encoder, message);
    }

    /// Sends the publisher of a channel away, if it is that stream's.
    pub(super) fn kill(&mut self, channel: &str, stream_id: Option<&str>) {
        let Some(publish) = self.channels.get(channel) else { return };
        let Some(live) = publish.live().filter(|live| stream_id.is_none_or(|id| id == *live)) else { return };
        let (server, live) = (publish.server, live.to_owned());
        self.note(Note::Killed { channel: channel.to_owned(), stream_id: live.clone() });
        if server == self.own {
            self.actions.push_back(Action::Kill { channel: channel.to_owned(), stream_id: live });
        } else {
            // Some servers take `*` for an id.
            let message =
                Message::new("STREAM-KILL").with("Stream-Channel", channel).with("Stream-ID", &live);
            self.send(server, message);
        }
    }

    pub(super) fn server_gone(&mut self, server: u64, now: Instant) {
        let its = self.channels.iter().filter(|(_, publish)| publish.server == server);
        let its: Vec<String> = its.map(|(channel, _)| channel.clone()).collect();
        its.iter().for_each(|channel| self.release(channel, now));
    }

    pub(super) fn encoder_gone(&mut self, encoder: u64, now: Instant) {
        let its = self.tasks.iter().filter(|(_, task)| task.encoder == encoder);
        let its: Vec<(String, String)> =
            its.map(|(stream_id, task)| (stream_id.clone(), task.channel.clone())).collect();
        for (stream_id, channel) in its {
            self.tasks.remove(&stream_id);
            self.events.closed(&stream_id, now);
            self.kill(&channel, Some(&stream_id));
        }
    }

    /// The stream that an encoder means; none that is not its own.
    fn task_of(&self, encoder: u64, channel: &str, stream_id: &str) -> Option<String> {
        let its = self.tasks.iter().filter(|(id, task)| {
            task.encoder == encoder && task.channel == channel && is_meant(stream_id, id)
        });
        // Of several on one channel the one that is not being stopped is the current one.
        its.min_by_key(|(_, task)| task.stop_by).map(|(id, _)| id.clone())
    }

    pub(super) fn on_available(
        &mut self,
        encoder: u64,
        channel: &str,
        stream_id: &str,
        message: &Message,
        now: Instant,
    ) {
        let Some(stream_id) = self.task_of(encoder, channel, stream_id) else { return };
        if self.settings.events.is_none() {
            return;
        }
        let set = Available::read(
            message.get("Stream-Type"),
            message.get("Resolution"),
            message.get("Index-file"),
            message.get("Start-Time"),
        );
        let Some(set) = set else { return self.note(Note::BadFiles(encoder)) };
        self.tell_of(channel, &stream_id, set, now);
    }

    fn tell_of(&mut self, channel: &str, stream_id: &str, set: Available, now: Instant) {
        match self.events.available(channel, stream_id, set, now) {
            Ok(true) => self.keep(),
            Ok(false) | Err(NotTold::Known) => {}
            Err(NotTold::Full) => self.note(Note::Full(stream_id.to_owned())),
        }
    }

    /// Whether the gateway's own packager has this stream.
    pub fn is_own_task(&self, stream_id: &str) -> bool {
        self.own_encoder.is_some() && self.tasks.get(stream_id).map(|task| task.encoder) == self.own_encoder
    }

    /// The gateway's own packager shows a stream, or cannot (`None`): then its publisher is sent away.
    pub fn handle_own_files(&mut self, stream_id: &str, files: Option<Available>, now: Instant) {
        let Some(task) = self.tasks.get(stream_id).filter(|_| self.is_own_task(stream_id)) else { return };
        let (channel, encoder) = (task.channel.clone(), task.encoder);
        match files {
            Some(files) if self.settings.events.is_some() => self.tell_of(&channel, stream_id, files, now),
            Some(_) => {}
            None => self.on_closed(encoder, &channel, stream_id, now),
        }
        self.go_on(now);
    }

    pub(super) fn on_closed(&mut self, encoder: u64, channel: &str, stream_id: &str, now: Instant) {
        let Some(stream_id) = self.task_of(encoder, channel, stream_id) else { return };
        self.tasks.remove(&stream_id);
        self.events.closed(&stream_id, now);
        // A publish is over when its encoding is.
        self.kill(channel, Some(&stream_id));
    }

    /// Streams whose encoders were told to stop long ago.
    pub(super) fn forget_stopped(&mut self, now: Instant) {
        let late = self.tasks.iter().filter(|(_, task)| task.stop_by.is_some_and(|by| by <= now));
        let late: Vec<(String, u64)> =
            late.map(|(stream_id, task)| (stream_id.clone(), task.encoder)).collect();
        for (stream_id, id) in late {
            self.tasks.remove(&stream_id);
            self.events.closed(&stream_id, now);
            self.note(Note::NotEnded { id, stream_id });
        }
    }

    /// Streams that an encoder has.
    pub(super) fn load(&self, encoder: u64) -> usize {
        self.tasks.values().filter(|task| task.encoder == encoder).count()
    }

    /// Encoders that have said what they can, with their capacities.
    pub(super) fn encoders(&self) -> impl Iterator<Item = (u64, i64)> {
        self.peers.iter().filter_map(|(id, peer)| match peer.role {
            Role::Encoder { capacity } => Some((*id, capacity?)),
            Role::Server { .. } => None,
        })
    }

    /// Our own packager takes nothing from elsewhere.
    fn free_encoder(&self, server: u64) -> Option<u64> {
        let may = |id: u64| server == self.own || self.own_encoder != Some(id);
        let loads = self.encoders().filter(|(id, _)| may(*id));
        let loads = loads.map(|(id, capacity)| (self.load(id), id, capacity));
        let free = loads.filter(|(load, _, capacity)| {
            *capacity < 0 || i64::try_from(*load).is_ok_and(|load| load < *capacity)
        });
        free.min().map(|(_, id, _)| id)
    }

    fn encode_start(
        &self,
        channel: &str,
        key: &Key,
        stream_id: &str,
        server: u64,
        encoder: u64,
        wanted: &Wanted,
    ) -> Message {
        let (mut address, port, scheme, kind) = match self.peers.get(&server) {
            Some(Peer { role: Role::Server { port, is_tls, is_ws }, address, .. }) => {
                let scheme = match (is_ws, is_tls) {
                    (false, false) => "rtmp",
                    (false, true) => "rtmps",
                    (true, false) => "ws",
                    (true, true) => "wss",
                };
                (*address, *port, scheme, if *is_ws { "WS" } else { "RTMP" })
            }
            // It asked a moment ago.
            _ => (self.settings.own_address, self.settings.own_port, "rtmp", "RTMP"),
        };
        let encoder_at = self.peers.get(&encoder).map(|peer| peer.address);
        if server == self.own && encoder_at.is_some_and(|at| at.is_loopback()) {
            address = encoder_at.unwrap_or(address);
        }
        let host = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        Message::new("ENCODE-START")
            .with("Stream-Channel", channel)
            .with("Stream-ID", stream_id)
            .with("Stream-Source-Type", kind)
            .with("Stream-Source-URI", &format!("{scheme}://{host}:{port}/{channel}/{}", key.reveal()))
            .with("Resolutions", &wanted.resolutions)
            .with("Record", if wanted.record { "True" } else { "False" })
            .with("Previews", wanted.previews.as_deref().unwrap_or("False"))
    }
}
