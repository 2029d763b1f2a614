//! The recorder's files: events a line each, with a checksum, in segments of which the oldest goes.
//!
//! ```text
//!  DIR/events-00000000000000000001.log     "1c291ca3 {json}\n" ...
//! ```
//! A line is handed to the kernel at once, which is enough for a program that is killed, and forced to flash now and then,
//! which is what costs. A line that is damaged is left out and counted; the others stand.

use fieldgate_model::Event;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A segment is closed when it is longer, in bytes.
const SEGMENT_MAX: u64 = 64 << 10;
/// Segments that are kept.
const SEGMENTS: usize = 6;
/// Most that is read of one file, whatever became of it.
const READ_MAX: u64 = 4 * SEGMENT_MAX;
/// What the kernel writes at least.
const PAGE: u64 = 4 << 10;
const PREFIX: &str = "events-";
const SUFFIX: &str = ".log";

/// What was found in the folder.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Events whose line is whole, oldest first.
    pub(super) events: Vec<Event>,
    /// Lines that are not.
    pub(super) damaged: u64,
}

/// The files, for appending.
#[derive(Debug)]
pub(super) struct Log {
    folder: PathBuf,
    /// First ids of the segments, oldest first.
    segments: Vec<u64>,
    open: Option<(File, u64)>,
    /// Length of the open segment that is on flash for sure.
    synced: u64,
    /// Pages of segments that were closed since.
    closed_pages: u64,
}

impl Log {
    /// Opens the folder, which is made if it is missing (mode 0700), and reads what there is.
    pub(super) fn open(folder: &Path) -> io::Result<(Log, Found)> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut segments = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            segments.extend(entry?.file_name().to_str().and_then(first_id));
        }
        segments.sort_unstable();
        let mut found = Found::default();
        for first in &segments {
            match read(&folder.join(name_of(*first))) {
                Ok(bytes) => take(&bytes, &mut found),
                Err(_) => found.damaged += 1,
            }
        }
        // A file with a foreign name in ours cannot bring numbers out of order.
        found.events.sort_by_key(|event| event.id);
        found.events.dedup_by_key(|event| event.id);
        let log = Log { folder: folder.to_owned(), segments, open: None, synced: 0, closed_pages: 0 };
        Ok((log, found))
    }

    /// Hands events to the kernel.
    pub(super) fn append(&mut self, events: &[Event]) -> io::Result<()> {
        for event in events {
            let json = serde_json::to_string(event)?;
            let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
            self.make_room(event.id)?;
            let Some((file, len)) = &mut self.open else { continue };
            if let Err(error) = file.write_all(line.as_bytes()) {
                // What a full disk took of the line must not spoil the next one.
                file.set_len(*len).ok();
                return Err(error);
            }
            *len += line.len() as u64;
        }
        Ok(())
    }

    /// Whether something was appended that a power cut would take.
    pub(super) fn is_dirty(&self) -> bool {
        self.closed_pages > 0 || self.open.as_ref().is_some_and(|(_, len)| *len > self.synced)
    }

    /// What the next [`Log::sync`] writes to flash, in bytes: whole pages, and one for the file system.
    pub(super) fn sync_cost(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, |(_, len)| pages(self.synced, *len));
        (self.closed_pages + open + 1) * PAGE
    }

    /// Forces what was appended to flash.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if let Some((file, len)) = &self.open {
            file.sync_data()?;
            self.synced = *len;
        }
        self.closed_pages = 0;
        Ok(())
    }

    fn make_room(&mut self, id: u64) -> io::Result<()> {
        if let Some((file, len)) = &self.open {
            if *len < SEGMENT_MAX {
                return Ok(());
            }
            file.sync_data()?;
            self.closed_pages += pages(self.synced, *len);
            self.open = None;
        }
        // After a start the newest segment goes on, if it has room.
        let newest = self.segments.last().copied();
        let newest_len =
            newest.and_then(|first| Some(self.folder.join(name_of(first)).metadata().ok()?.len()));
        let first = match (newest, newest_len) {
            (Some(first), Some(len)) if len < SEGMENT_MAX => first,
            _ => {
                self.segments.push(id);
                id
            }
        };
        while self.segments.len() > SEGMENTS {
            let oldest = self.segments.remove(0);
            std::fs::remove_file(self.folder.join(name_of(oldest)))?;
        }
        let path = self.folder.join(name_of(first));
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        // A line that was cut by the end of the run before ends here.
        let mut len = file.metadata()?.len();
        if len > 0 {
            file.write_all(b"\n")?;
            len += 1;
        }
        self.synced = len;
        self.open = Some((file, len));
        Ok(())
    }
}

fn pages(from: u64, to: u64) -> u64 {
    to.div_ceil(PAGE).saturating_sub(from / PAGE)
}

fn name_of(first: u64) -> String {
    format!("{PREFIX}{first:020}{SUFFIX}")
}

fn first_id(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(READ_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What must hold for any bytes: no panic, and only lines whose checksum fits are taken.
fn take(bytes: &[u8], found: &mut Found) {
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match event_of(line) {
            Some(event) => found.events.push(event),
            None => found.damaged += 1,
        }
    }
}

fn event_of(line: &[u8]) -> Option<Event> {
    let (sum, json) = line.split_at_checked(9)?;
    let sum = std::str::from_utf8(sum).ok()?.strip_suffix(' ')?;
    let sum = u32::from_str_radix(sum, 16).ok()?;
    (crc32fast::hash(json) == sum).then(|| serde_json::from_slice(json).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_model::EventKind;

    fn event(id: u64) -> Event {
        Event { id, ..Event::new(EventKind::Notice, format!("the {id}th thing, \u{e4} with some words")) }
    }

    fn folder() -> PathBuf {
        let name: u64 = std::process::id().into();
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("fieldgate-recorder-{name}-{number}"));
        std::fs::remove_dir_all(&folder).ok();
        folder
    }

    fn ids(found: &Found) -> Vec<u64> {
        found.events.iter().map(|event| event.id).collect()
    }

    #[test]
    fn what_was_appended_is_there_again_and_goes_on_in_the_same_file() {
        let folder = folder();
        for run in 0..3 {
            let (mut log, found) = Log::open(&folder).unwrap();
            assert_eq!(ids(&found), (0..run * 2).collect::<Vec<_>>());
            log.append(&[event(run * 2), event(run * 2 + 1)]).unwrap();
            assert!(log.is_dirty());
            log.sync().unwrap();
            assert!(!log.is_dirty());
        }
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_files_are_bounded_and_the_newest_are_kept() {
        let folder = folder();
        let (mut log, _) = Log::open(&folder).unwrap();
        for id in 0..8_000 {
            log.append(&[event(id)]).unwrap();
        }
        let (_, found) = Log::open(&folder).unwrap();
        let len: u64 =
            std::fs::read_dir(&folder).unwrap().map(|it| it.unwrap().metadata().unwrap().len()).sum();
        assert!(len <= SEGMENTS as u64 * (SEGMENT_MAX + 1_024), "{len}");
        assert_eq!((found.damaged, ids(&found).last().copied()), (0, Some(7_999)));
        assert!(found.events.len() > 1_500, "{}", found.events.len());
        assert!(found.events.windows(2).all(|pair| pair[0].id + 1 == pair[1].id));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_damaged_line_is_counted_and_the_others_stand() {
        let folder = folder();
        let (mut log, _) = Log::open(&folder).unwrap();
        log.append(&(0..5).map(event).collect::<Vec<_>>()).unwrap();
        drop(log);
        let file = folder.join(name_of(0));
        let whole = std::fs::read(&file).unwrap();
        // Cut at every byte: what is before the cut stands, at most one line is lost, and writing goes on after it.
        for len in 0..whole.len() {
            std::fs::write(&file, &whole[..len]).unwrap();
            let (mut log, found) = Log::open(&folder).unwrap();
            let lines = whole[..len].iter().filter(|byte| **byte == b'\n').count();
            assert!(found.events.len() >= lines && found.damaged <= 1, "cut at {len}");
            log.append(&[event(9)]).unwrap();
            let (_, found) = Log::open(&folder).unwrap();
            assert_eq!(ids(&found).last(), Some(&9), "cut at {len}");
        }
        // Each byte turned over spoils its own line, or two when it is the end of one.
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x41;
            let mut found = Found::default();
            take(&bytes, &mut found);
            assert!(found.events.len() >= 3 && found.damaged >= 1, "at {at}: {found:?}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_a_sync_costs_is_counted_in_pages() {
        let folder = folder();
        let (mut log, _) = Log::open(&folder).unwrap();
        log.append(&[event(0)]).unwrap();
        assert_eq!(log.sync_cost(), 2 * PAGE);
        log.sync().unwrap();
        log.append(&(1..100).map(event).collect::<Vec<_>>()).unwrap();
        let cost = log.sync_cost();
        assert!((4 * PAGE..=7 * PAGE).contains(&cost), "{cost}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
