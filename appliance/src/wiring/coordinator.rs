//! The coordinator at its edge: its core's wishes become messages, calls, mountpoints and a list on disk.
//!
//! ```text
//!  RTMP publish, play --Admission--> Coordinator --asks--> driver (one task) <--calls--> applications
//!  control sockets, commands ------> Coordinator              |  core: compat::coordinator
//!                                                             +--> places (mountpoints), active_streams.txt
//! ```
//! A channel that is published here has a mountpoint of its own, which comes and goes with its publisher. The driver is a
//! child of the supervisor: changed settings make a new one, and what the old one had ends with it.

pub(super) mod applications;
mod driver;
mod files;
mod shown;
pub(super) mod socket;

use super::Wiring;
use super::channels::{Asking, mountpoint_of};
use super::listening::cannot_listen;
use crate::certificate::machine_addresses;
use crate::supervisor::{ChildContext, ChildError, ChildKey};
use driver::{Ask, Driver};
use fieldgate_compat::coordinator::is_id;
use fieldgate_compat::key::Key;
use fieldgate_compat::{Reply, Request as HttpAsk};
use fieldgate_hub::{Context, Request, Retry, Verdict};
use fieldgate_model::config::{Coordinator as Settings, CoordinatorTls};
use fieldgate_net::{
    ConnectionLimits, HttpAnswer, HttpHandler, HttpListener, HttpRequest, HttpServerSettings,
    ServerCertificates, SocketHandler,
};
use fieldgate_proto::rtmp::RtmpUrl;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::{info, warn};

/// What the driver may be asked at once.
const INBOX: usize = 256;
/// Connections beyond the sockets, for commands.
const SPARE_CONNECTIONS: usize = 64;
/// Bytes of a request's body: commands have none.
const BODY: usize = 4 << 10;
/// For a request's head, and for a handshake.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// The coordinator, as those see it who ask it. Off while no driver runs.
pub struct Coordinator {
    context: Context,
    folder: PathBuf,
    desk: Mutex<Option<Desk>>,
    /// Streams that our own packager shows, with their mountpoints.
    shown: Mutex<BTreeMap<String, String>>,
}

/// The way to the driver.
#[derive(Clone)]
struct Desk {
    inbox: mpsc::Sender<Ask>,
    id_max: usize,
    logs_requests: bool,
    is_encoder: bool,
    /// What tokens are signed with.
    control_secret: Option<Key>,
    /// The port that encoders on this machine are told for our own streams.
    own_port: u16,
}

impl Coordinator {
    /// Off. `folder` is where it keeps the list of streams.
    pub fn new(context: &Context, folder: PathBuf) -> Coordinator {
        Coordinator { context: context.clone(), folder, desk: Mutex::default(), shown: Mutex::default() }
    }

    /// Whether this can be one of its channels.
    pub fn knows(&self, app: &str) -> bool {
        self.desk().is_some_and(|desk| is_id(app, desk.id_max))
    }

    /// Answers an RTMP peer, whose application is the channel and whose stream name is the key.
    pub async fn admit(&self, request: &Request) -> Verdict {
        let Some(desk) = self.desk() else { return Verdict::UnknownApplication };
        Asking::verdict(request, |asking| desk.inbox.try_send(Ask::Peer(asking)).is_ok()).await
    }

    /// The mountpoint of a channel, if this address is that of one of our own streams as encoders on this machine are told
    /// it.
    pub(super) fn own_source(&self, channel: &str, source: &RtmpUrl) -> Option<String> {
        let desk = self.desk()?;
        let is_here = source.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        (is_here && source.port == desk.own_port).then(|| mountpoint_of(channel))
    }

    /// Answers a request that asks for no socket.
    async fn answer(&self, request: HttpRequest) -> HttpAnswer {
        let Some(desk) = self.desk() else { return HttpAnswer::empty(503) };
        let shown = (request.peer, request.method.clone(), request.target.clone());
        let (answer, answered) = oneshot::channel();
        let asked = desk.inbox.try_send(Ask::Request(whole(request), answer));
        let reply = match asked {
            Ok(()) => answered.await.map_or_else(|_| HttpAnswer::empty(503), answer_of),
            Err(_) => HttpAnswer::empty(503),
        };
        if desk.logs_requests {
            let (peer, method, target) = shown;
            info!(%peer, method, target, status = reply.status, "request to the coordinator");
        }
        reply
    }

    fn desk(&self) -> Option<Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_desk(&self, desk: Option<Desk>) {
        *self.desk.lock().unwrap_or_else(PoisonError::into_inner) = desk;
    }
}

fn whole(request: HttpRequest) -> HttpAsk {
    let HttpRequest { method, target, headers, body, peer } = request;
    HttpAsk { method, target, headers, body, peer: peer.ip() }
}

fn answer_of(reply: Reply) -> HttpAnswer {
    let Reply { status, headers, body } = reply;
    HttpAnswer { status, headers, body }
}

/// The address that others reach this machine by, as far as one can tell.
pub(super) fn own_address(external_ip: Option<IpAddr>) -> IpAddr {
    let found = machine_addresses();
    let outside = found.iter().find(|ip| ip.is_ipv4() && !ip.is_loopback());
    external_ip.or(outside.copied()).or(found.first().copied()).unwrap_or(IpAddr::from([127, 0, 0, 1]))
}

impl Wiring {
    /// Runs the coordinator until it is cancelled. `rtmp_port` is the port of the first RTMP listener.
    pub(super) async fn coordinate(
        &self,
        settings: Settings,
        rtmp_port: Option<u16>,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            ChildError::new(Retry::Backoff, crate::steward::chain(error))
        };
        let tls = super::pushes::client_tls(true, settings.verify, settings.ca.as_deref())?;
        let certificates = settings.tls.as_ref().map(|tls| ServerCertificates::load(&tls.cert, &tls.key));
        let certificates = certificates.transpose().map_err(|error| failed(&error))?;
        let kept = files::open(self.coordinator.folder.clone()).await.map_err(|error| failed(&error))?;
        let rtmp_port = match settings.rtmp_port.or(rtmp_port) {
            Some(0) => self.bound_rtmp_port(&child).await,
            port => port,
        };
        let listeners = self.coordinator_listeners(&settings, certificates.as_ref())?;
        let own = SocketAddr::new(own_address(settings.external_ip), rtmp_port.unwrap_or(1935));
        let driver = Driver::new(self.coordinator.clone(), &settings, own, kept, tls);
        let driver = driver.map_err(|error| failed(&error))?;
        self.board.set_addresses(ChildKey::Coordinator, listeners.iter().map(|(bound, _)| *bound).collect());
        driver.open_desk(&settings, own.port());
        child.ready.ready();
        let mut serving = JoinSet::new();
        for (address, listener) in listeners {
            info!(%address, "coordinator listens");
            let cancel = child.cancel.clone();
            serving.spawn(async move {
                if let Err(error) = listener.run(cancel).await {
                    warn!(%address, %error, "the coordinator listens no more");
                }
            });
        }
        if let (Some(certificates), Some(CoordinatorTls { reload_interval, .. })) =
            (certificates, settings.tls)
        {
            serving.spawn(certificates.watch(reload_interval.get(), child.cancel.clone()));
        }
        driver.run(child.cancel).await;
        while serving.join_next().await.is_some() {}
        self.board.forget(&ChildKey::Coordinator);
        Ok(())
    }

    fn coordinator_listeners(
        &self,
        settings: &Settings,
        certificates: Option<&ServerCertificates>,
    ) -> Result<Vec<(SocketAddr, HttpListener)>, ChildError> {
        let connections =
            SPARE_CONNECTIONS + usize::try_from(settings.max_sockets).unwrap_or(usize::MAX >> 1);
        // One site's servers may come from one address.
        let limits = ConnectionLimits::new(connections, connections);
        let coordinator = self.coordinator.clone();
        let handler: HttpHandler = Arc::new(move |request| {
            let coordinator = coordinator.clone();
            Box::pin(async move { coordinator.answer(request).await })
        });
        let coordinator = self.coordinator.clone();
        let sockets: SocketHandler = Arc::new(move |request| {
            let coordinator = coordinator.clone();
            Box::pin(async move { socket::open(&coordinator, request).await })
        });
        let plain = settings.listen.iter().map(|address| (*address, None));
        let tls = settings.tls.iter().flat_map(|tls| &tls.listen);
        let tls = tls.map(|address| (*address, certificates.map(ServerCertificates::acceptor)));
        let mut listeners = Vec::new();
        for (address, tls) in plain.chain(tls) {
            let cannot = cannot_listen(address);
            let server = HttpServerSettings {
                body_bytes: BODY,
                head_timeout: HEAD_WITHIN,
                ..HttpServerSettings::default()
            };
            let listener = HttpListener::bind(address, server, limits.clone(), handler.clone());
            let listener = listener.map_err(cannot)?.with_tls(tls).with_sockets(sockets.clone());
            listeners.push((listener.local_addr().map_err(cannot)?, listener));
        }
        Ok(listeners)
    }
}
