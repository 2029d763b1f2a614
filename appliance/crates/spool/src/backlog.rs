//! The writer's side of a backlog on disk.

use crate::core::Shared;
use crate::disk::{Job, Jobs};
use bytes::Bytes;
use fieldgate_hub::backlog::{Backlog, BacklogError, Batch, Held, Keeping, Lost, Reading, Stored};
use std::fmt;
use std::sync::Arc;

/// Whose packets: one folder each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpoolKey {
    /// The mountpoint's name.
    pub mountpoint: String,
    /// The upstream's name in status and commands.
    pub upstream: String,
    /// The track's name.
    pub track: String,
}

/// Names longer than this are cut, with a checksum in place of the rest.
const MAX_NAME: usize = 60;

impl SpoolKey {
    /// The name of its folder: plain characters, different for different keys.
    pub(crate) fn folder(&self) -> String {
        let names = [&self.mountpoint, &self.upstream, &self.track].map(|name| plain(name));
        names.join("~")
    }

    /// The key whose folder has this name; `None` if there is none, or if its names were cut.
    pub(crate) fn of_folder(folder: &str) -> Option<SpoolKey> {
        let mut names = folder.split('~').map(named);
        let (mountpoint, upstream, track) = (names.next()??, names.next()??, names.next()??);
        let key = SpoolKey { mountpoint, upstream, track };
        (names.next().is_none() && key.folder() == folder).then_some(key)
    }
}

/// The name that [`plain`] made this of.
fn named(plain: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(plain.len());
    let mut rest = plain.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

fn plain(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02x}")),
        }
    }
    if out.len() > MAX_NAME {
        out.truncate(MAX_NAME);
        out.push_str(&format!("%{:08x}", crc32fast::hash(name.as_bytes())));
    }
    out
}

impl fmt::Display for SpoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.mountpoint, self.upstream, self.track)
    }
}

/// What one backlog holds and costs, for the status.
#[derive(Clone, Debug)]
pub struct SpoolReport {
    /// Whose.
    pub key: SpoolKey,
    /// What it holds.
    pub held: Held,
    /// Where new packets are kept now.
    pub keeping: Keeping,
    /// Bytes of packets appended since the start.
    pub appended_bytes: u64,
    /// Bytes written to disk since the start; less than what was appended where acknowledgements came in time.
    pub written_bytes: u64,
    /// Bytes written to flash in the last 24 hours, in whole pages.
    pub flash_bytes_per_day: u64,
    /// Bytes written to flash since the backlog was made, in whole pages.
    pub flash_bytes: u64,
}

/// One upstream's unacknowledged packets of one track, on disk. Dropping it writes what is left and closes it.
pub struct SpoolBacklog {
    slot: u64,
    shared: Arc<Shared>,
    jobs: Jobs,
    batch_bytes: u64,
}

impl SpoolBacklog {
    pub(crate) fn new(slot: u64, shared: Arc<Shared>, jobs: Jobs, batch_bytes: u64) -> Self {
        SpoolBacklog { slot, shared, jobs, batch_bytes }
    }
}

impl fmt::Debug for SpoolBacklog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpoolBacklog").field("slot", &self.slot).finish_non_exhaustive()
    }
}

impl Backlog for SpoolBacklog {
    fn append(&self, packet: Stored) -> Result<(), BacklogError> {
        let mut tail = self.shared.lock();
        let before = tail.queue.bytes();
        let appended = tail.append(packet);
        let after = tail.queue.bytes();
        drop(tail);
        // The first packet sets the thread's clock, a full batch is due at once.
        if (before == 0 && after > 0) || (before < self.batch_bytes && after >= self.batch_bytes) {
            self.jobs.wake();
        }
        appended
    }

    fn release(&self, before_id: u64) {
        self.shared.lock().release(before_id);
    }

    fn read(&self, from_id: u64, max_bytes: usize) -> Reading {
        if let Some(batch) = self.read_memory(from_id, max_bytes) {
            return Box::pin(std::future::ready(Ok(batch)));
        }
        let (reply, answer) = tokio::sync::oneshot::channel();
        match self.jobs.try_send(Job::Read { slot: self.slot, from_id, max_bytes, reply }) {
            Ok(()) => Box::pin(async { answer.await.unwrap_or(Err(BacklogError::Closed)) }),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn read_memory(&self, from_id: u64, max_bytes: usize) -> Option<Batch> {
        self.shared.lock().read(from_id, max_bytes)
    }

    fn held(&self) -> Held {
        self.shared.lock().held()
    }

    fn take_losses(&self) -> Vec<Lost> {
        self.shared.lock().queue.losses().take()
    }

    fn keeping(&self) -> Keeping {
        self.shared.lock().keeping
    }

    fn keep_note(&self, note: Bytes) {
        let mut tail = self.shared.lock();
        (tail.note, tail.note_waits) = (note, true);
    }

    fn note(&self) -> (Bytes, bool) {
        let tail = self.shared.lock();
        (tail.note.clone(), tail.noted_in_order)
    }
}

impl Drop for SpoolBacklog {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.jobs.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(mountpoint: &str, upstream: &str) -> SpoolKey {
        SpoolKey { mountpoint: mountpoint.into(), upstream: upstream.into(), track: "v1".into() }
    }

    #[test]
    fn every_key_has_a_folder_of_its_own_with_a_plain_name() {
        assert_eq!(key("gate-2", "main").folder(), "gate-2~main~v1");
        assert_eq!(key("../x", "a~b").folder(), "%2e%2e%2fx~a%7eb~v1");
        let (long, longer) = (key(&"n".repeat(64), "m"), key(&"n".repeat(65), "m"));
        assert_ne!(long.folder(), longer.folder());
        assert!(key(&"\u{e9}".repeat(64), &"/".repeat(64)).folder().len() < 255);
    }

    #[test]
    fn a_folder_says_whose_it_is() {
        for key in [key("gate-2", "main"), key("../x", "a~b"), key("\u{e9}%25", ""), key("s%", "%")] {
            assert_eq!(SpoolKey::of_folder(&key.folder()), Some(key));
        }
        for other in
            ["", "a~b", "a~b~c~d", "a~b%~c", "a~b%2~c", "a~b%zz~c", "a~b%41~c", "a~%ff~c", "lost+found"]
        {
            assert_eq!(SpoolKey::of_folder(other), None, "{other}");
        }
        assert_eq!(SpoolKey::of_folder(&key(&"n".repeat(64), "m").folder()), None, "it was cut");
    }
}
