//! What the machine's network and time are at this moment, as far as anybody may read it.

use super::State;
use fieldgate_model::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// Interfaces, routes and name servers that are told at most.
const MAX_TOLD: usize = 64;
/// Where the kernel and systemd say it.
const SYS: &str = "/sys/class/net";
const ROUTES: &str = "/proc/net/route";
const ROUTES_6: &str = "/proc/net/ipv6_route";
const NAME_SERVERS: [&str; 2] = ["/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"];

/// The machine's network, as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "NetworkFacts")]
pub struct Facts {
    /// The machine's name.
    pub hostname: String,
    /// Its interfaces by name, but loopback. At most 64.
    pub links: BTreeMap<String, LinkFacts>,
    /// Ways to the rest of the world, the preferred first. At most 64.
    pub routes: Vec<Route>,
    /// Name servers. At most 64.
    pub dns: Vec<IpAddr>,
    /// Where the local networks are told that the page is, such as `https://fieldgate-7f3a.local:8443/`.
    pub announced: Vec<String>,
    /// Whether this is what the config says.
    pub config: State,
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LinkFacts {
    /// Whether something is at the other end; absent if the interface is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carrier: Option<bool>,
    /// Hardware address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Megabits a second, where the interface knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed_mbit: Option<u32>,
    /// Whether it is a Wi-Fi interface.
    pub wifi: bool,
    /// Its addresses with the length of their network.
    pub addresses: Vec<String>,
}

/// A way to the rest of the world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "NetworkRoute")]
pub struct Route {
    /// Through this interface.
    pub link: String,
    /// By this router; absent where the far end is the only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Lower is preferred.
    pub metric: u32,
}

/// The machine's time, as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TimeFacts {
    /// Now, in UTC.
    pub now: Timestamp,
    /// The machine's time zone.
    pub zone: String,
    /// Whether a time server has set the clock since the machine's start; absent where nobody says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synchronised: Option<bool>,
    /// Whether zone and servers are what the config says.
    pub config: State,
}

impl Facts {
    /// As of now.
    pub fn now(config: State, announced: Vec<String>) -> Facts {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let mut routes = routes_of(&read(ROUTES));
        routes.extend(routes_6_of(&read(ROUTES_6)));
        routes.sort_by(|one, other| (one.metric, &one.link).cmp(&(other.metric, &other.link)));
        routes.truncate(MAX_TOLD);
        let servers = NAME_SERVERS.iter().find_map(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Facts { hostname, links: links(Path::new(SYS)), routes, dns: servers_of(&servers), announced, config }
    }
}

impl TimeFacts {
    /// As of `now`.
    pub fn at(now: Timestamp, config: State) -> TimeFacts {
        let link = fs::read_link("/etc/localtime").ok();
        let zone =
            link.as_ref().and_then(|link| link.to_str()?.split_once("zoneinfo/").map(|(_, zone)| zone));
        let folder = Path::new("/run/systemd/timesync");
        TimeFacts {
            now,
            zone: zone.unwrap_or("UTC").to_owned(),
            synchronised: folder.is_dir().then(|| folder.join("synchronized").exists()),
            config,
        }
    }
}

fn links(sys: &Path) -> BTreeMap<String, LinkFacts> {
    let mut links = BTreeMap::new();
    for entry in fs::read_dir(sys).into_iter().flatten().flatten().take(MAX_TOLD) {
        let (name, folder) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        if name == "lo" {
            continue;
        }
        let read = |file: &str| fs::read_to_string(folder.join(file)).ok().map(|text| text.trim().to_owned());
        links.insert(
            name,
            LinkFacts {
                carrier: read("carrier").map(|text| text == "1"),
                mac: read("address").filter(|mac| mac.len() == 17 && mac != "00:00:00:00:00:00"),
                speed_mbit: read("speed").and_then(|text| text.parse().ok()).filter(|speed| *speed > 0),
                wifi: folder.join("wireless").exists() || folder.join("phy80211").exists(),
                addresses: Vec::new(),
            },
        );
    }
    for interface in if_addrs::get_if_addrs().unwrap_or_default() {
        let length = match &interface.addr {
            if_addrs::IfAddr::V4(address) => address.prefixlen,
            if_addrs::IfAddr::V6(address) => address.prefixlen,
        };
        if let Some(link) = links.get_mut(&interface.name)
            && link.addresses.len() < MAX_TOLD
        {
            link.addresses.push(format!("{}/{length}", interface.ip()));
        }
    }
    links
}

/// Ways that lead everywhere. Source: `/proc/net/route`, numbers in hexadecimal, addresses as they lie in memory.
fn routes_of(text: &str) -> Vec<Route> {
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [link, to, gateway, flags, _, _, metric, mask, ..] = fields.as_slice() else { return None };
        let is_up = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
        if *to != "00000000" || *mask != "00000000" || !is_up {
            return None;
        }
        let gateway = Ipv4Addr::from(u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes());
        let gateway = (!gateway.is_unspecified()).then_some(IpAddr::V4(gateway));
        Some(Route { link: (*link).to_owned(), gateway, metric: metric.parse().ok()? })
    };
    text.lines().skip(1).filter_map(route).collect()
}

/// The same of IPv6. Source: `/proc/net/ipv6_route`.
fn routes_6_of(text: &str) -> Vec<Route> {
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [to, length, _, _, gateway, metric, _, _, flags, link] = fields.as_slice() else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        // Loopback's is one that refuses (`RTF_REJECT`).
        if to.bytes().any(|byte| byte != b'0') || *length != "00" || flags & 1 == 0 || flags & 0x200 != 0 {
            return None;
        }
        let gateway = Ipv6Addr::from(u128::from_str_radix(gateway, 16).ok()?);
        let gateway = (!gateway.is_unspecified()).then_some(IpAddr::V6(gateway));
        let metric = u32::from_str_radix(metric, 16).ok()?;
        Some(Route { link: (*link).to_owned(), gateway, metric })
    };
    text.lines().filter_map(route).collect()
}

fn servers_of(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok());
    servers.take(MAX_TOLD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ways_that_lead_everywhere_are_told() {
        let text = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
            eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            ppp0\t00000000\t00000000\t0001\t0\t0\t700\t00000000\t0\t0\t0\n\
            odd\n";
        let routes = routes_of(text);
        let told: Vec<(&str, u32)> = routes.iter().map(|it| (it.link.as_str(), it.metric)).collect();
        assert_eq!(told, [("eth0", 100), ("ppp0", 700)]);
        if cfg!(target_endian = "little") {
            assert_eq!(routes[0].gateway, Some("192.168.1.1".parse().unwrap()));
        }
        assert_eq!(routes[1].gateway, None);
        let zero = "0".repeat(32);
        let router = "fe800000000000000000000000000001";
        let line = |to: &str, flags: &str| format!("{to} 00 {zero} 00 {router} 00000064 1 0 {flags} eth0\n");
        let text = line(&zero, "00000003") + &line(&zero, "00200200") + &line(router, "00000003");
        assert_eq!(
            routes_6_of(&text),
            [Route { link: "eth0".to_owned(), gateway: Some("fe80::1".parse().unwrap()), metric: 100 }]
        );
    }

    #[test]
    fn name_servers_are_read_and_odd_lines_are_not() {
        let text = "# made\nnameserver 9.9.9.9\nsearch lan\n nameserver fe80::1%eth0\nnameserver ::2\n";
        assert_eq!(servers_of(text), ["9.9.9.9", "::2"].map(|it| it.parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn this_machine_has_facts() {
        let facts = Facts::now(State::Untouched, Vec::new());
        assert!(!facts.hostname.is_empty() && !facts.links.contains_key("lo"));
    }
}
