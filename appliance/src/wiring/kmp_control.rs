//! Published streams whose KMP upstreams a controller chooses: ties RTMP connections, callbacks and KMP tracks together.
//!
//! ```text
//!  RTMP connect --Admission--> session task (one per connection) <--callbacks--> controller
//!  RTMP publish --Admission--> its KMP tracks, on the mountpoint's media thread --> receivers
//!  HTTP API ------------------> sessions, tracks
//! ```
//! A stream of an application other than `live` has a mountpoint of its own, which comes and goes with its publisher.

mod api;
mod calls;
mod convert;
mod publication;
mod session;
mod streams;
mod tracks;

use calls::Controller;
use fieldgate_hub::{
    Clock, ConnectVerdict, Context, LedgerKeeper, Mountpoint, Registry, RtmpClient, Shard, Terms, Verdict,
};
use fieldgate_model::Config;
use fieldgate_model::config::KmpApplication;
use fieldgate_net::RtmpConnections;
use session::{Ask, SessionTask};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use streams::{Name, NoPlace, Place, Streams};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tracks::Tracks;

/// Sessions that may wait to be started.
const STARTS: usize = 64;

/// All sessions under controllers.
pub struct KmpControl {
    registry: Arc<Registry>,
    shards: Arc<[Shard]>,
    clock: Clock,
    connections: RtmpConnections,
    ledger: Arc<dyn LedgerKeeper>,
    config: OnceLock<watch::Receiver<Arc<Config>>>,
    streams: Streams,
    tracks: Arc<Tracks>,
    /// Numbers the connections to upstreams.
    serial: Arc<AtomicU64>,
    sessions: Mutex<BTreeMap<u64, Known>>,
    starts: mpsc::Sender<SessionTask>,
    waiting: Mutex<Option<mpsc::Receiver<SessionTask>>>,
    rates: api::Rates,
}

/// A session as others reach it.
struct Known {
    application: String,
    inbox: mpsc::Sender<Ask>,
}

impl KmpControl {
    /// For the connections of all RTMP listeners; `ledger` is told what was delivered. Does nothing before
    /// [`KmpControl::decide_by`].
    pub fn new(context: &Context, connections: RtmpConnections, ledger: Arc<dyn LedgerKeeper>) -> Self {
        let (starts, waiting) = mpsc::channel(STARTS);
        KmpControl {
            rates: api::Rates::new(),
            registry: context.registry.clone(),
            shards: context.shards.clone(),
            clock: context.clock.clone(),
            connections,
            ledger,
            config: OnceLock::new(),
            streams: Streams::default(),
            tracks: Arc::default(),
            serial: Arc::default(),
            sessions: Mutex::default(),
            starts,
            waiting: Mutex::new(Some(waiting)),
        }
    }

    /// From now on the applications of this config count.
    pub fn decide_by(&self, config: watch::Receiver<Arc<Config>>) {
        // Set once, when the gateway starts.
        self.config.set(config).ok();
    }

    /// An application under a controller.
    pub fn application(&self, name: &str) -> Option<Arc<KmpApplication>> {
        let config = self.config.get()?.borrow().clone();
        config.compat.kmp.applications.get(name).map(|application| Arc::new(application.clone()))
    }

    /// Answers a `connect` to such an application.
    pub async fn connect(&self, application: Arc<KmpApplication>, client: Arc<RtmpClient>) -> ConnectVerdict {
        let refuse = |text: &str| ConnectVerdict::Refuse {
            text: text.to_owned(),
            keep_open: false,
            terms: Default::default(),
        };
        let controller = match Controller::new(&application) {
            Ok(controller) => Arc::new(controller),
            Err(error) => {
                warn!(app = client.app, error = crate::steward::chain(&error), "no callbacks can be made");
                return refuse("Internal server error");
            }
        };
        let (inbox, asks) = mpsc::channel(session::INBOX);
        let (connect, verdict) = oneshot::channel();
        let known = Known { application: client.app.clone(), inbox };
        self.lock().insert(client.connection, known);
        let task = SessionTask {
            application,
            controller,
            client: client.clone(),
            connections: self.connections.clone(),
            tracks: self.tracks.clone(),
            ledger: self.ledger.clone(),
            clock: self.clock.clone(),
            serial: self.serial.clone(),
            inbox: asks,
            connect: Some(connect),
            cancel: CancellationToken::new(),
        };
        if self.starts.send(task).await.is_err() {
            return refuse("the gateway is stopping");
        }
        verdict.await.unwrap_or_else(|_| refuse("Internal server error"))
    }

    /// Answers a publisher of an application other than `live`: gives it a mountpoint of its own.
    pub async fn publish(&self, application: &KmpApplication, client: &RtmpClient, name: &str) -> Verdict {
        let placed = self.streams.place(&self.registry, &client.app, name, application.max_streams);
        let place = match placed {
            Ok(place) => place,
            // The peer is told that the name is bad.
            Err(NoPlace::Taken) => return Verdict::UnknownName,
            Err(error @ NoPlace::Full(_)) => return Verdict::Deny { text: error.to_string() },
        };
        let mountpoint = place.1.mountpoint().clone();
        self.expect(client, mountpoint.clone(), Some(place)).await;
        allow(mountpoint.name().to_owned())
    }

    /// A publisher of `live` was admitted: what it sends to this mountpoint goes to its session's tracks.
    pub async fn follow(&self, client: &RtmpClient, mountpoint: &str) {
        let mountpoint = self.registry.get(mountpoint);
        // Where somebody publishes already, this peer will be refused.
        if let Some(mountpoint) = mountpoint.filter(|mountpoint| mountpoint.publisher().is_none()) {
            self.expect(client, mountpoint, None).await;
        }
    }

    async fn expect(&self, client: &RtmpClient, mountpoint: Arc<Mountpoint>, place: Option<(Name, Place)>) {
        let inbox = self.lock().get(&client.connection).map(|known| known.inbox.clone());
        let shard = self.shards.get(mountpoint.shard()).cloned();
        let (Some(inbox), Some(shard)) = (inbox, shard) else { return };
        let (ready, is_ready) = oneshot::channel();
        if inbox.send(Ask::Expect { mountpoint, shard, place, ready }).await.is_ok() {
            // If it fails, nothing is sent; the peer is not to blame.
            is_ready.await.ok();
        }
    }

    /// Ends the connections of applications that the config has no more. To be called after each change of the config.
    pub fn enforce(&self) {
        let Some(config) = self.config.get() else { return };
        let config = config.borrow().clone();
        for (connection, known) in self.lock().iter() {
            if !config.compat.kmp.applications.contains_key(&known.application) {
                info!(connection, app = known.application, "KMP application removed, connection ended");
                self.connections.drop_connection(*connection);
            }
        }
    }

    /// Runs the sessions until `cancel`, then lets them say goodbye.
    pub async fn run(&self, cancel: CancellationToken) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut waiting) = waiting else { return };
        let mut sessions = JoinSet::new();
        let mut sample = tokio::time::interval(api::Rates::INTERVAL);
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(mut task) = waiting.recv() => {
                    task.cancel = cancel.child_token();
                    let connection = task.client.connection;
                    sessions.spawn(async move {
                        task.run().await;
                        connection
                    });
                }
                Some(ended) = sessions.join_next() => {
                    if let Ok(connection) = ended {
                        self.lock().remove(&connection);
                    }
                }
                _ = sample.tick() => self.rates.sample(&self.connections, &self.tracks),
            }
        }
        drop(waiting);
        while sessions.join_next().await.is_some() {}
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Known>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn allow(mountpoint: String) -> Verdict {
    Verdict::Allow { mountpoint, terms: Terms::default() }
}
