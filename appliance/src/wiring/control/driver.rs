//! Does what the streaming server's core asks for, and tells it what happens.

use super::Control;
use crate::wiring::ElsewhereSign;
use crate::wiring::channels::{Asking, Channels};
use crate::wiring::control_socket::address::Address;
use crate::wiring::control_socket::line::Said;
use crate::wiring::control_socket::{ControlSocket, Credentials, Whereabouts};
use crate::wiring::passing::Moment;
use crate::wiring::talk::Heard;
use crate::wiring::timing::{now, sleep_until};
use fieldgate_compat::control::{Action, PublishId, Settings as CoreSettings, StreamServer};
use fieldgate_compat::coordinator::{Message, Refused};
use fieldgate_compat::key::Key;
use fieldgate_hub::{Registry, StreamState};
use fieldgate_model::config::{Control as Settings, Network};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Changes of cameras that wait for the driver.
const SIGHTS: usize = 64;
/// Between two looks for a camera's mountpoint.
const LOOK: Duration = Duration::from_secs(1);

/// The streaming server's task.
pub(super) struct Driver {
    control: Arc<Control>,
    core: StreamServer,
    socket: ControlSocket,
    play_allow: Vec<Network>,
    inbox: mpsc::Receiver<Asking>,
    channels: Channels<PublishId>,
    sights: mpsc::Receiver<(String, bool)>,
    work: JoinSet<()>,
}

impl Driver {
    /// `own`: our address and the port of our RTMP server.
    pub(super) fn new(
        control: Arc<Control>,
        config: Settings,
        address: Address,
        own: (IpAddr, Option<u16>),
        seed: u64,
        inbox: mpsc::Receiver<Asking>,
        sign: ElsewhereSign,
    ) -> Driver {
        let number = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let (own_address, own_port) = own;
        let keys =
            config.cameras.iter().map(|(channel, camera)| (channel.clone(), Key::new(camera.key.reveal())));
        let settings = CoreSettings {
            id_max: number(config.id_max_length),
            max_streams: number(config.max_streams),
            silence: config.silence.get(),
            grace: config.grace.get(),
            cameras: keys.collect(),
            own_address,
            seed,
        };
        let external = config.external_ip.map(|ip| ("x-external-ip", ip.to_string()));
        let port = own_port.map(|port| ("x-custom-port", port.to_string()));
        let tls = config.external_tls.then(|| ("x-ssl-use", "true".to_owned()));
        let registry = control.context.registry.clone();
        let (tell, sights) = mpsc::channel(SIGHTS);
        let mut work = JoinSet::new();
        let cameras = config.cameras.into_iter().map(|(channel, camera)| (channel, camera.mountpoint));
        let cameras: std::collections::BTreeMap<String, String> = cameras.collect();
        for (channel, mountpoint) in &cameras {
            work.spawn(look_at(registry.clone(), mountpoint.clone(), channel.clone(), tell.clone()));
        }
        Driver {
            core: StreamServer::new(settings, now()),
            socket: ControlSocket::new(
                Whereabouts::At(address),
                Credentials {
                    subject: "rtmp-control",
                    path: "ws/control/rtmp",
                    secret: config.secret.map(|secret| Key::new(secret.reveal())),
                    tells_expiry: config.jwt_exp,
                    // Where encoders come.
                    headers: external.into_iter().chain(port).chain(tls).collect(),
                },
                control.context.clock.clone(),
                sign,
            ),
            play_allow: config.play_allow,
            inbox,
            channels: Channels::new(registry, cameras),
            sights,
            work,
            control,
        }
    }

    /// Until `cancel`; then all of its channels end.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        self.core.handle_timeout(now());
        loop {
            self.act();
            let due = self.core.next_timeout();
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(asking) = self.inbox.recv() => self.on_asking(asking),
                said = self.socket.hear() => self.on_said(said),
                (id, moment) = self.channels.next() => self.on_moment(id, &moment),
                Some((channel, has_stream)) = self.sights.recv() => {
                    self.core.handle_camera(&channel, has_stream, now());
                }
                Some(_) = self.work.join_next() => {}
                () = sleep_until(due) => self.core.handle_timeout(now()),
            }
        }
        self.control.set_desk(None);
        self.socket.end().await;
        self.channels.clear();
        self.work.shutdown().await;
    }

    fn on_asking(&mut self, asking: Asking) {
        // Who has left waits for nothing.
        for exchange in self.channels.take_gone() {
            self.core.withdraw(exchange);
        }
        let (is_publish, peer) = (asking.is_publish, asking.peer);
        if !is_publish && !self.play_allow.iter().any(|network| network.contains(peer)) {
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

    fn on_said(&mut self, said: Said) {
        match said {
            Said::Open => self.core.handle_connected(now()),
            Said::Heard(Heard::Text(text)) => self.core.handle_text(&text, now()),
            Said::Heard(Heard::Binary) => self.core.handle_binary(now()),
            Said::Heard(Heard::Broken(why)) => self.core.handle_broken(why, now()),
            Said::Lost(why) => self.lose(&why),
        }
    }

    fn lose(&mut self, why: &str) {
        self.socket.close(why);
        self.core.handle_lost(why, now());
    }

    fn on_moment(&mut self, id: PublishId, moment: &Moment) {
        match moment {
            Moment::Began(_) => {}
            Moment::Ended | Moment::Over => {
                if let Some(channel) = self.channels.end(&id) {
                    self.core.handle_publish_end(&channel, id, now());
                }
            }
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Connect => self.socket.connect(),
                Action::Send(message) => self.send(&message),
                Action::Close => self.socket.close("the gateway has closed it"),
                Action::Verdict(exchange, verdict) => {
                    if let Some((channel, id)) = self.channels.judge(exchange, verdict) {
                        self.core.handle_publish_end(&channel, id, now());
                    }
                }
                Action::Kill(channel, _) => self.channels.dismiss(&channel),
                Action::Note(note) if note.is_warning() => warn!("streaming server: {note}"),
                Action::Note(note) => info!("streaming server: {note}"),
            }
        }
    }

    fn send(&mut self, message: &Message) {
        if !self.socket.send(message) {
            self.lose("it takes no messages");
        }
    }
}

/// Tells when a mountpoint of the config has a stream, and when it has none any more.
async fn look_at(
    registry: Arc<Registry>,
    mountpoint: String,
    channel: String,
    tell: mpsc::Sender<(String, bool)>,
) {
    let mut told = false;
    loop {
        if let Some(mountpoint) = registry.get(&mountpoint) {
            let (mut state, closed) = (mountpoint.state(), mountpoint.closed());
            loop {
                // One that is interrupted may come back within its grace.
                let has_stream = *state.borrow_and_update() != StreamState::Idle;
                if has_stream != told {
                    told = has_stream;
                    tell.send((channel.clone(), told)).await.ok();
                }
                tokio::select! {
                    () = closed.cancelled() => break,
                    changed = state.changed() => if changed.is_err() {
                        break;
                    },
                }
            }
            if told {
                told = false;
                tell.send((channel.clone(), told)).await.ok();
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_compat::ExchangeId;
    use fieldgate_hub::Context;
    use fieldgate_net::RtmpForm;
    use serde_json::json;

    #[tokio::test]
    async fn a_coordinator_that_takes_nothing_is_lost_when_64_messages_wait() {
        let context = Context {
            registry: Arc::new(Registry::new(1, Arc::new(RtmpForm))),
            shards: Vec::new().into(),
            admit: Arc::new(crate::wiring::Admission::default()),
            clock: crate::clock::wall_clock(None),
            pulses: fieldgate_hub::Pulses::default(),
            cancel: CancellationToken::new(),
        };
        let settings: Settings = serde_json::from_value(json!({"enabled": true})).unwrap();
        let address = Address::new("ws://127.0.0.1:9/", None).unwrap();
        let (_inbox, asks) = mpsc::channel(1);
        let own = (IpAddr::from([127, 0, 0, 1]), None);
        let sign = ElsewhereSign::new(Arc::default(), context.clock.clone(), "control");
        let mut driver = Driver::new(Arc::new(Control::new(&context)), settings, address, own, 1, asks, sign);
        let (line, mut to_send, _tell) = crate::wiring::control_socket::line::Line::detached();
        driver.socket.set_line(line);
        driver.core.handle_connected(now());
        let publish = |driver: &mut Driver, number: u64| {
            driver.core.handle_publish(ExchangeId(number), &format!("c{number}"), "k", own.0, now());
            driver.act();
        };
        (0..64).for_each(|number| publish(&mut driver, number));
        assert!(driver.socket.has_line() && to_send.len() == 64);
        publish(&mut driver, 64);
        assert!(!driver.socket.has_line(), "one too many");
        // What was taken still goes out, then the socket is closed.
        for _ in 0..64 {
            assert!(to_send.recv().await.unwrap().starts_with("PUBLISH-REQUEST\n"));
        }
        assert_eq!(to_send.recv().await, None);
    }
}
