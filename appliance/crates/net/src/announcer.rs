//! Tells the local networks where the gateway's page is, by multicast DNS: `fieldgate-7f3a.local`, on every interface from
//! which the page can be reached.
//!
//! ```text
//!  Announcer   one task: looks every few seconds which interfaces there are
//!    -> leg    one per interface: a socket in the group and a proto::mdns_host::Host
//! ```
//!
//! Only what was sent to the group is heard: routers never pass that on. Alone answered are only askers in the
//! interface's own network, so that nobody's forged question sends anything elsewhere.

use fieldgate_proto::dns_sd::{GROUP, MAX_LEN, PORT};
use fieldgate_proto::mdns_host::{Announcement, Host, Output};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Most interfaces on which it is told.
const MAX_INTERFACES: usize = 16;
/// How often it is looked which interfaces there are.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// Messages of one interface that are read in a second; the rest is left to the kernel, which drops it.
const MAX_PER_SECOND: u32 = 200;
const WINDOW: Duration = Duration::from_secs(1);
/// Kernel buffer for what waits meanwhile, in bytes.
const RECEIVE_BYTES: usize = 64 << 10;
/// RFC 6762, 11.
const TTL: u32 = 255;

/// What is told, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncerSettings {
    /// The name without `.local`: letters, digits, dashes. None: nothing is told.
    pub label: Option<String>,
    /// Where the page listens; the port of the first that an interface's addresses reach is told there.
    pub pages: Vec<SocketAddr>,
    /// Interfaces by name; none means all but loopback and those with a single far end (cellular, tunnels).
    pub interfaces: Vec<String>,
    /// UDP port of multicast DNS; the standard's, but in tests.
    pub udp_port: u16,
}

impl Default for AnnouncerSettings {
    fn default() -> Self {
        AnnouncerSettings { label: None, pages: Vec::new(), interfaces: Vec::new(), udp_port: PORT }
    }
}

/// Announces, and knows under which names. Cheap to clone; clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Announcer(Arc<Mutex<BTreeMap<u64, Told>>>);

/// One name that is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    /// With `.local`.
    pub name: String,
    /// TCP port of the page.
    pub port: u16,
}

/// What is told on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Leg {
    index: Option<u32>,
    /// Its addresses of IPv4 with their masks, the first of which sends.
    networks: Vec<(Ipv4Addr, Ipv4Addr)>,
    announcement: Announcement,
    udp_port: u16,
}

struct Running {
    id: u64,
    leg: Leg,
    stop: CancellationToken,
}

impl Announcer {
    /// The names that are told now, each once; mostly it is one.
    pub fn told(&self) -> BTreeSet<Told> {
        self.lock().values().cloned().collect()
    }

    /// Announces until cancelled, and then takes it back.
    pub async fn run(&self, mut settings: watch::Receiver<AnnouncerSettings>, cancel: CancellationToken) {
        let mut running: BTreeMap<String, Running> = BTreeMap::new();
        let mut faults: BTreeMap<String, String> = BTreeMap::new();
        let mut serving = JoinSet::new();
        let mut next_id = 0_u64;
        loop {
            let wanted = legs(&settings.borrow_and_update());
            running.retain(|name, it| {
                let stays = wanted.get(name) == Some(&it.leg);
                if !stays {
                    it.stop.cancel();
                }
                stays
            });
            for (name, leg) in wanted {
                if running.contains_key(&name) {
                    continue;
                }
                next_id += 1;
                let (id, stop) = (next_id, cancel.child_token());
                serving.spawn(self.clone().leg(name.clone(), id, leg.clone(), stop.clone()));
                running.insert(name, Running { id, leg, stop });
            }
            tokio::select! {
                () = cancel.cancelled() => break,
                () = sleep(LOOK_EVERY) => {}
                changed = settings.changed() => if changed.is_err() {
                    break;
                },
                Some(Ok((name, id, ended))) = serving.join_next() => {
                    // Tried again after a moment, and told once.
                    if let Err(error) = ended {
                        let fault = error.to_string();
                        if faults.insert(name.clone(), fault.clone()).as_ref() != Some(&fault) {
                            warn!(interface = name, fault, "the gateway cannot be announced here");
                        }
                        sleep(WINDOW).await;
                    }
                    if running.get(&name).is_some_and(|it| it.id == id) {
                        running.remove(&name);
                    }
                }
            }
        }
        running.values().for_each(|it| it.stop.cancel());
        while serving.join_next().await.is_some() {}
    }

    /// Tells on one interface, until stopped.
    async fn leg(
        self,
        name: String,
        id: u64,
        leg: Leg,
        stop: CancellationToken,
    ) -> (String, u64, io::Result<()>) {
        let ended = self.serve(&name, id, &leg, &stop).await;
        self.lock().remove(&id);
        (name, id, ended)
    }

    async fn serve(&self, interface: &str, id: u64, leg: &Leg, stop: &CancellationToken) -> io::Result<()> {
        let socket = leg.open()?;
        let group = SocketAddr::from((GROUP, leg.udp_port));
        let mut host = Host::new(leg.announcement.clone(), Instant::now().into_std());
        let mut buffer = vec![0; MAX_LEN + 1];
        let (mut window, mut read) = (Instant::now(), 0);
        loop {
            while let Some(Output::Group(bytes) | Output::Asker(bytes)) =
                host.handle_timeout(Instant::now().into_std())
            {
                self.tell(interface, id, &host, leg.announcement.port);
                socket.send_to(&bytes, group).await?;
            }
            self.tell(interface, id, &host, leg.announcement.port);
            let due = host.next_timeout().map(Instant::from_std);
            if window.elapsed() >= WINDOW {
                (window, read) = (Instant::now(), 0);
            }
            let received = tokio::select! {
                () = stop.cancelled() => {
                    if let Some(bytes) = host.goodbye() {
                        socket.send_to(&bytes, group).await?;
                    }
                    return Ok(());
                }
                () = sleep_until(due.unwrap_or(window)), if due.is_some() => continue,
                () = sleep_until(window + WINDOW), if read >= MAX_PER_SECOND => continue,
                received = socket.recv_from(&mut buffer), if read < MAX_PER_SECOND => received,
            };
            let (len, from) = received?;
            read += 1;
            let message = buffer.get(..len).unwrap_or_default();
            let is_peer = from.port() == leg.udp_port;
            // What is no DNS is a stranger's affair.
            let output = host.handle_message(message, is_peer, Instant::now().into_std()).ok().flatten();
            match output {
                Some(Output::Group(bytes)) => {
                    socket.send_to(&bytes, group).await?;
                }
                // Whether he can be reached is his affair, too.
                Some(Output::Asker(bytes)) if leg.is_near(from.ip()) => {
                    socket.send_to(&bytes, from).await.ok();
                }
                Some(Output::Asker(_)) | None => {}
            }
        }
    }

    fn tell(&self, interface: &str, id: u64, host: &Host, port: u16) {
        let told = host.name().map(|name| Told { name, port });
        let mut all = self.lock();
        if all.get(&id) == told.as_ref() {
            return;
        }
        match told {
            Some(told) => {
                info!(interface, name = told.name, port = told.port, "the page is announced");
                all.insert(id, told);
            }
            None => {
                all.remove(&id);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leg {
    fn open(&self) -> io::Result<UdpSocket> {
        let Some((sender, _)) = self.networks.first() else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        // Others on this machine may speak it as well.
        socket.set_reuse_address(true)?;
        socket.set_multicast_all_v4(false)?;
        socket.set_multicast_if_v4(sender)?;
        socket.set_multicast_ttl_v4(TTL)?;
        socket.set_multicast_loop_v4(true)?;
        socket.set_ttl_v4(TTL)?;
        socket.set_recv_buffer_size(RECEIVE_BYTES)?;
        socket.bind(&SocketAddr::V4(SocketAddrV4::new(GROUP, self.udp_port)).into())?;
        let here = match self.index {
            Some(index) => InterfaceIndexOrAddress::Index(index),
            None => InterfaceIndexOrAddress::Address(*sender),
        };
        socket.join_multicast_v4_n(&GROUP, &here)?;
        UdpSocket::from_std(socket.into())
    }

    fn is_near(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        self.networks
            .iter()
            .any(|(own, mask)| own.to_bits() & mask.to_bits() == address.to_bits() & mask.to_bits())
    }
}

/// What is to be told on which interface.
fn legs(settings: &AnnouncerSettings) -> BTreeMap<String, Leg> {
    let Some(label) = settings.label.clone().filter(|_| !settings.pages.is_empty()) else {
        return BTreeMap::new();
    };
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    let own: Vec<IpAddr> = all.iter().map(if_addrs::Interface::ip).collect();
    let mut legs: BTreeMap<String, Leg> = BTreeMap::new();
    for interface in all {
        let is_wanted = match settings.interfaces.as_slice() {
            [] => !interface.is_loopback() && !interface.is_p2p,
            named => named.contains(&interface.name),
        };
        let address = interface.ip();
        let is_page = |page: &&SocketAddr| page.ip().is_unspecified() || page.ip().to_canonical() == address;
        let Some(page) = settings.pages.iter().find(is_page).filter(|_| is_wanted) else { continue };
        let has_room = legs.len() < MAX_INTERFACES || legs.contains_key(&interface.name);
        // An address that holds only with its interface's name is of no use to a browser.
        if !has_room || interface.is_link_local() && address.is_ipv6() {
            continue;
        }
        let leg = legs.entry(interface.name.clone()).or_insert_with(|| Leg {
            index: interface.index,
            networks: Vec::new(),
            announcement: Announcement {
                label: label.clone(),
                addresses: Vec::new(),
                own: own.clone(),
                port: page.port(),
            },
            udp_port: settings.udp_port,
        });
        leg.announcement.addresses.push(address);
        if let if_addrs::IfAddr::V4(address) = &interface.addr {
            leg.networks.push((address.ip, address.netmask));
        }
    }
    // IPv4 carries it.
    legs.retain(|_, leg| !leg.networks.is_empty());
    legs
}

#[cfg(test)]
mod tests;
