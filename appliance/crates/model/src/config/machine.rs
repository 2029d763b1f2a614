//! The machine's own network and time.

use super::{Config, Path, Problem, Secret, StoredError};
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Longest name of a network interface, in bytes. Source: `IFNAMSIZ` of Linux, without its end.
const MAX_LINK_LEN: usize = 15;
/// Longest name of a Wi-Fi network, in bytes. Source: IEEE 802.11.
const MAX_SSID_LEN: usize = 32;
/// Metric of the default route of the first uplink, and the step to the next.
const METRIC_STEP: u32 = 100;

/// The machine's own network, carried out by `fieldgate-system-helper` through systemd-networkd and iwd. What is not
/// named here stays as the image has it; what cellular modems need is the image's too. Gone from memory at each start of
/// the machine, and then set anew from the confirmed config.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MachineNetwork {
    /// The machine's name in the network: 1 to 63 of `a-z 0-9 -`. Default: as the image has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub hostname: Option<String>,
    /// Interfaces by name, such as `eth0` or `wlan0`. At most 16. Default: none is touched.
    #[schemars(extend("maxProperties" = 16))]
    pub links: BTreeMap<String, Link>,
    /// Those of `links` that lead further, the preferred first: the next takes over when one loses its carrier or its
    /// lease. The others reach their own networks alone, such as one of cameras. Default: none.
    #[schemars(length(max = 16))]
    pub uplinks: Vec<String>,
}

impl MachineNetwork {
    /// Metric of a link's default route, lower is preferred; none if it is no uplink.
    pub fn metric(&self, link: &str) -> Option<u32> {
        let place = self.uplinks.iter().position(|uplink| uplink == link)?;
        Some(u32::try_from(place).unwrap_or(u32::MAX).saturating_add(1).saturating_mul(METRIC_STEP))
    }
}

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Link {
    /// Asks for an address by DHCP. Default true.
    pub dhcp: bool,
    /// Fixed addresses with the length of their network, such as `"192.168.1.5/24"`. At most 8. Default: none.
    #[schemars(length(max = 8))]
    pub addresses: Vec<LinkAddress>,
    /// The router that leads further, in the network of one of `addresses`. Default: what DHCP says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Name servers. At most 4. Default: what DHCP says.
    #[schemars(length(max = 4))]
    pub dns: Vec<IpAddr>,
    /// The Wi-Fi network that this interface joins. Default: it is no Wi-Fi interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wifi: Option<Wifi>,
}

impl Default for Link {
    fn default() -> Self {
        Link { dhcp: true, addresses: Vec::new(), gateway: None, dns: Vec::new(), wifi: None }
    }
}

/// A Wi-Fi network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wifi {
    /// Its name, 1 to 32 bytes.
    #[schemars(length(min = 1, max = 32))]
    pub ssid: String,
    /// Its password of 8 to 63 ASCII characters, or its key as 64 hexadecimal digits. Default: an open network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psk: Option<Secret>,
    /// It does not tell its name by itself. Default false.
    #[serde(default)]
    pub hidden: bool,
}

/// The machine's time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MachineTime {
    /// Time zone, such as `"Europe/Berlin"`. The API tells all times in UTC. Default: as the image has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub zone: Option<String>,
    /// Time servers (NTP), names or addresses. At most 8. Default: the image's, and what DHCP says.
    #[schemars(length(max = 8))]
    pub ntp: Vec<String>,
}

/// An address of an interface, with the length of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkAddress(IpNet);

/// Why a text is no [`LinkAddress`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an address with the length of its network, such as \"192.168.1.5/24\"")]
pub struct LinkAddressError;

impl LinkAddress {
    /// The address and its network.
    pub fn get(&self) -> IpNet {
        self.0
    }
}

impl FromStr for LinkAddress {
    type Err = LinkAddressError;

    fn from_str(text: &str) -> Result<Self, LinkAddressError> {
        text.parse().map(LinkAddress).map_err(|_| LinkAddressError)
    }
}

impl TryFrom<String> for LinkAddress {
    type Error = LinkAddressError;

    fn try_from(text: String) -> Result<Self, LinkAddressError> {
        text.parse()
    }
}

impl From<LinkAddress> for String {
    fn from(address: LinkAddress) -> String {
        address.to_string()
    }
}

impl fmt::Display for LinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl JsonSchema for LinkAddress {
    fn schema_name() -> Cow<'static, str> {
        "LinkAddress".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "fieldgate-link-address",
            "description": "An address with the length of its network, such as \"192.168.1.5/24\".",
        })
    }
}

/// What only shows in context.
pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    check_network(&config.network, problems);
    check_time(&config.time, problems);
}

impl MachineNetwork {
    /// The form **with all secrets**, for the system helper alone.
    pub fn stored(&self) -> Result<Value, StoredError> {
        let mut stored = Config { network: self.clone(), ..Config::default() }.stored()?;
        Ok(stored.get_mut("network").map(Value::take).unwrap_or_default())
    }

    /// Everything that is wrong with it, for whoever shall carry it out: also a secret that is not there.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Config { network: self.clone(), ..Config::default() }.kept_secrets();
        check_network(self, &mut problems);
        problems
    }
}

impl MachineTime {
    /// Everything that is wrong with it.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        check_time(self, &mut problems);
        problems
    }
}

fn check_network(network: &MachineNetwork, problems: &mut Vec<Problem>) {
    let at = Path::root().field("network");
    if let Some(name) = network.hostname.as_ref().filter(|name| !is_label(name)) {
        let text = "must be 1 to 63 of the characters a-z 0-9 -, with no - at its ends";
        problems.push(Problem::new(&at.field("hostname"), text).got(name.as_str()));
    }
    let mut taken: BTreeMap<IpAddr, &str> = BTreeMap::new();
    let mut joined: BTreeSet<&str> = BTreeSet::new();
    if network.links.len() > 16 || network.uplinks.len() > 16 {
        problems.push(Problem::new(&at.field("links"), "must have at most 16 entries"));
    }
    for (name, link) in &network.links {
        let at = at.field("links").field(name);
        if !is_link_name(name) {
            let text = format!(
                "must be the name of a network interface: 1 to {MAX_LINK_LEN} of A-Z a-z 0-9 . _ -, and not lo"
            );
            problems.push(Problem::new(&at, text).got(name.as_str()).remedy("ip link lists them"));
        }
        check_addresses(network, name, link, &at, problems);
        for (index, address) in link.addresses.iter().enumerate() {
            if let Some(other) = taken.insert(address.get().addr(), name) {
                let text = format!("stands there twice, first for {other}");
                let path = at.field("addresses").item(index);
                problems.push(Problem::new(&path, text).got(address.to_string()));
            }
        }
        if let Some(wifi) = &link.wifi {
            check_wifi(wifi, &at.field("wifi"), problems);
            if !joined.insert(&wifi.ssid) {
                let path = at.field("wifi").field("ssid");
                problems.push(Problem::new(&path, "is joined by another interface already"));
            }
        }
    }
    for (index, uplink) in network.uplinks.iter().enumerate() {
        let path = at.field("uplinks").item(index);
        if !network.links.contains_key(uplink) {
            problems.push(Problem::new(&path, "is none of network.links").got(uplink.as_str()));
        }
        if network.uplinks.iter().take(index).any(|earlier| earlier == uplink) {
            problems.push(Problem::new(&path, "stands there twice").got(uplink.as_str()));
        }
    }
}

fn check_addresses(
    network: &MachineNetwork,
    name: &str,
    link: &Link,
    at: &Path,
    problems: &mut Vec<Problem>,
) {
    if !link.dhcp && link.addresses.is_empty() {
        let problem = Problem::new(&at.field("addresses"), "is needed without dhcp");
        problems.push(problem.remedy("say one, such as \"192.168.1.5/24\", or dhcp true"));
    }
    if link.addresses.len() > 8 || link.dns.len() > 4 {
        problems.push(Problem::new(at, "must have at most 8 addresses and 4 name servers"));
    }
    for (index, address) in link.addresses.iter().enumerate() {
        let (ip, net) = (address.get().addr(), address.get());
        let is_wide = net.prefix_len() == 0;
        // The first and the last address of a network are the network itself and everybody in it.
        let is_whole = matches!(net, IpNet::V4(net) if net.prefix_len() < 31 && (net.addr() == net.network() || net.addr() == net.broadcast()));
        if !is_host(ip) || is_wide || is_whole {
            let path = at.field("addresses").item(index);
            problems.push(Problem::new(&path, "is no address that a host can have").got(address.to_string()));
        }
    }
    for (index, server) in link.dns.iter().enumerate().filter(|(_, server)| !is_host(**server)) {
        let path = at.field("dns").item(index);
        problems.push(Problem::new(&path, "is no address that a host can have").got(server.to_string()));
    }
    let Some(gateway) = link.gateway else { return };
    let path = at.field("gateway");
    let in_reach = |address: &LinkAddress| address.get().contains(&gateway);
    if !network.uplinks.iter().any(|uplink| uplink == name) {
        let problem = Problem::new(&path, "only an uplink has one").got(gateway.to_string());
        problems.push(problem.remedy(format!("add {name} to network.uplinks")));
    } else if !link.addresses.iter().any(in_reach) {
        let problem = Problem::new(&path, "is in no network of this interface's addresses");
        problems.push(problem.got(gateway.to_string()));
    } else if link.addresses.iter().any(|address| address.get().addr() == gateway) || !is_host(gateway) {
        problems.push(Problem::new(&path, "must be another host's address").got(gateway.to_string()));
    }
}

fn check_wifi(wifi: &Wifi, at: &Path, problems: &mut Vec<Problem>) {
    if wifi.ssid.is_empty() || wifi.ssid.len() > MAX_SSID_LEN || wifi.ssid.chars().any(char::is_control) {
        let text = format!("must be 1 to {MAX_SSID_LEN} bytes without control characters");
        problems.push(Problem::new(&at.field("ssid"), text).got(wifi.ssid.as_str()));
    }
    let is_good = |psk: &str| {
        let is_ascii = psk.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        is_ascii && (8..=63).contains(&psk.len()) || is_key(psk)
    };
    if wifi.psk.as_ref().is_some_and(|psk| !psk.is_kept() && !is_good(psk.reveal())) {
        let text = "must have 8 to 63 ASCII characters, or be 64 hexadecimal digits";
        problems.push(Problem::new(&at.field("psk"), text));
    }
}

fn check_time(time: &MachineTime, problems: &mut Vec<Problem>) {
    let at = Path::root().field("time");
    if let Some(zone) = time.zone.as_ref().filter(|zone| !is_zone(zone)) {
        let text = "must be the name of a time zone, such as \"Europe/Berlin\" or \"UTC\"";
        problems.push(Problem::new(&at.field("zone"), text).got(zone.as_str()));
    }
    if time.ntp.len() > 8 {
        problems.push(Problem::new(&at.field("ntp"), "must have at most 8 entries"));
    }
    for (index, server) in time.ntp.iter().enumerate() {
        let labels = server.split('.').all(|label| is_label(&label.to_ascii_lowercase()));
        let is_good = match server.parse::<IpAddr>() {
            Ok(address) => is_host(address),
            Err(_) => server.len() <= 253 && labels,
        };
        if !is_good {
            let path = at.field("ntp").item(index);
            problems.push(Problem::new(&path, "must be a host's name or address").got(server.as_str()));
        }
    }
}

/// Whether a password is a key in hexadecimal digits, as no password can be.
pub fn is_key(psk: &str) -> bool {
    psk.len() == 64 && psk.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_label(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(is_plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// No character of it means anything to networkd, iwd or a file system.
fn is_link_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let is_reserved = matches!(text, "lo" | "all" | "default") || text.starts_with(['.', '-']);
    (1..=MAX_LINK_LEN).contains(&text.len()) && text.bytes().all(is_plain) && !is_reserved
}

fn is_host(address: IpAddr) -> bool {
    let is_everybody = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback() && !is_everybody
}

fn is_zone(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-');
    text.len() <= 64 && text.split('/').all(|part| !part.is_empty() && part.bytes().all(is_plain))
}

#[cfg(test)]
mod tests;
