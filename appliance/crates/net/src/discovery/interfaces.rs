//! The network interfaces to look on, and whose answers on them are believed to be a camera's.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

/// Most interfaces that are looked on.
pub(super) const MAX_INTERFACES: usize = 16;

/// The address of the metadata service of clouds, which hands secrets to whoever asks from inside.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// One IPv4 address of a network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Such as `eth0`.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its network's mask.
    pub netmask: Ipv4Addr,
}

impl Interface {
    /// Whether `address` is in its network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let mask = self.netmask.to_bits();
        self.address.to_bits() & mask == address.to_bits() & mask
    }
}

/// The interfaces of these names, or all but loopback if none is named. Those that are down have no address and are
/// left out.
pub(super) fn list(names: &[String]) -> io::Result<Vec<Interface>> {
    let mut found = Vec::new();
    for interface in if_addrs::get_if_addrs()? {
        let if_addrs::IfAddr::V4(address) = &interface.addr else { continue };
        let is_wanted =
            if names.is_empty() { !address.ip.is_loopback() } else { names.contains(&interface.name) };
        if is_wanted && found.len() < MAX_INTERFACES {
            found.push(Interface {
                name: interface.name.clone(),
                address: address.ip,
                netmask: address.netmask,
            });
        }
    }
    Ok(found)
}

/// Whether something at `address` may be taken for a camera and asked: one machine, not ourselves, not a place where
/// secrets are handed out. Loopback only if loopback itself is looked on.
pub fn may_be_camera(address: IpAddr, interfaces: &[Interface]) -> bool {
    let IpAddr::V4(address) = address.to_canonical() else { return false };
    let looks_on_loopback = interfaces.iter().any(|interface| interface.address.is_loopback());
    if address.is_loopback() {
        return looks_on_loopback;
    }
    let is_own = interfaces.iter().any(|interface| interface.address == address);
    let is_broadcast = interfaces.iter().any(|interface| {
        let mask = interface.netmask.to_bits();
        interface.contains(address) && mask != u32::MAX && address.to_bits() | mask == u32::MAX
    });
    let [first, ..] = address.octets();
    !(is_own
        || is_broadcast
        || address == METADATA
        || address.is_multicast()
        || address.is_broadcast()
        || first == 0
        || first >= 240)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, address: &str, netmask: &str) -> Interface {
        Interface {
            name: name.to_owned(),
            address: address.parse().unwrap(),
            netmask: netmask.parse().unwrap(),
        }
    }

    #[test]
    fn loopback_is_listed_only_by_name() {
        assert!(list(&[]).unwrap().iter().all(|interface| !interface.address.is_loopback()));
        let named = list(&["lo".to_owned()]).unwrap();
        assert!(named.iter().all(|interface| interface.address.is_loopback()) && !named.is_empty());
        assert_eq!(list(&["no-such".to_owned()]).unwrap(), []);
    }

    #[test]
    fn what_can_be_no_camera_is_never_asked() {
        let lan = [interface("eth0", "10.0.0.1", "255.255.255.0")];
        for address in [
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "10.0.0.1",
            "10.0.0.255",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "224.0.0.251",
            "255.255.255.255",
            "0.0.0.0",
            "240.0.0.1",
            "2001:db8::1",
        ] {
            assert!(!may_be_camera(address.parse().unwrap(), &lan), "{address}");
        }
        for address in ["10.0.0.7", "192.168.1.64", "169.254.10.20", "::ffff:10.0.0.7"] {
            assert!(may_be_camera(address.parse().unwrap(), &lan), "{address}");
        }
        let loopback = [interface("lo", "127.0.0.1", "255.0.0.0")];
        assert!(may_be_camera("127.0.0.9".parse().unwrap(), &loopback));
    }
}
