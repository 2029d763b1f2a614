//! Which of a host's addresses answers first: Happy Eyeballs.
//!
//! Source: RFC 8305, sections 4 (interleaving) and 5 (staggered attempts). The resolver answers for both families at
//! once, so section 3's resolution delay has no place here.

use std::collections::{HashSet, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The pause before the next address is tried beside those that have not answered yet.
/// Source: RFC 8305, section 8, "Connection Attempt Delay".
pub(super) const STAGGER: Duration = Duration::from_millis(250);

/// The most addresses that are tried; a DNS answer may hold hundreds.
pub(super) const MAX_ADDRESSES: usize = 16;

/// Orders `resolved` for the race: families take turns, the resolver's first choice goes first, each address once,
/// at most [`MAX_ADDRESSES`].
pub(super) fn interleave(resolved: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v6 = resolved.first().is_some_and(SocketAddr::is_ipv6);
    let mut seen = HashSet::new();
    let (preferred, other): (Vec<_>, Vec<_>) = resolved
        .into_iter()
        .filter(|address| seen.insert(*address))
        .partition(|a| a.is_ipv6() == first_is_v6);
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    let mut ordered = VecDeque::new();
    while ordered.len() < MAX_ADDRESSES {
        let before = ordered.len();
        ordered.extend(preferred.next());
        ordered.extend(other.next());
        if ordered.len() == before {
            break;
        }
    }
    ordered.truncate(MAX_ADDRESSES);
    ordered
}

/// Connects to the first of `addresses` that answers and drops all other attempts.
///
/// The next attempt starts when one fails, or after [`STAGGER`]. Each failure is added to `failures`, also when the
/// race is dropped before its end; `None` when all have failed.
pub(super) async fn race<F, T>(
    mut addresses: VecDeque<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
    failures: &mut Vec<(SocketAddr, io::Error)>,
) -> Option<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut running: Vec<(SocketAddr, Pin<Box<F>>)> = Vec::new();
    loop {
        if let Some(address) = addresses.pop_front() {
            running.push((address, Box::pin(connect(address))));
        } else if running.is_empty() {
            return None;
        }
        let next_start = Instant::now() + STAGGER;
        tokio::select! {
            biased;
            (address, outcome) = next_done(&mut running) => match outcome {
                Ok(connected) => return Some(connected),
                Err(error) => failures.push((address, error)),
            },
            () = sleep_until(next_start), if !addresses.is_empty() => {}
        }
    }
}

/// Waits for the first of `running` to end and takes it out. `running` must not be empty.
async fn next_done<F, T>(running: &mut Vec<(SocketAddr, Pin<Box<F>>)>) -> (SocketAddr, T)
where
    F: Future<Output = T>,
{
    poll_fn(|context| {
        let done = running.iter_mut().enumerate().find_map(|(index, (_, attempt))| {
            match attempt.as_mut().poll(context) {
                Poll::Ready(outcome) => Some((index, outcome)),
                Poll::Pending => None,
            }
        });
        match done {
            Some((index, outcome)) => Poll::Ready((running.swap_remove(index).0, outcome)),
            None => Poll::Pending,
        }
    })
    .await
}
