//! Who may hold a connection to the admin plane, and who gives way when there are more than it takes.
//!
//! A connection that has not said yet what it wants gives way to one from an address that holds fewer: a stranger with a
//! few addresses and many idle connections cannot keep the owner out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// How busy the admin plane is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Open connections.
    pub connections: usize,
    /// Connections refused, or closed for others, because there were too many.
    pub refused: u64,
}

/// All slots.
pub(super) struct Slots {
    connections: usize,
    per_address: usize,
    held: Mutex<Held>,
    refused: AtomicU64,
}

#[derive(Default)]
struct Held {
    by_address: HashMap<IpAddr, usize>,
    total: usize,
    /// Our own probes, by their port: they get in when nobody else does.
    reserved: HashSet<SocketAddr>,
    /// Those that have not said yet what they want, oldest first.
    waiting: BTreeMap<u64, (IpAddr, CancellationToken)>,
    next: u64,
}

impl Held {
    fn of(&self, address: IpAddr) -> usize {
        self.by_address.get(&address).copied().unwrap_or(0)
    }

    fn release(&mut self, address: IpAddr) {
        self.total -= 1;
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }

    /// Closes the oldest waiting connection of the address that holds most, if that holds more than `address`.
    fn evict_for(&mut self, address: IpAddr) -> bool {
        let most =
            self.waiting.iter().max_by_key(|(number, (of, _))| (self.of(*of), std::cmp::Reverse(**number)));
        let Some((&number, &(of, _))) = most else { return false };
        if self.of(of) <= self.of(address) {
            return false;
        }
        if let Some((_, evicted)) = self.waiting.remove(&number) {
            evicted.cancel();
            self.release(of);
        }
        true
    }
}

/// Frees what it stands for when it goes.
pub(super) struct Slot {
    slots: Arc<Slots>,
    kind: Kind,
}

enum Kind {
    Client { address: IpAddr, number: u64, evicted: CancellationToken },
    Reservation(SocketAddr),
    Probe,
}

impl Slots {
    /// For so many connections in all, and from one address.
    pub(super) fn new(connections: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Slots { connections, per_address, held: Mutex::default(), refused: AtomicU64::new(0) })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections now, without our own probes, and those refused since the start.
    pub(super) fn load(&self) -> Load {
        Load { connections: self.held().total, refused: self.refused.load(Ordering::Relaxed) }
    }

    /// Keeps a slot for a connection from this address.
    pub(super) fn reserve(self: &Arc<Self>, from: SocketAddr) -> Slot {
        self.held().reserved.insert(from);
        Slot { slots: self.clone(), kind: Kind::Reservation(from) }
    }

    /// A slot for a connection, if there is one.
    pub(super) fn admit(self: &Arc<Self>, peer: SocketAddr) -> Option<Slot> {
        let mut held = self.held();
        if held.reserved.contains(&peer) {
            return Some(Slot { slots: self.clone(), kind: Kind::Probe });
        }
        let address = peer.ip().to_canonical();
        let is_full = held.total >= self.connections;
        if held.of(address) >= self.per_address || (is_full && !held.evict_for(address)) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if is_full {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        *held.by_address.entry(address).or_default() += 1;
        held.total += 1;
        let (number, evicted) = (held.next, CancellationToken::new());
        held.next += 1;
        held.waiting.insert(number, (address, evicted.clone()));
        Some(Slot { slots: self.clone(), kind: Kind::Client { address, number, evicted } })
    }
}

impl Slot {
    /// The connection has said what it wants: it does not give way any more.
    pub(super) fn keep(&self) {
        if let Kind::Client { number, .. } = &self.kind {
            self.slots.held().waiting.remove(number);
        }
    }

    /// Ends when the connection must give way.
    pub(super) async fn evicted(&self) {
        match &self.kind {
            Kind::Client { evicted, .. } => evicted.cancelled().await,
            Kind::Reservation(_) | Kind::Probe => std::future::pending().await,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = self.slots.held();
        match &self.kind {
            Kind::Probe => {}
            Kind::Reservation(from) => {
                held.reserved.remove(from);
            }
            // One that gave way was counted out then.
            Kind::Client { evicted, .. } if evicted.is_cancelled() => {}
            Kind::Client { address, number, .. } => {
                held.waiting.remove(number);
                held.release(*address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(host: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], port))
    }

    fn is_evicted(slot: &Slot) -> bool {
        matches!(&slot.kind, Kind::Client { evicted, .. } if evicted.is_cancelled())
    }

    #[test]
    fn an_address_gets_its_share_and_no_more() {
        let slots = Slots::new(4, 2);
        let held: Vec<Slot> = (0..2).map(|port| slots.admit(peer(1, port)).unwrap()).collect();
        assert!(slots.admit(peer(1, 9)).is_none());
        assert!(slots.admit(peer(2, 9)).is_some());
        drop(held);
        assert_eq!(slots.load(), Load { connections: 0, refused: 1 });
        assert!(slots.admit(peer(1, 9)).is_some());
    }

    #[test]
    fn idle_connections_of_who_holds_most_give_way_the_oldest_first() {
        let slots = Slots::new(6, 3);
        let of_one: Vec<Slot> = (0..3).map(|port| slots.admit(peer(1, port)).unwrap()).collect();
        let of_two: Vec<Slot> = (0..3).map(|port| slots.admit(peer(2, port)).unwrap()).collect();
        of_one[0].keep();
        let owner = slots.admit(peer(3, 1)).expect("somebody gives way");
        let gone = |of: &[Slot]| of.iter().map(is_evicted).collect::<Vec<_>>();
        assert_eq!(gone(&of_one), [false, true, false], "the oldest that has not said what it wants");
        assert_eq!(slots.load(), Load { connections: 6, refused: 1 });
        let _second = slots.admit(peer(3, 2)).expect("and again");
        assert_eq!(gone(&of_two), [true, false, false], "of who holds most by now");
        drop((of_one, of_two, owner));
        assert_eq!(slots.load().connections, 1, "each is counted out once");
    }

    #[test]
    fn nobody_gives_way_to_his_equal_or_while_he_is_served() {
        let slots = Slots::new(2, 2);
        let (one, two) = (slots.admit(peer(1, 1)).unwrap(), slots.admit(peer(2, 1)).unwrap());
        assert!(slots.admit(peer(1, 2)).is_none(), "who holds as many must wait");
        one.keep();
        two.keep();
        assert!(slots.admit(peer(3, 1)).is_none());
        assert_eq!(slots.load().refused, 2);
        let _reserved = slots.reserve(peer(9, 9));
        assert!(slots.admit(peer(9, 9)).is_some(), "our own probe always");
    }
}
