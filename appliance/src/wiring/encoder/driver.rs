//! Does what the encoder's core asks for, and tells it what happens.

use super::Shop;
use super::task::Task;
use crate::wiring::ElsewhereSign;
use crate::wiring::control_socket::line::Said;
use crate::wiring::control_socket::{ControlSocket, Credentials, Whereabouts};
use crate::wiring::talk::Heard;
use crate::wiring::timing::{now, sleep_until};
use fieldgate_compat::coordinator::Message;
use fieldgate_compat::encoder::{Action, Available, Encoder, Settings as CoreSettings, TaskId};
use fieldgate_compat::key::Key;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Files that can be watched and are not told of yet.
const TOLD: usize = 64;
/// Longest channel or id of a stream, in bytes: both name folders.
const ID_MAX: usize = 200;

/// The encoder's task.
pub(super) struct Driver {
    shop: Arc<Shop>,
    core: Encoder,
    socket: ControlSocket,
    tasks: JoinSet<(TaskId, Result<(), String>)>,
    stops: BTreeMap<TaskId, CancellationToken>,
    tell: mpsc::Sender<(TaskId, Available)>,
    told: mpsc::Receiver<(TaskId, Available)>,
}

impl Driver {
    pub(super) fn new(shop: Arc<Shop>, whereabouts: Whereabouts, seed: u64) -> Driver {
        let settings = CoreSettings {
            capacity: u32::try_from(shop.settings.capacity).ok(),
            reregister: shop.settings.reregister,
            id_max: ID_MAX,
            silence: shop.settings.silence.get(),
            seed,
        };
        let (tell, told) = mpsc::channel(TOLD);
        let credentials = Credentials {
            subject: "hls-control",
            path: "ws/control/hls",
            secret: shop.settings.secret.as_ref().map(|secret| Key::new(secret.reveal())),
            tells_expiry: shop.settings.jwt_exp,
            headers: Vec::new(),
        };
        let clock = shop.wiring.context.clock.clone();
        let sign = ElsewhereSign::new(shop.wiring.board.clone(), clock.clone(), "encoder");
        Driver {
            core: Encoder::new(settings, now()),
            socket: ControlSocket::new(whereabouts, credentials, clock, sign),
            shop,
            tasks: JoinSet::new(),
            stops: BTreeMap::new(),
            tell,
            told,
        }
    }

    /// Until `cancel`; then all of its tasks end.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        self.core.handle_timeout(now());
        loop {
            self.act();
            let due = self.core.next_timeout();
            tokio::select! {
                // What can be watched is told before its end.
                biased;
                () = cancel.cancelled() => break,
                Some((id, available)) = self.told.recv() => self.core.handle_available(id, &available),
                said = self.socket.hear() => self.on_said(said),
                Some(ended) = self.tasks.join_next() => self.on_ended(ended),
                () = sleep_until(due) => self.core.handle_timeout(now()),
            }
        }
        self.socket.close("the gateway has closed it");
        self.stops.values().for_each(CancellationToken::cancel);
        // Nobody listens any more; what is listed still ends with its lists.
        self.told.close();
        while self.tasks.join_next().await.is_some() {}
        self.socket.end().await;
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

    fn on_ended(&mut self, ended: Result<(TaskId, Result<(), String>), tokio::task::JoinError>) {
        let (id, outcome) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                // It told nothing: the socket is closed, so that the coordinator counts none of its streams any more.
                warn!(%error, "a task of the encoder ended by itself");
                return self.lose("a task of the encoder failed");
            }
        };
        self.stops.remove(&id);
        match &outcome {
            Ok(()) => info!(task = id.0, "encoder: the stream is over"),
            Err(why) => warn!(task = id.0, why, "encoder: the stream is not encoded any more"),
        }
        self.core.handle_ended(id, outcome.err().as_deref());
    }

    fn act(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Connect => self.socket.connect(),
                Action::Send(message) => self.send(&message),
                Action::Close => self.socket.close("the gateway has closed it"),
                Action::Start(id, assignment) => {
                    let stop = CancellationToken::new();
                    self.stops.insert(id, stop.clone());
                    let task = Task::new(self.shop.clone(), id, *assignment, self.tell.clone(), stop);
                    self.tasks.spawn(async move { (id, task.run().await) });
                }
                Action::Stop(id) => {
                    if let Some(stop) = self.stops.get(&id) {
                        stop.cancel();
                    }
                }
                Action::Note(note) if note.is_warning() => warn!("encoder: {note}"),
                Action::Note(note) => info!("encoder: {note}"),
            }
        }
    }

    fn send(&mut self, message: &Message) {
        if !self.socket.send(message) {
            self.lose("it takes no messages");
        }
    }
}
