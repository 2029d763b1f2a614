//! Who has guessed wrong lately must wait. Pure: time is handed in.
//!
//! Counted by address alone, never by account: whoever guesses elsewhere cannot keep the owner out. An IPv6 network of 64
//! bits is one address, as each of its hosts can take any in it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;
use tokio::time::Instant;

/// Wrong tries without a wait after them.
pub(super) const FREE_TRIES: u32 = 5;
/// The first wait; each further wrong try doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(10);
/// The longest wait.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(900);
/// An address without a wrong try for this long is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(3_600);
/// Most addresses that are remembered.
const ADDRESSES_MAX: usize = 2_048;

/// How long somebody must wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many wrong tries from this address; try again in {} s", self.seconds())]
pub struct Wait(Duration);

impl Wait {
    /// Whole seconds, at least one.
    pub fn seconds(&self) -> u64 {
        self.0.as_secs().saturating_add(1)
    }
}

/// Wrong tries by address.
#[derive(Default)]
pub(super) struct Lockout {
    by_address: HashMap<IpAddr, Tries>,
}

#[derive(Clone, Copy)]
struct Tries {
    wrong: u32,
    last: Instant,
}

impl Tries {
    fn wait(&self, now: Instant) -> Option<Wait> {
        let beyond = self.wrong.checked_sub(FREE_TRIES)?;
        let wait = FIRST_WAIT.saturating_mul(1_u32 << beyond.min(10)).min(LONGEST_WAIT);
        let left = wait.saturating_sub(now.saturating_duration_since(self.last));
        (!left.is_zero()).then_some(Wait(left))
    }

    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= FORGET_AFTER
    }
}

impl Lockout {
    /// Whether this address may try now.
    pub(super) fn check(&self, address: IpAddr, now: Instant) -> Result<(), Wait> {
        match self.by_address.get(&network(address)).filter(|tries| !tries.is_old(now)) {
            Some(tries) => tries.wait(now).map_or(Ok(()), Err),
            None => Ok(()),
        }
    }

    /// Begins a try. It counts as a wrong one until [`Lockout::was_right`], so that many at once are no way around.
    pub(super) fn begin(&mut self, address: IpAddr, now: Instant) -> Result<(), Wait> {
        self.check(address, now)?;
        let address = network(address);
        if self.by_address.len() >= ADDRESSES_MAX && !self.by_address.contains_key(&address) {
            self.by_address.retain(|_, tries| !tries.is_old(now));
            self.forget_mildest();
        }
        let tries = self.by_address.entry(address).or_insert(Tries { wrong: 0, last: now });
        if tries.is_old(now) {
            tries.wrong = 0;
        }
        *tries = Tries { wrong: tries.wrong.saturating_add(1), last: now };
        Ok(())
    }

    /// The try that was begun was right. Wrong ones before it still count: who has one account cannot use it to guess
    /// another's password.
    pub(super) fn was_right(&mut self, address: IpAddr) {
        let address = network(address);
        if let Some(tries) = self.by_address.get_mut(&address) {
            tries.wrong = tries.wrong.saturating_sub(1);
            if tries.wrong == 0 {
                self.by_address.remove(&address);
            }
        }
    }

    fn forget_mildest(&mut self) {
        if self.by_address.len() < ADDRESSES_MAX {
            return;
        }
        let mildest = self.by_address.iter().min_by_key(|(_, tries)| (tries.wrong, tries.last));
        if let Some(address) = mildest.map(|(address, _)| *address) {
            self.by_address.remove(&address);
        }
    }
}

/// What counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn waits_double_up_to_the_longest_and_are_forgotten_in_the_end() {
        let (mut lockout, mut now) = (Lockout::default(), Instant::now());
        for _ in 0..FREE_TRIES {
            assert_eq!(lockout.begin(address(1), now), Ok(()));
        }
        for secs in [10, 20, 40, 80, 160, 320, 640, 900, 900, 900] {
            let wait = lockout.begin(address(1), now).unwrap_err();
            assert_eq!(wait, Wait(Duration::from_secs(secs)));
            assert!(wait.seconds() > 0);
            now += Duration::from_secs(secs);
            assert_eq!(lockout.begin(address(1), now), Ok(()), "after {secs} s");
        }
        now += FORGET_AFTER;
        for _ in 0..FREE_TRIES {
            assert_eq!(lockout.begin(address(1), now), Ok(()));
        }
    }

    #[test]
    fn nobody_else_waits() {
        let (mut lockout, now) = (Lockout::default(), Instant::now());
        while lockout.begin(address(1), now).is_ok() {}
        assert_eq!(lockout.begin(address(2), now), Ok(()));
    }

    #[test]
    fn a_right_try_does_not_wipe_out_wrong_ones() {
        let (mut lockout, now) = (Lockout::default(), Instant::now());
        for _ in 0..100 {
            lockout.begin(address(1), now).unwrap();
            lockout.was_right(address(1));
        }
        for _ in 0..FREE_TRIES - 1 {
            lockout.begin(address(1), now).unwrap();
            lockout.begin(address(1), now).unwrap();
            lockout.was_right(address(1));
        }
        lockout.begin(address(1), now).unwrap();
        assert!(lockout.begin(address(1), now).is_err());
    }

    #[test]
    fn hosts_of_one_ipv6_network_count_as_one_and_mapped_ones_as_ipv4() {
        let (mut lockout, now) = (Lockout::default(), Instant::now());
        for host in 0..u128::from(FREE_TRIES) {
            let address = Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) + host);
            lockout.begin(address.into(), now).unwrap();
        }
        assert!(lockout.check("2001:db8::ffff".parse().unwrap(), now).is_err());
        assert!(lockout.check("2001:db8:0:1::".parse().unwrap(), now).is_ok());
        while lockout.begin(address(1), now).is_ok() {}
        assert!(lockout.check("::ffff:10.0.0.1".parse().unwrap(), now).is_err());
    }

    #[test]
    fn many_addresses_take_no_more_memory_and_free_no_one_who_is_locked_out() {
        let (mut lockout, now) = (Lockout::default(), Instant::now());
        while lockout.begin(address(1), now).is_ok() {}
        for number in 0..10_000_u32 {
            lockout.begin(IpAddr::from((0x0b00_0000 + number).to_be_bytes()), now).unwrap();
        }
        assert!(lockout.by_address.len() <= ADDRESSES_MAX);
        assert!(lockout.check(address(1), now).is_err());
    }
}
