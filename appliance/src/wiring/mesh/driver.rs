//! Does what the node's core asks for, and tells it what happens.

use super::address::Address;
use super::api::Rates;
use super::files::Kept;
use super::places::{self, NoPlace, Place};
use super::pushes::HopPush;
use super::vitals::Vitals;
use super::{Desk, INBOX, Mesh};
use crate::wiring::ElsewhereSign;
use crate::wiring::passing::{Moment, watch};
use crate::wiring::timing::{now, sleep_until};
use fieldgate_compat::node::{
    Action, Endpoints, Key, Node, PeerKind, PushId, Question, Report, Role, Roles, Routed, Settings,
    StreamReport, Verdict,
};
use fieldgate_compat::{CallOutcome, ExchangeId};
use fieldgate_model::config::{MeshNode, NodeRole};
use fieldgate_net::{ClientTls, HttpAnswer, HttpRequest};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What happens to places and is not heard yet.
const MOMENTS: usize = 64;
/// How often the machine is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A kicked publisher is gone after this, at the latest.
const ROOM_WITHIN: Duration = Duration::from_secs(2);

/// What others want of the driver. Who does not wait for the answer any more has dropped its end.
pub(super) enum Ask {
    /// May this peer?
    Question(Question, oneshot::Sender<Verdict>),
    /// A stream is wanted here.
    Want(String, oneshot::Sender<Routed>),
    /// A request to the node's API.
    Request(HttpRequest, oneshot::Sender<HttpAnswer>),
    /// A publisher that was let in wants a mountpoint: its name.
    Place {
        stream_id: String,
        peer: PeerKind,
        addr: String,
        answer: oneshot::Sender<Result<String, NoPlace>>,
    },
}

/// Why there is no driver.
#[derive(Debug, thiserror::Error)]
pub(super) enum DriverError {
    /// No valid config has such a master.
    #[error("compat.node.master is no address")]
    Master,
    /// The kernel has none.
    #[error("there are no random numbers")]
    Random,
}

/// What a task has done.
pub(super) enum Done {
    Call(ExchangeId, CallOutcome),
    Address(Option<Ipv4Addr>),
    Kept,
    Certificate(Result<(), String>),
    Nothing,
}

/// The node's task.
pub(super) struct Driver {
    pub(super) mesh: Arc<Mesh>,
    pub(super) node: Node,
    /// Opens the API.
    pub(super) api_key: Key,
    /// Statistics and control are for this machine alone.
    pub(super) local_only: bool,
    master: Option<Address>,
    master_name: String,
    /// How the master is; nothing without one.
    sign: Option<ElsewhereSign>,
    kept: Kept,
    /// Tables that wait for the disk, and whether it is writing.
    to_keep: Option<Vec<u8>>,
    is_keeping: bool,
    tls: Option<ClientTls>,
    inbox: mpsc::Receiver<Ask>,
    to_self: mpsc::Sender<Ask>,
    moments: mpsc::Receiver<(String, Moment)>,
    tell: mpsc::Sender<(String, Moment)>,
    pub(super) work: JoinSet<Done>,
    next: u64,
    pub(super) verdicts: BTreeMap<ExchangeId, oneshot::Sender<Verdict>>,
    routed: BTreeMap<ExchangeId, oneshot::Sender<Routed>>,
    pub(super) places: BTreeMap<String, Place>,
    pushes: BTreeMap<PushId, CancellationToken>,
    pub(super) vitals: Vitals,
    pub(super) rates: Rates,
    pub(super) began: Instant,
}

fn role(role: NodeRole) -> Role {
    match role {
        NodeRole::Ingest => Role::Ingest,
        NodeRole::RootRelay => Role::RootRelay,
        NodeRole::Relay => Role::Relay,
    }
}

impl Driver {
    pub(super) fn new(
        mesh: Arc<Mesh>,
        config: &MeshNode,
        rtmp_port: u16,
        kept: Kept,
        tls: Option<ClientTls>,
        sign: ElsewhereSign,
    ) -> Result<Driver, DriverError> {
        let master =
            config.master.as_deref().map(|url| Address::new(url, tls.clone()).ok_or(DriverError::Master));
        let master = master.transpose()?;
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|_| DriverError::Random)?;
        let settings = Settings {
            has_master: master.is_some(),
            master_key: Key::new(config.master_key.as_ref().map_or("", |key| key.reveal())),
            endpoints: Endpoints {
                announce: config.announce_endpoint.clone(),
                heartbeat: config.heartbeat_endpoint.clone(),
                streams: config.streams_endpoint.clone(),
                auth: config.auth_endpoint.clone(),
                route: config.route_endpoint.clone(),
                cert: config.cert_from_master.then(|| config.cert_endpoint.clone()),
            },
            announce_retry: config.announce_retry.get(),
            heartbeat_retry: config.heartbeat_retry.get(),
            offline_grace: config.offline_grace.get(),
            role: role(config.mode),
            standalone: config.standalone_roles.iter().copied().map(role).collect(),
            external_ip: config.external_ip,
            rtmp_port,
            http_port: config.http_port,
            server_uuid: kept.server_uuid.clone(),
            max_streams: usize::try_from(config.max_streams).unwrap_or(usize::MAX),
            seed: u64::from_le_bytes(seed),
        };
        let master_name = config.master.clone().unwrap_or_default();
        let node = Node::new(settings, kept.tables_of(&master_name), now());
        let (to_self, inbox) = mpsc::channel(INBOX);
        let (tell, moments) = mpsc::channel(MOMENTS);
        Ok(Driver {
            mesh,
            node,
            sign: master.is_some().then_some(sign),
            api_key: Key::new(config.master_key.as_ref().map_or("", |key| key.reveal())),
            local_only: config.local_only,
            master,
            master_name,
            kept,
            to_keep: None,
            is_keeping: false,
            tls,
            inbox,
            to_self,
            moments,
            tell,
            work: JoinSet::new(),
            next: 0,
            verdicts: BTreeMap::new(),
            routed: BTreeMap::new(),
            places: BTreeMap::new(),
            pushes: BTreeMap::new(),
            vitals: Vitals::default(),
            rates: Rates::default(),
            began: Instant::now(),
        })
    }

    /// Until `cancel`; then all that belongs to the mesh ends.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        self.open_desk(self.node.roles().serves_viewers());
        info!(role = self.node.roles().shown().word(), "mesh node begins");
        let mut look = tokio::time::interval(LOOK);
        self.node.handle_timeout(now());
        loop {
            self.act();
            let due = self.node.next_timeout();
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(ask) = self.inbox.recv() => self.on_ask(ask),
                Some((stream_id, moment)) = self.moments.recv() => self.on_moment(&stream_id, moment),
                Some(done) = self.work.join_next() => self.on_done(done.unwrap_or(Done::Nothing)),
                () = sleep_until(due) => self.node.handle_timeout(now()),
                _ = look.tick() => self.look(),
            }
        }
        self.mesh.set_desk(None);
        self.mesh.dismiss_viewers(None, None);
        self.pushes.values().for_each(CancellationToken::cancel);
        self.places.clear();
        self.work.shutdown().await;
    }

    fn open_desk(&self, serves_viewers: bool) {
        self.mesh.set_desk(Some(Desk { inbox: self.to_self.clone(), serves_viewers }));
    }

    /// Seconds since 1970.
    pub(super) fn unix(&self) -> i64 {
        self.mesh.context.clock.unix_micros() / 1_000_000
    }

    fn look(&mut self) {
        let unix = self.unix();
        self.vitals.look(unix, Instant::now());
        let totals = self.mesh.connections.totals();
        self.rates.look(totals.bytes_in, totals.bytes_out);
        let second = self.vitals.last();
        let streams = self.places.iter_mut().filter(|(_, place)| place.mountpoint.publisher().is_some());
        let streams = streams.map(|(stream_id, place)| {
            place.look();
            StreamReport {
                stream_id: stream_id.clone(),
                app: place.app().to_owned(),
                clients: self.mesh.viewers_of(stream_id).len() as u64,
                bw_in: place.bits_per_second(),
                since: place.since_unix,
            }
        });
        let report = Report {
            streams: streams.collect(),
            cpu: second.cpu,
            ram: second.ram,
            rx_mbps: second.rx_mbps,
            tx_mbps: second.tx_mbps,
            uptime: self.began.elapsed().as_secs(),
        };
        self.node.set_report(report, unix);
        if let Some(sign) = self.sign.as_ref().filter(|_| self.node.has_contact()) {
            sign.up();
        }
    }

    fn on_ask(&mut self, ask: Ask) {
        let exchange = ExchangeId(self.next);
        self.next += 1;
        // Who has left waits for nothing.
        self.forget_the_gone();
        match ask {
            Ask::Question(question, answer) => {
                self.verdicts.insert(exchange, answer);
                self.node.handle_question(exchange, question, now());
            }
            Ask::Want(stream_id, answer) => {
                self.routed.insert(exchange, answer);
                self.node.handle_want(exchange, &stream_id, now());
            }
            Ask::Request(request, answer) => self.on_request(exchange, request, answer),
            Ask::Place { stream_id, peer, addr, answer } => self.on_place(stream_id, peer, &addr, answer),
        }
    }

    fn forget_the_gone(&mut self) {
        let gone: Vec<ExchangeId> = self
            .verdicts
            .iter()
            .filter(|(_, answer)| answer.is_closed())
            .map(|(exchange, _)| *exchange)
            .chain(self.routed.iter().filter(|(_, answer)| answer.is_closed()).map(|(exchange, _)| *exchange))
            .collect();
        for exchange in gone {
            self.verdicts.remove(&exchange);
            self.routed.remove(&exchange);
            self.node.withdraw(exchange);
        }
    }

    fn on_place(
        &mut self,
        stream_id: String,
        peer: PeerKind,
        addr: &str,
        answer: oneshot::Sender<Result<String, NoPlace>>,
    ) {
        let placed = match self.places.get_mut(&stream_id) {
            Some(place) => place.make_room(peer).map(|()| place.mountpoint.clone()),
            None => Place::new(&self.mesh.context.registry, &stream_id, peer).map(|place| {
                let mountpoint = place.mountpoint.clone();
                self.places.insert(stream_id.clone(), place);
                let watching = watch(mountpoint.clone(), stream_id.clone(), self.tell.clone());
                self.work.spawn(async move {
                    watching.await;
                    Done::Nothing
                });
                mountpoint
            }),
        };
        let mountpoint = match placed {
            Ok(mountpoint) => mountpoint,
            Err(error) => {
                warn!(stream = stream_id, addr, "a second publisher of a stream of the mesh is refused");
                answer.send(Err(error)).ok();
                return;
            }
        };
        // A publisher that is being sent away leaves in its own time.
        self.work.spawn(async move {
            let mut state = mountpoint.state();
            let free = state.wait_for(|_| mountpoint.publisher().is_none());
            let is_free = tokio::time::timeout(ROOM_WITHIN, free).await.is_ok_and(|free| free.is_ok());
            let name = mountpoint.name().to_owned();
            answer.send(if is_free { Ok(name) } else { Err(NoPlace::Taken) }).ok();
            Done::Nothing
        });
    }

    fn on_moment(&mut self, stream_id: &str, moment: Moment) {
        let unix = self.unix();
        match moment {
            Moment::Began(from) => {
                let Some(place) = self.places.get_mut(stream_id) else { return };
                place.since_unix = unix;
                let peer = place.peer;
                self.node.stream_began(stream_id, peer, &from, now());
            }
            Moment::Ended => self.node.stream_ended(stream_id, now()),
            Moment::Over => {
                self.places.remove(stream_id);
            }
        }
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Call(exchange, outcome) => self.node.handle_reply(exchange, outcome, now()),
            Done::Address(address) => self.node.handle_address(address, now()),
            Done::Kept => {
                self.is_keeping = false;
                self.keep_tables();
            }
            Done::Certificate(Ok(())) => info!("the mesh's master gave the certificate of the node's API"),
            Done::Certificate(Err(why)) => self.node.certificate_refused(&why, now()),
            Done::Nothing => {}
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.node.poll_action() {
            match action {
                Action::FindAddress => {
                    let master = self.master.clone();
                    self.work.spawn(async move {
                        Done::Address(match master {
                            Some(master) => master.own().await,
                            None => None,
                        })
                    });
                }
                Action::Call(exchange, call) => {
                    let Some(master) = self.master.clone() else { continue };
                    self.work.spawn(async move { Done::Call(exchange, master.call(call).await) });
                }
                Action::Verdict(exchange, verdict) => {
                    if let Some(answer) = self.verdicts.remove(&exchange) {
                        answer.send(verdict).ok();
                    }
                }
                Action::Routed(exchange, routed) => {
                    if let Some(answer) = self.routed.remove(&exchange) {
                        answer.send(routed).ok();
                    }
                }
                Action::StartPush(id, key) => self.start_push(id, key),
                Action::StopPush(id) => {
                    if let Some(cancel) = self.pushes.remove(&id) {
                        cancel.cancel();
                    }
                }
                Action::Drop { stream_id, reason } => {
                    info!(stream = stream_id, ?reason, "stream of the mesh is ended");
                    // Its watch tells the rest.
                    self.mesh.context.registry.remove(&places::mountpoint_of(&stream_id));
                }
                Action::RoleChanged(roles) => self.on_roles(&roles),
                Action::KeepTables(tables) => {
                    self.to_keep = Some(tables);
                    self.keep_tables();
                }
                Action::UseCertificate { chain, key } => {
                    let kept = self.kept.clone();
                    self.work.spawn_blocking(move || Done::Certificate(kept.keep_certificate(&chain, &key)));
                }
                Action::Note(note) => {
                    if let Some(sign) = self.sign.as_ref().filter(|_| !self.node.has_contact()) {
                        sign.lost(&note.to_string());
                    }
                    match note.is_warning() {
                        true => warn!("{note}"),
                        false => info!("{note}"),
                    }
                }
            }
        }
    }

    fn on_roles(&mut self, roles: &Roles) {
        self.open_desk(roles.serves_viewers());
        if !roles.serves_viewers() {
            let viewers = self.mesh.dismiss_viewers(None, None);
            if viewers > 0 {
                info!(viewers, "viewers are sent away: the node's new role has none");
            }
        }
    }

    fn keep_tables(&mut self) {
        if self.is_keeping {
            return;
        }
        let Some(tables) = self.to_keep.take() else { return };
        self.is_keeping = true;
        let (kept, master) = (self.kept.clone(), self.master_name.clone());
        self.work.spawn_blocking(move || {
            if let Err(error) = kept.keep(&master, &tables) {
                warn!(%error, "relay tables could not be kept; after a restart they are fetched anew");
            }
            Done::Kept
        });
    }

    fn start_push(&mut self, id: PushId, key: Key) {
        let Some(place) = self.places.get(&id.stream_id) else { return };
        let mountpoint = place.mountpoint.clone();
        let Some(shard) = self.mesh.context.shards.get(mountpoint.shard()).cloned() else { return };
        let cancel = CancellationToken::new();
        if let Some(before) = self.pushes.insert(id.clone(), cancel.clone()) {
            before.cancel();
        }
        let clock = self.mesh.context.clock.clone();
        let push = HopPush { id, key, mountpoint, shard, clock, tls: self.tls.clone(), cancel };
        self.work.spawn(async move {
            push.run().await;
            Done::Nothing
        });
    }
}
