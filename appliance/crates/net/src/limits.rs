//! How many connections a listener takes, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts the open connections of a listener. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct ConnectionLimits(Arc<Inner>);

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too many in all.
    #[error("all {max} connections of this listener are taken: close some, or raise max_connections")]
    Total {
        /// The limit.
        max: usize,
    },
    /// Too many from this peer.
    #[error(
        "{address} (an IPv6 peer: its /64 network) already has {max} connections: close some, or raise max_connections_per_address"
    )]
    PerAddress {
        /// The peer, IPv4 written as such.
        address: IpAddr,
        /// The limit.
        max: usize,
    },
}

/// What has been counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// Connections that are open now.
    pub open: usize,
    /// Refused since the start because all were taken.
    pub refused_total: u64,
    /// Refused since the start because of their address.
    pub refused_per_address: u64,
}

/// The right to one connection; dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    inner: Arc<Inner>,
    peer: Peer,
}

#[derive(Debug)]
struct Inner {
    max_total: AtomicUsize,
    max_per_address: AtomicUsize,
    open: Mutex<Open>,
    refused_total: AtomicU64,
    refused_per_address: AtomicU64,
}

/// No more entries than open connections.
#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_peer: HashMap<Peer, usize>,
}

/// Who counts as one peer: an IPv4 address, or the /64 in which an IPv6 host picks its addresses at will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Peer {
    V4([u8; 4]),
    V6Network([u16; 4]),
}

impl Peer {
    /// `address` must be canonical: the IPv4-mapped addresses all lie in one /64.
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Peer::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Peer::V6Network([a, b, c, d])
            }
        }
    }
}

impl ConnectionLimits {
    /// At most `max_total` connections at a time, at most `max_per_address` of them from one peer.
    pub fn new(max_total: usize, max_per_address: usize) -> Self {
        ConnectionLimits(Arc::new(Inner {
            max_total: AtomicUsize::new(max_total),
            max_per_address: AtomicUsize::new(max_per_address),
            open: Mutex::default(),
            refused_total: AtomicU64::new(0),
            refused_per_address: AtomicU64::new(0),
        }))
    }

    /// Changes the limits. Connections that are open stay, also over the new limits.
    pub fn set(&self, max_total: usize, max_per_address: usize) {
        self.0.max_total.store(max_total, Ordering::Relaxed);
        self.0.max_per_address.store(max_per_address, Ordering::Relaxed);
    }

    /// Takes a place for a connection from `address`, or says why there is none. Any thread; never waits long.
    pub fn admit(&self, address: IpAddr) -> Result<Permit, Refusal> {
        let inner = &self.0;
        let address = address.to_canonical();
        let peer = Peer::of(address);
        let mut open = inner.open.lock().unwrap_or_else(PoisonError::into_inner);
        // The peer's own limit first: whoever opens too many is told so, even when he has taken all places.
        let max = inner.max_per_address.load(Ordering::Relaxed);
        if open.by_peer.get(&peer).copied().unwrap_or(0) >= max {
            inner.refused_per_address.fetch_add(1, Ordering::Relaxed);
            return Err(Refusal::PerAddress { address, max });
        }
        let max = inner.max_total.load(Ordering::Relaxed);
        if open.total >= max {
            inner.refused_total.fetch_add(1, Ordering::Relaxed);
            return Err(Refusal::Total { max });
        }
        open.total += 1;
        *open.by_peer.entry(peer).or_default() += 1;
        Ok(Permit { inner: inner.clone(), peer })
    }

    /// For the status and metrics.
    pub fn counts(&self) -> ConnectionCounts {
        ConnectionCounts {
            open: self.0.open.lock().unwrap_or_else(PoisonError::into_inner).total,
            refused_total: self.0.refused_total.load(Ordering::Relaxed),
            refused_per_address: self.0.refused_per_address.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.inner.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        if let Some(count) = open.by_peer.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                open.by_peer.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_past_the_total_is_refused_and_counted() {
        let limits = ConnectionLimits::new(2, 10);
        let _a = limits.admit(ip("192.0.2.1")).unwrap();
        let _b = limits.admit(ip("192.0.2.2")).unwrap();
        assert_eq!(limits.admit(ip("192.0.2.3")).unwrap_err(), Refusal::Total { max: 2 });
        assert_eq!(limits.counts(), ConnectionCounts { open: 2, refused_total: 1, refused_per_address: 0 });
    }

    #[test]
    fn one_past_an_addresss_share_is_refused_while_others_come_in() {
        let limits = ConnectionLimits::new(10, 2);
        let _held: Vec<_> = (0..2).map(|_| limits.admit(ip("192.0.2.1")).unwrap()).collect();
        let refusal = limits.admit(ip("192.0.2.1")).unwrap_err();
        assert_eq!(refusal, Refusal::PerAddress { address: ip("192.0.2.1"), max: 2 });
        assert!(refusal.to_string().contains("max_connections_per_address"));
        assert!(limits.admit(ip("192.0.2.2")).is_ok());
        assert_eq!(limits.counts().refused_per_address, 1);
    }

    #[test]
    fn a_dropped_permit_gives_its_place_back_and_leaves_nothing_behind() {
        let limits = ConnectionLimits::new(1, 1);
        for _ in 0..100 {
            let permit = limits.admit(ip("2001:db8::1")).unwrap();
            assert!(limits.admit(ip("2001:db8::1")).is_err());
            drop(permit);
        }
        assert_eq!(limits.counts().open, 0);
        assert!(limits.0.open.lock().unwrap().by_peer.is_empty());
    }

    #[test]
    fn lowered_limits_leave_open_connections_and_hold_for_new_ones() {
        let limits = ConnectionLimits::new(10, 10);
        let held: Vec<_> = (0..3).map(|_| limits.admit(ip("192.0.2.1")).unwrap()).collect();
        limits.set(2, 1);
        assert_eq!(limits.counts().open, 3);
        assert_eq!(limits.admit(ip("192.0.2.2")).unwrap_err(), Refusal::Total { max: 2 });
        drop(held);
        let _one = limits.admit(ip("192.0.2.1")).unwrap();
        assert!(matches!(limits.admit(ip("192.0.2.1")), Err(Refusal::PerAddress { max: 1, .. })));
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let limits = ConnectionLimits::new(10, 1);
        let _held = limits.admit(ip("2001:db8:1:2::1")).unwrap();
        assert!(limits.admit(ip("2001:db8:1:2:ffff::9")).is_err());
        assert!(limits.admit(ip("2001:db8:1:3::1")).is_ok());
    }

    #[test]
    fn ipv4_mapped_addresses_count_as_the_ipv4_address_they_are() {
        let limits = ConnectionLimits::new(10, 1);
        let _held = limits.admit(ip("::ffff:192.0.2.1")).unwrap();
        let refusal = limits.admit(ip("192.0.2.1")).unwrap_err();
        assert_eq!(refusal, Refusal::PerAddress { address: ip("192.0.2.1"), max: 1 });
        assert!(limits.admit(ip("::ffff:192.0.2.2")).is_ok());
    }

    #[test]
    fn the_limits_hold_while_threads_race() {
        let limits = ConnectionLimits::new(8, 3);
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let limits = limits.clone();
                scope.spawn(move || {
                    for round in 0..2_000u16 {
                        let address = IpAddr::from([192, 0, 2, thread % 3]);
                        let permit = limits.admit(address);
                        let more = (round % 3 == 0).then(|| limits.admit(address));
                        let open = limits.0.open.lock().unwrap();
                        assert!(open.total <= 8 && open.by_peer.values().all(|count| *count <= 3));
                        drop(open);
                        drop((permit, more));
                    }
                });
            }
        });
        assert_eq!(limits.counts().open, 0);
    }
}
