//! Who has been let in, by token.

use fieldgate_hub::Request;
use fieldgate_proto::segment::target::Token;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A session that was opened and never used is forgotten after this time: most likely nobody plays it.
const UNUSED: Duration = Duration::from_secs(15);

/// How many viewers there may be, and how long they are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SessionLimits {
    pub(super) total: usize,
    pub(super) per_address: usize,
    pub(super) timeout: Duration,
}

/// Why nobody more is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    #[error("all {0} places for viewers are taken; try again later")]
    Total(usize),
    #[error("your address has {0} viewers already, which is all that it may have; try again later")]
    PerAddress(usize),
}

/// One viewer. Requests that are being answered hold it.
#[derive(Debug)]
pub(super) struct Session {
    /// What it was let in with, `revoked` aside.
    pub(super) request: Request,
    /// Cancelled when it would not be let in any more.
    pub(super) revoked: Arc<CancellationToken>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    seen: Instant,
    used: bool,
}

impl Session {
    fn is_over(&self, now: Instant, timeout: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let timeout = if state.used { timeout } else { UNUSED.min(timeout) };
        self.revoked.is_cancelled() || now.saturating_duration_since(state.seen) > timeout
    }

    fn touch(&self, now: Instant) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State { seen: now, used: true };
    }

    fn stream(&self) -> &str {
        &self.request.name
    }

    fn address(&self) -> IpAddr {
        self.request.peer
    }
}

/// All viewers. No call waits for more than a look at all of them.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    all: Mutex<HashMap<Token, Arc<Session>>>,
}

impl Sessions {
    /// Remembers a viewer who has been let in.
    pub(super) fn open(
        &self,
        token: Token,
        request: Request,
        limits: SessionLimits,
        now: Instant,
    ) -> Result<Arc<Session>, Full> {
        let mut all = self.lock();
        all.retain(|_, session| Arc::strong_count(session) > 1 || !session.is_over(now, limits.timeout));
        if all.values().filter(|session| session.address() == request.peer).count() >= limits.per_address {
            return Err(Full::PerAddress(limits.per_address));
        }
        if all.len() >= limits.total {
            return Err(Full::Total(limits.total));
        }
        let revoked = request.revoked.clone();
        let request = Request { revoked: Arc::default(), ..request };
        let session =
            Arc::new(Session { request, revoked, state: Mutex::new(State { seen: now, used: false }) });
        all.insert(token, session.clone());
        Ok(session)
    }

    /// The viewer of this token, who is still one by asking.
    pub(super) fn get(
        &self,
        token: Token,
        stream: &str,
        timeout: Duration,
        now: Instant,
    ) -> Option<Arc<Session>> {
        let mut all = self.lock();
        let session = all.get(&token).filter(|session| session.stream() == stream)?.clone();
        // The list's own and this one.
        if session.revoked.is_cancelled() || Arc::strong_count(&session) <= 2 && session.is_over(now, timeout)
        {
            all.remove(&token);
            return None;
        }
        session.touch(now);
        Some(session)
    }

    /// Viewers of a stream now; those who never asked for more than the list of renditions do not count.
    pub(super) fn count(&self, stream: &str, timeout: Duration, now: Instant) -> usize {
        let all = self.lock();
        let here = all.values().filter(|session| session.stream() == stream);
        here.filter(|session| {
            let used = session.state.lock().unwrap_or_else(PoisonError::into_inner).used;
            used && !session.is_over(now, timeout)
        })
        .count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Token, Arc<Session>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_hub::Action;

    const LIMITS: SessionLimits =
        SessionLimits { total: 3, per_address: 2, timeout: Duration::from_secs(60) };

    fn request(last: u8, name: &str) -> Request {
        Request {
            action: Action::Play,
            peer: IpAddr::from([192, 0, 2, last]),
            app: "live".into(),
            name: name.into(),
            key: None,
            client: None,
            revoked: Arc::default(),
        }
    }

    fn token(number: u8) -> Token {
        Token::new([number; 16])
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_limited_and_free_again_with_time() {
        let sessions = Sessions::default();
        let start = Instant::now();
        for (number, peer) in [(1, 1), (2, 1), (3, 2)] {
            sessions.open(token(number), request(peer, "yard"), LIMITS, start).unwrap();
        }
        assert_eq!(
            sessions.open(token(4), request(1, "yard"), LIMITS, start).unwrap_err(),
            Full::PerAddress(2)
        );
        assert_eq!(sessions.open(token(4), request(3, "yard"), LIMITS, start).unwrap_err(), Full::Total(3));
        let timeout = LIMITS.timeout;
        assert!(sessions.get(token(1), "yard", timeout, start).is_some());
        assert_eq!(sessions.count("yard", timeout, start), 1, "two never played");
        let later = start + UNUSED + Duration::from_secs(1);
        sessions.open(token(4), request(1, "yard"), LIMITS, later).unwrap();
        assert!(sessions.get(token(2), "yard", timeout, later).is_none(), "never used");
        assert!(sessions.get(token(1), "yard", timeout, later).is_some());
        let end = later + timeout + Duration::from_secs(1);
        assert!(sessions.get(token(1), "yard", timeout, end).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_good_for_its_stream_until_it_is_revoked() {
        let sessions = Sessions::default();
        let now = Instant::now();
        let session = sessions.open(token(1), request(1, "yard"), LIMITS, now).unwrap();
        assert!(sessions.get(token(1), "gate", LIMITS.timeout, now).is_none());
        assert!(sessions.get(token(1), "yard", LIMITS.timeout, now).is_some());
        session.revoked.cancel();
        assert!(sessions.get(token(1), "yard", LIMITS.timeout, now).is_none());
    }
}
