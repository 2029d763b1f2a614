//! How often a camera is logged in to: no credential that a camera has not taken is tried twice in five minutes.
//!
//! Cameras lock an account after three or five wrong passwords, and then nobody sees the picture. Discovery, ONVIF calls,
//! stream probes, snapshots and the sources themselves all ask here first, so that together they make one try.
//!
//! ```text
//!               begin                    accepted
//!  (not known) -------> under way --------------------> accepted: everyone may, as often as he likes
//!       ^                  | refused, or dropped            |
//!       |  five minutes    v            refused             |
//!       +------------- refused <----------------------------+
//! ```
//!
//! Time is monotonic and handed in; steps of the wall clock do not matter. Passwords are not kept: a credential is known
//! by a hash whose key is drawn at the start.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a credential rests after a camera refused it.
pub const REST: Duration = Duration::from_secs(300);
/// Most pairs of camera and credential that are remembered.
pub const MAX_REMEMBERED: usize = 1_024;

/// A camera, whatever port or service of it is asked: accounts belong to the whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CameraKey(String);

impl CameraKey {
    /// By its address.
    pub fn address(address: IpAddr) -> Self {
        CameraKey(address.to_canonical().to_string())
    }

    /// By what stands as host in its URL: an address, with or without brackets, or a name.
    pub fn host(host: &str) -> Self {
        let plain = host.trim_start_matches('[').trim_end_matches(']');
        match plain.parse::<IpAddr>() {
            Ok(address) => Self::address(address),
            Err(_) => CameraKey(host.trim_end_matches('.').to_ascii_lowercase()),
        }
    }
}

/// Why a login must wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginWait {
    /// The camera has refused it, or its fate is not known.
    #[error("the camera did not take these credentials; they may be tried again in {} s", .0.as_secs().max(1))]
    Refused(Duration),
    /// Somebody else is trying right now.
    #[error("these credentials are being tried at this camera right now")]
    UnderWay,
    /// Too many others rest already.
    #[error("{MAX_REMEMBERED} credentials were refused in the last five minutes; wait a little")]
    Full,
}

/// All logins of the gateway. Cheap to clone; clones share what they know.
#[derive(Clone, Default)]
pub struct Logins(Arc<Inner>);

#[derive(Default)]
struct Inner {
    hasher: RandomState,
    book: Mutex<Book>,
}

type Key = (CameraKey, u64);

#[derive(Default)]
struct Book(HashMap<Key, Entry>);

#[derive(Clone, Copy, Debug)]
struct Entry {
    state: State,
    /// When it came to be.
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    UnderWay,
    Accepted,
    Refused,
}

/// The right to log in. Say what came of it; dropping it counts as a refusal at the time of its beginning.
#[must_use = "dropped, it counts as refused"]
pub struct LoginTry {
    inner: Arc<Inner>,
    key: Option<Key>,
    begun: Instant,
    was_accepted: bool,
}

impl Logins {
    /// May this credential be sent to this camera now?
    ///
    /// `now` need not be later than at earlier calls. Never waits.
    pub fn begin(
        &self,
        camera: CameraKey,
        user: &str,
        password: &str,
        now: Instant,
    ) -> Result<LoginTry, LoginWait> {
        let key = (camera, self.0.hasher.hash_one((user, password)));
        let was_accepted = self.0.lock().begin(&key, now)?;
        Ok(LoginTry { inner: self.0.clone(), key: Some(key), begun: now, was_accepted })
    }

    /// Whether the camera has taken this credential, and not refused it since.
    pub fn is_accepted(&self, camera: CameraKey, user: &str, password: &str) -> bool {
        let key = (camera, self.0.hasher.hash_one((user, password)));
        self.0.lock().0.get(&key).is_some_and(|entry| entry.state == State::Accepted)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LoginTry {
    /// The camera took it.
    pub fn accepted(mut self, now: Instant) {
        self.settle(Some(Entry { state: State::Accepted, since: now }));
    }

    /// The camera refused it.
    pub fn refused(mut self, now: Instant) {
        self.settle(Some(Entry { state: State::Refused, since: now }));
    }

    /// It was not sent after all; as if it had not begun.
    pub fn unused(mut self) {
        self.settle(None);
    }

    fn settle(&mut self, entry: Option<Entry>) {
        let Some(key) = self.key.take() else { return };
        let mut book = self.inner.lock();
        match entry {
            Some(entry) => drop(book.0.insert(key, entry)),
            // Others may have found out in between that it is not good any more.
            None if self.was_accepted => {}
            None => drop(book.0.remove(&key)),
        }
    }
}

impl Drop for LoginTry {
    fn drop(&mut self) {
        // A stream that broke off says nothing against a password that was good before.
        let unknown = Entry { state: State::Refused, since: self.begun };
        self.settle((!self.was_accepted).then_some(unknown));
    }
}

impl Book {
    /// Whether it was accepted before.
    fn begin(&mut self, key: &Key, now: Instant) -> Result<bool, LoginWait> {
        match self.0.get(key) {
            Some(Entry { state: State::Accepted, .. }) => return Ok(true),
            Some(Entry { state: State::UnderWay, .. }) => return Err(LoginWait::UnderWay),
            Some(entry) if !entry.is_over(now) => {
                return Err(LoginWait::Refused(
                    REST.saturating_sub(now.saturating_duration_since(entry.since)),
                ));
            }
            Some(_) => {}
            None if self.0.len() >= MAX_REMEMBERED => self.make_room(now)?,
            None => {}
        }
        self.0.insert(key.clone(), Entry { state: State::UnderWay, since: now });
        Ok(false)
    }

    /// Forgets what has rested long enough, else the oldest that was accepted: asked again, it begins anew. What rests
    /// is never forgotten.
    fn make_room(&mut self, now: Instant) -> Result<(), LoginWait> {
        self.0.retain(|_, entry| !entry.is_over(now));
        if self.0.len() < MAX_REMEMBERED {
            return Ok(());
        }
        let accepted = self.0.iter().filter(|(_, entry)| entry.state == State::Accepted);
        let oldest = accepted.min_by_key(|(_, entry)| entry.since).map(|(key, _)| key.clone());
        self.0.remove(&oldest.ok_or(LoginWait::Full)?);
        Ok(())
    }
}

impl Entry {
    fn is_over(&self, now: Instant) -> bool {
        self.state == State::Refused && now.saturating_duration_since(self.since) >= REST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        Instant::now()
    }

    fn camera() -> CameraKey {
        CameraKey::host("10.0.0.7")
    }

    #[test]
    fn a_refused_credential_rests_five_minutes_and_others_do_not() {
        let (logins, now) = (Logins::default(), start());
        logins.begin(camera(), "admin", "wrong", now).unwrap().refused(now);
        let wait =
            |seconds| logins.begin(camera(), "admin", "wrong", now + Duration::from_secs(seconds)).err();
        assert_eq!(wait(0), Some(LoginWait::Refused(REST)));
        assert_eq!(wait(299), Some(LoginWait::Refused(Duration::from_secs(1))));
        let try_again = logins.begin(camera(), "admin", "wrong", now + REST);
        assert!(try_again.is_ok());
        for (host, user, password) in
            [("10.0.0.7", "admin", "right"), ("10.0.0.7", "other", "wrong"), ("10.0.0.8", "admin", "wrong")]
        {
            assert!(logins.begin(CameraKey::host(host), user, password, now).is_ok(), "{host} {user}");
        }
    }

    #[test]
    fn only_one_tries_and_then_all_may() {
        let (logins, now) = (Logins::default(), start());
        let first = logins.begin(camera(), "u", "p", now).unwrap();
        assert_eq!(logins.begin(camera(), "u", "p", now).err(), Some(LoginWait::UnderWay));
        first.accepted(now);
        assert!(logins.is_accepted(camera(), "u", "p"));
        let several: Vec<_> = (0..9).map(|_| logins.begin(camera(), "u", "p", now).unwrap()).collect();
        drop(several);
        assert!(logins.is_accepted(camera(), "u", "p"), "a broken connection is no refusal");
        let other = logins.begin(camera(), "u", "p", now).unwrap();
        logins.begin(camera(), "u", "p", now).unwrap().refused(now);
        drop(other);
        assert!(
            matches!(logins.begin(camera(), "u", "p", now).err(), Some(LoginWait::Refused(_))),
            "changed"
        );
    }

    #[test]
    fn a_try_without_an_end_counts_and_one_that_was_not_made_does_not() {
        let (logins, now) = (Logins::default(), start());
        drop(logins.begin(camera(), "u", "p", now).unwrap());
        assert!(matches!(logins.begin(camera(), "u", "p", now).err(), Some(LoginWait::Refused(_))));
        logins.begin(camera(), "u", "q", now).unwrap().unused();
        assert!(logins.begin(camera(), "u", "q", now).is_ok());
    }

    #[test]
    fn time_that_seems_to_go_back_frees_nothing() {
        let (logins, later) = (Logins::default(), start() + Duration::from_secs(1_000));
        logins.begin(camera(), "u", "p", later).unwrap().refused(later);
        let earlier = later - Duration::from_secs(900);
        assert_eq!(logins.begin(camera(), "u", "p", earlier).err(), Some(LoginWait::Refused(REST)));
    }

    #[test]
    fn memory_is_bounded_and_what_rests_is_never_forgotten() {
        let (logins, now) = (Logins::default(), start());
        for number in 0..MAX_REMEMBERED {
            logins.begin(camera(), "u", &number.to_string(), now).unwrap().refused(now);
        }
        assert_eq!(logins.begin(camera(), "u", "new", now).err(), Some(LoginWait::Full));
        assert!(matches!(logins.begin(camera(), "u", "0", now).err(), Some(LoginWait::Refused(_))));
        let after = now + REST;
        for number in 0..2 * MAX_REMEMBERED {
            logins.begin(camera(), "v", &number.to_string(), after).unwrap().accepted(after);
        }
        assert!(logins.0.lock().0.len() <= MAX_REMEMBERED);
    }

    #[test]
    fn a_camera_is_one_whatever_way_its_host_is_written() {
        assert_eq!(CameraKey::host("::ffff:10.0.0.7"), camera());
        assert_eq!(CameraKey::host("[2001:DB8::1]"), CameraKey::address("2001:db8::1".parse().unwrap()));
        assert_eq!(CameraKey::host("Gate.local."), CameraKey::host("gate.local"));
    }
}
