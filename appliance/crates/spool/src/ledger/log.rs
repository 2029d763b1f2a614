//! The ledger on disk: `ledger.log`, records that are appended and checksummed.
//!
//! A record is length, checksum, kind and content. After a power cut the log is read up to the first record that is not
//! sound; then, and when it has grown too long, it is written anew under another name and renamed into place.

use super::Ledger;
use super::book::{Book, Change};
use crate::fs::SpoolFs;
use fieldgate_hub::backlog::LossCause;
use fieldgate_hub::ledger::{Fate, LedgerKey, Stretch, Why};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use tokio::time::Instant;

const FILE: &str = "ledger.log";
const TEMPORARY: &str = "ledger.tmp";
/// From this length on it is written anew.
const MAX_LOG: u64 = 1 << 20;
/// More than this is not read.
const MAX_READ: u64 = 8 << 20;
/// The longest record: three names of 255 bytes.
const MAX_RECORD: usize = 1_024;
const HEAD: usize = 6;

/// How soon changes are saved.
const LOSSES_WITHIN: Duration = Duration::from_secs(5);
const REST_WITHIN: Duration = Duration::from_secs(60);

const KEY: u8 = 1;
const SETTLED: u8 = 2;
const PENDING: u8 = 3;
const NO_PENDING: u8 = 4;
const FORGOTTEN: u8 = 5;
const CLEAN: u8 = 6;
const OPENED: u8 = 7;
const INTERRUPTED: u8 = 8;
const NOT_INTERRUPTED: u8 = 9;
const BEGUN: u8 = 10;

/// The disk thread's side of the ledger.
pub(crate) struct Log {
    fs: Box<dyn SpoolFs>,
    len: u64,
    keys: BTreeMap<LedgerKey, u32>,
    /// It must be written anew: what is there is damaged, or not known.
    anew: bool,
    /// Since when something waits to be saved, and whether it is urgent.
    waiting: Option<(Instant, bool)>,
    /// The last try failed.
    failing: bool,
}

impl Log {
    /// Reads what is there into the ledger.
    pub(crate) fn open(fs: Box<dyn SpoolFs>, ledger: &Ledger) -> io::Result<Log> {
        let bytes = read_all(fs.as_ref())?;
        let replayed = replay(&bytes);
        let mut book = ledger.lock();
        if let Some(before) = replayed.forgotten_before {
            book.set_forgotten_before(before);
        }
        book.restore(replayed.changes, replayed.clean || bytes.is_empty());
        drop(book);
        let anew = replayed.sound_len < bytes.len();
        let len = bytes.len() as u64;
        let mut log = Log { fs, len, keys: replayed.keys, anew, waiting: None, failing: false };
        if replayed.clean {
            // From here on the stop is not in order until it says so.
            let opened = log.append_opened();
            log.outcome(opened);
        }
        Ok(log)
    }

    /// Saves what is due.
    pub(crate) fn turn(&mut self, ledger: &Ledger, now: Instant) {
        let book = ledger.lock();
        if !book.is_unsaved() {
            self.waiting = None;
            return;
        }
        let (since, urgent) = self.waiting.unwrap_or((now, false));
        let (urgent, at_once) = (urgent || book.urgent, book.at_once && !self.failing);
        self.waiting = Some((since, urgent));
        drop(book);
        if at_once || self.due().is_some_and(|due| now >= due) {
            self.save(ledger);
        }
    }

    /// Saves everything now; whether all is on disk.
    pub(crate) fn save(&mut self, ledger: &Ledger) -> bool {
        let mut book = ledger.lock();
        if !book.is_unsaved() {
            return !self.failing;
        }
        let anew = self.anew || book.overflown || self.len > MAX_LOG;
        let changes = if anew { book.all() } else { book.take_unsaved() };
        let forgotten = book.forgotten_before();
        drop(book);
        self.waiting = None;
        let saved = if anew { self.write_anew(&changes, forgotten, false) } else { self.append(&changes) };
        self.outcome(saved);
        !self.failing
    }

    /// When it wants its next turn at the latest.
    pub(crate) fn due(&self) -> Option<Instant> {
        let (since, urgent) = self.waiting?;
        let within = if urgent { LOSSES_WITHIN } else { REST_WITHIN };
        // After a failure it is tried again, but not in a hurry.
        Some(since + if self.failing { REST_WITHIN } else { within })
    }

    /// Saves everything and writes down that the stop is in order.
    pub(crate) fn close(mut self, ledger: &Ledger) {
        let (changes, forgotten) = {
            let mut book = ledger.lock();
            book.end_all();
            (book.all(), book.forgotten_before())
        };
        let outcome = self.write_anew(&changes, forgotten, true);
        self.outcome(outcome);
    }

    fn outcome(&mut self, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => self.failing = false,
            Err(error) => {
                // Part of it may be there: the next try replaces the file.
                self.anew = true;
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "the ledger can't be saved; it is kept in memory");
                }
            }
        }
    }

    fn append(&mut self, changes: &[Change]) -> io::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        if self.len == 0 {
            self.fs.create(FILE)?;
        }
        let mut out = Vec::new();
        write_changes(&mut out, &mut self.keys, changes);
        self.fs.append(FILE, &out)?;
        self.fs.sync_file(FILE)?;
        if self.len == 0 {
            self.fs.sync_dir()?;
        }
        self.len += out.len() as u64;
        Ok(())
    }

    fn append_opened(&mut self) -> io::Result<()> {
        let mut out = Vec::new();
        write_record(&mut out, OPENED, &[]);
        self.fs.append(FILE, &out)?;
        self.fs.sync_file(FILE)?;
        self.len += out.len() as u64;
        Ok(())
    }

    fn write_anew(&mut self, changes: &[Change], forgotten: Option<i64>, clean: bool) -> io::Result<()> {
        let mut keys = BTreeMap::new();
        let mut out = Vec::new();
        if let Some(before) = forgotten {
            write_record(&mut out, FORGOTTEN, &before.to_le_bytes());
        }
        write_changes(&mut out, &mut keys, changes);
        if clean {
            write_record(&mut out, CLEAN, &[]);
        }
        self.fs.create(TEMPORARY)?;
        self.fs.append(TEMPORARY, &out)?;
        self.fs.sync_file(TEMPORARY)?;
        self.fs.rename(TEMPORARY, FILE)?;
        self.fs.sync_dir()?;
        (self.keys, self.len, self.anew) = (keys, out.len() as u64, false);
        Ok(())
    }
}

fn read_all(fs: &dyn SpoolFs) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 256 << 10];
    while (bytes.len() as u64) < MAX_READ {
        match fs.read_at(FILE, bytes.len() as u64, &mut piece) {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(piece.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

fn write_record(out: &mut Vec<u8>, kind: u8, content: &[u8]) {
    let mut body = vec![kind];
    body.extend_from_slice(content);
    out.extend_from_slice(&u16::try_from(body.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    out.extend_from_slice(&body);
}

fn write_changes(out: &mut Vec<u8>, keys: &mut BTreeMap<LedgerKey, u32>, changes: &[Change]) {
    for change in changes {
        let (Change::Settled(key, ..)
        | Change::Pending(key, _)
        | Change::Interrupted(key, _)
        | Change::Begun(key, _)) = change;
        let known = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let index = *keys.entry(key.clone()).or_insert_with(|| {
            let mut content = known.to_le_bytes().to_vec();
            for name in [&key.mountpoint, &key.upstream, &key.track] {
                let name = name.as_bytes().get(..name.len().min(255)).unwrap_or_default();
                content.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
                content.extend_from_slice(name);
            }
            write_record(out, KEY, &content);
            known
        });
        let mut content = index.to_le_bytes().to_vec();
        let (kind, stretch) = match change {
            Change::Settled(_, fate, stretch) => {
                content.push(code(*fate));
                (SETTLED, Some(stretch))
            }
            Change::Pending(_, Some(stretch)) => (PENDING, Some(stretch)),
            Change::Pending(_, None) => (NO_PENDING, None),
            Change::Interrupted(_, Some(gap)) => (INTERRUPTED, Some(gap)),
            Change::Interrupted(_, None) => (NOT_INTERRUPTED, None),
            Change::Begun(_, unix_micros) => {
                content.extend_from_slice(&unix_micros.to_le_bytes());
                (BEGUN, None)
            }
        };
        if let Some(stretch) = stretch {
            content.extend_from_slice(&stretch.from_unix_micros.to_le_bytes());
            content.extend_from_slice(&stretch.to_unix_micros.to_le_bytes());
            content.extend_from_slice(&stretch.frames.to_le_bytes());
            content.extend_from_slice(&stretch.bytes.to_le_bytes());
        }
        write_record(out, kind, &content);
    }
}

/// [`Fate::Unconfirmed`] has the number of [`Fate::Lost`] for the same reason, and this on top.
const UNCONFIRMED: u8 = 64;

/// Every other fate with its number on disk.
const FATES: [(u8, Fate); 19] = [
    (1, Fate::Delivered),
    (2, Fate::Sent),
    (3, Fate::Unknown),
    (16, Fate::Lost(Why::Unreachable)),
    (17, Fate::Lost(Why::Refused)),
    (18, Fate::Lost(Why::Disconnected)),
    (19, Fate::Lost(Why::TooSlow)),
    (20, Fate::Lost(Why::Skipped)),
    (21, Fate::Lost(Why::Unacknowledged)),
    (22, Fate::Lost(Why::Removed)),
    (32, Fate::Lost(Why::Backlog(LossCause::Bytes))),
    (33, Fate::Lost(Why::Backlog(LossCause::Age))),
    (34, Fate::Lost(Why::Backlog(LossCause::DiskFull))),
    (35, Fate::Lost(Why::Backlog(LossCause::DiskFailed))),
    (36, Fate::Lost(Why::Backlog(LossCause::DiskSlow))),
    (37, Fate::Lost(Why::Backlog(LossCause::Damaged))),
    (38, Fate::Lost(Why::Backlog(LossCause::Torn))),
    (39, Fate::Lost(Why::Backlog(LossCause::Restart))),
    (40, Fate::Lost(Why::Backlog(LossCause::Abandoned))),
];

fn code(fate: Fate) -> u8 {
    match fate {
        Fate::Unconfirmed(why) => code(Fate::Lost(why)) + UNCONFIRMED,
        fate => FATES.iter().find(|(_, known)| *known == fate).map_or(0, |(code, _)| *code),
    }
}

fn fate_of(code: u8) -> Option<Fate> {
    let known = |code: u8| FATES.iter().find(|(known, _)| *known == code).map(|(_, fate)| *fate);
    match code.checked_sub(UNCONFIRMED) {
        Some(lost) => match known(lost)? {
            Fate::Lost(why) => Some(Fate::Unconfirmed(why)),
            _ => None,
        },
        None => known(code),
    }
}

/// What a log says.
#[derive(Default)]
struct Replayed {
    changes: Vec<Change>,
    keys: BTreeMap<LedgerKey, u32>,
    forgotten_before: Option<i64>,
    clean: bool,
    /// Where the sound part ends.
    sound_len: usize,
}

fn replay(bytes: &[u8]) -> Replayed {
    let mut replayed = Replayed::default();
    let mut names: BTreeMap<u32, LedgerKey> = BTreeMap::new();
    while let Some((body, end)) = record(bytes, replayed.sound_len) {
        let Some((kind, content)) = body.split_first() else { break };
        replayed.clean = *kind == CLEAN;
        if understand(*kind, content, &mut names, &mut replayed).is_none() {
            break;
        }
        replayed.sound_len = end;
    }
    replayed.clean &= replayed.sound_len == bytes.len();
    replayed
}

fn record(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let head = bytes.get(at..at + HEAD)?;
    let len = usize::from(u16::from_le_bytes(*head.first_chunk()?));
    let checksum = u32::from_le_bytes(*head.get(2..)?.first_chunk()?);
    let body = bytes.get(at + HEAD..at + HEAD + len).filter(|body| (1..=MAX_RECORD).contains(&body.len()))?;
    (crc32fast::hash(body) == checksum).then_some((body, at + HEAD + len))
}

fn understand(
    kind: u8,
    content: &[u8],
    names: &mut BTreeMap<u32, LedgerKey>,
    replayed: &mut Replayed,
) -> Option<()> {
    let number = |at: usize| content.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
    let time = |at: usize| content.get(at..)?.first_chunk().copied().map(i64::from_le_bytes);
    let stretch = |at: usize| {
        Some(Stretch {
            from_unix_micros: time(at)?,
            to_unix_micros: time(at + 8)?,
            frames: number(at + 16)?,
            bytes: number(at + 24)?,
        })
    };
    match kind {
        CLEAN | OPENED => return Some(()),
        FORGOTTEN => {
            replayed.forgotten_before = Some(time(0)?);
            return Some(());
        }
        _ => {}
    }
    let index = content.first_chunk().copied().map(u32::from_le_bytes)?;
    if kind == KEY {
        let mut rest = content.get(4..)?;
        let mut name = || {
            let (len, after) = rest.split_first()?;
            let (name, after) = after.split_at_checked(usize::from(*len))?;
            rest = after;
            Some(String::from_utf8_lossy(name).into_owned())
        };
        let key = LedgerKey { mountpoint: name()?, upstream: name()?, track: name()? };
        replayed.keys.insert(key.clone(), index);
        names.insert(index, key);
        return Some(());
    }
    let key = names.get(&index)?.clone();
    let change = match kind {
        SETTLED => {
            let fate = fate_of(*content.get(4)?)?;
            Change::Settled(key, fate, stretch(5)?)
        }
        PENDING => Change::Pending(key, Some(stretch(4)?)),
        NO_PENDING => Change::Pending(key, None),
        INTERRUPTED => Change::Interrupted(key, Some(stretch(4)?)),
        NOT_INTERRUPTED => Change::Interrupted(key, None),
        BEGUN => Change::Begun(key, time(4)?),
        _ => return None,
    };
    replayed.changes.push(change);
    Some(())
}

/// Reads any bytes as a log.
pub(crate) fn replay_any(bytes: &[u8]) {
    let replayed = replay(bytes);
    let mut book = Book::default();
    book.restore(replayed.changes, replayed.clean);
}
