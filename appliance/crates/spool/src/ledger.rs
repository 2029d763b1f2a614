//! The ledger: what became of each stretch of each stream, per upstream. In memory within a bound, on disk in a log.
//!
//! ```text
//!  settle, pending --> Book (memory) --every minute, losses within seconds--> ledger.log (appended, checksummed)
//!                        ^ queries                     too long: written anew as a whole, renamed into place
//! ```
//!
//! After a stop without warning the ledger is certain up to what it had saved, and the spool has what it had written.
//! What lies between, and behind, is `unknown`. That is written down before the spool is opened, and where it ends before
//! the spool's first write: then a further stop at any moment adds to it and takes nothing away.

mod book;
mod log;
#[cfg(test)]
mod tests;

pub(crate) use log::Log;
pub(crate) use log::replay_any;

use crate::backlog::SpoolKey;
use crate::disk::Jobs;
use book::Book;
use fieldgate_hub::backlog::{Held, LossCause, Lost};
use fieldgate_hub::ledger::{Fate, LedgerHandle, LedgerKeeper, LedgerKey, Stretch, Why};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// What a stretch is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Settled.
    Settled(Fate),
    /// Waits to be delivered.
    Pending,
}

impl State {
    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Settled(Fate::Delivered) => "delivered",
            State::Settled(Fate::Sent) => "sent",
            State::Settled(Fate::Lost(_)) => "lost",
            State::Settled(Fate::Unconfirmed(_)) => "unconfirmed",
            State::Settled(Fate::Unknown) => "unknown",
            State::Pending => "pending",
        }
    }

    /// Why it was lost or is not confirmed.
    pub fn cause(self) -> Option<Why> {
        match self {
            State::Settled(Fate::Lost(why) | Fate::Unconfirmed(why)) => Some(why),
            _ => None,
        }
    }
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Whose.
    pub key: LedgerKey,
    /// What became of it.
    pub state: State,
    /// When and how much.
    pub stretch: Stretch,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Only this mountpoint.
    pub mountpoint: Option<String>,
    /// Only stretches that end at this time or later, microseconds since 1970-01-01 UTC.
    pub from_unix_micros: Option<i64>,
    /// Only stretches that begin before this time.
    pub to_unix_micros: Option<i64>,
    /// Go on where an earlier answer ended.
    pub cursor: Option<Cursor>,
    /// At most so many lines.
    pub limit: usize,
}

/// Where an answer ended: the last line's begin, and how many lines with that begin were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    from_unix_micros: i64,
    given: usize,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.from_unix_micros, self.given)
    }
}

/// The text is no cursor that was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be the next_cursor of an earlier answer")]
pub struct CursorError;

impl std::str::FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Cursor, CursorError> {
        let (from, given) = text.split_once('.').ok_or(CursorError)?;
        let from_unix_micros = from.parse().map_err(|_| CursorError)?;
        Ok(Cursor { from_unix_micros, given: given.parse().map_err(|_| CursorError)? })
    }
}

/// The answer to a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// By time of their begin.
    pub lines: Vec<Line>,
    /// There is more.
    pub next: Option<Cursor>,
    /// What began before this time may have been forgotten for want of room.
    pub forgotten_before_unix_micros: Option<i64>,
}

/// The ledger. Calls take a short lock; a disk thread saves what they change.
#[derive(Default)]
pub struct Ledger {
    book: Mutex<Book>,
    /// The way to the thread that saves it.
    saver: OnceLock<Jobs>,
}

impl Ledger {
    /// One upstream's page.
    pub fn handle(self: &Arc<Self>, mountpoint: &str, upstream: &str, track: &str) -> LedgerHandle {
        let key = LedgerKey {
            mountpoint: mountpoint.to_owned(),
            upstream: upstream.to_owned(),
            track: track.to_owned(),
        };
        LedgerHandle::new(self.clone(), key)
    }

    /// What became of what.
    pub fn query(&self, query: &Query) -> Answer {
        self.lock().query(query)
    }

    /// Writes down what a backlog lost on its way out.
    pub(crate) fn settle_lost(&self, key: &SpoolKey, losses: Vec<Lost>) {
        let key = page(key);
        for lost in losses {
            let (fate, stretch) = settled(&lost);
            self.settle(&key, fate, stretch);
        }
    }

    /// An upstream's disk is open; `interrupted`: it was not closed in order. See [`Book::begin`].
    pub(crate) fn begin(
        &self,
        key: &SpoolKey,
        recovered: Option<Stretch>,
        interrupted: bool,
        unix_micros: i64,
    ) {
        self.lock().begin(&page(key), recovered, interrupted, unix_micros);
    }

    /// The first frame after a stop without warning is there, captured at this time.
    pub(crate) fn goes_on(&self, key: &SpoolKey, unix_micros: i64) {
        self.lock().goes_on(&page(key), unix_micros);
    }

    /// No frame will come any more.
    pub(crate) fn ends(&self, key: &SpoolKey) {
        self.lock().ends(&page(key));
    }

    /// Whom to wake when something must be saved at once.
    pub(crate) fn saved_by(&self, saver: Jobs) {
        self.saver.set(saver).ok();
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a backlog holds, as its page says it; `None` if that is nothing.
pub(crate) fn stretch(held: &Held) -> Option<Stretch> {
    (held.frames > 0).then_some(Stretch {
        from_unix_micros: held.oldest_unix_micros,
        to_unix_micros: held.newest_unix_micros,
        frames: held.frames,
        bytes: 0,
    })
}

/// A backlog's page.
pub(crate) fn page(key: &SpoolKey) -> LedgerKey {
    let SpoolKey { mountpoint, upstream, track } = key.clone();
    LedgerKey { mountpoint, upstream, track }
}

/// How a backlog's loss is written down.
fn settled(lost: &Lost) -> (Fate, Stretch) {
    let fate = match lost.cause {
        // What was in memory alone may have been delivered before the stop.
        LossCause::Restart => Fate::Unknown,
        cause => Fate::Lost(Why::Backlog(cause)),
    };
    let stretch = Stretch {
        from_unix_micros: lost.from_unix_micros,
        to_unix_micros: lost.to_unix_micros,
        frames: lost.frames.unwrap_or(0),
        bytes: 0,
    };
    (fate, stretch)
}

impl LedgerKeeper for Ledger {
    fn settle(&self, key: &LedgerKey, fate: Fate, stretch: Stretch) {
        let mut book = self.lock();
        let before = book.at_once;
        book.settle(key, fate, stretch);
        let wakes = book.at_once && !before;
        drop(book);
        if let Some(saver) = self.saver.get().filter(|_| wakes) {
            saver.wake();
        }
    }

    fn pending(&self, key: &LedgerKey, pending: Option<Stretch>) {
        self.lock().pending(key, pending);
    }

    fn resume(&self, key: &LedgerKey, recovered: Option<Stretch>) {
        self.lock().resume(key, recovered);
    }
}
