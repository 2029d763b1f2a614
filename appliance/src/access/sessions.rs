//! Who is logged in. Pure: time is handed in. Only digests are held, and none of it outlives the process.

use super::secret::Digest;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// A session that nobody used for this long is over.
pub(super) const IDLE: Duration = Duration::from_secs(30 * 60);
/// A session is over after this time, however it is used.
pub(super) const LONGEST: Duration = Duration::from_secs(12 * 3_600);
/// Sessions of one user at a time; another one ends the one that was idle longest.
pub(super) const PER_USER_MAX: usize = 8;

/// All sessions.
#[derive(Default)]
pub(super) struct Sessions {
    by_digest: HashMap<Digest, Session>,
}

struct Session {
    user: String,
    opened: Instant,
    seen: Instant,
}

impl Session {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) >= IDLE
            || now.saturating_duration_since(self.opened) >= LONGEST
    }
}

impl Sessions {
    /// Opens one under a digest that was never used.
    pub(super) fn open(&mut self, digest: Digest, user: &str, now: Instant) {
        self.by_digest.retain(|_, session| !session.is_over(now));
        let of_user = self.by_digest.iter().filter(|(_, session)| session.user == user);
        if of_user.clone().count() >= PER_USER_MAX
            && let Some(oldest) = of_user.min_by_key(|(_, session)| session.seen).map(|(digest, _)| *digest)
        {
            self.by_digest.remove(&oldest);
        }
        let session = Session { user: user.to_owned(), opened: now, seen: now };
        self.by_digest.insert(digest, session);
    }

    /// Whose session this is; using it keeps it from being idle.
    pub(super) fn user(&mut self, digest: Digest, now: Instant) -> Option<&str> {
        if self.by_digest.get(&digest).is_some_and(|session| session.is_over(now)) {
            self.by_digest.remove(&digest);
        }
        let session = self.by_digest.get_mut(&digest)?;
        session.seen = now;
        Some(&session.user)
    }

    /// Ends one.
    pub(super) fn end(&mut self, digest: Digest) {
        self.by_digest.remove(&digest);
    }

    /// Ends all of a user but one.
    pub(super) fn end_others(&mut self, user: &str, but: Option<Digest>) {
        self.by_digest.retain(|digest, session| session.user != user || Some(*digest) == but);
    }

    /// Ends all.
    pub(super) fn end_all(&mut self) {
        self.by_digest.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u32) -> Digest {
        Digest::of(&number.to_string())
    }

    #[test]
    fn a_session_ends_when_idle_and_at_the_latest_when_old() {
        let (mut sessions, start) = (Sessions::default(), Instant::now());
        sessions.open(digest(1), "bob", start);
        sessions.open(digest(2), "bob", start);
        assert_eq!(sessions.user(digest(2), start + IDLE), None);
        let (mut now, step) = (start, IDLE / 2);
        while now + step < start + LONGEST {
            now += step;
            assert_eq!(sessions.user(digest(1), now), Some("bob"));
        }
        assert_eq!(sessions.user(digest(1), start + LONGEST), None);
        assert_eq!(sessions.user(digest(1), start), None, "over is over");
    }

    #[test]
    fn ended_sessions_are_not_found_again() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        for number in 0..3 {
            sessions.open(digest(number), "bob", now);
        }
        sessions.open(digest(9), "eve", now);
        sessions.end(digest(0));
        assert_eq!(sessions.user(digest(0), now), None);
        sessions.end_others("bob", Some(digest(2)));
        assert_eq!(sessions.user(digest(1), now), None);
        assert_eq!(sessions.user(digest(2), now), Some("bob"));
        assert_eq!(sessions.user(digest(9), now), Some("eve"));
        sessions.end_all();
        assert_eq!(sessions.user(digest(9), now), None);
    }

    #[test]
    fn one_more_session_ends_the_one_that_was_idle_longest() {
        let (mut sessions, start) = (Sessions::default(), Instant::now());
        for number in 0..8 {
            sessions.open(digest(number), "bob", start + Duration::from_secs(u64::from(number)));
        }
        let now = start + Duration::from_secs(60);
        assert_eq!(sessions.user(digest(0), now), Some("bob"));
        sessions.open(digest(8), "bob", now);
        assert_eq!(sessions.user(digest(1), now), None);
        assert_eq!(sessions.user(digest(0), now), Some("bob"));
        assert_eq!(sessions.user(digest(8), now), Some("bob"));
    }
}
