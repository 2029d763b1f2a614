//! Who is there: cameras by what stays with them, bounded, forgotten when silent.
//!
//! Pure. Whoever sends announcements by the million fills its share of a bounded table and is counted.

use super::interfaces::{Interface, may_be_camera};
use fieldgate_proto::dns_sd::Service;
use fieldgate_proto::onvif::ServiceUrl;
use fieldgate_proto::onvif::ws_discovery::{Announcement, Kind};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use tokio::time::Instant;

/// Most cameras that are remembered.
pub(super) const MAX_CAMERAS: usize = 256;
/// Most cameras behind one address.
pub(super) const MAX_PER_ADDRESS: usize = 4;
/// Most messages that one address may send in [`RATE_WINDOW`].
pub(super) const MAX_RATE: u32 = 24;
/// See [`MAX_RATE`].
pub(super) const RATE_WINDOW: Duration = Duration::from_secs(10);
/// Most addresses whose rate is watched; more are not heard in this window.
const MAX_SENDERS: usize = 1_024;
/// Most names, places, other addresses and hints of one camera.
const MAX_LIST: usize = 8;

/// How a camera was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FoundBy {
    /// By WS-Discovery.
    pub onvif: bool,
    /// By multicast DNS.
    pub mdns: bool,
    /// Somebody named its address.
    pub named: bool,
}

/// A stream that a camera announces by multicast DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamHint {
    /// TCP port.
    pub port: u16,
    /// Path, where it tells one.
    pub path: Option<String>,
}

/// One camera, by what it told everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Stays with it; letters, digits, `.`, `_`, `-`.
    pub id: String,
    /// How it was found.
    pub found_by: FoundBy,
    /// Where it is.
    pub address: IpAddr,
    /// Other addresses under which the same id was heard.
    pub other_addresses: Vec<IpAddr>,
    /// The interface on which it answered; empty if that is not known.
    pub interface: String,
    /// It is in the network of that interface, or somebody named its address: asking it makes sense.
    pub reachable: bool,
    /// Names it goes by.
    pub names: Vec<String>,
    /// Its model by its own word.
    pub hardware: Option<String>,
    /// Places that somebody set.
    pub locations: Vec<String>,
    /// Ethernet address by its own word.
    pub mac: Option<String>,
    /// Its device service, host replaced by `address`.
    pub device: Option<ServiceUrl>,
    /// Streams it announces.
    pub hints: Vec<StreamHint>,
    /// First heard.
    pub first_seen: Instant,
    /// Last heard.
    pub last_seen: Instant,
    /// It said that it goes.
    pub gone: bool,
}

/// What was not taken, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Messages that are not what they should be.
    pub malformed: u64,
    /// Messages of addresses that send too many.
    pub too_many: u64,
    /// Messages from addresses that can be no camera's.
    pub not_a_camera: u64,
    /// Answers to probes that we never sent.
    pub unasked: u64,
    /// Cameras for which there was no room.
    pub no_room: u64,
}

/// All cameras.
#[derive(Default)]
pub(super) struct Table {
    cameras: BTreeMap<String, Found>,
    senders: HashMap<IpAddr, u32>,
    window_began: Option<Instant>,
    pub(super) refusals: Refusals,
}

impl Table {
    pub(super) fn cameras(&self) -> impl Iterator<Item = &Found> {
        self.cameras.values()
    }

    pub(super) fn get(&self, id: &str) -> Option<&Found> {
        self.cameras.get(id)
    }

    /// Whether a message from there is read at all.
    pub(super) fn hears(&mut self, from: IpAddr, interfaces: &[Interface], now: Instant) -> bool {
        if !may_be_camera(from, interfaces) {
            self.refusals.not_a_camera += 1;
            return false;
        }
        if self.window_began.is_none_or(|began| now.saturating_duration_since(began) >= RATE_WINDOW) {
            self.senders.clear();
            self.window_began = Some(now);
        }
        let is_full = self.senders.len() >= MAX_SENDERS && !self.senders.contains_key(&from);
        let count = if is_full { None } else { Some(self.senders.entry(from).or_default()) };
        match count {
            Some(count) if *count < MAX_RATE => {
                *count += 1;
                true
            }
            _ => {
                self.refusals.too_many += 1;
                false
            }
        }
    }

    /// Takes in what a camera announced by WS-Discovery.
    pub(super) fn announced(&mut self, what: &Announcement, from: IpAddr, on: &[Interface], now: Instant) {
        if what.kind == Kind::Bye {
            let gone = self.cameras.get_mut(&onvif_id(&what.endpoint, from));
            if let Some(camera) = gone.filter(|camera| camera.address == from) {
                camera.gone = true;
            }
            return;
        }
        if !what.is_onvif {
            return;
        }
        let id = onvif_id(&what.endpoint, from);
        self.adopt(&id, from);
        let Some(camera) = self.entry(id, from, on, now) else { return };
        camera.found_by.onvif = true;
        camera.names.clone_from(&what.names);
        camera.names.truncate(MAX_LIST);
        camera.locations.clone_from(&what.locations);
        camera.locations.truncate(MAX_LIST);
        camera.hardware.clone_from(&what.hardware);
        camera.mac = what.mac.clone().or(camera.mac.take());
        let known = ServiceUrl::device_service(camera.address, 80);
        let services: Vec<_> =
            what.xaddrs.iter().filter_map(|told| ServiceUrl::service(told, &known).ok()).collect();
        // What names the address that answered is true; else the path is all that is believed.
        let own = services.iter().find(|service| service.foreign_host.is_none());
        let device = own.or(services.first()).map(|service| service.url.clone());
        camera.device = device.or(camera.device.take());
    }

    /// Takes in what a camera announced by multicast DNS.
    pub(super) fn offered(&mut self, what: &Service, from: IpAddr, on: &[Interface], now: Instant) {
        // What answers for others is a proxy or a liar; either way it is not the camera.
        if !what.addresses.is_empty() && !what.addresses.contains(&from) {
            self.refusals.unasked += 1;
            return;
        }
        let id = self.id_at(from).unwrap_or_else(|| match &what.mac {
            Some(mac) => format!("mac-{}", mac.replace(':', "")),
            None => address_id(from),
        });
        let Some(camera) = self.entry(id, from, on, now) else { return };
        camera.found_by.mdns = true;
        camera.mac = camera.mac.take().or(what.mac.clone());
        if camera.names.len() < MAX_LIST
            && !what.instance.is_empty()
            && !camera.names.contains(&what.instance)
        {
            camera.names.push(what.instance.clone());
        }
        let hint = StreamHint { port: what.port, path: what.path.clone() };
        if what.kind == "_rtsp._tcp"
            && what.port > 0
            && camera.hints.len() < MAX_LIST
            && !camera.hints.contains(&hint)
        {
            camera.hints.push(hint);
        }
        if what.kind == "_onvif._tcp" && camera.device.is_none() && what.port > 0 {
            camera.device = Some(ServiceUrl::device_service(from, what.port));
        }
    }

    /// Somebody says that a camera is there.
    pub(super) fn named(&mut self, address: IpAddr, on: &[Interface], now: Instant) {
        let id = self.id_at(address).unwrap_or_else(|| address_id(address));
        if let Some(camera) = self.entry(id, address, on, now) {
            camera.found_by.named = true;
            camera.reachable = true;
        }
    }

    /// Forgets who was silent for `silence`.
    pub(super) fn age(&mut self, silence: Duration, now: Instant) {
        self.cameras.retain(|_, camera| now.saturating_duration_since(camera.last_seen) < silence);
    }

    fn id_at(&self, address: IpAddr) -> Option<String> {
        self.cameras.values().find(|camera| camera.address == address).map(|camera| camera.id.clone())
    }

    /// What was known only by its address now has a lasting id.
    fn adopt(&mut self, id: &str, from: IpAddr) {
        let Some(old) = self.id_at(from).filter(|old| old != id && !old.starts_with("onvif-")) else {
            return;
        };
        if self.cameras.contains_key(id) {
            return;
        }
        if let Some(mut camera) = self.cameras.remove(&old) {
            id.clone_into(&mut camera.id);
            self.cameras.insert(id.to_owned(), camera);
        }
    }

    /// The camera of this id, made if need be; nothing if there is no room.
    fn entry(&mut self, id: String, from: IpAddr, on: &[Interface], now: Instant) -> Option<&mut Found> {
        if !self.cameras.contains_key(&id) {
            let neighbours = self.cameras.values().filter(|camera| camera.address == from).count();
            if self.cameras.len() >= MAX_CAMERAS || neighbours >= MAX_PER_ADDRESS {
                self.refusals.no_room += 1;
                return None;
            }
            let home = home(from, on);
            let camera = Found {
                id: id.clone(),
                found_by: FoundBy::default(),
                address: from,
                other_addresses: Vec::new(),
                interface: home.map(|interface| interface.name.clone()).unwrap_or_default(),
                reachable: home.is_some(),
                names: Vec::new(),
                hardware: None,
                locations: Vec::new(),
                mac: None,
                device: None,
                hints: Vec::new(),
                first_seen: now,
                last_seen: now,
                gone: false,
            };
            self.cameras.insert(id.clone(), camera);
        }
        let camera = self.cameras.get_mut(&id)?;
        if camera.address == from {
            camera.last_seen = now;
            camera.gone = false;
            return Some(camera);
        }
        // Anybody can claim an id. While the camera answers where it always did, it stays there; once it has been
        // forgotten, the new address is a new camera, and is logged in to anew.
        if camera.other_addresses.len() < MAX_LIST && !camera.other_addresses.contains(&from) {
            camera.other_addresses.push(from);
        }
        None
    }
}

/// The interface in whose network an address is.
fn home(address: IpAddr, on: &[Interface]) -> Option<&Interface> {
    let IpAddr::V4(address) = address else { return None };
    on.iter().find(|interface| interface.contains(address))
}

/// An id out of an endpoint's address, whatever that is made of.
fn onvif_id(endpoint: &str, from: IpAddr) -> String {
    let plain: String = endpoint
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        .take(64)
        .collect();
    if plain.is_empty() { address_id(from) } else { format!("onvif-{plain}") }
}

fn address_id(address: IpAddr) -> String {
    let address = match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    format!("address-{address}")
}
