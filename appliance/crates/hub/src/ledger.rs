//! What became of each stretch of a stream on its way to an upstream. Drivers tell it through a [`LedgerHandle`]; the
//! crate `fieldgate-spool` keeps it.

use crate::backlog::LossCause;
use std::fmt;
use std::sync::Arc;

/// What became of some frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// The far end acknowledged them.
    Delivered,
    /// They were handed to the kernel for an upstream that does not acknowledge (RTMP). Not proof of delivery.
    Sent,
    /// They were not delivered and will not be: no socket had them whole.
    Lost(Why),
    /// They were handed to a socket and will not be sent again, and the far end has not acknowledged them: it may have
    /// them.
    Unconfirmed(Why),
    /// The gateway stopped without warning: nothing written says.
    Unknown,
}

/// Why frames were lost, or not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// The backlog gave them up.
    Backlog(LossCause),
    /// No connection to the upstream could be made.
    Unreachable,
    /// The upstream refused the stream.
    Refused,
    /// The connection broke, and the next was not there yet.
    Disconnected,
    /// The upstream took the stream too slowly.
    TooSlow,
    /// The upstream went on further ahead than where it had stopped.
    Skipped,
    /// All was sent up to the end, and the upstream closed without acknowledging it.
    Unacknowledged,
    /// The push was removed, changed or stopped while they waited.
    Removed,
}

impl Why {
    /// Its name in the API and in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Backlog(cause) => cause.as_str(),
            Why::Unreachable => "unreachable",
            Why::Refused => "refused",
            Why::Disconnected => "disconnected",
            Why::TooSlow => "too_slow",
            Why::Skipped => "skipped",
            Why::Unacknowledged => "unacknowledged",
            Why::Removed => "removed",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A stretch of capture time with what was in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    /// Capture time of the first frame, microseconds since 1970-01-01 UTC.
    pub from_unix_micros: i64,
    /// Capture time of the last frame.
    pub to_unix_micros: i64,
    /// Frames in it.
    pub frames: u64,
    /// Their bytes; 0 if not counted.
    pub bytes: u64,
}

/// Whose ledger.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LedgerKey {
    /// The mountpoint's name.
    pub mountpoint: String,
    /// The upstream's name in status and commands (`push[].id`).
    pub upstream: String,
    /// The track's name; empty if the upstream takes all tracks in one connection.
    pub track: String,
}

/// Who keeps the ledger. Calls take a short lock and never wait for a disk.
pub trait LedgerKeeper: Send + Sync {
    /// See [`LedgerHandle::settle`].
    fn settle(&self, key: &LedgerKey, fate: Fate, stretch: Stretch);
    /// See [`LedgerHandle::pending`].
    fn pending(&self, key: &LedgerKey, pending: Option<Stretch>);
    /// See [`LedgerHandle::resume`].
    fn resume(&self, key: &LedgerKey, recovered: Option<Stretch>);
}

/// Keeps nothing.
impl LedgerKeeper for () {
    fn settle(&self, _: &LedgerKey, _: Fate, _: Stretch) {}
    fn pending(&self, _: &LedgerKey, _: Option<Stretch>) {}
    fn resume(&self, _: &LedgerKey, _: Option<Stretch>) {}
}

/// One upstream's page in the ledger. Cheap to clone.
#[derive(Clone)]
pub struct LedgerHandle {
    keeper: Arc<dyn LedgerKeeper>,
    key: Arc<LedgerKey>,
}

impl LedgerHandle {
    /// The page of that key.
    pub fn new(keeper: Arc<dyn LedgerKeeper>, key: LedgerKey) -> Self {
        LedgerHandle { keeper, key: Arc::new(key) }
    }

    /// A page that nobody keeps.
    pub fn none() -> Self {
        let key = LedgerKey { mountpoint: String::new(), upstream: String::new(), track: String::new() };
        LedgerHandle::new(Arc::new(()), key)
    }

    /// Whose page it is.
    pub fn key(&self) -> &LedgerKey {
        &self.key
    }

    /// Frames whose fate is known now. Each frame is told once; stretches that touch become one.
    pub fn settle(&self, fate: Fate, stretch: Stretch) {
        self.keeper.settle(&self.key, fate, stretch);
    }

    /// What waits to be delivered now, from the oldest to the newest; replaces what was told before.
    pub fn pending(&self, pending: Option<Stretch>) {
        self.keeper.pending(&self.key, pending);
    }

    /// Told once after the gateway's start by an upstream that can wait: what it found of the frames that were pending
    /// when the gateway stopped. The rest is written down as not known.
    pub fn resume(&self, recovered: Option<Stretch>) {
        self.keeper.resume(&self.key, recovered);
    }
}

impl fmt::Debug for LedgerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LedgerHandle").field(&self.key).finish()
    }
}
