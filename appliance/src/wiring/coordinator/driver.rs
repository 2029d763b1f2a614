//! Does what the coordinator's core asks for, and tells it what happens.

use super::applications::{Application, auth_of};
use super::files::Kept;
use super::shown::files_of;
use super::socket::Line;
use super::{Coordinator, Desk, INBOX};
use crate::wiring::channels::{Asking, Channels};
use crate::wiring::passing::Moment;
use crate::wiring::talk::Heard;
use crate::wiring::timing::{now, sleep_until};
use fieldgate_compat::coordinator::{
    Action, Available, Call, CommandAuth, Coordinator as Core, Message, Purpose, Refused,
    Settings as CoreSettings, SocketId, Verdict,
};
use fieldgate_compat::key::Key;
use fieldgate_compat::{CallOutcome, ExchangeId, Reply, Request};
use fieldgate_model::config::{Coordinator as Settings, CoordinatorCommands, Network};
use fieldgate_net::ClientTls;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Messages that wait for one socket; who takes none is closed.
const OUTBOX: usize = 64;

/// What others want of the driver. Who does not wait for the answer any more has dropped its end.
pub(super) enum Ask {
    /// May this peer publish, or play?
    Peer(Asking),
    /// A request that asks for no socket.
    Request(Request, oneshot::Sender<Reply>),
    /// Somebody wants a control socket.
    Upgrade(Request, oneshot::Sender<Result<Line, Reply>>),
    /// Something has come.
    Heard(SocketId, Heard),
}

/// Why there is no driver.
#[derive(Debug, thiserror::Error)]
pub(super) enum DriverError {
    /// No valid config has such an address.
    #[error("compat.coordinator.{0}.url is no address")]
    Url(&'static str),
    /// The kernel has none.
    #[error("there are no random numbers")]
    Random,
}

/// What a task has done.
enum Done {
    Call(ExchangeId, CallOutcome),
    Gone(SocketId),
    Kept(u64),
    /// What viewers see of a stream.
    Files(String, Option<Available>),
    /// Nothing: it was cut off.
    Nothing,
}

/// The coordinator's task.
pub(super) struct Driver {
    coordinator: Arc<Coordinator>,
    core: Core,
    verification: Option<Application>,
    events: Option<Application>,
    play_allow: Vec<Network>,
    kept: Kept,
    /// The list that waits for the disk, and whether it is writing.
    to_keep: Option<(u64, String)>,
    is_keeping: bool,
    inbox: mpsc::Receiver<Ask>,
    to_self: mpsc::Sender<Ask>,
    work: JoinSet<Done>,
    sockets: BTreeMap<SocketId, mpsc::Sender<String>>,
    /// Of our own server.
    channels: Channels<String>,
}

fn commands_of(commands: &CoordinatorCommands) -> CommandAuth {
    match (&commands.user, &commands.password, &commands.token) {
        (Some(user), Some(password), _) => {
            CommandAuth::Basic { user: user.clone(), password: Key::new(password.reveal()) }
        }
        (_, _, Some(token)) => CommandAuth::Bearer(Key::new(token.reveal())),
        _ => CommandAuth::Closed,
    }
}

impl Driver {
    /// `own` is where encoders reach our RTMP server.
    pub(super) fn new(
        coordinator: Arc<Coordinator>,
        config: &Settings,
        own: SocketAddr,
        kept: Kept,
        tls: Option<ClientTls>,
    ) -> Result<Driver, DriverError> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|_| DriverError::Random)?;
        let number = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let settings = CoreSettings {
            control_secret: config.control_secret.as_ref().map(|secret| Key::new(secret.reveal())),
            id_max: number(config.id_max_length),
            verification: config.key_verification.as_ref().map(auth_of),
            events: config.events.as_ref().map(auth_of),
            commands: commands_of(&config.commands),
            require_encoder: config.require_encoder,
            own_address: own.ip(),
            own_port: own.port(),
            own_capacity: config.own_encoder.map(i64::from),
            max_sockets: number(config.max_sockets),
            max_streams: number(config.max_streams),
            seed: u64::from_le_bytes(seed),
        };
        let application = |name: &'static str| {
            let call = config.calls().find(|(known, _)| *known == name);
            let application =
                call.map(|(_, call)| Application::new(call, tls.clone()).ok_or(DriverError::Url(name)));
            application.transpose()
        };
        let (to_self, inbox) = mpsc::channel(INBOX);
        Ok(Driver {
            core: Core::new(settings, &kept.list, now()),
            verification: application("key_verification")?,
            events: application("events")?,
            play_allow: config.play_allow.clone(),
            channels: Channels::new(coordinator.context.registry.clone(), BTreeMap::new()),
            coordinator,
            kept,
            to_keep: None,
            is_keeping: false,
            inbox,
            to_self,
            work: JoinSet::new(),
            sockets: BTreeMap::new(),
        })
    }

    /// From now on others may ask.
    pub(super) fn open_desk(&self, settings: &Settings, own_port: u16) {
        self.coordinator.set_desk(Some(Desk {
            inbox: self.to_self.clone(),
            id_max: usize::try_from(settings.id_max_length).unwrap_or(usize::MAX),
            logs_requests: settings.log_requests,
            is_encoder: settings.own_encoder.is_some(),
            control_secret: settings.control_secret.as_ref().map(|secret| Key::new(secret.reveal())),
            own_port,
        }));
    }

    /// Until `cancel`; then all of its streams end.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        loop {
            self.act();
            let due = self.core.next_timeout();
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(ask) = self.inbox.recv() => self.on_ask(ask),
                (stream_id, moment) = self.channels.next() => self.on_moment(&stream_id, &moment),
                Some(done) = self.work.join_next() => self.on_done(done.unwrap_or(Done::Nothing)),
                () = sleep_until(due) => {
                    self.tell_time();
                    self.core.handle_timeout(now());
                }
            }
        }
        self.coordinator.set_desk(None);
        // Their tasks say goodbye.
        self.sockets.clear();
        self.channels.streams().for_each(|stream_id| self.coordinator.show(stream_id, None));
        self.channels.clear();
        self.work.shutdown().await;
    }

    fn tell_time(&mut self) {
        let micros = u64::try_from(self.coordinator.context.clock.unix_micros()).unwrap_or_default();
        self.core.set_clock(Duration::from_micros(micros));
    }

    fn on_ask(&mut self, ask: Ask) {
        self.tell_time();
        // Who has left waits for nothing.
        self.forget_the_gone();
        match ask {
            Ask::Peer(asking) => {
                let (is_publish, peer) = (asking.is_publish, asking.peer);
                let may_play = self.play_allow.iter().any(|network| network.contains(peer));
                if !is_publish && !may_play && !self.core.is_encoders(peer) {
                    return asking.refuse(Refused::Unknown);
                }
                let (channel, key) = (asking.channel.clone(), asking.key.clone());
                let exchange = self.channels.ask(asking);
                if is_publish {
                    self.core.handle_publish(exchange, &channel, &key, peer, now());
                } else {
                    self.core.handle_play(exchange, &channel, &key, now());
                }
            }
            Ask::Request(request, answer) => {
                answer.send(self.core.handle_request(&request)).ok();
            }
            Ask::Upgrade(request, answer) => {
                let opened = self.core.handle_upgrade(&request, now());
                answer.send(opened.map(|socket| self.line(socket))).ok();
            }
            Ask::Heard(socket, Heard::Text(text)) => self.core.handle_text(socket, &text, now()),
            Ask::Heard(socket, Heard::Binary) => self.core.handle_binary(socket, now()),
            Ask::Heard(socket, Heard::Broken(why)) => self.core.handle_broken(socket, why, now()),
        }
    }

    fn line(&mut self, socket: SocketId) -> Line {
        let (sender, outbox) = mpsc::channel(OUTBOX);
        let (alive, gone) = oneshot::channel();
        self.sockets.insert(socket, sender);
        self.work.spawn(async move {
            gone.await.ok();
            Done::Gone(socket)
        });
        Line { socket, outbox, _alive: alive }
    }

    fn forget_the_gone(&mut self) {
        for exchange in self.channels.take_gone() {
            self.core.withdraw(exchange, now());
        }
    }

    fn on_moment(&mut self, stream_id: &String, moment: &Moment) {
        match moment {
            Moment::Began(_) if self.core.is_own_task(stream_id) => {
                let Some(mountpoint) = self.channels.mountpoint(stream_id) else { return };
                self.coordinator.show(stream_id, Some(mountpoint.name()));
                let (mountpoint, stream_id) = (mountpoint.clone(), stream_id.clone());
                self.work.spawn(async move {
                    let files = files_of(mountpoint, &stream_id).await;
                    Done::Files(stream_id, files)
                });
            }
            Moment::Began(_) => {}
            Moment::Ended | Moment::Over => {
                if let Some(channel) = self.channels.end(stream_id) {
                    self.on_end(&channel, stream_id);
                }
            }
        }
    }

    fn on_end(&mut self, channel: &str, stream_id: &str) {
        self.coordinator.show(stream_id, None);
        self.core.handle_publish_end(channel, stream_id, now());
    }

    fn on_done(&mut self, done: Done) {
        self.tell_time();
        match done {
            Done::Call(exchange, outcome) => self.core.handle_reply(exchange, outcome, now()),
            Done::Gone(socket) => {
                self.sockets.remove(&socket);
                self.core.handle_gone(socket, now());
            }
            Done::Kept(version) => {
                self.is_keeping = false;
                self.core.handle_kept(version, now());
                self.keep();
            }
            Done::Files(stream_id, files) => self.core.handle_own_files(&stream_id, files, now()),
            Done::Nothing => {}
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Send(socket, message) => {
                    self.send(socket, &message);
                }
                Action::Start(exchange, socket, message) => {
                    let is_sent = self.send(socket, &message);
                    self.core.handle_started(exchange, is_sent, now());
                }
                Action::Close(socket) => {
                    self.sockets.remove(&socket);
                }
                Action::Call(exchange, call) => self.call(exchange, call),
                Action::Verdict(exchange, verdict) => self.on_verdict(exchange, verdict),
                Action::Kill { channel, .. } => self.channels.dismiss(&channel),
                Action::Keep { version, list } => {
                    self.to_keep = Some((version, list));
                    self.keep();
                }
                Action::Note(note) if note.is_warning() => warn!("coordinator: {note}"),
                Action::Note(note) => info!("coordinator: {note}"),
            }
        }
    }

    /// Whether the socket takes it; one that does not is closed.
    fn send(&mut self, socket: SocketId, message: &Message) -> bool {
        let Some(outbox) = self.sockets.get(&socket) else { return false };
        let is_sent = outbox.try_send(message.text()).is_ok();
        if !is_sent {
            self.sockets.remove(&socket);
            self.core.handle_gone(socket, now());
        }
        is_sent
    }

    fn call(&mut self, exchange: ExchangeId, call: Call) {
        let application = match call.purpose {
            Purpose::Verification => self.verification.clone(),
            Purpose::Event => self.events.clone(),
        };
        let Some(application) = application else { return };
        self.work.spawn(async move { Done::Call(exchange, application.call(call).await) });
    }

    fn on_verdict(&mut self, exchange: ExchangeId, verdict: Verdict) {
        let verdict = match verdict {
            Verdict::Allow { stream_id } => Ok(stream_id),
            Verdict::Deny(why) => Err(why),
        };
        if let Some((channel, stream_id)) = self.channels.judge(exchange, verdict) {
            self.on_end(&channel, &stream_id);
        }
    }

    fn keep(&mut self) {
        if self.is_keeping {
            return;
        }
        let Some((version, list)) = self.to_keep.take() else { return };
        self.is_keeping = true;
        let kept = self.kept.clone();
        self.work.spawn_blocking(move || {
            // What cannot be written must not keep the application from being told.
            if let Err(error) = kept.keep(&list) {
                warn!(%error, "the list of streams could not be kept; their ends may be missed after a restart");
            }
            Done::Kept(version)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::files;
    use super::*;
    use fieldgate_net::RtmpForm;
    use serde_json::json;

    #[tokio::test]
    async fn a_socket_that_takes_nothing_is_closed_when_64_messages_wait() {
        let context = fieldgate_hub::Context {
            registry: Arc::new(fieldgate_hub::Registry::new(1, Arc::new(RtmpForm))),
            shards: Vec::new().into(),
            admit: Arc::new(crate::wiring::Admission::default()),
            clock: crate::clock::wall_clock(None),
            pulses: fieldgate_hub::Pulses::default(),
            cancel: CancellationToken::new(),
        };
        let folder = std::env::temp_dir().join(format!("fieldgate-outbox-{}", std::process::id()));
        let kept = files::open(folder.clone()).await.unwrap();
        let coordinator = Arc::new(Coordinator::new(&context, folder.clone()));
        let settings: Settings = serde_json::from_value(json!({"enabled": true})).unwrap();
        let own = SocketAddr::from(([127, 0, 0, 1], 1935));
        let mut driver = Driver::new(coordinator, &settings, own, kept, None).unwrap();
        let request = Request {
            method: "GET".to_owned(),
            target: "/ws/control/rtmp".to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            peer: own.ip(),
        };
        let (answer, answered) = oneshot::channel();
        driver.on_ask(Ask::Upgrade(request, answer));
        let mut line = answered.await.unwrap().unwrap();
        // Each is answered by a no; nobody reads them.
        let ask = |driver: &mut Driver, number: usize| {
            let text = format!("PUBLISH-REQUEST\nRequest-ID:{number}\nStream-Channel:a b");
            driver.on_ask(Ask::Heard(line.socket, Heard::Text(text)));
            driver.act();
        };
        (0..64).for_each(|number| ask(&mut driver, number));
        assert_eq!((line.outbox.len(), driver.sockets.len()), (64, 1));
        ask(&mut driver, 64);
        assert!(driver.sockets.is_empty(), "one too many");
        ask(&mut driver, 65);
        // What was taken still goes out, then the socket is closed.
        for number in 0..64 {
            let begin = format!("PUBLISH-DENY\nRequest-ID:{number}\n");
            assert!(line.outbox.recv().await.unwrap().starts_with(&begin), "{number}");
        }
        assert_eq!(line.outbox.recv().await, None);
        std::fs::remove_dir_all(folder).ok();
    }
}
