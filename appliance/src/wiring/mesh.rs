//! A node of an RTMP mesh: ties the node's core to RTMP peers, viewers, pushes and the master.
//!
//! ```text
//!  RTMP publish, play --Admission--> Mesh --asks--> driver (one task) <--calls--> master
//!  HLS, DASH ------------Viewers---> Mesh             |  core: compat::node
//!  node's API ----------------------> Mesh            +--> places (mountpoints), pushes
//! ```
//! A stream of the mesh has a mountpoint of its own, which comes and goes with its publisher. The driver is a child of the
//! supervisor: changed settings make a new one, and what the old one had ends with it.

mod address;
mod api;
mod driver;
mod files;
pub(super) mod places;
mod pushes;
mod vitals;

use super::listening::cannot_listen;
use super::{ElsewhereSign, Wiring};
use crate::logging::Tail;
use crate::supervisor::{ChildContext, ChildError, ChildKey};
use driver::{Ask, Driver};
use fieldgate_compat::node::{Key, PeerKind, Question, Refused, Routed, Verdict as NodeVerdict, Wish};
use fieldgate_hub::{Action, Context, Request, Retry, RtmpClient, Terms, Verdict};
use fieldgate_model::config::{Hls, MeshNode};
use fieldgate_net::{
    Absent, ConnectionLimits, Elsewhere, HttpAnswer, HttpHandler, HttpListener, HttpRequest,
    HttpServerSettings, RtmpConnections, ServerCertificates,
};
use places::NoPlace;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// The application of other nodes.
pub(super) const RELAY: &str = "relay";
/// What the driver may be asked at once.
const INBOX: usize = 256;
/// Connections to the API: in all, and from one address.
const API_CONNECTIONS: (usize, usize) = (64, 16);
/// Bytes of a request to it: tables.
const API_BODY: usize = 1 << 20;
/// How long an RTMP player may wait for a stream after it was let in.
const WANT_WITHIN: Duration = Duration::from_secs(20);

/// The node, as those see it who ask it. Off while no driver runs.
pub struct Mesh {
    context: Context,
    connections: RtmpConnections,
    folder: PathBuf,
    log: Tail,
    desk: Mutex<Option<Desk>>,
    watching: Mutex<Vec<Watching>>,
}

/// The way to the driver.
#[derive(Clone)]
struct Desk {
    inbox: mpsc::Sender<Ask>,
    serves_viewers: bool,
}

/// A viewer who was let in.
#[derive(Clone)]
struct Watching {
    stream_id: String,
    /// By RTMP: the application that it plays by.
    app: String,
    /// Gone with the viewer.
    revoked: Weak<CancellationToken>,
    peer: IpAddr,
    /// By RTMP: its connection.
    client: Option<Arc<RtmpClient>>,
    since: Instant,
}

impl Mesh {
    /// Off. `folder` is where it keeps its id and its tables.
    pub fn new(context: &Context, connections: RtmpConnections, folder: PathBuf, log: Tail) -> Mesh {
        Mesh {
            context: context.clone(),
            connections,
            folder,
            log,
            desk: Mutex::default(),
            watching: Mutex::default(),
        }
    }

    /// Whether the gateway is a node now.
    pub fn is_on(&self) -> bool {
        self.desk().is_some()
    }

    /// Answers an RTMP peer; `None`: its name is none that a node has a say about.
    pub async fn admit(&self, request: &Request) -> Option<Verdict> {
        let inbox = self.desk()?.inbox;
        let wish = match (request.action, request.app.as_str()) {
            (Action::Publish, RELAY) => Wish::Relay,
            (Action::Publish, _) => Wish::Broadcast,
            (Action::Play, RELAY) => return Some(Verdict::UnknownName),
            (Action::Play, _) => Wish::View,
        };
        let (stream_id, peer) = match ask(&inbox, question(wish, request)).await {
            NodeVerdict::Allow { stream_id, peer } => (stream_id, peer),
            NodeVerdict::NotMine => return None,
            // A wrong name is what a peer without a good key has given, whatever else is wrong.
            NodeVerdict::Refuse(_) if wish == Wish::Relay => return Some(Verdict::UnknownName),
            NodeVerdict::Refuse(why) => return Some(Verdict::Deny { text: why.to_string() }),
        };
        Some(match wish {
            Wish::View => self.play(&inbox, request, stream_id).await,
            Wish::Broadcast | Wish::Relay => place(&inbox, request, stream_id, peer).await,
        })
    }

    async fn play(&self, inbox: &mpsc::Sender<Ask>, request: &Request, stream_id: String) -> Verdict {
        match want(inbox, &stream_id).await {
            Routed::Here => {}
            Routed::Role => return Verdict::Deny { text: Refused::Role.to_string() },
            Routed::Unknown | Routed::Later => return Verdict::UnknownName,
        }
        self.note_viewer(&stream_id, request);
        Verdict::Allow { mountpoint: places::mountpoint_of(&stream_id), terms: Terms::default() }
    }

    fn note_viewer(&self, stream_id: &str, request: &Request) {
        let mut watching = self.watching();
        watching.retain(|viewer| viewer.revoked.strong_count() > 0);
        watching.push(Watching {
            stream_id: stream_id.to_owned(),
            app: request.app.clone(),
            revoked: Arc::downgrade(&request.revoked),
            peer: request.peer,
            client: request.client.clone(),
            since: Instant::now(),
        });
    }

    /// Viewers of a stream now.
    fn viewers_of(&self, stream_id: &str) -> Vec<Watching> {
        let watching = self.watching();
        let here = watching.iter().filter(|viewer| viewer.stream_id == stream_id);
        here.filter(|viewer| viewer.revoked.strong_count() > 0).cloned().collect()
    }

    /// Sends away the viewers of one stream, or all; of these the ones who play by RTMP by one application, or all. How many
    /// there were.
    fn dismiss_viewers(&self, stream_id: Option<&str>, app: Option<&str>) -> usize {
        let mut watching = self.watching();
        let is_meant = |viewer: &Watching| {
            stream_id.is_none_or(|stream_id| viewer.stream_id == stream_id)
                && app.is_none_or(|app| viewer.client.is_some() && viewer.app == app)
        };
        let (gone, stay) = std::mem::take(&mut *watching).into_iter().partition(is_meant);
        *watching = stay;
        let gone: Vec<Watching> = gone;
        let tokens = gone.iter().filter_map(|viewer| viewer.revoked.upgrade());
        tokens.map(|token| token.cancel()).count()
    }

    /// Answers a request to the node's API.
    async fn answer(&self, request: HttpRequest) -> HttpAnswer {
        let Some(desk) = self.desk() else { return HttpAnswer::empty(503) };
        let (answer, answered) = oneshot::channel();
        match desk.inbox.try_send(Ask::Request(request, answer)) {
            Ok(()) => answered.await.unwrap_or_else(|_| HttpAnswer::empty(503)),
            Err(_) => HttpAnswer::empty(503),
        }
    }

    fn desk(&self) -> Option<Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_desk(&self, desk: Option<Desk>) {
        *self.desk.lock().unwrap_or_else(PoisonError::into_inner) = desk;
    }

    fn watching(&self) -> MutexGuard<'_, Vec<Watching>> {
        self.watching.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn question(wish: Wish, request: &Request) -> Question {
    Question {
        wish,
        name: Key::new(request.name.as_str()),
        key: request.key.as_deref().map(Key::new),
        app: request.app.clone(),
        addr: request.peer.to_string(),
        client_id: request.client.as_ref().map_or(String::new(), |client| client.connection.to_string()),
    }
}

async fn ask(inbox: &mpsc::Sender<Ask>, question: Question) -> NodeVerdict {
    let (answer, verdict) = oneshot::channel();
    let full = NodeVerdict::Refuse(Refused::Full);
    match inbox.try_send(Ask::Question(question, answer)) {
        Ok(()) => verdict.await.unwrap_or(full),
        Err(_) => full,
    }
}

async fn want(inbox: &mpsc::Sender<Ask>, stream_id: &str) -> Routed {
    let (answer, routed) = oneshot::channel();
    match inbox.try_send(Ask::Want(stream_id.to_owned(), answer)) {
        Ok(()) => {
            let routed = tokio::time::timeout(WANT_WITHIN, routed).await;
            routed.ok().and_then(Result::ok).unwrap_or(Routed::Later)
        }
        Err(_) => Routed::Later,
    }
}

async fn place(inbox: &mpsc::Sender<Ask>, request: &Request, stream_id: String, peer: PeerKind) -> Verdict {
    let (answer, placed) = oneshot::channel();
    let addr = request.peer.to_string();
    let sent = inbox.try_send(Ask::Place { stream_id, peer, addr, answer });
    let placed = match sent {
        Ok(()) => placed.await.unwrap_or(Err(NoPlace::Stopping)),
        Err(_) => Err(NoPlace::Stopping),
    };
    match placed {
        Ok(mountpoint) => Verdict::Allow { mountpoint, terms: Terms::default() },
        Err(NoPlace::Taken) => Verdict::UnknownName,
        Err(error @ NoPlace::Stopping) => Verdict::Deny { text: error.to_string() },
    }
}

fn absent(status: u16, text: impl Into<String>) -> Absent {
    Absent { status, text: text.into() }
}

impl Elsewhere for Mesh {
    fn is_on(&self) -> bool {
        Mesh::is_on(self)
    }

    fn hls(&self) -> Hls {
        Hls::default()
    }

    fn open(&self, request: Request) -> Pin<Box<dyn Future<Output = Result<String, Absent>> + Send + '_>> {
        Box::pin(async move {
            let Some(desk) = self.desk() else { return Err(absent(404, "this gateway is no node")) };
            let asked = Question { app: "hls".to_owned(), ..question(Wish::View, &request) };
            match ask(&desk.inbox, asked).await {
                NodeVerdict::Allow { .. } => {}
                NodeVerdict::NotMine => return Err(absent(404, "there is no such stream")),
                NodeVerdict::Refuse(why @ Refused::NoToken) => return Err(absent(401, why.to_string())),
                NodeVerdict::Refuse(why @ (Refused::Full | Refused::Unreachable)) => {
                    return Err(absent(503, why.to_string()));
                }
                NodeVerdict::Refuse(why) => return Err(absent(403, why.to_string())),
            }
            match want(&desk.inbox, &request.name).await {
                Routed::Here => {}
                Routed::Unknown => return Err(absent(404, "there is no such stream")),
                Routed::Role => return Err(absent(403, Refused::Role.to_string())),
                Routed::Later => return Err(absent(503, "the stream is not here yet; try again")),
            }
            self.note_viewer(&request.name, &request);
            Ok(places::mountpoint_of(&request.name))
        })
    }

    fn mountpoint(&self, stream: &str) -> Result<String, Absent> {
        match self.desk() {
            Some(desk) if desk.serves_viewers => Ok(places::mountpoint_of(stream)),
            _ => Err(absent(410, "this node serves no viewers any more")),
        }
    }
}

/// The certificate that the API shows, where it speaks TLS.
async fn certificates_of(
    settings: &MeshNode,
    kept: &files::Kept,
) -> Result<Option<ServerCertificates>, ChildError> {
    let Some(tls) = &settings.tls else { return Ok(None) };
    let (own, kept) = (tls.cert.clone().zip(tls.key.clone()), kept.clone());
    let load = move || -> Result<ServerCertificates, ChildError> {
        let (cert, key) = match own {
            Some(files) => files,
            None => {
                let file = kept.certificate().map_err(|error| ChildError::of(Retry::Backoff, &error))?;
                (file.clone(), file)
            }
        };
        ServerCertificates::load(cert, key).map_err(|error| ChildError::of(Retry::Backoff, &error))
    };
    let loaded = tokio::task::spawn_blocking(load).await;
    loaded.unwrap_or_else(|_| Err(ChildError::new(Retry::Backoff, "the gateway is stopping"))).map(Some)
}

impl Wiring {
    /// Runs the node until it is cancelled. `rtmp_port` is the port of the first RTMP listener.
    pub(super) async fn mesh_node(
        &self,
        settings: MeshNode,
        rtmp_port: Option<u16>,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let tls = super::pushes::client_tls(true, settings.verify, settings.ca.as_deref())?;
        let rtmp_port = settings.rtmp_port.or(rtmp_port);
        let mesh = self.mesh.clone();
        let kept =
            files::open(mesh.folder.clone()).await.map_err(|error| ChildError::of(Retry::Backoff, &error))?;
        let rtmp_port = match rtmp_port {
            Some(0) => self.bound_rtmp_port(&child).await,
            port => port,
        };
        let limits = ConnectionLimits::new(API_CONNECTIONS.0, API_CONNECTIONS.1);
        let certificates = certificates_of(&settings, &kept).await?;
        let plain = settings.listen.iter().map(|address| (*address, None));
        let tls_listen = settings.tls.iter().flat_map(|tls| &tls.listen);
        let over_tls =
            tls_listen.map(|address| (*address, certificates.as_ref().map(ServerCertificates::acceptor)));
        let mut listeners = Vec::new();
        for (address, acceptor) in plain.chain(over_tls) {
            let cannot = cannot_listen(address);
            let (mesh, limits) = (mesh.clone(), limits.clone());
            let handler: HttpHandler = Arc::new(move |request| {
                let mesh = mesh.clone();
                Box::pin(async move { mesh.answer(request).await })
            });
            let server = HttpServerSettings { body_bytes: API_BODY, ..HttpServerSettings::default() };
            let listener =
                HttpListener::bind(address, server, limits, handler).map_err(cannot)?.with_tls(acceptor);
            listeners.push((listener.local_addr().map_err(cannot)?, listener));
        }
        let bound = listeners.iter().map(|(address, _)| *address).collect();
        self.board.set_addresses(ChildKey::MeshNode, bound);
        child.ready.ready();
        let sign = ElsewhereSign::new(self.board.clone(), self.context.clock.clone(), "node");
        let driver = Driver::new(mesh.clone(), &settings, rtmp_port.unwrap_or(1935), kept, tls, sign);
        let driver = driver.map_err(|error| ChildError::of(Retry::Never, &error))?;
        let mut serving = JoinSet::new();
        for (address, listener) in listeners {
            info!(%address, "mesh node's API listens");
            serving.spawn(listener.run(child.cancel.clone()));
        }
        if let (Some(certificates), Some(tls)) = (certificates, &settings.tls) {
            let watching = certificates.watch(tls.reload_interval.get(), child.cancel.clone());
            serving.spawn(async move {
                watching.await;
                Ok(())
            });
        }
        driver.run(child.cancel).await;
        while serving.join_next().await.is_some() {}
        self.board.forget(&ChildKey::MeshNode);
        Ok(())
    }

    /// The port that the kernel chose, once the listener is there.
    pub(super) async fn bound_rtmp_port(&self, child: &ChildContext) -> Option<u16> {
        for _ in 0..50 {
            let addresses = self.board.addresses();
            let rtmp = addresses.iter().find(|(key, _)| matches!(key, ChildKey::RtmpListener { .. }));
            if let Some(address) = rtmp.and_then(|(_, addresses)| addresses.first()) {
                return Some(address.port());
            }
            tokio::select! {
                () = child.cancel.cancelled() => return None,
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        }
        None
    }
}
