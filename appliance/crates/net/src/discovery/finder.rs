//! The searching task: a round of probes every interval, or when somebody asks; in between it hears who comes and goes.

use super::interfaces::{self, Interface, may_be_camera};
use super::sockets;
use super::table::{Found, Refusals, Table};
use fieldgate_proto::dns_sd;
use fieldgate_proto::onvif::ws_discovery::{self, Kind, Wanted};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How long answers to a round of probes are waited for. Cameras may take half a second before they answer.
const ROUND: Duration = Duration::from_secs(4);
/// When, after the first, probes are sent once more: UDP loses.
const REPEAT_AFTER: Duration = Duration::from_millis(700);
/// Most messages of one socket that are read in a round.
const MAX_PER_ROUND: u32 = 512;
/// Intervals of silence after which a camera is forgotten.
const FORGET_AFTER: u32 = 10;
/// Most addresses that somebody may have named.
pub const MAX_NAMED: usize = 32;
/// Reach of probes in routers, by the standards.
const WSD_TTL: u32 = 1;
const MDNS_TTL: u32 = 255;

/// Where and how to search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinderSettings {
    /// Interfaces by name; none means all but loopback.
    pub interfaces: Vec<String>,
    /// Ask by WS-Discovery.
    pub onvif: bool,
    /// Ask by multicast DNS.
    pub mdns: bool,
    /// From one round to the next.
    pub interval: Duration,
    /// UDP port of WS-Discovery; the standard's, but in tests.
    pub onvif_port: u16,
    /// UDP port of multicast DNS; the standard's, but in tests.
    pub mdns_port: u16,
}

impl Default for FinderSettings {
    fn default() -> Self {
        FinderSettings {
            interfaces: Vec::new(),
            onvif: true,
            mdns: true,
            interval: Duration::from_secs(60),
            onvif_port: ws_discovery::PORT,
            mdns_port: dns_sd::PORT,
        }
    }
}

/// Why an address cannot be searched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FinderError {
    /// It can be no camera's.
    #[error("{0} can be no camera's address")]
    NotACamera(IpAddr),
    /// Too many.
    #[error("at most {MAX_NAMED} addresses can be named")]
    TooMany,
}

/// What the search is like.
#[derive(Clone, Debug, Default)]
pub struct FinderState {
    /// A round is under way.
    pub searching: bool,
    /// When the last round ended.
    pub last_round: Option<Instant>,
    /// Interfaces of the last round, by name and address.
    pub interfaces: Vec<Interface>,
    /// What went wrong in the last round, for a person.
    pub problems: Vec<String>,
    /// What was not taken.
    pub refusals: Refusals,
}

/// Searches for cameras. Cheap to clone; clones share everything.
#[derive(Clone, Default)]
pub struct Finder(Arc<Inner>);

#[derive(Default)]
struct Inner {
    shared: Mutex<Shared>,
    wake: Notify,
}

#[derive(Default)]
struct Shared {
    table: Table,
    state: FinderState,
    named: Vec<IpAddr>,
    wanted: u64,
}

impl Finder {
    /// Everybody who is there, by id.
    pub fn found(&self) -> Vec<Found> {
        self.lock().table.cameras().cloned().collect()
    }

    /// One camera.
    pub fn get(&self, id: &str) -> Option<Found> {
        self.lock().table.get(id).cloned()
    }

    /// How the search goes.
    pub fn state(&self) -> FinderState {
        let shared = self.lock();
        FinderState { refusals: shared.table.refusals, ..shared.state.clone() }
    }

    /// Begins a round now; these addresses are asked by themselves from now on, as for cameras behind routers.
    pub fn scan(&self, addresses: &[IpAddr]) -> Result<(), FinderError> {
        let mut shared = self.lock();
        for &address in addresses {
            let address = address.to_canonical();
            if !may_be_camera(address, &shared.state.interfaces) {
                return Err(FinderError::NotACamera(address));
            }
            if shared.named.contains(&address) {
                continue;
            }
            if shared.named.len() >= MAX_NAMED {
                return Err(FinderError::TooMany);
            }
            shared.named.push(address);
        }
        shared.wanted += 1;
        shared.state.searching = true;
        drop(shared);
        self.0.wake.notify_one();
        Ok(())
    }

    /// Searches until cancelled, by the settings as they are at each round.
    pub async fn run(&self, mut settings: watch::Receiver<FinderSettings>, cancel: CancellationToken) {
        loop {
            let now = settings.borrow_and_update().clone();
            let ended = tokio::select! {
                () = cancel.cancelled() => return,
                ended = self.search(&now) => ended,
            };
            let hearing = ended.as_ref().filter(|_| now.onvif);
            let next = Instant::now() + now.interval;
            tokio::select! {
                () = cancel.cancelled() => return,
                () = sleep_until(next) => {}
                () = self.0.wake.notified() => {}
                changed = settings.changed() => if changed.is_err() {
                    return;
                },
                () = self.hear(hearing) => {}
            }
        }
    }

    /// One round; what comes back is the socket that hears Hello and Bye until the next.
    async fn search(&self, settings: &FinderSettings) -> Option<UdpSocket> {
        let (named, wanted) = {
            let mut shared = self.lock();
            shared.state.searching = true;
            (shared.named.clone(), shared.wanted)
        };
        let mut problems = Vec::new();
        let interfaces = interfaces::list(&settings.interfaces).unwrap_or_else(|error| {
            problems.push(format!("the interfaces cannot be listed: {error}"));
            Vec::new()
        });
        for name in settings.interfaces.iter().filter(|name| !interfaces.iter().any(|it| it.name == **name)) {
            problems.push(format!("{name} is not there, or has no IPv4 address"));
        }
        self.lock().state.interfaces.clone_from(&interfaces);
        let is_on = settings.onvif || settings.mdns;
        if is_on {
            self.probe(settings, &interfaces, &named, &mut problems).await;
        }
        let hearing = settings.onvif.then(|| sockets::hearing(&interfaces, settings.onvif_port));
        let hearing = hearing.and_then(|opened| {
            opened.inspect_err(|error| problems.push(format!("announcements are not heard: {error}"))).ok()
        });
        self.finish(settings, problems, wanted);
        hearing
    }

    async fn probe(
        &self,
        settings: &FinderSettings,
        interfaces: &[Interface],
        named: &[IpAddr],
        problems: &mut Vec<String>,
    ) {
        let mut asked: Vec<Asking> = Vec::new();
        for interface in interfaces {
            if settings.onvif {
                match sockets::asking(interface, WSD_TTL) {
                    Ok(socket) => asked.push(Asking::onvif(socket, settings, interface, named)),
                    Err(error) => problems.push(format!("{} cannot be asked: {error}", interface.name)),
                }
            }
            if settings.mdns {
                match sockets::asking(interface, MDNS_TTL) {
                    Ok(socket) => asked.push(Asking::mdns(socket, settings)),
                    Err(error) => problems.push(format!("{} cannot be asked: {error}", interface.name)),
                }
            }
        }
        {
            let mut shared = self.lock();
            let now = Instant::now();
            for &address in named {
                shared.table.named(address, interfaces, now);
            }
        }
        let until = Instant::now() + ROUND;
        let all = asked.iter().map(|asking| self.ask(asking, interfaces, until));
        for failure in futures_util::future::join_all(all).await.into_iter().flatten() {
            problems.push(failure);
        }
    }

    /// Sends the questions of one socket and takes the answers; what failed is told.
    async fn ask(&self, asking: &Asking, interfaces: &[Interface], until: Instant) -> Option<String> {
        let mut failure = asking.send().await;
        let again = Instant::now() + REPEAT_AFTER;
        self.receive(asking, interfaces, again.min(until)).await;
        failure = asking.send().await.or(failure);
        self.receive(asking, interfaces, until).await;
        failure
    }

    async fn receive(&self, asking: &Asking, interfaces: &[Interface], until: Instant) {
        let mut buffer = vec![0; ws_discovery::MAX_LEN + 1];
        for _ in 0..MAX_PER_ROUND {
            let Ok(received) = timeout_at(until, asking.socket.recv_from(&mut buffer)).await else { return };
            // An unreachable port of one camera shows here as an error; the others still answer.
            let Ok((len, from)) = received else { continue };
            let message = buffer.get(..len).unwrap_or_default();
            if asking.is_onvif {
                self.take_announcement(message, from.ip(), interfaces, Some(&asking.ids));
            } else {
                self.take_services(message, from.ip(), interfaces);
            }
        }
        sleep_until(until).await;
    }

    /// Hears announcements until dropped.
    async fn hear(&self, socket: Option<&UdpSocket>) {
        let Some(socket) = socket else { return std::future::pending().await };
        let interfaces = self.lock().state.interfaces.clone();
        let mut buffer = vec![0; ws_discovery::MAX_LEN + 1];
        loop {
            match socket.recv_from(&mut buffer).await {
                Ok((len, from)) => {
                    let message = buffer.get(..len).unwrap_or_default();
                    self.take_announcement(message, from.ip(), &interfaces, None);
                }
                // The next round opens another.
                Err(_) => return std::future::pending().await,
            }
        }
    }

    /// `ids`: the probes that were sent over this socket; without, only Hello and Bye count.
    fn take_announcement(&self, message: &[u8], from: IpAddr, on: &[Interface], ids: Option<&[String; 2]>) {
        let now = Instant::now();
        let mut shared = self.lock();
        if !shared.table.hears(from, on, now) {
            return;
        }
        let announcements = match ws_discovery::parse(message) {
            Ok(announcements) => announcements,
            // Other programs' probes come by as well.
            Err(ws_discovery::DiscoveryError::NotAnnouncing) => return,
            Err(_) => {
                shared.table.refusals.malformed += 1;
                return;
            }
        };
        for one in &announcements {
            let is_asked = match (ids, one.kind) {
                // Some leave the reference out.
                (Some(ids), Kind::ProbeMatch) => one.relates_to.as_ref().is_none_or(|id| ids.contains(id)),
                (None, Kind::ProbeMatch) => false,
                (_, Kind::Hello | Kind::Bye) => ids.is_none(),
            };
            if is_asked {
                shared.table.announced(one, from, on, now);
            } else {
                shared.table.refusals.unasked += 1;
            }
        }
    }

    fn take_services(&self, message: &[u8], from: IpAddr, on: &[Interface]) {
        let now = Instant::now();
        let mut shared = self.lock();
        if !shared.table.hears(from, on, now) {
            return;
        }
        match dns_sd::parse(message) {
            Ok(services) => {
                services.iter().for_each(|service| shared.table.offered(service, from, on, now));
            }
            Err(dns_sd::DnsSdError::NoAnswer) => {}
            Err(_) => shared.table.refusals.malformed += 1,
        }
    }

    fn finish(&self, settings: &FinderSettings, problems: Vec<String>, wanted: u64) {
        let mut shared = self.lock();
        let now = Instant::now();
        shared.table.age(settings.interval * FORGET_AFTER, now);
        // A line when something changes, not every minute.
        if problems != shared.state.problems {
            match problems.as_slice() {
                [] => info!("the search for cameras works again"),
                problems => warn!(?problems, "the search for cameras is hindered"),
            }
        }
        shared.state.searching = shared.wanted != wanted;
        shared.state.last_round = Some(now);
        shared.state.problems = problems;
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One socket, and what is asked over it.
struct Asking {
    socket: UdpSocket,
    is_onvif: bool,
    /// Of the probes that are sent.
    ids: [String; 2],
    questions: Vec<(SocketAddr, Vec<u8>)>,
}

impl Asking {
    fn onvif(socket: UdpSocket, settings: &FinderSettings, on: &Interface, named: &[IpAddr]) -> Self {
        let ids = [random_id(), random_id()];
        let probes = [(Wanted::Transmitters, &ids[0]), (Wanted::Devices, &ids[1])];
        let group = SocketAddr::from((ws_discovery::GROUP, settings.onvif_port));
        let mut questions = Vec::new();
        for (wanted, id) in probes {
            let probe = ws_discovery::probe(id, wanted).into_bytes();
            questions.push((group, probe.clone()));
            let reachable = named.iter().filter(|address| !on.address.is_loopback() || address.is_loopback());
            questions.extend(
                reachable.map(|&address| (SocketAddr::new(address, settings.onvif_port), probe.clone())),
            );
        }
        Asking { socket, is_onvif: true, ids, questions }
    }

    fn mdns(socket: UdpSocket, settings: &FinderSettings) -> Self {
        let group = SocketAddr::from((dns_sd::GROUP, settings.mdns_port));
        let ids = [String::new(), String::new()];
        Asking { socket, is_onvif: false, ids, questions: vec![(group, dns_sd::query(0))] }
    }

    /// What failed, for a person.
    async fn send(&self) -> Option<String> {
        let mut failure = None;
        for (to, question) in &self.questions {
            if let Err(error) = self.socket.send_to(question, to).await
                && error.kind() != io::ErrorKind::ConnectionRefused
            {
                failure = Some(format!("{to} cannot be asked: {error}"));
            }
        }
        failure
    }
}

fn random_id() -> String {
    let mut random = [0; 16];
    // Without random numbers the ids are all the same: answers are still matched, only not against guessing.
    let _ = getrandom::fill(&mut random);
    ws_discovery::message_id(random)
}
